//! What goes wrong, said to people and programs: RFC 9457 problem documents.

use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// An RFC 9457 problem document. `detail` says what is wrong and how to mend it.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    /// Stable identifier, such as `urn:ooblex:problem:unknown-effect`.
    pub r#type: String,
    /// The kind of problem in a few words.
    pub title: &'static str,
    /// HTTP status.
    pub status: u16,
    /// What happened here and how to mend it.
    pub detail: String,
    /// Its kind, which `type` and `title` follow from.
    #[serde(skip)]
    pub kind: ProblemKind,
    /// When to try again at the earliest; said in the header `Retry-After`.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

/// The kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// The body is not the JSON that the call takes.
    BadRequest,
    /// The body is larger than allowed.
    TooLarge,
    /// The SDP can not be read.
    BadSdp,
    /// The SDP has no video line that can be used.
    NoVideo,
    /// The browser and Ooblex have no video codec in common.
    NoCommonCodec,
    /// No effect has this name.
    UnknownEffect,
    /// The effects of a chain do not go together.
    BadChain,
    /// A parameter is unknown, of the wrong type or out of range.
    BadParameter,
    /// No session has this id.
    UnknownSession,
    /// No page or call has this path.
    NotFound,
    /// The path exists, and takes other methods.
    MethodNotAllowed,
    /// A page of another host asks for a change.
    ForeignOrigin,
    /// The request names a host that is none of this gateway's.
    WrongHost,
    /// The body has another content type than the call takes.
    WrongContentType,
    /// The body did not come in time.
    TimedOut,
    /// No credential was shown, or none that is accepted.
    Unauthorized,
    /// Who asks is known, and may not do this.
    Forbidden,
    /// An address has tried too many credentials.
    TooManyAttempts,
    /// As many sessions as allowed are running.
    TooManySessions,
    /// As many sessions as one address may have are running.
    TooManyOfAddress,
    /// As many sessions as allowed are not connected yet.
    TooManyUnconnected,
    /// An address makes more offers than it may.
    TooManyOffers,
    /// As many offers as allowed are being answered.
    Busy,
    /// A session sends more than it may.
    TooFast,
    /// As many readers of a session's events as allowed are there.
    TooManyReaders,
    /// Frame after frame of a session's camera is refused.
    Undecodable,
    /// No worker serves the effect now.
    NoWorker,
    /// The way to the workers is down.
    BrokerDown,
    /// The gateway is stopping, or broke.
    Unavailable,
}

impl Problem {
    /// A problem of a kind, with the sentence that names the thing and the mend.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        let (slug, title, status) = kind.describe();
        Self {
            r#type: format!("urn:ooblex:problem:{slug}"),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            kind,
            retry_after: None,
        }
    }

    /// The same, to be tried again after some time.
    pub fn retry_after(self, time: Duration) -> Self {
        Self { retry_after: Some(time), ..self }
    }
}

/// How to mend that no worker serves an effect. It names no address: those are the operator's, and viewers read it, too.
pub(crate) fn start_a_worker(effect: &str, shared: bool) -> String {
    if shared {
        format!("start one with ooblex worker --broker redis://… --effects {effect}")
    } else {
        format!("start the gateway again, with {effect} in worker.effects if that is set")
    }
}

impl ProblemKind {
    /// What an offer can be refused with.
    pub(crate) const OF_OFFERS: [ProblemKind; 19] = [
        ProblemKind::BadRequest,
        ProblemKind::WrongContentType,
        ProblemKind::TimedOut,
        ProblemKind::TooLarge,
        ProblemKind::BadSdp,
        ProblemKind::NoVideo,
        ProblemKind::NoCommonCodec,
        ProblemKind::UnknownEffect,
        ProblemKind::BadChain,
        ProblemKind::BadParameter,
        ProblemKind::TooManySessions,
        ProblemKind::TooManyOfAddress,
        ProblemKind::Unauthorized,
        ProblemKind::Forbidden,
        ProblemKind::TooManyAttempts,
        ProblemKind::TooManyUnconnected,
        ProblemKind::TooManyOffers,
        ProblemKind::Busy,
        ProblemKind::Unavailable,
    ];

