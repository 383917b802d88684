//! Shared parts of the broker and scaling benchmarks: real payloads, brokers under full load, and
//! CPU time of processes.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each benchmark uses a part of it, and fails by panicking")]

pub mod alone;

use std::collections::HashMap;
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use ooblex_broker::{Broker, Identity, Notice, RedisOptions, Service};
use ooblex_effects::{ModelStore, Parameters, Runtime, effects, load_models};
use ooblex_pipeline::{Analysis, EffectName, FrameSeq, Job, ModelInput, Outcome, TrackId};
use serde_json::json;

use crate::common::{RedisServer, picture};

/// Deadline of frames, long enough that none expires during a measurement.
const DEADLINE: Duration = Duration::from_secs(5);

/// Request and result of one frame of an effect.
pub struct Payload {
    pub effect: EffectName,
    pub input: ModelInput,
    pub analysis: Analysis,
}

impl Payload {
    /// Returns the sizes of the request and of the result in bytes, without headers.
    pub fn bytes(&self) -> (usize, usize) {
        let back = match &self.analysis {
            Analysis::Mask(mask) => mask.probability.len(),
            Analysis::Picture(picture) => picture.data.len(),
            Analysis::Faces(faces) => faces.len() * std::mem::size_of::<ooblex_pipeline::Face>(),
            Analysis::Things(things) => things.len() * std::mem::size_of::<ooblex_pipeline::Thing>(),
            Analysis::Meshes(meshes) => {
                meshes.len() * (std::mem::size_of::<ooblex_pipeline::Face>() + 12 * ooblex_pipeline::FaceMesh::POINTS)
            }
        };
        (self.input.picture.data.len() + 4 * self.input.arguments.len(), back)
    }
}

/// Returns the payload of each effect for the test picture of 640×480; style transfer runs at 216p.
pub fn payloads() -> Vec<Payload> {
    let effects: Vec<_> = effects().into_iter().filter(|effect| effect.needs_worker()).collect();
    let runtime = Runtime::load(None, None).expect("a backend is there");
    let mut models = load_models(&runtime, &ModelStore::embedded(), &effects).expect("the models load");
    effects
        .iter()
        .map(|effect| {
            let params = if effect.name().as_str() == "style_transfer" { json!({"resolution": "216p"}) } else { json!({}) };
            let parameters = Parameters::parse(effect.parameters(), &params).expect("the parameters are right");
            let input = effect.painter().prepare(picture(), &parameters);
            let analysis = effect.analyse(&mut models, &input).expect("the model runs");
            Payload { effect: effect.name(), input, analysis }
        })
        .collect()
}

/// Starts a Redis server; `None` if none is installed.
pub fn redis() -> Option<RedisServer> {
    let there = Command::new("redis-server").arg("--version").output().is_ok();
    if !there {
        println!("redis-server is not installed, so Redis is left out: tools/install-packages.sh test");
    }
    there.then(RedisServer::start)
}

/// Connects a broker to Redis, as one process does.
pub fn broker(redis: &RedisServer) -> Broker {
    let identity = Identity { host: "bench".into(), version: "0".into(), device: "cpu".into() };
    let url = redis.url().parse().expect("the address is right");
    Broker::redis(RedisOptions { url, prefix: "bench:".into(), ca_file: None, client_certificate: None, identity }).expect("Redis is there")
}

/// Worker threads that immediately return a precomputed result.
pub struct Hands {
    broker: Broker,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Hands {
    /// Starts `count` worker threads at this broker.
    pub fn start(broker: &Broker, count: usize, payload: &Payload) -> Self {
        let work = |broker: Broker, effect: EffectName, analysis: Analysis| {
            let seat = broker.join(&[effect]);
            while let Some(taken) = seat.take() {
                taken.complete(Ok(analysis.clone()));
            }
        };
        let start = |_| {
            let (broker, effect, analysis) = (broker.clone(), payload.effect.clone(), payload.analysis.clone());
            std::thread::spawn(move || work(broker, effect, analysis))
        };
        Self { broker: broker.clone(), threads: (0..count).map(start).collect() }
    }
}

impl Drop for Hands {
    fn drop(&mut self) {
        self.broker.close();
        self.threads.drain(..).for_each(|thread| thread.join().expect("a worker does not panic"));
    }
}

/// Result of a measurement under load.
pub struct Load {
    /// Number of analysed frames.
    pub frames: u64,
    /// Number of frames with any other outcome.
    pub lost: u64,
    pub seconds: f64,
    /// Times from submitting a frame to its result in ms, sorted.
    pub latencies_ms: Vec<f64>,
    /// CPU seconds of this process, and of Redis.
    pub cpu: (f64, f64),
}

impl Load {
    pub fn a_second(&self) -> f64 {
        self.frames as f64 / self.seconds
    }

    /// Returns the CPU time per frame in µs, of this process and of Redis.
    pub fn cpu_us(&self) -> (f64, f64) {
        let of = |seconds: f64| seconds * 1e6 / self.frames as f64;
        (of(self.cpu.0), of(self.cpu.1))
    }

