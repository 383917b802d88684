//! An effect read from a folder: one [`Effect`] for four kinds of output, and the trial run before
//! it is served.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ooblex_pipeline::{Analysis, EffectName, I420, ModelInput};

use super::decode;
use super::error::{CustomEffectError, Place};
use super::painter::CustomPainter;
use super::spec::{BoundSpec, Output};
use super::toml::Activation;
use crate::effect::{Chaining, Effect, Painter, WhenSlow};
use crate::models::load_models;
use crate::models::picture_of;
use crate::parameters::{Parameter, Parameters};
use ooblex_inference::{Input, ModelSpec, ModelStore, Models, RunError, Runtime, Tensor};

/// Fraction of values outside the declared range above which the declaration is considered wrong,
/// rather than the model slightly inexact.
const MOST_OUTSIDE: f32 = 0.02;
/// Distance beyond the declared range, as a fraction of it, up to which a value does not count as
/// outside.
const TOLERANCE: f32 = 0.15;

/// An effect as it was read from a folder. Later changes in the folder make another effect of the
/// same name.
pub struct CustomEffect {
    pub(super) name: EffectName,
    pub(super) queue: EffectName,
    pub(super) title: String,
    pub(super) description: String,
    pub(super) when_slow: WhenSlow,
    pub(super) folder: PathBuf,
    /// The model's bytes; `None` once they were released.
    pub(super) bytes: Option<Arc<[u8]>>,
    pub(super) spec: ModelSpec,
    pub(super) parameters: Vec<Parameter>,
    pub(super) name_place: Place,
    pub(super) form: Arc<BoundSpec>,
}

/// Result of a trial run of a model.
#[derive(Debug)]
pub struct Trial {
    /// Time from the model's bytes to the first result.
    pub load: Duration,
    /// Median time of a run.
    pub typical: Duration,
    /// Time of the slowest run.
    pub slowest: Duration,
    /// Number of measured runs.
    pub runs: usize,
    /// The picture with the effect painted on it.
    pub painted: I420,
    /// Text that lists the detections; empty for effects that detect nothing.
    pub found: String,
}

impl CustomEffect {
    /// Loads the model, runs it on `frame`, on black and on white, then measures `runs` runs on
    /// `frame` (at least one), and paints the last result.
    ///
    /// # Errors
    /// When the backend cannot load the model, a run fails, or the values are outside the declared
    /// range.
    pub fn try_on(self: &Arc<Self>, runtime: &Runtime, frame: &I420, runs: usize) -> Result<Trial, CustomEffectError> {
        let path = self.folder.join(&self.form.model.file.value);
        let failed = |error| CustomEffectError::Run { path: path.clone(), error };
        let effects: [Arc<dyn Effect>; 1] = [self.clone()];
        let started = Instant::now();
        let mut models = match load_models(runtime, &ModelStore::embedded(), &effects) {
            Ok(models) => models,
            Err(crate::LoadError::WarmUp(error)) => return Err(failed(error)),
            Err(error) => return Err(CustomEffectError::Load { path, error }),
        };
        let load = started.elapsed();
        let parameters = Parameters::defaults(&self.parameters);
        let mut painter = self.painter();
        let input = painter.prepare(frame, &parameters);
        self.examine(&self.run(&mut models, &input).map_err(failed)?)?;
        for luma in [16, 235] {
            let flat = self.painter().prepare(&I420::grey(frame.width(), frame.height(), luma), &parameters);
            self.analyse(&mut models, &flat).map_err(failed)?;
        }
        let mut took = Vec::new();
        let mut analysis = None;
        for _ in 0..runs.max(1) {
            let started = Instant::now();
            analysis = Some(self.analyse(&mut models, &input).map_err(failed)?);
            took.push(started.elapsed());
        }
        took.sort();
        let mut painted = frame.clone();
        // The effect's own analysis can always be painted. If not, that is a bug of this program,
        // reported as a failure of the model.
        painter
            .compose(&mut painted, analysis.as_ref(), &parameters)
            .map_err(|error| failed(RunError::Backend { model: self.spec.name.to_string(), reason: error.to_string() }))?;
        let found: Vec<_> =
            painter.found().unwrap_or_default().iter().map(|found| format!("{} {:.0}%", found.label, found.score * 100.0)).collect();
        let (typical, slowest) = (took[took.len() / 2], took[took.len() - 1]);
        Ok(Trial { load, typical, slowest, runs: took.len(), painted, found: found.join(", ") })
    }

    /// Releases the model's bytes in a process that does not run it; it cannot be loaded there
    /// afterwards.
    pub fn let_go_of_model(&mut self) {
        self.bytes = None;
    }

