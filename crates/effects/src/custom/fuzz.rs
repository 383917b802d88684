//! Fuzzing entry points of the readers of a custom effect's files. Each accepts any bytes and must
//! neither panic nor allocate without bound.

use std::path::Path;

use super::graph::Graph;
use super::spec::Declaration;

/// Parses bytes as an `effect.toml`.
pub fn effect_toml(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        _ = Declaration::parse(Path::new("effect.toml"), text);
    }
}

/// Parses bytes as an ONNX file.
pub fn onnx_graph(bytes: &[u8]) {
    _ = Graph::read(bytes);
}
