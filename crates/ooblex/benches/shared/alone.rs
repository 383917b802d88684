//! What the work itself costs: decode, prepare, model, compose and encode of one session's frames, with nothing around them.

#![allow(dead_code, unreachable_pub, reason = "each benchmark uses a part of it")]

use std::time::{Duration, Instant};

use ooblex_codec::{Decoder, Encoder, EncoderConfig, Speed};
use ooblex_effects::{ModelStore, Models, Parameters, Runtime, effects};
use ooblex_pipeline::{EncodedFrame, I420, MediaTime, VideoCodec};
use serde_json::Value;

use crate::common::scene;

/// Frames a second of a camera.
pub const FPS: u64 = 30;

/// The pictures of [`clip`], in their order, each for one frame: panned to and fro.
pub fn pictures(width: u32, height: u32) -> Vec<I420> {
    let scenes: Vec<_> = (0..8).map(|step| scene(width, height, step)).collect();
    (0..8).chain((1..7).rev()).map(|step| scenes[step].clone()).collect()
}

/// Half a minute of [`pictures`], compressed once. It begins with a keyframe, so it can be repeated.
pub fn clip(width: u32, height: u32, codec: VideoCodec) -> Vec<EncodedFrame> {
    let config = EncoderConfig { codec, bitrate_bps: 2_500_000, frame_rate: FPS as f32, speed: Speed::Balanced };
    let mut encoder = Encoder::new(config).expect("the codec starts");
    let pictures = pictures(width, height);
    let mut encode = |(n, picture): (u64, &I420)| encoder.encode(picture, MediaTime(n * 90_000 / FPS), false);
    let frames = (0..30 * FPS).zip(pictures.iter().cycle()).map(|frame| encode(frame).expect("a picture is encoded"));
    frames.map(|frame| frame.expect("none is left out")).collect()
}

/// Decode, prepare, model, compose and encode with nothing around them: milliseconds of each a frame, and CPU milliseconds of all.
///
/// It goes at the pace of `sessions` cameras, so that caches and clocks are as cold as in a gateway with so many.
pub fn alone(models: &mut Models, clip: &[EncodedFrame], effect: &str, params: &Value, bitrate_bps: u32, sessions: u64) -> (Vec<f64>, f64) {
    const WARM_UP_FRAMES: usize = 30;
    const FRAMES: usize = 120;
    let effect = effects().into_iter().find(|known| known.name().as_str() == effect).expect("the effect exists");
    let parameters = Parameters::parse(effect.parameters(), params).expect("the parameters are right");
    let codec = clip[0].codec;
    let mut decoder = Decoder::new(codec).expect("the codec starts");
    let config = EncoderConfig { codec, bitrate_bps, frame_rate: FPS as f32, speed: Speed::Balanced };
    let mut encoder = Encoder::new(config).expect("the codec starts");
    let mut painter = effect.painter();
    let mut stages = [Duration::ZERO; 5];
    let mut cpu_before = 0.0;
    let started = Instant::now();
    for (n, frame) in clip.iter().take(WARM_UP_FRAMES + FRAMES).enumerate() {
        if n == WARM_UP_FRAMES {
            cpu_before = thread_cpu();
        }
        let mut times = vec![Instant::now()];
        let mut picture = decoder.decode(&frame.data).expect("the clip is sound").expect("every frame has a picture");
        times.push(Instant::now());
        let input = (!effect.models().is_empty()).then(|| painter.prepare(&picture, &parameters));
        times.push(Instant::now());
        let analysis = input.map(|input| effect.analyse(models, &input).expect("the model runs"));
        times.push(Instant::now());
        painter.compose(&mut picture, analysis.as_ref(), &parameters).expect("the analysis fits");
        times.push(Instant::now());
        encoder.encode(&picture, frame.capture, false).expect("the picture is encoded");
        times.push(Instant::now());
        if n >= WARM_UP_FRAMES {
            stages.iter_mut().zip(times.windows(2)).for_each(|(sum, time)| *sum += time[1] - time[0]);
        }
        let next = started + Duration::from_micros(1_000_000 * (n as u64 + 1) / (FPS * sessions));
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let cpu = thread_cpu() - cpu_before;
    (stages.iter().map(|sum| sum.as_secs_f64() * 1e3 / FRAMES as f64).collect(), cpu * 1e3 / FRAMES as f64)
}

/// The models of all effects.
pub fn load_models() -> Models {
    let runtime = Runtime::load(None, None).expect("a backend is there");
    Models::load(&runtime, &ModelStore::embedded(), &effects()).expect("the models load")
}

/// Seconds of CPU that this thread has used; Linux adds up when the thread has slept, not at every moment.
fn thread_cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).expect("nanoseconds come first") / 1e9
}
