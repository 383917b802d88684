//! Tests of a gateway's HTTP server against untrusted clients: hosts, origins, content types, the
//! listener for operators, and slow clients.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::common::{Gateway, Player, TWO_SECONDS, WITHIN};
use ooblex_client::{Client, Wish};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

/// Options of a gateway with few models, which starts quickly.
const QUICK: &[&str] = &["--workers", "1", "--effects", "delay", "--diagnostics"];

/// A received answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn read(stream: &mut TcpStream) -> Self {
        let mut text = Vec::new();
        // A refused connection may be reset after its answer.
        _ = stream.read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Self { status, head: head.to_ascii_lowercase(), body: body.into() }
    }

    /// Returns the last segment of the problem's type.
    fn problem(&self) -> String {
        let problem: Value = serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        problem["type"].as_str().unwrap().trim_start_matches("urn:ooblex:problem:").to_string()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

fn address(gateway: &Gateway) -> SocketAddr {
    gateway.url.trim_start_matches("http://").parse().unwrap()
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(WITHIN)).unwrap();
    stream
}

/// Sends a request with these header lines, and with the body if it is not empty.
fn ask(address: SocketAddr, request: &str, headers: &[&str], body: &str) -> Answer {
    let mut stream = connect(address);
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    // A refused connection may be closed before the request is completely written.
    _ = stream.write_all(format!("{request} HTTP/1.1\r\nconnection: close\r\n{headers}{length}\r\n{body}").as_bytes());
    Answer::read(&mut stream)
}

#[test]
fn requests_for_foreign_hosts_are_refused_with_the_option_and_probes_are_not() {
    let gateway = Gateway::start("[serve]\nhosts = [\"video.example\", \"127.0.0.1\"]\n", QUICK);
    let status = |path: &str, headers: &[&str]| ask(address(&gateway), &format!("GET {path}"), headers, "").status;
    assert_eq!(status("/", &["host: Video.Example.:8443"]), 200);
    assert_eq!(status("/", &[]), 400);
    assert_eq!(status("/", &["host: video.example", "host: video.example"]), 400);
    let refused = ask(address(&gateway), "GET /api/sessions", &["host: rebound.example"], "");
    assert_eq!((refused.status, refused.problem().as_str()), (421, "wrong-host"));
    assert!(refused.body.contains("rebound.example") && refused.body.contains("serve.hosts"), "{refused:?}");
    assert_eq!((status("/healthz", &["host: 10.1.2.3:8000"]), status("/healthz", &[])), (200, 200));
    assert_eq!(status("/readyz", &[]), 503, "it serves no default effect, and says so");
    assert_eq!(gateway.metric_of("ooblex_http_requests_refused_total", "reason=\"wrong-host\""), 1.0);
    let automatic = Gateway::start("", QUICK);
    assert_eq!(ask(address(&automatic), "GET /", &["host: localhost:8000"], "").status, 200);
    assert_eq!(ask(address(&automatic), "GET /", &["host: rebound.example"], "").status, 421);
}

#[test]
fn changes_that_foreign_pages_ask_for_are_refused() {
    let gateway = Gateway::start("[serve]\nallow_origins = [\"https://app.example\"]\n", QUICK);
    let host = format!("host: {}", gateway.url.trim_start_matches("http://"));
    let host = host.as_str();
    let client = Client::connect(&gateway.url, &Wish { effect: Some("delay".into()), ..Wish::default() }).unwrap();
    let session = format!("/api/sessions/{}", client.session);
    let session = session.as_str();
    let json = "content-type: application/json";
    let foreign = ["origin: https://elsewhere.example", "origin: null", "sec-fetch-site: cross-site", "origin: http://127.0.0.1:1"];
    let calls = [("POST", "/offer"), ("PATCH", session), ("DELETE", session), ("POST", "/api/effects/reload")];
    for header in foreign {
        for (method, path) in calls {
            let body = if method == "DELETE" { "" } else { "{}" };
            let refused = ask(address(&gateway), &format!("{method} {path}"), &[host, header, json], body);
            assert_eq!((refused.status, refused.problem().as_str()), (403, "foreign-origin"), "{method} {path} of {header}");
            assert!(refused.body.contains("serve.allow_origins"), "{refused:?}");
        }
    }
    assert_eq!(gateway.json("/api/sessions")["sessions"].as_array().unwrap().len(), 1, "the session is still there");
    for header in ["origin: https://app.example", &format!("origin: {}", gateway.url), "sec-fetch-site: same-origin"] {
        let changed = ask(address(&gateway), &format!("PATCH {session}"), &[host, header, json], "{}");
        assert_eq!(changed.status, 200, "{header}: {changed:?}");
    }
    assert_eq!(ask(address(&gateway), &format!("DELETE {session}"), &[host, "origin: https://app.example"], "").status, 204);
}

