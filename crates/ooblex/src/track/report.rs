//! What a track says of itself once a second: to the browser, to the API, to Prometheus. What it finds then also decides whether
//! something is given up for want of CPU, or taken back.

use std::time::{Duration, Instant};

use ooblex_effects::ChainPainter;
use ooblex_pipeline::{DropReason, FrameCounts};
use serde_json::{Value, json};
use tracing::debug;

use super::driver::Driver;
use super::quality::{LoadSample, QualityAdvice};
use super::service;
use crate::events::Kind;
use crate::labels::QualityStep;
use crate::rounding::round;

/// Share of the workers' time in use above which the encoder stays hurried.
const ROOM_WANTED: f64 = 0.8;

/// What the figures were at the last report.
pub(super) struct Report {
    /// When that was.
    pub(super) at: Instant,
    pub(super) counts: FrameCounts,
    /// Time that all workers had spent on frames.
    pub(super) busy: Duration,
    /// Sent since.
    pub(super) bytes: u64,
    /// Of the pictures that came, and of those that went out.
    pub(super) size: (u32, u32),
    pub(super) sent_size: (u32, u32),
    /// Time that compressed frames have waited for the track's thread since, and how many did.
    pub(super) waited: (Duration, u32),
}

impl Report {
    /// Nothing has happened since.
    pub(super) fn new(at: Instant, counts: FrameCounts, busy: Duration) -> Self {
        Self { at, counts, busy, bytes: 0, size: (0, 0), sent_size: (0, 0), waited: (Duration::ZERO, 0) }
    }
}

impl Driver {
    pub(super) fn report(&mut self, now: Instant) {
        self.review_service();
        let elapsed = now.duration_since(self.report.at);
        let counts = *self.track.counts();
        let before = self.report.counts;
        self.keep_to_share(elapsed, &counts);
        let elapsed = elapsed.as_secs_f64();
        let capacity = self.context.broker.capacity();
        let available = elapsed * capacity.workers.max(1) as f64;
        let utilisation = (capacity.busy.saturating_sub(self.report.busy).as_secs_f64() / available).min(1.0);
        self.adapt(&counts, utilisation);
        let stats = self.stats(elapsed, &counts, &before, utilisation);
        self.tell_metrics(now, (counts.shown - before.shown) as f64 / elapsed);
        self.stats.set_latest(stats.clone());
        self.tell(Kind::Stats, None, stats.to_string());
        self.flush_counts();
        let (busy, size, sent_size) = (capacity.busy, self.report.size, self.report.sent_size);
        self.report = Report { size, sent_size, ..Report::new(now, counts, busy) };
    }

    /// Says what was used of the machine's cores, and uses no more than is allowed.
    fn keep_to_share(&mut self, elapsed: Duration, counts: &FrameCounts) {
        let used = self.meter.take(elapsed);
        let allowed = self.context.shares.report(self.id(), used);
        self.cores = (used, allowed);
        let rate = |frames: u64| frames as f64 / elapsed.as_secs_f64().max(1e-3);
        let camera = rate(counts.admitted - self.report.counts.admitted);
        self.frame_rate.on_share(used, allowed, camera - rate(self.dropped_since(counts, DropReason::Behind)));
        self.is_throttled = self.frame_rate.is_throttled(camera, self.is_throttled);
    }

    fn dropped_since(&self, counts: &FrameCounts, reason: DropReason) -> u64 {
        counts.dropped(reason) - self.report.counts.dropped(reason)
    }

    fn tell_metrics(&mut self, now: Instant, rate: f64) {
        let viewing = self.freezes.take(now, rate);
        let metrics = &self.context.metrics;
        metrics.on_second(self.settings.effect.label().as_str(), &viewing);
        metrics.on_bitrates(self.egress.config().map(|config| config.bitrate_bps), self.egress.estimate_bps());
        let (sent, of) = (self.egress.sent_size(), self.egress.size());
        // A camera that turns or changes its size is no step.
        if of == self.report.size && sent != self.report.sent_size && self.report.sent_size != (0, 0) {
            metrics.on_size_step(sent.0 < self.report.sent_size.0);
        }
        (self.report.size, self.report.sent_size) = (of, sent);
    }