    pub fn latency_ms(&self, quantile: f64) -> f64 {
        let last = self.latencies_ms.len() - 1;
        self.latencies_ms[(last as f64 * quantile).round() as usize]
    }
}

/// Submits frames of `tracks` tracks. With `fps` 0, the next frame of a track is submitted as soon
/// as the previous one has ended.
pub fn load(broker: &Broker, payload: &Payload, tracks: u64, fps: u32, time: Duration, redis: Option<u32>) -> Load {
    const WARM_UP: Duration = Duration::from_millis(500);
    let (ended, ends) = channel();
    for track in 1..=tracks {
        let ended = ended.clone();
        let sink = move |notice| {
            if let Notice::Completed(completion) = notice {
                _ = ended.send((Instant::now(), completion));
            }
        };
        broker.open_track(TrackId(track), Box::new(sink));
    }
    wait_for_service(broker, &payload.effect);
    let submit = |track: u64, seq: u64| {
        let (effect, input) = (payload.effect.clone(), payload.input.clone());
        let submitted = Instant::now();
        let deadline = submitted + DEADLINE;
        broker.submit(Job { track: TrackId(track), seq: FrameSeq(seq), effect, input, submitted, deadline });
        submitted
    };
    let cpu = || cpu(redis);
    let mut sent: HashMap<(u64, u64), Instant> = (1..=tracks).map(|track| ((track, 0), submit(track, 0))).collect();
    let started = Instant::now();
    let (mut from, mut counted_from) = (started + WARM_UP, None);
    let (mut frames, mut lost, mut latencies_ms, mut sequence) = (0, 0, Vec::new(), 0);
    loop {
        let now = Instant::now();
        if counted_from.is_none() && now >= from {
            from = now;
            counted_from = Some(cpu());
        }
        if counted_from.is_some() && now >= from + time {
            break;
        }
        let wakeup = if fps > 0 { started + Duration::from_secs(sequence + 1) / fps } else { now + Duration::from_millis(100) };
        if fps > 0 && now >= wakeup {
            sequence += 1;
            sent.extend((1..=tracks).map(|track| ((track, sequence), submit(track, sequence))));
            continue;
        }
        let Ok((at, completion)) = ends.recv_timeout(wakeup.saturating_duration_since(now)) else { continue };
        let (track, seq) = (completion.track.0, completion.seq.0);
        let analysed = matches!(completion.outcome, Outcome::Analysed { .. });
        let submitted = sent.remove(&(track, seq)).expect("it was handed in, and ends once");
        if counted_from.is_some() {
            frames += u64::from(analysed);
            lost += u64::from(!analysed);
            latencies_ms.push(at.saturating_duration_since(submitted).as_secs_f64() * 1e3);
        }
        if fps == 0 {
            sent.insert((track, seq + 1), submit(track, seq + 1));
        }
    }
    let (seconds, until) = (from.elapsed().as_secs_f64(), cpu());
    (1..=tracks).for_each(|track| broker.close_track(TrackId(track)));
    latencies_ms.sort_by(f64::total_cmp);
    let since = counted_from.expect("it was counted");
    Load { frames, lost, seconds, latencies_ms, cpu: (until.0 - since.0, until.1 - since.1) }
}

/// Measures the CPU seconds of this process and of Redis during a time without frames.
pub fn idle(broker: &Broker, payload: &Payload, time: Duration, redis: Option<u32>) -> (f64, f64) {
    broker.open_track(TrackId(1), Box::new(|_| {}));
    wait_for_service(broker, &payload.effect);
    let before = cpu(redis);
    std::thread::sleep(time);
    let after = cpu(redis);
    broker.close_track(TrackId(1));
    (after.0 - before.0, after.1 - before.1)
}

fn wait_for_service(broker: &Broker, effect: &EffectName) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while broker.service(effect) != Service::Served {
        assert!(Instant::now() < deadline, "the workers are not seen: {:?}", broker.health());
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Returns the CPU seconds of this process and of Redis.
fn cpu(redis: Option<u32>) -> (f64, f64) {
    (process_cpu(std::process::id()), redis.map_or(0.0, process_cpu))
}

/// Returns the CPU seconds of the current threads of a process.
pub fn process_cpu(process: u32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("the process runs");
    let of = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
    };
    tasks.flatten().map(of).sum()
}

/// Describes the machine, for the first line of a report.
pub fn machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1)).unwrap_or("unknown CPU");
    let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
    format!("{model}, {cores} cores")
}

/// Command-line options as pairs of name and value. Only known names are accepted, and each needs a
/// value.
pub struct Options(Vec<(String, String)>);

impl Options {
    pub fn parse(arguments: impl Iterator<Item = String>, names: &[&str]) -> Self {
        let mut arguments = arguments.peekable();
        let mut options = Vec::new();
        while let Some(name) = arguments.next() {
            assert!(names.contains(&name.as_str()), "{name} is not known: {}", names.join(", "));
            let value = arguments.next().unwrap_or_else(|| panic!("{name} takes a value"));
            options.push((name, value));
        }
        Self(options)
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn number(&self, name: &str, default: u64) -> u64 {
        self.text(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} takes a number")))
    }
}
