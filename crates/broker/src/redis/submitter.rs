//! The thread that sends frames to Redis.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use redis::Value;

use super::connection::{Limit, PipelinedConnection};
use super::error::Fault;
use super::keys::turn;
use super::monitor::Link;
use super::pending::{JobId, JobToSend, Slot};
use super::shared::Shared;
use super::wire;

const SUBMIT: &str = include_str!("submit.lua");
/// Expiry of a queue after the last frame was put into it. Its turns are useless by then, because
/// their frames have expired.
const QUEUE_OUTLIVES: Duration = Duration::from_secs(10);

/// Runs the thread that sends frames to Redis.
pub(super) fn submit(shared: &Shared) {
    shared.keep(
        Link::Submit,
        (Duration::ZERO, Limit::SMALL),
        || !shared.ended(),
        |mut line| {
            let end = carry_out(shared, &mut line);
            shared.pending.on_disconnected(end.as_ref().err().map_or("the gateway is stopping", |fault| &fault.sentence));
            end
        },
    );
}

fn carry_out(shared: &Shared, line: &mut PipelinedConnection) -> Result<(), Fault> {
    let next = shared.keys.next(shared.me);
    while let Some(batch) = shared.pending.next_batch() {
        let mut pipeline = redis::pipe();
        for Slot { track, effect } in &batch.clear {
            let turn = turn(shared.me, *track);
            pipeline.cmd("DEL").arg(shared.keys.slot(effect, &turn)).cmd("LREM").arg(shared.keys.turns(effect)).arg(0).arg(turn);
        }
        for JobToSend { job, nonce } in &batch.jobs {
            let turn = turn(shared.me, job.track);
            let left = job.deadline.saturating_duration_since(Instant::now()).as_millis().max(1) as u64;
            pipeline.cmd("SET").arg(&next).arg(wire::encode_job(job, *nonce)).arg("PX").arg(left);
            let lay = pipeline.cmd("EVAL").arg(SUBMIT).arg(2).arg(&next).arg(shared.keys.turns(&job.effect));
            lay.arg(shared.keys.slot(&job.effect, &turn)).arg(turn).arg(QUEUE_OUTLIVES.as_millis() as u64);
        }
        if pipeline.is_empty() {
            pipeline.cmd("PING");
        }
        let asked = Instant::now();
        let mut answers = line.ask(&pipeline)?.into_iter();
        shared.monitor.on_answer(asked.elapsed());
        for Slot { track, .. } in batch.clear {
            let (emptied, _) = (answers.next(), answers.next());
            if matches!(emptied, Some(Ok(Value::Int(1)))) {
                shared.pending.on_cleared(track);
            }
        }
        for JobToSend { job, .. } in batch.jobs {
            let id = JobId::of(&job);
            let (set, laid) = (answers.next(), answers.next());
            match set.filter(Result::is_err).or(laid) {
                Some(Ok(Value::Int(found))) => {
                    shared.monitor.turns_requeued.fetch_add(u64::from(found == 2), Ordering::Relaxed);
                    shared.pending.on_laid(id, job.effect, found > 0);
                }
                Some(Err(fault)) => {
                    shared.monitor.on_complaint(fault.kind, &fault.sentence);
                    shared.pending.on_refused(id, &fault.sentence);
                }
                Some(Ok(_)) | None => shared.pending.on_refused(id, "Redis gave an answer that makes no sense"),
            }
        }
    }
    Ok(())
}
