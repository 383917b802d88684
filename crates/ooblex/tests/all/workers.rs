//! Tests of workers in separate processes: they share the frames of all sessions, and the failure
//! of a worker only costs the frames that it held.
//!
//! The tests use real processes, a real Redis and real WebRTC. Most sessions use the effect
//! `delay`: its worker sleeps instead of computing, and its pictures can be distinguished from
//! unprocessed ones, from placeholders, and from held pictures.

use crate::common::{
    Gateway, Look, Player, RedisServer, TWO_SECONDS, Worker, background_sharpness, delayed, delayed_by, farm, machine,
    play_all_until_processed, play_together, scene, scenes,
};
use ooblex_client::Wish;
use ooblex_pipeline::VideoCodec;
use rustix::process::Signal;
use serde_json::json;

fn wish(effect: &str) -> Wish {
    Wish { effect: Some(effect.into()), ..Wish::default() }
}

#[test]
fn an_unprocessed_frame_is_recognised() {
    let gateway = Gateway::start("", &["--workers", "1"]);
    let mut player = Player::new(&gateway, &wish("none"));
    player.play_until(160, 120, "ten pictures", |player| player.of_sent_frames().count() >= 10);
    assert!(player.of_sent_frames().all(|shown| player.look(shown) == Look::Raw));
}

// Several workers

#[test]
fn all_effects_run_on_two_workers() {
    let redis = RedisServer::start();
    let gateway = Gateway::at(&redis.url());
    let effects = ["background_blur", "face_detection", "style_transfer"];
    let workers = [(); 2].map(|()| Worker::serving(&effects.join(","), &redis.url()));
    gateway.wait_for_workers(2);
    let sharp = background_sharpness(&scene(320, 240, 0));
    for effect in effects {
        let mut player = Player::new(&gateway, &wish(effect));
        let analysed = || workers.iter().map(|worker| worker.analysed(effect)).collect::<Vec<_>>();
        player.play_until(320, 240, "results of both workers", |player| {
            player.of_sent_frames().count() >= 20 && player.sent.len() % 10 == 0 && analysed().iter().all(|frames| *frames >= 3.0)
        });
        assert!(player.shown.is_sorted_by(|a, b| a.capture < b.capture), "{effect}");
        if effect == "background_blur" {
            let sharpest = player.shown.iter().map(|shown| background_sharpness(&shown.picture)).fold(0.0, f64::max);
            assert!(sharpest < 0.5 * sharp, "a background of sharpness {sharpest:.2}, the source has {sharp:.2}");
        }
        assert_eq!(player.told_problem(0, "no-worker"), None);
        assert_eq!(player.told_problem(0, "broker-down"), None);
        player.client.close().unwrap();
    }
}

#[test]
fn three_workers_of_90_ms_give_one_track_all_of_its_frames_in_order() {
    let _machine = machine::alone();
    let (_redis, gateway, _workers) = farm(3);
    let mut player = delayed(&gateway, 90);
    player.play_some(60);
    let from = player.mark();
    player.play_some(150);
    let to = player.mark();
    player.play_some(15);
    player.assert_sound();
    let shown = player.of_sent_frames().filter(|shown| from < shown.capture && shown.capture <= to);
    let processed = shown.filter(|shown| player.look(shown) == Look::Processed).count();
    assert!(processed >= 140, "{processed} of 150 frames were shown");
}

