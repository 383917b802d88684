//! Why a folder is no effect. Every message begins with the file, and its line where there is one, and ends with the mend.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::model::{LoadError, RunError};

/// A place in a file: `effects.d/glow/effect.toml:12`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// From 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// A folder that can not be served as an effect.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// A file or folder is not there, or can not be read.
    #[error("{path}: it can not be read ({reason}): an effect is a folder with an effect.toml and the ONNX file that it names", path = .path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's words.
        reason: io::Error,
    },
    /// A file is none: a folder, a pipe, a device.
    #[error("{path}: it is no regular file: put a copy of the file there", path = .path.display())]
    NoFile {
        /// What it is called.
        path: PathBuf,
    },
    /// A link leads out of the folder.
    #[error("{path}: it leads out of its folder, to {target}: put a copy of the file there", path = .path.display(), target = .target.display())]
    LeadsOut {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// A file is larger than allowed.
    #[error("{path}: it has {got} bytes, and {most} are allowed: {mend}", path = .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        got: u64,
        /// The limit.
        most: u64,
        /// What to do.
        mend: &'static str,
    },
    /// `effect.toml` says something that is not understood, or makes no sense.
    #[error("{place}: {what}")]
    Declaration {
        /// Where.
        place: Place,
        /// What is wrong and what would be right.
        what: String,
    },
    /// The model's file is no ONNX, or keeps its weights elsewhere.
    #[error("{path}: {what}", path = .path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// What is wrong and what would be right.
        what: String,
    },
    /// A tensor of the model is not what the declaration says of it.
    #[error("{place}: tensor '{tensor}' of {model}: {what}")]
    Tensor {
        /// Where the declaration says it.
        place: Place,
        /// The tensor.
        tensor: String,
        /// The model's file.
        model: String,
        /// What is wrong and what would be right.
        what: String,
    },
    /// The backend can not load the model, such as for want of an operator.
    #[error("{path}: {error}: export the model with operators that it has, or choose another backend", path = .path.display())]
    Load {
        /// The model's file.
        path: PathBuf,
        /// The backend's words.
        error: LoadError,
    },
    /// The model was tried on a picture and failed.
    #[error("{path}: {error}", path = .path.display())]
    Run {
        /// The model's file.
        path: PathBuf,
        /// What failed.
        error: RunError,
    },
    /// The model gives other values than the declaration says.
    #[error("{place}: tensor '{tensor}' of {model} has values from {least} to {most} on a picture, where {expected} is declared: {mend}")]
    Values {
        /// Where the declaration says it.
        place: Place,
        /// The tensor.
        tensor: &'static str,
        /// The model's file.
        model: String,
        /// The least value.
        least: f32,
        /// The greatest.
        most: f32,
        /// What was declared.
        expected: String,
        /// What to do.
        mend: &'static str,
    },
}

impl OwnError {
    pub(super) fn unreadable(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |reason| Self::Unreadable { path, reason }
    }
}
