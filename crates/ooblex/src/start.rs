//! What the commands that run for long begin with and end by: the broker, the runtime of models, the signals.
//!
//! [`crate::serve`] and [`crate::worker`] wire it up; [`crate::check`] and [`crate::apply`] use the parts that they need.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::Context as _;
use ooblex_broker::{Broker, Identity};
use ooblex_effects::{Backend, Effect, ModelStore, Runtime, verify_models};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::warn;

use crate::config::{BackendChoice, Config, Inference};
use crate::settings::Catalogue;
use crate::workers::WorkerPool;

/// The broker that the operator chose.
///
/// # Errors
/// When waiting would not mend it: a file is missing, or Redis is there and refuses us.
pub(crate) fn broker(config: &Config) -> anyhow::Result<Broker> {
    let identity = Identity { host: host(), version: env!("CARGO_PKG_VERSION").into(), device: config.inference.device.to_string() };
    match config.broker.redis_options(identity)? {
        Some(options) => Ok(Broker::redis(options)?),
        None => Ok(Broker::local()),
    }
}

/// What the workers of this process need: the runtime, and the models of the effects that they serve.
///
/// # Errors
/// As [`inference`].
pub(crate) fn worker_pool(config: &Config, catalogue: &Catalogue) -> anyhow::Result<WorkerPool> {
    let (runtime, store) = inference(&config.inference, &catalogue.served())?;
    Ok(WorkerPool::new(runtime, store, &catalogue.served()))
}

/// What runs the models, and where the files of those that `effects` have are, both checked.
///
/// # Errors
/// When the backend or the device that was asked for is not there, or a model file is not what it must be.
pub(crate) fn inference(config: &Inference, effects: &[Arc<dyn Effect>]) -> anyhow::Result<(Runtime, ModelStore)> {
    let wanted = match config.backend {
        BackendChoice::Auto => None,
        BackendChoice::OnnxRuntime => Some(Backend::Ort),
        BackendChoice::Rten => Some(Backend::Rten),
    };
    let runtime = Runtime::load(config.library.as_deref(), wanted)?.with_threads(config.threads_per_frame).with_device(config.device)?;
    if let Some(warning) = runtime.warning() {
        warn!("{warning}");
    }
    let store = config.models.as_ref().map_or_else(ModelStore::embedded, ModelStore::folder);
    verify_models(&store, effects)?;
    Ok((runtime, store))
}

/// Opens a port for HTTP. `option` and `variable` name what chose it.
///
/// # Errors
/// When the port is taken, or the address is none of this machine's.
pub(crate) fn listen(address: SocketAddr, option: &str, variable: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .with_context(|| format!("{option}: TCP {address} can not be opened: choose another port with --listen or {variable}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Says on standard output, for people and for programs that start this one, that `what` serves at an address.
pub(crate) fn announce(what: &str, scheme: &str, address: SocketAddr) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{what} is ready: {scheme}://{address}/")?;
    out.flush()
}

/// The signals that ask the process to end, or to read its configuration again.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// From now on they do not end the process by themselves.
    ///
    /// # Errors
    /// When the system does not let us.
    pub(crate) fn catch() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one that asks the process to end. Returns its name. At each SIGHUP before, `reload` is called.
    pub(crate) async fn next(&mut self, reload: impl Fn()) -> &'static str {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.hang_up.recv() => reload(),
            }
        }
    }

    /// Ends the process when another one comes: whoever asks twice does not want to wait.
    pub(crate) async fn end_at_next(&mut self) {
        let signal = self.next(|| {}).await;
        warn!("{signal} received again: ending at once");
        crate::logs::flush();
        std::process::exit(130);
    }
}

/// The addresses of this machine, and its names, for those who ask it by them.
pub(crate) fn own_names() -> Vec<String> {
    let addresses = if_addrs::get_if_addrs().inspect_err(|error| warn!(%error, "the addresses of this machine cannot be listed"));
    let addresses = addresses.unwrap_or_default().into_iter().map(|interface| interface.ip().to_string());
    // Machines of one network find one another as NAME.local.
    addresses.chain([host(), format!("{}.local", host())]).collect()
}

/// The name of this machine.
fn host() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = kernel.or_else(|| std::env::var("HOSTNAME").ok()).map(|name| name.trim().to_string());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown".into())
}
