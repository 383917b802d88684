//! The quality that a receiver gets: the full one while its network carries that, or else the half
//! one. Time is an argument.

use std::time::{Duration, Instant};

use super::shared_encoder::Quality;

/// The time with too little bandwidth for the full quality before a receiver gets the half one, since
/// estimates dip.
const STEP_DOWN_AFTER: Duration = Duration::from_millis(500);
/// The time with enough bandwidth for the full quality before a receiver gets it again, since each
/// change costs a keyframe for all that have the quality.
const STEP_UP_AFTER: Duration = Duration::from_secs(3);

/// The quality of one receiver.
#[derive(Debug)]
pub(super) struct Placement {
    quality: Quality,
    /// When the network began to carry too little.
    short_since: Option<Instant>,
    /// When the network began to carry enough.
    ample_since: Option<Instant>,
    /// The next step down does not wait, as at the beginning and after a breakdown.
    is_hastened: bool,
}

/// The conditions on which the quality depends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Situation {
    /// The network carries the bitrate of the full quality.
    pub(super) carries_full: bool,
    /// Pictures are large enough for half the size.
    pub(super) has_half: bool,
    /// No receiver of the codec gets the full quality.
    pub(super) full_is_unused: bool,
}

impl Placement {
    pub(super) fn new() -> Self {
        Self { quality: Quality::Full, short_since: None, ample_since: None, is_hastened: true }
    }

    pub(super) fn quality(&self) -> Quality {
        self.quality
    }

    /// Makes the next step down at once if it is due.
    pub(super) fn hasten(&mut self) {
        self.is_hastened = true;
    }

    /// Chooses the quality. Returns whether it is another one.
    pub(super) fn review(&mut self, now: Instant, situation: Situation) -> bool {
        let Situation { carries_full, has_half, full_is_unused } = situation;
        self.short_since = (!carries_full).then(|| self.short_since.unwrap_or(now));
        self.ample_since = carries_full.then(|| self.ample_since.unwrap_or(now));
        let is_hastened = std::mem::take(&mut self.is_hastened);
        let lasts = |since: Option<Instant>, time| since.is_some_and(|since| now.saturating_duration_since(since) >= time);
        let quality = match self.quality {
            _ if !has_half => Quality::Full,
            Quality::Full if lasts(self.short_since, if is_hastened { Duration::ZERO } else { STEP_DOWN_AFTER }) => Quality::Half,
            Quality::Half if lasts(self.ample_since, if full_is_unused { Duration::ZERO } else { STEP_UP_AFTER }) => Quality::Full,
            quality => quality,
        };
        std::mem::replace(&mut self.quality, quality) != quality
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENOUGH: Situation = Situation { carries_full: true, has_half: true, full_is_unused: false };
    const SHORT: Situation = Situation { carries_full: false, ..ENOUGH };

    /// Returns the qualities after reviews at these times.
    fn qualities<const N: usize>(reviews: [(u64, Situation); N]) -> [Quality; N] {
        let (start, mut placement) = (Instant::now(), Placement::new());
        reviews.map(|(ms, situation)| {
            let before = placement.quality();
            let is_other = placement.review(start + Duration::from_millis(ms), situation);
            assert_eq!(is_other, placement.quality() != before);
            placement.quality()
        })
    }

    use Quality::{Full, Half};

    #[test]
    fn short_network_has_the_half_quality_at_once_at_the_beginning_and_later_after_half_a_second() {
        assert_eq!(qualities([(0, SHORT)]), [Half]);
        assert_eq!(qualities([(0, ENOUGH), (100, SHORT), (599, SHORT), (600, SHORT)]), [Full, Full, Full, Half]);
        assert_eq!(qualities([(0, ENOUGH), (100, SHORT), (300, ENOUGH), (650, SHORT)]), [Full; 4], "a dip");
    }

    #[test]
    fn full_quality_comes_back_after_three_seconds_or_at_once_if_nobody_else_has_it() {
        assert_eq!(qualities([(0, SHORT), (100, ENOUGH), (3099, ENOUGH), (3100, ENOUGH)]), [Half, Half, Half, Full]);
        let alone = Situation { full_is_unused: true, ..ENOUGH };
        assert_eq!(qualities([(0, SHORT), (100, alone)]), [Half, Full]);
    }

    #[test]
    fn breakdown_waits_for_nothing() {
        let (now, mut placement) = (Instant::now(), Placement::new());
        assert!(!placement.review(now, ENOUGH));
        placement.hasten();
        assert!(placement.review(now, SHORT));
    }

    #[test]
    fn small_pictures_have_one_quality() {
        let small = Situation { has_half: false, ..SHORT };
        assert_eq!(qualities([(0, SHORT), (100, small), (5000, small)]), [Half, Full, Full]);
    }
}
