//! Behaviour of many workers, through a real gateway, a real Redis and real WebRTC. The workers are
//! processes that sleep instead of running a model (the effect `delay`, 100 ms per frame), so that
//! 32 of them fit onto any machine.
//!
//! `cargo bench -p ooblex --bench scaling -- linear|single|overload|capacity [options]`, or `make bench-scaling`
//!
//! * `linear [--seconds 10 --most 32]`: frames per second with 1, 2, 4, … workers, compared to ten
//!   per worker.
//! * `single [--seconds 20]`: one camera of 30 frames per second on three workers.
//! * `overload [--seconds 120]`: 20 cameras of 30 frames per second on two workers. It reports the
//!   age of the frames shown at the beginning and at the end, how evenly they are distributed, and
//!   the memory used by Redis.
//! * `capacity [--seconds 5]`: frames per second that one Redis carries with the payloads of the
//!   effects, for increasing numbers of gateways and of workers that need no time. They run on the
//!   same machine and compete with Redis for its cores.
//!
//! All commands take `--json FILE`.

#[path = "../tests/all/common/mod.rs"]
mod common;
mod shared;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{Gateway, RedisServer, Worker, scenes};
use ooblex_client::{Client, ClientEvent, Wish};
use ooblex_codec::{Encoder, EncoderConfig, Speed};
use ooblex_pipeline::{EncodedFrame, MediaTime, VideoCodec};
use serde_json::{Value, json};
use shared::{Hands, Load, Options, broker, load, machine, payloads, process_cpu, redis};

const FPS: u64 = 30;
const TICKS: u64 = 90_000 / FPS;
/// Time that a worker sleeps for each frame, in ms.
const PAUSE_MS: u32 = 100;
const EACH: f64 = 1000.0 / PAUSE_MS as f64;
/// Time for sessions to begin, bitrates to settle and models to be checked.
const WARM_UP: Duration = Duration::from_secs(3);
const QUIET: &str = "[log]\nfilter = \"error\"\n";

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let Some(what) = arguments.next() else {
        return println!("scaling: nothing was chosen; -- linear, single, overload or capacity, or make bench-scaling");
    };
    let options = Options::parse(arguments, &["--seconds", "--most", "--json"]);
    let Some(redis) = redis() else { return };
    println!("{what}: {}", machine());
    let seconds = |default| Duration::from_secs(options.number("--seconds", default));
    let rows = match what.as_str() {
        "linear" => linear(&redis, seconds(10), options.number("--most", 32) as usize),
        "single" => single(&redis, seconds(20)),
        "overload" => overload(&redis, seconds(120)),
        "capacity" => capacity(&redis, seconds(5)),
        other => panic!("{other} is not known: linear, single, overload or capacity"),
    };
    if let Some(path) = options.text("--json") {
        let report = json!({"machine": machine(), "what": what, "rows": rows});
        std::fs::write(path, format!("{report:#}")).expect("the report can be written");
    }
}

// Measurements

fn linear(redis: &RedisServer, time: Duration, most: usize) -> Value {
    println!(
        "{:>7} {:>8} | {:>8} {:>8} {:>7} | {:>9} {:>7} | CPU of gateway, Redis",
        "workers", "sessions", "frames/s", "possible", "", "p50 ms", "p99 ms"
    );
    let counts = std::iter::successors(Some(1), |workers| Some(workers * 2)).take_while(|workers| *workers <= most);
    let rows: Vec<Value> = counts
        .map(|workers| {
            let cell = Cell::start(redis, workers);
            // One session more than workers, so that a frame always waits when a worker becomes
            // free.
            let sessions = workers + 1;
            let run = cell.run(sessions, time, |_| {});
            let (possible, shown) = (EACH * workers as f64, run.a_second());
            let ages = run.ages_ms(run.from, run.to);
            let verdict = if shown >= 0.95 * possible { "linear" } else { "LESS" };
            println!(
                "{workers:>7} {sessions:>8} | {shown:>8.1} {possible:>8.0} {:>6.1}% | {:>9.0} {:>7.0} | {:.2} {:.2} cores  {verdict}",
                100.0 * shown / possible,
                at(&ages, 0.5),
                at(&ages, 0.99),
                run.cpu.0,
                run.cpu.1,
            );
            json!({
                "workers": workers, "sessions": sessions, "frames_a_second": shown, "possible": possible,
                "age_ms": {"p50": at(&ages, 0.5), "p99": at(&ages, 0.99)}, "cores": {"gateway": run.cpu.0, "redis": run.cpu.1},
                "reordered": run.reordered(),
            })
        })
        .collect();
    rows.into()
}

