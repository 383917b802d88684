//! What a bench is to do, checked: [`super::options`] makes it of what was asked for, the others carry it out.

use std::path::PathBuf;
use std::time::Duration;

use super::clip::ClipPlan;
use super::link::Conditions;
use crate::client::Wish;

/// What is to be done, checked.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// The gateway, without a slash at the end.
    pub(super) url: String,
    /// Sessions at a time.
    pub(super) sessions: usize,
    /// Between the beginnings of two sessions.
    pub(super) spacing: Duration,
    /// Before anything is counted.
    pub(super) warm_up: Duration,
    /// What is counted.
    pub(super) duration: Duration,
    /// What is sent.
    pub(super) clip: ClipPlan,
    /// What the sessions wish for, in turn.
    pub(super) wishes: Vec<Wish>,
    /// The network to the gateway.
    pub(super) up: Conditions,
    /// The network from the gateway.
    pub(super) down: Conditions,
    /// From when to when nothing comes through, after the count began.
    pub(super) outage: Option<(Duration, Duration)>,
    /// From when on for how long loss and rate hold, after the count began; `None`: all the time.
    pub(super) bad: Option<(Duration, Duration)>,
    /// What chance draws from.
    pub(super) seed: u64,
    /// The share of sessions that end by silence, 0..=1.
    pub(super) vanish: f64,
    /// How it is measured.
    pub(super) mode: Mode,
    /// Processes of the gateway.
    pub(super) gateway_pids: Vec<u32>,
    /// Which sessions are decoded; `None`: as fits the gateway.
    pub(super) decode: Option<Decode>,
    /// Threads that drive the sessions.
    pub(super) threads: usize,
    /// Where the JSON goes; `-` is standard output.
    pub(super) json: Option<PathBuf>,
    /// Where the report goes.
    pub(super) report: Option<PathBuf>,
}

/// How it is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mode {
    /// One number of sessions, for a while.
    Steady,
    /// Sessions that come and go.
    Churn {
        /// How many.
        count: usize,
    },
    /// More and more sessions.
    Knee(Limits),
}

/// What makes a number of sessions too many.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Limits {
    /// p95, ms.
    pub(super) latency_ms: f64,
    /// Processed frames a second, of each session.
    pub(super) fps: f64,
    /// More are not tried.
    pub(super) sessions: usize,
}

/// Sessions of each effect that are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decode {
    /// So many.
    Some(usize),
    /// All.
    All,
}
