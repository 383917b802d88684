//! The statistics of one track, for the last second and since it began.
//!
//! The track's thread and the media thread write; the API reads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ooblex_pipeline::{DropReason, EffectName, Size, round};
use parking_lot::Mutex;
use serde::{Serialize, Serializer};

use crate::labels::Stage;
use crate::metrics::Metrics;

/// The statistics of one second of a track. The browser, the readers of events and the API get them
/// as one flat JSON object of type `stats`. Numbers are rounded to hundredths.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename = "stats")]
pub struct Stats {
    /// The effect or chain in force.
    pub effect: EffectName,
    /// Frames a second.
    #[serde(flatten)]
    pub rates: FrameRates,
    /// The video that is sent.
    #[serde(flatten)]
    pub video: SentVideo,
    /// Times of frames in the gateway.
    #[serde(flatten)]
    pub latency: Latency,
    /// Frames that were not shown, by reason. Reasons without a frame are left out.
    pub dropped: Drops,
    /// The use of the machine.
    #[serde(flatten)]
    pub load: Load,
    /// The browser sees a picture that its effect did not make.
    pub placeholder: bool,
    /// `served`, `no_worker` or `broker_down`.
    pub service: &'static str,
    /// `live` if a processed frame was shown in this second.
    pub state: Liveness,
}

/// Frames a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FrameRates {
    /// Frames that were decoded.
    pub fps_in: f64,
    /// Frames whose analysis came back.
    pub fps_analysed: f64,
    /// Frames that were shown.
    pub fps_out: f64,
}

/// The video that is sent to the browser.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SentVideo {
    /// Columns; 0 before the first picture.
    pub width: u32,
    /// Rows; 0 before the first picture.
    pub height: u32,
    /// `vp8` or `h264`; null until the codec is known.
    pub codec: Option<&'static str>,
    /// Bits of frames in this second.
    pub bitrate_bps: f64,
    /// The bitrate that the encoder aims at.
    pub target_bps: Option<u32>,
    /// The estimate of the bandwidth; null where there is none.
    pub estimate_bps: Option<u32>,
    /// The size of the last frame that came, upright; null before the first.
    pub(super) received: Option<Size>,
    /// The size in which frames are processed; null before the first. It is smaller than
    /// `received` where that has more pixels than allowed.
    pub(super) processed: Option<Size>,
}

/// Times of frames in the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// Residence in this second; null without a frame.
    pub residence_ms: Option<Quantiles>,
    /// The mean time of each stage. Stages without a frame are left out.
    pub stages_ms: StageTimes,
}

/// Quantiles of residence, the time from the last packet of a frame in to its first packet out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Quantiles {
    /// The median, in ms.
    pub p50: f64,
    /// The 95th percentile, in ms.
    pub p95: f64,
    /// The 99th percentile, in ms.
    pub p99: f64,
    /// Frames that were measured.
    pub frames: u64,
}

/// The mean time of each stage in ms; `None` for a stage without a frame.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StageTimes([Option<f64>; Stage::ALL.len()]);

/// Frames that were dropped, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drops([u64; DropReason::ALL.len()]);

/// The use of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Load {
    /// The utilisation of the workers, 0..=1.
    pub worker_utilisation: f64,
    /// The encoder speed, which is a quality step.
    pub encoder_speed: EncoderSpeed,
    /// The size of the largest picture that models get, which is a quality step; null before the
    /// first.
    pub(super) model_input: Option<Size>,
    /// CPU cores that the track has used.
    pub cores: f64,
    /// CPU cores that the track may use; null where nothing limits it.
    pub cores_allowed: Option<f64>,
}

/// The speed of the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EncoderSpeed {
    /// The encoder works as the operator set it.
    Normal,
    /// The encoder takes less time, and its picture is coarser.
    Hurried,
}

