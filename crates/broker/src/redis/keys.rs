//! Names of all keys and channels of Ooblex in Redis.
//!
//! Keys for frames contain the version of the wire format, so that two versions can share a Redis
//! while one replaces the other: each sees only its own frames. Announcements have no version in
//! their names, so that the versions see each other.

use ooblex_pipeline::{EffectName, TrackId};

use super::wire;

/// Random id of a process that shares the Redis, generated when its broker is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PeerId(pub(super) u64);

impl PeerId {
    pub(super) fn random() -> Self {
        Self(rand::random())
    }
}

/// Makes the names of keys and channels, which all have one prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
    database: i64,
}

impl Keys {
    pub(super) fn new(prefix: &str, database: i64) -> Self {
        Self { prefix: prefix.into(), database }
    }

    /// Returns the name of an effect's queue: the list of the turns of the tracks that wait for a
    /// worker.
    pub(super) fn turns(&self, effect: &EffectName) -> String {
        format!("{}v{}:frames_to_process:{effect}", self.prefix, wire::VERSION)
    }

    /// Returns the prefix of the names of an effect's slots. A turn completes the name.
    pub(super) fn slots(&self, effect: &EffectName) -> String {
        format!("{}v{}:frame:{effect}:", self.prefix, wire::VERSION)
    }

    /// Returns the key of the slot with the newest waiting frame of a track.
    pub(super) fn slot(&self, effect: &EffectName, turn: &str) -> String {
        self.slots(effect) + turn
    }

    /// Returns the key under which a gateway stores a frame before it is moved to its slot.
    pub(super) fn next(&self, gateway: PeerId) -> String {
        format!("{}v{}:next:{}", self.prefix, wire::VERSION, hex(gateway.0))
    }

    /// Returns the key that a process writes to test whether Redis accepts writes.
    pub(super) fn probe(&self, peer: PeerId) -> String {
        format!("{}v{}:probe:{}", self.prefix, wire::VERSION, hex(peer.0))
    }

    /// Returns the key of a frame while a worker fetches it.
    pub(super) fn hand(&self, peer: PeerId, seat: u64) -> String {
        format!("{}v{}:hand:{}:{seat}", self.prefix, wire::VERSION, hex(peer.0))
    }

    /// Returns the name of the list of results for one gateway.
    pub(super) fn results(&self, gateway: PeerId) -> String {
        format!("{}v{}:processed_frames:{}", self.prefix, wire::VERSION, hex(gateway.0))
    }

    /// Returns the name of the list through which a process wakes its own workers.
    pub(super) fn wake(&self, peer: PeerId) -> String {
        format!("{}v{}:wake:{}", self.prefix, wire::VERSION, hex(peer.0))
    }

    /// Returns the key of a process's announcement in one role.
    pub(super) fn announcement(&self, role: &str, peer: PeerId) -> String {
        format!("{}{role}:{}", self.prefix, hex(peer.0))
    }

    /// Returns the name of the channel of all announcements. It contains the number of the
    /// database, because Redis does not separate channels by database.
    pub(super) fn announcements(&self) -> String {
        format!("{}announcements:{}", self.prefix, self.database)
    }
}

/// Returns the turn of a track: its entry in the queue of an effect.
pub(super) fn turn(gateway: PeerId, track: TrackId) -> String {
    format!("{}:{}", hex(gateway.0), hex(track.0))
}

/// Returns the gateway of the track that this turn belongs to.
pub(super) fn gateway_of(turn: &[u8]) -> Option<PeerId> {
    let text = std::str::from_utf8(turn).ok()?;
    let (gateway, _) = text.split_once(':')?;
    u64::from_str_radix(gateway, 16).ok().map(PeerId)
}

pub(super) fn hex(number: u64) -> String {
    format!("{number:016x}")
}
