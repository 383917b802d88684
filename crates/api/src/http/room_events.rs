//! The events of a room for its viewers, by WHEP's extension for server-sent events: whether the
//! publisher sends video, and the number of viewers.
//!
//! The answer to a WHEP offer names the address in a `Link`. `POST` there with a JSON array of
//! event names gives the address of a stream with these events, which `GET` opens. `GET` without
//! `POST` opens a stream with all events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;

use super::body::JsonBody;
use super::events::{KEEP_ALIVE, UNBUFFERED};
use super::gateway::Gateway;
use super::whip::Resource;
use crate::admission::StreamPlace;
use crate::rooms::RoomName;
use crate::sessions::{RoomState, Sessions};
use crate::visitor::{Peer, Visitor};
use ooblex_gateway::ids::SessionId;
use ooblex_gateway::problem::{Problem, ProblemKind};

/// The name of the extension.
pub(super) const RELATION: &str = "urn:ietf:params:whep:ext:core:server-sent-events";
/// The names of all events, as the `Link` lists them.
pub(super) const EVENTS: &str = "active,inactive,viewercount";
/// Interval at which a room is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Query parameters of a stream.
#[derive(Deserialize)]
pub(super) struct Chosen {
    /// Names of events, separated by commas. `None`: all events.
    events: Option<String>,
}

/// `POST` on the events of a WHEP session: chooses events.
pub(super) async fn choose(
    State(gateway): State<Arc<Gateway>>,
    Path(resource): Path<Resource>,
    body: JsonBody,
) -> Result<Response, Problem> {
    resource.session(&gateway)?;
    let names: Vec<String> = body.read(r#"["active","inactive","viewercount"]"#)?;
    let names = names.join(",");
    check(&names)?;
    let address = format!("/whep/{}/events?events={names}", resource.path());
    Ok((StatusCode::CREATED, [(header::LOCATION, address)]).into_response())
}

/// `GET` on the events of a WHEP session: opens a stream of them.
pub(super) async fn events(
    State(gateway): State<Arc<Gateway>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(resource): Path<Resource>,
    Query(chosen): Query<Chosen>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let viewer = resource.session(&gateway)?;
    let events = chosen.events.unwrap_or_else(|| EVENTS.into());
    check(&events)?;
    let room = RoomName::parse(resource.room())?;
    let visitor = Visitor::of(peer, &headers, &gateway.context.config.serve.trusted_proxies);
    let place = gateway.admission.enter_stream(visitor)?;
    let stream = Stream { sessions: gateway.sessions.clone(), viewer, room, events, told: None, ready: Vec::new(), _place: place };
    let events = stream::unfold(stream, async |mut stream| stream.next().await.map(|event| (Ok::<_, Infallible>(event), stream)));
    Ok(([UNBUFFERED], Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))).into_response())
}

/// Checks names of events.
fn check(names: &str) -> Result<(), Problem> {
    let is_known = |name: &str| EVENTS.split(',').any(|known| known == name);
    let unknown = names.split(',').find(|name| !is_known(name));
    unknown.map_or(Ok(()), |name| {
        let detail = format!("no event is named '{name}': choose from {EVENTS}");
        Err(Problem::new(ProblemKind::BadRequest, detail))
    })
}

/// An open stream of a viewer.
struct Stream {
    sessions: Arc<Sessions>,
    viewer: SessionId,
    room: RoomName,
    /// The names of the events, separated by commas.
    events: String,
    /// The last state that the viewer was told. `None` at the beginning.
    told: Option<RoomState>,
    /// Events that are sent next, the last first.
    ready: Vec<Event>,
    _place: StreamPlace,
}

impl Stream {
    /// Waits for the next event. Returns `None` when the viewer's session has ended.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop() {
                return Some(event);
            }
            if self.told.is_some() {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
            let is_over = !self.sessions.is_running(self.viewer);
            if is_over && self.told.is_some_and(|told| !told.is_active) {
                return None;
            }
            let state = if is_over { RoomState::default() } else { self.sessions.room_state(&self.room) };
            self.tell(state);
        }
    }

    /// Makes the events for what has changed.
    fn tell(&mut self, state: RoomState) {
        let before = self.told.replace(state);
        let mut ready = Vec::new();
        if before.is_none_or(|before| before.viewers != state.viewers) {
            ready.push(("viewercount", json!({"viewercount": state.viewers})));
        }
        if before.is_none_or(|before| before.is_active != state.is_active) {
            ready.push((if state.is_active { "active" } else { "inactive" }, json!({})));
        }
        let is_chosen = |name: &str| self.events.split(',').any(|chosen| chosen == name);
        let chosen = ready.into_iter().filter(|(name, _)| is_chosen(name));
        self.ready = chosen.map(|(name, data)| Event::default().event(name).data(data.to_string())).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_events_are_those_of_the_link() {
        assert!(check(EVENTS).is_ok() && check("viewercount").is_ok());
        for unknown in ["", "layers", "active,", "active, inactive"] {
            assert_eq!(check(unknown).unwrap_err().status, 400, "{unknown:?}");
        }
    }
}
