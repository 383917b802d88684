//! The models of effects: loading them, and validating the pictures that they get.

use std::sync::Arc;

use ooblex_inference::{LoadError, ModelFileError, ModelSource, ModelSpec, ModelStore, Models, RunError, Runtime};
use ooblex_pipeline::{ModelInput, Rgb};

use crate::effect::Effect;
use crate::pixels;

/// Loads every model of `effects` and runs it once, since a first run is slow. All of it happens on
/// the calling thread.
///
/// # Errors
/// On the first model whose file is wrong, that does not run, or of which the chosen device runs no
/// node.
pub fn load_models(runtime: &Runtime, store: &ModelStore, effects: &[Arc<dyn Effect>]) -> Result<Models, LoadError> {
    let models = effects.iter().flat_map(|effect| effect.models().into_iter().map(move |spec| (effect, spec)));
    let sources: Vec<_> = models.map(|(effect, spec)| ModelSource { spec, bytes: effect.model_bytes(spec) }).collect();
    Models::load(runtime, store, &sources)
}

/// Verifies the files of all models of `effects` that `store` holds, without loading them.
///
/// # Errors
/// On the first file that is missing or wrong.
pub fn verify_models(store: &ModelStore, effects: &[Arc<dyn Effect>]) -> Result<(), ModelFileError> {
    let stored = effects.iter().flat_map(|effect| effect.models().into_iter().filter(|spec| effect.model_bytes(spec).is_none()));
    store.verify(&stored.collect::<Vec<_>>())
}

/// Returns the specifications of all models of `effects`.
pub fn models_of(effects: &[Arc<dyn Effect>]) -> Vec<&ModelSpec> {
    effects.iter().flat_map(|effect| effect.models()).collect()
}

/// Returns the picture of a prepared frame after validation, since the frame may come from
/// another machine.
///
/// # Errors
/// When the bytes do not match the size, or the content is empty or reaches beyond the picture.
pub(crate) fn checked_picture<'a>(spec: &ModelSpec, input: &'a ModelInput) -> Result<&'a Rgb, RunError> {
    let bad = |reason| Err(RunError::BadInput { model: spec.name.to_string(), reason });
    let picture = &input.picture;
    if let Err(error) = pixels::check(picture) {
        return bad(error.to_string());
    }
    let [left, top, width, height] = input.content;
    let within = |start: u32, length: u32, side| length > 0 && start.checked_add(length).is_some_and(|end| end <= side);
    if !within(left, width, picture.width) || !within(top, height, picture.height) {
        return bad(format!("content {:?} reaches beyond {}x{}", input.content, picture.width, picture.height));
    }
    Ok(picture)
}

/// Returns the validated picture of a prepared frame for a model that accepts a single size.
///
/// # Errors
/// As [`checked_picture`], and when the picture has another size.
pub(crate) fn picture_of<'a>(spec: &ModelSpec, input: &'a ModelInput, width: u32, height: u32) -> Result<&'a Rgb, RunError> {
    let picture = checked_picture(spec, input)?;
    if (picture.width, picture.height) == (width, height) {
        return Ok(picture);
    }
    let reason = format!("{}x{} instead of {width}x{height}", picture.width, picture.height);
    Err(RunError::BadInput { model: spec.name.to_string(), reason })
}
