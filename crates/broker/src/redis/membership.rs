//! Membership: the processes that share the Redis, as long as their heartbeats (announcements)
//! arrive.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ooblex_pipeline::EffectName;
use serde::{Deserialize, Serialize};

use super::keys::PeerId;
use super::wire;

/// Heartbeat interval: time between two announcements of a process.
pub(super) const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(200);
/// Peer timeout: a process without a heartbeat for this time is gone, or hangs. With it, sessions
/// are told of missing workers within a second.
pub(super) const PEER_TIMEOUT: Duration = Duration::from_millis(700);
/// Maximum number of processes that are remembered; further ones are ignored.
const MAX_PEERS: usize = 4096;
/// Maximum number of effects in an announcement. Announcements with more are rejected.
const MAX_EFFECTS: usize = 256;
/// Maximum length of a device's name in an announcement, bytes. Longer ones are rejected.
const MAX_DEVICE: usize = 40;
/// Maximum number of threads in an announcement. Announcements with more are rejected.
const MAX_THREADS: usize = 4096;

/// Announcement (heartbeat) of a process, as JSON. All versions, also future ones, read and write
/// these fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Announcement {
    /// Id of the process, 16 hexadecimal digits.
    pub(super) id: String,
    /// Version of the wire format that the process speaks.
    pub(super) wire: u32,
    /// Version of the program.
    #[serde(default)]
    pub(super) version: String,
    /// Name of the machine that the process runs on.
    #[serde(default)]
    pub(super) host: String,
    /// Device that its models run on.
    #[serde(default)]
    pub(super) device: String,
    /// True if the process is a gateway.
    #[serde(default)]
    pub(super) gateway: bool,
    /// Number of workers (threads) that take jobs.
    #[serde(default)]
    pub(super) threads: usize,
    /// Effects that the workers serve.
    #[serde(default)]
    pub(super) effects: Vec<EffectName>,
    /// Time that the workers have spent on jobs, in microseconds.
    #[serde(default)]
    pub(super) busy_us: u64,
}

/// Processes whose heartbeats have arrived recently.
#[derive(Debug, Default)]
pub(super) struct Membership {
    peers: BTreeMap<PeerId, Peer>,
    incompatible_peers: BTreeMap<String, Instant>,
    busy: Duration,
}

#[derive(Debug)]
struct Peer {
    announcement: Announcement,
    heard: Instant,
}

/// Change that an announcement makes to the membership.
#[derive(Debug, PartialEq)]
pub(super) enum Heard {
    /// No change that tracks need to know.
    Nothing,
    /// The set of effects that are served has changed.
    Service,
    /// A process that speaks another version of the wire format was heard for the first time.
    IncompatiblePeer {
        /// Announcement of that process.
        announcement: Box<Announcement>,
    },
    /// The bytes are not a valid announcement.
    Noise,
}

impl Membership {
    /// Updates the membership with an announcement. A process without workers that is no gateway
    /// leaves with it.
    pub(super) fn on_announcement(&mut self, now: Instant, bytes: &[u8]) -> Heard {
        let Some((id, announcement)) = parse(bytes) else { return Heard::Noise };
        if announcement.wire != u32::from(wire::VERSION) {
            let room = self.incompatible_peers.len() < MAX_PEERS;
            let new = room && self.incompatible_peers.insert(announcement.id.clone(), now).is_none();
            return if new { Heard::IncompatiblePeer { announcement: Box::new(announcement) } } else { Heard::Nothing };
        }
        let before = self.served();
        let peer = self.peers.get(&id);
        let known_busy = peer.map_or(announcement.busy_us, |peer| peer.announcement.busy_us);
        let more = Duration::from_micros(announcement.busy_us.saturating_sub(known_busy));
        // Any client that can publish in Redis can announce any time.
        self.busy = self.busy.saturating_add(more);
        if announcement.threads == 0 && !announcement.gateway {
            self.peers.remove(&id);
        } else if peer.is_some() || self.peers.len() < MAX_PEERS {
            self.peers.insert(id, Peer { announcement, heard: now });
        }
        if self.served() == before { Heard::Nothing } else { Heard::Service }
    }

    /// Removes the processes whose last heartbeat is older than [`PEER_TIMEOUT`]. Returns whether
    /// other effects are served than before.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let before = self.served();
        self.peers.retain(|_, peer| now < peer.heard + PEER_TIMEOUT);
        self.incompatible_peers.retain(|_, heard| now < *heard + PEER_TIMEOUT);
        self.served() != before
    }

    /// Restarts the timeout of all peers, because no heartbeat could be received until now.
    pub(super) fn on_listening_again(&mut self, now: Instant) {
        self.peers.values_mut().for_each(|peer| peer.heard = now);
    }

    pub(super) fn serves(&self, effect: &EffectName) -> bool {
        self.workers().any(|worker| worker.effects.contains(effect))
    }

    /// Returns the number of threads that serve each effect.
    pub(super) fn serving(&self) -> BTreeMap<EffectName, usize> {
        let mut serving = BTreeMap::new();
        for worker in self.workers() {
            for effect in &worker.effects {
                *serving.entry(effect.clone()).or_default() += worker.threads;
            }
        }
        serving
    }

    /// Returns the number of threads on each device.
    pub(super) fn devices(&self) -> BTreeMap<String, usize> {
        let mut devices = BTreeMap::new();
        for worker in self.workers() {
            *devices.entry(worker.device.clone()).or_default() += worker.threads;
        }
        devices
    }

    pub(super) fn threads(&self) -> usize {
        self.workers().map(|worker| worker.threads).sum()
    }

    /// Returns the total time that workers have spent on jobs, each counted from its first
    /// announcement.
    pub(super) fn busy(&self) -> Duration {
        self.busy
    }

    /// Returns the number of processes that speak another version of the wire format.
    pub(super) fn incompatible_peers(&self) -> usize {
        self.incompatible_peers.len()
    }

    fn workers(&self) -> impl Iterator<Item = &Announcement> {
        self.peers.values().map(|peer| &peer.announcement).filter(|announcement| announcement.threads > 0)
    }

    fn served(&self) -> BTreeSet<EffectName> {
        self.workers().flat_map(|worker| worker.effects.iter().cloned()).collect()
    }
}

