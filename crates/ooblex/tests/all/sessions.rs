//! Tests of the limits on anonymous sessions (offers, addresses, data channels and time), and of
//! the end of sessions when the gateway stops.

use std::net::{SocketAddr, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::time::{Duration, Instant};

use crate::common::{FRAME, Gateway, PLENTY, Player, WITHIN, play_together, scene};
use ooblex_client::{Client, ClientError, ClientEvent, Wish};
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use rustix::process::Signal;
use serde_json::{Value, json};

const DIAGNOSTICS: &str = "[diagnostics]\neffects = true\n";

fn none() -> Wish {
    Wish { effect: Some("none".into()), paced: false, ..Wish::default() }
}

/// Returns an offer of one video m-line as a browser makes it, with the lines `more` at its end.
fn offer(more: &str) -> String {
    let fingerprint = ["AB"; 32].join(":");
    format!(
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\n\
         a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=fingerprint:sha-256 {fingerprint}\r\na=setup:actpass\r\na=mid:0\r\n\
         a=sendrecv\r\na=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\n{more}"
    )
}

/// Posts an offer. Returns the status, `Retry-After`, and the last segment of the problem's type.
fn ask(gateway: &Gateway, sdp: &str) -> (u16, Option<u64>, String) {
    let request = ureq::post(format!("{}/offer", gateway.url)).config().http_status_as_error(false).build();
    let answer = request.content_type("application/json").send(json!({"sdp": sdp, "effect": "none"}).to_string()).unwrap();
    let retry = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().parse().unwrap());
    let status = answer.status().as_u16();
    let problem: Value = answer.into_body().read_json().unwrap();
    (status, retry, problem["type"].as_str().unwrap_or_default().rsplit(':').next().unwrap_or_default().to_string())
}

#[test]
fn offers_with_too_much_of_anything_are_refused_at_once_and_cost_the_others_nothing() {
    let gateway = Gateway::start(DIAGNOSTICS, &["--workers", "1"]);
    let many = |line: &str, count: usize| line.repeat(count);
    let payload_types = offer("").replace("SAVPF 96", &format!("SAVPF 96{}", many(" 97", 20_000)));
    for (what, sdp) in [
        ("payload types", payload_types),
        ("media lines", offer(&many("m=video 9 UDP/TLS/RTP/SAVPF 96\r\n", 1200))),
        ("candidates", offer(&many("a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n", 1000))),
        ("rtpmaps", offer(&many("a=rtpmap:97 VP9/90000\r\n", 2000))),
    ] {
        // The fastest of several tries counts, because the machine may be busy.
        let times = (0..5).map(|_| {
            let began = Instant::now();
            let (status, _, kind) = ask(&gateway, &sdp);
            assert!(["bad-sdp", "too-large"].contains(&kind.as_str()) && [400, 413].contains(&status), "{what}: {status} {kind}");
            began.elapsed()
        });
        let quickest = times.min().unwrap();
        assert!(quickest < Duration::from_millis(100), "{what}: {quickest:?}");
    }
    assert_eq!(ask(&gateway, &offer(&many("a=x:0123456789\r\n", 5000))).2, "too-large");
    assert_eq!(ask(&gateway, &offer("")).0, 200, "one of the usual size is answered");
}

#[test]
fn sessions_that_never_connect_are_limited_and_end_soon() {
    let config = format!("{DIAGNOSTICS}[limits]\nunconnected_per_address = 3\nconnect_s = 2\n");
    let gateway = Gateway::start(&config, &["--workers", "1"]);
    // Connected sessions do not count.
    let _connected = Client::connect(&gateway.url, &none()).unwrap();
    for _ in 0..3 {
        assert_eq!(ask(&gateway, &offer("")).0, 200);
    }
    let (status, retry, kind) = ask(&gateway, &offer(""));
    assert!(status == 503 && retry.is_some() && kind == "too-many-unconnected", "{status} {retry:?} {kind}");
    gateway.wait("those that never connect to end", |gateway| {
        gateway.metric_of("ooblex_sessions_ended_total", "reason=\"never_connected\"") == 3.0
    });
    assert_eq!(ask(&gateway, &offer("")).0, 200, "their places are free");
    assert!(gateway.metric_of("ooblex_offers_total", "too-many-unconnected") > 0.0);
}