#[test]
fn bodies_must_say_that_they_are_json() {
    let gateway = Gateway::start("", QUICK);
    let offer = |types: &[&str]| {
        let headers: Vec<_> = ["host: localhost"].iter().chain(types).copied().collect();
        ask(address(&gateway), "POST /offer", &headers, "{\"sdp\": \"\"}")
    };
    for wrong in [&[][..], &["content-type: text/plain"], &["content-type: application/x-www-form-urlencoded"]] {
        let refused = offer(wrong);
        assert_eq!((refused.status, refused.problem().as_str()), (415, "wrong-content-type"), "{wrong:?}");
        assert!(refused.body.contains("application/json"), "{refused:?}");
    }
    assert_eq!(offer(&["content-type: Application/JSON; charset=utf-8"]).problem(), "bad-sdp");
    let changed = ask(address(&gateway), "PATCH /api/sessions/0000000000000000", &["host: localhost", "content-type: text/plain"], "{}");
    assert_eq!(changed.status, 415);
    assert_eq!(ask(address(&gateway), "POST /api/effects/reload", &["host: localhost"], "").status, 200, "it has no body");
    assert_eq!(gateway.metric_of("ooblex_offers_total", "result=\"wrong-content-type\""), 3.0);
}

#[test]
fn preflights_are_for_allowed_pages_and_say_what_they_may() {
    let preflight = |gateway: &Gateway, path: &str, origin: &str| {
        let headers = [
            "host: localhost",
            &format!("origin: {origin}"),
            "access-control-request-method: PATCH",
            "access-control-request-headers: authorization,content-type",
            "access-control-request-private-network: true",
        ];
        ask(address(gateway), &format!("OPTIONS {path}"), &headers, "")
    };
    let gateway = Gateway::start("[serve]\nallow_origins = [\"https://app.example\"]\nallow_credentials = true\n", QUICK);
    let allowed = preflight(&gateway, "/api/sessions/0", "https://app.example");
    assert_eq!(allowed.status, 200, "{allowed:?}");
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(allowed.header("access-control-allow-methods"), Some("options,get,head,post,patch,delete"));
    assert_eq!(allowed.header("access-control-allow-headers"), Some("authorization,content-type,if-match"));
    assert_eq!(allowed.header("access-control-allow-private-network"), Some("true"));
    assert_eq!(allowed.header("access-control-allow-credentials"), Some("true"));
    let foreign = preflight(&gateway, "/api/sessions/0", "https://elsewhere.example");
    assert_eq!((foreign.status, foreign.problem().as_str()), (403, "foreign-origin"));
    assert!(!foreign.head.contains("access-control-allow"), "{foreign:?}");
    let read = |gateway: &Gateway, path: &str, origin: &str| {
        ask(address(gateway), &format!("GET {path}"), &["host: localhost", &format!("origin: {origin}")], "")
    };
    let answer = read(&gateway, "/api/effects", "https://app.example");
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(answer.header("access-control-expose-headers"), Some("retry-after,www-authenticate,location,etag,link,accept-patch"));
    assert_eq!(read(&gateway, "/api/effects", "https://elsewhere.example").header("access-control-allow-origin"), None);

    let open = Gateway::start("[serve]\nallow_origins = [\"*\"]\nallow_credentials = true\n", QUICK);
    let anybody = preflight(&open, "/offer", "https://elsewhere.example");
    assert_eq!(anybody.header("access-control-allow-origin"), Some("https://elsewhere.example"));
    assert_eq!(anybody.header("access-control-allow-credentials"), None, "only pages that are named");
    assert_eq!(preflight(&open, "/api/effects/reload", "https://elsewhere.example").status, 403, "what concerns all is for named pages");
    assert_eq!(read(&open, "/api/sessions", "https://elsewhere.example").header("access-control-allow-origin"), None);
}

