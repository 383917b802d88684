//! How many of the machine's cores a track may use, so that one that takes much more than the others does not slow them down.
//!
//! Turns (permits of [`super::CpuScheduler`]) are by count, and those of a large picture with a slow model take ten times as long as others'. As long as cores
//! are free that is nobody's loss, but whoever comes meanwhile finds them busy: its frames are late, though none is lost. So nobody uses
//! more than an equal share of the cores, and some more, unless one core remains free of those that do: on a machine with many cores, or where
//! one is alone, nothing is held back. What is held back is its rate of frames ([`crate::track`]), and what it gives up for them; what is left
//! of it stands back behind the others, which need not wait for it then.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ooblex_broker::thread_cpu_time;

use crate::ids::SessionId;

/// Who uses less than this, in cores, has no camera on, and counts for nothing.
const NEGLIGIBLE: f64 = 0.005;
/// So many times an equal share is everybody's in any case. Where all use alike the sum is so never held below all cores.
const GENEROSITY: f64 = 1.1;
/// Cores that are left to those that use less than that.
const LEFT_FREE: f64 = 1.0;

/// The cores, and what each track uses of them.
#[derive(Debug)]
pub struct Shares {
    cores: f64,
    used: Mutex<HashMap<SessionId, f64>>,
}

impl Shares {
    /// Of a machine with so many cores.
    pub fn new(cores: usize) -> Self {
        Self { cores: cores as f64, used: Mutex::default() }
    }

    /// The track has used so many cores since it last said so. Returns how many it may use; infinite where it is the only one.
    pub fn report(&self, id: SessionId, used: f64) -> f64 {
        let mut all = self.lock();
        all.insert(id, used);
        allowed(self.cores, all.values().copied().filter(|used| *used > NEGLIGIBLE))
    }

    /// The track has ended.
    pub fn leave(&self, id: SessionId) {
        self.lock().remove(&id);
    }

    /// A panic while the lock was held can not have left half a move behind, so its poison is ignored.
    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, f64>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn allowed(cores: f64, used: impl Iterator<Item = f64> + Clone) -> f64 {
    let count = used.clone().count();
    if count < 2 {
        return f64::INFINITY;
    }
    let equal = GENEROSITY * cores / count as f64;
    // Those near what is everybody's may be held back already, and want more: they share what the others leave.
    let is_modest = |used: &f64| *used < 0.9 * equal;
    let modest: f64 = used.clone().filter(is_modest).sum();
    let greedy = used.filter(|used| !is_modest(used)).count().max(1);
    equal.max((cores - LEFT_FREE - modest) / greedy as f64)
}

/// Measures what a track uses: its own thread, from which this is called, and what threads of workers of this process do for it.
#[derive(Debug)]
pub struct Meter {
    computed: Duration,
    analysed: Duration,
}

impl Meter {
    /// Begins now.
    pub fn start() -> Self {
        Self { computed: thread_cpu_time(), analysed: Duration::ZERO }
    }

    /// A worker's thread has computed so long for one of its frames.
    pub fn on_analysed(&mut self, computed: Duration) {
        self.analysed += computed;
    }

    /// What was used since this was last called, which is so long ago.
    pub fn take(&mut self, elapsed: Duration) -> f64 {
        let computed = thread_cpu_time();
        let used = computed.saturating_sub(self.computed) + self.analysed;
        *self = Self { computed, analysed: Duration::ZERO };
        used.as_secs_f64() / elapsed.as_secs_f64().max(1e-3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each is allowed at last, when each wants so much, and uses what it is allowed of that.
    fn settled(cores: usize, wanted: &[f64]) -> Vec<f64> {
        let shares = Shares::new(cores);
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
        assert_eq!(settled(2, &[1.9, 0.0, 0.001]), [1.9, 0.0, 0.001], "who has no camera on does not count");
    }

    #[test]
    fn where_all_use_alike_nobody_is_held_back_before_all_cores_are_used() {
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
    fn who_has_left_counts_no_more() {
        let shares = Shares::new(2);
        shares.report(SessionId(1), 0.2);
        assert!(shares.report(SessionId(2), 1.8).is_finite());
        shares.leave(SessionId(1));
        assert_eq!(shares.report(SessionId(2), 1.8), f64::INFINITY);
    }

    #[test]
    fn what_a_thread_computes_and_workers_do_for_it_is_used() {
        let mut meter = Meter::start();
        let before = thread_cpu_time();
        while thread_cpu_time() - before < Duration::from_millis(20) {}
        meter.on_analysed(Duration::from_millis(30));
        let used = meter.take(Duration::from_millis(100));
        assert!((0.5..0.6).contains(&used), "{used}");
        assert!(meter.take(Duration::from_millis(100)) < 0.1, "it begins anew");
    }
}
