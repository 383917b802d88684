//! ONNX models: their specifications, the source of their files, the backends that run them, and
//! [`Models::run`], which runs one.
//!
//! This crate knows tensors and files, not the effects that use them. It has two backends: ONNX
//! Runtime, a library loaded at start, and rten, which is compiled in with the feature `rten`.

mod buffer_pool;
mod device;
mod ort;
#[cfg_attr(not(feature = "rten"), path = "no_rten.rs")]
mod rten;
mod runtime;

mod store;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

pub use device::{Device, DeviceError};
pub use runtime::{Backend, Runtime, RuntimeError};
pub use store::{ModelFileError, ModelStore};

pub use self::buffer_pool::BufferPool;

/// Time after which a run of a custom model is terminated, on backends that support it. Its frame
/// has been given up long before.
pub const LONGEST_RUN: Duration = Duration::from_secs(4);

/// Specification of an ONNX file with its input and output tensors. All tensors are f32.
#[derive(Debug, Clone)]
pub struct ModelSpec {
    /// Name in logs and in the API, such as `style26`.
    pub name: Cow<'static, str>,
    /// File name in the folder of models.
    pub file: Cow<'static, str>,
    /// SHA-256 checksum of the file, 64 lower-case hexadecimal digits.
    pub sha256: Cow<'static, str>,
    /// The file's bytes at build time; empty for custom models.
    pub embedded: &'static [u8],
    /// Input tensors, in the order in which they are passed to [`Models::run`].
    pub inputs: Cow<'static, [TensorSpec]>,
    /// Output tensors, in the order in which [`Models::run`] returns them.
    pub outputs: Cow<'static, [TensorSpec]>,
    /// Maximum number of threads that pays for one frame: small models lose more by splitting the
    /// work than they gain.
    pub threads: usize,
    /// Sizes of [`Extent::Free`] dimensions in warm-up runs, whose results are discarded; small
    /// ones.
    pub warm_up: &'static [FreeExtent],
}

/// Size that an [`Extent::Free`] dimension has in one run.
#[derive(Debug)]
pub struct FreeExtent {
    /// Name of the dimension.
    pub name: &'static str,
    /// Its size.
    pub size: usize,
}

/// Name and shape of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name of the tensor in the ONNX file.
    pub name: Cow<'static, str>,
    /// Dimensions, outermost first.
    pub shape: Cow<'static, [Extent]>,
}

/// Size of one dimension of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// A constant size.
    Fixed(usize),
    /// A size chosen by the caller. It is the same wherever its name occurs in one run.
    Free(Cow<'static, str>),
}

/// A tensor passed to a model.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Dimensions, outermost first.
    pub shape: &'a [usize],
    /// Values in row-major order; their number is the product of `shape`.
    pub data: &'a [f32],
}

/// A tensor returned by a model. Its shape was checked against the [`ModelSpec`], and its values
/// are finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Values in row-major order.
    pub data: Vec<f32>,
}

/// Reason why a frame could not be analysed. The frame is dropped and counted; the next one may
/// succeed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The worker has not loaded this model.
    #[error("model {model} is not loaded in this worker")]
    Missing {
        /// Name of the model.
        model: String,
    },
    /// An input or output tensor does not have the declared shape.
    #[error("model {model}: tensor '{tensor}' must be {expected}, not {got:?}")]
    WrongShape {
        /// Name of the model.
        model: String,
        /// Name of the tensor.
        tensor: String,
        /// The declared shape, such as `[1, 3, height, width]`.
        expected: String,
        /// The actual shape.
        got: Vec<usize>,
    },
    /// An output value is NaN or infinite.
    #[error("model {model} gave a value that is not finite in '{tensor}'")]
    NotFinite {
        /// Name of the model.
        model: String,
        /// Name of the tensor.
        tensor: String,
    },
    /// The backend failed.
    #[error("model {model} failed: {reason}")]
    Backend {
        /// Name of the model.
        model: String,
        /// Error message of the backend.
        reason: String,
    },
    /// The prepared frame does not match the effect: another version made it, or it was damaged in
    /// transit.
    #[error("the prepared frame does not fit model {model}: {reason}")]
    BadInput {
        /// Name of the model.
        model: String,
        /// Description of the mismatch.
        reason: String,
    },
}

