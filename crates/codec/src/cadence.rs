//! Frame intervals for the rate control of an encoder. Knows no codec and no clock.

use ooblex_pipeline::MediaTime;

/// Number of 90 kHz ticks in one second.
const TICKS_PER_SECOND: f32 = 90_000.0;
/// Maximum frame interval in 90 kHz ticks (200 ms). A longer pause counts as this much; otherwise
/// the first picture after it would get the bits of the whole pause at once.
const LONGEST_STEP: u64 = 18_000;
/// Minimum frame interval in 90 kHz ticks (4 ms), so that media time increases strictly.
const SHORTEST_STEP: u64 = 360;
/// Weight of a new interval in the moving average.
const SMOOTHING: f32 = 0.05;

/// Converts capture times into media time that increases strictly and never jumps.
///
/// The rate control gets the moving average of the intervals, not each one. libvpx takes a single
/// missing picture for half the frame rate, recovers from that over a second, and spends almost
/// twice its bitrate when every tenth picture is missing, as after losses. Over time the averages
/// add up to the true intervals.
#[derive(Debug)]
pub(crate) struct Cadence {
    previous: Option<MediaTime>,
    nominal_step: u64,
    mean_step: f32,
    elapsed: f64,
}

impl Cadence {
    /// Creates a cadence. `frame_rate` in Hz (1..=240) is the initial value of the moving average.
    pub(crate) fn new(frame_rate: f32) -> Self {
        let nominal = TICKS_PER_SECOND / frame_rate;
        Self { previous: None, nominal_step: nominal as u64, mean_step: nominal, elapsed: 0.0 }
    }

    /// Takes the capture time of the next picture and advances [`Cadence::elapsed`].
    pub(crate) fn advance(&mut self, capture: MediaTime) {
        if let Some(previous) = self.previous.replace(capture) {
            let step = match capture.0.checked_sub(previous.0) {
                Some(step) if step > 0 => step.clamp(SHORTEST_STEP, LONGEST_STEP),
                // Capture times that repeat or decrease say nothing about the rate.
                _ => self.nominal_step,
            };
            self.mean_step += SMOOTHING * (step as f32 - self.mean_step);
            self.elapsed += f64::from(self.mean_step);
        }
    }

    /// Returns the time from the first picture to the newest one in 90 kHz ticks, in averaged
    /// intervals.
    pub(crate) fn elapsed(&self) -> u64 {
        self.elapsed as u64
    }

    /// Returns the moving average of the frame interval in 90 kHz ticks.
    pub(crate) fn mean_step(&self) -> u64 {
        self.mean_step as u64
    }

    /// Returns the recent frame rate in Hz.
    pub(crate) fn frame_rate(&self) -> f32 {
        TICKS_PER_SECOND / self.mean_step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_increases_strictly_whatever_the_capture_times_do() {
        let mut cadence = Cadence::new(30.0);
        let mut before = None;
        for capture in [9_000_000, 9_003_000, 9_003_000, 10, 3_010, u64::MAX, 0, 1] {
            cadence.advance(MediaTime(capture));
            assert!(before.is_none_or(|before| cadence.elapsed() > before));
            before = Some(cadence.elapsed());
        }
    }

    #[test]
    fn long_pause_counts_as_a_fifth_of_a_second_and_no_step_jumps() {
        let mut cadence = Cadence::new(30.0);
        cadence.advance(MediaTime(0));
        cadence.advance(MediaTime(900_000));
        assert_eq!(cadence.elapsed(), 3_750, "a twentieth of the way from 3000 to 18000");
    }

    #[test]
    fn time_adds_up_when_pictures_are_missing() {
        let mut cadence = Cadence::new(30.0);
        (0..3000).filter(|frame| ![3, 4, 11].contains(&(frame % 13))).for_each(|frame| cadence.advance(MediaTime(frame * 3_000)));
        assert!(cadence.elapsed().abs_diff(2_999 * 3_000) < 30_000, "{}", cadence.elapsed());
    }

    #[test]
    fn rate_follows_what_comes() {
        let mut cadence = Cadence::new(30.0);
        for frame in 0..120 {
            cadence.advance(MediaTime(frame * 9_000));
        }
        assert!((cadence.frame_rate() - 10.0).abs() < 0.2, "{}", cadence.frame_rate());
    }
}
