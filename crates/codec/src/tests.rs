//! Tests of both codecs through the public interface.

use ooblex_pipeline::{EncodedFrame, I420, MediaTime, Pool, Size, VideoCodec};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const BOTH: [VideoCodec; 2] = [VideoCodec::Vp8, VideoCodec::H264];
/// Interval of pictures at 30 Hz, in 90 kHz ticks.
const STEP: u64 = 3_000;

/// Draws a textured picture that moves to the left and up, with a disc that moves against it.
fn scene(width: u32, height: u32, number: u64) -> I420 {
    let mut picture = I420::grey(width, height, 128);
    let shift = number as f32 * 1.5;
    for (index, plane) in picture.planes_mut().into_iter().enumerate() {
        let scale = if index == 0 { 1 } else { 2 };
        let columns = width.div_ceil(scale);
        for (at, pixel) in plane.iter_mut().enumerate() {
            let x = (at as u32 % columns * scale) as f32;
            let y = (at as u32 / columns * scale) as f32;
            let (u, v) = (x + shift, y + shift * 0.5);
            let texture = (u * 0.07).sin() * 30.0 + (v * 0.11).cos() * 25.0 + ((u + v) * 0.31).sin() * 12.0;
            let in_disc = (x - 150.0 + shift).hypot(y - 120.0) < 60.0;
            *pixel = match (index, in_disc) {
                (0, true) => 200.0 + texture * 0.2,
                (0, false) => 120.0 + texture,
                (1, _) => 128.0 + texture * 0.5,
                (_, true) => 170.0,
                (_, false) => 110.0 + texture * 0.3,
            } as u8;
        }
    }
    picture
}

/// Returns the peak signal-to-noise ratio of the luma planes in dB, over the columns and rows that
/// both have.
fn psnr(a: &I420, b: &I420) -> f64 {
    let (columns, rows) = (a.width().min(b.width()) as usize, a.height().min(b.height()) as usize);
    let rows_of = |picture: &I420| {
        let stride = picture.width() as usize;
        picture.planes()[0].chunks(stride).take(rows).flat_map(|row| row[..columns].to_vec()).collect::<Vec<_>>()
    };
    let squares: f64 = rows_of(a).iter().zip(rows_of(b)).map(|(a, b)| (f64::from(*a) - f64::from(b)).powi(2)).sum();
    10.0 * (255.0f64.powi(2) / (squares / (columns * rows) as f64).max(1e-9)).log10()
}

fn encoder(codec: VideoCodec, bitrate_bps: u32) -> Encoder {
    Encoder::new(EncoderConfig { codec, bitrate_bps, frame_rate: 30.0, speed: Speed::Balanced }).unwrap()
}

fn encode(encoder: &mut Encoder, picture: &I420, number: u64, force_keyframe: bool) -> EncodedFrame {
    encoder.encode(picture, MediaTime(number * STEP), force_keyframe).unwrap().expect("no picture is dropped")
}

/// Encodes `count` frames of the scene, the first one as a keyframe.
fn clip(codec: VideoCodec, width: u32, height: u32, count: u64) -> Vec<EncodedFrame> {
    let mut encoder = encoder(codec, 1_000_000);
    (0..count).map(|number| encode(&mut encoder, &scene(width, height, number), number, false)).collect()
}

#[test]
fn a_scene_comes_out_the_same_from_both_ranges() {
    let limited = scene(320, 240, 0);
    let mut full = limited.clone();
    for (plane, range) in full.planes_mut().into_iter().zip([219.0, 224.0, 224.0]) {
        let black = if range == 219.0 { 16.0 } else { 128.0 };
        let zero = if range == 219.0 { 0.0 } else { 128.0 };
        plane.iter_mut().for_each(|level| *level = ((f64::from(*level) - black) * 255.0 / range + zero).round() as u8);
    }
    let colours = ColourSpace { range: ColourRange::Full, matrix: ColourMatrix::Bt601 };
    for codec in BOTH {
        let mut decoder = Decoder::new(codec, Limits::default()).unwrap();
        // The encoder for H.264 names limited range in the bitstream, and what is named beside it
        // counts more.
        decoder.set_colours(Some(colours));
        let data = encode(&mut encoder(codec, 8_000_000), &full, 0, true).data;
        let decoded = decoder.decode(&data).unwrap().unwrap();
        assert!(psnr(&decoded, &limited) > 38.0, "{codec:?}: {} dB", psnr(&decoded, &limited));
        decoder.set_colours(None);
        let wrong = decoder.decode(&data).unwrap().unwrap();
        assert!(psnr(&wrong, &limited) < 34.0, "{codec:?}: {} dB", psnr(&wrong, &limited));
    }
}

