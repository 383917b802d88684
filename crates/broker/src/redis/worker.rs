//! The worker's side of the broker: one connection per worker, on which it takes frames and sends
//! results in the order of its work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ooblex_pipeline::{EffectName, Job, Outcome};
use parking_lot::Mutex;
use redis::Value;

use super::connection::{Limit, PipelinedConnection, WAIT};
use super::error::{ErrorKind, Fault};
use super::keys::{PeerId, gateway_of};
use super::monitor::Link;
use super::shared::{BACKOFF, Shared};
use super::{Redis, wire};

const TAKE: &str = include_str!("take.lua");
/// Expiry of a list of results after the last one was added. By then its gateway has given the
/// results up, or is gone.
const RESULTS_OUTLIVE: Duration = Duration::from_secs(5);
/// Maximum number of results in the list of one gateway, which is reached only if the gateway
/// hangs. Older results are removed.
const MAX_RESULTS: i64 = 1024;

/// Registration of one worker.
pub(crate) struct WorkerConnection {
    redis: Arc<Redis>,
    number: u64,
    effects: Mutex<Vec<EffectName>>,
    connection: Arc<Mutex<SharedConnection>>,
}

/// Destination of one job's result.
pub(crate) struct ReplyHandle {
    redis: Arc<Redis>,
    connection: Arc<Mutex<SharedConnection>>,
    gateway: PeerId,
    nonce: wire::Nonce,
}

/// Connection of one worker, shared with the jobs that it has taken.
#[derive(Default)]
struct SharedConnection {
    line: Option<PipelinedConnection>,
    /// Index of the effect whose queue is asked first. It rotates, so that no effect starves.
    first: usize,
    backoff: Duration,
}

/// Turn of a track that was popped from a queue without its frame.
struct Held {
    /// Number of the queue, counted from 1.
    queue: usize,
    turn: Vec<u8>,
}

/// Names of the keys with which a worker takes frames.
struct Names {
    hand: String,
    /// Queues, in the order in which they are asked.
    turns: Vec<String>,
    /// Prefix of the names of the slots, for each queue.
    slots: Vec<String>,
}

/// Frame that was found in a slot, with its turn and the time to its deadline.
struct Found {
    turn: Vec<u8>,
    left: Duration,
    frame: Vec<u8>,
}

impl WorkerConnection {
    pub(crate) fn new(redis: Arc<Redis>, effects: &[EffectName]) -> Self {
        let number = redis.shared.local_workers.lock().on_join(effects);
        redis.shared.ring();
        Self { redis, number, effects: Mutex::new(effects.to_vec()), connection: Arc::default() }
    }

    pub(crate) fn serve(&self, effects: &[EffectName]) {
        *self.effects.lock() = effects.to_vec();
        self.redis.shared.local_workers.lock().on_serve(self.number, effects);
        self.redis.shared.ring();
    }

    fn effects(&self) -> Vec<EffectName> {
        self.effects.lock().clone()
    }

    pub(crate) fn take(&self) -> Option<(Job, ReplyHandle)> {
        let shared = &self.redis.shared;
        while !shared.closed() {
            let mut connection = self.connection.lock();
            match self.ask(&mut connection) {
                Ok(None) => connection.backoff = BACKOFF.0,
                Ok(Some(found)) => {
                    connection.backoff = BACKOFF.0;
                    if let Some(taken) = self.open(found) {
                        return Some(taken);
                    }
                }
                Err(fault) => {
                    connection.line = None;
                    if fault.kind == ErrorKind::Malformed {
                        // This side closed the connection, because an answer was too long. The
                        // answer is gone with it.
                        shared.monitor.on_complaint(fault.kind, &fault.sentence);
                        continue;
                    }
                    let pause = connection.backoff;
                    connection.backoff = (pause * 2).clamp(BACKOFF.0, BACKOFF.1);
                    drop(connection);
                    shared.on_down(Link::Worker(self.number), &fault);
                    shared.pause(pause, || !shared.closed());
                }
            }
        }
        None
    }

    /// Takes a frame if one waits; otherwise waits up to [`WAIT`] for a turn.
    fn ask(&self, connection: &mut SharedConnection) -> Result<Option<Found>, Fault> {
        let shared = &self.redis.shared;
        let mut effects = self.effects();
        connection.first = (connection.first + 1) % effects.len().max(1);
        effects.rotate_left(connection.first);
        let line = match &mut connection.line {
            Some(line) => line,
            none => {
                let line = none.insert(shared.connector.connect(WAIT, Limit::FRAME)?);
                shared.on_up(Link::Worker(self.number));
                line
            }
        };
        let names = Names {
            hand: shared.keys.hand(shared.me, self.number),
            turns: effects.iter().map(|effect| shared.keys.turns(effect)).collect(),
            slots: effects.iter().map(|effect| shared.keys.slots(effect)).collect(),
        };
        if let Some(found) = take(shared, line, &names, None)? {
            return Ok(Some(found));
        }
        let wake = shared.keys.wake(shared.me);
        let answers = line.ask(redis::pipe().cmd("BLPOP").arg(wake).arg(&names.turns).arg(WAIT.as_secs()))?;
        let Some(Value::Array(popped)) = answer(shared, answers.into_iter().next()) else { return Ok(None) };
        let [Value::BulkString(queue), Value::BulkString(turn)] = &popped[..] else { return Ok(None) };
        let Some(at) = names.turns.iter().position(|name| name.as_bytes() == queue) else { return Ok(None) };
        take(shared, line, &names, Some(&Held { queue: at + 1, turn: turn.clone() }))
    }

