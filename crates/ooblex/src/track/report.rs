//! What a track says of itself once a second: to the browser, to the API, to Prometheus, and to the effect, which may trade
//! quality for speed.

use std::time::{Duration, Instant};

use ooblex_effects::Load;
use ooblex_pipeline::{DropReason, FrameCounts};
use serde_json::{Value, json};

use super::driver::Driver;
use super::{TrackOutput, service};
use crate::figures::round;

/// What the figures were at the last report.
pub(super) struct Report {
    /// When that was.
    pub(super) at: Instant,
    pub(super) counts: FrameCounts,
    /// Time that all workers had spent on frames.
    pub(super) busy: Duration,
    /// Sent since.
    pub(super) bytes: u64,
    /// Frames handed to the broker since.
    pub(super) offered: u32,
    /// Of the pictures that came, and of those that went out.
    pub(super) size: (u32, u32),
    pub(super) sent_size: (u32, u32),
    /// Time in models since, and frames that it went to.
    pub(super) analysing: (Duration, u32),
}

impl Report {
    /// Nothing has happened since.
    pub(super) fn new(at: Instant, counts: FrameCounts, busy: Duration) -> Self {
        Self { at, counts, busy, bytes: 0, offered: 0, size: (0, 0), sent_size: (0, 0), analysing: (Duration::ZERO, 0) }
    }
}

impl Driver {
    pub(super) fn report(&mut self, now: Instant) {
        self.review_service();
        let elapsed = now.duration_since(self.report.at).as_secs_f64();
        let counts = *self.track.counts();
        let before = self.report.counts;
        let capacity = self.context.broker.capacity();
        let available = elapsed * capacity.workers.max(1) as f64;
        let utilisation = (capacity.busy.saturating_sub(self.report.busy).as_secs_f64() / available).min(1.0);
        let replaced = counts.dropped(DropReason::Replaced) - before.dropped(DropReason::Replaced);
        let (analysing, analysed) = self.report.analysing;
        let load = Load {
            offered: self.report.offered,
            replaced: replaced as u32,
            model_time: if analysed > 0 { analysing / analysed } else { Duration::ZERO },
            utilisation: utilisation as f32,
        };
        if let Some(painter) = self.painters.get_mut(&self.settings.effect.name()) {
            painter.on_load(&load);
        }
        let stats = self.stats(elapsed, &counts, &before, utilisation);
        self.tell_metrics(now, (counts.shown - before.shown) as f64 / elapsed);
        self.figures.set_latest(stats.clone());
        self.send(TrackOutput::Message { text: stats.to_string(), may_be_missed: true });
        self.flush_counts();
        let (busy, size, sent_size) = (capacity.busy, self.report.size, self.report.sent_size);
        self.report = Report { size, sent_size, ..Report::new(now, counts, busy) };
    }

    fn tell_metrics(&mut self, now: Instant, rate: f64) {
        let viewing = self.watch.take(now, rate);
        let metrics = &self.context.metrics;
        metrics.on_second(self.settings.effect.name().as_str(), &viewing);
        metrics.on_bitrates(self.egress.config().map(|config| config.bitrate_bps), self.egress.estimate_bps());
        let (sent, of) = (self.egress.sent_size(), self.egress.size());
        // A camera that turns or changes its size is no step.
        if of == self.report.size && sent != self.report.sent_size && self.report.sent_size != (0, 0) {
            metrics.on_size_step(sent.0 < self.report.sent_size.0);
        }
        (self.report.size, self.report.sent_size) = (of, sent);
    }

    fn stats(&self, elapsed: f64, counts: &FrameCounts, before: &FrameCounts, utilisation: f64) -> Value {
        let rate = |now: u64, before: u64| round((now - before) as f64 / elapsed);
        let (stages, residence) = self.figures.take_window();
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
            "placeholder": self.placeholder,
            "service": service::label(self.service()),
            "state": if shown > 0 { "live" } else { "waiting" },
        })
    }

    pub(super) fn flush_counts(&mut self) {
        let effect = self.settings.effect.name();
        self.context.metrics.on_frames(effect.as_str(), &self.report.counts, self.track.counts());
    }
}
