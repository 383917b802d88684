//! The control loop on the bandwidth estimate: it decides which estimates of the WebRTC library are
//! told, when the library searches anew, and when the network has broken down.
//!
//! The library searches for more bandwidth only while less is sent than its estimate. A track that
//! uses the whole estimate prevents that, and the estimate then grows by 8 % per second. A new
//! search sends a few packets in quick succession and measures how they arrive. It finds more
//! bandwidth in a fraction of a second; where there is none, it has cost some kilobytes. The time
//! is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A breakdown is an estimate below this part of the largest in [`HISTORY`], while packets queue.
const BREAKDOWN_RATIO: f64 = 0.65;
/// Time over which estimates are compared.
const HISTORY: Duration = Duration::from_millis(1500);
/// Part of the estimate that is told after a breakdown. The library comes down in steps, the first
/// of which is far from the last, and packets that are sent meanwhile are lost.
const BREAKDOWN_ESTIMATE_RATIO: f64 = 0.75;
/// Largest estimate that is told after a breakdown, as a part of the largest before it. A search
/// then finds out whether there is more.
const MAX_BREAKDOWN_RATIO: f64 = 0.13;
/// Part of the desired bitrate that the estimate must reach before there can be another breakdown.
/// The track can follow the estimate of a network that is already narrow.
const RECOVERY_RATIO: f64 = 0.5;
/// Time of the library's own first search, during which nothing is a breakdown and no search
/// begins.
const FIRST_SEARCH: Duration = Duration::from_secs(4);
/// Part of the desired bitrate that is enough: with it, no search begins.
const SATISFIED_RATIO: f64 = 0.9;
/// Time without a decrease of the estimate before a search begins.
const STEADY_TIME: Duration = Duration::from_millis(1000);
/// Round-trip time above the lowest one from which packets count as queued. No search begins then.
const QUEUING_DELAY: Duration = Duration::from_millis(80);
/// Time after a breakdown before a search begins.
const BREAKDOWN_REST: Duration = Duration::from_millis(800);
/// Time between two searches.
const SEARCH_INTERVAL: Duration = Duration::from_secs(3);
/// Time between two searches after [`HOPEFUL_TIME`] in which they have found nothing.
const RARE_SEARCH_INTERVAL: Duration = Duration::from_secs(15);
/// Time without success after which searches are rare.
const HOPEFUL_TIME: Duration = Duration::from_secs(60);
/// Growth of the lowest round-trip time with each estimate, so that an old one is forgotten.
const LOWEST_RTT_GROWTH: f64 = 1.002;
/// Relative change below which an estimate is not told.
const MIN_CHANGE_RATIO: f64 = 0.02;
/// Successive estimates with queued packets that make a standing queue, as opposed to jitter. An
/// estimate that grows during a standing queue is not told: the library detects queues by their
/// growth, and a full queue does not grow.
const STANDING_QUEUE_ESTIMATES: u32 = 3;
/// Relative decrease of an estimate below which it counts as steady.
const STEADY_RATIO: f64 = 0.05;

/// The meaning of an estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The estimate is about the one that was told last.
    Unchanged,
    /// The network carries this bitrate, bit/s.
    Changed(u64),
    /// The network has broken down and may carry this bitrate, bit/s. Packets that wait, and
    /// retransmissions of lost ones, would come too late.
    BrokenDown(u64),
    /// The network may carry more than this bitrate, bit/s, from which the library has to search
    /// anew.
    SearchAnew(u64),
}

