//! Gateways and workers that share a Redis, and cheap sessions for them.

use ooblex_client::Wish;
use serde_json::{Value, json};

use super::{Gateway, Player, RedisServer, Worker, play_together};

/// A picture size at which the cost of codecs is negligible.
pub const SMALL: (u32, u32) = (160, 120);
/// Camera frames of two seconds: the time within which frames are processed again after an outage.
pub const TWO_SECONDS: usize = 60;
/// Camera frames of five seconds: the time within which frames are processed again after Redis has
/// restarted empty.
pub const FIVE_SECONDS: usize = 150;

/// Configuration that also serves the effect `delay`.
const DIAGNOSTICS: &str = "[diagnostics]\neffects = true\n";

impl Gateway {
    /// Starts a gateway without built-in workers, which is ready as soon as `delay` is served.
    pub fn at(broker: &str) -> Self {
        Self::configured("", broker)
    }

    /// Starts such a gateway with additional configuration.
    pub fn configured(config: &str, broker: &str) -> Self {
        Self::start(&format!("{DIAGNOSTICS}{config}"), &["--broker", broker, "--effect", "delay"])
    }

    /// Waits until the gateway knows `workers` workers.
    pub fn wait_for_workers(&self, workers: u32) {
        self.wait(&format!("{workers} workers"), |gateway| gateway.metric("ooblex_workers") == f64::from(workers));
    }

    /// Returns the number of frames dropped for a reason.
    pub fn dropped(&self, reason: &str) -> f64 {
        self.metric_of("ooblex_frames_dropped_total", &format!("reason=\"{reason}\""))
    }

    /// Returns the number of broker errors of a kind.
    pub fn broker_errors(&self, kind: &str) -> f64 {
        self.metric_of("ooblex_broker_errors_total", &format!("kind=\"{kind}\""))
    }
}

impl Worker {
    /// Starts a worker with one thread that serves `delay`.
    pub fn at(broker: &str) -> Self {
        Self::serving("delay", broker)
    }

    /// Starts a worker with one thread that serves these effects, separated by commas.
    pub fn serving(effects: &str, broker: &str) -> Self {
        Self::configured("", effects, broker)
    }

    /// Starts such a worker with additional configuration.
    pub fn configured(config: &str, effects: &str, broker: &str) -> Self {
        Self::start(&format!("{DIAGNOSTICS}{config}"), &["--broker", broker, "--effects", effects, "--threads", "1"])
    }

    /// Returns the number of frames of an effect that the worker has analysed.
    pub fn analysed(&self, effect: &str) -> f64 {
        let text = self.text("/metrics");
        let of_effect = |line: &&str| line.contains(&format!("effect=\"{effect}\"")) && line.contains("result=\"analysed\"");
        let lines = text.lines().filter(|line| line.starts_with("ooblex_worker_frames_total{"));
        lines.filter(of_effect).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

/// Starts a Redis, a gateway, and workers that serve `delay`.
pub fn farm(workers: u32) -> (RedisServer, Gateway, Vec<Worker>) {
    let redis = RedisServer::start();
    let gateway = Gateway::at(&redis.url());
    let workers: Vec<_> = (0..workers).map(|_| Worker::at(&redis.url())).collect();
    gateway.wait_for_workers(workers.len() as u32);
    (redis, gateway, workers)
}

/// Begins a session in which a worker needs `ms` milliseconds for each frame.
pub fn delayed(gateway: &Gateway, ms: u32) -> Player {
    delayed_by(gateway, json!({ "ms": ms }))
}

/// Begins a session with these parameters of `delay`.
pub fn delayed_by(gateway: &Gateway, params: Value) -> Player {
    Player::new(gateway, &Wish { effect: Some("delay".into()), params, ..Wish::default() })
}

impl Player {
    /// Plays `frames` small frames.
    pub fn play_some(&mut self, frames: usize) {
        let until = self.sent.len() + frames;
        play_together(std::slice::from_mut(self), SMALL, frames, "the frames to be played", |players| players[0].sent.len() >= until);
    }

    /// Plays at most `most` small frames, until `count` of them have come back processed.
    pub fn play_until_processed(&mut self, count: usize, most: usize) {
        let mark = self.mark();
        let what = format!("{count} processed frames");
        play_together(std::slice::from_mut(self), SMALL, most, &what, |players| players[0].processed_since(mark) >= count);
    }

    /// Plays at most `most` small frames, until the condition holds.
    pub fn play_until_told(&mut self, most: usize, what: &str, mut told: impl FnMut(&Self) -> bool) {
        play_together(std::slice::from_mut(self), SMALL, most, what, |players| told(&players[0]));
    }

    /// Returns whether one of the messages from index `since` on gives this state of the effect:
    /// `served`, `no_worker` or `broker_down`.
    pub fn told_service(&self, since: usize, state: &str) -> bool {
        self.heard(since, "service").iter().any(|message| message["state"] == state)
    }

    /// Returns the first problem of this type, such as `no-worker`, among the messages from index
    /// `since` on.
    pub fn told_problem(&self, since: usize, kind: &str) -> Option<&Value> {
        let urn = format!("urn:ooblex:problem:{kind}");
        self.heard(since, "error").into_iter().map(|message| &message["problem"]).find(|problem| problem["type"] == urn.as_str())
    }
}

/// Plays in all sessions until each has shown `count` processed pictures of frames that were sent
/// after this call.
pub fn play_all_until_processed(players: &mut [Player], count: usize, most: usize) {
    let marks: Vec<_> = players.iter().map(Player::mark).collect();
    let what = format!("{count} processed frames in each session");
    play_together(players, SMALL, most, &what, |players| {
        players.iter().zip(&marks).all(|(player, mark)| player.processed_since(*mark) >= count)
    });
}
