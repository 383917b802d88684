//! Gateways and workers that share a Redis, and sessions for them that cost next to nothing.

use ooblex::client::Wish;
use serde_json::{Value, json};

use super::{Gateway, Player, RedisServer, Worker, play_together};

/// The size at which codecs are for nothing.
pub const SMALL: (u32, u32) = (160, 120);
/// Two seconds of a camera: in as much, all goes on once the cause of an outage has ended.
pub const TWO_SECONDS: usize = 60;
/// Five seconds of a camera: in as much, all goes on when a Redis has come back that knows of nothing.
pub const FIVE_SECONDS: usize = 150;

/// Serves the effect `delay`, too.
const DIAGNOSTICS: &str = "[diagnostics]\neffects = true\n";

impl Gateway {
    /// A gateway without workers of its own, ready as soon as `delay` is served.
    pub fn at(broker: &str) -> Self {
        Self::configured("", broker)
    }

    /// The same with more configuration.
    pub fn configured(config: &str, broker: &str) -> Self {
        Self::start(&format!("{DIAGNOSTICS}{config}"), &["--broker", broker, "--effect", "delay"])
    }

    /// Waits until it knows of this many workers.
    pub fn wait_for_workers(&self, workers: u32) {
        self.wait(&format!("{workers} workers"), |gateway| gateway.metric("ooblex_workers") == f64::from(workers));
    }

    /// How many frames were dropped for a reason.
    pub fn dropped(&self, reason: &str) -> f64 {
        self.metric_of("ooblex_frames_dropped_total", &format!("reason=\"{reason}\""))
    }

    /// How many errors of a kind its broker has met.
    pub fn broker_errors(&self, kind: &str) -> f64 {
        self.metric_of("ooblex_broker_errors_total", &format!("kind=\"{kind}\""))
    }
}

impl Worker {
    /// A worker of one thread that serves `delay`.
    pub fn at(broker: &str) -> Self {
        Self::serving("delay", broker)
    }

    /// A worker of one thread that serves these effects, separated by commas.
    pub fn serving(effects: &str, broker: &str) -> Self {
        Self::configured("", effects, broker)
    }

    /// The same with more configuration.
    pub fn configured(config: &str, effects: &str, broker: &str) -> Self {
        Self::start(&format!("{DIAGNOSTICS}{config}"), &["--broker", broker, "--effects", effects, "--threads", "1"])
    }

    /// How many frames of an effect it has analysed.
    pub fn analysed(&self, effect: &str) -> f64 {
        let text = self.text("/metrics");
        let of_effect = |line: &&str| line.contains(&format!("effect=\"{effect}\"")) && line.contains("result=\"analysed\"");
        let lines = text.lines().filter(|line| line.starts_with("ooblex_worker_frames_total{"));
        lines.filter(of_effect).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

/// One Redis, one gateway, and workers that serve `delay`.
pub fn farm(workers: u32) -> (RedisServer, Gateway, Vec<Worker>) {
    let redis = RedisServer::start();
    let gateway = Gateway::at(&redis.url());
    let workers: Vec<_> = (0..workers).map(|_| Worker::at(&redis.url())).collect();
    gateway.wait_for_workers(workers.len() as u32);
    (redis, gateway, workers)
}

/// A session whose frames each take a worker this many milliseconds.
pub fn delayed(gateway: &Gateway, ms: u32) -> Player {
    delayed_by(gateway, json!({ "ms": ms }))
}

/// A session with these parameters of `delay`.
pub fn delayed_by(gateway: &Gateway, params: Value) -> Player {
    Player::new(gateway, &Wish { effect: Some("delay".into()), params, ..Wish::default() })
}

impl Player {
    /// Plays `frames` small frames.
    pub fn play_some(&mut self, frames: usize) {
        let until = self.sent.len() + frames;
        play_together(std::slice::from_mut(self), SMALL, frames, "the frames to be played", |players| players[0].sent.len() >= until);
    }

    /// Plays small frames, `most` at most, until so many of them have come back processed.
    pub fn play_until_processed(&mut self, count: usize, most: usize) {
        let mark = self.mark();
        let what = format!("{count} processed frames");
        play_together(std::slice::from_mut(self), SMALL, most, &what, |players| players[0].processed_since(mark) >= count);
    }

    /// Plays small frames until something has been said.
    pub fn play_until_told(&mut self, most: usize, what: &str, mut told: impl FnMut(&Self) -> bool) {
        play_together(std::slice::from_mut(self), SMALL, most, what, |players| told(&players[0]));
    }

    /// Whether, since there were `since` messages, it was told that its effect is in this state: `served`, `no_worker`, `broker_down`.
    pub fn told_service(&self, since: usize, state: &str) -> bool {
        self.heard(since, "service").iter().any(|message| message["state"] == state)
    }

    /// The problem of this type, such as `no-worker`, that it was told since there were `since` messages.
    pub fn told_problem(&self, since: usize, kind: &str) -> Option<&Value> {
        let urn = format!("urn:ooblex:problem:{kind}");
        self.heard(since, "error").into_iter().map(|message| &message["problem"]).find(|problem| problem["type"] == urn.as_str())
    }
}

/// Plays in all sessions until each was shown `count` processed pictures of frames that were sent from now on.
pub fn play_all_until_processed(players: &mut [Player], count: usize, most: usize) {
    let marks: Vec<_> = players.iter().map(Player::mark).collect();
    let what = format!("{count} processed frames in each session");
    play_together(players, SMALL, most, &what, |players| {
        players.iter().zip(&marks).all(|(player, mark)| player.processed_since(*mark) >= count)
    });
}
