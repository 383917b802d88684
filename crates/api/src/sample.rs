//! Sample picture for thumbnails and trials of effects.

/// NASA's portrait of Eileen Collins as PNG, 320×180, in the public domain: see `models/README.md`.
pub const SAMPLE: &[u8] = include_bytes!("thumbnails/sample.png");
