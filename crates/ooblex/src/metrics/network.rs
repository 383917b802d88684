//! What passes the network, and what does not: by what the WebRTC library counts, and by what encoders aim at.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Bits a second.
const BITRATES: [f64; 10] = [100e3, 200e3, 400e3, 700e3, 1.0e6, 1.5e6, 2.5e6, 4.0e6, 6.0e6, 10.0e6];
/// Seconds to a browser and back.
const ROUND_TRIPS: [f64; 10] = [0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0];

/// Seen from the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    /// From browsers.
    In,
    /// To browsers.
    Out,
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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabel {
    direction: &'static str,
}

type Counters = Family<DirectionLabel, Counter>;

/// Of all sessions.
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

impl Direction {
    fn label(self) -> DirectionLabel {
        DirectionLabel { direction: if self == Direction::In { "in" } else { "out" } }
    }
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
        r.register("video_packets", "Packets of video, by direction, with those that were sent again", self.packets.clone());
        r.register("video_bytes", "Bytes of video, by direction, with those that were sent again", self.bytes.clone());
        r.register("video_packets_lost", "Packets of video that were missed by whoever was to get them, by direction", self.lost.clone());
        r.register("video_nacks", "Requests to send packets again, by the direction of the video", self.nacks.clone());
        r.register("video_plis", "Requests for a keyframe by RTCP, by the direction of the video", self.plis.clone());
        let help = "Times that pictures began to be sent smaller or larger than before, as the network allows";
        r.register("picture_size_steps", help, self.size_steps.clone());
        r.register("network_round_trip_seconds", "Round trips to browsers, looked at once a second", self.round_trip.clone());
        r.register("encoder_target_bps", "Bits a second that an encoder aims at, looked at once a second", self.target.clone());
        let help = "Bits a second that the network to a browser is thought to carry, looked at once a second";
        r.register("network_estimate_bps", help, self.estimate.clone());
    }

    /// A line has counted `now`, and `before` when it was looked at before.
    pub(super) fn on_line(&self, direction: Direction, before: &LineCounts, now: &LineCounts) {
        let add = |to: &Counters, before: u64, now: u64| _ = to.get_or_create(&direction.label()).inc_by(now.saturating_sub(before));
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
