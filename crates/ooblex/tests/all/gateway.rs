//! Tests of a running gateway over real WebRTC: the video of a session, and faults that it
//! survives.

use std::time::Duration;

use crate::common::{Gateway, Player, background_sharpness, difference, scene, temporary_folder};
use ooblex_client::{Client, ClientError, Wish, post};
use ooblex_codec::{Rotation, Scaler};
use ooblex_pipeline::{EncodedFrame, MediaTime, VideoCodec};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use serde_json::{Value, json};

const BOTH: [VideoCodec; 2] = [VideoCodec::Vp8, VideoCodec::H264];

fn wish(codec: VideoCodec, effect: &str) -> Wish {
    Wish { codecs: vec![codec], effect: Some(effect.into()), ..Wish::default() }
}

#[test]
fn pictures_come_back_in_order_with_their_timestamps_and_size() {
    let gateway = Gateway::start("", &[]);
    for codec in BOTH {
        for effect in ["none", "background_blur", "face_detection", "style_transfer"] {
            let mut player = Player::new(&gateway, &wish(codec, effect));
            player.play_until(640, 480, "twenty pictures", |player| player.of_sent_frames().count() >= 20);
            assert!(player.shown.is_sorted_by(|a, b| a.capture < b.capture), "{codec:?} {effect}");
            assert!(player.shown.iter().all(|shown| (shown.picture.width(), shown.picture.height()) == (640, 480)));
            let last = player.shown.last().unwrap();
            let difference = difference(&last.picture, &player.source_of(last));
            match effect {
                "none" => assert!(difference < 8.0, "{codec:?}: {difference}"),
                "style_transfer" => assert!(difference > 20.0, "{codec:?}: {difference}"),
                _ => {}
            }
            player.client.close().unwrap();
        }
    }
    gateway.wait("all sessions to end", |gateway| gateway.json("/api/sessions")["sessions"].as_array().unwrap().is_empty());
    assert!(gateway.metric("ooblex_frames_shown_total") > 0.0);
}

#[test]
fn the_codec_that_the_browser_prefers_is_the_one_that_goes_both_ways() {
    let gateway = Gateway::start("", &[]);
    for (first, second) in [(VideoCodec::Vp8, VideoCodec::H264), (VideoCodec::H264, VideoCodec::Vp8)] {
        let wish = Wish { codecs: vec![first, second], ..wish(first, "none") };
        let mut player = Player::new(&gateway, &wish);
        player.play_until(320, 240, "a picture", |player| !player.shown.is_empty());
        let video = player.client.answer.split("m=video").nth(1).unwrap();
        let names: Vec<_> = video.lines().filter(|line| line.starts_with("a=rtpmap:") && !line.contains("rtx")).collect();
        let wanted = if first == VideoCodec::Vp8 { "VP8" } else { "H264" };
        assert!(names[0].contains(wanted), "{names:?}");
    }
}

#[test]
fn blurred_background_is_never_sharp_from_the_first_picture_on_and_while_switching() {
    let gateway = Gateway::start("", &[]);
    let source = scene(640, 480, 0);
    // A busy gateway may send smaller pictures, which have steeper edges.
    let sharpness_at = |width, height| background_sharpness(&Scaler::new().scale(&source, width, height));
    for codec in BOTH {
        let mut player = Player::new(&gateway, &wish(codec, "background_blur"));
        player.play_until(640, 480, "ten pictures", |player| player.shown.len() >= 10);
        for (id, strength) in (1..=12).map(|id| (id, f64::from(id % 4) / 3.0)) {
            let change = json!({"type": "set_effect", "effect": "background_blur", "params": {"strength": strength}, "id": id});
            assert_eq!(player.change(640, 480, &change)["type"], "ack");
        }
        for shown in &player.shown {
            let (width, height) = (shown.picture.width(), shown.picture.height());
            let (got, sharp) = (background_sharpness(&shown.picture), sharpness_at(width, height));
            assert!(got < 0.5 * sharp, "{codec:?} {width}x{height}: a background of sharpness {got:.2}, the source has {sharp:.2}");
        }
    }
}

