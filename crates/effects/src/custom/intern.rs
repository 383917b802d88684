//! Interning of strings and model specifications of custom effects. Effects, models and their
//! errors use `&'static str` for names; those read from a folder are leaked once for each distinct
//! content. Rereading an unchanged folder adds nothing; each change of a folder leaks a few hundred
//! bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use ooblex_inference::ModelSpec;

static WORDS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
static SPECS: Mutex<BTreeMap<String, &'static ModelSpec>> = Mutex::new(BTreeMap::new());

/// Interns a string for the lifetime of the program.
pub(super) fn word(text: &str) -> &'static str {
    let mut words = WORDS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(kept) = words.get(text) {
        return kept;
    }
    let kept: &'static str = Box::leak(text.into());
    words.insert(kept);
    kept
}

/// Interns the model specification of a folder with this content for the lifetime of the program.
pub(super) fn spec(content: &str, make: impl FnOnce() -> ModelSpec) -> &'static ModelSpec {
    let mut specs = SPECS.lock().unwrap_or_else(PoisonError::into_inner);
    specs.entry(content.into()).or_insert_with(|| Box::leak(Box::new(make())))
}
