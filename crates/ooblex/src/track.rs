//! The thread of one track: it decodes, prepares, paints and encodes, in the order that [`ooblex_pipeline::Track`] says.
//!
//! It alone owns the track's state. The media thread feeds it with frames, the workers with completions; it gives compressed
//! frames back to the media thread. It knows nothing of packets.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use ooblex_broker::Broker;
use ooblex_codec::{DecodeError, Decoder, Encoder, EncoderConfig, Rotation, Speed, Undecodable, rotate};
use ooblex_effects::{Load, Painter};
use ooblex_pipeline::{
    Admission, Analysis, Completion, DropReason, EffectName, EncodedFrame, FrameCounts, FrameSeq, Generation, I420, Job, MediaTime,
    Outcome, Release, Track, VideoCodec,
};
use serde_json::{Value, json};
use tracing::{debug, warn};

use crate::config::{Config, Vp8Speed};
use crate::control::{self, Request};
use crate::figures::{Stage, TrackFigures, round};
use crate::metrics::Metrics;
use crate::problem::{Problem, ProblemKind};
use crate::session::SessionId;
use crate::sessions::Sessions;
use crate::settings::{Catalogue, Settings};
use crate::transport::TransportHandle;

/// What comes in to a track.
pub enum TrackInput {
    /// The codec that goes out, known before the first frame.
    Codec(VideoCodec),
    /// A compressed frame came in whole.
    Frame {
        /// The frame.
        frame: EncodedFrame,
        /// When its last packet arrived.
        arrived: Instant,
        /// What has to be done to show it upright; `None`: as before.
        rotation: Option<Rotation>,
        /// Frames before it were lost.
        gap: bool,
    },
    /// A worker is done with a frame.
    Completed(Completion),
    /// The API asks for something else.
    Change(Settings),
    /// The browser says something; `None`: something too long.
    Control(Option<Vec<u8>>),
    /// The browser can be talked to.
    ControlOpen,
    /// The connection stands.
    Connected,
    /// The browser can not go on without a keyframe.
    KeyframeWanted,
    /// Bits a second that the network is thought to carry.
    Estimate(u32),
    /// Nothing: look whether the track has ended.
    Wake,
}

/// What a track has for its session.
#[derive(Debug)]
pub enum TrackOutput {
    /// A compressed frame to send.
    Frame {
        /// The frame.
        frame: EncodedFrame,
        /// When the last packet of its source arrived.
        arrived: Instant,
    },
    /// The browser is to be asked for a keyframe.
    NeedKeyframe,
    /// Bits a second that would be of use.
    DesiredBitrate(u32),
    /// A message for the data channel.
    Message {
        /// JSON.
        text: String,
        /// It may be left out when the browser is slow to read.
        may_be_missed: bool,
    },
}

/// The way to a track. Clones lead to the same one.
#[derive(Clone)]
pub struct TrackHandle {
    inbox: Sender<TrackInput>,
    ended: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
    /// Its live figures.
    pub figures: Arc<TrackFigures>,
}

