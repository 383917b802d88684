//! Reasons why a folder cannot be used as an effect. Every message begins with the file, and the
//! line if there is one, and ends with the remedy.

use std::fmt;
use std::io;
use std::path::PathBuf;

use ooblex_inference::{LoadError, RunError};

/// A place in a file, such as `effects.d/glow/effect.toml:12`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Path of the file.
    pub path: PathBuf,
    /// Line number, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// Reason why a folder cannot be served as an effect.
#[derive(Debug, thiserror::Error)]
pub enum CustomEffectError {
    /// A file or folder is missing or cannot be read.
    #[error("{path}: it cannot be read ({reason}): an effect is a folder with an effect.toml and the ONNX file that it names", path = .path.display())]
    Unreadable {
        /// Path of the file or folder.
        path: PathBuf,
        /// Error message of the operating system.
        reason: io::Error,
    },
    /// A path is not a regular file but a folder, a pipe or a device.
    #[error("{path}: it is no regular file: put a copy of the file there", path = .path.display())]
    NoFile {
        /// The path.
        path: PathBuf,
    },
    /// A symbolic link leads out of the folder.
    #[error("{path}: it leads out of its folder, to {target}: put a copy of the file there", path = .path.display(), target = .target.display())]
    LeadsOut {
        /// Path of the link.
        path: PathBuf,
        /// Target of the link.
        target: PathBuf,
    },
    /// A file is larger than allowed.
    #[error("{path}: it has {got} bytes, and {most} are allowed: {remedy}", path = .path.display())]
    TooLarge {
        /// Path of the file.
        path: PathBuf,
        /// Actual size in bytes.
        got: u64,
        /// Maximum size in bytes.
        most: u64,
        /// The remedy.
        remedy: &'static str,
    },
    /// `effect.toml` has a syntax error or an invalid value.
    #[error("{place}: {what}")]
    Declaration {
        /// Place of the error.
        place: Place,
        /// Description of the defect and the remedy.
        what: String,
    },
    /// The model's file is not an ONNX file, or keeps its weights in other files.
    #[error("{path}: {what}", path = .path.display())]
    Model {
        /// Path of the model's file.
        path: PathBuf,
        /// Description of the defect and the remedy.
        what: String,
    },
    /// A tensor of the model does not match the declaration.
    #[error("{place}: tensor '{tensor}' of {model}: {what}")]
    Tensor {
        /// Place of the tensor's declaration.
        place: Place,
        /// Name of the tensor.
        tensor: String,
        /// Name of the model's file.
        model: String,
        /// Description of the mismatch and the remedy.
        what: String,
    },
    /// The backend cannot load the model, for example because it lacks an operator.
    #[error("{path}: {error}: export the model with operators that it has, or choose another backend", path = .path.display())]
    Load {
        /// Path of the model's file.
        path: PathBuf,
        /// Error of the backend.
        error: LoadError,
    },
    /// The model failed when it was tried on a picture.
    #[error("{path}: {error}", path = .path.display())]
    Run {
        /// Path of the model's file.
        path: PathBuf,
        /// Error of the run.
        error: RunError,
    },
    /// The model's values are outside the declared range.
    #[error("{place}: tensor '{tensor}' of {model} has values from {least} to {most} on a picture, where {expected} is declared: {remedy}")]
    Values {
        /// Place of the tensor's declaration.
        place: Place,
        /// Name of the tensor.
        tensor: Box<str>,
        /// Name of the model's file.
        model: String,
        /// Smallest value.
        least: f32,
        /// Largest value.
        most: f32,
        /// The declared range.
        expected: String,
        /// The remedy.
        remedy: &'static str,
    },
}

impl CustomEffectError {
    pub(super) fn unreadable(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |reason| Self::Unreadable { path, reason }
    }
}