#[test]
fn a_change_is_acknowledged_with_the_first_frame_that_has_it() {
    let gateway = Gateway::start("", &[]);
    let mut player = Player::new(&gateway, &wish(VideoCodec::Vp8, "none"));
    player.play_until(640, 480, "a picture", |player| !player.shown.is_empty());
    let before = player.change(640, 480, &json!({"type": "set_effect", "effect": "style_transfer", "id": "s"}));
    let after = player.change(640, 480, &json!({"type": "set_effect", "effect": "none", "id": "n"}));
    assert_eq!(before["params"]["strength"], 1.0);
    assert!(after["first_sequence"].as_u64() > before["first_sequence"].as_u64());
    let first = |ack: &Value| MediaTime(ack["timestamp"].as_u64().unwrap());
    assert!(first(&before) < first(&after), "a style was seen between the two");
    for shown in &player.shown {
        let difference = difference(&shown.picture, &player.source_of(shown));
        let expected = (first(&before)..first(&after)).contains(&shown.capture);
        assert_eq!(difference > 20.0, expected, "the frame at {:?} differs by {difference}", shown.capture);
    }
}

#[test]
fn refused_changes_leave_everything_as_it_was() {
    let gateway = Gateway::start("", &[]);
    let mut player = Player::new(&gateway, &wish(VideoCodec::Vp8, "face_detection"));
    player.play_until(320, 240, "a picture", |player| !player.shown.is_empty());
    for (message, kind) in [
        (json!({"type": "set_effect", "effect": "moustache", "id": 1}), "unknown-effect"),
        (json!({"type": "set_effect", "effect": "background_blur", "params": {"strength": 9}, "id": 2}), "bad-parameter"),
        (json!({"type": "set_effect", "params": {"colour": "red"}, "id": 3}), "bad-parameter"),
    ] {
        let error = player.change(320, 240, &message);
        assert_eq!(error["problem"]["type"], format!("urn:ooblex:problem:{kind}"));
    }
    let before = player.messages.len();
    player.client.say(&json!({"type": "dance"})).unwrap();
    player.play_until(320, 240, "an error", |p| p.messages[before..].iter().any(|m| m["problem"]["status"] == 400));
    let session = gateway.json(&format!("/api/sessions/{}", player.client.session));
    assert_eq!(session["effect"], "face_detection");
    let shown = player.shown.len();
    player.play_until(320, 240, "more pictures", |player| player.shown.len() > shown + 5);
}

#[test]
fn changes_without_video_do_not_pile_up() {
    let gateway = Gateway::start("", &["--workers", "1"]);
    let mut player = Player::new(&gateway, &wish(VideoCodec::Vp8, "none"));
    for id in 1..=100 {
        player.client.say(&json!({"type": "set_effect", "effect": "background_blur", "id": id})).unwrap();
        player.listen(Duration::from_millis(1));
    }
    let answers = |player: &Player, kind: &str| player.messages.iter().filter(|m| m["type"] == kind).count();
    player.play_until(320, 240, "all answers", |player| answers(player, "ack") + answers(player, "error") == 100);
    assert_eq!((answers(&player, "ack"), answers(&player, "error")), (64, 36));
}

