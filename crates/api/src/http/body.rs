//! Request bodies: JSON or SDP with a limited size, received within a deadline.

use std::error::Error;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use serde::Deserialize;

use crate::server::BodyTimedOut;
use ooblex_gateway::problem::{Problem, ProblemKind};

/// A request body with a JSON content type. Other content types are refused because browsers send
/// some of them across origins without a preflight.
pub(super) struct JsonBody(Bytes);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !has_type(request.headers(), "application/json") {
            let detail = "the header Content-Type must be application/json: set it, with curl by --header 'Content-Type: application/json'";
            return Err(Problem::new(ProblemKind::WrongContentType, detail));
        }
        Bytes::from_request(request, state).await.map(Self).map_err(|rejection| unread(&rejection))
    }
}

impl JsonBody {
    /// Parses the body.
    ///
    /// # Errors
    /// When the body is not JSON, or does not have the structure of `example`.
    pub(super) fn read<T: for<'a> Deserialize<'a>>(&self, example: &str) -> Result<T, Problem> {
        serde_json::from_slice(&self.0)
            .map_err(|error| Problem::new(ProblemKind::BadRequest, format!("the body must be JSON such as {example} ({error})")))
    }
}

/// Returns a body as text, if the request has this content type.
///
/// # Errors
/// When the type is another one, the body did not come whole, or it is not UTF-8.
pub(super) fn text(headers: &HeaderMap, body: Result<Bytes, BytesRejection>, content_type: &str) -> Result<String, Problem> {
    if !has_type(headers, content_type) {
        return Err(Problem::new(ProblemKind::WrongContentType, format!("the header Content-Type must be {content_type}: set it")));
    }
    let bytes = body.map_err(|rejection| unread(&rejection))?;
    let detail = "the body must be SDP, which is text in UTF-8: send it as the WebRTC library gives it";
    String::from_utf8(bytes.to_vec()).map_err(|_| Problem::new(ProblemKind::BadSdp, detail))
}

/// Returns whether the content type is this one; parameters and the case of letters do not matter.
fn has_type(headers: &HeaderMap, content_type: &str) -> bool {
    let essence = |value: &str| value.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case(content_type));
    let mut lines = headers.get_all(header::CONTENT_TYPE).iter();
    let (first, second) = (lines.next(), lines.next());
    second.is_none() && first.and_then(|value| value.to_str().ok()).is_some_and(essence)
}

fn unread(rejection: &BytesRejection) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return Problem::new(ProblemKind::TooLarge, "the body is larger than limits.body_kib allows");
    }
    let sources = std::iter::successors(Some(rejection as &dyn Error), |&error| error.source());
    match sources.filter_map(|error| error.downcast_ref::<BodyTimedOut>()).next() {
        Some(timed_out) => Problem::new(ProblemKind::TimedOut, format!("{timed_out}: send it at once")),
        None => Problem::new(ProblemKind::BadRequest, format!("the body could not be read ({rejection}): send it whole")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_is_json() {
        let is = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            lines.iter().for_each(|line| _ = headers.append(header::CONTENT_TYPE, line.parse().unwrap()));
            has_type(&headers, "application/json")
        };
        assert!(is(&["application/json"]) && is(&["Application/JSON ; charset=utf-8"]));
        for other in
            [&[][..], &["text/plain"], &["application/jsonp"], &["text/plain; application/json"], &["application/json", "text/plain"]]
        {
            assert!(!is(other), "{other:?}");
        }
    }
}
