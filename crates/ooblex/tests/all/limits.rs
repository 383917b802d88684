//! Tests of the limits on what a session may send, and of their protection of other sessions.

use crate::common::{Gateway, PLENTY, Player, play_together};
use ooblex_client::{Client, ClientError, Wish};

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
        let problem: serde_json::Value = answer.into_body().read_json().unwrap();
        problem["type"].as_str().unwrap().to_string()
    };
    assert_eq!(offer("127.0.0.1"), "urn:ooblex:problem:too-many-of-address");
    assert_eq!(offer("203.0.113.7"), "urn:ooblex:problem:bad-sdp", "somebody else, whose offer is looked at");
    assert_eq!(offer("203.0.113.7, 127.0.0.1"), "urn:ooblex:problem:bad-sdp", "through two proxies");
    assert_eq!(offer("203.0.113.7, nonsense"), "urn:ooblex:problem:too-many-of-address", "nobody knows, so it is this one");
}
