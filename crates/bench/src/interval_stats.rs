//! Figures of an interval, and their sums over time and over sessions.
//!
//! [`super::session_stats`] fills them, and [`super::load_generator`] adds them up. This module knows nothing about
//! their origin.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::Value;

/// Figures of one interval.
#[derive(Debug, Clone, Default)]
pub(super) struct IntervalStats {
    /// Frames sent and received.
    pub(super) frames: FrameStats,
    /// Results of decoding received pictures.
    pub(super) pictures: PictureStats,
    /// Keyframes and the requests for them.
    pub(super) keyframes: KeyframeStats,
    /// Datagrams to the gateway.
    pub(super) up: Traffic,
    /// Datagrams from the gateway.
    pub(super) down: Traffic,
    /// Times from sending a frame to receiving it back, in µs.
    pub(super) latencies_us: Vec<u32>,
    /// Longest time without a new picture.
    pub(super) longest_freeze: Duration,
    /// Sums over the gateway's `stats` messages.
    pub(super) gateway: GatewayWords,
}

/// Numbers of frames.
#[derive(Debug, Clone, Default)]
pub(super) struct FrameStats {
    /// Frames sent.
    pub(super) sent: u64,
    /// Frames sent late, because this program was busy.
    pub(super) sent_late: u64,
    /// Complete frames received that could be shown.
    pub(super) shown: u64,
    /// Distinct frames among those shown that went through the gateway's effect.
    pub(super) processed: u64,
    /// Repeated pictures among the frames shown: held pictures and placeholders.
    pub(super) repeats: u64,
    /// Frames that arrived after a newer one.
    pub(super) order_errors: u64,
    /// Gaps: frames from the gateway that were lost and not recovered.
    pub(super) gaps: u64,
    /// Frames that could not be shown because an earlier frame was lost.
    pub(super) undecodable: u64,
}

/// Numbers of decoded pictures.
#[derive(Debug, Clone, Default)]
pub(super) struct PictureStats {
    /// Pictures that could be judged.
    pub(super) judged: u64,
    /// Judged pictures that were unprocessed.
    pub(super) raw: u64,
    /// Pictures whose number was read.
    pub(super) read: u64,
    /// Pictures whose number was unreadable.
    pub(super) unreadable: u64,
    /// Pictures whose number contradicts their RTP timestamp.
    pub(super) mismatched: u64,
}

/// Numbers of keyframes and of requests for them.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyframeStats {
    /// Keyframes received.
    pub(super) received: u64,
    /// Requests from the gateway.
    pub(super) wanted: u64,
    /// Requests to the gateway.
    pub(super) asked: u64,
}

/// Datagrams in one direction.
#[derive(Debug, Clone, Default)]
pub(super) struct Traffic {
    /// UDP payload in bytes.
    pub(super) bytes: u64,
    /// Number of datagrams that the simulated network dropped.
    pub(super) lost: u64,
}

/// Sums over the gateway's `stats` messages.
#[derive(Debug, Clone, Default)]
pub(super) struct GatewayWords {
    /// Number of messages.
    pub(super) reports: u64,
    /// Sum of the rates of received frames, in frames per second.
    pub(super) fps_in: f64,
    /// Sum of the rates of analysed frames, in frames per second.
    pub(super) fps_analysed: f64,
    /// Sum of the rates of sent frames, in frames per second.
    pub(super) fps_out: f64,
    /// Sum of the worker utilisations, each 0..=1.
    pub(super) utilisation: f64,
    /// Sum of the encoder's target bitrates, in kbit/s.
    pub(super) target_kbps: f64,
    /// Sum of the heights of the sent pictures, in pixels.
    pub(super) height: f64,
    /// Time of a frame in each stage.
    stages: BTreeMap<String, StageSum>,
    /// Number of frames dropped, by reason.
    pub(super) dropped: BTreeMap<String, u64>,
}

/// Sum of a stage's times, each from one message.
#[derive(Debug, Clone, Copy, Default)]
struct StageSum {
    ms: f64,
    reports: u64,
}

/// Figures of a long time in bounded memory.
#[derive(Debug, Clone)]
pub(super) struct Totals {
    /// Sums of all figures except latencies.
    pub(super) sum: IntervalStats,
    /// Histogram of latencies in µs.
    pub(super) latency: Histogram<u32>,
}

/// Upper bound of the histogram, in µs; higher latencies are recorded as this value.
const LONGEST_LATENCY_US: u64 = 600_000_000;
impl IntervalStats {
    /// Adds the figures of another interval, or of another session.
    pub(super) fn add(&mut self, other: &IntervalStats) {
        self.frames.add(&other.frames);
        self.pictures.add(&other.pictures);
        self.keyframes.add(&other.keyframes);
        self.up.add(&other.up);
        self.down.add(&other.down);
        self.latencies_us.extend(&other.latencies_us);
        self.longest_freeze = self.longest_freeze.max(other.longest_freeze);
        self.gateway.add(&other.gateway);
    }
}

