//! Network metrics: counters of the WebRTC library, and bitrates of the encoders.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::label_sets::ReasonLabel;
use super::registry::{add_histogram, add_new};
use crate::labels::{Direction, LineCounts, SoundDropReason};

/// Bucket bounds of bitrates, in bit/s.
const BITRATES: [f64; 10] = [100e3, 200e3, 400e3, 700e3, 1.0e6, 1.5e6, 2.5e6, 4.0e6, 6.0e6, 10.0e6];
/// Bucket bounds of round-trip times to browsers, in seconds.
const ROUND_TRIPS: [f64; 10] = [0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabel {
    direction: &'static str,
}

impl From<Direction> for DirectionLabel {
    fn from(direction: Direction) -> Self {
        Self { direction: direction.label() }
    }
}

type Counters = Family<DirectionLabel, Counter>;

/// Network metrics over all sessions.
pub struct Network {
    packets: Counters,
    bytes: Counters,
    lost: Counters,
    nacks: Counters,
    plis: Counters,
    size_steps: Counters,
    dropped_sound: Family<ReasonLabel, Counter>,
    round_trip: Histogram,
    target: Histogram,
    estimate: Histogram,
    /// Datagrams that were not processed or not sent.
    pub datagrams: DatagramCounters,
}

/// Datagrams that were not processed or not sent.
pub struct DatagramCounters {
    stray: Counter,
    refused: Counter,
    unsent: Counter,
    unauthenticated: Counter,
    withheld: Counter,
}

impl Network {
    pub(super) fn new(r: &mut Registry) -> Self {
        let network = Self {
            packets: add_new(r, "video_packets", "Video packets, including retransmissions, by direction"),
            bytes: add_new(r, "video_bytes", "Video bytes, including retransmissions, by direction"),
            lost: add_new(r, "video_packets_lost", "Video packets that did not reach their receiver, by direction"),
            nacks: add_new(r, "video_nacks", "Retransmission requests (NACK), by direction of the video"),
            plis: add_new(r, "video_plis", "Keyframe requests over RTCP, by direction of the video"),
            size_steps: add_new(
                r,
                "picture_size_steps",
                "Changes of the sent picture size to fit the available bandwidth, by direction (down or up)",
            ),
            dropped_sound: add_new(
                r,
                "audio_packets_dropped",
                "Audio packets that were not sent, by reason: the pictures became quicker, or too many packets waited for them",
            ),
            round_trip: add_histogram(r, "network_round_trip_seconds", "Round-trip time to browsers, sampled once a second", ROUND_TRIPS),
            target: add_histogram(r, "encoder_target_bps", "Target bitrate of an encoder in bit/s, sampled once a second", BITRATES),
            estimate: add_histogram(
                r,
                "network_estimate_bps",
                "Estimated bandwidth to a browser in bit/s, sampled once a second",
                BITRATES,
            ),
            datagrams: DatagramCounters {
                stray: add_new(r, "datagrams_stray", "Datagrams dropped because they belong to no session"),
                refused: add_new(r, "datagrams_refused", "Datagrams dropped because their session exceeded a limit"),
                unsent: add_new(r, "datagrams_unsent", "Datagrams that the operating system did not accept for sending"),
                unauthenticated: add_new(r, "datagrams_unauthenticated", "Datagrams for a connected session that failed authentication"),
                withheld: add_new(
                    r,
                    "datagrams_withheld",
                    "Datagrams not sent because their destination was not validated as the browser's address",
                ),
            },
        };
        for direction in [Direction::In, Direction::Out] {
            network.on_line(direction, &LineCounts::default(), &LineCounts::default());
        }
        for reason in SoundDropReason::ALL {
            drop(network.dropped_sound.get_or_create(&ReasonLabel { reason: reason.label() }));
        }
        for down in [true, false] {
            drop(network.size_steps.get_or_create(&step(down)));
        }
        network
    }

    /// Adds the difference between two counts of a video m-line.
    pub fn on_line(&self, direction: Direction, before: &LineCounts, now: &LineCounts) {
        let add = |to: &Counters, before: u64, now: u64| _ = to.get_or_create(&direction.into()).inc_by(now.saturating_sub(before));
        add(&self.packets, before.packets, now.packets);
        add(&self.bytes, before.bytes, now.bytes);
        add(&self.lost, before.lost, now.lost);
        add(&self.nacks, before.nacks, now.nacks);
        add(&self.plis, before.plis, now.plis);
    }

    /// Notes a round-trip time to a browser.
    pub fn on_round_trip(&self, took: Duration) {
        self.round_trip.observe(took.as_secs_f64());
    }

    /// Counts a packet of sound that is not sent.
    pub fn on_dropped_sound(&self, reason: SoundDropReason) {
        self.dropped_sound.get_or_create(&ReasonLabel { reason: reason.label() }).inc();
    }

    pub(crate) fn on_bitrates(&self, target_bps: Option<u32>, estimate_bps: Option<u32>) {
        if let Some(bps) = target_bps {
            self.target.observe(f64::from(bps));
        }
        if let Some(bps) = estimate_bps {
            self.estimate.observe(f64::from(bps));
        }
    }

    /// Counts a change of the sent picture size; `down` is true if the picture becomes smaller.
    pub(crate) fn on_size_step(&self, down: bool) {
        self.size_steps.get_or_create(&step(down)).inc();
    }
}

impl DatagramCounters {
    /// Counts a datagram that belongs to no session.
    pub fn on_stray(&self) {
        self.stray.inc();
    }

    /// Counts a datagram above a limit of its session.
    pub fn on_refused(&self) {
        self.refused.inc();
    }

    /// Counts a datagram that the operating system did not accept.
    pub fn on_unsent(&self) {
        self.unsent.inc();
    }

    /// Counts a datagram for a connected session that failed authentication.
    pub fn on_unauthenticated(&self) {
        self.unauthenticated.inc();
    }

    /// Counts a datagram that was not sent, because its destination was not validated.
    pub fn on_withheld(&self) {
        self.withheld.inc();
    }
}

fn step(down: bool) -> DirectionLabel {
    DirectionLabel { direction: if down { "down" } else { "up" } }
}