/// The bandwidth of one connection.
#[derive(Debug)]
pub(crate) struct Bandwidth {
    began_at: Instant,
    desired_bps: u64,
    told_bps: u64,
    /// The estimates of [`HISTORY`], oldest first.
    recent: VecDeque<Estimate>,
    lowest_rtt: Option<Duration>,
    /// Successive estimates until now with queued packets.
    queued_estimates: u32,
    /// The time of the last decrease.
    steady_since: Instant,
    broke_down_at: Option<Instant>,
    /// The estimate has reached [`RECOVERY_RATIO`] since the last breakdown.
    has_recovered: bool,
    searched_at: Option<Instant>,
    /// The last time at which the estimate was enough, or broke down.
    hopeful_since: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Estimate {
    at: Instant,
    bps: u64,
}

impl Bandwidth {
    /// Begins with the connection.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            began_at: now,
            desired_bps: 0,
            told_bps: 0,
            recent: VecDeque::new(),
            lowest_rtt: None,
            queued_estimates: 0,
            steady_since: now,
            broke_down_at: None,
            has_recovered: true,
            searched_at: None,
            hopeful_since: now,
        }
    }

    /// Sets the bitrate that the track could use.
    pub(crate) fn set_desired(&mut self, bps: u64) {
        self.desired_bps = bps;
    }

    /// Returns the estimate that was told last, bit/s.
    pub(crate) fn told_bps(&self) -> u64 {
        self.told_bps
    }

    /// Returns whether packets queue in the network all the time.
    pub(crate) fn has_standing_queue(&self) -> bool {
        self.queued_estimates >= STANDING_QUEUE_ESTIMATES
    }

    /// Returns whether the network carries about the desired bitrate and no packets queue.
    pub(crate) fn is_ample(&self) -> bool {
        self.queued_estimates == 0 && self.told_bps as f64 >= self.desired_bps as f64 * SATISFIED_RATIO
    }

    /// Takes an estimate of the library, and the round-trip time of the last packet. Call it a few
    /// times per second.
    pub(crate) fn on_estimate(&mut self, now: Instant, bps: u64, rtt: Option<Duration>) -> Finding {
        let since = |before: Instant| now.saturating_duration_since(before);
        let last_bps = self.recent.back().map_or(bps, |last| last.bps);
        if (bps as f64) < last_bps as f64 * (1.0 - STEADY_RATIO) {
            self.steady_since = now;
        }
        while self.recent.pop_front_if(|estimate| since(estimate.at) > HISTORY).is_some() {}
        self.recent.push_back(Estimate { at: now, bps });
        let is_queued = self.is_queued(rtt);
        self.queued_estimates = if is_queued { self.queued_estimates + 1 } else { 0 };
        let is_settled = since(self.began_at) >= FIRST_SEARCH;
        let largest_bps = self.recent.iter().map(|estimate| estimate.bps).max().unwrap_or(bps).min(self.desired_bps);
        let has_fallen = (bps as f64) < largest_bps as f64 * BREAKDOWN_RATIO;
        if is_settled && is_queued && has_fallen && self.has_recovered {
            let left_bps = (bps as f64 * BREAKDOWN_ESTIMATE_RATIO).min(largest_bps as f64 * MAX_BREAKDOWN_RATIO) as u64;
            (self.broke_down_at, self.hopeful_since, self.told_bps) = (Some(now), now, left_bps);
            self.has_recovered = false;
            self.recent.clear();
            return Finding::BrokenDown(left_bps);
        }
        self.has_recovered |= bps as f64 >= self.desired_bps as f64 * RECOVERY_RATIO;
        let is_enough = bps as f64 >= self.desired_bps as f64 * SATISFIED_RATIO;
        if is_enough {
            self.hopeful_since = now;
        }
        let interval = if since(self.hopeful_since) < HOPEFUL_TIME { SEARCH_INTERVAL } else { RARE_SEARCH_INTERVAL };
        let has_rested =
            self.searched_at.is_none_or(|at| since(at) >= interval) && self.broke_down_at.is_none_or(|at| since(at) >= BREAKDOWN_REST);
        if is_settled && !is_enough && !is_queued && has_rested && since(self.steady_since) >= STEADY_TIME {
            self.searched_at = Some(now);
            self.told_bps = bps;
            return Finding::SearchAnew(bps);
        }
        if is_settled && bps > self.told_bps && self.has_standing_queue() {
            return Finding::Unchanged;
        }
        if (bps.abs_diff(self.told_bps) as f64) < self.told_bps as f64 * MIN_CHANGE_RATIO {
            return Finding::Unchanged;
        }
        self.told_bps = bps;
        Finding::Changed(bps)
    }

    /// Returns whether packets queue in the network, as far as the round-trip time of one tells.
    fn is_queued(&mut self, rtt: Option<Duration>) -> bool {
        let Some(rtt) = rtt else { return false };
        let lowest = self.lowest_rtt.map_or(rtt, |lowest| lowest.mul_f64(LOWEST_RTT_GROWTH).min(rtt));
        self.lowest_rtt = Some(lowest);
        rtt > lowest + QUEUING_DELAY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const FULL: u64 = 2_500_000;
    const QUICK: Option<Duration> = Some(Duration::from_millis(40));
    const SLOW: Option<Duration> = Some(Duration::from_millis(240));

    /// Repeats an estimate every 100 ms. Returns the findings, except unchanged ones, with their
    /// time in ms.
    fn over(bandwidth: &mut Bandwidth, now: &mut Instant, ms: u32, bps: u64, rtt: Option<Duration>) -> Vec<(u32, Finding)> {
        let mut found = Vec::new();
        for at in (100..=ms).step_by(100) {
            *now += 100 * MS;
            found.push((at, bandwidth.on_estimate(*now, bps, rtt)));
        }
        found.retain(|(_, finding)| *finding != Finding::Unchanged);
        found
    }

    fn settled() -> (Bandwidth, Instant) {
        let mut now = Instant::now();
        let mut bandwidth = Bandwidth::new(now);
        bandwidth.set_desired(FULL);
        assert_eq!(over(&mut bandwidth, &mut now, 5000, FULL, QUICK), [(100, Finding::Changed(FULL))]);
        (bandwidth, now)
    }

    #[test]
    fn estimate_is_told_once_and_again_when_it_is_another() {
        let (mut bandwidth, mut now) = settled();
        assert_eq!(over(&mut bandwidth, &mut now, 500, FULL + 20_000, QUICK), [], "hardly another");
        assert_eq!(over(&mut bandwidth, &mut now, 500, 2_300_000, QUICK), [(100, Finding::Changed(2_300_000))]);
    }

    #[test]
    fn breakdown_is_found_at_once_leaves_little_and_happens_once() {
        let (mut bandwidth, mut now) = settled();
        assert_eq!(over(&mut bandwidth, &mut now, 100, 1_500_000, SLOW), [(100, Finding::BrokenDown(325_000))]);
        assert_eq!(over(&mut bandwidth, &mut now, 300, 120_000, SLOW), [(100, Finding::Changed(120_000))], "it is narrow already");
    }

    #[test]
    fn estimate_that_falls_while_packets_are_quick_is_no_breakdown() {
        let (mut bandwidth, mut now) = settled();
        assert_eq!(over(&mut bandwidth, &mut now, 300, 1_000_000, QUICK), [(100, Finding::Changed(1_000_000))]);
    }

    #[test]
    fn estimate_that_grows_while_packets_queue_is_followed_only_when_they_do_no_more() {
        let (mut bandwidth, mut now) = settled();
        over(&mut bandwidth, &mut now, 1000, 1_000_000, SLOW);
        assert!(bandwidth.has_standing_queue());
        assert_eq!(over(&mut bandwidth, &mut now, 1000, 1_300_000, SLOW), []);
        assert_eq!(over(&mut bandwidth, &mut now, 200, 900_000, SLOW), [(100, Finding::Changed(900_000))], "down it is");
        assert_eq!(over(&mut bandwidth, &mut now, 100, 1_300_000, QUICK), [(100, Finding::Changed(1_300_000))]);
    }

    #[test]
    fn jitter_is_no_standing_queue() {
        let (mut bandwidth, mut now) = settled();
        for rtt in [SLOW, SLOW, QUICK, SLOW, QUICK, SLOW, SLOW] {
            over(&mut bandwidth, &mut now, 100, FULL, rtt);
            assert!(!bandwidth.has_standing_queue());
        }
    }

    #[test]
    fn more_is_looked_for_when_it_is_calm_and_not_all_the_time() {
        let (mut bandwidth, mut now) = settled();
        over(&mut bandwidth, &mut now, 100, 1_500_000, SLOW);
        assert_eq!(over(&mut bandwidth, &mut now, 2000, 325_000, SLOW), [], "packets wait on their way");
        let found = over(&mut bandwidth, &mut now, 6500, 325_000, QUICK);
        assert_eq!(found, [100, 3100, 6100].map(|at| (at, Finding::SearchAnew(325_000))));
    }

    #[test]
    fn there_is_ample_room_while_as_much_fits_through_as_is_of_use_and_nothing_queues() {
        let (mut bandwidth, mut now) = settled();
        assert!(bandwidth.is_ample());
        over(&mut bandwidth, &mut now, 100, FULL, SLOW);
        assert!(!bandwidth.is_ample());
        over(&mut bandwidth, &mut now, 100, FULL, QUICK);
        assert!(bandwidth.is_ample());
        over(&mut bandwidth, &mut now, 100, FULL * 8 / 10, QUICK);
        assert!(!bandwidth.is_ample());
    }

    #[test]
    fn nothing_is_looked_for_while_there_is_enough() {
        let (mut bandwidth, mut now) = settled();
        assert_eq!(over(&mut bandwidth, &mut now, 60_000, FULL, QUICK), []);
    }

    #[test]
    fn what_has_not_helped_for_a_minute_is_done_less_often() {
        let (mut bandwidth, mut now) = settled();
        over(&mut bandwidth, &mut now, 65_000, 1_000_000, QUICK);
        assert!(over(&mut bandwidth, &mut now, 60_000, 1_000_000, QUICK).len() <= 4);
    }
}
