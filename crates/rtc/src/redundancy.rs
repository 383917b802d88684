//! Packet redundancy: packets that are sent twice without a request, where a network loses many
//! packets and has bandwidth left.
//!
//! A browser notices only with the next frame that the last packet of a frame is missing, and only
//! a round trip later that a retransmission was lost, too. These two kinds of packets are
//! duplicated. The duplicate follows some milliseconds later, because a network that loses a packet
//! often loses the next one. A duplicate is the same datagram: a receiver that has it already drops
//! it by its number (RFC 3711 §3.3.2), and the bandwidth estimator counts both as one. Duplicates
//! and retransmissions share one budget, and all together is not more than the network carries. The
//! time is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use str0m::media::Pt;
use str0m::net::Transmit;

/// Share of lost packets at which duplication begins.
const START_LOSS: f32 = 0.03;
/// Share of lost packets at which duplication ends.
const STOP_LOSS: f32 = 0.01;
/// Weight of one report (one second) in the moving average of losses.
const LOSS_SMOOTHING: f32 = 0.4;
/// Time between a packet and its duplicate.
const DUPLICATE_DELAY: Duration = Duration::from_millis(5);
/// Duplicates that wait at a time; no more are made then.
const MAX_WAITING: usize = 64;
/// Part of the bandwidth estimate that is filled with duplicates. The estimate is often too high.
const ESTIMATE_RATIO: f64 = 0.8;
/// Bytes that a [`Budget`] holds at most.
const MAX_SAVED_BYTES: f64 = 30_000.0;
/// Bytes by which other packets may overdraw a [`Budget`].
const MAX_OWED_BYTES: f64 = 20_000.0;

/// The payload types of a video line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PayloadTypes {
    /// The payload type of frames.
    pub media: Pt,
    /// The payload type of retransmissions.
    pub resent: Option<Pt>,
}

/// The packet redundancy of one video line.
pub(crate) struct Redundancy {
    types: Option<PayloadTypes>,
    /// Bytes of duplicates and retransmissions for each byte that is sent for the first time.
    share: f64,
    /// The bandwidth estimate, bit/s; 0 unless it is as large as the bitrate that the track could
    /// use.
    room_bps: u64,
    /// The bytes that duplicates may have of `share`.
    by_share: Budget,
    /// The bytes that duplicates may have of `room_bps`.
    by_room: Budget,
    /// The time of the last packet.
    sent_at: Option<Instant>,
    /// Moving average of the share of lost packets.
    loss: f32,
    is_on: bool,
    waiting: VecDeque<Duplicate>,
    duplicated_bytes: u64,
    /// The bytes at the last call of [`Redundancy::share`].
    reported: SentBytes,
}

/// A duplicate that waits.
struct Duplicate {
    due: Instant,
    datagram: Transmit,
}

/// Bytes sent since the beginning.
#[derive(Debug, Clone, Copy, Default)]
struct SentBytes {
    without_duplicates: u64,
    duplicated: u64,
}

/// A token bucket of bytes for duplicates.
#[derive(Debug, Default)]
struct Budget(f64);

impl Budget {
    fn save(&mut self, bytes: f64) {
        self.0 = (self.0 + bytes).min(MAX_SAVED_BYTES);
    }

    fn spend(&mut self, bytes: f64) {
        self.0 = (self.0 - bytes).max(-MAX_OWED_BYTES);
    }

    fn has(&self, bytes: f64) -> bool {
        self.0 >= bytes
    }
}

/// The kind of a datagram, by its RTP header, which is not encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    First { is_last_of_frame: bool },
    Resent,
    Other,
}

impl Redundancy {
    /// Begins without duplication. `max_resent`: largest share of duplicates and retransmissions in
    /// all that is sent, 0..1.
    pub(crate) fn new(max_resent: f32) -> Self {
        let share = f64::from(max_resent / (1.0 - max_resent));
        Self {
            types: None,
            share,
            room_bps: 0,
            by_share: Budget::default(),
            by_room: Budget::default(),
            sent_at: None,
            loss: 0.0,
            is_on: false,
            waiting: VecDeque::new(),
            duplicated_bytes: 0,
            reported: SentBytes::default(),
        }
    }

