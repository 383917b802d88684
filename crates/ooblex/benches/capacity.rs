//! Capacity of one gateway with built-in workers, the cost of a frame at capacity, and the
//! behaviour under overload. It runs `ooblex bench` against `ooblex serve` on one machine, with
//! separate accounting of their CPU time.
//!
//! `cargo bench -p ooblex --bench capacity -- sessions|knee|alone|overload|greedy [options]`, or `make bench-capacity`
//!
//! * `sessions [--seconds 10]`: 1, 4, 8 and 16 sessions of each effect.
//! * `knee [--seconds 8]`: the largest number of sessions of each effect that all get 95 % of their
//!   frames processed, and the CPU time per frame at that number. `overhead` is the ratio of that
//!   CPU time to the time of decode, prepare, model, compose and encode alone, measured in
//!   alternation: with the same number of streams on all cores, and with one stream on one thread
//!   at the rate of four cameras, whose caches are warmer.
//! * `alone [--sessions 11]`: only that work, without a gateway, for one stream and for
//!   `--sessions` streams.
//! * `overload [--seconds 300 --sessions 0]`: three times the sessions of the knee, or
//!   `--sessions`. It reports the age of frames at the beginning and at the end, how evenly frames
//!   are distributed, how soon one session gets all of its frames after the load has ended, and the
//!   age of frames at the knee, in five runs because it varies most from run to run.
//! * `greedy [--seconds 10]`: three sessions alone, then beside one session of 1920×1080 at 60
//!   frames per second and 12 Mbit/s with `style_transfer`, and then beside programs that keep all
//!   cores busy, in three rounds. Those programs and the sender of the greedy session run at the
//!   lowest CPU priority (`nice`).
//!
//! All commands take `--effects background_blur,face_detection`, `--codec h264` and `--json FILE`.
//! Video is 640×480 at 30 frames per second; style transfer runs at 180p.

#[path = "../tests/all/common/mod.rs"]
mod common;
mod shared;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{Gateway, temporary_folder};
use ooblex_pipeline::VideoCodec;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use shared::alone::{FPS, Load, alone, clip, pictures};
use shared::{Options, machine};

const SIZE: (u32, u32) = (640, 480);
/// Minimum fraction of a camera's frames that must be processed.
const ENOUGH: f64 = 0.95;
const QUIET: &str = "[log]\nfilter = \"error\"\n";

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let Some(what) = arguments.next() else {
        return println!("capacity: nothing was chosen; -- sessions, knee, alone, overload or greedy, or make bench-capacity");
    };
    let options = Options::parse(arguments, &["--seconds", "--effects", "--codec", "--sessions", "--json"]);
    let bench = Bench::new(&options);
    println!("{what}: {}", machine());
    let rows: Vec<Value> = match what.as_str() {
        "sessions" => bench.effects.iter().flat_map(|effect| bench.sessions(effect, options.number("--seconds", 10))).collect(),
        "knee" => bench.effects.iter().map(|effect| bench.knee(effect, options.number("--seconds", 8))).collect(),
        "alone" => bench.effects.iter().flat_map(|effect| bench.alone(effect, options.number("--sessions", 11))).collect(),
        "overload" => {
            let seconds = options.number("--seconds", 300);
            bench.effects.iter().take(1).map(|effect| bench.overload(effect, seconds, options.number("--sessions", 0))).collect()
        }
        "greedy" => bench.effects.iter().take(1).map(|effect| bench.greedy(effect, options.number("--seconds", 10))).collect(),
        other => panic!("{other} is not known: sessions, knee, alone, overload or greedy"),
    };
    if let Some(path) = options.text("--json") {
        let report = json!({"machine": machine(), "what": what, "rows": rows});
        std::fs::write(path, format!("{report:#}")).expect("the report can be written");
    }
}

struct Bench {
    effects: Vec<String>,
    codec: VideoCodec,
    folder: PathBuf,
}

impl Bench {
    fn new(options: &Options) -> Self {
        let effects = options.text("--effects").unwrap_or("background_blur,face_detection,style_transfer");
        let codec = match options.text("--codec").unwrap_or("h264") {
            "vp8" => VideoCodec::Vp8,
            "h264" => VideoCodec::H264,
            other => panic!("{other} is no codec: vp8 or h264"),
        };
        let folder = temporary_folder();
        write_y4m(&folder.join("clip.y4m"));
        Self { effects: effects.split(',').map(String::from).collect(), codec, folder }
    }

