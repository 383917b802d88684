//! The analyses of one frame for a chain of effects: handed out together, shown when all are there.
//!
//! Each effect of a chain that looks at the source has a line of its own to the workers, so that effects, queues and workers know nothing of
//! chains. What is lost for one is lost for the frame. One frame is under way at a time and the newest waits: otherwise a busy worker
//! would analyse one frame for one effect and the next for another, and never finish any.
//! It knows frames by their numbers; time is an argument. Frames with a single analysis do not come here.

use std::time::Instant;

use ooblex_pipeline::{Analysis, FrameSeq};

/// The frames of one track. `J` is what is handed to a worker.
pub(super) struct Gather<J> {
    under_way: Option<UnderWay>,
    waiting: Option<(FrameSeq, Instant, Vec<J>)>,
}

struct UnderWay {
    seq: FrameSeq,
    /// After this nobody waits for it any more.
    deadline: Instant,
    analyses: Vec<Option<Analysis>>,
}

/// What is to be done with a new frame.
pub(super) struct Admitted<J> {
    /// To be handed to workers now.
    pub(super) submit: Vec<J>,
    /// The frame that it took the place of, before any worker had it.
    pub(super) replaced: Option<FrameSeq>,
}

/// What an analysis makes of its frame.
#[derive(Debug, PartialEq)]
pub(super) enum Gathered {
    /// All analyses of the frame are there, in order.
    Whole(Vec<Analysis>),
    /// Others are still to come.
    Partial,
    /// The frame is not under way here, and this is its analysis.
    Foreign(Analysis),
}

impl<J> Gather<J> {
    pub(super) fn new() -> Self {
        Self { under_way: None, waiting: None }
    }

    /// Takes the jobs of a new frame, one for each analysis that it needs. A frame whose deadline has passed is under way no more: the word
    /// of its end may have been lost.
    pub(super) fn admit(&mut self, now: Instant, seq: FrameSeq, deadline: Instant, jobs: Vec<J>) -> Admitted<J> {
        let is_busy = self.under_way.as_ref().is_some_and(|under_way| now < under_way.deadline);
        let replaced = self.waiting.take().map(|(seq, ..)| seq);
        if is_busy {
            self.waiting = Some((seq, deadline, jobs));
            return Admitted { submit: Vec::new(), replaced };
        }
        self.begin(seq, deadline, jobs.len());
        Admitted { submit: jobs, replaced }
    }

    /// The analysis for effect number `lane` of those that need one came back.
    pub(super) fn on_analysis(&mut self, seq: FrameSeq, lane: usize, analysis: Analysis) -> Gathered {
        let Some(under_way) = self.under_way.as_mut().filter(|under_way| under_way.seq == seq) else { return Gathered::Foreign(analysis) };
        if let Some(place) = under_way.analyses.get_mut(lane) {
            *place = Some(analysis);
        }
        if under_way.analyses.iter().any(Option::is_none) {
            return Gathered::Partial;
        }
        Gathered::Whole(self.under_way.take().into_iter().flat_map(|under_way| under_way.analyses).flatten().collect())
    }

    /// One of the analyses of a frame will not come.
    pub(super) fn on_lost(&mut self, seq: FrameSeq) {
        self.under_way.take_if(|under_way| under_way.seq == seq);
    }

    /// The frame that waited, when its turn has come.
    pub(super) fn next(&mut self) -> Vec<J> {
        if self.under_way.is_some() {
            return Vec::new();
        }
        let Some((seq, deadline, jobs)) = self.waiting.take() else { return Vec::new() };
        self.begin(seq, deadline, jobs.len());
        jobs
    }

    fn begin(&mut self, seq: FrameSeq, deadline: Instant, analyses: usize) {
        self.under_way = Some(UnderWay { seq, deadline, analyses: vec![None; analyses] });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ooblex_pipeline::Mask;

    use super::*;

    fn analysis(value: u8) -> Analysis {
        Analysis::Mask(Mask { width: 1, height: 1, probability: vec![value] })
    }

    /// A frame a millisecond, each with a second's time.
    fn admit(gather: &mut Gather<char>, start: Instant, seq: u64, jobs: &str) -> (String, Option<FrameSeq>) {
        let now = start + Duration::from_millis(seq);
        let admitted = gather.admit(now, FrameSeq(seq), now + Duration::from_secs(1), jobs.chars().collect());
        (admitted.submit.into_iter().collect(), admitted.replaced)
    }

    #[test]
    fn a_frame_is_whole_when_all_its_analyses_are_there_in_whatever_order() {
        let (mut gather, start) = (Gather::new(), Instant::now());
        assert_eq!(admit(&mut gather, start, 1, "ab"), ("ab".into(), None));
        assert_eq!(gather.on_analysis(FrameSeq(1), 1, analysis(2)), Gathered::Partial);
        assert_eq!(gather.on_analysis(FrameSeq(1), 7, analysis(9)), Gathered::Partial, "no such effect");
        assert_eq!(gather.on_analysis(FrameSeq(1), 0, analysis(1)), Gathered::Whole(vec![analysis(1), analysis(2)]));
        assert_eq!(gather.on_analysis(FrameSeq(1), 0, analysis(1)), Gathered::Foreign(analysis(1)), "only once");
    }

    #[test]
    fn the_newest_frame_waits_until_the_one_under_way_is_whole_or_lost() {
        let (mut gather, start) = (Gather::new(), Instant::now());
        admit(&mut gather, start, 1, "ab");
        assert_eq!(admit(&mut gather, start, 2, "cd"), (String::new(), None));
        assert_eq!(admit(&mut gather, start, 3, "ef"), (String::new(), Some(FrameSeq(2))));
        gather.on_analysis(FrameSeq(1), 0, analysis(1));
        gather.on_lost(FrameSeq(2));
        assert!(gather.next().is_empty());
        gather.on_lost(FrameSeq(1));
        assert_eq!(gather.next(), ['e', 'f']);
        assert!(gather.next().is_empty());
    }

    #[test]
    fn a_frame_that_nobody_answers_for_stops_the_next_ones_only_until_its_deadline() {
        let (mut gather, start) = (Gather::new(), Instant::now());
        admit(&mut gather, start, 0, "ab");
        assert_eq!(admit(&mut gather, start, 999, "cd"), (String::new(), None));
        assert_eq!(admit(&mut gather, start, 1000, "ef"), ("ef".into(), Some(FrameSeq(999))));
    }
}
