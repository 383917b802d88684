//! Tests of sessions on bad networks, with loss, limited bandwidth and outages. Bitrate and picture
//! size follow the available bandwidth, keyframes are sent on request without storms, and no frame
//! is ever out of order or unprocessed.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::{Gateway, machine};
use serde_json::Value;

fn bench(gateway: &Gateway, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ooblex"));
    command.args(["bench", &gateway.url, "--json", "-", "--effect", "delay", "--set", "ms=1", "--decode", "1"]);
    command.args(flags).stdin(Stdio::null());
    command
}

/// Runs a bench of one session, and asserts what must hold on every network. Returns its JSON.
fn figures(gateway: &Gateway, flags: &[&str]) -> Value {
    let output = bench(gateway, flags).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    for none in ["order_errors", "raw_leaks", "number_mismatches", "sessions_lost"] {
        assert_eq!(figures[none], 0, "{none}: {said}");
    }
    assert!(figures["judged"].as_u64() > Some(0), "{said}");
    figures
}

fn gateway(config: &str) -> Gateway {
    Gateway::start(&format!("[diagnostics]\neffects = true\n{config}"), &["--workers", "1"])
}

/// Returns a figure of each second from `from` up to `to` after the measurement began; seconds
/// without the figure are omitted.
fn series(figures: &Value, name: &str, from: f64, to: f64) -> Vec<f64> {
    let at = |second: &Value| second["at_s"].as_f64().unwrap();
    let seconds = figures["series"].as_array().unwrap().iter().filter(|second| at(second) > from && at(second) <= to);
    seconds.filter_map(|second| second[name].as_f64()).collect()
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().reduce(f64::max).expect("there are some")
}

/// Distinct consecutive values of target bitrate in kbit/s and picture height.
type Seen = Vec<(f64, f64)>;

