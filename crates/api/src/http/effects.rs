//! Effect routes: the list of effects, their thumbnails, and the reload of custom effects.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use ooblex_broker::Service;
use serde_json::{Value, json};

use super::gateway::Gateway;
use crate::auth::Caller;
use crate::custom_effects::{refusals, refused_folders};
use crate::thumbnails;
use ooblex_gateway::problem::{Problem, ProblemKind};
use ooblex_gateway::track::Context;

/// Time that clients are asked to wait while many requests wait for thumbnails.
const BUSY_RETRY: Duration = Duration::from_secs(5);

/// Lists all effects with their parameters and current capacity. Only operators are told why a
/// folder was refused, because the reason may contain paths.
pub(super) async fn list(State(gateway): State<Arc<Gateway>>, Extension(caller): Extension<Caller>) -> Response {
    let Context { broker, catalogue, config, .. } = gateway.context.as_ref();
    let (capacity, health) = (broker.capacity(), broker.health());
    let mut effects = catalogue.describe();
    for (described, effect) in effects.as_array_mut().into_iter().flatten().zip(catalogue.effects()) {
        let service = if effect.needs_worker() { broker.service(&effect.queue()) } else { Service::Served };
        described["available"] = json!(service == Service::Served);
        // Browsers cache the thumbnail, so its URL changes with the version of the effect.
        let version = effect.queue().as_str().split_once('@').map_or(String::new(), |(_, version)| format!("?version={version}"));
        if thumbnails::is_offered(config, effect.as_ref()) {
            described["thumbnail"] = json!(format!("api/effects/{}/thumbnail.png{version}", effect.name()));
        }
        described["workers"] = json!(capacity.serving.get(&effect.queue()).copied().unwrap_or(0));
        match service {
            Service::Served => {}
            Service::NoWorker => described["unavailable_reason"] = json!("no worker serves it now"),
            Service::Disconnected => described["unavailable_reason"] = json!("the broker between the gateway and its workers is down"),
        }
    }
    // Workers of this process do not announce their device; it is added here.
    let own = gateway.about.device.iter().filter(|_| capacity.devices.is_empty()).map(|device| (device.clone(), capacity.workers));
    let devices: BTreeMap<_, _> = own.chain(capacity.devices.clone()).collect();
    let kind = if config.broker.is_shared() { "redis" } else { "local" };
    let refused = catalogue.refused();
    let body = json!({
        "effects": effects,
        "refused": if caller.is_operator() { refusals(&refused) } else { refused_folders(&refused) },
        "chains": ooblex_effects::Chain::MOST,
        "broker": {"kind": kind, "connected": health.connected, "trouble": health.trouble_in_public},
        "workers": capacity.workers,
        "devices": devices,
        "backend": gateway.about.backend,
        "device": gateway.about.device,
    });
    axum::Json(body).into_response()
}

/// Reloads the custom effects and answers when the reload is finished.
pub(super) async fn reload(State(gateway): State<Arc<Gateway>>) -> Result<Response, Problem> {
    if gateway.custom_effects.is_crowded() {
        let detail = "the effects are being read, and will be once more after that: see GET /api/effects in a moment";
        return Err(Problem::new(ProblemKind::Unavailable, detail));
    }
    let reloading = tokio::task::spawn_blocking(move || gateway.reload_custom_effects());
    let reloaded = reloading.await.map_err(|_| Problem::new(ProblemKind::Unavailable, "reading the effects failed: the log says why"))?;
    Ok(axum::Json(reloaded.to_json()).into_response())
}

/// Returns a thumbnail of an effect. The first request takes as long as loading the models.
pub(super) async fn thumbnail(State(gateway): State<Arc<Gateway>>, Path(name): Path<String>) -> Result<Response, Problem> {
    let catalogue = &gateway.context.catalogue;
    let found = catalogue.effects().into_iter().find(|effect| effect.name().as_str() == name);
    let Some(effect) = found else {
        let known: Vec<_> = catalogue.effects().iter().map(|effect| effect.name().to_string()).collect();
        let name: String = name.chars().take(60).collect();
        return Err(Problem::new(
            ProblemKind::NotFound,
            format!("there is no effect '{name}'; those with a thumbnail are {}", known.join(", ")),
        ));
    };
    if !thumbnails::is_offered(&gateway.context.config, effect.as_ref()) {
        let detail = format!("there is no picture of {name}: this gateway has no workers, and does not run the models of custom effects");
        return Err(Problem::new(ProblemKind::NotFound, detail));
    }
    let settings = catalogue.settings(Some(&name), &Value::Null)?;
    let made = match gateway.images.thumbnails.made(&settings) {
        Some(made) => Ok(made),
        None => {
            // A request that waits for a thumbnail holds a connection, but no thread.
            let Some(turn) = gateway.images.thumbnails.turn(&settings).await else {
                let detail = "too many requests wait for thumbnails: try again in a moment";
                return Err(Problem::new(ProblemKind::Unavailable, detail).retry_after(BUSY_RETRY));
            };
            let drawn = gateway.clone();
            tokio::task::spawn_blocking(move || {
                let _turn = turn;
                drawn.images.thumbnails.png(&drawn.context.config, &settings)
            })
            .await
        }
    };
    match made {
        Ok(Ok(png)) => Ok(([(header::CONTENT_TYPE, "image/png"), (header::CACHE_CONTROL, "max-age=3600")], png.to_vec()).into_response()),
        Ok(Err(error)) => Err(Problem::new(ProblemKind::Unavailable, format!("the thumbnail of {name} cannot be made: {error:#}"))),
        Err(_) => Err(Problem::new(ProblemKind::Unavailable, format!("the thumbnail of {name} cannot be made: its effect panicked"))),
    }
}