    /// Runs `ooblex bench` against a gateway and returns its JSON figures.
    fn run(&self, gateway: &Gateway, effect: &str, seconds: u64, flags: &[&str]) -> Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ooblex"));
        command.arg("bench").arg(&gateway.url).args(["--effect", effect, "--codec", self.codec.label(), "--json", "-"]);
        command.arg("--clip").arg(self.folder.join("clip.y4m")).args(["--duration", &seconds.to_string()]);
        command.args(["--gateway-pid", &gateway.id().to_string()]).args(flags);
        if effect == "style_transfer" {
            command.args(["--set", "style_transfer.resolution=180p"]);
        }
        let output = command.current_dir(&self.folder).stderr(Stdio::null()).output().expect("the bench runs");
        serde_json::from_slice(&output.stdout).expect("the bench tells its figures")
    }

    fn sessions(&self, effect: &str, seconds: u64) -> Vec<Value> {
        println!(
            "{:<17} {:>8} {:>8} {:>8} {:>13} {:>6} {:>10} {:>7}",
            "effect", "sessions", "fps min", "fps all", "p50 / p95 ms", "cores", "CPU/frame", "memory"
        );
        let row = |sessions: u64| {
            let figures = self.run(&Gateway::start(QUIET, &[]), effect, seconds, &["--sessions", &sessions.to_string()]);
            let number = |name: &str| number(&figures[name]);
            let [p50, p95] = ["p50", "p95"].map(|quantile| self::number(&figures["latency_ms"][quantile]));
            println!(
                "{effect:<17} {sessions:>8} {:>8.1} {:>8.1} {:>13} {:>6.2} {:>7.2} ms {:>4.0} MB",
                number("fps_processed_min"),
                number("fps_processed_total"),
                format!("{p50:.1} / {p95:.1}"),
                number("gateway_cpu_cores"),
                cpu_ms_per_frame(&figures),
                number("gateway_memory_mb"),
            );
            json!({"effect": effect, "sessions": sessions, "figures": figures})
        };
        [1, 4, 8, 16].map(row).to_vec()
    }

    fn find_knee(&self, effect: &str, seconds: u64) -> Value {
        let least = format!("{:.1}", ENOUGH * FPS as f64);
        self.run(&Gateway::start(QUIET, &[]), effect, seconds, &["--find-knee", "--sessions", "4", "--min-fps", &least])
    }

    fn knee(&self, effect: &str, seconds: u64) -> Value {
        let figures = self.find_knee(effect, seconds);
        let sessions = figures["knee"]["sessions"].as_u64().unwrap_or(0);
        let (cores, cost) = (number(&figures["gateway_cpu_cores"]), cpu_ms_per_frame(&figures));
        let per_core = sessions as f64 / cores;
        println!(
            "{effect}: {sessions} sessions on {cores:.2} cores, {per_core:.1} a core; p95 {:.1} ms; CPU a frame {cost:.2} ms; bench {:.2} cores; breaks: {}",
            number(&figures["latency_ms"]["p95"]),
            number(&figures["bench_cpu_cores"]),
            figures["knee"]["reason"],
        );
        let bitrate = 1e3 * number(&figures["bitrate_kbps"]["down"]);
        let overhead = self.overhead(effect, sessions.max(1), bitrate as u32, seconds);
        json!({"effect": effect, "sessions": sessions, "cores": cores, "sessions_per_core": per_core, "cpu_ms_per_frame": cost,
            "overhead": overhead, "figures": figures})
    }

    /// Measures the gateway with `sessions` sessions and the work alone, in alternation, because
    /// the speed of a shared machine changes from minute to minute.
    fn overhead(&self, effect: &str, sessions: u64, bitrate_bps: u32, seconds: u64) -> Value {
        const ROUNDS: usize = 3;
        let clip = clip(SIZE.0, SIZE.1, self.codec);
        let alone = |load| alone(&clip, effect, &parameters(effect), bitrate_bps, load).1;
        let mut sums = [0.0; 3];
        for _ in 0..ROUNDS {
            let all = alone(Load::all(sessions));
            let gateway = self.run(&Gateway::start(QUIET, &[]), effect, seconds, &["--sessions", &sessions.to_string()]);
            let one = alone(Load::one(sessions.min(4)));
            sums.iter_mut().zip([cpu_ms_per_frame(&gateway), all, one]).for_each(|(sum, cost)| *sum += cost);
        }
        let [gateway, all, one] = sums.map(|sum| sum / ROUNDS as f64);
        println!(
            "{effect}: in {ROUNDS} turns, CPU a frame {gateway:.2} ms; the work alone {all:.2} ms, overhead {:.2}; of one stream {one:.2} ms, overhead {:.2}",
            gateway / all,
            gateway / one,
        );
        json!({"cpu_ms_per_frame": gateway, "alone_ms_per_frame": all, "ratio": gateway / all, "one_alone_ms_per_frame": one,
            "ratio_to_one": gateway / one})
    }

    fn alone(&self, effect: &str, sessions: u64) -> Vec<Value> {
        const BITRATE_BPS: u32 = 2_300_000;
        let clip = clip(SIZE.0, SIZE.1, self.codec);
        let row = |load: Load| {
            let (stages, cpu) = alone(&clip, effect, &parameters(effect), BITRATE_BPS, load);
            let each = ["decode", "prepare", "analyse", "compose", "encode"].iter().zip(&stages);
            let each: String = each.map(|(stage, ms)| format!(" {stage} {ms:.2}")).collect();
            let Load { streams, cameras } = load;
            println!("{effect}: {streams} streams at the pace of {cameras} cameras, alone: CPU a frame {cpu:.2} ms; ms by stage:{each}");
            json!({"effect": effect, "streams": streams, "cameras": cameras, "alone_ms_per_frame": cpu, "alone_stages_ms": stages})
        };
        [Load::one(1), Load::one(4), Load::all(sessions)].map(row).to_vec()
    }

    fn overload(&self, effect: &str, seconds: u64, sessions: u64) -> Value {
        let knee = if sessions == 0 { self.find_knee(effect, 5)["knee"]["sessions"].as_u64().unwrap_or(1) } else { sessions.div_ceil(3) };
        let sessions = if sessions == 0 { 3 * knee } else { sessions };
        let gateway = Gateway::start(QUIET, &[]);
        let mut at_knee =
            [(); 5].map(|()| number(&self.run(&gateway, effect, 10, &["--sessions", &knee.to_string()])["latency_ms"]["p95"]));
        at_knee.sort_by(f64::total_cmp);
        let loaded = self.run(&gateway, effect, seconds, &["--sessions", &sessions.to_string(), "--warm-up", "5"]);
        let after = self.run(&gateway, effect, 10, &["--sessions", "1", "--warm-up", "0"]);
        let series: Vec<_> = loaded["series"].as_array().into_iter().flatten().filter(|second| second["counted"] == true).collect();
        let p95 = |seconds: &[&Value]| {
            let mut each: Vec<_> = seconds.iter().map(|second| number(&second["latency_ms"]["p95"])).filter(|ms| ms.is_finite()).collect();
            each.sort_by(f64::total_cmp);
            each.get(each.len() / 2).copied().unwrap_or(f64::NAN)
        };
        let part = (series.len() / 5).max(1);
        let (first, last) = (p95(&series[..part.min(series.len())]), p95(&series[series.len().saturating_sub(part)..]));
        let fps: Vec<_> = loaded["per_session"].as_array().into_iter().flatten().map(|session| number(&session["fps_processed"])).collect();
        let (least, most) = (fps.iter().copied().fold(f64::INFINITY, f64::min), fps.iter().copied().fold(0.0, f64::max));
        let back =
            after["series"].as_array().into_iter().flatten().position(|second| number(&second["fps_processed"]) >= ENOUGH * FPS as f64);
        let (all, median) = (number(&loaded["latency_ms"]["p95"]), at_knee[at_knee.len() / 2]);
        println!(
            "{effect}: {sessions} sessions for {seconds} s: p95 of a second {first:.1} ms in the first fifth, {last:.1} ms in the last, {all:.1} ms of all, {:.1} times the median of five runs with {knee}, {at_knee:.1?} ms; {least:.1} to {most:.1} frames a second each; order errors {}, raw {}; all frames again {} s after",
            all / median,
            loaded["order_errors"],
            loaded["raw_leaks"],
            back.map_or("more than 10".into(), |seconds| (seconds + 1).to_string()),
        );
        json!({"effect": effect, "sessions": sessions, "p95_first_ms": first, "p95_last_ms": last, "fps_least": least, "fps_most": most,
            "back_after_s": back.map(|seconds| seconds + 1), "knee_sessions": knee, "knee_p95_ms": at_knee, "loaded": loaded, "after": after})
    }

    fn greedy(&self, effect: &str, seconds: u64) -> Value {
        const TURNS: usize = 3;
        let gateway = Gateway::start(QUIET, &[]);
        let neighbours = || self.run(&gateway, effect, seconds, &["--sessions", "3"]);
        let mut turns = Vec::new();
        for _ in 0..TURNS {
            let alone = neighbours();
            let one = self.start_greedy(&gateway);
            gateway.wait("the greedy session", |gateway| gateway.metric("ooblex_sessions") == 1.0);
            // The greedy session reaches its limits within 5 s.
            std::thread::sleep(Duration::from_secs(5));
            let beside = neighbours();
            kill_process(Pid::from_child(&one), Signal::INT).expect("it runs");
            let output = one.wait_with_output().expect("it ends");
            gateway.wait("its end", |gateway| gateway.metric("ooblex_sessions") == 0.0);
            let busy = Busy::start();
            let full = neighbours();
            drop(busy);
            turns.push([alone, beside, full, serde_json::from_slice(&output.stdout).expect("it tells its figures")]);
        }
        let each = |who: usize, figure: &dyn Fn(&Value) -> f64| {
            turns.iter().map(|turn| format!("{:.1}", figure(&turn[who]))).collect::<Vec<_>>().join(", ")
        };
        let (p95, fps) = (|figures: &Value| number(&figures["latency_ms"]["p95"]), |figures: &Value| number(&figures["fps_processed_min"]));
        println!(
            "{effect}: three sessions in {TURNS} turns, p95 {} ms alone, {} ms beside a greedy one, {} ms beside what keeps all cores busy; frames a second at least {} and {}; the greedy one has {}",
            each(0, &p95),
            each(1, &p95),
            each(2, &p95),
            each(0, &fps),
            each(1, &fps),
            each(3, &fps),
        );
        json!({"effect": effect, "turns": turns})
    }

    /// Starts a session with a high load, which runs until its bench is interrupted.
    fn start_greedy(&self, gateway: &Gateway) -> Child {
        let mut command = Command::new("nice");
        command.args(["-n", "19", env!("CARGO_BIN_EXE_ooblex"), "bench", &gateway.url, "--effect", "style_transfer", "--codec", "h264"]);
        command.args("--size 1920x1080 --fps 60 --bitrate 12000 --decode none --duration 3600 --json -".split(' '));
        command.current_dir(&self.folder).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the bench runs")
    }
}

