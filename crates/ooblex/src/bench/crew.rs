//! The sessions of a run: they begin, are watched second by second, and end.
//!
//! It owns the runtime that drives the sessions, and the clock of the seconds. It knows nothing of what is made of the figures; [`super`]
//! says how many sessions there are and when it counts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::clip::Clip;
use super::decoding::Decoders;
use super::plan::{Decode, Mode, Plan};
use super::process::{Processes, Usage};
use super::progress::Progress;
use super::session::live;
use super::slice::{Slice, Totals};
use super::tally::Numbering;
use super::viewer::{Leave, Stage, State, Times, Viewer};

/// Sessions of each effect that are decoded where the timestamps tell the frames, and decoding only judges.
const DECODED: usize = 2;
/// What the first session is given to show whether timestamps come back.
const PROBE: Duration = Duration::from_secs(3);
/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(20);
/// Between two rows of figures.
pub(super) const SECOND: Duration = Duration::from_secs(1);

/// The sessions, and what they are watched with.
pub(super) struct Crew<'a> {
    plan: &'a Plan,
    runtime: Runtime,
    stage: Arc<Stage>,
    viewers: Vec<Arc<Viewer>>,
    /// Sessions that were begun, ever.
    begun: usize,
    /// Of each effect, how many sessions are decoded; and how many may be.
    decoded: HashMap<Option<String>, usize>,
    decodable: usize,
    began: Instant,
    /// The seconds since the last count ended, and when the last of them did.
    series: Vec<Second>,
    last: Instant,
    gateway: Processes,
    own: Processes,
    progress: Progress,
    interrupted: Arc<AtomicBool>,
}

/// One second of all sessions.
#[derive(Debug, Clone, Default)]
pub(super) struct Second {
    /// Seconds since the run began.
    pub(super) at_s: f64,
    /// How long it was: a second, about.
    pub(super) length_s: f64,
    /// Sessions that stood.
    pub(super) sessions: usize,
    /// All their figures.
    pub(super) all: Slice,
    /// The fewest frames that were shown, and processed, in a session.
    pub(super) least_shown: u64,
    /// See `least_shown`.
    pub(super) least_processed: u64,
    /// What the gateway's processes used.
    pub(super) gateway: Usage,
    /// What this process used.
    pub(super) own: Usage,
}

/// What one session came to.
#[derive(Debug, Clone)]
pub(super) struct SessionFigures {
    /// Which one it is, from 0.
    pub(super) index: usize,
    /// What it asked for.
    pub(super) effect: Option<String>,
    /// Where it was in its life at the end.
    pub(super) state: State,
    /// From the connection to the first picture.
    pub(super) first_picture: Option<Duration>,
    /// By what its frames were known.
    pub(super) numbering: Numbering,
    /// Whether its pictures were decoded.
    pub(super) decoded: bool,
    /// What was counted.
    pub(super) totals: Totals,
}

/// What was counted during a time.
#[derive(Debug, Clone, Default)]
pub(super) struct Measured {
    /// How long it was.
    pub(super) seconds: f64,
    /// Each session.
    pub(super) sessions: Vec<SessionFigures>,
    /// Each second, those before the count among them.
    pub(super) series: Vec<Second>,
    /// When the count began, in seconds since the run did.
    pub(super) from_s: f64,
}