fn parse(bytes: &[u8]) -> Option<(PeerId, Announcement)> {
    let announcement: Announcement = serde_json::from_slice(bytes).ok()?;
    let id = (announcement.id.len() == 16).then(|| u64::from_str_radix(&announcement.id, 16).ok())??;
    let sane = announcement.effects.len() <= MAX_EFFECTS && announcement.threads <= MAX_THREADS && announcement.device.len() <= MAX_DEVICE;
    sane.then_some((PeerId(id), announcement))
}

#[cfg(test)]
mod tests {
    use super::super::keys::hex;
    use super::*;

    fn worker(id: u64, threads: usize, effects: &[&str]) -> Announcement {
        Announcement {
            id: hex(id),
            wire: wire::VERSION.into(),
            version: "0".into(),
            host: "h".into(),
            device: "cpu".into(),
            gateway: false,
            threads,
            effects: effects.iter().map(|name| EffectName::new(*name)).collect(),
            busy_us: 0,
        }
    }

    fn said(announcement: &Announcement) -> Vec<u8> {
        serde_json::to_vec(announcement).unwrap()
    }

    #[test]
    fn service_changes_with_the_first_worker_and_the_last() {
        let (mut membership, now) = (Membership::default(), Instant::now());
        assert_eq!(membership.on_announcement(now, &said(&worker(1, 2, &["a"]))), Heard::Service);
        assert_eq!(membership.on_announcement(now, &said(&worker(2, 1, &["a"]))), Heard::Nothing);
        assert_eq!((membership.threads(), membership.serving()[&EffectName::new("a")], membership.devices()["cpu"]), (3, 3, 3));
        assert_eq!(membership.on_announcement(now, &said(&worker(1, 0, &[]))), Heard::Nothing, "goodbye of one");
        assert_eq!(membership.on_announcement(now, &said(&worker(2, 0, &[]))), Heard::Service, "goodbye of the last");
        assert!(!membership.serves(&EffectName::new("a")));
    }

    #[test]
    fn who_is_silent_is_gone() {
        let (mut membership, start) = (Membership::default(), Instant::now());
        membership.on_announcement(start, &said(&worker(1, 1, &["a"])));
        assert!(!membership.expire(start + PEER_TIMEOUT - Duration::from_millis(1)));
        assert!(membership.expire(start + PEER_TIMEOUT));
        assert_eq!(membership.threads(), 0);
    }

    #[test]
    fn after_an_outage_everybody_has_time_to_speak() {
        let (mut membership, start) = (Membership::default(), Instant::now());
        membership.on_announcement(start, &said(&worker(1, 1, &["a"])));
        let later = start + Duration::from_secs(60);
        membership.on_listening_again(later);
        assert!(!membership.expire(later + HEARTBEAT_INTERVAL));
    }

    #[test]
    fn worker_of_another_version_is_incompatible_and_no_capacity() {
        let (mut membership, now) = (Membership::default(), Instant::now());
        let stranger = Announcement { wire: 99, ..worker(1, 4, &["a"]) };
        assert!(matches!(membership.on_announcement(now, &said(&stranger)), Heard::IncompatiblePeer { .. }));
        assert_eq!(membership.on_announcement(now, &said(&stranger)), Heard::Nothing, "said once");
        assert_eq!((membership.threads(), membership.incompatible_peers()), (0, 1));
    }

    #[test]
    fn time_spent_adds_up_over_workers_that_come_and_go() {
        let (mut membership, now) = (Membership::default(), Instant::now());
        for busy_us in [500, 700, 1000] {
            membership.on_announcement(now, &said(&Announcement { busy_us, ..worker(1, 1, &["a"]) }));
        }
        membership.on_announcement(now, &said(&worker(1, 0, &[])));
        membership.on_announcement(now, &said(&Announcement { busy_us: 9000, ..worker(2, 1, &["a"]) }));
        assert_eq!(membership.busy(), Duration::from_micros(500), "only what was spent since they were heard");
    }

    #[test]
    fn time_spent_does_not_overflow() {
        let (mut membership, now) = (Membership::default(), Instant::now());
        membership.busy = Duration::MAX;
        for busy_us in [0, u64::MAX] {
            membership.on_announcement(now, &said(&Announcement { busy_us, ..worker(1, 1, &["a"]) }));
        }
        assert_eq!(membership.busy(), Duration::MAX);
    }

    #[test]
    fn noise_is_told_from_announcements() {
        let (mut membership, now) = (Membership::default(), Instant::now());
        let long_id = Announcement { id: "1".repeat(40), ..worker(1, 1, &[]) };
        let boastful = worker(1, usize::MAX, &["a"]);
        for bytes in [b"".to_vec(), b"{}".to_vec(), vec![0xff; 100], b"[1]".to_vec(), said(&long_id), said(&boastful)] {
            assert_eq!(membership.on_announcement(now, &bytes), Heard::Noise);
        }
        assert_eq!(membership.threads(), 0);
    }
}
