//! Permissions of the routes, and the middleware that checks them before a handler runs.
//!
//! Every route has a row in [`ROUTES`]; a route without a row is refused. The page and its files
//! are public.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header, request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::debug;

use super::gateway::Gateway;
use crate::assets;
use crate::auth::keys::digest;
use crate::auth::{Action, Authenticator, Caller, Claim, Credential};
use crate::rooms::RoomName;
use crate::sessions::Sessions;
use crate::visitor::{self, Listener, Peer, Visitor};
use ooblex_config as config;
use ooblex_gateway::ids::SessionId;
use ooblex_gateway::labels::Reason;
use ooblex_gateway::problem::{Problem, ProblemKind};

/// The permission that a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// No permission; the route is public.
    Public,
    /// No permission; the route is public, and tells operators more.
    PublicAndMore,
    /// The permission to publish, to the room in the path if there is one.
    Publish,
    /// The permission to watch the room in the path.
    View,
    /// The permission to watch any room; the answer has only the rooms that the caller may watch.
    ViewAny,
    /// The secret of the session in the path, or operator rights.
    Session,
    /// Operator rights.
    Admin,
}

/// The permission that each route of the API needs.
pub const ROUTES: [(Method, &str, Need); 37] = [
    (Method::POST, "/offer", Need::Publish),
    (Method::GET, "/whip/{room}", Need::Public),
    (Method::POST, "/whip/{room}", Need::Publish),
    (Method::GET, "/whip/{room}/{secret}", Need::Publish),
    (Method::PATCH, "/whip/{room}/{secret}", Need::Publish),
    (Method::DELETE, "/whip/{room}/{secret}", Need::Publish),
    (Method::GET, "/whep/{room}", Need::Public),
    (Method::POST, "/whep/{room}", Need::View),
    (Method::GET, "/whep/{room}/{secret}", Need::View),
    (Method::PATCH, "/whep/{room}/{secret}", Need::View),
    (Method::DELETE, "/whep/{room}/{secret}", Need::View),
    (Method::GET, "/whep/{room}/{secret}/events", Need::View),
    (Method::POST, "/whep/{room}/{secret}/events", Need::View),
    (Method::GET, "/rooms/{room}/snapshot.jpg", Need::View),
    (Method::GET, "/rooms/{room}/stream.mjpeg", Need::View),
    (Method::GET, "/api/effects", Need::PublicAndMore),
    (Method::POST, "/api/effects/reload", Need::Admin),
    (Method::GET, "/api/effects/{name}/thumbnail.png", Need::Public),
    (Method::GET, "/api/rooms", Need::ViewAny),
    (Method::GET, "/api/rooms/{room}/recordings", Need::Admin),
    (Method::POST, "/api/rooms/{room}/recordings", Need::Admin),
    (Method::DELETE, "/api/rooms/{room}/recordings", Need::Admin),
    (Method::GET, "/api/rooms/{room}/recordings/{file}", Need::Admin),
    (Method::GET, "/api/pulls", Need::Admin),
    (Method::POST, "/api/pulls", Need::Admin),
    (Method::DELETE, "/api/pulls/{id}", Need::Admin),
    (Method::GET, "/api/pushes", Need::Admin),
    (Method::POST, "/api/pushes", Need::Admin),
    (Method::DELETE, "/api/pushes/{id}", Need::Admin),
    (Method::GET, "/api/sessions", Need::Admin),
    (Method::GET, "/api/sessions/{id}", Need::Session),
    (Method::PATCH, "/api/sessions/{id}", Need::Session),
    (Method::DELETE, "/api/sessions/{id}", Need::Session),
    (Method::GET, "/api/sessions/{id}/events", Need::Session),
    (Method::GET, "/healthz", Need::Public),
    (Method::GET, "/readyz", Need::Public),
    (Method::GET, "/metrics", Need::Admin),
];

