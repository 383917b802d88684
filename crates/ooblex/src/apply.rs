//! `ooblex apply`: applies an effect to a picture or a video, with the same code as live video.
//!
//! `picture` handles PNG, and `film` handles videos with the help of `ivf` and `ffmpeg`. `painting`
//! applies the effect to all frames, and `progress` shows the progress.

mod ffmpeg;
mod film;
mod painting;
mod png_file;
mod progress;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context as _, bail};
use ooblex_effects::{i420_from_rgb, rgb_from_i420};
use serde_json::Value;
use tempfile::NamedTempFile;

use film::{Cut, Film};
use ooblex_api::still::{models, paint};
use ooblex_config::{Config, Inference};
use ooblex_gateway::settings::{Catalogue, Settings};
use progress::Progress;

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
    let can_not = || format!("{} cannot be written", output.display());
    let unfinished = unfinished(output).with_context(can_not)?.into_temp_path();
    let sound = film.has_sound.then_some(input);
    let mut cut = Cut::begin(&unfinished, output, film.head(), sound)?;
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
    unfinished.persist(output).map_err(|error| error.error).with_context(can_not)?;
    progress.finish();
    Ok(())
}

/// Creates a file beside `output` that gets its name only when it is complete, so that a partial
/// file (disk full, truncated input) is never taken for the result. It has the same extension,
/// from which programs derive the format.
fn unfinished(output: &Path) -> std::io::Result<NamedTempFile> {
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = output.file_name().unwrap_or_default().to_string_lossy();
    // The permissions of any new file, which the umask restricts.
    let permissions = Permissions::from_mode(0o666);
    tempfile::Builder::new().prefix(".").suffix(&format!("-{name}")).permissions(permissions).tempfile_in(folder)
}

/// Returns the file extension in lower case.
fn ending(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase()
}
