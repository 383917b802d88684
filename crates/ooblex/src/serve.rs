//! `ooblex serve`: the gateway, with workers of its own or with those that share its broker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use ooblex_effects::CustomEffectSet;
use tracing::{info, warn};

use crate::reload::Reload;
use crate::start::{self, Signals};
use ooblex_api::admission::Admission;
use ooblex_api::auth::Authenticator;
use ooblex_api::custom_effects::CustomEffects;
use ooblex_api::http::{Gateway, Hosts, Images, close_abandoned_rooms, router, start_links};
use ooblex_api::jpeg::JpegEncoder;
use ooblex_api::peers::Peers;
use ooblex_api::server::{Capacity, Options, Server, Timeouts};
use ooblex_api::sessions::Sessions;
use ooblex_api::thumbnails::Thumbnails;
use ooblex_api::tls::Certificate;
use ooblex_api::turn::Turn;
use ooblex_api::visitor::Listener;
use ooblex_api::webhooks::Webhooks;
use ooblex_config::Config;
use ooblex_gateway::cpu::{CpuScheduler, CpuShares};
use ooblex_gateway::ids::SessionId;
use ooblex_gateway::labels::{ByeReason, EndReason};
use ooblex_gateway::metrics::{HttpFigures, Metrics};
use ooblex_gateway::notify::Notify;
use ooblex_gateway::settings::Catalogue;
use ooblex_gateway::track::Context;
use ooblex_gateway::watchdog::Heartbeat;
use ooblex_recording::Recordings;
use ooblex_rtc::negotiate::dial::Dialler;
use ooblex_rtc::negotiate::{Endpoint, Negotiator};
use ooblex_rtc::transport::{SessionObserver, Transport};
use ooblex_worker::about::About;

/// Interval at which the number of remaining sessions is checked while the gateway drains.
const DRAIN_LOOK: Duration = Duration::from_millis(100);
/// Time limit for the end of the threads, after all sessions have ended.
const JOIN_WITHIN: Duration = Duration::from_secs(1);
/// Interval at which the end of the threads is checked.
const JOIN_LOOK: Duration = Duration::from_millis(5);

/// Interval at which old recordings are removed.
const TIDY_INTERVAL: Duration = Duration::from_secs(60);

/// Time limit for requests that are being answered, and for webhooks, when the gateway stops.
const LAST_ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// The list of running sessions as the media thread's observer.
struct Registry(Arc<Sessions>);

impl SessionObserver for Registry {
    fn connected(&self, id: SessionId) {
        self.0.connected(id);
    }

    fn ended(&self, id: SessionId, reason: EndReason) {
        self.0.ended(id, reason);
    }
}