#[test]
fn pictures_survive_the_round_trip() {
    for (codec, width, height) in [
        (VideoCodec::Vp8, 640, 480),
        (VideoCodec::Vp8, 641, 481),
        (VideoCodec::Vp8, 360, 640),
        (VideoCodec::Vp8, 1, 1),
        (VideoCodec::Vp8, 5, 300),
        (VideoCodec::H264, 640, 480),
        (VideoCodec::H264, 641, 481),
        (VideoCodec::H264, 360, 640),
        (VideoCodec::H264, 16, 17),
        (VideoCodec::H264, 1920, 1080),
    ] {
        let bitrate = 2_000_000.max(width * height * 2);
        let (mut encoder, mut decoder) = (encoder(codec, bitrate), Decoder::new(codec, Limits::default()).unwrap());
        let mut worst = f64::MAX;
        for number in 0..12 {
            let picture = scene(width, height, number);
            let frame = encode(&mut encoder, &picture, number, false);
            assert_eq!((frame.codec, frame.capture, frame.keyframe), (codec, MediaTime(number * STEP), number == 0));
            assert_eq!(is_keyframe(codec, &frame.data), frame.keyframe);
            let decoded = decoder.decode(&frame.data).unwrap().expect("a picture comes out of the same call");
            let even = if codec == VideoCodec::H264 { 2 } else { 1 };
            assert_eq!((decoded.width(), decoded.height()), (width.next_multiple_of(even), height.next_multiple_of(even)));
            assert_eq!(keyframe_size(codec, &frame.data), frame.keyframe.then(|| Size::new(decoded.width(), decoded.height())));
            worst = worst.min(psnr(&picture, &decoded));
        }
        println!("{} {width}x{height}: {worst:.1} dB", codec.label());
        assert!(worst > 32.0, "{} {width}x{height}: {worst} dB", codec.label());
    }
}

/// Fills the memory in the pool with bytes of 255, as if earlier pictures had left them there.
fn soil(pool: &Pool, width: u32, height: u32) {
    let mut pictures: Vec<_> = (0..Pool::KEPT).map(|_| pool.picture(width, height)).collect();
    pictures.iter_mut().flat_map(I420::planes_mut).for_each(|plane| plane.fill(255));
}

#[test]
fn nothing_of_earlier_pictures_is_left_in_their_memory() {
    for codec in BOTH {
        for (width, height) in [(64, 48), (66, 50), (65, 49), (17, 33), (640, 360), (48, 64)] {
            // The decoder whose pictures are kept never reuses memory. The other one reuses memory
            // that is soiled.
            let (mut keeping, mut reusing) =
                (Decoder::new(codec, Limits::default()).unwrap(), Decoder::new(codec, Limits::default()).unwrap());
            let mut kept = Vec::new();
            for frame in clip(codec, width, height, 4) {
                let clean = keeping.decode(&frame.data).unwrap().unwrap();
                soil(reusing.pool(), clean.width(), clean.height());
                let reused = reusing.decode(&frame.data).unwrap().unwrap();
                assert!(reused == clean, "{} {width}x{height}", codec.label());
                for rotation in [Rotation::By90, Rotation::By180, Rotation::By270] {
                    // The rotated picture has the same number of bytes, so it reuses this memory.
                    soil(reusing.pool(), clean.width(), clean.height());
                    let turned = rotate(reused.clone(), rotation);
                    assert!(turned == rotate(unpooled_copy(&clean), rotation), "{} {width}x{height} {rotation:?}", codec.label());
                }
                kept.push(clean);
            }
        }
    }
}

/// Returns a copy in memory that belongs to no pool.
fn unpooled_copy(picture: &I420) -> I420 {
    let mut copy = I420::grey(picture.width(), picture.height(), 16);
    copy.planes_mut().into_iter().zip(picture.planes()).for_each(|(target, source)| target.copy_from_slice(source));
    copy
}

