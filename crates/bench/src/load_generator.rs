//! Load generator: starts the sessions of a run, samples them every second, and ends them.
//!
//! It owns the runtime that drives the sessions, and the one-second clock. It knows nothing about
//! the reports; [`super`] decides how many sessions there are and when a measurement begins.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Runtime;

use super::clip::Clip;
use super::decoding::Decoders;
use super::interval_stats::{IntervalStats, Totals};
use super::plan::{Decode, Interval, Mode, Plan};
use super::process::{Processes, Usage};
use super::progress::Progress;
use super::session::live;
use super::session_stats::{Numbering, SentFrames};
use super::viewer::{Leave, Stage, State, Times, Viewer};
use ooblex_client::Wish;
use ooblex_client::endpoint::Purpose;

/// Number of sessions of each effect that are decoded where RTP timestamps identify the frames, so
/// that decoding is needed only to judge the pictures.
const DECODED: usize = 2;
/// Maximum time in which the first session must show whether the gateway keeps RTP timestamps.
const PROBE: Duration = Duration::from_secs(3);
/// Polling interval while waiting for a condition.
const LOOK: Duration = Duration::from_millis(20);
/// Interval between two rows of figures.
pub(super) const SECOND: Duration = Duration::from_secs(1);

/// The sessions of a run and the instruments that sample them.
pub(super) struct LoadGenerator<'a> {
    plan: &'a Plan,
    runtime: Runtime,
    stage: Arc<Stage>,
    viewers: Vec<Arc<Viewer>>,
    begun: Begun,
    decoding: Decoding,
    began: Instant,
    /// Samples since the end of the last measurement.
    series: Vec<Second>,
    last: Instant,
    processes: BenchProcesses,
    progress: Progress,
    interrupted: Arc<AtomicBool>,
}

/// What was begun since the start of the run.
#[derive(Default)]
struct Begun {
    /// Number of sessions.
    count: usize,
    /// The session that publishes to the room of the others, which is not measured.
    publisher: Option<Publisher>,
}

/// The publisher of the room that all other sessions watch.
struct Publisher {
    session: Arc<Viewer>,
    sent: Arc<Mutex<SentFrames>>,
}

/// Number of sessions of each effect that are decoded.
struct Decoding {
    by_effect: HashMap<Option<String>, usize>,
    limit: usize,
}

struct BenchProcesses {
    gateway: Processes,
    own: Processes,
}

/// Figures of all sessions over one second.
#[derive(Debug, Clone, Default)]
pub(super) struct Second {
    /// End of this second, in seconds since the run began.
    pub(super) at_s: f64,
    /// Length of the sample in seconds, about 1.
    pub(super) length_s: f64,
    /// Number of connected sessions.
    pub(super) sessions: usize,
    /// Sum of the figures of all connected sessions.
    pub(super) all: IntervalStats,
    /// Smallest number of frames that any session showed.
    pub(super) least_shown: u64,
    /// Smallest number of processed frames that any session showed.
    pub(super) least_processed: u64,
    /// Resources used by the gateway's processes.
    pub(super) gateway: Usage,
    /// Resources used by this process.
    pub(super) own: Usage,
}

/// Final figures of one session.
#[derive(Debug, Clone)]
pub(super) struct SessionFigures {
    /// Index of the session, from 0.
    pub(super) index: usize,
    /// Effect that the session requested.
    pub(super) effect: Option<String>,
    /// State of the session at the end of the measurement.
    pub(super) state: State,
    /// Time from the connection to the first picture.
    pub(super) first_picture: Option<Duration>,
    /// Method by which frames were identified.
    pub(super) numbering: Numbering,
    /// True if the session's pictures were decoded.
    pub(super) decoded: bool,
    /// Figures of the session over the measurement.
    pub(super) totals: Totals,
}

/// Result of a measurement.
#[derive(Debug, Clone, Default)]
pub(super) struct Measured {
    /// Length of the measurement in seconds.
    pub(super) seconds: f64,
    /// Figures of each session.
    pub(super) sessions: Vec<SessionFigures>,
    /// Figures of the publisher of the sessions' room; empty where each session has its own camera.
    pub(super) publisher: Totals,
    /// One sample per second, including those before the measurement began.
    pub(super) series: Vec<Second>,
    /// Start of the measurement, in seconds since the run began.
    pub(super) from_s: f64,
}

