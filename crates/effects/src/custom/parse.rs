//! The parser of `effect.toml`: it checks the sections one by one. Every error has its line.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use super::error::{CustomEffectError, Place};
use super::settings;
use super::spec::{Boxes, Declaration, LabelSource, Labels, Located, MAX_BOXES, Mask, Model, Output, Picture, TensorName};
use super::toml::{self as written, Activation, Colours, Range, Rest};
use crate::effect::WhenSlow;

/// Maximum side of a model's input in pixels; a larger model cannot answer within a frame's time.
const MAX_SIDE: u32 = 2048;

/// Maximum age of an analysis that is painted on a newer frame, for effects that reuse analyses.
const MAX_AGE: Duration = Duration::from_millis(200);
/// Maximum number of characters of a name, a title or a label.
const MAX_NAME: usize = 40;
/// Maximum number of characters of a description.
const MAX_TEXT: usize = 200;
/// Path and text of the file, from which the line numbers of errors are computed.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl Source<'_> {
    pub(super) fn place_at(&self, offset: usize) -> Place {
        Place { path: self.path.into(), line: 1 + self.text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() }
    }

    pub(super) fn place<T>(&self, value: &Spanned<T>) -> Place {
        self.place_at(value.span().start)
    }

    fn at(&self, offset: usize, what: String) -> CustomEffectError {
        CustomEffectError::Declaration { place: self.place_at(offset), what }
    }

    pub(super) fn wrong<T>(&self, value: &Spanned<T>, what: impl Into<String>) -> CustomEffectError {
        self.at(value.span().start, what.into())
    }

    /// Returns the parser's error message on one line.
    pub(super) fn syntax(&self, error: &toml::de::Error) -> CustomEffectError {
        let what = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
        self.at(error.span().map_or(0, |span| span.start), format!("{what} (docs/custom-effect.md has every key)"))
    }

    /// Returns the output described by the only one of the four output sections.
    pub(super) fn output(&self, file: &written::File) -> Result<Output, CustomEffectError> {
        let starts = [
            file.picture.as_ref().map(Spanned::span),
            file.mask.as_ref().map(Spanned::span),
            file.boxes.as_ref().map(Spanned::span),
            file.labels.as_ref().map(Spanned::span),
        ];
        let starts: Vec<_> = starts.into_iter().flatten().map(|span| span.start).collect();
        match starts[..] {
            [] => {
                return Err(
                    self.wrong(&file.name, "nothing says what comes out of the model: add one of [picture], [mask], [boxes], [labels]")
                );
            }
            [_] => {}
            [_, second, ..] => return Err(self.at(second, "an effect has one of [picture], [mask], [boxes], [labels], not several".into())),
        }
        if let Some(picture) = &file.picture {
            let written::Picture { tensor, layout, colours, range } = picture.get_ref();
            return Ok(Output::Picture(Picture {
                tensor: self.tensor(tensor, picture),
                layout: *layout,
                colours: *colours,
                range: *range,
            }));
        }
        if let Some(mask) = &file.mask {
            return self.mask(mask).map(Output::Mask);
        }
        if let Some(boxes) = &file.boxes {
            return self.boxes(boxes).map(Output::Boxes);
        }
        let labels = file.labels.as_ref().expect("one of four is there, and it is none of the other three");
        let written::Labels { tensor, activation, top, labels: list, labels_file } = labels.get_ref();
        Ok(Output::Labels(Labels {
            tensor: self.tensor(tensor, labels),
            activation: *activation,
            top: self.within(top, 1..=10, 3, "top")?,
            labels: self.labels(list, labels_file)?,
        }))
    }

    fn mask(&self, section: &Spanned<written::Mask>) -> Result<Mask, CustomEffectError> {
        let mask = section.get_ref();
        let rest = *mask.rest.get_ref();
        let colour = match (&mask.colour, rest) {
            (Some(colour), Rest::Blur) => return Err(self.wrong(colour, "rest = \"blur\" takes no colour: leave it out")),
            (None, Rest::Blur) => [0; 3],
            (Some(colour), _) => parse_colour(colour.get_ref())
                .ok_or_else(|| self.wrong(colour, "a colour is written like \"#10a0ff\": red, green and blue"))?,
            (None, _) => return Err(self.wrong(&mask.rest, "rest = \"replace\" and \"tint\" need a colour, such as colour = \"#10a0ff\"")),
        };
        if mask.activation == Activation::Softmax && mask.channel.is_none() {
            return Err(self.wrong(section, "activation = \"softmax\" needs the channel that is meant, such as channel = 1"));
        }
        let channel = match &mask.channel {
            Some(channel) => self.located(channel, *channel.get_ref()),
            None => self.located(section, 0),
        };
        Ok(Mask {
            tensor: self.tensor(&mask.tensor, section),
            layout: mask.layout,
            activation: mask.activation,
            channel,
            threshold: self.within(&mask.threshold, 0.05..=0.95, super::decode::NEUTRAL_THRESHOLD, "threshold")?,
            keeps: mask.keeps,
            rest,
            colour,
        })
    }

    fn boxes(&self, section: &Spanned<written::Boxes>) -> Result<Boxes, CustomEffectError> {
        let boxes = section.get_ref();
        if let (true, Some(scores)) = (boxes.objectness, &boxes.scores) {
            return Err(self.wrong(scores, "objectness is a number beside those of the box: it goes with scores in the same tensor"));
        }
        Ok(Boxes {
            tensor: self.tensor(&boxes.tensor, section),
            scores: boxes.scores.as_ref().map(|name| TensorName { name: Some(name.get_ref().clone()), place: self.place(name) }),
            order: boxes.order,
            form: boxes.form,
            units: boxes.units,
            objectness: boxes.objectness,
            activation: boxes.activation,
            background: boxes.background.as_ref().map(|class| *class.get_ref()),
            overlap: self.within(&boxes.overlap, 0.0..=1.0, 0.45, "overlap")?,
            most: self.within(&boxes.most, 1..=MAX_BOXES, 20, "most")?,
            labels: self.labels(&boxes.labels, &boxes.labels_file)?,
        })
    }

    fn labels(&self, list: &Option<Spanned<Vec<String>>>, file: &Option<Spanned<String>>) -> Result<LabelSource, CustomEffectError> {
        match (list, file) {
            (Some(_), Some(file)) => Err(self.wrong(file, "labels and labels_file are two ways to say the same: keep one")),
            (Some(list), None) => Ok(LabelSource::List(list.get_ref().clone(), self.place(list))),
            (None, Some(file)) => Ok(LabelSource::File(self.file(file)?, self.place(file))),
            (None, None) => Ok(LabelSource::None),
        }
    }

    pub(super) fn model(&self, model: &written::Model) -> Result<Model, CustomEffectError> {
        let side = |side: &Spanned<u32>, name| match *side.get_ref() {
            pixels if (8..=MAX_SIDE).contains(&pixels) => Ok(self.located(side, pixels)),
            pixels => Err(self.wrong(side, format!("model.{name} = {pixels}: it must be from 8 to {MAX_SIDE}"))),
        };
        let channels = if model.colours == Colours::Grey { 1 } else { 3 };
        let (gain, bias) = match (&model.range, &model.mean, &model.std) {
            (range, None, None) => {
                let (gain, bias) = match range.as_ref().map(|range| *range.get_ref()).unwrap_or_default() {
                    Range::Unit => (1.0 / 255.0, 0.0),
                    Range::Signed => (2.0 / 255.0, -1.0),
                    Range::Bytes => (1.0, 0.0),
                };
                (vec![gain; channels], vec![bias; channels])
            }
            (None, Some(mean), Some(std)) => {
                for list in [mean, std] {
                    if list.get_ref().len() != channels || !list.get_ref().iter().all(|value| value.is_finite()) {
                        return Err(self.wrong(
                            list,
                            format!("mean and std have one number for each of the model's {channels} channels, of values from 0 to 1"),
                        ));
                    }
                }
                if std.get_ref().iter().any(|std| *std < 1e-3) {
                    return Err(self.wrong(std, "std must be above 0"));
                }
                let pairs = || mean.get_ref().iter().zip(std.get_ref());
                (pairs().map(|(_, std)| 1.0 / (255.0 * std)).collect(), pairs().map(|(mean, std)| -mean / std).collect())
            }
            (Some(range), ..) => return Err(self.wrong(range, "range and mean with std are two ways to say the same: keep one")),
            (None, Some(one), None) | (None, None, Some(one)) => return Err(self.wrong(one, "mean and std belong together: give both")),
        };
        Ok(Model {
            file: self.located(&model.file, self.file(&model.file)?),
            tensor: self.tensor(&model.tensor, &model.file),
            width: side(&model.width, "width")?,
            height: side(&model.height, "height")?,
            layout: model.layout,
            colours: model.colours,
            gain,
            bias,
            fit: model.fit,
            padding: model.padding,
            threads: self.within(&model.threads, 1..=8, 1, "threads")?,
        })
    }

    /// Returns the name of a file if it lies in the folder itself.
    fn file(&self, name: &Spanned<String>) -> Result<String, CustomEffectError> {
        let path = PathBuf::from(name.get_ref());
        let mut parts = path.components();
        match (parts.next(), parts.next()) {
            (Some(Component::Normal(_)), None) => Ok(name.get_ref().clone()),
            _ => Err(self.wrong(
                name,
                format!("{:?} does not lie in this folder: put the file beside effect.toml and name it alone", name.get_ref()),
            )),
        }
    }

    fn located<T, V>(&self, at: &Spanned<T>, value: V) -> Located<V> {
        Located { value, place: self.place(at) }
    }

    fn tensor<T>(&self, name: &Option<Spanned<String>>, section: &Spanned<T>) -> TensorName {
        let place = name.as_ref().map_or_else(|| self.place(section), |name| self.place(name));
        TensorName { name: name.as_ref().map(|name| name.get_ref().clone()), place }
    }

    /// Returns whether the effect hides the background. Only masks that blur or replace it may
    /// declare so.
    pub(super) fn hides(&self, file: &written::File, output: &Output) -> Result<bool, CustomEffectError> {
        let Some(hides) = file.hides.as_ref().filter(|hides| *hides.get_ref()) else { return Ok(false) };
        match output {
            Output::Mask(Mask { rest: Rest::Blur | Rest::Replace, .. }) => Ok(true),
            _ => {
                Err(self
                    .wrong(hides, "only a [mask] with rest = \"blur\" or \"replace\" hides anything: take 'hides' away, or change that"))
            }
        }
    }

    fn within<T: Copy + PartialOrd + std::fmt::Display>(
        &self,
        given: &Option<Spanned<T>>,
        range: std::ops::RangeInclusive<T>,
        otherwise: T,
        name: &str,
    ) -> Result<T, CustomEffectError> {
        match given {
            None => Ok(otherwise),
            Some(given) if range.contains(given.get_ref()) => Ok(*given.get_ref()),
            Some(given) => {
                Err(self.wrong(given, format!("{name} = {} must be from {} to {}", given.get_ref(), range.start(), range.end())))
            }
        }
    }
}

impl Declaration {
    /// Parses the text of the file at `path`.
    ///
    /// # Errors
    /// On the first syntax error or invalid value, with its line.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, CustomEffectError> {
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
            name: source.located(&file.name, name.clone()),
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
    /// Returns the given labels, truncated to [`MAX_NAME`] characters.
    pub(super) fn words<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
        lines.map(|line| line.trim().chars().take(MAX_NAME).collect()).collect()
    }
}

fn parse_colour(text: &str) -> Option<[u8; 3]> {
    let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6 && digits.chars().all(|c| c.is_ascii_hexdigit()))?;
    let number = u32::from_str_radix(digits, 16).ok()?;
    Some([(number >> 16) as u8, (number >> 8) as u8, number as u8])
}
