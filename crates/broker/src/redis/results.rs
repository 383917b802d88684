//! The thread that fetches results from Redis.

use std::sync::atomic::Ordering;
use std::time::Instant;

use redis::Value;

use super::connection::{Limit, PipelinedConnection, WAIT};
use super::error::{ErrorKind, Fault};
use super::monitor::Link;
use super::pending::Received;
use super::shared::Shared;
use super::wire;

/// Maximum number of results per fetch. Large results are fetched in smaller numbers, so that an
/// answer stays within its limit.
const RESULTS_AT_ONCE: usize = 64;

/// Runs the thread that fetches results.
pub(super) fn results(shared: &Shared) {
    shared.keep(Link::Results, (WAIT, Limit::RESULTS), || !shared.ended(), |mut line| carry_in(shared, &mut line));
}

fn carry_in(shared: &Shared, line: &mut PipelinedConnection) -> Result<(), Fault> {
    let key = shared.keys.results(shared.me);
    let mut largest = 1;
    while !shared.ended() {
        let more = (Limit::RESULTS.bytes() / 2 / largest).clamp(1, RESULTS_AT_ONCE - 1);
        let mut fetch = redis::pipe();
        // Redis answers the second command once the first has a result or has timed out.
        fetch.cmd("BLPOP").arg(&key).arg(WAIT.as_secs()).cmd("LPOP").arg(&key).arg(more);
        let answers = line.ask(&fetch)?;
        let now = Instant::now();
        if shared.ended() {
            break;
        }
        largest = answers.iter().flatten().map(longest).max().unwrap_or(1).max(largest / 2).max(1);
        for answer in answers {
            match answer {
                // The answer of BLPOP has the name of the list before the value.
                Ok(Value::Array(values)) => values.iter().filter(|value| !is(value, &key)).for_each(|value| take_in(shared, now, value)),
                Ok(_) => {}
                Err(fault) => {
                    // A value of another type has the key of this gateway's list. Only this gateway
                    // uses that key, so it deletes the value.
                    shared.monitor.on_complaint(ErrorKind::Malformed, &fault.sentence);
                    line.ask(redis::pipe().cmd("DEL").arg(&key))?;
                }
            }
        }
    }
    Ok(())
}

/// Returns the size of the longest result in an answer, in bytes.
fn longest(answer: &Value) -> usize {
    let Value::Array(values) = answer else { return 0 };
    values.iter().map(|value| if let Value::BulkString(bytes) = value { bytes.len() } else { 0 }).max().unwrap_or(0)
}

fn is(value: &Value, text: &str) -> bool {
    matches!(value, Value::BulkString(bytes) if bytes == text.as_bytes())
}

fn take_in(shared: &Shared, now: Instant, value: &Value) {
    let Value::BulkString(bytes) = value else { return };
    match wire::decode_result(bytes) {
        Ok(result) => match shared.pending.on_result(now, result) {
            Received::Used => {}
            Received::Late => _ = shared.monitor.late.fetch_add(1, Ordering::Relaxed),
            Received::Forged => shared.monitor.on_complaint(
                ErrorKind::Forged,
                "a result in Redis is not used, since it does not carry the nonce of its job: its sender did not get the job; check who else can write to this Redis",
            ),
        },
        Err(error) => shared.monitor.on_complaint(ErrorKind::Malformed, &format!("a result in Redis is not used: {error}")),
    }
}
