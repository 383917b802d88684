//! The analysis side of a track: which frames are analysed and shown ([`Track`]), and the jobs that
//! its branches hand to workers.
//!
//! Call [`AnalysisSide::admit`] for each frame, [`AnalysisSide::submit`] with the inputs that were
//! prepared for it, and [`AnalysisSide::on_completion`] for each completion; hand the jobs that
//! they return to the broker. Then ask [`Track::poll`] what has become of the oldest frame. Time is
//! an argument.

use std::sync::Arc;
use std::time::Instant;

use ooblex_pipeline::{
    Admission, Analysis, Completion, DropReason, FrameSeq, I420, Job, MediaTime, ModelInput, Outcome, Size, Track, TrackId, View,
};
use tracing::debug;

use super::join::{BranchJoin, Joined};
use crate::ids::SessionId;
use crate::settings::Settings;

/// A decoded frame that waits for its analysis.
pub(super) struct Pending {
    pub(super) picture: I420,
    pub(super) capture: MediaTime,
    /// When the last packet of its frame arrived.
    pub(super) arrived: Instant,
    /// How often the camera was turned before it.
    pub(super) view: View,
    /// The settings that were in force when it was admitted.
    pub(super) settings: Arc<Settings>,
}

/// The analyses of one frame.
#[derive(Debug)]
pub(super) struct Analysed {
    /// One for each effect of the chain that needs a worker.
    pub(super) analyses: Vec<Analysis>,
    /// When the last of them came back.
    pub(super) returned: Instant,
}

/// A frame that is to be analysed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) seq: FrameSeq,
    /// The result is of no use after this time.
    pub(super) deadline: Instant,
}

/// The analysis side of one track.
pub(super) struct AnalysisSide {
    session: SessionId,
    /// The state machine that decides which frames are analysed and which are shown.
    pub(super) track: Track<Pending, Analysed>,
    join: BranchJoin<Job>,
    next_seq: FrameSeq,
    /// The size of the largest picture that models got last.
    model_input: Option<Size>,
}

impl AnalysisSide {
    pub(super) fn new(session: SessionId, track: Track<Pending, Analysed>) -> Self {
        Self { session, track, join: BranchJoin::new(), next_seq: FrameSeq(0), model_input: None }
    }

    /// Admits a frame. Returns it if it is to be analysed; it is then the one that was admitted
    /// last.
    pub(super) fn admit(&mut self, now: Instant, pending: Pending) -> Option<Wanted> {
        let seq = self.next_seq;
        self.next_seq.0 += 1;
        self.track.on_view(pending.view);
        match self.track.on_frame(now, seq, pending) {
            Admission::Analyse { deadline } => Some(Wanted { seq, deadline }),
            Admission::Leave => None,
        }
    }

    /// Makes the jobs of a frame from its inputs, each with the index of its effect in the chain.
    /// Returns the jobs to hand to workers now.
    pub(super) fn submit(&mut self, now: Instant, wanted: Wanted, inputs: Vec<(usize, ModelInput)>, settings: &Settings) -> Vec<Job> {
        let Wanted { seq, deadline } = wanted;
        self.model_input = inputs.iter().map(|(_, input)| Size::new(input.picture.width, input.picture.height)).max();
        let job = |(branch, (part, input)): (usize, (usize, _))| Job {
            track: self.session.branch(branch),
            seq,
            effect: settings.effect.parts()[part].queue(),
            input,
            submitted: now,
            deadline,
        };
        let jobs: Vec<_> = inputs.into_iter().enumerate().map(job).collect();
        if jobs.len() < 2 {
            return jobs;
        }
        let admitted = self.join.admit(now, seq, deadline, jobs);
        if let Some(replaced) = admitted.replaced {
            self.track.on_lost(replaced, DropReason::Replaced);
        }
        admitted.submit
    }

