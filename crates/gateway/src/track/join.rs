//! The join of a chain's branches: the analyses of one frame are handed out together, and the frame
//! is ready when all are back.
//!
//! Each effect of a chain that looks at the source has a branch of its own: a queue to the workers,
//! so that effects, queues and workers know nothing of chains. An analysis that is lost for one
//! branch loses the frame. One frame is under way at a time, and the newest waits. Otherwise a busy
//! worker would analyse one frame for one effect and the next frame for another, and complete none.
//! Frames are known by their numbers; time is an argument. Frames with a single analysis do not
//! come here.

use std::time::Instant;

use ooblex_pipeline::{Analysis, FrameSeq};

/// The join of one track. `J` is a job for a worker.
pub(super) struct BranchJoin<J> {
    under_way: Option<UnderWay>,
    waiting: Option<Waiting<J>>,
}

/// The newest frame, while another one is under way.
struct Waiting<J> {
    seq: FrameSeq,
    deadline: Instant,
    jobs: Vec<J>,
}

/// The frame whose jobs workers have.
struct UnderWay {
    seq: FrameSeq,
    /// After this time the frame no longer keeps the next one waiting.
    deadline: Instant,
    analyses: Vec<Option<Analysis>>,
}

/// The consequences of a new frame.
pub(super) struct Admitted<J> {
    /// Jobs to hand to workers now.
    pub(super) submit: Vec<J>,
    /// The waiting frame that it replaces. No worker has had it.
    pub(super) replaced: Option<FrameSeq>,
}

/// The state of a frame after one of its analyses.
#[derive(Debug, PartialEq)]
pub(super) enum Joined {
    /// All analyses of the frame are there, in order.
    Whole(Vec<Analysis>),
    /// Other analyses are still missing.
    Partial,
    /// The frame is not under way here. This is its analysis.
    Foreign(Analysis),
}

impl<J> BranchJoin<J> {
    pub(super) fn new() -> Self {
        Self { under_way: None, waiting: None }
    }

    /// Takes the jobs of a new frame, one for each branch. A frame whose deadline has passed is no
    /// longer under way: the message of its end may have been lost.
    pub(super) fn admit(&mut self, now: Instant, seq: FrameSeq, deadline: Instant, jobs: Vec<J>) -> Admitted<J> {
        let is_busy = self.under_way.as_ref().is_some_and(|under_way| now < under_way.deadline);
        let replaced = self.waiting.take().map(|waiting| waiting.seq);
        if is_busy {
            self.waiting = Some(Waiting { seq, deadline, jobs });
            return Admitted { submit: Vec::new(), replaced };
        }
        self.begin(seq, deadline, jobs.len());
        Admitted { submit: jobs, replaced }
    }

    /// Takes the analysis of a branch.
    pub(super) fn on_analysis(&mut self, seq: FrameSeq, branch: usize, analysis: Analysis) -> Joined {
        let Some(under_way) = self.under_way.as_mut().filter(|under_way| under_way.seq == seq) else { return Joined::Foreign(analysis) };
        if let Some(slot) = under_way.analyses.get_mut(branch) {
            *slot = Some(analysis);
        }
        if under_way.analyses.iter().any(Option::is_none) {
            return Joined::Partial;
        }
        Joined::Whole(self.under_way.take().into_iter().flat_map(|under_way| under_way.analyses).flatten().collect())
    }

    /// Gives up a frame, since one of its analyses will not come.
    pub(super) fn on_lost(&mut self, seq: FrameSeq) {
        self.under_way.take_if(|under_way| under_way.seq == seq);
    }

    /// Returns the jobs of the waiting frame, once no other is under way.
    pub(super) fn next(&mut self) -> Vec<J> {
        if self.under_way.is_some() {
            return Vec::new();
        }
        let Some(Waiting { seq, deadline, jobs }) = self.waiting.take() else { return Vec::new() };
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

    /// Admits frame number `seq` at that many milliseconds, with a deadline one second later.
    fn admit(join: &mut BranchJoin<char>, start: Instant, seq: u64, jobs: &str) -> (String, Option<FrameSeq>) {
        let now = start + Duration::from_millis(seq);
        let admitted = join.admit(now, FrameSeq(seq), now + Duration::from_secs(1), jobs.chars().collect());
        (admitted.submit.into_iter().collect(), admitted.replaced)
    }

    #[test]
    fn a_frame_is_whole_when_all_its_analyses_are_there_in_any_order() {
        let (mut join, start) = (BranchJoin::new(), Instant::now());
        assert_eq!(admit(&mut join, start, 1, "ab"), ("ab".into(), None));
        assert_eq!(join.on_analysis(FrameSeq(1), 1, analysis(2)), Joined::Partial);
        assert_eq!(join.on_analysis(FrameSeq(1), 7, analysis(9)), Joined::Partial, "no such effect");
        assert_eq!(join.on_analysis(FrameSeq(1), 0, analysis(1)), Joined::Whole(vec![analysis(1), analysis(2)]));
        assert_eq!(join.on_analysis(FrameSeq(1), 0, analysis(1)), Joined::Foreign(analysis(1)), "only once");
    }

    #[test]
    fn the_newest_frame_waits_until_the_one_under_way_is_whole_or_lost() {
        let (mut join, start) = (BranchJoin::new(), Instant::now());
        admit(&mut join, start, 1, "ab");
        assert_eq!(admit(&mut join, start, 2, "cd"), (String::new(), None));
        assert_eq!(admit(&mut join, start, 3, "ef"), (String::new(), Some(FrameSeq(2))));
        join.on_analysis(FrameSeq(1), 0, analysis(1));
        join.on_lost(FrameSeq(2));
        assert!(join.next().is_empty());
        join.on_lost(FrameSeq(1));
        assert_eq!(join.next(), ['e', 'f']);
        assert!(join.next().is_empty());
    }

    #[test]
    fn a_frame_without_an_answer_stops_the_next_ones_only_until_its_deadline() {
        let (mut join, start) = (BranchJoin::new(), Instant::now());
        admit(&mut join, start, 0, "ab");
        assert_eq!(admit(&mut join, start, 999, "cd"), (String::new(), None));
        assert_eq!(admit(&mut join, start, 1000, "ef"), ("ef".into(), Some(FrameSeq(999))));
    }
}
