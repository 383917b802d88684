//! HTTP routes of the gateway: page, WebRTC offer, session API, health checks and metrics.

pub mod access;
mod begin;
mod body;
mod download;
mod effects;
mod events;
mod gateway;
mod health;
mod hosts;
mod link;
mod offer;
mod operators;
mod origins;
mod peers;
mod pictures;
mod recordings;
mod room_events;
mod sessions;
mod texts;
mod whip;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, Method, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};

pub use self::begin::close_abandoned_rooms;
pub use self::gateway::{Gateway, Images};
pub use self::hosts::Hosts;
use self::hosts::known_hosts_only;
pub use self::link::start_links;
use self::operators::operator_routes;
use self::origins::Origins;
pub use self::texts::{lines, metrics_text};
use crate::assets;
use crate::visitor::Listener;
use ooblex_gateway::problem::{Problem, ProblemKind};

/// Builds the router of one listener. It answers only known hosts and allowed origins.
///
/// A request passes four checks in this order: host, origin (with CORS), credentials, route. The
/// credentials are checked inside the CORS layer, so that pages can read a refusal.
pub fn router(gateway: Arc<Gateway>, listener: Listener, hosts: Arc<Hosts>) -> Router {
    let context = &gateway.context;
    let origins = Origins::new(&context.config.serve, hosts.clone(), context.metrics.http().clone());
    let body_limit = context.config.limits.body_kib * 1024;
    let routes = match listener {
        Listener::Public => session_routes().merge(public_routes()),
        Listener::Admin => session_routes(),
    };
    let guard = from_fn_with_state(gateway.clone(), access::guard);
    let routes = routes.merge(health_routes()).fallback(not_found).method_not_allowed_fallback(method_not_allowed).layer(guard.clone());
    let operators = operator_routes().method_not_allowed_fallback(method_not_allowed).layer(guard);
    origins
        .guard(routes)
        .merge(origins.named_only().guard(operators))
        .layer(from_fn_with_state(gateway.clone(), whip::options))
        .layer(DefaultBodyLimit::max(body_limit))
        .layer(from_fn_with_state(hosts, known_hosts_only))
        .layer(from_fn(headers))
        .with_state(gateway)
}

/// Builds the routes of the public listener: offers, WHIP and WHEP, pictures of rooms,
/// the effects and the page.
fn public_routes() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/offer", post(offer::offer))
        .route("/whip/{room}", get(whip::describe_whip).post(whip::publish))
        .route("/whip/{room}/{secret}", get(whip::describe).patch(whip::trickle).delete(whip::end))
        .route("/whep/{room}", get(whip::describe_whep).post(whip::watch))
        .route("/whep/{room}/{secret}", get(whip::describe).patch(whip::trickle).delete(whip::end))
        .route("/whep/{room}/{secret}/events", get(room_events::events).post(room_events::choose))
        .route("/rooms/{room}/snapshot.jpg", get(pictures::snapshot))
        .route("/rooms/{room}/stream.mjpeg", get(pictures::stream))
        .route("/api/effects", get(effects::list))
        .route("/api/effects/{name}/thumbnail.png", get(effects::thumbnail))
        .merge(assets::router())
}

/// Builds the routes of a single session.
fn session_routes() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/api/sessions/{id}", get(sessions::session).patch(sessions::change_session).delete(sessions::end_session))
        .route("/api/sessions/{id}/events", get(events::events))
}

fn health_routes() -> Router<Arc<Gateway>> {
    Router::new().route("/healthz", get(health::health)).route("/readyz", get(health::ready))
}

async fn not_found() -> Problem {
    Problem::new(ProblemKind::NotFound, "there is nothing here: the page is at '/', sessions begin with POST /offer")
}

async fn method_not_allowed(method: Method) -> Problem {
    Problem::new(ProblemKind::MethodNotAllowed, format!("this address does not take {method}; sessions begin with POST /offer"))
}

/// Sets the security headers and the default caching policy of every response.
async fn headers(request: axum::extract::Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    // A handler whose response may be cached has set Cache-Control itself.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache"));
    let mut set = |name, value| _ = headers.insert(name, HeaderValue::from_static(value));
    set(
        header::CONTENT_SECURITY_POLICY,
        "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob: mediastream:; frame-ancestors 'self'",
    );
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    response
}
