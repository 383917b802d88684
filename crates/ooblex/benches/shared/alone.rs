//! Cost of the work alone: decode, prepare, model, compose and encode of sessions' frames, without
//! a gateway.

#![allow(dead_code, unreachable_pub, reason = "each benchmark uses a part of it")]

use std::sync::Barrier;
use std::time::{Duration, Instant};

use ooblex_codec::{Decoder, Encoder, EncoderConfig, Limits, Speed};
use ooblex_effects::{ModelStore, Models, Parameters, Runtime, effects, load_models};
use ooblex_pipeline::{EncodedFrame, I420, MediaTime, VideoCodec};
use serde_json::Value;

use crate::common::scene;

/// Frame rate of a camera, in frames per second.
pub const FPS: u64 = 30;
/// Number of stages: decode, prepare, model, compose and encode.
const STAGES: usize = 5;

/// Returns the pictures of [`clip`], one per frame, in which the camera pans back and forth.
pub fn pictures(width: u32, height: u32) -> Vec<I420> {
    let scenes: Vec<_> = (0..8).map(|step| scene(width, height, step)).collect();
    (0..8).chain((1..7).rev()).map(|step| scenes[step].clone()).collect()
}

/// Encodes half a minute of [`pictures`]. The clip begins with a keyframe, so it can be repeated.
pub fn clip(width: u32, height: u32, codec: VideoCodec) -> Vec<EncodedFrame> {
    let config = EncoderConfig { codec, bitrate_bps: 2_500_000, frame_rate: FPS as f32, speed: Speed::Balanced };
    let mut encoder = Encoder::new(config).expect("the codec starts");
    let pictures = pictures(width, height);
    let mut encode = |(n, picture): (u64, &I420)| encoder.encode(picture, MediaTime(n * 90_000 / FPS), false);
    let frames = (0..30 * FPS).zip(pictures.iter().cycle()).map(|frame| encode(frame).expect("a picture is encoded"));
    frames.map(|frame| frame.expect("none is left out")).collect()
}

/// Number and rate of the streams to process.
#[derive(Clone, Copy)]
pub struct Load {
    /// Number of streams. Each has its own decoder, painter and encoder. They take turns on at most
    /// one thread per core, and each thread has its own models, so that caches are as cold as this
    /// number of streams makes them.
    pub streams: u64,
    /// Number of cameras whose combined frame rate all streams together have as a limit.
    pub cameras: u64,
}

impl Load {
    /// One stream on one thread, at the combined rate of `cameras` cameras.
    pub fn one(cameras: u64) -> Self {
        Self { streams: 1, cameras }
    }

    /// One stream per session, at the rate of its camera, as in a gateway.
    pub fn all(sessions: u64) -> Self {
        Self { streams: sessions.max(1), cameras: sessions.max(1) }
    }
}

/// Runs decode, prepare, model, compose and encode without packets, queues or threads that wait for
/// each other. Returns the time of each stage and the CPU time of all stages, in ms per frame.
pub fn alone(clip: &[EncodedFrame], effect: &str, params: &Value, bitrate_bps: u32, load: Load) -> (Vec<f64>, f64) {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let threads = load.streams.clamp(1, cores);
    let start = Barrier::new(threads as usize);
    let of = |thread: u64| (load.streams + thread) / threads;
    let pace = (FPS * load.cameras) as f64 / load.streams as f64;
    let (stages, cpu, frames) = std::thread::scope(|scope| {
        let start = &start;
        let run = |thread| scope.spawn(move || work(clip, effect, params, bitrate_bps, (of(thread), pace), start));
        let running: Vec<_> = (0..threads).map(run).collect();
        let mut sums = ([Duration::ZERO; STAGES], 0.0, 0);
        for thread in running {
            let (stages, cpu, frames) = thread.join().expect("the work is done");
            sums.0.iter_mut().zip(stages).for_each(|(sum, stage)| *sum += stage);
            sums.1 += cpu;
            sums.2 += frames;
        }
        sums
    });
    let each = |seconds: f64| seconds * 1e3 / frames as f64;
    (stages.iter().map(|sum| each(sum.as_secs_f64())).collect(), each(cpu))
}

/// Runs the streams of one thread, each at `pace` frames per second. Returns the time of each
/// stage, the CPU time in seconds, and the number of frames.
fn work(
    clip: &[EncodedFrame],
    effect: &str,
    params: &Value,
    bitrate_bps: u32,
    (streams, pace): (u64, f64),
    start: &Barrier,
) -> ([Duration; STAGES], f64, usize) {
    const WARM_UP_ROUNDS: usize = 30;
    const ROUNDS: usize = 120;
    let effect = effects().into_iter().find(|known| known.name().as_str() == effect).expect("the effect exists");
    let parameters = Parameters::parse(effect.parameters(), params).expect("the parameters are right");
    let mut models = all_models();
    let codec = clip[0].codec;
    let config = EncoderConfig { codec, bitrate_bps, frame_rate: FPS as f32, speed: Speed::Balanced };
    let decoder = || Decoder::new(codec, Limits::default()).expect("the codec starts");
    let stream = |_| (decoder(), effect.painter(), Encoder::new(config).expect("the codec starts"));
    let mut each: Vec<_> = (0..streams).map(stream).collect();
    let mut stages = [Duration::ZERO; STAGES];
    let mut cpu_before = 0.0;
    start.wait();
    let started = Instant::now();
    for (round, frame) in clip.iter().take(WARM_UP_ROUNDS + ROUNDS).enumerate() {
        if round == WARM_UP_ROUNDS {
            cpu_before = thread_cpu();
        }
        for (turn, (decoder, painter, encoder)) in each.iter_mut().enumerate() {
            let mut times = vec![Instant::now()];
            let mut picture = decoder.decode(&frame.data).expect("the clip is sound").expect("every frame has a picture");
            times.push(Instant::now());
            let input = (!effect.models().is_empty()).then(|| painter.prepare(&picture, &parameters));
            times.push(Instant::now());
            let analysis = input.map(|input| effect.analyse(&mut models, &input).expect("the model runs"));
            times.push(Instant::now());
            painter.compose(&mut picture, analysis.as_ref(), &parameters).expect("the analysis fits");
            times.push(Instant::now());
            encoder.encode(&picture, frame.capture, false).expect("the picture is encoded");
            times.push(Instant::now());
            if round >= WARM_UP_ROUNDS {
                stages.iter_mut().zip(times.windows(2)).for_each(|(sum, time)| *sum += time[1] - time[0]);
            }
            let done = round as u64 * streams + turn as u64 + 1;
            let next = started + Duration::from_secs_f64(done as f64 / (pace * streams as f64));
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }
    (stages, thread_cpu() - cpu_before, ROUNDS * each.len())
}

/// Loads the models of all effects.
pub fn all_models() -> Models {
    let runtime = Runtime::load(None, None).expect("a backend is there");
    load_models(&runtime, &ModelStore::embedded(), &effects()).expect("the models load")
}

/// Returns the CPU time of this thread in seconds. Linux updates it when the thread has slept, not
/// continuously.
fn thread_cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).expect("nanoseconds come first") / 1e9
}
