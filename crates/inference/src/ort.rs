//! The ONNX Runtime backend, loaded from a shared library.

mod providers;
mod run_timeout;

use std::path::{Path, PathBuf};

use ort::environment::Environment;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{RunOptions, Session, SessionOutputs};
use ort::value::TensorRef;
use parking_lot::Mutex;

use self::providers::Profile;
use self::run_timeout::RunTimeout;
use super::{BufferPool, Device, Input, Model, ModelSpec, Tensor};

/// The loaded library. A process can load only one: later calls return it, or fail if they ask for
/// another path.
#[derive(Debug, Clone)]
pub(super) struct Library {
    environment: Environment,
    path: PathBuf,
}

static LIBRARY: Mutex<Option<Library>> = Mutex::new(None);

impl Library {
    /// Loads the library at `path`, unless it is loaded already.
    pub(super) fn load(path: &Path) -> Result<Self, String> {
        let mut loaded = LIBRARY.lock();
        if let Some(library) = loaded.as_ref() {
            if library.path == path {
                return Ok(library.clone());
            }
            return Err(format!("this process has already loaded {}", library.path.display()));
        }
        let builder = ort::init_from(path).map_err(|error| error.to_string())?;
        let environment = builder.with_name("ooblex").with_telemetry(false).build().map_err(|error| error.to_string())?;
        Ok(loaded.insert(Self { environment, path: path.into() }).clone())
    }

    /// Returns the path of the library file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the name of the backend with the version at the end of the library's file name.
    pub(super) fn describe(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let version = name.split_once(".so.").map_or("of unnamed version", |(_, version)| version);
        format!("ONNX Runtime {version}")
    }

    /// Returns the devices that the library was built for. They need not exist on this machine.
    pub(super) fn devices(&self) -> Vec<Device> {
        providers::built_in()
    }

    /// Registers the device's execution provider without a model. Most missing drivers or libraries
    /// are detected here.
    pub(super) fn try_device(&self, device: Device) -> Result<(), String> {
        let registered =
            Session::builder(&self.environment).and_then(|builder| Ok(builder.with_execution_providers(providers::dispatch(device, 1))?));
        registered.map(drop).map_err(|error| words(&error))
    }

    /// Loads a model. On a device other than the CPU, the model has then been run once and the
    /// device has executed at least one of its nodes; nodes that the device's provider does not
    /// support run on the CPU.
    pub(super) fn open(&self, spec: &ModelSpec, bytes: &[u8], threads: usize, device: Device) -> Result<Box<dyn Model>, String> {
        let opened = match device {
            Device::Cpu => self.open_on_cpu(spec, bytes, threads),
            device => self.open_on(device, spec, bytes, threads),
        };
        Ok(Box::new(opened?))
    }

    fn open_on_cpu(&self, spec: &ModelSpec, bytes: &[u8], threads: usize) -> Result<OrtModel, String> {
        let session = self.builder(Device::Cpu, threads).and_then(|mut builder| builder.commit_from_memory(bytes));
        session.and_then(|session| OrtModel::new(spec, session, Some(tidy()?))).map_err(|error| words(&error))
    }

    fn open_on(&self, device: Device, spec: &ModelSpec, bytes: &[u8], threads: usize) -> Result<OrtModel, String> {
        let profile = Profile::new().map_err(|error| {
            format!(
                "there is no place to note which device runs it ({error}); make {} writable, or set TMPDIR",
                std::env::temp_dir().display()
            )
        })?;
        let run_once = || {
            let session = self.builder(device, threads)?.with_profiling(profile.prefix())?.commit_from_memory(bytes)?;
            let mut model = OrtModel::new(spec, session, None)?;
            model.warm_up(&RunOptions::new()?)?;
            let report = model.session.end_profiling()?;
            Ok((model, report))
        };
        let (model, report) = run_once().map_err(|error: ort::Error| words(&error))?;
        providers::prove(device, report.as_ref())?;
        Ok(model)
    }

