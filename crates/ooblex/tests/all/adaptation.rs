//! Tests of adaptation to a shortage of CPU: the order of the quality steps, and their reversal.

use std::time::Duration;

use crate::common::{
    Gateway, PLENTY, Player, RedisServer, SMALL, Worker, delayed, machine, play_all_until_processed, play_in_sizes, play_together, scene,
    scenes,
};
use ooblex_client::Wish;
use ooblex_codec::{Encoder, EncoderConfig, Speed};
use ooblex_pipeline::{EncodedFrame, MediaTime, VideoCodec};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::json;

/// Returns the speed of the encoder and the pixels of the model's input, from the gateway's last
/// `stats` message of a session.
fn state(player: &Player) -> Option<(String, u64)> {
    let stats = player.heard(0, "stats").into_iter().next_back()?;
    let side = |name: &str| stats["model_input"][name].as_u64().unwrap_or(0);
    Some((stats["encoder_speed"].as_str()?.to_string(), side("width") * side("height")))
}

fn is_hurried(player: &Player) -> bool {
    state(player).is_some_and(|(speed, _)| speed == "hurried")
}

fn steps(gateway: &Gateway, step: &str, direction: &str) -> f64 {
    gateway.metric_of("ooblex_adaptations_total", &format!("step=\"{step}\",direction=\"{direction}\""))
}

#[test]
fn an_encoder_hurries_while_frames_are_missed_and_takes_its_time_again() {
    let _machine = machine::alone();
    let gateway = Gateway::start("[diagnostics]\neffects = true\n", &["--workers", "1"]);
    for codec in [VideoCodec::Vp8, VideoCodec::H264] {
        let wish = Wish { codecs: vec![codec], effect: Some("delay".into()), params: json!({"ms": 100}), ..Wish::default() };
        let mut player = Player::new(&gateway, &wish);
        player.play_until_told(PLENTY, "the encoder to hurry", is_hurried);
        let change = json!({"type": "set_effect", "params": {"ms": 0}, "id": 1});
        player.change(SMALL.0, SMALL.1, &change);
        player.play_until_told(PLENTY, "the encoder to take its time", |player| !is_hurried(player));
        player.assert_sound();
        assert!(steps(&gateway, "encoder_speed", "down") >= 1.0 && steps(&gateway, "encoder_speed", "up") >= 1.0);
    }
}

#[test]
fn models_get_smaller_pictures_after_the_encoder_hurries() {
    let gateway = Gateway::start("[diagnostics]\neffects = true\n", &["--workers", "1"]);
    // On any machine, the other session keeps the worker busy, so that this session gets one frame
    // every 0.3 s.
    let wish = Wish { effect: Some("style_transfer".into()), ..Wish::default() };
    let mut players = [Player::new(&gateway, &wish), delayed(&gateway, 300)];
    let mut first = None;
    play_together(&mut players, (320, 240), PLENTY, "smaller inputs", |players| {
        let Some((speed, pixels)) = state(&players[0]).filter(|(_, pixels)| *pixels > 0) else { return false };
        let is_smaller = pixels < *first.get_or_insert(pixels);
        assert!(!is_smaller || speed == "hurried", "the encoder comes first");
        is_smaller
    });
    assert!(steps(&gateway, "model_resolution", "down") >= 1.0);
}

#[test]
fn a_session_may_use_all_cores_until_another_comes() {
    fn allowed(player: &Player) -> Option<serde_json::Value> {
        let stats = player.heard(0, "stats").into_iter().next_back()?;
        (stats["cores"].as_f64()? > 0.0).then(|| stats["cores_allowed"].clone())
    }
    let gateway = Gateway::start("[diagnostics]\neffects = true\n", &["--workers", "1"]);
    let mut first = delayed(&gateway, 0);
    first.play_until_told(PLENTY, "no limit for one alone", |player| allowed(player).is_some_and(|allowed| allowed.is_null()));
    let mut players = [first, delayed(&gateway, 0)];
    play_together(&mut players, SMALL, PLENTY, "a share for each of two", |players| {
        players.iter().all(|player| allowed(player).is_some_and(|allowed| allowed.is_number()))
    });
    let [mut first, second] = players;
    drop(second);
    first.play_until_told(PLENTY, "no limit again", |player| allowed(player).is_some_and(|allowed| allowed.is_null()));
}

