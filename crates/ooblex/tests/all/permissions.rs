//! Tests of authorization: every route with every kind of caller, and the restrictions of tokens.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::common::{FRAME, Gateway, Player, WITHIN, scenes, temporary_folder};
use ooblex_api::auth::{jwt, keys};
use ooblex_api::http::access::{Need, ROUTES};
use ooblex_client::{Client, ClientError, Wish};
use ooblex_codec::{Encoder, EncoderConfig, Speed};
use ooblex_config::Secret;
use ooblex_pipeline::{MediaTime, VideoCodec};
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use parking_lot::Mutex;
use serde_json::{Value, json};

/// Options of a gateway with cheap effects, and with `none` as the default.
const CHEAP: &[&str] = &["--workers", "1", "--effects", "delay", "--diagnostics", "--effect", "none"];
const SECRET: &str = "a shared secret for tests that has 48 bytes in it";
/// An offer that is accepted, but whose session is never connected.
const SDP: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\n\
     a=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=ice-options:trickle\r\na=fingerprint:sha-256 \
     AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB\r\na=setup:actpass\r\na=mid:0\r\n\
     a=sendrecv\r\na=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\n";

/// An answer of the gateway.
#[derive(Debug)]
struct Answer {
    status: u16,
    body: Value,
    challenge: Option<String>,
    retry_after: Option<u64>,
}

impl Answer {
    fn kind(&self) -> &str {
        self.body["type"].as_str().unwrap_or_default().trim_start_matches("urn:ooblex:problem:")
    }
}

/// Sends a request with a credential and additional headers. An endless body is not read.
fn ask_with(gateway: &Gateway, method: &str, path: &str, token: Option<&str>, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(WITHIN)).build();
    let agent = ureq::Agent::new_with_config(config);
    let url = gateway.url.replace("0.0.0.0", "127.0.0.1");
    let mut request = ureq::http::Request::builder().method(method).uri(format!("{url}{path}")).header("content-type", "application/json");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = match body {
        Some(body) => agent.run(request.body(body.to_string()).unwrap()),
        None if method == "POST" => agent.run(request.body(String::new()).unwrap()),
        None => agent.run(request.body(()).unwrap()),
    }
    .unwrap();
    let text = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_string());
    let (challenge, retry_after) = (text("www-authenticate"), text("retry-after").map(|value| value.parse().unwrap()));
    let is_endless = text("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
    let body = if is_endless { Value::Null } else { response.body_mut().read_json().unwrap_or(Value::Null) };
    Answer { status: response.status().as_u16(), body, challenge, retry_after }
}