impl FrameStats {
    fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.sent_late += other.sent_late;
        self.shown += other.shown;
        self.processed += other.processed;
        self.repeats += other.repeats;
        self.order_errors += other.order_errors;
        self.gaps += other.gaps;
        self.undecodable += other.undecodable;
    }
}

impl PictureStats {
    fn add(&mut self, other: &Self) {
        self.judged += other.judged;
        self.raw += other.raw;
        self.read += other.read;
        self.unreadable += other.unreadable;
        self.mismatched += other.mismatched;
    }
}

impl KeyframeStats {
    fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.wanted += other.wanted;
        self.asked += other.asked;
    }
}

impl Traffic {
    fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.lost += other.lost;
    }

    /// Returns the mean bitrate over this time, in kbit/s.
    pub(super) fn kbps(&self, seconds: f64) -> f64 {
        self.bytes as f64 * 8.0 / 1e3 / seconds.max(1e-3)
    }
}

impl GatewayWords {
    pub(super) fn add_report(&mut self, message: &Value) {
        let number = |name: &str| message[name].as_f64().unwrap_or(0.0);
        self.reports += 1;
        self.fps_in += number("fps_in");
        self.fps_analysed += number("fps_analysed");
        self.fps_out += number("fps_out");
        self.utilisation += number("worker_utilisation");
        self.target_kbps += number("target_bps") / 1e3;
        self.height += number("height");
        for (stage, ms) in message["stages_ms"].as_object().into_iter().flatten() {
            let sum = self.stages.entry(stage.clone()).or_default();
            sum.ms += ms.as_f64().unwrap_or(0.0);
            sum.reports += 1;
        }
        for (reason, count) in message["dropped"].as_object().into_iter().flatten() {
            *self.dropped.entry(reason.clone()).or_default() += count.as_u64().unwrap_or(0);
        }
    }

    fn add(&mut self, other: &Self) {
        self.reports += other.reports;
        self.fps_in += other.fps_in;
        self.fps_analysed += other.fps_analysed;
        self.fps_out += other.fps_out;
        self.utilisation += other.utilisation;
        self.target_kbps += other.target_kbps;
        self.height += other.height;
        for (stage, theirs) in &other.stages {
            let mine = self.stages.entry(stage.clone()).or_default();
            mine.ms += theirs.ms;
            mine.reports += theirs.reports;
        }
        for (reason, count) in &other.dropped {
            *self.dropped.entry(reason.clone()).or_default() += count;
        }
    }

    /// Returns the mean of a sum over the messages; `None` without messages.
    pub(super) fn mean(&self, sum: f64) -> Option<f64> {
        (self.reports > 0).then(|| sum / self.reports as f64)
    }

    /// Returns the mean time of a frame in each stage, in ms.
    pub(super) fn stages(&self) -> impl Iterator<Item = (&str, f64)> {
        self.stages.iter().map(|(stage, sum)| (stage.as_str(), sum.ms / sum.reports.max(1) as f64))
    }
}

impl Default for Totals {
    fn default() -> Self {
        let latency = Histogram::new_with_bounds(1, LONGEST_LATENCY_US, 3).expect("the bounds are in order");
        Self { sum: IntervalStats::default(), latency }
    }
}

impl Totals {
    /// Adds the figures of an interval.
    pub(super) fn add_slice(&mut self, slice: &IntervalStats) {
        slice.latencies_us.iter().for_each(|us| self.latency.saturating_record(u64::from(*us)));
        self.sum.add(slice);
        self.sum.latencies_us.clear();
    }

    /// Adds the totals of another session.
    pub(super) fn add(&mut self, other: &Self) {
        self.sum.add(&other.sum);
        self.latency.add(&other.latency).expect("all have the same bounds");
    }

    /// Returns a latency quantile in ms; `None` if no frame was identified.
    pub(super) fn latency_ms(&self, quantile: f64) -> Option<f64> {
        (!self.latency.is_empty()).then(|| self.latency.value_at_quantile(quantile) as f64 / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn totals_are_those_of_their_slices() {
        let mut totals = Totals::default();
        let slice = IntervalStats {
            frames: FrameStats { processed: 2, ..FrameStats::default() },
            latencies_us: vec![10_000, 20_000],
            longest_freeze: 50 * MS,
            ..IntervalStats::default()
        };
        totals.add_slice(&slice);
        totals.add_slice(&IntervalStats { longest_freeze: 40 * MS, ..slice });
        assert_eq!((totals.sum.frames.processed, totals.sum.longest_freeze), (4, 50 * MS));
        assert!((totals.latency_ms(0.5).unwrap() - 10.0).abs() < 0.1 && (totals.latency_ms(1.0).unwrap() - 20.0).abs() < 0.1);
        assert_eq!(Totals::default().latency_ms(0.5), None);
    }
}
