//! The inputs and outputs of a track.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use ooblex_codec::{ColourSpace, Rotation};
use ooblex_pipeline::{Completion, EncodedFrame, VideoCodec};

use super::stills::StillRequest;
use crate::ids::SessionId;
use crate::labels::ByeReason;
use crate::settings::{ChangedBy, Settings};

/// Inputs that wait for the track's thread, at most.
pub(super) const INBOX: usize = 256;

/// An input of a track.
pub enum TrackInput {
    /// An input for the output to one receiver.
    Output {
        /// The session that receives the pictures.
        receiver: SessionId,
        /// The input.
        input: OutputInput,
    },
    /// A compressed frame arrived whole.
    Frame {
        /// The frame.
        frame: EncodedFrame,
        /// When its last packet arrived.
        arrived: Instant,
        /// The rotation that makes it upright. `None`: as before.
        rotation: Option<Rotation>,
        /// The colours that the sender has named beside the bitstream.
        colours: Option<ColourSpace>,
        /// Frames before it were lost.
        gap: bool,
    },
    /// The broker is done with a frame.
    Completed {
        /// The end of the job.
        completion: Completion,
        /// When the broker gave it.
        at: Instant,
    },
    /// Workers may have come or gone.
    ServiceChanged,
    /// A change of settings that did not come over the data channel.
    Change {
        /// The settings that are to be in force.
        settings: Settings,
        /// The origin of the change.
        by: ChangedBy,
    },
    /// The next picture is wanted, as it is shown.
    Still(StillRequest),
    /// A message of the browser. `None`: one that was too long.
    Control(Option<Vec<u8>>),
    /// The data channel is open.
    ControlOpen,
    /// The connection of the sender is established.
    Connected,
    /// The camera sends again after a silence, in which packets were lost.
    Resumed,
    /// Wakes the thread, so that it sees that the track has ended.
    Wake,
}

/// An input for the output of a track to one receiver.
pub enum OutputInput {
    /// Begins the output.
    Start {
        /// The codec that the receiver decodes.
        codec: VideoCodec,
        /// The backlog of the receiver, which keeps the output alive.
        backlog: Arc<Backlog>,
    },
    /// Begins the output to a recording, which takes everything. It has the codec that the other
    /// receivers have, so that nothing is encoded for it alone.
    Record {
        /// The backlog of the recording, which keeps the output alive.
        backlog: Arc<Backlog>,
    },
    /// The receiver needs a keyframe to decode further frames.
    KeyframeWanted,
    /// The estimate of the bandwidth, in bits a second.
    Estimate(u32),
    /// An estimate that has fallen so far at once that frames which were handed on have been given
    /// up.
    BrokenDown(u32),
    /// The feedback on what was sent during the last second.
    Feedback(ReceptionFeedback),
    /// The network carries packets again after an outage.
    Resumed,
}

/// The bytes of frames that were handed to a receiver and wait to be sent. The session of the
/// receiver sets them. The output ends when only the track holds its backlog.
#[derive(Debug, Default)]
pub struct Backlog(AtomicU32);

impl Backlog {
    /// Sets the number of bytes that wait.
    pub fn set(&self, bytes: usize) {
        self.0.store(u32::try_from(bytes).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    pub(super) fn bytes(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The feedback of a receiver on what was sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReceptionFeedback {
    /// The fraction of packets that the receiver has missed, 0..=1. Some browsers do not count those
    /// that a second attempt delivered.
    pub lost: f32,
    /// The fraction of bytes that were sent again on request, 0..=1.
    pub resent: f32,
    /// The fraction of bytes that were sent twice without a request, 0..=1.
    pub duplicated: f32,
    /// A queue stands in the network: packets take much longer than the quickest did.
    pub queued: bool,
}

/// An output of a track, for the session that publishes it or for one that receives it.
#[derive(Debug)]
pub enum TrackOutput {
    /// A compressed frame to send, for a receiver.
    Frame {
        /// The frame.
        frame: EncodedFrame,
        /// When the last packet of its source arrived.
        arrived: Instant,
    },
    /// The publisher is to be asked for a keyframe.
    NeedKeyframe,
    /// The bitrate that would be of use to a receiver, in bits a second.
    DesiredBitrate(u32),
    /// A message for the data channel of the publisher.
    Message {
        /// JSON.
        text: String,
        /// It may be left out when the browser is slow to read.
        may_be_missed: bool,
    },
}

/// The sink for the outputs of a track. It is called on the track's thread and must not block.
pub trait TrackSink: Send + Sync {
    /// Takes an output for a session. Returns false if it is lost.
    fn send(&self, session: SessionId, output: TrackOutput) -> bool;

    /// Takes note of the settings that are in force from now on, of any origin.
    fn settings_changed(&self, settings: &Settings);

    /// Asks for the end of the session. Returns false if that could not be taken.
    fn end(&self, why: ByeReason) -> bool;
}