#[test]
fn offers_of_one_address_have_a_rate() {
    let gateway = Gateway::start("[limits]\noffers_per_minute = 5\n", &["--workers", "1"]);
    let answers: Vec<_> = (0..20).map(|_| ask(&gateway, "")).collect();
    let refused = answers.iter().filter(|(status, retry, kind)| *status == 429 && retry.is_some() && kind == "too-many-offers").count();
    assert!((10..=15).contains(&refused), "{answers:?}");
}

#[test]
fn a_session_with_too_many_data_channels_ends_and_says_why() {
    let gateway = Gateway::start(DIAGNOSTICS, &["--workers", "1"]);
    let mut other = Player::new(&gateway, &none());
    let mut some = Player::new(&gateway, &none());
    // The control channel and seven others make eight.
    for n in 0..7 {
        some.client.open_channel(&format!("channel {n}")).unwrap();
    }
    some.play_until(64, 48, "pictures of a session with eight channels", |player| player.of_sent_frames().count() >= 30);
    let mut many = Client::connect(&gateway.url, &none()).unwrap();
    for n in 0..600 {
        many.open_channel(&format!("channel {n}")).unwrap();
    }
    assert!(hears_bye(&mut many, "too_many_channels"));
    gateway.wait("it to be counted", |gateway| gateway.metric_of("ooblex_sessions_ended_total", "too_many_channels") == 1.0);
    other.play_until(64, 48, "pictures of another session", |player| player.of_sent_frames().count() >= 30);
    assert_eq!(gateway.json("/api/sessions")["sessions"].as_array().unwrap().len(), 2);
}

/// Returns whether the gateway sends a `bye` message with this reason before the session ends.
fn hears_bye(client: &mut Client, reason: &str) -> bool {
    let deadline = Instant::now() + WITHIN;
    while let Ok(Some(event)) = client.poll(deadline) {
        match event {
            ClientEvent::Message(message) if message["type"] == "bye" => return message["reason"] == reason,
            ClientEvent::Ended => return false,
            _ => {}
        }
    }
    false
}

#[test]
fn a_session_without_media_ends_and_says_why() {
    let gateway = Gateway::start(&format!("{DIAGNOSTICS}[limits]\nidle_s = 5\n"), &["--workers", "1"]);
    let mut playing = Player::new(&gateway, &none());
    let mut idle = Client::connect(&gateway.url, &none()).unwrap();
    let began = Instant::now();
    let mut why = None;
    play_together(std::slice::from_mut(&mut playing), (64, 48), PLENTY, "the idle one to end", |_| {
        while let Ok(Some(event)) = idle.poll(Instant::now() + Duration::from_millis(2)) {
            if let ClientEvent::Message(message) = event
                && message["type"] == "bye"
            {
                why = message["reason"].as_str().map(String::from);
            }
        }
        why.is_some()
    });
    assert!(why.as_deref() == Some("idle") && began.elapsed() >= Duration::from_secs(4), "{why:?}");
    gateway.wait("it to be counted", |gateway| gateway.metric_of("ooblex_sessions_ended_total", "reason=\"idle\"") == 1.0);
    assert_eq!(gateway.json("/api/sessions")["sessions"].as_array().unwrap().len(), 1, "the one that plays goes on");
}