impl<'a> LoadGenerator<'a> {
    /// Creates a load generator without sessions.
    ///
    /// # Errors
    /// Returns an error if the system provides no threads.
    pub(super) fn new(plan: &'a Plan, clip: Arc<Clip>, progress: Progress) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(plan.instruments.threads)
            .thread_name("sessions")
            .max_blocking_threads(32)
            .enable_all()
            .build()?;
        let decoders = Decoders::start(plan.instruments.threads.div_ceil(2), &clip)?;
        let stage = Stage { url: plan.url.clone(), clip, decoders, network: plan.network, times: Mutex::default() };
        let limit = match plan.instruments.decode {
            // Churn sessions are short, and their first pictures are the subject of the run.
            None if matches!(plan.mode, Mode::Churn { .. }) => usize::MAX,
            None => DECODED,
            Some(Decode::Some(count)) => count,
            Some(Decode::All) => usize::MAX,
        };
        let interrupted = Arc::new(AtomicBool::new(false));
        runtime.spawn(listen(interrupted.clone()));
        Ok(Self {
            plan,
            runtime,
            stage: Arc::new(stage),
            viewers: Vec::new(),
            begun: Begun::default(),
            decoding: Decoding { by_effect: HashMap::new(), limit },
            began: Instant::now(),
            series: Vec::new(),
            last: Instant::now(),
            processes: BenchProcesses { gateway: Processes::new(plan.instruments.gateway_pids.clone()), own: Processes::own() },
            progress,
            interrupted,
        })
    }

    /// Begins the first session, and waits until it is connected and shows whether the gateway
    /// keeps RTP timestamps.
    ///
    /// # Errors
    /// Returns the reason why the session failed.
    pub(super) fn begin_first(&mut self) -> Result<(), String> {
        if let Some(room) = &self.plan.room {
            let (wish, sent) = (self.plan.wishes[0].clone(), Arc::default());
            let session = self.start(wish, Purpose::Publish(room.clone()), Arc::clone(&sent), false);
            self.wait_for_connection(&session)?;
            self.begun.publisher = Some(Publisher { session, sent });
        }
        let first = self.begin();
        self.wait_for_connection(&first)?;
        let deadline = Instant::now() + PROBE;
        while first.tally().numbering() == Numbering::Unknown && Instant::now() < deadline && !self.is_interrupted() {
            std::thread::sleep(LOOK);
        }
        if first.tally().numbering() == Numbering::Picture && self.plan.instruments.decode.is_none() {
            self.decoding.limit = usize::MAX;
            first.tally().decoded = true;
            first.want_keyframe();
        }
        Ok(())
    }

    fn wait_for_connection(&self, session: &Viewer) -> Result<(), String> {
        while session.state() == State::SettingUp {
            std::thread::sleep(LOOK);
        }
        match session.state() {
            State::Failed(reason) => Err(reason),
            State::Lost { reason, .. } => Err(format!("{} took the first session, and lost it at once: {reason}", self.plan.url)),
            _ => Ok(()),
        }
    }

    /// Begins a session.
    pub(super) fn begin(&mut self) -> Arc<Viewer> {
        let wish = self.plan.wishes[self.begun.count % self.plan.wishes.len()].clone();
        let decoded = self.decoding.by_effect.entry(wish.effect.clone()).or_default();
        let is_decoded = *decoded < self.decoding.limit;
        *decoded += usize::from(is_decoded);
        let (purpose, sent) = match (&self.plan.room, &self.begun.publisher) {
            (Some(room), Some(Publisher { sent, .. })) => (Purpose::Watch(room.clone()), sent.clone()),
            _ => (Purpose::Exchange, Arc::default()),
        };
        let viewer = self.start(wish, purpose, sent, is_decoded);
        self.viewers.push(viewer.clone());
        viewer
    }

    fn start(&mut self, wish: Wish, purpose: Purpose, sent: Arc<Mutex<SentFrames>>, is_decoded: bool) -> Arc<Viewer> {
        let viewer = Arc::new(Viewer::new(self.begun.count, wish, purpose, sent, is_decoded));
        self.begun.count += 1;
        self.runtime.spawn(live(self.stage.clone(), viewer.clone()));
        viewer
    }