#[test]
fn each_session_is_served_by_the_worker_that_serves_its_effect() {
    let redis = RedisServer::start();
    let gateway = Gateway::at(&redis.url());
    let (delay, blur) = (Worker::at(&redis.url()), Worker::serving("background_blur", &redis.url()));
    gateway.wait_for_workers(2);
    let mut players = vec![delayed(&gateway, 20), Player::new(&gateway, &wish("background_blur"))];
    play_together(&mut players, (320, 240), 300, "both sessions to be served", |players| {
        players.iter().all(|player| player.of_sent_frames().count() >= 20)
    });
    players[0].assert_sound();
    assert!(delay.analysed("delay") >= 10.0 && blur.analysed("background_blur") >= 10.0);
    assert_eq!((delay.analysed("background_blur"), blur.analysed("delay")), (0.0, 0.0));

    let effects = gateway.json("/api/effects");
    let effect = |name: &str| effects["effects"].as_array().unwrap().iter().find(|effect| effect["name"] == name).unwrap().clone();
    for (name, available, workers) in [("delay", true, 1), ("background_blur", true, 1), ("style_transfer", false, 0)] {
        assert_eq!((&effect(name)["available"], &effect(name)["workers"]), (&json!(available), &json!(workers)), "{name}");
    }
    assert_eq!(effect("none")["available"], true, "what needs no worker is always there");
    assert!(effect("style_transfer")["unavailable_reason"].as_str().unwrap().len() > 10);
    assert_eq!((&effects["broker"]["kind"], &effects["broker"]["connected"]), (&json!("redis"), &json!(true)));
    assert_eq!(gateway.metric_of("ooblex_effect_workers", "effect=\"background_blur\""), 1.0);

    let player = &mut players[0];
    let since = player.messages.len();
    let change = json!({"type": "set_effect", "effect": "style_transfer", "id": 1});
    player.client.say(&change).unwrap();
    let told = |player: &Player| player.told_service(since, "no_worker") && player.told_problem(since, "no-worker").is_some();
    player.play_until_told(TWO_SECONDS, "no worker to be told of", told);
    let detail = player.told_problem(since, "no-worker").unwrap()["detail"].as_str().unwrap();
    assert!(detail.contains("style_transfer") && detail.contains("ooblex worker"), "{detail}");
    let since = player.messages.len();
    player.client.say(&json!({"type": "set_effect", "effect": "delay", "params": {"ms": 20}, "id": 2})).unwrap();
    player.play_until_told(TWO_SECONDS, "the effect that is served", |player| player.told_service(since, "served"));
    player.play_until_processed(10, TWO_SECONDS);
}

#[test]
fn sessions_take_turns_however_slow_their_frames_are() {
    let (_redis, gateway, _workers) = farm(2);
    let mut players = vec![delayed(&gateway, 300), delayed(&gateway, 10)];
    play_all_until_processed(&mut players, 20, 400);
    players.iter().for_each(Player::assert_sound);
    let [slow, quick] = [0, 1].map(|index| players[index].processed_since(ooblex_pipeline::MediaTime(0)));
    assert!(quick >= slow / 2 && slow >= quick / 3, "the slow session was shown {slow} frames, the quick one {quick}");
}