/// The liveness of a track: it shows processed frames or waits for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Liveness {
    /// A processed frame was shown in this second.
    Live,
    /// No processed frame was shown in this second.
    Waiting,
}

/// The live statistics of one track: stage times, residence, and the report of the last second.
pub struct TrackStats {
    inner: Mutex<Inner>,
    metrics: Arc<Metrics>,
}

struct Inner {
    stages: [StageTime; Stage::ALL.len()],
    /// Residence since the last report: microseconds from the last packet of a frame in to its
    /// first packet out.
    residence: Histogram<u32>,
    /// Residence since the track began.
    residence_total: Histogram<u32>,
    latest: Option<Stats>,
}

/// The time that frames have spent in a stage since the last report.
#[derive(Debug, Clone, Copy, Default)]
struct StageTime {
    sum: Duration,
    frames: u32,
}

impl TrackStats {
    /// Starts without frames.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let inner = Inner { stages: Default::default(), residence: histogram(), residence_total: histogram(), latest: None };
        Self { inner: Mutex::new(inner), metrics }
    }

    /// Notes that a frame has passed a stage.
    pub fn on_stage(&self, stage: Stage, took: Duration) {
        self.metrics.frames.on_stage(stage, took);
        let time = &mut self.inner.lock().stages[stage as usize];
        time.sum = time.sum.saturating_add(took);
        time.frames = time.frames.saturating_add(1);
    }

    /// Notes that the first packet of a frame has left, whose last packet arrived at `arrived`.
    pub fn on_sent(&self, arrived: Instant, now: Instant) {
        let residence = now.saturating_duration_since(arrived);
        self.metrics.frames.on_residence(residence);
        let mut inner = self.inner.lock();
        let micros = residence.as_micros() as u64;
        inner.residence.saturating_record(micros);
        inner.residence_total.saturating_record(micros);
    }

    /// Returns the times of frames since the last call.
    pub fn take_latency(&self) -> Latency {
        let mut inner = self.inner.lock();
        let stages = std::mem::take(&mut inner.stages);
        let residence_ms = quantiles(&inner.residence);
        inner.residence.reset();
        Latency { residence_ms, stages_ms: StageTimes(stages.map(StageTime::mean_ms)) }
    }

    /// Returns the quantiles of residence since the track began; `None` without a frame.
    pub fn residence_ms(&self) -> Option<Quantiles> {
        quantiles(&self.inner.lock().residence_total)
    }

    /// Stores the report of the last second.
    pub fn set_latest(&self, stats: Stats) {
        self.inner.lock().latest = Some(stats);
    }

    /// Returns the report of the last second; `None` before the first.
    pub fn latest(&self) -> Option<Stats> {
        self.inner.lock().latest.clone()
    }

    /// Returns whether frames came in during the last second.
    pub fn has_video(&self) -> bool {
        self.inner.lock().latest.as_ref().is_some_and(|stats| stats.rates.fps_in > 0.0)
    }
}

impl StageTime {
    fn mean_ms(self) -> Option<f64> {
        (self.frames > 0).then(|| round(self.sum.as_secs_f64() * 1e3 / f64::from(self.frames)))
    }
}

impl Serialize for StageTimes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let stages = Stage::ALL.into_iter().zip(self.0);
        serializer.collect_map(stages.filter_map(|(stage, ms)| Some((stage.label(), ms?))))
    }
}

impl Drops {
    /// Makes the record from the number of frames for each reason.
    pub fn new(dropped: impl Fn(DropReason) -> u64) -> Self {
        Self(DropReason::ALL.map(dropped))
    }
}

impl Serialize for Drops {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let reasons = DropReason::ALL.into_iter().zip(self.0);
        serializer.collect_map(reasons.filter(|(_, frames)| *frames > 0).map(|(reason, frames)| (reason.label(), frames)))
    }
}

/// Makes a histogram from one microsecond to one minute, with three digits.
fn histogram() -> Histogram<u32> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are in order")
}

