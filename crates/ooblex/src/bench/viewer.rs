//! What a session of a bench shares with those who watch it, and what all sessions share.
//!
//! A [`Viewer`] is written by its session and by the decoders, and read by the crew. It does nothing by itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::clip::Clip;
use super::decoding::Decoders;
use super::judge::Judge;
use super::link::Conditions;
use super::tally::Tally;
use crate::client::Wish;

/// What all sessions share.
pub(super) struct Stage {
    /// The gateway, without a slash at the end.
    pub(super) url: String,
    /// What is sent.
    pub(super) clip: Arc<Clip>,
    /// Who decodes.
    pub(super) decoders: Decoders,
    /// The network to the gateway, and back.
    pub(super) up: Conditions,
    /// See `up`.
    pub(super) down: Conditions,
    /// Losses and jitter are drawn from it.
    pub(super) seed: u64,
    /// When the network is worse than else.
    pub(super) times: Mutex<Times>,
}

/// Times of the network, known when the count begins.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Times {
    /// From when to when nothing comes through.
    pub(super) outage: Option<(Instant, Instant)>,
    /// From when to when loss and rate hold, where they do so for a while.
    pub(super) bad: Option<(Instant, Instant)>,
}

/// A session as those see it who watch it.
pub(super) struct Viewer {
    /// Which one it is, from 0.
    pub(super) index: usize,
    /// What it asks for.
    pub(super) wish: Wish,
    /// How its pictures are judged.
    pub(super) judge: Option<Judge>,
    tally: Mutex<Tally>,
    state: Mutex<State>,
    leaves: Mutex<Option<Leave>>,
    wants_keyframe: AtomicBool,
}

/// Where a session is in its life.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum State {
    /// There is no connection yet.
    SettingUp,
    /// It stands.
    Up {
        /// What the set-up took.
        after: Duration,
    },
    /// No connection came about.
    Failed(String),
    /// It ended, and nobody wanted it to.
    Lost {
        /// What the set-up took.
        after: Duration,
        /// Why it ended.
        reason: String,
    },
    /// It ended as it was told.
    Left {
        /// What the set-up took.
        after: Duration,
    },
}

/// How a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// With a goodbye.
    Goodbye,
    /// By silence, as a browser does whose machine is switched off.
    Silence,
}

impl Viewer {
    /// A session that has not begun.
    pub(super) fn new(index: usize, wish: Wish, decoded: bool) -> Self {
        Self {
            index,
            judge: Judge::of(wish.effect.as_deref(), &wish.params),
            wish,
            tally: Mutex::new(Tally::new(Instant::now(), decoded)),
            state: Mutex::new(State::SettingUp),
            leaves: Mutex::new(None),
            wants_keyframe: AtomicBool::new(false),
        }
    }

    /// What it has measured.
    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it is in its life.
    pub(super) fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether its connection stands.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.state(), State::Up { .. })
    }

    /// It is to end soon.
    pub(super) fn leave(&self, how: Leave) {
        *self.leaves.lock().unwrap_or_else(PoisonError::into_inner) = Some(how);
    }

    /// A picture could not be decoded.
    pub(super) fn want_keyframe(&self) {
        self.wants_keyframe.store(true, Ordering::Relaxed);
    }

    /// Whether that has happened since the last call.
    pub(super) fn takes_keyframe_wish(&self) -> bool {
        self.wants_keyframe.swap(false, Ordering::Relaxed)
    }

    /// Whether it is to end, and how.
    pub(super) fn leaves(&self) -> Option<Leave> {
        *self.leaves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It has come to another place in its life.
    pub(super) fn set_state(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}
