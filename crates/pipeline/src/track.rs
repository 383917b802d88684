//! State machine of one track: decides which frames are analysed and which are shown, in what
//! order, with which analysis.
//!
//! Feed it with [`Track::on_frame`] and the `on_…` results, then call [`Track::poll`] until it
//! returns `None`, and again at [`Track::next_wakeup`]. It owns the frames that wait and never
//! looks into them. The gateway drives it from the track's thread, the simulation from a loop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::playout::{Entry, Fate, Playout, State};
use crate::sampler::Sampler;
use crate::{DropReason, FrameCounts, FrameSeq, Patience, Sampling};

/// Divisor of the deadline: the broker gives a frame up 1/20 of the deadline earlier than its
/// track, because only the broker knows whether a worker had the frame.
const VERDICT: u32 = 20;

/// Number of changes of the effect or its parameters. A frame belongs to the generation in force
/// when it was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// Number of times that the camera was turned. Positions in a frame of one view mean nothing in
/// frames of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct View(pub u64);

/// How the effect in force uses analyses to show frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The effect needs no analysis: every frame is ready at once.
    Direct,
    /// Only frames with their own analysis are shown.
    Hold,
    /// Frames without their own analysis are painted with the newest one, if its frame is at most
    /// `max_age` older.
    Reuse {
        /// Maximum age of an analysis that is painted: the time between the admissions of the two
        /// frames.
        max_age: Duration,
    },
}

/// Instruction for a frame that was just admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Hand the frame to the broker. Nobody waits for the result after `deadline`.
    Analyse {
        /// Time at which the broker gives the frame up.
        deadline: Instant,
    },
    /// Do nothing: the frame gets no analysis of its own.
    Leave,
}

/// Decision about the oldest frame.
#[derive(Debug)]
pub enum Release<F, A> {
    /// Paint the frame, then call [`Track::on_painted`] or [`Track::on_paint_failed`].
    Paint {
        /// Number of the frame, higher than that of all frames released before.
        seq: FrameSeq,
        /// Effect and parameters that the frame belongs to.
        generation: Generation,
        /// Frame as it was admitted.
        frame: F,
        /// Analysis to paint the frame with; `None` in [`Mode::Direct`].
        analysis: Option<Arc<A>>,
        /// True if the analysis is that of an earlier frame.
        reused: bool,
    },
    /// The frame is not shown. It is already counted.
    Drop {
        /// Number of the frame.
        seq: FrameSeq,
        /// Effect and parameters that the frame belongs to.
        generation: Generation,
        /// Frame as it was admitted, for other uses.
        frame: F,
        /// Reason of the drop.
        reason: DropReason,
    },
}

/// State of one track. `F` is a frame with the data that the caller attaches to it, `A` is an
/// analysis.
#[derive(Debug)]
pub struct Track<F, A> {
    mode: Mode,
    generation: Generation,
    view: View,
    sampler: Sampler,
    patience: Patience,
    playout: Playout<F, A>,
    /// Frames that were handed to the broker and have no result yet, including those that do not
    /// wait for it any more.
    outstanding: BTreeMap<FrameSeq, Outstanding>,
    newest: Option<Newest<A>>,
    /// Moving average of the time until an analysis comes back. In [`Mode::Reuse`] it decides
    /// whether a frame waits for its own analysis.
    turnaround: Duration,
    painting: u64,
    counts: FrameCounts,
}

#[derive(Debug, Clone, Copy)]
struct Outstanding {
    generation: Generation,
    view: View,
    admitted: Instant,
}

#[derive(Debug)]
struct Newest<A> {
    seq: FrameSeq,
    generation: Generation,
    view: View,
    admitted: Instant,
    analysis: Arc<A>,
}

impl<F, A> Track<F, A> {
    /// Maximum number of frames of a track that wait to be shown.
    pub const MAX_WAITING: usize = Playout::<F, A>::CAPACITY;

    /// Creates a track without frames, in generation 0.
    pub fn new(mode: Mode, sampling: Sampling, patience: Patience) -> Self {
        Self {
            mode,
            generation: Generation(0),
            view: View::default(),
            sampler: Sampler::new(sampling),
            patience,
            playout: Playout::new(patience),
            outstanding: BTreeMap::new(),
            newest: None,
            turnaround: Duration::ZERO,
            painting: 0,
            counts: FrameCounts::default(),
        }
    }