#[test]
fn fast_stays_within_a_few_db() {
    for codec in BOTH {
        let [balanced, fast] = [Speed::Balanced, Speed::Fast].map(|speed| {
            let config = EncoderConfig { codec, bitrate_bps: 600_000, frame_rate: 30.0, speed };
            let (mut encoder, mut decoder) = (Encoder::new(config).unwrap(), Decoder::new(codec, Limits::default()).unwrap());
            let quality = (0..30).map(|number| {
                let picture = scene(640, 480, number);
                let frame = encode(&mut encoder, &picture, number, false);
                psnr(&picture, &decoder.decode(&frame.data).unwrap().unwrap())
            });
            quality.sum::<f64>() / 30.0
        });
        println!("{}: balanced {balanced:.1} dB, fast {fast:.1} dB", codec.label());
        assert!(fast > balanced - 2.5, "{}: balanced {balanced} dB, fast {fast} dB", codec.label());
    }
}

#[test]
fn keyframes_come_only_when_asked_for() {
    for codec in BOTH {
        let mut encoder = encoder(codec, 800_000);
        for number in 0..90 {
            // A scene cut is no reason for a keyframe.
            let picture = if number == 45 { I420::grey(320, 240, 40) } else { scene(320, 240, number) };
            let asked = number == 20 || number == 21 || number == 60;
            let frame = encode(&mut encoder, &picture, number, asked);
            assert_eq!(frame.keyframe, asked || number == 0, "{} frame {number}", codec.label());
        }
    }
}

#[test]
fn changed_size_starts_with_a_keyframe() {
    for codec in BOTH {
        let (mut encoder, mut decoder) = (encoder(codec, 1_000_000), Decoder::new(codec, Limits::default()).unwrap());
        let sizes = [(640, 480), (640, 480), (320, 240), (320, 240), (480, 640), (1280, 720), (640, 480)];
        for (number, (width, height)) in sizes.into_iter().enumerate() {
            let frame = encode(&mut encoder, &scene(width, height, number as u64), number as u64, false);
            assert_eq!(frame.keyframe, number == 0 || sizes[number - 1] != sizes[number], "{} frame {number}", codec.label());
            let decoded = decoder.decode(&frame.data).unwrap().unwrap();
            assert_eq!((decoded.width(), decoded.height()), (width, height), "{}", codec.label());
        }
    }
}

#[test]
fn bitrate_follows_what_is_set_without_a_keyframe() {
    for codec in BOTH {
        let mut encoder = encoder(codec, 1_200_000);
        let mut bytes = [0, 0, 0];
        for number in 0..270 {
            let part = number / 90;
            encoder.set_bitrate([1_200_000, 300_000, 1_200_000][part as usize]);
            let mut picture = scene(640, 480, number);
            let mut noise = StdRng::seed_from_u64(number);
            picture.planes_mut()[0].iter_mut().for_each(|pixel| *pixel = pixel.saturating_add(noise.random_range(0..8)));
            let frame = encode(&mut encoder, &picture, number, false);
            assert_eq!(frame.keyframe, number == 0, "{} frame {number}", codec.label());
            // The first second after a change is not counted: the rate control needs time to adapt.
            if number % 90 >= 30 {
                bytes[part as usize] += frame.data.len();
            }
        }
        let kbps = bytes.map(|bytes| bytes * 8 / 2_000);
        println!("{}: {kbps:?} kb/s for 1200, 300, 1200", codec.label());
        assert!(bytes[0] as f64 / bytes[1] as f64 > 2.5 && bytes[2] as f64 / bytes[1] as f64 > 2.5, "{}: {kbps:?} kb/s", codec.label());
        assert!((600..1_800).contains(&kbps[0]), "{}: {kbps:?} kb/s", codec.label());
    }
}