#[test]
fn two_gateways_share_workers_and_nothing_else() {
    let redis = RedisServer::start();
    let gateways = [(); 2].map(|()| Gateway::at(&redis.url()));
    let elsewhere = Gateway::configured("[broker]\nprefix = \"elsewhere:\"\n", &redis.url());
    let worker = Worker::serving("face_detection", &redis.url());
    gateways.iter().for_each(|gateway| gateway.wait_for_workers(1));
    let [mut with_face, mut without] = [0, 1].map(|index| Player::new(&gateways[index], &wish("face_detection")));
    let (scenes, wall) = (scenes(320, 240), ooblex_pipeline::I420::grey(320, 240, 128));
    let faces = |player: &Player| -> Vec<usize> {
        let told = player.heard(0, "detections");
        told.iter().map(|message| message["faces"].as_array().unwrap().len()).collect()
    };
    for step in 0..300 {
        if faces(&with_face).len() >= 60 && faces(&without).len() >= 60 {
            break;
        }
        with_face.play(&scenes[step % scenes.len()]);
        without.play(&wall);
    }
    for (player, expected) in [(&with_face, 1), (&without, 0)] {
        let faces = faces(player);
        assert!(faces.len() >= 60 && faces.iter().all(|found| *found == expected), "{expected} face in {faces:?}");
    }
    // On a busy machine, an analysis is painted on frames of the next 200 ms as well.
    assert!(worker.analysed("face_detection") >= 120.0 / 7.0);
    assert_eq!(elsewhere.metric("ooblex_workers"), 0.0, "another prefix is another world");
    let own = Worker::configured("[broker]\nprefix = \"elsewhere:\"\n", "delay", &redis.url());
    elsewhere.wait_for_workers(1);
    delayed(&elsewhere, 10).play_until_processed(5, 300);
    assert!(own.analysed("delay") >= 5.0);
    assert_eq!(gateways[0].metric("ooblex_workers"), 1.0);
    let strays = redis.keys(0, "*").into_iter().filter(|key| !key.starts_with("ooblex:") && !key.starts_with("elsewhere:"));
    assert_eq!(strays.collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn a_gateway_has_workers_of_its_own_beside_those_of_redis() {
    let redis = RedisServer::start();
    let gateway = Gateway::start("[diagnostics]\neffects = true\n", &["--broker", &redis.url(), "--workers", "1", "--effects", "delay"]);
    gateway.wait_for_workers(1);
    let mut player = delayed(&gateway, 50);
    player.play_until_processed(10, 300);
    let mut worker = Worker::at(&redis.url());
    gateway.wait_for_workers(2);
    player.play_until_told(300, "frames that the other worker has done", |_| worker.analysed("delay") >= 5.0);
    worker.kill();
    player.play_until_processed(10, 300);
    gateway.wait_for_workers(1);
    player.assert_sound();
}

// Failure of one worker

#[test]
fn a_worker_that_is_killed_in_mid_frame_costs_what_it_held() {
    let (_redis, gateway, mut workers) = farm(3);
    let mut player = delayed(&gateway, 400);
    player.play_until_processed(5, 300);
    let given_up = || gateway.dropped("lost") + gateway.dropped("overtaken") + gateway.dropped("expired");
    let before = given_up();
    workers[0].kill();
    player.play_until_processed(10, 4 * TWO_SECONDS);
    player.play_until_told(TWO_SECONDS, "the frame that is lost", |_| given_up() > before);
    gateway.wait_for_workers(2);
    player.assert_sound();
    assert_eq!(player.told_problem(0, "no-worker"), None, "the others serve it");
}

#[test]
fn a_worker_that_hangs_gets_no_frames_until_it_answers_again() {
    let (_redis, gateway, workers) = farm(2);
    let mut player = delayed(&gateway, 150);
    player.play_until_processed(10, 300);
    workers[0].signal(Signal::STOP);
    gateway.wait_for_workers(1);
    player.play_until_processed(10, 3 * TWO_SECONDS);
    let late = gateway.metric("ooblex_broker_results_late_total");
    // The frame that the worker holds is past its deadline now.
    player.play_some(40);
    workers[0].signal(Signal::CONT);
    player.play_until_told(TWO_SECONDS, "the late result to be counted", |_| gateway.metric("ooblex_broker_results_late_total") > late);
    gateway.wait_for_workers(2);
    let frames = workers[0].analysed("delay");
    player.play_until_told(TWO_SECONDS, "more results of it", |_| workers[0].analysed("delay") >= frames + 3.0);
    player.assert_sound();
}

#[test]
fn a_worker_that_is_slow_now_and_then_is_overtaken() {
    let (_redis, gateway, _workers) = farm(2);
    let mut player = delayed_by(&gateway, json!({"ms": 20, "slow_every": 15, "slow_ms": 400}));
    player.play_until_told(600, "frames that were overtaken", |player| player.sent.len() % 10 == 0 && gateway.dropped("overtaken") >= 4.0);
    player.assert_sound();
    let (shown, sent) = (player.processed_since(ooblex_pipeline::MediaTime(0)), player.sent.len());
    assert!(shown * 10 >= sent * 6, "{shown} of {sent} frames were shown");
}

#[test]
fn a_worker_that_is_asked_to_stop_finishes_what_it_holds() {
    let (_redis, gateway, mut workers) = farm(2);
    let mut player = delayed(&gateway, 300);
    player.play_until_processed(5, 300);
    workers[0].signal(Signal::TERM);
    player.play_until_processed(5, 3 * TWO_SECONDS);
    let status = workers[0].ended();
    assert!(status.success(), "{status}");
    player.play_until_processed(5, 3 * TWO_SECONDS);
    player.assert_sound();
    for reason in ["lost", "expired", "analysis_failed", "undelivered"] {
        assert_eq!(gateway.dropped(reason), 0.0, "{reason}");
    }
    gateway.wait_for_workers(1);
}

#[test]
fn a_worker_that_is_asked_twice_stops_at_once() {
    let (_redis, gateway, mut workers) = farm(1);
    let mut player = delayed(&gateway, 5000);
    let in_hand = |worker: &Worker| worker.metric("ooblex_worker_busy_seconds") >= 0.0 && gateway.metric("ooblex_workers") == 1.0;
    player.play_some(15);
    assert!(in_hand(&workers[0]));
    workers[0].signal(Signal::TERM);
    workers[0].wait("it to say that it stops", |worker| worker.answer("/readyz").0 == 503);
    workers[0].signal(Signal::TERM);
    assert_eq!(workers[0].ended().code(), Some(130));
}

// No worker

#[test]
fn when_the_last_worker_goes_the_session_is_told_and_holds_its_picture_until_one_comes() {
    let (redis, gateway, mut workers) = farm(1);
    let mut player = delayed(&gateway, 20);
    player.play_until_processed(10, 300);
    assert_eq!(player.told_problem(0, "no-worker"), None);
    let since = player.messages.len();
    workers[0].kill();
    let told = |player: &Player| player.told_service(since, "no_worker") && player.told_problem(since, "no-worker").is_some();
    player.play_until_told(TWO_SECONDS, "no worker to be told of", told);
    let problem = player.told_problem(since, "no-worker").unwrap();
    assert_eq!(problem["status"], 503);
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("delay") && detail.contains("ooblex worker") && !detail.contains(&redis.url()), "{detail}");
    let shown = player.shown.len();
    player.play_some(45);
    player.assert_sound();
    assert_eq!(player.processed_since(player.sent[player.sent.len() - 40]), 0);
    assert!(player.shown[shown..].iter().all(|shown| player.look(shown) == Look::Processed), "only the last picture is shown, again");
    gateway.wait("the frames to be counted", |_| gateway.dropped("no_worker") >= 30.0);
    let (status, body) = gateway.answer("/readyz");
    assert!(status == 503 && body.contains("worker"), "{status} {body}");
    player.play_until_told(TWO_SECONDS, "figures", |player| {
        player.heard(0, "stats").last().is_some_and(|stats| stats["service"] == "no_worker")
    });

    let since = player.messages.len();
    let _worker = Worker::at(&redis.url());
    player.play_until_processed(10, TWO_SECONDS);
    assert!(player.told_service(since, "served"));
    assert_eq!(player.told_problem(since, "no-worker"), None);
    player.assert_sound();
}

#[test]
fn a_session_that_begins_without_a_worker_has_a_placeholder_until_one_comes() {
    let (redis, gateway, _) = farm(0);
    for codec in [VideoCodec::Vp8, VideoCodec::H264] {
        let wish = Wish { codecs: vec![codec], effect: Some("delay".into()), params: json!({"ms": 20}), ..Wish::default() };
        let mut player = Player::new(&gateway, &wish);
        let told = |player: &Player| player.told_service(0, "no_worker") && player.told_problem(0, "no-worker").is_some();
        player.play_until_told(TWO_SECONDS, "no worker to be told of", told);
        player.play_until_told(TWO_SECONDS, "a placeholder", |player| !player.shown.is_empty());
        // A viewer that joins late or has lost the picture receives it again.
        let shown = player.shown.len();
        player.client.ask_for_keyframe().unwrap();
        player.play_until_told(TWO_SECONDS, "a placeholder again", |player| player.shown.len() > shown);
        assert!(player.shown.iter().all(|shown| player.look(shown) == Look::Placeholder));
        let since = player.messages.len();
        let _worker = Worker::at(&redis.url());
        player.play_until_processed(10, TWO_SECONDS);
        assert!(player.told_service(since, "served"));
        player.assert_sound();
        player.client.close().unwrap();
        drop(_worker);
        gateway.wait_for_workers(0);
    }
}

// Failure of a gateway

#[test]
fn a_gateway_that_is_killed_leaves_nothing_behind_and_disturbs_nobody() {
    let redis = RedisServer::start();
    let mut doomed = Gateway::at(&redis.url());
    doomed.wait("its announcement", |_| redis.keys(0, "ooblex:gateway:*").len() == 1);
    let id = redis.keys(0, "ooblex:gateway:*")[0].rsplit(':').next().unwrap().to_string();
    let gateway = Gateway::at(&redis.url());
    let _workers = [(); 2].map(|()| Worker::at(&redis.url()));
    [&doomed, &gateway].iter().for_each(|gateway| gateway.wait_for_workers(2));
    let doomed_player = delayed(&doomed, 100);
    let mut players = vec![delayed(&gateway, 100), doomed_player];
    play_all_until_processed(&mut players, 10, 300);
    doomed.kill();
    players.pop();
    let player = &mut players[0];
    player.play_until_processed(20, 2 * TWO_SECONDS);
    let left = || redis.keys(0, "ooblex:*").into_iter().filter(|key| key.contains(&id)).collect::<Vec<_>>();
    player.play_until_told(5 * TWO_SECONDS, "its keys to be gone", |_| left().is_empty());
    player.play_until_processed(20, 2 * TWO_SECONDS);
    player.assert_sound();
    assert_eq!((player.heard(0, "error").len(), gateway.dropped("lost")), (0, 0.0));
}

// Health and metrics of a worker

#[test]
fn a_worker_tells_how_it_is() {
    let mut redis = RedisServer::start();
    let mut worker = Worker::configured("", "delay,background_blur", &redis.url());
    worker.wait("it to be ready", |worker| worker.answer("/readyz").0 == 200);
    assert_eq!(worker.answer("/healthz").0, 200);
    let metrics = worker.text("/metrics");
    for name in ["ooblex_build_info", "ooblex_worker_threads", "ooblex_worker_busy_seconds", "ooblex_broker_connected"] {
        assert!(metrics.contains(name), "{name} is missing in {metrics}");
    }
    assert_eq!((worker.metric("ooblex_worker_threads"), worker.metric("ooblex_broker_connected")), (1.0, 1.0));
    redis.kill();
    worker.wait("it to miss Redis", |worker| worker.answer("/readyz").0 == 503);
    let (_, body) = worker.answer("/readyz");
    assert!(body.contains("Redis") && body.contains("127.0.0.1"), "{body}");
    assert_eq!(worker.answer("/healthz").0, 200, "it is not the worker that is ill");
    assert_eq!(worker.metric("ooblex_broker_connected"), 0.0);
    redis.restart();
    worker.wait("it to be ready again", |worker| worker.answer("/readyz").0 == 200);
    assert!(worker.metric("ooblex_broker_reconnects_total") >= 1.0);
    worker.signal(Signal::TERM);
    assert!(worker.ended().success());
}

#[test]
fn a_worker_that_can_not_work_says_why_and_does_not_start() {
    let redis = RedisServer::start();
    for (flags, words) in [
        (&["--broker", "local"][..], &["worker", "--broker redis://"][..]),
        (&[], &["worker", "--broker redis://"]),
        (&["--broker", &redis.url(), "--effects", "moustache"], &["moustache", "background_blur"]),
        (&["--broker", &redis.url(), "--effects", "delay"], &["delay", "background_blur"]),
        (&["--broker", "http://127.0.0.1"], &["redis://"]),
        (&["--broker", &redis.url(), "--device", "abacus"], &["abacus", "cpu"]),
        (&["--broker", &redis.url(), "--models", "/nowhere"], &["/nowhere"]),
    ] {
        let said = Worker::refuse("", flags);
        assert!(words.iter().all(|word| said.contains(word)), "{flags:?}: {said}");
    }
}
