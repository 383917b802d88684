//! The runner of a track: the loop of its thread, and the path of a frame through the parts of the
//! track.
//!
//! It is the only part that reads the clock; all others take the time as an argument. The path of a
//! frame reads from top to bottom: [`Runner::decode_arrived`], [`Runner::admit`],
//! [`Runner::analyse`], [`Runner::on_completion`], [`Runner::release`], [`Runner::present`],
//! [`Runner::send_encoded`]. The thread takes in what has arrived only while it holds a permit to
//! compute, so that frames which wait can still be dropped.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::Receiver;
use ooblex_pipeline::{Completion, DropReason, FrameSeq, Generation, I420, MediaTime, Mode, Outcome, Release, Track};
use serde_json::Value;
use tracing::debug;

use super::analysis::{Analysed, AnalysisSide, Pending, Wanted};
use super::context::Context;
use super::cpu_control::CpuControl;
use super::freezes::FreezeDetector;
use super::ingest::{Arrived, Decoded, Ingest};
use super::messages::{INBOX, OutputInput, TrackInput};
use super::outbox::Outbox;
use super::outputs::Outputs;
use super::presenter::{MAX_PENDING_ACKS, Presenter};
use super::second::LastReport;
use super::service::{self, NotifiedState};
use super::stats::TrackStats;
use crate::cpu::{Ticket, Urgency, leave_one_core_free};
use crate::data_channel::{self, Request};
use crate::events::Kind;
use crate::ids::SessionId;
use crate::labels::Stage;
use crate::problem::{Problem, ProblemKind};
use crate::restrictions::Restrictions;
use crate::settings::{ChangedBy, Settings};
use ooblex_worker::lower_priority;

/// The priority (`nice`) of a throttled track: lower than that of workers.
const THROTTLED_NICE: i32 = 10;

/// A track, on its thread.
pub(super) struct Runner {
    pub(super) context: Arc<Context>,
    pub(super) outbox: Outbox,
    pub(super) stats: Arc<TrackStats>,
    pub(super) settings: SettingsInForce,
    pub(super) ingest: Ingest,
    pub(super) analysis: AnalysisSide,
    pub(super) presenter: Presenter,
    pub(super) outputs: Outputs,
    pub(super) cpu: CpuControl,
    pub(super) notified: NotifiedState,
    pub(super) freezes: FreezeDetector,
    pub(super) last_report: LastReport,
}

/// The settings in force, and what they may be changed to.
pub(super) struct SettingsInForce {
    pub(super) current: Arc<Settings>,
    restrictions: Arc<Restrictions>,
}

impl Runner {
    /// Makes a track with these settings, whose changes are held against `restrictions`.
    pub(super) fn new(
        context: Arc<Context>,
        outbox: Outbox,
        settings: Settings,
        restrictions: Arc<Restrictions>,
        outputs: Outputs,
        stats: Arc<TrackStats>,
        ticket: Arc<Ticket>,
    ) -> Self {
        let now = Instant::now();
        let (frames, limits, id) = (&context.config.frames, &context.config.limits, outbox.id());
        let max_pixels = u64::from(restrictions.frame_kilopixels(limits)) * 1000;
        Self {
            ingest: Ingest::new(limits.decoder(), max_pixels, stats.clone(), context.metrics.clone()),
            analysis: AnalysisSide::new(id, Track::new(settings.mode, frames.sampling(), frames.patience())),
            presenter: Presenter::new(id),
            cpu: CpuControl::new(ticket),
            notified: NotifiedState::default(),
            freezes: FreezeDetector::new(now),
            last_report: LastReport::new(now, context.broker.capacity().busy),
            settings: SettingsInForce { current: Arc::new(settings), restrictions },
            context,
            outbox,
            stats,
            outputs,
        }
    }

    // The loop of the thread

    /// Runs the track until it has ended.
    pub(super) fn run(mut self, inbox: &Receiver<TrackInput>, ended: &AtomicBool) {
        while !ended.load(Ordering::Relaxed) {
            if self.cpu.is_throttled() {
                self.run_in_background(inbox, ended);
            } else {
                self.run_steps(inbox, ended);
            }
        }
        self.context.close_branches(self.outbox.id());
        self.analysis.track.end();
        self.flush_counts();
    }

