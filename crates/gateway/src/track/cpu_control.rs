//! The CPU side of a track: its permits to compute, its share of the cores, and what it does when
//! either is short.
//!
//! Call [`CpuControl::on_permit`] with each permit to decode, and [`CpuControl::on_usage`] and
//! [`CpuControl::advise`] once a second. Then [`CpuControl::keeps`] says which decoded frames go
//! on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::frame_rate::FrameRateController;
use super::quality::{LoadSample, QualityAdvice, QualityController};
use crate::cpu::{CpuMeter, CpuScheduler, Ticket, Waits};

/// The CPU side of one track.
pub(super) struct CpuControl {
    ticket: Arc<Ticket>,
    meter: CpuMeter,
    frame_rate: FrameRateController,
    quality: QualityController,
    usage: CpuUsage,
    /// The track wants more than its share. It computes without permits, at a lower priority.
    is_throttled: bool,
}

/// The cores that a track has used in the last second, and may use. An infinite share limits
/// nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct CpuUsage {
    pub(super) used: f64,
    pub(super) allowed: f64,
}

/// Decoded frames a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct DecodedRates {
    /// All frames, which is the rate of the camera.
    pub(super) camera_fps: f64,
    /// Frames that were kept after they were decoded.
    pub(super) kept_fps: f64,
}

impl CpuControl {
    /// Starts without limits. The calling thread is the one to measure.
    pub(super) fn new(ticket: Arc<Ticket>) -> Self {
        Self {
            ticket,
            meter: CpuMeter::start(),
            frame_rate: FrameRateController::new(),
            quality: QualityController::new(),
            usage: CpuUsage { used: 0.0, allowed: f64::INFINITY },
            is_throttled: false,
        }
    }

    /// Returns the ticket of the track's thread.
    pub(super) fn ticket(&self) -> &Arc<Ticket> {
        &self.ticket
    }

    /// Measures the calling thread from now on.
    pub(super) fn restart_meter(&mut self) {
        self.meter = CpuMeter::start();
    }

    /// Adds the CPU time of a worker for one frame.
    pub(super) fn on_analysed(&mut self, computed: Duration) {
        self.meter.on_analysed(computed);
    }

    /// Returns the arrival time from which frames are kept, where the oldest one that waits arrived
    /// at `oldest`. An older frame waits, and is decoded together with the next one that is kept,
    /// unless a permit is free.
    pub(super) fn due(&self, oldest: Instant) -> Instant {
        self.frame_rate.due().unwrap_or(oldest)
    }

    /// Notes a permit to decode. `first_kept` is the arrival time of the first frame that is kept,
    /// and `requested` that of the request for the permit. A throttled track has waited for nobody,
    /// and does not count in the mean waits.
    pub(super) fn on_permit(&mut self, now: Instant, scheduler: &CpuScheduler, first_kept: Option<Instant>, requested: Instant) {
        if let Some(arrived) = first_kept.filter(|_| !self.is_throttled) {
            scheduler.on_late(now, now.saturating_duration_since(arrived.max(requested)));
        }
        self.adapt_frame_rate(now, scheduler.waits());
    }

    fn adapt_frame_rate(&mut self, now: Instant, waits: Waits) {
        self.frame_rate.on_permit(now, waits);
    }

    /// Decides whether a decoded frame that arrived at this time is kept.
    pub(super) fn keeps(&mut self, arrived: Instant) -> bool {
        self.frame_rate.keeps(arrived)
    }

    /// Returns the mean number of cores in use since the last call, which was `elapsed` ago.
    pub(super) fn take_used(&mut self, elapsed: Duration) -> f64 {
        self.meter.take(elapsed)
    }

    /// Adapts the frame rate to the share of the cores, and decides whether the track is throttled.
    pub(super) fn on_usage(&mut self, usage: CpuUsage, rates: DecodedRates) {
        self.usage = usage;
        self.frame_rate.on_share(usage.used, usage.allowed, rates.kept_fps);
        self.is_throttled = self.frame_rate.is_throttled(rates.camera_fps, self.is_throttled);
    }

