//! Checks the header of a VP8 frame (RFC 6386 §9, §19.2) before libvpx sees it: the sizes of the
//! picture and of the partitions that it announces.

use ooblex_pipeline::Size;

use crate::limits::Limits;
use crate::undecodable::{HeaderPart, Undecodable};

/// Number of bytes of the frame tag, the start code and the size of a key frame. Other frames have
/// the tag only.
const KEY_FRAME_HEADER: usize = 10;
const FRAME_TAG: usize = 3;
const START_CODE: [u8; 3] = [0x9d, 0x01, 0x2a];
/// Highest version of the bitstream.
const MAX_VERSION: u8 = 3;

/// Returns whether the frame tag marks a key frame.
pub(crate) fn is_keyframe(data: &[u8]) -> bool {
    data.first().is_some_and(|tag| tag & 1 == 0)
}

/// Returns the size that a key frame announces, if it is valid.
pub(crate) fn keyframe_size(data: &[u8]) -> Option<Size> {
    let header = data.get(..KEY_FRAME_HEADER).filter(|data| is_keyframe(data))?;
    size(header, &Limits::default()).ok()
}

/// Returns whether the frame tag marks the picture as shown.
pub(super) fn is_shown(data: &[u8]) -> bool {
    data.first().is_some_and(|tag| tag & 0x10 != 0)
}

/// Checks a frame before libvpx sees it. Returns the width and height that a key frame announces,
/// or `None` for other frames.
pub(super) fn check(data: &[u8], limits: &Limits) -> Result<Option<Size>, Undecodable> {
    let is_key = is_keyframe(data);
    let header = if is_key { KEY_FRAME_HEADER } else { FRAME_TAG };
    let Some((header, rest)) = data.split_at_checked(header) else {
        return refuse("it is cut short");
    };
    if header[0] >> 1 & 7 > MAX_VERSION {
        return refuse("its version is unknown");
    }
    let size = if is_key { Some(size(header, limits)?) } else { None };
    let first = usize::from(header[0] >> 5) | usize::from(header[1]) << 3 | usize::from(header[2]) << 11;
    let Some((first, rest)) = rest.split_at_checked(first).filter(|(first, _)| !first.is_empty()) else {
        return refuse("the first partition is empty, or longer than the frame");
    };
    let partitions = 1_usize << log2_partitions(first, is_key);
    // Each partition except the last has its size in this table. The last one takes the rest.
    let Some((sizes, mut rest)) = rest.split_at_checked(3 * (partitions - 1)) else {
        return refuse("the sizes of its partitions are cut short");
    };
    for size in sizes.chunks_exact(3) {
        let size = usize::from(size[0]) | usize::from(size[1]) << 8 | usize::from(size[2]) << 16;
        let Some((_, others)) = rest.split_at_checked(size) else {
            return refuse("a partition is longer than the frame");
        };
        rest = others;
    }
    Ok(size)
}

fn size(header: &[u8], limits: &Limits) -> Result<Size, Undecodable> {
    if header[FRAME_TAG..FRAME_TAG + 3] != START_CODE {
        return refuse("a key frame has no start code");
    }
    // The two highest bits tell the receiver how to scale the picture for display.
    let side = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
    let (width, height) = (side(header[6], header[7]), side(header[8], header[9]));
    if limits.allow(width, height) { Ok(Size { width, height }) } else { Err(Undecodable::Size { width, height }) }
}

/// Reads the frame header up to the number of coefficient partitions. Returns its binary logarithm.
fn log2_partitions(first: &[u8], is_key: bool) -> u32 {
    let mut bits = BoolDecoder::new(first);
    if is_key {
        bits.literal(2);
    }
    if bits.flag() {
        let (updates_map, updates_data) = (bits.flag(), bits.flag());
        if updates_data {
            bits.flag();
            (0..4).for_each(|_| bits.optional(7 + 1));
            (0..4).for_each(|_| bits.optional(6 + 1));
        }
        if updates_map {
            (0..3).for_each(|_| bits.optional(8));
        }
    }
    // These bits are the filter type, level and sharpness.
    bits.literal(1 + 6 + 3);
    if bits.flag() && bits.flag() {
        (0..8).for_each(|_| bits.optional(6 + 1));
    }
    bits.literal(2)
}

