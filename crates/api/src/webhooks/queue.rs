//! Messages that wait for their receiver: in order for each subject, tried again after failures, and
//! limited in number and age. Time is an argument.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::message::Message;
use crate::backoff::Backoff;

/// Age at which a message is given up.
pub(super) const MAX_AGE: Duration = Duration::from_secs(3600);

/// The messages of one receiver.
pub(super) struct Queue {
    capacity: usize,
    length: usize,
    /// The messages by subject; none is empty.
    lines: HashMap<String, Line>,
}

/// The messages about one subject, oldest first.
struct Line {
    messages: VecDeque<Waiting>,
    /// The first message is being sent.
    is_in_flight: bool,
    backoff: Backoff,
    next_attempt: Instant,
}

struct Waiting {
    message: Arc<Message>,
    since: Instant,
}

/// A message to send now. [`Queue::on_sent`] takes the outcome.
pub(super) struct Due {
    pub(super) subject: String,
    pub(super) message: Arc<Message>,
}

/// The outcome of an attempt to send a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The receiver has accepted it.
    Delivered,
    /// It is tried again, at the earliest after this time.
    Failed(Duration),
}

impl Queue {
    /// Makes an empty queue. `capacity`: the largest number of messages.
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, length: 0, lines: HashMap::new() }
    }

    /// Adds a message. Returns false if one had to go for it: the oldest that is not being sent.
    pub(super) fn push(&mut self, now: Instant, subject: &str, message: Arc<Message>) -> bool {
        let is_full = self.length >= self.capacity;
        if is_full && !self.drop_oldest() {
            return false;
        }
        let line = self.lines.entry(subject.into()).or_insert_with(|| Line {
            messages: VecDeque::new(),
            is_in_flight: false,
            backoff: Backoff::default(),
            next_attempt: now,
        });
        line.messages.push_back(Waiting { message, since: now });
        self.length += 1;
        !is_full
    }

    /// Drops the oldest message that is not being sent. Returns false if there is none.
    fn drop_oldest(&mut self) -> bool {
        let oldest = |line: &Line| line.messages.get(usize::from(line.is_in_flight)).map(|waiting| waiting.since);
        let subject =
            self.lines.iter().filter_map(|(subject, line)| Some((oldest(line)?, subject))).min().map(|(_, subject)| subject.clone());
        let Some(subject) = subject else { return false };
        if let Some(line) = self.lines.get_mut(&subject) {
            line.messages.remove(usize::from(line.is_in_flight));
            self.length -= 1;
        }
        self.forget_if_empty(&subject);
        true
    }

    /// Drops messages that are too old. Returns their number.
    pub(super) fn expire(&mut self, now: Instant) -> usize {
        let before = self.length;
        for line in self.lines.values_mut() {
            let first = usize::from(line.is_in_flight);
            while line.messages.get(first).is_some_and(|waiting| now.saturating_duration_since(waiting.since) >= MAX_AGE) {
                line.messages.remove(first);
                self.length -= 1;
            }
        }
        self.lines.retain(|_, line| !line.messages.is_empty());
        before - self.length
    }

    /// Returns the oldest message whose subject has no other one on its way, and whose attempt is due.
    pub(super) fn take(&mut self, now: Instant) -> Option<Due> {
        let due = self.lines.iter_mut().filter(|(_, line)| !line.is_in_flight && line.next_attempt <= now);
        let (subject, line) = due.min_by_key(|(_, line)| line.messages.front().map(|waiting| waiting.since))?;
        let message = line.messages.front()?.message.clone();
        line.is_in_flight = true;
        Some(Due { subject: subject.clone(), message })
    }

    /// Returns when the next attempt is due, if no message is added and no outcome comes.
    pub(super) fn next_wakeup(&self) -> Option<Instant> {
        self.lines.values().filter(|line| !line.is_in_flight).map(|line| line.next_attempt).min()
    }

    /// Takes the outcome of an attempt. `random`: from 0 to 1, for the time until the next one.
    pub(super) fn on_sent(&mut self, now: Instant, subject: &str, outcome: Outcome, random: f64) {
        let Some(line) = self.lines.get_mut(subject) else { return };
        line.is_in_flight = false;
        match outcome {
            Outcome::Delivered => {
                line.messages.pop_front();
                self.length -= 1;
                line.backoff = Backoff::default();
                line.next_attempt = now;
            }
            Outcome::Failed(least) => line.next_attempt = now + line.backoff.next(least, random),
        }
        self.forget_if_empty(subject);
    }

    fn forget_if_empty(&mut self, subject: &str) {
        if self.lines.get(subject).is_some_and(|line| line.messages.is_empty()) {
            self.lines.remove(subject);
        }
    }

    /// Returns the number of messages, also of those being sent.
    pub(super) fn len(&self) -> usize {
        self.length
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    struct Bench {
        queue: Queue,
        now: Instant,
    }

    impl Bench {
        fn new(capacity: usize) -> Self {
            Self { queue: Queue::new(capacity), now: Instant::now() }
        }

        /// Adds a message with this number, a millisecond after the one before.
        fn push(&mut self, subject: &str, number: u64) -> bool {
            self.now += Duration::from_millis(1);
            self.queue.push(self.now, subject, Arc::new(Message::new("test", json!(number))))
        }

        fn take(&mut self) -> Option<(String, u64)> {
            self.queue.take(self.now).map(|due| (due.subject, due.message.data.as_u64().unwrap()))
        }

        fn sent(&mut self, subject: &str, outcome: Outcome) {
            self.queue.on_sent(self.now, subject, outcome, 1.0);
        }
    }

    fn taken(subject: &str, number: u64) -> Option<(String, u64)> {
        Some((subject.into(), number))
    }

    #[test]
    fn messages_of_a_subject_come_in_order_and_one_at_a_time_and_others_do_not_wait_for_them() {
        let mut b = Bench::new(10);
        for (subject, number) in [("a", 1), ("a", 2), ("b", 3)] {
            assert!(b.push(subject, number));
        }
        assert_eq!([b.take(), b.take(), b.take()], [taken("a", 1), taken("b", 3), None]);
        b.sent("a", Outcome::Delivered);
        assert_eq!([b.take(), b.take()], [taken("a", 2), None]);
        b.sent("b", Outcome::Delivered);
        b.sent("a", Outcome::Delivered);
        assert!(b.queue.len() == 0 && b.queue.lines.is_empty() && b.queue.next_wakeup().is_none(), "nothing is left");
    }

    #[test]
    fn failed_message_is_tried_again_later_and_later_before_those_behind_it() {
        let mut b = Bench::new(10);
        (1..=2).for_each(|number| assert!(b.push("a", number)));
        for wait in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(b.take(), taken("a", 1));
            b.sent("a", Outcome::Failed(Duration::ZERO));
            assert_eq!((b.take(), b.queue.next_wakeup()), (None, Some(b.now + wait * SECOND)));
            b.now += wait * SECOND;
        }
        assert_eq!(b.take(), taken("a", 1));
        b.sent("a", Outcome::Delivered);
        assert_eq!(b.take(), taken("a", 2), "at once");
        b.sent("a", Outcome::Failed(10 * SECOND));
        assert_eq!(b.queue.next_wakeup(), Some(b.now + 10 * SECOND), "the receiver asks for it");
    }

    #[test]
    fn full_queue_drops_the_oldest_message_that_is_not_being_sent() {
        let mut b = Bench::new(3);
        for (subject, number) in [("a", 1), ("b", 2), ("a", 3)] {
            assert!(b.push(subject, number));
        }
        assert_eq!(b.take(), taken("a", 1));
        assert!(!b.push("c", 4));
        assert_eq!((b.queue.len(), b.take(), b.take()), (3, taken("c", 4), None), "the message to b is gone");
        b.sent("a", Outcome::Delivered);
        assert_eq!(b.take(), taken("a", 3));
        let mut b = Bench::new(1);
        assert!(b.push("a", 1));
        assert_eq!(b.take(), taken("a", 1));
        assert!(!b.push("b", 2), "what is being sent stays, so this one is dropped");
        b.sent("a", Outcome::Delivered);
        assert_eq!((b.queue.len(), b.take()), (0, None));
    }

    #[test]
    fn message_is_given_up_after_an_hour_unless_it_is_being_sent() {
        let mut b = Bench::new(10);
        (1..=2).for_each(|number| assert!(b.push("a", number)));
        assert_eq!(b.take(), taken("a", 1));
        b.now += MAX_AGE;
        assert!(b.push("b", 3));
        assert_eq!((b.queue.expire(b.now), b.queue.len()), (1, 2));
        b.sent("a", Outcome::Failed(Duration::ZERO));
        assert_eq!((b.queue.expire(b.now), b.queue.len(), b.take()), (1, 1, taken("b", 3)));
    }
}
