//! What a track's thread does with what comes in: prepare, paint, send, in the order that [`ooblex_pipeline::Track`] says.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ooblex_broker::Service;
use ooblex_codec::{Decoder, Rotation};
use ooblex_effects::{ChainPainter, ComposeError};
use ooblex_pipeline::{
    Admission, Analysis, Completion, DropReason, EffectName, EncodedFrame, FrameCounts, FrameSeq, Generation, I420, Job, MediaTime,
    ModelInput, Outcome, Release, Track, TrackId,
};
use serde_json::Value;
use tracing::debug;

use super::context::Context;
use super::egress::Egress;
use super::frame_rate::FrameRateController;
use super::freezes::FreezeDetector;
use super::join::{BranchJoin, Joined};
use super::messages::{TrackInput, TrackOutput, TrackSink};
use super::quality::QualityController;
use super::report::Report;
use super::stats::TrackStats;
use crate::auth::Restrictions;
use crate::control::{self, Request};
use crate::cpu::{CpuMeter, Ticket};
use crate::events::{Events, Kind};
use crate::ids::SessionId;
use crate::labels::Stage;
use crate::problem::{Problem, ProblemKind};
use crate::settings::{ChangedBy, Settings};

/// Changes that wait for the first frame that has them.
const MAX_ACKS: usize = 64;
/// Between two reports.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Without a processed frame for this long, a browser that needs a picture gets a held one or a placeholder.
const STARVED_AFTER: Duration = Duration::from_millis(250);

/// A compressed frame that waits for a core.
pub(super) struct Arrived {
    pub(super) frame: EncodedFrame,
    pub(super) at: Instant,
    pub(super) rotation: Option<Rotation>,
    /// Frames before it were lost.
    pub(super) gap: bool,
}

/// What the browser knows.
#[derive(Default)]
pub(super) struct NotifiedState {
    /// It can be talked to.
    pub(super) open: bool,
    /// The effect of which it was last told that it is not served, and why; `None`: as far as it knows all is well.
    pub(super) unserved: Option<(EffectName, Service)>,
    /// Who changed the settings last, before the browser could be talked to.
    pub(super) changed: Option<ChangedBy>,
}

/// A frame on its way through the track.
pub(super) struct Pending {
    pub(super) picture: I420,
    pub(super) capture: MediaTime,
    pub(super) arrived: Instant,
    pub(super) settings: Arc<Settings>,
}

/// An analysis with what it took.
#[derive(Debug)]
pub(super) struct Analysed {
    /// One for each effect of the chain that needs a worker.
    analyses: Vec<Analysis>,
    returned: Instant,
}

/// The state of the thread.
pub(super) struct Driver {
    pub(super) context: Arc<Context>,
    /// Where its outputs go.
    pub(super) sink: Arc<dyn TrackSink>,
    id: SessionId,
    pub(super) stats: Arc<TrackStats>,
    pub(super) events: Events,
    pub(super) track: Track<Pending, Analysed>,
    next_seq: FrameSeq,
    pub(super) settings: Arc<Settings>,
    /// What the session may have.
    pub(super) restrictions: Arc<Restrictions>,
    pub(super) painters: HashMap<EffectName, ChainPainter>,
    /// The frames of a chain whose analyses are gathered.
    join: BranchJoin<Job>,
    acks: VecDeque<(Generation, Value)>,
    pub(super) decoder: Option<Decoder>,
    pub(super) rotation: Rotation,
    pub(super) egress: Egress,
    /// Set when the last picture went out; the picture, and the settings that it was made under.
    shown: Option<Shown>,
    /// When to send a held picture or a placeholder if no processed one comes.
    starved_at: Option<Instant>,
    /// The newest frame that was dropped, as long as no picture went out at all: a placeholder is made of it.
    unshown: Option<Pending>,
    pub(super) placeholder: bool,
    pub(super) notified: NotifiedState,
    pub(super) last_asked: Option<Instant>,
    /// Its ticket in the queue for permits to compute.
    pub(super) ticket: Arc<Ticket>,
    pub(super) frame_rate: FrameRateController,
    pub(super) meter: CpuMeter,
    /// Cores that it has used in the last second, and that it may use.
    pub(super) cores: (f64, f64),
    /// It wants more than it may use.
    pub(super) is_throttled: bool,
    pub(super) arrived: VecDeque<Arrived>,
    pub(super) too_large: Option<(u32, u32)>,
    /// Keyframe requests since the last picture that were followed by a refused frame,
    pub(super) refusals: u32,
    /// and the time of the last of them.
    pub(super) refused_after: Option<Instant>,
    pub(super) report: Report,
    pub(super) freezes: FreezeDetector,
    /// When the connection stood.
    connected: Instant,
    pub(super) quality: QualityController,
    /// Columns and rows of what the models got last.
    pub(super) model_input: Option<(u32, u32)>,
}