/// Boolean entropy decoder (RFC 6386 §7.3) for bits that are as likely 0 as 1. It reads zeros after
/// the end of the data.
struct BoolDecoder<'a> {
    rest: std::slice::Iter<'a, u8>,
    value: u32,
    range: u32,
    /// Number of bits by which `value` was shifted since it got a byte.
    shifted: u32,
}

impl<'a> BoolDecoder<'a> {
    fn new(data: &'a [u8]) -> Self {
        let mut rest = data.iter();
        let mut byte = || u32::from(rest.next().copied().unwrap_or(0));
        let value = byte() << 8 | byte();
        Self { rest, value, range: 255, shifted: 0 }
    }

    fn flag(&mut self) -> bool {
        let split = 1 + (((self.range - 1) * 128) >> 8);
        let is_set = self.value >= split << 8;
        if is_set {
            self.range -= split;
            self.value -= split << 8;
        } else {
            self.range = split;
        }
        while self.range < 128 {
            self.value <<= 1;
            self.range <<= 1;
            self.shifted += 1;
            if self.shifted == 8 {
                self.shifted = 0;
                self.value |= u32::from(self.rest.next().copied().unwrap_or(0));
            }
        }
        is_set
    }

    fn literal(&mut self, bits: u32) -> u32 {
        (0..bits).fold(0, |value, _| value << 1 | u32::from(self.flag()))
    }

    /// Reads a flag, and `bits` bits after it if it is set.
    fn optional(&mut self, bits: u32) {
        if self.flag() {
            self.literal(bits);
        }
    }
}

