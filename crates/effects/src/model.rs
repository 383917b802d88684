//! Models: what they are, where their bytes come from, what runs them, and one call that runs one.
//!
//! It knows tensors and files; it does not know what an effect makes of them. Two backends hide behind [`Models::run`]:
//! ONNX Runtime, a library that is loaded at start, and rten, which is compiled in.

mod device;
mod ort;
#[cfg(test)]
mod rewritten;
mod rten;
mod runtime;
mod spare;
mod store;

use std::sync::Arc;
use std::time::Duration;

pub use device::{Device, DeviceError};
pub use runtime::{Backend, Runtime, RuntimeError};
pub use store::{ModelFileError, ModelStore};

use ooblex_pipeline::{ModelInput, Rgb};

use self::spare::Spare;
use crate::effect::Effect;
use crate::pixels;

/// A run of a model that is not of the program is ended after so long, where the backend can do that: frames have been given up long before.
pub const LONGEST_RUN: Duration = Duration::from_secs(4);

/// An ONNX file and what goes in and comes out of it. All tensors are f32.
#[derive(Debug)]
pub struct ModelSpec {
    /// The name in logs and in the API, such as `style26`.
    pub name: &'static str,
    /// The name of the file within the folder of models.
    pub file: &'static str,
    /// Checksum of the file, 64 lower-case hexadecimal digits.
    pub sha256: &'static str,
    /// The file as it was when the program was built.
    pub embedded: &'static [u8],
    /// What goes in.
    pub inputs: &'static [TensorSpec],
    /// What comes out.
    pub outputs: &'static [TensorSpec],
    /// Most threads that are worth while for one frame: small models lose more by sharing the work than they gain.
    pub threads: usize,
    /// Sizes for [`Extent::Free`] in runs whose result nobody wants, which warm the model up: small ones.
    pub warm_up: &'static [(&'static str, usize)],
}

/// A tensor's name and shape.
#[derive(Debug)]
pub struct TensorSpec {
    /// As in the ONNX file.
    pub name: &'static str,
    /// Outermost dimension first.
    pub shape: &'static [Extent],
}

/// The size of one dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Always this size.
    Fixed(usize),
    /// Chosen by the caller; wherever the name occurs in one run the size is the same.
    Free(&'static str),
}

/// A tensor that goes into a model.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Outermost dimension first.
    pub shape: &'a [usize],
    /// Row-major, as many as the shape says.
    pub data: &'a [f32],
}

/// A tensor that came out of a model: its shape was checked against the [`ModelSpec`], its values are finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// Row-major.
    pub data: Vec<f32>,
}

