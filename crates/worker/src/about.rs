//! Inference backend and device of this process.

use ooblex_effects::Runtime;

/// Inference backend and device of this process; both are `None` if it runs no models.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// Name and version of the backend.
    pub backend: Option<String>,
    /// Name of the device.
    pub device: Option<String>,
}

impl About {
    /// Describes the runtime of a process with workers.
    pub fn workers(runtime: &Runtime) -> Self {
        Self { backend: Some(runtime.describe()), device: Some(runtime.device().to_string()) }
    }
}
