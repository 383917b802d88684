//! Tests that the models made by `models/rewrite` compute the same as their originals.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

use ooblex_effects::effects;
use ooblex_inference::{Backend, Extent, Input, ModelSource, ModelSpec, ModelStore, Models, Runtime, Tensor};
use ooblex_pipeline::Rgb;

/// Maximum difference of a value, as a fraction of the largest value (or of 1, if all values are
/// smaller).
const APART: f32 = 1e-3;

#[test]
fn rewritten_models_compute_what_their_originals_do() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let picture = picture(&folder.join("tests/data/picture_640x480.png"));
    let effects = effects();
    let specs: Vec<&ModelSpec> = effects.iter().flat_map(|effect| effect.models()).collect();
    let originals: Vec<_> = fs::read_dir(folder.join("../../models/rewrite/originals")).unwrap().map(Result::unwrap).collect();
    assert!(!originals.is_empty());
    for original in originals {
        let spec = specs.iter().find(|spec| *spec.file == *original.file_name()).unwrap_or_else(|| panic!("no effect has {original:?}"));
        let original = fs::read(original.path()).unwrap();
        assert_ne!(original, spec.embedded, "{} is not rewritten", spec.name);
        for backend in [Backend::Ort, Backend::Rten] {
            let runtime = Runtime::load(None, Some(backend)).unwrap();
            let [before, after] = [original.as_slice(), spec.embedded].map(|bytes| run(&runtime, spec, bytes, &picture));
            for (before, after) in before.iter().zip(&after) {
                assert_eq!(before.shape, after.shape, "{} on {backend}", spec.name);
                let largest = before.data.iter().fold(1.0_f32, |largest, value| largest.max(value.abs()));
                let apart = before.data.iter().zip(&after.data).map(|(before, after)| (before - after).abs()).fold(0.0, f32::max);
                println!("{} on {backend}: {apart:.1e} apart, of {largest:.1}", spec.name);
                assert!(apart <= APART * largest, "{} on {backend}: {apart} apart, of {largest}", spec.name);
            }
        }
    }
}

fn picture(path: &Path) -> Rgb {
    let mut reader = png::Decoder::new(BufReader::new(File::open(path).unwrap())).read_info().unwrap();
    let mut data = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut data).unwrap();
    assert_eq!(info.color_type, png::ColorType::Rgb);
    Rgb { width: info.width, height: info.height, data }
}

/// Runs a model on the picture, stretched to the model's input size.
fn run(runtime: &Runtime, spec: &ModelSpec, bytes: &[u8], picture: &Rgb) -> Vec<Tensor> {
    let shape: Vec<_> = spec.inputs[0].shape.iter().filter_map(Extent::fixed).collect();
    let &[1, 3, height, width] = shape.as_slice() else { panic!("{} does not take one picture of a fixed size", spec.name) };
    let value = |channel: usize, row: usize, column: usize| {
        let (x, y) = (column * picture.width as usize / width, row * picture.height as usize / height);
        f32::from(picture.data[3 * (y * picture.width as usize + x) + channel]) / 255.0
    };
    let rows = (0..3).flat_map(|channel| (0..height).map(move |row| (channel, row)));
    let data: Vec<_> = rows.flat_map(|(channel, row)| (0..width).map(move |column| value(channel, row, column))).collect();
    let source = ModelSource { spec, bytes: Some(bytes.into()) };
    Models::load(runtime, &ModelStore::embedded(), &[source]).unwrap().run(spec, &[Input { shape: &shape, data: &data }]).unwrap()
}
