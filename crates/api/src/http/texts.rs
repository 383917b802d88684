//! Plain-text responses.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

/// Returns metrics in the OpenMetrics text format.
pub fn metrics_text(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}

/// Returns a 503 response with one line for each reason; probes look at the status only.
pub fn lines(missing: &[String]) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n").into_response()
}
