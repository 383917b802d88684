//! A track: one video of a publisher, on a thread of its own, which decodes, prepares, paints and
//! encodes its frames in the order that [`ooblex_pipeline::Track`] decides.
//!
//! The thread owns all state of the track. The media thread sends it compressed frames, the broker
//! completions; it gives compressed frames back through its [`TrackSink`]. It knows nothing of
//! packets. `runner` is the loop of the thread and the path of a frame through the parts: `ingest`
//! (queue and decoder), `analysis` (which frames go to workers, `join` for chains), `presenter`
//! (painters and stand-ins), `outputs` (one `egress` per receiver, with `loss_control` and
//! `placement`; one `shared_encoder` per codec and quality, with `shared_bitrate` and
//! `resolution`), `stills` (single pictures), `outbox` (the way out). `cpu_control` groups `frame_rate` and `quality`; `report`
//! makes the `stats` of each second; `service` tells the browser whether workers serve it.

mod analysis;
mod context;
mod cpu_control;
mod egress;
mod frame_rate;
mod freezes;
mod handle;
mod ingest;
mod join;
mod loss_control;
mod messages;
mod outbox;
mod outputs;
mod placement;
mod presenter;
mod quality;
mod report;
mod resolution;
mod runner;
mod second;
mod service;
mod shared_bitrate;
mod shared_encoder;
mod stats;
mod stills;

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
pub use self::messages::{Backlog, OutputInput, ReceptionFeedback, TrackInput, TrackOutput, TrackSink};
pub use self::outbox::Outbox;
pub use self::outputs::{OutputState, Outputs, Sent};
pub use self::stats::{Stats, TrackStats};
pub use self::stills::StillRequest;
use crate::ids::SessionId;
use crate::labels::ByeReason;
use crate::restrictions::Restrictions;
use crate::settings::Settings;
use runner::Runner;

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
    let handle = TrackHandle::new(inbox, context.metrics.clone());
    let (to_inbox, ticket) = (handle.inbox.clone(), handle.ticket.clone());
    let (scheduler, boosted) = (context.scheduler.clone(), ticket.clone());
    // A completion that finds the inbox full is lost; its frame expires, as if the worker had died.
    // A change of service that finds it full is seen with the next report.
    let notified = move |notice| match notice {
        Notice::Completed(completion) => {
            let is_result = matches!(completion.outcome, Outcome::Analysed { .. });
            if to_inbox.try_send(TrackInput::Completed { completion, at: Instant::now() }).is_ok() && is_result {
                scheduler.boost(&boosted);
            }
        }
        Notice::ServiceChanged => _ = to_inbox.try_send(TrackInput::ServiceChanged),
    };
    for branch in id.branches() {
        let (notified, is_first) = (notified.clone(), branch == id.track());
        let notified = move |notice| {
            // A notice that concerns all branches is taken from the first.
            if is_first || matches!(notice, Notice::Completed(_)) {
                notified(notice);
            }
        };
        context.broker.open_track(branch, Box::new(notified));
    }
    let (ended, stats, events) = (handle.ended.clone(), handle.stats.clone(), handle.events.clone());
    let outputs = Outputs::new(context.config.video.clone(), context.metrics.clone());
    let failed = context.clone();
    let run = move || {
        let runs = AssertUnwindSafe(|| {
            let outbox = Outbox::new(id, sink.clone(), events);
            Runner::new(context.clone(), outbox, settings, restrictions, outputs, stats, ticket).run(&receiver, &ended);
        });
        if catch_unwind(runs).is_err() {
            error!(session = %id, "the track's thread panicked; its session ends");
            context.close_branches(id);
            sink.end(ByeReason::Broken);
        }
        context.shares.leave(id);
        give_back_memory();
    };
    std::thread::Builder::new().name(format!("track-{:04x}", id.0 & 0xffff)).spawn(run).inspect_err(|_| failed.close_branches(id))?;
    Ok(handle)
}

/// Returns the memory of the session to the system, together with that of sessions that end within
/// a second.
fn give_back_memory() {
    static IS_DUE: AtomicBool = AtomicBool::new(false);
    if !IS_DUE.swap(true, Ordering::Relaxed) {
        std::thread::sleep(Duration::from_secs(1));
        IS_DUE.store(false, Ordering::Relaxed);
        ooblex_codec::give_back_fragments();
    }
}
