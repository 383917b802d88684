//! Shared helpers of the tests: pictures from disk, models on either backend, one frame through an
//! effect.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
// Each test file uses a part of this module.
#![allow(dead_code, unreachable_pub)]

use std::env;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::PathBuf;
use std::sync::Arc;

use ooblex_effects::{Backend, Effect, ModelStore, Models, Parameters, Runtime, find, i420_from_rgb, load_models};
use ooblex_pipeline::{Analysis, EffectName, I420, ModelInput, Rgb};
use serde_json::Value;

pub const BACKENDS: [Backend; 2] = [Backend::Ort, Backend::Rten];

pub fn data(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "data", name].iter().collect()
}

/// Reads an RGB or grey PNG as RGB.
pub fn png(name: &str) -> Rgb {
    let file = File::open(data(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut reader = png::Decoder::new(BufReader::new(file)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    pixels.truncate(info.buffer_size());
    let data = match info.color_type {
        png::ColorType::Rgb => pixels,
        png::ColorType::Grayscale => pixels.iter().flat_map(|grey| [*grey; 3]).collect(),
        other => panic!("{name} is of {other:?}"),
    };
    Rgb { width: info.width, height: info.height, data }
}

pub fn write_png(name: &str, picture: &Rgb) {
    let mut encoder = png::Encoder::new(BufWriter::new(File::create(data(name)).unwrap()), picture.width, picture.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::High);
    encoder.write_header().unwrap().write_image_data(&picture.data).unwrap();
}

/// Returns a part of a picture.
pub fn crop(picture: &Rgb, left: u32, top: u32, width: u32, height: u32) -> Rgb {
    let rows = picture.data.chunks_exact(3 * picture.width as usize).skip(top as usize).take(height as usize);
    let data = rows.flat_map(|row| row[3 * left as usize..][..3 * width as usize].to_vec()).collect();
    Rgb { width, height, data }
}

pub fn landscape() -> I420 {
    i420_from_rgb(&png("picture_640x480.png")).unwrap()
}

/// The person of `landscape()`, upright: 360 columns, 480 rows.
pub fn portrait() -> I420 {
    i420_from_rgb(&crop(&png("astronaut.png"), 40, 0, 360, 480)).unwrap()
}

/// Loads a backend, or panics if its library is missing: skipped tests would prove nothing.
/// `OOBLEX_TEST_DEVICE=cuda` (or another device) runs the ONNX Runtime tests on that device, with
/// the library that `ORT_DYLIB_PATH` names.
pub fn runtime(backend: Backend) -> Runtime {
    let runtime = Runtime::load(None, Some(backend)).unwrap_or_else(|error| panic!("the tests need both backends: {error}"));
    match env::var("OOBLEX_TEST_DEVICE") {
        Ok(device) if backend == Backend::Ort => runtime.with_device(device.parse().unwrap()).unwrap_or_else(|error| panic!("{error}")),
        _ => runtime,
    }
}

pub fn models(backend: Backend, effects: &[Arc<dyn Effect>]) -> Models {
    load_models(&runtime(backend), &ModelStore::embedded(), effects).unwrap()
}

pub fn effect(name: &str) -> Arc<dyn Effect> {
    find(&EffectName::new(name)).unwrap()
}

/// Passes one frame through prepare, analyse and compose of a new track.
pub fn through(effect: &dyn Effect, models: &mut Models, frame: &I420, given: &Value) -> (ModelInput, Option<Analysis>, I420) {
    let parameters = Parameters::parse(effect.parameters(), given).unwrap();
    let mut painter = effect.painter();
    let input = painter.prepare(frame, &parameters);
    let analysis = effect.needs_worker().then(|| effect.analyse(models, &input).unwrap());
    let mut picture = frame.clone();
    painter.compose(&mut picture, analysis.as_ref(), &parameters).unwrap();
    (input, analysis, picture)
}

/// Mean absolute difference of bytes, as a fraction of 255.
pub fn mean_difference(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let sum: u64 = a.iter().zip(b).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    sum as f64 / a.len() as f64 / 255.0
}