#[test]
fn a_session_that_takes_too_much_of_the_media_thread_ends_and_says_why() {
    let config = format!("{DIAGNOSTICS}[limits]\nmedia_ms = 20\nsession_packets = 1000000\nsession_kbps = 10000000\n");
    let gateway = Gateway::start(&config, &["--workers", "1"]);
    let mut modest = Player::new(&gateway, &none());
    let mut greedy = Client::connect(&gateway.url, &none()).unwrap();
    let deadline = Instant::now() + WITHIN;
    let message = json!({"type": "nonsense", "text": "x".repeat(8000)});
    let mut ended = false;
    while !ended && Instant::now() < deadline {
        for _ in 0..16 {
            // The session may end at any time.
            ended |= greedy.say(&message).is_err();
        }
        while let Ok(Some(event)) = greedy.poll(Instant::now() + Duration::from_millis(2)) {
            ended |= matches!(event, ClientEvent::Ended);
        }
        ended |= gateway.metric_of("ooblex_sessions_ended_total", "reason=\"budget\"") > 0.0;
        // A session that is not heard for long ends.
        modest.listen(Duration::from_millis(1));
    }
    assert_eq!(gateway.metric_of("ooblex_sessions_ended_total", "reason=\"budget\""), 1.0);
    modest.play_until(64, 48, "pictures of another session", |player| player.of_sent_frames().count() >= 30);
}

/// Builds an ICE binding request (RFC 8489), with which a browser nominates the address that it
/// sends from, with the highest priority.
fn binding_request(client: &mut Client) -> Vec<u8> {
    let of_answer = |name: &str| client.answer.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_string();
    let (user, password) = (of_answer("a=ice-ufrag:"), of_answer("a=ice-pwd:"));
    let mut message = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    message.extend(rand::random::<[u8; 12]>());
    let mut attribute = |kind: u16, value: &[u8]| {
        message.extend(kind.to_be_bytes());
        message.extend((value.len() as u16).to_be_bytes());
        message.extend(value);
        message.resize(message.len().next_multiple_of(4), 0);
    };
    attribute(0x0006, format!("{user}:{}", client.ice_user()).as_bytes());
    attribute(0x0024, &0x7fff_ffff_u32.to_be_bytes());
    attribute(0x802a, &rand::random::<[u8; 8]>());
    attribute(0x0025, &[]);
    // The message length includes the MESSAGE-INTEGRITY attribute, and is itself covered by it.
    let length = (message.len() - 20 + 24) as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
    let key = PKey::hmac(password.as_bytes()).unwrap();
    let mut signer = Signer::new(MessageDigest::sha1(), &key).unwrap();
    let integrity = signer.sign_oneshot_to_vec(&message).unwrap();
    message.extend([0, 8, 0, 20]);
    message.extend(integrity);
    message
}

#[test]
fn little_is_sent_to_an_address_that_has_not_shown_that_it_is_the_browsers() {
    let gateway = Gateway::start(DIAGNOSTICS, &["--workers", "1"]);
    let mut player = Player::new(&gateway, &none());
    player.play_until(640, 480, "pictures", |player| player.of_sent_frames().count() >= 10);
    let candidate = player.client.answer.lines().find(|line| line.starts_with("a=candidate:")).unwrap().to_string();
    let words: Vec<_> = candidate.split(' ').collect();
    let media: SocketAddr = format!("{}:{}", words[4], words[5]).parse().unwrap();

    let elsewhere = UdpSocket::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    elsewhere.send_to(&binding_request(&mut player.client), media).unwrap();
    let mut buffer = [0; 2048];
    let (mut bytes, mut packets) = (0, 0);
    player.play_until(640, 480, "media to be withheld", |_| {
        while let Ok(length) = elsewhere.recv(&mut buffer) {
            (bytes, packets) = (bytes + length, packets + 1);
        }
        gateway.metric("ooblex_datagrams_withheld_total") > 50.0
    });
    assert!(packets >= 2 && bytes <= 8 * 1024, "the request is answered, and a little more comes: {packets} packets, {bytes} bytes");

    // All media is sent once the browser uses the new address itself.
    elsewhere.set_nonblocking(false).unwrap();
    drop(player.client.change_socket(elsewhere));
    let mark = player.mark();
    player.play_until(640, 480, "pictures at the new address", |player| {
        player.of_sent_frames().filter(|shown| shown.capture > mark).count() >= 10
    });
}

