//! Pool of worker threads. Each thread loads its own models, takes jobs from the broker and runs
//! them.
//!
//! The same threads run in `ooblex serve` and in `ooblex worker`. They report their activity to
//! [`WorkerStats`].

pub mod about;
mod priority;
mod runtime;
mod slot;
mod stats;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::about::About;
use ooblex_broker::{Broker, TakenJob};
use ooblex_effects::{Effect, LONGEST_RUN, LoadError, ModelStore, Models, Runtime, load_models, models_of};
use ooblex_pipeline::{Analysis, EffectName};
use parking_lot::Mutex;
use tracing::{error, warn};

pub use priority::lower_priority;
pub use runtime::inference;
use slot::{ModelUpdate, WorkerSlot};
pub use stats::LATENCY_BUCKETS_S;
pub use stats::{Done, STUCK_AFTER, WorkerGuard, WorkerHealth, WorkerStats};

/// Niceness of worker threads relative to the codec threads. A frame that is late in the encoder is
/// late on the screen; a frame that waits for a model is replaced by a newer one.
const NICE: i32 = 5;

/// The worker threads of a process, and the runtime, models and effects that they share.
#[derive(Clone)]
pub struct WorkerPool {
    /// Inference runtime.
    pub runtime: Arc<Runtime>,
    /// Source of the model files.
    pub store: Arc<ModelStore>,
    /// Effects that are served. Only their models are loaded.
    effects: Arc<Mutex<Vec<Arc<dyn Effect>>>>,
    /// Slots of the running threads.
    slots: Arc<Mutex<Vec<Weak<WorkerSlot>>>>,
    /// Statistics of the threads.
    pub worker_stats: Arc<WorkerStats>,
}

/// An error that prevents the start of workers.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A model cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The operating system cannot start a thread.
    #[error("a worker thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
    /// A thread ended while it loaded its models.
    #[error("a worker ended while it loaded its models")]
    Ended,
}

impl WorkerPool {
    /// Creates a pool without threads for these effects.
    pub fn new(runtime: Runtime, store: ModelStore, effects: &[Arc<dyn Effect>]) -> Self {
        let names: Vec<_> = effects.iter().map(|effect| effect.name()).collect();
        let worker_stats = WorkerStats::new(&names, About::workers(&runtime));
        let effects = Arc::new(Mutex::new(effects.to_vec()));
        Self { runtime: Arc::new(runtime), store: Arc::new(store), effects, slots: Arc::default(), worker_stats: Arc::new(worker_stats) }
    }

    /// Returns the effects that are served.
    pub fn effects(&self) -> Vec<Arc<dyn Effect>> {
        self.effects.lock().clone()
    }

    /// Replaces the effects that all threads serve. New models are loaded on the calling thread
    /// while the workers continue with frames. Returns the effects that could not be loaded, which
    /// are not served.
    pub fn change(&self, effects: &[Arc<dyn Effect>]) -> Vec<(EffectName, LoadError)> {
        let before = queues(&self.effects());
        let slots: Vec<_> = self.slots.lock().iter().filter_map(Weak::upgrade).collect();
        let (mut served, mut fresh, mut refused) = (Vec::new(), slots.iter().map(|_| Vec::new()).collect::<Vec<_>>(), Vec::new());
        for effect in effects {
            if !before.contains(&effect.queue()) {
                let load = |_: &Arc<WorkerSlot>| load_models(&self.runtime, &self.store, std::slice::from_ref(effect));
                match slots.iter().map(load).collect::<Result<Vec<_>, _>>() {
                    Ok(models) => fresh.iter_mut().zip(models).for_each(|(fresh, models)| fresh.push(models)),
                    Err(error) => {
                        refused.push((effect.name(), error));
                        continue;
                    }
                }
            }
            served.push(effect.clone());
        }
        self.worker_stats.know(&served.iter().map(|effect| effect.name()).collect::<Vec<_>>());
        *self.effects.lock() = served.clone();
        for (slot, models) in slots.iter().zip(fresh) {
            slot.hand_over(ModelUpdate { effects: served.clone(), models }, &queues(&served));
        }
        refused
    }

