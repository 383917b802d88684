//! The events of a track, for readers over HTTP: a ring of the newest events, which any number of
//! readers read at their own pace.
//!
//! The track writes and never waits. A reader that is slower than the events loses the oldest of
//! those that it has not read, and gets their number. This module knows nothing of HTTP and of the
//! contents of events.

use std::sync::Arc;

use ooblex_pipeline::FrameSeq;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::metrics::Metrics;

/// Capacity of the ring: a reader may be this many events behind, two seconds of detections.
const RING: usize = 64;

/// The kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Detections in a frame that was shown.
    Detections,
    /// Statistics of the last second.
    Stats,
    /// Workers of the effect have come or gone.
    Service,
    /// Other settings are in force.
    Settings,
}

impl Kind {
    /// Returns the name of the event, which is the type of its message.
    pub fn label(self) -> &'static str {
        match self {
            Kind::Detections => "detections",
            Kind::Stats => "stats",
            Kind::Service => "service",
            Kind::Settings => "settings",
        }
    }
}

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    /// The kind.
    pub kind: Kind,
    /// The frame that the event belongs to, if any.
    pub frame: Option<FrameSeq>,
    /// JSON, as on the data channel.
    pub text: Arc<str>,
}

/// The result of a read.
#[derive(Debug)]
pub enum Told {
    /// The next event.
    Event(Event),
    /// This number of events was lost because the reader was too slow.
    Lost(u64),
    /// The session has ended; no more events follow.
    End,
}

/// The writing end, which belongs to a session. Clones write to the same ring. The streams of the
/// readers end when the last clone is dropped.
#[derive(Clone)]
pub struct Events {
    ring: broadcast::Sender<Event>,
    metrics: Arc<Metrics>,
}

impl Events {
    /// Creates a ring without readers.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { ring: broadcast::Sender::new(RING), metrics }
    }

    /// Sends an event to all readers. It costs almost nothing without readers.
    pub fn tell(&self, kind: Kind, frame: Option<FrameSeq>, text: &str) {
        if self.ring.receiver_count() > 0 {
            // It fails if the last reader has just left.
            _ = self.ring.send(Event { kind, frame, text: text.into() });
        }
    }

    /// Adds a reader, which begins with the next event. Returns `None` if there are `limit` readers
    /// already.
    pub fn read(&self, limit: usize) -> Option<Reader> {
        if self.ring.receiver_count() >= limit {
            return None;
        }
        self.metrics.feeds.events.readers.inc();
        Some(Reader { ring: self.ring.subscribe(), metrics: self.metrics.clone() })
    }
}

/// The reading end.
pub struct Reader {
    ring: broadcast::Receiver<Event>,
    metrics: Arc<Metrics>,
}

impl Reader {
    /// Waits for the next event.
    pub async fn next(&mut self) -> Told {
        match self.ring.recv().await {
            Ok(event) => Told::Event(event),
            Err(RecvError::Lagged(lost)) => {
                self.metrics.feeds.events.lost.inc_by(lost);
                Told::Lost(lost)
            }
            Err(RecvError::Closed) => Told::End,
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.metrics.feeds.events.readers.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ooblex_broker::Broker;

    use super::*;
    use ooblex_worker::about::About;

    fn events() -> (Events, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new(&About::default(), &Broker::local(), &[], None));
        (Events::new(metrics.clone()), metrics)
    }

    fn tell(events: &Events, seqs: std::ops::Range<u64>) {
        seqs.for_each(|seq| events.tell(Kind::Detections, Some(FrameSeq(seq)), "{}"));
    }

    async fn seqs(reader: &mut Reader) -> (Vec<u64>, u64) {
        let (mut seqs, mut lost) = (Vec::new(), 0);
        loop {
            match reader.next().await {
                Told::Event(event) => seqs.push(event.frame.unwrap().0),
                Told::Lost(count) => lost += count,
                Told::End => return (seqs, lost),
            }
        }
    }

    #[tokio::test]
    async fn a_slow_reader_loses_the_oldest_events_is_told_how_many_and_others_lose_none() {
        let (events, metrics) = events();
        let (mut slow, mut quick) = (events.read(9).unwrap(), events.read(9).unwrap());
        let mut read = Vec::new();
        for seq in 0..200 {
            tell(&events, seq..seq + 1);
            let Told::Event(event) = quick.next().await else { panic!("an event was lost") };
            read.push(event.frame.unwrap().0);
        }
        assert_eq!(read, (0..200).collect::<Vec<_>>());
        drop(events);
        assert_eq!(seqs(&mut slow).await, ((136..200).collect(), 136));
        assert!(metrics.encode(&BTreeMap::new(), 0).contains("ooblex_events_lost_total 136"), "{}", metrics.encode(&BTreeMap::new(), 0));
    }

    #[tokio::test]
    async fn readers_are_limited_and_one_who_leaves_makes_room() {
        let (events, metrics) = events();
        tell(&events, 0..3);
        let (first, second) = (events.read(2).unwrap(), events.read(2).unwrap());
        assert!(events.read(2).is_none());
        drop(first);
        let mut third = events.read(2).unwrap();
        assert!(metrics.encode(&BTreeMap::new(), 0).contains("ooblex_event_readers 2"));
        drop(second);
        tell(&events, 3..5);
        drop(events);
        assert_eq!(seqs(&mut third).await, (vec![3, 4], 0), "from where it began to read until the end");
    }
}
