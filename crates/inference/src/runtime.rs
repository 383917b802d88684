//! Choice of the backend at start: ONNX Runtime if its library is found, else rten, if the program
//! was built with it.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};

use super::rten::Rten;
use super::{Device, LoadError, Model, ModelSpec, ort};

/// Library that runs models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// ONNX Runtime, loaded from a shared library. It is 2 to 6 times as fast as rten.
    Ort,
    /// rten, which is compiled in with the feature `rten`.
    Rten,
}

impl Backend {
    /// Returns the name of the backend in configuration, logs and metrics.
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

/// A backend that is ready to load models. All worker threads share it.
#[derive(Debug)]
pub struct Runtime {
    loaded: Loaded,
    /// Maximum number of threads that compute one frame.
    threads: usize,
    device: Device,
    warning: Option<String>,
}

#[derive(Debug)]
enum Loaded {
    Ort(ort::Library),
    Rten(Rten),
}

/// Reason why ONNX Runtime, or a device that needs it, was requested but cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The library is in none of the searched folders.
    #[error("models need ONNX Runtime, but there is no {LIBRARY}* in any of: {searched}; {}", remedy())]
    NotFound {
        /// The searched folders, comma separated.
        searched: String,
    },
    /// The library file is missing or cannot be loaded.
    #[error("ONNX Runtime cannot be loaded from {library}: {reason}; {}", remedy())]
    Unusable {
        /// Path of the library.
        library: PathBuf,
        /// Error message of the loader.
        reason: String,
    },
    /// The program was built without rten.
    #[error(
        "this program was built without rten; build it with `cargo build --release --features rten`, or choose the backend onnx_runtime"
    )]
    NoRten,
    /// The device needs ONNX Runtime, but models run on rten.
    #[error("the device {device} needs ONNX Runtime, but the backend is rten{because}; {remedy}, or choose the device cpu", remedy = remedy_library(*device))]
    DeviceOnRten {
        /// The requested device.
        device: Device,
        /// Reason why rten was chosen automatically; empty if it was configured.
        because: &'static str,
    },
    /// The library was built without support for the device.
    #[error("the library {library} was built for {built_for}, not for {device}; {remedy}, or choose the device cpu", remedy = remedy_library(*device))]
    DeviceNotBuiltIn {
        /// The requested device.
        device: Device,
        /// Path of the library.
        library: PathBuf,
        /// Devices that the library was built for, comma separated.
        built_for: String,
    },
    /// The library supports the device but cannot use it on this machine.
    #[error("the device {device} cannot be used by {library}: {reason}; {needs}; or choose the device cpu", needs = device.needs())]
    DeviceUnusable {
        /// The requested device.
        device: Device,
        /// Path of the library.
        library: PathBuf,
        /// Error message of the library.
        reason: String,
    },
}

const LIBRARY: &str = "libonnxruntime.so";

/// Returns the remedy for a missing library.
fn remedy() -> String {
    let other = if Rten::built_in().is_some() { "choose the backend rten" } else { "build with `--features rten`" };
    format!("take {LIBRARY} from the PyPI wheel of onnxruntime 1.24 or newer ('make run' does) and name it by ORT_DYLIB_PATH, or {other}")
}

impl Runtime {
    /// Returns the folders that are searched, in order, for the library of ONNX Runtime if no path
    /// is configured.
    pub fn library_folders() -> Vec<PathBuf> {
        let executable = env::current_exe().and_then(|path| path.canonicalize()).unwrap_or_default();
        let above = executable.ancestors().skip(1);
        let mut folders: Vec<PathBuf> = above.clone().take(1).map(PathBuf::from).collect();
        folders.push(PathBuf::from(".runtime"));
        folders.extend(above.map(|folder| folder.join(".runtime")));
        folders
    }