    /// Runs a throttled track in another thread, of a lower priority, since this one could not
    /// raise its priority again.
    fn run_in_background(&mut self, inbox: &Receiver<TrackInput>, ended: &AtomicBool) {
        let id = self.outbox.id();
        let thread = std::thread::Builder::new().name(format!("aside-{:04x}", id.0 & 0xffff));
        let run = || {
            lower_priority(THROTTLED_NICE);
            leave_one_core_free();
            self.run_steps(inbox, ended);
        };
        if let Err(error) = std::thread::scope(|scope| thread.spawn_scoped(scope, run).map(drop)) {
            debug!(session = %id, %error, "no thread of a lower priority");
            self.cpu.stop_throttling();
        }
    }

    /// Runs step after step, until the track is throttled, or no longer is.
    fn run_steps(&mut self, inbox: &Receiver<TrackInput>, ended: &AtomicBool) {
        let (context, ticket, is_throttled) = (self.context.clone(), self.cpu.ticket().clone(), self.cpu.is_throttled());
        self.cpu.restart_meter();
        while self.cpu.is_throttled() == is_throttled && !ended.load(Ordering::Relaxed) {
            if self.ingest.oldest_arrival().is_none()
                && let Ok(input) = inbox.recv_deadline(self.next_wakeup())
            {
                self.on_input(Instant::now(), input);
            }
            let due = self.ingest.oldest_arrival().map(|oldest| self.cpu.due(oldest));
            let requested = Instant::now();
            let needs_worker = self.needs_worker();
            let urgency = due.map_or(Urgency::Finish, |due| Urgency::Begin { due, needs_worker });
            let permit = (!is_throttled).then(|| context.scheduler.acquire(&ticket, urgency));
            inbox.try_iter().take(INBOX).for_each(|input| self.on_input(Instant::now(), input));
            self.release();
            // A boosted permit is for frames near their end; those that wait to be decoded get one
            // of their own.
            if let Some(due) = due.filter(|_| permit.as_ref().is_none_or(|permit| !permit.boosted)) {
                self.cpu.on_permit(Instant::now(), &context.scheduler, self.ingest.arrival_since(due), requested);
                self.decode_arrived();
                self.release();
            }
            self.on_time(Instant::now());
        }
    }

    fn next_wakeup(&self) -> Instant {
        let times = [self.analysis.track.next_wakeup(), self.presenter.next_wakeup(), self.presenter.stills.next_wakeup()];
        times.into_iter().flatten().fold(self.last_report.next(), Instant::min)
    }

    /// Does what is due by the clock: a stand-in, and the report of a second.
    fn on_time(&mut self, now: Instant) {
        if self.presenter.is_starved(now) {
            if self.outputs.is_empty() || self.outputs.are_congested(now) {
                self.presenter.postpone(now);
            } else {
                self.present_stand_in(now);
            }
        }
        if self.presenter.stills.need_stand_in(now) {
            self.give_stand_in(now);
        }
        if now >= self.last_report.next() {
            self.report(now);
        }
    }

    fn on_input(&mut self, now: Instant, input: TrackInput) {
        match input {
            TrackInput::Frame { frame, arrived, rotation, colours, gap } => {
                self.ingest.push(Arrived { frame, at: arrived, rotation, colours, gap });
            }
            TrackInput::Completed { completion, at } => self.on_completion(now, completion, at),
            TrackInput::Output { receiver, input } => self.on_output(now, receiver, input),
            TrackInput::Change { settings, by } => self.change(settings, Value::Null, by),
            TrackInput::Still(request) => self.presenter.stills.on_request(now, request),
            TrackInput::Control(text) => self.on_control(text.as_deref()),
            TrackInput::ControlOpen => self.on_control_open(),
            TrackInput::ServiceChanged => self.review_service(),
            TrackInput::Wake => {}
            TrackInput::Connected => self.freezes.on_connected(now),
            TrackInput::Resumed => self.ingest.request_keyframe(now, &self.outbox),
        }
    }

