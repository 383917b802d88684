//! One session through a real gateway, for each size, codec and effect: time by stage, residence,
//! CPU time per frame, and the fraction of that CPU time that is overhead.
//!
//! `cargo bench -p ooblex [-- --seconds 8 --effects background_blur,none --sizes 640x480 --codecs vp8 --json FILE]`
//!
//! * Residence: time from the last received packet of a frame to its first sent packet, as the
//!   gateway measures it.
//! * CPU per frame: CPU time of the gateway process, as the operating system accounts it, divided
//!   by the number of frames that came back.
//! * Alone: CPU time of decode, prepare, model, compose and encode of the same frames on one thread
//!   of this process, at the same rate and bitrate, without a gateway.
//! * Overhead: ratio of CPU per frame to alone.

#[path = "../tests/all/common/mod.rs"]
mod common;
mod shared;

use std::time::{Duration, Instant};

use common::Gateway;
use ooblex_client::{Client, ClientEvent, Wish};
use ooblex_pipeline::{EncodedFrame, MediaTime, VideoCodec};
use serde_json::{Value, json};
use shared::alone::{FPS, Load, alone, clip};
use shared::{machine, process_cpu};

const WARM_UP: Duration = Duration::from_secs(3);
const STAGES: [&str; 9] = ["inbox", "decode", "prepare", "queue", "analyse", "turn", "playout", "compose", "encode"];

struct Options {
    seconds: u64,
    sizes: Vec<(u32, u32)>,
    codecs: Vec<VideoCodec>,
    effects: Vec<String>,
    json: Option<String>,
}

/// Figures of a live session.
struct Live {
    fps: f64,
    cpu_ms: f64,
    residence: Value,
    stages: Vec<f64>,
    bitrate_bps: u32,
}

fn main() {
    let options = Options::parse();
    let gateway = Gateway::start("[log]\nfilter = \"error\"\n", &[]);
    let mut rows = Vec::new();
    println!("{}", about());
    println!(
        "{:<9} {:<4} {:<16} {:>5} | residence ms p50/p95/p99 | CPU/frame  alone overhead | {}",
        "size",
        "codec",
        "effect",
        "fps",
        STAGES.map(|stage| format!("{stage:>8}")).join("")
    );
    for &(width, height) in &options.sizes {
        for &codec in &options.codecs {
            let clip = clip(width, height, codec);
            for effect in &options.effects {
                let live = live(&gateway, &clip, effect, options.seconds);
                let (stages, alone) = alone(&clip, effect, &parameters(effect), live.bitrate_bps, Load::one(1));
                let at = |quantile: &str| live.residence[quantile].as_f64().unwrap_or(f64::NAN);
                println!(
                    "{:<9} {:<4} {:<16} {:>5.1} | {:>7.1} {:>7.1} {:>7.1} | {:>7.2} ms {:>6.2} {:>7.2} | {}",
                    format!("{width}x{height}"),
                    codec.label(),
                    effect,
                    live.fps,
                    at("p50"),
                    at("p95"),
                    at("p99"),
                    live.cpu_ms,
                    alone,
                    live.cpu_ms / alone,
                    live.stages.iter().map(|ms| format!("{ms:>8.2}")).collect::<String>()
                );
                rows.push(json!({
                    "size": format!("{width}x{height}"), "codec": codec.label(), "effect": effect, "fps": live.fps,
                    "residence_ms": live.residence, "cpu_ms_per_frame": live.cpu_ms, "alone_ms_per_frame": alone,
                    "overhead_ratio": live.cpu_ms / alone, "stages_ms": live.stages, "alone_stages_ms": stages,
                }));
            }
        }
    }
    let memory_mb = status(gateway.id(), "VmHWM:") / 1024.0;
    println!("memory of the gateway, at most: {memory_mb:.0} MB");
    if let Some(path) = options.json {
        let report = json!({"machine": about(), "rows": rows, "memory_mb": memory_mb});
        std::fs::write(&path, format!("{report:#}")).expect("the report can be written");
    }
}

