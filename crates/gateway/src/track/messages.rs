//! The inputs and outputs of a track.

use std::time::Instant;

use ooblex_codec::Rotation;
use ooblex_pipeline::{Completion, EncodedFrame, VideoCodec};

use crate::labels::ByeReason;
use crate::settings::{ChangedBy, Settings};

/// Inputs that wait for the track's thread, at most.
pub(super) const INBOX: usize = 256;

/// An input of a track.
pub enum TrackInput {
    /// The codec of the encoder, known before the first frame. It does not come if the browser
    /// receives no video.
    Codec(VideoCodec),
    /// A compressed frame arrived whole.
    Frame {
        /// The frame.
        frame: EncodedFrame,
        /// When its last packet arrived.
        arrived: Instant,
        /// The rotation that makes it upright. `None`: as before.
        rotation: Option<Rotation>,
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
    /// A message of the browser. `None`: one that was too long.
    Control(Option<Vec<u8>>),
    /// The data channel is open.
    ControlOpen,
    /// The connection is established.
    Connected,
    /// The browser needs a keyframe to decode further frames.
    KeyframeWanted,
    /// The estimate of the bandwidth, in bits a second.
    Estimate(u32),
    /// An estimate that has fallen so far at once that frames which were handed on have been given
    /// up.
    BrokenDown(u32),
    /// The feedback on what was sent during the last second.
    Feedback(ReceptionFeedback),
    /// The camera sends again after a silence. Packets were lost in both directions.
    Resumed,
    /// Wakes the thread, so that it sees that the track has ended.
    Wake,
}

/// The feedback of the browser on what was sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReceptionFeedback {
    /// The fraction of packets that the browser has missed, 0..=1. Some browsers do not count those
    /// that a second attempt delivered.
    pub lost: f32,
    /// The fraction of bytes that were sent again on request, 0..=1.
    pub resent: f32,
    /// The fraction of bytes that were sent twice without a request, 0..=1.
    pub duplicated: f32,
    /// A queue stands in the network: packets take much longer than the quickest did.
    pub queued: bool,
}

/// An output of a track, for its session.
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
    /// The bitrate that would be of use, in bits a second.
    DesiredBitrate(u32),
    /// A message for the data channel.
    Message {
        /// JSON.
        text: String,
        /// It may be left out when the browser is slow to read.
        may_be_missed: bool,
    },
}

/// The sink for the outputs of a track. It is called on the track's thread and must not block.
pub trait TrackSink: Send + Sync {
    /// Takes an output. Returns false if it is lost.
    fn send(&self, output: TrackOutput) -> bool;

    /// Takes note of the settings that are in force from now on, of any origin.
    fn settings_changed(&self, settings: &Settings);

    /// Asks for the end of the session. Returns false if that could not be taken.
    fn end(&self, why: ByeReason) -> bool;
}
