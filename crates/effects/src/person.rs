//! The person segmentation model, and the functions that prepare its input and run it.
//!
//! **Model.** `selfie_landscape_144x256` (MediaPipe). Input: RGB `/255`, the whole frame stretched
//! to 256×144, ignoring its aspect ratio. Output: the probability, 0..=1, that each pixel belongs
//! to a person.

use std::borrow::Cow;

use ooblex_pipeline::{Analysis, I420, Mask, ModelInput};

use crate::models::picture_of;
use crate::pixels::{Shrinker, bytes, nchw};
use ooblex_inference::Extent::Fixed;
use ooblex_inference::{Input, ModelSpec, Models, RunError, TensorSpec};

const WIDTH: u32 = 256;
const HEIGHT: u32 = 144;

/// The models of effects that segment the person.
pub(crate) static MODELS: [&ModelSpec; 1] = [&MODEL];

static MODEL: ModelSpec = ModelSpec {
    name: Cow::Borrowed("selfie_landscape_144x256"),
    file: Cow::Borrowed("selfie_landscape_144x256.onnx"),
    sha256: Cow::Borrowed("4f2d4572eda261f60b06e3905e45889795df610d79ab6833b28c43260b7e7bca"),
    embedded: include_bytes!("../../../models/selfie_landscape_144x256.onnx"),
    inputs: Cow::Borrowed(&[TensorSpec::new("input", &[Fixed(1), Fixed(3), Fixed(HEIGHT as usize), Fixed(WIDTH as usize)])]),
    outputs: Cow::Borrowed(&[TensorSpec::new("mask", &[Fixed(1), Fixed(1), Fixed(HEIGHT as usize), Fixed(WIDTH as usize)])]),
    threads: 1,
    warm_up: &[],
};

/// Makes the model's input from a frame.
pub(crate) fn prepare(shrinker: &mut Shrinker, source: &I420) -> ModelInput {
    let picture = shrinker.rgb(source, WIDTH, HEIGHT);
    ModelInput { picture, content: [0, 0, WIDTH, HEIGHT], arguments: Vec::new() }
}

/// Returns the mask of a prepared frame.
///
/// # Errors
/// When the input was not made by [`prepare`], or the model fails.
pub(crate) fn analyse(models: &mut Models, input: &ModelInput) -> Result<Analysis, RunError> {
    let picture = picture_of(&MODEL, input, WIDTH, HEIGHT)?;
    let data = nchw(&picture.data, 255.0, 0.0);
    let outputs = models.run(&MODEL, &[Input { shape: &[1, 3, HEIGHT as usize, WIDTH as usize], data: &data }])?;
    Ok(Analysis::Mask(Mask { width: WIDTH, height: HEIGHT, probability: bytes(&outputs[0].data) }))
}
