//! Why a frame that was admitted is not shown.

/// Why a frame that was admitted is not shown. Every drop has exactly one reason, and every reason a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropReason {
    /// The machine was short of CPU: the track was behind, or had had its share already.
    Behind,
    /// The sampler left it out, and the effect shows analysed frames only.
    NotSampled,
    /// A newer frame of the track took its place before a worker was free.
    Replaced,
    /// Its analysis was not back by the deadline.
    Expired,
    /// A worker took it and gave no result by the deadline: it died, hangs, or was too slow.
    Lost,
    /// No worker served its effect when it came in.
    NoWorker,
    /// The way to the workers was down, or could not take it.
    Undelivered,
    /// Newer results were ready, and patience with this one ran out.
    Overtaken,
    /// The worker could not analyse it.
    AnalysisFailed,
    /// No analysis of the effect in force, recent enough, was there to paint it with.
    NoAnalysis,
    /// Too many frames of the track were waiting to be shown.
    PlayoutFull,
    /// Painting the effect failed.
    ComposeFailed,
    /// The encoder gave nothing for it.
    EncodeFailed,
    /// Earlier frames were still waiting for the network to take them.
    Congested,
    /// The track ended while it waited.
    TrackEnded,
}

impl DropReason {
    /// All reasons, in the order of the counters.
    pub const ALL: [DropReason; 15] = [
        DropReason::Behind,
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

    /// The label used in metrics and the API.
    pub fn label(self) -> &'static str {
        match self {
            DropReason::Behind => "behind",
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

/// What became of the frames of a track. `admitted = shown + dropped + in flight` at every moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameCounts {
    /// Decoded frames that came in.
    pub admitted: u64,
    /// Frames that were painted and sent.
    pub shown: u64,
    /// Frames of those shown that were painted with the analysis of an earlier frame.
    pub reused: u64,
    /// Frames for which an analysis came back, in time or not.
    pub analysed: u64,
    /// Analyses that came back after their frame's turn.
    pub late: u64,
    dropped: [u64; DropReason::ALL.len()],
}

impl FrameCounts {
    /// Frames dropped for one reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// Frames dropped for any reason.
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
