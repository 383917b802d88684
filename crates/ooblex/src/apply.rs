//! `ooblex apply`: applies an effect to a picture or a video, with the same code as live video.
//!
//! `picture` handles PNG, and `film` handles videos with the help of `ivf` and `ffmpeg`. `painting`
//! applies the effect to all frames, `progress` shows the progress, and `unfinished` keeps a
//! partial file from being taken for the result.

mod ffmpeg;
mod film;
mod painting;
pub(crate) mod picture;
mod progress;
mod unfinished;

use std::path::Path;

use anyhow::{Context as _, bail};
use ooblex_effects::{Models, i420_from_rgb, load_models, rgb_from_i420};
use ooblex_pipeline::I420;
use serde_json::Value;

use crate::config::{Config, Inference};
use crate::settings::{Catalogue, Settings};
use crate::start::inference;
use film::{Cut, Film};
use progress::Progress;
use unfinished::Unfinished;

/// Applies an effect to a picture or a video, and writes a result of the same size. A file named
/// `output` appears only once it is complete.
///
/// # Errors
/// Returns an error if the effect, its parameters, a file or a model is unusable, or if ffmpeg is
/// required but missing.
pub fn apply(config: &Config, effect: &str, parameters: &Value, input: &Path, output: &Path) -> anyhow::Result<()> {
    let catalogue = Catalogue::new(config).map_err(|problem| anyhow::anyhow!(problem.detail))?;
    let settings = catalogue.settings(Some(effect), parameters).map_err(|problem| anyhow::anyhow!(problem.detail))?;
    if output.file_name().is_none() {
        bail!("{} names no file to write", output.display());
    }
    let is_picture = |path: &Path| ending(path) == "png";
    match (is_picture(input), is_picture(output)) {
        (true, true) => on_picture(config, &settings, input, output),
        (false, false) => on_film(config, &settings, input, output),
        (true, false) => bail!("{} is a picture and {} is not: name a .png to write", input.display(), output.display()),
        (false, true) => {
            bail!("{} is no picture and {} is one: name a video to write, such as .mp4, .y4m or .ivf", input.display(), output.display())
        }
    }
}

fn on_picture(config: &Config, settings: &Settings, input: &Path, output: &Path) -> anyhow::Result<()> {
    let mut picture = i420_from_rgb(&picture::read_png(input)?)?;
    paint(config, settings, &mut picture)?;
    picture::write_png(output, &rgb_from_i420(&picture))
}

/// Paints an effect, or a chain of effects, onto one picture, with models that are loaded for it.
///
/// # Errors
/// Returns an error if a model is unusable.
pub(crate) fn paint(config: &Config, settings: &Settings, picture: &mut I420) -> anyhow::Result<()> {
    let mut painter = settings.effect.painter();
    let analyses = match models(&config.inference, settings, 1)?.first_mut() {
        None => Vec::new(),
        Some(models) => settings.effect.analyse(models, &painter.prepare(picture, &settings.parameters))?,
    };
    Ok(painter.compose(picture, &analyses, &settings.parameters)?)
}

fn on_film(config: &Config, settings: &Settings, input: &Path, output: &Path) -> anyhow::Result<()> {
    let mut film = Film::open(input)?;
    // Throughput is best with many frames in parallel and one thread for each.
    let inference = Inference { threads_per_frame: 1, ..config.inference.clone() };
    let models = models(&inference, settings, config.worker_threads())?;
    let unfinished = Unfinished::beside(output);
    let sound = film.has_sound.then_some(input);
    let mut cut = Cut::begin(unfinished.place(), output, film.head(), sound)?;
    let mut progress = Progress::new(film.frames());
    let painted = painting::paint_all(
        settings,
        models,
        || film.next_picture(),
        |picture| {
            cut.put(picture)?;
            progress.on_frame();
            Ok(())
        },
    );
    painted.and_then(|()| cut.finish()).inspect_err(|_| progress.clear())?;
    unfinished.finish().with_context(|| format!("{} cannot be written", output.display()))?;
    progress.finish();
    Ok(())
}

/// Loads one set of models for each thread; empty for an effect without models.
fn models(config: &Inference, settings: &Settings, threads: usize) -> anyhow::Result<Vec<Models>> {
    let analysed: Vec<_> = settings.effect.analysed().cloned().collect();
    if analysed.is_empty() {
        return Ok(Vec::new());
    }
    let (runtime, store) = inference(config, &analysed)?;
    (0..threads).map(|_| Ok(load_models(&runtime, &store, &analysed)?)).collect()
}

/// Returns the file extension in lower case.
fn ending(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase()
}