/// Returns the permission that a route needs, or `None` if the route has no row or does not take
/// the method.
fn need(method: &Method, path: &str) -> Option<Need> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let row = ROUTES.iter().find(|(of, route, _)| of == method && *route == path);
    row.map(|(.., need)| *need).or_else(|| (method == Method::GET && assets::is_path(path)).then_some(Need::Public))
}

/// Authorizes a request: passes it on with its [`Caller`] as an extension, or answers with a
/// problem.
pub async fn guard(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    let Some(route) = request.extensions().get::<MatchedPath>().cloned() else {
        // No route matches; the router's fallback answers 404.
        return next.run(request).await;
    };
    let Some(need) = need(request.method(), route.as_str()) else {
        let detail = format!("this address does not take {}; sessions begin with POST /offer", request.method());
        return Problem::new(ProblemKind::MethodNotAllowed, detail).into_response();
    };
    let (mut parts, body) = request.into_parts();
    let context = &gateway.context;
    match caller(&gateway.auth, &gateway.sessions, &context.config.serve, need, route.as_str(), &parts).await {
        Ok(caller) => {
            parts.extensions.insert(caller);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(refusal) if need == Need::PublicAndMore => {
            context.metrics.on_unauthorized(refusal.reason);
            parts.extensions.insert(Caller::Anyone);
            next.run(Request::from_parts(parts, body)).await
        }
        // DELETE is idempotent: a session that has already ended counts as deleted.
        Err(refusal) if parts.method == Method::DELETE && refusal.problem.kind == ProblemKind::UnknownSession => {
            StatusCode::NO_CONTENT.into_response()
        }
        Err(refusal) => {
            debug!(reason = refusal.reason.label(), route = route.as_str(), "refused");
            context.metrics.on_unauthorized(refusal.reason);
            if parts.method == Method::POST && matches!(need, Need::Publish | Need::View) {
                context.metrics.on_offer(Some(refusal.problem.kind));
            }
            refusal.into_response()
        }
    }
}

/// Returns whether `Origin` names the same authority as `Host`, which was checked before.
fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let origin = text(header::ORIGIN).and_then(|origin| origin.split_once("://"));
    origin.zip(text(header::HOST)).is_some_and(|((_, origin), host)| origin.eq_ignore_ascii_case(host))
}

/// A refused request: the reason for logs and metrics, and the problem to answer with.
pub struct Refusal {
    reason: Reason,
    problem: Problem,
    retry_after: Option<Duration>,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.problem.into_response();
        let status = response.status();
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, wait.as_secs().max(1).into());
        }
        response
    }
}