#[test]
fn detections_lie_on_the_face() {
    let gateway = Gateway::start("", &[]);
    let mut player = Player::new(&gateway, &wish(VideoCodec::H264, "face_detection"));
    let detected = |player: &Player| player.messages.iter().filter(|m| m["type"] == "detections").count();
    player.play_until(640, 480, "detections", |player| detected(player) >= 10);
    for message in player.messages.iter().filter(|m| m["type"] == "detections") {
        let time = MediaTime(message["timestamp"].as_u64().unwrap());
        let Some(frame) = player.sent.iter().position(|sent| *sent == time) else { continue };
        // The expected box was found by an independent implementation of the model, in the picture
        // without shift.
        let shift = (frame % 8) as f64;
        let expected = [218.93 - shift, 97.98, 342.3 - shift, 221.34];
        let faces = message["faces"].as_array().unwrap();
        assert_eq!(faces.len(), 1);
        for (got, expected) in faces[0]["box"].as_array().unwrap().iter().zip(expected) {
            assert!((got.as_f64().unwrap() - expected).abs() < 12.3, "{faces:?}, expected near {expected}");
        }
    }
}

#[test]
fn size_may_change_in_mid_call_be_odd_or_portrait() {
    let gateway = Gateway::start("", &[]);
    for (codec, sizes) in [
        (VideoCodec::Vp8, [(640, 480), (321, 241), (360, 640), (639, 479)]),
        (VideoCodec::H264, [(640, 480), (320, 240), (360, 640), (642, 362)]),
    ] {
        for effect in ["background_blur", "style_transfer"] {
            let mut player = Player::new(&gateway, &wish(codec, effect));
            for (width, height) in sizes {
                let came_back = |player: &Player| {
                    let last = player.shown.last().map(|shown| (shown.picture.width(), shown.picture.height()));
                    last == Some((width, height))
                };
                player.play_until(width, height, &format!("{codec:?} {effect} at {width}x{height}"), came_back);
            }
        }
    }
}

#[test]
fn rotation_that_comes_with_the_packets_is_taken_out() {
    let gateway = Gateway::start("", &[]);
    for (rotation, upright) in [(Rotation::By90, (240, 320)), (Rotation::By180, (320, 240)), (Rotation::By270, (240, 320))] {
        let mut player = Player::new(&gateway, &wish(VideoCodec::Vp8, "none"));
        player.rotation = Some(rotation);
        player.play_until(320, 240, "five pictures", |player| player.shown.len() >= 5);
        let last = &player.shown.last().unwrap().picture;
        assert_eq!((last.width(), last.height()), upright, "{rotation:?}");
        let expected = ooblex_codec::rotate(scene(320, 240, 4), rotation);
        assert!(difference(last, &expected) < 12.0, "{rotation:?}: {}", difference(last, &expected));
    }
}

#[test]
fn sound_goes_back_undecoded_and_in_order() {
    let gateway = Gateway::start("", &[]);
    let mut player = Player::new(&gateway, &Wish { audio: true, ..wish(VideoCodec::Vp8, "background_blur") });
    let sent: Vec<_> = (0..60_u64).map(|n| (48_000 + n * 960, vec![0x78, n as u8, 1, 2, 3])).collect();
    let picture = scene(320, 240, 0);
    for (time, data) in &sent {
        player.client.send_audio(*time, data).unwrap();
        player.play(&picture);
    }
    player.play_until(320, 240, "the sound", |player| player.audio.len() >= 40);
    // It waits for the picture, so its timestamp may be later, and some of it may be left out.
    let is_sent = |(time, data): &(u64, Vec<u8>)| sent.iter().any(|(at, sent)| sent == data && at <= time);
    assert!(player.audio.iter().all(is_sent), "every frame of sound is one that was sent");
    assert!(player.audio.is_sorted_by(|a, b| a.0 < b.0));
    assert!(!player.shown.is_empty());
}

#[test]
fn peer_without_bandwidth_feedback_is_served() {
    let gateway = Gateway::start("", &[]);
    let mut player = Player::new(&gateway, &Wish { feedback: false, ..wish(VideoCodec::Vp8, "background_blur") });
    player.play_until(640, 480, "thirty pictures", |player| player.shown.len() >= 30);
}

