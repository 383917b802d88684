//! Tests of `ooblex bench` against a real gateway, and against a peer that only returns the
//! pictures with new timestamps.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Gateway, machine, temporary_folder};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use str0m::change::SdpOffer;
use str0m::media::{KeyframeRequestKind, MediaTime};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, IceConnectionState, Input, Output as Out, Rtc, RtcConfig};

/// Options of a short run with small pictures.
const QUICK: &[&str] = &["--size", "320x240", "--warm-up", "1", "--duration", "3"];

fn gateway() -> Gateway {
    Gateway::start("[diagnostics]\neffects = true\n", &[])
}

fn command(url: &str, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ooblex"));
    command.args(["bench", url]).args(flags).stdin(Stdio::null());
    command
}

fn bench(url: &str, flags: &[&str]) -> Output {
    command(url, flags).output().unwrap()
}

/// Runs a bench that must succeed, and returns its JSON.
fn figures(url: &str, flags: &[&str]) -> Value {
    let output = bench(url, &[flags, &["--json", "-"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("standard output is no JSON: {error}; {said}"))
}

fn positive(figures: &Value, name: &str) -> f64 {
    let value = figures[name].as_f64().unwrap_or_else(|| panic!("{name} is {}", figures[name]));
    assert!(value > 0.0, "{name} is {value}");
    value
}

struct Folder(PathBuf);

impl Folder {
    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_run_gives_a_table_json_and_a_report() {
    let (gateway, folder) = (gateway(), Folder(temporary_folder()));
    let (json, report, pid) = (folder.path("figures.json"), folder.path("report.html"), gateway.id().to_string());
    let asked = ["--sessions", "2", "--effect", "delay", "--set", "ms=5", "--gateway-pid", &pid, "--json", &json, "--report", &report];
    let output = bench(&gateway.url, &[QUICK, &asked].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("2 sessions, 320x240 at 30 fps") && table.contains("gateway says"), "{table}");
    assert!(String::from_utf8(output.stderr).unwrap().lines().filter(|line| line.contains("fps shown")).count() >= 3);

    let figures: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!((&figures["sessions"], &figures["numbers"]), (&json!(2), &json!("timestamp")));
    for none in ["order_errors", "raw_leaks", "setup_failures", "sessions_lost", "number_mismatches", "numbers_unreadable"] {
        assert_eq!(figures[none], 0, "{none}");
    }
    for some in ["duration_s", "judged", "numbers_read", "fps_sent_min", "fps_shown_min", "fps_processed_min", "fps_processed_total"] {
        positive(&figures, some);
    }
    for some in ["longest_freeze_ms", "gateway_memory_mb", "bench_cpu_cores"] {
        positive(&figures, some);
    }
    assert!(figures["gateway_cpu_cores"].is_number());
    let latency: Vec<_> = ["p50", "p95", "p99", "max"].iter().map(|at| positive(&figures["latency_ms"], at)).collect();
    assert!(latency.is_sorted() && latency[0] >= 5.0, "{latency:?}, of which the effect alone takes 5");
    assert_eq!(figures["per_session"].as_array().unwrap().len(), 2);
    assert!(figures["series"].as_array().unwrap().iter().any(|second| second["counted"] == true));
    assert!(figures["gateway"]["stages_ms"]["analyse"].as_f64().unwrap() >= 5.0);
    assert_is_complete(Path::new(&report));
}

/// Asserts that a page loads nothing from any host.
fn assert_is_complete(report: &Path) {
    let page = std::fs::read_to_string(report).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    assert!(page.contains("<svg") && page.contains("prefers-color-scheme:dark") && page.contains("Latency"));
    for reference in ["src=", "href=", "url(", "@import", "<script", "<link", "<iframe"] {
        assert!(!page.contains(reference), "{reference}");
    }
}

#[test]
fn viewers_of_a_room_are_measured_by_the_frames_of_its_publisher() {
    let gateway = gateway();
    let figures = figures(&gateway.url, &[QUICK, &["--viewers", "3", "--room", "studio", "--effect", "background_blur"]].concat());
    assert_eq!((&figures["sessions"], &figures["numbers"], &figures["fps_sent_min"]), (&json!(3), &json!("timestamp"), &Value::Null));
    for none in ["order_errors", "raw_leaks", "setup_failures", "sessions_lost", "number_mismatches"] {
        assert_eq!(figures[none], 0, "{none}");
    }
    for some in ["judged", "fps_processed_min"] {
        positive(&figures, some);
    }
    assert!(figures["latency_ms"]["p50"].as_f64().is_some(), "{}", figures["latency_ms"]);
    assert!(figures["per_session"].as_array().unwrap().iter().all(|session| session["fps_sent"] == 0.0), "viewers send nothing");
}

#[test]
fn every_session_bears_a_network_that_loses_packets() {
    let gateway = gateway();
    let network = ["--sessions", "2", "--effect", "background_blur", "--loss", "5", "--delay", "5", "--jitter", "5"];
    let figures = figures(&gateway.url, &[QUICK, &network].concat());
    positive(&figures, "fps_shown_min");
    positive(&figures, "judged");
    assert_eq!((&figures["raw_leaks"], &figures["order_errors"]), (&json!(0), &json!(0)));
    assert_eq!(figures["network"]["up"]["loss_percent"], 5.0);
    let lost: u64 =
        figures["per_session"].as_array().unwrap().iter().map(|session| session["datagrams_lost"]["down"].as_u64().unwrap()).sum();
    assert!(lost > 0, "the network has lost something");
}

#[test]
fn an_outage_is_seen_as_a_freeze() {
    let gateway = gateway();
    let outage = ["--effect", "delay", "--set", "ms=1", "--outage", "0.5,1.5"];
    let figures = figures(&gateway.url, &[QUICK, &outage].concat());
    assert!(positive(&figures, "longest_freeze_ms") >= 1400.0);
    assert_eq!(figures["sessions_lost"], 0);
}

#[test]
fn errors_of_the_command_name_the_remedy() {
    let gateway = gateway();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = |url: &str, flags: &[&str], words: &str| {
        let output = bench(url, &[QUICK, flags].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(words), "{said}");
        assert!(output.stdout.is_empty());
    };
    refused(&format!("http://{closed}"), &[], "start the gateway there");
    refused("https://localhost", &[], "write http://HOST:PORT");
    refused(&gateway.url, &["--effect", "nonsense"], "ask for one of background_blur");
    refused(&gateway.url, &["--gateway-pid", "4294967295"], "there is no process");
    refused(&gateway.url, &["--clip", "/nowhere/clip.y4m"], "cannot be read");
    refused(&gateway.url, &["--size", "20x20"], "--size 640x480");
    // The URL exists, but does not accept offers.
    refused(&format!("{}/sdk", gateway.url), &[], "POST /offer");
}

#[test]
fn sessions_that_come_and_go_leave_nothing_behind() {
    let gateway = gateway();
    let churn = ["--churn", "12", "--sessions", "3", "--vanish", "25", "--effect", "delay", "--set", "ms=1", "--duration", "1"];
    let figures = figures(&gateway.url, &[QUICK, &churn].concat());
    let churned = &figures["churn"];
    assert_eq!((&churned["setups"], &churned["failed"], &churned["without_picture"]), (&json!(12), &json!(0), &json!(0)));
    assert_eq!((&churned["vanished"], &figures["setup_failures"]), (&json!(3), &json!(0)));
    positive(&figures["setup_ms"], "p50");
    positive(&figures["first_picture_ms"], "p50");
    gateway.wait("the others to have ended", |gateway| gateway.json("/api/sessions")["sessions"].as_array().unwrap().len() <= 3);
}

#[test]
fn the_knee_is_where_the_workers_are_busy() {
    let _machine = machine::alone();
    let gateway = Gateway::start("[diagnostics]\neffects = true\n", &["--workers", "1"]);
    // One worker that pauses for 50 ms processes 20 frames per second, which is not enough for two
    // sessions of 12 each.
    let knee = ["--find-knee", "--min-fps", "12", "--max-latency", "5000", "--effect", "delay", "--set", "ms=50", "--duration", "2"];
    let figures = figures(&gateway.url, &[QUICK, &knee].concat());
    let knee = &figures["knee"];
    assert_eq!((&knee["sessions"], &knee["breaks_at"], &knee["stage"]), (&json!(1), &json!(2), &json!("workers")), "{knee:#}");
    assert!(knee["reason"].as_str().unwrap().contains("busy"));
    assert_eq!(knee["steps"].as_array().unwrap().len(), 2);
}

#[test]
fn an_interrupt_ends_the_count_and_not_the_report() {
    let gateway = gateway();
    let flags = ["--effect", "delay", "--set", "ms=1", "--size", "160x120", "--warm-up", "0", "--duration", "600", "--json", "-"];
    let mut process = command(&gateway.url, &flags).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("fps shown") && !line.contains("warming up")), "it counts");
    kill_process(Pid::from_child(&process), Signal::INT).unwrap();
    let mut json = String::new();
    process.stdout.take().unwrap().read_to_string(&mut json).unwrap();
    assert!(process.wait().unwrap().success());
    let figures: Value = serde_json::from_str(&json).unwrap();
    assert!(positive(&figures, "duration_s") < 60.0);
    positive(&figures, "fps_shown_min");
}

#[test]
fn a_peer_with_timestamps_of_its_own_is_measured_by_the_numbers_on_its_pictures() {
    let peer = peer();
    for codec in ["vp8", "h264"] {
        let asked = ["--sessions", "3", "--ramp", "0.3", "--codec", codec, "--effect", "background_blur"];
        let figures = figures(&peer, &[QUICK, &asked].concat());
        assert_eq!((&figures["numbers"], &figures["order_errors"]), (&json!("picture"), &json!(0)), "{codec}");
        for some in ["fps_shown_min", "fps_processed_min", "numbers_read"] {
            positive(&figures, some);
        }
        positive(&figures["latency_ms"], "p50");
        // The peer returns unprocessed pictures; from a gateway that should have blurred them, they
        // are leaks.
        assert_eq!((&figures["raw_leaks"], &figures["gateway"]), (&figures["judged"], &Value::Null));
        positive(&figures, "raw_leaks");
    }
}

/// Starts a peer that accepts `POST /offer` and returns pictures with new timestamps, but has no
/// sessions and sends no messages.
fn peer() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    url
}

