//! The pictures of a room as JPEG. A picture is asked for and encoded only while somebody waits for
//! one, at most [`MAX_MJPEG_FPS`] times a second, and once for all who wait.
//!
//! Whoever asks gets a picture that the track has shown after that, or a stand-in that it has made
//! under the settings in force. Nothing is kept for later.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use ooblex_gateway::track::TrackHandle;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::jpeg::JpegEncoder;
use ooblex_config::MAX_MJPEG_FPS;
use ooblex_gateway::metrics::Metrics;

/// Boundary of the parts of a stream.
pub(crate) const BOUNDARY: &str = "ooblex-picture";

/// Time in which those who ask at the same moment come together.
const GATHERING: Duration = Duration::from_millis(5);

/// The pictures of one track, for all who wait for one.
pub struct Pictures {
    track: TrackHandle,
    rounds: Mutex<Rounds>,
    /// The beginning of the ticks of streams, which are the same for all of one frame rate.
    epoch: Instant,
    streams: AtomicUsize,
}

struct Rounds {
    waiting: Vec<Waiting>,
    /// A task takes pictures for those who wait.
    are_running: bool,
    next_at: Instant,
}

struct Waiting {
    reply: oneshot::Sender<Jpeg>,
    patience: Duration,
}

/// The track has ended, or its picture cannot be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended;

/// A picture, as a part of a stream and the boundary that ends it. Clones share the bytes.
#[derive(Debug, Clone)]
pub(crate) struct Jpeg {
    part: Bytes,
    head_length: usize,
    length: usize,
}

/// The right to one stream of a room. It ends when it is dropped.
pub(crate) struct Seat {
    pictures: Arc<Pictures>,
    metrics: Arc<Metrics>,
}

impl Pictures {
    /// Makes the pictures of a track.
    pub fn new(track: TrackHandle) -> Arc<Self> {
        let now = Instant::now();
        let rounds = Mutex::new(Rounds { waiting: Vec::new(), are_running: false, next_at: now });
        Arc::new(Self { track, rounds, epoch: now, streams: AtomicUsize::new(0) })
    }

    /// Waits for the next picture, or for a stand-in that is made after `patience`.
    ///
    /// # Errors
    /// When the track has ended, or the picture cannot be encoded.
    pub(crate) async fn next(self: &Arc<Self>, encoder: &JpegEncoder, metrics: &Arc<Metrics>, patience: Duration) -> Result<Jpeg, Ended> {
        let (reply, jpeg) = oneshot::channel();
        let were_running = {
            let mut rounds = self.rounds.lock();
            // Those who have left are forgotten, so the list is no longer than there are connections.
            rounds.waiting.retain(|waiting| !waiting.reply.is_closed());
            rounds.waiting.push(Waiting { reply, patience });
            std::mem::replace(&mut rounds.are_running, true)
        };
        if !were_running {
            tokio::spawn(self.clone().run(encoder.clone(), metrics.clone()));
        }
        jpeg.await.map_err(|_| Ended)
    }

    /// Takes picture after picture, until nobody waits or the track has ended.
    async fn run(self: Arc<Self>, encoder: JpegEncoder, metrics: Arc<Metrics>) {
        let mut unserved = Vec::new();
        loop {
            let next_at = self.rounds.lock().next_at;
            sleep_until(next_at.max(Instant::now() + GATHERING)).await;
            let mut waiting = {
                let mut rounds = self.rounds.lock();
                rounds.waiting.append(&mut unserved);
                rounds.waiting.retain(|waiting| !waiting.reply.is_closed());
                if rounds.waiting.is_empty() || self.track.has_ended() {
                    rounds.waiting = Vec::new();
                    rounds.are_running = false;
                    return;
                }
                rounds.next_at = Instant::now() + Duration::from_secs(1) / MAX_MJPEG_FPS;
                std::mem::take(&mut rounds.waiting)
            };
            let patience = waiting.iter().map(|waiting| waiting.patience).min().unwrap_or_default();
            let picture = self.track.still(patience).await;
            waiting.retain(|waiting| !waiting.reply.is_closed());
            let Ok(picture) = picture else {
                // The track has ended, or its inbox is full.
                unserved = waiting;
                continue;
            };
            if waiting.is_empty() {
                continue;
            }
            metrics.feeds.stills.encoded.inc();
            if let Some(jpeg) = encoder.encode(picture).await.map(Jpeg::new) {
                waiting.into_iter().for_each(|waiting| _ = waiting.reply.send(jpeg.clone()));
            }
        }
    }

    /// Returns whether the track has ended.
    pub(crate) fn have_ended(&self) -> bool {
        self.track.has_ended()
    }

