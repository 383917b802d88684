//! `POST /offer`: answers an SDP offer and begins a session, which sends a camera and gets the effect
//! back.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::Extension;
use axum::extract::{ConnectInfo, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::debug;

use super::begin::{self, Client, Wish};
use super::body::JsonBody;
use super::gateway::Gateway;
use crate::auth::Caller;
use crate::visitor::{Peer, Visitor};
use ooblex_gateway::problem::{Problem, ProblemKind};
use ooblex_rtc::negotiate::Purpose;

#[derive(Deserialize)]
struct Offer {
    sdp: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    effect: Option<String>,
    #[serde(default)]
    params: Value,
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
        Ok(()) => accept_offer(&gateway, Client { visitor, caller: &caller }, body).await,
        Err(problem) => Err(problem),
    };
    gateway.context.metrics.on_offer(answered.as_ref().err().map(|problem| problem.kind));
    answered.map(|answer| axum::Json(answer).into_response()).inspect_err(|problem| debug!(detail = problem.detail, "offer refused"))
}

async fn accept_offer(gateway: &Gateway, client: Client<'_>, body: Result<JsonBody, Problem>) -> Result<Value, Problem> {
    let offer: Offer = body?.read(r#"{"sdp": "v=0…", "type": "offer", "effect": "background_blur"}"#)?;
    if offer.kind.as_deref().is_some_and(|kind| kind != "offer") {
        let detail = "'type' must be \"offer\": send the browser's local description as it is after createOffer";
        return Err(Problem::new(ProblemKind::BadSdp, detail));
    }
    let frame_kilopixels = client.caller.restrictions().frame_kilopixels(&gateway.context.config.limits);
    let wish = Wish { effect: offer.effect.as_deref(), params: &offer.params, room: None };
    let begun = begin::publish(gateway, client, offer.sdp, Purpose::Exchange, wish).await?;
    let mut answer = json!({"sdp": begun.answer, "type": "answer", "session": begun.id, "secret": begun.secret.reveal(), "frame_kilopixels": frame_kilopixels});
    if let Some(turn) = &gateway.turn {
        answer["ice_servers"] = turn.ice_servers(client.visitor, SystemTime::now(), begun.time_left);
    }
    if let Some(left) = begun.time_left {
        answer["expires_in_s"] = left.as_secs().into();
    }
    Ok(answer)
}
