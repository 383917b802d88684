//! State that a bench session shares with the modules that observe it, and state that all sessions
//! share.
//!
//! A session and its decoder write to its [`Viewer`], and the load generator reads from it. A
//! viewer is passive.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::clip::Clip;
use super::decoding::Decoders;
use super::effect_check::EffectCheck;
use super::plan::Network;
use super::session_stats::{SentFrames, SessionStats};
use ooblex_client::Wish;
use ooblex_client::endpoint::Purpose;

/// State shared by all sessions.
pub(super) struct Stage {
    /// Base URL of the gateway, without a trailing slash.
    pub(super) url: String,
    /// The clip that is sent.
    pub(super) clip: Arc<Clip>,
    /// The decoder threads.
    pub(super) decoders: Decoders,
    /// The simulated network.
    pub(super) network: Network,
    /// Times of bad network conditions.
    pub(super) times: Mutex<Times>,
}

/// Times of bad network conditions, known once the measurement begins.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Times {
    /// Time of the outage.
    pub(super) outage: Option<Range<Instant>>,
    /// Time in which loss and rate limit apply, if they are limited to a time.
    pub(super) bad: Option<Range<Instant>>,
}

/// Observable state of a session.
pub(super) struct Viewer {
    /// Index of the session, from 0.
    pub(super) index: usize,
    /// Session parameters that are requested from the gateway.
    pub(super) wish: Wish,
    /// What the session is for: an effect on its own camera, or a part in a room.
    pub(super) purpose: Purpose,
    /// Check of the session's pictures; `None` if they cannot be judged.
    pub(super) judge: Option<EffectCheck>,
    tally: Mutex<SessionStats>,
    state: Mutex<State>,
    leaves: Mutex<Option<Leave>>,
    wants_keyframe: AtomicBool,
}

/// Phase of a session.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum State {
    /// The session is not connected yet.
    SettingUp,
    /// The session is connected.
    Up {
        /// Time that the set-up took.
        after: Duration,
    },
    /// The session was never connected, for this reason.
    Failed(String),
    /// The session ended without being told to.
    Lost {
        /// Time that the set-up took.
        after: Duration,
        /// Reason of the end.
        reason: String,
    },
    /// The session ended as requested.
    Left {
        /// Time that the set-up took.
        after: Duration,
    },
}

/// Way in which a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// The session closes the connection.
    Goodbye,
    /// The session stops sending, like a browser on a machine that is switched off.
    Silence,
}

impl Viewer {
    /// Creates the state of a session that has not begun. `sent`: the frames that it sends, or that
    /// the publisher of its room sends.
    pub(super) fn new(index: usize, wish: Wish, purpose: Purpose, sent: Arc<Mutex<SentFrames>>, decoded: bool) -> Self {
        Self {
            index,
            purpose,
            judge: EffectCheck::of(wish.effect.as_deref(), &wish.params),
            wish,
            tally: Mutex::new(SessionStats::new(Instant::now(), sent, decoded)),
            state: Mutex::new(State::SettingUp),
            leaves: Mutex::new(None),
            wants_keyframe: AtomicBool::new(false),
        }
    }

    /// Locks and returns the measurements.
    pub(super) fn tally(&self) -> MutexGuard<'_, SessionStats> {
        self.tally.lock()
    }

    /// Returns the current phase.
    pub(super) fn state(&self) -> State {
        self.state.lock().clone()
    }

    /// Returns whether the session is connected.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.state(), State::Up { .. })
    }

    /// Tells the session to end soon.
    pub(super) fn leave(&self, how: Leave) {
        *self.leaves.lock() = Some(how);
    }

    /// Requests a keyframe, because a picture could not be decoded.
    pub(super) fn want_keyframe(&self) {
        self.wants_keyframe.store(true, Ordering::Relaxed);
    }

    /// Returns whether a keyframe was requested since the last call.
    pub(super) fn takes_keyframe_wish(&self) -> bool {
        self.wants_keyframe.swap(false, Ordering::Relaxed)
    }

    /// Returns how the session must end; `None` while it may continue.
    pub(super) fn leaves(&self) -> Option<Leave> {
        *self.leaves.lock()
    }

    /// Sets the phase.
    pub(super) fn set_state(&self, state: State) {
        *self.state.lock() = state;
    }
}
