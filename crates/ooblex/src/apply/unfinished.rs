//! Output file that gets its final name only when it is complete, so that a partial file (disk
//! full, truncated input) is never taken for the result.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A file that is being written. It is deleted when this value is dropped before
/// [`Unfinished::finish`].
pub(super) struct Unfinished {
    place: PathBuf,
    wanted: PathBuf,
}

impl Unfinished {
    /// Chooses a temporary name in the directory of `wanted`, with the same extension, because
    /// programs derive the format from it.
    pub(super) fn beside(wanted: &Path) -> Self {
        let name = wanted.file_name().unwrap_or_default().to_string_lossy();
        let place = wanted.with_file_name(format!(".{:08x}-{name}", rand::random::<u32>()));
        Self { place, wanted: wanted.into() }
    }

    /// Returns the temporary path to write to.
    pub(super) fn place(&self) -> &Path {
        &self.place
    }

    /// Renames the complete file to its final name.
    pub(super) fn finish(self) -> io::Result<()> {
        fs::rename(&self.place, &self.wanted)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // The removal fails if the file was renamed or never created.
        _ = fs::remove_file(&self.place);
    }
}
