//! Network metrics: counters of the WebRTC library, and bitrates of the encoders.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::labels::{Direction, LineCounts};

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
pub(super) struct Network {
    packets: Counters,
    bytes: Counters,
    lost: Counters,
    nacks: Counters,
    plis: Counters,
    size_steps: Counters,
    round_trip: Histogram,
    target: Histogram,
    estimate: Histogram,
}

impl Network {
    pub(super) fn new() -> Self {
        let network = Self {
            packets: Family::default(),
            bytes: Family::default(),
            lost: Family::default(),
            nacks: Family::default(),
            plis: Family::default(),
            size_steps: Family::default(),
            round_trip: Histogram::new(ROUND_TRIPS),
            target: Histogram::new(BITRATES),
            estimate: Histogram::new(BITRATES),
        };
        for direction in [Direction::In, Direction::Out] {
            network.on_line(direction, &LineCounts::default(), &LineCounts::default());
        }
        for down in [true, false] {
            drop(network.size_steps.get_or_create(&step(down)));
        }
        network
    }

    pub(super) fn register(&self, r: &mut Registry) {
        r.register("video_packets", "Video packets, including retransmissions, by direction", self.packets.clone());
        r.register("video_bytes", "Video bytes, including retransmissions, by direction", self.bytes.clone());
        r.register("video_packets_lost", "Video packets that did not reach their receiver, by direction", self.lost.clone());
        r.register("video_nacks", "Retransmission requests (NACK), by direction of the video", self.nacks.clone());
        r.register("video_plis", "Keyframe requests over RTCP, by direction of the video", self.plis.clone());
        let help = "Changes of the sent picture size to fit the available bandwidth, by direction (down or up)";
        r.register("picture_size_steps", help, self.size_steps.clone());
        r.register("network_round_trip_seconds", "Round-trip time to browsers, sampled once a second", self.round_trip.clone());
        r.register("encoder_target_bps", "Target bitrate of an encoder in bit/s, sampled once a second", self.target.clone());
        let help = "Estimated bandwidth to a browser in bit/s, sampled once a second";
        r.register("network_estimate_bps", help, self.estimate.clone());
    }

    /// Adds the difference between two counts of a video m-line.
    pub(super) fn on_line(&self, direction: Direction, before: &LineCounts, now: &LineCounts) {
        let add = |to: &Counters, before: u64, now: u64| _ = to.get_or_create(&direction.into()).inc_by(now.saturating_sub(before));
        add(&self.packets, before.packets, now.packets);
        add(&self.bytes, before.bytes, now.bytes);
        add(&self.lost, before.lost, now.lost);
        add(&self.nacks, before.nacks, now.nacks);
        add(&self.plis, before.plis, now.plis);
    }

    pub(super) fn on_round_trip(&self, took: Duration) {
        self.round_trip.observe(took.as_secs_f64());
    }

    pub(super) fn on_bitrates(&self, target_bps: Option<u32>, estimate_bps: Option<u32>) {
        if let Some(bps) = target_bps {
            self.target.observe(f64::from(bps));
        }
        if let Some(bps) = estimate_bps {
            self.estimate.observe(f64::from(bps));
        }
    }

    pub(super) fn on_size_step(&self, down: bool) {
        self.size_steps.get_or_create(&step(down)).inc();
    }
}

fn step(down: bool) -> DirectionLabel {
    DirectionLabel { direction: if down { "down" } else { "up" } }
}
