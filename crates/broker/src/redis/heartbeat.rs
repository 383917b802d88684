//! Heartbeats between the processes that share a Redis: each announces itself every 200 ms and
//! receives the announcements of the others.

use std::time::{Duration, Instant};

use redis::Value;
use tracing::warn;

use super::connection::{Limit, PipelinedConnection};
use super::error::{ErrorKind, Fault};
use super::membership::{Announcement, HEARTBEAT_INTERVAL, Heard, PEER_TIMEOUT};
use super::monitor::Link;
use super::shared::Shared;
use super::wire;

/// Time without any announcement after which the connection counts as dead, whatever the operating
/// system reports. A process also receives its own announcements.
const SILENCE: Duration = Duration::from_millis(1500);

/// Runs the thread that announces this process, until the process ends. The last announcement says
/// so.
pub(super) fn announce(shared: &Shared) {
    shared.keep(Link::Announce, (Duration::ZERO, Limit::SMALL), || !shared.ended(), |mut line| beat(shared, &mut line));
}

fn beat(shared: &Shared, line: &mut PipelinedConnection) -> Result<(), Fault> {
    // Roles (gateway, worker) that were announced last. Only their keys are deleted, so that a
    // process needs no permission for the keys of a role that it never had.
    let mut was = [false; 2];
    loop {
        let ended = shared.ended();
        let mut said = shared.announcement();
        if ended {
            said = Announcement { gateway: false, threads: 0, effects: Vec::new(), ..said };
        }
        let text = serde_json::to_string(&said).expect("plain data becomes JSON");
        let mut pipeline = redis::pipe();
        pipeline.cmd("SET").arg(shared.keys.probe(shared.me)).arg("").arg("PX").arg(PEER_TIMEOUT.as_millis() as u64);
        for ((role, is), was) in [("gateway", said.gateway), ("worker", said.threads > 0)].into_iter().zip(&mut was) {
            let key = shared.keys.announcement(role, shared.me);
            if is {
                pipeline.cmd("SET").arg(key).arg(&text).arg("PX").arg(PEER_TIMEOUT.as_millis() as u64);
            } else if *was {
                pipeline.cmd("DEL").arg(key);
            }
            *was = is;
        }
        pipeline.cmd("PUBLISH").arg(shared.keys.announcements()).arg(&text);
        let seats = vec!["1"; shared.local_workers.lock().seats.len()];
        if shared.closed() && !seats.is_empty() {
            // Without this, workers that wait for a turn would notice the close a second later.
            let wake = shared.keys.wake(shared.me);
            pipeline.cmd("RPUSH").arg(&wake).arg(seats).cmd("PEXPIRE").arg(wake).arg(PEER_TIMEOUT.as_millis() as u64);
        }
        if ended && shared.pending.is_open() {
            // Without this, the thread that waits for results would notice the end a second later.
            let results = shared.keys.results(shared.me);
            pipeline.cmd("RPUSH").arg(&results).arg("").cmd("PEXPIRE").arg(results).arg(PEER_TIMEOUT.as_millis() as u64);
        }
        let effects = shared.pending.effects();
        let known = pipeline.len();
        effects.iter().for_each(|effect| _ = pipeline.cmd("LLEN").arg(shared.keys.turns(effect)));
        let mut answers = line.ask(&pipeline)?;
        let waiting = answers.split_off(known).into_iter().map(|answer| if let Ok(Value::Int(turns)) = answer { turns } else { 0 });
        shared.pending.on_waiting(waiting.sum::<i64>() as usize);
        let mut answers = answers.into_iter();
        shared.on_written(answers.next().and_then(Result::err).as_ref());
        for fault in answers.filter_map(Result::err) {
            shared.monitor.on_complaint(fault.kind, &fault.sentence);
        }
        if ended {
            return Ok(());
        }
        shared.wait_for_wakeup(HEARTBEAT_INTERVAL);
    }
}

/// Runs the thread that receives the announcements of all processes.
pub(super) fn listen(shared: &Shared) {
    shared.keep(
        Link::Listen,
        (Duration::ZERO, Limit::SMALL),
        || !shared.ended(),
        |line| {
            let mut heard = Instant::now();
            shared.membership.lock().on_listening_again(heard);
            line.listen(&shared.keys.announcements(), HEARTBEAT_INTERVAL / 2, |said| {
                let now = Instant::now();
                if let Some(bytes) = said {
                    heard = now;
                    hear(shared, now, bytes);
                }
                if shared.membership.lock().expire(now) {
                    shared.pending.tell_all();
                }
                !shared.ended() && heard.elapsed() < SILENCE
            })?;
            match shared.ended() {
                true => Ok(()),
                false => Err(Fault {
                    kind: ErrorKind::Unreachable,
                    sentence: "Redis is silent: see whether it hangs, or a firewall cuts the connection".into(),
                }),
            }
        },
    );
}

fn hear(shared: &Shared, now: Instant, bytes: &[u8]) {
    let heard = shared.membership.lock().on_announcement(now, bytes);
    match heard {
        Heard::Nothing => {}
        Heard::Service => shared.pending.tell_all(),
        Heard::IncompatiblePeer { announcement } => {
            let Announcement { host, version, wire, .. } = *announcement;
            warn!(
                "version {version:.20} of Ooblex on {host:.60} shares this Redis and speaks version {wire} of the wire format, this \
                 program {}: they get no frames from one another; run the same version everywhere",
                wire::VERSION
            );
        }
        Heard::Noise => shared.monitor.on_complaint(ErrorKind::Malformed, "a message on Ooblex's channel in Redis is not an announcement"),
    }
}
