//! Worker threads: each loads its own models, takes jobs from the broker and runs them.
//!
//! They run within `ooblex serve` or make up `ooblex worker`, and do not know which. What they do stands in the [`Ledger`].

mod ledger;
mod post;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::about::About;
use crate::cpu::lower_priority;
use ooblex_broker::{Broker, TakenJob};
use ooblex_effects::{Effect, LONGEST_RUN, LoadError, ModelStore, Models, Runtime};
use ooblex_pipeline::{Analysis, EffectName};
use tracing::{error, warn};

pub use ledger::{Crew, Done, Hand, Ledger, STUCK_AFTER};
use post::{Post, Stock};

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
    effects: Arc<Mutex<Vec<Arc<dyn Effect>>>>,
    /// The threads that run.
    posts: Arc<Mutex<Vec<Weak<Post>>>>,
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
        let names: Vec<_> = effects.iter().map(|effect| effect.name()).collect();
        let ledger = Ledger::new(&names, About::workers(&runtime));
        let effects = Arc::new(Mutex::new(effects.to_vec()));
        Self { runtime: Arc::new(runtime), store: Arc::new(store), effects, posts: Arc::default(), ledger: Arc::new(ledger) }
    }

    /// The effects that are served now.
    pub fn effects(&self) -> Vec<Arc<dyn Effect>> {
        self.effects.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on all threads serve these effects instead. Models that are new are loaded here, not by the threads, which go on with
    /// frames meanwhile. Returns those that could not be loaded, which are then not served.
    pub fn change(&self, effects: &[Arc<dyn Effect>]) -> Vec<(EffectName, LoadError)> {
        let before = queues(&self.effects());
        let posts: Vec<_> = self.posts.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
        let (mut served, mut fresh, mut refused) = (Vec::new(), posts.iter().map(|_| Vec::new()).collect::<Vec<_>>(), Vec::new());
        for effect in effects {
            if !before.contains(&effect.queue()) {
                let load = |_: &Arc<Post>| Models::load(&self.runtime, &self.store, std::slice::from_ref(effect));
                match posts.iter().map(load).collect::<Result<Vec<_>, _>>() {
                    Ok(models) => fresh.iter_mut().zip(models).for_each(|(fresh, models)| fresh.push(models)),
                    Err(error) => {
                        refused.push((effect.name(), error));
                        continue;
                    }
                }
            }
            served.push(effect.clone());
        }
        self.ledger.know(&served.iter().map(|effect| effect.name()).collect::<Vec<_>>());
        *self.effects.lock().unwrap_or_else(PoisonError::into_inner) = served.clone();
        for (post, models) in posts.iter().zip(fresh) {
            post.hand_over(Stock { effects: served.clone(), models }, &queues(&served));
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
            let (workshop, broker, ready) = (self.clone(), broker.clone(), ready.clone());
            let hand = self.ledger.hire();
            let run = move || {
                // Threads that its models start do so, too.
                lower_priority(NICE);
                let effects = workshop.effects();
                match workshop.load(&effects) {
                    Ok(models) => {
                        let post = Arc::new(Post::new(broker.join(&queues(&effects))));
                        workshop.posts.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&post));
                        _ = ready.send(Ok(()));
                        drop((ready, broker));
                        workshop.work(&post, effects, models, hand);
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
        Models::load(&self.runtime, &self.store, effects)
    }

    /// Takes jobs until the broker closes.
    fn work(&self, post: &Post, mut effects: Vec<Arc<dyn Effect>>, mut models: Models, hand: Hand) {
        while let Some(taken) = post.seat.take() {
            if let Some(stock) = post.take_over() {
                effects = stock.effects;
                stock.models.into_iter().for_each(|fresh| models.take_over(fresh, &effects));
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
                post.seat.serve(&queues(&effects));
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
