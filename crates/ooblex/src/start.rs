//! Start and end of the long-running commands: broker, inference runtime, HTTP port and signals.
//!
//! [`crate::serve`] and [`crate::worker`] use all parts; [`crate::check`] and [`crate::apply`] use
//! some of them.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};

use anyhow::Context as _;
use ooblex_broker::{Broker, Identity};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::warn;

use ooblex_config::Config;
use ooblex_gateway::settings::Catalogue;
use ooblex_worker::WorkerPool;

/// Connects to the broker of the configuration.
///
/// # Errors
/// When waiting cannot help: a file is missing, or Redis refuses the connection.
pub(crate) fn broker(config: &Config) -> anyhow::Result<Broker> {
    let identity = Identity { host: host(), version: env!("CARGO_PKG_VERSION").into(), device: config.inference.device.to_string() };
    match config.broker.redis_options(identity)? {
        Some(options) => Ok(Broker::redis(options)?),
        None => Ok(Broker::local()),
    }
}

/// Builds the worker pool of this process: the runtime, and the models of the served effects.
///
/// # Errors
/// As [`inference`].
pub(crate) fn worker_pool(config: &Config, catalogue: &Catalogue) -> anyhow::Result<WorkerPool> {
    let (runtime, store) = ooblex_worker::inference(&config.inference, &catalogue.served())?;
    Ok(WorkerPool::new(runtime, store, &catalogue.served()))
}

/// Opens a TCP port for HTTP. `option` and `variable` name the configuration of the address in
/// error messages.
///
/// # Errors
/// When the port is in use, or the address does not belong to this machine.
pub(crate) fn listen(address: SocketAddr, option: &str, variable: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .with_context(|| format!("{option}: TCP {address} cannot be opened: choose another port with --listen or {variable}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Prints the address that `what` serves on to standard output, for people and for parent
/// processes.
pub(crate) fn announce(what: &str, scheme: &str, address: SocketAddr) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{what} is ready: {scheme}://{address}/")?;
    out.flush()
}

/// The signals that end the process (SIGINT, SIGTERM) or reload its configuration (SIGHUP).
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Installs the signal handlers, so that the signals do not end the process by themselves.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub(crate) fn catch() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for SIGINT or SIGTERM and returns its name. Calls `reload` at each SIGHUP.
    pub(crate) async fn next(&mut self, reload: impl Fn()) -> &'static str {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.hang_up.recv() => reload(),
            }
        }
    }

    /// Ends the process immediately at the next SIGINT or SIGTERM: a second signal means that the
    /// user does not want to wait.
    pub(crate) async fn end_at_next(&mut self) {
        let signal = self.next(|| {}).await;
        warn!("{signal} received again: ending at once");
        crate::logs::flush();
        std::process::exit(130);
    }
}

/// Returns the addresses and names of this machine, under which clients may reach it.
pub(crate) fn own_names() -> Vec<String> {
    let addresses = if_addrs::get_if_addrs().inspect_err(|error| warn!(%error, "the addresses of this machine cannot be listed"));
    let addresses = addresses.unwrap_or_default().into_iter().map(|interface| interface.ip().to_string());
    // Machines on a local network find one another as NAME.local (mDNS).
    addresses.chain([host(), format!("{}.local", host())]).collect()
}

/// Returns the host name of this machine.
fn host() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = kernel.or_else(|| std::env::var("HOSTNAME").ok()).map(|name| name.trim().to_string());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown".into())
}
