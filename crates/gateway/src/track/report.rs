//! The report of a track, once a second: to the browser, to the API, to Prometheus. From it follow
//! the quality steps, which make do with less CPU, and the adaptation to the track's share of the
//! cores.

use std::time::Instant;

use ooblex_pipeline::{DropReason, Size, round};
use tracing::debug;

use super::cpu_control::{CpuUsage, DecodedRates};
use super::quality::QualityAdvice;
use super::runner::Runner;
use super::second::Second;
use super::service;
use super::stats::{Drops, EncoderSpeed, FrameRates, Liveness, Load, SentVideo, Stats};
use crate::events::Kind;
use crate::labels::QualityStep;

/// The encoder speed steps up only while the workers' utilisation is below this, 0..=1.
const STEP_UP_MAX_UTILISATION: f64 = 0.8;

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
        self.last_report.restart(now, &second, capacity.busy);
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
            QualityAdvice::StepDown if sample.is_short_here() && self.outputs.set_hurried(true) => (QualityStep::EncoderSpeed, "down"),
            QualityAdvice::StepDown if self.presenter.shrink_input(&settings) => (QualityStep::ModelResolution, "down"),
            QualityAdvice::StepUp if self.presenter.grow_input(&settings, utilisation as f32) => (QualityStep::ModelResolution, "up"),
            QualityAdvice::StepUp if utilisation < STEP_UP_MAX_UTILISATION && self.outputs.set_hurried(false) => {
                (QualityStep::EncoderSpeed, "up")
            }
            QualityAdvice::StepDown | QualityAdvice::StepUp => return,
        };
        if direction == "up" {
            self.cpu.on_step_up();
        }
        self.context.metrics.viewings.on_quality_step(step, direction);
        debug!(session = %self.outbox.id(), step = step.label(), direction, ?sample, "adapts to the machine");
    }

    fn update_metrics(&mut self, now: Instant, shown_fps: f64) {
        let viewing = self.freezes.take(now, shown_fps);
        let metrics = &self.context.metrics;
        metrics.viewings.on_second(self.settings.current.effect.label().as_str(), &viewing);
        let output = self.outputs.first();
        let target_bps = output.map(|output| output.config.bitrate_bps);
        metrics.network.on_bitrates(target_bps, output.and_then(|output| output.estimate_bps));
        if let Some(is_down) = self.last_report.size_step(self.outputs.size(), output.and_then(|output| output.sent_size)) {
            metrics.network.on_size_step(is_down);
        }
    }

    fn second_stats(&self, second: &Second) -> Stats {
        let (output, usage) = (self.outputs.first(), self.cpu.usage());
        let config = output.map(|output| output.config);
        let sent_size = output.and_then(|output| output.sent_size).unwrap_or(Size::new(0, 0));
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
                estimate_bps: output.and_then(|output| output.estimate_bps),
                received: self.ingest.received_size(),
                processed: self.outputs.size(),
            },
            latency: self.stats.take_latency(),
            dropped: Drops::new(|reason| second.dropped(reason)),
            load: Load {
                worker_utilisation: round(second.utilisation),
                encoder_speed: if output.is_some_and(|output| output.is_hurried) { EncoderSpeed::Hurried } else { EncoderSpeed::Normal },
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
        self.context.metrics.frames.on_frames(effect.as_str(), self.last_report.counts(), self.analysis.track.counts());
    }
}