/// A frame that could not be analysed. The frame is dropped and counted; the next one may well succeed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The worker did not load this model.
    #[error("model {model} is not loaded in this worker")]
    Missing {
        /// Name of the model.
        model: &'static str,
    },
    /// A tensor that went in or came out does not have the shape that the model declares.
    #[error("model {model}: tensor '{tensor}' must be {expected}, not {got:?}")]
    WrongShape {
        /// Name of the model.
        model: &'static str,
        /// Name of the tensor.
        tensor: &'static str,
        /// What was declared, such as `[1, 3, height, width]`.
        expected: String,
        /// What it is.
        got: Vec<usize>,
    },
    /// A value that came out is NaN or infinite.
    #[error("model {model} gave a value that is not finite in '{tensor}'")]
    NotFinite {
        /// Name of the model.
        model: &'static str,
        /// Name of the tensor.
        tensor: &'static str,
    },
    /// The backend gave up.
    #[error("model {model} failed: {reason}")]
    Backend {
        /// Name of the model.
        model: &'static str,
        /// The backend's own words.
        reason: String,
    },
    /// The prepared frame does not fit the effect: it was made by another version, or damaged on its way.
    #[error("the prepared frame does not fit model {model}: {reason}")]
    BadInput {
        /// Name of the model.
        model: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// A model that could not be made ready at start.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Its file is not what it must be.
    #[error(transparent)]
    File(#[from] ModelFileError),
    /// The backend refused it.
    #[error("{backend} can not load model {model}: {reason}")]
    Backend {
        /// Which backend.
        backend: String,
        /// Name of the model.
        model: &'static str,
        /// The backend's own words.
        reason: String,
    },
    /// It was loaded, and then failed in the run that warms it up.
    #[error("a first run failed: {0}")]
    WarmUp(#[from] RunError),
}

/// So many runs of other models later, a model of free sizes gives back the memory that it took for its last picture.
const IDLE_RUNS: u64 = 120;

/// The models of one worker thread. Never shared: each thread loads its own.
#[derive(Default)]
pub struct Models {
    loaded: Vec<Loaded>,
    runs: u64,
    spare: Spare,
}

struct Loaded {
    spec: &'static ModelSpec,
    model: Box<dyn Model>,
    /// The number of its last run, unless it has given its memory back since.
    last_run: Option<u64>,
}

impl ModelSpec {
    /// Whether it is one of the program, and not one that was read from somebody's folder.
    pub(crate) fn is_built_in(&self) -> bool {
        !self.embedded.is_empty()
    }

    /// Inputs for a run whose result nobody wants.
    fn warm_up_tensors(&self) -> Vec<Tensor> {
        let size = |extent: &Extent| match extent {
            Extent::Fixed(size) => *size,
            Extent::Free(name) => self.warm_up.iter().find(|(free, _)| free == name).map_or(1, |(_, size)| *size),
        };
        let shapes = self.inputs.iter().map(|input| input.shape.iter().map(size).collect::<Vec<_>>());
        shapes.map(|shape| Tensor { data: vec![0.1; shape.iter().product()], shape }).collect()
    }

    /// The picture of a prepared frame, checked: it may come from another machine.
    ///
    /// # Errors
    /// When the bytes do not match the size, or the content is empty or reaches beyond the picture.
    pub(crate) fn checked_picture<'a>(&self, input: &'a ModelInput) -> Result<&'a Rgb, RunError> {
        let bad = |reason| Err(RunError::BadInput { model: self.name, reason });
        let picture = &input.picture;
        if let Err(error) = pixels::check(picture) {
            return bad(error.to_string());
        }
        let [left, top, width, height] = input.content;
        let within = |start: u32, length: u32, side| length > 0 && start.checked_add(length).is_some_and(|end| end <= side);
        if !within(left, width, picture.width) || !within(top, height, picture.height) {
            return bad(format!("content {:?} reaches beyond {}x{}", input.content, picture.width, picture.height));
        }
        Ok(picture)
    }

    /// The same for a model that takes pictures of one size only.
    pub(crate) fn picture_of<'a>(&self, input: &'a ModelInput, width: u32, height: u32) -> Result<&'a Rgb, RunError> {
        let picture = self.checked_picture(input)?;
        if (picture.width, picture.height) == (width, height) {
            return Ok(picture);
        }
        let reason = format!("{}x{} instead of {width}x{height}", picture.width, picture.height);
        Err(RunError::BadInput { model: self.name, reason })
    }
}

