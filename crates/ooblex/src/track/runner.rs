//! A track's turns on a core: what is done in one, and how compressed frames become pictures there.
//!
//! What came in is looked at only with a core in hand, so that what waits is what can still be given up. Where a frame goes from here
//! is [`super::driver`]'s to say.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use ooblex_codec::{DecodeError, Decoder, Undecodable, rotate};
use ooblex_pipeline::Mode;
use serde_json::Value;
use tracing::{debug, warn};

use super::driver::{Arrived, Driver, Pending};
use super::messages::{INBOX, TrackInput, TrackOutput};
use crate::control;
use crate::cpu::{CpuMeter, Urgency, leave_one_core_free, lower_priority};
use crate::labels::{Goodbye, Stage};
use crate::problem::{Problem, ProblemKind};

/// Decoded frames that are taken on at a time; older ones are given up when the thread is behind,
const BACKLOG: usize = 2;
/// and when it is not: one that waited for a lost packet comes together with all that came after it.
const BUNCH: usize = 4;
/// The thread is behind when a frame has waited for it longer than this.
const BEHIND_AFTER: Duration = Duration::from_millis(10);
/// A frame that has waited this long for a core is not even decoded: the track begins anew with a keyframe.
const HOPELESS_AFTER: Duration = Duration::from_secs(1);
/// Who stands back does so behind workers, too.
const NICE: i32 = 10;
/// A session ends when so many keyframe requests in a row, each at least [`ASK_KEYFRAME_EVERY`] after the one before, were followed by a refused
/// frame and by no picture. A burst of damaged frames is answered by one or two requests. Frames that only lack a keyframe are not refused.
const MOST_REFUSALS: u32 = 6;
/// The browser is asked for a keyframe at most this often.
const ASK_KEYFRAME_EVERY: Duration = Duration::from_millis(500);

impl Driver {
    /// Does all that the track does, until it has ended.
    pub(super) fn run(mut self, inbox: &Receiver<TrackInput>, ended: &AtomicBool) {
        while !ended.load(Ordering::Relaxed) {
            if self.is_throttled {
                self.run_in_background(inbox, ended);
            } else {
                self.take_turns(inbox, ended);
            }
        }
        super::close_branches(&self.context, self.id());
        self.track.end();
        self.flush_counts();
    }

    /// Goes on in a thread that stands back, since this one could not come forward again.
    fn run_in_background(&mut self, inbox: &Receiver<TrackInput>, ended: &AtomicBool) {
        let thread = std::thread::Builder::new().name(format!("aside-{:04x}", self.id().0 & 0xffff));
        let aside = || {
            lower_priority(NICE);
            leave_one_core_free();
            self.take_turns(inbox, ended);
        };
        if let Err(error) = std::thread::scope(|scope| thread.spawn_scoped(scope, aside).map(drop)) {
            debug!(session = %self.id(), %error, "no thread to stand back in");
            self.is_throttled = false;
        }
    }

    /// Turn after turn, for as long as the track stands back, or does not.
    fn take_turns(&mut self, inbox: &Receiver<TrackInput>, ended: &AtomicBool) {
        let (context, is_throttled) = (self.context.clone(), self.is_throttled);
        self.meter = CpuMeter::start();
        while self.is_throttled == is_throttled && !ended.load(Ordering::Relaxed) {
            if self.arrived.is_empty()
                && let Ok(input) = inbox.recv_deadline(self.next_wakeup())
            {
                self.on_input(input);
            }
            // A frame that will not go on waits, and is decoded together with the next that will, unless a core is free.
            let due = self.arrived.front().map(|frame| self.frame_rate.due().unwrap_or(frame.at));
            let asked = Instant::now();
            let needs_worker = self.needs_worker();
            let urgency = due.map_or(Urgency::Finish, |due| Urgency::Begin { due, needs_worker });
            let permit = (!is_throttled).then(|| context.scheduler.acquire(&self.ticket, urgency));
            inbox.try_iter().take(INBOX).for_each(|input| self.on_input(input));
            self.release();
            // A turn that came early is for what is near its end; frames have theirs when it comes.
            if let Some(due) = due.filter(|_| permit.as_ref().is_none_or(|permit| !permit.boosted)) {
                self.on_turn(due, asked);
                self.begin();
                self.release();
            }
            self.upkeep();
        }
    }

    /// A turn to decode has come that was asked for then, and of which frames go on that came at `due` or later.
    fn on_turn(&mut self, due: Instant, asked: Instant) {
        let now = Instant::now();
        let goes_on = self.arrived.iter().find(|frame| frame.at >= due);
        // Who stands back waits for nobody.
        if let Some(frame) = goes_on.filter(|_| !self.is_throttled) {
            self.context.scheduler.on_late(now, now.saturating_duration_since(frame.at.max(asked)));
        }
        self.frame_rate.on_permit(now, self.context.scheduler.waits());
    }