impl TrackHandle {
    /// Hands something to the track. `false` when the track is too busy to take it.
    pub fn send(&self, input: TrackInput) -> bool {
        match self.inbox.try_send(input) {
            Ok(()) => true,
            Err(TrySendError::Full(input)) => {
                if let TrackInput::Frame { .. } = input {
                    self.metrics.on_lost_frame();
                }
                false
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }

    /// The track is over.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.send(TrackInput::Wake);
    }
}

/// What all tracks share.
pub struct Context {
    /// Where frames are analysed.
    pub broker: Broker,
    /// What can be asked for.
    pub catalogue: Catalogue,
    /// Where compressed frames go.
    pub transport: TransportHandle,
    /// The running sessions.
    pub sessions: Arc<Sessions>,
    /// For Prometheus.
    pub metrics: Arc<Metrics>,
    /// What the operator set.
    pub config: Config,
}

/// Starts the thread of a track.
///
/// # Errors
/// When the system gives no thread.
pub fn spawn(context: Arc<Context>, id: SessionId, settings: Settings) -> std::io::Result<TrackHandle> {
    let (inbox, receiver) = bounded(INBOX);
    let figures = Arc::new(TrackFigures::new(context.metrics.clone()));
    let handle = TrackHandle { inbox, ended: Arc::default(), metrics: context.metrics.clone(), figures };
    let sink = handle.inbox.clone();
    // A completion that finds the inbox full is lost; its frame expires, as if the worker had died.
    context.broker.open_track(id.track(), Box::new(move |completion| _ = sink.try_send(TrackInput::Completed(completion))));
    let (ended, figures) = (handle.ended.clone(), handle.figures.clone());
    let run = move || Driver::new(context, id, settings, figures).run(&receiver, &ended);
    std::thread::Builder::new().name(format!("track-{:04x}", id.0 & 0xffff)).spawn(run)?;
    Ok(handle)
}

/// Things that wait for the track's thread.
const INBOX: usize = 256;
/// Decoded frames that are taken on at a time; older ones are given up when the thread is behind.
const BACKLOG: usize = 2;
/// Between two reports.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// The browser is asked for a keyframe at most this often.
const ASK_KEYFRAME_EVERY: Duration = Duration::from_millis(500);
/// The browser gets a keyframe that it asks for at most this often.
const KEYFRAME_EVERY: Duration = Duration::from_millis(300);
/// Without a processed frame for this long, a browser that needs a picture gets a held one or a placeholder.
const STARVED_AFTER: Duration = Duration::from_millis(250);
/// Bits that a pixel of video is worth at most.
const BITS_PER_PIXEL: f64 = 0.25;
/// The frame rate that bitrates are reckoned with.
const NOMINAL_FPS: f64 = 30.0;

/// A frame on its way through the track.
struct Pending {
    picture: I420,
    capture: MediaTime,
    arrived: Instant,
    settings: Rc<Settings>,
}

/// An analysis with what it took.
#[derive(Debug)]
struct Analysed {
    analysis: Analysis,
    returned: Instant,
}

/// The state of the thread.
struct Driver {
    context: Arc<Context>,
    id: SessionId,
    figures: Arc<TrackFigures>,
    track: Track<Pending, Analysed>,
    next_seq: FrameSeq,
    settings: Rc<Settings>,
    painters: HashMap<EffectName, Box<dyn Painter>>,
    acks: VecDeque<(Generation, Value)>,
    decoder: Option<Decoder>,
    rotation: Rotation,
    encoder: Option<Encoder>,
    size: (u32, u32),
    desired_bps: u32,
    estimate_bps: Option<u32>,
    /// Set when the last picture went out; the picture, and the effect that it shows.
    shown: Option<Shown>,
    /// When to send a held picture or a placeholder if no processed one comes.
    starved_at: Option<Instant>,
    placeholder: bool,
    last_sent: Option<MediaTime>,
    keyframe_wanted: bool,
    last_keyframe: Option<Instant>,
    last_asked: Option<Instant>,
    too_large: Option<(u32, u32)>,
    report: Report,
}

struct Shown {
    picture: I420,
    effect: EffectName,
}

/// What the figures were at the last report.
struct Report {
    at: Instant,
    counts: FrameCounts,
    busy: Duration,
    bytes: u64,
    offered: u32,
    analysing: (Duration, u32),
}

impl Driver {
    fn new(context: Arc<Context>, id: SessionId, settings: Settings, figures: Arc<TrackFigures>) -> Self {
        let frames = &context.config.frames;
        let track = Track::new(settings.mode, frames.sampling(), frames.patience());
        let report = Report {
            at: Instant::now(),
            counts: FrameCounts::default(),
            busy: context.broker.capacity().busy,
            bytes: 0,
            offered: 0,
            analysing: (Duration::ZERO, 0),
        };
        Self {
            context,
            id,
            figures,
            track,
            next_seq: FrameSeq(0),
            settings: Rc::new(settings),
            painters: HashMap::new(),
            acks: VecDeque::new(),
            decoder: None,
            rotation: Rotation::None,
            encoder: None,
            size: (0, 0),
            desired_bps: 0,
            estimate_bps: None,
            shown: None,
            starved_at: None,
            placeholder: false,
            last_sent: None,
            keyframe_wanted: false,
            last_keyframe: None,
            last_asked: None,
            too_large: None,
            report,
        }
    }

    fn run(mut self, inbox: &Receiver<TrackInput>, ended: &AtomicBool) {
        let mut decoded: VecDeque<Pending> = VecDeque::new();
        while !ended.load(Ordering::Relaxed) {
            let first = inbox.recv_deadline(self.next_wakeup()).ok();
            for input in first.into_iter().chain(inbox.try_iter().take(INBOX)) {
                if let Some(pending) = self.on_input(input) {
                    decoded.push_back(pending);
                }
                if decoded.len() > BACKLOG {
                    decoded.pop_front();
                    self.track.on_superseded();
                }
            }
            for pending in decoded.drain(..) {
                self.admit(pending);
            }
            self.release();
            self.upkeep();
        }
        self.context.broker.close_track(self.id.track());
        self.track.end();
        self.flush_counts();
    }