    /// The last part of the type, the label in metrics.
    pub fn slug(self) -> &'static str {
        self.describe().0
    }

    fn describe(self) -> (&'static str, &'static str, StatusCode) {
        match self {
            ProblemKind::BadRequest => ("bad-request", "The request is not understood", StatusCode::BAD_REQUEST),
            ProblemKind::TooLarge => ("too-large", "The request is too large", StatusCode::PAYLOAD_TOO_LARGE),
            ProblemKind::BadSdp => ("bad-sdp", "The SDP offer can not be used", StatusCode::BAD_REQUEST),
            ProblemKind::NoVideo => ("no-video", "The offer has no video line", StatusCode::UNPROCESSABLE_ENTITY),
            ProblemKind::NoCommonCodec => ("no-common-codec", "No common video codec", StatusCode::UNPROCESSABLE_ENTITY),
            ProblemKind::UnknownEffect => ("unknown-effect", "There is no such effect", StatusCode::UNPROCESSABLE_ENTITY),
            ProblemKind::BadChain => ("bad-chain", "These effects can not be chained", StatusCode::UNPROCESSABLE_ENTITY),
            ProblemKind::BadParameter => ("bad-parameter", "A parameter is not accepted", StatusCode::UNPROCESSABLE_ENTITY),
            ProblemKind::UnknownSession => ("unknown-session", "There is no such session", StatusCode::NOT_FOUND),
            ProblemKind::NotFound => ("not-found", "There is nothing at this address", StatusCode::NOT_FOUND),
            ProblemKind::MethodNotAllowed => ("method-not-allowed", "This address takes other methods", StatusCode::METHOD_NOT_ALLOWED),
            ProblemKind::ForeignOrigin => ("foreign-origin", "This is not for pages of other hosts", StatusCode::FORBIDDEN),
            ProblemKind::WrongHost => ("wrong-host", "This gateway does not have that name", StatusCode::MISDIRECTED_REQUEST),
            ProblemKind::WrongContentType => ("wrong-content-type", "The body has the wrong type", StatusCode::UNSUPPORTED_MEDIA_TYPE),
            ProblemKind::TimedOut => ("timed-out", "The request took too long", StatusCode::REQUEST_TIMEOUT),
            ProblemKind::Unauthorized => ("unauthorized", "This needs a credential that is accepted", StatusCode::UNAUTHORIZED),
            ProblemKind::Forbidden => ("forbidden", "This is not allowed", StatusCode::FORBIDDEN),
            ProblemKind::TooManyAttempts => ("too-many-attempts", "Too many attempts have failed", StatusCode::TOO_MANY_REQUESTS),
            ProblemKind::TooFast => ("too-fast", "The session sends more than it may", StatusCode::TOO_MANY_REQUESTS),
            ProblemKind::TooManySessions => ("too-many-sessions", "The gateway is full", StatusCode::SERVICE_UNAVAILABLE),
            ProblemKind::TooManyOfAddress => ("too-many-of-address", "This address has enough sessions", StatusCode::TOO_MANY_REQUESTS),
            ProblemKind::TooManyUnconnected => {
                ("too-many-unconnected", "Enough sessions are about to connect", StatusCode::SERVICE_UNAVAILABLE)
            }
            ProblemKind::TooManyOffers => ("too-many-offers", "This address makes too many offers", StatusCode::TOO_MANY_REQUESTS),
            ProblemKind::Busy => ("busy", "The gateway is busy with other offers", StatusCode::SERVICE_UNAVAILABLE),
            ProblemKind::TooManyReaders => ("too-many-readers", "The session has enough readers", StatusCode::TOO_MANY_REQUESTS),
            ProblemKind::Undecodable => ("undecodable", "The camera's stream is refused", StatusCode::UNPROCESSABLE_ENTITY),
            ProblemKind::NoWorker => ("no-worker", "No worker serves this effect now", StatusCode::SERVICE_UNAVAILABLE),
            ProblemKind::BrokerDown => ("broker-down", "The workers can not be reached now", StatusCode::SERVICE_UNAVAILABLE),
            ProblemKind::Unavailable => ("unavailable", "The gateway can not do this now", StatusCode::SERVICE_UNAVAILABLE),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_string(&self).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if let Some(time) = self.retry_after {
            // In whole seconds, and never too early.
            let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