fn answer(mut stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut length = 0;
    for line in reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
        if let Some((_, value)) = line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let offer: Value = serde_json::from_slice(&body).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut rtc = RtcConfig::new().set_reordering_size_video(300).build(Instant::now());
    rtc.add_local_candidate(Candidate::host(socket.local_addr().unwrap(), "udp").unwrap());
    let answer = rtc.sdp_api().accept_offer(SdpOffer::from_sdp_string(offer["sdp"].as_str().unwrap()).unwrap()).unwrap();
    let answer = json!({"type": "answer", "sdp": answer.to_sdp_string()}).to_string();
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len());
    stream.write_all((head + &answer).as_bytes()).unwrap();
    drop((stream, reader));
    mirror(rtc, &socket);
}

/// Returns the pictures unchanged until the other side is gone.
fn mirror(mut rtc: Rtc, socket: &UdpSocket) {
    let local = socket.local_addr().unwrap();
    let mut buffer = [0; 2048];
    loop {
        let wakeup = loop {
            match rtc.poll_output() {
                Ok(Out::Transmit(transmit)) => _ = socket.send_to(&transmit.contents, transmit.destination),
                Ok(Out::Event(Event::MediaData(data))) => {
                    let time = MediaTime::new(data.time.numer() + 123_456_789, data.time.frequency());
                    let writer = rtc.writer(data.mid).unwrap();
                    writer.write(data.pt, Instant::now(), time, data.data.to_vec()).unwrap();
                }
                Ok(Out::Event(Event::KeyframeRequest(wanted))) => {
                    _ = rtc.writer(wanted.mid).unwrap().request_keyframe(None, KeyframeRequestKind::Pli);
                }
                Ok(Out::Event(Event::Closed | Event::IceConnectionStateChange(IceConnectionState::Disconnected))) | Err(_) => return,
                Ok(Out::Event(_)) => {}
                Ok(Out::Timeout(at)) => break at,
            }
        };
        if !rtc.is_alive() {
            return;
        }
        let wait = wakeup.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(wait)).unwrap();
        let received = socket.recv_from(&mut buffer);
        let now = Instant::now();
        let input = match &received {
            Ok((length, source)) => match buffer[..*length].try_into() {
                Ok(contents) => Input::Receive(now, Receive { proto: Protocol::Udp, source: *source, destination: local, contents }),
                Err(_) => continue,
            },
            Err(_) => Input::Timeout(now),
        };
        if rtc.handle_input(input).is_err() {
            return;
        }
    }
}
