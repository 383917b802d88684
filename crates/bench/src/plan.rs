//! The validated plan of a run: [`super::options`] creates it, and the other modules carry it out.

use std::path::PathBuf;
use std::time::Duration;

use super::clip::ClipPlan;
use ooblex_client::Wish;
use ooblex_client::link::Conditions;

/// Validated plan of a run.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Base URL of the gateway, without a trailing slash.
    pub(super) url: String,
    /// Number of concurrent sessions.
    pub(super) sessions: usize,
    /// Time between the starts of two sessions.
    pub(super) spacing: Duration,
    /// Length of the warm-up, which is not measured.
    pub(super) warm_up: Duration,
    /// Length of the measurement.
    pub(super) duration: Duration,
    /// Parameters of the clip that is sent.
    pub(super) clip: ClipPlan,
    /// Session parameters, assigned to the sessions round-robin.
    pub(super) wishes: Vec<Wish>,
    /// Conditions of the simulated network to the gateway.
    pub(super) up: Conditions,
    /// Conditions of the simulated network from the gateway.
    pub(super) down: Conditions,
    /// Outage of the simulated network: start after the beginning of the measurement, and length.
    pub(super) outage: Option<(Duration, Duration)>,
    /// Time in which loss and rate limit apply: start after the beginning of the measurement, and
    /// length. `None` applies them all the time.
    pub(super) bad: Option<(Duration, Duration)>,
    /// Seed of the random numbers of the simulated network.
    pub(super) seed: u64,
    /// Fraction of the sessions that end silently, 0..=1.
    pub(super) vanish: f64,
    /// Kind of measurement.
    pub(super) mode: Mode,
    /// Process IDs of the gateway and its workers.
    pub(super) gateway_pids: Vec<u32>,
    /// Sessions that are decoded; `None` decides by whether the gateway keeps RTP timestamps.
    pub(super) decode: Option<Decode>,
    /// Number of threads that drive the sessions.
    pub(super) threads: usize,
    /// Output file of the JSON figures; `-` is standard output.
    pub(super) json: Option<PathBuf>,
    /// Output file of the HTML report.
    pub(super) report: Option<PathBuf>,
}

/// Kind of measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mode {
    /// Measures a fixed number of sessions.
    Steady,
    /// Measures sessions that are set up and end at once.
    Churn {
        /// Total number of sessions.
        count: usize,
    },
    /// Searches for the largest number of sessions within limits.
    Knee(Limits),
}

/// Limits within which a number of sessions counts as supported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Limits {
    /// Maximum latency at p95, in ms.
    pub(super) latency_ms: f64,
    /// Minimum rate of processed frames in each session, in frames per second.
    pub(super) fps: f64,
    /// Largest number of sessions that is tested.
    pub(super) sessions: usize,
}

/// Sessions of each effect that are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decode {
    /// The first sessions of each effect, up to this number.
    Some(usize),
    /// All sessions.
    All,
}
