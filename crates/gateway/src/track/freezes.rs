//! The freeze detector of one track: what its viewer sees, by the times at which frames arrive and
//! processed ones are sent.

use std::time::{Duration, Instant};

use crate::labels::Viewing;

/// The picture counts as frozen without a processed frame for this time while the camera sends.
const FREEZE_THRESHOLD: Duration = Duration::from_millis(500);
/// The camera counts as off when it has sent nothing for this time. A picture without a camera is
/// not frozen.
const CAMERA_OFF_AFTER: Duration = Duration::from_millis(500);

/// The freeze detector of one track. Times are arguments.
#[derive(Debug)]
pub(super) struct FreezeDetector {
    /// When the connection was established.
    connected: Instant,
    /// The last processed frame.
    shown: Option<Shown>,
    /// When the camera last sent a frame.
    sent: Option<Instant>,
    /// The time up to which the present freeze has been counted. `None`: the picture moves.
    frozen: Option<Instant>,
    /// Freezes that began since the last report.
    freezes: u64,
    /// The time frozen since the last report.
    still: Duration,
}

/// The last processed frame.
#[derive(Debug, Clone, Copy)]
struct Shown {
    sent: Instant,
    arrived: Instant,
}

impl FreezeDetector {
    /// Starts at this time, which counts as that of the connection until
    /// [`FreezeDetector::on_connected`].
    pub(super) fn new(now: Instant) -> Self {
        Self { connected: now, shown: None, sent: None, frozen: None, freezes: 0, still: Duration::ZERO }
    }

    /// Notes that the connection was established.
    pub(super) fn on_connected(&mut self, now: Instant) {
        self.connected = now;
    }

    /// Notes a frame of the camera.
    pub(super) fn on_frame(&mut self, now: Instant) {
        if self.sent.is_some_and(|sent| now.saturating_duration_since(sent) > CAMERA_OFF_AFTER) {
            // The camera was off until now, so the picture that stood still was not frozen.
            self.end_freeze(now);
            self.shown = self.shown.map(|shown| Shown { sent: now, ..shown });
        }
        self.sent = Some(now);
        let Some(Shown { sent: shown, .. }) = self.shown else { return };
        if self.frozen.is_none() && now.saturating_duration_since(shown) > FREEZE_THRESHOLD {
            self.freezes += 1;
            self.frozen = Some(shown);
        }
    }

    /// Notes a processed frame that is sent at `now` and arrived at `arrived`. Returns for the
    /// first one the time since the connection was established.
    pub(super) fn on_shown(&mut self, now: Instant, arrived: Instant) -> Option<Duration> {
        self.end_freeze(now);
        let is_first = self.shown.replace(Shown { sent: now, arrived }).is_none();
        is_first.then(|| now.saturating_duration_since(self.connected))
    }

    /// Returns what the viewer has seen since the last call.
    pub(super) fn take(&mut self, now: Instant, rate: f64) -> Viewing {
        let is_sending = self.sent.is_some_and(|sent| now.saturating_duration_since(sent) <= CAMERA_OFF_AFTER);
        if is_sending && let Some(counted) = &mut self.frozen {
            self.still += now.saturating_duration_since(std::mem::replace(counted, now));
        }
        let age = self.shown.filter(|_| is_sending).map(|shown| now.saturating_duration_since(shown.arrived));
        let rate = is_sending.then_some(rate);
        Viewing { rate, age, freezes: std::mem::take(&mut self.freezes), frozen: std::mem::take(&mut self.still) }
    }

    fn end_freeze(&mut self, now: Instant) {
        if let Some(counted) = self.frozen.take() {
            let last = self.sent.unwrap_or(now).max(counted);
            self.still += last.saturating_duration_since(counted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Duration = Duration::from_millis(33);

    fn bench() -> (FreezeDetector, Instant) {
        let now = Instant::now();
        (FreezeDetector::new(now), now)
    }

    /// Plays this many frames of a camera, each of which is shown if `shown`.
    fn play(detector: &mut FreezeDetector, now: &mut Instant, frames: u32, shown: bool) {
        for _ in 0..frames {
            *now += FRAME;
            detector.on_frame(*now);
            if shown {
                detector.on_shown(*now, *now);
            }
        }
    }

    #[test]
    fn steady_pictures_do_not_freeze_and_are_young() {
        let (mut detector, mut now) = bench();
        play(&mut detector, &mut now, 60, true);
        let seen = detector.take(now + FRAME, 30.0);
        assert_eq!(seen, Viewing { rate: Some(30.0), age: Some(FRAME), freezes: 0, frozen: Duration::ZERO });
    }

    #[test]
    fn a_freeze_is_counted_once_and_lasts_until_the_next_processed_frame() {
        let (mut detector, mut now) = bench();
        play(&mut detector, &mut now, 30, true);
        play(&mut detector, &mut now, 30, false);
        let first = detector.take(now, 0.0);
        assert_eq!((first.freezes, first.frozen), (1, FRAME * 30));
        play(&mut detector, &mut now, 30, false);
        play(&mut detector, &mut now, 30, true);
        let second = detector.take(now, 30.0);
        assert_eq!((second.freezes, second.frozen, second.age), (0, FRAME * 31, Some(Duration::ZERO)));
    }

    #[test]
    fn a_camera_that_is_off_is_no_freeze() {
        let (mut detector, mut now) = bench();
        play(&mut detector, &mut now, 30, true);
        now += Duration::from_secs(60);
        assert_eq!(detector.take(now, 0.0), Viewing { rate: None, age: None, freezes: 0, frozen: Duration::ZERO });
        play(&mut detector, &mut now, 5, false);
        play(&mut detector, &mut now, 30, true);
        assert_eq!(detector.take(now, 30.0).freezes, 0);
    }

    #[test]
    fn the_time_to_the_first_picture_counts_from_the_connection_and_only_once() {
        let (mut detector, start) = bench();
        let at = |ms| start + Duration::from_millis(ms);
        detector.on_connected(at(100));
        assert_eq!(detector.on_shown(at(350), at(300)), Some(Duration::from_millis(250)));
        assert_eq!(detector.on_shown(at(383), at(333)), None);
    }
}
