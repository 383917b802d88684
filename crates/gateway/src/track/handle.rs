//! The handle of a track, by which sessions reach it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError};
use ooblex_pipeline::I420;
use tokio::sync::oneshot;

use super::messages::TrackInput;
use super::stats::TrackStats;
use super::stills::StillRequest;
use crate::cpu::Ticket;
use crate::events::Events;
use crate::metrics::Metrics;

/// The handle of a track, for its publisher and its receivers. Clones lead to the same track.
#[derive(Clone)]
pub struct TrackHandle {
    pub(super) inbox: Sender<TrackInput>,
    pub(super) ended: Arc<AtomicBool>,
    pub(super) ticket: Arc<Ticket>,
    pub(super) metrics: Arc<Metrics>,
    /// Its live statistics.
    pub stats: Arc<TrackStats>,
    /// Its events, for readers.
    pub events: Events,
}

impl TrackHandle {
    /// Makes the handle of a track that receives from the other end of `inbox`.
    pub fn new(inbox: Sender<TrackInput>, metrics: Arc<Metrics>) -> Self {
        Self {
            inbox,
            ended: Arc::default(),
            ticket: Arc::default(),
            metrics: metrics.clone(),
            stats: Arc::new(TrackStats::new(metrics.clone())),
            events: Events::new(metrics),
        }
    }

    /// Hands something to the track. Returns false when its inbox is full.
    pub fn send(&self, input: TrackInput) -> bool {
        if let TrackInput::Frame { arrived, .. } = &input {
            self.ticket.on_frame(*arrived);
        }
        match self.inbox.try_send(input) {
            Ok(()) => true,
            Err(TrySendError::Full(input)) => {
                if let TrackInput::Frame { .. } = input {
                    self.metrics.frames.lost.inc();
                }
                false
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }

    /// Returns the metrics, for the session.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Asks for the next picture that is processed under the settings in force, or a stand-in for it
    /// after `patience`. It replaces a request that still waits. The channel closes without a picture
    /// when the track has ended, or its inbox is full.
    pub fn still(&self, patience: Duration) -> oneshot::Receiver<I420> {
        let (reply, picture) = oneshot::channel();
        self.send(TrackInput::Still(StillRequest { reply, patience }));
        picture
    }

    /// Returns whether the track was told to end.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Ends the track.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.send(TrackInput::Wake);
    }
}
