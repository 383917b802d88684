//! `POST /offer`: answers an SDP offer and begins a session.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Extension;
use axum::extract::{ConnectInfo, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::{debug, error, info};

use super::body::JsonBody;
use super::gateway::Gateway;
use crate::auth::{Caller, SessionAccess, SessionSecret};
use crate::sessions::Sessions;
use crate::visitor::{Peer, Visitor};
use ooblex_gateway::ids::SessionId;
use ooblex_gateway::labels::ByeReason;
use ooblex_gateway::problem::{Problem, ProblemKind};
use ooblex_gateway::rtc::session::{Lifetime, Session};
use ooblex_gateway::rtc::transport::TransportHandle;
use ooblex_gateway::settings::Settings;
use ooblex_gateway::track::{self, TrackOutput, TrackSink};

#[derive(Deserialize)]
struct Offer {
    sdp: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    effect: Option<String>,
    #[serde(default)]
    params: Value,
}

/// Passes the output of a track to its session on the media thread and to the session registry.
struct SessionSink {
    id: SessionId,
    transport: TransportHandle,
    sessions: Arc<Sessions>,
}

impl TrackSink for SessionSink {
    fn send(&self, session: SessionId, output: TrackOutput) -> bool {
        self.transport.track(session, output)
    }

    fn settings_changed(&self, settings: &Settings) {
        self.sessions.note_settings(self.id, settings.clone());
    }

    fn end(&self, why: ByeReason) -> bool {
        self.transport.try_end(self.id, why)
    }
}

pub(super) async fn offer(
    State(gateway): State<Arc<Gateway>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Result<JsonBody, Problem>,
) -> Result<Response, Problem> {
    let visitor = Visitor::of(peer, &headers, &gateway.context.config.serve.trusted_proxies);
    let answered = match gateway.admission.on_offer(Instant::now(), visitor) {
        Ok(()) => accept_offer(&gateway, visitor, &caller, body).await,
        Err(problem) => Err(problem),
    };
    gateway.context.metrics.on_offer(answered.as_ref().err().map(|problem| problem.kind));
    answered.map(|answer| axum::Json(answer).into_response()).inspect_err(|problem| debug!(detail = problem.detail, "offer refused"))
}

async fn accept_offer(gateway: &Gateway, visitor: Visitor, caller: &Caller, body: Result<JsonBody, Problem>) -> Result<Value, Problem> {
    let offer: Offer = body?.read(r#"{"sdp": "v=0…", "type": "offer", "effect": "background_blur"}"#)?;
    if offer.kind.as_deref().is_some_and(|kind| kind != "offer") {
        let detail = "'type' must be \"offer\": send the browser's local description as it is after createOffer";
        return Err(Problem::new(ProblemKind::BadSdp, detail));
    }
    let context = &gateway.context;
    let restrictions = Arc::new(caller.restrictions());
    let settings = restrictions.settings(&context.catalogue, offer.effect.as_deref(), &offer.params)?;
    let place = gateway.admission.enter(visitor)?;
    let negotiated = gateway.negotiator.answer(offer.sdp).await?;
    let (now, answer) = (Instant::now(), negotiated.answer.clone());
    let id = SessionId::random();
    let (secret, time_left) = (SessionSecret::random(), caller.time_left());
    let unavailable = |detail: &str| Problem::new(ProblemKind::Unavailable, detail);
    let sink = Arc::new(SessionSink { id, transport: gateway.transport.clone(), sessions: gateway.sessions.clone() });
    let track = track::spawn(context.clone(), id, settings.clone(), restrictions.clone(), sink).map_err(|error| {
        error!(%error, "no thread for a track");
        unavailable("the gateway has no thread left for another session: try again later")
    })?;
    info!(session = %id, effect = %settings.effect.name(), "session begins");
    gateway.sessions.insert(id, track.clone(), settings, SessionAccess::new(&secret, restrictions), place);
    let mut session = Session::new(id, negotiated, track, Lifetime::new(&context.config.limits), now);
    if let Some(left) = time_left {
        session = session.with_expiry(now + left);
    }
    if !gateway.transport.add(session) {
        gateway.sessions.remove(id);
        return Err(unavailable("the gateway is stopping or far too busy: try again in a moment").retry_after(Duration::from_secs(1)));
    }
    let mut answer = json!({"sdp": answer, "type": "answer", "session": id, "secret": secret.reveal()});
    if let Some(turn) = &gateway.turn {
        answer["ice_servers"] = turn.ice_servers(visitor, SystemTime::now(), time_left);
    }
    if let Some(left) = time_left {
        answer["expires_in_s"] = left.as_secs().into();
    }
    Ok(answer)
}
