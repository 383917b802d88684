//! Accounting of the packets that arrive for a session. Only packets that the session itself has
//! sent spend its token bucket; packets that others send in its name do not. The time is an
//! argument.

use std::time::{Duration, Instant};

use crate::rate_limit::{Decision, RateLimit, Rates};

/// Rate limit of the packets of one session that are not authentic, and of each source's first
/// packet until it is authenticated. The key agreement takes about ten packets.
const UNAUTHENTICATED_RATES: Rates = Rates { packets: 300, kbps: 3000 };
/// Capacity of the token bucket of packets of unknown sources of one session. Its offer declares
/// most sources, and a source is known after its first authentic packet.
const UNKNOWN_SOURCE_BURST: f64 = 1000.0;
/// Time in which one more packet of an unknown source is allowed. It is long, because the WebRTC
/// library allocates state for each source before it knows whether the packet is authentic, and
/// keeps that state.
const UNKNOWN_SOURCE_INTERVAL: Duration = Duration::from_secs(10);
/// Sources of media (SSRC) that are remembered for one session; browsers use four.
const MAX_SOURCES: usize = 32;

/// The kind of a datagram, which its first bytes tell (RFC 7983, RFC 5761).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A STUN message, which is about the connection.
    Stun,
    /// A DTLS record, which carries the key agreement or data channels.
    Dtls,
    /// An SRTP packet of this source (SSRC).
    Rtp(u32),
    /// An SRTCP packet of this source (SSRC).
    Rtcp(u32),
}

impl Kind {
    /// Classifies a datagram. An unknown kind counts as DTLS, whose parser drops it.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let source = |at: usize| bytes.get(at..at + 4).and_then(|ssrc| ssrc.try_into().ok()).map(u32::from_be_bytes);
        match bytes {
            [0..=3, ..] => Self::Stun,
            [128..=191, 192..=223, ..] => source(4).map_or(Self::Dtls, Self::Rtcp),
            [128..=191, ..] => source(8).map_or(Self::Dtls, Self::Rtp),
            _ => Self::Dtls,
        }
    }

    /// Returns whether an authenticated datagram of this kind cannot be a replay.
    pub(crate) fn is_fresh(self) -> bool {
        matches!(self, Self::Dtls | Self::Rtp(_))
    }
}

/// The token buckets of one session.
#[derive(Debug)]
pub(crate) struct Traffic {
    /// The bucket that authentic packets spend.
    own: RateLimit,
    /// The bucket of packets whose source is unknown, until they turn out to be authentic.
    unproven: RateLimit,
    /// The bucket of packets that are not authentic and whose source is known: replays, and forged
    /// packets of an attacker who sees those of the session.
    doubtful: RateLimit,
    unknown_sources: UnknownSources,
    /// Sources that the offer declared, and sources of authentic packets.
    sources: Vec<u32>,
}

/// The token bucket of packets of unknown sources.
#[derive(Debug)]
struct UnknownSources {
    packets: f64,
    refilled_at: Instant,
}

impl Traffic {
    /// Creates full buckets.
    pub(crate) fn new(rates: Rates, declared: &[u32], now: Instant) -> Self {
        let unauthenticated = rates.min(UNAUTHENTICATED_RATES);
        let [own, unproven, doubtful] = [rates, unauthenticated, unauthenticated].map(|rates| RateLimit::new(rates, now));
        Self {
            own,
            unproven,
            doubtful,
            unknown_sources: UnknownSources { packets: UNKNOWN_SOURCE_BURST, refilled_at: now },
            sources: declared.iter().copied().take(MAX_SOURCES).collect(),
        }
    }

    /// Decides whether a datagram is handled. STUN messages have a limit of their own, in `paths`.
    pub(crate) fn admit(&mut self, now: Instant, kind: Kind, bytes: usize) -> Decision {
        if kind == Kind::Stun {
            return Decision::Accept;
        }
        let decision = self.own.check(now, bytes);
        if decision != Decision::Accept || self.is_known(kind) {
            return decision;
        }
        let is_unknown_source = matches!(kind, Kind::Rtp(_));
        if is_unknown_source && !self.unknown_sources.has_room(now) || self.unproven.take(now, bytes) != Decision::Accept {
            return Decision::Refuse;
        }
        if is_unknown_source {
            self.unknown_sources.packets -= 1.0;
        }
        Decision::Accept
    }

