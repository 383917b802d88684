//! Words and models' descriptions of effects that are read while the program runs. Effects, models and their errors name things by
//! `&'static str`; what comes from a folder is kept for as long as the program runs, once for each content: a folder that is read a
//! thousand times without a change adds nothing, and each change of it a few hundred bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use crate::model::ModelSpec;

static WORDS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
static SPECS: Mutex<BTreeMap<String, &'static ModelSpec>> = Mutex::new(BTreeMap::new());

/// The word, for as long as the program runs.
pub(super) fn word(text: &str) -> &'static str {
    let mut words = WORDS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(kept) = words.get(text) {
        return kept;
    }
    let kept: &'static str = Box::leak(text.into());
    words.insert(kept);
    kept
}

/// The description of the model of a folder with this content, for as long as the program runs.
pub(super) fn spec(content: &str, make: impl FnOnce() -> ModelSpec) -> &'static ModelSpec {
    let mut specs = SPECS.lock().unwrap_or_else(PoisonError::into_inner);
    specs.entry(content.into()).or_insert_with(|| Box::leak(Box::new(make())))
}
