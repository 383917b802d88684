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
    /// Number of concurrent sessions; of a room, those that watch it.
    pub(super) sessions: usize,
    /// The room that one session publishes to and the others watch. `None`: each session has its own
    /// camera.
    pub(super) room: Option<String>,
    /// Times of the run.
    pub(super) timing: Timing,
    /// Parameters of the clip that is sent.
    pub(super) clip: ClipPlan,
    /// Session parameters, assigned to the sessions round-robin.
    pub(super) wishes: Vec<Wish>,
    /// The simulated network.
    pub(super) network: Network,
    /// Fraction of the sessions that end silently, 0..=1.
    pub(super) vanish: f64,
    /// Kind of measurement.
    pub(super) mode: Mode,
    /// Means of the measurement.
    pub(super) instruments: Instruments,
    /// Files that are written.
    pub(super) output: Output,
}

/// Times of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    /// Time between the starts of two sessions.
    pub(super) spacing: Duration,
    /// Length of the warm-up, which is not measured.
    pub(super) warm_up: Duration,
    /// Length of the measurement.
    pub(super) duration: Duration,
}

/// Simulated network of all sessions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Network {
    /// Conditions to the gateway.
    pub(super) up: Conditions,
    /// Conditions from the gateway.
    pub(super) down: Conditions,
    /// Interval in which every datagram is lost.
    pub(super) outage: Option<Interval>,
    /// Interval in which loss and rate limit apply. `None` applies them all the time.
    pub(super) bad: Option<Interval>,
    /// Seed of the random numbers.
    pub(super) seed: u64,
}

/// An interval of the measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Interval {
    /// Start after the beginning of the measurement.
    pub(super) start: Duration,
    /// Length of the interval.
    pub(super) length: Duration,
}

/// Means of the measurement.
#[derive(Debug, Clone)]
pub(super) struct Instruments {
    /// Process IDs of the gateway and its workers.
    pub(super) gateway_pids: Vec<u32>,
    /// Sessions that are decoded; `None` decides by whether the gateway keeps RTP timestamps.
    pub(super) decode: Option<Decode>,
    /// Number of threads that drive the sessions.
    pub(super) threads: usize,
}

/// Files that are written at the end of the run.
#[derive(Debug, Clone)]
pub(super) struct Output {
    /// File of the JSON figures; `-` is standard output.
    pub(super) json: Option<PathBuf>,
    /// File of the HTML report.
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