struct Shown {
    picture: I420,
    settings: Arc<Settings>,
    /// Not a processed picture, but one that is shown for want of any.
    stand_in: bool,
}

impl Driver {
    pub(super) fn new(
        context: Arc<Context>,
        id: SessionId,
        settings: Settings,
        egress: Egress,
        stats: Arc<TrackStats>,
        events: Events,
        ticket: Arc<Ticket>,
        sink: Arc<dyn TrackSink>,
    ) -> Self {
        let frames = &context.config.frames;
        let track = Track::new(settings.mode, frames.sampling(), frames.patience());
        let report = Report::new(Instant::now(), FrameCounts::default(), context.broker.capacity().busy);
        Self {
            context,
            sink,
            id,
            stats,
            events,
            track,
            next_seq: FrameSeq(0),
            settings: Arc::new(settings),
            restrictions: Arc::default(),
            painters: HashMap::new(),
            join: BranchJoin::new(),
            acks: VecDeque::new(),
            decoder: None,
            rotation: Rotation::None,
            egress,
            shown: None,
            starved_at: None,
            unshown: None,
            placeholder: false,
            notified: NotifiedState::default(),
            last_asked: None,
            ticket,
            frame_rate: FrameRateController::new(),
            meter: CpuMeter::start(),
            cores: (0.0, f64::INFINITY),
            is_throttled: false,
            arrived: VecDeque::new(),
            too_large: None,
            refusals: 0,
            refused_after: None,
            report,
            freezes: FreezeDetector::default(),
            connected: Instant::now(),
            quality: QualityController::new(),
            model_input: None,
        }
    }

    /// The same, held to restrictions.
    pub(super) fn held_to(mut self, restrictions: Arc<Restrictions>) -> Self {
        self.restrictions = restrictions;
        self
    }

    pub(super) fn next_wakeup(&self) -> Instant {
        let times = [self.track.next_wakeup(), self.starved_at, Some(self.report.at + REPORT_EVERY)];
        times.into_iter().flatten().min().expect("the next report always comes")
    }

    /// Takes note of something that came in.
    pub(super) fn on_input(&mut self, input: TrackInput) {
        match input {
            TrackInput::Frame { frame, arrived, rotation, gap } => self.arrived.push_back(Arrived { frame, at: arrived, rotation, gap }),
            TrackInput::Completed { completion, at } => self.on_completion(completion, at),
            TrackInput::Codec(codec) => self.egress.start(codec),
            TrackInput::Change { settings, by } => self.change(settings, Value::Null, by),
            TrackInput::Control(text) => self.on_control(text.as_deref()),
            TrackInput::ControlOpen => self.on_control_open(),
            TrackInput::ServiceChanged => self.review_service(),
            TrackInput::Wake => {}
            TrackInput::Connected => self.connected = Instant::now(),
            TrackInput::KeyframeWanted => {
                self.context.metrics.on_keyframe_wanted();
                self.egress.want_keyframe();
                self.starved_at.get_or_insert(Instant::now() + STARVED_AFTER);
            }
            TrackInput::Estimate(bps) => self.egress.on_estimate(bps),
            TrackInput::BrokenDown(bps) => self.egress.on_breakdown(Instant::now(), bps),
            TrackInput::Feedback(feedback) => self.egress.on_feedback(&feedback),
            TrackInput::Resumed => {
                self.ask_for_keyframe();
                self.egress.on_resumed();
            }
        }
    }

    // Effects and parameters

