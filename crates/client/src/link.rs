//! Simulated network link, which loses, delays and throttles datagrams between a session and its
//! socket.
//!
//! One [`Link`] simulates one direction of one session. It has no clock and no socket: datagrams
//! are pushed with the current time and popped when they are due. The model assumes that datagrams
//! are never reordered, that losses are independent, and that the packets of one frame, which are
//! sent in a burst, share one jitter value.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Properties of one direction of the network.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Conditions {
    /// Packet loss as a fraction, 0..=1.
    pub loss: f64,
    /// Constant delay of every datagram.
    pub delay: Duration,
    /// Maximum additional delay, drawn anew for each burst of datagrams.
    pub jitter: Duration,
    /// Maximum bitrate in bits per second; `None` is unlimited.
    pub rate_bps: Option<u64>,
    /// True if loss and the rate limit apply only during the time given to [`Link::set_bad`].
    pub for_a_while: bool,
}

/// Result of pushing a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The datagram is queued and will be delivered.
    Queued,
    /// The datagram is lost at random, or because of an outage.
    Lost,
    /// The datagram is dropped because the queue is full.
    Full,
}

/// One direction of the network between a session and the gateway.
pub struct Link<T> {
    conditions: Conditions,
    outage: Option<Range<Instant>>,
    /// Time during which loss and the rate limit apply, for conditions with `for_a_while`.
    bad: Option<Range<Instant>>,
    random: SmallRng,
    /// Time at which the bottleneck has transmitted all queued datagrams.
    free_at: Option<Instant>,
    /// Time of the last push, and the jitter of the burst that it belongs to.
    burst: Option<Burst>,
    queue: VecDeque<Queued<T>>,
}

struct Burst {
    last: Instant,
    jitter: Duration,
}

struct Queued<T> {
    due: Instant,
    datagram: T,
}

/// Size of the IP and UDP headers in bytes, which count towards the rate limit.
const HEADERS: usize = 28;
/// Maximum queueing delay at the rate limit. Datagrams that would wait longer are dropped.
const LONGEST_QUEUE: Duration = Duration::from_millis(200);
/// Maximum gap between datagrams of one burst. With separate jitter values for each datagram,
/// in-order delivery would make all of them wait for the slowest.
const BURST: Duration = Duration::from_millis(5);
/// Maximum number of queued datagrams, including those that are only delayed.
const CAPACITY: usize = 16_384;

impl<T> Link<T> {
    /// Creates a link; links with the same seed lose the same datagrams.
    pub fn new(conditions: Conditions, seed: u64) -> Self {
        Self {
            conditions,
            outage: None,
            bad: None,
            random: SmallRng::seed_from_u64(seed),
            free_at: None,
            burst: None,
            queue: VecDeque::new(),
        }
    }

    /// Drops every datagram during this time.
    pub fn set_outage(&mut self, outage: Range<Instant>) {
        self.outage = Some(outage);
    }

    /// Limits loss and the rate limit to this time, for conditions with `for_a_while`.
    pub fn set_bad(&mut self, bad: Range<Instant>) {
        self.bad = Some(bad);
    }

    /// Queues a datagram of `bytes` bytes.
    pub fn push(&mut self, now: Instant, datagram: T, bytes: usize) -> Fate {
        let is_out = self.outage.as_ref().is_some_and(|outage| outage.contains(&now));
        let is_bad = !self.conditions.for_a_while || self.bad.as_ref().is_some_and(|bad| bad.contains(&now));
        if is_out || (is_bad && self.random.random_bool(self.conditions.loss)) {
            return Fate::Lost;
        }
        let through = match self.conditions.rate_bps.filter(|_| is_bad) {
            None => now,
            Some(rate) => {
                let begins = self.free_at.map_or(now, |free| free.max(now));
                if begins - now > LONGEST_QUEUE {
                    return Fate::Full;
                }
                let through = begins + Duration::from_secs_f64((bytes + HEADERS) as f64 * 8.0 / rate as f64);
                self.free_at = Some(through);
                through
            }
        };
        if self.queue.len() == CAPACITY {
            return Fate::Full;
        }
        let late = self.conditions.delay + self.jitter(now);
        let due = self.queue.back().map_or(through + late, |last| (through + late).max(last.due));
        self.queue.push_back(Queued { due, datagram });
        Fate::Queued
    }

    fn jitter(&mut self, now: Instant) -> Duration {
        let jitter = match &self.burst {
            Some(burst) if now - burst.last < BURST => burst.jitter,
            _ => self.conditions.jitter.mul_f64(self.random.random()),
        };
        self.burst = Some(Burst { last: now, jitter });
        jitter
    }

    /// Returns the next datagram that is due.
    pub fn pop(&mut self, now: Instant) -> Option<T> {
        self.queue.pop_front_if(|next| next.due <= now).map(|next| next.datagram)
    }

