//! The words about sessions: their ids, how far they come, why they end.

use std::fmt;

use ooblex_effects::Chain;
use ooblex_pipeline::TrackId;
use serde::{Serialize, Serializer};

use crate::control::Goodbye;

/// Identity of a session: 16 hexadecimal digits that can not be guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl SessionId {
    /// A new one.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }

    /// The track of the session.
    pub fn track(self) -> TrackId {
        TrackId(self.0)
    }

    /// Its lines to the workers: one for each effect of a chain, the first one the track itself.
    pub fn lanes(self) -> impl Iterator<Item = TrackId> {
        (0..Chain::MOST).map(move |lane| self.lane(lane))
    }

    /// Line number `lane`. As ids are random, no two sessions share one but by a chance of 2^-60.
    pub fn lane(self, lane: usize) -> TrackId {
        TrackId(self.0.wrapping_add((lane as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
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