    fn on_control(&mut self, text: Option<&[u8]>) {
        let (id, changed) = match Request::parse(text) {
            Ok(Request::SetEffect { effect, params, id }) => {
                let changed = self.restrictions.change(&self.context.catalogue, &self.settings, effect.as_deref(), &params);
                (id, changed)
            }
            Err(problem) => (Value::Null, Err(problem)),
        };
        match changed {
            Ok(settings) => self.change(settings, id, ChangedBy::Channel),
            Err(problem) => self.say(control::error(&id, &problem)),
        }
    }

    /// Puts other settings in force; with an `id`, the first frame that has them is acknowledged.
    fn change(&mut self, settings: Settings, id: Value, by: ChangedBy) {
        debug!(session = %self.id, effect = %settings.effect.name(), params = %settings.parameters.to_json(), ?by, "change");
        let generation = self.track.change(settings.mode);
        self.sink.settings_changed(&settings);
        let is_other = !settings.is_same(&self.settings);
        self.settings = Arc::new(settings);
        if is_other {
            self.tell_settings(by);
        }
        self.review_service();
        if id == Value::Null {
            return;
        }
        self.acks.push_back((generation, id));
        if self.acks.len() > MAX_ACKS
            && let Some((_, id)) = self.acks.pop_front()
        {
            let detail = format!("{MAX_ACKS} newer changes came before a frame had this one: send fewer changes, and video");
            self.say(control::error(&id, &Problem::new(ProblemKind::Unavailable, detail)));
        }
    }

    fn painter(&mut self, settings: &Settings) -> &mut ChainPainter {
        self.painters.entry(settings.effect.version()).or_insert_with(|| settings.effect.painter())
    }

    // From a picture to a job

    pub(super) fn admit(&mut self, mut pending: Pending) {
        let now = Instant::now();
        self.freezes.on_frame(now);
        pending.settings = self.settings.clone();
        if let Some(bps) = self.egress.on_size((pending.picture.width(), pending.picture.height())) {
            self.send(TrackOutput::DesiredBitrate(bps));
        }
        if self.shown.is_none() {
            self.starved_at.get_or_insert(now + STARVED_AFTER);
        }
        let seq = self.next_seq;
        self.next_seq.0 += 1;
        let Admission::Analyse { deadline } = self.track.on_frame(now, seq, pending) else { return };
        if let Some(reason) = self.unserved() {
            self.track.on_lost(seq, reason);
            return self.review_service();
        }
        let settings = self.settings.clone();
        let painter = self.painters.entry(settings.effect.version()).or_insert_with(|| settings.effect.painter());
        let Some(pending) = self.track.last_admitted() else { return };
        let prepared = catch_unwind(AssertUnwindSafe(|| painter.prepare(&pending.picture, &settings.parameters)));
        let submitted = Instant::now();
        self.stats.on_stage(Stage::Prepare, submitted - now);
        match prepared {
            Ok(inputs) => self.submit(seq, inputs, submitted, deadline),
            Err(_) => {
                self.painters.remove(&settings.effect.version());
                self.track.on_lost(seq, DropReason::AnalysisFailed);
            }
        }
    }

    /// Hands out what the effects want analysed, each on its own line to the workers.
    fn submit(&mut self, seq: FrameSeq, inputs: Vec<(usize, ModelInput)>, submitted: Instant, deadline: Instant) {
        let (id, parts) = (self.id, self.settings.clone());
        self.model_input = inputs.iter().map(|(_, input)| (input.picture.width, input.picture.height)).max();
        let job = |(branch, (part, input)): (usize, (usize, _))| Job {
            track: id.branch(branch),
            seq,
            effect: parts.effect.parts()[part].queue(),
            input,
            submitted,
            deadline,
        };
        let mut jobs: Vec<_> = inputs.into_iter().enumerate().map(job).collect();
        if jobs.len() > 1 {
            let admitted = self.join.admit(submitted, seq, deadline, jobs);
            if let Some(replaced) = admitted.replaced {
                self.track.on_lost(replaced, DropReason::Replaced);
            }
            jobs = admitted.submit;
        }
        jobs.into_iter().for_each(|job| self.context.broker.submit(job));
    }

