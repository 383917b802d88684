//! The enumerations and records that the gateway reports, in metrics, messages and the API. They depend on nothing else of the gateway.

use std::time::Duration;

/// The quality steps that a track takes down when CPU is short, first to last. The frame rate has a controller of its own.
pub const QUALITY_STEPS: [QualityStep; 2] = [QualityStep::EncoderSpeed, QualityStep::ModelResolution];

/// The reason for which a packet of sound is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SoundDropReason {
    /// The pictures have become quicker, and the sound follows them.
    PictureQuicker,
    /// Too many packets wait for their picture.
    QueueFull,
}

impl SoundDropReason {
    /// All reasons.
    pub const ALL: [Self; 2] = [Self::PictureQuicker, Self::QueueFull];

    /// Returns the label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::PictureQuicker => "picture_quicker",
            Self::QueueFull => "queue_full",
        }
    }
}

/// A quality that a track lowers when CPU is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QualityStep {
    /// The encoder takes less time for a frame, and its picture is coarser.
    EncoderSpeed,
    /// Models get smaller pictures.
    ModelResolution,
}

impl QualityStep {
    /// Returns the label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::EncoderSpeed => "encoder_speed",
            Self::ModelResolution => "model_resolution",
        }
    }
}

/// A part of a frame's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// It waits, whole and compressed, for its track's thread.
    Inbox,
    /// The frame is decoded.
    Decode,
    /// The model's input is made.
    Prepare,
    /// It waits for a worker.
    Queue,
    /// The model runs.
    Analyse,
    /// Its result waits for its track to have a core.
    Turn,
    /// It waits for the results of older ones.
    Playout,
    /// The effect is painted.
    Compose,
    /// The picture is encoded.
    Encode,
}

impl Stage {
    /// All, in the order in which a frame passes them.
    pub const ALL: [Stage; 9] = [
        Stage::Inbox,
        Stage::Decode,
        Stage::Prepare,
        Stage::Queue,
        Stage::Analyse,
        Stage::Turn,
        Stage::Playout,
        Stage::Compose,
        Stage::Encode,
    ];

    /// The label in metrics and the API.
    pub fn label(self) -> &'static str {
        match self {
            Stage::Inbox => "inbox",
            Stage::Decode => "decode",
            Stage::Prepare => "prepare",
            Stage::Queue => "queue",
            Stage::Analyse => "analyse",
            Stage::Turn => "turn",
            Stage::Playout => "playout",
            Stage::Compose => "compose",
            Stage::Encode => "encode",
        }
    }
}

/// The reason why a session has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// The browser said goodbye.
    ByPeer,
    /// The browser was silent for too long, or its address belongs to another session now.
    Vanished,
    /// The browser did not connect in time after the answer.
    NeverConnected,
    /// A client of the API ended it, the gateway stops, or its track failed.
    Requested,
    /// The token that it began with has expired.
    Expired,
    /// The WebRTC library failed or panicked.
    Failed,
    /// The frames of the camera were refused one after another.
    Undecodable,
    /// No media came for the time of `limits.idle_s`.
    Idle,
    /// It has lasted for the time of `limits.session_minutes`.
    TimeLimit,
    /// It used more time of the media thread than `limits.media_ms`.
    Budget,
    /// It used more data channels than a session may use.
    TooManyChannels,
    /// The publisher whose pictures it received has ended.
    PublisherEnded,
}

impl EndReason {
    /// All reasons.
    pub const ALL: [EndReason; 12] = [
        EndReason::ByPeer,
        EndReason::Vanished,
        EndReason::NeverConnected,
        EndReason::Requested,
        EndReason::Expired,
        EndReason::Failed,
        EndReason::Undecodable,
        EndReason::Idle,
        EndReason::TimeLimit,
        EndReason::Budget,
        EndReason::TooManyChannels,
        EndReason::PublisherEnded,
    ];

    /// The label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            EndReason::ByPeer => "by_peer",
            EndReason::Vanished => "vanished",
            EndReason::NeverConnected => "never_connected",
            EndReason::Requested => "requested",
            EndReason::Expired => "expired",
            EndReason::Failed => "failed",
            EndReason::Undecodable => "undecodable",
            EndReason::Idle => "idle",
            EndReason::TimeLimit => "time_limit",
            EndReason::Budget => "budget",
            EndReason::TooManyChannels => "too_many_channels",
            EndReason::PublisherEnded => "publisher_ended",
        }
    }
}

/// The reason in the message `bye`, with which a gateway ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByeReason {
    /// A client of the API ended it. The browser must not reconnect by itself.
    Ended,
    /// The gateway stops, and may start again.
    Stopping,
    /// The gateway stops, and the session has had the time of `serve.drain_s` to end by itself.
    Draining,
    /// The token that it began with has expired.
    Expired,
    /// The track failed.
    Broken,
    /// The frames of the camera were refused one after another; a message `error` has the cause.
    Undecodable,
    /// No media came for the time of `limits.idle_s`.
    Idle,
    /// The session has lasted for the time of `limits.session_minutes`.
    TimeLimit,
    /// The session used more time of the media thread than `limits.media_ms`.
    Budget,
    /// The session used more data channels than a session may use.
    TooManyChannels,
    /// The publisher whose pictures the session received has ended.
    PublisherEnded,
}

