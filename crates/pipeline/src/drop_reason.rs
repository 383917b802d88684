//! Reasons for dropped frames, and the counters of a track's frames.

/// Reason why an admitted frame is not shown. Every drop has exactly one reason, and every reason
/// has a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropReason {
    /// The machine was short of CPU: the track was behind, or had used its share already.
    Behind,
    /// Its capture time was earlier than that of the frame before it, as with B-frames.
    OutOfOrder,
    /// The sampler skipped the frame, and the effect shows analysed frames only.
    NotSampled,
    /// A newer frame of the track replaced it before a worker was free.
    Replaced,
    /// The analysis had not arrived by the deadline.
    Expired,
    /// A worker took the frame and gave no result by the deadline: it died, hangs, or was too slow.
    Lost,
    /// No worker served the effect when the frame came in.
    NoWorker,
    /// The connection to the workers was down, or could not take the frame.
    Undelivered,
    /// Results of newer frames were ready, and the time to wait for this one ran out.
    Overtaken,
    /// The worker could not analyse the frame.
    AnalysisFailed,
    /// There was no recent analysis of the effect in force to paint the frame with.
    NoAnalysis,
    /// Too many frames of the track were waiting to be shown.
    PlayoutFull,
    /// Painting the effect failed.
    ComposeFailed,
    /// The encoder produced no output for the frame.
    EncodeFailed,
    /// The network was congested: earlier frames were still waiting to be sent.
    Congested,
    /// The track ended while the frame waited.
    TrackEnded,
}

impl DropReason {
    /// All reasons, in the order of the counters.
    pub const ALL: [DropReason; 16] = [
        DropReason::Behind,
        DropReason::OutOfOrder,
        DropReason::NotSampled,
        DropReason::Replaced,
        DropReason::Expired,
        DropReason::Lost,
        DropReason::NoWorker,
        DropReason::Undelivered,
        DropReason::Overtaken,
        DropReason::AnalysisFailed,
        DropReason::NoAnalysis,
        DropReason::PlayoutFull,
        DropReason::ComposeFailed,
        DropReason::EncodeFailed,
        DropReason::Congested,
        DropReason::TrackEnded,
    ];

    /// Returns the label in metrics and the API.
    pub fn label(self) -> &'static str {
        match self {
            DropReason::Behind => "behind",
            DropReason::OutOfOrder => "out_of_order",
            DropReason::NotSampled => "not_sampled",
            DropReason::Replaced => "replaced",
            DropReason::Expired => "expired",
            DropReason::Lost => "lost",
            DropReason::NoWorker => "no_worker",
            DropReason::Undelivered => "undelivered",
            DropReason::Overtaken => "overtaken",
            DropReason::AnalysisFailed => "analysis_failed",
            DropReason::NoAnalysis => "no_analysis",
            DropReason::PlayoutFull => "playout_full",
            DropReason::ComposeFailed => "compose_failed",
            DropReason::EncodeFailed => "encode_failed",
            DropReason::Congested => "congested",
            DropReason::TrackEnded => "track_ended",
        }
    }
}

/// Counters of the frames of a track. `admitted = shown + dropped + in flight` holds at every
/// moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameCounts {
    /// Number of decoded frames that came in.
    pub admitted: u64,
    /// Number of frames that were painted and sent.
    pub shown: u64,
    /// Number of shown frames that were painted with the analysis of an earlier frame.
    pub reused: u64,
    /// Number of frames for which an analysis came back, in time or not.
    pub analysed: u64,
    /// Number of analyses that came back when their frame did not wait for them any more.
    pub late: u64,
    dropped: [u64; DropReason::ALL.len()],
}

impl FrameCounts {
    /// Returns the number of frames dropped for one reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// Returns the number of frames dropped for any reason.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    pub(crate) fn count_drop(&mut self, reason: DropReason) {
        self.dropped[reason as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_counter_of_its_own() {
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            let mut counts = FrameCounts::default();
            counts.count_drop(reason);
            assert_eq!((counts.dropped(reason), counts.dropped_total()), (1, 1));
        }
    }
}