    /// Starts a new generation, because the effect or its parameters have changed. Frames admitted
    /// from now on belong to the generation that is returned, and are never painted with an earlier
    /// analysis. Frames already admitted keep their generation.
    pub fn change(&mut self, mode: Mode) -> Generation {
        self.mode = mode;
        self.generation.0 += 1;
        self.sampler.restart();
        self.generation
    }

    /// Tells the view of the frames from now on. Frames of another view than the last are never
    /// painted with an earlier analysis, and the first of them is offered to the workers.
    pub fn on_view(&mut self, view: View) {
        if self.view != view {
            self.view = view;
            self.sampler.restart();
        }
    }

    /// Admits the next frame of the track, whose `seq` is higher than that of the frame before. If
    /// [`Track::MAX_WAITING`] frames wait, the oldest one is dropped.
    pub fn on_frame(&mut self, now: Instant, seq: FrameSeq, frame: F) -> Admission {
        self.counts.admitted += 1;
        let (generation, view, mode) = (self.generation, self.view, self.mode);
        let (state, admission) = match mode {
            Mode::Direct => (State::Ready { since: now, analysis: None }, Admission::Leave),
            _ if self.sampler.sample() => {
                self.outstanding.retain(|_, o| now < o.admitted + self.patience.deadline);
                self.outstanding.insert(seq, Outstanding { generation, view, admitted: now });
                (State::Waiting, Admission::Analyse { deadline: now + self.patience.deadline - self.patience.deadline / VERDICT })
            }
            _ => (State::Without(DropReason::NotSampled), Admission::Leave),
        };
        if self.playout.push(Entry { seq, generation, view, mode, admitted: now, frame, state }).is_some() {
            self.counts.count_drop(DropReason::PlayoutFull);
        }
        admission
    }

    /// Admits and drops a decoded frame, because a newer one is there already, the track has used its
    /// share of CPU, or the frame is out of order.
    pub fn on_skipped(&mut self, reason: DropReason) {
        self.counts.admitted += 1;
        self.counts.count_drop(reason);
    }

    /// Returns the frame that was admitted last, while it waits.
    pub fn last_admitted(&self) -> Option<&F> {
        self.playout.back().map(|entry| &entry.frame)
    }

    /// Returns the oldest frame that waits, which is shown or dropped next.
    pub fn oldest_waiting(&self) -> Option<&F> {
        self.playout.front().map(|entry| &entry.frame)
    }

    /// Records the analysis of a frame.
    pub fn on_analysis(&mut self, now: Instant, seq: FrameSeq, analysis: A) {
        self.counts.analysed += 1;
        let Some(Outstanding { generation, view, admitted }) = self.outstanding.remove(&seq) else {
            self.counts.late += 1;
            return;
        };
        self.turnaround = (self.turnaround * 3 + now.saturating_duration_since(admitted)) / 4;
        let analysis = Arc::new(analysis);
        match self.playout.waiting(seq) {
            Some(entry) => entry.state = State::Ready { since: now, analysis: Some(analysis.clone()) },
            None => self.counts.late += 1,
        }
        if self.newest.as_ref().is_none_or(|newest| newest.seq < seq) {
            self.newest = Some(Newest { seq, generation, view, admitted, analysis });
        }
    }

    /// Records that a frame will get no analysis: it was replaced, has expired, has failed, or
    /// could not be handed over.
    pub fn on_lost(&mut self, seq: FrameSeq, reason: DropReason) {
        self.outstanding.remove(&seq);
        if let Some(entry) = self.playout.waiting(seq) {
            entry.state = State::Without(reason);
        }
    }

    /// Records that a frame from [`Release::Paint`] was shown.
    pub fn on_painted(&mut self, reused: bool) {
        self.painting -= 1;
        self.counts.shown += 1;
        self.counts.reused += u64::from(reused);
    }

    /// Records that a frame from [`Release::Paint`] could not be shown.
    pub fn on_paint_failed(&mut self, reason: DropReason) {
        self.painting -= 1;
        self.counts.count_drop(reason);
    }

