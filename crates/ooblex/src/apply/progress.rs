//! Progress display of `ooblex apply`: a bar on a terminal, and a summary at the end.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

const DRAW_EVERY: Duration = Duration::from_millis(200);
const WIDTH: usize = 32;

/// Frame counter with a progress bar.
pub(super) struct Progress {
    began: Instant,
    drawn: Option<Instant>,
    /// Expected number of frames; `None` if unknown.
    expected: Option<u64>,
    done: u64,
    shown: bool,
}

impl Progress {
    /// Creates a counter of `expected` frames.
    pub(super) fn new(expected: Option<u64>) -> Self {
        Self { began: Instant::now(), drawn: None, expected: expected.filter(|frames| *frames > 0), done: 0, shown: stderr().is_terminal() }
    }

    /// Counts a completed frame.
    pub(super) fn on_frame(&mut self) {
        self.done += 1;
        let now = Instant::now();
        if self.shown && self.drawn.is_none_or(|drawn| now.duration_since(drawn) >= DRAW_EVERY) {
            self.drawn = Some(now);
            _ = write!(stderr(), "\r{}\x1b[K", line(self.done, self.expected, now.duration_since(self.began)));
        }
    }

    /// Prints the number of frames and the frame rate.
    pub(super) fn finish(self) {
        self.clear();
        let elapsed = self.began.elapsed();
        let rate = per_second(self.done, elapsed);
        _ = writeln!(stderr(), "{} frames in {:.1} s: {rate:.1} frames a second", self.done, elapsed.as_secs_f64());
    }

    /// Clears the bar, so that an error can be printed.
    pub(super) fn clear(&self) {
        if self.drawn.is_some() {
            _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

fn line(done: u64, expected: Option<u64>, elapsed: Duration) -> String {
    let rate = per_second(done, elapsed);
    let Some(expected) = expected.filter(|expected| done <= *expected) else {
        return format!("{done} frames, {rate:.1} frames a second");
    };
    let share = done as f64 / expected as f64;
    let full = (share * WIDTH as f64).round() as usize;
    let left = if rate > 0.0 { (expected - done) as f64 / rate } else { 0.0 };
    let (minutes, seconds) = (left as u64 / 60, left as u64 % 60);
    let bar = format!("{}{}", "█".repeat(full), "░".repeat(WIDTH - full));
    format!("{bar} {:3.0} %  {done} of {expected} frames, {rate:.1} a second, {minutes}:{seconds:02} left", share * 100.0)
}

fn per_second(done: u64, elapsed: Duration) -> f64 {
    done as f64 / elapsed.as_secs_f64().max(1e-3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_says_how_far_how_fast_and_how_long() {
        let half = line(50, Some(100), Duration::from_secs(2));
        assert!(
            half.starts_with(&"█".repeat(16)) && half.contains("░░") && half.contains("50 %  50 of 100 frames, 25.0 a second, 0:02 left"),
            "{half}"
        );
        assert_eq!(line(50, None, Duration::from_secs(2)), "50 frames, 25.0 frames a second");
        assert_eq!(line(101, Some(100), Duration::from_secs(2)), "101 frames, 50.5 frames a second", "more came than the file said");
        assert!(line(0, Some(100), Duration::ZERO).contains("0 of 100"));
    }
}
