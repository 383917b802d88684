//! The outbox of a track: frames, messages and events, on their way to its session and to the
//! readers of its events.

use std::sync::Arc;

use ooblex_pipeline::FrameSeq;
use serde_json::Value;

use super::messages::{TrackOutput, TrackSink};
use crate::data_channel;
use crate::events::{Events, Kind};
use crate::ids::SessionId;
use crate::labels::ByeReason;
use crate::problem::Problem;
use crate::settings::Settings;

/// The outbox of one track. No call blocks.
pub struct Outbox {
    id: SessionId,
    sink: Arc<dyn TrackSink>,
    events: Events,
}

impl Outbox {
    /// Makes the outbox of the track that session `id` publishes.
    pub fn new(id: SessionId, sink: Arc<dyn TrackSink>, events: Events) -> Self {
        Self { id, sink, events }
    }

    /// Returns the session that publishes the track.
    pub(super) fn id(&self) -> SessionId {
        self.id
    }

    /// Hands something to the publisher. Returns false if it is lost.
    pub(super) fn send(&self, output: TrackOutput) -> bool {
        self.send_to(self.id, output)
    }

    /// Hands something to a receiver. Returns false if it is lost.
    pub(super) fn send_to(&self, receiver: SessionId, output: TrackOutput) -> bool {
        self.sink.send(receiver, output)
    }

    /// Sends the browser a message that it must not miss.
    pub(super) fn say(&self, text: String) {
        self.send(TrackOutput::Message { text, may_be_missed: false });
    }

    /// Sends the browser an error. `id` is that of the request that failed, or null.
    pub(super) fn say_error(&self, id: &Value, problem: &Problem) {
        self.say(data_channel::error(id, problem));
    }

    /// Sends a message to the browser and to the readers of events. The browser may miss all kinds
    /// but [`Kind::Service`].
    pub(super) fn tell(&self, kind: Kind, frame: Option<FrameSeq>, text: String) {
        self.tell_readers(kind, frame, &text);
        self.send(TrackOutput::Message { text, may_be_missed: kind != Kind::Service });
    }

    /// Sends a message to the readers of events only.
    pub(super) fn tell_readers(&self, kind: Kind, frame: Option<FrameSeq>, text: &str) {
        self.events.tell(kind, frame, text);
    }

    /// Reports the settings that are in force from now on.
    pub(super) fn settings_changed(&self, settings: &Settings) {
        self.sink.settings_changed(settings);
    }

    /// Asks for the end of the session. Returns false if that could not be taken.
    pub(super) fn end(&self, why: ByeReason) -> bool {
        self.sink.end(why)
    }
}

/// A sink that records what a track gives, for tests.
#[cfg(test)]
#[derive(Default)]
pub(super) struct Recorder {
    outputs: parking_lot::Mutex<Vec<Recorded>>,
    ends: parking_lot::Mutex<Vec<ByeReason>>,
    /// The next requests for the end of the session cannot be taken.
    pub(super) is_full: std::sync::atomic::AtomicBool,
    /// Outputs are lost.
    pub(super) loses: std::sync::atomic::AtomicBool,
}

/// An output of a track.
#[cfg(test)]
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) session: SessionId,
    pub(super) output: TrackOutput,
}

#[cfg(test)]
impl Recorder {
    /// Makes a recorder and an outbox that writes to it.
    pub(super) fn outbox() -> (Arc<Self>, Outbox) {
        let recorder = Arc::new(Self::default());
        let outbox = Outbox::new(SessionId(1), recorder.clone(), Events::new(metrics()));
        (recorder, outbox)
    }

    /// Returns the number of keyframe requests since the last call of any of these methods, which
    /// empty the record.
    pub(super) fn keyframe_requests(&self) -> usize {
        self.take().iter().filter(|output| matches!(output, TrackOutput::NeedKeyframe)).count()
    }

    /// Returns the frames since the last call.
    pub(super) fn frames(&self) -> Vec<ooblex_pipeline::EncodedFrame> {
        let frame = |output: TrackOutput| match output {
            TrackOutput::Frame { frame, .. } => Some(frame),
            _ => None,
        };
        self.take().into_iter().filter_map(frame).collect()
    }

    /// Returns the messages since the last call.
    pub(super) fn messages(&self) -> Vec<Value> {
        let text = |output: TrackOutput| match output {
            TrackOutput::Message { text, .. } => Some(serde_json::from_str(&text).unwrap()),
            _ => None,
        };
        self.take().into_iter().filter_map(text).collect()
    }

    /// Returns the requests for the end of the session.
    pub(super) fn ends(&self) -> Vec<ByeReason> {
        std::mem::take(&mut self.ends.lock())
    }

    /// Returns everything since the last call.
    pub(super) fn take(&self) -> Vec<TrackOutput> {
        self.take_all().into_iter().map(|recorded| recorded.output).collect()
    }

    /// Returns everything since the last call, with its receivers.
    pub(super) fn take_all(&self) -> Vec<Recorded> {
        std::mem::take(&mut self.outputs.lock())
    }
}

#[cfg(test)]
impl TrackSink for Recorder {
    fn send(&self, session: SessionId, output: TrackOutput) -> bool {
        let loses = self.loses.load(std::sync::atomic::Ordering::Relaxed);
        if !loses {
            self.outputs.lock().push(Recorded { session, output });
        }
        !loses
    }

    fn settings_changed(&self, _: &Settings) {}

    fn end(&self, why: ByeReason) -> bool {
        self.ends.lock().push(why);
        !self.is_full.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// Makes metrics that nobody reads, for tests.
#[cfg(test)]
pub(super) fn metrics() -> Arc<crate::metrics::Metrics> {
    Arc::new(crate::metrics::Metrics::new(&ooblex_worker::about::About::default(), &ooblex_broker::Broker::local(), &[], None))
}
