//! A worker's end: one connection, on which it takes frames and gives results, in the order of its work.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ooblex_pipeline::{EffectName, Job, Outcome};
use redis::Value;

use super::connection::{Line, WAIT};
use super::error::{ErrorKind, Fault};
use super::keys::{PeerId, gateway_of};
use super::monitor::Link;
use super::{BACKOFF, Redis, Shared, wire};

const TAKE: &str = include_str!("take.lua");
/// How long results wait for their gateway. It has given them up by then, or is gone.
const RESULTS_OUTLIVE: Duration = Duration::from_secs(5);
/// Results that wait for one gateway at most: more than it can have frames under way only if it hangs.
const MAX_RESULTS: i64 = 1024;

/// A worker's place.
pub(crate) struct Seat {
    redis: Arc<Redis>,
    number: u64,
    effects: Mutex<Vec<EffectName>>,
    lane: Arc<Lane>,
}

/// The way back for one job's result.
pub(crate) struct Hand {
    redis: Arc<Redis>,
    lane: Arc<Lane>,
    gateway: PeerId,
}

/// The connection of one worker.
struct Lane(Mutex<State>);

#[derive(Default)]
struct State {
    line: Option<Line>,
    /// Which effect is asked for first: each in its turn.
    first: usize,
    backoff: Duration,
}

/// What lies in a slot.
struct Found {
    turn: Vec<u8>,
    left: Duration,
    frame: Vec<u8>,
}

impl Seat {
    pub(crate) fn new(redis: Arc<Redis>, effects: &[EffectName]) -> Self {
        let number = redis.shared.crew().on_join(effects);
        redis.shared.ring();
        Self { redis, number, effects: Mutex::new(effects.to_vec()), lane: Arc::new(Lane(Mutex::default())) }
    }

    pub(crate) fn serve(&self, effects: &[EffectName]) {
        *self.effects.lock().unwrap_or_else(PoisonError::into_inner) = effects.to_vec();
        self.redis.shared.crew().on_serve(self.number, effects);
        self.redis.shared.ring();
    }

