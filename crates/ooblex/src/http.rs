//! The HTTP side of the gateway: the page, the offer, the API, health and metrics.

mod body;
mod effects;
mod events;
mod hosts;
mod operators;
mod origins;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use ooblex_broker::{Broker, Service};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::{debug, error, info};

use self::body::JsonBody;
pub use self::hosts::Hosts;
pub(crate) use self::hosts::Pattern as HostPattern;
use self::hosts::known_hosts_only;
use self::operators::operator_routes;
use self::origins::Origins;
pub(crate) use self::origins::is_origin;
use crate::admission::Admission;
use crate::assets;
use crate::auth::{Authenticator, Caller, SessionAccess, SessionSecret, access};
use crate::metrics::About;
use crate::negotiate::Negotiator;
use crate::own::{Reloaded, Shelf};
use crate::problem::{Problem, ProblemKind, start_a_worker};
use crate::session::{Lifetime, Session, SessionId};
use crate::thumbnails::Thumbnails;
use crate::track::{self, Context};
use crate::turn::Turn;
use crate::visitor::{Listener, Peer, Visitor};
use crate::watchdog::Heartbeat;

/// What the handlers share.
pub struct Gateway {
    /// What tracks share.
    pub context: Arc<Context>,
    /// Who may begin a session.
    pub admission: Arc<Admission>,
    /// What answers offers.
    pub negotiator: Negotiator,
    /// Whether the media thread works.
    pub heartbeat: Arc<Heartbeat>,
    /// Who may do what.
    pub auth: Authenticator,
    /// Relays for browsers that UDP does not reach.
    pub turn: Option<Turn>,
    /// What runs the models of this process.
    pub about: About,
    /// What effects look like.
    pub thumbnails: Thumbnails,
    /// The effects of one's own.
    pub shelf: Shelf,
}

impl Gateway {
    /// Reads the effects of one's own again, and lets sessions have those that were replaced. Blocks while new models are tried.
    pub fn reload_own(&self) -> Reloaded {
        let Context { catalogue, sessions, metrics, config, .. } = self.context.as_ref();
        self.shelf.reload(|| {
            metrics.know(catalogue.labels(), config.limits.sessions);
            metrics.know_analysed(&catalogue.analysed());
            self.thumbnails.keep(&catalogue.effects());
            sessions.renew(|settings, restrictions| {
                let renewed = catalogue.renewed(settings)?;
                restrictions.permit(catalogue, renewed, &Value::Null).ok()
            });
        })
    }
}

/// All that is served over HTTP on a listener, to requests for the right hosts and from the right pages.
///
/// A request passes the checks in this order: its host, its origin (with CORS), its credentials, then its route. Credentials are checked
/// inside of the origins, so that pages can read the refusals.
pub(crate) fn router(gateway: Arc<Gateway>, listener: Listener, hosts: Arc<Hosts>) -> Router {
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
        .layer(DefaultBodyLimit::max(body_limit))
        .layer(from_fn_with_state(hosts, known_hosts_only))
        .layer(from_fn(headers))
        .with_state(gateway)
}

/// What everybody may ask, and only browsers want.
fn public_routes() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/offer", post(offer))
        .route("/api/effects", get(effects::list))
        .route("/api/effects/{name}/thumbnail.png", get(effects::thumbnail))
        .merge(assets::router())
}

/// What concerns one session.
fn session_routes() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/api/sessions/{id}", get(session).patch(change_session).delete(end_session))
        .route("/api/sessions/{id}/events", get(events::events))
}

fn health_routes() -> Router<Arc<Gateway>> {
    Router::new().route("/healthz", get(health)).route("/readyz", get(ready))
}

#[derive(Deserialize)]
struct Offer {
    sdp: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    effect: Option<String>,
    #[serde(default)]
    params: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    effect: Option<String>,
    #[serde(default)]
    params: Value,
}

async fn offer(
    State(gateway): State<Arc<Gateway>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Result<JsonBody, Problem>,
) -> Result<Response, Problem> {
    let visitor = Visitor::of(peer, &headers, &gateway.context.config.serve.trusted_proxies);
    let answered = match gateway.admission.on_offer(Instant::now(), visitor) {
        Ok(()) => accept_offer(&gateway, visitor, &caller, body).await,
        Err(problem) => Err(problem),
    };
    gateway.context.metrics.on_offer(answered.as_ref().err().map(|problem| problem.kind));
    answered.map(|answer| axum::Json(answer).into_response()).inspect_err(|problem| debug!(detail = problem.detail, "offer refused"))
}