    /// Gives something up if this second's frames found too little CPU, or takes something back if there was enough for a while.
    fn adapt(&mut self, counts: &FrameCounts, utilisation: f64) {
        let (waited, frames) = self.report.waited;
        let (behind, replaced) = (self.dropped_since(counts, DropReason::Behind), self.dropped_since(counts, DropReason::Replaced));
        let (replaced_here, missed_elsewhere) = if self.context.broker.is_local() { (replaced, 0) } else { (0, replaced) };
        let sample = LoadSample {
            admitted: counts.admitted - self.report.counts.admitted,
            missed_here: behind + replaced_here,
            missed_elsewhere,
            waited: waited.checked_div(frames).unwrap_or_default(),
        };
        let mut painter = self.painters.get_mut(&self.settings.effect.version());
        let mut resize = |resize: &dyn Fn(&mut ChainPainter) -> bool| painter.as_mut().is_some_and(|painter| resize(painter));
        let (step, direction) = match self.quality.on_report(&sample) {
            QualityAdvice::Stay => return,
            QualityAdvice::StepDown if sample.is_short_here() && self.egress.set_hurried(true) => (QualityStep::EncoderSpeed, "down"),
            QualityAdvice::StepDown if resize(&|painter| painter.shrink_input()) => (QualityStep::ModelResolution, "down"),
            QualityAdvice::StepUp if resize(&|painter| painter.grow_input(utilisation as f32)) => (QualityStep::ModelResolution, "up"),
            QualityAdvice::StepUp if utilisation < ROOM_WANTED && self.egress.set_hurried(false) => (QualityStep::EncoderSpeed, "up"),
            QualityAdvice::StepDown | QualityAdvice::StepUp => return,
        };
        if direction == "up" {
            self.quality.on_step_up();
        }
        self.context.metrics.on_adaptation(step.label(), direction);
        debug!(session = %self.id(), step = step.label(), direction, ?sample, "adapts to the machine");
    }

    fn stats(&self, elapsed: f64, counts: &FrameCounts, before: &FrameCounts, utilisation: f64) -> Value {
        let rate = |now: u64, before: u64| round((now - before) as f64 / elapsed);
        let (stages, residence) = self.stats.take_window();
        let dropped: Value = DropReason::ALL
            .into_iter()
            .map(|reason| (reason.label(), counts.dropped(reason) - before.dropped(reason)))
            .filter(|(_, dropped)| *dropped > 0)
            .map(|(label, dropped)| (label.to_string(), json!(dropped)))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let shown = counts.shown - before.shown;
        json!({
            "type": "stats",
            "effect": self.settings.effect.name(),
            "fps_in": rate(counts.admitted, before.admitted),
            "fps_analysed": rate(counts.analysed, before.analysed),
            "fps_out": rate(counts.shown, before.shown),
            "width": self.egress.sent_size().0,
            "height": self.egress.sent_size().1,
            "codec": self.egress.config().map(|config| config.codec.label()),
            "bitrate_bps": (self.report.bytes as f64 * 8.0 / elapsed).round(),
            "target_bps": self.egress.config().map(|config| config.bitrate_bps),
            "estimate_bps": self.egress.estimate_bps(),
            "residence_ms": residence,
            "stages_ms": stages,
            "dropped": dropped,
            "worker_utilisation": round(utilisation),
            "encoder_speed": if self.egress.is_hurried() { "hurried" } else { "normal" },
            "model_input": self.model_input.map(|(width, height)| json!({"width": width, "height": height})),
            "cores": round(self.cores.0),
            "cores_allowed": Some(self.cores.1).filter(|allowed| allowed.is_finite()).map(round),
            "placeholder": self.placeholder,
            "service": service::label(self.service()),
            "state": if shown > 0 { "live" } else { "waiting" },
        })
    }

    pub(super) fn flush_counts(&mut self) {
        let effect = self.settings.effect.label();
        self.context.metrics.on_frames(effect.as_str(), &self.report.counts, self.track.counts());
    }
}
