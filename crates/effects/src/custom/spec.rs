//! A checked `effect.toml`: the complete description of an effect except for the model's bytes.
//! [`super::bind`] checks it against the model.

use super::error::Place;
use super::toml::{Activation, Colours, Fit, Form, Keeps, Layout, Order, Range, Rest, Units};
use ooblex_pipeline::EffectName;

use crate::effect::WhenSlow;
use crate::parameters::Parameter;

/// Maximum number of labels of a model.
pub(super) const MAX_LABELS: usize = 10_000;
/// Maximum number of boxes in a frame.
pub(super) const MAX_BOXES: usize = 100;

/// A checked `effect.toml`.
pub(super) struct Declaration {
    pub(super) name: Located<String>,
    pub(super) title: String,
    pub(super) description: String,
    pub(super) when_slow: WhenSlow,
    pub(super) model: Model,
    pub(super) output: Output,
    pub(super) parameters: Vec<Declared>,
}

/// A value, and the place where it is declared.
#[derive(Debug, Clone)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// The model and its picture input.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) file: Located<String>,
    pub(super) tensor: TensorName,
    pub(super) width: Located<u32>,
    pub(super) height: Located<u32>,
    pub(super) layout: Layout,
    pub(super) colours: Colours,
    /// Factor for each channel of the model: a value of 0..=255 is multiplied by `gain`, then
    /// `bias` is added.
    pub(super) gain: Vec<f32>,
    /// Offset for each channel of the model.
    pub(super) bias: Vec<f32>,
    pub(super) fit: Fit,
    pub(super) padding: u8,
    pub(super) threads: usize,
}

/// Kind of the model's output, and how it is painted.
#[derive(Debug)]
pub(super) enum Output {
    Picture(Picture),
    Mask(Mask),
    Boxes(Boxes),
    Labels(Labels),
}

/// Name of a tensor, if the declaration gives one, and the place of that declaration.
#[derive(Debug)]
pub(super) struct TensorName {
    pub(super) name: Option<String>,
    pub(super) place: Place,
}

#[derive(Debug)]
pub(super) struct Picture {
    pub(super) tensor: TensorName,
    pub(super) layout: Layout,
    pub(super) colours: Colours,
    pub(super) range: Range,
}

#[derive(Debug)]
pub(super) struct Mask {
    pub(super) tensor: TensorName,
    pub(super) layout: Layout,
    pub(super) activation: Activation,
    pub(super) channel: Located<usize>,
    /// Probability from which a pixel counts as marked.
    pub(super) threshold: f32,
    pub(super) keeps: Keeps,
    pub(super) rest: Rest,
    /// R, G, B.
    pub(super) colour: [u8; 3],
}

#[derive(Debug)]
pub(super) struct Boxes {
    pub(super) tensor: TensorName,
    /// The tensor of scores, if it is not that of the boxes.
    pub(super) scores: Option<TensorName>,
    pub(super) order: Order,
    pub(super) form: Form,
    pub(super) units: Units,
    pub(super) objectness: bool,
    pub(super) activation: Activation,
    /// Index of the background class, which is ignored.
    pub(super) background: Option<usize>,
    pub(super) overlap: f32,
    pub(super) most: usize,
    pub(super) labels: LabelSource,
}

#[derive(Debug)]
pub(super) struct Labels {
    pub(super) tensor: TensorName,
    pub(super) activation: Activation,
    pub(super) top: usize,
    pub(super) labels: LabelSource,
}

/// Source of the classes' names.
#[derive(Debug)]
pub(super) enum LabelSource {
    /// The classes have no names, only numbers.
    None,
    /// The names are listed in the declaration.
    List(Vec<String>, Place),
    /// The names are in a file of the folder, one per line.
    File(String, Place),
}

/// A parameter, and the model's tensor that receives it, if any.
#[derive(Debug, Clone)]
pub(super) struct Declared {
    pub(super) parameter: Parameter,
    pub(super) input: Option<Located<String>>,
}

/// The data shared by the effect and its painters.
pub(super) struct BoundSpec {
    pub(super) name: EffectName,
    pub(super) model: Model,
    pub(super) output: Output,
    /// Names of the classes; empty if they have none.
    pub(super) labels: Vec<String>,
    /// Names of the parameters that are passed to the model, in the order of its inputs after the
    /// picture.
    pub(super) inputs: Vec<String>,
}