fn single(redis: &RedisServer, time: Duration) -> Value {
    let cell = Cell::start(redis, 3);
    let run = cell.run(1, time, |_| {});
    let ages = run.ages_ms(run.from, run.to);
    let (shown, reordered) = (run.a_second(), run.reordered());
    let verdict = if shown >= 28.0 && reordered == 0 { "in order, nearly all" } else { "LESS" };
    println!("one camera, 3 workers of {PAUSE_MS} ms: {shown:.1} of {FPS} frames a second, {reordered} out of order: {verdict}");
    println!("age when shown: p50 {:.0} ms, p99 {:.0} ms", at(&ages, 0.5), at(&ages, 0.99));
    json!([{"frames_a_second": shown, "reordered": reordered, "age_ms": {"p50": at(&ages, 0.5), "p99": at(&ages, 0.99)}}])
}

fn overload(redis: &RedisServer, time: Duration) -> Value {
    const EDGE: Duration = Duration::from_secs(15);
    const SESSIONS: usize = 20;
    let cell = Cell::start(redis, 2);
    let mut memory = Vec::new();
    let run = cell.run(SESSIONS, time, |since| memory.push((since.as_secs(), redis.memory())));
    let [first, last] = [(run.from, run.from + EDGE), (run.to - EDGE, run.to)].map(|(from, to)| run.ages_ms(from, to));
    println!("{SESSIONS} cameras of {FPS} frames a second on 2 workers of {PAUSE_MS} ms, {} s", time.as_secs());
    for (when, ages) in [("first", &first), ("last", &last)] {
        println!(
            "age when shown, {when:>5} 15 s: p50 {:.0} ms, p95 {:.0} ms, most {:.0} ms, {} frames",
            at(ages, 0.5),
            at(ages, 0.95),
            at(ages, 1.0),
            ages.len()
        );
    }
    let mut rates: Vec<f64> = run.sessions.iter().map(|session| run.shown_in(session) as f64 / run.seconds()).collect();
    rates.sort_by(f64::total_cmp);
    let fair = rates[0] >= 0.5 * rates[SESSIONS - 1];
    println!(
        "frames a second of a camera: {:.2} to {:.2}, all together {:.1}: {}",
        rates[0],
        rates[SESSIONS - 1],
        run.a_second(),
        if fair { "fair" } else { "UNFAIR" }
    );
    let grown = at(&last, 0.5) > 1.25 * at(&first, 0.5) + 50.0;
    println!("the delay {}", if grown { "HAS GROWN" } else { "has not grown" });
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let shown: Vec<_> =
        memory.iter().step_by((memory.len() / 12).max(1)).map(|(at, bytes)| format!("{at} s {:.2}", megabytes(*bytes))).collect();
    println!("Redis has in use, MB: {}", shown.join(", "));
    println!("out of order: {}", run.reordered());
    json!([{
        "age_ms_first": {"p50": at(&first, 0.5), "p95": at(&first, 0.95)}, "age_ms_last": {"p50": at(&last, 0.5), "p95": at(&last, 0.95)},
        "frames_a_second": {"least": rates[0], "most": rates[SESSIONS - 1]}, "redis_bytes": memory, "reordered": run.reordered(),
        "fair": fair, "grown": grown,
    }])
}

