//! Which packets go out a second time without being asked for, where a network loses many and carries enough.
//!
//! A browser finds out that the last packet of a frame is missing only when the next frame comes, and that a packet which was sent again was
//! lost once more only a round trip later. So these two are sent twice, the second time some milliseconds after the first, as what loses
//! one packet often loses the next. A copy is the same datagram: a receiver that has had it drops it by its number (RFC 3711 §3.3.2), and the
//! estimate of the bandwidth takes both for one. Copies and retransmissions have one budget, and all together is not more than the network is thought
//! to carry. Pure: time is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use str0m::media::Pt;
use str0m::net::Transmit;

/// Where at least this share is lost, packets are sent twice,
const MANY: f32 = 0.03;
/// and where no more than this is, no longer.
const FEW: f32 = 0.01;
/// How much one second moves the share that is lost.
const SMOOTHING: f32 = 0.4;
/// A copy follows its packet after so long.
const AFTER: Duration = Duration::from_millis(5);
/// Copies that wait; there are no more then.
const MOST_WAITING: usize = 64;
/// The part of the estimate that is filled with copies: it is often too high.
const CARRIES: f64 = 0.8;
/// What copies may have of a [`Budget`] at a time.
const MOST_SAVED_BYTES: f64 = 30_000.0;
/// What else is sent may take of it in advance.
const MOST_OWED_BYTES: f64 = 20_000.0;

/// The payload types of a video line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PayloadTypes {
    /// Of frames.
    pub(crate) media: Pt,
    /// Of what is sent again.
    pub(crate) resent: Option<Pt>,
}

/// What is sent twice on one line.
pub(crate) struct Redundancy {
    types: Option<PayloadTypes>,
    /// Bytes of copies and retransmissions for each byte that is sent for the first time.
    share: f64,
    /// Bits a second that the network is thought to carry, where that is as much as is of use.
    room_bps: u64,
    /// What copies may have by that share, and of what the network carries.
    by_share: Budget,
    by_room: Budget,
    /// When the last packet went out.
    sent: Option<Instant>,
    lost: f32,
    is_on: bool,
    waiting: VecDeque<(Instant, Transmit)>,
    duplicated_bytes: u64,
    /// All that was sent save copies, and copies, at the last look.
    looked_at: (u64, u64),
}

/// Bytes that copies may have.
#[derive(Debug, Default)]
struct Budget(f64);

impl Budget {
    fn save(&mut self, bytes: f64) {
        self.0 = (self.0 + bytes).min(MOST_SAVED_BYTES);
    }

    fn spend(&mut self, bytes: f64) {
        self.0 = (self.0 - bytes).max(-MOST_OWED_BYTES);
    }

    fn has(&self, bytes: f64) -> bool {
        self.0 >= bytes
    }
}

/// What a datagram is, by the header of RTP, which is not encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    First { is_last_of_frame: bool },
    Resent,
    Other,
}

impl Redundancy {
    /// Nothing is sent twice yet. `most_resent`: of all that is sent, copies and retransmissions are this share at most.
    pub(crate) fn new(most_resent: f32) -> Self {
        let share = f64::from(most_resent / (1.0 - most_resent));
        Self {
            types: None,
            share,
            room_bps: 0,
            by_share: Budget::default(),
            by_room: Budget::default(),
            sent: None,
            lost: 0.0,
            is_on: false,
            waiting: VecDeque::new(),
            duplicated_bytes: 0,
            looked_at: (0, 0),
        }
    }

    /// The line is known.
    pub(crate) fn set_types(&mut self, types: PayloadTypes) {
        self.types = Some(types);
    }

    /// The share of packets that was lost during the last second.
    pub(crate) fn on_loss(&mut self, lost: f32) {
        self.lost += SMOOTHING * (lost - self.lost);
        self.is_on = self.lost > if self.is_on { FEW } else { MANY };
    }

    /// So many bits a second are thought to fit through. `is_ample`: they are about as many as are of use, and nothing queues; a narrow
    /// network would get narrower by copies.
    pub(crate) fn on_estimate(&mut self, bps: u64, is_ample: bool) {
        self.room_bps = if is_ample { bps } else { 0 };
        if !is_ample {
            self.waiting.clear();
        }
    }