    /// Returns the time at which the next datagram is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.queue.front().map(|next| next.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn link(conditions: Conditions) -> (Link<u32>, Instant) {
        (Link::new(conditions, 7), Instant::now())
    }

    #[test]
    fn without_conditions_all_comes_through_at_once_and_in_order() {
        let (mut link, now) = link(Conditions::default());
        assert!((0..5).all(|n| link.push(now, n, 1200) == Fate::Queued));
        assert_eq!(std::iter::from_fn(|| link.pop(now)).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!(link.next_due(), None);
    }

    #[test]
    fn delayed_datagram_comes_out_when_its_delay_is_over_and_not_before() {
        let (mut link, now) = link(Conditions { delay: 50 * MS, ..Conditions::default() });
        link.push(now, 1, 100);
        assert_eq!(link.next_due(), Some(now + 50 * MS));
        assert_eq!(link.pop(now + 49 * MS), None);
        assert_eq!(link.pop(now + 50 * MS), Some(1));
    }

    #[test]
    fn jitter_is_bounded_and_lets_nobody_overtake() {
        let (mut link, now) = link(Conditions { delay: 20 * MS, jitter: 30 * MS, ..Conditions::default() });
        for n in 0..200 {
            link.push(now + 10 * n * MS, n, 100);
        }
        let (mut at, mut came, mut lates) = (now, Vec::new(), Vec::new());
        while came.len() < 200 {
            at = link.next_due().unwrap();
            while let Some(n) = link.pop(at) {
                lates.push(at - (now + 10 * n * MS));
                came.push(n);
            }
        }
        assert!(came.is_sorted() && at <= now + 1990 * MS + 50 * MS);
        assert!(lates.iter().all(|late| (20 * MS..=50 * MS).contains(late)), "{lates:?}");
        assert!(lates.iter().min().unwrap() < &(25 * MS) && lates.iter().max().unwrap() > &(45 * MS));
    }

    #[test]
    fn packets_of_a_frame_are_held_up_together() {
        let (mut link, now) = link(Conditions { jitter: 30 * MS, ..Conditions::default() });
        for n in 0..8 {
            link.push(now + n * MS / 4, n, 1200);
        }
        let first = link.next_due().unwrap();
        assert_eq!((0..8).filter(|_| link.pop(first + 2 * MS).is_some()).count(), 8);
    }

    #[test]
    fn losses_have_the_share_that_was_asked_for_and_are_the_same_in_every_run() {
        let run = || {
            let (mut link, now) = link(Conditions { loss: 0.05, ..Conditions::default() });
            (0..10_000).filter(|n| link.push(now, *n, 100) == Fate::Lost || link.pop(now).is_none()).collect::<Vec<_>>()
        };
        let lost = run();
        assert!((400..600).contains(&lost.len()), "{}", lost.len());
        assert_eq!(lost, run());
    }

    #[test]
    fn limited_rate_spreads_datagrams_and_loses_what_does_not_fit() {
        // Each datagram has 972 bytes plus 28 bytes of headers, 8000 bits: 8 ms at 1 Mbit/s.
        let (mut link, now) = link(Conditions { rate_bps: Some(1_000_000), ..Conditions::default() });
        let fates: Vec<_> = (0..30).map(|n| link.push(now, n, 972)).collect();
        // The datagram that starts at 200 ms is queued; the one at 208 ms is dropped.
        assert!(fates[..=25].iter().all(|fate| *fate == Fate::Queued) && fates[26..].iter().all(|fate| *fate == Fate::Full), "{fates:?}");
        assert_eq!(link.next_due(), Some(now + 8 * MS));
        assert_eq!((0..26).filter(|_| link.pop(now + 80 * MS).is_some()).count(), 10);
        assert_eq!(link.push(now + 80 * MS, 99, 972), Fate::Queued);
    }

    #[test]
    fn a_rate_that_was_idle_saves_nothing_up() {
        let (mut link, now) = link(Conditions { rate_bps: Some(1_000_000), ..Conditions::default() });
        link.push(now, 1, 972);
        link.pop(now + 8 * MS);
        link.push(now + 1000 * MS, 2, 972);
        assert_eq!(link.next_due(), Some(now + 1008 * MS));
    }

    #[test]
    fn nothing_comes_through_during_an_outage_and_all_afterwards() {
        let (mut link, now) = link(Conditions::default());
        link.set_outage(now + 10 * MS..now + 20 * MS);
        let fates: Vec<_> = [9, 10, 19, 20].map(|at| link.push(now + at * MS, at, 100)).into();
        assert_eq!(fates, [Fate::Queued, Fate::Lost, Fate::Lost, Fate::Queued]);
    }

    #[test]
    fn loss_and_rate_can_hold_for_a_while() {
        let (mut link, now) = link(Conditions { loss: 1.0, for_a_while: true, ..Conditions::default() });
        assert_eq!(link.push(now, 1, 100), Fate::Queued, "nobody has said when");
        link.set_bad(now + 10 * MS..now + 20 * MS);
        let fates: Vec<_> = [9, 10, 19, 20].map(|at| link.push(now + at * MS, at, 100)).into();
        assert_eq!(fates, [Fate::Queued, Fate::Lost, Fate::Lost, Fate::Queued]);
    }

    #[test]
    fn what_is_under_way_is_bounded() {
        let (mut link, now) = link(Conditions { delay: Duration::from_secs(100), ..Conditions::default() });
        assert!((0..CAPACITY as u32).all(|n| link.push(now, n, 100) == Fate::Queued));
        assert_eq!(link.push(now, 0, 100), Fate::Full);
    }
}
