//! The choice of what runs models, made once at start: ONNX Runtime when its library is found, else rten.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};

use super::{Device, LoadError, Model, ModelSpec, ort, rten};

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
    device: Device,
    warning: Option<String>,
}

#[derive(Debug)]
enum Loaded {
    Ort(ort::Library),
    Rten,
}

/// ONNX Runtime, or a device that only it can use, was asked for and can not be had.
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
    /// A device that only ONNX Runtime can use, while models run on rten.
    #[error("the device {device} needs ONNX Runtime, but the backend is rten{because}; {mend}, or choose the device cpu", mend = mend_library(*device))]
    DeviceOnRten {
        /// What was asked for.
        device: Device,
        /// Why it is rten though nobody asked for it; empty if somebody did.
        because: &'static str,
    },
    /// The library was built without the device.
    #[error("the library {library} was built for {built_for}, not for {device}; {mend}, or choose the device cpu", mend = mend_library(*device))]
    DeviceNotBuiltIn {
        /// What was asked for.
        device: Device,
        /// The file.
        library: PathBuf,
        /// The devices that it was built for, comma separated.
        built_for: String,
    },
    /// The library knows the device, and can not use it on this machine.
    #[error("the device {device} can not be used by {library}: {reason}; {needs}; or choose the device cpu", needs = device.needs())]
    DeviceUnusable {
        /// What was asked for.
        device: Device,
        /// The file.
        library: PathBuf,
        /// The library's words.
        reason: String,
    },
}

const LIBRARY: &str = "libonnxruntime.so";
const MEND: &str = "take libonnxruntime.so from the PyPI wheel of onnxruntime 1.24 or newer ('make run' does) and name it by ORT_DYLIB_PATH, \
                    or choose the backend rten";

impl Runtime {
    /// The folders in which the library of ONNX Runtime is looked for when nobody names one, the first one first.
    pub fn library_folders() -> Vec<PathBuf> {
        let executable = env::current_exe().and_then(|path| path.canonicalize()).unwrap_or_default();
        let above = executable.ancestors().skip(1);
        let mut folders: Vec<PathBuf> = above.clone().take(1).map(PathBuf::from).collect();
        folders.push(PathBuf::from(".runtime"));
        folders.extend(above.map(|folder| folder.join(".runtime")));
        folders
    }

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
            return Ok(Self { loaded: Loaded::Rten, threads: 1, device: Device::Cpu, warning: None });
        }
        let named = library.map(PathBuf::from).or_else(|| env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from));
        let asked_for = named.is_some() || wanted == Some(Backend::Ort);
        match named.map_or_else(find, Ok).and_then(open) {
            Ok(library) => Ok(Self { loaded: Loaded::Ort(library), threads: 1, device: Device::Cpu, warning: None }),
            Err(error) if asked_for => Err(error),
            Err(error) => {
                let warning = format!("models run on rten, several times slower than on ONNX Runtime: {}", reason(&error));
                Ok(Self { loaded: Loaded::Rten, threads: 1, device: Device::Cpu, warning: Some(warning) })
            }
        }
    }

    /// Lets up to `threads` compute a frame of a model that is large enough, instead of one: a frame is done sooner, and all
    /// frames together take longer.
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads: threads.max(1), ..self }
    }

    /// Chooses what computes the models, instead of the processor.
    ///
    /// For another device than [`Device::Cpu`] this holds: the library of ONNX Runtime was built for the device and could set it up,
    /// or this is an error; and [`Models::load`](crate::Models::load) fails unless the device ran at least one node of each model.
    /// Nodes that the device has no code for are computed on the processor: few as a rule, such as those that compute shapes. That
    /// no model runs wholly on another device than was asked for is guaranteed, not that each node runs on it.
    ///
    /// # Errors
    /// When the backend is rten, which knows the processor only, or the library of ONNX Runtime can not use the device.
    pub fn with_device(self, device: Device) -> Result<Self, RuntimeError> {
        match &self.loaded {
            _ if device == Device::Cpu => {}
            Loaded::Rten => {
                let because = self.warning.as_ref().map_or("", |_| ", since no library of ONNX Runtime was found that can be loaded");
                return Err(RuntimeError::DeviceOnRten { device, because });
            }
            Loaded::Ort(library) => check(library, device)?,
        }
        Ok(Self { device, ..self })
    }

    /// What computes the models.
    pub fn device(&self) -> Device {
        self.device
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

    /// The backend with its version, and the device if it is not the processor, for people.
    pub fn describe(&self) -> String {
        match (&self.loaded, self.device) {
            (Loaded::Ort(library), Device::Cpu) => library.describe(),
            (Loaded::Ort(library), device) => format!("{} on {device}", library.describe()),
            (Loaded::Rten, _) => format!("rten {} (built in)", rten::VERSION),
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
            Loaded::Ort(library) => library.open(spec, bytes, threads, self.device),
            Loaded::Rten => rten::open(spec, bytes, threads),
        };
        opened.map_err(|reason| {
            let reason = match self.device {
                Device::Cpu => reason,
                device => format!("{reason}; {}; or choose the device cpu", device.needs()),
            };
            LoadError::Backend { backend: self.describe(), model: spec.name, reason }
        })
    }
}

/// Whether the library can use the device, as far as this shows without a model.
fn check(library: &ort::Library, device: Device) -> Result<(), RuntimeError> {
    let built_for = library.devices();
    if !built_for.iter().any(|known| known.label() == device.label()) {
        let built_for = built_for.iter().map(|known| known.label()).collect::<Vec<_>>().join(", ");
        return Err(RuntimeError::DeviceNotBuiltIn { device, library: library.path().into(), built_for });
    }
    library.try_device(device).map_err(|reason| RuntimeError::DeviceUnusable { device, library: library.path().into(), reason })
}

/// Where a library comes from that knows the device.
fn mend_library(device: Device) -> String {
    format!(
        "take {LIBRARY} and what lies beside it from {}, version 1.24 or newer, and name it by inference.library or ORT_DYLIB_PATH",
        device.library_source()
    )
}

fn open(path: PathBuf) -> Result<ort::Library, RuntimeError> {
    let unusable = |reason| RuntimeError::Unusable { library: path.clone(), reason };
    // A path without a folder would be looked for by the system's loader, anywhere.
    let absolute = path.canonicalize().map_err(|error| unusable(error.to_string()))?;
    ort::Library::load(&absolute).map_err(unusable)
}

/// Looks for the library where nobody named one.
fn find() -> Result<PathBuf, RuntimeError> {
    let folders = Runtime::library_folders();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn on_rten(warning: Option<String>) -> Runtime {
        Runtime { loaded: Loaded::Rten, threads: 1, device: Device::Cpu, warning }
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
