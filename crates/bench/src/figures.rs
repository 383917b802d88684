//! Derives the reported figures from the measurement. [`super::json`], [`super::table`] and
//! [`super::report`] show the same figures, which docs/bench.md defines.

use std::time::Duration;

use ooblex_pipeline::round;
use serde_json::{Value, json};

use super::churn::Churned;
use super::clip::Clip;
use super::interval_stats::Totals;
use super::knee::Knee;
use super::load_generator::{Measured, Second, SessionFigures};
use super::plan::Plan;
use super::process::Usage;
use super::session_stats::Numbering;
use super::viewer::State;

/// Maximum number of set-up failure reasons that are reported; further failures are only counted.
pub(super) const REASONS: usize = 5;

/// Complete result of a run.
pub(super) struct Outcome<'a> {
    /// The plan of the run.
    pub(super) plan: &'a Plan,
    /// The clip that was sent.
    pub(super) clip: &'a Clip,
    /// The measurement; in knee mode, the one with the most sessions that met the limits.
    pub(super) measured: Measured,
    /// Result of churn mode; `None` in other modes.
    pub(super) churned: Option<Churned>,
    /// Result of the search for the knee; `None` in other modes.
    pub(super) knee: Option<Knee>,
}

/// Figures of a run over all sessions.
pub(super) struct Summary {
    /// Sum of all counts.
    pub(super) all: Totals,
    /// Method by which frames were identified: `picture`, `timestamp` or `none`.
    pub(super) numbers: &'static str,
    /// Frames per second.
    pub(super) fps: FrameRates,
    /// Number of unprocessed pictures; `None` if no picture could be judged.
    pub(super) raw_leaks: Option<u64>,
    /// Number of sessions that were not established.
    pub(super) setup_failures: usize,
    /// Number of sessions that ended too early.
    pub(super) sessions_lost: usize,
    /// Mean CPU usage and peak memory of the gateway's processes.
    pub(super) gateway: Usage,
    /// Mean CPU usage of this process, in cores.
    pub(super) bench_cpu_cores: Option<f64>,
    /// Mean bitrate of a session to the gateway, in kbit/s.
    pub(super) kbps_up: f64,
    /// Mean bitrate of a session from the gateway, in kbit/s.
    pub(super) kbps_down: f64,
}

/// Frames per second, as means over the measurement.
pub(super) struct FrameRates {
    /// Sent in the session with the lowest rate; `None` without a session that sends.
    pub(super) sent_min: Option<f64>,
    /// Shown in the session with the lowest rate.
    pub(super) shown_min: Option<f64>,
    /// Processed in the session with the lowest rate; `None` if frames cannot be identified.
    pub(super) processed_min: Option<f64>,
    /// Shown in all sessions together.
    pub(super) shown_total: f64,
    /// Processed in all sessions together.
    pub(super) processed_total: f64,
}

impl Summary {
    /// Summarises a measurement.
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
        Self {
            numbers: numbers(measured),
            fps: FrameRates {
                sent_min: measured.least(|sum| sum.frames.sent).filter(|_| measured.publisher.sum.frames.sent == 0),
                shown_min: measured.least(|sum| sum.frames.shown),
                processed_min: measured.least(|sum| sum.frames.processed).filter(|_| known),
                shown_total: all.sum.frames.shown as f64 / seconds,
                processed_total: all.sum.frames.processed as f64 / seconds,
            },
            raw_leaks: (all.sum.pictures.judged > 0).then_some(all.sum.pictures.raw),
            setup_failures: measured.failures().count(),
            sessions_lost: measured.sessions.iter().filter(|session| matches!(session.state, State::Lost { .. })).count(),
            gateway: Usage {
                cpu_cores: mean(|second| second.gateway.cpu_cores),
                memory_mb: measured.counted().filter_map(|second| second.gateway.memory_mb).reduce(f64::max),
            },
            bench_cpu_cores: mean(|second| second.own.cpu_cores),
            kbps_up: all.sum.up.kbps(seconds * sessions),
            kbps_down: all.sum.down.kbps(seconds * sessions),
            all,
        }
    }
}

impl Outcome<'_> {
    /// Returns the number of concurrent sessions.
    pub(super) fn sessions(&self) -> usize {
        if self.churned.is_some() { self.plan.sessions } else { self.measured.sessions.len() }
    }

    /// Returns the names of the requested effects, sorted and without duplicates.
    pub(super) fn effects(&self) -> Vec<String> {
        let mut effects: Vec<_> =
            self.plan.wishes.iter().map(|wish| wish.effect.clone().unwrap_or_else(|| "(the gateway's)".into())).collect();
        effects.sort();
        effects.dedup();
        effects
    }
}

/// Stages of the gateway, in the order in which frames pass through them.
pub(super) const IN_ORDER: [&str; 9] = ["inbox", "decode", "prepare", "queue", "analyse", "turn", "playout", "compose", "encode"];

/// Formats a count with its noun, such as `1 session` or `2 sessions`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Converts a duration to milliseconds, rounded for reports.
pub(super) fn ms(time: Duration) -> f64 {
    round(time.as_secs_f64() * 1e3)
}

/// Returns the median, the 95th percentile and the maximum of values in ms; null without values.
pub(super) fn spread(values: impl Iterator<Item = f64>) -> Value {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = |quantile: f64| values.get(((values.len() - 1) as f64 * quantile).round() as usize).copied().map(round);
    if values.is_empty() { Value::Null } else { json!({"p50": at(0.5), "p95": at(0.95), "max": at(1.0)}) }
}

/// Returns the set-up time of a session in ms; `None` if it was never connected.
pub(super) fn set_up_ms(session: &SessionFigures) -> Option<f64> {
    match session.state {
        State::Up { after } | State::Left { after } | State::Lost { after, .. } => Some(ms(after)),
        State::SettingUp | State::Failed(_) => None,
    }
}

/// Returns whether the frames of a session can be identified, which is necessary to tell processed
/// frames from repeats.
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
