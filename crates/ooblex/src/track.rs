//! The thread of one track: it decodes, prepares, paints and encodes, in the order that [`ooblex_pipeline::Track`] says.
//!
//! It alone owns the track's state. The media thread feeds it with frames, the workers with completions; it gives compressed
//! frames back to the media thread. It knows nothing of packets. Here is what it takes and gives; `turn` is its loop, `driver` what it
//! does with what comes in, `egress` the encoder with its bitrate, `loss_control` what losses allow, `report` what it says of itself,
//! `adaptation` when it does with less CPU, `pace` which frames go on then, `service` what it says of its workers.

mod adaptation;
mod driver;
mod egress;
mod gather;
mod loss_control;
mod pace;
mod report;
mod resolution;
mod service;
#[cfg(test)]
mod simulation;
mod turn;
mod viewing;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError, bounded};
use ooblex_broker::{Broker, Notice};
use ooblex_codec::Rotation;
use ooblex_pipeline::{Completion, EncodedFrame, Outcome, VideoCodec};
use tracing::error;

use crate::auth::Restrictions;
use crate::config::Config;
use crate::cores::{Cores, Place};
use crate::events::Events;
use crate::figures::TrackFigures;
use crate::metrics::Metrics;
use crate::session::SessionId;
use crate::sessions::Sessions;
use crate::settings::{Catalogue, ChangedBy, Settings};
use crate::shares::Shares;
use crate::transport::TransportHandle;
pub(crate) use adaptation::CONCESSIONS;
use driver::Driver;
use egress::Egress;

/// What comes in to a track.
pub enum TrackInput {
    /// The codec that goes out, known before the first frame.
    Codec(VideoCodec),
    /// A compressed frame came in whole.
    Frame {
        /// The frame.
        frame: EncodedFrame,
        /// When its last packet arrived.
        arrived: Instant,
        /// What has to be done to show it upright; `None`: as before.
        rotation: Option<Rotation>,
        /// Frames before it were lost.
        gap: bool,
    },
    /// The broker is done with a frame.
    Completed {
        /// What became of it.
        completion: Completion,
        /// Since when.
        at: Instant,
    },
    /// Workers may have come or gone.
    ServiceChanged,
    /// Somebody other than the browser asks for something else.
    Change {
        /// What is to be in force.
        settings: Settings,
        /// Who asks.
        by: ChangedBy,
    },
    /// The browser says something; `None`: something too long.
    Control(Option<Vec<u8>>),
    /// The browser can be talked to.
    ControlOpen,
    /// The connection stands.
    Connected,
    /// The browser can not go on without a keyframe.
    KeyframeWanted,
    /// Bits a second that the network is thought to carry.
    Estimate(u32),
    /// The same; and they are so few, all of a sudden, that frames which were handed on have been given up.
    BrokenDown(u32),
    /// How what was sent during the last second has fared.
    Fared(Fared),
    /// The camera is back after a silence: much was lost, in both directions.
    Resumed,
    /// Nothing: look whether the track has ended.
    Wake,
}

/// How what was sent has fared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fared {
    /// The share of packets that the browser has missed, 0..=1. Some browsers count what came at the second attempt as not missed.
    pub lost: f32,
    /// The share of bytes that it had asked for again, 0..=1.
    pub resent: f32,
    /// The share of bytes that were sent twice unasked, 0..=1.
    pub copied: f32,
    /// Packets take much longer than the quickest did.
    pub queued: bool,
}

/// What a track has for its session.
#[derive(Debug)]
pub enum TrackOutput {
    /// A compressed frame to send.
    Frame {
        /// The frame.
        frame: EncodedFrame,
        /// When the last packet of its source arrived.
        arrived: Instant,
    },
    /// The browser is to be asked for a keyframe.
    NeedKeyframe,
    /// Bits a second that would be of use.
    DesiredBitrate(u32),
    /// A message for the data channel.
    Message {
        /// JSON.
        text: String,
        /// It may be left out when the browser is slow to read.
        may_be_missed: bool,
    },
}

/// The way to a track. Clones lead to the same one.
#[derive(Clone)]
pub struct TrackHandle {
    inbox: Sender<TrackInput>,
    ended: Arc<AtomicBool>,
    backlog_bytes: Arc<AtomicU32>,
    place: Arc<Place>,
    metrics: Arc<Metrics>,
    /// Its live figures.
    pub figures: Arc<TrackFigures>,
    /// What it finds and says.
    pub events: Events,
}

