//! Effects of one's own while the program runs: the folder is read, new models are tried, workers get them, and then they are offered.
//!
//! What a folder must be is [`ooblex_effects::CustomEffectSet`]'s; here is when it is read, and in which process a model runs first ([`trial`]): never in
//! one that has sessions.

pub mod trial;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ooblex_effects::{CustomEffect, CustomEffectSet, Effect, Refused};
use ooblex_pipeline::EffectName;
use serde_json::{Value, json};
use tracing::{info, warn};

use crate::config::Config;
use crate::settings::Catalogue;
use crate::workers::WorkerPool;

/// The folder of effects of one's own, as this process serves it.
pub struct CustomEffects {
    catalogue: Arc<Catalogue>,
    config: Config,
    /// The workers of this process; none where others run the models.
    worker_pool: Option<WorkerPool>,
    state: Mutex<State>,
    /// Readings that are under way or wait.
    readings: AtomicUsize,
}

/// Held while the folder is read: two at a time would undo one another.
#[derive(Default)]
struct State {
    /// Versions whose model did well when it was tried.
    passed: BTreeSet<EffectName>,
    /// What was offered last.
    offered: Vec<(EffectName, EffectName)>,
    /// What the log was told of.
    refused: Vec<Refused>,
}

/// What a reading of the folder has changed, by the names of effects.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Were not offered before.
    pub added: Vec<EffectName>,
    /// Were offered as something else.
    pub changed: Vec<EffectName>,
    /// Are not offered any more.
    pub removed: Vec<EffectName>,
    /// Folders that are no effect now.
    pub refused: Vec<Refused>,
}

impl CustomEffects {
    /// A custom_effects that is empty until [`CustomEffects::reload`]: what was read of the folder at the start is not offered before it was tried.
    pub fn new(config: &Config, catalogue: Arc<Catalogue>, worker_pool: Option<WorkerPool>) -> Self {
        catalogue.offer_custom_effects(&CustomEffectSet::default());
        Self { catalogue, config: config.clone(), worker_pool, state: Mutex::default(), readings: AtomicUsize::new(0) }
    }

    /// Reads the folder, tries what is new in it where models run in this process, and offers what did well; then calls `offered`, which is to
    /// bring sessions from replaced effects to those that took their place. Workers have both until that is done. Blocks for as long as all of it
    /// takes, and while another one is at it.
    pub fn reload(&self, offered: impl FnOnce()) -> Reloaded {
        let _counted = Counted::new(&self.readings);
        self.read(offered)
    }

    /// Whether a reading is under way and another one waits, which will see all that is there now.
    pub fn is_crowded(&self) -> bool {
        self.readings.load(Ordering::Relaxed) > 1
    }

    fn read(&self, offered: impl FnOnce()) -> Reloaded {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut set = self.catalogue.read_custom_effects();
        match &self.worker_pool {
            Some(worker_pool) => {
                self.try_all(&mut set, &mut state.passed);
                self.stock(&mut set, worker_pool);
            }
            // They may be large, and nobody here runs them.
            None => set.effects.iter_mut().filter_map(Arc::get_mut).for_each(CustomEffect::let_go_of_model),
        }
        set.refused.sort_by(|a, b| a.folder.cmp(&b.folder));
        self.catalogue.offer_custom_effects(&set);
        offered();
        if let Some(worker_pool) = &self.worker_pool {
            worker_pool.change(&self.to_serve(&set, worker_pool));
        }
        let now: Vec<_> = set.effects.iter().map(|effect| (effect.name(), effect.queue())).collect();
        let before = std::mem::replace(&mut state.offered, now);
        let offered: BTreeSet<_> = state.offered.iter().map(|(_, queue)| queue.clone()).collect();
        state.passed.retain(|queue| offered.contains(queue));
        let was = |name: &EffectName| before.iter().find(|(before, _)| before == name).map(|(_, queue)| queue);
        let (old, added): (Vec<_>, Vec<_>) = state.offered.iter().partition(|(name, _)| was(name).is_some());
        let changed = old.into_iter().filter(|(name, queue)| was(name) != Some(queue));
        let removed = before.iter().filter(|(name, _)| !state.offered.iter().any(|(now, _)| now == name));
        let names = |pairs: &mut dyn Iterator<Item = &(EffectName, EffectName)>| pairs.map(|(name, _)| name.clone()).collect::<Vec<_>>();
        let reloaded = Reloaded {
            added: names(&mut added.into_iter()),
            changed: names(&mut changed.into_iter()),
            removed: names(&mut removed.into_iter()),
            refused: set.refused,
        };
        for Refused { reason, .. } in reloaded.refused.iter().filter(|refused| !state.refused.contains(refused)) {
            warn!("an effect of one's own is not served: {reason}");
        }
        state.refused.clone_from(&reloaded.refused);
        if !reloaded.added.is_empty() || !reloaded.changed.is_empty() || !reloaded.removed.is_empty() {
            let list = |names: &[EffectName]| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            let Reloaded { added, changed, removed, .. } = &reloaded;
            info!(added = list(added), changed = list(changed), removed = list(removed), "effects of one's own were read");
        }
        reloaded
    }

