//! Where the bytes of models come from, and whether they are the right ones. It does not know what runs them.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::ModelSpec;
use crate::effect::Effect;

/// The models that were built into the program, or a folder that holds the same files.
#[derive(Debug, Clone)]
pub struct ModelStore(Option<PathBuf>);

/// A model file that can not be used. The message names the file, what is wrong with it, and the mend.
#[derive(Debug, thiserror::Error)]
pub enum ModelFileError {
    /// There is no such file.
    #[error("model file {path} is missing: {mend}")]
    Missing {
        /// Where it was looked for.
        path: String,
        /// What to do.
        mend: &'static str,
    },
    /// It is there and can not be read.
    #[error("model file {path} can not be read ({reason}): mend its permissions, or {mend}")]
    Unreadable {
        /// The file.
        path: String,
        /// The operating system's words.
        reason: io::Error,
        /// What to do.
        mend: &'static str,
    },
    /// It holds nothing.
    #[error("model file {path} is empty (0 bytes instead of {expected}): {mend}")]
    Empty {
        /// The file.
        path: String,
        /// Bytes that it should have.
        expected: usize,
        /// What to do.
        mend: &'static str,
    },
    /// It was cut off, or is another file.
    #[error("model file {path} has {got} bytes instead of {expected}: {mend}")]
    WrongSize {
        /// The file.
        path: String,
        /// Bytes that it has.
        got: u64,
        /// Bytes that it should have.
        expected: usize,
        /// What to do.
        mend: &'static str,
    },
    /// Its bytes are not the right ones.
    #[error("model file {path} is corrupted (sha256 {got} instead of {expected}): {mend}")]
    WrongChecksum {
        /// The file.
        path: String,
        /// Checksum of what is there.
        got: String,
        /// Checksum of what should be there.
        expected: &'static str,
        /// What to do.
        mend: &'static str,
    },
}

const MEND_FOLDER: &str =
    "copy it again from the folder models/ of the source, or configure no folder of models to use those in the program";
const MEND_PROGRAM: &str = "the program itself is damaged, install it again";

impl ModelStore {
    /// The models that were built into the program.
    pub fn embedded() -> Self {
        Self(None)
    }

    /// The models in this folder; those in the program are then not used.
    pub fn folder(path: impl Into<PathBuf>) -> Self {
        Self(Some(path.into()))
    }

    /// Checks the files of all models that `effects` use.
    ///
    /// # Errors
    /// On the first file that is missing or wrong.
    pub fn verify(&self, effects: &[Arc<dyn Effect>]) -> Result<(), ModelFileError> {
        let mut stored = effects.iter().flat_map(|effect| effect.models().iter().filter(|spec| effect.model_bytes(spec).is_none()));
        stored.try_for_each(|spec| self.bytes(spec).map(drop))
    }

    /// The checked bytes of one model.
    ///
    /// # Errors
    /// When the file is missing or is not what it must be.
    pub fn bytes(&self, spec: &ModelSpec) -> Result<Cow<'static, [u8]>, ModelFileError> {
        match &self.0 {
            None => {
                check(spec, "(built in)", spec.embedded, MEND_PROGRAM)?;
                Ok(Cow::Borrowed(spec.embedded))
            }
            Some(folder) => read(spec, &folder.join(spec.file)).map(Cow::Owned),
        }
    }
}

fn read(spec: &ModelSpec, path: &Path) -> Result<Vec<u8>, ModelFileError> {
    let (mend, expected) = (MEND_FOLDER, spec.embedded.len());
    let name = path.display().to_string();
    let failed = |reason: io::Error| match reason.kind() {
        io::ErrorKind::NotFound => ModelFileError::Missing { path: name.clone(), mend },
        _ => ModelFileError::Unreadable { path: name.clone(), reason, mend },
    };
    // The size comes first, so that a wrong file of many gigabytes is not read.
    match fs::metadata(path).map_err(failed)?.len() {
        0 => return Err(ModelFileError::Empty { path: name, expected, mend }),
        got if got != expected as u64 => return Err(ModelFileError::WrongSize { path: name, got, expected, mend }),
        _ => {}
    }
    let bytes = fs::read(path).map_err(failed)?;
    check(spec, &name, &bytes, mend)?;
    Ok(bytes)
}

fn check(spec: &ModelSpec, path: &str, bytes: &[u8], mend: &'static str) -> Result<(), ModelFileError> {
    let got: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if got == spec.sha256 {
        return Ok(());
    }
    let path = if path == "(built in)" { format!("{} {path}", spec.file) } else { path.into() };
    Err(ModelFileError::WrongChecksum { path, got, expected: spec.sha256, mend })
}
