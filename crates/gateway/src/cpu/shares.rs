//! A fair share of the cores for each track, so that one track that uses far more than the others
//! does not slow them down.
//!
//! Permits of [`super::CpuScheduler`] go by count, and a large picture with a slow model holds each
//! of them ten times as long as others do. While cores are free this harms nobody, but a frame that
//! arrives meanwhile finds them busy and is late, though none is lost. So a track may use an equal
//! share of the cores times [`FAIR_SHARE_MARGIN`], or more where one core remains free of the
//! tracks above that. On a machine with many cores, or for a track that is alone, nothing is
//! limited. A limited track sends fewer decoded frames on and takes its quality steps
//! ([`crate::track`]); the rest of it runs at a lower priority, and the others need not wait for
//! it.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::ids::SessionId;

/// A track that uses fewer cores than this has no camera on, and does not count.
const NEGLIGIBLE_CORES: f64 = 0.005;
/// The factor on an equal share of the cores that each track may use in any case. It is above 1, so
/// that tracks which all use the same are not limited before all cores are in use.
const FAIR_SHARE_MARGIN: f64 = 1.1;
/// Cores that tracks above the fair share leave free for the others.
const RESERVED_CORES: f64 = 1.0;

/// The number of cores, and how many of them each track uses.
#[derive(Debug)]
pub struct CpuShares {
    cores: f64,
    used: Mutex<HashMap<SessionId, f64>>,
}

impl CpuShares {
    /// Makes the shares of a machine with this many cores.
    pub fn new(cores: usize) -> Self {
        Self { cores: cores as f64, used: Mutex::default() }
    }

    /// Notes the cores that a track has used since its last report. Returns the cores that it may
    /// use; infinite where it is the only track.
    pub fn report(&self, id: SessionId, used: f64) -> f64 {
        let mut all = self.used.lock();
        all.insert(id, used);
        allowed(self.cores, all.values().copied().filter(|used| *used > NEGLIGIBLE_CORES))
    }

    /// Removes a track that has ended.
    pub fn leave(&self, id: SessionId) {
        self.used.lock().remove(&id);
    }
}

/// Returns the cores that each track may use, where the tracks use `used`.
fn allowed(cores: f64, used: impl Iterator<Item = f64> + Clone) -> f64 {
    let count = used.clone().count();
    if count < 2 {
        return f64::INFINITY;
    }
    let equal = FAIR_SHARE_MARGIN * cores / count as f64;
    // A track near the fair share may be limited already and want more, so it counts as greedy:
    // these share the rest.
    let is_modest = |used: &f64| *used < 0.9 * equal;
    let modest: f64 = used.clone().filter(is_modest).sum();
    let greedy = used.filter(|used| !is_modest(used)).count().max(1);
    equal.max((cores - RESERVED_CORES - modest) / greedy as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the use of each track after 20 rounds, in which each uses what it wants up to what
    /// it is allowed.
    fn settled(cores: usize, wanted: &[f64]) -> Vec<f64> {
        let shares = CpuShares::new(cores);
        let mut used = wanted.to_vec();
        for _ in 0..20 {
            for (id, (used, wanted)) in (0u64..).zip(used.iter_mut().zip(wanted)) {
                *used = shares.report(SessionId(id), *used).min(*wanted);
            }
        }
        used
    }

    #[test]
    fn one_alone_may_use_all() {
        assert_eq!(settled(2, &[1.9]), [1.9]);
        assert_eq!(settled(2, &[1.9, 0.0, 0.001]), [1.9, 0.0, 0.001], "a track without a camera does not count");
    }

    #[test]
    fn tracks_that_use_the_same_are_not_limited_before_all_cores_are_used() {
        assert_eq!(settled(2, &[0.166; 12]), [0.166; 12]);
        assert_eq!(settled(2, &[0.9, 1.1]), [0.9, 1.1]);
    }

    #[test]
    fn one_of_two_cores_is_left_free_of_the_greedy() {
        let used = settled(2, &[0.16, 0.16, 0.16, 1.8]);
        assert_eq!(used[..3], [0.16; 3]);
        assert!((0.52..0.56).contains(&used[3]), "{used:?}");
    }

    #[test]
    fn the_greedy_share_what_the_others_leave() {
        let used = settled(8, &[0.2, 0.2, 0.2, 4.0, 9.0, 2.5]);
        assert_eq!(used[..3], [0.2; 3]);
        assert!(used[3..].iter().sum::<f64>() <= 7.0, "{used:?}");
        assert!(used[3..].iter().all(|used| *used > 2.0), "{used:?}");
        assert_eq!(settled(16, &[0.2, 0.2, 0.2, 1.8]), [0.2, 0.2, 0.2, 1.8], "many cores are enough for all");
    }

    #[test]
    fn a_track_that_has_ended_does_not_count() {
        let shares = CpuShares::new(2);
        shares.report(SessionId(1), 0.2);
        assert!(shares.report(SessionId(2), 1.8).is_finite());
        shares.leave(SessionId(1));
        assert_eq!(shares.report(SessionId(2), 1.8), f64::INFINITY);
    }
}