#[test]
fn undecodable_frames_cost_a_keyframe_and_nothing_else() {
    let gateway = Gateway::start("", &[]);
    let mut random = SmallRng::seed_from_u64(7);
    for codec in BOTH {
        let mut player = Player::new(&gateway, &wish(codec, "background_blur"));
        let mut other = Player::new(&gateway, &wish(codec, "none"));
        player.play_until(320, 240, "pictures", |player| player.shown.len() >= 5);
        for round in 0..20_u64 {
            let mut data = vec![0; random.random_range(1..3000)];
            random.fill_bytes(&mut data);
            if codec == VideoCodec::H264 {
                data.splice(0..0, [0, 0, 0, 1, 0x41]);
            }
            let capture = MediaTime(10_000_000 + round * 3000);
            player.client.send_frame(&EncodedFrame { codec, data: data.into(), capture, keyframe: false }, None).unwrap();
            player.listen(Duration::from_millis(5));
        }
        let mut wanted = 0;
        player.play_until(320, 240, "a keyframe to be asked for", |player| {
            wanted += player.keyframes_wanted;
            wanted > 0
        });
        let shown = player.shown.len();
        player.play_until(320, 240, "pictures to go on", |player| player.shown.len() >= shown + 5);
        other.play_until(320, 240, "the other session to go on", |other| other.shown.len() >= 5);
    }
    assert!(gateway.metric("ooblex_frames_undecodable_total") > 0.0);
}

#[test]
fn garbage_on_the_media_port_harms_nobody() {
    let gateway = Gateway::start("", &[]);
    let mut player = Player::new(&gateway, &wish(VideoCodec::Vp8, "none"));
    player.play_until(320, 240, "pictures", |player| player.shown.len() >= 5);
    let media = media_address(&player.client.answer);
    let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut random = SmallRng::seed_from_u64(11);
    for round in 0..3000 {
        let mut bytes = vec![0; random.random_range(0..1400)];
        random.fill_bytes(&mut bytes);
        // RFC 7983: the first byte distinguishes STUN, DTLS, RTP and RTCP.
        if let Some(first) = bytes.first_mut() {
            *first = [0, 1, 20, 22, 128, 144, 200][round % 7];
        }
        if round % 2 == 0 {
            other.send_to(&bytes, media).unwrap();
        } else {
            player.client.send_garbage(media, &bytes).unwrap();
        }
        if round % 100 == 0 {
            player.play(&scene(320, 240, 0));
        }
    }
    let shown = player.shown.len();
    player.play_until(320, 240, "pictures to go on", |player| player.shown.len() >= shown + 10);
    assert!(gateway.metric("ooblex_datagrams_stray_total") > 0.0);
}

#[test]
fn offers_that_can_not_be_served_are_refused_with_a_problem() {
    let gateway = Gateway::start("", &["--workers", "1"]);
    let good = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n";
    let video = format!("{good}m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=sendrecv\r\na=rtpmap:96 VP8/90000\r\n");
    let offer = |sdp: &str| json!({"sdp": sdp, "type": "offer"});
    let long = "x".repeat(300 * 1024);
    for (body, kind, status) in [
        (json!([]), "bad-request", 400),
        (json!({"type": "offer"}), "bad-request", 400),
        (json!({"sdp": 7}), "bad-request", 400),
        (json!({"sdp": good, "type": "answer"}), "bad-sdp", 400),
        (offer(""), "bad-sdp", 400),
        (offer("v=1"), "bad-sdp", 400),
        (offer(good), "no-video", 422),
        (offer(&video), "bad-sdp", 400),
        (offer(&video.replace("VP8", "AV1")), "no-common-codec", 422),
        (offer(&video.replace("sendrecv", "recvonly")), "no-video", 422),
        (offer(&video.replace("96\r\nc", "\u{fffd}\r\nc")), "no-common-codec", 422),
        (json!({"sdp": video, "effect": "moustache"}), "unknown-effect", 422),
        (json!({"sdp": video, "effect": "background_blur", "params": {"strength": -1}}), "bad-parameter", 422),
        (offer(&long), "too-large", 413),
    ] {
        let (got, problem) = post(&format!("{}/offer", gateway.url), &body, None).unwrap();
        assert_eq!((got, problem["type"].as_str()), (status, Some(format!("urn:ooblex:problem:{kind}").as_str())), "{problem}");
        assert!(problem["detail"].as_str().unwrap().len() > 20, "{problem}");
    }
    assert_eq!(gateway.json("/api/sessions")["sessions"], json!([]));
    Player::new(&gateway, &wish(VideoCodec::Vp8, "none")).play_until(320, 240, "a picture", |player| !player.shown.is_empty());
}