/// Runs the gateway until SIGINT or SIGTERM; a second signal ends it immediately.
///
/// # Errors
/// When a port, a model, a library or the broker is not available. The message names the remedy.
pub fn serve(config: Config, reload: &Reload) -> anyhow::Result<()> {
    let started = Instant::now();
    let catalogue = Arc::new(Catalogue::new(&config).map_err(|problem| anyhow::anyhow!(problem.detail))?);
    // Custom effects are offered once their trial was successful.
    catalogue.offer_custom_effects(&CustomEffectSet::default());
    let (auth, turn) = (Authenticator::new(&config)?, Turn::new(&config.turn)?);
    let http = start::listen(config.serve.listen, "serve.listen", "OOBLEX_SERVE__LISTEN")?;
    let admin = config.serve.admin_listen.map(|address| start::listen(address, "serve.admin_listen", "OOBLEX_SERVE__ADMIN_LISTEN"));
    let admin = admin.transpose()?;
    let certificate = config.tls().map(Certificate::load).transpose()?.map(Arc::new);
    let transport = Transport::bind(&config.media)?;
    let broker = start::broker(&config)?;
    broker.open_gateway();
    // A gateway whose models run elsewhere needs neither a runtime nor their files.
    let worker_pool = (config.serve_threads() > 0).then(|| start::worker_pool(&config, &catalogue)).transpose()?;
    let workers = worker_pool.as_ref().map_or(Ok(Vec::new()), |worker_pool| worker_pool.start(&broker, config.serve_threads()))?;
    let about = worker_pool.as_ref().map_or(About::default(), |worker_pool| About::workers(&worker_pool.runtime));

    ooblex_rtc::install_cryptography();
    let worker_stats = worker_pool.as_ref().map(|worker_pool| worker_pool.worker_stats.as_ref());
    let metrics = Arc::new(Metrics::new(&about, &broker, &catalogue.analysed(), worker_stats));
    if let Some(certificate) = &certificate {
        let certificate = certificate.clone();
        metrics.watch_certificate(move || certificate.about().days_left.into());
    }
    metrics.know(catalogue.labels(), config.limits.sessions);
    let webhooks = Webhooks::start(&config.webhooks, &metrics)?;
    let linger = Duration::from_secs(config.rooms.linger_s);
    let sessions = Arc::new(Sessions::new(linger, webhooks.clone()));
    let recordings = Recordings::new(&config.recordings, metrics.clone())?;
    let endpoint = Endpoint {
        candidates: transport.candidates().clone(),
        codecs: config.video.codecs.clone(),
        start_bitrate_bps: config.video.start_bitrate_kbps * 1000,
    };
    let admission = Arc::new(Admission::new(&config.limits));
    let (heartbeat, notify) = (Arc::new(Heartbeat::default()), Notify::from_environment());
    info!(
        workers = workers.len(),
        broker = %config.broker.url,
        backend = about.backend,
        device = about.device,
        library = worker_pool.as_ref().and_then(|worker_pool| worker_pool.runtime.origin()).map(|path| path.display().to_string()),
        media = ?endpoint.candidates.current(),
        effects = catalogue.effects().len(),
        "loaded in {:?}",
        started.elapsed()
    );
    let registry = Arc::new(Registry(sessions.clone()));
    let (transport, media) = transport.run(&config.limits, !linger.is_zero(), registry, metrics.clone(), &heartbeat)?;
    heartbeat.watch(notify.clone())?;
    let candidates = endpoint.candidates.clone();
    let peers = Peers::new(&config, Dialler::new(endpoint.clone(), config.media.listen.ip(), config.limits.sdp_kib))?;
    let negotiator = Negotiator::new(endpoint, config.limits.sdp_kib);
    let custom_effects = CustomEffects::new(&config, catalogue.clone(), worker_pool);
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let context = Arc::new(Context {
        broker: broker.clone(),
        catalogue,
        metrics,
        scheduler: Arc::new(CpuScheduler::new(count)),
        shares: CpuShares::new(count),
        config,
    });
    let images = Images { thumbnails: Thumbnails::default(), jpeg: JpegEncoder::start()? };
    let gateway = Arc::new(Gateway {
        context,
        transport: transport.clone(),
        sessions,
        recordings: recordings.clone(),
        admission,
        negotiator,
        peers,
        heartbeat,
        auth,
        turn,
        about,
        images,
        custom_effects,
    });
    let own = gateway.clone();
    std::thread::Builder::new().name("own-effects".into()).spawn(move || own.reload_custom_effects())?;

    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("http").enable_all().build()?;
    threads.block_on(async {
        let mut signals = Signals::catch()?;
        let config = &gateway.context.config;
        let again = || {
            reload.reload(config, certificate.as_deref(), Some(&gateway.auth));
            let own = gateway.clone();
            tokio::task::spawn_blocking(move || own.reload_custom_effects());
        };
        let keys = gateway.clone();
        tokio::spawn(async move { keys.auth.warm_up().await });
        tokio::spawn(candidates.keep_resolved());
        if let Some(certificate) = &certificate {
            tokio::spawn(certificate.clone().watch());
        }
        let start = |socket, listener, certificate: Option<Arc<Certificate>>| listen(&gateway, socket, listener, certificate);
        let mut public = start(http, Listener::Public, certificate.clone())?;
        let mut admin = admin.map(|socket| start(socket, Listener::Admin, None)).transpose()?;
        if let Some(admin) = &admin {
            info!(address = %admin.address(), "the routes of operators are served");
        }
        start::announce("Ooblex", if certificate.is_some() { "https" } else { "http" }, public.address())?;
        notify.ready();
        start_links(&gateway);
        if !linger.is_zero() {
            tokio::spawn(close_abandoned_rooms(gateway.clone()));
        }
        tokio::spawn(keep_tidy(recordings.clone()));
        let broken = async {
            match &mut admin {
                Some(admin) => tokio::select! { () = public.ended() => {}, () = admin.ended() => {} },
                None => public.ended().await,
            }
        };
        tokio::select! {
            () = broken => bail!("HTTP ended: the log says why"),
            signal = signals.next(again) => info!("{signal} received: no new sessions from now on"),
        }
        notify.stopping();
        gateway.admission.drain();
        tokio::spawn(async move { signals.end_at_next().await });
        let drain = Duration::from_secs(config.serve.drain_s);
        drained(&gateway, drain).await;
        // The other servers are told before the sessions end.
        _ = tokio::time::timeout(LAST_ANSWERS_WITHIN, gateway.peers.stop()).await;
        info!("saying goodbye to {} sessions", gateway.sessions.len());
        transport.stop(if drain.is_zero() { ByeReason::Stopping } else { ByeReason::Draining }).await;
        let end = async |server: Option<Server>| {
            if let Some(server) = server {
                server.stop(LAST_ANSWERS_WITHIN).await;
            }
        };
        tokio::join!(end(Some(public)), end(admin), webhooks.flush(LAST_ANSWERS_WITHIN));
        anyhow::Ok(())
    })?;
    broker.close();
    // One that hangs in a model does not hold up the end.
    let deadline = Instant::now() + JOIN_WITHIN;
    for thread in std::iter::once(media).chain(workers).chain(recordings.stop()) {
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(JOIN_LOOK);
        }
        if !thread.is_finished() {
            warn!(thread = thread.thread().name(), "a thread has not ended in time; the process ends without it");
        } else if thread.join().is_err() {
            warn!("a thread ended with a panic");
        }
    }
    threads.shutdown_background();
    Ok(())
}