/// Starts a gateway that can use only one core, on any machine.
fn gateway_on_one_core() -> Gateway {
    let all = sched_getaffinity(None).unwrap();
    let mut one = CpuSet::new();
    one.set((0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap());
    // A process inherits the CPU affinity of the thread that starts it.
    sched_setaffinity(None, &one).unwrap();
    let gateway = Gateway::start("[diagnostics]\neffects = true\n", &["--workers", "1"]);
    sched_setaffinity(None, &all).unwrap();
    gateway
}

#[test]
fn a_session_that_wants_more_than_its_share_is_throttled_until_it_does_not() {
    let _machine = machine::alone();
    let gateway = gateway_on_one_core();
    let is_throttled = || {
        let threads = std::fs::read_dir(format!("/proc/{}/task", gateway.id())).unwrap();
        let names = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("comm")).ok());
        names.filter(|name| name.starts_with("aside-")).count() == 1
    };
    let slowest = Wish {
        effect: Some("style_transfer".into()),
        params: json!({"resolution": "360p", "blend": {"comic_ink": 1, "pink_pencil": 1}}),
        ..Wish::default()
    };
    // Beside six others its share is a sixth of a core, which it exceeds also on a busy machine,
    // where it gets only a part of the core.
    let mut players = vec![Player::new(&gateway, &slowest)];
    players.extend((0..6).map(|_| delayed(&gateway, 0)));
    let sizes = [&[(640, 480)][..], &[SMALL; 6]].concat();
    play_in_sizes(&mut players, &sizes, PLENTY, "the first to be throttled", |_| is_throttled());
    let change = json!({"type": "set_effect", "effect": "delay", "params": {"ms": 0}, "id": 1});
    players[0].client.say(&change).unwrap();
    play_together(&mut players, SMALL, PLENTY, "the first to be throttled no more", |_| !is_throttled());
    play_all_until_processed(&mut players, 30, PLENTY);
    players[1..].iter().for_each(Player::assert_sound);
}

/// Returns how many of 150 frames of a small session come back, beside a camera of this size.
fn shown_beside(width: u32, height: u32) -> usize {
    const SECOND: usize = 30;
    let gateway = gateway_on_one_core();
    let config = EncoderConfig { codec: VideoCodec::Vp8, bitrate_bps: 8_000_000, frame_rate: 30.0, speed: Speed::Fast };
    let mut encoder = Encoder::new(config).unwrap();
    let mut encode = |step: u32| encoder.encode(&scene(width, height, step), MediaTime(u64::from(step) * 3000), step == 0);
    let clip: Vec<EncodedFrame> = (0..SECOND as u32).map(|step| encode(step).unwrap().unwrap()).collect();
    let mut camera = Player::new(&gateway, &Wish { effect: Some("none".into()), paced: false, ..Wish::default() });
    let mut other = delayed(&gateway, 0);
    let scenes = scenes(SMALL.0, SMALL.1);
    let mut before = 0;
    for number in 0..8 * SECOND {
        // The shares of the cores are known after some seconds.
        if number == 3 * SECOND {
            before = other.of_sent_frames().count();
        }
        let capture = MediaTime(90_000 + number as u64 * 3000);
        camera.client.send_frame(&EncodedFrame { capture, ..clip[number % SECOND].clone() }, None).unwrap();
        camera.listen(Duration::from_millis(1));
        other.play(&scenes[number % scenes.len()]);
    }
    let received = &camera.heard(0, "stats").into_iter().next_back().unwrap()["received"];
    assert_eq!(received, &json!({"width": width, "height": height}));
    other.of_sent_frames().count() - before
}

#[test]
fn a_camera_of_3840x2160_takes_no_more_from_another_than_one_of_1280x720() {
    let _machine = machine::alone();
    let (beside_720p, beside_4k) = (shown_beside(1280, 720), shown_beside(3840, 2160));
    println!("{beside_720p} of 150 frames came back beside 1280x720, {beside_4k} beside 3840x2160");
    assert!(beside_4k as f64 >= 0.8 * beside_720p as f64, "{beside_4k} frames beside 3840x2160, {beside_720p} beside 1280x720");
}

#[test]
fn busy_workers_elsewhere_do_not_hurry_the_encoder_here() {
    let _machine = machine::alone();
    let redis = RedisServer::start();
    let gateway = Gateway::at(&redis.url());
    let _worker = Worker::at(&redis.url());
    gateway.wait_for_workers(1);
    let mut player = delayed(&gateway, 200);
    player.play_until_told(PLENTY, "four seconds of missed frames", |player| player.heard(0, "stats").len() >= 4);
    assert!(gateway.dropped("replaced") > 20.0);
    assert_eq!(player.heard(0, "stats").iter().filter(|stats| stats["encoder_speed"] == "hurried").count(), 0);
}