    /// Chooses and loads a backend. The library of ONNX Runtime is searched for in this order:
    ///
    /// 1. `library`, if given;
    /// 2. the environment variable `ORT_DYLIB_PATH`, if set and not empty;
    /// 3. `libonnxruntime.so*` beside the executable;
    /// 4. `libonnxruntime.so*` in `.runtime/` of the current folder;
    /// 5. `libonnxruntime.so*` in `.runtime/` of each folder above the executable.
    ///
    /// If neither a library nor [`Backend::Ort`] was requested and the library is not found or
    /// cannot be loaded, the backend is rten and [`Runtime::warning`] gives the reason.
    ///
    /// # Errors
    /// When ONNX Runtime is not available and was requested (by `library`, by the environment or by
    /// `wanted`), or the program was built without rten.
    pub fn load(library: Option<&Path>, wanted: Option<Backend>) -> Result<Self, RuntimeError> {
        if wanted == Some(Backend::Rten) {
            return Rten::built_in().map(|rten| Self::on(Loaded::Rten(rten))).ok_or(RuntimeError::NoRten);
        }
        let named = library.map(PathBuf::from).or_else(|| env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from));
        let asked_for = named.is_some() || wanted == Some(Backend::Ort);
        match named.map_or_else(find, Ok).and_then(open) {
            Ok(library) => Ok(Self::on(Loaded::Ort(library))),
            Err(error) => match Rten::built_in() {
                Some(rten) if !asked_for => {
                    let warning = format!("models run on rten, several times slower than on ONNX Runtime: {error}");
                    Ok(Self { warning: Some(warning), ..Self::on(Loaded::Rten(rten)) })
                }
                _ => Err(error),
            },
        }
    }

    fn on(loaded: Loaded) -> Self {
        Self { loaded, threads: 1, device: Device::Cpu, warning: None }
    }

    /// Lets up to `threads` threads compute a frame of a model that is large enough, instead of
    /// one. That reduces the latency of a frame and the total throughput.
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads: threads.max(1), ..self }
    }

    /// Chooses the device that runs the models; the default is the CPU.
    ///
    /// For any other device the library of ONNX Runtime must be built for it and be able to set it
    /// up; otherwise this is an error. [`Models::load`](crate::Models::load) then fails unless the
    /// device has run at least one node of each model. Nodes that the device does not support run
    /// on the CPU: usually few, such as those that compute shapes. It is guaranteed that no model
    /// runs entirely on another device, not that every node runs on the requested one.
    ///
    /// # Errors
    /// When the backend is rten, which supports the CPU only, or the library of ONNX Runtime cannot
    /// use the device.
    pub fn with_device(self, device: Device) -> Result<Self, RuntimeError> {
        match &self.loaded {
            _ if device == Device::Cpu => {}
            Loaded::Rten(_) => {
                let because = self.warning.as_ref().map_or("", |_| ", since no library of ONNX Runtime was found that can be loaded");
                return Err(RuntimeError::DeviceOnRten { device, because });
            }
            Loaded::Ort(library) => check(library, device)?,
        }
        Ok(Self { device, ..self })
    }

    /// Returns the device that runs the models.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Returns the backend that was chosen.
    pub fn backend(&self) -> Backend {
        match self.loaded {
            Loaded::Ort(_) => Backend::Ort,
            Loaded::Rten(_) => Backend::Rten,
        }
    }

    /// Returns the file that the backend was loaded from, which concerns only the operator.
    pub fn origin(&self) -> Option<&Path> {
        match &self.loaded {
            Loaded::Ort(library) => Some(library.path()),
            Loaded::Rten(_) => None,
        }
    }

    /// Returns a description for users: the backend with its version, and the device unless it is
    /// the CPU.
    pub fn describe(&self) -> String {
        match (&self.loaded, self.device) {
            (Loaded::Ort(library), Device::Cpu) => library.describe(),
            (Loaded::Ort(library), device) => format!("{} on {device}", library.describe()),
            (Loaded::Rten(rten), _) => rten.describe(),
        }
    }

    /// Returns the reason why rten was chosen automatically, and the remedy, for the log at start.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Loads one model.
    pub(super) fn open(&self, spec: &ModelSpec, bytes: &[u8]) -> Result<Box<dyn Model>, LoadError> {
        let threads = self.threads.min(spec.threads);
        let opened = match &self.loaded {
            Loaded::Ort(library) => library.open(spec, bytes, threads, self.device),
            Loaded::Rten(rten) => rten.open(spec, bytes, threads),
        };
        opened.map_err(|reason| {
            let reason = match self.device {
                Device::Cpu => reason,
                device => format!("{reason}; {}; or choose the device cpu", device.needs()),
            };
            LoadError::Backend { backend: self.describe(), model: spec.name.to_string(), reason }
        })
    }
}