    /// Returns the cores used in the last second, and the share.
    pub(super) fn usage(&self) -> CpuUsage {
        self.usage
    }

    /// Tells whether the track computes without permits, at a lower priority.
    pub(super) fn is_throttled(&self) -> bool {
        self.is_throttled
    }

    /// Ends the throttling, where no thread of a lower priority could be started.
    pub(super) fn stop_throttling(&mut self) {
        self.is_throttled = false;
    }

    /// Returns the quality step that is due after a second with this load.
    pub(super) fn advise(&mut self, sample: &LoadSample) -> QualityAdvice {
        self.quality.on_report(sample)
    }

    /// Confirms that a quality step up was taken.
    pub(super) fn on_step_up(&mut self) {
        self.quality.on_step_up();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAMERA: DecodedRates = DecodedRates { camera_fps: 30.0, kept_fps: 30.0 };

    fn control() -> CpuControl {
        CpuControl::new(Arc::default())
    }

    #[test]
    fn a_track_alone_keeps_all_frames_and_is_not_throttled() {
        let (mut control, start) = (control(), Instant::now());
        for second in 0..10 {
            control.on_usage(CpuUsage { used: 1.8, allowed: f64::INFINITY }, CAMERA);
            assert!(control.keeps(start + Duration::from_secs(second)) && !control.is_throttled());
        }
        assert_eq!(control.usage(), CpuUsage { used: 1.8, allowed: f64::INFINITY });
    }

    #[test]
    fn a_track_far_above_its_share_is_throttled_until_the_share_is_enough() {
        let mut control = control();
        control.on_usage(CpuUsage { used: 1.2, allowed: 0.5 }, CAMERA);
        assert!(control.is_throttled());
        control.on_usage(CpuUsage { used: 0.4, allowed: 0.5 }, DecodedRates { kept_fps: 15.0, ..CAMERA });
        assert!(control.is_throttled(), "18.75 frames a second are not enough for 30");
        for _ in 0..3 {
            control.on_usage(CpuUsage { used: 0.4, allowed: f64::INFINITY }, CAMERA);
        }
        assert!(!control.is_throttled());
    }

    #[test]
    fn throttling_that_no_thread_could_take_over_ends() {
        let mut control = control();
        control.on_usage(CpuUsage { used: 1.2, allowed: 0.5 }, CAMERA);
        control.stop_throttling();
        assert!(!control.is_throttled());
    }

    #[test]
    fn frames_are_due_from_the_arrival_of_the_oldest_while_all_are_kept_and_later_when_permits_are_late() {
        let (mut control, start) = (control(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert!(control.keeps(at(0)));
        assert_eq!(control.due(at(7)), at(7));
        let late = Waits { waited: Duration::from_millis(100), late: Duration::from_millis(100) };
        (0..100).for_each(|tick| control.adapt_frame_rate(at(100 * tick), late));
        assert!(control.keeps(at(10_000)));
        assert!(control.due(at(10_033)) > at(10_100), "two frames a second are kept");
        assert!(!control.keeps(at(10_033)));
    }

    #[test]
    fn only_the_wait_of_a_track_with_permits_counts_for_all() {
        let (mut control, scheduler, start) = (control(), CpuScheduler::new(1), Instant::now());
        let now = start + Duration::from_millis(80);
        control.on_usage(CpuUsage { used: 1.2, allowed: 0.5 }, CAMERA);
        control.on_permit(now, &scheduler, Some(start), start);
        assert_eq!(scheduler.waits().late, Duration::ZERO);
        control.stop_throttling();
        control.on_permit(now, &scheduler, Some(start), start);
        assert!(scheduler.waits().late > Duration::ZERO);
    }
}