#[test]
fn bitrate_is_used_up_when_pictures_come_slower_than_expected() {
    for codec in BOTH {
        let rate_at = |step: u64| {
            let mut encoder = encoder(codec, 400_000);
            let mut bytes = 0;
            for number in 0..60 {
                let mut picture = scene(640, 480, number);
                let mut noise = StdRng::seed_from_u64(number);
                picture.planes_mut()[0].iter_mut().for_each(|pixel| *pixel = pixel.saturating_add(noise.random_range(0..8)));
                let frame = encoder.encode(&picture, MediaTime(number * step), false).unwrap().unwrap();
                if number >= 30 {
                    bytes += frame.data.len();
                }
            }
            bytes as f64 * 8.0 / (30.0 * step as f64 / 90_000.0) / 1000.0
        };
        let (slow, fast) = (rate_at(9_000), rate_at(3_000));
        println!("{}: {slow:.0} kb/s at 10 Hz, {fast:.0} kb/s at 30 Hz", codec.label());
        assert!(slow > fast * 0.6, "{}: {slow} kb/s at 10 Hz, {fast} kb/s at 30 Hz", codec.label());
    }
}

#[test]
fn bitrate_holds_when_pictures_come_irregularly() {
    // Three of 13 frames are missing, as after losses and retransmissions.
    let came = (0..360_u64).filter(|number| ![3, 4, 11].contains(&(number % 13))).collect::<Vec<_>>();
    for codec in BOTH {
        let mut encoder = encoder(codec, 1_000_000);
        let mut bytes = 0;
        for number in &came {
            let mut picture = scene(640, 480, *number);
            let mut noise = StdRng::seed_from_u64(*number);
            picture.planes_mut()[0].iter_mut().for_each(|pixel| *pixel = pixel.saturating_add(noise.random_range(0..8)));
            let frame = encode(&mut encoder, &picture, *number, false);
            if *number >= 60 {
                bytes += frame.data.len();
            }
        }
        let kbps = bytes * 8 / 10_000;
        println!("{}: {kbps} kb/s for 1000", codec.label());
        assert!((850..1150).contains(&kbps), "{}: {kbps} kb/s", codec.label());
    }
}

#[test]
fn odd_capture_times_do_no_harm() {
    for codec in BOTH {
        let mut encoder = encoder(codec, 500_000);
        for capture in [0, 3_000, 3_000, 2_000, 90_000_000, u64::MAX, 0, 1, 5_000_000_000_000] {
            assert!(encoder.encode(&scene(320, 240, 0), MediaTime(capture), false).unwrap().is_some(), "{} at {capture}", codec.label());
        }
    }
}

#[test]
fn sizes_that_no_encoder_takes_are_errors_and_the_next_picture_works() {
    let mut encoder = encoder(VideoCodec::H264, 500_000);
    for (width, height) in [(8, 8), (640, 15), (4096, 4096)] {
        let error = encoder.encode(&I420::grey(width, height, 90), MediaTime(0), false).unwrap_err();
        assert!(matches!(error, EncodeError::Size { .. }), "{error}");
    }
    assert!(encode(&mut encoder, &scene(320, 240, 0), 1, false).keyframe);
}

#[test]
fn frame_rates_without_sense_are_refused() {
    for frame_rate in [0.0, -1.0, f32::NAN, f32::INFINITY, 1_000.0] {
        let config = EncoderConfig { codec: VideoCodec::Vp8, bitrate_bps: 0, frame_rate, speed: Speed::Balanced };
        assert!(matches!(Encoder::new(config), Err(CodecError::FrameRate(_))));
    }
}

#[test]
fn frames_before_the_first_keyframe_are_undecodable() {
    for codec in BOTH {
        let frames = clip(codec, 320, 240, 5);
        let mut decoder = Decoder::new(codec, Limits::default()).unwrap();
        for frame in &frames[1..] {
            let DecodeError::Undecodable { why, .. } = decoder.decode(&frame.data).unwrap_err();
            assert_eq!(why, Undecodable::AwaitsKeyframe);
        }
        for frame in &frames {
            assert!(decoder.decode(&frame.data).unwrap().is_some());
        }
    }
}

#[test]
fn lost_frames_make_it_wait_for_a_keyframe() {
    for codec in BOTH {
        let frames = clip(codec, 320, 240, 6);
        let mut decoder = Decoder::new(codec, Limits::default()).unwrap();
        assert!(decoder.decode(&frames[0].data).is_ok());
        decoder.frames_lost();
        assert!(decoder.decode(&frames[4].data).is_err());
        assert!(decoder.decode(&frames[0].data).unwrap().is_some());
        assert!(decoder.decode(&frames[1].data).unwrap().is_some());
    }
}