#[test]
fn sessions_beyond_the_limit_are_refused_until_one_ends() {
    let gateway = Gateway::start("[limits]\nsessions = 1", &["--workers", "1"]);
    let first = Client::connect(&gateway.url, &Wish::default()).unwrap();
    match Client::connect(&gateway.url, &Wish::default()) {
        Err(ClientError::Refused(503, problem)) => assert_eq!(problem["type"], "urn:ooblex:problem:too-many-sessions"),
        other => panic!("{:?}", other.err()),
    }
    let ended = ureq::delete(format!("{}/api/sessions/{}", gateway.url, first.session)).call().unwrap();
    assert_eq!(ended.status(), 204);
    gateway.wait("the session to end", |gateway| gateway.json("/api/sessions")["sessions"] == json!([]));
    Client::connect(&gateway.url, &Wish::default()).unwrap();
}

#[test]
fn session_that_vanishes_is_cleaned_up() {
    let gateway = Gateway::start("", &["--workers", "1"]);
    let mut player = Player::new(&gateway, &wish(VideoCodec::Vp8, "background_blur"));
    player.play_until(320, 240, "a picture", |player| !player.shown.is_empty());
    let threads = || std::fs::read_dir(format!("/proc/{}/task", gateway.id())).unwrap().count();
    let with_session = threads();
    player.client.vanish();
    gateway.wait("the session to end", |gateway| gateway.json("/api/sessions")["sessions"] == json!([]));
    gateway.wait("its thread to end", |_| threads() < with_session);
    assert_eq!(gateway.metric("ooblex_sessions"), 0.0);
}

#[test]
fn address_of_a_session_that_has_vanished_is_free_for_the_next() {
    let gateway = Gateway::start("", &["--workers", "1"]);
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let wish = Wish { port, ..wish(VideoCodec::Vp8, "background_blur") };
    let mut former = Player::new(&gateway, &wish);
    former.play_until(320, 240, "a picture", |player| !player.shown.is_empty());
    let vanished = former.client.session.clone();
    former.client.vanish();
    let mut next = Player::new(&gateway, &wish);
    gateway.wait("the former session to end", |gateway| !gateway.json("/api/sessions").to_string().contains(&vanished));
    assert!(gateway.json("/api/sessions").to_string().contains(&next.client.session));
    next.play_until(320, 240, "a picture", |player| !player.shown.is_empty());
    assert_eq!(gateway.metric_of("ooblex_sessions_ended_total", "reason=\"vanished\""), 1.0);
}

#[test]
fn every_third_frame_is_analysed_and_the_rest_is_as_the_operator_says() {
    for (when_slow, all_shown) in [("hold", false), ("reuse", true)] {
        let config = format!("[frames]\nsampling = 3\n[effects.face_detection]\nwhen_slow = \"{when_slow}\"\nmax_age_ms = 2000\n");
        let gateway = Gateway::start(&config, &["--workers", "1"]);
        let mut player = Player::new(&gateway, &wish(VideoCodec::Vp8, "face_detection"));
        player.play_until(320, 240, "sixty frames", |player| player.sent.len() >= 60);
        player.client.close().unwrap();
        gateway.wait("the session to end", |gateway| gateway.json("/api/sessions")["sessions"] == json!([]));
        gateway.wait("its frames to be counted", |gateway| gateway.metric("ooblex_frames_admitted_total") >= 55.0);
        let (admitted, shown) = (gateway.metric("ooblex_frames_admitted_total"), gateway.metric("ooblex_frames_shown_total"));
        let ratio = shown / admitted;
        assert_eq!(ratio > 0.8, all_shown, "{when_slow}: {shown} of {admitted} frames were shown");
        assert!(all_shown || (0.25..=0.4).contains(&ratio), "{when_slow}: {shown} of {admitted} frames were shown");
        let dropped = gateway.metric("ooblex_frames_dropped_total");
        assert_eq!(admitted, shown + dropped, "every frame is accounted for");
    }
}

