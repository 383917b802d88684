//! Jobs for workers, and the outcomes of jobs.

use std::time::{Duration, Instant};

use crate::{Analysis, EffectName, FrameSeq, ModelInput, TrackId};

/// Request to analyse one frame.
#[derive(Debug, Clone)]
pub struct Job {
    /// Track that the result belongs to.
    pub track: TrackId,
    /// Frame that the result belongs to.
    pub seq: FrameSeq,
    /// Effect whose analysis is wanted.
    pub effect: EffectName,
    /// Input of the model.
    pub input: ModelInput,
    /// Time at which the job was handed to the broker.
    pub submitted: Instant,
    /// Time after which nobody waits for the result.
    pub deadline: Instant,
}

/// End of a job. Every submitted job has exactly one, unless its track was closed.
#[derive(Debug, Clone)]
pub struct Completion {
    /// Track of the job.
    pub track: TrackId,
    /// Frame of the job.
    pub seq: FrameSeq,
    /// Outcome of the job.
    pub outcome: Outcome,
}

/// Outcome of a job.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// A worker analysed the frame.
    Analysed {
        /// Result of the model.
        analysis: Analysis,
        /// Time that the job waited for a worker.
        queued: Duration,
        /// Time that the worker took.
        analysing: Duration,
        /// CPU time that the worker's thread has used meanwhile; zero for a worker in another
        /// process.
        computed: Duration,
    },
    /// A newer frame of the track replaced it before a worker was free.
    Replaced,
    /// The deadline passed before a worker was free.
    Expired,
    /// A worker took the job and gave no result by the deadline: it died, hangs, or was too slow.
    Lost,
    /// The job reached no worker, because the connection to the workers was down or could not take
    /// it.
    Undelivered {
        /// Error message of the broker.
        reason: String,
    },
    /// A worker took the job and could not analyse the frame.
    Failed {
        /// Error message of the worker.
        reason: String,
    },
}