    /// Decodes what has arrived, and takes on the newest.
    fn begin(&mut self) {
        let is_behind = self.arrived.front().is_some_and(|oldest| oldest.at.elapsed() > BEHIND_AFTER);
        let most = if is_behind { BACKLOG } else { BUNCH };
        let mut decoded: VecDeque<Pending> = VecDeque::new();
        while let Some(frame) = self.arrived.pop_front() {
            decoded.extend(self.decode(frame));
            if decoded.len() > most {
                decoded.pop_front();
                self.track.on_superseded();
            }
        }
        // Of those that go on there may be fewer: the newest.
        let room = self.room_with_workers();
        let go_on = decoded.iter().filter(|frame| self.frame_rate.keeps(frame.arrived)).take(room).count();
        for _ in go_on..decoded.len() {
            decoded.pop_front();
            self.track.on_superseded();
        }
        decoded.into_iter().for_each(|pending| self.admit(pending));
    }

    /// No frame is ready before a worker has had it.
    fn needs_worker(&self) -> bool {
        self.track.mode() == Mode::Hold
    }

    /// How many frames may go on now. Who stands back has one at a time with the workers of this machine, so that the others do not find them all
    /// busy with what takes long; what needs no worker is not kept waiting for one.
    fn room_with_workers(&self) -> usize {
        if !self.is_throttled || !self.needs_worker() || !self.context.broker.is_local() {
            return usize::MAX;
        }
        1_usize.saturating_sub(self.track.outstanding(Instant::now()))
    }

    fn decode(&mut self, arrived: Arrived) -> Option<Pending> {
        let Arrived { frame, at: arrived, rotation, gap } = arrived;
        self.rotation = rotation.unwrap_or(self.rotation);
        if self.decoder.as_ref().is_none_or(|decoder| decoder.codec() != frame.codec) {
            let limits = ooblex_codec::Limits { pixels: u64::from(self.most_kilopixels()) * 1000, ..self.context.config.limits.decoder() };
            self.decoder = Decoder::new(frame.codec, limits).inspect_err(|error| warn!(session = %self.id(), %error, "no decoder")).ok();
        }
        self.context.metrics.on_received();
        let decoder = self.decoder.as_mut()?;
        let started = Instant::now();
        let waited = started.saturating_duration_since(arrived);
        let hopeless = waited > HOPELESS_AFTER;
        if gap || hopeless {
            decoder.frames_lost();
        }
        self.stats.on_stage(Stage::Inbox, waited);
        self.report.waited.0 += waited;
        self.report.waited.1 += 1;
        if hopeless {
            self.context.metrics.on_lost_frame();
            self.ask_for_keyframe();
            return None;
        }
        match decoder.decode(&frame.data) {
            Ok(Some(picture)) => {
                let picture = rotate(picture, self.rotation);
                self.stats.on_stage(Stage::Decode, started.elapsed());
                (self.too_large, self.refusals) = (None, 0);
                Some(Pending { picture, capture: frame.capture, arrived, settings: self.settings.clone() })
            }
            Ok(None) => None,
            Err(DecodeError::Undecodable { why, .. }) => {
                if why != Undecodable::AwaitsKeyframe {
                    debug!(session = %self.id(), %why, "undecodable");
                }
                self.context.metrics.on_undecodable(&why);
                self.ask_for_keyframe();
                if why.is_refusal() {
                    self.on_refused(&why);
                }
                None
            }
        }
    }

    /// Tells the browser of frames that are too large, once for each size. A camera that answers keyframe requests with nothing but refused frames
    /// ends its session: it will not send anything else, and each of its keyframes costs.
    fn on_refused(&mut self, why: &Undecodable) {
        if let Undecodable::Size { width, height } = *why
            && self.too_large.replace((width, height)) != Some((width, height))
        {
            let limit = self.most_kilopixels();
            let detail = format!(
                "frames of {width}x{height} are larger than the {limit} kilopixels allowed: send a smaller picture, or raise limits.frame_kilopixels (or max_kilopixels of the token)"
            );
            self.say(control::error(&Value::Null, &Problem::new(ProblemKind::TooLarge, detail)));
        }
        // Frames that were on their way when the keyframe was requested count once.
        if self.refused_after == self.last_asked {
            return;
        }
        self.refused_after = self.last_asked;
        self.refusals += 1;
        // Once is enough, unless it could not be told.
        if self.refusals == MOST_REFUSALS {
            let detail = format!(
                "every frame of the camera was refused, though {MOST_REFUSALS} keyframes were requested; the last was refused because {why}"
            );
            debug!(session = %self.id(), detail, "the session ends");
            self.say(control::error(&Value::Null, &Problem::new(ProblemKind::Undecodable, detail)));
            if !self.sink.end(Goodbye::Undecodable) {
                self.refusals = 0;
            }
        }
    }

    /// The largest frames that are taken, in thousands of pixels: the operator's limit, or less if the token says so.
    fn most_kilopixels(&self) -> u32 {
        let limit = self.context.config.limits.frame_kilopixels;
        self.restrictions.max_kilopixels.map_or(limit, |most| limit.min(most.get()))
    }

    pub(super) fn ask_for_keyframe(&mut self) {
        let now = Instant::now();
        if self.last_asked.is_none_or(|asked| now.duration_since(asked) >= ASK_KEYFRAME_EVERY) {
            self.last_asked = Some(now);
            self.context.metrics.on_keyframe_asked();
            self.send(TrackOutput::NeedKeyframe);
        }
    }
}
