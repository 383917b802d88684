//! Frame metrics: their number at each point of the pipeline, and their time in each stage.

use std::time::Duration;

use ooblex_codec::Undecodable;
use ooblex_pipeline::{DropReason, FrameCounts};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::label_sets::{EffectLabel, ReasonLabel};
use super::registry::{add, add_histogram, add_new};
use crate::labels::Stage;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabel {
    stage: &'static str,
}

/// Frame metrics over all sessions.
pub(crate) struct FrameMetrics {
    pub(crate) received: Counter,
    admitted: Counter,
    analysed: Counter,
    pub(super) shown: Family<EffectLabel, Counter>,
    reused: Counter,
    dropped: Family<ReasonLabel, Counter>,
    undecodable: Family<ReasonLabel, Counter>,
    pub(crate) lost: Counter,
    pub(crate) placeholders: Counter,
    late: Counter,
    times: Times,
    pub(crate) keyframes: KeyframeRequests,
}

struct Times {
    stages: Family<StageLabel, Histogram, fn() -> Histogram>,
    residence: Histogram,
}

/// Keyframe requests from browsers and to them.
pub(crate) struct KeyframeRequests {
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
}

impl FrameMetrics {
    pub(super) fn new(r: &mut Registry) -> Self {
        let frames = Self {
            received: add_new(r, "frames_received", "Encoded frames received completely"),
            admitted: add_new(r, "frames_admitted", "Frames decoded and admitted to the pipeline"),
            analysed: add_new(r, "frames_analysed", "Frames whose analysis was returned, in time or not"),
            shown: add_new(r, "frames_shown", "Processed frames sent to browsers, by effect"),
            reused: add_new(r, "frames_reused", "Processed frames sent that used the analysis of an earlier frame"),
            dropped: add_new(r, "frames_dropped", "Admitted frames that were dropped, by reason"),
            undecodable: add_new(r, "frames_undecodable", "Encoded frames that were not decoded, by reason"),
            lost: add_new(r, "frames_lost", "Encoded frames dropped because their track was overloaded (queue full, or waited too long)"),
            placeholders: add_new(r, "placeholders", "Placeholder or held pictures sent because no processed picture was available"),
            late: add_new(r, "analyses_late", "Analyses returned too late for their frame"),
            times: Times {
                stages: add(
                    r,
                    "stage_duration_seconds",
                    "Time of a frame in each stage of the pipeline",
                    Family::new_with_constructor(|| Histogram::new(ooblex_worker::LATENCY_BUCKETS_S)),
                ),
                residence: add_histogram(
                    r,
                    "residence_seconds",
                    "Time from the last received packet of a frame to its first sent packet",
                    ooblex_worker::LATENCY_BUCKETS_S,
                ),
            },
            keyframes: KeyframeRequests {
                received: add_new(r, "keyframes_wanted", "Keyframe requests received from browsers"),
                sent: add_new(r, "keyframes_asked", "Keyframe requests sent to browsers"),
            },
        };
        for reason in DropReason::ALL {
            drop(frames.dropped.get_or_create(&ReasonLabel { reason: reason.label() }));
        }
        for reason in Undecodable::LABELS {
            drop(frames.undecodable.get_or_create(&ReasonLabel { reason }));
        }
        for stage in Stage::ALL {
            drop(frames.times.stages.get_or_create(&StageLabel { stage: stage.label() }));
        }
        frames
    }

    /// Adds the difference between two frame counts of a track.
    pub(crate) fn on_frames(&self, effect: &str, before: &FrameCounts, now: &FrameCounts) {
        self.admitted.inc_by(now.admitted - before.admitted);
        self.shown.get_or_create(&EffectLabel { effect: effect.into() }).inc_by(now.shown - before.shown);
        self.analysed.inc_by(now.analysed - before.analysed);
        self.reused.inc_by(now.reused - before.reused);
        self.late.inc_by(now.late - before.late);
        for reason in DropReason::ALL {
            let dropped = now.dropped(reason) - before.dropped(reason);
            if dropped > 0 {
                self.dropped.get_or_create(&ReasonLabel { reason: reason.label() }).inc_by(dropped);
            }
        }
    }

    pub(crate) fn on_undecodable(&self, why: &Undecodable) {
        self.undecodable.get_or_create(&ReasonLabel { reason: why.label() }).inc();
    }

    pub(crate) fn on_stage(&self, stage: Stage, took: Duration) {
        self.times.stages.get_or_create(&StageLabel { stage: stage.label() }).observe(took.as_secs_f64());
    }

    pub(crate) fn on_residence(&self, residence: Duration) {
        self.times.residence.observe(residence.as_secs_f64());
    }
}