/// Programs that keep all cores busy at the lowest priority, until this value is dropped or one
/// minute has passed for each.
struct Busy(Vec<Child>);

impl Busy {
    fn start() -> Self {
        let one =
            || Command::new("nice").args(["-n", "19", "sh", "-c", "ulimit -t 60; while :; do :; done"]).spawn().expect("a shell starts");
        Self((0..std::thread::available_parallelism().map_or(1, usize::from)).map(|_| one()).collect())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            _ = child.kill();
            _ = child.wait();
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn parameters(effect: &str) -> Value {
    if effect == "style_transfer" { json!({"resolution": "180p"}) } else { json!({}) }
}

fn cpu_ms_per_frame(figures: &Value) -> f64 {
    1e3 * number(&figures["gateway_cpu_cores"]) / number(&figures["fps_processed_total"])
}

/// Returns a figure, or NaN if it is missing.
fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

/// Writes the pictures of [`clip`] to a Y4M file, so that `ooblex bench` sends the same video.
fn write_y4m(path: &Path) {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).expect("there is room for the clip"));
    writeln!(file, "YUV4MPEG2 W{} H{} F{FPS}:1 Ip C420jpeg", SIZE.0, SIZE.1).expect("there is room for the clip");
    for picture in pictures(SIZE.0, SIZE.1) {
        file.write_all(b"FRAME\n").expect("there is room for the clip");
        picture.planes().iter().for_each(|plane| file.write_all(plane).expect("there is room for the clip"));
    }
}