fn capacity(redis: &RedisServer, time: Duration) -> Value {
    const TRACKS: u64 = 64;
    println!(
        "{:<16} {:>7} {:>7} {:>8} {:>7} | {:>8} {:>8} | {:>11} {:>11}",
        "payload of", "KB out", "KB back", "gateways", "workers", "frames/s", "MB/s", "Redis cores", "here cores"
    );
    let mut rows = Vec::new();
    for payload in payloads() {
        let (out, back) = payload.bytes();
        for (gateways, workers) in [(1, 1), (1, 4), (2, 4), (4, 8), (8, 16)] {
            let at_workers = broker(redis);
            let _hands = Hands::start(&at_workers, workers, &payload);
            let loads: Vec<Load> = std::thread::scope(|scope| {
                let one = || load(&broker(redis), &payload, TRACKS / gateways, 0, time, Some(redis.id()));
                let threads: Vec<_> = (0..gateways).map(|_| scope.spawn(one)).collect();
                threads.into_iter().map(|thread| thread.join().expect("the load runs")).collect()
            });
            let frames_a_second: f64 = loads.iter().map(Load::a_second).sum();
            let lost: u64 = loads.iter().map(|load| load.lost).sum();
            // Each load has measured the CPU time of the same two processes.
            let (here, there) = (loads[0].cpu.0 / loads[0].seconds, loads[0].cpu.1 / loads[0].seconds);
            println!(
                "{:<16} {:>7.1} {:>7.1} {gateways:>8} {workers:>7} | {frames_a_second:>8.0} {:>8.1} | {there:>11.2} {here:>11.2}",
                payload.effect.as_str(),
                out as f64 / 1e3,
                back as f64 / 1e3,
                frames_a_second * (out + back) as f64 / 1e6,
            );
            rows.push(json!({
                "payload": payload.effect, "bytes_out": out, "bytes_back": back, "gateways": gateways, "workers": workers,
                "frames_a_second": frames_a_second, "cores": {"redis": there, "here": here}, "lost": lost,
            }));
        }
    }
    rows.into()
}

// Fixtures

/// A gateway with workers that sleep.
struct Cell {
    gateway: Gateway,
    redis: u32,
    _workers: Vec<Worker>,
}

/// Recording of the sessions of a cell.
struct Run {
    from: Instant,
    to: Instant,
    sessions: Vec<Session>,
    /// Mean CPU usage of the gateway and of Redis, in cores.
    cpu: (f64, f64),
}

/// Recording of one session.
struct Session {
    sent: Vec<Instant>,
    /// Number of each frame shown, and the time at which it arrived.
    shown: Vec<(usize, Instant)>,
}

impl Cell {
    fn start(redis: &RedisServer, workers: usize) -> Self {
        let gateway = Gateway::configured(QUIET, &redis.url());
        let start = || Worker::configured(QUIET, "delay", &redis.url());
        let workers: Vec<_> = (0..workers).map(|_| start()).collect();
        gateway.wait_for_workers(workers.len() as u32);
        Self { gateway, redis: redis.id(), _workers: workers }
    }

    /// Runs `sessions` sessions for the time, and calls `look` every second.
    fn run(&self, sessions: usize, time: Duration, mut look: impl FnMut(Duration)) -> Run {
        let clip = Arc::new(clip());
        let from = Instant::now() + WARM_UP;
        let to = from + time;
        let threads: Vec<JoinHandle<Session>> = (0..sessions)
            .map(|index| {
                let (url, clip) = (self.gateway.url.clone(), clip.clone());
                // The cameras have different phases.
                let offset = Duration::from_secs(1) / FPS as u32 * index as u32 / sessions as u32;
                std::thread::spawn(move || play(&url, &clip, offset, to + Duration::from_secs(1)))
            })
            .collect();
        let cpu = || (process_cpu(self.gateway.id()), process_cpu(self.redis));
        std::thread::sleep(from.saturating_duration_since(Instant::now()));
        let before = cpu();
        let mut next = from;
        while next < to {
            look(next - from);
            next += Duration::from_secs(1);
            std::thread::sleep(next.min(to).saturating_duration_since(Instant::now()));
        }
        let (after, seconds) = (cpu(), time.as_secs_f64());
        let sessions = threads.into_iter().map(|thread| thread.join().expect("the session stands")).collect();
        Run { from, to, sessions, cpu: ((after.0 - before.0) / seconds, (after.1 - before.1) / seconds) }
    }
}