    fn next_wakeup(&self) -> Instant {
        let times = [self.track.next_wakeup(), self.starved_at, Some(self.report.at + REPORT_EVERY)];
        times.into_iter().flatten().min().expect("the next report always comes")
    }

    /// Takes note of something that came in. Returns a frame that was decoded.
    fn on_input(&mut self, input: TrackInput) -> Option<Pending> {
        match input {
            TrackInput::Frame { frame, arrived, rotation, gap } => return self.decode(frame, arrived, rotation, gap),
            TrackInput::Completed(completion) => self.on_completion(completion),
            TrackInput::Codec(codec) => self.start_encoder(codec),
            TrackInput::Change(settings) => self.change(settings, Value::Null),
            TrackInput::Control(text) => self.on_control(text.as_deref()),
            TrackInput::ControlOpen | TrackInput::Wake => {}
            TrackInput::Connected => self.context.metrics.on_connected(),
            TrackInput::KeyframeWanted => {
                self.context.metrics.on_keyframe_wanted();
                self.keyframe_wanted = true;
                self.starved_at.get_or_insert(Instant::now() + STARVED_AFTER);
            }
            TrackInput::Estimate(bps) => {
                self.estimate_bps = Some(bps);
                self.set_bitrate();
            }
        }
        None
    }

    fn start_encoder(&mut self, codec: VideoCodec) {
        let video = &self.context.config.video;
        let speed = match video.vp8_speed {
            Vp8Speed::Balanced => Speed::Balanced,
            Vp8Speed::Fast => Speed::Fast,
        };
        let bitrate_bps = video.start_bitrate_kbps * 1000;
        match Encoder::new(EncoderConfig { codec, bitrate_bps, frame_rate: NOMINAL_FPS as f32, speed }) {
            Ok(encoder) => self.encoder = Some(encoder),
            Err(error) => warn!(session = %self.id, %error, "no encoder"),
        }
    }

    // Effects and parameters

    fn on_control(&mut self, text: Option<&[u8]>) {
        let (id, changed) = match Request::parse(text) {
            Ok(Request::SetEffect { effect, params, id }) => {
                let changed = self.context.catalogue.change(&self.settings, effect.as_deref(), &params);
                (id, changed)
            }
            Err(problem) => (Value::Null, Err(problem)),
        };
        match changed {
            Ok(settings) => {
                self.context.sessions.note_settings(self.id, settings.clone());
                self.change(settings, id);
            }
            Err(problem) => self.say(control::error(&id, &problem)),
        }
    }

    fn change(&mut self, settings: Settings, id: Value) {
        debug!(session = %self.id, effect = %settings.effect.name(), params = %settings.parameters.to_json(), "change");
        let generation = self.track.change(settings.mode);
        self.settings = Rc::new(settings);
        if id != Value::Null {
            self.acks.push_back((generation, id));
        }
    }

    fn painter(&mut self, settings: &Settings) -> &mut Box<dyn Painter> {
        self.painters.entry(settings.effect.name()).or_insert_with(|| settings.effect.painter())
    }

    // From a compressed frame to a job

    fn decode(&mut self, frame: EncodedFrame, arrived: Instant, rotation: Option<Rotation>, gap: bool) -> Option<Pending> {
        self.rotation = rotation.unwrap_or(self.rotation);
        if self.decoder.as_ref().is_none_or(|decoder| decoder.codec() != frame.codec) {
            self.decoder = Decoder::new(frame.codec).inspect_err(|error| warn!(session = %self.id, %error, "no decoder")).ok();
        }
        let decoder = self.decoder.as_mut()?;
        if gap {
            decoder.frames_lost();
        }
        let started = Instant::now();
        match decoder.decode(&frame.data) {
            Ok(Some(picture)) => {
                let picture = rotate(picture, self.rotation);
                self.figures.on_stage(Stage::Decode, started.elapsed());
                let size = (picture.width(), picture.height());
                self.fits(size).then(|| Pending { picture, capture: frame.capture, arrived, settings: self.settings.clone() })
            }
            Ok(None) => None,
            Err(DecodeError::Undecodable { why, .. }) => {
                if why != Undecodable::AwaitsKeyframe {
                    debug!(session = %self.id, %why, "undecodable");
                }
                self.context.metrics.on_undecodable();
                self.ask_for_keyframe();
                None
            }
        }
    }

