//! `ooblex worker`: runs models for the gateways that share its broker, and nothing else.
//!
//! This module starts and stops the process and serves its small HTTP API for health and metrics.
//! The worker threads are in [`ooblex_worker`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use ooblex_broker::Broker;
use ooblex_effects::{CustomEffectSet, LONGEST_RUN};
use serde_json::json;
use tracing::{info, warn};

use crate::reload::Reload;
use crate::start::{self, Signals};
use ooblex_api::custom_effects::{CustomEffects, refusals};
use ooblex_api::http::{lines, metrics_text};
use ooblex_api::server::{Capacity, Options, Server, Timeouts};
use ooblex_api::visitor::Listener;
use ooblex_config::Config;
use ooblex_gateway::metrics::{HttpFigures, WorkerMetrics};
use ooblex_gateway::settings::Catalogue;
use ooblex_worker::WorkerStats;
use ooblex_worker::about::About;

/// Time limit at shutdown for worker threads to finish their current frames: longer than a model
/// may run.
const FINISHED_WITHIN: Duration = LONGEST_RUN.saturating_add(Duration::from_secs(2));
/// Time limit at shutdown for HTTP requests that are being answered.
const LAST_ANSWERS_WITHIN: Duration = Duration::from_millis(200);

/// State that the HTTP handlers share.
struct Worker {
    broker: Broker,
    worker_stats: Arc<WorkerStats>,
    metrics: WorkerMetrics,
    about: About,
    catalogue: Arc<Catalogue>,
    custom_effects: CustomEffects,
    stopping: AtomicBool,
}

/// Runs the workers until SIGINT or SIGTERM. They finish their current frames; a second signal ends
/// them immediately.
///
/// # Errors
/// When a broker, port, model or device is not available. The message names the remedy.
pub fn worker(config: &Config, reload: &Reload) -> anyhow::Result<()> {
    let started = Instant::now();
    if !config.broker.is_shared() {
        bail!(
            "a worker needs a broker that other processes reach: --broker redis://HOST:PORT, or broker.url; 'ooblex serve' has \
             workers of its own"
        );
    }
    let catalogue = Arc::new(Catalogue::new(config).map_err(|problem| anyhow::anyhow!(problem.detail))?);
    catalogue.offer_custom_effects(&CustomEffectSet::default());
    let http = start::listen(config.worker.listen, "worker.listen", "OOBLEX_WORKER__LISTEN")?;
    let broker = start::broker(config)?;
    let worker_pool = start::worker_pool(config, &catalogue)?;
    let threads = worker_pool.start(&broker, config.worker_threads())?;
    let about = About::workers(&worker_pool.runtime);
    info!(
        threads = threads.len(),
        effects = served(&catalogue).join(","),
        broker = %config.broker.url,
        backend = about.backend,
        device = about.device,
        library = worker_pool.runtime.origin().map(|path| path.display().to_string()),
        "loaded in {:?}",
        started.elapsed()
    );
    let metrics = WorkerMetrics::new(&about, &broker, &catalogue.analysed(), &worker_pool.worker_stats);
    let worker_stats = worker_pool.worker_stats.clone();
    let custom_effects = CustomEffects::new(config, catalogue.clone(), Some(worker_pool));
    let worker = Arc::new(Worker {
        broker: broker.clone(),
        worker_stats,
        metrics,
        about,
        catalogue,
        custom_effects,
        stopping: AtomicBool::new(false),
    });
    // Custom effects are served as soon as their models have passed the trial.
    let own = worker.clone();
    std::thread::Builder::new().name("own-effects".into()).spawn(move || own.reload_custom_effects())?;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::catch()?;
        let options = Options {
            listener: Listener::Admin,
            capacity: Capacity::of(config),
            timeouts: Timeouts::default(),
            certificate: None,
            figures: HttpFigures::default(),
        };
        let mut server = Server::start(http, router(worker.clone()), options)?;
        start::announce("Ooblex worker", "http", server.address())?;
        tokio::select! {
            () = server.ended() => bail!("HTTP ended: the log says why"),
            signal = signals.next(|| {
                reload.reload(config, None, None);
                let own = worker.clone();
                tokio::task::spawn_blocking(move || own.reload_custom_effects());
            }) => info!("{signal} received: finishing the current frames"),
        }
        worker.stopping.store(true, Ordering::Relaxed);
        broker.close();
        let finished = tokio::task::spawn_blocking(|| threads.into_iter().filter_map(|thread| thread.join().err()).count());
        tokio::select! {
            panicked = finished => match panicked {
                Ok(0) => info!("all is finished"),
                _ => warn!("a worker thread ended with a panic"),
            },
            () = tokio::time::sleep(FINISHED_WITHIN) => warn!("a worker thread has not finished in time; the process ends without it"),
            () = signals.end_at_next() => {}
        }
        server.stop(LAST_ANSWERS_WITHIN).await;
        anyhow::Ok(())
    })?;
    runtime.shutdown_background();
    Ok(())
}

impl Worker {
    fn reload_custom_effects(&self) {
        self.custom_effects.reload(|| self.metrics.know(&self.catalogue.analysed()));
    }
}

/// Returns the names of the effects that these workers serve.
fn served(catalogue: &Catalogue) -> Vec<String> {
    catalogue.served().iter().map(|effect| effect.name().to_string()).collect()
}

fn router(worker: Arc<Worker>) -> Router {
    Router::new()
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/metrics", get(async |State(worker): State<Arc<Worker>>| metrics_text(worker.metrics.encode())))
        .fallback(async || (StatusCode::NOT_FOUND, "a worker has /healthz, /readyz and /metrics; the page is at the gateway\n"))
        .with_state(worker)
}

/// Answers the liveness probe: unhealthy if a restart of the process would help.
async fn healthy(State(worker): State<Arc<Worker>>) -> Response {
    match worker.worker_stats.crew(Instant::now()).complaints() {
        complaints if complaints.is_empty() => "alive\n".into_response(),
        complaints => lines(&complaints),
    }
}

/// Answers the readiness probe: ready if the broker can send frames to this worker.
async fn ready(State(worker): State<Arc<Worker>>) -> Response {
    let mut missing = Vec::new();
    if worker.stopping.load(Ordering::Relaxed) {
        missing.push("the worker is stopping: it takes no more frames".to_string());
    }
    let health = worker.broker.health();
    if !health.connected {
        missing.push(health.trouble.unwrap_or_else(|| "Redis is not connected yet".into()));
    }
    let worker_health = worker.worker_stats.crew(Instant::now());
    if worker_health.running == 0 {
        missing.push("no worker thread is left: start the process again, the log says why they ended".to_string());
    }
    if !missing.is_empty() {
        return lines(&missing);
    }
    let About { backend, device } = &worker.about;
    let body = json!({"ready": true, "threads": worker_health.running, "effects": served(&worker.catalogue), "refused": refusals(&worker.catalogue.refused()), "backend": backend, "device": device});
    ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