#[test]
fn lost_packets_make_it_wait_for_a_keyframe_unless_h264_shows_that_no_picture_is_missing() {
    for (codec, follows) in [(VideoCodec::Vp8, false), (VideoCodec::H264, true)] {
        let frames = clip(codec, 320, 240, 40);
        let mut decoder = Decoder::new(codec, Limits::default()).unwrap();
        assert!(decoder.decode(&frames[0].data).is_ok());
        decoder.packets_lost();
        assert_eq!(decoder.decode(&frames[1].data).is_ok(), follows, "{codec:?}: no frame is missing");
        for next in [3, 20, 39] {
            assert!(decoder.decode(&frames[0].data).is_ok());
            decoder.packets_lost();
            let DecodeError::Undecodable { why, .. } = decoder.decode(&frames[next].data).unwrap_err();
            assert_eq!(why, Undecodable::AwaitsKeyframe, "{codec:?}: frames are missing before {next}");
        }
    }
}

#[test]
fn h264_notices_a_missing_frame_by_itself() {
    let frames = clip(VideoCodec::H264, 320, 240, 6);
    let mut decoder = Decoder::new(VideoCodec::H264, Limits::default()).unwrap();
    assert!(decoder.decode(&frames[0].data).is_ok());
    assert!(decoder.decode(&frames[3].data).is_err());
}

#[test]
fn h264_keyframes_carry_their_parameter_sets_and_one_slice() {
    let mut encoder = encoder(VideoCodec::H264, 500_000);
    for number in 0..4 {
        let frame = encode(&mut encoder, &scene(640, 480, number), number, number == 2);
        let starts = frame.data.windows(4).filter(|window| window[..3] == [0, 0, 1]);
        let kinds: Vec<u8> = starts.map(|window| window[3] & 0x1f).collect();
        assert_eq!(kinds, if number % 2 == 0 { vec![7, 8, 5] } else { vec![1] });
        if number == 0 {
            let sps = frame.data.windows(4).position(|window| window == [0, 0, 1, 0x67]).unwrap() + 4;
            // The profile is constrained Baseline (the two topmost flags) and the level 3.1:
            // browsers negotiate them as 42e01f.
            assert_eq!((frame.data[sps], frame.data[sps + 1] & 0xc0, frame.data[sps + 2]), (66, 0xc0, 31));
        }
    }
}

#[test]
fn h264_parameter_sets_alone_are_no_error() {
    let frame = clip(VideoCodec::H264, 320, 240, 1).remove(0);
    let slice = frame.data.windows(4).position(|window| window == [0, 0, 1, 0x65]).unwrap() - 1;
    let mut decoder = Decoder::new(VideoCodec::H264, Limits::default()).unwrap();
    assert!(decoder.decode(&frame.data[..slice]).unwrap().is_none());
    assert!(decoder.decode(&frame.data[slice..]).unwrap().is_some());
}

#[test]
fn h264_uses_its_assembler() {
    let allowed = std::env::var("OOBLEX_ALLOW_SLOW_H264").is_ok_and(|value| value == "1");
    assert!(h264_is_accelerated() || allowed, "built without nasm: apt install nasm; cargo clean --release -p openh264-sys2");
}

#[test]
fn vp8_keyframe_of_absurd_size_is_refused_before_memory_is_taken() {
    let mut data = clip(VideoCodec::Vp8, 320, 240, 1).remove(0).data.to_vec();
    let mut decoder = Decoder::new(VideoCodec::Vp8, Limits::default()).unwrap();
    for (width, height) in [(16_383u16, 16_383u16), (4_097, 240), (0, 240), (320, 0)] {
        data[6..8].copy_from_slice(&width.to_le_bytes());
        data[8..10].copy_from_slice(&height.to_le_bytes());
        let DecodeError::Undecodable { why, .. } = decoder.decode(&data).unwrap_err();
        assert_eq!(why, Undecodable::Size { width: width.into(), height: height.into() });
    }
}

