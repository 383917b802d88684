//! Worker threads: each loads its own models, takes jobs from the broker and runs them.
//!
//! They run within `ooblex serve` or make up `ooblex worker`, and do not know which. What they do stands in the [`WorkerStats`].

mod slot;
mod stats;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::about::About;
use crate::cores::stand_back;
use ooblex_broker::{Broker, TakenJob};
use ooblex_effects::{Effect, LONGEST_RUN, LoadError, ModelStore, Models, Runtime, load_models, models_of};
use ooblex_pipeline::{Analysis, EffectName};
use tracing::{error, warn};

use slot::{ModelUpdate, WorkerSlot};
pub use stats::{Done, STUCK_AFTER, WorkerGuard, WorkerHealth, WorkerStats};

/// How far models stand back behind codecs when cores are short. A frame that is late into the encoder is late on the screen;
/// a frame that waits for a model is replaced by a newer one.
const NICE: i32 = 5;

/// What every worker needs.
#[derive(Clone)]
pub struct WorkerPool {
    /// Runs the models.
    pub runtime: Arc<Runtime>,
    /// Holds their files.
    pub store: Arc<ModelStore>,
    /// The effects that are served. Only their models are loaded.
    effects: Arc<Mutex<Vec<Arc<dyn Effect>>>>,
    /// The threads that run.
    slots: Arc<Mutex<Vec<Weak<WorkerSlot>>>>,
    /// Where threads write down what they do.
    pub worker_stats: Arc<WorkerStats>,
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

impl WorkerPool {
    /// All that workers for these effects need.
    pub fn new(runtime: Runtime, store: ModelStore, effects: &[Arc<dyn Effect>]) -> Self {
        let names: Vec<_> = effects.iter().map(|effect| effect.name()).collect();
        let worker_stats = WorkerStats::new(&names, About::workers(&runtime));
        let effects = Arc::new(Mutex::new(effects.to_vec()));
        Self { runtime: Arc::new(runtime), store: Arc::new(store), effects, slots: Arc::default(), worker_stats: Arc::new(worker_stats) }
    }

    /// The effects that are served now.
    pub fn effects(&self) -> Vec<Arc<dyn Effect>> {
        self.effects.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on all threads serve these effects instead. Models that are new are loaded here, not by the threads, which go on with
    /// frames meanwhile. Returns those that could not be loaded, which are then not served.
    pub fn change(&self, effects: &[Arc<dyn Effect>]) -> Vec<(EffectName, LoadError)> {
        let before = queues(&self.effects());
        let slots: Vec<_> = self.slots.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
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
        *self.effects.lock().unwrap_or_else(PoisonError::into_inner) = served.clone();
        for (slot, models) in slots.iter().zip(fresh) {
            slot.hand_over(ModelUpdate { effects: served.clone(), models }, &queues(&served));
        }
        refused
    }

    /// Starts `count` worker threads and waits until all have loaded their models.
    ///
    /// # Errors
    /// When a model can not be loaded, or the system gives no thread.
    pub fn start(&self, broker: &Broker, count: usize) -> Result<Vec<JoinHandle<()>>, WorkerError> {
        let (ready, loaded) = sync_channel(count);
        let mut threads = Vec::new();
        for index in 0..count {
            let (worker_pool, broker, ready) = (self.clone(), broker.clone(), ready.clone());
            let hand = self.worker_stats.enlist();
            let run = move || {
                // Threads that its models start do so, too.
                stand_back(NICE);
                let effects = worker_pool.effects();
                match worker_pool.load(&effects) {
                    Ok(models) => {
                        let slot = Arc::new(WorkerSlot::new(broker.join(&queues(&effects))));
                        worker_pool.slots.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&slot));
                        _ = ready.send(Ok(()));
                        drop((ready, broker));
                        worker_pool.work(&slot, effects, models, hand);
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

    /// Takes jobs until the broker closes.
    fn work(&self, slot: &WorkerSlot, mut effects: Vec<Arc<dyn Effect>>, mut models: Models, hand: WorkerGuard) {
        while let Some(taken) = slot.seat.take() {
            if let Some(update) = slot.take_over() {
                effects = update.effects;
                update.models.into_iter().for_each(|fresh| models.take_over(fresh, &models_of(&effects)));
            }
            let (effect, started) = (taken.job().effect.clone(), Instant::now());
            if taken.job().deadline <= started {
                hand.note(&effect, Done::Expired, started.elapsed());
                taken.complete(Err("its deadline had passed".into()));
                continue;
            }
            hand.begin(started);
            let analysed = catch_unwind(AssertUnwindSafe(|| analyse(&effects, &mut models, &taken)));
            let done = match &analysed {
                Ok(Ok(_)) => Done::Analysed,
                Ok(Err(_)) => Done::Failed,
                Err(_) => Done::Panicked,
            };
            let took = started.elapsed();
            hand.note(&effect, done, took);
            if took >= LONGEST_RUN && effects.iter().any(|known| known.queue() == effect && known.folder().is_some()) {
                // Its next frame would cost as much, and all other effects wait meanwhile. A reload gives it another chance.
                error!(%effect, ?took, "a model hangs, or is far too slow: this worker does not serve it any more until effects are reloaded");
                effects.retain(|known| known.queue() != effect);
                slot.seat.serve(&queues(&effects));
            }
            match analysed {
                // One that is late goes back, too: whoever waited for it counts it.
                Ok(result) => taken.complete(result),
                Err(_) => {
                    error!(%effect, "a worker panicked in an effect; it loads its models anew");
                    taken.complete(Err("the worker panicked".into()));
                    match self.load(&effects) {
                        Ok(anew) => models = anew,
                        Err(error) => return error!(%error, "the worker is lost"),
                    }
                }
            }
            hand.rest();
        }
        hand.leave();
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