    /// Sets the payload types of the line.
    pub(crate) fn set_types(&mut self, types: PayloadTypes) {
        self.types = Some(types);
    }

    /// Takes the share of packets that was lost during the last second, 0..=1.
    pub(crate) fn on_loss(&mut self, lost: f32) {
        self.loss += LOSS_SMOOTHING * (lost - self.loss);
        self.is_on = self.loss > if self.is_on { STOP_LOSS } else { START_LOSS };
    }

    /// Takes the bandwidth estimate. `is_ample`: it is about the bitrate that the track could use,
    /// and no packets queue. Duplicates would make a narrow network narrower.
    pub(crate) fn on_estimate(&mut self, bps: u64, is_ample: bool) {
        self.room_bps = if is_ample { bps } else { 0 };
        if !is_ample {
            self.waiting.clear();
        }
    }

    /// Stops duplication until the next report of losses.
    pub(crate) fn stop(&mut self) {
        self.is_on = false;
        self.waiting.clear();
    }

    /// Takes note of a datagram that is sent, and duplicates it if that helps.
    pub(crate) fn on_sent(&mut self, now: Instant, transmit: &Transmit) {
        let kind = self.kind(&transmit.contents);
        self.on_sent_as(kind, now, transmit);
    }

    /// Decides whether a packet is sent again on its own SSRC, within the share of retransmissions.
    /// Takes note of it then.
    pub(crate) fn admits_resent(&mut self, now: Instant, transmit: &Transmit) -> bool {
        let is_room = self.by_share.has(transmit.contents.len() as f64);
        if is_room {
            self.on_sent_as(Kind::Resent, now, transmit);
        }
        is_room
    }

    fn on_sent_as(&mut self, kind: Kind, now: Instant, transmit: &Transmit) {
        let bytes = transmit.contents.len() as f64;
        let is_worthwhile = match kind {
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
        let passed = self.sent_at.replace(now).map_or(Duration::ZERO, |before| now.saturating_duration_since(before));
        self.by_room.save(ESTIMATE_RATIO * self.room_bps as f64 / 8.0 * passed.as_secs_f64());
        self.by_room.spend(bytes);
        let is_room = self.room_bps > 0 && self.by_share.has(bytes) && self.by_room.has(bytes);
        if self.is_on && is_worthwhile && is_room && self.waiting.len() < MAX_WAITING {
            self.by_share.spend(bytes);
            self.by_room.spend(bytes);
            self.duplicated_bytes += bytes as u64;
            let contents = transmit.contents.to_vec().into();
            let datagram = Transmit { proto: transmit.proto, source: transmit.source, destination: transmit.destination, contents };
            self.waiting.push_back(Duplicate { due: now + DUPLICATE_DELAY, datagram });
        }
    }

    /// Returns the next duplicate that is due.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Transmit> {
        self.waiting.pop_front_if(|duplicate| duplicate.due <= now).map(|duplicate| duplicate.datagram)
    }