/// Checks that the library can use the device, as far as this can be detected without a model.
fn check(library: &ort::Library, device: Device) -> Result<(), RuntimeError> {
    let built_for = library.devices();
    if !built_for.iter().any(|known| known.label() == device.label()) {
        let built_for = built_for.iter().map(|known| known.label()).collect::<Vec<_>>().join(", ");
        return Err(RuntimeError::DeviceNotBuiltIn { device, library: library.path().into(), built_for });
    }
    library.try_device(device).map_err(|reason| RuntimeError::DeviceUnusable { device, library: library.path().into(), reason })
}

/// Returns the remedy for a missing library: the source of one that supports the device.
fn remedy_library(device: Device) -> String {
    format!(
        "take {LIBRARY} and what lies beside it from {}, version 1.24 or newer, and name it by inference.library or ORT_DYLIB_PATH",
        device.library_source()
    )
}

fn open(path: PathBuf) -> Result<ort::Library, RuntimeError> {
    let unusable = |reason| RuntimeError::Unusable { library: path.clone(), reason };
    // The system's loader would search for a path without a folder in its own places.
    let absolute = path.canonicalize().map_err(|error| unusable(error.to_string()))?;
    ort::Library::load(&absolute).map_err(unusable)
}

/// Searches for the library if no path is configured.
fn find() -> Result<PathBuf, RuntimeError> {
    let folders = Runtime::library_folders();
    folders.iter().find_map(|folder| newest_library_in(folder)).ok_or_else(|| {
        let searched: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
        RuntimeError::NotFound { searched: searched.join(", ") }
    })
}

/// Returns the library file whose name sorts last, which is the one with the longest version.
fn newest_library_in(folder: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(folder).ok()?.flatten();
    let libraries = files.filter(|file| file.file_name().to_string_lossy().starts_with(LIBRARY));
    libraries.map(|file| file.path()).filter(|path| path.is_file()).max()
}

#[cfg(all(test, feature = "rten"))]
mod tests {
    use super::*;

    fn on_rten(warning: Option<String>) -> Runtime {
        Runtime { warning, ..Runtime::on(Loaded::Rten(Rten::built_in().expect("the feature is on"))) }
    }

    #[test]
    fn rten_knows_the_processor_alone() {
        assert_eq!(on_rten(None).with_device(Device::Cpu).unwrap().device(), Device::Cpu);
        for device in Device::ALL.into_iter().filter(|device| *device != Device::Cpu) {
            let refused = on_rten(None).with_device(device).unwrap_err().to_string();
            assert!(refused.starts_with(&format!("the device {device} needs ONNX Runtime, but the backend is rten; take ")), "{refused}");
            assert!(refused.contains(device.library_source()) && refused.ends_with("or choose the device cpu"), "{refused}");
        }
    }

    #[test]
    fn a_device_on_rten_that_nobody_asked_for_is_told_why() {
        let refused = on_rten(Some("it is slow".into())).with_device(Device::Cuda { index: 1 }).unwrap_err().to_string();
        assert!(refused.starts_with("the device cuda:1 needs ONNX Runtime, but the backend is rten, since no library"), "{refused}");
    }
}