    /// Takes the completion of a job. Returns the jobs of the frame that waited for it, to hand to
    /// workers now.
    pub(super) fn on_completion(&mut self, now: Instant, completion: Completion) -> Vec<Job> {
        let seq = completion.seq;
        match completion.outcome {
            Outcome::Analysed { analysis, .. } => self.on_analysis(now, completion.track, seq, analysis),
            Outcome::Replaced => self.on_lost(seq, DropReason::Replaced),
            Outcome::Expired => self.on_lost(seq, DropReason::Expired),
            Outcome::Lost => self.on_lost(seq, DropReason::Lost),
            Outcome::Undelivered { reason } => {
                debug!(session = %self.session, %seq, reason, "a frame reached no worker");
                self.on_lost(seq, DropReason::Undelivered);
            }
            Outcome::Failed { reason } => {
                debug!(session = %self.session, %seq, reason, "analysis failed");
                self.on_lost(seq, DropReason::AnalysisFailed);
            }
        }
        self.join.next()
    }

    /// Returns the size of the largest picture that models got last.
    pub(super) fn model_input(&self) -> Option<Size> {
        self.model_input
    }

    /// Takes the analysis of one branch. The frame is ready when it was the last one missing.
    fn on_analysis(&mut self, now: Instant, branch: TrackId, seq: FrameSeq, analysis: Analysis) {
        let Some(index) = self.session.branches().position(|id| id == branch) else { return };
        let analyses = match self.join.on_analysis(seq, index, analysis) {
            Joined::Whole(analyses) => analyses,
            // It is the only one of its frame, or it comes too late, which the track knows.
            Joined::Foreign(analysis) if index == 0 => vec![analysis],
            Joined::Foreign(_) | Joined::Partial => return,
        };
        self.track.on_analysis(now, seq, Analysed { analyses, returned: now });
    }