/// Serves a listener of the gateway.
fn listen(
    gateway: &Arc<Gateway>,
    socket: std::net::TcpListener,
    listener: Listener,
    certificate: Option<Arc<Certificate>>,
) -> std::io::Result<Server> {
    let Context { config, metrics, .. } = gateway.context.as_ref();
    let hosts = Hosts::new(listener, config, &start::own_names(), certificate.clone(), metrics.http().clone());
    let routes = router(gateway.clone(), listener, Arc::new(hosts));
    let figures = match listener {
        Listener::Public => metrics.http().clone(),
        // Requests of operators, such as scrapes, are not counted.
        Listener::Admin => HttpFigures::default(),
    };
    let options = Options { listener, capacity: Capacity::of(config), timeouts: Timeouts::default(), certificate, figures };
    Server::start(socket, routes, options)
}

/// Removes old recordings from time to time.
async fn keep_tidy(recordings: Recordings) {
    let mut interval = tokio::time::interval(TIDY_INTERVAL);
    loop {
        interval.tick().await;
        let recordings = recordings.clone();
        _ = tokio::task::spawn_blocking(move || recordings.tidy()).await;
    }
}

/// Waits until no session of a client is left, `most` at most. Pulls and pushes would last for ever.
async fn drained(gateway: &Gateway, most: Duration) {
    let empty = async {
        while gateway.sessions.has_clients() {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    };
    _ = tokio::time::timeout(most, empty).await;
}
