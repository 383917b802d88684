//! `[recordings]`: where rooms are recorded, and for how long files are kept.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// `[recordings]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recordings {
    /// Folder of the recordings. If not set, nothing can be recorded.
    pub folder: Option<PathBuf>,
    /// True to record every room as long as somebody publishes to it.
    pub all_rooms: bool,
    /// Maximum duration of a file in minutes; a longer recording has several.
    pub file_minutes: u64,
    /// Age in hours at which complete files are removed; 0 keeps them.
    pub max_age_h: u64,
    /// Maximum size of all files in MiB, above which the oldest are removed; 0 is unlimited.
    pub max_mib: u64,
}

impl Default for Recordings {
    fn default() -> Self {
        Self { folder: None, all_rooms: false, file_minutes: 60, max_age_h: 0, max_mib: 0 }
    }
}

impl Recordings {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let senseless = |what: &str| Err(ConfigError::Senseless(what.into()));
        if self.all_rooms && self.folder.is_none() {
            return senseless("recordings.all_rooms needs recordings.folder, where the files are written: set it");
        }
        if !(1..=1440).contains(&self.file_minutes) {
            return senseless("recordings.file_minutes must be from 1 to 1440");
        }
        if self.max_age_h > 1_000_000 || self.max_mib > 1 << 40 {
            return senseless("recordings: max_age_h must be at most 1000000, max_mib at most 2^40");
        }
        Ok(())
    }
}