impl From<ByeReason> for EndReason {
    fn from(goodbye: ByeReason) -> Self {
        match goodbye {
            ByeReason::Ended | ByeReason::Stopping | ByeReason::Draining | ByeReason::Broken => EndReason::Requested,
            ByeReason::Expired => EndReason::Expired,
            ByeReason::Undecodable => EndReason::Undecodable,
            ByeReason::Idle => EndReason::Idle,
            ByeReason::TimeLimit => EndReason::TimeLimit,
            ByeReason::Budget => EndReason::Budget,
            ByeReason::TooManyChannels => EndReason::TooManyChannels,
            ByeReason::PublisherEnded => EndReason::PublisherEnded,
        }
    }
}

/// The stage that the set-up of a session has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SetupStage {
    /// The offer was answered. A session that stays here had no packet of the browser: they do not
    /// reach the media port.
    Answered,
    /// Packets of the browser came. A session that stays here has no ICE candidate pair: the packets
    /// of the gateway do not reach the browser.
    Heard,
    /// The browser has selected an ICE candidate pair. A session that stays here has no DTLS keys.
    Reached,
    /// Media can flow.
    Connected,
}

impl SetupStage {
    /// All stages, in their order.
    pub const ALL: [SetupStage; 4] = [SetupStage::Answered, SetupStage::Heard, SetupStage::Reached, SetupStage::Connected];

    /// Returns the label in metrics of a session whose set-up has stopped at this stage.
    pub fn failure(self) -> Option<&'static str> {
        match self {
            SetupStage::Answered => Some("no_packets"),
            SetupStage::Heard => Some("no_way_back"),
            SetupStage::Reached => Some("no_keys"),
            SetupStage::Connected => None,
        }
    }

    /// Returns the cause of a set-up that has stopped at this stage, and the remedy.
    pub fn explain(self) -> &'static str {
        match self {
            SetupStage::Answered => {
                "no packet of the browser has come to the media port: it is closed by a firewall, not published by the container, or media.advertise does not name an address by which browsers reach this machine"
            }
            SetupStage::Heard => {
                "packets of the browser come, and our answers do not reach it: look for a firewall that lets UDP in and not out, or an address in media.advertise that is another machine's"
            }
            SetupStage::Reached => {
                "the browser is reached, and no keys were agreed on (DTLS): the network may drop large UDP packets, see its MTU"
            }
            SetupStage::Connected => "it was connected",
        }
    }
}

/// Why a caller gets nothing. It is what metrics count, and what the log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It shows no credential.
    Missing,
    /// Its credential is no key that is known, or is signed with none that is known.
    UnknownKey,
    /// Its token is not signed by whom it should be, or cannot be read.
    BadToken,
    /// Its token has expired.
    Expired,
    /// Its token is for somebody else, not valid yet, or lacks what it must have.
    WrongClaims,
    /// The hook says no.
    HookRefused,
    /// The secret is not that of the session.
    WrongSession,
    /// It is known, and may not do this.
    NotAllowed,
    /// It has failed too often.
    Throttled,
    /// The hook or the public keys cannot be reached.
    Unavailable,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Reason; 10] = [
        Reason::Missing,
        Reason::UnknownKey,
        Reason::BadToken,
        Reason::Expired,
        Reason::WrongClaims,
        Reason::HookRefused,
        Reason::WrongSession,
        Reason::NotAllowed,
        Reason::Throttled,
        Reason::Unavailable,
    ];

    /// The label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Reason::Missing => "missing",
            Reason::UnknownKey => "unknown_key",
            Reason::BadToken => "bad_token",
            Reason::Expired => "expired",
            Reason::WrongClaims => "wrong_claims",
            Reason::HookRefused => "hook_refused",
            Reason::WrongSession => "wrong_session",
            Reason::NotAllowed => "not_allowed",
            Reason::Throttled => "throttled",
            Reason::Unavailable => "unavailable",
        }
    }

    /// Tells whether it could have been an attempt to guess a credential. An expired token was right once.
    pub fn is_attempt(self) -> bool {
        matches!(self, Reason::UnknownKey | Reason::BadToken | Reason::HookRefused)
    }
}

/// Seen from the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Packets from browsers.
    In,
    /// Packets to browsers.
    Out,
}

impl Direction {
    /// Returns the label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// Counters of one video line since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LineCounts {
    /// Packets.
    pub packets: u64,
    /// Bytes of these packets.
    pub bytes: u64,
    /// Packets that were lost.
    pub lost: u64,
    /// Negative acknowledgements (NACK).
    pub nacks: u64,
    /// Picture loss indications (PLI), which request a keyframe.
    pub plis: u64,
}

/// One second of one session.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Viewing {
    /// Processed frames a second; `None` while the camera sends nothing.
    pub rate: Option<f64>,
    /// How long ago the picture that is seen came in; `None` before the first.
    pub age: Option<Duration>,
    /// Times that the picture stood still, which began in this second.
    pub freezes: u64,
    /// How long it stood still in this second.
    pub frozen: Duration,
}