impl<'a> Crew<'a> {
    /// Nobody is there yet.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub(super) fn new(plan: &'a Plan, clip: Arc<Clip>, progress: Progress) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(plan.threads)
            .thread_name("sessions")
            .max_blocking_threads(32)
            .enable_all()
            .build()?;
        let decoders = Decoders::start(plan.threads.div_ceil(2), &clip)?;
        let stage = Stage { url: plan.url.clone(), clip, decoders, up: plan.up, down: plan.down, seed: plan.seed, times: Mutex::default() };
        let decodable = match plan.decode {
            // They are short, and how they begin is what they are about.
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
            begun: 0,
            decoded: HashMap::new(),
            decodable,
            began: Instant::now(),
            series: Vec::new(),
            last: Instant::now(),
            gateway: Processes::new(plan.gateway_pids.clone()),
            own: Processes::own(),
            progress,
            interrupted,
        })
    }

    /// Begins the first session, and waits until it stands and shows whether timestamps come back.
    ///
    /// # Errors
    /// Why there is no session.
    pub(super) fn begin_first(&mut self) -> Result<(), String> {
        let first = self.begin();
        while first.state() == State::SettingUp {
            std::thread::sleep(LOOK);
        }
        match first.state() {
            State::Failed(reason) => return Err(reason),
            State::Lost { reason, .. } => return Err(format!("{} took the first session, and lost it at once: {reason}", self.plan.url)),
            _ => {}
        }
        let deadline = Instant::now() + PROBE;
        while first.tally().numbering() == Numbering::Unknown && Instant::now() < deadline && !self.is_interrupted() {
            std::thread::sleep(LOOK);
        }
        if first.tally().numbering() == Numbering::Picture && self.plan.decode.is_none() {
            self.decodable = usize::MAX;
            first.tally().decoded = true;
            first.want_keyframe();
        }
        Ok(())
    }

    /// Begins a session.
    pub(super) fn begin(&mut self) -> Arc<Viewer> {
        let wish = self.plan.wishes[self.begun % self.plan.wishes.len()].clone();
        let decoded = self.decoded.entry(wish.effect.clone()).or_default();
        let is_decoded = *decoded < self.decodable;
        *decoded += usize::from(is_decoded);
        let viewer = Arc::new(Viewer::new(self.begun, wish, is_decoded));
        self.begun += 1;
        self.viewers.push(viewer.clone());
        self.runtime.spawn(live(self.stage.clone(), viewer.clone()));
        viewer
    }

    /// Begins sessions or ends the newest, one after another, until there are so many.
    pub(super) fn set_sessions(&mut self, count: usize) {
        let mut next = Instant::now();
        while self.viewers.len() < count && !self.is_interrupted() {
            self.begin();
            next += self.plan.spacing;
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

    /// Lets a time pass.
    pub(super) fn watch(&mut self, time: Duration) {
        self.watch_until(Instant::now() + time);
    }

    /// Counts for a time.
    pub(super) fn measure(&mut self, time: Duration) -> Measured {
        let from = Instant::now();
        let at = |(start, length)| (from + start, from + start + length);
        *self.stage.times.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
            Times { outage: self.plan.outage.map(at), bad: self.plan.bad.map(at) };
        self.viewers.iter().for_each(|viewer| viewer.tally().begin(from));
        self.look_at_processes(from);
        let mut totals = vec![Totals::default(); self.viewers.len()];
        self.last = from;
        let until = from + time;
        while self.last < until && !self.is_interrupted() {
            // A piece of a second that is left at the end is counted with the one before.
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
        Measured { seconds: (self.last - from).as_secs_f64(), sessions, series, from_s: (from - self.began).as_secs_f64() }
    }

    /// Ends all sessions, a share of them by silence.
    pub(super) fn end(mut self) {
        self.progress.done();
        for (index, viewer) in self.viewers.iter().enumerate() {
            viewer.leave(self.way_out(index));
        }
        let deadline = Instant::now() + 2 * SECOND;
        while self.viewers.iter().any(|viewer| viewer.is_up()) && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        self.runtime.shutdown_timeout(SECOND);
    }

    /// How a session ends: evenly spread, so that any number of them has about the share that was asked for.
    pub(super) fn way_out(&self, index: usize) -> Leave {
        let vanished = |count: usize| (count as f64 * self.plan.vanish + 1e-9) as usize;
        if vanished(index + 1) > vanished(index) { Leave::Silence } else { Leave::Goodbye }
    }

    /// Forgets the sessions that are over, or never began.
    pub(super) fn drop_broken(&mut self) {
        self.viewers.retain(|viewer| viewer.is_up());
    }

    /// Forgets a session that is over.
    pub(super) fn forget(&mut self, index: usize) {
        self.viewers.retain(|viewer| viewer.index != index);
    }

    /// Whether a person wants it to end early.
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// What is shown while it runs.
    pub(super) fn progress(&mut self) -> &mut Progress {
        &mut self.progress
    }

    /// What the gateway's processes and this one used since the last look.
    pub(super) fn look_at_processes(&mut self, now: Instant) -> (Usage, Usage) {
        (self.gateway.look(now), self.own.look(now))
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

    /// Takes the figures of all sessions since the last second.
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
                least_shown = Some(least_shown.map_or(slice.shown, |least| least.min(slice.shown)));
                least_processed = Some(least_processed.map_or(slice.processed, |least| least.min(slice.processed)));
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
    /// A quantile of latency in this second, ms; `None` where no frame was recognised.
    pub(super) fn latency_ms(&self, quantile: f64) -> Option<f64> {
        let last = self.all.latencies_us.len().checked_sub(1)?;
        Some(f64::from(self.all.latencies_us[(last as f64 * quantile).round() as usize]) / 1e3)
    }

    /// A count of this second as a rate, for the mean session.
    pub(super) fn rate(&self, count: u64) -> f64 {
        count as f64 / self.length_s.max(1e-3) / self.sessions.max(1) as f64
    }
}

impl Measured {
    /// The seconds that were counted.
    pub(super) fn counted(&self) -> impl Iterator<Item = &Second> {
        self.series.iter().filter(|second| second.at_s > self.from_s + 1e-6)
    }

    /// All sessions together.
    pub(super) fn all(&self) -> Totals {
        let mut all = Totals::default();
        self.sessions.iter().for_each(|session| all.add(&session.totals));
        all
    }

    /// Sessions that stood when the count began, or later.
    pub(super) fn connected(&self) -> impl Iterator<Item = &SessionFigures> {
        self.sessions.iter().filter(|session| !matches!(session.state, State::SettingUp | State::Failed(_)))
    }

    /// Why sessions did not come about.
    pub(super) fn failures(&self) -> impl Iterator<Item = &str> {
        self.sessions.iter().filter_map(|session| match &session.state {
            State::Failed(reason) => Some(reason.as_str()),
            State::SettingUp => Some("it was still being set up at the end"),
            _ => None,
        })
    }

    /// The least of a count over the sessions that connected, a second.
    pub(super) fn least(&self, of: impl Fn(&Slice) -> u64) -> Option<f64> {
        let least = self.connected().map(|session| of(&session.totals.sum)).min()?;
        Some(least as f64 / self.seconds)
    }
}

/// The first interrupt ends the count early, the second the program at once.
async fn listen(interrupted: Arc<AtomicBool>) {
    while tokio::signal::ctrl_c().await.is_ok() {
        if interrupted.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    }
}
