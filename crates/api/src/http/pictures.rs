//! `GET /rooms/{room}/snapshot.jpg` and `GET /rooms/{room}/stream.mjpeg`: the processed pictures of a
//! room as JPEG, for dashboards and programs that have no WebRTC.
//!
//! A stream asks for its next picture when the last one was written, so a slow reader has fewer
//! pictures and nobody else notices.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::events::UNBUFFERED;
use super::gateway::Gateway;
use crate::admission::StreamPlace;
use crate::auth::Caller;
use crate::pictures::{BOUNDARY, Ended, Jpeg, Pictures, Seat};
use crate::rooms::RoomName;
use crate::visitor::{Peer, Visitor};
use ooblex_gateway::problem::{Problem, ProblemKind};
use ooblex_gateway::track::Context;

/// The time after which a client gets a stand-in if no processed picture comes: the first time, and
/// later in a stream.
const FIRST_PATIENCE: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest wait for a first picture.
const FIRST_WITHIN: Duration = Duration::from_secs(3);
/// Time that clients are asked to wait for a camera, or for a stream of others to end.
const RETRY: Duration = Duration::from_secs(2);
/// Interval at which a stream looks for the next publisher of its room.
const FOLLOW_LOOK: Duration = Duration::from_millis(250);
/// Frame rate of streams that ask for none.
const DEFAULT_FPS: f64 = 5.0;
/// Lowest frame rate of a stream.
const MIN_FPS: f64 = 0.1;

/// `GET /rooms/{room}/snapshot.jpg`
pub(super) async fn snapshot(State(gateway): State<Arc<Gateway>>, Path(room): Path<String>) -> Result<Response, Problem> {
    let room = RoomName::parse(&room)?;
    let first = first(&gateway, &room, &find(&gateway, &room)?).await?;
    Ok(([(header::CONTENT_TYPE, "image/jpeg"), (header::CACHE_CONTROL, "no-store")], first.file()).into_response())
}

/// Query parameters of a stream.
#[derive(Deserialize)]
pub(super) struct Wanted {
    fps: Option<String>,
}

/// `GET /rooms/{room}/stream.mjpeg`
pub(super) async fn stream(
    State(gateway): State<Arc<Gateway>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Extension(caller): Extension<Caller>,
    Path(room): Path<String>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let room = RoomName::parse(&room)?;
    let config = &gateway.context.config;
    let interval = interval(wanted.fps.as_deref(), config.rooms.mjpeg_fps)?;
    let pictures = find(&gateway, &room)?;
    let place = gateway.admission.enter_stream(Visitor::of(peer, &headers, &config.serve.trusted_proxies))?;
    let limit = config.rooms.mjpeg_streams;
    let seat = pictures.enter(limit, &gateway.context.metrics).ok_or_else(|| {
        let detail = format!(
            "the room '{room}' has {limit} streams of JPEG pictures, as many as rooms.mjpeg_streams allows: end one of them, or raise it"
        );
        Problem::new(ProblemKind::RoomFull, detail).retry_after(RETRY)
    })?;
    let first = first(&gateway, &room, &pictures).await?;
    let expires = caller.time_left().map(|left| Instant::now() + left);
    let ready = vec![first.part(), Bytes::from(format!("--{BOUNDARY}\r\n"))];
    let stream = Stream { gateway, room, pictures, interval, expires, ready, seat: Some(seat), _place: place };
    let parts = stream::unfold(stream, async |mut stream| stream.next().await.map(|part| (Ok::<_, Infallible>(part), stream)));
    let kind = format!("multipart/x-mixed-replace; boundary={BOUNDARY}");
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store".into())];
    Ok((headers, [UNBUFFERED], Body::from_stream(parts)).into_response())
}

/// Returns the pictures of a room.
fn find(gateway: &Gateway, room: &RoomName) -> Result<Arc<Pictures>, Problem> {
    gateway.sessions.pictures(room).ok_or_else(|| {
        let detail = format!("there is no room '{room}': nobody publishes to it now; try again when somebody does");
        Problem::new(ProblemKind::UnknownRoom, detail).retry_after(RETRY)
    })
}