/// What a backend makes of a file.
trait Model: Send {
    /// Runs it. `inputs` are in the order of the spec and have its shapes; so must the result be, whose memory may be of `spare`. An
    /// error is the backend's own words.
    fn run(&mut self, inputs: &[Input<'_>], spare: &mut Spare) -> Result<Vec<Tensor>, String>;

    /// Gives back what it keeps for the next picture, which may be long in coming.
    fn rest(&mut self) {}
}

impl Models {
    /// Loads every model of `effects` and runs it once, since a first run is slow. One thread computes: the caller's.
    ///
    /// # Errors
    /// On the first model whose file is wrong, that does not run, or of which the chosen device runs nothing.
    pub fn load(runtime: &Runtime, store: &ModelStore, effects: &[Arc<dyn Effect>]) -> Result<Self, LoadError> {
        let mut models = Self::default();
        for (effect, spec) in effects.iter().flat_map(|effect| effect.models().iter().map(move |spec| (effect, *spec))) {
            if models.names().any(|loaded| loaded == spec.name) {
                continue;
            }
            let model = match effect.model_bytes(spec) {
                Some(bytes) => runtime.open(spec, &bytes)?,
                None => runtime.open(spec, &store.bytes(spec)?)?,
            };
            models.loaded.push(Loaded { spec, model, last_run: None });
            models.warm_up(spec)?;
        }
        Ok(models)
    }

    /// Runs a model on `inputs`, which are in the order of the spec; the result is in the order of the spec, too.
    ///
    /// # Errors
    /// When the model is not loaded, a shape is wrong, the backend fails, or a value is not finite.
    pub fn run(&mut self, spec: &'static ModelSpec, inputs: &[Input<'_>]) -> Result<Vec<Tensor>, RunError> {
        let model = spec.name;
        self.runs += 1;
        self.rest();
        // Two versions of one's own model may be loaded under one name.
        let Some(loaded) = self.loaded.iter_mut().find(|loaded| std::ptr::eq(loaded.spec, spec)) else {
            return Err(RunError::Missing { model });
        };
        if inputs.len() != spec.inputs.len() {
            let reason = format!("{} tensors instead of {}", inputs.len(), spec.inputs.len());
            return Err(RunError::BadInput { model, reason });
        }
        let mut sizes = Sizes::new();
        for (input, declared) in inputs.iter().zip(spec.inputs) {
            declared.check(model, input.shape, input.data.len(), &mut sizes)?;
        }
        loaded.last_run = Some(self.runs);
        let outputs = loaded.model.run(inputs, &mut self.spare).map_err(|reason| RunError::Backend { model, reason })?;
        if outputs.len() != spec.outputs.len() {
            let reason = format!("it gave {} tensors instead of {}", outputs.len(), spec.outputs.len());
            return Err(RunError::Backend { model, reason });
        }
        for (output, declared) in outputs.iter().zip(spec.outputs) {
            declared.check(model, &output.shape, output.data.len(), &mut sizes)?;
            if !all_finite(&output.data) {
                return Err(RunError::NotFinite { model, tensor: declared.name });
            }
        }
        Ok(outputs)
    }

    /// Where memory of tensors comes from, and where it goes when nobody wants them any more.
    pub(crate) fn spare(&mut self) -> &mut Spare {
        &mut self.spare
    }

    /// Takes over what was loaded in addition, and lets go of what none of `effects` needs.
    pub fn take_over(&mut self, fresh: Models, effects: &[Arc<dyn Effect>]) {
        let needed = |spec: &ModelSpec| effects.iter().any(|effect| effect.models().iter().any(|needed| std::ptr::eq(*needed, spec)));
        self.loaded.retain(|loaded| needed(loaded.spec) && !fresh.loaded.iter().any(|new| std::ptr::eq(new.spec, loaded.spec)));
        let fresh = fresh.loaded.into_iter().filter(|loaded| needed(loaded.spec));
        // The runs of the two were counted apart.
        self.loaded.extend(fresh.map(|loaded| Loaded { last_run: None, ..loaded }));
    }

    /// The names of the loaded models.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.loaded.iter().map(|loaded| loaded.spec.name)
    }

    /// Lets models rest that were not asked for lately. Else every style that was ever painted would keep the memory for a picture.
    fn rest(&mut self) {
        for loaded in self.loaded.iter_mut().filter(|loaded| !loaded.spec.warm_up.is_empty()) {
            if loaded.last_run.is_some_and(|last| self.runs - last > IDLE_RUNS) {
                loaded.model.rest();
                loaded.last_run = None;
                self.spare = Spare::default();
            }
        }
    }

    fn warm_up(&mut self, spec: &'static ModelSpec) -> Result<(), RunError> {
        let tensors = spec.warm_up_tensors();
        let inputs: Vec<_> = tensors.iter().map(Tensor::as_input).collect();
        self.run(spec, &inputs).map(drop)
    }
}

