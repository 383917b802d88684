//! `GET /api/sessions/{id}/events`: detections and status messages of a session as server-sent
//! events.
//!
//! Each event has the name and the JSON of the data-channel message. The id of an event about a
//! frame is the sequence number of that frame. A reader that is too slow gets an event `lost` with
//! the number of events that it missed. The stream ends with an event `end` when the session ends.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, HeaderName};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::json;

use super::gateway::Gateway;
use super::sessions::unknown_session;
use crate::admission::StreamPlace;
use crate::auth::Caller;
use crate::sessions::TooManyReaders;
use crate::visitor::{Peer, Visitor};
use ooblex_gateway::events::{Reader, Told};
use ooblex_gateway::ids::SessionId;
use ooblex_gateway::problem::{Problem, ProblemKind};

/// Interval of keep-alive comments, which keep proxies from closing the connection and reveal dead
/// connections.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Header that disables the response buffering of nginx.
pub(super) const UNBUFFERED: (HeaderName, &str) = (HeaderName::from_static("x-accel-buffering"), "no");

/// An open stream. The limits of streams apply to the holders of session secrets; an operator has
/// no place.
struct Stream {
    reader: Reader,
    _place: Option<StreamPlace>,
}

pub(super) async fn events(
    State(gateway): State<Arc<Gateway>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let context = &gateway.context;
    let limit = context.config.limits.event_readers;
    let reader = SessionId::parse(&id).and_then(|id| gateway.sessions.read_events(id, limit)).ok_or_else(|| unknown_session(&id))?;
    let reader = reader.map_err(|TooManyReaders| {
        let detail = format!("session {id} has {limit} readers, as many as limits.event_readers allows: end one of them, or raise it");
        Problem::new(ProblemKind::TooManyReaders, detail)
    })?;
    let visitor = Visitor::of(peer, &headers, &context.config.serve.trusted_proxies);
    let place = matches!(caller, Caller::Session(_)).then(|| gateway.admission.enter_stream(visitor)).transpose()?;
    let events = stream::unfold(Some(Stream { reader, _place: place }), async |stream| Some(next(stream?).await));
    let events = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    Ok(([UNBUFFERED], events).into_response())
}

/// Returns the next event of a stream, and the stream unless that event was the last.
async fn next(mut stream: Stream) -> (Result<Event, std::convert::Infallible>, Option<Stream>) {
    let named = |name: &str| Event::default().event(name);
    match stream.reader.next().await {
        Told::Event(told) => {
            let event = named(told.kind.label()).data(told.text);
            (Ok(told.frame.into_iter().fold(event, |event, seq| event.id(seq.to_string()))), Some(stream))
        }
        Told::Lost(count) => (Ok(named("lost").data(json!({"type": "lost", "events": count}).to_string())), Some(stream)),
        Told::End => (Ok(named("end").data(r#"{"type":"end"}"#)), None),
    }
}