    /// An admitted datagram was authentic.
    pub(crate) fn on_authenticated(&mut self, kind: Kind, bytes: usize) {
        self.own.spend(bytes);
        if self.is_known(kind) {
            return;
        }
        self.unproven.refund(bytes);
        if let Kind::Rtp(source) | Kind::Rtcp(source) = kind {
            if self.sources.len() >= MAX_SOURCES {
                self.sources.remove(0);
            }
            self.sources.push(source);
        }
    }

    /// An admitted datagram was not authentic, or a replay.
    pub(crate) fn on_unauthenticated(&mut self, now: Instant, kind: Kind, bytes: usize) {
        // A session must not repeat its own packets without limit.
        if self.is_known(kind) && self.doubtful.take(now, bytes) != Decision::Accept {
            self.own.spend(bytes);
        }
    }

    /// Returns whether a datagram is media, or a report, of a known source.
    pub(crate) fn is_known(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Rtp(source) | Kind::Rtcp(source) if self.sources.contains(&source))
    }
}

impl UnknownSources {
    fn has_room(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.refilled_at);
        self.refilled_at = self.refilled_at.max(now);
        self.packets = (self.packets + elapsed.as_secs_f64() / UNKNOWN_SOURCE_INTERVAL.as_secs_f64()).min(UNKNOWN_SOURCE_BURST);
        self.packets >= 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates { packets: 100, kbps: 800 };
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn kinds_are_distinguished() {
        assert_eq!(Kind::of(&[0, 1, 0, 0]), Kind::Stun);
        assert_eq!(Kind::of(&[22, 254, 253]), Kind::Dtls);
        assert_eq!(Kind::of(&[0x80, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]), Kind::Rtp(3));
        assert_eq!(Kind::of(&[0x80, 200, 0, 1, 0, 0, 0, 2]), Kind::Rtcp(2));
        assert_eq!(Kind::of(&[0x80, 96, 0]), Kind::Dtls);
        assert_eq!(Kind::of(&[]), Kind::Dtls);
    }

    #[test]
    fn what_others_send_in_its_name_takes_nothing_from_a_session() {
        let began = Instant::now();
        let mut traffic = Traffic::new(RATES, &[], began);
        let own = Kind::Rtp(7);
        assert_eq!(traffic.admit(began, own, 100), Decision::Accept);
        traffic.on_authenticated(own, 100);
        let mut taken = 0;
        for n in 1..10_000 {
            let now = began + n * MS;
            // Forged: a media packet of a source that was made up, and noise.
            _ = traffic.admit(now, Kind::Rtp(1_000_000 + n), 100);
            _ = traffic.admit(now, Kind::Dtls, 100);
            if n % 20 == 0 && traffic.admit(now, own, 100) == Decision::Accept {
                traffic.on_authenticated(own, 100);
                taken += 1;
            }
        }
        assert_eq!(taken, 499, "all of fifty packets a second");
    }

    #[test]
    fn forged_packets_are_looked_at_as_often_as_a_session_may_send_and_no_more() {
        let began = Instant::now();
        let mut traffic = Traffic::new(RATES, &[], began);
        let looked_at = (0..10_000).filter(|n| traffic.admit(began + *n * MS, Kind::Dtls, 100) == Decision::Accept).count();
        assert!((1095..=1105).contains(&looked_at), "{looked_at}");
    }

