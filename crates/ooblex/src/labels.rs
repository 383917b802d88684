//! The enumerations and records that the gateway reports, in metrics, messages and the API. They depend on nothing else of the gateway.

use std::time::Duration;

/// Upper bounds in seconds, fit for what takes milliseconds.
pub(crate) const BUCKETS: [f64; 14] = [0.0005, 0.001, 0.002, 0.003, 0.005, 0.008, 0.012, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0];

/// The quality steps that a track takes down when CPU is short, first to last. The frame rate has a controller of its own.
pub(crate) const QUALITY_STEPS: [QualityStep; 2] = [QualityStep::EncoderSpeed, QualityStep::ModelResolution];

/// A quality that a track lowers when CPU is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum QualityStep {
    /// The encoder takes less time for a frame, and its picture is coarser.
    EncoderSpeed,
    /// Models get smaller pictures.
    ModelResolution,
}

impl QualityStep {
    /// Returns the label in metrics.
    pub(crate) fn label(self) -> &'static str {
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
    /// From bits to pixels.
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
    /// From pixels to bits.
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

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// The browser said goodbye.
    ByPeer,
    /// The browser was not heard of for too long.
    Vanished,
    /// No connection came about after the offer.
    NeverConnected,
    /// The API was asked to end it, or the gateway stops.
    Requested,
    /// The token that it began with has expired.
    Expired,
    /// The WebRTC library gave up on it.
    Failed,
    /// Frame after frame of its camera was refused.
    Undecodable,
    /// No media came for too long.
    Idle,
    /// It lasted as long as a session may.
    TimeLimit,
    /// It took more of the media thread than it may.
    Budget,
    /// It used more data channels than it may.
    TooManyChannels,
}

impl End {
    /// All reasons.
    pub const ALL: [End; 11] = [
        End::ByPeer,
        End::Vanished,
        End::NeverConnected,
        End::Requested,
        End::Expired,
        End::Failed,
        End::Undecodable,
        End::Idle,
        End::TimeLimit,
        End::Budget,
        End::TooManyChannels,
    ];

    /// The label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            End::ByPeer => "by_peer",
            End::Vanished => "vanished",
            End::NeverConnected => "never_connected",
            End::Requested => "requested",
            End::Expired => "expired",
            End::Failed => "failed",
            End::Undecodable => "undecodable",
            End::Idle => "idle",
            End::TimeLimit => "time_limit",
            End::Budget => "budget",
            End::TooManyChannels => "too_many_channels",
        }
    }
}

/// Why a gateway ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goodbye {
    /// Somebody asked for it through the API: the browser is not to come back by itself.
    Ended,
    /// The gateway stops, perhaps to start again.
    Stopping,
    /// The gateway stops, and the session had the time of `serve.drain_s` to end by itself.
    Draining,
    /// The token that it began with has expired.
    Expired,
    /// The track broke.
    Broken,
    /// Frame after frame of the camera was refused; the `error` before says why.
    Undecodable,
    /// No media came for the time of `limits.idle_s`.
    Idle,
    /// The session has lasted for the time of `limits.session_minutes`.
    TimeLimit,
    /// It took more of the media thread than `limits.media_ms`.
    Budget,
    /// It uses more data channels than it may.
    TooManyChannels,
}

impl From<Goodbye> for End {
    fn from(goodbye: Goodbye) -> Self {
        match goodbye {
            Goodbye::Ended | Goodbye::Stopping | Goodbye::Draining | Goodbye::Broken => End::Requested,
            Goodbye::Expired => End::Expired,
            Goodbye::Undecodable => End::Undecodable,
            Goodbye::Idle => End::Idle,
            Goodbye::TimeLimit => End::TimeLimit,
            Goodbye::Budget => End::Budget,
            Goodbye::TooManyChannels => End::TooManyChannels,
        }
    }
}

/// How far a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SetUp {
    /// The offer was answered, and no packet of the browser came: they do not reach the media port.
    Answered,
    /// Packets of the browser came; it did not settle on a way: ours do not reach it.
    Heard,
    /// The browser has settled on a way; the keys were not agreed on.
    Reached,
    /// Media can flow.
    Connected,
}

impl SetUp {
    /// All steps, in their order.
    pub const ALL: [SetUp; 4] = [SetUp::Answered, SetUp::Heard, SetUp::Reached, SetUp::Connected];

    /// The label in metrics of a session that came so far and no further.
    pub fn failure(self) -> Option<&'static str> {
        match self {
            SetUp::Answered => Some("no_packets"),
            SetUp::Heard => Some("no_way_back"),
            SetUp::Reached => Some("no_keys"),
            SetUp::Connected => None,
        }
    }

    /// What that means, and the mend.
    pub fn explain(self) -> &'static str {
        match self {
            SetUp::Answered => {
                "no packet of the browser has come to the media port: it is closed by a firewall, not published by the container, or media.advertise does not name an address by which browsers reach this machine"
            }
            SetUp::Heard => {
                "packets of the browser come, and our answers do not reach it: look for a firewall that lets UDP in and not out, or an address in media.advertise that is another machine's"
            }
            SetUp::Reached => {
                "the browser is reached, and no keys were agreed on (DTLS): the network may drop large UDP packets, see its MTU"
            }
            SetUp::Connected => "it was connected",
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
    pub(crate) fn is_attempt(self) -> bool {
        matches!(self, Reason::UnknownKey | Reason::BadToken | Reason::HookRefused)
    }
}

/// Seen from the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    /// From browsers.
    In,
    /// To browsers.
    Out,
}

impl Direction {
    /// Returns the label in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// What one video line has counted since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LineCounts {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) lost: u64,
    pub(crate) nacks: u64,
    pub(crate) plis: u64,
}

/// One second of one session.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Viewing {
    /// Processed frames a second; `None` while the camera sends nothing.
    pub(crate) rate: Option<f64>,
    /// How long ago the picture that is seen came in; `None` before the first.
    pub(crate) age: Option<Duration>,
    /// Times that the picture stood still, which began in this second.
    pub(crate) freezes: u64,
    /// How long it stood still in this second.
    pub(crate) frozen: Duration,
}
