//! Statistics of the worker threads of this process, for health checks and Prometheus.
//!
//! Each thread writes through its own [`WorkerGuard`]; HTTP handlers read. This module knows
//! neither models nor the broker.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use ooblex_pipeline::EffectName;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::about::About;

/// Upper bounds of histogram buckets in seconds, for what takes milliseconds.
pub const LATENCY_BUCKETS_S: [f64; 14] = [0.0005, 0.001, 0.002, 0.003, 0.005, 0.008, 0.012, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0];
/// Time on one frame after which a thread counts as stuck. No model that is useful on video takes
/// that long.
pub const STUCK_AFTER: Duration = Duration::from_secs(10);

/// Statistics of all worker threads of a process.
pub struct WorkerStats {
    effects: Mutex<Vec<EffectName>>,
    threads: Mutex<Vec<State>>,
    running: Gauge,
    frames: Family<FrameLabels, Counter>,
    about: About,
    analysing: Family<ModelLabels, Histogram, fn() -> Histogram>,
    busy: Gauge<f64, AtomicU64>,
}

/// The state of one thread.
#[derive(Debug, Clone, Copy)]
enum State {
    /// The thread loads its models, or waits for a frame.
    Free,
    /// The thread has worked on one frame since this time.
    Busy(Instant),
    /// The thread has ended because the broker was closed.
    Left,
    /// The thread has ended unexpectedly.
    Lost,
}

/// The outcome of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// The frame was analysed.
    Analysed,
    /// The effect returned an error.
    Failed,
    /// The effect panicked.
    Panicked,
    /// The deadline had passed before the model could run.
    Expired,
}

/// Numbers of healthy, lost and stuck worker threads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerHealth {
    /// Number of threads that run, including stuck ones.
    pub running: usize,
    /// Number of threads that have ended unexpectedly.
    pub lost: usize,
    /// Number of running threads that have worked on one frame for longer than [`STUCK_AFTER`].
    pub stuck: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    effect: String,
    backend: String,
    device: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FrameLabels {
    effect: String,
    result: &'static str,
}

impl WorkerStats {
    /// Creates the statistics of workers that serve `effects` with the backend and device in
    /// `about`.
    pub fn new(effects: &[EffectName], about: About) -> Self {
        let analysing: Family<_, _, fn() -> Histogram> = Family::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS_S));
        let frames = Family::default();
        let (known, threads, running, busy) = (Mutex::default(), Mutex::default(), Gauge::default(), Gauge::default());
        let worker_stats = Self { effects: known, threads, running, frames, about, analysing, busy };
        worker_stats.know(effects);
        worker_stats
    }

    /// Adds effects to the known label values.
    pub fn know(&self, effects: &[EffectName]) {
        let mut known = self.effects.lock();
        for effect in effects {
            for done in Done::ALL {
                drop(self.frames.get_or_create(&FrameLabels { effect: effect.to_string(), result: done.label() }));
            }
            drop(self.analysing.get_or_create(&self.on_models(effect.as_str())));
            if !known.contains(effect) {
                known.push(effect.clone());
            }
        }
    }

    /// Registers the metrics in a Prometheus registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("worker_threads", "Running worker threads of this process", self.running.clone());
        registry.register("worker_frames", "Frames that the workers of this process took, by effect and result", self.frames.clone());
        registry.register(
            "worker_analyse_duration_seconds",
            "Time that a worker spent on a frame, by effect, backend and device",
            self.analysing.clone(),
        );
        registry.register("worker_busy_seconds", "Time that all workers of this process have spent on frames", self.busy.clone());
    }

    /// Registers a thread, which counts as running until the guard is dropped.
    pub fn enlist(self: &Arc<Self>) -> WorkerGuard {
        let mut threads = self.threads.lock();
        threads.push(State::Free);
        self.running.inc();
        WorkerGuard { worker_stats: self.clone(), number: threads.len() - 1 }
    }

    fn on_models(&self, effect: &str) -> ModelLabels {
        let word = |word: &Option<String>| word.clone().unwrap_or_else(|| "none".into());
        ModelLabels { effect: effect.into(), backend: word(&self.about.backend), device: word(&self.about.device) }
    }

    /// Counts the running, lost and stuck threads.
    pub fn crew(&self, now: Instant) -> WorkerHealth {
        let mut health = WorkerHealth::default();
        for state in self.threads.lock().iter() {
            match state {
                State::Left => {}
                State::Lost => health.lost += 1,
                State::Free => health.running += 1,
                State::Busy(since) => {
                    health.running += 1;
                    health.stuck += usize::from(now.saturating_duration_since(*since) > STUCK_AFTER);
                }
            }
        }
        health
    }
}

/// Handle through which one worker thread reports its state.
pub struct WorkerGuard {
    worker_stats: Arc<WorkerStats>,
    number: usize,
}

impl WorkerGuard {
    /// Reports that the thread has taken a frame.
    pub fn begin(&self, now: Instant) {
        self.set(State::Busy(now));
    }

