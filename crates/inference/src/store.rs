//! Source of the models' bytes, and verification of their checksums.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::ModelSpec;

/// The models built into the program, or a folder with the same files.
#[derive(Debug, Clone)]
pub struct ModelStore(Option<PathBuf>);

/// Reason why a model file cannot be used. The message names the file, the defect and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ModelFileError {
    /// The file does not exist.
    #[error("model file {path} is missing: {remedy}")]
    Missing {
        /// Path of the file.
        path: String,
        /// The remedy.
        remedy: &'static str,
    },
    /// The file exists but cannot be read.
    #[error("model file {path} cannot be read ({reason}): fix its permissions, or {remedy}")]
    Unreadable {
        /// Path of the file.
        path: String,
        /// Error message of the operating system.
        reason: io::Error,
        /// The remedy.
        remedy: &'static str,
    },
    /// The file is empty.
    #[error("model file {path} is empty (0 bytes instead of {expected}): {remedy}")]
    Empty {
        /// Path of the file.
        path: String,
        /// Expected size in bytes.
        expected: usize,
        /// The remedy.
        remedy: &'static str,
    },
    /// The file has the wrong size: it was truncated, or is another file.
    #[error("model file {path} has {got} bytes instead of {expected}: {remedy}")]
    WrongSize {
        /// Path of the file.
        path: String,
        /// Actual size in bytes.
        got: u64,
        /// Expected size in bytes.
        expected: usize,
        /// The remedy.
        remedy: &'static str,
    },
    /// The file has the right size but the wrong checksum.
    #[error("model file {path} is corrupted (sha256 {got} instead of {expected}): {remedy}")]
    WrongChecksum {
        /// Path of the file.
        path: String,
        /// Actual SHA-256 checksum.
        got: String,
        /// Expected SHA-256 checksum.
        expected: String,
        /// The remedy.
        remedy: &'static str,
    },
}

const REMEDY_FOLDER: &str =
    "copy it again from the folder models/ of the source, or configure no folder of models to use those in the program";
const REMEDY_PROGRAM: &str = "the program itself is damaged, install it again";

impl ModelStore {
    /// Returns a store of the models built into the program.
    pub fn embedded() -> Self {
        Self(None)
    }

    /// Returns a store of the models in the folder `path`; the built-in ones are then not used.
    pub fn folder(path: impl Into<PathBuf>) -> Self {
        Self(Some(path.into()))
    }

    /// Verifies the files of all models that `effects` use.
    ///
    /// # Errors
    /// On the first file that is missing or wrong.
    pub fn verify(&self, specs: &[&ModelSpec]) -> Result<(), ModelFileError> {
        specs.iter().try_for_each(|spec| self.bytes(spec).map(drop))
    }

    /// Returns the verified bytes of one model.
    ///
    /// # Errors
    /// When the file is missing or wrong.
    pub fn bytes(&self, spec: &ModelSpec) -> Result<Cow<'static, [u8]>, ModelFileError> {
        match &self.0 {
            None => {
                check(spec, "(built in)", spec.embedded, REMEDY_PROGRAM)?;
                Ok(Cow::Borrowed(spec.embedded))
            }
            Some(folder) => read(spec, &folder.join(spec.file.as_ref())).map(Cow::Owned),
        }
    }
}

fn read(spec: &ModelSpec, path: &Path) -> Result<Vec<u8>, ModelFileError> {
    let (remedy, expected) = (REMEDY_FOLDER, spec.embedded.len());
    let name = path.display().to_string();
    let failed = |reason: io::Error| match reason.kind() {
        io::ErrorKind::NotFound => ModelFileError::Missing { path: name.clone(), remedy },
        _ => ModelFileError::Unreadable { path: name.clone(), reason, remedy },
    };
    // The size is checked first, so that a wrong file of many gigabytes is not read.
    match fs::metadata(path).map_err(failed)?.len() {
        0 => return Err(ModelFileError::Empty { path: name, expected, remedy }),
        got if got != expected as u64 => return Err(ModelFileError::WrongSize { path: name, got, expected, remedy }),
        _ => {}
    }
    let bytes = fs::read(path).map_err(failed)?;
    check(spec, &name, &bytes, remedy)?;
    Ok(bytes)
}

fn check(spec: &ModelSpec, path: &str, bytes: &[u8], remedy: &'static str) -> Result<(), ModelFileError> {
    let got: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if got == spec.sha256 {
        return Ok(());
    }
    let path = if path == "(built in)" { format!("{} {path}", spec.file) } else { path.into() };
    Err(ModelFileError::WrongChecksum { path, got, expected: spec.sha256.to_string(), remedy })
}
