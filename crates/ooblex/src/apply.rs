//! `ooblex apply`: applies an effect to a picture or a video, with the same code as live video.
//!
//! `picture` handles PNG, and `film` handles videos with the help of `ivf` and `ffmpeg`. `painting`
//! applies the effect to all frames, `progress` shows the progress, and `unfinished` keeps a
//! partial file from being taken for the result.

mod ffmpeg;
mod film;
mod painting;
mod png_file;
mod progress;
mod unfinished;

use std::path::Path;

use anyhow::{Context as _, bail};
use ooblex_effects::{i420_from_rgb, rgb_from_i420};
use serde_json::Value;

use film::{Cut, Film};
use ooblex_api::still::{models, paint};
use ooblex_config::{Config, Inference};
use ooblex_gateway::settings::{Catalogue, Settings};
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
    let mut picture = i420_from_rgb(&png_file::read_png(input)?)?;
    paint(config, settings, &mut picture)?;
    png_file::write_png(output, &rgb_from_i420(&picture))
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

/// Returns the file extension in lower case.
fn ending(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase()
}