#[test]
fn an_ice_check_from_the_address_of_a_silent_session_does_not_end_it() {
    let gateway = Gateway::start(DIAGNOSTICS, &["--workers", "1"]);
    let mut player = Player::new(&gateway, &none());
    player.play_until(64, 48, "pictures", |player| player.of_sent_frames().count() >= 10);
    let mut other = Client::connect(&gateway.url, &none()).unwrap();
    let candidate = player.client.answer.lines().find(|line| line.starts_with("a=candidate:")).unwrap().to_string();
    let words: Vec<_> = candidate.split(' ').collect();
    let media: SocketAddr = format!("{}:{}", words[4], words[5]).parse().unwrap();
    // An outage of the player, which is shorter than its ICE timeout.
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        _ = other.poll(Instant::now() + FRAME);
    }
    // The request for the other session comes from the player's address.
    player.client.send_garbage(media, &binding_request(&mut other)).unwrap();
    let mark = player.mark();
    player.play_until(64, 48, "pictures after the outage", |player| {
        player.of_sent_frames().filter(|shown| shown.capture > mark).count() >= 30
    });
    assert_eq!(gateway.json("/api/sessions")["sessions"].as_array().unwrap().len(), 2);
    assert_eq!(gateway.metric_of("ooblex_sessions_ended_total", "reason=\"vanished\""), 0.0);
}

#[test]
fn what_is_sent_in_the_name_of_a_session_takes_nothing_from_it() {
    let gateway = Gateway::start(&format!("{DIAGNOSTICS}[limits]\nsession_packets = 200\n"), &["--workers", "1"]);
    let mut player = Player::new(&gateway, &none());
    player.play_until(64, 48, "pictures", |player| player.of_sent_frames().count() >= 10);
    let candidate = player.client.answer.lines().find(|line| line.starts_with("a=candidate:")).unwrap().to_string();
    let words: Vec<_> = candidate.split(' ').collect();
    let media: SocketAddr = format!("{}:{}", words[4], words[5]).parse().unwrap();
    let (mark, before) = (player.mark(), player.of_sent_frames().count());
    let mut forged = [0_u8; 200];
    forged[..2].copy_from_slice(&[0x80, 96]);
    for _ in 0..60 {
        for _ in 0..100 {
            // Each packet has a new SSRC that was never announced, and comes from the session's own
            // address.
            forged[8..12].copy_from_slice(&rand::random::<[u8; 4]>());
            player.client.send_garbage(media, &forged).unwrap();
        }
        let scene = scene(64, 48, 1);
        player.play(&scene);
    }
    player.play_until(64, 48, "pictures in spite of it", |player| player.of_sent_frames().count() >= before + 60);
    assert!(player.heard(0, "error").is_empty(), "the session is not told that it sends too much");
    assert!(player.mark() > mark && gateway.metric("ooblex_datagrams_unauthenticated_total") > 0.0);
}

/// Creates the notification socket of a service manager. Returns the socket, and its name for the
/// environment.
fn service_manager() -> (UnixDatagram, String) {
    let name = format!("ooblex-test-{:016x}", rand::random::<u64>());
    let socket = UnixDatagram::bind_addr(&UnixAddress::from_abstract_name(&name).unwrap()).unwrap();
    socket.set_read_timeout(Some(WITHIN)).unwrap();
    (socket, format!("@{name}"))
}

fn hear(manager: &UnixDatagram, words: &str) {
    let mut buffer = [0; 64];
    for _ in 0..1000 {
        let length = manager.recv(&mut buffer).unwrap();
        if &buffer[..length] == words.as_bytes() {
            return;
        }
    }
    panic!("{words} was not said");
}