    /// Returns the next tick of a stream that has a picture in this interval.
    pub(crate) fn next_tick(&self, interval: Duration) -> Instant {
        let ticks = self.epoch.elapsed().as_nanos() / interval.as_nanos().max(1);
        self.epoch + Duration::from_nanos(u64::try_from((ticks + 1) * interval.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Reserves a seat for a stream. `None` if the room has `limit` streams.
    pub(crate) fn enter(self: &Arc<Self>, limit: usize, metrics: &Arc<Metrics>) -> Option<Seat> {
        let more = |streams| (streams < limit).then_some(streams + 1);
        self.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        metrics.feeds.stills.streams.inc();
        Some(Seat { pictures: self.clone(), metrics: metrics.clone() })
    }

    /// Returns the number of streams.
    pub(crate) fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }
}

impl Jpeg {
    fn new(jpeg: Vec<u8>) -> Self {
        let head = format!("Content-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", jpeg.len());
        // The boundary comes with the picture: browsers show a part when the next one begins.
        let tail = format!("\r\n--{BOUNDARY}\r\n");
        let part = [head.as_bytes(), &jpeg, tail.as_bytes()].concat();
        Self { part: part.into(), head_length: head.len(), length: jpeg.len() }
    }

    /// Returns the JPEG file.
    pub(crate) fn file(&self) -> Bytes {
        self.part.slice(self.head_length..self.head_length + self.length)
    }

    /// Returns the part of a stream.
    pub(crate) fn part(&self) -> Bytes {
        self.part.clone()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.pictures.streams.fetch_sub(1, Ordering::Relaxed);
        self.metrics.feeds.stills.streams.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use crossbeam_channel::{Receiver, bounded};
    use ooblex_broker::Broker;
    use ooblex_pipeline::I420;
    use tokio::task::JoinSet;

    use super::*;
    use ooblex_gateway::track::{StillRequest, TrackInput};
    use ooblex_worker::about::About;

    /// Pictures, and the inbox of their track.
    fn pictures() -> (Arc<Pictures>, Arc<Metrics>, Receiver<TrackInput>) {
        let metrics = Arc::new(Metrics::new(&About::default(), &Broker::local(), &[], None));
        let (inbox, inputs) = bounded(4);
        (Pictures::new(TrackHandle::new(inbox, metrics.clone())), metrics, inputs)
    }

    fn request(inputs: &Receiver<TrackInput>) -> StillRequest {
        match inputs.recv_timeout(Duration::from_secs(10)) {
            Ok(TrackInput::Still(request)) => request,
            _ => panic!("no request"),
        }
    }

    #[tokio::test]
    async fn picture_is_encoded_once_for_all_who_wait_and_never_for_nobody() {
        let (pictures, metrics, inputs) = pictures();
        let encoder = JpegEncoder::start().unwrap();
        let patience = Duration::from_millis(250);
        let track = thread::spawn(move || {
            let first = request(&inputs);
            thread::sleep(Duration::from_millis(100));
            let is_alone = inputs.is_empty();
            first.reply.send(I420::grey(64, 48, 90)).unwrap();
            let second = request(&inputs);
            let patience = second.patience;
            second.reply.send(I420::grey(64, 48, 200)).unwrap();
            (is_alone, patience, inputs)
        });
        let wait = |patience| {
            let (pictures, encoder, metrics) = (pictures.clone(), encoder.clone(), metrics.clone());
            async move { pictures.next(&encoder, &metrics, patience).await.unwrap().file() }
        };
        let first = tokio::spawn(wait(patience));
        tokio::time::sleep(Duration::from_millis(50)).await;
        // These come while the first picture is awaited, so they get the next one.
        let mut later = JoinSet::new();
        (1..=8_u32).for_each(|more| _ = later.spawn(wait(more * patience)));
        let (first, later) = (first.await.unwrap(), later.join_all().await);
        assert!(later.len() == 8 && later.iter().all(|jpeg| *jpeg == later[0] && *jpeg != first && jpeg.starts_with(&[0xff, 0xd8])));
        let (is_alone, least, inputs) = track.join().unwrap();
        assert!(is_alone && least == patience, "{least:?}");
        assert_eq!(metrics.feeds.stills.encoded.get(), 2);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(inputs.is_empty(), "nobody waits");
    }

    #[tokio::test]
    async fn those_who_wait_are_told_when_the_track_ends() {
        let (pictures, metrics, inputs) = pictures();
        let encoder = JpegEncoder::start().unwrap();
        let track = pictures.track.clone();
        let ending = thread::spawn(move || {
            let request = request(&inputs);
            track.end();
            drop(request);
        });
        assert_eq!(pictures.next(&encoder, &metrics, Duration::from_secs(1)).await.err(), Some(Ended));
        ending.join().unwrap();
        assert_eq!(pictures.next(&encoder, &metrics, Duration::from_secs(1)).await.err(), Some(Ended), "nor does it hang later");
    }

    #[tokio::test]
    async fn streams_of_one_rate_have_the_same_ticks_and_are_limited() {
        let (pictures, metrics, _inputs) = pictures();
        let interval = Duration::from_secs(1) / 5;
        let tick = pictures.next_tick(interval);
        assert!(tick > Instant::now() && tick <= Instant::now() + interval);
        assert_eq!((tick - pictures.epoch).as_nanos() % interval.as_nanos(), 0);
        let seats: Vec<_> = (0..2).map(|_| pictures.enter(2, &metrics).unwrap()).collect();
        assert!(pictures.enter(2, &metrics).is_none());
        assert_eq!((pictures.streams(), metrics.feeds.stills.streams.get()), (2, 2));
        drop(seats);
        assert!(pictures.streams() == 0 && pictures.enter(2, &metrics).is_some());
    }
}