fn ask(gateway: &Gateway, method: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> Answer {
    ask_with(gateway, method, path, token, &[], body)
}

fn offer(effect: Option<&str>) -> Value {
    json!({"sdp": SDP, "type": "offer", "effect": effect})
}

fn begin(gateway: &Gateway, token: Option<&str>, effect: Option<&str>) -> Answer {
    ask(gateway, "POST", "/offer", token, Some(&offer(effect)))
}

/// Begins a session, and returns its id and secret.
fn session(gateway: &Gateway, token: Option<&str>) -> (String, String) {
    let Answer { status, body, .. } = begin(gateway, token, None);
    assert_eq!(status, 200, "{body}");
    (body["session"].as_str().unwrap().into(), body["secret"].as_str().unwrap().into())
}

fn ooblex(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_ooblex")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Creates a key with `ooblex token key`, and returns it with the configuration that accepts it.
fn key(role: &str) -> (String, String) {
    let printed = ooblex(&["token", "key", "--role", role, "--name", &format!("the {role} of tests")]);
    let (key, lines) = printed.split_once('\n').unwrap();
    (key.to_string(), lines.to_string())
}

fn sign(claims: &Value) -> String {
    let secret: Secret = serde_json::from_value(json!(SECRET)).unwrap();
    jwt::sign(claims, &secret, None).unwrap()
}

/// Returns a token with these claims and a lifetime of `seconds` seconds.
fn lasting(seconds: u64, claims: Value) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let mut claims = claims;
    claims["exp"] = json!(now + seconds);
    sign(&claims)
}

fn with_tokens() -> Gateway {
    Gateway::start(&format!("[auth]\nmode = \"jwt\"\n[auth.jwt]\nsecret = \"{SECRET}\"\n"), CHEAP)
}

/// Returns the value of a metric with a label, requested as an operator.
fn metric(gateway: &Gateway, admin: &str, name: &str, label: &str) -> f64 {
    let config = ureq::Agent::config_builder().timeout_global(Some(WITHIN)).build();
    let request = ureq::Agent::new_with_config(config).get(format!("{}/metrics", gateway.url));
    let text = request.header("authorization", format!("Bearer {admin}")).call().unwrap().body_mut().read_to_string().unwrap();
    let line = text.lines().find(|line| line.starts_with(name) && line.contains(label)).unwrap_or_else(|| panic!("{name} {label}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Waits for a message of this type.
fn hear(player: &mut Player, kind: &str) -> Value {
    let deadline = Instant::now() + WITHIN;
    loop {
        if let Some(message) = player.heard(0, kind).first() {
            return (*message).clone();
        }
        assert!(Instant::now() < deadline, "no {kind} was heard: {:?}", player.messages);
        player.listen(FRAME);
    }
}

// Table of routes and callers

#[test]
fn every_route_is_open_to_whom_the_table_says() {
    let [(publish, a), (view, b), (admin, c)] = ["publish", "view", "admin"].map(key);
    let proxy = "[serve]\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let gateway = Gateway::start(&format!("[auth]\nmode = \"keys\"\n{a}{b}{c}{proxy}"), CHEAP);
    let wrong = keys::generate();
    let change = json!({"effect": "sepia"});
    // Columns: method, route, path, body, and the expected status for callers with no credential, a
    // wrong key, the roles view, publish and admin, the secret of the session, and that of another
    // session.
    const OPEN: [u16; 7] = [200; 7];
    const PUBLISHERS: [u16; 7] = [401, 401, 403, 404, 404, 403, 403];
    const VIEWERS: [u16; 7] = [401, 401, 404, 403, 404, 403, 403];
    const OPERATORS: [u16; 7] = [401, 401, 403, 403, 200, 403, 403];
    const OF_SESSION: [u16; 7] = [401, 401, 403, 403, 200, 200, 403];
    let end = OF_SESSION.map(|status| if status == 200 { 204 } else { status });
    let instead = |other: u16| move |status: u16| if status == 200 { other } else { status };
    let (no_peer, no_link) = (instead(403), instead(404));
    let table = [
        ("POST", "/offer", "/offer", Some(offer(None)), [401, 401, 403, 200, 200, 403, 403]),
        ("GET", "/api/effects", "/api/effects", None, OPEN),
        ("POST", "/api/effects/reload", "/api/effects/reload", None, OPERATORS),
        ("GET", "/api/effects/{name}/thumbnail.png", "/api/effects/sepia/thumbnail.png", None, OPEN),
        // Those who may are told that the body is no SDP, or that there is no such session.
        ("GET", "/whip/{room}", "/whip/a", None, [204; 7]),
        ("POST", "/whip/{room}", "/whip/a", Some(json!({})), PUBLISHERS.map(|status| if status == 404 { 415 } else { status })),
        ("GET", "/whip/{room}/{secret}", "/whip/a/obs_0", None, PUBLISHERS),
        ("PATCH", "/whip/{room}/{secret}", "/whip/a/obs_0", Some(json!({})), PUBLISHERS),
        ("DELETE", "/whip/{room}/{secret}", "/whip/a/obs_0", None, PUBLISHERS),
        ("GET", "/whep/{room}", "/whep/a", None, OPEN),
        ("POST", "/whep/{room}", "/whep/a", Some(json!({})), VIEWERS.map(|status| if status == 404 { 415 } else { status })),
        ("GET", "/whep/{room}/{secret}", "/whep/a/obs_0", None, VIEWERS),
        ("PATCH", "/whep/{room}/{secret}", "/whep/a/obs_0", Some(json!({})), VIEWERS),
        ("DELETE", "/whep/{room}/{secret}", "/whep/a/obs_0", None, VIEWERS),
        ("GET", "/whep/{room}/{secret}/events", "/whep/a/obs_0/events", None, VIEWERS),
        ("POST", "/whep/{room}/{secret}/events", "/whep/a/obs_0/events", Some(json!(["active"])), VIEWERS),
        ("GET", "/rooms/{room}/snapshot.jpg", "/rooms/a/snapshot.jpg", None, VIEWERS),
        ("GET", "/rooms/{room}/stream.mjpeg", "/rooms/a/stream.mjpeg", None, VIEWERS),
        ("GET", "/api/rooms", "/api/rooms", None, [401, 401, 200, 403, 200, 403, 403]),
        // The role admin is told that nobody publishes to the room, or that there is no such file.
        ("GET", "/api/rooms/{room}/recordings", "/api/rooms/a/recordings", None, OPERATORS),
        ("POST", "/api/rooms/{room}/recordings", "/api/rooms/a/recordings", None, OPERATORS.map(instead(409))),
        ("DELETE", "/api/rooms/{room}/recordings", "/api/rooms/a/recordings", None, OPERATORS.map(instead(204))),
        ("GET", "/api/rooms/{room}/recordings/{file}", "/api/rooms/a/recordings/20261130T211058Z.webm", None, OPERATORS.map(no_link)),
        // The role admin is told that the URL is not within rooms.peers, or that there is no such link.
        ("GET", "/api/pulls", "/api/pulls", None, OPERATORS),
        ("POST", "/api/pulls", "/api/pulls", Some(json!({"room": "a", "whep": "https://media.example/a"})), OPERATORS.map(no_peer)),
        ("DELETE", "/api/pulls/{id}", "/api/pulls/1", None, OPERATORS.map(no_link)),
        ("GET", "/api/pushes", "/api/pushes", None, OPERATORS),
        ("POST", "/api/pushes", "/api/pushes", Some(json!({"room": "a", "whip": "https://media.example/a"})), OPERATORS.map(no_peer)),
        ("DELETE", "/api/pushes/{id}", "/api/pushes/1", None, OPERATORS.map(no_link)),
        ("GET", "/api/sessions", "/api/sessions", None, OPERATORS),
        ("GET", "/api/sessions/{id}", "/api/sessions/ID", None, OF_SESSION),
        ("PATCH", "/api/sessions/{id}", "/api/sessions/ID", Some(change), OF_SESSION),
        ("GET", "/api/sessions/{id}/events", "/api/sessions/ID/events", None, OF_SESSION),
        ("DELETE", "/api/sessions/{id}", "/api/sessions/ID", None, end),
        ("GET", "/healthz", "/healthz", None, OPEN),
        ("GET", "/readyz", "/readyz", None, OPEN),
        ("GET", "/metrics", "/metrics", None, OPERATORS),
        ("GET", "/", "/", None, OPEN),
        ("GET", "/page/page.js", "/page/page.js", None, OPEN),
        ("GET", "/sdk/ooblex.js", "/sdk/ooblex.js", None, OPEN),
    ];
    let of_api: BTreeSet<_> = ROUTES.iter().map(|(method, route, _)| (method.as_str(), *route)).collect();
    let in_table: BTreeSet<_> = table.iter().map(|(method, route, ..)| (*method, *route)).filter(|(_, route)| *route != "/").collect();
    let files = in_table.iter().filter(|(_, route)| route.starts_with("/page/") || route.starts_with("/sdk/")).count();
    assert!(of_api.is_subset(&in_table) && in_table.len() == of_api.len() + files, "a route without a row in this test: {of_api:?}");

    let end_all = || {
        for session in ask(&gateway, "GET", "/api/sessions", Some(&admin), None).body["sessions"].as_array().unwrap() {
            ask(&gateway, "DELETE", &format!("/api/sessions/{}", session["id"].as_str().unwrap()), Some(&admin), None);
        }
    };
    let mut failed = Vec::new();
    for (row, (method, route, path, body, expected)) in table.iter().enumerate() {
        // Each row has an address of its own, because failed attempts of an address are slowed down.
        let address = format!("192.0.2.{row}");
        // Sessions that are never connected are ended before they expire.
        end_all();
        let [own, other] = [(); 2].map(|()| session(&gateway, Some(&publish)));
        let callers = [None, Some(&wrong), Some(&view), Some(&publish), Some(&admin), Some(&own.1), Some(&other.1)];
        for (who, (credential, expected)) in
            ["none", "wrong", "view", "publish", "admin", "own", "other"].iter().zip(callers.into_iter().zip(expected))
        {
            // A session that a caller has ended is replaced for the next caller.
            let (id, secret) = if *method == "DELETE" && *expected == 204 { session(&gateway, Some(&publish)) } else { own.clone() };
            let credential = if *who == "own" { Some(&secret) } else { credential };
            let headers = [("x-forwarded-for", address.as_str())];
            let answer = ask_with(&gateway, method, &path.replace("ID", &id), credential.map(String::as_str), &headers, body.as_ref());
            let (kind, challenge) = (answer.kind(), answer.challenge.as_deref());
            let fits = match answer.status {
                401 => (kind, challenge) == ("unauthorized", Some("Bearer")),
                403 => (kind, challenge) == ("forbidden", None),
                _ => challenge.is_none(),
            };
            if answer.status != *expected || !fits {
                failed.push(format!("{method} {route} as {who}: {} {kind} {challenge:?} instead of {expected}", answer.status));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(metric(&gateway, &admin, "ooblex_unauthorized_total", "reason=\"unknown_key\"") >= 8.0);
    assert!(metric(&gateway, &admin, "ooblex_unauthorized_total", "reason=\"missing\"") >= 8.0);
    assert!(ROUTES.iter().all(|(_, route, need)| *need != Need::Public || !route.contains("session")));
}

#[test]
fn only_operators_are_told_why_an_effect_was_refused() {
    let folder = temporary_folder();
    std::fs::create_dir_all(folder.join("broken")).unwrap();
    std::fs::write(folder.join("broken/effect.toml"), "nonsense").unwrap();
    let ((publish, a), (admin, b)) = (key("publish"), key("admin"));
    let own = format!("[own_effects]\nfolder = {:?}\n", folder.to_str().unwrap());
    let gateway = Gateway::start(&format!("{own}[auth]\nmode = \"keys\"\n{a}{b}"), CHEAP);
    let list = |token: Option<&str>| ask(&gateway, "GET", "/api/effects", token, None);
    gateway.wait("the refusal", |_| list(None).body["refused"][0]["folder"] == "broken");
    for token in [None, Some(&*publish), Some("no key"), Some("obs_0")] {
        let listed = list(token);
        assert_eq!((listed.status, &listed.body["refused"]), (200, &json!([{"folder": "broken"}])), "{token:?}");
        assert!(!listed.body.to_string().contains(folder.to_str().unwrap()), "{token:?}");
    }
    let reason = list(Some(&admin)).body["refused"][0]["reason"].clone();
    assert!(reason.as_str().unwrap().contains("broken/effect.toml:1"), "{reason}");
    assert!(metric(&gateway, &admin, "ooblex_unauthorized_total", "reason=\"unknown_key\"") >= 1.0, "guesses are counted");
    // Without authentication, operators are programs on this machine that do not come by a proxy.
    let gateway = Gateway::start(&own, CHEAP);
    let list = |headers: &[(&str, &str)]| ask_with(&gateway, "GET", "/api/effects", None, headers, None).body["refused"][0].clone();
    gateway.wait("the refusal", |_| list(&[])["folder"] == "broken");
    assert!(list(&[])["reason"].as_str().unwrap().contains("broken/effect.toml:1"));
    assert_eq!(list(&[("x-forwarded-for", "192.0.2.1")]), json!({"folder": "broken"}));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn viewers_list_the_rooms_that_they_may_watch_and_nobody_else_lists_any() {
    let gateway = with_tokens();
    let wish = Wish { token: Some(lasting(600, json!({"publish": true}))), ..Wish::default() };
    let _publishers = ["lobby", "team-1", "team-2"].map(|room| Client::publish(&gateway.url, room, &wish).unwrap());
    let list = |claims: Value| ask(&gateway, "GET", "/api/rooms", Some(&lasting(600, claims)), None);
    let room = |name: &str| json!({"room": name, "active": false, "viewer_count": 0});
    for (claims, expected) in [
        (json!({"view": ["team-*"]}), json!([room("team-1"), room("team-2")])),
        (json!({"view": ["lobby", "empty"], "publish": true}), json!([room("lobby")])),
        (json!({"view": ["other-*"]}), json!([])),
    ] {
        let listed = list(claims);
        assert_eq!((listed.status, listed.body), (200, json!({"rooms": expected})));
    }
    let all = list(json!({"role": "admin"})).body;
    assert!(all["rooms"].as_array().unwrap().len() == 3 && all["rooms"][0]["publisher"].is_string() && all["pulls"].is_array(), "{all}");
    for claims in [json!({"publish": true}), json!({"view": []}), json!({"view": false})] {
        assert_eq!(list(claims).kind(), "forbidden");
    }
    assert_eq!(ask(&gateway, "GET", "/api/rooms", None, None).status, 401);
    // Without authentication, only programs on this machine list rooms.
    let gateway = Gateway::start("", CHEAP);
    let _publisher = Client::publish(&gateway.url, "lobby", &Wish::default()).unwrap();
    let list = |headers: &[(&str, &str)]| ask_with(&gateway, "GET", "/api/rooms", None, headers, None);
    assert_eq!(list(&[]).body["rooms"][0]["room"], "lobby");
    for foreign in [("x-forwarded-for", "192.0.2.1"), ("origin", "https://elsewhere.example")] {
        let refused = list(&[foreign]);
        assert_eq!((refused.status, refused.kind()), (403, "forbidden"), "{foreign:?}");
    }
}

#[test]
fn a_session_that_has_ended_is_distinguished_from_that_of_another() {
    let ((publish, a), (admin, b)) = (key("publish"), key("admin"));
    let gateway = Gateway::start(&format!("[auth]\nmode = \"keys\"\n{a}{b}"), CHEAP);
    let ((id, secret), other) = (session(&gateway, Some(&publish)), session(&gateway, Some(&publish)));
    let get = |id: &str, token: &str| ask(&gateway, "GET", &format!("/api/sessions/{id}"), Some(token), None);
    assert_eq!(get(&id, &other.1).status, 403);
    assert_eq!(ask(&gateway, "GET", &format!("/api/sessions/{id}?token={secret}"), None, None).status, 200, "where headers cannot be set");
    assert_eq!(ask(&gateway, "DELETE", &format!("/api/sessions/{id}"), Some(&secret), None).status, 204);
    gateway.wait("the end", |_| get(&id, &admin).status == 404);
    // A page that reconnects to its session is not throttled, even with many requests.
    for _ in 0..30 {
        let over = get(&id, &secret);
        assert_eq!((over.status, over.kind()), (404, "unknown-session"));
    }
    let ended_twice = ask(&gateway, "DELETE", &format!("/api/sessions/{id}"), Some(&secret), None).status;
    assert_eq!(ended_twice, 204, "what was asked for has come about");
    assert_eq!(get(&id, &other.1).status, 403);
    assert_eq!(get(&other.0, &secret).status, 401);
    assert_eq!(begin(&gateway, Some(&secret), None).status, 401);
    assert_eq!(begin(&gateway, Some(&publish), None).status, 200);
}

#[test]
fn one_address_has_a_limit_of_event_streams_and_operators_have_none() {
    let ((publish, a), (admin, b)) = (key("publish"), key("admin"));
    // A quarter of eight connections may be streams.
    let config = format!("[limits]\nconnections_per_address = 8\n[auth]\nmode = \"keys\"\n{a}{b}");
    let gateway = Gateway::start(&config, CHEAP);
    let (id, secret) = session(&gateway, Some(&publish));
    let path = format!("/api/sessions/{id}/events");
    let open = |token: &str| {
        let request = ureq::get(format!("{}{path}", gateway.url)).header("authorization", format!("Bearer {token}"));
        request.call().unwrap()
    };
    let mut streams = vec![open(&secret), open(&secret)];
    let refused = ask(&gateway, "GET", &path, Some(&secret), None);
    assert_eq!((refused.status, refused.kind()), (429, "too-many-readers"));
    assert!(refused.retry_after.is_some());
    streams.push(open(&admin));
    streams.remove(0);
    gateway.wait("a free place", |_| open_status(&gateway, &path, &secret) == 200);
}

/// Returns the status of a stream of events, which is closed again.
fn open_status(gateway: &Gateway, path: &str, token: &str) -> u16 {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(WITHIN)).build();
    let request = ureq::Agent::new_with_config(config).get(format!("{}{path}", gateway.url));
    request.header("authorization", format!("Bearer {token}")).call().unwrap().status().as_u16()
}

// Gateways without auth.mode

#[test]
fn a_gateway_that_others_reach_does_not_start_until_somebody_has_decided_who_may_use_it() {
    let said = Gateway::refuse(&["--listen", "0.0.0.0:0"]);
    for word in ["auth.mode", "\"none\"", "\"keys\"", "\"jwt\"", "\"hook\"", "OOBLEX_AUTH__MODE"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let output =
        Command::new(env!("CARGO_BIN_EXE_ooblex")).args(["check", "--listen", "0.0.0.0:0", "--media", "127.0.0.1:0"]).args(CHEAP).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && said.contains("WRONG auth") && said.contains("auth.mode"), "{said}");

    let gateway = Gateway::start("auth.mode = \"none\"\n", &[CHEAP, &["--listen", "0.0.0.0:0"]].concat());
    let (id, secret) = session(&gateway, None);
    for path in ["/api/sessions", "/metrics"] {
        let answer = ask(&gateway, "GET", path, None, None);
        assert_eq!((answer.status, answer.kind()), (403, "forbidden"), "{path}");
        assert!(answer.body["detail"].as_str().unwrap().contains("serve.admin_listen"), "{answer:?}");
    }
    assert_eq!(ask(&gateway, "POST", "/api/effects/reload", None, None).status, 403);
    let path = format!("/api/sessions/{id}");
    for (token, status) in [(None, 401), (Some("wrong"), 401), (Some(secret.as_str()), 200)] {
        assert_eq!(ask(&gateway, "PATCH", &path, token, Some(&json!({"effect": "sepia"}))).status, status, "{token:?}");
    }
}

#[test]
fn on_this_machine_everybody_is_the_operator_but_who_comes_through_a_proxy() {
    let gateway = Gateway::start("", CHEAP);
    let (id, secret) = session(&gateway, None);
    let path = format!("/api/sessions/{id}");
    for path in ["/api/sessions", "/metrics", path.as_str()] {
        assert_eq!(ask(&gateway, "GET", path, None, None).status, 200, "{path}");
        for header in [
            ("x-forwarded-for", "203.0.113.7"),
            ("forwarded", "for=203.0.113.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-for", "127.0.0.1"),
        ] {
            let answer = ask_with(&gateway, "GET", path, None, &[header], None);
            assert!([401, 403].contains(&answer.status), "{path} {header:?}: {answer:?}");
        }
    }
    let forwarded = [("x-forwarded-for", "203.0.113.7")];
    assert_eq!(ask_with(&gateway, "GET", &path, Some(&secret), &forwarded, None).status, 200);
    assert_eq!(ask_with(&gateway, "POST", "/offer", None, &forwarded, Some(&offer(None))).status, 200);
}

// Tokens

#[test]
fn a_session_ends_with_its_token() {
    let gateway = with_tokens();
    let admin = lasting(600, json!({"admin": true}));
    let token = lasting(9, json!({"publish": "*"}));
    let begun = begin(&gateway, Some(&token), None).body;
    assert!(begun["expires_in_s"].as_u64().unwrap() <= 9, "{begun}");
    ask(&gateway, "DELETE", &format!("/api/sessions/{}", begun["session"].as_str().unwrap()), begun["secret"].as_str(), None);
    let mut player = Player::new(&gateway, &Wish { token: Some(token.clone()), ..Wish::default() });
    assert_eq!(hear(&mut player, "bye")["reason"], "expired");
    gateway.wait("it to be counted", |_| metric(&gateway, &admin, "ooblex_sessions_ended_total", "reason=\"expired\"") == 1.0);
    assert_eq!(ask(&gateway, "GET", "/api/sessions", Some(&admin), None).body["sessions"], json!([]));
    let endless = begin(&gateway, Some(&admin), None);
    assert!(endless.status == 200 && endless.body["expires_in_s"].as_u64().unwrap() > 500, "{endless:?}");
}

#[test]
fn a_stream_of_pictures_ends_with_its_token() {
    let gateway = with_tokens();
    let publisher = lasting(600, json!({"publish": ["lobby"]}));
    let mut camera = Client::publish(&gateway.url, "lobby", &Wish { token: Some(publisher), ..Wish::default() }).unwrap();
    let config = EncoderConfig { codec: VideoCodec::Vp8, bitrate_bps: 1_000_000, frame_rate: 30.0, speed: Speed::Fast };
    let (mut encoder, scenes) = (Encoder::new(config).unwrap(), scenes(320, 240));
    let mut next = 0_u64;
    let mut play = || {
        let frame = encoder.encode(&scenes[next as usize % scenes.len()], MediaTime(90_000 + next * 3000), false).unwrap().unwrap();
        next += 1;
        camera.send_frame(&frame, None).unwrap();
        let until = Instant::now() + FRAME;
        while camera.poll(until).unwrap().is_some() {}
    };
    // The query is for dashboards, which cannot set headers.
    let token = lasting(3, json!({"view": ["lobby"]}));
    let (url, began) = (format!("{}/rooms/lobby/stream.mjpeg?fps=10&token={token}", gateway.url), Instant::now());
    let reading = std::thread::spawn(move || {
        let mut stream = Vec::new();
        ureq::get(url).call().unwrap().into_body().into_reader().read_to_end(&mut stream).unwrap();
        (stream.len(), Instant::now())
    });
    while !reading.is_finished() {
        assert!(began.elapsed() < WITHIN, "it goes on without a token");
        play();
    }
    let (bytes, ended) = reading.join().unwrap();
    assert!(bytes > 10_000 && ended - began > Duration::from_millis(1500), "{bytes} bytes in {:?}", ended - began);
    let other = lasting(600, json!({"view": ["hall"]}));
    assert_eq!(ask(&gateway, "GET", "/rooms/lobby/snapshot.jpg", Some(&other), None).status, 403);
}

#[test]
fn who_may_not_take_the_effect_off_cannot_by_any_way() {
    let gateway = with_tokens();
    let (admin, token) = (lasting(600, json!({"admin": true})), lasting(600, json!({"publish": true, "effects": ["sepia", "delay"]})));
    // Attempts in the offer: other effects, no effect, and an unknown effect.
    for (effect, status, kind) in [
        ("none", 403, "forbidden"),
        ("background_blur", 403, "forbidden"),
        ("sepia+background_blur", 403, "forbidden"),
        ("nothing", 422, "unknown-effect"),
        ("sepia+none", 422, "bad-chain"),
    ] {
        let answer = begin(&gateway, Some(&token), Some(effect));
        assert_eq!((answer.status, answer.kind()), (status, kind), "{effect}");
    }
    let mut player = Player::new(&gateway, &Wish { token: Some(token.clone()), ..Wish::default() });
    let path = format!("/api/sessions/{}", player.client.session);
    let secret = player.client.secret.clone();
    let in_force = || ask(&gateway, "GET", &path, Some(&secret), None).body["effect"].clone();
    assert_eq!(in_force(), "sepia", "the default is none, and may not be had");
    // Attempts on the data channel.
    for (id, effect) in [(1, "none"), (2, "background_blur")] {
        player.client.say(&json!({"type": "set_effect", "effect": effect, "id": id})).unwrap();
    }
    let deadline = Instant::now() + WITHIN;
    while player.heard(0, "error").len() < 2 && Instant::now() < deadline {
        player.listen(FRAME);
    }
    assert!(
        player.heard(0, "error").iter().all(|error| error["problem"]["type"] == "urn:ooblex:problem:forbidden"),
        "{:?}",
        player.messages
    );
    assert_eq!((player.heard(0, "error").len(), in_force()), (2, json!("sepia")));
    // Attempts over the API.
    let change = |token: &str, change: Value| ask(&gateway, "PATCH", &path, Some(token), Some(&change)).status;
    assert_eq!(change(&secret, json!({"effect": "none"})), 403);
    assert_eq!((change(&token, json!({"effect": "none"})), in_force()), (403, json!("sepia")));
    assert_eq!((change(&secret, json!({"effect": "delay"})), in_force()), (200, json!("delay")));
    assert_eq!(change(&secret, json!({"effect": "sepia"})), 200);
    // Attempt by a reload of the effects.
    assert_eq!(ask(&gateway, "POST", "/api/effects/reload", Some(&admin), None).status, 200);
    assert_eq!(in_force(), "sepia");
    // An operator may remove the effect.
    assert_eq!((change(&admin, json!({"effect": "none"})), in_force()), (200, json!("none")));
}

#[test]
fn parameters_and_size_are_those_of_the_token() {
    let gateway = with_tokens();
    let claims = json!({"publish": true, "effects": ["delay"], "params": {"delay": {"ms": {"min": 5, "max": 50}}}, "max_kilopixels": 10});
    let token = lasting(600, claims);
    let asked = |ms: u64| ask(&gateway, "POST", "/offer", Some(&token), Some(&json!({"sdp": SDP, "params": {"ms": ms}}))).status;
    assert_eq!((asked(20), asked(0), asked(100)), (200, 403, 403));
    let answer = ask(&gateway, "POST", "/offer", Some(&token), Some(&json!({"sdp": SDP, "params": {"ms": 20}}))).body;
    assert_eq!(answer["frame_kilopixels"], 10);
    let mut player = Player::new(&gateway, &Wish { token: Some(token.clone()), ..Wish::default() });
    player.play_until(160, 120, "pictures of 19 kilopixels", |player| player.shown.len() >= 5);
    assert!(player.shown.iter().all(|shown| shown.picture.width() * shown.picture.height() <= 10_000));
}

#[test]
fn what_ooblex_signs_is_accepted_and_says_what_it_was_told() {
    let folder = temporary_folder();
    let file = folder.join("secret");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let file = file.to_str().unwrap();
    let config = format!(
        "[auth]\nmode = [\"jwt\", \"keys\"]\nkeys_file = \"keys.toml\"\n[auth.jwt]\nsecret_file = \"{file}\"\naudience = \"ooblex\"\n"
    );
    let (publish, lines) = key("publish");
    let keys_file = folder.join("keys.toml");
    std::fs::write(&keys_file, lines.replace("[[auth.keys]]", "[[keys]]")).unwrap();
    let gateway = Gateway::start(&config.replace("keys.toml", keys_file.to_str().unwrap()), CHEAP);
    let signed =
        |more: &[&str]| ooblex(&[&["token", "sign", "--secret-file", file, "--audience", "ooblex"], more].concat()).trim().to_string();
    let limited = signed(&["--publish", "*", "--effects", "sepia,delay", "--minutes", "1", "--param", "delay.ms={\"max\":30}"]);
    assert_eq!(begin(&gateway, Some(&limited), Some("none")).status, 403);
    let begun = begin(&gateway, Some(&limited), Some("sepia"));
    assert!(begun.status == 200 && begun.body["expires_in_s"].as_u64().unwrap() <= 60, "{begun:?}");
    assert_eq!(begin(&gateway, Some(&signed(&["--view", "*"])), None).status, 403);
    assert_eq!(ask(&gateway, "GET", "/api/sessions", Some(&signed(&["--admin"])), None).status, 200);
    assert_eq!(begin(&gateway, Some(&publish), None).status, 200, "keys are accepted beside tokens");
    std::fs::remove_dir_all(folder).unwrap();
}

// External servers (hook, JWKS)

/// Starts a server that answers each request with the result of `answer`, which receives its head
/// and body.
fn server(answer: impl Fn(&str, &str) -> String + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = Vec::new();
            let mut chunk = [0; 4096];
            let body = loop {
                let text = String::from_utf8_lossy(&request).into_owned();
                if let Some((head, body)) = text.split_once("\r\n\r\n") {
                    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
                    if body.len() >= length.unwrap_or(0_usize) {
                        break Some((head.to_string(), body.to_string()));
                    }
                }
                match stream.read(&mut chunk) {
                    Ok(length @ 1..) => request.extend_from_slice(&chunk[..length]),
                    _ => break None,
                }
            };
            if let Some((head, body)) = body {
                _ = stream.write_all(answer(&head, &body).as_bytes());
            }
        }
    });
    url
}

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn base64url(bytes: &[u8]) -> String {
    openssl::base64::encode_block(bytes).replace('+', "-").replace('/', "_").trim_end_matches('=').to_string()
}

#[test]
fn tokens_are_verified_with_public_keys_from_a_url() {
    let [ours, theirs] = [(); 2].map(|()| PKey::generate_ed25519().unwrap());
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "ours", "x": base64url(&ours.raw_public_key().unwrap())});
    let set = json!({"keys": [jwk]}).to_string();
    let asked = Arc::new(Mutex::new(0));
    let counted = asked.clone();
    let url = server(move |_, _| {
        *counted.lock() += 1;
        http("200 OK", &set)
    });
    let gateway = Gateway::start(&format!("[auth]\nmode = \"jwt\"\n[auth.jwt]\njwks_url = \"{url}/keys\"\n"), CHEAP);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let sign = |key: &PKey<openssl::pkey::Private>, header: Value| {
        let claims = json!({"exp": now + 600, "publish": true});
        let message = [header, claims].map(|part| base64url(part.to_string().as_bytes())).join(".");
        let signature = Signer::new_without_digest(key).unwrap().sign_oneshot_to_vec(message.as_bytes()).unwrap();
        format!("{message}.{}", base64url(&signature))
    };
    let header = |kid: &str| json!({"alg": "EdDSA", "kid": kid});
    assert_eq!(begin(&gateway, Some(&sign(&ours, header("ours"))), None).status, 200);
    assert_eq!(begin(&gateway, Some(&sign(&ours, json!({"alg": "EdDSA"}))), None).status, 200, "there is only one key");
    for (token, why) in [
        (sign(&theirs, header("ours")), "signed by another"),
        (sign(&ours, header("unknown")), "a key that is not known"),
        (sign(&ours, json!({"alg": "none", "kid": "ours"})), "no algorithm"),
        (sign(&ours, json!({"alg": "HS256", "kid": "ours"})), "another algorithm"),
    ] {
        let answer = begin(&gateway, Some(&token), None);
        assert_eq!((answer.status, answer.kind()), (401, "unauthorized"), "{why}");
    }
    assert_eq!(*asked.lock(), 1, "a token with an unknown key does not make the gateway ask at once again");
}