    /// Returns the place in `effect.toml` where the effect's name is declared.
    pub fn name_place(&self) -> &Place {
        &self.name_place
    }

    fn run(&self, models: &mut Models, input: &ModelInput) -> Result<Vec<Tensor>, RunError> {
        let BoundSpec { model, inputs, .. } = self.form.as_ref();
        let spec = &self.spec;
        let (width, height) = (model.width.value, model.height.value);
        let picture = picture_of(spec, input, width, height)?;
        let Some((_, numbers)) = input.arguments.split_first().filter(|(_, numbers)| numbers.len() == inputs.len()) else {
            let reason = format!("{} arguments instead of {}", input.arguments.len(), 1 + inputs.len());
            return Err(RunError::BadInput { model: spec.name.to_string(), reason });
        };
        let data = decode::encode(model, picture);
        let ones = [1; 4];
        let sides: Vec<_> = spec.inputs[0].shape.iter().map(|extent| extent.fixed().unwrap_or(1)).collect();
        let mut tensors = vec![Input { shape: &sides, data: &data }];
        for (number, declared) in numbers.chunks(1).zip(&spec.inputs[1..]) {
            tensors.push(Input { shape: &ones[..declared.shape.len().min(4)], data: number });
        }
        models.run(spec, &tensors)
    }

    /// Checks that the model's values are in the declared range.
    fn examine(&self, tensors: &[Tensor]) -> Result<(), CustomEffectError> {
        let logits = "if these are logits, add activation = \"sigmoid\" or \"softmax\"";
        let (place, index, [low, high], from, remedy) = match &self.form.output {
            Output::Picture(picture) => (&picture.tensor.place, 0, decode::ends(picture.range), None, "declare the range that it has"),
            Output::Mask(mask) if mask.activation == Activation::None => (&mask.tensor.place, 0, [0.0, 1.0], None, logits),
            Output::Labels(labels) if labels.activation == Activation::None => (&labels.tensor.place, 0, [0.0, 1.0], None, logits),
            Output::Boxes(boxes) if boxes.activation == Activation::None => match &boxes.scores {
                Some(scores) => (&scores.place, 1, [0.0, 1.0], None, logits),
                None => (&boxes.tensor.place, 0, [0.0, 1.0], Some(boxes), logits),
            },
            _ => return Ok(()),
        };
        let Some(tensor) = tensors.get(index) else { return Ok(()) };
        let values: Vec<f32> = match from {
            None => tensor.data.clone(),
            Some(boxes) => decode::scores_beside(boxes, tensor),
        };
        let slack = TOLERANCE * (high - low);
        let outside = values.iter().filter(|value| **value < low - slack || **value > high + slack).count();
        if outside as f32 <= MOST_OUTSIDE * values.len() as f32 {
            return Ok(());
        }
        let (least, most) =
            values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(least, most), value| (least.min(*value), most.max(*value)));
        Err(CustomEffectError::Values {
            place: place.clone(),
            tensor: self.spec.outputs[index].name.as_ref().into(),
            model: self.form.model.file.value.clone(),
            least,
            most,
            expected: format!("{low} to {high}"),
            remedy,
        })
    }
}

impl Effect for CustomEffect {
    fn name(&self) -> EffectName {
        self.name.clone()
    }

    fn title(&self) -> &str {
        &self.title
    }

    fn description(&self) -> &str {
        &self.description
    }

    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn models(&self) -> Vec<&ModelSpec> {
        vec![&self.spec]
    }

    fn queue(&self) -> EffectName {
        self.queue.clone()
    }

    fn folder(&self) -> Option<&Path> {
        Some(&self.folder)
    }

    fn model_bytes(&self, _model: &ModelSpec) -> Option<Arc<[u8]>> {
        self.bytes.clone()
    }

    fn when_slow(&self) -> WhenSlow {
        self.when_slow
    }

    /// Runs the model; `input.arguments` holds the threshold, then the numbers passed to the model.
    fn analyse(&self, models: &mut Models, input: &ModelInput) -> Result<Analysis, RunError> {
        let tensors = self.run(models, input)?;
        let least = input.arguments.first().copied().unwrap_or(0.0);
        decode::decode(&self.form.output, &self.spec, &tensors, input, least)
    }

    fn chaining(&self) -> Chaining {
        match self.form.output {
            Output::Picture(_) => Chaining::First,
            _ => Chaining::Anywhere,
        }
    }

    fn painter(&self) -> Box<dyn Painter> {
        Box::new(CustomPainter::new(self.form.clone()))
    }
}
