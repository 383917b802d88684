//! Helpers of the broker's tests: jobs, tracks that record their completions, and a real Redis.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test uses a part of it, and fails by panicking")]

mod redis_server;

use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use ooblex_broker::{Broker, Notice};
use ooblex_pipeline::{Analysis, Completion, EffectName, FrameSeq, Job, ModelInput, Rgb, TrackId};

pub use redis_server::RedisServer;

/// Timeout for anything that is expected to happen, on any machine.
pub const WITHIN: Duration = Duration::from_secs(30);

/// Creates a gateway's broker and waits until it is connected.
pub fn gateway(server: &RedisServer) -> Broker {
    let broker = server.broker("ooblex:");
    broker.open_gateway();
    eventually("a connection", || broker.health().connected);
    broker
}

/// Opens a track and returns the completions of its jobs.
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

/// Returns the effect of the test jobs.
pub fn test() -> EffectName {
    EffectName::new("test")
}

pub fn job(track: u64, seq: u64) -> Job {
    let input = ModelInput { picture: Rgb { width: 1, height: 1, data: vec![0; 3] }, content: [0, 0, 1, 1], arguments: Vec::new() };
    let submitted = Instant::now();
    Job { track: TrackId(track), seq: FrameSeq(seq), effect: test(), input, submitted, deadline: submitted + WITHIN }
}

/// Makes an analysis that differs from others by `mark`.
pub fn analysis(mark: u32) -> Analysis {
    Analysis::Picture(Rgb { width: mark, height: 0, data: Vec::new() })
}

pub fn next(completions: &Receiver<Completion>) -> Completion {
    completions.recv_timeout(WITHIN).expect("a completion")
}

/// Waits until another thread or process makes `holds` return true.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + WITHIN;
    while !holds() {
        assert!(Instant::now() < deadline, "timeout while waiting for {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}