/// Makes bytes that may reach a decoder: a valid frame, or one that is emptied, cut, overwritten in
/// places, made up, or followed by another.
fn abuse(frames: &[EncodedFrame], random: &mut StdRng) -> Vec<u8> {
    let frame = |random: &mut StdRng| frames[random.random_range(0..frames.len())].data.to_vec();
    let mut data = frame(random);
    match random.random_range(0..6) {
        0 => data.clear(),
        1 => data.truncate(random.random_range(0..data.len())),
        2 => {
            for _ in 0..random.random_range(1..20) {
                let at = random.random_range(0..data.len());
                data[at] = random.random();
            }
        }
        3 => {
            // This damages the headers: the parameter sets, the slice header, the partition sizes.
            let at = random.random_range(0..data.len().min(48));
            data[at] ^= 1 << random.random_range(0..8);
        }
        4 => data = (0..random.random_range(1..2_000)).map(|_| random.random()).collect(),
        _ => data.extend(frame(random)),
    }
    data
}

#[test]
fn invalid_frames_never_panic_and_decoding_resumes_at_a_keyframe() {
    for codec in BOTH {
        let frames: Vec<_> = [clip(codec, 160, 128, 8), clip(codec, 320, 240, 8)].concat();
        let scenes = [(160, 128), (320, 240)].map(|(width, height)| (0..8).map(|number| scene(width, height, number)).collect::<Vec<_>>());
        let mut random = StdRng::seed_from_u64(7);
        let mut decoder = Decoder::new(codec, Limits::default()).unwrap();
        let (mut refused, mut taken) = (0, 0);
        for round in 0..400 {
            for _ in 0..random.random_range(1..12) {
                match decoder.decode(&abuse(&frames, &mut random)) {
                    Ok(_) => taken += 1,
                    Err(_) => refused += 1,
                }
            }
            let clip = round % 2;
            for number in 0..8 {
                let picture = decoder.decode(&frames[clip * 8 + number].data);
                let picture = picture.unwrap_or_else(|error| panic!("{} round {round} frame {number}: {error}", codec.label()));
                let picture = picture.expect("a picture");
                let quality = psnr(&picture, &scenes[clip][number]);
                assert!(quality > 28.0, "{} round {round} frame {number}: {quality} dB", codec.label());
            }
        }
        println!("{}: {refused} refused, {taken} taken", codec.label());
        assert!(refused > 500, "{}: {refused} refused, {taken} taken", codec.label());
    }
}

/// Flips each bit of the headers. Some leave openh264 in a state in which it refuses the next valid
/// keyframe.
#[test]
fn keyframe_decodes_after_any_flipped_bit_of_a_header() {
    for codec in BOTH {
        let frames = clip(codec, 160, 128, 4);
        let mut decoder = Decoder::new(codec, Limits::default()).unwrap();
        for (bit, frame) in (0..48 * 8).flat_map(|bit| frames.iter().map(move |frame| (bit, frame))) {
            assert!(decoder.decode(&frames[0].data).unwrap().is_some(), "{} after bit {}", codec.label(), bit);
            let mut flipped = frame.data.to_vec();
            if let Some(byte) = flipped.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
            let _ = decoder.decode(&flipped);
        }
    }
}

#[test]
fn codecs_move_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<Decoder>();
    is_send::<Encoder>();
}

#[test]
fn another_speed_is_taken_on_in_mid_stream() {
    for codec in BOTH {
        let (mut encoder, mut decoder) = (encoder(codec, 1_000_000), Decoder::new(codec, Limits::default()).unwrap());
        let keyframes: Vec<_> = (0..12)
            .filter(|number| {
                encoder.set_speed(if (4..8).contains(number) { Speed::Fast } else { Speed::Balanced });
                let frame = encode(&mut encoder, &scene(320, 240, *number), *number, false);
                let picture = decoder.decode(&frame.data).unwrap().expect("each frame is a picture");
                assert!(psnr(&picture, &scene(320, 240, *number)) > 28.0, "{codec:?}");
                frame.keyframe
            })
            .collect();
        let expected: &[u64] = if codec == VideoCodec::Vp8 { &[0] } else { &[0, 4, 8] };
        assert_eq!(keyframes, expected, "{codec:?}");
    }
}

