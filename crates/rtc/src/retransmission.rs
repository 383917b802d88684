//! Retransmission of video packets on their own SSRC, for a peer without RTX (RFC 4588).
//!
//! The WebRTC library answers a NACK (RFC 4585 §6.2.1) on an RTX stream only. Without RTX, the peer
//! gets the same datagram again. A receiver that has it already drops it by its number (RFC 3711
//! §3.3.2). The time is an argument.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::media::Pt;
use str0m::net::{Protocol, Transmit};
use str0m::rtp::rtcp::{Nack, NackEntry};

/// Round-trip time until it is measured.
const DEFAULT_ROUND_TRIP: Duration = Duration::from_millis(20);
/// Bytes of a packet that are no payload: the RTP header with some extensions, and the SRTP tag.
const OVERHEAD_BYTES: usize = 38;

/// The sent packets of one video line without RTX.
pub(crate) struct Retransmission {
    media: Pt,
    max_packets: usize,
    max_age: Duration,
    /// Packets in the order of their numbers, without gaps.
    packets: VecDeque<Packet>,
    /// The numbers of the packets that are sent again next.
    requested: VecDeque<u16>,
    /// The stream and the network path of the last packet.
    stream: Option<Stream>,
    round_trip: Duration,
    resent: ResentCounts,
}

/// Counts of the packets that were sent again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ResentCounts {
    pub(crate) packets: u64,
    /// Bytes of payload, as the library counts them.
    pub(crate) bytes: u64,
}

/// A packet that was sent.
struct Packet {
    number: u16,
    /// The time at which it was sent, or requested again.
    sent_at: Instant,
    datagram: Vec<u8>,
}

struct Stream {
    ssrc: u32,
    proto: Protocol,
    source: SocketAddr,
    destination: SocketAddr,
}

impl Retransmission {
    /// Begins without packets. `media`: the payload type of the line. `max_packets`, `max_age`: how
    /// many packets are kept, and how long.
    pub(crate) fn new(media: Pt, max_packets: usize, max_age: Duration) -> Self {
        Self {
            media,
            max_packets,
            max_age,
            packets: VecDeque::new(),
            requested: VecDeque::new(),
            stream: None,
            round_trip: DEFAULT_ROUND_TRIP,
            resent: ResentCounts::default(),
        }
    }

    /// Keeps a datagram that is sent, if it is a packet of the line.
    pub(crate) fn on_sent(&mut self, now: Instant, transmit: &Transmit) {
        let Some((number, ssrc)) = self.packet(&transmit.contents) else { return };
        self.stream = Some(Stream { ssrc, proto: transmit.proto, source: transmit.source, destination: transmit.destination });
        if self.packets.back().is_some_and(|last| last.number.wrapping_add(1) != number) {
            self.clear();
        }
        let is_old = |packet: &mut Packet| now.saturating_duration_since(packet.sent_at) > self.max_age;
        while self.packets.pop_front_if(is_old).is_some() {}
        if self.packets.len() >= self.max_packets {
            self.packets.pop_front();
        }
        self.packets.push_back(Packet { number, sent_at: now, datagram: transmit.contents.to_vec() });
    }

    /// Takes the round-trip time. A request that comes earlier after a packet was sent is about the
    /// packet before.
    pub(crate) fn set_round_trip(&mut self, round_trip: Duration) {
        self.round_trip = round_trip;
    }

    /// Takes a request for packets.
    pub(crate) fn on_nack(&mut self, now: Instant, nack: &Nack) {
        if self.stream.as_ref().is_none_or(|stream| stream.ssrc != *nack.ssrc) {
            return;
        }
        for number in nack.reports.iter().flat_map(numbers) {
            let index = self.packets.front().map(|first| usize::from(number.wrapping_sub(first.number)));
            let Some(packet) = index.and_then(|index| self.packets.get_mut(index)) else { continue };
            let age = now.saturating_duration_since(packet.sent_at);
            if (self.round_trip..=self.max_age).contains(&age) {
                packet.sent_at = now;
                self.requested.push_back(number);
            }
        }
    }

    /// Returns the next packet that is sent again.
    pub(crate) fn next(&mut self) -> Option<Transmit> {
        let (number, stream) = (self.requested.pop_front()?, self.stream.as_ref()?);
        let index = usize::from(number.wrapping_sub(self.packets.front()?.number));
        let contents = self.packets.get(index)?.datagram.clone().into();
        Some(Transmit { proto: stream.proto, source: stream.source, destination: stream.destination, contents })
    }

    /// A packet was sent again.
    pub(crate) fn on_resent(&mut self, transmit: &Transmit) {
        self.resent.packets += 1;
        self.resent.bytes += transmit.contents.len().saturating_sub(OVERHEAD_BYTES) as u64;
    }

    /// Returns the counts since the beginning.
    pub(crate) fn resent(&self) -> ResentCounts {
        self.resent
    }

    /// Drops all packets.
    pub(crate) fn clear(&mut self) {
        self.packets.clear();
        self.requested.clear();
    }

