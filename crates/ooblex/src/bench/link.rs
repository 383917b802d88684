//! A network that is worse than the real one: it loses, delays and holds up datagrams between a session and its socket.
//!
//! One [`Link`] is one direction of one session. It has no clock and no socket: datagrams go in with the time, and come out when
//! they are due. What it takes for granted: datagrams never overtake each other, losses do not depend on one another, and the packets
//! of a frame, which follow each other closely, are held up together.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// What a direction of the network does to datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Conditions {
    /// The share of datagrams that is lost, 0..=1.
    pub(crate) loss: f64,
    /// Each is this late.
    pub(crate) delay: Duration,
    /// And up to this much later, each burst of them by another time.
    pub(crate) jitter: Duration,
    /// Bits a second that fit through; `None`: as many as come.
    pub(crate) rate_bps: Option<u64>,
    /// Loss and rate hold only during a time that is told later.
    pub(crate) for_a_while: bool,
}

/// What became of a datagram that was to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It comes out later.
    Queued,
    /// It is lost by chance, or because there is an outage.
    Lost,
    /// It is lost because too much waits already.
    Full,
}

/// One direction of the network between a session and the gateway.
pub(crate) struct Link<T> {
    conditions: Conditions,
    outage: Option<Range<Instant>>,
    /// When loss and rate hold, of conditions that do so for a while.
    bad: Option<Range<Instant>>,
    random: SmallRng,
    /// When what was let in so far has gone through.
    free_at: Option<Instant>,
    /// When the last one was pushed, and by how much its burst is held up.
    burst: Option<(Instant, Duration)>,
    queue: VecDeque<(Instant, T)>,
}

/// IP and UDP headers of a datagram, which take their share of the rate.
const HEADERS: usize = 28;
/// As much waits before a direction with a limited rate as goes through in this time; what comes then is lost.
const LONGEST_QUEUE: Duration = Duration::from_millis(200);
/// Datagrams that are this near to each other are of one burst. Were each held up by itself, order would make all wait for the latest.
const BURST: Duration = Duration::from_millis(5);
/// Datagrams under way, whatever the delay.
const CAPACITY: usize = 16_384;

impl<T> Link<T> {
    /// A direction; the same seed loses the same datagrams.
    pub(crate) fn new(conditions: Conditions, seed: u64) -> Self {
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

    /// Nothing comes through during this time.
    pub(crate) fn set_outage(&mut self, outage: Range<Instant>) {
        self.outage = Some(outage);
    }

    /// Loss and rate hold during this time, if they do so for a while.
    pub(crate) fn set_bad(&mut self, bad: Range<Instant>) {
        self.bad = Some(bad);
    }

    /// A datagram of `bytes` is to be sent.
    pub(crate) fn push(&mut self, now: Instant, datagram: T, bytes: usize) -> Fate {
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
        let due = self.queue.back().map_or(through + late, |(last, _)| (through + late).max(*last));
        self.queue.push_back((due, datagram));
        Fate::Queued
    }

    fn jitter(&mut self, now: Instant) -> Duration {
        let held = match self.burst {
            Some((last, held)) if now - last < BURST => held,
            _ => self.conditions.jitter.mul_f64(self.random.random()),
        };
        self.burst = Some((now, held));
        held
    }

    /// The next datagram that is due.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<T> {
        self.queue.pop_front_if(|(due, _)| *due <= now).map(|(_, datagram)| datagram)
    }

    /// When the next one is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.queue.front().map(|(due, _)| *due)
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
        // 972 bytes and 28 of headers are 8000 bits: 8 ms each at a megabit a second.
        let (mut link, now) = link(Conditions { rate_bps: Some(1_000_000), ..Conditions::default() });
        let fates: Vec<_> = (0..30).map(|n| link.push(now, n, 972)).collect();
        // The one that begins at 200 ms still waits, the one at 208 does not.
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
