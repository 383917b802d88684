//! A checked `effect.toml`: the complete description of an effect except for the model's bytes.
//! [`super::fit`] checks it against the model.

use std::path::Path;
use std::time::Duration;

use super::error::{OwnError, Place};
use super::kept;
use super::sections::Source;
use super::settings;
use super::toml::{self as written, Activation, Colours, Fit, Form, Keeps, Layout, Order, Range, Rest, Units};
use crate::effect::WhenSlow;
use crate::parameters::Parameter;

/// Maximum age of an analysis that is painted on a newer frame, for effects that reuse analyses.
const MAX_AGE: Duration = Duration::from_millis(200);
/// Maximum number of characters of a name, a title or a label.
const MAX_NAME: usize = 40;
/// Maximum number of characters of a description.
const MAX_TEXT: usize = 200;
/// Maximum number of labels of a model.
pub(super) const MAX_LABELS: usize = 10_000;
/// Maximum number of boxes in a frame.
pub(super) const MAX_BOXES: usize = 100;

/// A checked `effect.toml`.
pub(super) struct Declaration {
    pub(super) name: String,
    pub(super) name_place: Place,
    pub(super) title: String,
    pub(super) description: String,
    pub(super) when_slow: WhenSlow,
    pub(super) model: Model,
    pub(super) output: Output,
    pub(super) parameters: Vec<Declared>,
}

/// The model and its picture input.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) file: String,
    pub(super) file_place: Place,
    pub(super) tensor: Option<String>,
    pub(super) place: Place,
    pub(super) width: (u32, Place),
    pub(super) height: (u32, Place),
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
    pub(super) channel: (usize, Place),
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
    pub(super) input: Option<(String, Place)>,
}

impl Declaration {
    /// Parses the text of the file at `path`.
    ///
    /// # Errors
    /// On the first syntax error or invalid value, with its line.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, OwnError> {
        let source = Source { path, text };
        let file: written::File = toml::from_str(text).map_err(|error| source.syntax(&error))?;
        let name = file.name.get_ref();
        let is_word = name.starts_with(|c: char| c.is_ascii_lowercase()) && name.len() <= MAX_NAME;
        if !is_word || !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
            return Err(source.wrong(
                &file.name,
                format!("name = {name:?} is no name: take small letters, digits and '_', a letter first, {MAX_NAME} at most"),
            ));
        }
        if file.title.get_ref().is_empty() || file.title.get_ref().chars().count() > MAX_NAME {
            return Err(source.wrong(&file.title, format!("the title must have 1 to {MAX_NAME} characters")));
        }
        if file.description.chars().count() > MAX_TEXT {
            return Err(source.wrong(&file.title, format!("the description may have {MAX_TEXT} characters")));
        }
        let output = source.output(&file)?;
        let hides = source.hides(&file, &output)?;
        let reuses = match &file.when_slow {
            Some(slow) if hides && *slow.get_ref() == written::Slow::Reuse => {
                return Err(source.wrong(slow, "when_slow = \"reuse\" paints a frame with the mask of an older one, and would show for a moment what is to be hidden: write \"hold\""));
            }
            Some(slow) => *slow.get_ref() == written::Slow::Reuse,
            None => matches!(output, Output::Boxes(_) | Output::Labels(_)),
        };
        Ok(Self {
            name: name.clone(),
            name_place: source.place(&file.name),
            title: file.title.get_ref().clone(),
            description: file.description.clone(),
            when_slow: if reuses { WhenSlow::Reuse { max_age: MAX_AGE } } else { WhenSlow::Hold },
            model: source.model(&file.model)?,
            parameters: settings::declared(&output, &file.parameters, &|offset| source.place_at(offset))?,
            output,
        })
    }
}

impl LabelSource {
    /// Interns the given labels, truncated to [`MAX_NAME`] characters.
    pub(super) fn words<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<&'static str> {
        lines.map(|line| kept::word(&line.trim().chars().take(MAX_NAME).collect::<String>())).collect()
    }
}
