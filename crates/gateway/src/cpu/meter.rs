//! The CPU time that one track uses.

use std::time::Duration;

use ooblex_broker::thread_cpu_time;

/// Measures the CPU time of one track: that of its own thread, which makes all calls, and that of
/// this process's workers for it.
#[derive(Debug)]
pub struct CpuMeter {
    /// CPU time of the track's thread at the last call of [`CpuMeter::take`].
    thread: Duration,
    /// CPU time of workers for its frames since then.
    workers: Duration,
}

impl CpuMeter {
    /// Starts to measure.
    pub fn start() -> Self {
        Self { thread: thread_cpu_time(), workers: Duration::ZERO }
    }

    /// Adds the CPU time of a worker for one frame.
    pub fn on_analysed(&mut self, computed: Duration) {
        self.workers += computed;
    }

    /// Returns the mean number of cores in use since the last call, which was `elapsed` ago.
    pub fn take(&mut self, elapsed: Duration) -> f64 {
        let thread = thread_cpu_time();
        let used = thread.saturating_sub(self.thread) + self.workers;
        *self = Self { thread, workers: Duration::ZERO };
        used.as_secs_f64() / elapsed.as_secs_f64().max(1e-3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_of_the_thread_and_of_workers_counts() {
        let mut meter = CpuMeter::start();
        let before = thread_cpu_time();
        while thread_cpu_time() - before < Duration::from_millis(20) {}
        meter.on_analysed(Duration::from_millis(30));
        let used = meter.take(Duration::from_millis(100));
        assert!((0.5..0.6).contains(&used), "{used}");
        assert!(meter.take(Duration::from_millis(100)) < 0.1, "it begins anew");
    }
}