    fn on_output(&mut self, now: Instant, receiver: SessionId, input: OutputInput) {
        if let OutputInput::KeyframeWanted = &input {
            self.context.metrics.frames.keyframes.received.inc();
        }
        if self.outputs.on_input(now, receiver, input, &self.outbox) {
            self.presenter.need_picture(now);
        }
    }

    // The path of a frame: from its arrival to a job

    /// Decodes all frames that have arrived, and admits the newest of them.
    fn decode_arrived(&mut self) {
        let max_batch = self.ingest.max_batch(Instant::now());
        let mut batch: VecDeque<Decoded> = VecDeque::new();
        while let Some(arrived) = self.ingest.pop() {
            let started = Instant::now();
            let Some(decoded) = self.ingest.decode(started, arrived, &self.outbox) else { continue };
            self.stats.on_stage(Stage::Decode, started.elapsed());
            if decoded.is_out_of_order {
                self.analysis.track.on_skipped(DropReason::OutOfOrder);
                continue;
            }
            batch.push_back(decoded);
            if batch.len() > max_batch {
                batch.pop_front();
                self.analysis.track.on_skipped(DropReason::Behind);
            }
        }
        let max_admitted = self.room_with_workers();
        let admitted = batch.iter().filter(|decoded| self.cpu.keeps(decoded.arrived)).take(max_admitted).count();
        for _ in admitted..batch.len() {
            batch.pop_front();
            self.analysis.track.on_skipped(DropReason::Behind);
        }
        batch.into_iter().for_each(|decoded| self.admit(Instant::now(), decoded));
    }

    /// Tells whether no frame can be shown without the result of a worker.
    fn needs_worker(&self) -> bool {
        self.analysis.track.mode() == Mode::Hold
    }

    /// Returns how many frames may be admitted now. A throttled track has one frame at a time with
    /// workers of this process, so that the frames of others do not find all workers busy with long
    /// analyses. Frames that need no worker are not limited.
    fn room_with_workers(&self) -> usize {
        if !self.cpu.is_throttled() || !self.needs_worker() || !self.context.broker.is_local() {
            return usize::MAX;
        }
        1_usize.saturating_sub(self.analysis.track.outstanding(Instant::now()))
    }

    fn admit(&mut self, now: Instant, decoded: Decoded) {
        let Decoded { picture, capture, arrived, view, .. } = decoded;
        self.freezes.on_frame(now);
        self.outputs.on_size(picture.size(), &self.outbox);
        self.presenter.on_admitted(now);
        let settings = self.settings.current.clone();
        if let Some(wanted) = self.analysis.admit(now, Pending { picture, capture, arrived, view, settings }) {
            self.analyse(now, wanted);
        }
    }

    /// Prepares the frame that was admitted last, and hands it to workers.
    fn analyse(&mut self, now: Instant, wanted: Wanted) {
        if let Some(reason) = service::drop_reason(self.service()) {
            self.analysis.track.on_lost(wanted.seq, reason);
            return self.review_service();
        }
        let Some(Pending { picture, settings, .. }) = self.analysis.track.last_admitted() else { return };
        let (prepared, settings) = (self.presenter.prepare(picture, settings), settings.clone());
        let submitted = Instant::now();
        self.stats.on_stage(Stage::Prepare, submitted - now);
        match prepared {
            Some(inputs) => {
                let jobs = self.analysis.submit(submitted, wanted, inputs, &settings);
                jobs.into_iter().for_each(|job| self.context.broker.submit(job));
            }
            None => self.analysis.track.on_lost(wanted.seq, DropReason::AnalysisFailed),
        }
    }

    // The path of a frame: from the end of its job to a compressed frame