    #[test]
    fn packets_that_are_not_authentic_have_a_lower_limit_than_those_of_the_session() {
        const FAST: Rates = Rates { packets: 3000, kbps: 20_000 };
        let began = Instant::now();
        let mut traffic = Traffic::new(FAST, &[7], began);
        let mut looked_at = [0; 3];
        for n in 0..100_000 {
            let now = began + n * MS / 10;
            for (count, kind) in looked_at.iter_mut().zip([Kind::Dtls, Kind::Rtp(8), Kind::Rtp(7)]) {
                if traffic.admit(now, kind, 100) == Decision::Accept {
                    traffic.on_unauthenticated(now, kind, 100);
                    *count += 1;
                }
            }
        }
        // The burst, then 300 a second of all that are unknown. Those of a known source spend the
        // limit of the session, once they exceed 300 a second.
        assert!((3280..=3305).contains(&(looked_at[0] + looked_at[1])), "{looked_at:?}");
        assert!((36_200..=36_400).contains(&looked_at[2]), "{looked_at:?}");
    }

    #[test]
    fn key_agreement_and_first_packets_of_a_session_are_within_the_limit() {
        let began = Instant::now();
        let mut traffic = Traffic::new(Rates { packets: 3000, kbps: 20_000 }, &[7], began);
        // A chain of certificates of 60 kB in fragments, each sent three times.
        assert!((0..150).all(|n| traffic.admit(began + n * MS, Kind::Dtls, 1200) == Decision::Accept));
        // Media that arrived before the keys.
        for n in 0..900 {
            assert_eq!(traffic.admit(began + n * MS, Kind::Rtp(7), 1200), Decision::Accept);
            traffic.on_unauthenticated(began + n * MS, Kind::Rtp(7), 1200);
        }
        // A file of 12 MB in the data channel: each packet is authentic.
        for n in 0..10_000 {
            let now = began + (1000 + n) * MS;
            assert_eq!(traffic.admit(now, Kind::Dtls, 1200), Decision::Accept);
            traffic.on_authenticated(Kind::Dtls, 1200);
        }
    }

    #[test]
    fn a_session_spends_its_own_rate_limit() {
        let began = Instant::now();
        let mut traffic = Traffic::new(RATES, &[], began);
        let taken = (0..10_000).filter(|n| {
            let decision = traffic.admit(began + *n * MS, Kind::Rtp(7), 10);
            if decision == Decision::Accept {
                traffic.on_authenticated(Kind::Rtp(7), 10);
            }
            decision == Decision::Accept
        });
        let taken = taken.count();
        assert!((1095..=1105).contains(&taken), "{taken}");
    }

    #[test]
    fn a_session_that_repeats_its_packets_spends_its_rate_limit() {
        let began = Instant::now();
        let mut traffic = Traffic::new(RATES, &[], began);
        traffic.on_authenticated(Kind::Rtp(7), 10);
        let looked_at = (0..10_000).filter(|n| {
            let (now, kind) = (began + *n * MS, Kind::Rtp(7));
            let is_taken = traffic.admit(now, kind, 10) == Decision::Accept;
            if is_taken {
                traffic.on_unauthenticated(now, kind, 10);
            }
            is_taken
        });
        let looked_at = looked_at.count();
        assert!((2150..=2250).contains(&looked_at), "{looked_at}");
    }

    #[test]
    fn media_of_ever_new_sources_is_refused_mostly_and_that_of_declared_ones_never() {
        let began = Instant::now();
        let mut traffic = Traffic::new(RATES, &[7], began);
        let looked_at = (0..100_000).filter(|n| traffic.admit(began + *n * 20 * MS, Kind::Rtp(1000 + n), 100) == Decision::Accept).count();
        // The burst, and one in ten seconds.
        assert!((1195..=1200).contains(&looked_at), "{looked_at}");
        let after = began + 100_000 * 20 * MS;
        assert_eq!(traffic.admit(after, Kind::Rtp(7), 100), Decision::Accept);
        assert_eq!(traffic.admit(after, Kind::Rtcp(8), 100), Decision::Accept, "no room is made for who speaks of media");
        assert_eq!(traffic.admit(after + UNKNOWN_SOURCE_INTERVAL, Kind::Rtp(8), 100), Decision::Accept, "a new source of the session");
    }

    #[test]
    fn sources_that_are_remembered_are_limited() {
        let now = Instant::now();
        let mut traffic = Traffic::new(RATES, &[], now);
        (0..1000).for_each(|source| traffic.on_authenticated(Kind::Rtp(source), 1));
        assert_eq!(traffic.sources.len(), MAX_SOURCES);
    }
}