    fn effects(&self) -> Vec<EffectName> {
        self.effects.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn take(&self) -> Option<(Job, Hand)> {
        let shared = &self.redis.shared;
        while !shared.closed() {
            let mut lane = self.lane.lock();
            match self.ask(&mut lane) {
                Ok(None) => lane.backoff = BACKOFF.0,
                Ok(Some(found)) => {
                    lane.backoff = BACKOFF.0;
                    if let Some(taken) = self.open(found) {
                        return Some(taken);
                    }
                }
                Err(fault) => {
                    lane.line = None;
                    let pause = lane.backoff;
                    lane.backoff = (pause * 2).clamp(BACKOFF.0, BACKOFF.1);
                    drop(lane);
                    shared.on_down(Link::Seat(self.number), &fault);
                    shared.pause(pause, || !shared.closed());
                }
            }
        }
        None
    }

    /// Takes a frame if one waits; otherwise waits a while for a turn.
    fn ask(&self, lane: &mut State) -> Result<Option<Found>, Fault> {
        let shared = &self.redis.shared;
        let mut effects = self.effects();
        lane.first = (lane.first + 1) % effects.len().max(1);
        effects.rotate_left(lane.first);
        let line = match &mut lane.line {
            Some(line) => line,
            none => {
                let line = none.insert(shared.connector.connect(WAIT)?);
                shared.on_up(Link::Seat(self.number));
                line
            }
        };
        let turns: Vec<_> = effects.iter().map(|effect| shared.keys.turns(effect)).collect();
        let slots: Vec<_> = effects.iter().map(|effect| shared.keys.slots(effect)).collect();
        let hand = shared.keys.hand(shared.me, self.number);
        let mut take = redis::pipe();
        take.cmd("EVAL").arg(TAKE).arg(1 + turns.len()).arg(&hand).arg(&turns).arg(&slots).cmd("GETDEL").arg(&hand);
        let answers = line.ask(&take);
        if let Some(fault) = line.complaint() {
            shared.monitor.on_complaint(fault.kind, &fault.sentence);
        }
        let mut answers = answers?.into_iter();
        let (found, frame) = (answers.next(), answers.next());
        if let Some(Value::Array(found)) = answer(shared, found)
            && let [_, Value::BulkString(turn), Value::Int(left)] = &found[..]
        {
            // Nothing is there when it has expired on its way.
            let Some(Ok(Value::BulkString(frame))) = frame else { return Ok(None) };
            return Ok(Some(Found { turn: turn.clone(), left: millis(*left), frame }));
        }
        let wake = shared.keys.wake(shared.me);
        let answers = line.ask(redis::pipe().cmd("BLPOP").arg(wake).arg(&turns).arg(WAIT.as_secs()))?;
        let Some(Value::Array(popped)) = answer(shared, answers.into_iter().next()) else { return Ok(None) };
        let [Value::BulkString(queue), Value::BulkString(turn)] = &popped[..] else { return Ok(None) };
        let Some(at) = turns.iter().position(|name| name.as_bytes() == queue) else { return Ok(None) };
        let slot = [slots[at].as_bytes(), turn].concat();
        let mut answers = line.ask(redis::pipe().cmd("PTTL").arg(&slot).cmd("GETDEL").arg(&slot))?.into_iter();
        match (answers.next(), answers.next()) {
            (Some(Ok(Value::Int(left))), Some(Ok(Value::BulkString(frame)))) => {
                Ok(Some(Found { turn: turn.clone(), left: millis(left), frame }))
            }
            // The frame has expired, or another worker has it.
            _ => Ok(None),
        }
    }

    /// Makes a job of what lay in a slot.
    fn open(&self, found: Found) -> Option<(Job, Hand)> {
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
        let wire::WireJob { track, seq, effect, input } = job;
        let submitted = Instant::now();
        let job = Job { track, seq, effect, input, submitted, deadline: submitted + found.left };
        Some((job, Hand { redis: self.redis.clone(), lane: self.lane.clone(), gateway }))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let shared = &self.redis.shared;
        if let Some(mut line) = self.lane.lock().line.take() {
            // Results that were sent are on their way once Redis has answered.
            _ = line.ask(redis::pipe().cmd("PING"));
        }
        shared.crew().on_leave(self.number);
        shared.monitor.on_gone(Link::Seat(self.number));
        shared.ring();
    }
}

impl Hand {
    /// Sends a result on its way. What becomes of it is seen when the worker asks for its next frame.
    pub(crate) fn complete(&self, job: &Job, outcome: Outcome, analysing: Duration) {
        let shared = &self.redis.shared;
        shared.crew().on_busy(analysing);
        let key = shared.keys.results(self.gateway);
        let mut pipeline = redis::pipe();
        pipeline.cmd("RPUSH").arg(&key).arg(wire::encode_result(job.track, job.seq, outcome, analysing));
        pipeline.cmd("LTRIM").arg(&key).arg(-MAX_RESULTS).arg(-1);
        pipeline.cmd("PEXPIRE").arg(&key).arg(RESULTS_OUTLIVE.as_millis() as u64);
        let mut lane = self.lane.lock();
        let sent = lane.line.as_mut().map(|line| line.send(&pipeline));
        if !matches!(sent, Some(Ok(()))) {
            // The frame is lost, and counted by its gateway. The next frame is asked for on a new connection.
            lane.line = None;
            shared.monitor.on_complaint(ErrorKind::Unreachable, "a result could not be sent: Redis is not connected");
        }
    }
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What Redis answered to a command, unless that is an error, which is counted.
fn answer(shared: &Shared, answer: Option<Result<Value, Fault>>) -> Option<Value> {
    match answer? {
        Ok(value) => Some(value),
        Err(fault) => {
            shared.monitor.on_complaint(fault.kind, &fault.sentence);
            // It may well repeat, as long as something of the wrong kind lies where a queue belongs.
            shared.pause(BACKOFF.0, || !shared.closed());
            None
        }
    }
}

fn millis(left: i64) -> Duration {
    Duration::from_millis(u64::try_from(left).unwrap_or(0))
}