    /// Returns the decision about the oldest frame, if there is one. Call it until it returns
    /// `None`.
    pub fn poll(&mut self, now: Instant) -> Option<Release<F, A>> {
        let reason = match self.fate()? {
            Fate::Settled => None,
            Fate::GivenUp { at, .. } if now < at => return None,
            Fate::GivenUp { reason, .. } => Some(reason),
        };
        let mut entry = self.playout.pop().expect("what has a fate is there");
        let reason = match (std::mem::replace(&mut entry.state, State::Waiting), reason) {
            (State::Ready { analysis, .. }, _) => return Some(self.paint(entry, analysis, false)),
            (State::Without(reason), _) | (State::Waiting, Some(reason)) => reason,
            (State::Waiting, None) => unreachable!("a waiting frame is not settled"),
        };
        Some(match (self.borrowable(&entry), entry.mode) {
            (Some(analysis), _) => self.paint(entry, Some(analysis), true),
            (None, Mode::Reuse { .. }) if reason == DropReason::NotSampled => self.drop(entry, DropReason::NoAnalysis),
            (None, _) => self.drop(entry, reason),
        })
    }

    /// Returns the time at which to call [`Track::poll`] again if nothing comes in before.
    pub fn next_wakeup(&self) -> Option<Instant> {
        match self.fate()? {
            Fate::GivenUp { at, .. } => Some(at),
            Fate::Settled => None,
        }
    }

    /// Ends the track: all frames that wait are dropped and counted.
    pub fn end(&mut self) {
        while let Some(entry) = self.playout.pop() {
            self.drop(entry, DropReason::TrackEnded);
        }
    }

    /// Returns the counters of the frames so far.
    pub fn counts(&self) -> &FrameCounts {
        &self.counts
    }

    /// Returns the number of frames that were admitted and neither shown nor dropped yet.
    pub fn in_flight(&self) -> u64 {
        self.playout.len() as u64 + self.painting
    }

    /// Returns the number of frames that were handed to the broker, have no result yet, and have
    /// not passed their deadline.
    pub fn outstanding(&self, now: Instant) -> usize {
        self.outstanding.values().filter(|frame| now < frame.admitted + self.patience.deadline).count()
    }

