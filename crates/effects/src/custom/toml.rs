//! Syntax of `effect.toml`: every key, its type and its allowed words. [`super::spec`]
//! checks the meaning.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

/// The whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) name: Spanned<String>,
    pub(super) title: Spanned<String>,
    #[serde(default)]
    pub(super) description: String,
    pub(super) hides: Option<Spanned<bool>>,
    pub(super) when_slow: Option<Spanned<Slow>>,
    pub(super) model: Model,
    pub(super) picture: Option<Spanned<Picture>>,
    pub(super) mask: Option<Spanned<Mask>>,
    pub(super) boxes: Option<Spanned<Boxes>>,
    pub(super) labels: Option<Spanned<Labels>>,
    #[serde(default)]
    pub(super) parameters: BTreeMap<String, Spanned<Parameter>>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Slow {
    Hold,
    Reuse,
}

/// The section `[model]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Model {
    pub(super) file: Spanned<String>,
    pub(super) tensor: Option<Spanned<String>>,
    pub(super) width: Spanned<u32>,
    pub(super) height: Spanned<u32>,
    #[serde(default)]
    pub(super) layout: Layout,
    #[serde(default)]
    pub(super) colours: Colours,
    pub(super) range: Option<Spanned<Range>>,
    pub(super) mean: Option<Spanned<Vec<f32>>>,
    pub(super) std: Option<Spanned<Vec<f32>>>,
    #[serde(default)]
    pub(super) fit: Fit,
    #[serde(default)]
    pub(super) padding: u8,
    pub(super) threads: Option<Spanned<usize>>,
}

#[derive(Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
pub(super) enum Layout {
    #[default]
    Nchw,
    Nhwc,
}

#[derive(Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
pub(super) enum Colours {
    #[default]
    Rgb,
    Bgr,
    Grey,
}

/// Values of black and white.
#[derive(Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) enum Range {
    #[default]
    #[serde(rename = "0..1")]
    Unit,
    #[serde(rename = "-1..1")]
    Signed,
    #[serde(rename = "0..255")]
    Bytes,
}

#[derive(Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fit {
    #[default]
    Stretch,
    Letterbox,
}

/// Function applied to the model's raw values.
#[derive(Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
pub(super) enum Activation {
    #[default]
    None,
    Sigmoid,
    Softmax,
}

/// The section `[picture]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Picture {
    pub(super) tensor: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) layout: Layout,
    #[serde(default)]
    pub(super) colours: Colours,
    #[serde(default)]
    pub(super) range: Range,
}

/// The section `[mask]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mask {
    pub(super) tensor: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) layout: Layout,
    #[serde(default)]
    pub(super) activation: Activation,
    pub(super) channel: Option<Spanned<usize>>,
    pub(super) threshold: Option<Spanned<f32>>,
    #[serde(default)]
    pub(super) keeps: Keeps,
    pub(super) rest: Spanned<Rest>,
    pub(super) colour: Option<Spanned<String>>,
}

/// Part of the picture that stays unchanged.
#[derive(Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
pub(super) enum Keeps {
    #[default]
    Marked,
    Unmarked,
}

/// Treatment of the other part of the picture.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
pub(super) enum Rest {
    Blur,
    Replace,
    Tint,
}

/// The section `[boxes]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Boxes {
    pub(super) tensor: Option<Spanned<String>>,
    pub(super) scores: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) order: Order,
    pub(super) form: Form,
    #[serde(default)]
    pub(super) units: Units,
    #[serde(default)]
    pub(super) objectness: bool,
    #[serde(default)]
    pub(super) activation: Activation,
    pub(super) background: Option<Spanned<usize>>,
    pub(super) overlap: Option<Spanned<f32>>,
    pub(super) most: Option<Spanned<usize>>,
    pub(super) labels: Option<Spanned<Vec<String>>>,
    pub(super) labels_file: Option<Spanned<String>>,
}

/// Arrangement of the candidates: each is a row or a column of the tensor.
#[derive(Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    #[default]
    Rows,
    Columns,
}

/// Meaning of the four numbers of a box.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
pub(super) enum Form {
    /// Left, top, right, bottom.
    Xyxy,
    /// Left, top, width, height.
    Xywh,
    /// Centre, width, height.
    Cxcywh,
    /// Top, left, bottom, right.
    Yxyx,
}

#[derive(Deserialize, Clone, Copy, Default, PartialEq, Eq, Debug)]
#[serde(rename_all = "snake_case")]
pub(super) enum Units {
    /// Fractions of the model's input.
    #[default]
    Share,
    Pixels,
}

/// The section `[labels]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Labels {
    pub(super) tensor: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) activation: Activation,
    pub(super) top: Option<Spanned<usize>>,
    pub(super) labels: Option<Spanned<Vec<String>>>,
    pub(super) labels_file: Option<Spanned<String>>,
}

/// The section `[parameters.NAME]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameter {
    pub(super) title: Option<String>,
    pub(super) description: Option<String>,
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
    pub(super) default: Option<Spanned<Default>>,
    pub(super) input: Option<Spanned<String>>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Debug)]
#[serde(untagged)]
pub(super) enum Default {
    Flag(bool),
    Number(f64),
}