impl Tensor {
    fn as_input(&self) -> Input<'_> {
        Input { shape: &self.shape, data: &self.data }
    }
}

/// The sizes of free dimensions, as the tensors seen so far have bound them.
type Sizes = Vec<(&'static str, usize)>;

impl TensorSpec {
    /// Checks a shape and the number of values, and binds free dimensions.
    fn check(&self, model: &'static str, shape: &[usize], values: usize, sizes: &mut Sizes) -> Result<(), RunError> {
        let fits = |extent: &Extent, got: usize, sizes: &mut Sizes| match extent {
            Extent::Fixed(size) => got == *size,
            Extent::Free(name) => match sizes.iter().find(|(bound, _)| bound == name) {
                Some((_, size)) => got == *size,
                None => {
                    sizes.push((name, got));
                    got > 0
                }
            },
        };
        let same = shape.len() == self.shape.len() && self.shape.iter().zip(shape).all(|(extent, got)| fits(extent, *got, sizes));
        if same && shape.iter().product::<usize>() == values {
            return Ok(());
        }
        let expected: Vec<_> = self.shape.iter().map(|extent| extent.describe(sizes)).collect();
        Err(RunError::WrongShape { model, tensor: self.name, expected: format!("[{}]", expected.join(", ")), got: shape.to_vec() })
    }
}

impl Extent {
    /// The size, if it is always the same.
    pub(crate) fn fixed(&self) -> Option<usize> {
        match self {
            Extent::Fixed(size) => Some(*size),
            Extent::Free(_) => None,
        }
    }

    fn describe(&self, sizes: &Sizes) -> String {
        match self {
            Extent::Fixed(size) => size.to_string(),
            Extent::Free(name) => match sizes.iter().find(|(bound, _)| bound == name) {
                Some((_, size)) => format!("{name}={size}"),
                None => name.to_string(),
            },
        }
    }
}

/// Whether no value is NaN or infinite: 0 times a value is 0 for finite ones only, and a sum keeps NaN.
fn all_finite(values: &[f32]) -> bool {
    let (chunks, rest) = values.as_chunks::<8>();
    let mut sums = [0.0_f32; 8];
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += value * 0.0;
        }
    }
    sums.iter().chain(rest).all(|value| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    static SPEC: TensorSpec = TensorSpec { name: "image", shape: &[Extent::Fixed(1), Extent::Free("height"), Extent::Free("width")] };

    #[test]
    fn free_sizes_are_bound_by_their_first_tensor() {
        let mut sizes = Sizes::new();
        SPEC.check("m", &[1, 4, 8], 32, &mut sizes).unwrap();
        SPEC.check("m", &[1, 4, 8], 32, &mut sizes).unwrap();
        let refusal = SPEC.check("m", &[1, 8, 4], 32, &mut sizes).unwrap_err().to_string();
        assert_eq!(refusal, "model m: tensor 'image' must be [1, height=4, width=8], not [1, 8, 4]");
    }

    #[test]
    fn a_shape_with_too_few_values_or_dimensions_is_refused() {
        assert!(SPEC.check("m", &[1, 4, 8], 31, &mut Sizes::new()).is_err());
        assert!(SPEC.check("m", &[1, 4], 4, &mut Sizes::new()).is_err());
        assert!(SPEC.check("m", &[1, 0, 8], 0, &mut Sizes::new()).is_err());
        assert!(SPEC.check("m", &[2, 4, 8], 64, &mut Sizes::new()).is_err());
    }

    #[test]
    fn values_that_are_not_finite_are_found_wherever_they_are() {
        assert!(all_finite(&[f32::MAX; 37]));
        for index in 0..37 {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut values = [1.0; 37];
                values[index] = bad;
                assert!(!all_finite(&values), "{bad} at {index}");
            }
        }
    }
}