    /// Returns the mode in force.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Returns the generation in force.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    fn fate(&self) -> Option<Fate> {
        let front = self.playout.front()?;
        // If analyses take longer than a frame may wait for its own, waiting only adds latency.
        let own = if self.turnaround > self.patience.own { Duration::ZERO } else { self.patience.own };
        self.playout.fate(self.borrowable(front).map(|_| own))
    }

    /// Returns the newest analysis, if this frame may be painted with it.
    fn borrowable(&self, entry: &Entry<F, A>) -> Option<Arc<A>> {
        let Mode::Reuse { max_age } = entry.mode else { return None };
        let newest = self.newest.as_ref()?;
        let fits = newest.generation == entry.generation
            && newest.view == entry.view
            && newest.seq < entry.seq
            && entry.admitted.saturating_duration_since(newest.admitted) <= max_age;
        fits.then(|| newest.analysis.clone())
    }

    fn paint(&mut self, entry: Entry<F, A>, analysis: Option<Arc<A>>, reused: bool) -> Release<F, A> {
        self.painting += 1;
        Release::Paint { seq: entry.seq, generation: entry.generation, frame: entry.frame, analysis, reused }
    }

    fn drop(&mut self, entry: Entry<F, A>, reason: DropReason) -> Release<F, A> {
        self.counts.count_drop(reason);
        Release::Drop { seq: entry.seq, generation: entry.generation, frame: entry.frame, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Track whose times are milliseconds since its start, and whose frames are their own numbers.
    struct Bench {
        track: Track<u64, u64>,
        start: Instant,
    }

    impl Bench {
        fn new(mode: Mode, sampling: Sampling) -> Self {
            Self { track: Track::new(mode, sampling, Patience::default()), start: Instant::now() }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        fn frame(&mut self, ms: u64, seq: u64) -> Admission {
            self.track.on_frame(self.at(ms), FrameSeq(seq), seq)
        }

        fn analysis(&mut self, ms: u64, seq: u64) {
            self.track.on_analysis(self.at(ms), FrameSeq(seq), seq);
        }

        /// Returns what is released at `ms`: `(frame, analysis)` or `(frame, reason)`.
        fn poll(&mut self, ms: u64) -> Vec<(u64, Result<Option<u64>, DropReason>)> {
            let mut released = Vec::new();
            while let Some(release) = self.track.poll(self.at(ms)) {
                released.push(match release {
                    Release::Paint { frame, analysis, reused, .. } => {
                        self.track.on_painted(reused);
                        (frame, Ok(analysis.map(|a| *a)))
                    }
                    Release::Drop { frame, reason, .. } => (frame, Err(reason)),
                });
            }
            released
        }
    }

    const REUSE: Mode = Mode::Reuse { max_age: Duration::from_millis(200) };

    #[test]
    fn oldest_and_newest_of_the_frames_that_wait() {
        let mut b = Bench::new(Mode::Hold, Sampling::default());
        assert_eq!((b.track.oldest_waiting(), b.track.last_admitted()), (None, None));
        (0..3).for_each(|n| _ = b.frame(33 * n, n));
        assert_eq!((b.track.oldest_waiting(), b.track.last_admitted()), (Some(&0), Some(&2)));
    }

    #[test]
    fn results_out_of_order_are_shown_in_order() {
        let mut b = Bench::new(Mode::Hold, Sampling::Auto);
        (0..3).for_each(|n| assert!(matches!(b.frame(n * 33, n), Admission::Analyse { .. })));
        b.analysis(70, 2);
        b.analysis(71, 1);
        assert_eq!(b.track.outstanding(b.at(71)), 1);
        assert_eq!(b.poll(71), []);
        b.analysis(72, 0);
        assert_eq!(b.poll(72), [(0, Ok(Some(0))), (1, Ok(Some(1))), (2, Ok(Some(2)))]);
    }

    #[test]
    fn lost_frame_delays_the_next_until_the_wait_for_it_ends() {
        let mut b = Bench::new(Mode::Hold, Sampling::Auto);
        b.frame(0, 0);
        b.frame(33, 1);
        b.analysis(50, 1);
        assert_eq!(b.track.next_wakeup(), Some(b.at(150)));
        assert_eq!(b.poll(149), []);
        assert_eq!(b.poll(150), [(0, Err(DropReason::Overtaken)), (1, Ok(Some(1)))]);
        b.analysis(160, 0);
        assert_eq!(b.poll(160), []);
        assert_eq!(b.track.counts().late, 1);
    }

    #[test]
    fn frame_without_result_expires_at_its_deadline() {
        let mut b = Bench::new(Mode::Hold, Sampling::Auto);
        b.frame(0, 0);
        assert_eq!(b.track.next_wakeup(), Some(b.at(1000)));
        assert_eq!(b.poll(1000), [(0, Err(DropReason::Expired))]);
        assert_eq!(b.track.next_wakeup(), None);
    }

    #[test]
    fn why_a_frame_has_no_result_is_the_brokers_to_say() {
        let mut b = Bench::new(Mode::Hold, Sampling::Auto);
        assert_eq!(b.frame(0, 0), Admission::Analyse { deadline: b.at(950) }, "the broker's word comes before the track gives up");
        b.track.on_lost(FrameSeq(0), DropReason::Lost);
        assert_eq!(b.poll(960), [(0, Err(DropReason::Lost))]);
    }

    #[test]
    fn a_frame_has_most_of_a_short_deadline_for_its_analysis() {
        let patience = Patience { deadline: Duration::from_millis(20), ..Patience::default() };
        let (mut track, now) = (Track::<u64, u64>::new(Mode::Hold, Sampling::Auto, patience), Instant::now());
        assert_eq!(track.on_frame(now, FrameSeq(0), 0), Admission::Analyse { deadline: now + Duration::from_millis(19) });
    }

    #[test]
    fn replaced_frame_is_dropped_when_only_analysed_ones_are_shown() {
        let mut b = Bench::new(Mode::Hold, Sampling::Auto);
        (0..3).for_each(|n| _ = b.frame(n * 33, n));
        b.track.on_lost(FrameSeq(1), DropReason::Replaced);
        assert_eq!((b.track.outstanding(b.at(69)), b.track.outstanding(b.at(1000)), b.track.outstanding(b.at(1066))), (2, 1, 0));
        b.analysis(70, 0);
        b.analysis(80, 2);
        assert_eq!(b.poll(80), [(0, Ok(Some(0))), (1, Err(DropReason::Replaced)), (2, Ok(Some(2)))]);
    }

    #[test]
    fn frames_between_samples_reuse_the_newest_analysis() {
        let mut b = Bench::new(REUSE, Sampling::Every(3.try_into().unwrap()));
        b.frame(0, 0);
        b.analysis(5, 0);
        assert_eq!(b.poll(5), [(0, Ok(Some(0)))]);
        assert_eq!(b.frame(33, 1), Admission::Leave);
        assert_eq!(b.poll(33), [(1, Ok(Some(0)))]);
        assert_eq!(b.track.counts().reused, 1);
    }

    #[test]
    fn reuse_waits_for_its_own_analysis_while_that_is_quick() {
        let mut b = Bench::new(REUSE, Sampling::Auto);
        b.frame(0, 0);
        b.analysis(5, 0);
        assert_eq!(b.poll(5), [(0, Ok(Some(0)))]);
        b.frame(33, 1);
        assert_eq!(b.poll(34), []);
        assert_eq!(b.track.next_wakeup(), Some(b.at(63)));
        b.analysis(40, 1);
        assert_eq!(b.poll(40), [(1, Ok(Some(1)))]);
    }

    #[test]
    fn reuse_shows_every_frame_at_once_when_models_are_slow() {
        let mut b = Bench::new(REUSE, Sampling::Auto);
        b.frame(0, 0);
        b.analysis(150, 0);
        assert_eq!(b.poll(150), [(0, Ok(Some(0)))]);
        b.frame(166, 1);
        assert_eq!(b.poll(166), [(1, Ok(Some(0)))]);
        b.frame(199, 2);
        assert_eq!(b.poll(199), [(2, Ok(Some(0)))]);
        b.analysis(240, 1);
        b.frame(241, 3);
        assert_eq!(b.poll(241), [(3, Ok(Some(1)))]);
    }

    #[test]
    fn analysis_that_is_too_old_is_not_reused() {
        let mut b = Bench::new(REUSE, Sampling::Every(9.try_into().unwrap()));
        b.frame(0, 0);
        b.analysis(5, 0);
        b.poll(5);
        b.frame(200, 1);
        b.frame(201, 2);
        assert_eq!(b.poll(201), [(1, Ok(Some(0))), (2, Err(DropReason::NoAnalysis))]);
    }

    #[test]
    fn a_change_never_paints_with_an_analysis_from_before() {
        let mut b = Bench::new(REUSE, Sampling::Every(3.try_into().unwrap()));
        b.frame(0, 0);
        b.analysis(5, 0);
        b.poll(5);
        assert_eq!(b.track.change(REUSE), Generation(1));
        assert!(matches!(b.frame(33, 1), Admission::Analyse { .. }), "the first frame of a change is analysed");
        b.frame(66, 2);
        assert_eq!(b.poll(70), []);
        b.analysis(71, 1);
        assert_eq!(b.poll(71), [(1, Ok(Some(1))), (2, Ok(Some(1)))]);
    }

    #[test]
    fn a_turned_frame_is_never_painted_with_an_analysis_from_before() {
        let mut b = Bench::new(REUSE, Sampling::Every(3.try_into().unwrap()));
        b.frame(0, 0);
        b.analysis(5, 0);
        assert_eq!(b.poll(5), [(0, Ok(Some(0)))]);
        b.frame(33, 1);
        b.track.on_view(View(1));
        assert!(matches!(b.frame(66, 2), Admission::Analyse { .. }), "the first frame of a view is analysed");
        b.track.on_view(View(1));
        assert_eq!(b.frame(99, 3), Admission::Leave);
        assert_eq!(b.poll(100), [(1, Ok(Some(0)))], "the frame before the turn has the earlier one");
        b.analysis(110, 2);
        assert_eq!(b.poll(110), [(2, Ok(Some(2))), (3, Ok(Some(2)))]);
        b.track.on_view(View(2));
        b.frame(133, 4);
        b.track.on_lost(FrameSeq(4), DropReason::Replaced);
        assert_eq!(b.poll(133), [(4, Err(DropReason::Replaced))], "rather none than a foreign one");
        assert_eq!(b.track.generation(), Generation(0));
    }

    #[test]
    fn full_playout_gives_up_the_oldest() {
        let mut b = Bench::new(Mode::Hold, Sampling::Auto);
        (0..Track::<u64, u64>::MAX_WAITING as u64).for_each(|n| _ = b.frame(n, n));
        assert_eq!(b.poll(100), []);
        b.frame(101, 1000);
        assert_eq!(b.track.counts().dropped(DropReason::PlayoutFull), 1);
        b.analysis(102, 1);
        assert_eq!(b.poll(102), [(1, Ok(Some(1)))]);
    }

    #[test]
    fn end_counts_what_still_waits() {
        let mut b = Bench::new(Mode::Hold, Sampling::Auto);
        b.frame(0, 0);
        b.frame(33, 1);
        b.track.end();
        assert_eq!((b.track.counts().dropped(DropReason::TrackEnded), b.track.in_flight()), (2, 0));
    }
}