    /// Records the outcome of a frame.
    pub fn note(&self, effect: &EffectName, done: Done, took: Duration) {
        let worker_stats = &self.worker_stats;
        // Effect names come from other machines; unknown ones share one label so that the number of
        // labels is bounded.
        let name = effect.without_version();
        let known = worker_stats.effects.lock().iter().any(|known| known.as_str() == name);
        let effect = if known { name.to_string() } else { "unknown".into() };
        worker_stats.busy.inc_by(took.as_secs_f64());
        worker_stats.frames.get_or_create(&FrameLabels { effect: effect.clone(), result: done.label() }).inc();
        if done == Done::Analysed {
            worker_stats.analysing.get_or_create(&worker_stats.on_models(&effect)).observe(took.as_secs_f64());
        }
    }

    /// Reports that the thread waits for the next frame.
    pub fn rest(&self) {
        self.set(State::Free);
    }

    /// Reports that the thread ends as intended.
    pub fn leave(self) {
        self.set(State::Left);
    }

    fn set(&self, state: State) {
        self.worker_stats.threads.lock()[self.number] = state;
    }
}

impl Drop for WorkerGuard {
    fn drop(&mut self) {
        self.worker_stats.running.dec();
        let state = &mut self.worker_stats.threads.lock()[self.number];
        if !matches!(state, State::Left) {
            *state = State::Lost;
        }
    }
}

impl Done {
    const ALL: [Done; 4] = [Done::Analysed, Done::Failed, Done::Panicked, Done::Expired];

    /// Returns the label in metrics.
    fn label(self) -> &'static str {
        match self {
            Done::Analysed => "analysed",
            Done::Failed => "failed",
            Done::Panicked => "panicked",
            Done::Expired => "expired",
        }
    }
}

impl WorkerHealth {
    /// Returns one sentence for each reason why the process is unhealthy.
    pub fn complaints(&self) -> Vec<String> {
        let all = self.running + self.lost;
        let lost = format!("{} of {all} worker threads have ended: start the process again, the log says why they ended", self.lost);
        let stuck = format!(
            "{} of {all} worker threads have had one frame for longer than {} s: start the process again",
            self.stuck,
            STUCK_AFTER.as_secs()
        );
        [(self.lost, lost), (self.stuck, stuck)].into_iter().filter(|(count, _)| *count > 0).map(|(_, sentence)| sentence).collect()
    }
}

impl fmt::Debug for WorkerStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerStats").field("threads", &*self.threads.lock()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker_stats() -> Arc<WorkerStats> {
        Arc::new(WorkerStats::new(&[EffectName::new("blur")], About::default()))
    }

    fn text(worker_stats: &WorkerStats) -> String {
        let (mut registry, mut text) = (Registry::with_prefix("ooblex"), String::new());
        worker_stats.register(&mut registry);
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn thread_that_keeps_a_frame_is_stuck_until_it_is_done() {
        let (worker_stats, start) = (worker_stats(), Instant::now());
        let guard = worker_stats.enlist();
        guard.begin(start);
        assert_eq!(worker_stats.crew(start + STUCK_AFTER), WorkerHealth { running: 1, ..WorkerHealth::default() });
        let health = worker_stats.crew(start + STUCK_AFTER + Duration::from_millis(1));
        assert_eq!((health.stuck, health.complaints().len()), (1, 1));
        guard.rest();
        assert!(worker_stats.crew(start + 2 * STUCK_AFTER).complaints().is_empty());
    }

    #[test]
    fn thread_that_ends_unasked_is_missed_and_one_that_leaves_is_not() {
        let (worker_stats, now) = (worker_stats(), Instant::now());
        let (first, second) = (worker_stats.enlist(), worker_stats.enlist());
        first.leave();
        assert_eq!(worker_stats.crew(now), WorkerHealth { running: 1, ..WorkerHealth::default() });
        drop(second);
        assert_eq!(worker_stats.crew(now), WorkerHealth { lost: 1, ..WorkerHealth::default() });
        assert!(worker_stats.crew(now).complaints()[0].contains("1 of 1"));
        assert!(text(&worker_stats).contains("ooblex_worker_threads 0"));
    }

    #[test]
    fn names_of_effects_from_elsewhere_share_one_label() {
        let worker_stats = worker_stats();
        let guard = worker_stats.enlist();
        guard.note(&EffectName::new("blur"), Done::Analysed, Duration::from_millis(500));
        guard.note(&EffectName::new("made_up_1"), Done::Failed, Duration::ZERO);
        guard.note(&EffectName::new("made_up_2"), Done::Failed, Duration::ZERO);
        let text = text(&worker_stats);
        for line in [
            "ooblex_worker_frames_total{effect=\"blur\",result=\"analysed\"} 1",
            "ooblex_worker_frames_total{effect=\"blur\",result=\"panicked\"} 0",
            "ooblex_worker_frames_total{effect=\"unknown\",result=\"failed\"} 2",
            "ooblex_worker_analyse_duration_seconds_count{effect=\"blur\",backend=\"none\",device=\"none\"} 1",
            "ooblex_worker_busy_seconds 0.5",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(!text.contains("made_up"));
    }
}
