//! The second between two reports of a track: rates, drops and the workers' utilisation.

use std::time::{Duration, Instant};

use ooblex_pipeline::{DropReason, FrameCounts, Size};

use super::quality::LoadSample;

/// The time between two reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

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
pub(super) struct Second {
    /// Its exact length.
    pub(super) elapsed: Duration,
    counts: FrameCounts,
    before: FrameCounts,
    /// The workers' utilisation, 0..=1.
    pub(super) utilisation: f64,
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

    /// Starts the next second, which begins at `at`.
    pub(super) fn restart(&mut self, at: Instant, second: &Second, busy: Duration) {
        *self = Self { at, counts: second.counts, busy, sent_bytes: 0, ..*self };
    }

    /// Returns the counts at the last report.
    pub(super) fn counts(&self) -> &FrameCounts {
        &self.counts
    }

    /// Compares with the counts at `now`, and with the time that `workers` have spent on frames by
    /// now.
    pub(super) fn second_until(&self, now: Instant, counts: FrameCounts, workers: usize, busy: Duration) -> Second {
        let elapsed = now.duration_since(self.at);
        let available = elapsed.as_secs_f64() * workers.max(1) as f64;
        let utilisation = (busy.saturating_sub(self.busy).as_secs_f64() / available).min(1.0);
        Second { elapsed, counts, before: self.counts, utilisation }
    }

    /// Notes the sizes of this second. Returns whether pictures have become smaller or larger on
    /// their way out: `Some(true)` for smaller. A camera that turns or changes its size is no step.
    pub(super) fn size_step(&mut self, size: Option<Size>, sent_size: Option<Size>) -> Option<bool> {
        let (size_before, sent_before) = (std::mem::replace(&mut self.size, size), std::mem::replace(&mut self.sent_size, sent_size));
        let (sent, before) = (sent_size?, sent_before?);
        (size == size_before && sent != before).then_some(sent.width < before.width)
    }
}

impl Second {
    /// Returns how often something was counted a second.
    pub(super) fn rate(&self, count: impl Fn(&FrameCounts) -> u64) -> f64 {
        self.count(count) as f64 / self.elapsed.as_secs_f64().max(1e-3)
    }

    pub(super) fn count(&self, count: impl Fn(&FrameCounts) -> u64) -> u64 {
        count(&self.counts) - count(&self.before)
    }

    pub(super) fn dropped(&self, reason: DropReason) -> u64 {
        self.count(|counts| counts.dropped(reason))
    }

    /// Returns the load of the machine as this track saw it. Frames that workers of this process
    /// were too busy for are missed here.
    pub(super) fn load_sample(&self, waited: Duration, workers_are_local: bool) -> LoadSample {
        let (superseded, replaced) = (self.dropped(DropReason::Behind), self.dropped(DropReason::Replaced));
        let (replaced_here, missed_elsewhere) = if workers_are_local { (replaced, 0) } else { (0, replaced) };
        LoadSample { admitted: self.count(|counts| counts.admitted), missed_here: superseded + replaced_here, missed_elsewhere, waited }
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
        track.on_skipped(DropReason::Behind);
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
