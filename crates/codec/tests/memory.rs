//! Memory that a stream can make a decoder allocate. This is a single test, so that the process
//! does nothing else meanwhile.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use ooblex_codec::{Decoder, Encoder, EncoderConfig, Limits, Speed};
use ooblex_pipeline::{I420, MediaTime, VideoCodec};

/// Default of `limits.decode_kilopixels`, in pixels.
const PIXELS: u64 = 8_300_000;
const MIB: u64 = 1 << 20;

/// Returns the peak resident memory since the last call of [`forget_peak`], in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

fn forget_peak() {
    ooblex_codec::give_back_fragments();
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

fn clip(codec: VideoCodec, width: u32, height: u32) -> Vec<std::sync::Arc<[u8]>> {
    let config = EncoderConfig { codec, bitrate_bps: 4_000_000, frame_rate: 30.0, speed: Speed::Fast };
    let mut encoder = Encoder::new(config).unwrap();
    let picture = I420::grey(width, height, 90);
    (0..40).map(|number| encoder.encode(&picture, MediaTime(number * 3_000), false).unwrap().unwrap().data).collect()
}

/// Returns the keyframe with another level and number of references in its sequence parameters.
fn with_references(keyframe: &[u8], references: u32) -> Vec<u8> {
    let begin = keyframe.windows(4).position(|window| window == [0, 0, 1, 0x67]).unwrap() + 4;
    let end = begin + keyframe[begin..].windows(3).position(|window| window == [0, 0, 0]).unwrap();
    let bits: Vec<bool> = keyframe[begin..end].iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1)).collect();
    let mut at = 24;
    let mut unsigned = || {
        let zeros = bits[at..].iter().position(|bit| *bit).unwrap();
        at += 2 * zeros + 1;
        bits[at - zeros - 1..at].iter().fold(0, |value, bit| value << 1 | u32::from(*bit)) - 1
    };
    let (_id, _frame_num, order) = (unsigned(), unsigned(), unsigned());
    if order == 0 {
        unsigned();
    }
    let before = { at };
    let mut unsigned_after = || {
        let zeros = bits[at..].iter().position(|bit| *bit).unwrap();
        at += 2 * zeros + 1;
    };
    unsigned_after();
    let last = bits.iter().rposition(|bit| *bit).unwrap();
    let code = references + 1;
    let count = code.ilog2();
    let field = std::iter::repeat_n(false, count as usize).chain((0..=count).rev().map(|bit| code >> bit & 1 == 1));
    let changed: Vec<bool> = bits[..before].iter().copied().chain(field).chain(bits[at..=last].iter().copied()).collect();
    let mut bytes: Vec<u8> =
        changed.chunks(8).map(|bits| bits.iter().enumerate().fold(0, |byte, (at, bit)| byte | u8::from(*bit) << (7 - at))).collect();
    bytes[2] = 52;
    [&keyframe[..begin], &bytes, &keyframe[end..]].concat()
}

#[test]
fn memory_of_a_track_is_bounded() {
    ooblex_codec::give_back_freed_memory();
    let limits = Limits { pixels: PIXELS, ..Limits::default() };
    for (codec, most) in [(VideoCodec::Vp8, 160 * MIB), (VideoCodec::H264, 256 * MIB)] {
        let mut accepted = clip(codec, 3840, 2160);
        let mut refused = clip(codec, 4096, 2160);
        refused.truncate(1);
        if codec == VideoCodec::H264 {
            // Level 5.2 keeps at most five pictures of this size.
            accepted[0] = with_references(&accepted[0], 5).into();
            refused.push(with_references(&accepted[0], 6).into());
            refused.push(with_references(&accepted[0], 60_000).into());
        }
        forget_peak();
        let before = peak();
        let mut decoder = Decoder::new(codec, limits).unwrap();
        for frame in refused.iter().cycle().take(300) {
            assert!(decoder.decode(frame).is_err());
        }
        let of_refused = peak() - before;
        for frame in &accepted {
            assert!(decoder.decode(frame).unwrap().is_some());
        }
        let of_accepted = peak() - before;
        println!("{}: {} KiB for what is refused, {} MiB for 3840x2160", codec.label(), of_refused / 1024, of_accepted / MIB);
        // openh264 allocates some buffers at its start.
        assert!(of_refused < 12 * MIB, "{}: {} KiB for what is refused", codec.label(), of_refused / 1024);
        assert!(of_accepted < most, "{}: {} MiB for 3840x2160", codec.label(), of_accepted / MIB);
    }
}