#[test]
fn without_the_public_keys_nobody_is_let_in_and_the_operator_is_told() {
    let url = server(|_, _| http("500 Broken", ""));
    let gateway = Gateway::start(&format!("[auth]\nmode = \"jwt\"\n[auth.jwt]\njwks_url = \"{url}/keys\"\n"), CHEAP);
    let answer = begin(&gateway, Some(&lasting(60, json!({"publish": true}))), None);
    assert_eq!((answer.status, answer.kind(), answer.retry_after.is_some()), (503, "unavailable", true));
    gateway.wait("a line in the log", |gateway| gateway.said().contains("public keys for tokens cannot be fetched"));
    let said = Gateway::refuse(&["--config", scratch("[auth]\nmode = \"jwt\"\n[auth.jwt]\njwks_url = \"http://id.example/\"\n").as_str()]);
    assert!(said.contains("auth.jwt.jwks_url") && said.contains("https://"), "{said}");
}

fn scratch(text: &str) -> String {
    let file = temporary_folder().join("ooblex.toml");
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().into()
}

#[test]
fn the_hook_is_asked_as_mediamtx_asks_and_only_its_yes_lets_in() {
    let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
    let kept = asked.clone();
    let url = server(move |head, body| {
        let question: Value = serde_json::from_str(body).unwrap_or_default();
        kept.lock().push(question.clone());
        match question["token"].as_str().unwrap_or_default() {
            _ if !head.starts_with("POST /ask") => http("200 OK", ""),
            "yes" => http("200 OK", "welcome"),
            "narrow" => http("200 OK", r#"{"effects": ["sepia"], "expires_in_s": 100}"#),
            "no" => http("401 Unauthorized", ""),
            "never" => http("403 Forbidden", ""),
            "elsewhere" => "HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".into(),
            "broken" => http("500 Broken", ""),
            "misspelt" => http("200 OK", r#"{"effects": "sepia"}"#),
            "silent" => {
                // The delay exceeds the gateway's timeout.
                std::thread::sleep(Duration::from_millis(1500));
                String::new()
            }
            _ if question["password"] == "open sesame" => http("204 Fine", ""),
            _ => http("401 Unauthorized", ""),
        }
    });
    let gateway = Gateway::start(&format!("[auth]\nmode = \"hook\"\nhook = {{ url = \"{url}/ask\", timeout_ms = 1000 }}\n"), CHEAP);
    for (token, status) in
        [("yes", 200), ("no", 401), ("never", 401), ("elsewhere", 503), ("broken", 503), ("misspelt", 503), ("silent", 503)]
    {
        assert_eq!(begin(&gateway, Some(token), None).status, status, "{token}");
    }
    let narrowed = begin(&gateway, Some("narrow"), None);
    assert_eq!((narrowed.status, narrowed.body["expires_in_s"].as_u64().is_some_and(|left| left <= 100)), (200, true));
    assert_eq!(begin(&gateway, Some("narrow"), Some("none")).status, 403);
    assert_eq!(begin(&gateway, None, None).status, 401);
    let basic = [("authorization", "Basic YW5uOm9wZW4gc2VzYW1l")];
    assert_eq!(ask_with(&gateway, "POST", "/offer?a=b", None, &basic, Some(&offer(None))).status, 200);
    assert_eq!(ask(&gateway, "GET", "/metrics", Some("yes"), None).status, 200);
    let asked = asked.lock();
    let expected = json!({
        "ip": "127.0.0.1", "user": "", "password": "", "token": "yes", "action": "publish", "path": "", "protocol": "webrtc", "id": null, "query": "",
    });
    assert_eq!(asked[0], expected);
    let with_password = asked.iter().find(|question| question["user"] == "ann").unwrap();
    assert_eq!((&with_password["password"], &with_password["query"]), (&json!("open sesame"), &json!("a=b")));
    assert_eq!(asked.last().unwrap()["action"], "metrics");
}

// Guessing of credentials, and its logs

#[test]
fn who_guesses_is_slowed_down_and_nobody_else() {
    let (admin, lines) = key("admin");
    let gateway = Gateway::start(&format!("[auth]\nmode = \"keys\"\n{lines}"), CHEAP);
    let from =
        |address: &str, token: Option<&str>| ask_with(&gateway, "GET", "/api/sessions", token, &[("x-forwarded-for", address)], None);
    for _ in 0..30 {
        assert_eq!(from("203.0.113.7", None).status, 401, "who shows nothing guesses nothing");
    }
    let statuses: Vec<_> = (0..30).map(|_| from("203.0.113.7", Some(&keys::generate())).status).collect();
    let let_through = statuses.iter().filter(|status| **status == 401).count();
    // The limit allows a burst of ten, and one more request every five seconds.
    assert!((10..20).contains(&let_through) && statuses.contains(&429), "{statuses:?}");
    let mut slowed = from("203.0.113.7", Some(&keys::generate()));
    while slowed.status != 429 {
        slowed = from("203.0.113.7", Some(&keys::generate()));
    }
    assert_eq!((slowed.kind(), slowed.retry_after.is_some_and(|wait| (1..=10).contains(&wait))), ("too-many-attempts", true), "{slowed:?}");
    assert_eq!(from("203.0.113.8", Some(&admin)).status, 200, "another address");
    assert_eq!(from("203.0.113.7", Some(&admin)).status, 200, "somebody at the same address whose key is valid");
}

#[test]
fn a_key_that_is_taken_out_of_the_file_is_refused_after_a_reload() {
    let folder = temporary_folder();
    let file = folder.join("keys.toml");
    let ((kept, kept_lines), (taken, taken_lines)) = (key("admin"), key("admin"));
    let in_file = |lines: &[&String]| {
        let text: String = lines.iter().map(|lines| lines.replace("[[auth.keys]]", "[[keys]]")).collect();
        // Editors save a file in this way: they write a new file and rename it.
        std::fs::write(folder.join("newer"), text).unwrap();
        std::fs::rename(folder.join("newer"), &file).unwrap();
    };
    in_file(&[&kept_lines, &taken_lines.replace("name = \"", "name = \"other-")]);
    let gateway = Gateway::start(&format!("[auth]\nmode = \"keys\"\nkeys_file = \"{}\"\n", file.display()), CHEAP);
    let status = |key: &str| ask_with(&gateway, "GET", "/api/sessions", Some(key), &[], None).status;
    assert_eq!((status(&kept), status(&taken)), (200, 200));
    in_file(&[&kept_lines]);
    gateway.signal(rustix::process::Signal::HUP);
    gateway.wait("the key to be refused", |_| status(&taken) != 200);
    assert_eq!(status(&kept), 200);
    std::fs::write(&file, "no TOML").unwrap();
    gateway.signal(rustix::process::Signal::HUP);
    gateway.wait("a line in the log", |gateway| gateway.said().contains("keys and secrets stay in force"));
    assert_eq!(status(&kept), 200, "what cannot be read changes nothing");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_page_of_another_host_is_not_taken_for_the_operator() {
    let gateway = Gateway::start("[serve]\nallow_origins = [\"*\"]\n", CHEAP);
    let (id, secret) = session(&gateway, None);
    let path = format!("/api/sessions/{id}");
    let of_page = |token: Option<&str>| ask_with(&gateway, "GET", &path, token, &[("origin", "https://elsewhere.example")], None).status;
    assert_eq!((of_page(None), of_page(Some(&secret))), (401, 200));
    assert_eq!(ask_with(&gateway, "GET", &path, None, &[], None).status, 200, "a program on this machine");
}

#[test]
fn no_credential_is_ever_logged_or_shown() {
    let url = server(|_, _| http("401 Unauthorized", ""));
    let turn_secret = "the secret of the relay";
    let (publish, lines) = key("publish");
    let config = format!(
        "[log]\nfilter = \"debug\"\n[turn]\nurls = [\"turn:turn.example\"]\nsecret = \"{turn_secret}\"\n[auth]\nmode = [\"keys\", \"jwt\", \"hook\"]\n{lines}\n\
         [auth.jwt]\nsecret = \"{SECRET}\"\n[auth.hook]\nurl = \"{url}/?password=of-the-hook\"\n"
    );
    let gateway = Gateway::start(&config, CHEAP);
    let (good, expired, wrong) = (lasting(60, json!({"publish": true})), sign(&json!({"exp": 1, "publish": true})), keys::generate());
    let (id, secret) = session(&gateway, Some(&publish));
    let mut shown = vec![
        publish.clone(),
        good.clone(),
        expired.clone(),
        wrong.clone(),
        secret.clone(),
        "open sesame".into(),
        "YW5uOm9wZW4gc2VzYW1l".into(),
    ];
    for token in [&good, &expired, &wrong] {
        begin(&gateway, Some(token), None);
        ask(&gateway, "GET", &format!("/metrics?token={token}"), None, None);
    }
    let refused = ask_with(&gateway, "POST", "/offer", None, &[("authorization", "Basic YW5uOm9wZW4gc2VzYW1l")], Some(&offer(None)));
    assert_eq!(refused.status, 401);
    for token in [&secret, &publish] {
        ask(&gateway, "PATCH", &format!("/api/sessions/{id}?token={token}"), None, Some(&json!({"effect": "sepia"})));
        ask(&gateway, "GET", &format!("/api/sessions/0123456789abcdef/events?token={token}"), None, None);
    }
    let mut client = Client::connect(&gateway.url, &Wish { token: Some(good.clone()), ..Wish::default() }).unwrap();
    client.say(&json!({"type": "set_effect", "effect": "sepia"})).unwrap();
    shown.push(client.secret.clone());
    client.close().unwrap();
    gateway.wait("it to be logged", |gateway| gateway.said().contains("reason=\"expired\"") || gateway.said().contains("expired"));
    let signature = good.rsplit('.').next().unwrap().to_string();
    let secrets = [shown, vec![SECRET.into(), turn_secret.into(), "of-the-hook".into(), signature]].concat();
    let said = gateway.said();
    assert!(said.contains("DEBUG"), "at this level it says a lot");
    for secret in &secrets {
        assert!(!said.contains(secret.as_str()), "{secret} is logged");
    }
    let printed = ooblex(&["check", "--print", "--config", &scratch(&config)]);
    let half = Command::new(env!("CARGO_BIN_EXE_ooblex"))
        .args([
            "check",
            "--print",
            "--config",
            &scratch(&config.replace(&format!("secret = \"{SECRET}\""), &format!("secret = \"{SECRET}"))),
        ])
        .output()
        .unwrap();
    assert!(!half.status.success());
    for secret in secrets {
        assert!(!printed.contains(&secret) && !String::from_utf8_lossy(&half.stderr).contains(&secret), "{secret} is shown");
    }
}

// TURN relays

#[test]
fn the_answer_has_credentials_for_the_relay_that_end_with_the_token() {
    let turn = "[turn]\nurls = [\"turn:turn.example:3478?transport=udp\"]\nsecret = \"north of the relay\"\nttl_s = 600\n";
    let gateway = Gateway::start(&format!("{turn}[auth]\nmode = \"jwt\"\n[auth.jwt]\nsecret = \"{SECRET}\"\n"), CHEAP);
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let mut users = None;
    for (seconds, most) in [(6000, 600), (100, 100)] {
        let earliest = now();
        let begun = begin(&gateway, Some(&lasting(seconds, json!({"publish": true}))), None);
        let server = &begun.body["ice_servers"][0];
        assert_eq!(server["urls"], json!(["turn:turn.example:3478?transport=udp"]));
        let username = server["username"].as_str().unwrap();
        let (expiry, user) = username.split_once(':').unwrap();
        assert!(user.len() == 16 && *users.get_or_insert(user.to_string()) == user, "one user for all sessions of an address: {user}");
        let expiry: u64 = expiry.parse().unwrap();
        assert!((earliest + most - 1..=now() + most).contains(&expiry), "{expiry}");
        let hash = PKey::hmac(b"north of the relay").unwrap();
        let hash = Signer::new(MessageDigest::sha1(), &hash).unwrap().sign_oneshot_to_vec(username.as_bytes()).unwrap();
        assert_eq!(server["credential"], openssl::base64::encode_block(&hash));
    }
}

#[test]
fn a_client_without_a_token_is_told_what_it_needs() {
    let gateway = with_tokens();
    match Client::connect(&gateway.url, &Wish::default()) {
        Err(ClientError::Refused(401, problem)) => {
            assert!(problem["detail"].as_str().unwrap().contains("Authorization: Bearer"), "{problem}")
        }
        other => panic!("{:?}", other.err()),
    }
}
