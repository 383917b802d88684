//! Tests of changes to a session's settings by its browser, by the API and by a reload. All parties
//! are notified of a change.

use std::time::Instant;

use crate::common::{Gateway, Player, WITHIN};
use ooblex_client::Wish;
use serde_json::{Value, json};

/// Number of concurrent changes by the API and the browser.
const CROSSINGS: usize = 40;

fn player(gateway: &Gateway, effect: &str) -> Player {
    let mut player = Player::new(gateway, &Wish { effect: Some(effect.into()), ..Wish::default() });
    player.play_until(320, 240, "a picture", |player| !player.shown.is_empty());
    player
}

fn patch(gateway: &Gateway, id: &str, change: &Value) -> Value {
    let mut answer = ureq::patch(format!("{}/api/sessions/{id}", gateway.url)).send_json(change).unwrap();
    answer.body_mut().read_json().unwrap()
}

/// Waits for `count` settings messages, and returns the newest.
fn told(player: &mut Player, count: usize) -> Value {
    player.play_until(320, 240, "a settings message", |player| player.heard(0, "settings").len() >= count);
    let heard = player.heard(0, "settings");
    assert_eq!(heard.len(), count, "{heard:?}");
    heard[count - 1].clone()
}

#[test]
fn a_change_by_the_api_is_told_to_the_browser_and_its_own_is_not() {
    let gateway = Gateway::start("", &["--workers", "1"]);
    let mut player = player(&gateway, "background_blur");
    let id = player.client.session.clone();
    patch(&gateway, &id, &json!({"effect": "sepia", "params": {"strength": 0.5}}));
    let first = told(&mut player, 1);
    assert_eq!((&first["effect"], &first["params"]["strength"], &first["by"]), (&json!("sepia"), &json!(0.5), &json!("api")));

    let ack = player.change(320, 240, &json!({"type": "set_effect", "effect": "invert", "id": 1}));
    assert!(ack["change"].as_u64() > first["change"].as_u64(), "{ack} {first}");
    // A request that changes nothing sends no message.
    patch(&gateway, &id, &json!({}));
    patch(&gateway, &id, &json!({"effect": "none"}));
    let second = told(&mut player, 2);
    assert_eq!((&second["effect"], &second["by"]), (&json!("none"), &json!("api")));
    assert!(second["change"].as_u64() > ack["change"].as_u64(), "{second} {ack}");
}

#[test]
fn a_change_that_comes_before_the_data_channel_is_told_when_that_opens() {
    let gateway = Gateway::start("", &["--workers", "1"]);
    let mut player = std::thread::scope(|scope| {
        let connecting = scope.spawn(|| Player::new(&gateway, &Wish { effect: Some("sepia".into()), ..Wish::default() }));
        // The session is listed as soon as the offer is answered, before any packet is exchanged.
        let deadline = Instant::now() + WITHIN;
        let listed = || gateway.json("/api/sessions")["sessions"][0]["id"].as_str().map(ToString::to_string);
        let id = std::iter::repeat_with(listed).take_while(|_| Instant::now() < deadline).flatten().next().unwrap();
        patch(&gateway, &id, &json!({"effect": "invert"}));
        connecting.join().unwrap()
    });
    assert_eq!(told(&mut player, 1)["effect"], "invert");
}

#[test]
fn changes_of_api_and_browser_that_cross_leave_one_truth() {
    let gateway = Gateway::start("", &["--workers", "1"]);
    let mut player = player(&gateway, "sepia");
    let id = player.client.session.clone();
    for crossing in 0..CROSSINGS {
        let mark = player.messages.len();
        let strength = 0.1 + 0.02 * crossing as f64;
        player.client.say(&json!({"type": "set_effect", "effect": "sepia", "params": {"strength": strength}, "id": crossing})).unwrap();
        let by_api = json!({"effect": "vignette", "params": {"strength": strength}});
        std::thread::scope(|scope| {
            let answered = scope.spawn(|| patch(&gateway, &id, &by_api));
            // Once both are answered, the track has applied both, in either order.
            player.play_until(320, 240, "both answers", |player| {
                player.heard(mark, "ack").iter().any(|ack| ack["id"] == crossing) && !player.heard(mark, "settings").is_empty()
            });
            answered.join().unwrap();
        });
        let registered = gateway.json(&format!("/api/sessions/{id}"));
        let numbered = player.messages[mark..].iter().filter(|message| message["change"].is_u64());
        let newest = numbered.max_by_key(|message| message["change"].as_u64()).unwrap().clone();
        // An empty change is answered with the effective settings.
        let ack = player.change(320, 240, &json!({"type": "set_effect", "id": format!("truth {crossing}")}));
        assert_eq!((&registered["effect"], &registered["params"]), (&ack["effect"], &ack["params"]), "crossing {crossing}");
        assert_eq!(newest["effect"], ack["effect"], "the highest number tells what is in force");
    }
}