/// Waits for the first picture of a client.
async fn first(gateway: &Gateway, room: &RoomName, pictures: &Arc<Pictures>) -> Result<Jpeg, Problem> {
    let picture = pictures.next(&gateway.images.jpeg, &gateway.context.metrics, FIRST_PATIENCE);
    let problem = |detail: String| Problem::new(ProblemKind::Unavailable, detail).retry_after(RETRY);
    match timeout(FIRST_WITHIN, picture).await {
        Ok(Ok(jpeg)) => Ok(jpeg),
        Ok(Err(_)) => Err(problem(format!("the publisher of the room '{room}' has just ended: try again in a moment"))),
        Err(_) => {
            let detail = "has no picture yet: its camera has sent none, or the gateway is busy; try again in a moment";
            Err(problem(format!("the room '{room}' {detail}")))
        }
    }
}

/// Returns the time between two pictures of a stream. A rate above `limit` counts as the limit.
fn interval(fps: Option<&str>, limit: u32) -> Result<Duration, Problem> {
    let limit = f64::from(limit);
    let fps = match fps.map(str::parse::<f64>) {
        None => DEFAULT_FPS,
        Some(Ok(fps)) if fps >= MIN_FPS => fps,
        Some(_) => {
            let detail = format!("fps must be a number of pictures a second, from {MIN_FPS} to {limit}");
            return Err(Problem::new(ProblemKind::BadParameter, detail));
        }
    };
    Ok(Duration::from_secs_f64(1.0 / fps.min(limit)))
}

/// An open stream.
struct Stream {
    gateway: Arc<Gateway>,
    room: RoomName,
    pictures: Arc<Pictures>,
    interval: Duration,
    /// The expiry of the token.
    expires: Option<Instant>,
    /// Bytes that are sent next, the last first.
    ready: Vec<Bytes>,
    seat: Option<Seat>,
    _place: StreamPlace,
}

impl Stream {
    /// Waits for the next bytes. Returns `None` when the room has ended, or the token has expired.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(bytes) = self.ready.pop() {
            return Some(bytes);
        }
        match self.expires {
            Some(expires) => timeout_at(expires, self.next_part()).await.ok()?,
            None => self.next_part().await,
        }
    }

    async fn next_part(&mut self) -> Option<Bytes> {
        loop {
            sleep_until(self.pictures.next_tick(self.interval)).await;
            match self.pictures.next(&self.gateway.images.jpeg, &self.gateway.context.metrics, PATIENCE).await {
                Ok(jpeg) => return Some(jpeg.part()),
                Err(Ended) if self.pictures.have_ended() => self.follow().await?,
                Err(Ended) => sleep(FOLLOW_LOOK).await,
            }
        }
    }

    /// Waits for the next publisher of the room. Returns `None` if there will be none.
    async fn follow(&mut self) -> Option<()> {
        self.seat = None;
        loop {
            match self.gateway.sessions.pictures(&self.room) {
                Some(pictures) if !Arc::ptr_eq(&pictures, &self.pictures) => {
                    let Context { config, metrics, .. } = self.gateway.context.as_ref();
                    self.seat = Some(pictures.enter(config.rooms.mjpeg_streams, metrics)?);
                    self.pictures = pictures;
                    return Some(());
                }
                _ if !self.gateway.sessions.has_room(&self.room) => return None,
                _ => sleep(FOLLOW_LOOK).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_rate_is_a_number_and_capped() {
        let ms = |fps: Option<&str>| interval(fps, 10).map(|interval| interval.as_millis()).map_err(|problem| problem.kind);
        assert_eq!([None, Some("2"), Some("0.5"), Some("10"), Some("1000"), Some("inf")].map(ms), [200, 500, 2000, 100, 100, 100].map(Ok));
        for wrong in ["", "0", "-1", "0.05", "nan", "fast"] {
            assert_eq!(ms(Some(wrong)), Err(ProblemKind::BadParameter), "{wrong}");
        }
        assert_eq!(interval(None, 2).unwrap(), Duration::from_millis(500), "the default is capped, too");
    }
}
