//! Sessions that come and go: each is set up, waits for its first picture, and ends. It shows what set-ups take, and what a gateway
//! keeps of sessions that are over: its memory is watched for a while when the last one has ended.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::crew::Crew;
use super::figures::{ms, spread};
use super::viewer::{Leave, State, Viewer};
use crate::figures::round;

/// A session that has no picture after this time ends without one.
const PICTURE_WITHIN: Duration = Duration::from_secs(5);
/// After its first picture, a session stays this long.
const STAY: Duration = Duration::from_millis(100);
/// Between two looks at the sessions.
const LOOK: Duration = Duration::from_millis(5);
/// Reasons of failures that are kept.
const REASONS: usize = 5;

/// What came of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Churned {
    /// Set-ups that were tried.
    tried: usize,
    /// Those that failed.
    pub(super) failed: usize,
    reasons: Vec<String>,
    /// Sessions that never showed a picture.
    blind: usize,
    /// Sessions that ended by silence.
    vanished: usize,
    set_up: Vec<Duration>,
    /// From the connection to the first picture.
    first_picture: Vec<Duration>,
    /// Unprocessed pictures of those that were judged.
    pub(super) raw: u64,
    /// See `raw`.
    pub(super) judged: u64,
    /// Frames that came after a newer one.
    pub(super) order_errors: u64,
    /// Until the last one had ended.
    pub(super) took: Duration,
    /// Memory of the gateway's processes, MB, each second.
    memory: Vec<(f64, f64)>,
    /// The last of these before the end of the last session.
    busy_memory: Option<f64>,
}

/// A session that is under way.
struct Guest {
    viewer: Arc<Viewer>,
    began: Instant,
    /// When it had a picture.
    seen_at: Option<Instant>,
}

/// Sets up and ends so many sessions, `lanes` at a time, and watches the gateway for a while `after` that.
pub(super) fn churn(crew: &mut Crew<'_>, count: usize, lanes: usize, after: Duration) -> Churned {
    let (mut churned, began) = (Churned::default(), Instant::now());
    let mut guests: VecDeque<Guest> = VecDeque::new();
    let mut looked = None::<Instant>;
    while (churned.tried < count && !crew.is_interrupted()) || !guests.is_empty() {
        while guests.len() < lanes && churned.tried < count && !crew.is_interrupted() {
            churned.tried += 1;
            guests.push_back(Guest { viewer: crew.begin(), began: Instant::now(), seen_at: None });
        }
        guests.retain_mut(|guest| churned.attend(crew, guest));
        let now = Instant::now();
        if looked.is_none_or(|looked| now - looked >= Duration::from_secs(1)) {
            looked = Some(now);
            churned.look(crew, now - began);
            let line = format!("{} of {count} sessions, {} failed, {}", churned.tried, churned.failed, churned.memory_words());
            crew.progress().show(&line);
        }
        std::thread::sleep(LOOK);
    }
    churned.took = began.elapsed();
    churned.look(crew, churned.took);
    churned.busy_memory = churned.memory.last().map(|(_, megabytes)| *megabytes);
    let until = began + churned.took + after;
    while Instant::now() < until && !churned.memory.is_empty() && !crew.is_interrupted() {
        std::thread::sleep(Duration::from_secs(1).min(until.saturating_duration_since(Instant::now())));
        churned.look(crew, began.elapsed());
        let line = format!("all have ended; {}", churned.memory_words());
        crew.progress().show(&line);
    }
    churned
}