/// Reason why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The model's file is missing or wrong.
    #[error(transparent)]
    File(#[from] ModelFileError),
    /// The backend refused the model.
    #[error("{backend} cannot load model {model}: {reason}")]
    Backend {
        /// Name of the backend.
        backend: String,
        /// Name of the model.
        model: String,
        /// Error message of the backend.
        reason: String,
    },
    /// The model was loaded, but its warm-up run failed.
    #[error("a first run failed: {0}")]
    WarmUp(#[from] RunError),
}

/// Number of runs of other models after which a model with free sizes releases the memory of its
/// last picture.
const IDLE_RUNS: u64 = 120;

/// The models of one worker thread. They are never shared: each thread loads its own.
#[derive(Default)]
pub struct Models {
    loaded: Vec<Loaded>,
    runs: u64,
    buffers: BufferPool,
}

struct Loaded {
    spec: ModelSpec,
    model: Box<dyn Model>,
    /// Number of the model's last run; `None` if it has released its memory since.
    last_run: Option<u64>,
}

impl PartialEq for ModelSpec {
    /// The checksum stands for the bytes of the file.
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.sha256, &self.inputs, &self.outputs, self.threads)
            == (&other.name, &other.sha256, &other.inputs, &other.outputs, other.threads)
    }
}

impl ModelSpec {
    /// Returns whether the model is built into the program rather than read from a folder of custom
    /// effects.
    pub(crate) fn is_built_in(&self) -> bool {
        !self.embedded.is_empty()
    }

    /// Makes inputs for a warm-up run.
    fn warm_up_tensors(&self) -> Vec<Tensor> {
        let size = |extent: &Extent| match extent {
            Extent::Fixed(size) => *size,
            Extent::Free(name) => self.warm_up.iter().find(|free| free.name == *name).map_or(1, |free| free.size),
        };
        let shapes = self.inputs.iter().map(|input| input.shape.iter().map(size).collect::<Vec<_>>());
        shapes.map(|shape| Tensor { data: vec![0.1; shape.iter().product()], shape }).collect()
    }
}

/// A model to load.
#[derive(Debug, Clone)]
pub struct ModelSource<'a> {
    /// Specification of the model.
    pub spec: &'a ModelSpec,
    /// Bytes of the file; `None` if the [`ModelStore`] has them.
    pub bytes: Option<Arc<[u8]>>,
}

