//! Churn mode of `ooblex bench`: each session is set up, waits for its first picture, and ends. The
//! mode measures set-up times and the memory that a gateway retains after sessions end, so the
//! gateway's memory is sampled for a while after the last session.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ooblex_pipeline::round;
use serde_json::{Value, json};

use super::figures::{ms, spread};
use super::interval_stats::{IntervalStats, PictureStats, Totals};
use super::load_generator::LoadGenerator;
use super::viewer::{Leave, State, Viewer};

/// Time after the connection within which a picture must arrive; a session without one is ended.
const PICTURE_WITHIN: Duration = Duration::from_secs(5);
/// Time that a session stays after its first picture.
const STAY: Duration = Duration::from_millis(100);
/// Interval at which the sessions are polled.
const LOOK: Duration = Duration::from_millis(5);
/// Maximum number of failure reasons that are kept.
const REASONS: usize = 5;

/// Result of a churn run.
#[derive(Debug, Clone, Default)]
pub(super) struct Churned {
    /// Number of set-ups attempted.
    tried: usize,
    /// Number of set-ups that failed.
    pub(super) failed: usize,
    reasons: Vec<String>,
    /// Number of sessions that never showed a picture.
    blind: usize,
    /// Number of sessions that ended silently, without closing the connection.
    vanished: usize,
    set_up: Vec<Duration>,
    /// Times from the connection to the first picture, one for each session.
    first_picture: Vec<Duration>,
    /// Sums over all sessions.
    totals: Totals,
    /// Time until the last session had ended.
    pub(super) took: Duration,
    /// Memory of the gateway's processes, sampled each second.
    memory: Vec<MemorySample>,
    /// Last memory sample before the end of the last session, MB.
    busy_memory: Option<f64>,
}

/// Memory of the gateway's processes at one time.
#[derive(Debug, Clone, Copy)]
pub(super) struct MemorySample {
    /// Time in seconds since the start.
    pub(super) at_s: f64,
    /// Resident memory in MB.
    pub(super) mb: f64,
}

/// A session in progress.
struct Guest {
    viewer: Arc<Viewer>,
    began: Instant,
    /// Time at which the session's first picture was noticed.
    seen_at: Option<Instant>,
}

/// Sets up and ends `count` sessions, at most `lanes` at a time, and then samples the gateway's
/// memory for the time `after`.
pub(super) fn churn(generator: &mut LoadGenerator<'_>, count: usize, lanes: usize, after: Duration) -> Churned {
    let (mut churned, began) = (Churned::default(), Instant::now());
    let mut guests: VecDeque<Guest> = VecDeque::new();
    let mut looked = None::<Instant>;
    while (churned.tried < count && !generator.is_interrupted()) || !guests.is_empty() {
        while guests.len() < lanes && churned.tried < count && !generator.is_interrupted() {
            churned.tried += 1;
            guests.push_back(Guest { viewer: generator.begin(), began: Instant::now(), seen_at: None });
        }
        guests.retain_mut(|guest| churned.attend(generator, guest));
        let now = Instant::now();
        if looked.is_none_or(|looked| now - looked >= Duration::from_secs(1)) {
            looked = Some(now);
            churned.look(generator, now - began);
            let line = format!("{} of {count} sessions, {} failed, {}", churned.tried, churned.failed, churned.memory_words());
            generator.progress().show(&line);
        }
        std::thread::sleep(LOOK);
    }
    churned.took = began.elapsed();
    churned.look(generator, churned.took);
    churned.busy_memory = churned.memory.last().map(|last| last.mb);
    let until = began + churned.took + after;
    while Instant::now() < until && !churned.memory.is_empty() && !generator.is_interrupted() {
        std::thread::sleep(Duration::from_secs(1).min(until.saturating_duration_since(Instant::now())));
        churned.look(generator, began.elapsed());
        let line = format!("all have ended; {}", churned.memory_words());
        generator.progress().show(&line);
    }
    churned
}

impl Churned {
    /// Advances one session. Returns `false` once it is over.
    fn attend(&mut self, generator: &mut LoadGenerator<'_>, guest: &mut Guest) -> bool {
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
                    viewer.leave(generator.way_out(viewer.index));
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
                self.totals.add_slice(&tally.take(now));
                self.vanished += usize::from(generator.way_out(viewer.index) == Leave::Silence);
            }
        }
        generator.forget(viewer.index);
        false
    }

    fn look(&mut self, generator: &mut LoadGenerator<'_>, at: Duration) {
        let (gateway, _) = generator.look_at_processes(Instant::now());
        self.memory.extend(gateway.memory_mb.map(|mb| MemorySample { at_s: at.as_secs_f64(), mb }));
    }

    /// Describes the memory at the beginning, when the last session ended, and now.
    fn memory_words(&self) -> String {
        match (self.memory.first(), self.memory.last()) {
            (Some(MemorySample { mb: first, .. }), Some(MemorySample { at_s: now, mb: last })) => {
                let busy = self.busy_memory.map_or(String::new(), |busy| format!("{busy:.1} MB when the last session ended, "));
                format!("gateway {first:.1} MB at the beginning, {busy}{last:.1} MB after {now:.0} s")
            }
            _ => "the gateway's memory is not known (--gateway-pid)".into(),
        }
    }

    /// Returns the figures that other modes report too, under the names that those modes use.
    pub(super) fn common_json(&self) -> Value {
        let IntervalStats { frames, pictures, .. } = &self.totals.sum;
        let gateway_memory_mb = self.memory.iter().map(|sample| round(sample.mb)).reduce(f64::max);
        json!({
            "duration_s": round(self.took.as_secs_f64()), "setup_failures": self.failed, "order_errors": frames.order_errors,
            "judged": pictures.judged, "raw_leaks": (pictures.judged > 0).then_some(pictures.raw), "gateway_memory_mb": gateway_memory_mb,
            "setup_ms": spread(self.set_up.iter().copied().map(ms)),
            "first_picture_ms": spread(self.first_picture.iter().copied().map(ms)),
            "setup_errors": self.reasons,
        })
    }

    /// Returns the figures that only this mode reports.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "setups": self.tried, "failed": self.failed, "without_picture": self.blind, "vanished": self.vanished,
            "gateway_memory_mb": {
                "first": self.memory.first().map(|sample| round(sample.mb)), "at_the_end_of_the_last": self.busy_memory.map(round),
                "last": self.memory.last().map(|sample| round(sample.mb)),
                "max": self.memory.iter().map(|sample| round(sample.mb)).reduce(f64::max),
            },
        })
    }

    /// Returns the memory of the gateway's processes, sampled each second.
    pub(super) fn memory(&self) -> &[MemorySample] {
        &self.memory
    }

    /// Formats the result as text for the terminal and the report.
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
        let PictureStats { raw, judged, .. } = self.totals.sum.pictures;
        if raw > 0 {
            _ = writeln!(text, "UNPROCESSED PICTURES CAME BACK: {raw} of {judged} that were judged");
        }
        text
    }
}
