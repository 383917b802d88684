//! A file that has its name only when it is whole: what is half written, for want of space or of input, is never taken for the result.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// An output on its way. Dropped before [`Unfinished::finish`], nothing is left of it.
pub(super) struct Unfinished {
    place: PathBuf,
    wanted: PathBuf,
}

impl Unfinished {
    /// A name beside the wanted one, with the same ending, by which programs know the format.
    pub(super) fn beside(wanted: &Path) -> Self {
        let name = wanted.file_name().unwrap_or_default().to_string_lossy();
        let place = wanted.with_file_name(format!(".{:08x}-{name}", rand::random::<u32>()));
        Self { place, wanted: wanted.into() }
    }

    /// Where to write to.
    pub(super) fn place(&self) -> &Path {
        &self.place
    }

    /// It is whole: from now on it has its name.
    pub(super) fn finish(self) -> io::Result<()> {
        fs::rename(&self.place, &self.wanted)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Gone already, when it was finished or never begun.
        _ = fs::remove_file(&self.place);
    }
}