fn quantiles(histogram: &Histogram<u32>) -> Option<Quantiles> {
    let at = |q| round(histogram.value_at_quantile(q) as f64 / 1e3);
    let frames = histogram.len();
    (frames > 0).then(|| Quantiles { p50: at(0.5), p95: at(0.95), p99: at(0.99), frames })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::outbox::metrics;
    use super::*;

    fn stats(latency: Latency) -> Stats {
        Stats {
            effect: EffectName::new("sepia"),
            rates: FrameRates { fps_in: 30.0, fps_analysed: 0.0, fps_out: 29.5 },
            video: SentVideo {
                width: 640,
                height: 480,
                codec: Some("vp8"),
                bitrate_bps: 1e6,
                target_bps: Some(1_200_000),
                estimate_bps: None,
                received: Some(Size::new(2560, 1440)),
                processed: Some(Size::new(1920, 1080)),
            },
            latency,
            dropped: Drops::new(|reason| u64::from(reason == DropReason::Behind)),
            load: Load {
                worker_utilisation: 0.25,
                encoder_speed: EncoderSpeed::Normal,
                model_input: Some(Size::new(256, 144)),
                cores: 0.3,
                cores_allowed: None,
            },
            placeholder: false,
            service: "served",
            state: Liveness::Live,
        }
    }

    #[test]
    fn stats_are_one_flat_object_with_null_for_what_is_unknown() {
        let track = TrackStats::new(metrics());
        assert_eq!((track.latest(), track.residence_ms()), (None, None));
        track.on_stage(Stage::Decode, Duration::from_millis(2));
        track.on_stage(Stage::Decode, Duration::from_millis(4));
        track.on_stage(Stage::Inbox, Duration::from_micros(120));
        let expected = json!({
            "type": "stats", "effect": "sepia", "fps_in": 30.0, "fps_analysed": 0.0, "fps_out": 29.5, "width": 640, "height": 480,
            "codec": "vp8", "bitrate_bps": 1e6, "target_bps": 1_200_000, "estimate_bps": null,
            "received": {"width": 2560, "height": 1440}, "processed": {"width": 1920, "height": 1080}, "residence_ms": null,
            "stages_ms": {"inbox": 0.12, "decode": 3.0}, "dropped": {"behind": 1}, "worker_utilisation": 0.25,
            "encoder_speed": "normal", "model_input": {"width": 256, "height": 144}, "cores": 0.3, "cores_allowed": null,
            "placeholder": false, "service": "served", "state": "live",
        });
        track.set_latest(stats(track.take_latency()));
        assert_eq!(serde_json::to_string(&track.latest().unwrap()).unwrap(), expected.to_string(), "in this order");
    }

    #[test]
    fn times_of_a_stage_do_not_overflow() {
        let track = TrackStats::new(metrics());
        track.on_stage(Stage::Analyse, Duration::MAX);
        track.on_stage(Stage::Analyse, Duration::MAX);
        assert!(track.take_latency().stages_ms.0[Stage::Analyse as usize] > Some(1e9));
    }

    #[test]
    fn latency_is_that_since_the_last_call_and_residence_that_since_the_beginning() {
        let (track, start) = (TrackStats::new(metrics()), Instant::now());
        let ms = |ms| start + Duration::from_millis(ms);
        track.on_sent(ms(0), ms(10));
        track.on_sent(ms(0), ms(30));
        let quantiles = track.take_latency().residence_ms.unwrap();
        assert_eq!((quantiles.frames, quantiles.p50.round(), quantiles.p99.round()), (2, 10.0, 30.0));
        track.on_sent(ms(0), ms(20));
        assert_eq!(track.take_latency().residence_ms.unwrap().frames, 1);
        assert_eq!(track.take_latency(), Latency { residence_ms: None, stages_ms: StageTimes::default() });
        assert_eq!(track.residence_ms().unwrap().frames, 3);
    }
}
