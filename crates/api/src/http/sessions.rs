//! Routes of a single session: describe, change and end.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;

use super::body::JsonBody;
use super::gateway::Gateway;
use crate::auth::Caller;
use ooblex_gateway::ids::SessionId;
use ooblex_gateway::labels::ByeReason;
use ooblex_gateway::problem::{Problem, ProblemKind};

/// Time that clients are asked to wait while the queue of the media thread is full.
pub(super) const BUSY_RETRY: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    effect: Option<String>,
    #[serde(default)]
    params: Value,
}

pub(super) async fn session(State(gateway): State<Arc<Gateway>>, Path(id): Path<String>) -> Result<Response, Problem> {
    let description = SessionId::parse(&id).and_then(|id| gateway.sessions.describe(id));
    description.map(|session| axum::Json(session).into_response()).ok_or_else(|| unknown_session(&id))
}

pub(super) async fn change_session(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<Response, Problem> {
    let change: Change = body.read(r#"{"effect": "style_transfer", "params": {"strength": 0.7}}"#)?;
    let context = &gateway.context;
    let session = SessionId::parse(&id).and_then(|id| Some((id, gateway.sessions.settings(id)?)));
    let (known, current) = session.ok_or_else(|| unknown_session(&id))?;
    let restrictions = match caller {
        Caller::Session(_) => gateway.sessions.restrictions(known).unwrap_or_default(),
        // The operator's own restrictions apply, not those of the session.
        operator => Arc::new(operator.restrictions()),
    };
    let settings = restrictions.change(&context.catalogue, &current, change.effect.as_deref(), &change.params)?;
    if !gateway.sessions.change(known, settings) {
        return Err(Problem::new(ProblemKind::Unavailable, format!("session {id} is too busy or just ended: try again")));
    }
    gateway.sessions.describe(known).map(|session| axum::Json(session).into_response()).ok_or_else(|| unknown_session(&id))
}

pub(super) async fn end_session(State(gateway): State<Arc<Gateway>>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let id = SessionId::parse(&id).ok_or_else(|| unknown_session(&id))?;
    // Nothing waits here: a client that disconnects cannot leave a session behind that runs without
    // being listed. DELETE is idempotent: a session that has already ended counts as deleted.
    if gateway.sessions.end(id, || gateway.transport.try_end(id, ByeReason::Ended)) {
        return Ok(StatusCode::NO_CONTENT);
    }
    let detail = format!("the gateway is too busy to end session {id}: try again in a moment");
    Err(Problem::new(ProblemKind::Unavailable, detail).retry_after(BUSY_RETRY))
}

pub(super) fn unknown_session(id: &str) -> Problem {
    let id: String = id.chars().take(40).collect();
    Problem::new(ProblemKind::UnknownSession, format!("no session '{id}' is running: GET /api/sessions lists those that are"))
}