    /// Whether frames of this size are taken; if not, the browser is told once.
    fn fits(&mut self, size: (u32, u32)) -> bool {
        let limit = self.context.config.limits.frame_kilopixels;
        if u64::from(size.0) * u64::from(size.1) <= u64::from(limit) * 1000 {
            self.too_large = None;
            return true;
        }
        if self.too_large.replace(size) != Some(size) {
            let detail = format!(
                "frames of {}x{} are larger than the {limit} kilopixels allowed: send a smaller picture, or raise limits.frame_kilopixels",
                size.0, size.1
            );
            self.say(control::error(&Value::Null, &Problem::new(ProblemKind::TooLarge, detail)));
        }
        false
    }

    fn ask_for_keyframe(&mut self) {
        let now = Instant::now();
        if self.last_asked.is_none_or(|asked| now.duration_since(asked) >= ASK_KEYFRAME_EVERY) {
            self.last_asked = Some(now);
            self.context.metrics.on_keyframe_asked();
            self.send(TrackOutput::NeedKeyframe);
        }
    }

    fn admit(&mut self, mut pending: Pending) {
        let now = Instant::now();
        pending.settings = self.settings.clone();
        self.on_size((pending.picture.width(), pending.picture.height()));
        if self.shown.is_none() {
            self.starved_at.get_or_insert(now + STARVED_AFTER);
        }
        let seq = self.next_seq;
        self.next_seq.0 += 1;
        let Admission::Analyse { deadline } = self.track.on_frame(now, seq, pending) else { return };
        self.report.offered += 1;
        let settings = self.settings.clone();
        let painter = self.painters.entry(settings.effect.name()).or_insert_with(|| settings.effect.painter());
        let Some(pending) = self.track.last_admitted() else { return };
        let prepared = catch_unwind(AssertUnwindSafe(|| painter.prepare(&pending.picture, &settings.parameters)));
        let submitted = Instant::now();
        self.figures.on_stage(Stage::Prepare, submitted - now);
        match prepared {
            Ok(input) => {
                let job = Job { track: self.id.track(), seq, effect: settings.effect.name(), input, submitted, deadline };
                self.context.broker.submit(job);
            }
            Err(_) => {
                self.painters.remove(&settings.effect.name());
                self.track.on_lost(seq, DropReason::AnalysisFailed);
            }
        }
    }

    fn on_completion(&mut self, completion: Completion) {
        let seq = completion.seq;
        match completion.outcome {
            Outcome::Analysed { analysis, queued, analysing } => {
                let returned = Instant::now();
                self.figures.on_stage(Stage::Queue, queued);
                self.figures.on_stage(Stage::Analyse, analysing);
                self.report.analysing.0 += analysing;
                self.report.analysing.1 += 1;
                self.track.on_analysis(returned, seq, Analysed { analysis, returned });
            }
            Outcome::Replaced => self.track.on_lost(seq, DropReason::Replaced),
            Outcome::Expired => self.track.on_lost(seq, DropReason::Expired),
            Outcome::Failed { reason } => {
                debug!(session = %self.id, %seq, reason, "analysis failed");
                self.track.on_lost(seq, DropReason::AnalysisFailed);
            }
        }
    }

    // From a result to a compressed frame

