//! The rten backend of a program that was built without the feature `rten`: there is none.

use super::{Model, ModelSpec};

/// The backend, of which there is never one.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rten {}

impl Rten {
    /// Returns `None`.
    pub(super) fn built_in() -> Option<Self> {
        None
    }

    pub(super) fn describe(self) -> String {
        match self {}
    }

    pub(super) fn open(self, _spec: &ModelSpec, _bytes: &[u8], _threads: usize) -> Result<Box<dyn Model>, String> {
        match self {}
    }
}