impl Churned {
    /// Looks after one session. `false`: it is over.
    fn attend(&mut self, crew: &mut Crew<'_>, guest: &mut Guest) -> bool {
        let (viewer, now) = (&guest.viewer, Instant::now());
        match viewer.state() {
            State::SettingUp => return true,
            State::Failed(reason) => {
                self.failed += 1;
                if self.reasons.len() < REASONS {
                    self.reasons.push(reason);
                }
            }
            State::Up { after } => {
                if guest.seen_at.is_none() && viewer.tally().first_picture().is_some() {
                    guest.seen_at = Some(now);
                }
                let is_done = match guest.seen_at {
                    Some(seen) => now - seen >= STAY,
                    None => now - guest.began >= after + PICTURE_WITHIN,
                };
                if is_done {
                    viewer.leave(crew.way_out(viewer.index));
                }
                return true;
            }
            State::Left { after } | State::Lost { after, .. } => {
                self.set_up.push(after);
                let mut tally = viewer.tally();
                match tally.first_picture() {
                    Some(first) => self.first_picture.push(first),
                    None => self.blind += 1,
                }
                let slice = tally.take(now);
                self.raw += slice.raw;
                self.judged += slice.judged;
                self.order_errors += slice.order_errors;
                self.vanished += usize::from(crew.way_out(viewer.index) == Leave::Silence);
            }
        }
        crew.forget(viewer.index);
        false
    }

    fn look(&mut self, crew: &mut Crew<'_>, at: Duration) {
        let (gateway, _) = crew.look_at_processes(Instant::now());
        self.memory.extend(gateway.memory_mb.map(|megabytes| (at.as_secs_f64(), megabytes)));
    }

    /// Memory at the beginning and now.
    fn memory_words(&self) -> String {
        match (self.memory.first(), self.memory.last()) {
            (Some((_, first)), Some((now, last))) => {
                let busy = self.busy_memory.map_or(String::new(), |busy| format!("{busy:.1} MB when the last session ended, "));
                format!("gateway {first:.1} MB at the beginning, {busy}{last:.1} MB after {now:.0} s")
            }
            _ => "the gateway's memory is not known (--gateway-pid)".into(),
        }
    }

    /// The same figures as those of sessions that stay, where there are such.
    pub(super) fn common_json(&self) -> Value {
        let gateway_memory_mb = self.memory.iter().map(|(_, mb)| round(*mb)).reduce(f64::max);
        json!({
            "duration_s": round(self.took.as_secs_f64()), "setup_failures": self.failed, "order_errors": self.order_errors,
            "judged": self.judged, "raw_leaks": (self.judged > 0).then_some(self.raw), "gateway_memory_mb": gateway_memory_mb,
            "setup_ms": spread(self.set_up.iter().copied().map(ms)),
            "first_picture_ms": spread(self.first_picture.iter().copied().map(ms)),
            "setup_errors": self.reasons,
        })
    }

    /// The figures as JSON.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "setups": self.tried, "failed": self.failed, "without_picture": self.blind, "vanished": self.vanished,
            "gateway_memory_mb": {
                "first": self.memory.first().map(|(_, mb)| round(*mb)), "at_the_end_of_the_last": self.busy_memory.map(round),
                "last": self.memory.last().map(|(_, mb)| round(*mb)),
                "max": self.memory.iter().map(|(_, mb)| round(*mb)).reduce(f64::max),
            },
        })
    }

    /// Memory over time: seconds, MB.
    pub(super) fn memory(&self) -> &[(f64, f64)] {
        &self.memory
    }

    /// What a person reads.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        let words = |spread: &Value| match spread {
            Value::Null => "–".to_string(),
            spread => format!("p50 {}, p95 {}, most {}", spread["p50"], spread["p95"], spread["max"]),
        };
        _ = writeln!(
            text,
            "{} set-ups in {:.1} s, {} failed, {} without a picture, {} ended by silence",
            self.tried,
            self.took.as_secs_f64(),
            self.failed,
            self.blind,
            self.vanished
        );
        _ = writeln!(text, "ms from the offer to the connection: {}", words(&spread(self.set_up.iter().copied().map(ms))));
        _ = writeln!(text, "ms from there to the first picture: {}", words(&spread(self.first_picture.iter().copied().map(ms))));
        _ = writeln!(text, "{}", self.memory_words());
        for reason in &self.reasons {
            _ = writeln!(text, "set-up failed: {reason}");
        }
        if self.raw > 0 {
            _ = writeln!(text, "UNPROCESSED PICTURES CAME BACK: {} of {} that were judged", self.raw, self.judged);
        }
        text
    }
}