    fn release(&mut self) {
        while let Some(release) = self.track.poll(Instant::now()) {
            let Release::Paint { seq, generation, frame, analysis, reused } = release else { continue };
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
    ) -> Result<(MediaTime, Rc<Settings>), DropReason> {
        let Pending { mut picture, capture, arrived, settings } = frame;
        let started = Instant::now();
        if let Some(analysed) = analysed.filter(|_| !reused) {
            self.figures.on_stage(Stage::Playout, started.saturating_duration_since(analysed.returned));
        }
        let analysis = analysed.map(|analysed| &analysed.analysis);
        let painter = self.painter(&settings);
        let composed = catch_unwind(AssertUnwindSafe(|| painter.compose(&mut picture, analysis, &settings.parameters)));
        match composed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                debug!(session = %self.id, %error, "compose failed");
                return Err(DropReason::ComposeFailed);
            }
            Err(_) => {
                self.painters.remove(&settings.effect.name());
                return Err(DropReason::ComposeFailed);
            }
        }
        let composed = Instant::now();
        self.figures.on_stage(Stage::Compose, composed - started);
        let timestamp = self.encode_and_send(&picture, capture, arrived).ok_or(DropReason::EncodeFailed)?;
        self.figures.on_stage(Stage::Encode, composed.elapsed());
        if let Some(Analysis::Faces(faces)) = analysis {
            let text = control::detections(seq, timestamp, picture.width(), picture.height(), faces);
            self.send(TrackOutput::Message { text, may_be_missed: true });
        }
        self.starved_at = None;
        self.placeholder = false;
        let effect = settings.effect.name();
        let current = self.settings.effect.name();
        self.painters.retain(|name, _| *name == effect || *name == current);
        self.shown = Some(Shown { picture, effect });
        Ok((timestamp, settings))
    }

    /// Returns the timestamp that went out: that of the capture, unless that would go back.
    fn encode_and_send(&mut self, picture: &I420, capture: MediaTime, arrived: Instant) -> Option<MediaTime> {
        let encoder = self.encoder.as_mut()?;
        let timestamp = self.last_sent.map_or(capture, |last| capture.max(MediaTime(last.0 + 1)));
        let now = Instant::now();
        let may_send_keyframe = self.last_keyframe.is_none_or(|last| now.duration_since(last) >= KEYFRAME_EVERY);
        let frame = match encoder.encode(picture, timestamp, self.keyframe_wanted && may_send_keyframe) {
            Ok(frame) => frame?,
            Err(error) => {
                warn!(session = %self.id, %error, "a picture was not encoded");
                return None;
            }
        };
        if frame.keyframe {
            self.keyframe_wanted = false;
            self.last_keyframe = Some(now);
        }
        self.last_sent = Some(timestamp);
        self.report.bytes += frame.data.len() as u64;
        if !self.send(TrackOutput::Frame { frame, arrived }) {
            // What comes next builds on a frame that never left.
            self.keyframe_wanted = true;
            return None;
        }
        Some(timestamp)
    }

    fn acknowledge(&mut self, seq: FrameSeq, generation: Generation, timestamp: MediaTime, settings: &Settings) {
        while let Some((_, id)) = self.acks.pop_front_if(|(changed, _)| *changed <= generation) {
            self.say(control::ack(&id, settings, seq, timestamp));
        }
    }

    // What is due by the clock

    fn upkeep(&mut self) {
        let now = Instant::now();
        if self.starved_at.is_some_and(|at| at <= now) {
            self.send_without_analysis(now);
        }
        if now.duration_since(self.report.at) >= REPORT_EVERY {
            self.report(now);
        }
    }

    /// No processed frame came. A browser that has no picture, or can not decode the one it has, gets the last processed
    /// picture again, or one that is safe to show.
    fn send_without_analysis(&mut self, now: Instant) {
        let settings = self.settings.clone();
        let effect = settings.effect.name();
        let picture = match self.shown.take() {
            Some(shown) if shown.effect == effect => shown.picture,
            Some(shown) => self.made_safe(shown.picture, &settings),
            None => match self.track.last_admitted().map(|pending| pending.picture.clone()) {
                Some(picture) => self.made_safe(picture, &settings),
                None if self.size != (0, 0) => I420::grey(self.size.0, self.size.1, PLACEHOLDER_LUMA),
                None => {
                    self.starved_at = None;
                    return;
                }
            },
        };
        let capture = self.last_sent.or(self.track.last_admitted().map(|pending| pending.capture)).unwrap_or(MediaTime(0));
        self.encode_and_send(&picture, capture, now);
        self.context.metrics.on_placeholder();
        self.placeholder = true;
        self.starved_at = Some(now + 2 * STARVED_AFTER);
        self.shown = Some(Shown { picture, effect });
    }

    fn made_safe(&mut self, mut picture: I420, settings: &Settings) -> I420 {
        let painter = self.painter(settings);
        let painted = catch_unwind(AssertUnwindSafe(|| painter.placeholder(&mut picture, &settings.parameters)));
        match painted {
            Ok(()) => picture,
            Err(_) => I420::grey(picture.width(), picture.height(), PLACEHOLDER_LUMA),
        }
    }

