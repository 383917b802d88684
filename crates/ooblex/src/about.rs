//! The backend and the device that run the models of this process.

use ooblex_effects::Runtime;

/// What runs the models of this process; nothing where none are run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// The backend with its version.
    pub backend: Option<String>,
    /// What it computes on.
    pub device: Option<String>,
}

impl About {
    /// Of a process with workers.
    pub fn workers(runtime: &Runtime) -> Self {
        Self { backend: Some(runtime.describe()), device: Some(runtime.device().to_string()) }
    }
}
