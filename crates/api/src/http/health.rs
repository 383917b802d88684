//! Health routes `/healthz` (liveness) and `/readyz` (readiness).

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use ooblex_broker::{Broker, Service};
use serde_json::{Value, json};

use super::gateway::Gateway;
use super::texts::lines;
use ooblex_gateway::problem::start_a_worker;
use ooblex_gateway::track::Context;

/// Answers the liveness probe: healthy while the media thread runs. If it does not, the process
/// must be restarted.
pub(super) async fn health(State(gateway): State<Arc<Gateway>>) -> Response {
    if gateway.heartbeat.is_well() { "alive\n".into_response() } else { lines(&["the media thread does not work".into()]) }
}

/// Answers the readiness probe: ready while new sessions can get the default effect.
pub(super) async fn ready(State(gateway): State<Arc<Gateway>>) -> Response {
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
        missing.push("no worker runs: effects with models cannot be served".into());
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
