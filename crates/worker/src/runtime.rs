//! The inference runtime of the configuration.

use std::sync::Arc;

use ooblex_config::{BackendChoice, Inference};
use ooblex_effects::{Backend, Effect, ModelStore, Runtime, verify_models};
use tracing::warn;

/// Loads the inference runtime and locates the model files of `effects`, and verifies both.
///
/// # Errors
/// When the requested backend or device is not available, or a model file is missing or corrupted.
pub fn inference(config: &Inference, effects: &[Arc<dyn Effect>]) -> anyhow::Result<(Runtime, ModelStore)> {
    let wanted = match config.backend {
        BackendChoice::Auto => None,
        BackendChoice::OnnxRuntime => Some(Backend::Ort),
        BackendChoice::Rten => Some(Backend::Rten),
    };
    let runtime = Runtime::load(config.library.as_deref(), wanted)?.with_threads(config.threads_per_frame).with_device(config.device)?;
    if let Some(warning) = runtime.warning() {
        warn!("{warning}");
    }
    let store = config.models.as_ref().map_or_else(ModelStore::embedded, ModelStore::folder);
    verify_models(&store, effects)?;
    Ok((runtime, store))
}
