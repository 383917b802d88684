//! Playout buffer: puts frames back in capture order and decides when each one has waited long
//! enough.
//!
//! It holds frames from their admission until they are released or given up. It does not know where
//! results come from or what they mean, and it takes the time as an argument.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::track::{Generation, Mode, View};
use crate::{DropReason, FrameSeq};

/// Maximum waiting times of frames.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Maximum time from its admission that a frame waits for its analysis.
    pub deadline: Duration,
    /// Maximum time that a frame holds up newer ones, from when the first of these is ready.
    pub overtaken: Duration,
    /// Maximum time that a frame waits for its own analysis if it may reuse the newest one.
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
    pub(crate) view: View,
    pub(crate) mode: Mode,
    pub(crate) admitted: Instant,
    pub(crate) frame: F,
    pub(crate) state: State<A>,
}

/// State of a frame's analysis.
#[derive(Debug)]
pub(crate) enum State<A> {
    /// The analysis has not arrived yet.
    Waiting,
    /// The frame can be painted. `analysis` is `None` if the effect needs none.
    Ready { since: Instant, analysis: Option<Arc<A>> },
    /// The frame will get no analysis of its own, for this reason.
    Without(DropReason),
}

/// End of the wait of the oldest frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The frame waits for nothing any more.
    Settled,
    /// The frame is given up at this time, unless its analysis arrives first.
    GivenUp { at: Instant, reason: DropReason },
}

impl<F, A> Playout<F, A> {
    /// Maximum number of frames that wait: two seconds at 30 frames per second.
    pub(crate) const CAPACITY: usize = 64;

    pub(crate) fn new(patience: Patience) -> Self {
        Self { entries: VecDeque::new(), patience }
    }

    /// Appends a frame, which must be newer than all before. Returns the oldest one if the buffer
    /// was full.
    pub(crate) fn push(&mut self, entry: Entry<F, A>) -> Option<Entry<F, A>> {
        debug_assert!(self.entries.back().is_none_or(|last| last.seq < entry.seq), "frames are admitted in order");
        let overflow = if self.entries.len() == Self::CAPACITY { self.entries.pop_front() } else { None };
        self.entries.push_back(entry);
        overflow
    }

    /// Returns the frame if it still waits for its analysis.
    pub(crate) fn waiting(&mut self, seq: FrameSeq) -> Option<&mut Entry<F, A>> {
        let index = self.entries.binary_search_by_key(&seq, |e| e.seq).ok()?;
        let entry = &mut self.entries[index];
        matches!(entry.state, State::Waiting).then_some(entry)
    }

    /// Returns the oldest frame, which is released next.
    pub(crate) fn front(&self) -> Option<&Entry<F, A>> {
        self.entries.front()
    }

    /// Returns the frame that came last.
    pub(crate) fn back(&self) -> Option<&Entry<F, A>> {
        self.entries.back()
    }

    /// Returns how and when the wait of the oldest frame ends. `own` is the time that it may wait
    /// for its own analysis if it may reuse another one.
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

    /// Returns the time at which the first of the frames behind the oldest became ready.
    fn first_ready(&self) -> Option<Instant> {
        let ready = |e: &Entry<F, A>| match e.state {
            State::Ready { since, .. } => Some(since),
            _ => None,
        };
        self.entries.iter().filter_map(ready).min()
    }
}
