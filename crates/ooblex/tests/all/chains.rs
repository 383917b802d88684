//! Tests of chains of effects over real WebRTC, and of the thumbnails of effects.

use crate::common::{Gateway, Player, background_sharpness, scene};
use ooblex_client::Wish;
use ooblex_pipeline::VideoCodec;
use serde_json::{Value, json};

/// The brown of `sepia` as U and V.
const BROWN: [u8; 2] = [109, 140];

fn wish(effect: &str) -> Wish {
    Wish { codecs: vec![VideoCodec::Vp8], effect: Some(effect.into()), ..Wish::default() }
}

#[test]
fn a_chain_of_three_paints_all_of_them_from_the_first_picture_on() {
    let gateway = Gateway::start("", &["--workers", "2"]);
    let mut player = Player::new(&gateway, &wish("background_blur+face_detection+sepia"));
    let detected = |player: &Player| player.messages.iter().filter(|m| m["type"] == "detections").count();
    player.play_until(640, 480, "pictures and detections", |player| player.shown.len() >= 10 && detected(player) >= 5);
    let sharp = background_sharpness(&scene(640, 480, 0));
    for shown in &player.shown {
        assert!(background_sharpness(&shown.picture) < 0.5 * sharp, "the background is blurred");
    }
    // Placeholders are blurred and brown as well, except the first, which may be grey.
    let [_, u, v] = player.shown.last().unwrap().picture.planes();
    for (plane, brown) in [u, v].into_iter().zip(BROWN) {
        let mean = plane.iter().map(|chroma| f64::from(*chroma)).sum::<f64>() / plane.len() as f64;
        assert!((mean - f64::from(brown)).abs() < 6.0, "chroma of {mean} instead of {brown}");
    }
    let change = json!({"type": "set_effect", "params": {"sepia": {"strength": 0}}, "id": 1});
    let ack = player.change(640, 480, &change);
    assert_eq!(ack["effect"], "background_blur+face_detection+sepia");
    assert_eq!((&ack["params"]["sepia"]["strength"], &ack["params"]["background_blur"]["strength"]), (&json!(0.0), &json!(0.6)));
    let session = gateway.json(&format!("/api/sessions/{}", player.client.session));
    assert_eq!(session["effect"], "background_blur+face_detection+sepia");
    assert!(gateway.text("/metrics").contains("effect=\"chain\""), "chains have one name in metrics");
}

#[test]
fn what_can_not_be_chained_is_refused_and_everything_stays_as_it_was() {
    let gateway = Gateway::start("", &["--workers", "1"]);
    let mut player = Player::new(&gateway, &wish("sepia"));
    player.play_until(320, 240, "a picture", |player| !player.shown.is_empty());
    for (message, kind, why) in [
        (json!({"effect": "background_blur+style_transfer"}), "bad-chain", "put it first"),
        (json!({"effect": "mirror+face_detection"}), "bad-chain", "put 'mirror' behind it"),
        (json!({"effect": "sepia+dance"}), "unknown-effect", "'dance'"),
        (json!({"effect": "sepia+invert", "params": {"strength": 1}}), "bad-parameter", "'strength' is not in the chain"),
        (json!({"effect": "sepia+invert+mirror+vignette+sharpen"}), "bad-chain", "4 effects at most"),
    ] {
        let mut message = message;
        (message["type"], message["id"]) = (json!("set_effect"), json!(why));
        let error = player.change(320, 240, &message);
        assert_eq!(error["problem"]["type"], format!("urn:ooblex:problem:{kind}"), "{message}");
        assert!(error["problem"]["detail"].as_str().unwrap().contains(why), "{}", error["problem"]["detail"]);
    }
    assert_eq!(gateway.json(&format!("/api/sessions/{}", player.client.session))["effect"], "sepia");
}

#[test]
fn no_raw_frame_is_seen_while_one_effect_of_a_chain_has_no_worker() {
    let gateway = Gateway::start("", &["--workers", "1", "--effects", "background_blur"]);
    let mut player = Player::new(&gateway, &wish("background_blur+face_detection"));
    player.play_until(320, 240, "to be told, and placeholders", |player| {
        player.messages.iter().any(|m| m["service"] == "no_worker") && player.shown.len() >= 3
    });
    let error = player.messages.iter().find(|m| m["type"] == "error").unwrap();
    assert_eq!(error["problem"]["type"], "urn:ooblex:problem:no-worker");
    assert!(error["problem"]["detail"].as_str().unwrap().contains("face_detection"), "the effect that lacks one is named");
    let sharp = background_sharpness(&scene(320, 240, 0));
    for shown in &player.shown {
        assert!(background_sharpness(&shown.picture) < 0.5 * sharp, "a raw picture was seen");
    }
    let ack = player.change(320, 240, &json!({"type": "set_effect", "effect": "background_blur+sepia", "id": 1}));
    assert_eq!(ack["type"], "ack", "the effects that have workers go on");
}

#[test]
fn every_effect_has_a_thumbnail_and_what_is_none_has_not() {
    let gateway = Gateway::start("", &["--workers", "1"]);
    let effects = gateway.json("/api/effects")["effects"].as_array().unwrap().clone();
    let bytes = |path: &str| {
        let agent = ureq::Agent::new_with_config(ureq::Agent::config_builder().http_status_as_error(false).build());
        let mut response = agent.get(format!("{}{path}", gateway.url)).call().unwrap();
        (response.status().as_u16(), response.body_mut().read_to_vec().unwrap())
    };
    let mut seen = Vec::new();
    // Denoise leaves the first frame unchanged, so its thumbnail equals that of `none`.
    for effect in effects.iter().filter(|effect| effect["name"] != "denoise") {
        let (status, png) = bytes(&format!("/api/effects/{}/thumbnail.png", effect["name"].as_str().unwrap()));
        assert_eq!((status, &png[..8]), (200, &b"\x89PNG\r\n\x1a\n"[..]), "{}", effect["name"]);
        assert!(effect["name"] == "none" || !seen.contains(&png), "{} looks like another one", effect["name"]);
        seen.push(png);
    }
    assert_eq!(bytes("/api/effects/background_blur/thumbnail.png").1, seen[0], "the same each time");
    let (status, problem) = bytes("/api/effects/dance/thumbnail.png");
    let problem: Value = serde_json::from_slice(&problem).unwrap();
    assert_eq!((status, &problem["type"]), (404, &json!("urn:ooblex:problem:not-found")));
}