impl TrackHandle {
    /// Hands something to the track. `false` when the track is too busy to take it.
    pub fn send(&self, input: TrackInput) -> bool {
        if let TrackInput::Frame { arrived, .. } = &input {
            self.place.on_frame(*arrived);
        }
        match self.inbox.try_send(input) {
            Ok(()) => true,
            Err(TrySendError::Full(input)) => {
                if let TrackInput::Frame { .. } = input {
                    self.metrics.on_lost_frame();
                }
                false
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }

    /// To a track that is no thread but the other end of `inbox`.
    #[cfg(test)]
    pub(crate) fn detached(inbox: Sender<TrackInput>, metrics: Arc<Metrics>) -> Self {
        Self {
            inbox,
            ended: Arc::default(),
            backlog_bytes: Arc::default(),
            place: Arc::default(),
            metrics: metrics.clone(),
            figures: Arc::new(TrackFigures::new(metrics.clone())),
            events: Events::new(metrics),
        }
    }

    /// Where its session notes what Prometheus is told.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// So many bytes of frames that the track gave wait to be sent.
    pub fn set_backlog(&self, bytes: usize) {
        self.backlog_bytes.store(u32::try_from(bytes).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// The track is over.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.send(TrackInput::Wake);
    }
}

/// What all tracks share.
pub struct Context {
    /// Where frames are analysed.
    pub broker: Broker,
    /// What can be asked for.
    pub catalogue: Arc<Catalogue>,
    /// Where compressed frames go.
    pub transport: TransportHandle,
    /// The running sessions.
    pub sessions: Arc<Sessions>,
    /// For Prometheus.
    pub metrics: Arc<Metrics>,
    /// What tracks compute on.
    pub cores: Arc<Cores>,
    /// How much of them each may use.
    pub shares: Shares,
    /// What the operator set.
    pub config: Config,
}

/// Starts the thread of a track, whose changes are held against `restrictions`.
///
/// # Errors
/// When the system gives no thread.
pub fn spawn(context: Arc<Context>, id: SessionId, settings: Settings, restrictions: Arc<Restrictions>) -> std::io::Result<TrackHandle> {
    let (inbox, receiver) = bounded(INBOX);
    let figures = Arc::new(TrackFigures::new(context.metrics.clone()));
    let events = Events::new(context.metrics.clone());
    let (place, metrics) = (Arc::new(Place::default()), context.metrics.clone());
    let handle =
        TrackHandle { inbox, ended: Arc::default(), backlog_bytes: Arc::default(), place: place.clone(), metrics, figures, events };
    let sink = handle.inbox.clone();
    let (cores, hurried) = (context.cores.clone(), place.clone());
    // A completion that finds the inbox full is lost; its frame expires, as if the worker had died. A change of service that finds
    // it full is seen with the next report.
    let told = move |notice| match notice {
        Notice::Completed(completion) => {
            let is_result = matches!(completion.outcome, Outcome::Analysed { .. });
            if sink.try_send(TrackInput::Completed { completion, at: Instant::now() }).is_ok() && is_result {
                cores.hurry(&hurried);
            }
        }
        Notice::ServiceChanged => _ = sink.try_send(TrackInput::ServiceChanged),
    };
    for lane in id.lanes() {
        let (told, is_first) = (told.clone(), lane == id.track());
        let told = move |notice| {
            // What concerns all lines is heard on the first.
            if is_first || matches!(notice, Notice::Completed(_)) {
                told(notice);
            }
        };
        context.broker.open_track(lane, Box::new(told));
    }
    let (ended, figures, events) = (handle.ended.clone(), handle.figures.clone(), handle.events.clone());
    let egress = Egress::new(context.config.video.clone(), handle.backlog_bytes.clone());
    let failed = context.clone();
    let run = move || {
        let driven = AssertUnwindSafe(|| {
            let driver = Driver::new(context.clone(), id, settings, egress, figures, events, place);
            driver.held_to(restrictions).run(&receiver, &ended)
        });
        if catch_unwind(driven).is_err() {
            error!(session = %id, "the track's thread panicked; its session ends");
            close_lanes(&context, id);
            context.transport.abandon(id);
        }
        context.shares.leave(id);
        give_back_memory();
    };
    std::thread::Builder::new().name(format!("track-{:04x}", id.0 & 0xffff)).spawn(run).inspect_err(|_| close_lanes(&failed, id))?;
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
fn close_lanes(context: &Context, id: SessionId) {
    id.lanes().for_each(|lane| context.broker.close_track(lane));
}

/// Things that wait for the track's thread.
const INBOX: usize = 256;