#[test]
fn a_gateway_that_stops_lets_sessions_go_on_and_takes_no_new_ones() {
    let (manager, name) = service_manager();
    let environment = [("NOTIFY_SOCKET", name.as_str()), ("WATCHDOG_USEC", "10000000")];
    let config = format!("[serve]\ndrain_s = 600\n{DIAGNOSTICS}");
    let mut gateway = Gateway::with_environment(&config, &["--workers", "1"], &environment);
    hear(&manager, "READY=1");
    hear(&manager, "WATCHDOG=1");
    let mut player = Player::new(&gateway, &none());
    player.play_until(64, 48, "pictures", |player| player.of_sent_frames().count() >= 10);
    gateway.signal(Signal::TERM);
    hear(&manager, "STOPPING=1");
    gateway.wait("readiness to end", |gateway| gateway.answer("/readyz").0 == 503);
    assert_eq!(gateway.answer("/healthz").0, 200);
    let (status, retry, kind) = ask(&gateway, &offer(""));
    assert!(status == 503 && retry.is_some() && kind == "unavailable", "{status} {retry:?} {kind}");
    let before = player.of_sent_frames().count();
    player.play_until(64, 48, "pictures while the gateway stops", |player| player.of_sent_frames().count() >= before + 30);
    assert!(player.heard(0, "bye").is_empty());
    player.client.close().unwrap();
    // The gateway ends long before the limit.
    assert!(gateway.ended().success());
}

#[test]
fn sessions_are_told_the_reason_when_the_drain_time_ends() {
    for (drain_s, reason) in [(0, "stopping"), (1, "draining")] {
        let config = format!("[serve]\ndrain_s = {drain_s}\n{DIAGNOSTICS}");
        let mut gateway = Gateway::start(&config, &["--workers", "1"]);
        let mut client = Client::connect(&gateway.url, &none()).unwrap();
        gateway.signal(Signal::TERM);
        assert!(hears_bye(&mut client, reason), "{reason}");
        assert!(gateway.ended().success());
    }
}

#[test]
fn a_browser_that_is_gone_and_a_second_signal_hold_up_no_stop() {
    let mut gateway = Gateway::start(DIAGNOSTICS, &["--workers", "1"]);
    let client = Client::connect(&gateway.url, &none()).unwrap();
    client.vanish();
    gateway.signal(Signal::TERM);
    assert!(gateway.ended().success(), "it waits for the acknowledgement for a second only");

    let mut gateway = Gateway::start(&format!("[serve]\ndrain_s = 600\n{DIAGNOSTICS}"), &["--workers", "1"]);
    let _client = Client::connect(&gateway.url, &none()).unwrap();
    gateway.signal(Signal::TERM);
    gateway.wait("readiness to end", |gateway| gateway.answer("/readyz").0 == 503);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().code(), Some(130));
}

#[test]
fn a_worker_that_is_busy_for_long_holds_up_no_stop() {
    let mut gateway = Gateway::start(DIAGNOSTICS, &["--workers", "1"]);
    let wish = Wish { effect: Some("delay".into()), params: json!({"ms": 5000}), paced: false, ..Wish::default() };
    let mut player = Player::new(&gateway, &wish);
    player.play_until(64, 48, "the worker to be busy", |_| gateway.metric("ooblex_frames_admitted_total") >= 1.0);
    gateway.signal(Signal::TERM);
    assert!(gateway.ended().success());
    gateway.wait("a line in the log", |gateway| gateway.said().contains("has not ended in time"));
}

#[test]
fn a_gateway_that_was_suspended_goes_on() {
    let gateway = Gateway::start(DIAGNOSTICS, &["--workers", "1"]);
    gateway.signal(Signal::STOP);
    // The time exceeds the watchdog's limit for a media thread.
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        std::thread::park_timeout(FRAME);
    }
    gateway.signal(Signal::CONT);
    let mut player = Player::new(&gateway, &none());
    player.play_until(64, 48, "pictures", |player| player.of_sent_frames().count() >= 60);
    assert_eq!(gateway.answer("/healthz").0, 200);
}

#[test]
fn a_limit_of_sessions_holds_when_offers_come_together() {
    let gateway = Gateway::start("[limits]\nsessions_per_address = 5\n", &["--workers", "1"]);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..20).map(|_| scope.spawn(|| ask(&gateway, &offer("")))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let taken = answers.iter().filter(|(status, ..)| *status == 200).count();
    assert_eq!(taken, 5, "{answers:?}");
    match Client::connect(&gateway.url, &none()) {
        Err(ClientError::Refused(429, problem)) => assert_eq!(problem["type"], "urn:ooblex:problem:too-many-of-address"),
        other => panic!("{:?}", other.err()),
    }
}
