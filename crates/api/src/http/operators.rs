//! The routes about all sessions, which are for operators: metrics, the lists of sessions, rooms, pulls
//! and pushes, recordings, and the reload of effects. Viewers may list the rooms that they may watch.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Router};
use serde_json::json;
use tokio::sync::Semaphore;

use super::effects;
use super::gateway::Gateway;
use super::peers;
use super::recordings;
use super::texts::metrics_text;
use crate::auth::Caller;
use crate::rooms::RoomName;
use ooblex_gateway::problem::{Problem, ProblemKind};

/// Limits how many responses about all sessions are built at the same time. Each takes milliseconds
/// and is built outside the HTTP threads.
static SURVEYS: Semaphore = Semaphore::const_new(2);

/// Builds the operator routes; [`super::access`] refuses other callers.
pub(super) fn operator_routes() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/api/sessions", get(sessions))
        .route("/api/rooms", get(rooms))
        .route("/api/rooms/{room}/recordings", get(recordings::list).post(recordings::begin).delete(recordings::end))
        .route("/api/rooms/{room}/recordings/{file}", get(recordings::download))
        .route("/api/pulls", get(peers::pulls).post(peers::pull))
        .route("/api/pulls/{id}", delete(peers::end_pull))
        .route("/api/pushes", get(peers::pushes).post(peers::push))
        .route("/api/pushes/{id}", delete(peers::end_push))
        .route("/api/effects/reload", post(effects::reload))
}

async fn sessions(State(gateway): State<Arc<Gateway>>) -> Result<Response, Problem> {
    survey(move || json!({"sessions": gateway.sessions.describe_all()})).await.map(|all| axum::Json(all).into_response())
}

async fn rooms(State(gateway): State<Arc<Gateway>>, Extension(caller): Extension<Caller>) -> Result<Response, Problem> {
    let describe = move || {
        if !caller.is_operator() {
            return json!({"rooms": gateway.sessions.list_rooms(|room| caller.may_watch(room))});
        }
        let peers = &gateway.peers;
        let is_recorded = |room: &RoomName| gateway.recordings.is_recorded(room.as_str());
        json!({"rooms": gateway.sessions.describe_rooms(is_recorded), "pulls": peers.describe(true), "pushes": peers.describe(false)})
    };
    survey(describe).await.map(|all| axum::Json(all).into_response())
}

async fn metrics(State(gateway): State<Arc<Gateway>>) -> Result<Response, Problem> {
    let encode = move || {
        let context = &gateway.context;
        context.metrics.encode(&gateway.sessions.by_effect(), gateway.sessions.viewers())
    };
    survey(encode).await.map(metrics_text)
}

async fn survey<T: Send + 'static>(make: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let failed = || Problem::new(ProblemKind::Unavailable, "this answer could not be made: the log says why");
    let _permit = SURVEYS.acquire().await.map_err(|_| failed())?;
    tokio::task::spawn_blocking(make).await.map_err(|_| failed())
}