/// A model loaded by a backend.
trait Model: Send {
    /// Runs the model. `inputs` are in the order of the specification and have its shapes; so do
    /// the results, whose memory may come from `buffers`. An error is the backend's message.
    fn run(&mut self, inputs: &[Input<'_>], buffers: &mut BufferPool) -> Result<Vec<Tensor>, String>;

    /// Releases the memory kept for the next picture, because none is expected soon.
    fn rest(&mut self) {}
}

impl Models {
    /// Loads every model of `sources` and runs it once, since a first run is slow. All of it
    /// happens on the calling thread.
    ///
    /// # Errors
    /// On the first model whose file is wrong, that does not run, or of which the chosen device
    /// runs no node.
    pub fn load(runtime: &Runtime, store: &ModelStore, sources: &[ModelSource<'_>]) -> Result<Self, LoadError> {
        let mut models = Self::default();
        for ModelSource { spec, bytes } in sources {
            if models.names().any(|loaded| loaded == spec.name) {
                continue;
            }
            let model = match bytes {
                Some(bytes) => runtime.open(spec, bytes)?,
                None => runtime.open(spec, &store.bytes(spec)?)?,
            };
            models.loaded.push(Loaded { spec: (*spec).clone(), model, last_run: None });
            models.warm_up(spec)?;
        }
        Ok(models)
    }

    /// Runs a model. `inputs` and results are in the order of the specification.
    ///
    /// # Errors
    /// When the model is not loaded, a shape is wrong, the backend fails, or a value is not finite.
    pub fn run(&mut self, spec: &ModelSpec, inputs: &[Input<'_>]) -> Result<Vec<Tensor>, RunError> {
        let model = || spec.name.to_string();
        self.runs += 1;
        self.rest();
        // Two versions of a custom model may be loaded under the same name.
        let Some(loaded) = self.loaded.iter_mut().find(|loaded| loaded.spec == *spec) else {
            return Err(RunError::Missing { model: model() });
        };
        if inputs.len() != spec.inputs.len() {
            let reason = format!("{} tensors instead of {}", inputs.len(), spec.inputs.len());
            return Err(RunError::BadInput { model: model(), reason });
        }
        let mut sizes = Sizes::new();
        for (input, declared) in inputs.iter().zip(spec.inputs.iter()) {
            declared.check(&spec.name, input.shape, input.data.len(), &mut sizes)?;
        }
        loaded.last_run = Some(self.runs);
        let outputs = loaded.model.run(inputs, &mut self.buffers).map_err(|reason| RunError::Backend { model: model(), reason })?;
        if outputs.len() != spec.outputs.len() {
            let reason = format!("it gave {} tensors instead of {}", outputs.len(), spec.outputs.len());
            return Err(RunError::Backend { model: model(), reason });
        }
        for (output, declared) in outputs.iter().zip(spec.outputs.iter()) {
            declared.check(&spec.name, &output.shape, output.data.len(), &mut sizes)?;
            if !all_finite(&output.data) {
                return Err(RunError::NotFinite { model: model(), tensor: declared.name.to_string() });
            }
        }
        Ok(outputs)
    }

    /// Returns the buffer pool for the memory of large tensors.
    pub fn buffers(&mut self) -> &mut BufferPool {
        &mut self.buffers
    }

    /// Adds the newly loaded models of `fresh`, and drops all models that are not among `needed`.
    pub fn take_over(&mut self, fresh: Models, needed: &[&ModelSpec]) {
        self.loaded.retain(|loaded| needed.contains(&&loaded.spec) && !fresh.loaded.iter().any(|new| new.spec == loaded.spec));
        let fresh = fresh.loaded.into_iter().filter(|loaded| needed.contains(&&loaded.spec));
        // `fresh` has counted its runs separately.
        self.loaded.extend(fresh.map(|loaded| Loaded { last_run: None, ..loaded }));
    }

    /// Returns the names of the loaded models.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.loaded.iter().map(|loaded| loaded.spec.name.as_ref())
    }

    /// Releases the memory of models that were not run recently. Otherwise every style that was
    /// ever painted would keep the memory for a picture.
    fn rest(&mut self) {
        for loaded in self.loaded.iter_mut().filter(|loaded| !loaded.spec.warm_up.is_empty()) {
            if loaded.last_run.is_some_and(|last| self.runs - last > IDLE_RUNS) {
                loaded.model.rest();
                loaded.last_run = None;
                self.buffers = BufferPool::default();
            }
        }
    }

    fn warm_up(&mut self, spec: &ModelSpec) -> Result<(), RunError> {
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

/// Sizes of free dimensions, bound by the tensors checked so far.
type Sizes<'a> = Vec<(&'a str, usize)>;

impl TensorSpec {
    /// Makes the specification of a tensor whose dimensions are known at build time.
    pub const fn new(name: &'static str, shape: &'static [Extent]) -> Self {
        Self { name: Cow::Borrowed(name), shape: Cow::Borrowed(shape) }
    }

    /// Checks a shape and its number of values, and binds free dimensions.
    fn check<'a>(&'a self, model: &str, shape: &[usize], values: usize, sizes: &mut Sizes<'a>) -> Result<(), RunError> {
        let fits = |extent: &'a Extent, got: usize, sizes: &mut Sizes<'a>| match extent {
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
        Err(RunError::WrongShape {
            model: model.into(),
            tensor: self.name.to_string(),
            expected: format!("[{}]", expected.join(", ")),
            got: shape.to_vec(),
        })
    }
}

impl Extent {
    /// Returns the size if it is constant.
    pub fn fixed(&self) -> Option<usize> {
        match self {
            Extent::Fixed(size) => Some(*size),
            Extent::Free(_) => None,
        }
    }

    fn describe(&self, sizes: &Sizes<'_>) -> String {
        match self {
            Extent::Fixed(size) => size.to_string(),
            Extent::Free(name) => match sizes.iter().find(|(bound, _)| bound == name) {
                Some((_, size)) => format!("{name}={size}"),
                None => name.to_string(),
            },
        }
    }
}

/// Returns whether no value is NaN or infinite. Zero times a value is 0 only for finite ones, and a
/// sum preserves NaN.
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

    static SPEC: TensorSpec =
        TensorSpec::new("image", &[Extent::Fixed(1), Extent::Free(Cow::Borrowed("height")), Extent::Free(Cow::Borrowed("width"))]);

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
