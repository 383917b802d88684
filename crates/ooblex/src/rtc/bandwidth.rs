//! What the network is thought to carry: when the estimate that the WebRTC library makes is worth telling, when that library is asked
//! to begin its search anew, and when the network has broken down to a part of what it was.
//!
//! The library looks for more by itself only while less is sent than it thinks there is. A picture that takes all there is never lets it,
//! and the estimate then grows by 8 % a second. Searching anew sends a few packets in quick succession and sees how they arrive: where there
//! is more, that is known in a fraction of a second; where there is not, it was some kilobytes. Pure: time is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// An estimate below this part of what it was within [`RECENT`] is a breakdown, if packets take long, too.
const BROKEN_DOWN: f64 = 0.65;
/// What an estimate is compared with.
const RECENT: Duration = Duration::from_millis(1500);
/// The library comes down in steps, and the first is far from the last. What is sent until it is there is lost, so begin with so little:
/// this part of the estimate,
const LEFT: f64 = 0.75;
/// and no more than this part of what there was. Then it is seen whether there is more.
const LEFT_AT_MOST: f64 = 0.13;
/// After a breakdown the network has to come back to this part of what would be of use before it can break down again: what is narrow
/// already can be followed.
const WHOLE: f64 = 0.5;
/// Nothing is a breakdown, and nothing is looked for, while the library still finds out what there is.
const FIRST_SEARCH: Duration = Duration::from_secs(4);
/// With less than this part of what would be of use, it is worth while to look for more.
const SATISFIED: f64 = 0.9;
/// A search begins when the estimate has not gone down for so long,
const STEADY: Duration = Duration::from_millis(1000);
/// packets do not take longer than the quickest by more than this,
const QUEUED: Duration = Duration::from_millis(80);
/// the breakdown is so long ago,
const AFTER_BREAKDOWN: Duration = Duration::from_millis(800);
/// and so long after the search before;
const SEARCH_EVERY: Duration = Duration::from_secs(3);
/// where it has not helped for a minute, less often.
const SEARCH_SELDOM: Duration = Duration::from_secs(15);
/// See [`SEARCH_SELDOM`].
const HOPEFUL_FOR: Duration = Duration::from_secs(60);
/// What the quickest packet took counts for less as it gets old: at each look, it is this much longer.
const FORGETTING: f64 = 1.002;
/// A change of less than this is not told.
const TELLING: f64 = 0.02;
/// A queue that was seen at so many looks in a row stands: it is not jitter. An estimate that grows nevertheless is not followed, since the
/// library finds queues by their growth, and one that is full does not grow.
const STANDING: u32 = 3;
/// An estimate that goes down by less stays steady.
const TREMOR: f64 = 0.05;

/// What an estimate means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// About what was told last.
    Unchanged,
    /// So many bits a second fit through now.
    Changed(u64),
    /// There are far fewer than before, perhaps this many: what waits or was lost will not come through in time.
    BrokenDown(u64),
    /// There may be more than this: the library is to search anew, from here on.
    SearchAnew(u64),
}

/// What is known of one connection's network.
#[derive(Debug)]
pub(crate) struct Bandwidth {
    began: Instant,
    desired_bps: u64,
    told_bps: u64,
    /// Estimates of [`RECENT`], oldest first.
    recent: VecDeque<(Instant, u64)>,
    /// What the quickest packet took there and back.
    least_rtt: Option<Duration>,
    /// At so many looks in a row, the last one took much longer.
    queued_looks: u32,
    /// Since when it has not gone down.
    steady_since: Instant,
    broke_down: Option<Instant>,
    /// There was much since.
    is_whole: bool,
    searched: Option<Instant>,
    /// When the estimate was last as large as is of use, or went down to a part of it.
    changed: Instant,
}

