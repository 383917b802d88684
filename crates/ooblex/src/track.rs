//! The thread of one track: it decodes, prepares, paints and encodes, in the order that [`ooblex_pipeline::Track`] says.
//!
//! It alone owns the track's state. The media thread feeds it with frames, the workers with completions; it gives compressed
//! frames back to the media thread. It knows nothing of packets. Here is what it takes and gives; `runner` is its loop, `driver` what it
//! does with what comes in, `egress` the encoder with its bitrate, `loss_control` what losses allow, `report` what it says of itself,
//! `quality` when it does with less CPU, `frame_rate` which frames go on then, `service` what it says of its workers.

mod context;
mod driver;
mod egress;
mod frame_rate;
mod freezes;

mod handle;
mod join;
mod loss_control;
mod messages;
mod quality;
mod report;
mod resolution;
mod runner;
mod service;
#[cfg(test)]
mod simulation;
mod stats;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use ooblex_broker::Notice;
use ooblex_pipeline::Outcome;
use tracing::error;

pub use self::context::Context;
pub use self::handle::TrackHandle;
use self::messages::INBOX;
pub use self::messages::{ReceptionFeedback, TrackInput, TrackOutput, TrackSink};
pub use self::stats::TrackStats;
use crate::auth::Restrictions;
use crate::cpu::Ticket;
use crate::events::Events;
use crate::ids::SessionId;
use crate::labels::Goodbye;
use crate::settings::Settings;
use driver::Driver;
use egress::Egress;

/// Starts the thread of a track, whose changes are held against `restrictions`.
///
/// # Errors
/// When the system gives no thread.
pub fn spawn(
    context: Arc<Context>,
    id: SessionId,
    settings: Settings,
    restrictions: Arc<Restrictions>,
    sink: Arc<dyn TrackSink>,
) -> std::io::Result<TrackHandle> {
    let (inbox, receiver) = bounded(INBOX);
    let stats = Arc::new(TrackStats::new(context.metrics.clone()));
    let events = Events::new(context.metrics.clone());
    let (ticket, metrics) = (Arc::new(Ticket::default()), context.metrics.clone());
    let handle =
        TrackHandle { inbox, ended: Arc::default(), backlog_bytes: Arc::default(), ticket: ticket.clone(), metrics, stats, events };
    let to_inbox = handle.inbox.clone();
    let (scheduler, boosted) = (context.scheduler.clone(), ticket.clone());
    // A completion that finds the inbox full is lost; its frame expires, as if the worker had died. A change of service that finds
    // it full is seen with the next report.
    let told = move |notice| match notice {
        Notice::Completed(completion) => {
            let is_result = matches!(completion.outcome, Outcome::Analysed { .. });
            if to_inbox.try_send(TrackInput::Completed { completion, at: Instant::now() }).is_ok() && is_result {
                scheduler.boost(&boosted);
            }
        }
        Notice::ServiceChanged => _ = to_inbox.try_send(TrackInput::ServiceChanged),
    };
    for branch in id.branches() {
        let (told, is_first) = (told.clone(), branch == id.track());
        let told = move |notice| {
            // What concerns all lines is heard on the first.
            if is_first || matches!(notice, Notice::Completed(_)) {
                told(notice);
            }
        };
        context.broker.open_track(branch, Box::new(told));
    }
    let (ended, stats, events) = (handle.ended.clone(), handle.stats.clone(), handle.events.clone());
    let egress = Egress::new(context.config.video.clone(), handle.backlog_bytes.clone());
    let failed = context.clone();
    let run = move || {
        let driven = AssertUnwindSafe(|| {
            let driver = Driver::new(context.clone(), id, settings, egress, stats, events, ticket, sink.clone());
            driver.held_to(restrictions).run(&receiver, &ended)
        });
        if catch_unwind(driven).is_err() {
            error!(session = %id, "the track's thread panicked; its session ends");
            close_branches(&context, id);
            sink.end(Goodbye::Broken);
        }
        context.shares.leave(id);
        give_back_memory();
    };
    std::thread::Builder::new().name(format!("track-{:04x}", id.0 & 0xffff)).spawn(run).inspect_err(|_| close_branches(&failed, id))?;
    Ok(handle)
}

/// What the session took goes back to the system, together with what others took that end within a second.
fn give_back_memory() {
    static IS_DUE: AtomicBool = AtomicBool::new(false);
    if !IS_DUE.swap(true, Ordering::Relaxed) {
        std::thread::sleep(Duration::from_secs(1));
        IS_DUE.store(false, Ordering::Relaxed);
        ooblex_codec::give_back_fragments();
    }
}

/// Nothing of a track is of use to workers any more.
fn close_branches(context: &Context, id: SessionId) {
    id.branches().for_each(|branch| context.broker.close_track(branch));
}
