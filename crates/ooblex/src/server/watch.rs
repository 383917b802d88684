//! The phase of one connection, and the time at which it began.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Timeouts;

/// The phases of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// TLS is not there yet.
    Handshake,
    /// A head is being read, or the first one has not begun.
    Head,
    /// The body of a request is being read.
    Body,
    /// An answer is being made or sent.
    Answering,
    /// The last answer was sent, and no next request has begun.
    Idle,
}

/// The phase of one connection. The parts of the connection report it; the loop around the connection asks.
pub(super) struct Watch {
    state: Mutex<State>,
    changed: Notify,
    displaced: Notify,
    write_timed_out: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
struct State {
    phase: Phase,
    since: Instant,
}

impl Watch {
    pub(super) fn new(phase: Phase) -> Self {
        Self {
            state: Mutex::new(State { phase, since: Instant::now() }),
            changed: Notify::new(),
            displaced: Notify::new(),
            write_timed_out: AtomicBool::new(false),
        }
    }

    /// Another phase begins now.
    pub(super) fn enter(&self, phase: Phase) {
        *self.state() = State { phase, since: Instant::now() };
        self.changed.notify_one();
    }

    /// Enters `next` if the phase is `from`.
    pub(super) fn advance(&self, from: Phase, next: Phase) {
        let mut state = self.state();
        if state.phase == from {
            *state = State { phase: next, since: Instant::now() };
            drop(state);
            self.changed.notify_one();
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.state().phase
    }

    /// Since when the connection waits for its client; none while the client waits for an answer.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        let State { phase, since } = *self.state();
        (phase != Phase::Answering).then_some(since)
    }

    /// When the present phase has lasted too long. Handshakes and bodies have deadlines elsewhere.
    pub(super) fn deadline(&self, timeouts: &Timeouts) -> Option<(Instant, Phase)> {
        let State { phase, since } = *self.state();
        match phase {
            Phase::Head => Some((since + timeouts.head, phase)),
            Phase::Idle => Some((since + timeouts.idle, phase)),
            Phase::Handshake | Phase::Body | Phase::Answering => None,
        }
    }

    /// Waits until the phase has changed.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Ends the connection, so that another one has its place.
    pub(super) fn displace(&self) {
        self.displaced.notify_one();
    }

    /// Waits until [`Self::displace`].
    pub(super) async fn displaced(&self) {
        self.displaced.notified().await;
    }

    /// The client has not taken a byte for too long.
    pub(super) fn on_write_timeout(&self) {
        self.write_timed_out.store(true, Ordering::Relaxed);
    }

    pub(super) fn write_timed_out(&self) -> bool {
        self.write_timed_out.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