    /// The analysis for one effect of the chain came back; the frame is ready when it was the last.
    fn on_analysis(&mut self, completed: TrackId, seq: FrameSeq, analysis: Analysis) {
        let returned = Instant::now();
        let Some(branch) = self.id.branches().position(|branch| branch == completed) else { return };
        let analyses = match self.join.on_analysis(seq, branch, analysis) {
            Joined::Whole(analyses) => analyses,
            // The only one of its frame, or one that comes late, which the track knows.
            Joined::Foreign(analysis) if branch == 0 => vec![analysis],
            Joined::Foreign(_) | Joined::Partial => return,
        };
        self.track.on_analysis(returned, seq, Analysed { analyses, returned });
    }

    fn on_lost(&mut self, seq: FrameSeq, reason: DropReason) {
        self.join.on_lost(seq);
        self.track.on_lost(seq, reason);
    }

    fn on_completion(&mut self, completion: Completion, at: Instant) {
        let seq = completion.seq;
        match completion.outcome {
            Outcome::Analysed { analysis, queued, analysing, computed } => {
                self.stats.on_stage(Stage::Queue, queued);
                self.stats.on_stage(Stage::Analyse, analysing);
                self.meter.on_analysed(computed);
                self.stats.on_stage(Stage::Turn, at.elapsed());
                self.on_analysis(completion.track, seq, analysis);
            }
            Outcome::Replaced => self.on_lost(seq, DropReason::Replaced),
            Outcome::Expired => self.on_lost(seq, DropReason::Expired),
            Outcome::Lost => self.on_lost(seq, DropReason::Lost),
            Outcome::Undelivered { reason } => {
                debug!(session = %self.id, %seq, reason, "a frame reached no worker");
                self.on_lost(seq, DropReason::Undelivered);
            }
            Outcome::Failed { reason } => {
                debug!(session = %self.id, %seq, reason, "analysis failed");
                self.on_lost(seq, DropReason::AnalysisFailed);
            }
        }
        for job in self.join.next() {
            self.context.broker.submit(job);
        }
    }

    // From a result to a compressed frame

    pub(super) fn release(&mut self) {
        while let Some(release) = self.track.poll(Instant::now()) {
            let (seq, generation, frame, analysis, reused) = match release {
                Release::Paint { seq, generation, frame, analysis, reused } => (seq, generation, frame, analysis, reused),
                Release::Drop { frame, .. } => {
                    self.unshown = self.shown.is_none().then_some(frame);
                    continue;
                }
            };
            match self.paint(seq, frame, analysis.as_deref(), reused) {
                Ok((timestamp, settings)) => {
                    self.track.on_painted(reused);
                    self.acknowledge(seq, generation, timestamp, &settings);
                }
                Err(reason) => self.track.on_paint_failed(reason),
            }
        }
    }