    fn on_lost(&mut self, seq: FrameSeq, reason: DropReason) {
        self.join.on_lost(seq);
        self.track.on_lost(seq, reason);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ooblex_pipeline::{Mask, Mode, Patience, Release, Rgb, Sampling};
    use serde_json::Value;

    use super::*;
    use crate::settings::Catalogue;
    use ooblex_config::Config;

    const SESSION: SessionId = SessionId(7);

    /// The analysis side with literal times in milliseconds, under an effect or a chain whose
    /// models get small pictures.
    struct Bench {
        side: AnalysisSide,
        settings: Arc<Settings>,
        start: Instant,
    }

    impl Bench {
        fn new(effect: &str) -> Self {
            let settings = Catalogue::new(&Config::default()).unwrap().settings(Some(effect), &Value::Null).unwrap();
            let track = Track::new(Mode::Hold, Sampling::Auto, Patience::default());
            Self { side: AnalysisSide::new(SESSION, track), settings: Arc::new(settings), start: Instant::now() }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        /// Admits and submits a frame. Returns its jobs, as branch and frame.
        fn frame(&mut self, ms: u64) -> Vec<(TrackId, u64)> {
            let now = self.at(ms);
            let picture = I420::grey(64, 48, 90);
            let pending = Pending { picture, capture: MediaTime(ms), arrived: now, view: View(0), settings: self.settings.clone() };
            let wanted = self.side.admit(now, pending).expect("all frames are analysed");
            let settings = self.settings.clone();
            let parts = settings.effect.parts().iter().enumerate().filter(|(_, effect)| effect.needs_worker());
            let inputs = parts.map(|(part, _)| (part, input(16 << part, 16))).collect();
            named(self.side.submit(now, wanted, inputs, &settings))
        }

        /// Completes the job of a branch. Returns the jobs that follow.
        fn complete(&mut self, ms: u64, branch: usize, seq: u64, outcome: Outcome) -> Vec<(TrackId, u64)> {
            let now = self.at(ms);
            named(self.side.on_completion(now, Completion { track: SESSION.branch(branch), seq: FrameSeq(seq), outcome }))
        }

        /// Returns what is released at this time: the capture time of a frame with the number of
        /// its analyses, or why it was dropped.
        fn poll(&mut self, ms: u64) -> Vec<(u64, Result<usize, DropReason>)> {
            let now = self.at(ms);
            let release = |release: Release<Pending, Analysed>| match release {
                Release::Paint { frame, analysis, .. } => (frame.capture.0, Ok(analysis.map_or(0, |analysed| analysed.analyses.len()))),
                Release::Drop { frame, reason, .. } => (frame.capture.0, Err(reason)),
            };
            std::iter::from_fn(|| self.side.track.poll(now)).map(release).collect()
        }
    }

    fn named(jobs: Vec<Job>) -> Vec<(TrackId, u64)> {
        jobs.into_iter().map(|job| (job.track, job.seq.0)).collect()
    }

    fn input(width: u32, height: u32) -> ModelInput {
        let picture = Rgb { width, height, data: vec![0; (width * height * 3) as usize] };
        ModelInput { picture, content: [0, 0, width, height], arguments: Vec::new() }
    }

    fn analysed() -> Outcome {
        let analysis = Analysis::Mask(Mask { width: 1, height: 1, probability: vec![1] });
        Outcome::Analysed { analysis, queued: Duration::ZERO, analysing: Duration::ZERO, computed: Duration::ZERO }
    }

    #[test]
    fn a_frame_with_one_analysis_is_released_when_it_comes_back() {
        let mut b = Bench::new("background_blur");
        assert_eq!(b.frame(0), [(SESSION.track(), 0)]);
        assert_eq!(b.side.model_input(), Some(Size::new(16, 16)));
        assert_eq!(b.frame(33), [(SESSION.track(), 1)], "frames of one branch do not wait for each other");
        assert_eq!(b.complete(50, 0, 0, analysed()), []);
        assert_eq!(b.poll(50), [(0, Ok(1))]);
    }

    #[test]
    fn a_frame_of_a_chain_is_released_when_all_branches_are_back_and_the_newest_follows() {
        let mut b = Bench::new("background_blur+face_detection");
        assert_eq!(b.frame(0), [(SESSION.branch(0), 0), (SESSION.branch(1), 0)]);
        assert_eq!(b.side.model_input(), Some(Size::new(32, 16)), "the larger one");
        assert_eq!(b.frame(33), []);
        assert_eq!(b.frame(66), []);
        assert_eq!(b.complete(70, 1, 0, analysed()), []);
        assert_eq!(b.poll(70), []);
        assert_eq!(b.complete(80, 0, 0, analysed()), [(SESSION.branch(0), 2), (SESSION.branch(1), 2)]);
        assert_eq!(b.poll(80), [(0, Ok(2)), (33, Err(DropReason::Replaced))]);
    }

    #[test]
    fn an_analysis_lost_for_one_branch_loses_the_frame() {
        let mut b = Bench::new("background_blur+face_detection");
        b.frame(0);
        b.frame(33);
        assert_eq!(b.complete(40, 1, 0, Outcome::Lost), [(SESSION.branch(0), 1), (SESSION.branch(1), 1)]);
        assert_eq!(b.complete(50, 0, 0, analysed()), [], "the other one is too late");
        assert_eq!(b.poll(50), [(0, Err(DropReason::Lost))]);
    }

    #[test]
    fn each_outcome_without_an_analysis_has_its_drop_reason() {
        let reason = || "for a test".to_string();
        let outcomes = [
            (Outcome::Replaced, DropReason::Replaced),
            (Outcome::Expired, DropReason::Expired),
            (Outcome::Lost, DropReason::Lost),
            (Outcome::Undelivered { reason: reason() }, DropReason::Undelivered),
            (Outcome::Failed { reason: reason() }, DropReason::AnalysisFailed),
        ];
        for (outcome, reason) in outcomes {
            let mut b = Bench::new("background_blur");
            b.frame(0);
            b.complete(10, 0, 0, outcome);
            assert_eq!(b.poll(10), [(0, Err(reason))]);
        }
    }

    #[test]
    fn the_completion_of_a_foreign_track_is_ignored() {
        let mut b = Bench::new("background_blur");
        b.frame(0);
        let completion = Completion { track: TrackId(99), seq: FrameSeq(0), outcome: analysed() };
        assert!(b.side.on_completion(b.at(10), completion).is_empty());
        assert_eq!(b.poll(10), []);
    }
}
