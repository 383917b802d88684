//! Current phase of a connection, and the time at which it began.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Timeouts;

/// The phases of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The TLS handshake is not complete.
    Handshake,
    /// The server reads a request head, or waits for the first one.
    Head,
    /// The server reads a request body.
    Body,
    /// The server computes or sends a response.
    Answering,
    /// The server sends a response of unknown length, such as a stream of events.
    Streaming,
    /// The last response was sent, and the next request has not begun.
    Idle,
}

/// Current phase of one connection. The parts of the connection report it; the connection's main
/// loop reads it.
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

    /// Begins another phase.
    pub(super) fn enter(&self, phase: Phase) {
        *self.state.lock() = State { phase, since: Instant::now() };
        self.changed.notify_one();
    }

    /// Enters the phase `next` if the current phase is `from`.
    pub(super) fn advance(&self, from: Phase, next: Phase) {
        let mut state = self.state.lock();
        if state.phase == from {
            *state = State { phase: next, since: Instant::now() };
            drop(state);
            self.changed.notify_one();
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.state.lock().phase
    }

    /// Returns the rank of the connection among those that can be displaced, lowest first:
    /// connections that wait for their clients, then streams, each from the longest to the newest.
    /// Returns `None` while the client waits for a response.
    pub(super) fn displacement_rank(&self) -> Option<(bool, Instant)> {
        let State { phase, since } = *self.state.lock();
        (phase != Phase::Answering).then_some((phase == Phase::Streaming, since))
    }

    /// Returns the deadline of the current phase. Handshakes and bodies have their deadlines
    /// elsewhere.
    pub(super) fn deadline(&self, timeouts: &Timeouts) -> Option<(Instant, Phase)> {
        let State { phase, since } = *self.state.lock();
        match phase {
            Phase::Head => Some((since + timeouts.head, phase)),
            Phase::Idle => Some((since + timeouts.idle, phase)),
            Phase::Handshake | Phase::Body | Phase::Answering | Phase::Streaming => None,
        }
    }

    /// Waits until the phase has changed.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Marks the connection to be closed, so that another one can take its slot.
    pub(super) fn displace(&self) {
        self.displaced.notify_one();
    }

    /// Waits for a call of [`Self::displace`].
    pub(super) async fn displaced(&self) {
        self.displaced.notified().await;
    }

    /// Records that the client has accepted no byte within the write timeout.
    pub(super) fn on_write_timeout(&self) {
        self.write_timed_out.store(true, Ordering::Relaxed);
    }

    pub(super) fn write_timed_out(&self) -> bool {
        self.write_timed_out.load(Ordering::Relaxed)
    }
}