#[test]
fn operators_have_a_listener_of_their_own() {
    let gateway = Gateway::start("[serve]\nadmin_listen = \"127.0.0.1:0\"\n", QUICK);
    let served = "the routes of operators are served";
    gateway.wait("the address of the other listener", |gateway| gateway.said().contains(served));
    let said = gateway.said();
    let line = said.lines().find(|line| line.contains(served)).unwrap();
    let admin: SocketAddr = line.rsplit("address=").next().unwrap().trim().parse().unwrap();
    let client = Client::connect(&gateway.url, &Wish { effect: Some("delay".into()), ..Wish::default() }).unwrap();
    let session = format!("/api/sessions/{}", client.session);
    let at = |request: &str, headers: &[&str], body: &str| {
        let headers: Vec<_> = ["host: localhost", "content-type: application/json"].iter().chain(headers).copied().collect();
        ask(admin, request, &headers, body)
    };
    assert!(at("GET /metrics", &[], "").body.contains("ooblex_sessions 1"));
    assert!(at("GET /api/sessions", &[], "").body.contains(&client.session));
    assert_eq!((at("GET /healthz", &[], "").status, at("POST /api/effects/reload", &[], "").status), (200, 200));
    assert_eq!(at(&format!("PATCH {session}"), &[], "{\"params\": {\"ms\": 1}}").status, 200);
    assert_eq!((at("GET /", &[], "").status, at("POST /offer", &[], "{}").status), (404, 404), "browsers have nothing to do there");
    assert_eq!(at("GET /api/sessions", &["x-forwarded-for: 203.0.113.7"], "").status, 200);
    assert_eq!(at("POST /api/effects/reload", &["origin: https://elsewhere.example"], "").problem(), "foreign-origin");
    assert_eq!(ask(admin, "GET /api/sessions", &["host: rebound.example"], "").status, 421);
    assert_eq!(ask(admin, "GET /metrics", &["host: webrtc:9000"], "").status, 200, "scrapers ask by names of services");

    // A request through a proxy does not count as a request from this machine.
    for path in ["GET /metrics", "GET /api/sessions", "POST /api/effects/reload"] {
        let refused = ask(address(&gateway), path, &["host: localhost", "x-forwarded-for: 203.0.113.7"], "");
        assert_eq!((refused.status, refused.problem().as_str()), (403, "forbidden"), "{path}");
        assert!(refused.body.contains("serve.admin_listen"), "{refused:?}");
    }
    assert_eq!(gateway.text("/healthz"), "alive\n");
    assert_eq!(at(&format!("DELETE {session}"), &[], "").status, 204);
    assert_eq!(ask(admin, "DELETE /metrics", &["host: localhost"], "").status, 405);
}

/// The duration is that of the longest timeout. All timeouts have the values of production.
#[test]
fn half_requests_are_given_up_after_the_times_that_are_promised() {
    let gateway = Gateway::start("", QUICK);
    let address = address(&gateway);
    let given_up_after = |sent: &'static str, trickle: bool| {
        std::thread::spawn(move || {
            let mut stream = connect(address);
            stream.write_all(sent.as_bytes()).unwrap();
            let began = Instant::now();
            let mut feeder = stream.try_clone().unwrap();
            let feeding = std::thread::spawn(move || {
                while trickle && feeder.write_all(b"x").is_ok() {
                    std::thread::park_timeout(Duration::from_millis(100));
                }
            });
            let answer = Answer::read(&mut stream);
            let after = began.elapsed();
            drop(stream);
            feeding.join().unwrap();
            (after, answer)
        })
    };
    let silent = given_up_after("", false);
    let head = given_up_after("GET / HTTP/1.1\r\nhost: localhost\r\nx: ", true);
    let body = "POST /offer HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9999\r\n\r\n{";
    let body = given_up_after(body, true);
    for half in [silent, head] {
        let (after, answer) = half.join().unwrap();
        assert!(after < Duration::from_secs(20) && answer.status == 0, "{after:?}: {answer:?}");
    }
    let (after, answer) = body.join().unwrap();
    assert!(after < Duration::from_secs(25) && answer.status == 408 && answer.problem() == "timed-out", "{after:?}: {answer:?}");
    for reason in ["head", "body"] {
        assert!(gateway.metric_of("ooblex_http_connections_cut_total", &format!("reason=\"{reason}\"")) >= 1.0, "{reason}");
    }
}

