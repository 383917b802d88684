//! The bandwidth estimate of a session: what the track is told, and how far the WebRTC library
//! probes.

use std::time::{Duration, Instant};

use str0m::bwe::Bitrate;

use crate::bandwidth::{Bandwidth, Finding};

/// Largest bitrate that is probed, as a multiple of the estimate. More would fill a narrow network
/// for a second.
const PROBE_RATIO: f64 = 3.0;
/// Largest bitrate of the first probe of a new search, as a multiple of the estimate.
const FIRST_PROBE_RATIO: f64 = 1.5;
/// Largest bitrate that is probed after a breakdown, as a multiple of the estimate: practically
/// none, so that the queue in the network drains. The library does not take zero.
const NO_PROBE_RATIO: f64 = 0.001;

/// The bandwidth estimate of one session.
#[derive(Debug)]
pub(super) struct NetworkEstimate {
    /// The bitrate that the track could use.
    desired: Bitrate,
    /// The estimate with its history; `None` while the browser sends no transport-wide feedback.
    bandwidth: Option<Bandwidth>,
}

/// A change of the estimate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Change {
    pub(super) kind: ChangeKind,
    /// The new estimate, bit/s.
    pub(super) bps: u64,
    /// The bitrate up to which the library probes.
    pub(super) probe_limit: Bitrate,
}

/// The kind of a change of the estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChangeKind {
    /// The estimate has another value.
    Estimate,
    /// The network has broken down: the estimator is reset, and frames that wait are dropped.
    BrokenDown,
    /// The network may carry more: the estimator is reset, so that it searches anew.
    SearchAnew,
}

/// The bandwidth that is left for duplicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) bps: u64,
    /// The estimate is about as large as the bitrate that the track could use, and no packets
    /// queue.
    pub(super) is_ample: bool,
}

impl NetworkEstimate {
    pub(super) fn new() -> Self {
        Self { desired: Bitrate::ZERO, bandwidth: None }
    }

    /// Sets the bitrate that the track could use. Returns the bitrate up to which the library
    /// probes.
    pub(super) fn set_desired(&mut self, bps: u64) -> Bitrate {
        self.desired = Bitrate::bps(bps);
        if let Some(bandwidth) = &mut self.bandwidth {
            bandwidth.set_desired(bps);
        }
        let known = self.bandwidth.as_ref().map_or(Bitrate::INFINITY, |bandwidth| Bitrate::bps(bandwidth.told_bps()));
        self.desired.min(known * PROBE_RATIO)
    }

    /// Returns whether the browser sends transport-wide feedback. Then the estimates of the
    /// library's statistics count, which are newer than those of its events, a mean of some
    /// seconds.
    pub(super) fn is_measured(&self) -> bool {
        self.bandwidth.is_some()
    }

    /// The browser sends transport-wide feedback from now on.
    pub(super) fn begin_measuring(&mut self, now: Instant) {
        let mut bandwidth = Bandwidth::new(now);
        bandwidth.set_desired(self.desired.as_u64());
        self.bandwidth = Some(bandwidth);
    }

    /// Takes an estimate of the library, and the round-trip time of the last packet. Returns a
    /// change that is worth telling.
    pub(super) fn on_estimate(&mut self, now: Instant, estimate: Bitrate, rtt: Option<Duration>) -> Option<Change> {
        let bps = estimate.as_u64();
        let finding = self.bandwidth.as_mut().map_or(Finding::Changed(bps), |bandwidth| bandwidth.on_estimate(now, bps, rtt));
        let (kind, bps, probe_ratio) = match finding {
            Finding::Unchanged => return None,
            Finding::Changed(bps) => (ChangeKind::Estimate, bps, PROBE_RATIO),
            Finding::BrokenDown(bps) => (ChangeKind::BrokenDown, bps, NO_PROBE_RATIO),
            Finding::SearchAnew(bps) => (ChangeKind::SearchAnew, bps, FIRST_PROBE_RATIO),
        };
        Some(Change { kind, bps, probe_limit: self.desired.min(Bitrate::bps(bps) * probe_ratio) })
    }

    /// Returns the room for duplicates; `None` while the bandwidth is not measured.
    pub(super) fn room(&self) -> Option<Room> {
        self.bandwidth.as_ref().map(|bandwidth| Room { bps: bandwidth.told_bps(), is_ample: bandwidth.is_ample() })
    }

    /// Returns whether packets queue in the network all the time.
    pub(super) fn has_standing_queue(&self) -> bool {
        self.bandwidth.as_ref().is_some_and(Bandwidth::has_standing_queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const QUICK: Option<Duration> = Some(Duration::from_millis(40));
    const SLOW: Option<Duration> = Some(Duration::from_millis(240));

    fn change(kind: ChangeKind, bps: u64, probe_limit: Bitrate) -> Option<Change> {
        Some(Change { kind, bps, probe_limit })
    }

    #[test]
    fn estimate_that_is_not_measured_is_told_as_it_is() {
        let now = Instant::now();
        let mut network = NetworkEstimate::new();
        assert_eq!(network.set_desired(2_500_000), Bitrate::bps(2_500_000), "nothing limits the probe");
        let expected = change(ChangeKind::Estimate, 300_000, Bitrate::bps(900_000));
        assert_eq!(network.on_estimate(now, Bitrate::bps(300_000), None), expected);
        assert_eq!(network.on_estimate(now, Bitrate::bps(300_000), None), expected);
        assert!(network.room().is_none() && !network.is_measured() && !network.has_standing_queue());
    }

    #[test]
    fn probe_is_limited_by_the_desired_bitrate_and_by_a_multiple_of_the_estimate() {
        let now = Instant::now();
        let mut network = NetworkEstimate::new();
        network.set_desired(2_500_000);
        network.begin_measuring(now);
        let told = network.on_estimate(now, Bitrate::bps(500_000), QUICK);
        assert_eq!(told, change(ChangeKind::Estimate, 500_000, Bitrate::bps(1_500_000)));
        assert_eq!(network.on_estimate(now + 100 * MS, Bitrate::bps(500_000), QUICK), None);
        assert_eq!(network.set_desired(1_000_000), Bitrate::bps(1_000_000));
        assert_eq!(network.set_desired(9_000_000), Bitrate::bps(1_500_000));
    }

    #[test]
    fn breakdown_stops_the_probe_and_a_search_begins_with_a_small_one() {
        let mut now = Instant::now();
        let mut network = NetworkEstimate::new();
        network.set_desired(2_500_000);
        network.begin_measuring(now);
        for _ in 0..50 {
            now += 100 * MS;
            network.on_estimate(now, Bitrate::bps(2_500_000), QUICK);
        }
        assert_eq!(network.room(), Some(Room { bps: 2_500_000, is_ample: true }));
        now += 100 * MS;
        let told = network.on_estimate(now, Bitrate::bps(1_500_000), SLOW);
        assert_eq!(told, change(ChangeKind::BrokenDown, 325_000, Bitrate::bps(325_000) * 0.001));
        assert_eq!(network.room(), Some(Room { bps: 325_000, is_ample: false }));
        let told = (0..30).find_map(|_| {
            now += 100 * MS;
            network.on_estimate(now, Bitrate::bps(325_000), QUICK)
        });
        assert_eq!(told, change(ChangeKind::SearchAnew, 325_000, Bitrate::bps(325_000) * 1.5));
    }
}