    /// Tries those that the workers are to serve and that were not tried yet; who fails is refused.
    fn try_all(&self, set: &mut CustomEffectSet, passed: &mut BTreeSet<EffectName>) {
        for effect in std::mem::take(&mut set.effects) {
            if !self.is_served(&effect) || passed.contains(&effect.queue()) {
                set.effects.push(effect);
                continue;
            }
            match trial::run(&self.config, &effect, None) {
                Ok(_) => {
                    passed.insert(effect.queue());
                    set.effects.push(effect);
                }
                Err(error) => set.refused.push(refused(&effect, error.to_string())),
            }
        }
    }

    /// What the workers are to serve: what they serve of the program's, and those of the set.
    fn to_serve(&self, set: &CustomEffectSet, worker_pool: &WorkerPool) -> Vec<Arc<dyn Effect>> {
        let own = set.effects.iter().filter(|effect| self.is_served(effect)).map(|effect| effect.clone() as Arc<dyn Effect>);
        worker_pool.effects().into_iter().filter(|effect| effect.folder().is_none()).chain(own).collect()
    }

    fn is_served(&self, effect: &CustomEffect) -> bool {
        let named = &self.config.worker.effects;
        named.is_empty() || named.iter().any(|name| effect.name().as_str() == name)
    }

    /// Gives the workers what they are to serve, beside what they serve now; what can not be loaded is refused.
    fn stock(&self, set: &mut CustomEffectSet, worker_pool: &WorkerPool) {
        let mut effects = worker_pool.effects();
        for effect in self.to_serve(set, worker_pool) {
            if !effects.iter().any(|served| served.queue() == effect.queue()) {
                effects.push(effect);
            }
        }
        for (name, error) in worker_pool.change(&effects) {
            let Some(index) = set.effects.iter().position(|effect| effect.name() == name) else { continue };
            let effect = set.effects.remove(index);
            set.refused.push(refused(&effect, format!("{}: {error}", effect.name_place())));
        }
    }
}

impl Reloaded {
    /// As the API tells it.
    pub fn to_json(&self) -> Value {
        json!({"added": self.added, "changed": self.changed, "removed": self.removed, "refused": refusals(&self.refused)})
    }
}

/// Counts one more for as long as it is there.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Folders that are no effect, as the API tells of them.
pub fn refusals(refused: &[Refused]) -> Value {
    refused.iter().map(|Refused { folder, reason }| json!({"folder": folder, "reason": reason})).collect()
}

fn refused(effect: &CustomEffect, reason: String) -> Refused {
    let folder = effect.folder().and_then(|folder| folder.file_name()).unwrap_or_default();
    Refused { folder: folder.to_string_lossy().into_owned(), reason }
}
