//! The rten backend, which is compiled in with the feature `rten`.

use std::sync::Arc;

use rten::{ModelOptions, NodeId, RunOptions, ThreadPool, Value};
use rten_tensor::prelude::*;
use rten_tensor::{Tensor as RtenTensor, TensorView};

use super::{BufferPool, Input, Model, ModelSpec, Tensor, TensorSpec};

/// Version of the rten crate as in Cargo.toml; the crate does not export it.
const VERSION: &str = "0.27";

/// The backend.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rten(());

impl Rten {
    /// Returns the backend if the program was built with it.
    pub(super) fn built_in() -> Option<Self> {
        Some(Self(()))
    }

    pub(super) fn describe(self) -> String {
        format!("rten {VERSION} (built in)")
    }

    pub(super) fn open(self, spec: &ModelSpec, bytes: &[u8], threads: usize) -> Result<Box<dyn Model>, String> {
        let model = ModelOptions::with_all_ops().prepack_weights(true).load(bytes.to_vec()).map_err(|error| error.to_string())?;
        let ids = |tensors: &[TensorSpec]| -> Result<Vec<NodeId>, String> {
            tensors.iter().map(|tensor| model.node_id(&tensor.name).map_err(|error| error.to_string())).collect()
        };
        let (inputs, outputs) = (ids(&spec.inputs)?, ids(&spec.outputs)?);
        let threads = Arc::new(ThreadPool::with_num_threads(threads));
        Ok(Box::new(RtenModel { model, inputs, outputs, threads }))
    }
}

struct RtenModel {
    model: rten::Model,
    inputs: Vec<NodeId>,
    outputs: Vec<NodeId>,
    /// Pool of the configured number of threads. Without it rten would use all cores for one frame.
    threads: Arc<ThreadPool>,
}

impl Model for RtenModel {
    fn run(&mut self, inputs: &[Input<'_>], _spare: &mut BufferPool) -> Result<Vec<Tensor>, String> {
        let views = self.inputs.iter().zip(inputs).map(|(id, input)| (*id, TensorView::from_data(input.shape, input.data).into()));
        let options = RunOptions::default().with_thread_pool(Some(self.threads.clone()));
        let outputs = self.model.run(views.collect(), &self.outputs, Some(options)).map_err(|error| error.to_string())?;
        outputs.into_iter().map(tensor).collect()
    }
}

fn tensor(value: Value) -> Result<Tensor, String> {
    let tensor = RtenTensor::<f32>::try_from(value).map_err(|error| error.to_string())?;
    Ok(Tensor { shape: tensor.shape().to_vec(), data: tensor.into_data() })
}
