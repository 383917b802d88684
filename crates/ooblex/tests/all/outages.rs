//! Tests of outages of Redis: restart, disconnection, hang, out of memory, and refused access.
//! Sessions see their last picture and a message with the reason, and pictures move again within
//! two seconds after the end of the outage (five if Redis restarts empty). No frame is ever
//! unprocessed.

use crate::common::{FIVE_SECONDS, Gateway, Look, Player, RedisServer, TWO_SECONDS, Worker, delayed, farm};

/// Number of camera frames within which a session must be told of an outage.
const TOLD_WITHIN: usize = 90;

/// Plays through an outage of Redis that has just begun, for `frames` frames after the session was
/// told.
fn held_while_down(gateway: &Gateway, player: &mut Player, since: usize, frames: usize) {
    let told = |player: &Player| player.told_service(since, "broker_down") && player.told_problem(since, "broker-down").is_some();
    player.play_until_told(TOLD_WITHIN, "the outage to be told of", told);
    let problem = player.told_problem(since, "broker-down").unwrap();
    assert_eq!(problem["status"], 503);
    assert!(problem["detail"].as_str().unwrap().contains("delay"), "{problem}");
    let (shown, mark) = (player.shown.len(), player.mark());
    player.play_some(frames);
    assert_eq!(player.processed_since(mark), 0, "nobody can process a frame");
    assert!(player.shown[shown..].iter().all(|shown| player.look(shown) == Look::Processed), "only the last picture is shown, again");
    assert!(gateway.dropped("undelivered") > 0.0);
    let (status, body) = gateway.answer("/readyz");
    assert!(status == 503 && body.contains("Redis"), "{status} {body}");
    assert_eq!(gateway.metric("ooblex_broker_connected"), 0.0);
    let broker = gateway.json("/api/effects")["broker"].clone();
    let trouble = broker["trouble"].as_str().unwrap();
    assert!(broker["connected"] == false && trouble.contains("Redis"), "{broker}");
    for public in [trouble, &body, &format!("{:?}", player.messages)] {
        assert!(!public.contains("127.0.0.1"), "no address is public: {public}");
    }
    gateway.wait("the log to name it", |gateway| gateway.said().contains("127.0.0.1:"));
    player.assert_sound();
}

/// Camera frames of one minute.
const A_MINUTE: usize = 12 * FIVE_SECONDS;

/// Plays after the end of the outage until processed frames arrive again, and asserts that all
/// state is normal.
fn goes_on(gateway: &Gateway, player: &mut Player, since: usize, within: usize) {
    player.play_until_processed(5, within);
    assert!(player.told_service(since, "served"));
    player.play_until_processed(30, 2 * TWO_SECONDS);
    player.assert_sound();
    assert_eq!(gateway.metric("ooblex_broker_connected"), 1.0);
    assert_eq!(gateway.answer("/readyz").0, 200);
}

#[test]
fn redis_restarts_without_its_data() {
    let (mut redis, gateway, workers) = farm(2);
    let mut player = delayed(&gateway, 40);
    player.play_until_processed(10, 300);
    let since = player.messages.len();
    redis.restart();
    player.play_until_processed(5, FIVE_SECONDS);
    player.play_until_processed(30, 2 * TWO_SECONDS);
    player.assert_sound();
    gateway.wait_for_workers(2);
    assert_eq!(player.told_service(since, "broker_down"), player.told_service(since, "served"));
    assert!(gateway.metric("ooblex_broker_reconnects_total") >= 1.0);
    assert!(workers.iter().all(|worker| worker.metric("ooblex_broker_reconnects_total") >= 1.0));
}

#[test]
fn redis_is_gone_for_a_minute() {
    let (mut redis, gateway, _workers) = farm(1);
    let mut player = delayed(&gateway, 20);
    player.play_until_processed(10, 300);
    let since = player.messages.len();
    redis.kill();
    held_while_down(&gateway, &mut player, since, A_MINUTE);
    assert!(gateway.broker_errors("unreachable") >= 1.0);
    redis.restart();
    goes_on(&gateway, &mut player, since, FIVE_SECONDS);
}

#[test]
fn redis_is_not_there_yet_when_everything_starts() {
    let mut redis = RedisServer::start();
    redis.kill();
    let gateway = Gateway::at(&redis.url());
    let worker = Worker::at(&redis.url());
    assert_eq!([gateway.answer("/readyz").0, worker.answer("/readyz").0], [503, 503]);
    assert_eq!([gateway.answer("/healthz").0, worker.answer("/healthz").0], [200, 200]);
    let mut player = delayed(&gateway, 20);
    let told = |player: &Player| player.told_service(0, "broker_down") && player.told_problem(0, "broker-down").is_some();
    player.play_until_told(TOLD_WITHIN, "the outage to be told of", told);
    player.play_until_told(TWO_SECONDS, "a placeholder", |player| !player.shown.is_empty());
    assert!(player.shown.iter().all(|shown| player.look(shown) == Look::Placeholder));
    redis.restart();
    goes_on(&gateway, &mut player, 0, FIVE_SECONDS);
}