async fn accept_offer(gateway: &Gateway, visitor: Visitor, caller: &Caller, body: Result<JsonBody, Problem>) -> Result<Value, Problem> {
    let offer: Offer = body?.read(r#"{"sdp": "v=0…", "type": "offer", "effect": "background_blur"}"#)?;
    if offer.kind.as_deref().is_some_and(|kind| kind != "offer") {
        let detail = "'type' must be \"offer\": send the browser's local description as it is after createOffer";
        return Err(Problem::new(ProblemKind::BadSdp, detail));
    }
    let context = &gateway.context;
    let restrictions = Arc::new(caller.restrictions());
    let settings = restrictions.settings(&context.catalogue, offer.effect.as_deref(), &offer.params)?;
    let place = gateway.admission.enter(visitor)?;
    let negotiated = gateway.negotiator.answer(offer.sdp).await?;
    let (now, answer) = (Instant::now(), negotiated.answer.clone());
    let id = SessionId::random();
    let (secret, time_left) = (SessionSecret::random(), caller.time_left());
    let unavailable = |detail: &str| Problem::new(ProblemKind::Unavailable, detail);
    let track = track::spawn(context.clone(), id, settings.clone(), restrictions.clone()).map_err(|error| {
        error!(%error, "no thread for a track");
        unavailable("the gateway has no thread left for another session: try again later")
    })?;
    info!(session = %id, effect = %settings.effect.name(), "session begins");
    context.sessions.insert(id, track.clone(), settings, SessionAccess::new(&secret, restrictions), place);
    let mut session = Session::new(id, negotiated, track, Lifetime::new(&context.config.limits), now);
    if let Some(left) = time_left {
        session = session.with_expiry(now + left);
    }
    if !context.transport.add(session) {
        context.sessions.remove(id);
        return Err(unavailable("the gateway is stopping or far too busy: try again in a moment").retry_after(Duration::from_secs(1)));
    }
    let mut answer = json!({"sdp": answer, "type": "answer", "session": id, "secret": secret.reveal()});
    if let Some(turn) = &gateway.turn {
        answer["ice_servers"] = turn.ice_servers(id, SystemTime::now(), time_left);
    }
    if let Some(left) = time_left {
        answer["expires_in_s"] = left.as_secs().into();
    }
    Ok(answer)
}

async fn session(State(gateway): State<Arc<Gateway>>, Path(id): Path<String>) -> Result<Response, Problem> {
    let description = SessionId::parse(&id).and_then(|id| gateway.context.sessions.describe(id));
    description.map(|session| axum::Json(session).into_response()).ok_or_else(|| unknown_session(&id))
}

async fn change_session(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<Response, Problem> {
    let change: Change = body.read(r#"{"effect": "style_transfer", "params": {"strength": 0.7}}"#)?;
    let context = &gateway.context;
    let session = SessionId::parse(&id).and_then(|id| Some((id, context.sessions.settings(id)?)));
    let (known, current) = session.ok_or_else(|| unknown_session(&id))?;
    let restrictions = match caller {
        Caller::Session(_) => context.sessions.restrictions(known).unwrap_or_default(),
        // An operator may do what the session itself may not.
        operator => Arc::new(operator.restrictions()),
    };
    let settings = restrictions.change(&context.catalogue, &current, change.effect.as_deref(), &change.params)?;
    if !context.sessions.change(known, settings) {
        return Err(Problem::new(ProblemKind::Unavailable, format!("session {id} is too busy or just ended: try again")));
    }
    context.sessions.describe(known).map(|session| axum::Json(session).into_response()).ok_or_else(|| unknown_session(&id))
}

async fn end_session(State(gateway): State<Arc<Gateway>>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let id = SessionId::parse(&id).ok_or_else(|| unknown_session(&id))?;
    // A session that has just ended by itself is what was asked for, too.
    gateway.context.sessions.remove(id);
    gateway.context.transport.end(id).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Healthy is a gateway whose media thread works; without it nothing does, and it is to be started again.
async fn health(State(gateway): State<Arc<Gateway>>) -> Response {
    if gateway.heartbeat.is_well() { "alive\n".into_response() } else { lines(&["the media thread does not work".into()]) }
}

/// Ready is a gateway whose sessions get what they get when they ask for nothing.
async fn ready(State(gateway): State<Arc<Gateway>>) -> Response {
    let Context { broker, catalogue, config, .. } = gateway.context.as_ref();
    let (capacity, health) = (broker.capacity(), broker.health());
    let analysed = catalogue.effects().into_iter().filter(|effect| effect.needs_worker());
    let unserved = analysed.filter(|effect| broker.service(&effect.queue()) != Service::Served);
    let unserved: Vec<_> = unserved.map(|effect| effect.name().to_string()).collect();
    let mut missing = Vec::new();
    if gateway.admission.is_draining() {
        missing.push("the gateway is stopping and takes no new sessions".into());
    }
    if !health.connected {
        missing.push(health.trouble_in_public.unwrap_or("the broker is not connected yet").into());
    } else if capacity.workers == 0 && matches!(broker, Broker::Local(_)) {
        missing.push("no worker runs: effects with models can not be served".into());
    } else if catalogue.default_effect().as_str().split('+').any(|part| unserved.iter().any(|name| name == part)) {
        let shared = config.broker.is_shared();
        missing.extend(unserved.iter().map(|name| format!("no worker serves {name}: {}", start_a_worker(name, shared))));
    }
    if let Err(problem) = catalogue.settings(None, &Value::Null) {
        missing.push(format!("serve.default_effect is not offered now: {}", problem.detail));
    }
    if !missing.is_empty() {
        return lines(&missing);
    }
    let body = json!({"ready": true, "workers": capacity.workers, "backend": gateway.about.backend, "unserved": unserved});
    axum::Json(body).into_response()
}

/// For Prometheus.
pub(crate) fn metrics_text(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}

/// What is missing, a line each, for people and for probes that look at the status only.
pub(crate) fn lines(missing: &[String]) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n").into_response()
}

async fn not_found() -> Problem {
    Problem::new(ProblemKind::NotFound, "there is nothing here: the page is at '/', sessions begin with POST /offer")
}

async fn method_not_allowed(method: Method) -> Problem {
    Problem::new(ProblemKind::MethodNotAllowed, format!("this address does not take {method}; sessions begin with POST /offer"))
}

/// Headers of every response: what browsers may keep, load and tell others.
async fn headers(request: axum::extract::Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    // What may be kept says so itself.
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

fn unknown_session(id: &str) -> Problem {
    let id: String = id.chars().take(40).collect();
    Problem::new(ProblemKind::UnknownSession, format!("no session '{id}' is running: GET /api/sessions lists those that are"))
}