    /// Takes the completion of a job, which the broker gave at `at`.
    fn on_completion(&mut self, now: Instant, completion: Completion, at: Instant) {
        if let Outcome::Analysed { queued, analysing, computed, .. } = &completion.outcome {
            self.stats.on_stage(Stage::Queue, *queued);
            self.stats.on_stage(Stage::Analyse, *analysing);
            self.stats.on_stage(Stage::Turn, now.saturating_duration_since(at));
            self.cpu.on_analysed(*computed);
        }
        let jobs = self.analysis.on_completion(now, completion);
        jobs.into_iter().for_each(|job| self.context.broker.submit(job));
    }

    /// Presents all frames that are ready.
    fn release(&mut self) {
        while let Some(release) = self.analysis.track.poll(Instant::now()) {
            match release {
                Release::Paint { seq, generation, frame, analysis, reused } => {
                    let settings = frame.settings.clone();
                    match self.present(seq, frame, analysis.as_deref(), reused) {
                        Ok(timestamp) => {
                            self.analysis.track.on_painted(reused);
                            self.acknowledge(seq, generation, timestamp, &settings);
                        }
                        Err(reason) => self.analysis.track.on_paint_failed(reason),
                    }
                }
                Release::Drop { frame, .. } => self.presenter.on_dropped(frame),
            }
        }
    }

    /// Paints a frame and sends it. Returns the timestamp with which it was sent.
    fn present(&mut self, seq: FrameSeq, frame: Pending, analysed: Option<&Analysed>, reused: bool) -> Result<MediaTime, DropReason> {
        let Pending { mut picture, capture, arrived, view, settings } = frame;
        let started = Instant::now();
        if self.outputs.are_congested(started) && !self.presenter.stills.are_wanted() {
            return Err(DropReason::Congested);
        }
        if let Some(analysed) = analysed.filter(|_| !reused) {
            self.stats.on_stage(Stage::Playout, started.saturating_duration_since(analysed.returned));
        }
        let analyses = analysed.map_or(&[][..], |analysed| &analysed.analyses);
        let found = self.presenter.compose(&mut picture, analyses, &settings, view)?;
        let composed = Instant::now();
        self.stats.on_stage(Stage::Compose, composed - started);
        let outcome = self.send_encoded(composed, &picture, capture, arrived);
        let sent = Instant::now();
        // A frame that was admitted before a change is shown, but is no answer to whoever asks after it.
        if Arc::ptr_eq(&settings, &self.settings.current) {
            self.presenter.stills.give(&picture);
        }
        let timestamp = outcome?;
        self.stats.on_stage(Stage::Encode, sent - composed);
        if let Some(found) = found {
            let text = data_channel::detections(seq, timestamp, (picture.width(), picture.height()), &found);
            self.outbox.tell(Kind::Detections, Some(seq), text);
        }
        if let Some(since_connected) = self.freezes.on_shown(sent, arrived) {
            self.context.metrics.set_ups.on_first_picture(since_connected);
        }
        self.presenter.on_shown(picture, settings, &self.settings.current);
        if self.outputs.has_waiting(sent) {
            self.presenter.need_picture(sent);
        }
        Ok(timestamp)
    }

    /// Encodes a picture and sends it. Returns the timestamp with which it was sent.
    fn send_encoded(&mut self, now: Instant, picture: &I420, capture: MediaTime, arrived: Instant) -> Result<MediaTime, DropReason> {
        let sent = self.outputs.send(now, picture, capture, arrived, &self.outbox)?;
        self.last_report.sent_bytes += sent.bytes as u64;
        Ok(sent.timestamp)
    }

    /// Acknowledges the changes of settings that have their first frame with this one.
    fn acknowledge(&mut self, seq: FrameSeq, generation: Generation, timestamp: MediaTime, settings: &Settings) {
        while let Some(id) = self.presenter.next_ack(generation) {
            self.outbox.say(data_channel::ack(&id, settings, generation, seq, timestamp));
        }
    }