/// Observes a session while a bench runs, until `is_over` holds or the bench ends. Returns the
/// observations, and true if `is_over` held. The values come from the gateway's API, because data
/// channel messages are late or lost on a bad network.
fn watch(gateway: &Gateway, codec: &str, flags: &[&str], is_over: impl Fn(&[(f64, f64)]) -> bool) -> (Seen, bool) {
    let mut command = bench(gateway, flags);
    let mut run = command.args(["--codec", codec]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut seen = Seen::new();
    while !is_over(&seen) && run.try_wait().unwrap().is_none() {
        let sessions = gateway.json("/api/sessions");
        let of_codec = |session: &&Value| session["stats"]["codec"] == codec;
        if let Some(session) = sessions["sessions"].as_array().unwrap().iter().find(of_codec) {
            let figure = |name: &str| session["stats"][name].as_f64().unwrap();
            let now = (figure("target_bps") / 1e3, figure("height"));
            seen.extend((seen.last() != Some(&now)).then_some(now));
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    _ = run.kill();
    _ = run.wait();
    let over = is_over(&seen);
    (seen, over)
}

#[test]
fn bitrate_and_size_follow_a_network_that_narrows_and_widens_again() {
    let _machine = machine::alone();
    let gateway = gateway("");
    std::thread::scope(|scope| ["vp8", "h264"].map(|codec| scope.spawn(|| narrows_and_widens(&gateway, codec))).map(drop));
}

fn narrows_and_widens(gateway: &Gateway, codec: &str) {
    let large = |now: &(f64, f64)| now.0 > 1000.0 && now.1 == 480.0;
    let small = |now: &(f64, f64)| now.0 <= 250.0 && now.1 < 480.0;
    // The bandwidth increase is not signalled; the estimate discovers it step by step.
    let widened = |seen: &[(f64, f64)]| {
        seen.iter().position(small).is_some_and(|narrow| {
            let now = seen.last().expect("there is the narrow one");
            now.0 > 2.0 * seen[narrow].0.max(100.0) && now.1 > seen[narrow].1
        })
    };
    let flags = ["--rate", "0/250", "--delay", "10", "--bad-during", "2,9", "--duration", "120"];
    let (seen, is_over) = watch(gateway, codec, &flags, widened);
    let (first_large, first_small) = (seen.iter().position(large), seen.iter().position(small));
    assert!(first_large.is_some() && first_large < first_small, "{codec}: large, then small: {seen:?}");
    assert!(is_over, "{codec}: and larger again: {seen:?}");
    assert!(seen[first_small.unwrap()..].iter().all(|(kbps, _)| *kbps >= 100.0), "{codec}: {seen:?}");
}

#[test]
fn lost_packets_are_resent_without_keyframe_storms() {
    let _machine = machine::alone();
    let gateway = gateway("");
    let lossy = |codec: &str| {
        let figures = figures(&gateway, &["--loss", "5", "--delay", "10", "--warm-up", "2", "--duration", "8", "--codec", codec]);
        let (sent, processed) = (figures["fps_sent_min"].as_f64().unwrap(), figures["fps_processed_min"].as_f64().unwrap());
        assert!(processed > 0.5 * sent, "{codec}: {processed} of {sent} fps");
        // Each keyframe can answer one request, and requests are at least half a second apart.
        let (keyframes, asked) = (figures["keyframes"].as_u64().unwrap(), figures["keyframes_asked"].as_u64().unwrap());
        assert!(keyframes <= asked + 2 && asked <= 4, "{codec}: {keyframes} keyframes for {asked} requests");
    };
    std::thread::scope(|scope| ["vp8", "h264"].map(|codec| scope.spawn(|| lossy(codec))).map(drop));
}

#[test]
fn an_outage_costs_little_more_than_its_length() {
    let _machine = machine::alone();
    let gateway = gateway("");
    let figures = figures(&gateway, &["--outage", "2,3", "--delay", "10", "--warm-up", "2", "--duration", "9"]);
    let freeze = figures["longest_freeze_ms"].as_f64().unwrap();
    assert!(freeze >= 2900.0, "{freeze}");
    assert!(most(&series(&figures, "fps_processed", 5.5, 9.0)) >= 20.0, "{:?}", series(&figures, "fps_processed", 0.0, 9.0));
    assert!(figures["keyframes"].as_u64() <= Some(4), "{}", figures["keyframes"]);
}

#[test]
fn a_peer_that_gives_no_estimate_gets_a_fixed_rate_that_yields_to_losses_and_comes_back() {
    let _machine = machine::alone();
    let gateway = gateway("[video]\nstart_bitrate_kbps = 1000\n");
    let back = |seen: &[(f64, f64)]| {
        let least = seen.iter().map(|(kbps, _)| *kbps).fold(f64::INFINITY, f64::min);
        least <= 750.0 && seen.last().is_some_and(|(kbps, _)| *kbps >= 1.25 * least)
    };
    let lossy = ["--no-feedback", "--rate", "0/400", "--bad-during", "3,13", "--warm-up", "3", "--duration", "120"];
    let (seen, is_over) = watch(&gateway, "vp8", &lossy, back);
    assert_eq!(seen.first().map(|(kbps, _)| *kbps), Some(1000.0), "{seen:?}");
    assert!(is_over, "less, and more again: {seen:?}");
    assert!(most(&seen.iter().map(|(kbps, _)| *kbps).collect::<Vec<_>>()) <= 1000.0, "{seen:?}");
}

#[test]
fn limits_of_the_bitrate_hold_whatever_the_estimate() {
    let _machine = machine::alone();
    let gateway = gateway("[video]\nmin_bitrate_kbps = 200\nstart_bitrate_kbps = 300\nmax_bitrate_kbps = 400\n");
    let free = figures(&gateway, &["--warm-up", "2", "--duration", "4"]);
    let targets = series(&free, "target_kbps", -1.0, 4.0);
    assert!(most(&targets) <= 400.0 && most(&targets) > 350.0, "{targets:?}");
    // The rate limit is far below the minimum bitrate, so the estimate falls to its lower bound.
    let at_the_limit = |seen: &[(f64, f64)]| seen.iter().any(|(kbps, _)| *kbps == 200.0);
    let (seen, is_over) = watch(&gateway, "vp8", &["--rate", "0/150", "--bad-during", "0,60", "--duration", "60"], at_the_limit);
    assert!(is_over && seen.iter().all(|(kbps, _)| *kbps >= 200.0), "{seen:?}");
}