    /// Begins sessions, or ends the newest, one after another until there are `count`.
    pub(super) fn set_sessions(&mut self, count: usize) {
        let mut next = Instant::now();
        while self.viewers.len() < count && !self.is_interrupted() {
            self.begin();
            next += self.plan.timing.spacing;
            self.watch_until(next);
        }
        while self.viewers.len() > count {
            if let Some(viewer) = self.viewers.pop() {
                viewer.leave(Leave::Goodbye);
            }
        }
        while self.viewers.iter().any(|viewer| viewer.state() == State::SettingUp) && !self.is_interrupted() {
            self.watch_until(Instant::now() + LOOK);
        }
    }

    /// Samples the sessions for a time without counting the samples.
    pub(super) fn watch(&mut self, time: Duration) {
        self.watch_until(Instant::now() + time);
    }

    /// Measures for a time.
    pub(super) fn measure(&mut self, time: Duration) -> Measured {
        let from = Instant::now();
        let at = |Interval { start, length }| from + start..from + start + length;
        *self.stage.times.lock() = Times { outage: self.plan.network.outage.map(at), bad: self.plan.network.bad.map(at) };
        let publisher = self.begun.publisher.as_ref().map(|publisher| publisher.session.clone());
        self.viewers.iter().chain(&publisher).for_each(|viewer| viewer.tally().begin(from));
        self.look_at_processes(from);
        let mut totals = vec![Totals::default(); self.viewers.len()];
        self.last = from;
        let until = from + time;
        while self.last < until && !self.is_interrupted() {
            // A remainder of less than half a second at the end is part of the last sample.
            let next = if until - self.last < SECOND * 3 / 2 { until } else { self.last + SECOND };
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            self.second(Instant::now(), Some(&mut totals));
        }
        let mut of = |(viewer, totals): (&Arc<Viewer>, Totals)| {
            let tally = viewer.tally();
            let (first_picture, numbering, decoded) = (tally.first_picture(), tally.numbering(), tally.decoded);
            drop(tally);
            let effect = viewer.wish.effect.clone();
            SessionFigures { index: viewer.index, effect, state: viewer.state(), first_picture, numbering, decoded, totals }
        };
        let sessions = self.viewers.iter().zip(totals).map(&mut of).collect();
        let series = std::mem::take(&mut self.series);
        let mut published = Totals::default();
        publisher.iter().for_each(|publisher| published.add_slice(&publisher.tally().take(self.last)));
        // It shows no pictures, so it has no freezes.
        published.sum.longest_freeze = Duration::ZERO;
        Measured {
            seconds: (self.last - from).as_secs_f64(),
            sessions,
            publisher: published,
            series,
            from_s: (from - self.began).as_secs_f64(),
        }
    }

    /// Ends all sessions; the share `vanish` of the plan ends silently.
    pub(super) fn end(mut self) {
        self.progress.done();
        for (index, viewer) in self.viewers.iter().enumerate() {
            viewer.leave(self.way_out(index));
        }
        let deadline = Instant::now() + 2 * SECOND;
        while self.viewers.iter().any(|viewer| viewer.is_up()) && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        if let Some(Publisher { session, .. }) = &self.begun.publisher {
            session.leave(Leave::Goodbye);
            while session.is_up() && Instant::now() < deadline {
                std::thread::sleep(LOOK);
            }
        }
        self.runtime.shutdown_timeout(SECOND);
    }

    /// Returns how a session ends. Silent ends are spread evenly, so that any number of sessions
    /// has about the requested share.
    pub(super) fn way_out(&self, index: usize) -> Leave {
        let vanished = |count: usize| (count as f64 * self.plan.vanish + 1e-9) as usize;
        if vanished(index + 1) > vanished(index) { Leave::Silence } else { Leave::Goodbye }
    }

    /// Forgets the sessions that are not connected.
    pub(super) fn drop_broken(&mut self) {
        self.viewers.retain(|viewer| viewer.is_up());
    }

    /// Forgets a session that has ended.
    pub(super) fn forget(&mut self, index: usize) {
        self.viewers.retain(|viewer| viewer.index != index);
    }

