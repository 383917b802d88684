//! The number of SCTP streams (RFC 9260) that a browser uses.
//!
//! The WebRTC library accepts any number of streams, keeps state for each, and goes through all of
//! them whenever it is polled. It has no limit, and reports no stream on which no data channel was
//! opened. Packets are therefore checked before the library sees them.

/// Length of the common header, bytes.
const HEADER_BYTES: usize = 12;
/// Length of a chunk before its value, bytes.
const CHUNK_HEADER_BYTES: usize = 4;
/// Chunk type DATA.
const DATA: u8 = 0;
/// Shortest DATA chunk, bytes: its header and one byte.
const MIN_DATA_BYTES: usize = 17;
/// Offset of the stream identifier in a DATA chunk, behind the transmission sequence number.
const STREAM_OFFSET: usize = 8;
/// Chunk type SACK. It and the following types are bundled with DATA, and their length can be
/// checked.
const SACK: u8 = 3;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const RE_CONFIG: u8 = 130;
const FORWARD_TSN: u8 = 192;
/// Parameter of RE-CONFIG (RFC 6525) that resets streams.
const OUTGOING_RESET: usize = 13;
/// Parameter of RE-CONFIG that answers a reset.
const RESET_RESPONSE: usize = 16;

/// The SCTP streams that one browser has used, up to a limit.
#[derive(Debug)]
pub struct Streams {
    limit: usize,
    used: Vec<u16>,
}

impl Streams {
    /// Creates the set without streams.
    pub fn new(limit: usize) -> Self {
        Self { limit, used: Vec::new() }
    }

    /// Takes note of the streams of a packet. Returns false if the packet uses a stream beyond the
    /// limit; it has to be dropped then.
    pub fn takes(&mut self, packet: &[u8]) -> bool {
        let mut rest = packet.get(HEADER_BYTES..).unwrap_or_default();
        let mut is_exact = true;
        while let [kind, flags, high, low, ..] = *rest {
            let length = usize::from(u16::from_be_bytes([high, low]));
            let is_data = kind == DATA && length >= MIN_DATA_BYTES && length <= rest.len() && (is_exact || flags < 16);
            if is_data && !self.uses(u16::from_be_bytes([rest[STREAM_OFFSET], rest[STREAM_OFFSET + 1]])) {
                return false;
            }
            // The library finds the next chunk behind the part of this one that it has read, which
            // may be shorter than the length field. If that is possible, everything that looks like
            // DATA counts from there on.
            is_exact &= is_consistent(kind, length, rest);
            let step = if is_exact { length.next_multiple_of(4) } else { CHUNK_HEADER_BYTES };
            rest = rest.get(step.max(CHUNK_HEADER_BYTES)..).unwrap_or_default();
        }
        true
    }

    fn uses(&mut self, stream: u16) -> bool {
        let is_known = self.used.contains(&stream);
        if !is_known && self.used.len() < self.limit {
            self.used.push(stream);
            return true;
        }
        is_known
    }
}

/// Returns whether the library reads a chunk of this type to its end.
fn is_consistent(kind: u8, length: usize, chunk: &[u8]) -> bool {
    let number = |at: usize| chunk.get(at..at + 2).map_or(0, |bytes| usize::from(u16::from_be_bytes([bytes[0], bytes[1]])));
    let is_parameter = |at: usize| match number(at) {
        OUTGOING_RESET => number(at + 2) >= 16 && number(at + 2).is_multiple_of(2),
        RESET_RESPONSE => number(at + 2) == 12,
        _ => false,
    };
    let ends = |at: usize| (at + number(at + 2)).next_multiple_of(4);
    match kind {
        DATA => length >= MIN_DATA_BYTES,
        SACK => length == 16 + 4 * (number(12) + number(14)),
        COOKIE_ECHO => length > CHUNK_HEADER_BYTES,
        COOKIE_ACK => length == CHUNK_HEADER_BYTES,
        FORWARD_TSN => length >= 8 && length.is_multiple_of(4),
        // A RE-CONFIG chunk has one or two parameters.
        RE_CONFIG if !is_parameter(CHUNK_HEADER_BYTES) => false,
        RE_CONFIG if ends(CHUNK_HEADER_BYTES) == length.next_multiple_of(4) => true,
        RE_CONFIG => is_parameter(ends(CHUNK_HEADER_BYTES)) && ends(ends(CHUNK_HEADER_BYTES)) == length.next_multiple_of(4),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{Rng, RngCore, SeedableRng};

    use super::*;

    fn packet(streams: &[u16]) -> Vec<u8> {
        let mut packet = vec![0x13, 0x88, 0x13, 0x88, 1, 2, 3, 4, 5, 6, 7, 8];
        // The first chunk is a SACK.
        packet.extend([3, 0, 0, 16, 0, 9, 0, 9, 0, 9, 0, 9, 0, 0, 0, 0]);
        for stream in streams {
            let [high, low] = stream.to_be_bytes();
            // The chunk has one byte of data, and three of padding.
            packet.extend([0, 3, 0, 17, 0, 0, 0, 1, high, low, 0, 0, 0, 0, 0, 51, b'x', 0, 0, 0]);
        }
        packet
    }

    #[test]
    fn as_many_streams_as_allowed_are_taken_again_and_again_and_one_more_is_not() {
        let mut streams = Streams::new(8);
        for _ in 0..100 {
            assert!((0..8).all(|n| streams.takes(&packet(&[2 * n]))));
        }
        assert!(!streams.takes(&packet(&[1])));
        assert!(streams.takes(&packet(&[14, 0])), "those that it has stay");
        assert!(!streams.takes(&packet(&[0, 65535])), "nor one that hides behind another in a packet");
    }

    #[test]
    fn a_stream_that_hides_in_a_chunk_of_another_type_is_found() {
        for kind in [1, 3, 4, 9, 130, 192] {
            let mut streams = Streams::new(0);
            let mut bytes = packet(&[]);
            let hidden = &packet(&[7])[28..];
            let [high, low] = (6 + hidden.len() as u16).to_be_bytes();
            bytes.extend([kind, 0, high, low]);
            bytes.extend(hidden);
            bytes.extend([0, 0]);
            assert!(!streams.takes(&bytes), "chunk type {kind}");
        }
    }

    #[test]
    fn what_browsers_bundle_with_data_is_no_stream() {
        let mut streams = Streams::new(1);
        let mut bytes = packet(&[]);
        // The packet has a RE-CONFIG (outgoing reset of stream 2), then DATA of stream 4.
        bytes.extend([130, 0, 0, 22, 0, 13, 0, 18, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 2, 0, 0]);
        bytes.extend(&packet(&[4])[28..]);
        assert!(streams.takes(&bytes));
        assert_eq!(streams.used, [4]);
    }

    #[test]
    fn noise_does_no_harm_and_the_number_of_streams_stays_limited() {
        let mut random = SmallRng::seed_from_u64(5);
        let mut streams = Streams::new(8);
        let whole = packet(&[1, 2, 3, 4]);
        for _ in 0..100_000 {
            let mut bytes = whole.clone();
            bytes.truncate(random.random_range(0..=bytes.len()));
            if random.random_bool(0.5) {
                random.fill_bytes(&mut bytes);
            }
            streams.takes(&bytes);
            assert!(streams.used.len() <= 8);
        }
    }
}
