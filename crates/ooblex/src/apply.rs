//! `ooblex apply`: an effect on a picture, through the same code as live video.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

use anyhow::{Context as _, bail};
use ooblex_effects::{Models, i420_from_rgb, rgb_from_i420};
use ooblex_pipeline::{I420, Rgb};
use serde_json::Value;

use crate::config::Config;
use crate::settings::Catalogue;
use crate::start::inference;

/// Reads a PNG, puts the effect on it, and writes a PNG of the same size.
///
/// # Errors
/// When the effect, its parameters, a file or a model is not usable.
pub fn apply(config: &Config, effect: &str, parameters: &Value, input: &Path, output: &Path) -> anyhow::Result<()> {
    let catalogue = Catalogue::new(config).map_err(|problem| anyhow::anyhow!(problem.detail))?;
    let settings = catalogue.settings(Some(effect), parameters).map_err(|problem| anyhow::anyhow!(problem.detail))?;
    let mut picture = i420_from_rgb(&read_png(input)?)?;
    let mut painter = settings.effect.painter();
    let analysis = if !settings.effect.needs_worker() {
        None
    } else {
        let only = std::slice::from_ref(&settings.effect);
        let (runtime, store) = inference(&config.inference, only)?;
        let mut models = Models::load(&runtime, &store, only)?;
        let prepared = painter.prepare(&picture, &settings.parameters);
        Some(settings.effect.analyse(&mut models, &prepared)?)
    };
    painter.compose(&mut picture, analysis.as_ref(), &settings.parameters)?;
    write_png(output, &rgb_from_i420(&picture))
}

fn read_png(path: &Path) -> anyhow::Result<Rgb> {
    let file = File::open(path).with_context(|| format!("{} can not be opened", path.display()))?;
    let mut decoder = png::Decoder::new(BufReader::new(file));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let not_png = || format!("{} can not be read as PNG", path.display());
    let mut reader = decoder.read_info().with_context(not_png)?;
    let (width, height) = (reader.info().width, reader.info().height);
    if width > I420::MAX_SIDE || height > I420::MAX_SIDE {
        bail!("{} has {width}x{height} pixels; a side may have {} at most", path.display(), I420::MAX_SIDE);
    }
    let size = reader.output_buffer_size().with_context(not_png)?;
    let mut pixels = vec![0; size];
    let info = reader.next_frame(&mut pixels).with_context(not_png)?;
    let channels = info.color_type.samples();
    let rgb = pixels.chunks_exact(channels).flat_map(|pixel| if channels < 3 { [pixel[0]; 3] } else { [pixel[0], pixel[1], pixel[2]] });
    Ok(Rgb { width, height, data: rgb.collect() })
}

fn write_png(path: &Path, picture: &Rgb) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("{} can not be written", path.display()))?;
    let mut encoder = png::Encoder::new(BufWriter::new(file), picture.width, picture.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&picture.data)?;
    writer.finish().with_context(|| format!("{} can not be written", path.display()))
}
