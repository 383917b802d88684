//! WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep): sessions of clients other than browsers, which
//! publish to a room or watch it.
//!
//! The URL of a session contains its secret, so that only its client can end it. The gateway is an
//! ICE-lite agent, which finds the client by the checks that it receives; candidates of the client
//! are read and not used. ICE cannot be restarted.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;
use tracing::debug;

use super::access;
use super::begin::{self, Begun, Client, Wish};
use super::body;
use super::gateway::Gateway;
use super::room_events;
use crate::auth::Caller;
use crate::auth::keys::digest;
use crate::rooms::RoomName;
use crate::visitor::{Peer, Visitor};
use ooblex_gateway::ids::SessionId;
use ooblex_gateway::labels::ByeReason;
use ooblex_gateway::problem::{Problem, ProblemKind};
use ooblex_rtc::negotiate::Purpose;

/// Content type of offers and answers.
const SDP: &str = "application/sdp";
/// Content type of the candidates in a PATCH.
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");

/// Query parameters of a WHIP endpoint.
#[derive(Deserialize)]
pub(super) struct Wanted {
    effect: Option<String>,
    /// JSON, such as `{"strength":0.7}`.
    params: Option<String>,
    /// Whether the publisher gets the effect back, on the lines that it offers as `sendrecv`.
    #[serde(default)]
    echo: bool,
}

/// `POST /whip/{room}`: publishes to a room.
pub(super) async fn publish(
    State(gateway): State<Arc<Gateway>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Extension(caller): Extension<Caller>,
    Path(room): Path<String>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let visitor = Visitor::of(peer, &headers, &gateway.context.config.serve.trusted_proxies);
    let client = Client { visitor, caller: &caller };
    let begun = async {
        gateway.admission.on_offer(Instant::now(), visitor)?;
        let offer = body::text(&headers, body, SDP)?;
        let room = RoomName::parse(&room)?;
        let params = wanted.params.as_deref().map_or(Ok(Value::Null), parse_params)?;
        let purpose = if wanted.echo { Purpose::Exchange } else { Purpose::Publish };
        let wish = Wish { effect: wanted.effect.as_deref(), params: &params, room: Some(room) };
        begin::publish(&gateway, client, offer, purpose, wish).await
    };
    let begun = begun.await;
    created(&gateway, client, begun, &format!("/whip/{room}"))
}

/// `POST /whep/{room}`: watches a room.
pub(super) async fn watch(
    State(gateway): State<Arc<Gateway>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Extension(caller): Extension<Caller>,
    Path(room): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let visitor = Visitor::of(peer, &headers, &gateway.context.config.serve.trusted_proxies);
    let client = Client { visitor, caller: &caller };
    let begun = async {
        gateway.admission.on_offer(Instant::now(), visitor)?;
        let offer = body::text(&headers, body, SDP)?;
        begin::watch(&gateway, client, offer, RoomName::parse(&room)?).await
    };
    let begun = begun.await;
    let mut response = created(&gateway, client, begun, &format!("/whep/{room}"))?;
    let headers = response.headers_mut();
    if let Some(session) = headers.get(header::LOCATION).and_then(|location| location.to_str().ok()) {
        let link = format!("<{session}/events>; rel=\"{}\"; events=\"{}\"", room_events::RELATION, room_events::EVENTS);
        append_links(headers, vec![link]);
    }
    Ok(response)
}

/// Returns the answer to an offer: the session's URL, version and SDP.
fn created(gateway: &Gateway, client: Client<'_>, begun: Result<Begun, Problem>, endpoint: &str) -> Result<Response, Problem> {
    gateway.context.metrics.on_offer(begun.as_ref().err().map(|problem| problem.kind));
    let Begun { id, secret, answer, time_left } = begun.inspect_err(|problem| debug!(detail = problem.detail, "offer refused"))?;
    let mut response = (StatusCode::CREATED, answer).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(SDP));
    headers.insert(ACCEPT_PATCH, HeaderValue::from_static(FRAGMENT));
    for (name, value) in [(header::LOCATION, format!("{endpoint}/{}", secret.reveal())), (header::ETAG, version(id))] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    if let Some(turn) = &gateway.turn {
        append_links(headers, turn.links(client.visitor, SystemTime::now(), time_left));
    }
    Ok(response)
}

fn append_links(headers: &mut HeaderMap, links: Vec<String>) {
    for link in links.iter().filter_map(|link| HeaderValue::from_str(link).ok()) {
        headers.append(header::LINK, link);
    }
}

/// Returns the version of a session, which stays the same because its ICE is never restarted.
fn version(id: SessionId) -> String {
    format!("\"{id}\"")
}

fn parse_params(text: &str) -> Result<Value, Problem> {
    serde_json::from_str(text).map_err(|error| {
        let detail = format!("the query parameter 'params' must be JSON such as {{\"strength\":0.7}}, percent-encoded ({error})");
        Problem::new(ProblemKind::BadParameter, detail)
    })
}

/// `GET` and `HEAD` on a WHIP endpoint.
pub(super) async fn describe_whip() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// `GET` and `HEAD` on a WHEP endpoint.
pub(super) async fn describe_whep() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, SDP)], "")
}

/// The URL of a session.
#[derive(Deserialize)]
pub(super) struct Resource {
    room: String,
    secret: String,
}

