//! Reload of custom effects at run time: read the folder, try new models, hand them to the workers,
//! then offer them.
//!
//! [`ooblex_effects::CustomEffectSet`] reads and validates the folder. This module decides when it
//! is read. New models run first in a separate process ([`trial`]), never in a process with
//! sessions.

pub mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ooblex_effects::{CustomEffect, CustomEffectSet, Effect, Refused};
use ooblex_pipeline::EffectName;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tracing::{info, warn};

use ooblex_config::Config;
use ooblex_gateway::settings::Catalogue;
use ooblex_worker::WorkerPool;

/// The custom effects that this process offers and serves.
pub struct CustomEffects {
    catalogue: Arc<Catalogue>,
    config: Config,
    /// Workers of this process; `None` if other processes run the models.
    worker_pool: Option<WorkerPool>,
    state: Mutex<State>,
    /// Number of reloads that run or wait.
    readings: AtomicUsize,
}

/// State of the last reload. The lock is held during a reload, so that reloads run one after the
/// other.
#[derive(Default)]
struct State {
    /// Versions whose trial succeeded.
    passed: BTreeSet<EffectName>,
    /// Version of each offered effect, by its name.
    offered: BTreeMap<EffectName, EffectName>,
    /// Refusals that were logged already.
    refused: Vec<Refused>,
}

/// The changes of a reload, by effect name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Effects that were not offered before.
    pub added: Vec<EffectName>,
    /// Effects whose version has changed.
    pub changed: Vec<EffectName>,
    /// Effects that are no longer offered.
    pub removed: Vec<EffectName>,
    /// Folders that cannot be used as an effect.
    pub refused: Vec<Refused>,
}

impl CustomEffects {
    /// Creates an empty set. Custom effects are offered only after [`CustomEffects::reload`] has
    /// tried them.
    pub fn new(config: &Config, catalogue: Arc<Catalogue>, worker_pool: Option<WorkerPool>) -> Self {
        catalogue.offer_custom_effects(&CustomEffectSet::default());
        Self { catalogue, config: config.clone(), worker_pool, state: Mutex::default(), readings: AtomicUsize::new(0) }
    }

    /// Reads the folder, tries new models if this process has workers, and offers the effects that
    /// passed. Then calls `offered`, which moves sessions to the new versions. Workers serve both
    /// versions until it returns. Blocks until all of this is done, and while another reload runs.
    pub fn reload(&self, offered: impl FnOnce()) -> Reloaded {
        let _counted = Counted::new(&self.readings);
        self.read(offered)
    }

    /// Returns whether a reload runs and another one waits, which will read the current content of
    /// the folder.
    pub fn is_crowded(&self) -> bool {
        self.readings.load(Ordering::Relaxed) > 1
    }

    fn read(&self, offered: impl FnOnce()) -> Reloaded {
        let mut state = self.state.lock();
        let mut set = self.catalogue.read_custom_effects();
        match &self.worker_pool {
            Some(worker_pool) => {
                self.try_all(&mut set, &mut state.passed);
                self.add_to_workers(&mut set, worker_pool);
            }
            // Models may be large, and this process does not run them.
            None => set.effects.iter_mut().filter_map(Arc::get_mut).for_each(CustomEffect::let_go_of_model),
        }
        set.refused.sort_by(|a, b| a.folder.cmp(&b.folder));
        self.catalogue.offer_custom_effects(&set);
        offered();
        if let Some(worker_pool) = &self.worker_pool {
            worker_pool.change(&self.to_serve(&set, worker_pool));
        }
        let State { passed, offered, .. } = &mut *state;
        let before = std::mem::replace(offered, set.effects.iter().map(|effect| (effect.name(), effect.queue())).collect());
        passed.retain(|version| offered.values().any(|offered| offered == version));
        let is_other = |name: &EffectName, version: &EffectName| before.get(name).is_some_and(|before| before != version);
        let reloaded = Reloaded {
            added: offered.keys().filter(|name| !before.contains_key(name)).cloned().collect(),
            changed: offered.iter().filter(|(name, version)| is_other(name, version)).map(|(name, _)| name.clone()).collect(),
            removed: before.keys().filter(|name| !offered.contains_key(name)).cloned().collect(),
            refused: set.refused,
        };
        for Refused { reason, .. } in reloaded.refused.iter().filter(|refused| !state.refused.contains(refused)) {
            warn!("a custom effect is not served: {reason}");
        }
        state.refused.clone_from(&reloaded.refused);
        if !reloaded.added.is_empty() || !reloaded.changed.is_empty() || !reloaded.removed.is_empty() {
            let list = |names: &[EffectName]| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            let Reloaded { added, changed, removed, .. } = &reloaded;
            info!(added = list(added), changed = list(changed), removed = list(removed), "the custom effects were reloaded");
        }
        reloaded
    }

    /// Tries the models of new versions that the workers shall serve. Failed ones are moved to the
    /// refused folders.
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

    /// Returns the effects that the workers shall serve: their built-in ones, and those of the set.
    fn to_serve(&self, set: &CustomEffectSet, worker_pool: &WorkerPool) -> Vec<Arc<dyn Effect>> {
        let own = set.effects.iter().filter(|effect| self.is_served(effect)).map(|effect| effect.clone() as Arc<dyn Effect>);
        worker_pool.effects().into_iter().filter(|effect| effect.folder().is_none()).chain(own).collect()
    }

    fn is_served(&self, effect: &CustomEffect) -> bool {
        let named = &self.config.worker.effects;
        named.is_empty() || named.iter().any(|name| effect.name().as_str() == name)
    }

    /// Gives the new effects to the workers in addition to the current ones. Effects that cannot be
    /// loaded are moved to the refused folders.
    fn add_to_workers(&self, set: &mut CustomEffectSet, worker_pool: &WorkerPool) {
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
    /// Returns the changes as the API reports them.
    pub fn to_json(&self) -> Value {
        json!({"added": self.added, "changed": self.changed, "removed": self.removed, "refused": refusals(&self.refused)})
    }
}

/// Guard that counts a reload while it exists.
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

/// Returns refused folders as the API reports them to everybody.
pub fn refused_folders(refused: &[Refused]) -> Value {
    refused.iter().map(|Refused { folder, .. }| json!({"folder": folder})).collect()
}

/// Returns refused folders as the API reports them to operators.
pub fn refusals(refused: &[Refused]) -> Value {
    refused.iter().map(|Refused { folder, reason }| json!({"folder": folder, "reason": reason})).collect()
}

fn refused(effect: &CustomEffect, reason: String) -> Refused {
    let folder = effect.folder().and_then(|folder| folder.file_name()).unwrap_or_default();
    Refused { folder: folder.to_string_lossy().into_owned(), reason }
}
