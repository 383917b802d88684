//! What the viewer of one track sees, told by when frames come in and processed ones go out. It looks at the clock only.

use std::time::{Duration, Instant};

use crate::labels::Viewing;

/// Without a new processed frame for this long, while the camera sends, the picture stands still to the eye.
const FROZEN_AFTER: Duration = Duration::from_millis(500);
/// A camera that has sent nothing for this long is off, which is no freeze.
const SILENT_AFTER: Duration = Duration::from_millis(500);

/// The watch over one track.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// When the last processed frame went out, and when that frame had come in.
    shown: Option<(Instant, Instant)>,
    /// When the camera sent last.
    sent: Option<Instant>,
    /// Up to when the freeze that lasts was counted.
    frozen: Option<Instant>,
    freezes: u64,
    still: Duration,
}

impl Watch {
    /// The camera sent a frame.
    pub(super) fn on_frame(&mut self, now: Instant) {
        if self.sent.is_some_and(|sent| now.saturating_duration_since(sent) > SILENT_AFTER) {
            // It was off meanwhile; the picture that stood there was none that could have moved.
            self.end_freeze(now);
            self.shown = self.shown.map(|(_, arrived)| (now, arrived));
        }
        self.sent = Some(now);
        let Some((shown, _)) = self.shown else { return };
        if self.frozen.is_none() && now.saturating_duration_since(shown) > FROZEN_AFTER {
            self.freezes += 1;
            self.frozen = Some(shown);
        }
    }

    /// A processed frame went out that had come in at `arrived`. Returns whether it was the first.
    pub(super) fn on_shown(&mut self, now: Instant, arrived: Instant) -> bool {
        self.end_freeze(now);
        self.shown.replace((now, arrived)).is_none()
    }

    /// What was seen since the last call.
    pub(super) fn take(&mut self, now: Instant, rate: f64) -> Viewing {
        let is_sending = self.sent.is_some_and(|sent| now.saturating_duration_since(sent) <= SILENT_AFTER);
        if is_sending && let Some(counted) = &mut self.frozen {
            self.still += now.saturating_duration_since(std::mem::replace(counted, now));
        }
        let age = self.shown.filter(|_| is_sending).map(|(_, arrived)| now.saturating_duration_since(arrived));
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

    /// A camera that sends for so many frames, each of which is shown if `shown`.
    fn play(watch: &mut Watch, now: &mut Instant, frames: u32, shown: bool) {
        for _ in 0..frames {
            *now += FRAME;
            watch.on_frame(*now);
            if shown {
                watch.on_shown(*now, *now);
            }
        }
    }

    #[test]
    fn steady_pictures_do_not_freeze_and_are_young() {
        let (mut watch, mut now) = (Watch::default(), Instant::now());
        play(&mut watch, &mut now, 60, true);
        let seen = watch.take(now + FRAME, 30.0);
        assert_eq!(seen, Viewing { rate: Some(30.0), age: Some(FRAME), freezes: 0, frozen: Duration::ZERO });
    }

    #[test]
    fn a_freeze_is_counted_once_and_lasts_until_the_next_processed_frame() {
        let (mut watch, mut now) = (Watch::default(), Instant::now());
        play(&mut watch, &mut now, 30, true);
        play(&mut watch, &mut now, 30, false);
        let first = watch.take(now, 0.0);
        assert_eq!((first.freezes, first.frozen), (1, FRAME * 30));
        play(&mut watch, &mut now, 30, false);
        play(&mut watch, &mut now, 30, true);
        let second = watch.take(now, 30.0);
        assert_eq!((second.freezes, second.frozen, second.age), (0, FRAME * 31, Some(Duration::ZERO)));
    }

    #[test]
    fn a_camera_that_is_off_is_no_freeze() {
        let (mut watch, mut now) = (Watch::default(), Instant::now());
        play(&mut watch, &mut now, 30, true);
        now += Duration::from_secs(60);
        assert_eq!(watch.take(now, 0.0), Viewing { rate: None, age: None, freezes: 0, frozen: Duration::ZERO });
        play(&mut watch, &mut now, 5, false);
        play(&mut watch, &mut now, 30, true);
        assert_eq!(watch.take(now, 30.0).freezes, 0);
    }
}
