//! The report of a track, once a second: to the browser, to the API, to Prometheus. From it follow
//! the quality steps, which make do with less CPU, and the adaptation to the track's share of the
//! cores.

use std::time::{Duration, Instant};

use ooblex_pipeline::{DropReason, FrameCounts};
use tracing::debug;

use super::cpu_control::{CpuUsage, DecodedRates};
use super::quality::{LoadSample, QualityAdvice};
use super::runner::Runner;
use super::service;
use super::size::Size;
use super::stats::{Drops, EncoderSpeed, FrameRates, Liveness, Load, SentVideo, Stats};
use crate::events::Kind;
use crate::labels::QualityStep;
use crate::rounding::round;

/// The time between two reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// The encoder speed steps up only while the workers' utilisation is below this, 0..=1.
const STEP_UP_MAX_UTILISATION: f64 = 0.8;

/// The values at the last report, to which the next one is compared.
pub(super) struct LastReport {
    at: Instant,
    counts: FrameCounts,
    /// The time that all workers had spent on frames.
    busy: Duration,
    /// The size of the camera's pictures. `None` before the first.
    size: Option<Size>,
    /// The size of the pictures that were sent. `None` before the first.
    sent_size: Option<Size>,
    /// Bytes of frames that were sent since.
    pub(super) sent_bytes: u64,
}

/// The second between two reports.
struct Second {
    /// Its exact length.
    elapsed: Duration,
    counts: FrameCounts,
    before: FrameCounts,
    /// The workers' utilisation, 0..=1.
    utilisation: f64,
}

impl LastReport {
    /// Starts at this time, without frames. `busy` is the time that all workers have spent on
    /// frames so far.
    pub(super) fn new(at: Instant, busy: Duration) -> Self {
        Self { at, counts: FrameCounts::default(), busy, size: None, sent_size: None, sent_bytes: 0 }
    }

    /// Returns when the next report is due.
    pub(super) fn next(&self) -> Instant {
        self.at + REPORT_INTERVAL
    }

    /// Compares with the counts at `now`, and with the time that `workers` have spent on frames by
    /// now.
    fn second_until(&self, now: Instant, counts: FrameCounts, workers: usize, busy: Duration) -> Second {
        let elapsed = now.duration_since(self.at);
        let available = elapsed.as_secs_f64() * workers.max(1) as f64;
        let utilisation = (busy.saturating_sub(self.busy).as_secs_f64() / available).min(1.0);
        Second { elapsed, counts, before: self.counts, utilisation }
    }

    /// Notes the sizes of this second. Returns whether pictures have become smaller or larger on
    /// their way out: `Some(true)` for smaller. A camera that turns or changes its size is no step.
    fn size_step(&mut self, size: Option<Size>, sent_size: Option<Size>) -> Option<bool> {
        let (size_before, sent_before) = (std::mem::replace(&mut self.size, size), std::mem::replace(&mut self.sent_size, sent_size));
        let (sent, before) = (sent_size?, sent_before?);
        (size == size_before && sent != before).then_some(sent.width < before.width)
    }
}

impl Second {
    /// Returns how often something was counted a second.
    fn rate(&self, count: impl Fn(&FrameCounts) -> u64) -> f64 {
        self.count(count) as f64 / self.elapsed.as_secs_f64().max(1e-3)
    }

    fn count(&self, count: impl Fn(&FrameCounts) -> u64) -> u64 {
        count(&self.counts) - count(&self.before)
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.count(|counts| counts.dropped(reason))
    }

    /// Returns the load of the machine as this track saw it. Frames that workers of this process
    /// were too busy for are missed here.
    fn load_sample(&self, waited: Duration, workers_are_local: bool) -> LoadSample {
        let (superseded, replaced) = (self.dropped(DropReason::Behind), self.dropped(DropReason::Replaced));
        let (replaced_here, missed_elsewhere) = if workers_are_local { (replaced, 0) } else { (0, replaced) };
        LoadSample { admitted: self.count(|counts| counts.admitted), missed_here: superseded + replaced_here, missed_elsewhere, waited }
    }
}

