//! Problem documents (RFC 9457): errors for people and programs.

use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// An RFC 9457 problem document. `detail` describes the problem and its remedy.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    /// Stable identifier, such as `urn:ooblex:problem:unknown-effect`.
    pub r#type: String,
    /// Short description of the kind of problem.
    pub title: &'static str,
    /// HTTP status code.
    pub status: u16,
    /// Description of this occurrence and its remedy.
    pub detail: String,
    /// Kind of problem, which determines `type` and `title`.
    #[serde(skip)]
    pub kind: ProblemKind,
    /// Shortest time before a retry, sent in the header `Retry-After`.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

/// The kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// The body is not the JSON that the call expects.
    BadRequest,
    /// The body is larger than allowed.
    TooLarge,
    /// The SDP cannot be parsed.
    BadSdp,
    /// The SDP has no usable video section.
    NoVideo,
    /// The browser and Ooblex have no video codec in common.
    NoCommonCodec,
    /// No effect has this name.
    UnknownEffect,
    /// The effects cannot be combined in a chain.
    BadChain,
    /// A parameter is unknown, of the wrong type or out of range.
    BadParameter,
    /// No session has this id.
    UnknownSession,
    /// Another session publishes to the room.
    RoomTaken,
    /// No session publishes to the room.
    RoomEmpty,
    /// There is no room of this name.
    UnknownRoom,
    /// The room has as many viewers, or streams of pictures, as it may.
    RoomFull,
    /// The room is being recorded.
    Recorded,
    /// The request names another version of the session than the current one.
    WrongVersion,
    /// The request must name the version of the session that it changes.
    NoVersion,
    /// The gateway cannot do what the request asks for.
    Unsupported,
    /// No page or API call has this path.
    NotFound,
    /// The path exists, but does not support the method.
    MethodNotAllowed,
    /// A page of another origin requests a change.
    ForeignOrigin,
    /// The request names a host that does not belong to this gateway.
    WrongHost,
    /// The content type of the body is not the one that the call expects.
    WrongContentType,
    /// The body did not arrive before its deadline.
    TimedOut,
    /// The request has no credential, or an invalid one.
    Unauthorized,
    /// The caller is authenticated but lacks the permission.
    Forbidden,
    /// An address has made too many failed authentication attempts.
    TooManyAttempts,
    /// The limit of running sessions is reached.
    TooManySessions,
    /// The limit of running sessions of one address is reached.
    TooManyOfAddress,
    /// The limit of sessions that are not connected yet is reached.
    TooManyUnconnected,
    /// An address exceeds its rate limit of offers.
    TooManyOffers,
    /// The limit of offers that are answered concurrently is reached.
    Busy,
    /// A session exceeds its rate limit of messages.
    TooFast,
    /// A limit of readers of events or pictures is reached: of the session, of the address, or in total.
    TooManyReaders,
    /// Many consecutive frames of a session's camera cannot be decoded.
    Undecodable,
    /// No worker currently serves the effect.
    NoWorker,
    /// The connection to the workers is down.
    BrokerDown,
    /// The gateway is stopping, or has failed.
    Unavailable,
}

impl Problem {
    /// Builds a problem of a kind. `detail` names what is wrong and the remedy.
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

    /// Sets the time before a retry.
    pub fn retry_after(self, time: Duration) -> Self {
        Self { retry_after: Some(time), ..self }
    }
}

/// Returns the remedy for an effect that no worker serves. It names no address, because viewers
/// read it too.
pub fn start_a_worker(effect: &str, shared: bool) -> String {
    if shared {
        format!("start one with ooblex worker --broker redis://… --effects {effect}")
    } else {
        format!("start the gateway again, with {effect} in worker.effects if that is set")
    }
}

impl ProblemKind {
    /// The kinds of problems that an offer can be answered with.
    pub const OF_OFFERS: [ProblemKind; 22] = [
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
        ProblemKind::RoomTaken,
        ProblemKind::RoomEmpty,
        ProblemKind::RoomFull,
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

    /// Returns the last part of the type, which is also the label in metrics.
    pub fn slug(self) -> &'static str {
        self.describe().0
    }

    fn describe(self) -> (&'static str, &'static str, StatusCode) {
        match self {
            ProblemKind::BadRequest => ("bad-request", "The request is not understood", StatusCode::BAD_REQUEST),
            ProblemKind::TooLarge => ("too-large", "The request is too large", StatusCode::PAYLOAD_TOO_LARGE),
            ProblemKind::BadSdp => ("bad-sdp", "The SDP offer cannot be used", StatusCode::BAD_REQUEST),
            ProblemKind::NoVideo => ("no-video", "The offer has no video line", StatusCode::UNPROCESSABLE_ENTITY),
            ProblemKind::NoCommonCodec => ("no-common-codec", "No common video codec", StatusCode::UNPROCESSABLE_ENTITY),
            ProblemKind::UnknownEffect => ("unknown-effect", "There is no such effect", StatusCode::UNPROCESSABLE_ENTITY),
            ProblemKind::BadChain => ("bad-chain", "These effects cannot be chained", StatusCode::UNPROCESSABLE_ENTITY),
            ProblemKind::BadParameter => ("bad-parameter", "A parameter is not accepted", StatusCode::UNPROCESSABLE_ENTITY),
            ProblemKind::UnknownSession => ("unknown-session", "There is no such session", StatusCode::NOT_FOUND),
            ProblemKind::RoomTaken => ("room-taken", "Another session publishes to this room", StatusCode::CONFLICT),
            ProblemKind::RoomEmpty => ("room-empty", "Nobody publishes to this room", StatusCode::CONFLICT),
            ProblemKind::UnknownRoom => ("unknown-room", "There is no such room", StatusCode::NOT_FOUND),
            ProblemKind::RoomFull => ("room-full", "The room is full", StatusCode::SERVICE_UNAVAILABLE),
            ProblemKind::Recorded => ("recorded", "The room is being recorded", StatusCode::CONFLICT),
            ProblemKind::WrongVersion => ("wrong-version", "The session has another version", StatusCode::PRECONDITION_FAILED),
            ProblemKind::NoVersion => ("no-version", "The version of the session is missing", StatusCode::PRECONDITION_REQUIRED),
            ProblemKind::Unsupported => ("unsupported", "The gateway cannot do this", StatusCode::UNPROCESSABLE_ENTITY),
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
            ProblemKind::TooManyReaders => ("too-many-readers", "There are enough readers", StatusCode::TOO_MANY_REQUESTS),
            ProblemKind::Undecodable => ("undecodable", "The camera's stream is refused", StatusCode::UNPROCESSABLE_ENTITY),
            ProblemKind::NoWorker => ("no-worker", "No worker serves this effect now", StatusCode::SERVICE_UNAVAILABLE),
            ProblemKind::BrokerDown => ("broker-down", "The workers cannot be reached now", StatusCode::SERVICE_UNAVAILABLE),
            ProblemKind::Unavailable => ("unavailable", "The gateway cannot do this now", StatusCode::SERVICE_UNAVAILABLE),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_string(&self).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if let Some(time) = self.retry_after {
            // Retry-After has whole seconds; rounding up prevents a retry that is too early.
            let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