impl Bandwidth {
    /// Of a connection that stands since now.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            began: now,
            desired_bps: 0,
            told_bps: 0,
            recent: VecDeque::new(),
            least_rtt: None,
            queued_looks: 0,
            steady_since: now,
            broke_down: None,
            is_whole: true,
            searched: None,
            changed: now,
        }
    }

    /// So many bits a second would be of use.
    pub(crate) fn set_desired(&mut self, bps: u64) {
        self.desired_bps = bps;
    }

    /// What it was last found to be.
    pub(crate) fn told_bps(&self) -> u64 {
        self.told_bps
    }

    /// Whether packets wait on their way all the time.
    pub(crate) fn has_standing_queue(&self) -> bool {
        self.queued_looks >= STANDING
    }

    /// Whether about as much as would be of use is thought to fit through, and no packets wait on their way.
    pub(crate) fn is_ample(&self) -> bool {
        self.queued_looks == 0 && self.told_bps as f64 >= self.desired_bps as f64 * SATISFIED
    }

    /// The library's estimate, and what the last packet took there and back, a few times a second.
    pub(crate) fn on_estimate(&mut self, now: Instant, bps: u64, rtt: Option<Duration>) -> Finding {
        let since = |before: Instant| now.saturating_duration_since(before);
        let last_bps = self.recent.back().map_or(bps, |(_, bps)| *bps);
        if (bps as f64) < last_bps as f64 * (1.0 - TREMOR) {
            self.steady_since = now;
        }
        while self.recent.pop_front_if(|(at, _)| since(*at) > RECENT).is_some() {}
        self.recent.push_back((now, bps));
        let is_queued = self.looks_queued(rtt);
        self.queued_looks = if is_queued { self.queued_looks + 1 } else { 0 };
        let is_settled = since(self.began) >= FIRST_SEARCH;
        let most_bps = self.recent.iter().map(|(_, bps)| *bps).max().unwrap_or(bps).min(self.desired_bps);
        let has_fallen = (bps as f64) < most_bps as f64 * BROKEN_DOWN;
        if is_settled && is_queued && has_fallen && self.is_whole {
            let left_bps = (bps as f64 * LEFT).min(most_bps as f64 * LEFT_AT_MOST) as u64;
            (self.broke_down, self.changed, self.told_bps) = (Some(now), now, left_bps);
            self.is_whole = false;
            self.recent.clear();
            return Finding::BrokenDown(left_bps);
        }
        self.is_whole |= bps as f64 >= self.desired_bps as f64 * WHOLE;
        let is_enough = bps as f64 >= self.desired_bps as f64 * SATISFIED;
        if is_enough {
            self.changed = now;
        }
        let pause = if since(self.changed) < HOPEFUL_FOR { SEARCH_EVERY } else { SEARCH_SELDOM };
        let rested = self.searched.is_none_or(|at| since(at) >= pause) && self.broke_down.is_none_or(|at| since(at) >= AFTER_BREAKDOWN);
        if is_settled && !is_enough && !is_queued && rested && since(self.steady_since) >= STEADY {
            self.searched = Some(now);
            self.told_bps = bps;
            return Finding::SearchAnew(bps);
        }
        if is_settled && bps > self.told_bps && self.has_standing_queue() {
            return Finding::Unchanged;
        }
        if (bps.abs_diff(self.told_bps) as f64) < self.told_bps as f64 * TELLING {
            return Finding::Unchanged;
        }
        self.told_bps = bps;
        Finding::Changed(bps)
    }

    /// Whether packets wait on their way, as far as the time tells that one took.
    fn looks_queued(&mut self, rtt: Option<Duration>) -> bool {
        let Some(rtt) = rtt else { return false };
        let least = self.least_rtt.map_or(rtt, |least| least.mul_f64(FORGETTING).min(rtt));
        self.least_rtt = Some(least);
        rtt > least + QUEUED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const FULL: u64 = 2_500_000;
    const QUICK: Option<Duration> = Some(Duration::from_millis(40));
    const SLOW: Option<Duration> = Some(Duration::from_millis(240));

    /// Tells the same estimate every 100 ms, and gives what is found with when, save for nothing.
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
