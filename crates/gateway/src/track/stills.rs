//! Single pictures of a track, for those who ask for one. Nothing is copied while nobody asks.
//!
//! It knows no effects: its caller gives it pictures that are processed, under the settings that are
//! in force. Time is an argument.

use std::time::{Duration, Instant};

use ooblex_pipeline::I420;
use tokio::sync::oneshot;

/// Interval at which a stand-in is tried again while there is no camera.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// A request for the next picture of a track.
#[derive(Debug)]
pub struct StillRequest {
    /// Takes the picture. It is dropped when the track ends, or when another request replaces this
    /// one.
    pub reply: oneshot::Sender<I420>,
    /// The time after which a stand-in is given, if no picture comes.
    pub patience: Duration,
}

/// The request that waits for a picture, if any.
#[derive(Default)]
pub(super) struct Stills {
    waiting: Option<Waiting>,
}

struct Waiting {
    reply: oneshot::Sender<I420>,
    stand_in_at: Instant,
}

impl Stills {
    /// Takes a request. It replaces one that still waits.
    pub(super) fn on_request(&mut self, now: Instant, request: StillRequest) {
        self.waiting = Some(Waiting { reply: request.reply, stand_in_at: now + request.patience });
    }

    /// Returns whether somebody waits for a picture.
    pub(super) fn are_wanted(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| !waiting.reply.is_closed())
    }

    /// Returns when a stand-in is due.
    pub(super) fn next_wakeup(&self) -> Option<Instant> {
        self.waiting.as_ref().map(|waiting| waiting.stand_in_at)
    }

    /// Tells whether a stand-in is due. A request that nobody waits for any more is dropped.
    pub(super) fn need_stand_in(&mut self, now: Instant) -> bool {
        self.waiting.take_if(|waiting| waiting.reply.is_closed());
        self.next_wakeup().is_some_and(|at| at <= now)
    }

    /// There is nothing to make a stand-in of.
    pub(super) fn postpone(&mut self, now: Instant) {
        if let Some(waiting) = &mut self.waiting {
            waiting.stand_in_at = now + RETRY_INTERVAL;
        }
    }

    /// Gives a copy of a picture to whoever waits.
    pub(super) fn give(&mut self, picture: &I420) {
        if let Some(waiting) = self.waiting.take()
            && !waiting.reply.is_closed()
        {
            _ = waiting.reply.send(picture.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(250);

    fn request(stills: &mut Stills, now: Instant) -> oneshot::Receiver<I420> {
        let (reply, picture) = oneshot::channel();
        stills.on_request(now, StillRequest { reply, patience: PATIENCE });
        picture
    }

    #[test]
    fn request_gets_one_picture_and_a_stand_in_is_due_after_its_patience() {
        let (mut stills, now) = (Stills::default(), Instant::now());
        assert!(!stills.are_wanted() && stills.next_wakeup().is_none());
        let mut picture = request(&mut stills, now);
        assert!(stills.are_wanted() && !stills.need_stand_in(now + PATIENCE / 2) && stills.need_stand_in(now + PATIENCE));
        stills.postpone(now + PATIENCE);
        assert!(!stills.need_stand_in(now + PATIENCE));
        stills.give(&I420::grey(64, 48, 77));
        assert_eq!(picture.try_recv().unwrap(), I420::grey(64, 48, 77));
        assert!(!stills.are_wanted() && stills.next_wakeup().is_none(), "one picture for one request");
    }

    #[test]
    fn request_that_nobody_waits_for_is_forgotten_and_a_newer_one_replaces_it() {
        let (mut stills, now) = (Stills::default(), Instant::now());
        let mut first = request(&mut stills, now);
        let second = request(&mut stills, now);
        assert!(first.try_recv().is_err());
        drop(second);
        assert!(!stills.are_wanted() && !stills.need_stand_in(now + PATIENCE) && stills.next_wakeup().is_none());
    }
}
