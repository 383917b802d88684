//! The routes of recordings, for operators, and the recordings that begin with their publisher.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::download;
use super::gateway::Gateway;
use crate::rooms::RoomName;
use crate::sessions::Watched;
use ooblex_gateway::problem::{Problem, ProblemKind};
use ooblex_recording::BeginError;
use ooblex_rtc::session::Sound;

/// `GET /api/rooms/{room}/recordings`
pub(super) async fn list(State(gateway): State<Arc<Gateway>>, Path(room): Path<String>) -> Result<Response, Problem> {
    let room = RoomName::parse(&room)?;
    let is_recorded = gateway.recordings.is_recorded(room.as_str());
    let listed = tokio::task::spawn_blocking(move || (gateway.recordings.list(room.as_str()), room)).await;
    let (files, room) = listed.map_err(|_| Problem::new(ProblemKind::Unavailable, "the list could not be made: the log says why"))?;
    Ok(axum::Json(json!({"room": room, "is_recorded": is_recorded, "files": files})).into_response())
}

/// `POST /api/rooms/{room}/recordings`
pub(super) async fn begin(State(gateway): State<Arc<Gateway>>, Path(room): Path<String>) -> Result<Response, Problem> {
    let room = RoomName::parse(&room)?;
    record(&gateway, &room)?;
    let location = format!("/api/rooms/{room}/recordings");
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], axum::Json(json!({"room": room, "is_recorded": true}))).into_response())
}

/// `DELETE /api/rooms/{room}/recordings`: ends the recording, and removes no file.
pub(super) async fn end(State(gateway): State<Arc<Gateway>>, Path(room): Path<String>) -> StatusCode {
    // A recording that has ended counts as ended.
    gateway.recordings.end(&room);
    StatusCode::NO_CONTENT
}

/// `GET /api/rooms/{room}/recordings/{file}`
pub(super) async fn download(
    State(gateway): State<Arc<Gateway>>,
    Path((room, file)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let missing = || Problem::new(ProblemKind::NotFound, "there is no such recording: GET /api/rooms/{room}/recordings lists them");
    let path = gateway.recordings.path(RoomName::parse(&room)?.as_str(), &file).ok_or_else(missing)?;
    let content_type = if file.ends_with(".webm") { "video/webm" } else { "video/x-matroska" };
    let response = download::download(path, content_type, &headers).await.map_err(|_| missing())?;
    Ok(([(header::CONTENT_DISPOSITION, format!("attachment; filename=\"{room}-{file}\""))], response).into_response())
}

/// Begins to record a room.
///
/// # Errors
/// When nobody publishes to it, it is being recorded, or nothing can be recorded.
pub(super) fn record(gateway: &Gateway, room: &RoomName) -> Result<(), Problem> {
    let Watched { publisher, track } = gateway.sessions.recorded(room)?;
    let inbox = gateway.recordings.begin(room.as_str(), &track).map_err(|error| problem(&error))?;
    let listener = move |Sound { timestamp, arrived, data }| inbox.take(timestamp, arrived, data);
    if !gateway.transport.listen(publisher, Box::new(listener)) {
        gateway.recordings.end(room.as_str());
        return Err(problem(&BeginError::Busy(room.to_string())));
    }
    Ok(())
}

fn problem(error: &BeginError) -> Problem {
    let kind = match error {
        BeginError::Off => ProblemKind::Unsupported,
        BeginError::Running(_) => ProblemKind::Recorded,
        BeginError::Busy(_) | BeginError::Thread(_) => ProblemKind::Unavailable,
    };
    Problem::new(kind, error.to_string())
}