    /// Configures a session. Threads do not spin while waiting. Without memory patterns a run
    /// allocates from the arena what it needs at each moment; with them it would allocate the sum
    /// of all its needs at once.
    fn builder(&self, device: Device, threads: usize) -> ort::Result<SessionBuilder> {
        let builder = Session::builder(&self.environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(threads)?
            .with_inter_threads(1)?
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            .with_memory_pattern(false)?
            .with_execution_providers(providers::dispatch(device, threads))?;
        Ok(builder)
    }
}

/// Returns options for a run after which the CPU memory arena is shrunk.
fn tidy() -> ort::Result<RunOptions> {
    let mut tidy = RunOptions::new()?;
    tidy.set("memory.enable_memory_arena_shrinkage", "cpu:0")?;
    Ok(tidy)
}

struct OrtModel {
    spec: ModelSpec,
    session: Session,
    /// Largest number of input values of a run since the memory was last released.
    largest: usize,
    /// Options that shrink the arena; for models on the CPU only. On other devices the arena holds
    /// little more than inputs and outputs.
    tidy: Option<RunOptions>,
    /// Run timeout; for custom models on the CPU only. On other devices a run may take long for
    /// good reasons.
    run_timeout: Option<RunTimeout>,
}

impl Model for OrtModel {
    fn run(&mut self, inputs: &[Input<'_>], buffers: &mut BufferPool) -> Result<Vec<Tensor>, String> {
        self.try_run(inputs, buffers).map_err(|error| words(&error))
    }

    /// Releases the memory. If that fails the memory is kept, and the next run reports the error.
    fn rest(&mut self) {
        if self.tidy_up().is_ok() {
            self.largest = 0;
        }
    }
}

impl OrtModel {
    fn new(spec: &ModelSpec, session: Session, tidy: Option<RunOptions>) -> ort::Result<Self> {
        let run_timeout = (tidy.is_some() && !spec.is_built_in()).then(RunTimeout::new).transpose()?;
        Ok(Self { spec: spec.clone(), session, largest: 0, tidy, run_timeout })
    }

    fn try_run(&mut self, inputs: &[Input<'_>], buffers: &mut BufferPool) -> ort::Result<Vec<Tensor>> {
        let values = inputs.iter().map(|input| input.data.len()).sum();
        if values > self.largest && self.largest > 0 {
            self.tidy_up()?;
        }
        self.largest = self.largest.max(values);
        let (spec, session, inputs) = (&self.spec, &mut self.session, named(&self.spec, inputs)?);
        let mut tensors =
            |outputs: &SessionOutputs<'_>| spec.outputs.iter().map(|declared| tensor(outputs, &declared.name, buffers)).collect();
        match &self.run_timeout {
            Some(run_timeout) => run_timeout.run(|options| tensors(&session.run_with_options(inputs, options)?)),
            None => tensors(&session.run(inputs)?),
        }
    }

    /// Shrinks the arena with a small run. Before a larger input this frees the memory that was
    /// allocated for smaller ones, and saves a third of the total.
    fn tidy_up(&mut self) -> ort::Result<()> {
        match self.tidy.take() {
            None => Ok(()),
            Some(tidy) => {
                let done = self.warm_up(&tidy);
                self.tidy = Some(tidy);
                done
            }
        }
    }

    /// Does a small run whose result is discarded.
    fn warm_up(&mut self, options: &RunOptions) -> ort::Result<()> {
        let tensors = self.spec.warm_up_tensors();
        let inputs: Vec<_> = tensors.iter().map(Tensor::as_input).collect();
        self.session.run_with_options(named(&self.spec, &inputs)?, options).map(drop)
    }
}

/// Returns the error message on one line, without a final full stop, so that a sentence can
/// continue after it.
fn words(error: &ort::Error) -> String {
    let line = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    line.trim_end_matches([';', '.', ' ']).into()
}

/// Returns the inputs with their names.
fn named<'a>(spec: &'a ModelSpec, inputs: &[Input<'a>]) -> ort::Result<Vec<(&'a str, TensorRef<'a, f32>)>> {
    let named = spec.inputs.iter().zip(inputs).map(|(declared, input)| {
        let tensor = TensorRef::from_array_view((input.shape, input.data))?;
        Ok((declared.name.as_ref(), tensor))
    });
    named.collect()
}

fn tensor(outputs: &SessionOutputs<'_>, name: &str, buffers: &mut BufferPool) -> ort::Result<Tensor> {
    let output = outputs.get(name).ok_or_else(|| ort::Error::new(format!("it has no output '{name}'")))?;
    let (shape, data) = output.try_extract_tensor::<f32>()?;
    // A value cannot have a negative extent; if it had, 0 would fail the shape check.
    let shape = shape.iter().map(|extent| usize::try_from(*extent).unwrap_or(0)).collect();
    let mut values = buffers.with_room(data.len());
    values.extend_from_slice(data);
    Ok(Tensor { shape, data: values })
}