#[test]
fn redis_accepts_connections_and_does_not_answer() {
    let (redis, gateway, _workers) = farm(2);
    let mut player = delayed(&gateway, 40);
    player.play_until_processed(10, 300);
    let since = player.messages.len();
    redis.freeze();
    held_while_down(&gateway, &mut player, since, TWO_SECONDS);
    redis.thaw();
    goes_on(&gateway, &mut player, since, TWO_SECONDS);
}

#[test]
fn redis_is_full() {
    let (redis, gateway, workers) = farm(2);
    let mut player = delayed(&gateway, 40);
    player.play_until_processed(10, 300);
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let undelivered = gateway.dropped("undelivered");
    player.play_until_told(TOLD_WITHIN, "frames that Redis has no room for", |_| gateway.dropped("undelivered") >= undelivered + 10.0);
    // Results that were in transit may still have arrived.
    let (shown, mark) = (player.shown.len(), player.mark());
    player.play_some(TWO_SECONDS);
    assert_eq!(player.processed_since(mark), 0);
    assert!(player.shown[shown..].iter().all(|shown| player.look(shown) == Look::Processed), "only the last picture is shown, again");
    assert!(gateway.broker_errors("full") >= 10.0);
    let (status, body) = gateway.answer("/readyz");
    assert!(status == 503 && body.contains("Redis is full"), "{status} {body}");
    assert_eq!((gateway.metric("ooblex_broker_connected"), workers[0].answer("/readyz").0), (0.0, 503));
    player.assert_sound();
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    player.play_until_processed(5, TWO_SECONDS);
    player.play_until_processed(30, 2 * TWO_SECONDS);
    gateway.wait("it to be ready again", |gateway| gateway.answer("/readyz").0 == 200);
    assert_eq!(gateway.metric("ooblex_broker_connected"), 1.0);
    player.assert_sound();
    assert_eq!(player.heard(0, "error").iter().filter(|error| error["id"] != serde_json::Value::Null).count(), 0);
}

/// After a failover, the old master is a replica, and nothing redirects the clients to the new
/// master.
#[test]
fn redis_becomes_a_replica() {
    let (redis, gateway, workers) = farm(1);
    let mut player = delayed(&gateway, 20);
    player.play_until_processed(10, 300);
    let since = player.messages.len();
    redis.command(&["REPLICAOF", "127.0.0.1", "1"]);
    held_while_down(&gateway, &mut player, since, TWO_SECONDS);
    assert!(gateway.broker_errors("not_ready") >= 1.0);
    assert!(gateway.answer("/readyz").1.contains("takes no writes"), "{}", gateway.answer("/readyz").1);
    gateway.wait("a line in the log", |gateway| gateway.said().contains("takes no writes now"));
    workers[0].wait("the worker to see it as well", |worker| worker.answer("/readyz").0 == 503);
    redis.command(&["REPLICAOF", "NO", "ONE"]);
    goes_on(&gateway, &mut player, since, FIVE_SECONDS);
}

#[test]
fn redis_requires_another_password() {
    const PASSWORD: &str = "open-sesame-7391";
    let redis = RedisServer::with(&["--requirepass", PASSWORD]);
    let url = redis.url_of("", PASSWORD);
    let (gateway, worker) = (Gateway::at(&url), Worker::at(&url));
    gateway.wait_for_workers(1);
    let mut player = delayed(&gateway, 20);
    player.play_until_processed(10, 300);
    let since = player.messages.len();
    redis.command(&["CONFIG", "SET", "requirepass", "another"]);
    redis.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    held_while_down(&gateway, &mut player, since, TWO_SECONDS);
    assert!(gateway.broker_errors("denied") >= 1.0);
    worker.wait("the worker to be denied as well", |worker| worker.answer("/readyz").0 == 503);
    let mut heard = [gateway.answer("/readyz").1, worker.answer("/readyz").1, gateway.text("/api/effects")].to_vec();
    redis.command(&["CONFIG", "SET", "requirepass", PASSWORD]);
    goes_on(&gateway, &mut player, since, TWO_SECONDS);
    heard.extend([&*gateway, &*worker].map(|program| program.said() + &program.text("/metrics")));
    heard.extend(player.messages.iter().map(ToString::to_string));
    assert!(heard.iter().all(|text| !text.contains(PASSWORD)), "the password is said nowhere: {heard:?}");
}