#[test]
fn the_api_tells_effects_sessions_and_changes() {
    let gateway = Gateway::start("", &["--workers", "1"]);
    let effects = gateway.json("/api/effects");
    let names: Vec<_> = effects["effects"].as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap().to_string()).collect();
    assert_eq!(names, ooblex_effects::effects().iter().map(|effect| effect.name().to_string()).collect::<Vec<_>>());
    let of = |name: &str| &effects["effects"][names.iter().position(|known| known == name).unwrap()];
    assert_eq!(of("style_transfer")["parameters"]["properties"]["style"]["enum"].as_array().unwrap().len(), 26);
    assert!(effects["effects"].as_array().unwrap().iter().all(|effect| effect["available"] == true));
    assert_eq!(effects["broker"], json!({"kind": "local", "connected": true, "trouble": null}));
    assert_eq!((&of("background_blur")["workers"], &effects["device"]), (&effects["workers"], &json!("cpu")));
    assert_eq!(of("none")["workers"], 0, "none needs no worker");
    let mut player = Player::new(&gateway, &Wish::default());
    player.play_until(640, 480, "figures", |player| {
        player.messages.iter().any(|m| m["type"] == "stats" && m["fps_out"].as_f64() > Some(5.0))
    });
    let path = format!("/api/sessions/{}", player.client.session);
    let session = gateway.json(&path);
    assert_eq!(session["effect"], "background_blur", "a session that asks for nothing hides its background");
    assert!(session["stats"]["stages_ms"]["decode"].as_f64() > Some(0.0), "{session}");
    let url = format!("{}{path}", gateway.url);
    let changed: Value = ureq::patch(&url).send_json(json!({"params": {"strength": 0.9}})).unwrap().body_mut().read_json().unwrap();
    assert_eq!((&changed["effect"], &changed["params"]["strength"]), (&json!("background_blur"), &json!(0.9)));
    let unknown = ureq::patch(format!("{}/api/sessions/0000000000000000", gateway.url)).send_json(json!({}));
    assert!(matches!(unknown, Err(ureq::Error::StatusCode(404))));
    assert_eq!(gateway.text("/healthz"), "alive\n");
    assert_eq!(gateway.json("/readyz")["ready"], true);
    assert!(gateway.text("/").contains("<html"));
    assert!(gateway.text("/sdk/ooblex.js").contains("export"));
}

#[test]
fn pages_of_other_hosts_use_the_api_only_where_the_operator_allows_it() {
    let allowed = |config: &str, origin: &str| {
        let gateway = Gateway::start(config, &["--workers", "1"]);
        let request = ureq::get(format!("{}/api/sessions", gateway.url)).config().http_status_as_error(false).build();
        let response = request.header("origin", origin).call().unwrap();
        response.headers().get("access-control-allow-origin").map(|value| value.to_str().unwrap().to_string())
    };
    let one = "[serve]\nallow_origins = [\"https://app.example\"]";
    assert_eq!(allowed("", "https://app.example"), None);
    assert_eq!(allowed(one, "https://app.example").as_deref(), Some("https://app.example"));
    assert_eq!(allowed(one, "https://other.example"), None);
}