fn live(gateway: &Gateway, clip: &[EncodedFrame], effect: &str, seconds: u64) -> Live {
    let wish = Wish { codecs: vec![clip[0].codec], effect: Some(effect.into()), params: parameters(effect), ..Wish::default() };
    let mut client = Client::connect(&gateway.url, &wish).expect("the gateway answers");
    let started = Instant::now();
    let (mut from, mut to) = (None, None);
    let mut came_back = 0;
    let mut stages = [(0.0, 0); STAGES.len()];
    let mut bitrate_bps = 1_000_000;
    for (n, frame) in clip.iter().cycle().enumerate() {
        let elapsed = started.elapsed();
        if from.is_none() && elapsed >= WARM_UP {
            from = Some((Instant::now(), process_cpu(gateway.id())));
            came_back = 0;
        }
        if elapsed >= WARM_UP + Duration::from_secs(seconds) {
            to = Some((Instant::now(), process_cpu(gateway.id())));
            break;
        }
        let capture = MediaTime(90_000 + n as u64 * 90_000 / FPS);
        client.send_frame(&EncodedFrame { capture, ..frame.clone() }, None).expect("the session stands");
        let next = started + Duration::from_micros(1_000_000 * (n as u64 + 1) / FPS);
        while let Some(event) = client.poll(next).expect("the session stands") {
            match event {
                ClientEvent::Frame { .. } => came_back += 1,
                ClientEvent::Message(message) if message["type"] == "stats" && from.is_some() => {
                    for ((sum, count), stage) in stages.iter_mut().zip(STAGES) {
                        if let Some(ms) = message["stages_ms"][stage].as_f64() {
                            *sum += ms;
                            *count += 1;
                        }
                    }
                    bitrate_bps = message["target_bps"].as_u64().unwrap_or(1_000_000) as u32;
                }
                _ => {}
            }
        }
    }
    let residence = gateway.json(&format!("/api/sessions/{}", client.session))["residence_ms"].clone();
    client.close().expect("the session stands");
    let ((from, cpu_from), (to, cpu_to)) = (from.expect("it ran"), to.expect("it ran"));
    Live {
        fps: f64::from(came_back) / (to - from).as_secs_f64(),
        cpu_ms: (cpu_to - cpu_from) * 1e3 / f64::from(came_back),
        residence,
        stages: stages.iter().map(|(sum, count)| sum / f64::from(*count)).collect(),
        bitrate_bps,
    }
}

fn parameters(effect: &str) -> Value {
    if effect == "style_transfer" { json!({"resolution": "216p"}) } else { json!({}) }
}

/// Returns a value of `/proc/<process>/status`, in the unit used there.
fn status(process: u32, name: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).expect("the process runs");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("Linux tells");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

fn about() -> String {
    format!("{}; one session at {FPS} frames a second; style at 216p (as many pixels as 384x216)", machine())
}

impl Options {
    fn parse() -> Self {
        let mut options = Self {
            seconds: 8,
            sizes: vec![(640, 480), (1280, 720)],
            codecs: vec![VideoCodec::Vp8, VideoCodec::H264],
            effects: ["none", "background_blur", "face_detection", "style_transfer"].map(String::from).to_vec(),
            json: None,
        };
        let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
        while let Some(name) = arguments.next() {
            let value = arguments.next().unwrap_or_else(|| panic!("{name} takes a value"));
            match name.as_str() {
                "--seconds" => options.seconds = value.parse().expect("a number of seconds"),
                "--sizes" => options.sizes = value.split(',').map(size).collect(),
                "--codecs" => options.codecs = value.split(',').map(codec).collect(),
                "--effects" => options.effects = value.split(',').map(String::from).collect(),
                "--json" => options.json = Some(value),
                other => panic!("{other} is not known: --seconds, --sizes, --codecs, --effects, --json"),
            }
        }
        options
    }
}

fn size(text: &str) -> (u32, u32) {
    let (width, height) = text.split_once('x').expect("a size such as 640x480");
    (width.parse().expect("a width"), height.parse().expect("a height"))
}

fn codec(text: &str) -> VideoCodec {
    match text {
        "vp8" => VideoCodec::Vp8,
        "h264" => VideoCodec::H264,
        other => panic!("{other} is no codec: vp8 or h264"),
    }
}