impl Runner {
    /// Reports the second that ends now, and adapts to it.
    pub(super) fn report(&mut self, now: Instant) {
        self.review_service();
        let capacity = self.context.broker.capacity();
        let second = self.last_report.second_until(now, *self.analysis.track.counts(), capacity.workers, capacity.busy);
        self.keep_to_share(&second);
        self.adapt_quality(&second);
        let stats = self.second_stats(&second);
        self.update_metrics(now, second.rate(|counts| counts.shown));
        let text = serde_json::to_string(&stats).expect("all keys are strings");
        self.stats.set_latest(stats);
        self.outbox.tell(Kind::Stats, None, text);
        self.flush_counts();
        let LastReport { size, sent_size, .. } = self.last_report;
        self.last_report = LastReport { at: now, counts: second.counts, busy: capacity.busy, size, sent_size, sent_bytes: 0 };
    }

    /// Reports the use of the cores, and uses no more than the share from now on.
    fn keep_to_share(&mut self, second: &Second) {
        let used = self.cpu.take_used(second.elapsed);
        let allowed = self.context.shares.report(self.outbox.id(), used);
        let camera_fps = second.rate(|counts| counts.admitted);
        let kept_fps = camera_fps - second.rate(|counts| counts.dropped(DropReason::Behind));
        self.cpu.on_usage(CpuUsage { used, allowed }, DecodedRates { camera_fps, kept_fps });
    }

    /// Takes a quality step down if the frames of this second found too little CPU, or one up if
    /// there was enough for a while.
    fn adapt_quality(&mut self, second: &Second) {
        let sample = second.load_sample(self.ingest.take_mean_wait(), self.context.broker.is_local());
        let (settings, utilisation) = (self.settings.current.clone(), second.utilisation);
        let (step, direction) = match self.cpu.advise(&sample) {
            QualityAdvice::Stay => return,
            QualityAdvice::StepDown if sample.is_short_here() && self.egress.set_hurried(true) => (QualityStep::EncoderSpeed, "down"),
            QualityAdvice::StepDown if self.presenter.shrink_input(&settings) => (QualityStep::ModelResolution, "down"),
            QualityAdvice::StepUp if self.presenter.grow_input(&settings, utilisation as f32) => (QualityStep::ModelResolution, "up"),
            QualityAdvice::StepUp if utilisation < STEP_UP_MAX_UTILISATION && self.egress.set_hurried(false) => {
                (QualityStep::EncoderSpeed, "up")
            }
            QualityAdvice::StepDown | QualityAdvice::StepUp => return,
        };
        if direction == "up" {
            self.cpu.on_step_up();
        }
        self.context.metrics.on_adaptation(step.label(), direction);
        debug!(session = %self.outbox.id(), step = step.label(), direction, ?sample, "adapts to the machine");
    }

    fn update_metrics(&mut self, now: Instant, shown_fps: f64) {
        let viewing = self.freezes.take(now, shown_fps);
        let metrics = &self.context.metrics;
        metrics.on_second(self.settings.current.effect.label().as_str(), &viewing);
        metrics.on_bitrates(self.egress.config().map(|config| config.bitrate_bps), self.egress.estimate_bps());
        if let Some(is_down) = self.last_report.size_step(self.egress.size(), self.egress.sent_size()) {
            metrics.on_size_step(is_down);
        }
    }