#[test]
fn health_is_told_while_slow_requests_hang() {
    let gateway = Gateway::start("", &["--workers", "1"]);
    let address = address(&gateway);
    let half = "POST /offer HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9999\r\n\r\n{";
    let hanging: Vec<_> = (0..8).map(|_| connect(address)).collect();
    for mut stream in &hanging {
        stream.write_all(half.as_bytes()).unwrap();
    }
    // The models of an effect are loaded and run when its thumbnail is first requested.
    let names = ["background_blur", "face_anonymize", "face_mesh", "cartoon"];
    let drawing: Vec<_> = names
        .iter()
        .map(|name| {
            let request = format!("GET /api/effects/{name}/thumbnail.png");
            std::thread::spawn(move || ask(address, &request, &["host: localhost"], "").status)
        })
        .collect();
    let reloading = std::thread::spawn(move || ask(address, "POST /api/effects/reload", &["host: localhost"], "").status);
    for _ in 0..10 {
        let asked = Instant::now();
        assert_eq!(ask(address, "GET /healthz", &[], "").body, "alive\n");
        assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    }
    assert_eq!(reloading.join().unwrap(), 200);
    for (name, thread) in names.iter().zip(drawing) {
        assert_eq!(thread.join().unwrap(), 200, "{name}");
    }
}

#[test]
fn connections_of_one_address_and_in_all_are_limited_and_health_gets_through() {
    let config = "[serve]\ntrusted_proxies = []\n[limits]\nconnections = 20\nconnections_per_address = 8\n";
    let gateway = Gateway::start(config, QUICK);
    let target = address(&gateway);
    // Every address of 127.0.0.0/8 belongs to this machine.
    let from = |last: u8| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)).into()).unwrap();
        socket.connect(&target.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(WITHIN)).unwrap();
        stream
    };
    let mut held: Vec<_> = (0..8).map(|_| from(2)).collect();
    let refused = Answer::read(&mut from(2));
    assert_eq!(refused.status, 429, "{refused:?}");
    assert!(refused.body.contains("limits.connections_per_address"), "{refused:?}");
    held.extend((3..5).flat_map(|last| (0..8).map(move |_| last)).map(from));
    assert_eq!(held.len(), 24, "more than there are places");
    for _ in 0..5 {
        assert_eq!(gateway.text("/healthz"), "alive\n");
    }
    let open = gateway.metric("ooblex_http_connections");
    assert!((10.0..=20.0).contains(&open), "{open}");
    assert!(gateway.metric_of("ooblex_http_connections_cut_total", "reason=\"displaced\"") >= 4.0);
    assert_eq!(gateway.metric_of("ooblex_http_connections_refused_total", "reason=\"address\""), 1.0);
}

#[test]
fn without_descriptors_for_connections_media_go_on_and_health_comes_back() {
    let gateway = Gateway::start("", QUICK);
    let mut player = Player::new(&gateway, &Wish { effect: Some("delay".into()), ..Wish::default() });
    player.play_until_processed(10, TWO_SECONDS);
    let process = Pid::from_raw(gateway.id().try_into().unwrap()).unwrap();
    let used = std::fs::read_dir(format!("/proc/{}/fd", gateway.id())).unwrap().count() as u64;
    let limited = Rlimit { current: Some(used + 6), ..getrlimit(Resource::Nofile) };
    let before = prlimit(Some(process), Resource::Nofile, limited).unwrap();
    let held: Vec<_> = (0..40).map(|_| connect(address(&gateway))).collect();
    gateway.wait("it to run out of descriptors", |gateway| gateway.said().contains("no connection can be accepted now"));
    player.play_until_processed(20, 3 * TWO_SECONDS);
    player.assert_sound();
    // The server closes idle connections.
    assert_eq!(gateway.text("/healthz"), "alive\n");
    prlimit(Some(process), Resource::Nofile, before).unwrap();
    drop(held);
    assert_eq!(gateway.text("/healthz"), "alive\n");
    player.play_until_processed(10, TWO_SECONDS);
}