/// Reads every pixel of a picture, so that a plane outside its memory would be read as well.
fn sum_of_pixels(picture: &I420) -> u64 {
    picture.planes().into_iter().flatten().map(|pixel| u64::from(*pixel)).sum()
}

#[test]
fn what_comes_out_of_mutated_streams_is_within_the_limits() {
    let limits = Limits { pixels: 320 * 240, ..Limits::default() };
    for codec in BOTH {
        let frames: Vec<_> = [clip(codec, 160, 128, 6), clip(codec, 320, 240, 6), clip(codec, 322, 240, 2)].concat();
        let mut random = StdRng::seed_from_u64(11);
        let mut decoder = Decoder::new(codec, limits).unwrap();
        let (mut pictures, mut reasons) = (0, std::collections::BTreeMap::new());
        for round in 0..6_000 {
            // The frames come in the order of the stream, with damage in places, most of it in
            // headers.
            let mut data = frames[round % frames.len()].data.to_vec();
            for _ in 0..random.random_range(0..4) {
                let within = if random.random_ratio(3, 4) { data.len().min(40) } else { data.len() };
                let at = random.random_range(0..within);
                match random.random_range(0..4) {
                    0 => data[at] ^= 1 << random.random_range(0..8),
                    1 => data[at] = random.random(),
                    2 => drop(data.remove(at)),
                    _ => data.insert(at, [0, 0, 1, 3, 0x67, 0xff][random.random_range(0..6)]),
                }
                if data.is_empty() {
                    break;
                }
            }
            match decoder.decode(&data) {
                Ok(Some(picture)) => {
                    assert!(u64::from(picture.width()) * u64::from(picture.height()) <= limits.pixels);
                    std::hint::black_box(sum_of_pixels(&picture));
                    pictures += 1;
                }
                Ok(None) => {}
                Err(DecodeError::Undecodable { why, .. }) => {
                    assert!(Undecodable::LABELS.contains(&why.label()));
                    *reasons.entry(why.label()).or_insert(0) += 1;
                }
            }
        }
        println!("{}: {pictures} pictures, {reasons:?}", codec.label());
        assert!(pictures > 300 && reasons["size"] > 100, "{}: {pictures} pictures, {reasons:?}", codec.label());
    }
}

#[test]
fn h264_parameter_sets_of_another_size_may_come_before_their_keyframe() {
    let (small, large) = (clip(VideoCodec::H264, 160, 128, 3), clip(VideoCodec::H264, 320, 240, 3));
    let slice_of = |frame: &EncodedFrame| frame.data.windows(4).position(|window| window == [0, 0, 1, 0x65]).unwrap() - 1;
    let mut decoder = Decoder::new(VideoCodec::H264, Limits::default()).unwrap();
    for (frames, size) in [(&small, (160, 128)), (&large, (320, 240)), (&small, (160, 128))] {
        let slice = slice_of(&frames[0]);
        assert!(decoder.decode(&frames[0].data[..slice]).unwrap().is_none());
        for data in [&frames[0].data[slice..], &frames[1].data, &frames[2].data] {
            let picture = decoder.decode(data).unwrap().unwrap();
            assert_eq!((picture.width(), picture.height()), size);
        }
    }
}

#[test]
fn pictures_larger_than_the_limit_are_refused_and_smaller_ones_go_on() {
    for codec in BOTH {
        let limits = Limits { pixels: 320 * 240, ..Limits::default() };
        let mut decoder = Decoder::new(codec, limits).unwrap();
        let (fits, does_not) = (clip(codec, 320, 240, 2), clip(codec, 320, 242, 1));
        assert!(decoder.decode(&fits[0].data).unwrap().is_some());
        let DecodeError::Undecodable { why, .. } = decoder.decode(&does_not[0].data).unwrap_err();
        assert_eq!(why, Undecodable::Size { width: 320, height: 242 });
        assert!(why.is_refusal());
        let DecodeError::Undecodable { why, .. } = decoder.decode(&fits[1].data).unwrap_err();
        assert_eq!((why.clone(), why.is_refusal()), (Undecodable::AwaitsKeyframe, false));
        assert!(decoder.decode(&fits[0].data).unwrap().is_some() && decoder.decode(&fits[1].data).unwrap().is_some());
    }
}