    /// Sends a stand-in to a browser that has no picture, or cannot decode the one it has, since no
    /// processed frame came in time.
    fn present_stand_in(&mut self, now: Instant) {
        let (settings, waiting) = (self.settings.current.clone(), self.analysis.track.oldest_waiting());
        let Some(stand_in) = self.presenter.stand_in(waiting, &settings, self.outputs.size()) else { return };
        let capture = self.outputs.last_sent().or(stand_in.capture).unwrap_or(MediaTime(0));
        _ = self.send_encoded(now, &stand_in.picture, capture, now);
        self.context.metrics.frames.placeholders.inc();
        self.presenter.on_stand_in(now, stand_in, settings);
    }

    /// Gives a stand-in to whoever has waited too long for a picture, and to nobody else.
    fn give_stand_in(&mut self, now: Instant) {
        let (settings, waiting) = (self.settings.current.clone(), self.analysis.track.oldest_waiting());
        match self.presenter.stand_in(waiting, &settings, self.outputs.size()) {
            Some(stand_in) => {
                self.presenter.stills.give(&stand_in.picture);
                self.presenter.keep(stand_in, settings);
            }
            None => self.presenter.stills.postpone(now),
        }
    }

    // Settings

    /// Takes a message of the browser; `None` stands for one that was too long.
    fn on_control(&mut self, text: Option<&[u8]>) {
        let SettingsInForce { current, restrictions } = &self.settings;
        let (id, changed) = match Request::parse(text) {
            Ok(Request::SetEffect { effect, params, id }) => {
                let changed = restrictions.change(&self.context.catalogue, current, effect.as_deref(), &params);
                (id, changed)
            }
            Err(problem) => (Value::Null, Err(problem)),
        };
        match changed {
            Ok(settings) => self.change(settings, id, ChangedBy::Channel),
            Err(problem) => self.outbox.say_error(&id, &problem),
        }
    }

    /// Puts other settings in force. With an `id`, their first frame is acknowledged.
    fn change(&mut self, settings: Settings, id: Value, by: ChangedBy) {
        let session = self.outbox.id();
        debug!(%session, effect = %settings.effect.name(), params = %settings.parameters.to_json(), ?by, "change");
        let generation = self.analysis.track.change(settings.mode);
        self.outbox.settings_changed(&settings);
        let is_other = !settings.is_same(&self.settings.current);
        self.settings.current = Arc::new(settings);
        if is_other {
            let text = data_channel::settings(&self.settings.current, generation, by);
            self.outbox.tell_readers(Kind::Settings, None, &text);
            if self.notified.on_settings(by) {
                self.outbox.say(text);
            }
        }
        self.review_service();
        if id == Value::Null {
            return;
        }
        if let Some(id) = self.presenter.push_ack(generation, id) {
            let detail = format!("{MAX_PENDING_ACKS} newer changes came before a frame had this one: send fewer changes, and video");
            self.outbox.say_error(&id, &Problem::new(ProblemKind::Unavailable, detail));
        }
    }

    /// The data channel is open: the browser is told what it could not be told before.
    fn on_control_open(&mut self) {
        if let Some(by) = self.notified.on_open() {
            self.outbox.say(data_channel::settings(&self.settings.current, self.analysis.track.generation(), by));
        }
        self.review_service();
    }

    /// Tells the browser of the service of the effect in force, if it knows otherwise.
    pub(super) fn review_service(&mut self) {
        let context = &self.context;
        let (effect, lacking) = (self.settings.current.effect.name(), service::lacking(&context.broker, &self.settings.current));
        let service = lacking.as_ref().map_or(ooblex_broker::Service::Served, |lacking| lacking.service);
        if !self.notified.on_service(&effect, service) {
            return;
        }
        if let Some(lacking) = lacking {
            let is_offered = context.catalogue.offers(lacking.effect.as_ref());
            self.outbox.say_error(&Value::Null, &service::problem(&lacking, is_offered, context.config.broker.is_shared()));
        }
        self.outbox.tell(Kind::Service, None, data_channel::service(&effect, service::label(service)));
    }

    /// Returns whether frames of the effect in force reach a worker now.
    pub(super) fn service(&self) -> ooblex_broker::Service {
        service::of(&self.context.broker, &self.settings.current)
    }
}