impl Run {
    fn seconds(&self) -> f64 {
        (self.to - self.from).as_secs_f64()
    }

    fn shown_in(&self, session: &Session) -> usize {
        session.shown.iter().filter(|(_, at)| (self.from..self.to).contains(at)).count()
    }

    fn a_second(&self) -> f64 {
        self.sessions.iter().map(|session| self.shown_in(session)).sum::<usize>() as f64 / self.seconds()
    }

    /// Returns the ages in ms, sorted, of the frames that arrived between two times. The age is the
    /// time from sending a frame to its arrival.
    fn ages_ms(&self, from: Instant, to: Instant) -> Vec<f64> {
        let of = |session: &Session| -> Vec<f64> {
            let shown = session.shown.iter().filter(|(_, at)| (from..to).contains(at));
            shown.map(|(number, at)| at.saturating_duration_since(session.sent[*number]).as_secs_f64() * 1e3).collect()
        };
        let mut ages: Vec<_> = self.sessions.iter().flat_map(of).collect();
        ages.sort_by(f64::total_cmp);
        ages
    }

    fn reordered(&self) -> usize {
        let of = |session: &Session| session.shown.windows(2).filter(|pair| pair[0].0 >= pair[1].0).count();
        self.sessions.iter().map(of).sum()
    }
}

fn at(sorted: &[f64], quantile: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * quantile).round() as usize).copied().unwrap_or(f64::NAN)
}

/// Encodes ten seconds of a small camera. The clip begins with a keyframe, so it can be repeated.
fn clip() -> Vec<EncodedFrame> {
    let config = EncoderConfig { codec: VideoCodec::Vp8, bitrate_bps: 300_000, frame_rate: FPS as f32, speed: Speed::Fast };
    let mut encoder = Encoder::new(config).expect("the codec starts");
    let scenes = scenes(160, 120);
    let steps = (0..8).chain((1..7).rev()).cycle();
    let mut encode = |(n, step): (u64, usize)| encoder.encode(&scenes[step], MediaTime(n * TICKS), false);
    (0..10 * FPS).zip(steps).map(|frame| encode(frame).expect("a picture is encoded").expect("none is left out")).collect()
}

/// Sends the clip in a loop until a time.
fn play(url: &str, clip: &[EncodedFrame], offset: Duration, until: Instant) -> Session {
    let wish = Wish { effect: Some("delay".into()), params: json!({ "ms": PAUSE_MS }), ..Wish::default() };
    let mut client = Client::connect(url, &wish).expect("the gateway answers");
    let mut session = Session { sent: Vec::new(), shown: Vec::new() };
    let started = Instant::now() + offset;
    let mut next_of_clip = 0;
    for number in 0.. {
        let due = started + Duration::from_secs(number) / FPS as u32;
        while let Some(event) = client.poll(due).expect("the session stands") {
            match event {
                ClientEvent::Frame { frame, arrived, .. } => {
                    // Other timestamps, between those that were sent, belong to held pictures and
                    // placeholders.
                    let ticks = frame.capture.0.saturating_sub(90_000);
                    if frame.capture.0 >= 90_000 && ticks.is_multiple_of(TICKS) {
                        session.shown.push(((ticks / TICKS) as usize, arrived));
                    }
                }
                ClientEvent::KeyframeWanted => next_of_clip = 0,
                ClientEvent::Ended => panic!("the session has ended"),
                ClientEvent::Message(_) | ClientEvent::Audio { .. } => {}
            }
        }
        if due >= until {
            break;
        }
        let capture = MediaTime(90_000 + number * TICKS);
        client.send_frame(&EncodedFrame { capture, ..clip[next_of_clip].clone() }, None).expect("the session stands");
        session.sent.push(Instant::now());
        next_of_clip = (next_of_clip + 1) % clip.len();
    }
    client.close().expect("the session stands");
    session
}
