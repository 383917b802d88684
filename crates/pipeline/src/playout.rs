//! Puts frames back in capture order and decides when each one has waited enough.
//!
//! It holds frames from their admission until they are released or given up. It does not know where results come from,
//! what they mean, or how late it is: time is an argument.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::track::{Generation, Mode};
use crate::{DropReason, FrameSeq};

/// How long frames wait.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From its admission, a frame waits at most this long for its analysis.
    pub deadline: Duration,
    /// Once a newer frame is ready, an older one holds it up at most this long.
    pub overtaken: Duration,
    /// Where the newest analysis may be reused, a frame waits at most this long for its own.
    pub own: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { deadline: Duration::from_millis(1000), overtaken: Duration::from_millis(100), own: Duration::from_millis(30) }
    }
}

/// Frames of one track in capture order, each waiting for its result `A`.
#[derive(Debug)]
pub(crate) struct Playout<F, A> {
    entries: VecDeque<Entry<F, A>>,
    patience: Patience,
}

#[derive(Debug)]
pub(crate) struct Entry<F, A> {
    pub(crate) seq: FrameSeq,
    pub(crate) generation: Generation,
    pub(crate) mode: Mode,
    pub(crate) admitted: Instant,
    pub(crate) frame: F,
    pub(crate) state: State<A>,
}

/// What an entry has come to.
#[derive(Debug)]
pub(crate) enum State<A> {
    /// Its analysis is on its way.
    Waiting,
    /// It can be painted; `None` where the effect needs no analysis.
    Ready { since: Instant, analysis: Option<Arc<A>> },
    /// There will be no analysis of its own.
    Without(DropReason),
}

/// How the wait of the oldest frame ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It waits for nothing any more.
    Settled,
    /// It is given up at this moment, unless its analysis comes first.
    GivenUp { at: Instant, reason: DropReason },
}

impl<F, A> Playout<F, A> {
    /// Most frames that wait at a time: two seconds at 30 frames a second.
    pub(crate) const CAPACITY: usize = 64;

    pub(crate) fn new(patience: Patience) -> Self {
        Self { entries: VecDeque::new(), patience }
    }

    /// Appends a frame, which must be newer than all before. Gives back the oldest one when there is no room.
    pub(crate) fn push(&mut self, entry: Entry<F, A>) -> Option<Entry<F, A>> {
        debug_assert!(self.entries.back().is_none_or(|last| last.seq < entry.seq), "frames are admitted in order");
        let overflow = if self.entries.len() == Self::CAPACITY { self.entries.pop_front() } else { None };
        self.entries.push_back(entry);
        overflow
    }

    /// A frame that still waits for its analysis.
    pub(crate) fn waiting(&mut self, seq: FrameSeq) -> Option<&mut Entry<F, A>> {
        let index = self.entries.binary_search_by_key(&seq, |e| e.seq).ok()?;
        let entry = &mut self.entries[index];
        matches!(entry.state, State::Waiting).then_some(entry)
    }

    /// The oldest frame, whose turn is next.
    pub(crate) fn front(&self) -> Option<&Entry<F, A>> {
        self.entries.front()
    }

    /// The frame that came last.
    pub(crate) fn back(&self) -> Option<&Entry<F, A>> {
        self.entries.back()
    }

    /// How and when the wait of the oldest frame ends. `own`: how long it may wait for its own analysis where another one
    /// would do.
    pub(crate) fn fate(&self, own: Option<Duration>) -> Option<Fate> {
        let front = self.entries.front()?;
        if !matches!(front.state, State::Waiting) {
            return Some(Fate::Settled);
        }
        let mut fate = (front.admitted + self.patience.deadline, DropReason::Expired);
        if let Some(since) = self.first_ready() {
            fate = fate.min((since + self.patience.overtaken, DropReason::Overtaken));
        }
        if let Some(own) = own {
            fate = fate.min((front.admitted + own, DropReason::NoAnalysis));
        }
        Some(Fate::GivenUp { at: fate.0, reason: fate.1 })
    }

    pub(crate) fn pop(&mut self) -> Option<Entry<F, A>> {
        self.entries.pop_front()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// When the first of the frames behind the oldest became ready.
    fn first_ready(&self) -> Option<Instant> {
        let ready = |e: &Entry<F, A>| match e.state {
            State::Ready { since, .. } => Some(since),
            _ => None,
        };
        self.entries.iter().filter_map(ready).min()
    }
}
