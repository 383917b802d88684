//! Answers in plain text.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

/// For Prometheus.
pub(crate) fn metrics_text(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}

/// What is missing, a line each, for people and for probes that look at the status only.
pub(crate) fn lines(missing: &[String]) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n").into_response()
}
