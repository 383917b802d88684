//! Worker threads: each loads its own models, takes jobs from the broker and runs them.
//!
//! They run within `ooblex serve` or make up `ooblex worker`, and do not know which. What they do stands in the [`Ledger`].

mod ledger;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Instant;

use crate::metrics::About;
use ooblex_broker::{Broker, TakenJob, WorkerSeat};
use ooblex_effects::{Effect, LoadError, ModelStore, Models, Runtime};
use ooblex_pipeline::{Analysis, EffectName};
use tracing::{error, warn};

pub use ledger::{Crew, Done, Hand, Ledger, STUCK_AFTER};

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
    /// The effects that are served. Only their models are loaded.
    pub effects: Vec<Arc<dyn Effect>>,
    /// Where threads write down what they do.
    pub ledger: Arc<Ledger>,
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
    /// All that workers for these effects need.
    pub fn new(runtime: Runtime, store: ModelStore, effects: &[Arc<dyn Effect>]) -> Self {
        let ledger = Ledger::new(&names(effects), About::workers(&runtime));
        Self { runtime: Arc::new(runtime), store: Arc::new(store), effects: effects.to_vec(), ledger: Arc::new(ledger) }
    }

    /// Starts `count` worker threads and waits until all have loaded their models.
    ///
    /// # Errors
    /// When a model can not be loaded, or the system gives no thread.
    pub fn start(&self, broker: &Broker, count: usize) -> Result<Vec<JoinHandle<()>>, WorkerError> {
        let (ready, loaded) = sync_channel(count);
        let mut threads = Vec::new();
        for index in 0..count {
            let (workshop, broker, ready) = (self.clone(), broker.clone(), ready.clone());
            let hand = self.ledger.hire();
            let run = move || {
                // On Linux this is the thread's own, and that of threads that its models start. It fails only where a policy
                // forbids it, and costs nothing but speed then.
                _ = rustix::process::nice(NICE);
                match workshop.load() {
                    Ok(models) => {
                        let seat = broker.join(&names(&workshop.effects));
                        _ = ready.send(Ok(()));
                        drop((ready, broker));
                        workshop.work(&seat, models, hand);
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
    fn work(&self, seat: &WorkerSeat, mut models: Models, hand: Hand) {
        while let Some(taken) = seat.take() {
            let (effect, started) = (taken.job().effect.clone(), Instant::now());
            if taken.job().deadline <= started {
                hand.note(&effect, Done::Expired, started.elapsed());
                taken.complete(Err("its deadline had passed".into()));
                continue;
            }
            hand.begin(started);
            let analysed = catch_unwind(AssertUnwindSafe(|| self.analyse(&mut models, &taken)));
            let done = match &analysed {
                Ok(Ok(_)) => Done::Analysed,
                Ok(Err(_)) => Done::Failed,
                Err(_) => Done::Panicked,
            };
            hand.note(&effect, done, started.elapsed());
            match analysed {
                // One that is late goes back, too: whoever waited for it counts it.
                Ok(result) => taken.complete(result),
                Err(_) => {
                    error!(%effect, "a worker panicked in an effect; it loads its models anew");
                    taken.complete(Err("the worker panicked".into()));
                    match self.load() {
                        Ok(anew) => models = anew,
                        Err(error) => return error!(%error, "the worker is lost"),
                    }
                }
            }
            hand.rest();
        }
        hand.leave();
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

fn names(effects: &[Arc<dyn Effect>]) -> Vec<EffectName> {
    effects.iter().map(|effect| effect.name()).collect()
}