impl Resource {
    /// Returns the name of the room as the client wrote it.
    pub(super) fn room(&self) -> &str {
        &self.room
    }

    /// Returns the path below that of the endpoints.
    pub(super) fn path(&self) -> String {
        format!("{}/{}", self.room, self.secret)
    }

    /// Returns the session.
    ///
    /// # Errors
    /// When it has ended, or never was.
    pub(super) fn session(&self, gateway: &Gateway) -> Result<SessionId, Problem> {
        let found = RoomName::parse(&self.room).ok().and_then(|room| gateway.sessions.in_room(&room, &digest(&self.secret)));
        let detail = "this session is not running any more: begin another one with POST to its endpoint";
        found.ok_or_else(|| Problem::new(ProblemKind::UnknownSession, detail))
    }
}

/// `GET` on a session.
pub(super) async fn describe(State(gateway): State<Arc<Gateway>>, Path(resource): Path<Resource>) -> Result<Response, Problem> {
    let id = resource.session(&gateway)?;
    Ok((StatusCode::NO_CONTENT, [(header::ETAG, version(id))]).into_response())
}

/// `DELETE` on a session: ends it.
pub(super) async fn end(State(gateway): State<Arc<Gateway>>, Path(resource): Path<Resource>) -> Result<StatusCode, Problem> {
    let id = resource.session(&gateway)?;
    if gateway.sessions.end(id, || gateway.transport.try_end(id, ByeReason::Ended)) {
        return Ok(StatusCode::OK);
    }
    let detail = "the gateway is too busy to end the session: try again in a moment";
    Err(Problem::new(ProblemKind::Unavailable, detail).retry_after(super::sessions::BUSY_RETRY))
}

/// `PATCH` on a session: takes candidates of the client.
pub(super) async fn trickle(
    State(gateway): State<Arc<Gateway>>,
    Path(resource): Path<Resource>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Problem> {
    let id = resource.session(&gateway)?;
    let fragment = body::text(&headers, body, FRAGMENT)?;
    let wanted = headers.get(header::IF_MATCH).map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_string());
    let is_restart = match wanted.as_deref() {
        None => {
            let detail = "the header If-Match is missing: send the ETag that came with the session's answer";
            return Err(Problem::new(ProblemKind::NoVersion, detail));
        }
        Some("*" | "\"*\"") => true,
        Some(version_wanted) if version_wanted == version(id) => false,
        Some(_) => {
            let detail = "the header If-Match names another version of the session: send the ETag that came with its answer";
            return Err(Problem::new(ProblemKind::WrongVersion, detail));
        }
    };
    check_fragment(&fragment)?;
    if is_restart {
        let detail = "ICE cannot be restarted here, and the session goes on: if it is lost, end it and begin another one";
        return Err(Problem::new(ProblemKind::Unsupported, detail));
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Checks the lines of an SDP fragment (RFC 8840).
fn check_fragment(fragment: &str) -> Result<(), Problem> {
    let is_line = |line: &str| {
        let attribute = line.strip_prefix("a=").map(|attribute| attribute.split(':').next().unwrap_or_default());
        line.starts_with("m=")
            || attribute.is_some_and(|name| {
                ["candidate", "end-of-candidates", "ice-ufrag", "ice-pwd", "ice-options", "ice-pacing", "ice-lite", "mid", "group"]
                    .contains(&name)
            })
    };
    let mut lines = fragment.lines().map(str::trim_end).filter(|line| !line.is_empty()).peekable();
    if lines.peek().is_some() && lines.all(is_line) {
        return Ok(());
    }
    let detail = format!("the body must be an SDP fragment ({FRAGMENT}) with lines such as a=ice-ufrag:…, m=…, a=mid:0, a=candidate:…");
    Err(Problem::new(ProblemKind::BadSdp, detail))
}

/// Answers `OPTIONS` on an endpoint that is no preflight of a browser: what it takes, and the TURN
/// servers for a client that may use it.
pub(super) async fn options(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    let is_endpoint = ["/whip/", "/whep/"].iter().any(|prefix| request.uri().path().starts_with(prefix));
    let is_preflight = request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if request.method() != Method::OPTIONS || !is_endpoint || is_preflight {
        return next.run(request).await;
    }
    let (parts, _) = request.into_parts();
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(ACCEPT_POST, HeaderValue::from_static(SDP));
    headers.insert(header::ALLOW, HeaderValue::from_static("OPTIONS, GET, HEAD, POST, PATCH, DELETE"));
    if let Some(turn) = &gateway.turn
        && let Some(visitor) = access::endpoint_visitor(&gateway, &parts).await
    {
        append_links(headers, turn.links(visitor, SystemTime::now(), None));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_have_candidates_and_nothing_that_is_no_fragment() {
        let candidates = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n\
                          a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0\r\na=end-of-candidates\r\n";
        assert!(check_fragment(candidates).is_ok() && check_fragment("a=end-of-candidates\r\n").is_ok());
        for malformed in ["", "\r\n", "hello", "v=0\r\n", "a=candidate:1\r\nhello", "{}"] {
            assert_eq!(check_fragment(malformed).unwrap_err().status, 400, "{malformed:?}");
        }
    }
}
