//! Worker threads: each loads its own models, takes jobs from the broker and runs them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use ooblex_broker::{Broker, TakenJob, WorkerSeat};
use ooblex_effects::{Effect, LoadError, ModelStore, Models, Runtime};
use ooblex_pipeline::Analysis;
use tracing::{error, warn};

/// How far models stand back behind codecs when cores are short. A frame that is late into the encoder is late on the screen;
/// a frame that waits for a model is replaced by a newer one.
const NICE: i32 = 5;

/// What every worker needs.
#[derive(Clone)]
pub struct Workshop {
    /// Runs the models.
    pub runtime: Arc<Runtime>,
    /// Holds their files.
    pub store: Arc<ModelStore>,
    /// The effects that are served.
    pub effects: Vec<Arc<dyn Effect>>,
}

/// Workers that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A model is not usable.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The system gives no thread.
    #[error("a worker thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
    /// A thread ended while it loaded its models.
    #[error("a worker ended while it loaded its models")]
    Ended,
}

impl Workshop {
    /// Starts `count` worker threads and waits until all have loaded their models.
    ///
    /// # Errors
    /// When a model can not be loaded, or the system gives no thread.
    pub fn start(&self, broker: &Broker, count: usize) -> Result<Vec<JoinHandle<()>>, WorkerError> {
        let (ready, loaded) = sync_channel(count);
        let mut threads = Vec::new();
        for index in 0..count {
            let (workshop, broker, ready) = (self.clone(), broker.clone(), ready.clone());
            let run = move || {
                // On Linux this is the thread's own, and that of threads that its models start. It fails only where a policy
                // forbids it, and costs nothing but speed then.
                _ = rustix::process::nice(NICE);
                match workshop.load() {
                    Ok(models) => {
                        let seat = broker.join();
                        _ = ready.send(Ok(()));
                        drop(ready);
                        workshop.work(&seat, models);
                    }
                    Err(error) => _ = ready.send(Err(error)),
                }
            };
            threads.push(std::thread::Builder::new().name(format!("worker-{index}")).spawn(run)?);
        }
        drop(ready);
        for _ in 0..count {
            loaded.recv().map_err(|_| WorkerError::Ended)??;
        }
        Ok(threads)
    }

    fn load(&self) -> Result<Models, LoadError> {
        Models::load(&self.runtime, &self.store, &self.effects)
    }

    /// Takes jobs until the broker closes.
    fn work(&self, seat: &WorkerSeat, mut models: Models) {
        while let Some(taken) = seat.take() {
            let analysed = catch_unwind(AssertUnwindSafe(|| self.analyse(&mut models, &taken)));
            match analysed {
                Ok(result) => taken.complete(result),
                Err(_) => {
                    error!(effect = %taken.job().effect, "a worker panicked in an effect; it loads its models anew");
                    taken.complete(Err("the worker panicked".into()));
                    match self.load() {
                        Ok(anew) => models = anew,
                        Err(error) => return error!(%error, "the worker is lost"),
                    }
                }
            }
        }
    }

    fn analyse(&self, models: &mut Models, taken: &TakenJob) -> Result<Analysis, String> {
        let job = taken.job();
        let effect = self.effects.iter().find(|effect| effect.name() == job.effect);
        let effect = effect.ok_or_else(|| format!("this worker does not serve {}", job.effect))?;
        effect.analyse(models, &job.input).map_err(|error| {
            warn!(effect = %job.effect, %error, "a frame was not analysed");
            error.to_string()
        })
    }
}