    /// Nothing is sent twice until losses tell again.
    pub(crate) fn stop(&mut self) {
        self.is_on = false;
        self.waiting.clear();
    }

    /// A datagram goes out; its copy may follow.
    pub(crate) fn on_sent(&mut self, now: Instant, transmit: &Transmit) {
        let bytes = transmit.contents.len() as f64;
        let is_worth_a_copy = match self.kind(&transmit.contents) {
            Kind::Other => return,
            Kind::First { is_last_of_frame } => {
                self.by_share.save(self.share * bytes);
                is_last_of_frame
            }
            Kind::Resent => {
                self.by_share.spend(bytes);
                true
            }
        };
        let passed = self.sent.replace(now).map_or(Duration::ZERO, |before| now.saturating_duration_since(before));
        self.by_room.save(CARRIES * self.room_bps as f64 / 8.0 * passed.as_secs_f64());
        self.by_room.spend(bytes);
        let is_room = self.room_bps > 0 && self.by_share.has(bytes) && self.by_room.has(bytes);
        if self.is_on && is_worth_a_copy && is_room && self.waiting.len() < MOST_WAITING {
            self.by_share.spend(bytes);
            self.by_room.spend(bytes);
            self.duplicated_bytes += bytes as u64;
            let contents = transmit.contents.to_vec().into();
            let copy = Transmit { proto: transmit.proto, source: transmit.source, destination: transmit.destination, contents };
            self.waiting.push_back((now + AFTER, copy));
        }
    }