/// Identifies the caller of a request and checks its permission for the route.
async fn caller(
    auth: &Authenticator,
    sessions: &Sessions,
    serve: &config::Serve,
    need: Need,
    route: &str,
    parts: &request::Parts,
) -> Result<Caller, Refusal> {
    if need == Need::Public {
        return Ok(Caller::Anyone);
    }
    let peer = parts.extensions.get::<ConnectInfo<Peer>>().map_or(Peer(std::net::Ipv4Addr::UNSPECIFIED.into()), |info| info.0);
    let credential = Credential::of(&parts.headers, parts.uri.query());
    let address = visitor::caller(peer, &parts.headers, &serve.trusted_proxies);
    let visitor = Visitor::at(address);
    let room = room(route, parts.uri.path())?;
    let id = (need == Need::Session).then(|| parts.uri.path().split('/').nth(3)).flatten();
    if let Some(id) = id.and_then(SessionId::parse)
        && let Some(token) = &credential.token
        && sessions.is_secret_of(id, &digest(token))
    {
        return Ok(Caller::Session(id));
    }
    let is_admin_listener = parts.extensions.get::<Listener>() == Some(&Listener::Admin);
    // A page of another origin gets no operator rights from the caller's address alone, unless
    // serve.allow_origins lists that origin.
    let is_of_page = parts.headers.get(header::ORIGIN).is_some_and(|origin| {
        let is_named = serve.allow_origins.iter().any(|named| named.as_bytes().eq_ignore_ascii_case(origin.as_bytes()));
        !is_named && !is_same_origin(&parts.headers)
    });
    if !is_of_page && (is_admin_listener || auth.is_local_operator(peer, &parts.headers)) {
        return Ok(Caller::Operator);
    }
    if auth.is_open() && matches!(need, Need::Publish | Need::View) {
        return Ok(Caller::Anyone);
    }
    // The hook is not asked about everybody who reads a public route, only about credentials.
    if need == Need::PublicAndMore && (auth.is_open() || !credential.is_there() || credential.is_of_session()) {
        return Ok(Caller::Anyone);
    }
    // A session's secret is valid for its own session only. It is never forwarded to the hook, and
    // an expired secret does not count as a failed attempt.
    if credential.is_of_session() {
        return Err(if need == Need::Session {
            wrong_session(sessions, id, &credential)
        } else {
            wrong_place(sessions, need, &credential)
        });
    }
    if auth.is_open() {
        return Err(if need == Need::Session { refusal(auth, Reason::Missing, visitor) } else { closed() });
    }
    let action = match (need, route) {
        (Need::Publish, _) => Action::Publish,
        (Need::View, _) => Action::Read,
        (_, "/metrics") => Action::Metrics,
        _ => Action::Api,
    };
    let query = parts.uri.query().unwrap_or_default();
    let claim = Claim { credential: &credential, visitor, address, action, id, room: room.as_ref(), query };
    let grant = match auth.grant(&claim).await {
        Ok(grant) => grant,
        Err(reason) => return Err(refusal(auth, reason, visitor)),
    };
    let is_allowed = match need {
        Need::Public | Need::PublicAndMore => true,
        Need::Publish => grant.may_publish(room.as_ref()),
        Need::View => room.as_ref().is_some_and(|room| grant.may_watch(room)),
        Need::ViewAny => grant.admin || grant.view.is_any(),
        Need::Session | Need::Admin => grant.admin,
    };
    if is_allowed { Ok(Caller::Granted(Arc::new(grant))) } else { Err(not_allowed(need)) }
}

/// Returns the room in the path of a request to this route. The name is taken as it is written, so
/// that patterns of rooms apply to what the handler sees.
fn room(route: &str, path: &str) -> Result<Option<RoomName>, Refusal> {
    let name = route.split('/').position(|part| part == "{room}").and_then(|at| path.split('/').nth(at));
    let refusal = |problem| Refusal { reason: Reason::NotAllowed, problem, retry_after: None };
    name.map(RoomName::parse).transpose().map_err(refusal)
}

/// Returns the client of a request to a WHIP or WHEP endpoint if it may begin a session there.
pub(super) async fn endpoint_visitor(gateway: &Gateway, parts: &request::Parts) -> Option<Visitor> {
    let (need, route) = if parts.uri.path().starts_with("/whip/") { (Need::Publish, "/whip/{room}") } else { (Need::View, "/whep/{room}") };
    let serve = &gateway.context.config.serve;
    caller(&gateway.auth, &gateway.sessions, serve, need, route, parts).await.ok()?;
    let peer = parts.extensions.get::<ConnectInfo<Peer>>()?.0;
    Some(Visitor::of(peer, &parts.headers, &serve.trusted_proxies))
}

fn refusal(auth: &Authenticator, reason: Reason, visitor: Visitor) -> Refusal {
    let refused = |kind, detail: &str, retry_after| Refusal { reason, problem: Problem::new(kind, detail), retry_after };
    match reason {
        Reason::Throttled => {
            let wait = auth.throttled(visitor).unwrap_or_default() + Duration::from_secs(1);
            let detail =
                "too many attempts from this address have failed: wait as long as Retry-After says, then show a key or token that is valid";
            refused(ProblemKind::TooManyAttempts, detail, Some(wait))
        }
        Reason::Unavailable => {
            let detail = "the authentication service cannot be reached now: try again in a moment; the gateway's log has the reason";
            refused(ProblemKind::Unavailable, detail, Some(Duration::from_secs(5)))
        }
        Reason::Missing => {
            let detail = "this needs a key, a token or the secret of the session: send it as Authorization: Bearer …";
            refused(ProblemKind::Unauthorized, detail, None)
        }
        Reason::Expired => refused(ProblemKind::Unauthorized, "the token has expired: ask for a new one", None),
        Reason::WrongClaims => {
            let detail = "the token is not meant for this gateway, not valid yet, or has no expiry: look at its iss, aud, nbf and exp";
            refused(ProblemKind::Unauthorized, detail, None)
        }
        _ => refused(ProblemKind::Unauthorized, "the key or token is not accepted: ask the operator of this gateway for one that is", None),
    }
}