    fn paint(
        &mut self,
        seq: FrameSeq,
        frame: Pending,
        analysed: Option<&Analysed>,
        reused: bool,
    ) -> Result<(MediaTime, Arc<Settings>), DropReason> {
        let Pending { mut picture, capture, arrived, settings } = frame;
        if self.egress.is_congested(Instant::now()) {
            return Err(DropReason::Congested);
        }
        let started = Instant::now();
        if let Some(analysed) = analysed.filter(|_| !reused) {
            self.stats.on_stage(Stage::Playout, started.saturating_duration_since(analysed.returned));
        }
        let analyses = analysed.map_or(&[][..], |analysed| &analysed.analyses);
        let painter = self.painter(&settings);
        let composed = catch_unwind(AssertUnwindSafe(|| {
            painter.compose(&mut picture, analyses, &settings.parameters)?;
            Ok(painter.found())
        }));
        let found = match composed {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                let error: ComposeError = error;
                debug!(session = %self.id, %error, "compose failed");
                return Err(DropReason::ComposeFailed);
            }
            Err(_) => {
                self.painters.remove(&settings.effect.version());
                return Err(DropReason::ComposeFailed);
            }
        };
        let composed = Instant::now();
        self.stats.on_stage(Stage::Compose, composed - started);
        let timestamp = self.encode_and_send(&picture, capture, arrived).ok_or(DropReason::EncodeFailed)?;
        self.stats.on_stage(Stage::Encode, composed.elapsed());
        if let Some(found) = found {
            let text = control::detections(seq, timestamp, (picture.width(), picture.height()), &found);
            self.tell(Kind::Detections, Some(seq), text);
        }
        let sent = Instant::now();
        if self.freezes.on_shown(sent, arrived) {
            self.context.metrics.on_first_picture(sent.saturating_duration_since(self.connected));
        }
        self.starved_at = None;
        self.placeholder = false;
        let effect = settings.effect.version();
        let current = self.settings.effect.version();
        self.painters.retain(|name, _| *name == effect || *name == current);
        self.shown = Some(Shown { picture, settings: settings.clone(), stand_in: false });
        self.unshown = None;
        Ok((timestamp, settings))
    }

    /// Returns the timestamp that went out.
    fn encode_and_send(&mut self, picture: &I420, capture: MediaTime, arrived: Instant) -> Option<MediaTime> {
        let frame = self.egress.encode(Instant::now(), picture, capture)?;
        let timestamp = frame.capture;
        self.report.bytes += frame.data.len() as u64;
        if !self.send(TrackOutput::Frame { frame, arrived }) {
            // What comes next builds on a frame that never left.
            self.egress.want_keyframe();
            return None;
        }
        Some(timestamp)
    }

    fn acknowledge(&mut self, seq: FrameSeq, generation: Generation, timestamp: MediaTime, settings: &Settings) {
        while let Some((_, id)) = self.acks.pop_front_if(|(changed, _)| *changed <= generation) {
            self.say(control::ack(&id, settings, generation, seq, timestamp));
        }
    }

    // What is due by the clock

    pub(super) fn upkeep(&mut self) {
        let now = Instant::now();
        if self.starved_at.is_some_and(|at| at <= now) {
            if self.egress.is_congested(Instant::now()) {
                self.starved_at = Some(now + STARVED_AFTER);
            } else {
                self.send_without_analysis(now);
            }
        }
        if now.duration_since(self.report.at) >= REPORT_EVERY {
            self.report(now);
        }
    }

    /// No processed frame came. A browser that has no picture, or can not decode the one it has, gets the last processed
    /// picture again, or one that is safe to show.
    fn send_without_analysis(&mut self, now: Instant) {
        let settings = self.settings.clone();
        let newest = self.track.last_admitted().or(self.unshown.as_ref());
        let capture = self.egress.last_sent().or(newest.map(|pending| pending.capture)).unwrap_or(MediaTime(0));
        let newest = newest.map(|pending| pending.picture.clone()).filter(|_| self.shown.is_none());
        let (picture, stand_in) = match self.shown.take() {
            Some(shown) if Arc::ptr_eq(&shown.settings, &settings) => (shown.picture, shown.stand_in),
            Some(shown) => (self.made_safe(shown.picture, &settings), true),
            None => match newest {
                Some(picture) => (self.made_safe(picture, &settings), true),
                None if self.egress.size() != (0, 0) => (I420::grey(self.egress.size().0, self.egress.size().1, PLACEHOLDER_LUMA), true),
                None => {
                    self.starved_at = None;
                    return;
                }
            },
        };
        self.unshown = None;
        self.encode_and_send(&picture, capture, now);
        self.context.metrics.on_placeholder();
        self.placeholder = stand_in;
        self.starved_at = Some(now + 2 * STARVED_AFTER);
        self.shown = Some(Shown { picture, settings, stand_in });
    }

    fn made_safe(&mut self, mut picture: I420, settings: &Settings) -> I420 {
        let painter = self.painter(settings);
        let painted = catch_unwind(AssertUnwindSafe(|| painter.placeholder(&mut picture, &settings.parameters)));
        match painted {
            Ok(()) => picture,
            Err(_) => I420::grey(picture.width(), picture.height(), PLACEHOLDER_LUMA),
        }
    }

    pub(super) fn id(&self) -> SessionId {
        self.id
    }

    /// Tells the browser something that it may miss, and whoever reads the session's events.
    pub(super) fn tell(&self, kind: Kind, frame: Option<FrameSeq>, text: String) {
        self.events.tell(kind, frame, &text);
        self.send(TrackOutput::Message { text, may_be_missed: kind != Kind::Service });
    }

    pub(super) fn say(&self, text: String) {
        self.send(TrackOutput::Message { text, may_be_missed: false });
    }

    pub(super) fn send(&self, output: TrackOutput) -> bool {
        self.sink.send(output)
    }
}

/// The grey of a placeholder for which there is nothing better.
const PLACEHOLDER_LUMA: u8 = 64;