    /// Returns the number and the SSRC of a packet of the line (RFC 3550 §5.1).
    fn packet(&self, datagram: &[u8]) -> Option<(u16, u32)> {
        let [0x80..=0xbf, second, high, low, _, _, _, _, ssrc @ ..] = datagram else { return None };
        let ssrc = ssrc.first_chunk().copied().map(u32::from_be_bytes)?;
        (second & 0x7f == *self.media && ssrc != 0).then_some((u16::from_be_bytes([*high, *low]), ssrc))
    }
}

/// Returns the numbers of an entry: one, and those of the next sixteen whose bit is set.
fn numbers(entry: &NackEntry) -> impl Iterator<Item = u16> + use<> {
    let NackEntry { pid, blp } = *entry;
    let others = (0..16).filter(move |bit| blp >> bit & 1 == 1).map(move |bit| pid.wrapping_add(bit + 1));
    std::iter::once(pid).chain(others)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const SSRC: u32 = 7;

    fn datagram(number: u16) -> Transmit {
        let mut contents = vec![0x80, 96];
        contents.extend(number.to_be_bytes());
        contents.extend([0; 4]);
        contents.extend(SSRC.to_be_bytes());
        contents.extend([1; 88]);
        let address = ([127, 0, 0, 1], 5000).into();
        Transmit { proto: Protocol::Udp, source: address, destination: address, contents: contents.into() }
    }

    fn nack(ssrc: u32, pid: u16, blp: u16) -> Nack {
        Nack { sender_ssrc: 1.into(), ssrc: ssrc.into(), reports: NackEntry { pid, blp }.into() }
    }

    /// Returns a line on which packets with these numbers were sent at the returned time.
    fn sent(numbers: impl Iterator<Item = u16>) -> (Retransmission, Instant) {
        let (mut line, now) = (Retransmission::new(Pt::new_with_value(96), 8, 1000 * MS), Instant::now());
        numbers.for_each(|number| line.on_sent(now, &datagram(number)));
        (line, now)
    }

    fn resent(line: &mut Retransmission) -> Vec<u16> {
        std::iter::from_fn(|| line.next()).map(|again| u16::from_be_bytes([again.contents[2], again.contents[3]])).collect()
    }

    #[test]
    fn requested_packets_are_sent_again_unchanged_also_where_numbers_wrap() {
        let (mut line, now) = sent((0..6).map(|n| 65533_u16.wrapping_add(n)));
        line.on_nack(now + 50 * MS, &nack(SSRC, 65534, 0b1010));
        let first = line.next().unwrap();
        assert_eq!(first.contents.to_vec(), datagram(65534).contents.to_vec());
        assert_eq!(resent(&mut line), [0, 2]);
    }

    #[test]
    fn packet_that_is_requested_twice_in_one_round_trip_is_sent_again_once() {
        let (mut line, now) = sent(1..6);
        line.set_round_trip(100 * MS);
        line.on_nack(now + 99 * MS, &nack(SSRC, 2, 0));
        assert!(resent(&mut line).is_empty(), "the request is older than the packet");
        line.on_nack(now + 100 * MS, &nack(SSRC, 2, 0));
        line.on_nack(now + 133 * MS, &nack(SSRC, 2, 0));
        assert_eq!(resent(&mut line), [2]);
        line.on_nack(now + 200 * MS, &nack(SSRC, 2, 0));
        assert_eq!(resent(&mut line), [2]);
    }

    #[test]
    fn what_was_not_sent_or_is_too_old_or_belongs_to_another_stream_is_ignored() {
        let (mut line, now) = sent(1..20);
        line.on_nack(now + 50 * MS, &nack(SSRC + 1, 15, 0));
        line.on_nack(now + 50 * MS, &nack(SSRC, 20, u16::MAX));
        line.on_nack(now + 50 * MS, &nack(SSRC, 1, u16::MAX));
        assert_eq!(resent(&mut line), [12, 13, 14, 15, 16, 17], "eight packets are kept");
        line.on_sent(now + 1001 * MS, &datagram(20));
        line.on_nack(now + 1100 * MS, &nack(SSRC, 18, u16::MAX));
        assert_eq!(resent(&mut line), [20], "for a second after they were sent");
    }

    #[test]
    fn datagrams_of_other_kinds_and_probes_are_not_kept() {
        let (mut line, now) = sent(1..3);
        let mut probe = datagram(3).contents.to_vec();
        probe[8..12].fill(0);
        for contents in [probe, vec![0x80, 111, 0, 3, 0, 0, 0, 0, 0, 0, 0, 9], vec![0x80, 96, 0, 3], vec![22, 254, 253]] {
            line.on_sent(now, &Transmit { contents: contents.into(), ..datagram(3) });
        }
        line.on_sent(now, &datagram(3));
        line.on_nack(now + 50 * MS, &nack(SSRC, 1, u16::MAX));
        assert_eq!(resent(&mut line), [1, 2, 3]);
    }

    #[test]
    fn packets_before_a_gap_in_the_numbers_are_dropped() {
        let (mut line, now) = sent([1, 2, 9, 10].into_iter());
        line.on_nack(now + 50 * MS, &nack(SSRC, 1, u16::MAX));
        assert_eq!(resent(&mut line), [9, 10]);
    }
}