    /// Starts `count` worker threads and waits until all have loaded their models.
    ///
    /// # Errors
    /// When a model cannot be loaded, or the operating system cannot start a thread.
    pub fn start(&self, broker: &Broker, count: usize) -> Result<Vec<JoinHandle<()>>, WorkerError> {
        let (ready, loaded) = sync_channel(count);
        let mut threads = Vec::new();
        for index in 0..count {
            let (worker_pool, broker, ready) = (self.clone(), broker.clone(), ready.clone());
            let guard = self.worker_stats.enlist();
            let run = move || {
                // Threads that the runtime starts from here inherit the niceness.
                lower_priority(NICE);
                let effects = worker_pool.effects();
                match worker_pool.load(&effects) {
                    Ok(models) => {
                        let slot = Arc::new(WorkerSlot::new(broker.join(&queues(&effects))));
                        worker_pool.slots.lock().push(Arc::downgrade(&slot));
                        _ = ready.send(Ok(()));
                        drop((ready, broker));
                        worker_pool.work(&slot, effects, models, guard);
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

    fn load(&self, effects: &[Arc<dyn Effect>]) -> Result<Models, LoadError> {
        load_models(&self.runtime, &self.store, effects)
    }

    /// Runs jobs until the broker is closed.
    fn work(&self, slot: &WorkerSlot, mut effects: Vec<Arc<dyn Effect>>, mut models: Models, guard: WorkerGuard) {
        while let Some(taken) = slot.seat.take() {
            if let Some(update) = slot.take_over() {
                effects = update.effects;
                update.models.into_iter().for_each(|fresh| models.take_over(fresh, &models_of(&effects)));
            }
            let (effect, started) = (taken.job().effect.clone(), Instant::now());
            if taken.job().deadline <= started {
                guard.note(&effect, Done::Expired, started.elapsed());
                taken.complete(Err("its deadline had passed".into()));
                continue;
            }
            guard.begin(started);
            let analysed = catch_unwind(AssertUnwindSafe(|| analyse(&effects, &mut models, &taken)));
            let done = match &analysed {
                Ok(Ok(_)) => Done::Analysed,
                Ok(Err(_)) => Done::Failed,
                Err(_) => Done::Panicked,
            };
            let took = started.elapsed();
            guard.note(&effect, done, took);
            if took >= LONGEST_RUN && effects.iter().any(|known| known.queue() == effect && known.folder().is_some()) {
                // Its next frame would take as long again and block all other effects. A reload
                // tries the effect again.
                error!(%effect, ?took, "a model hangs, or is far too slow: this worker does not serve it any more until effects are reloaded");
                effects.retain(|known| known.queue() != effect);
                slot.seat.serve(&queues(&effects));
            }
            match analysed {
                // A late result is returned too; the gateway counts it.
                Ok(result) => taken.complete(result),
                Err(_) => {
                    error!(%effect, "a worker panicked in an effect; it reloads its models");
                    taken.complete(Err("the worker panicked".into()));
                    match self.load(&effects) {
                        Ok(anew) => models = anew,
                        Err(error) => return error!(%error, "the worker is lost"),
                    }
                }
            }
            guard.rest();
        }
        guard.leave();
    }
}

fn analyse(effects: &[Arc<dyn Effect>], models: &mut Models, taken: &TakenJob) -> Result<Analysis, String> {
    let job = taken.job();
    let effect = effects.iter().find(|effect| effect.queue() == job.effect);
    let effect = effect.ok_or_else(|| format!("this worker does not serve {} any more", job.effect))?;
    effect.analyse(models, &job.input).map_err(|error| {
        warn!(effect = %job.effect, %error, "a frame was not analysed");
        error.to_string()
    })
}

fn queues(effects: &[Arc<dyn Effect>]) -> Vec<EffectName> {
    effects.iter().map(|effect| effect.queue()).collect()
}