fn refuse<T>(why: &str) -> Result<T, Undecodable> {
    Err(Undecodable::Refused { part: HeaderPart::FrameHeader, why: why.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Boolean entropy encoder (RFC 6386 §7.3) for the input of [`BoolDecoder`].
    struct BoolEncoder {
        written: Vec<u8>,
        bottom: u32,
        range: u32,
        left: u32,
    }

    impl BoolEncoder {
        fn new() -> Self {
            Self { written: Vec::new(), bottom: 0, range: 255, left: 24 }
        }

        fn flag(&mut self, is_set: bool) {
            let split = 1 + (((self.range - 1) * 128) >> 8);
            if is_set {
                let (bottom, overflows) = self.bottom.overflowing_add(split);
                assert!(!overflows, "kept below 2^32 by the carry");
                self.bottom = bottom;
                self.range -= split;
            } else {
                self.range = split;
            }
            while self.range < 128 {
                self.range <<= 1;
                if self.bottom & 1 << 31 != 0 {
                    for byte in self.written.iter_mut().rev() {
                        *byte = byte.wrapping_add(1);
                        if *byte != 0 {
                            break;
                        }
                    }
                }
                self.bottom <<= 1;
                self.left -= 1;
                if self.left == 0 {
                    self.written.push((self.bottom >> 24) as u8);
                    self.bottom &= 0x00ff_ffff;
                    self.left = 8;
                }
            }
        }

        fn literal(&mut self, value: u32, bits: u32) {
            (0..bits).rev().for_each(|bit| self.flag(value >> bit & 1 == 1));
        }

        fn finished(mut self) -> Vec<u8> {
            self.literal(0, 32);
            self.written
        }
    }

    /// Makes a frame whose header has everything that can be there, and 2^`log2` partitions of
    /// these sizes.
    fn frame(size: Option<(u16, u16)>, log2: u32, sizes: &[u32], rest: usize) -> Vec<u8> {
        let mut bits = BoolEncoder::new();
        if size.is_some() {
            bits.literal(0b00, 2);
        }
        // The segmentation has both updates, with some values left out.
        bits.literal(0b1111, 4);
        for (present, value, count) in [(1, 0x55, 8), (0, 0, 0), (1, 0x80, 8), (0, 0, 0), (1, 0x2a, 7), (0, 0, 0), (0, 0, 0), (1, 1, 7)] {
            bits.literal(present, 1);
            bits.literal(value, count);
        }
        for (present, value, count) in [(1, 200, 8), (0, 0, 0), (1, 3, 8)] {
            bits.literal(present, 1);
            bits.literal(value, count);
        }
        bits.literal(0b10_1010_1011, 10);
        bits.literal(0b11, 2);
        for index in 0..8 {
            bits.literal(index % 2, 1);
            bits.literal(0x33, if index % 2 == 1 { 7 } else { 0 });
        }
        bits.literal(log2, 2);
        let first = bits.finished();
        let tag = u32::from(size.is_none()) | 1 << 4 | (first.len() as u32) << 5;
        let mut frame = tag.to_le_bytes()[..3].to_vec();
        if let Some((width, height)) = size {
            frame.extend(START_CODE);
            frame.extend([width.to_le_bytes(), height.to_le_bytes()].concat());
        }
        frame.extend(first);
        sizes.iter().for_each(|size| frame.extend(&size.to_le_bytes()[..3]));
        frame.extend(vec![0x5a; rest]);
        frame
    }

    fn why(data: &[u8], limits: &Limits) -> String {
        check(data, limits).unwrap_err().to_string()
    }

    #[test]
    fn partitions_end_within_the_frame() {
        let limits = Limits::default();
        for (log2, sizes) in [(0, vec![]), (1, vec![7]), (2, vec![7, 0, 9]), (3, vec![1; 7])] {
            let all = sizes.iter().sum::<u32>() as usize;
            for size in [Some((320, 240)), None] {
                let expected = size.map(|(width, height)| Size::new(width.into(), height.into()));
                assert_eq!(check(&frame(size, log2, &sizes, all + 5), &limits), Ok(expected));
                assert_eq!(check(&frame(size, log2, &sizes, all), &limits), Ok(expected));
                if all > 0 {
                    assert!(why(&frame(size, log2, &sizes, all - 1), &limits).contains("a partition is longer than the frame"));
                }
            }
        }
        assert!(why(&frame(None, 3, &[1, 1], 0), &limits).contains("cut short"));
    }

    #[test]
    fn first_partition_ends_within_the_frame() {
        let limits = Limits::default();
        let mut short = frame(Some((320, 240)), 0, &[], 0);
        short.pop();
        assert!(why(&short, &limits).contains("first partition"));
        let mut empty = frame(None, 0, &[], 40);
        empty[0] &= 0x1f;
        (empty[1], empty[2]) = (0, 0);
        assert!(why(&empty, &limits).contains("first partition"));
        for length in 0..3 {
            assert!(why(&frame(None, 0, &[], 0)[..length.max(1)], &limits).contains("cut short"));
        }
        assert!(why(&frame(Some((320, 240)), 0, &[], 0)[..9], &limits).contains("cut short"));
    }

    #[test]
    fn size_is_held_against_the_limit_without_its_scaling_bits() {
        let limits = Limits { pixels: 320 * 240, ..Limits::default() };
        let scaled = frame(Some((320 | 0x4000, 240 | 0xc000)), 0, &[], 9);
        assert_eq!(check(&scaled, &limits), Ok(Some(Size::new(320, 240))));
        for (width, height) in [(321, 240), (0, 240), (320, 0), (16_383, 16_383), (4_097, 1)] {
            let size = Undecodable::Size { width: width.into(), height: height.into() };
            assert_eq!(check(&frame(Some((width, height)), 0, &[], 9), &limits), Err(size));
        }
    }

    #[test]
    fn start_code_and_version_must_be_there() {
        let limits = Limits::default();
        let mut other = frame(Some((320, 240)), 0, &[], 9);
        other[4] = 2;
        assert!(why(&other, &limits).contains("start code"));
        let mut newer = frame(None, 0, &[], 9);
        newer[0] |= 4 << 1;
        assert!(why(&newer, &limits).contains("version"));
    }
}
