//! What comes in to a track, and what it gives.

use std::time::Instant;

use ooblex_codec::Rotation;
use ooblex_pipeline::{Completion, EncodedFrame, VideoCodec};

use crate::labels::Goodbye;
use crate::settings::{ChangedBy, Settings};

/// Things that wait for the track's thread.
pub(super) const INBOX: usize = 256;

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
    /// The broker is done with a frame.
    Completed {
        /// What became of it.
        completion: Completion,
        /// Since when.
        at: Instant,
    },
    /// Workers may have come or gone.
    ServiceChanged,
    /// Somebody other than the browser asks for something else.
    Change {
        /// What is to be in force.
        settings: Settings,
        /// Who asks.
        by: ChangedBy,
    },
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
    /// The same; and they are so few, all of a sudden, that frames which were handed on have been given up.
    BrokenDown(u32),
    /// How what was sent during the last second has feedback.
    Feedback(ReceptionFeedback),
    /// The camera is back after a silence: much was lost, in both directions.
    Resumed,
    /// Nothing: look whether the track has ended.
    Wake,
}

/// How what was sent has feedback.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReceptionFeedback {
    /// The share of packets that the browser has missed, 0..=1. Some browsers count what came at the second attempt as not missed.
    pub lost: f32,
    /// The share of bytes that it had asked for again, 0..=1.
    pub resent: f32,
    /// The share of bytes that were sent twice unasked, 0..=1.
    pub duplicated: f32,
    /// Packets take much longer than the quickest did.
    pub queued: bool,
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

/// Takes what a track gives. It is called on the track's thread and must not block.
pub trait TrackSink: Send + Sync {
    /// Takes something for the session. Returns false if it could not be taken and is lost.
    fn send(&self, output: TrackOutput) -> bool;

    /// Takes note of settings that are in force from now on, whoever asked for them.
    fn settings_changed(&self, settings: &Settings);

    /// Asks for the end of the session. Returns false if that could not be taken.
    fn end(&self, why: Goodbye) -> bool;
}
