//! Cost of dispatching frames to workers, within one process and through Redis, without the time of
//! the models.
//!
//! `cargo bench -p ooblex --bench broker [-- --seconds 5 --json FILE]`
//!
//! The payloads are real: each effect's model input for the test picture (640×480), and its model's
//! result, computed once. Worker threads return that result at once. Gateway side, worker side and
//! Redis run on one machine and share its cores.
//!
//! * Jobs per second: 16 tracks that always have a frame waiting, with 1 and 4 workers.
//! * Added latency: time from submitting a frame to its result, for one track at 30 frames per
//!   second and one idle worker.
//! * CPU per job of this process, which is both gateway and worker, and of redis-server, in both of
//!   the cases above. A job costs more at 30 frames per second, because it wakes sleeping threads
//!   with cold caches, and carries its share of the work that is done without frames (five
//!   announcements per second from each process). The last line shows the latter.
//!   frame (announcements, five a second of each process), which the last line tells.

#[path = "../tests/all/common/mod.rs"]
mod common;
mod shared;

use std::time::Duration;

use common::RedisServer;
use ooblex_broker::Broker;
use serde_json::{Value, json};
use shared::{Hands, Load, Options, Payload, broker, idle, load, machine, payloads, redis};

const TRACKS: u64 = 16;
const FPS: u32 = 30;

fn main() {
    let arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let options = Options::parse(arguments, &["--seconds", "--json"]);
    let time = Duration::from_secs(options.number("--seconds", 5));
    let payloads = payloads();
    println!("{}; {TRACKS} tracks for jobs a second, one at {FPS} frames a second for latency", machine());
    println!(
        "{:<6} {:<16} {:>7} {:>7} | {:>9} {:>9} | {:>7} {:>7} | {:>9} {:>9} | {:>9} {:>9}",
        "", "", "out", "back", "jobs/s", "jobs/s", "added", "ms", "CPU full", "µs/job", "at 30/s", "µs/job"
    );
    println!(
        "{:<6} {:<16} {:>7} {:>7} | {:>9} {:>9} | {:>7} {:>7} | {:>9} {:>9} | {:>9} {:>9}",
        "broker", "payload of", "KB", "KB", "1 worker", "4 workers", "p50", "p99", "here", "redis", "here", "redis"
    );
    let mut rows: Vec<Value> = payloads.iter().map(|payload| row("local", payload, None, time)).collect();
    let mut idle = Value::Null;
    if let Some(redis) = redis() {
        rows.extend(payloads.iter().map(|payload| row("redis", payload, Some(&redis), time)));
        let (here, there) = idle_cpu(&payloads[0], &redis, time);
        println!(
            "without any frame, a second: {:.1} ms of CPU here (a gateway and a worker), {:.1} ms of redis-server",
            here * 1e3,
            there * 1e3
        );
        idle = json!({"here_ms": here * 1e3, "redis_ms": there * 1e3});
    }
    if let Some(path) = options.text("--json") {
        let report = json!({"machine": machine(), "rows": rows, "idle_cpu_a_second": idle});
        std::fs::write(path, format!("{report:#}")).expect("the report can be written");
    }
}

/// Measures one payload on one broker and prints a row.
fn row(name: &str, payload: &Payload, redis: Option<&RedisServer>, time: Duration) -> Value {
    let full = [1, 4].map(|workers| measure(payload, workers, TRACKS, 0, redis, time));
    let paced = measure(payload, 1, 1, FPS, redis, 2 * time);
    let ((out, back), kb) = (payload.bytes(), |bytes: usize| bytes as f64 / 1e3);
    let ((here, there), (here_paced, there_paced)) = (full[1].cpu_us(), paced.cpu_us());
    println!(
        "{name:<6} {:<16} {:>7.1} {:>7.1} | {:>9.0} {:>9.0} | {:>7.2} {:>7.2} | {here:>9.0} {there:>9.0} | {here_paced:>9.0} {there_paced:>9.0}",
        payload.effect.as_str(),
        kb(out),
        kb(back),
        full[0].a_second(),
        full[1].a_second(),
        paced.latency_ms(0.5),
        paced.latency_ms(0.99),
    );
    let lost: u64 = full.iter().chain([&paced]).map(|load| load.lost).sum();
    if lost > 0 {
        println!("       {lost} of these frames were lost");
    }
    json!({
        "broker": name, "payload": payload.effect, "bytes_out": out, "bytes_back": back, "lost": lost,
        "jobs_a_second": {"1": full[0].a_second(), "4": full[1].a_second()},
        "added_ms": {"p50": paced.latency_ms(0.5), "p99": paced.latency_ms(0.99)},
        "cpu_us_full": {"here": here, "redis": there}, "cpu_us_paced": {"here": here_paced, "redis": there_paced},
    })
}

fn measure(payload: &Payload, workers: usize, tracks: u64, fps: u32, redis: Option<&RedisServer>, time: Duration) -> Load {
    // With Redis, gateway and workers are separate clients, as separate processes would be.
    let (gateway, at_workers) = match redis {
        Some(redis) => (broker(redis), broker(redis)),
        None => {
            let local = Broker::local();
            (local.clone(), local)
        }
    };
    let _hands = Hands::start(&at_workers, workers, payload);
    load(&gateway, payload, tracks, fps, time, redis.map(RedisServer::id))
}

/// Measures the CPU time of this process and of Redis without frames, in CPU seconds per second.
fn idle_cpu(payload: &Payload, redis: &RedisServer, time: Duration) -> (f64, f64) {
    let (gateway, at_workers) = (broker(redis), broker(redis));
    let _hands = Hands::start(&at_workers, 1, payload);
    let (here, there) = idle(&gateway, payload, time, Some(redis.id()));
    (here / time.as_secs_f64(), there / time.as_secs_f64())
}
