//! The names of everything that Ooblex has in Redis.
//!
//! What carries frames has the version of the wire format in its name, so that two versions can share a Redis while one
//! replaces the other: each sees its own frames only. Announcements have not, so that they see each other.

use ooblex_pipeline::{EffectName, TrackId};

use super::wire;

/// A process that shares the Redis: random, made when its broker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PeerId(pub(super) u64);

impl PeerId {
    pub(super) fn random() -> Self {
        Self(rand::random())
    }
}

/// Makes names that begin with one prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
    database: i64,
}

impl Keys {
    pub(super) fn new(prefix: &str, database: i64) -> Self {
        Self { prefix: prefix.into(), database }
    }

    /// The list of the turns of tracks that wait for a worker of this effect.
    pub(super) fn turns(&self, effect: &EffectName) -> String {
        format!("{}v{}:frames_to_process:{effect}", self.prefix, wire::VERSION)
    }

    /// What the names of the slots of one effect begin with; a turn makes one complete.
    pub(super) fn slots(&self, effect: &EffectName) -> String {
        format!("{}v{}:frame:{effect}:", self.prefix, wire::VERSION)
    }

    /// Where the newest waiting frame of a track lies.
    pub(super) fn slot(&self, effect: &EffectName, turn: &str) -> String {
        self.slots(effect) + turn
    }

    /// Where a frame is before it is in its slot.
    pub(super) fn next(&self, gateway: PeerId) -> String {
        format!("{}v{}:next:{}", self.prefix, wire::VERSION, hex(gateway.0))
    }

    /// What a process writes to see whether Redis takes writes.
    pub(super) fn probe(&self, peer: PeerId) -> String {
        format!("{}v{}:probe:{}", self.prefix, wire::VERSION, hex(peer.0))
    }

    /// Where a frame is while a worker fetches it.
    pub(super) fn hand(&self, peer: PeerId, seat: u64) -> String {
        format!("{}v{}:hand:{}:{seat}", self.prefix, wire::VERSION, hex(peer.0))
    }

    /// The list of results for one gateway.
    pub(super) fn results(&self, gateway: PeerId) -> String {
        format!("{}v{}:processed_frames:{}", self.prefix, wire::VERSION, hex(gateway.0))
    }

    /// The list through which a process wakes its own workers.
    pub(super) fn wake(&self, peer: PeerId) -> String {
        format!("{}v{}:wake:{}", self.prefix, wire::VERSION, hex(peer.0))
    }

    /// What a process says of itself.
    pub(super) fn announcement(&self, role: &str, peer: PeerId) -> String {
        format!("{}{role}:{}", self.prefix, hex(peer.0))
    }

    /// The channel of all announcements. Channels know no databases, so its name does.
    pub(super) fn announcements(&self) -> String {
        format!("{}announcements:{}", self.prefix, self.database)
    }
}

/// A track's place in a queue.
pub(super) fn turn(gateway: PeerId, track: TrackId) -> String {
    format!("{}:{}", hex(gateway.0), hex(track.0))
}

/// The gateway whose track's turn this is.
pub(super) fn gateway_of(turn: &[u8]) -> Option<PeerId> {
    let text = std::str::from_utf8(turn).ok()?;
    let (gateway, _) = text.split_once(':')?;
    u64::from_str_radix(gateway, 16).ok().map(PeerId)
}

pub(super) fn hex(number: u64) -> String {
    format!("{number:016x}")
}
