//! The backend ONNX Runtime, from a shared library.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ort::environment::Environment;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{RunOptions, Session};
use ort::value::TensorRef;

use super::{Input, Model, ModelSpec, Tensor};

/// The loaded library. A process can hold one only: who comes later gets the one that is there.
#[derive(Debug, Clone)]
pub(super) struct Library {
    environment: Environment,
    path: PathBuf,
}

static LIBRARY: Mutex<Option<Library>> = Mutex::new(None);

impl Library {
    /// Loads the library at `path`, unless one is loaded already.
    pub(super) fn load(path: &Path) -> Result<Self, String> {
        let mut loaded = LIBRARY.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
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

    /// The file that it was loaded from.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The version that the library's file name ends in.
    pub(super) fn describe(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let version = name.split_once(".so.").map_or("of unnamed version", |(_, version)| version);
        format!("ONNX Runtime {version}")
    }

    pub(super) fn open(&self, spec: &'static ModelSpec, bytes: &[u8], threads: usize) -> Result<Box<dyn Model>, String> {
        let model = self.session(bytes, threads).and_then(|session| OrtModel::new(spec, session)).map_err(|error| error.to_string())?;
        Ok(Box::new(model))
    }

    /// Nothing spins while waiting. Without memory patterns a run takes from the arena what it needs at a
    /// time; with them it takes at once the sum of what it needs in all.
    fn session(&self, bytes: &[u8], threads: usize) -> ort::Result<Session> {
        Session::builder(&self.environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(threads)?
            .with_inter_threads(1)?
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            .with_memory_pattern(false)?
            .commit_from_memory(bytes)
    }
}

struct OrtModel {
    spec: &'static ModelSpec,
    session: Session,
    /// Most values that went in at once so far.
    largest: usize,
    /// For a run at whose end the arena gives its memory back to the system.
    tidy: RunOptions,
}

impl Model for OrtModel {
    fn run(&mut self, inputs: &[Input<'_>]) -> Result<Vec<Tensor>, String> {
        self.try_run(inputs).map_err(|error| error.to_string())
    }
}

impl OrtModel {
    fn new(spec: &'static ModelSpec, session: Session) -> ort::Result<Self> {
        let mut tidy = RunOptions::new()?;
        tidy.set("memory.enable_memory_arena_shrinkage", "cpu:0")?;
        Ok(Self { spec, session, largest: 0, tidy })
    }

    fn try_run(&mut self, inputs: &[Input<'_>]) -> ort::Result<Vec<Tensor>> {
        let values = inputs.iter().map(|input| input.data.len()).sum();
        if values > self.largest && self.largest > 0 {
            self.tidy_up()?;
        }
        self.largest = self.largest.max(values);
        let outputs = self.session.run(named(self.spec, inputs)?)?;
        self.spec.outputs.iter().map(|declared| tensor(&outputs, declared.name)).collect()
    }

    /// Makes the arena give its memory back, by a small run. Before a larger input this keeps what was taken for smaller ones from
    /// lying idle beside what the larger one takes: two thirds of the memory for all.
    fn tidy_up(&mut self) -> ort::Result<()> {
        let tensors = self.spec.warm_up_tensors();
        let inputs: Vec<_> = tensors.iter().map(Tensor::as_input).collect();
        self.session.run_with_options(named(self.spec, &inputs)?, &self.tidy).map(drop)
    }
}

/// The inputs with their names.
fn named<'a>(spec: &'static ModelSpec, inputs: &[Input<'a>]) -> ort::Result<Vec<(&'static str, TensorRef<'a, f32>)>> {
    let named = spec.inputs.iter().zip(inputs).map(|(declared, input)| {
        let tensor = TensorRef::from_array_view((input.shape, input.data))?;
        Ok((declared.name, tensor))
    });
    named.collect()
}

fn tensor(outputs: &ort::session::SessionOutputs<'_>, name: &str) -> ort::Result<Tensor> {
    let output = outputs.get(name).ok_or_else(|| ort::Error::new(format!("it has no output '{name}'")))?;
    let (shape, data) = output.try_extract_tensor::<f32>()?;
    // A negative extent can not occur in a value; as 0 it would fail the check of the shape.
    let shape = shape.iter().map(|extent| usize::try_from(*extent).unwrap_or(0)).collect();
    Ok(Tensor { shape, data: data.to_vec() })
}