#[test]
fn an_effect_that_the_workers_do_not_serve_is_told_and_never_raw() {
    let gateway = Gateway::start("", &["--workers", "1", "--effects", "face_detection,background_blur"]);
    assert!(gateway.json("/readyz")["unserved"].as_array().unwrap().contains(&json!("style_transfer")));
    let effects = gateway.json("/api/effects")["effects"].as_array().unwrap().clone();
    assert!(effects.iter().any(|effect| effect["name"] == "style_transfer" && effect["available"] == false));
    let mut player = Player::new(&gateway, &wish(VideoCodec::Vp8, "style_transfer"));
    let service = |player: &Player| -> Vec<Value> {
        player.messages.iter().filter(|m| m["type"] == "service").map(|m| json!([m["effect"], m["state"]])).collect()
    };
    player.play_until(320, 240, "to be told, and placeholders", |player| {
        player.messages.iter().any(|m| m["service"] == "no_worker") && player.shown.len() >= 3
    });
    assert_eq!(service(&player), [json!(["style_transfer", "no_worker"])], "told once");
    let error = player.messages.iter().find(|m| m["type"] == "error").unwrap();
    assert_eq!((&error["problem"]["type"], &error["id"]), (&json!("urn:ooblex:problem:no-worker"), &Value::Null));
    assert!(error["problem"]["detail"].as_str().unwrap().contains("style_transfer"));
    for shown in &player.shown {
        assert!(difference(&shown.picture, &scene(320, 240, 0)) > 20.0, "a raw picture was seen");
    }
    let ack = player.change(320, 240, &json!({"type": "set_effect", "effect": "face_detection", "id": 1}));
    assert_eq!(ack["type"], "ack");
    assert_eq!(service(&player)[1..], [json!(["face_detection", "served"])]);
    player.play_until(320, 240, "figures", |player| player.messages.iter().any(|m| m["service"] == "served"));
    let metrics = gateway.text("/metrics");
    let dropped = metrics.lines().find_map(|line| line.strip_prefix("ooblex_frames_dropped_total{reason=\"no_worker\"} "));
    assert!(dropped.is_some_and(|count| count != "0"), "{metrics}");
}

#[test]
fn a_gateway_whose_sessions_would_get_nothing_is_not_ready() {
    let gateway = Gateway::start("", &["--workers", "1", "--effects", "style_transfer"]);
    let agent = ureq::Agent::new_with_config(ureq::Agent::config_builder().http_status_as_error(false).build());
    let mut response = agent.get(format!("{}/readyz", gateway.url)).call().unwrap();
    let said = response.body_mut().read_to_string().unwrap();
    assert_eq!(response.status(), 503);
    assert!(said.contains("no worker serves background_blur") && !said.contains("no worker serves style_transfer"), "{said}");
}

#[test]
fn what_is_missing_at_start_is_named_with_its_remedy() {
    let folder = temporary_folder();
    let models = folder.to_str().unwrap();
    let said = Gateway::refuse(&["--models", models]);
    assert!(said.contains(models) && said.contains(".onnx"), "{said}");
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "onnx") {
            std::fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
        }
    }
    for content in [&b""[..], b"not a model"] {
        std::fs::write(folder.join("style26.onnx"), content).unwrap();
        let said = Gateway::refuse(&["--models", models]);
        assert!(said.contains("style26.onnx"), "{said}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = Gateway::refuse(&["--listen", &address]);
    assert!(said.contains(&address) && said.contains("--listen"), "{said}");
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = Gateway::refuse(&["--media", &address]);
    assert!(said.contains(&address) && said.contains("--media"), "{said}");
    let said = Gateway::refuse(&["--effect", "moustache"]);
    assert!(said.contains("moustache") && said.contains("background_blur"), "{said}");
    std::fs::remove_dir_all(folder).unwrap();
}

fn media_address(answer: &str) -> std::net::SocketAddr {
    let line = answer.lines().find(|line| line.starts_with("a=candidate:")).unwrap();
    let fields: Vec<_> = line.split(' ').collect();
    format!("{}:{}", fields[4], fields[5]).parse().unwrap()
}