    /// The next copy that is due.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Transmit> {
        self.waiting.pop_front_if(|(at, _)| *at <= now).map(|(_, copy)| copy)
    }

    /// When the next one is.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.waiting.front().map(|(at, _)| *at)
    }

    /// The share of copies in what was sent since the last call, 0..=1; `sent`: bytes since the beginning, without them.
    pub(crate) fn share(&mut self, sent: u64) -> f32 {
        let before = std::mem::replace(&mut self.looked_at, (sent, self.duplicated_bytes));
        let (sent, duplicated) = (sent.saturating_sub(before.0), self.duplicated_bytes - before.1);
        if duplicated == 0 { 0.0 } else { duplicated as f32 / (sent + duplicated) as f32 }
    }

    fn kind(&self, datagram: &[u8]) -> Kind {
        let (Some(types), [first, second, ..]) = (self.types, datagram) else { return Kind::Other };
        // RFC 3550 §5.1: the version is 2; a marker and the payload type are the second byte.
        match (first >> 6, second & 0x7f) {
            (2, pt) if pt == *types.media => Kind::First { is_last_of_frame: second & 0x80 != 0 },
            (2, pt) if types.resent.is_some_and(|resent| pt == *resent) => Kind::Resent,
            _ => Kind::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use str0m::net::Protocol;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const TYPES: PayloadTypes = PayloadTypes { media: Pt::new_with_value(96), resent: Some(Pt::new_with_value(97)) };

    fn datagram(pt: u8, marker: bool, bytes: usize) -> Transmit {
        let mut contents = vec![0; bytes];
        (contents[0], contents[1]) = (0x80, pt | u8::from(marker) << 7);
        let address = ([127, 0, 0, 1], 5000).into();
        Transmit { proto: Protocol::Udp, source: address, destination: address, contents: contents.into() }
    }

    /// On a line that loses a tenth and carries much; a frame of ten packets has gone out a second ago.
    fn losing() -> (Redundancy, Instant) {
        let (mut redundancy, now) = (Redundancy::new(0.3), Instant::now());
        redundancy.set_types(TYPES);
        redundancy.on_loss(0.1);
        redundancy.on_estimate(10_000_000, true);
        (0..10).for_each(|_| redundancy.on_sent(now, &datagram(96, false, 1000)));
        redundancy.on_sent(now + 1000 * MS, &datagram(96, false, 100));
        (redundancy, now + 1000 * MS)
    }

    fn copies(redundancy: &mut Redundancy, now: Instant) -> Vec<u8> {
        std::iter::from_fn(|| redundancy.due(now)).map(|copy| copy.contents[1]).collect()
    }

    #[test]
    fn last_packet_of_a_frame_and_what_is_sent_again_follow_themselves_after_a_while() {
        let (mut redundancy, now) = losing();
        redundancy.on_sent(now, &datagram(96, true, 500));
        redundancy.on_sent(now, &datagram(97, false, 1000));
        assert_eq!((redundancy.next_due(), copies(&mut redundancy, now + 4 * MS)), (Some(now + 5 * MS), Vec::<u8>::new()));
        assert_eq!(copies(&mut redundancy, now + 5 * MS), [96 | 0x80, 97]);
        assert_eq!((redundancy.next_due(), redundancy.share(13_500), redundancy.share(20_000)), (None, 0.1, 0.0));
    }

    #[test]
    fn nothing_else_is_duplicated() {
        let (mut redundancy, now) = losing();
        // A report (RTCP), a request of ICE, a record of DTLS, another line's packet.
        for (first, second) in [(0x80, 200), (0x81, 205), (0, 1), (22, 254), (0x80, 111)] {
            let mut other = datagram(0, false, 100).contents.to_vec();
            (other[0], other[1]) = (first, second);
            redundancy.on_sent(now, &Transmit { contents: other.into(), ..datagram(0, false, 100) });
        }
        redundancy.on_sent(now, &Transmit { contents: vec![0x80].into(), ..datagram(0, false, 100) });
        assert!(copies(&mut redundancy, now + 10 * MS).is_empty());
    }

    #[test]
    fn few_losses_make_no_copies() {
        let (mut redundancy, now) = losing();
        (0..20).for_each(|_| redundancy.on_loss(0.005));
        redundancy.on_sent(now, &datagram(97, false, 500));
        assert_eq!(redundancy.next_due(), None);
    }

    #[test]
    fn narrow_network_gets_no_copies_and_those_that_wait_are_given_up() {
        let (mut redundancy, now) = losing();
        redundancy.on_sent(now, &datagram(97, false, 500));
        redundancy.on_estimate(1_000_000, false);
        assert_eq!(redundancy.next_due(), None);
        redundancy.on_sent(now, &datagram(97, false, 500));
        assert_eq!(redundancy.next_due(), None);
    }

    #[test]
    fn all_together_is_no_more_than_the_network_carries() {
        let (mut redundancy, mut now) = losing();
        redundancy.on_estimate(1_125_000, true);
        let mut duplicated = 0;
        for _ in 0..1000 {
            // 800 kbit/s, a fifth of it sent again.
            (0..8).for_each(|_| redundancy.on_sent(now, &datagram(96, false, 1000)));
            (0..2).for_each(|_| redundancy.on_sent(now, &datagram(97, false, 1000)));
            now += 100 * MS;
            duplicated += copies(&mut redundancy, now).len();
        }
        // What is saved up at first, and 100 kbit/s.
        assert!((1200..=1290).contains(&duplicated), "{duplicated}");
    }

    #[test]
    fn losses_that_come_and_go_do_not_switch_it_all_the_time() {
        let (mut redundancy, now) = losing();
        [0.02, 0.02, 0.02, 0.02, 0.02].into_iter().for_each(|lost| redundancy.on_loss(lost));
        redundancy.on_sent(now, &datagram(97, false, 500));
        assert!(redundancy.next_due().is_some());
    }

    #[test]
    fn copies_and_retransmissions_are_three_tenths_of_all_at_most() {
        let (mut redundancy, now) = losing();
        let (mut first, mut resent) = (10_000.0, 0.0);
        for n in 0..1000 {
            let now = now + 2 * n * MS;
            redundancy.on_sent(now, &datagram(96, n % 10 == 9, 1000));
            first += 1000.0;
            if n % 4 == 0 {
                redundancy.on_sent(now, &datagram(97, false, 1000));
                resent += 1000.0;
            }
            copies(&mut redundancy, now + 10 * MS);
        }
        let again = resent + redundancy.duplicated_bytes as f64;
        assert!((0.27..=0.31).contains(&(again / (again + first))), "{}", again / (again + first));
    }

    #[test]
    fn copies_that_wait_are_bounded() {
        let (mut redundancy, now) = losing();
        (0..200).for_each(|_| redundancy.on_sent(now, &datagram(96, true, 10)));
        assert_eq!(copies(&mut redundancy, now + 5 * MS).len(), MOST_WAITING);
    }
}
