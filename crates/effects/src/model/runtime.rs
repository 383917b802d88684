//! The choice of what runs models, made once at start: ONNX Runtime when its library is found, else rten.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};

use super::{LoadError, Model, ModelSpec, ort, rten};

/// What runs models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// ONNX Runtime, loaded from a shared library: 2 to 6 times as fast as rten.
    Ort,
    /// rten, compiled in: always there.
    Rten,
}

impl Backend {
    /// The word in configuration, logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Backend::Ort => "ort",
            Backend::Rten => "rten",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A backend that is ready to load models. Shared by all worker threads.
#[derive(Debug)]
pub struct Runtime {
    loaded: Loaded,
    /// Most threads that compute one frame.
    threads: usize,
    warning: Option<String>,
}

#[derive(Debug)]
enum Loaded {
    Ort(ort::Library),
    Rten,
}

/// ONNX Runtime was asked for by name and can not be had.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The library is in none of the places where it is looked for.
    #[error("ONNX Runtime was asked for, but there is no {LIBRARY}* in any of: {searched}; {MEND}")]
    NotFound {
        /// Those places.
        searched: String,
    },
    /// The file that was named is not there, or can not be loaded.
    #[error("ONNX Runtime can not be loaded from {library}: {reason}; {MEND}")]
    Unusable {
        /// The file.
        library: PathBuf,
        /// The loader's words.
        reason: String,
    },
}

const LIBRARY: &str = "libonnxruntime.so";
const MEND: &str = "take libonnxruntime.so from the PyPI wheel of onnxruntime 1.24 or newer ('make run' does) and name it by ORT_DYLIB_PATH, \
                    or choose the backend rten";

impl Runtime {
    /// Chooses and loads a backend. The library of ONNX Runtime is looked for in this order:
    ///
    /// 1. `library`, if given;
    /// 2. the environment variable `ORT_DYLIB_PATH`, if set and not empty;
    /// 3. `libonnxruntime.so*` beside the executable;
    /// 4. `libonnxruntime.so*` in `.runtime/` of the current folder;
    /// 5. the same in `.runtime/` of each folder above the executable.
    ///
    /// When neither a library nor [`Backend::Ort`] was asked for and it is not found or can not be loaded, the backend is rten
    /// and [`Runtime::warning`] says why.
    ///
    /// # Errors
    /// When ONNX Runtime was asked for (by `library`, by the environment or by `wanted`) and can not be had.
    pub fn load(library: Option<&Path>, wanted: Option<Backend>) -> Result<Self, RuntimeError> {
        if wanted == Some(Backend::Rten) {
            return Ok(Self { loaded: Loaded::Rten, threads: 1, warning: None });
        }
        let named = library.map(PathBuf::from).or_else(|| env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from));
        let asked_for = named.is_some() || wanted == Some(Backend::Ort);
        match named.map_or_else(find, Ok).and_then(open) {
            Ok(library) => Ok(Self { loaded: Loaded::Ort(library), threads: 1, warning: None }),
            Err(error) if asked_for => Err(error),
            Err(error) => {
                let warning = format!("models run on rten, several times slower than on ONNX Runtime: {}", reason(&error));
                Ok(Self { loaded: Loaded::Rten, threads: 1, warning: Some(warning) })
            }
        }
    }

    /// Lets up to `threads` compute a frame of a model that is large enough, instead of one: a frame is done sooner, and all
    /// frames together take longer.
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads: threads.max(1), ..self }
    }

    /// Which backend it is.
    pub fn backend(&self) -> Backend {
        match self.loaded {
            Loaded::Ort(_) => Backend::Ort,
            Loaded::Rten => Backend::Rten,
        }
    }

    /// The file that the backend was loaded from, for the operator; nobody else needs to know.
    pub fn origin(&self) -> Option<&Path> {
        match &self.loaded {
            Loaded::Ort(library) => Some(library.path()),
            Loaded::Rten => None,
        }
    }

    /// The backend with its version, for people.
    pub fn describe(&self) -> String {
        match &self.loaded {
            Loaded::Ort(library) => library.describe(),
            Loaded::Rten => format!("rten {} (built in)", rten::VERSION),
        }
    }

    /// Why it is rten though nobody asked for it, and what would mend that: for the log at start.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Makes one model ready to run.
    pub(super) fn open(&self, spec: &'static ModelSpec, bytes: &[u8]) -> Result<Box<dyn Model>, LoadError> {
        let threads = self.threads.min(spec.threads);
        let opened = match &self.loaded {
            Loaded::Ort(library) => library.open(spec, bytes, threads),
            Loaded::Rten => rten::open(spec, bytes, threads),
        };
        opened.map_err(|reason| LoadError::Backend { backend: self.describe(), model: spec.name, reason })
    }
}

fn open(path: PathBuf) -> Result<ort::Library, RuntimeError> {
    let unusable = |reason| RuntimeError::Unusable { library: path.clone(), reason };
    // A path without a folder would be looked for by the system's loader, anywhere.
    let absolute = path.canonicalize().map_err(|error| unusable(error.to_string()))?;
    ort::Library::load(&absolute).map_err(unusable)
}

/// Looks for the library where nobody named one.
fn find() -> Result<PathBuf, RuntimeError> {
    let executable = env::current_exe().and_then(|path| path.canonicalize()).unwrap_or_default();
    let above = executable.ancestors().skip(1);
    let mut folders: Vec<PathBuf> = above.clone().take(1).map(PathBuf::from).collect();
    folders.push(PathBuf::from(".runtime"));
    folders.extend(above.map(|folder| folder.join(".runtime")));
    folders.iter().find_map(|folder| newest_library_in(folder)).ok_or_else(|| {
        let searched: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
        RuntimeError::NotFound { searched: searched.join(", ") }
    })
}

/// The file whose name sorts last, which is the one with the fullest version.
fn newest_library_in(folder: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(folder).ok()?.flatten();
    let libraries = files.filter(|file| file.file_name().to_string_lossy().starts_with(LIBRARY));
    libraries.map(|file| file.path()).filter(|path| path.is_file()).max()
}

/// The same facts for someone who did not ask for ONNX Runtime.
fn reason(error: &RuntimeError) -> String {
    match error {
        RuntimeError::NotFound { searched } => format!("no {LIBRARY}* in any of: {searched}; {MEND}"),
        other => other.to_string(),
    }
}
