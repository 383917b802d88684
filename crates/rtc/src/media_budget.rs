//! The time that one session may use of the media thread, which all sessions share.
//!
//! Processor time counts, so that no session ends because the machine is overloaded. To measure it
//! is a system call. Wall-clock time costs almost nothing and is never less, so processor time is
//! measured only while a session uses much wall-clock time. The caller measures; the time is an
//! argument.

use std::time::{Duration, Instant};

/// The budget of one session: two token buckets, of wall-clock time and of processor time. Each
/// holds the time of one second.
#[derive(Debug)]
pub(crate) struct MediaBudget {
    /// Time that the session may use per second.
    allowed: Duration,
    clock_left: Duration,
    cpu_left: Duration,
    at: Instant,
}

impl MediaBudget {
    /// Creates the budget of a new session, which may take `allowed` in each second.
    pub(crate) fn new(allowed: Duration, now: Instant) -> Self {
        Self { allowed, clock_left: allowed, cpu_left: allowed, at: now }
    }

    /// Returns whether the caller must measure processor time the next time.
    pub(crate) fn wants_cpu(&self) -> bool {
        self.clock_left < self.allowed / 2
    }

    /// Charges for a step of the session that ended at `now`. `cpu`: its processor time, `None` if
    /// it was not measured. Returns false if the session has used too much.
    pub(crate) fn charge(&mut self, now: Instant, clock: Duration, cpu: Option<Duration>) -> bool {
        let elapsed = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        let earned = self.allowed.mul_f64(elapsed.as_secs_f64().min(1.0));
        let refilled = |left: Duration| (left + earned).min(self.allowed);
        self.clock_left = refilled(self.clock_left).saturating_sub(clock);
        let cpu_left = refilled(self.cpu_left).checked_sub(cpu.unwrap_or_default());
        self.cpu_left = cpu_left.unwrap_or_default();
        cpu_left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Uses `clock` of wall-clock time and `cpu` of processor time every 10 ms for ten seconds.
    /// Returns the time in ms after which that was too much.
    fn too_much_after(clock: Duration, cpu: Duration) -> Option<u32> {
        let began = Instant::now();
        let mut budget = MediaBudget::new(200 * MS, began);
        (1..=1000).map(|n| 10 * n).find(|at| {
            let measured = budget.wants_cpu().then_some(cpu);
            !budget.charge(began + *at * MS, clock, measured)
        })
    }

    #[test]
    fn a_session_within_its_budget_goes_on() {
        assert_eq!(too_much_after(2 * MS, 2 * MS), None, "a fifth of the thread");
        assert_eq!(too_much_after(MS / 3, MS / 3), None, "what a camera at 8 Mbit/s takes");
    }

    #[test]
    fn a_session_that_takes_half_of_the_thread_ends_within_two_seconds() {
        let after = too_much_after(5 * MS, 5 * MS).expect("it is too much");
        assert!((300..2000).contains(&after), "{after} ms");
    }

    #[test]
    fn a_session_that_waits_for_the_processor_is_not_to_blame() {
        assert_eq!(too_much_after(9 * MS, MS), None);
    }

    #[test]
    fn one_long_step_alone_does_not_end_a_session() {
        let began = Instant::now();
        let mut budget = MediaBudget::new(200 * MS, began);
        assert!(!budget.wants_cpu());
        assert!(budget.charge(began + 3000 * MS, 3000 * MS, None));
        assert!(budget.wants_cpu(), "the next ones are looked at");
        assert!(budget.charge(began + 3001 * MS, MS, Some(MS)));
    }

    #[test]
    fn processor_time_is_not_asked_for_where_little_is_taken() {
        let began = Instant::now();
        let mut budget = MediaBudget::new(200 * MS, began);
        for n in 1..1000 {
            assert!(budget.charge(began + 10 * n * MS, MS, None) && !budget.wants_cpu());
        }
    }
}
