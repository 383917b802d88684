//! Thumbnails that show each effect on a small built-in sample picture.
//!
//! The gateway makes a thumbnail on its first request and caches it. `ooblex effects --thumbnails`
//! writes all of them and an overview sheet.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use ooblex_effects::{CustomEffect, Effect, caption, i420_from_rgb, rgb_from_i420};
use ooblex_pipeline::{EffectName, I420, Rgb};
use serde_json::Value;

use crate::apply::paint;
use crate::apply::picture::{decode_png, encode_png};
use crate::config::Config;
use crate::custom_effects::trial;
use crate::sample::SAMPLE;
use crate::settings::{Catalogue, Settings};

/// Number of pictures in a row of the sheet.
const COLUMNS: usize = 4;
/// Chains that the sheet shows in addition to the single effects.
const CHAINS: [&str; 2] = ["background_blur+cartoon", "face_anonymize+sepia+vignette"];

/// Cache of thumbnails.
#[derive(Default)]
pub struct Thumbnails {
    made: Mutex<HashMap<EffectName, Arc<[u8]>>>,
    /// Thumbnails of custom effects, or why there is none: a model that hangs is tried only once.
    own: Mutex<HashMap<EffectName, OwnPicture>>,
    /// One lock for built-in effects and one for custom effects: each makes one thumbnail at a
    /// time, and a slow custom model does not block the built-in effects.
    turns: [Arc<tokio::sync::Mutex<()>>; 2],
}

/// A guard that allows its holder to make a thumbnail.
pub struct Turn {
    _held: tokio::sync::OwnedMutexGuard<()>,
}

/// Thumbnail of a custom effect, or why there is none.
#[derive(Clone)]
struct OwnPicture(Result<Arc<[u8]>, String>);

impl Thumbnails {
    /// Returns the cached thumbnail (PNG) of these settings' effect, or why there is none; `None`
    /// if it was not made yet. Does not block.
    pub fn made(&self, settings: &Settings) -> Option<anyhow::Result<Arc<[u8]>>> {
        match own_part(settings) {
            Some(part) => lock(&self.own).get(&part.queue()).cloned().map(|own| own.0.map_err(anyhow::Error::msg)),
            None => lock(&self.made).get(&settings.effect.name()).cloned().map(Ok),
        }
    }

    /// Waits for the turn to make the thumbnail of these settings' effect. It may be cached by
    /// then.
    pub async fn turn(&self, settings: &Settings) -> Turn {
        let turns = self.turns[usize::from(own_part(settings).is_some())].clone();
        Turn { _held: turns.lock_owned().await }
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
            lock(&self.own).insert(part.queue(), own.clone());
            return own.0.map_err(anyhow::Error::msg);
        }
        let png: Arc<[u8]> = encode_png(&rgb_from_i420(&thumbnail(config, settings)?))?.into();
        lock(&self.made).insert(settings.effect.name(), png.clone());
        Ok(png)
    }

    /// Removes cached thumbnails of custom effects that are not among `offered`, or that failed.
    pub fn keep(&self, offered: &[Arc<dyn Effect>]) {
        let mut own = lock(&self.own);
        own.retain(|version, made| made.0.is_ok() && offered.iter().any(|effect| effect.queue() == *version));
    }
}

/// Returns the custom effect if the settings consist of a single custom effect.
fn own_part(settings: &Settings) -> Option<&dyn Effect> {
    match settings.effect.parts() {
        [part] if part.folder().is_some() => Some(part.as_ref()),
        _ => None,
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
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
