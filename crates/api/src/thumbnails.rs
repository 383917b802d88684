//! Thumbnails that show each effect on a small built-in sample picture.
//!
//! The gateway makes a thumbnail on its first request and caches it; a failure is cached for a
//! minute. The number of requests that wait for a thumbnail is limited. `ooblex effects
//! --thumbnails` writes all of them and an overview sheet.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ooblex_effects::{CustomEffect, Effect, caption, i420_from_rgb, rgb_from_i420};
use ooblex_pipeline::{EffectName, I420, Rgb};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::custom_effects::trial;
use crate::picture::{decode_png, encode_png};
use crate::sample::SAMPLE;
use crate::still::paint;
use ooblex_config::Config;
use ooblex_gateway::settings::{Catalogue, Settings};

/// Number of pictures in a row of the sheet.
const COLUMNS: usize = 4;
/// Chains that the sheet shows in addition to the single effects.
const CHAINS: [&str; 2] = ["background_blur+cartoon", "face_anonymize+sepia+vignette"];

/// Largest number of requests that wait for their turn, for each kind of effect: some browsers that
/// request all thumbnails at once, over six connections each.
const MAX_WAITING: usize = 32;
/// Time after which the thumbnail of a built-in effect is tried again when it could not be made.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// Cache of thumbnails.
#[derive(Default)]
pub struct Thumbnails {
    made: Mutex<HashMap<EffectName, Arc<[u8]>>>,
    /// Built-in effects whose thumbnail could not be made.
    failures: Mutex<Failures>,
    /// Thumbnails of custom effects, or why there is none: a model that hangs is tried only once.
    own: Mutex<HashMap<EffectName, OwnPicture>>,
    /// Turns of built-in effects and of custom effects: each makes one thumbnail at a time, and a
    /// slow custom model does not block the built-in effects.
    turns: [Turns; 2],
}

struct Turns {
    making: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { making: Arc::new(Semaphore::new(1)), waiting: Arc::new(Semaphore::new(MAX_WAITING)) }
    }
}

/// A guard that allows its holder to make a thumbnail.
pub struct Turn {
    _held: OwnedSemaphorePermit,
}

/// Failures by effect, with their time and reason.
#[derive(Default)]
struct Failures(HashMap<EffectName, (Instant, String)>);

impl Failures {
    fn insert(&mut self, now: Instant, effect: EffectName, reason: String) {
        self.0.insert(effect, (now, reason));
    }

    /// Returns the reason of a failure that is not older than [`RETRY_AFTER`].
    fn reason(&self, now: Instant, effect: &EffectName) -> Option<String> {
        let (at, reason) = self.0.get(effect)?;
        (now.saturating_duration_since(*at) < RETRY_AFTER).then(|| reason.clone())
    }
}

/// Thumbnail of a custom effect, or why there is none.
#[derive(Clone)]
struct OwnPicture(Result<Arc<[u8]>, String>);

impl Thumbnails {
    /// Returns the cached thumbnail (PNG) of these settings' effect, or why there is none; `None`
    /// if it was not made yet. Does not block.
    pub fn made(&self, settings: &Settings) -> Option<anyhow::Result<Arc<[u8]>>> {
        match own_part(settings) {
            Some(part) => self.own.lock().get(&part.queue()).cloned().map(|own| own.0.map_err(anyhow::Error::msg)),
            None => {
                let name = settings.effect.name();
                let failure = || self.failures.lock().reason(Instant::now(), &name);
                self.made.lock().get(&name).cloned().map(Ok).or_else(|| Some(Err(anyhow::Error::msg(failure()?))))
            }
        }
    }

    /// Waits for the turn to make the thumbnail of these settings' effect. It may be cached by
    /// then. Returns `None` if `MAX_WAITING` others wait already.
    pub async fn turn(&self, settings: &Settings) -> Option<Turn> {
        let turns = &self.turns[usize::from(own_part(settings).is_some())];
        let _waiting = turns.waiting.try_acquire().ok()?;
        Some(Turn { _held: turns.making.clone().acquire_owned().await.ok()? })
    }

    /// Returns the thumbnail (PNG) of these settings' effect. Blocks while it is made.
    ///
    /// # Errors
    /// When a model cannot be used.
    pub fn png(&self, config: &Config, settings: &Settings) -> anyhow::Result<Arc<[u8]>> {
        if let Some(made) = self.made(settings) {
            return made;
        }
        // A custom model runs in a separate process, never in one that has sessions.
        if let Some(part) = own_part(settings) {
            let own = OwnPicture(own_thumbnail(config, part).map_err(|error| format!("{error:#}")));
            self.own.lock().insert(part.queue(), own.clone());
            return own.0.map_err(anyhow::Error::msg);
        }
        let made = catch_unwind(AssertUnwindSafe(|| encode_png(&rgb_from_i420(&thumbnail(config, settings)?))));
        let name = settings.effect.name();
        match made.unwrap_or_else(|_| Err(anyhow::anyhow!("its effect panicked"))) {
            Ok(png) => {
                let png: Arc<[u8]> = png.into();
                self.made.lock().insert(name, png.clone());
                Ok(png)
            }
            Err(error) => {
                self.failures.lock().insert(Instant::now(), name, format!("{error:#}"));
                Err(error)
            }
        }
    }