    /// Returns the time at which the next duplicate is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.waiting.front().map(|duplicate| duplicate.due)
    }

    /// Returns the share of duplicates in the bytes that were sent since the last call, 0..=1.
    /// `sent_bytes`: bytes sent since the beginning, without duplicates.
    pub(crate) fn share(&mut self, sent_bytes: u64) -> f32 {
        let now = SentBytes { without_duplicates: sent_bytes, duplicated: self.duplicated_bytes };
        let before = std::mem::replace(&mut self.reported, now);
        let sent = now.without_duplicates.saturating_sub(before.without_duplicates);
        let duplicated = now.duplicated - before.duplicated;
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

    /// Returns the redundancy of a line that loses a tenth and has bandwidth left. A frame of ten
    /// packets has left a second ago.
    fn losing() -> (Redundancy, Instant) {
        let (mut redundancy, now) = (Redundancy::new(0.3), Instant::now());
        redundancy.set_types(TYPES);
        redundancy.on_loss(0.1);
        redundancy.on_estimate(10_000_000, true);
        (0..10).for_each(|_| redundancy.on_sent(now, &datagram(96, false, 1000)));
        redundancy.on_sent(now + 1000 * MS, &datagram(96, false, 100));
        (redundancy, now + 1000 * MS)
    }

    fn duplicates(redundancy: &mut Redundancy, now: Instant) -> Vec<u8> {
        std::iter::from_fn(|| redundancy.due(now)).map(|duplicate| duplicate.contents[1]).collect()
    }

    #[test]
    fn last_packet_of_a_frame_and_what_is_sent_again_follow_themselves_after_a_while() {
        let (mut redundancy, now) = losing();
        redundancy.on_sent(now, &datagram(96, true, 500));
        redundancy.on_sent(now, &datagram(97, false, 1000));
        assert_eq!((redundancy.next_due(), duplicates(&mut redundancy, now + 4 * MS)), (Some(now + 5 * MS), Vec::<u8>::new()));
        assert_eq!(duplicates(&mut redundancy, now + 5 * MS), [96 | 0x80, 97]);
        assert_eq!((redundancy.next_due(), redundancy.share(13_500), redundancy.share(20_000)), (None, 0.1, 0.0));
    }

    #[test]
    fn nothing_else_is_duplicated() {
        let (mut redundancy, now) = losing();
        // An RTCP report, an ICE request, a DTLS record, a packet of another line.
        for (first, second) in [(0x80, 200), (0x81, 205), (0, 1), (22, 254), (0x80, 111)] {
            let mut other = datagram(0, false, 100).contents.to_vec();
            (other[0], other[1]) = (first, second);
            redundancy.on_sent(now, &Transmit { contents: other.into(), ..datagram(0, false, 100) });
        }
        redundancy.on_sent(now, &Transmit { contents: vec![0x80].into(), ..datagram(0, false, 100) });
        assert!(duplicates(&mut redundancy, now + 10 * MS).is_empty());
    }

    #[test]
    fn few_losses_make_no_duplicates() {
        let (mut redundancy, now) = losing();
        (0..20).for_each(|_| redundancy.on_loss(0.005));
        redundancy.on_sent(now, &datagram(97, false, 500));
        assert_eq!(redundancy.next_due(), None);
    }

    #[test]
    fn narrow_network_gets_no_duplicates_and_those_that_wait_are_dropped() {
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
            duplicated += duplicates(&mut redundancy, now).len();
        }
        // The bucket is full at first, and 100 kbit/s are left.
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
    fn duplicates_and_retransmissions_are_three_tenths_of_all_at_most() {
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
            duplicates(&mut redundancy, now + 10 * MS);
        }
        let again = resent + redundancy.duplicated_bytes as f64;
        assert!((0.27..=0.31).contains(&(again / (again + first))), "{}", again / (again + first));
    }

    #[test]
    fn packets_that_are_sent_again_on_their_own_ssrc_have_the_same_share_and_are_duplicated() {
        let (mut redundancy, now) = losing();
        let again = datagram(96, false, 1000);
        assert_eq!((0..100).filter(|_| redundancy.admits_resent(now, &again)).count(), 2, "each with its duplicate");
        assert_eq!(duplicates(&mut redundancy, now + 5 * MS), [96, 96]);
        let mut redundancy = Redundancy::new(0.3);
        redundancy.set_types(TYPES);
        (0..10).for_each(|_| redundancy.on_sent(now, &again));
        assert_eq!((0..100).filter(|_| redundancy.admits_resent(now, &again)).count(), 4, "three tenths of fourteen");
        assert_eq!(redundancy.next_due(), None);
    }

    #[test]
    fn duplicates_that_wait_are_bounded() {
        let (mut redundancy, now) = losing();
        (0..200).for_each(|_| redundancy.on_sent(now, &datagram(96, true, 10)));
        assert_eq!(duplicates(&mut redundancy, now + 5 * MS).len(), MAX_WAITING);
    }
}