    /// Returns whether the user has interrupted the run.
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Returns the progress display.
    pub(super) fn progress(&mut self) -> &mut Progress {
        &mut self.progress
    }

    /// Returns the resources used since the last call by the gateway's processes and by this
    /// process.
    pub(super) fn look_at_processes(&mut self, now: Instant) -> (Usage, Usage) {
        (self.processes.gateway.look(now), self.processes.own.look(now))
    }

    fn watch_until(&mut self, until: Instant) {
        loop {
            let next = (self.last + SECOND).min(until);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            let now = Instant::now();
            if now >= self.last + SECOND {
                self.second(now, None);
            }
            if now >= until || self.is_interrupted() {
                return;
            }
        }
    }

    /// Samples all sessions: their figures since the previous sample.
    fn second(&mut self, now: Instant, mut totals: Option<&mut Vec<Totals>>) {
        let last = std::mem::replace(&mut self.last, now);
        let (gateway, own) = self.look_at_processes(now);
        let (at_s, length_s) = ((now - self.began).as_secs_f64(), (now - last).as_secs_f64());
        let (mut least_shown, mut least_processed) = (None::<u64>, None::<u64>);
        let mut second = Second { at_s, length_s, gateway, own, ..Second::default() };
        for (index, viewer) in self.viewers.iter().enumerate() {
            let slice = viewer.tally().take(now);
            if viewer.is_up() {
                second.sessions += 1;
                least_shown = Some(least_shown.map_or(slice.frames.shown, |least| least.min(slice.frames.shown)));
                least_processed = Some(least_processed.map_or(slice.frames.processed, |least| least.min(slice.frames.processed)));
                second.all.add(&slice);
            }
            if let Some(totals) = totals.as_mut().and_then(|totals| totals.get_mut(index)) {
                totals.add_slice(&slice);
            }
        }
        (second.least_shown, second.least_processed) = (least_shown.unwrap_or(0), least_processed.unwrap_or(0));
        second.all.latencies_us.sort_unstable();
        self.progress.second(&second, self.viewers.len(), totals.is_some());
        self.series.push(second);
    }
}

impl Second {
    /// Returns a latency quantile over this second, in ms; `None` if no frame was identified.
    pub(super) fn latency_ms(&self, quantile: f64) -> Option<f64> {
        let last = self.all.latencies_us.len().checked_sub(1)?;
        Some(f64::from(self.all.latencies_us[(last as f64 * quantile).round() as usize]) / 1e3)
    }

    /// Converts a count of this second to a rate per second, averaged over the sessions.
    pub(super) fn rate(&self, count: u64) -> f64 {
        count as f64 / self.length_s.max(1e-3) / self.sessions.max(1) as f64
    }
}

impl Measured {
    /// Returns the samples that belong to the measurement.
    pub(super) fn counted(&self) -> impl Iterator<Item = &Second> {
        self.series.iter().filter(|second| second.at_s > self.from_s + 1e-6)
    }

    /// Returns the figures of all sessions together, with those of their publisher.
    pub(super) fn all(&self) -> Totals {
        let mut all = self.publisher.clone();
        self.sessions.iter().for_each(|session| all.add(&session.totals));
        all
    }

    /// Returns the sessions that were connected at some time.
    pub(super) fn connected(&self) -> impl Iterator<Item = &SessionFigures> {
        self.sessions.iter().filter(|session| !matches!(session.state, State::SettingUp | State::Failed(_)))
    }

    /// Returns the reasons why sessions were not established.
    pub(super) fn failures(&self) -> impl Iterator<Item = &str> {
        self.sessions.iter().filter_map(|session| match &session.state {
            State::Failed(reason) => Some(reason.as_str()),
            State::SettingUp => Some("it was still being set up at the end"),
            _ => None,
        })
    }

    /// Returns the smallest value of a count among the connected sessions, per second.
    pub(super) fn least(&self, of: impl Fn(&IntervalStats) -> u64) -> Option<f64> {
        let least = self.connected().map(|session| of(&session.totals.sum)).min()?;
        Some(least as f64 / self.seconds)
    }
}

/// Handles Ctrl-C: the first ends the measurement early, the second exits the program at once.
async fn listen(interrupted: Arc<AtomicBool>) {
    while tokio::signal::ctrl_c().await.is_ok() {
        if interrupted.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    }
}