    /// Decodes the frame that was found in a slot into a job.
    fn open(&self, found: Found) -> Option<(Job, ReplyHandle)> {
        let complain = |error: &dyn std::fmt::Display| {
            self.redis.shared.monitor.on_complaint(ErrorKind::Malformed, &format!("a frame in Redis is not used: {error}"));
        };
        let job = wire::decode_job(&found.frame).inspect_err(|error| complain(error)).ok()?;
        let Some(gateway) = gateway_of(&found.turn) else {
            complain(&"its turn names no gateway");
            return None;
        };
        if !self.effects().contains(&job.effect) {
            complain(&"it lies in the queue of another effect");
            return None;
        }
        let wire::WireJob { track, seq, nonce, effect, input } = job;
        let submitted = Instant::now();
        let job = Job { track, seq, effect, input, submitted, deadline: submitted + found.left };
        Some((job, ReplyHandle { redis: self.redis.clone(), connection: self.connection.clone(), gateway, nonce }))
    }
}

impl Drop for WorkerConnection {
    fn drop(&mut self) {
        let shared = &self.redis.shared;
        if let Some(mut line) = self.connection.lock().line.take() {
            // Redis has received all results that were sent once it answers this PING.
            _ = line.ask(redis::pipe().cmd("PING"));
        }
        shared.local_workers.lock().on_leave(self.number);
        shared.monitor.on_gone(Link::Worker(self.number));
        shared.ring();
    }
}

impl ReplyHandle {
    /// Sends a result. An error of Redis is noticed when the worker asks for its next frame.
    pub(crate) fn complete(&self, job: &Job, outcome: Outcome, analysing: Duration) {
        let shared = &self.redis.shared;
        shared.local_workers.lock().on_busy(analysing);
        let key = shared.keys.results(self.gateway);
        let mut pipeline = redis::pipe();
        pipeline.cmd("RPUSH").arg(&key).arg(wire::encode_result(job.track, job.seq, self.nonce, outcome, analysing));
        pipeline.cmd("LTRIM").arg(&key).arg(-MAX_RESULTS).arg(-1);
        pipeline.cmd("PEXPIRE").arg(&key).arg(RESULTS_OUTLIVE.as_millis() as u64);
        let mut connection = self.connection.lock();
        let sent = connection.line.as_mut().map(|line| line.send(&pipeline));
        if !matches!(sent, Some(Ok(()))) {
            // The frame is lost, and its gateway counts it. The next frame is asked for on a new
            // connection.
            connection.line = None;
            shared.monitor.on_complaint(ErrorKind::Unreachable, "a result could not be sent: Redis is not connected");
        }
    }
}

/// Takes the frame of the turn that is `held`, or else the first frame that waits.
fn take(shared: &Shared, line: &mut PipelinedConnection, names: &Names, held: Option<&Held>) -> Result<Option<Found>, Fault> {
    let (queue, turn) = held.map_or((0, &[][..]), |held| (held.queue, &held.turn));
    let mut take = redis::pipe();
    take.cmd("EVAL").arg(TAKE).arg(1 + names.turns.len()).arg(&names.hand).arg(&names.turns);
    take.arg(wire::MAX_BYTES).arg(queue).arg(turn).arg(&names.slots).cmd("GETDEL").arg(&names.hand);
    let answers = line.ask(&take);
    if let Some(fault) = line.complaint() {
        shared.monitor.on_complaint(fault.kind, &fault.sentence);
    }
    let mut answers = answers?.into_iter();
    let (found, frame) = (answers.next(), answers.next());
    let Some(Value::Array(found)) = answer(shared, found) else { return Ok(None) };
    Ok(match (&found[..], frame) {
        ([Value::Int(0), _, Value::Int(bytes)], _) => {
            let sentence = format!("a frame in Redis is not used: {bytes} bytes, more than any has");
            shared.monitor.on_complaint(ErrorKind::Malformed, &sentence);
            None
        }
        ([_, Value::BulkString(turn), Value::Int(left)], Some(Ok(Value::BulkString(frame)))) => {
            Some(Found { turn: turn.clone(), left: millis(*left), frame })
        }
        // The frame is missing if it has expired between the two commands.
        _ => None,
    })
}

/// Returns the answer of Redis to a command. An error is counted, and gives `None`.
fn answer(shared: &Shared, answer: Option<Result<Value, Fault>>) -> Option<Value> {
    match answer? {
        Ok(value) => Some(value),
        Err(fault) => {
            shared.monitor.on_complaint(fault.kind, &fault.sentence);
            // The error may repeat, as long as a value of another type has the name of a queue.
            shared.pause(BACKOFF.0, || !shared.closed());
            None
        }
    }
}

fn millis(left: i64) -> Duration {
    Duration::from_millis(u64::try_from(left).unwrap_or(0))
}
