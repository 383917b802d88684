//! Effects on pictures without a session: the models are loaded for them.

use ooblex_config::{Config, Inference};
use ooblex_effects::{Models, load_models};
use ooblex_gateway::settings::Settings;
use ooblex_pipeline::I420;
use ooblex_worker::inference;

/// Paints an effect, or a chain of effects, onto one picture, with models that are loaded for it.
///
/// # Errors
/// Returns an error if a model is unusable.
pub fn paint(config: &Config, settings: &Settings, picture: &mut I420) -> anyhow::Result<()> {
    let mut painter = settings.effect.painter();
    let analyses = match models(&config.inference, settings, 1)?.first_mut() {
        None => Vec::new(),
        Some(models) => settings.effect.analyse(models, &painter.prepare(picture, &settings.parameters))?,
    };
    Ok(painter.compose(picture, &analyses, &settings.parameters)?)
}

/// Loads one set of models for each thread; empty for an effect without models.
///
/// # Errors
/// Returns an error if the runtime or a model is unusable.
pub fn models(config: &Inference, settings: &Settings, threads: usize) -> anyhow::Result<Vec<Models>> {
    let analysed: Vec<_> = settings.effect.analysed().cloned().collect();
    if analysed.is_empty() {
        return Ok(Vec::new());
    }
    let (runtime, store) = inference(config, &analysed)?;
    (0..threads).map(|_| Ok(load_models(&runtime, &store, &analysed)?)).collect()
}