    /// Removes cached thumbnails of custom effects that are not among `offered`, or that failed.
    pub fn keep(&self, offered: &[Arc<dyn Effect>]) {
        let mut own = self.own.lock();
        own.retain(|version, made| made.0.is_ok() && offered.iter().any(|effect| effect.queue() == *version));
    }
}

/// Returns whether this process makes a thumbnail of an effect. A process without workers runs no
/// models of custom effects, not even in a trial.
pub(crate) fn is_offered(config: &Config, effect: &dyn Effect) -> bool {
    effect.folder().is_none() || config.serve_threads() > 0
}

/// Returns the custom effect if the settings consist of a single custom effect.
fn own_part(settings: &Settings) -> Option<&dyn Effect> {
    match settings.effect.parts() {
        [part] if part.folder().is_some() => Some(part.as_ref()),
        _ => None,
    }
}

/// Writes the thumbnail of every effect into a folder as `NAME.png`, and an overview with captions
/// as `sheet.png`.
///
/// # Errors
/// When a model cannot be used, or a file cannot be written.
pub fn write(config: &Config, folder: &Path) -> anyhow::Result<()> {
    let catalogue = Catalogue::new(config).map_err(|problem| anyhow::anyhow!(problem.detail))?;
    std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let names: Vec<_> = catalogue.effects().iter().map(|effect| effect.name().to_string()).collect();
    let chains = CHAINS.into_iter().filter(|chain| catalogue.settings(Some(chain), &Value::Null).is_ok());
    let mut pictures = Vec::new();
    for name in names.iter().map(String::as_str).chain(chains) {
        let settings = catalogue.settings(Some(name), &Value::Null).map_err(|problem| anyhow::anyhow!(problem.detail))?;
        let mut picture = thumbnail(config, &settings)?;
        let path = folder.join(format!("{name}.png"));
        std::fs::write(&path, encode_png(&rgb_from_i420(&picture))?).with_context(|| format!("{} cannot be written", path.display()))?;
        caption(&mut picture, name);
        pictures.push(rgb_from_i420(&picture));
    }
    let path = folder.join("sheet.png");
    std::fs::write(&path, encode_png(&sheet(&pictures))?).with_context(|| format!("{} cannot be written", path.display()))
}

fn own_thumbnail(config: &Config, effect: &dyn Effect) -> anyhow::Result<Arc<[u8]>> {
    let folder = effect.folder().context("it has no folder")?;
    let read = CustomEffect::read(folder, config.own_effects.limits())?;
    anyhow::ensure!(read.queue() == effect.queue(), "{} has changed: reload the effects first", folder.display());
    Ok(trial::run(config, &read, None)?.painted)
}

fn thumbnail(config: &Config, settings: &Settings) -> anyhow::Result<I420> {
    let mut picture = i420_from_rgb(&decode_png(SAMPLE)?)?;
    paint(config, settings, &mut picture)?;
    Ok(picture)
}

/// Arranges pictures of equal size in rows; the rest of the last row is white.
fn sheet(pictures: &[Rgb]) -> Rgb {
    let Some(first) = pictures.first() else { return Rgb { width: 0, height: 0, data: Vec::new() } };
    let (line, rows) = (3 * first.width as usize, pictures.len().div_ceil(COLUMNS));
    let mut data = vec![255; line * COLUMNS * first.height as usize * rows];
    for (index, picture) in pictures.iter().enumerate() {
        let (left, top) = (index % COLUMNS * line, index / COLUMNS * first.height as usize);
        for (y, source) in picture.data.chunks_exact(line).enumerate() {
            data[(top + y) * line * COLUMNS + left..][..line].copy_from_slice(source);
        }
    }
    Rgb { width: first.width * COLUMNS as u32, height: first.height * rows as u32, data }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn settings(effect: &str) -> Settings {
        Catalogue::new(&Config::default()).unwrap().settings(Some(effect), &Value::Null).unwrap()
    }

    #[tokio::test]
    async fn those_who_wait_for_a_turn_are_limited() {
        let (thumbnails, sepia) = (Thumbnails::default(), settings("sepia"));
        let first = thumbnails.turn(&sepia).await.unwrap();
        let mut waiting: Vec<_> = (0..MAX_WAITING).map(|_| Box::pin(thumbnails.turn(&sepia))).collect();
        assert!(waiting.iter_mut().all(|turn| turn.as_mut().now_or_never().is_none()));
        assert!(thumbnails.turn(&sepia).now_or_never().is_some_and(|turn| turn.is_none()), "it need not wait for its refusal");
        drop(first);
        assert!(waiting.remove(0).await.is_some());
        assert!(thumbnails.turn(&sepia).now_or_never().is_none_or(|turn| turn.is_some()), "there is room for another one");
    }

    #[test]
    fn a_failure_is_tried_again_after_a_minute() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        let (broken, other) = (EffectName::new("broken"), EffectName::new("other"));
        failures.insert(now, broken.clone(), "no model".into());
        assert_eq!(failures.reason(now + Duration::from_secs(59), &broken).as_deref(), Some("no model"));
        assert_eq!(failures.reason(now + Duration::from_secs(60), &broken), None);
        assert_eq!(failures.reason(now, &other), None);
    }
}