fn not_allowed(need: Need) -> Refusal {
    let detail = match need {
        Need::Publish => "these credentials do not let their holder publish here: that needs the role publish or admin",
        Need::View => "these credentials do not let their holder watch this room: that needs the role view or admin",
        Need::ViewAny => "these credentials do not let their holder watch any room: that needs the role view or admin",
        Need::Session => "these credentials do not belong to this session: use the secret of its answer, or the role admin",
        Need::Public | Need::PublicAndMore | Need::Admin => "this route is for operators: it needs the role admin, or serve.admin_listen",
    };
    Refusal { reason: Reason::NotAllowed, problem: Problem::new(ProblemKind::Forbidden, detail), retry_after: None }
}

/// Returns the refusal for operator routes where `auth.mode` is `none`, so that no credential can
/// help.
fn closed() -> Refusal {
    let detail = "this route is for operators, and with auth.mode = \"none\" it is served on this machine's loopback address or on serve.admin_listen only";
    Refusal { reason: Reason::NotAllowed, problem: Problem::new(ProblemKind::Forbidden, detail), retry_after: None }
}

/// Returns the refusal for a session's secret that does not match the session in the path.
fn wrong_session(sessions: &Sessions, id: Option<&str>, credential: &Credential) -> Refusal {
    let presented = digest(credential.token.as_deref().unwrap_or_default());
    let (kind, detail) = if sessions.has_secret(&presented) {
        (ProblemKind::Forbidden, "this is the secret of another session: use the one that came with this session's answer")
    } else if id.and_then(SessionId::parse).is_some_and(|id| sessions.is_running(id)) {
        (ProblemKind::Unauthorized, "this is not the secret of the session: use the one that came with its answer")
    } else {
        (ProblemKind::UnknownSession, "this session is not running any more: begin another one with POST /offer")
    };
    Refusal { reason: Reason::WrongSession, problem: Problem::new(kind, detail), retry_after: None }
}

/// Returns the refusal for a session's secret on a route that does not take one.
fn wrong_place(sessions: &Sessions, need: Need, credential: &Credential) -> Refusal {
    if sessions.has_secret(&digest(credential.token.as_deref().unwrap_or_default())) {
        return not_allowed(need);
    }
    let detail = "the secret of a session opens that session only, and this one is not running any more: show a key or token";
    Refusal { reason: Reason::WrongSession, problem: Problem::new(ProblemKind::Unauthorized, detail), retry_after: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_of_the_router_has_a_row_and_no_row_is_left_over() {
        let source = concat!(include_str!("../http.rs"), include_str!("operators.rs"));
        let routes = source.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next());
        let mut in_router: Vec<_> = routes.collect();
        in_router.sort_unstable();
        let mut in_table: Vec<_> = ROUTES.iter().map(|(_, path, _)| *path).collect();
        in_table.sort_unstable();
        in_table.dedup();
        assert_eq!(in_router, in_table);
    }

    #[test]
    fn what_nobody_has_described_is_open_to_nobody() {
        assert_eq!(need(&Method::GET, "/api/new"), None);
        assert_eq!(need(&Method::PUT, "/offer"), None);
        assert_eq!(need(&Method::POST, "/"), None);
        assert_eq!(need(&Method::HEAD, "/"), Some(Need::Public));
        assert_eq!(need(&Method::HEAD, "/metrics"), Some(Need::Admin));
    }
}