    fn report(&mut self, now: Instant) {
        let elapsed = now.duration_since(self.report.at).as_secs_f64();
        let counts = *self.track.counts();
        let before = self.report.counts;
        let capacity = self.context.broker.capacity();
        let available = elapsed * capacity.workers.max(1) as f64;
        let utilisation = (capacity.busy.saturating_sub(self.report.busy).as_secs_f64() / available).min(1.0);
        let replaced = counts.dropped(DropReason::Replaced) - before.dropped(DropReason::Replaced);
        let (analysing, analysed) = self.report.analysing;
        let load = Load {
            offered: self.report.offered,
            replaced: replaced as u32,
            model_time: if analysed > 0 { analysing / analysed } else { Duration::ZERO },
            utilisation: utilisation as f32,
        };
        if let Some(painter) = self.painters.get_mut(&self.settings.effect.name()) {
            painter.on_load(&load);
        }
        let stats = self.stats(elapsed, &counts, &before, utilisation);
        self.figures.set_latest(stats.clone());
        self.send(TrackOutput::Message { text: stats.to_string(), may_be_missed: true });
        self.flush_counts();
        let busy = capacity.busy;
        self.report = Report { at: now, counts, busy, bytes: 0, offered: 0, analysing: (Duration::ZERO, 0) };
    }

    fn stats(&self, elapsed: f64, counts: &FrameCounts, before: &FrameCounts, utilisation: f64) -> Value {
        let rate = |now: u64, before: u64| round((now - before) as f64 / elapsed);
        let (stages, residence) = self.figures.take_window();
        let dropped: Value = DropReason::ALL
            .into_iter()
            .map(|reason| (reason.label(), counts.dropped(reason) - before.dropped(reason)))
            .filter(|(_, dropped)| *dropped > 0)
            .map(|(label, dropped)| (label.to_string(), json!(dropped)))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let shown = counts.shown - before.shown;
        json!({
            "type": "stats",
            "effect": self.settings.effect.name(),
            "fps_in": rate(counts.admitted, before.admitted),
            "fps_analysed": rate(counts.analysed, before.analysed),
            "fps_out": rate(counts.shown, before.shown),
            "width": self.size.0,
            "height": self.size.1,
            "codec": self.encoder.as_ref().map(|encoder| encoder.config().codec.label()),
            "bitrate_bps": (self.report.bytes as f64 * 8.0 / elapsed).round(),
            "target_bps": self.encoder.as_ref().map(|encoder| encoder.config().bitrate_bps),
            "estimate_bps": self.estimate_bps,
            "residence_ms": residence,
            "stages_ms": stages,
            "dropped": dropped,
            "worker_utilisation": round(utilisation),
            "placeholder": self.placeholder,
            "state": if shown > 0 { "live" } else { "waiting" },
        })
    }

    fn flush_counts(&mut self) {
        let effect = self.settings.effect.name();
        self.context.metrics.on_frames(effect.as_str(), &self.report.counts, self.track.counts());
    }

    // Bitrate

    fn on_size(&mut self, size: (u32, u32)) {
        if size == self.size {
            return;
        }
        self.size = size;
        let useful = f64::from(size.0) * f64::from(size.1) * NOMINAL_FPS * BITS_PER_PIXEL;
        let video = &self.context.config.video;
        self.desired_bps = (useful as u32).clamp(video.min_bitrate_kbps * 1000, video.max_bitrate_kbps * 1000);
        // Some more than is sent, so that the estimate leaves room for what goes beside the picture.
        self.send(TrackOutput::DesiredBitrate(self.desired_bps + self.desired_bps / 2));
        self.set_bitrate();
    }

    /// As much as is of use and the network is thought to carry, less what goes beside the picture.
    fn set_bitrate(&mut self) {
        let video = &self.context.config.video;
        let network = self.estimate_bps.map_or(video.start_bitrate_kbps * 1000, |bps| bps / 10 * 9);
        let target = network.min(self.desired_bps).max(video.min_bitrate_kbps * 1000);
        if let Some(encoder) = &mut self.encoder {
            encoder.set_bitrate(target);
        }
    }

    fn say(&self, text: String) {
        self.send(TrackOutput::Message { text, may_be_missed: false });
    }

    fn send(&self, output: TrackOutput) -> bool {
        self.context.transport.track(self.id, output)
    }
}

/// The grey of a placeholder for which there is nothing better.
const PLACEHOLDER_LUMA: u8 = 64;
