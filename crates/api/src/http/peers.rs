//! The routes of pulls and pushes, for operators.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::JsonBody;
use super::gateway::Gateway;
use super::link;
use crate::peers::{Role, Target, checked_url};
use crate::rooms::RoomName;
use ooblex_config::Secret;
use ooblex_gateway::problem::{Problem, ProblemKind};
use ooblex_gateway::restrictions::Restrictions;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pull {
    whep: String,
    room: String,
    effect: Option<String>,
    #[serde(default)]
    params: Value,
    token: Option<Secret>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Push {
    room: String,
    whip: String,
    token: Option<Secret>,
}

/// `GET /api/pulls`
pub(super) async fn pulls(State(gateway): State<Arc<Gateway>>) -> Response {
    axum::Json(json!({"pulls": gateway.peers.describe(true)})).into_response()
}

/// `GET /api/pushes`
pub(super) async fn pushes(State(gateway): State<Arc<Gateway>>) -> Response {
    axum::Json(json!({"pushes": gateway.peers.describe(false)})).into_response()
}

/// `POST /api/pulls`: publishes the stream of another server to a room.
pub(super) async fn pull(State(gateway): State<Arc<Gateway>>, body: JsonBody) -> Result<Response, Problem> {
    let Pull { whep, room, effect, params, token } =
        body.read(r#"{"whep": "https://media.example/live/whep", "room": "studio", "effect": "background_blur"}"#)?;
    // A wrong effect is refused now, not at each attempt.
    Restrictions::default().settings(&gateway.context.catalogue, effect.as_deref(), &params)?;
    let target = Target { url: checked_url("whep", &whep)?, token };
    begin(&gateway, Role::Pull { effect, params }, &room, target, "/api/pulls")
}

/// `POST /api/pushes`: publishes the pictures of a room to another server.
pub(super) async fn push(State(gateway): State<Arc<Gateway>>, body: JsonBody) -> Result<Response, Problem> {
    let Push { room, whip, token } = body.read(r#"{"room": "studio", "whip": "https://media.example/live/whip", "token": "…"}"#)?;
    let target = Target { url: checked_url("whip", &whip)?, token };
    begin(&gateway, Role::Push, &room, target, "/api/pushes")
}

fn begin(gateway: &Arc<Gateway>, role: Role, room: &str, target: Target, path: &str) -> Result<Response, Problem> {
    gateway.admission.check_open()?;
    let link = gateway.peers.add(role, RoomName::parse(room)?, target)?;
    link::start(gateway, link.clone());
    let location = format!("{path}/{}", link.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], axum::Json(link.describe())).into_response())
}

/// `DELETE /api/pulls/{id}`
pub(super) async fn end_pull(State(gateway): State<Arc<Gateway>>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    end(&gateway, true, &id)
}

/// `DELETE /api/pushes/{id}`
pub(super) async fn end_push(State(gateway): State<Arc<Gateway>>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    end(&gateway, false, &id)
}

fn end(gateway: &Gateway, is_pull: bool, id: &str) -> Result<StatusCode, Problem> {
    if id.parse().is_ok_and(|id| gateway.peers.end(is_pull, id)) {
        return Ok(StatusCode::NO_CONTENT);
    }
    let (what, list) = if is_pull { ("pull", "/api/pulls") } else { ("push", "/api/pushes") };
    Err(Problem::new(ProblemKind::NotFound, format!("no {what} has this id: GET {list} lists them")))
}
