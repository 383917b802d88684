//! `ooblex serve`: the gateway with its workers.

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use ooblex_broker::Broker;
use ooblex_effects::{Backend, ModelStore, Runtime};
use tokio::net::TcpListener;
use tracing::{info, warn};

use crate::config::{BackendChoice, Config, Inference};
use crate::http::{Gateway, router};
use crate::metrics::Metrics;
use crate::negotiate::Endpoint;
use crate::sessions::Sessions;
use crate::settings::Catalogue;
use crate::track::Context;
use crate::transport::Transport;
use crate::workers::Workshop;

/// Runs the gateway until SIGINT or SIGTERM.
///
/// # Errors
/// When something that it needs is not there: a port, a model, a library. The message says how to mend it.
pub fn serve(config: Config) -> anyhow::Result<()> {
    let started = Instant::now();
    let catalogue = Catalogue::new(&config).map_err(|problem| anyhow::anyhow!(problem.detail))?;
    let http = std::net::TcpListener::bind(config.serve.listen).with_context(|| {
        format!("serve.listen: TCP {} can not be opened: choose another port with --listen or OOBLEX_SERVE__LISTEN", config.serve.listen)
    })?;
    http.set_nonblocking(true)?;
    let transport = Transport::bind(&config.media)?;
    let (runtime, store) = inference(&config.inference)?;
    let (backend, library) = (runtime.describe(), runtime.origin().map(|path| path.display().to_string()));
    let workshop = Workshop { runtime: Arc::new(runtime), store: Arc::new(store), effects: catalogue.effects().to_vec() };
    let broker = Broker::local();
    let workers = workshop.start(&broker, config.worker_threads())?;

    str0m::crypto::from_feature_flags().install_process_default();
    let metrics = Arc::new(Metrics::new(&backend));
    let sessions = Arc::new(Sessions::default());
    let endpoint = Endpoint { candidates: transport.candidates().to_vec(), start_bitrate_bps: config.video.start_bitrate_kbps * 1000 };
    info!(
        workers = workers.len(),
        backend,
        library,
        media = ?endpoint.candidates,
        effects = catalogue.effects().len(),
        "loaded in {:?}",
        started.elapsed()
    );
    let (transport, media) = transport.run(sessions.clone(), metrics.clone())?;
    let context = Arc::new(Context { broker: broker.clone(), catalogue, transport: transport.clone(), sessions, metrics, config });
    let gateway = Arc::new(Gateway { context, endpoint, backend });

    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("http").enable_all().build()?;
    threads.block_on(async {
        let listener = TcpListener::from_std(http)?;
        announce(listener.local_addr()?)?;
        tokio::select! {
            served = axum::serve(listener, router(gateway)) => served.context("HTTP ended")?,
            signal = stop_signal() => info!("{} received: saying goodbye to all sessions", signal?),
        }
        transport.stop().await;
        anyhow::Ok(())
    })?;
    broker.close();
    threads.shutdown_background();
    if media.join().is_err() || workers.into_iter().any(|worker| worker.join().is_err()) {
        warn!("a thread ended with a panic");
    }
    Ok(())
}

/// What runs the models, and where their files are, both checked.
///
/// # Errors
/// When the backend that was asked for is not there, or a model file is not what it must be.
pub fn inference(config: &Inference) -> anyhow::Result<(Runtime, ModelStore)> {
    let wanted = match config.backend {
        BackendChoice::Auto => None,
        BackendChoice::OnnxRuntime => Some(Backend::Ort),
        BackendChoice::Rten => Some(Backend::Rten),
    };
    let runtime = Runtime::load(config.library.as_deref(), wanted)?.with_threads(config.threads_per_frame);
    if let Some(warning) = runtime.warning() {
        warn!("{warning}");
    }
    let store = config.models.as_ref().map_or_else(ModelStore::embedded, ModelStore::folder);
    store.verify(&ooblex_effects::effects())?;
    Ok((runtime, store))
}

/// On standard output, for people and for programs that start this one.
fn announce(address: std::net::SocketAddr) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "Ooblex is ready: http://{address}/")?;
    out.flush()
}

async fn stop_signal() -> std::io::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => Ok("SIGINT"),
        _ = terminate.recv() => Ok("SIGTERM"),
    }
}
