//! What the worker threads of this process are doing and have done: for their health and for Prometheus.
//!
//! Each thread writes through a [`WorkerGuard`] of its own; HTTP reads. It knows neither models nor the broker.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ooblex_pipeline::EffectName;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::about::About;
use crate::labels::BUCKETS;

/// A thread that has had one frame for longer than this hangs: no model that is of use on video takes so long.
pub const STUCK_AFTER: Duration = Duration::from_secs(10);

/// The book of all worker threads of a process.
pub struct WorkerStats {
    effects: Mutex<Vec<EffectName>>,
    threads: Mutex<Vec<State>>,
    running: Gauge,
    frames: Family<FrameLabels, Counter>,
    about: About,
    analysing: Family<ModelLabels, Histogram, fn() -> Histogram>,
    busy: Gauge<f64, AtomicU64>,
}

/// What one thread is doing.
#[derive(Debug, Clone, Copy)]
enum State {
    /// It loads its models, or waits for a frame.
    Free,
    /// It has had a frame since then.
    Busy(Instant),
    /// It has ended, because the broker was closed.
    Left,
    /// It has ended, and nobody wanted that.
    Lost,
}

/// What became of a frame in a worker's hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// It has a result.
    Analysed,
    /// The effect could not analyse it.
    Failed,
    /// The effect panicked.
    Panicked,
    /// Its deadline had passed before its turn came, so its model did not run.
    Expired,
}

/// How the worker threads are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerHealth {
    /// Threads that run.
    pub running: usize,
    /// Threads that have ended though nobody wanted it.
    pub lost: usize,
    /// Threads of those that run that have had one frame for longer than [`STUCK_AFTER`].
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
    /// An empty one for workers that serve `effects` on what `about` says.
    pub fn new(effects: &[EffectName], about: About) -> Self {
        let analysing: Family<_, _, fn() -> Histogram> = Family::new_with_constructor(|| Histogram::new(BUCKETS));
        let frames = Family::default();
        let (known, threads, running, busy) = (Mutex::default(), Mutex::default(), Gauge::default(), Gauge::default());
        let worker_stats = Self { effects: known, threads, running, frames, about, analysing, busy };
        worker_stats.know(effects);
        worker_stats
    }

    /// The workers serve these effects, too.
    pub fn know(&self, effects: &[EffectName]) {
        let mut known = self.effects.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// Lets Prometheus see it.
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

    /// One more thread; it runs until the hand is dropped.
    pub fn enlist(self: &Arc<Self>) -> WorkerGuard {
        let mut threads = self.lock();
        threads.push(State::Free);
        self.running.inc();
        WorkerGuard { worker_stats: self.clone(), number: threads.len() - 1 }
    }

    fn on_models(&self, effect: &str) -> ModelLabels {
        let word = |word: &Option<String>| word.clone().unwrap_or_else(|| "none".into());
        ModelLabels { effect: effect.into(), backend: word(&self.about.backend), device: word(&self.about.device) }
    }

    /// How the threads are at this moment.
    pub fn crew(&self, now: Instant) -> WorkerHealth {
        let mut crew = WorkerHealth::default();
        for state in self.lock().iter() {
            match state {
                State::Left => {}
                State::Lost => crew.lost += 1,
                State::Free => crew.running += 1,
                State::Busy(since) => {
                    crew.running += 1;
                    crew.stuck += usize::from(now.saturating_duration_since(*since) > STUCK_AFTER);
                }
            }
        }
        crew
    }

    /// A panic while the lock was held can not have left half a change behind, so its poison is ignored.
    fn lock(&self) -> MutexGuard<'_, Vec<State>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thread's pen.
pub struct WorkerGuard {
    worker_stats: Arc<WorkerStats>,
    number: usize,
}

impl WorkerGuard {
    /// The thread has a frame.
    pub fn begin(&self, now: Instant) {
        self.set(State::Busy(now));
    }

    /// The frame that it had is done with.
    pub fn note(&self, effect: &EffectName, done: Done, took: Duration) {
        let worker_stats = &self.worker_stats;
        // What comes from other machines must not make up names of effects without end.
        let name = effect.without_version();
        let known = worker_stats.effects.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|known| known.as_str() == name);
        let effect = if known { name.to_string() } else { "unknown".into() };
        worker_stats.busy.inc_by(took.as_secs_f64());
        worker_stats.frames.get_or_create(&FrameLabels { effect: effect.clone(), result: done.label() }).inc();
        if done == Done::Analysed {
            worker_stats.analysing.get_or_create(&worker_stats.on_models(&effect)).observe(took.as_secs_f64());
        }
    }

    /// The thread waits for the next frame.
    pub fn rest(&self) {
        self.set(State::Free);
    }

    /// The thread ends, as it should.
    pub fn leave(self) {
        self.set(State::Left);
    }

    fn set(&self, state: State) {
        self.worker_stats.lock()[self.number] = state;
    }
}

impl Drop for WorkerGuard {
    fn drop(&mut self) {
        self.worker_stats.running.dec();
        let state = &mut self.worker_stats.lock()[self.number];
        if !matches!(state, State::Left) {
            *state = State::Lost;
        }
    }
}

impl Done {
    const ALL: [Done; 4] = [Done::Analysed, Done::Failed, Done::Panicked, Done::Expired];

    /// The label in metrics.
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
    /// What keeps the process from being called healthy, a sentence each.
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
        f.debug_struct("WorkerStats").field("threads", &*self.lock()).finish_non_exhaustive()
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
        let hand = worker_stats.enlist();
        hand.begin(start);
        assert_eq!(worker_stats.crew(start + STUCK_AFTER), WorkerHealth { running: 1, ..WorkerHealth::default() });
        let crew = worker_stats.crew(start + STUCK_AFTER + Duration::from_millis(1));
        assert_eq!((crew.stuck, crew.complaints().len()), (1, 1));
        hand.rest();
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
        let hand = worker_stats.enlist();
        hand.note(&EffectName::new("blur"), Done::Analysed, Duration::from_millis(500));
        hand.note(&EffectName::new("made_up_1"), Done::Failed, Duration::ZERO);
        hand.note(&EffectName::new("made_up_2"), Done::Failed, Duration::ZERO);
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
