//! Pictures of what each effect does, made by the effects themselves of a small sample that is part of the program.
//!
//! The gateway makes each when it is first asked for and keeps it; `ooblex effects --thumbnails` writes them all, with a sheet of them.

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

/// Pictures in a row of the sheet.
const COLUMNS: usize = 4;
/// What the sheet shows, besides each effect by itself.
const CHAINS: [&str; 2] = ["background_blur+cartoon", "face_anonymize+sepia+vignette"];

/// Those that were made.
#[derive(Default)]
pub struct Thumbnails {
    made: Mutex<HashMap<EffectName, Arc<[u8]>>>,
    /// Of effects of one's own, with why there is none: a model that hangs is waited for once. They hold up no others.
    own: Mutex<HashMap<EffectName, OwnPicture>>,
    /// Whose turn it is to make one: one at a time of the program's effects, and one of one's own.
    turns: [Arc<tokio::sync::Mutex<()>>; 2],
}

/// The right to make a thumbnail, which others wait for.
pub struct Turn {
    _held: tokio::sync::OwnedMutexGuard<()>,
}

/// The picture of an effect of one's own, or why there is none.
#[derive(Clone)]
struct OwnPicture(Result<Arc<[u8]>, String>);

impl Thumbnails {
    /// The thumbnail of these settings' effect, a PNG, or why there is none; `None` when nobody has tried yet. Does not block.
    pub fn made(&self, settings: &Settings) -> Option<anyhow::Result<Arc<[u8]>>> {
        match own_part(settings) {
            Some(part) => lock(&self.own).get(&part.queue()).cloned().map(|own| own.0.map_err(anyhow::Error::msg)),
            None => lock(&self.made).get(&settings.effect.name()).cloned().map(Ok),
        }
    }

    /// Waits until one may make the thumbnail of these settings' effect. It may have been made by then.
    pub async fn turn(&self, settings: &Settings) -> Turn {
        let turns = self.turns[usize::from(own_part(settings).is_some())].clone();
        Turn { _held: turns.lock_owned().await }
    }

    /// The thumbnail of these settings' effect, a PNG. Blocks while it is made.
    ///
    /// # Errors
    /// When a model is not usable.
    pub fn png(&self, config: &Config, settings: &Settings) -> anyhow::Result<Arc<[u8]>> {
        if let Some(made) = self.made(settings) {
            return made;
        }
        // A model that somebody else has made runs in no process that has sessions and need not run it.
        if let Some(part) = own_part(settings) {
            let own = OwnPicture(own_thumbnail(config, part).map_err(|error| format!("{error:#}")));
            lock(&self.own).insert(part.queue(), own.clone());
            return own.0.map_err(anyhow::Error::msg);
        }
        let png: Arc<[u8]> = encode_png(&rgb_from_i420(&thumbnail(config, settings)?))?.into();
        lock(&self.made).insert(settings.effect.name(), png.clone());
        Ok(png)
    }

    /// Forgets those of effects of one's own that are not among `offered` any more, or that could not be made.
    pub fn keep(&self, offered: &[Arc<dyn Effect>]) {
        let mut own = lock(&self.own);
        own.retain(|version, made| made.0.is_ok() && offered.iter().any(|effect| effect.queue() == *version));
    }
}

/// The effect of one's own that these settings are, if they are one.
fn own_part(settings: &Settings) -> Option<&dyn Effect> {
    match settings.effect.parts() {
        [part] if part.folder().is_some() => Some(part.as_ref()),
        _ => None,
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes the thumbnail of every effect into a folder, as `NAME.png`, and `sheet.png`, which shows them all with their names.
///
/// # Errors
/// When a model is not usable, or a file can not be written.
pub fn write(config: &Config, folder: &Path) -> anyhow::Result<()> {
    let catalogue = Catalogue::new(config).map_err(|problem| anyhow::anyhow!(problem.detail))?;
    std::fs::create_dir_all(folder).with_context(|| format!("{} can not be made", folder.display()))?;
    let names: Vec<_> = catalogue.effects().iter().map(|effect| effect.name().to_string()).collect();
    let chains = CHAINS.into_iter().filter(|chain| catalogue.settings(Some(chain), &Value::Null).is_ok());
    let mut pictures = Vec::new();
    for name in names.iter().map(String::as_str).chain(chains) {
        let settings = catalogue.settings(Some(name), &Value::Null).map_err(|problem| anyhow::anyhow!(problem.detail))?;
        let mut picture = thumbnail(config, &settings)?;
        let path = folder.join(format!("{name}.png"));
        std::fs::write(&path, encode_png(&rgb_from_i420(&picture))?).with_context(|| format!("{} can not be written", path.display()))?;
        caption(&mut picture, name);
        pictures.push(rgb_from_i420(&picture));
    }
    let path = folder.join("sheet.png");
    std::fs::write(&path, encode_png(&sheet(&pictures))?).with_context(|| format!("{} can not be written", path.display()))
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

/// The pictures, all of one size, in rows; what is left of the last row is white.
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
