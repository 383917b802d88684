//! What goes to a worker and what comes back.

use std::time::{Duration, Instant};

use crate::{Analysis, EffectName, FrameSeq, ModelInput, TrackId};

/// One frame's work for a worker.
#[derive(Debug, Clone)]
pub struct Job {
    /// The track that the result belongs to.
    pub track: TrackId,
    /// The frame that the result belongs to.
    pub seq: FrameSeq,
    /// The effect whose analysis is wanted.
    pub effect: EffectName,
    /// The prepared frame.
    pub input: ModelInput,
    /// When the job was handed to the broker.
    pub submitted: Instant,
    /// After this nobody waits for the result any more.
    pub deadline: Instant,
}

/// The end of a job: every job that was submitted has exactly one, unless its track was closed.
#[derive(Debug, Clone)]
pub struct Completion {
    /// The track of the job.
    pub track: TrackId,
    /// The frame of the job.
    pub seq: FrameSeq,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a job ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// A worker analysed it.
    Analysed {
        /// The result.
        analysis: Analysis,
        /// How long it waited for a worker.
        queued: Duration,
        /// How long the worker took.
        analysing: Duration,
        /// What its thread has computed in that time; zero where it is one of another process.
        computed: Duration,
    },
    /// A newer frame of the track took its place before a worker was free.
    Replaced,
    /// Its deadline passed before a worker was free.
    Expired,
    /// A worker took it and gave no result by the deadline: it died, hangs, or was too slow.
    Lost,
    /// It reached no worker, because what lies between could not take it.
    Undelivered {
        /// What the broker says.
        reason: String,
    },
    /// A worker took it and could not analyse it.
    Failed {
        /// What the worker says.
        reason: String,
    },
}
