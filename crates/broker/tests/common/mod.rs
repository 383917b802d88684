//! What the tests of the broker share: jobs, tracks that note what they are told, and a real Redis.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test uses a part of it, and fails by panicking")]

mod redis_server;

use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use ooblex_broker::{Broker, Notice};
use ooblex_pipeline::{Analysis, Completion, EffectName, FrameSeq, Job, ModelInput, Rgb, TrackId};

pub use redis_server::RedisServer;

/// Long enough for anything that is expected to happen, on any machine.
pub const WITHIN: Duration = Duration::from_secs(30);

/// A gateway's broker, whose connections stand.
pub fn gateway(server: &RedisServer) -> Broker {
    let broker = server.broker("ooblex:");
    broker.open_gateway();
    eventually("a connection", || broker.health().connected);
    broker
}

/// A track, and what becomes of its jobs.
pub fn open(broker: &Broker, track: u64) -> Receiver<Completion> {
    let (sender, receiver) = channel();
    let sink = move |notice| {
        if let Notice::Completed(completion) = notice {
            _ = sender.send(completion);
        }
    };
    broker.open_track(TrackId(track), Box::new(sink));
    receiver
}

/// The effect that jobs have here.
pub fn test() -> EffectName {
    EffectName::new("test")
}

pub fn job(track: u64, seq: u64) -> Job {
    let input = ModelInput { picture: Rgb { width: 1, height: 1, data: vec![0; 3] }, content: [0, 0, 1, 1], arguments: Vec::new() };
    let submitted = Instant::now();
    Job { track: TrackId(track), seq: FrameSeq(seq), effect: test(), input, submitted, deadline: submitted + WITHIN }
}

/// An analysis that can be told from others.
pub fn analysis(mark: u32) -> Analysis {
    Analysis::Picture(Rgb { width: mark, height: 0, data: Vec::new() })
}

pub fn next(completions: &Receiver<Completion>) -> Completion {
    completions.recv_timeout(WITHIN).expect("a completion")
}

/// Waits until something holds that another thread or process brings about.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + WITHIN;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}
