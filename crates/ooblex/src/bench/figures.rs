//! From what was counted to the figures that are reported. [`super::json`], [`super::table`] and [`super::report`] show the same
//! figures; what each means is in docs/bench.md.

use std::time::Duration;

use serde_json::{Value, json};

use super::churn::Churned;
use super::clip::Clip;
use super::crew::{Measured, Second, SessionFigures};
use super::knee::Knee;
use super::plan::Plan;
use super::slice::Totals;
use super::tally::Numbering;
use super::viewer::State;
use crate::figures::round;

/// Reasons of failed set-ups that are told; the others are only counted.
pub(super) const REASONS: usize = 5;

/// All that came of a run.
pub(super) struct Outcome<'a> {
    /// What was asked for.
    pub(super) plan: &'a Plan,
    /// What was sent.
    pub(super) clip: &'a Clip,
    /// What was counted; of a search for the knee, at the most sessions that worked.
    pub(super) measured: Measured,
    /// Where sessions came and went.
    pub(super) churned: Option<Churned>,
    /// Where the knee was looked for.
    pub(super) knee: Option<Knee>,
}

/// The figures of a run, all sessions together.
pub(super) struct Summary {
    /// All counts.
    pub(super) all: Totals,
    /// By what frames were known.
    pub(super) numbers: &'static str,
    /// Each session's mean, the least of them; `None` without a session.
    pub(super) fps_sent_min: Option<f64>,
    /// See `fps_sent_min`.
    pub(super) fps_shown_min: Option<f64>,
    /// See `fps_sent_min`; `None` where frames can not be recognised.
    pub(super) fps_processed_min: Option<f64>,
    /// Of all sessions together, a second.
    pub(super) fps_shown_total: f64,
    /// See `fps_shown_total`.
    pub(super) fps_processed_total: f64,
    /// Unprocessed pictures; `None` where none could be judged.
    pub(super) raw_leaks: Option<u64>,
    /// Sessions that did not come about, and those that ended too early.
    pub(super) setup_failures: usize,
    /// See `setup_failures`.
    pub(super) sessions_lost: usize,
    /// What the gateway's processes kept busy, and the most memory that they had.
    pub(super) gateway_cpu_cores: Option<f64>,
    /// See `gateway_cpu_cores`.
    pub(super) gateway_memory_mb: Option<f64>,
    /// What this process kept busy.
    pub(super) bench_cpu_cores: Option<f64>,
    /// Kilobits a second of a session, to the gateway and back.
    pub(super) kbps_up: f64,
    /// See `kbps_up`.
    pub(super) kbps_down: f64,
}

impl Summary {
    /// The figures of what was counted.
    pub(super) fn of(measured: &Measured) -> Self {
        let all = measured.all();
        let seconds = measured.seconds.max(1e-3);
        let sessions = measured.connected().count().max(1) as f64;
        let known = measured.connected().all(is_known);
        let mean = |of: fn(&Second) -> Option<f64>| {
            let (sum, length) = measured
                .counted()
                .filter_map(|second| Some((of(second)?, second.length_s)))
                .fold((0.0, 0.0), |sum, (value, length)| (sum.0 + value * length, sum.1 + length));
            (length > 0.0).then(|| sum / length)
        };
        let kbps = |bytes: u64| bytes as f64 * 8.0 / 1e3 / seconds / sessions;
        Self {
            numbers: numbers(measured),
            fps_sent_min: measured.least(|sum| sum.sent),
            fps_shown_min: measured.least(|sum| sum.shown),
            fps_processed_min: measured.least(|sum| sum.processed).filter(|_| known),
            fps_shown_total: all.sum.shown as f64 / seconds,
            fps_processed_total: all.sum.processed as f64 / seconds,
            raw_leaks: (all.sum.judged > 0).then_some(all.sum.raw),
            setup_failures: measured.failures().count(),
            sessions_lost: measured.sessions.iter().filter(|session| matches!(session.state, State::Lost { .. })).count(),
            gateway_cpu_cores: mean(|second| second.gateway.cpu_cores),
            gateway_memory_mb: measured.counted().filter_map(|second| second.gateway.memory_mb).reduce(f64::max),
            bench_cpu_cores: mean(|second| second.own.cpu_cores),
            kbps_up: kbps(all.sum.bytes_up),
            kbps_down: kbps(all.sum.bytes_down),
            all,
        }
    }
}

impl Outcome<'_> {
    /// Sessions at a time.
    pub(super) fn sessions(&self) -> usize {
        if self.churned.is_some() { self.plan.sessions } else { self.measured.sessions.len() }
    }

    /// The effects that were asked for.
    pub(super) fn effects(&self) -> Vec<String> {
        let mut effects: Vec<_> =
            self.plan.wishes.iter().map(|wish| wish.effect.clone().unwrap_or_else(|| "(the gateway's)".into())).collect();
        effects.sort();
        effects.dedup();
        effects
    }
}

/// Stages of the gateway in the order in which frames pass them.
pub(super) const IN_ORDER: [&str; 9] = ["inbox", "decode", "prepare", "queue", "analyse", "turn", "playout", "compose", "encode"];

/// `1 session`, `2 sessions`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Milliseconds.
pub(super) fn ms(time: Duration) -> f64 {
    round(time.as_secs_f64() * 1e3)
}

/// The median, the 95th percentile and the most of some milliseconds; null where there are none.
pub(super) fn spread(values: impl Iterator<Item = f64>) -> Value {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = |quantile: f64| values.get(((values.len() - 1) as f64 * quantile).round() as usize).copied().map(round);
    if values.is_empty() { Value::Null } else { json!({"p50": at(0.5), "p95": at(0.95), "max": at(1.0)}) }
}

/// What the set-up of a session took, ms.
pub(super) fn set_up_ms(session: &SessionFigures) -> Option<f64> {
    match session.state {
        State::Up { after } | State::Left { after } | State::Lost { after, .. } => Some(ms(after)),
        State::SettingUp | State::Failed(_) => None,
    }
}

/// Whether the frames of a session can be recognised, so that those that are processed can be told from repeats.
pub(super) fn is_known(session: &SessionFigures) -> bool {
    session.numbering == Numbering::Timestamp || (session.numbering == Numbering::Picture && session.decoded)
}

fn numbers(measured: &Measured) -> &'static str {
    let any = |numbering| measured.connected().any(|session| session.numbering == numbering);
    if any(Numbering::Picture) {
        "picture"
    } else if any(Numbering::Timestamp) {
        "timestamp"
    } else {
        "none"
    }
}
