//! What `effect.toml` says, checked: all that an effect is but the model's bytes. It knows the file alone; whether the model is as it says
//! is for [`super::fit`].

use std::path::Path;
use std::time::Duration;

use super::error::{OwnError, Place};
use super::kept;
use super::sections::Source;
use super::settings;
use super::toml::{self as written, Activation, Colours, Fit, Form, Keeps, Layout, Order, Range, Rest, Units};
use crate::effect::WhenSlow;
use crate::parameters::Parameter;

/// Oldest analysis that is painted on a newer frame, where that is done.
const MAX_AGE: Duration = Duration::from_millis(200);
/// Characters of names, titles, and labels.
const MAX_NAME: usize = 40;
const MAX_TEXT: usize = 200;
/// Labels of a model at most.
pub(super) const MAX_LABELS: usize = 10_000;
/// Boxes of a frame at most.
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

/// What goes into the model.
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
    /// A value of 0..=255 is multiplied by the first and added to the second, for each channel of the model.
    pub(super) gain: Vec<f32>,
    pub(super) bias: Vec<f32>,
    pub(super) fit: Fit,
    pub(super) padding: u8,
    pub(super) threads: usize,
}

/// What comes out of it, and what becomes of that.
#[derive(Debug)]
pub(super) enum Output {
    Picture(Picture),
    Mask(Mask),
    Boxes(Boxes),
    Labels(Labels),
}

/// The name of a tensor, if it was given, and where.
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
    /// Probability from which a pixel is rather marked than not.
    pub(super) threshold: f32,
    pub(super) keeps: Keeps,
    pub(super) rest: Rest,
    /// R, G, B.
    pub(super) colour: [u8; 3],
}

#[derive(Debug)]
pub(super) struct Boxes {
    pub(super) tensor: TensorName,
    /// The tensor of scores, if it is another than that of the boxes.
    pub(super) scores: Option<TensorName>,
    pub(super) order: Order,
    pub(super) form: Form,
    pub(super) units: Units,
    pub(super) objectness: bool,
    pub(super) activation: Activation,
    /// A class that stands for nothing.
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

/// Where the names of classes are.
#[derive(Debug)]
pub(super) enum LabelSource {
    /// They have numbers only.
    None,
    /// In the declaration.
    List(Vec<String>, Place),
    /// In a file of the folder, one a line.
    File(String, Place),
}

/// A parameter, and the tensor of the model that takes it.
#[derive(Debug, Clone)]
pub(super) struct Declared {
    pub(super) parameter: Parameter,
    pub(super) input: Option<(String, Place)>,
}

impl Declaration {
    /// Reads the text of the file at `path`.
    ///
    /// # Errors
    /// At the first thing that is not understood or makes no sense, with its line.
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
    /// The labels of a list, or of the file's text, kept.
    pub(super) fn words<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<&'static str> {
        lines.map(|line| kept::word(&line.trim().chars().take(MAX_NAME).collect::<String>())).collect()
    }
}
