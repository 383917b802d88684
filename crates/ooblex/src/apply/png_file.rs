//! Pictures as PNG files.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use ooblex_api::picture::{decode_png, encode_png};
use ooblex_pipeline::Rgb;

use super::unfinished;

/// Reads a PNG file.
pub(super) fn read_png(path: &Path) -> anyhow::Result<Rgb> {
    let bytes = std::fs::read(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    decode_png(&bytes).with_context(|| format!("{} cannot be read as PNG", path.display()))
}

/// Writes a PNG file; after an error, no partial file remains.
pub(super) fn write_png(path: &Path, picture: &Rgb) -> anyhow::Result<()> {
    let can_not = || format!("{} cannot be written", path.display());
    let mut file = unfinished(path).with_context(can_not)?;
    file.write_all(&encode_png(picture)?).with_context(can_not)?;
    file.persist(path).map_err(|error| error.error).with_context(can_not)?;
    Ok(())
}