    fn second_stats(&self, second: &Second) -> Stats {
        let (config, usage) = (self.egress.config(), self.cpu.usage());
        let sent_size = self.egress.sent_size().unwrap_or(Size::new(0, 0));
        let bits = self.last_report.sent_bytes as f64 * 8.0;
        Stats {
            effect: self.settings.current.effect.name(),
            rates: FrameRates {
                fps_in: round(second.rate(|counts| counts.admitted)),
                fps_analysed: round(second.rate(|counts| counts.analysed)),
                fps_out: round(second.rate(|counts| counts.shown)),
            },
            video: SentVideo {
                width: sent_size.width,
                height: sent_size.height,
                codec: config.map(|config| config.codec.label()),
                bitrate_bps: (bits / second.elapsed.as_secs_f64()).round(),
                target_bps: config.map(|config| config.bitrate_bps),
                estimate_bps: self.egress.estimate_bps(),
            },
            latency: self.stats.take_latency(),
            dropped: Drops::new(|reason| second.dropped(reason)),
            load: Load {
                worker_utilisation: round(second.utilisation),
                encoder_speed: if self.egress.is_hurried() { EncoderSpeed::Hurried } else { EncoderSpeed::Normal },
                model_input: self.analysis.model_input(),
                cores: round(usage.used),
                cores_allowed: Some(usage.allowed).filter(|allowed| allowed.is_finite()).map(round),
            },
            placeholder: self.presenter.is_placeholder(),
            service: service::label(self.service()),
            state: if second.count(|counts| counts.shown) > 0 { Liveness::Live } else { Liveness::Waiting },
        }
    }

    /// Adds the frames since the last report to the metrics.
    pub(super) fn flush_counts(&mut self) {
        let effect = self.settings.current.effect.label();
        self.context.metrics.on_frames(effect.as_str(), &self.last_report.counts, self.analysis.track.counts());
    }
}

#[cfg(test)]
mod tests {
    use ooblex_pipeline::{FrameSeq, Mode, Patience, Release, Sampling, Track};

    use super::*;

    /// Returns the counts of a track that has admitted 30 frames, of which 20 were shown, 4
    /// replaced, one superseded, and 5 wait.
    fn counts(now: Instant) -> FrameCounts {
        let mut track = Track::<(), ()>::new(Mode::Hold, Sampling::Auto, Patience::default());
        for seq in (0..29).map(FrameSeq) {
            track.on_frame(now, seq, ());
            match seq.0 {
                0..20 => track.on_analysis(now, seq, ()),
                20..24 => track.on_lost(seq, DropReason::Replaced),
                _ => {}
            }
            while let Some(release) = track.poll(now) {
                if let Release::Paint { reused, .. } = release {
                    track.on_painted(reused);
                }
            }
        }
        track.on_superseded();
        *track.counts()
    }

    #[test]
    fn a_second_tells_rates_and_utilisation_by_its_exact_length() {
        let (start, busy) = (Instant::now(), Duration::from_secs(10));
        let last = LastReport::new(start, busy);
        assert_eq!(last.next(), start + Duration::from_secs(1));
        let second = last.second_until(start + Duration::from_secs(2), counts(start), 4, busy + Duration::from_secs(2));
        assert_eq!((second.rate(|counts| counts.admitted), second.rate(|counts| counts.shown)), (15.0, 10.0));
        assert_eq!(second.utilisation, 0.25);
        let busier = last.second_until(start + Duration::from_secs(2), counts(start), 0, busy + Duration::from_secs(5));
        assert_eq!(busier.utilisation, 1.0);
    }

    #[test]
    fn frames_that_busy_workers_leave_are_missed_where_the_workers_are() {
        let now = Instant::now();
        let second = LastReport::new(now, Duration::ZERO).second_until(now + REPORT_INTERVAL, counts(now), 1, Duration::ZERO);
        let here = second.load_sample(Duration::ZERO, true);
        assert_eq!((here.admitted, here.missed_here, here.missed_elsewhere), (30, 5, 0));
        let elsewhere = second.load_sample(Duration::ZERO, false);
        assert_eq!((elsewhere.missed_here, elsewhere.missed_elsewhere), (1, 4));
    }

    #[test]
    fn a_size_step_is_a_change_of_the_sent_size_alone() {
        let mut last = LastReport::new(Instant::now(), Duration::ZERO);
        let [large, small, turned] = [(640, 480), (320, 240), (480, 640)].map(|(width, height)| Some(Size::new(width, height)));
        assert_eq!(last.size_step(large, None), None);
        assert_eq!(last.size_step(large, large), None, "the first picture");
        assert_eq!(last.size_step(large, small), Some(true));
        assert_eq!(last.size_step(large, small), None);
        assert_eq!(last.size_step(large, large), Some(false));
        assert_eq!(last.size_step(turned, turned), None, "the camera has turned");
    }
}
