//! Prints the encoding and decoding time of one thread in ms per frame: `cargo run --release -p
//! ooblex-codec --example speed`.
//!
//! The pictures are a moving texture with noise, at 1 Mbit/s for 640x480 and in proportion for
//! other sizes. The figures are medians over all frames except the first ten; read them as ratios.
//! The second table is for 640x480 when only every sixth frame is encoded: with the full bitrate,
//! and with a quarter of it, which gives each frame one and a half times the bits that it has when
//! all are encoded.

use std::error::Error;
use std::time::Instant;

use ooblex_codec::{Decoder, Encoder, EncoderConfig, Limits, Speed, h264_is_accelerated};
use ooblex_pipeline::{I420, MediaTime, VideoCodec};

const FRAMES: u64 = 120;
const WARM_UP: u64 = 10;
const CODECS: [(&str, VideoCodec, Speed); 4] = [
    ("VP8 balanced (-8)", VideoCodec::Vp8, Speed::Balanced),
    ("VP8 fast (-12)", VideoCodec::Vp8, Speed::Fast),
    ("H.264 balanced", VideoCodec::H264, Speed::Balanced),
    ("H.264 fast (background detection)", VideoCodec::H264, Speed::Fast),
];

fn main() -> Result<(), Box<dyn Error>> {
    if !h264_is_accelerated() {
        println!("openh264 was built without its assembler: its figures are three times what they should be");
    }
    println!("| encode / decode, ms a frame (kb/s, dB) | 640x360 | 640x480 | 1280x720 |\n|---|---|---|---|");
    for (name, codec, speed) in CODECS {
        print!("| {name} |");
        for (width, height) in [(640, 360), (640, 480), (1280, 720)] {
            print!(" {} |", measure(codec, speed, width, height, 1e6, 1)?);
        }
        println!();
    }
    println!(
        "\n| encode / decode, ms a frame (kb/s, dB) | all frames, 2.3 Mb/s | each sixth, 2.3 Mb/s | each sixth, 575 kb/s |\n|---|---|---|---|"
    );
    for (name, codec, speed) in CODECS {
        print!("| {name} |");
        for (bps, every) in [(2.3e6, 1), (2.3e6, 6), (2.3e6 / 4.0, 6)] {
            print!(" {} |", measure(codec, speed, 640, 480, bps, every)?);
        }
        println!();
    }
    Ok(())
}

/// Measures a codec. `bps` is the bitrate in bit/s for 640x480. Only each `every`th frame of a
/// camera is encoded.
fn measure(codec: VideoCodec, speed: Speed, width: u32, height: u32, bps: f64, every: u64) -> Result<String, Box<dyn Error>> {
    let bitrate_bps = (f64::from(width * height) / (640.0 * 480.0) * bps) as u32;
    let mut encoder = Encoder::new(EncoderConfig { codec, bitrate_bps, frame_rate: 30.0 / every as f32, speed })?;
    let mut decoder = Decoder::new(codec, Limits::default())?;
    let (mut encode_ms, mut decode_ms, mut bytes, mut squares) = (Vec::new(), Vec::new(), 0, 0.0);
    for number in 0..FRAMES {
        let picture = scene(width, height, number * every);
        let start = Instant::now();
        let frame = encoder.encode(&picture, MediaTime(number * every * 3_000), false)?.ok_or("a picture was dropped")?;
        let encoded = Instant::now();
        let decoded = decoder.decode(&frame.data)?.ok_or("no picture came out")?;
        let end = Instant::now();
        if number >= WARM_UP {
            encode_ms.push((encoded - start).as_secs_f64() * 1e3);
            decode_ms.push((end - encoded).as_secs_f64() * 1e3);
            bytes += frame.data.len();
            squares += squared_error(&picture, &decoded);
        }
    }
    let seconds = ((FRAMES - WARM_UP) * every) as f64 / 30.0;
    let psnr = 10.0 * (255.0f64.powi(2) / (squares / (FRAMES - WARM_UP) as f64)).log10();
    let kbps = bytes as f64 * 8.0 / seconds / 1e3;
    Ok(format!("{:.1} / {:.2} ({kbps:.0}, {psnr:.1})", median(encode_ms), median(decode_ms)))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Returns the mean squared error of the luma planes.
fn squared_error(a: &I420, b: &I420) -> f64 {
    let squares: f64 = a.planes()[0].iter().zip(b.planes()[0]).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    squares / a.planes()[0].len() as f64
}

/// Draws a moving texture with noise like that of a camera.
fn scene(width: u32, height: u32, number: u64) -> I420 {
    let mut picture = I420::grey(width, height, 128);
    let shift = number as f32 * 1.5;
    let mut noise = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for (index, plane) in picture.planes_mut().into_iter().enumerate() {
        let scale = if index == 0 { 1 } else { 2 };
        let columns = width.div_ceil(scale);
        for (at, pixel) in plane.iter_mut().enumerate() {
            let x = (at as u32 % columns * scale) as f32;
            let y = (at as u32 / columns * scale) as f32;
            let texture = ((x + shift) * 0.05).sin() * 35.0 + ((y + shift * 0.5) * 0.08).cos() * 25.0 + ((x - y) * 0.23).sin() * 8.0;
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            *pixel = (125.0 + texture + (noise % 5) as f32) as u8;
        }
    }
    picture
}
