//! Tests of the limits on what a session may send, and of their protection of other sessions.

use crate::common::{Gateway, PLENTY, Player, play_together};
use ooblex_client::{Client, ClientError, Wish};
use ooblex_pipeline::VideoCodec;
use serde_json::{Value, json};

#[test]
fn a_session_that_sends_too_much_is_told_and_takes_from_itself_only() {
    let config = "[diagnostics]\neffects = true\n[limits]\nsession_packets = 100\n";
    let gateway = Gateway::start(config, &["--workers", "1"]);
    let wish = Wish { effect: Some("none".into()), paced: false, ..Wish::default() };
    // A picture of this session fits into one packet.
    let mut modest = Player::new(&gateway, &wish);
    // A picture of this session has about eight packets, and there are thirty pictures per second.
    let mut greedy = Player::new(&gateway, &wish);
    greedy.play_until(640, 480, "to be told", |player| {
        player.heard(0, "error").iter().any(|error| error["problem"]["type"] == "urn:ooblex:problem:too-fast")
    });
    let problem = &greedy.heard(0, "error")[0]["problem"];
    let detail = problem["detail"].as_str().unwrap();
    assert!(problem["status"] == 429 && detail.contains("100 packets") && detail.contains("limits.session_packets"), "{problem}");
    assert!(gateway.metric("ooblex_datagrams_refused_total") > 0.0);
    let refused = gateway.metric("ooblex_datagrams_refused_total");
    play_together(std::slice::from_mut(&mut modest), (64, 48), PLENTY, "thirty pictures", |players| {
        players[0].of_sent_frames().count() >= 30
    });
    assert!(modest.heard(0, "error").is_empty(), "who sends little is told nothing");
    assert_eq!(gateway.json("/api/sessions")["sessions"].as_array().unwrap().len(), 2, "and nobody is thrown out");
    assert!(gateway.metric("ooblex_datagrams_refused_total") >= refused);
    assert!(greedy.shown.is_sorted_by(|a, b| a.capture < b.capture));
}

#[test]
fn a_picture_beyond_the_limit_comes_back_smaller_in_the_same_shape() {
    let gateway = Gateway::start("[limits]\nframe_kilopixels = 50\n", &["--workers", "1"]);
    for codec in [VideoCodec::Vp8, VideoCodec::H264] {
        let wish = Wish { codecs: vec![codec], effect: Some("none".into()), ..Wish::default() };
        let mut player = Player::new(&gateway, &wish);
        let told = |player: &Player, received: &Value, processed: &Value| {
            player.heard(0, "stats").iter().any(|stats| stats["received"] == *received && stats["processed"] == *processed)
        };
        let (large, scaled) = (json!({"width": 640, "height": 480}), json!({"width": 240, "height": 180}));
        player.play_until(640, 480, "statistics with both sizes", |player| told(player, &large, &scaled));
        assert!(player.shown.iter().all(|shown| shown.picture.width() * 3 == shown.picture.height() * 4), "all have the same shape");
        assert!(player.shown.iter().any(|shown| shown.picture.width() == 240));
        assert!(player.shown.iter().all(|shown| shown.picture.width() <= 240));
        let small = json!({"width": 160, "height": 120});
        player.play_until(160, 120, "statistics with one size", |player| told(player, &small, &small));
        assert!(player.heard(0, "error").is_empty());
    }
    assert_eq!(gateway.metric_of("ooblex_frames_undecodable_total", "reason=\"size\""), 0.0);
}

#[test]
fn sessions_of_one_address_have_a_limit_of_their_own() {
    let config = "[limits]\nsessions_per_address = 2\n[serve]\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let gateway = Gateway::start(config, &["--workers", "1"]);
    let _own: Vec<_> = (0..2).map(|_| Client::connect(&gateway.url, &Wish::default()).unwrap()).collect();
    match Client::connect(&gateway.url, &Wish::default()) {
        Err(ClientError::Refused(429, problem)) => {
            assert_eq!(problem["type"], "urn:ooblex:problem:too-many-of-address");
            assert!(problem["detail"].as_str().unwrap().contains("limits.sessions_per_address"), "{problem}");
        }
        other => panic!("{:?}", other.err()),
    }
    // The address that a proxy on this machine reports counts as the client's, but an address
    // reported by an untrusted proxy behind it does not.
    let offer = |forwarded: &str| {
        let request = ureq::post(format!("{}/offer", gateway.url)).config().http_status_as_error(false).build();
        let answer =
            request.header("X-Forwarded-For", forwarded).header("content-type", "application/json").send("{\"sdp\": \"\"}").unwrap();
        let problem: Value = answer.into_body().read_json().unwrap();
        problem["type"].as_str().unwrap().to_string()
    };
    assert_eq!(offer("127.0.0.1"), "urn:ooblex:problem:too-many-of-address");
    assert_eq!(offer("203.0.113.7"), "urn:ooblex:problem:bad-sdp", "somebody else, whose offer is looked at");
    assert_eq!(offer("203.0.113.7, 127.0.0.1"), "urn:ooblex:problem:bad-sdp", "through two proxies");
    assert_eq!(offer("203.0.113.7, nonsense"), "urn:ooblex:problem:too-many-of-address", "nobody knows, so it is this one");
}
