//! The media socket: one UDP port for all sessions, and the thread that owns it.
//!
//! [`Transport`] opens the socket and starts the media thread. The rest of the gateway talks to
//! that thread through a [`TransportHandle`]. A [`SessionObserver`] is told which sessions are
//! connected and which have ended. The thread runs neither HTTP nor codecs, so neither delays
//! packets.
//!
//! `media_loop` is the loop of the thread, which finds the session of each datagram, and `entry` is
//! one session with its limits. These two read the clock and pass the time on as an argument.
//! `directory` finds sessions by address and by ICE user fragment, `socket` sends and receives.

mod directory;
mod entry;
mod handle;
mod media_loop;
mod observer;
mod socket;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::mpsc;
use tracing::error;

use self::entry::SessionLimits;
use self::handle::COMMAND_QUEUE_LENGTH;
pub use self::handle::TransportHandle;
use self::media_loop::MediaLoop;
pub use self::observer::SessionObserver;
use self::socket::MediaSocket;
use crate::metrics::Metrics;
use crate::watchdog::Heartbeat;
use ooblex_config as config;

/// The reason why the media socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The port is taken, or this machine does not have the address.
    #[error("media.listen: UDP {address} can not be opened ({source}): choose another port with --media or OOBLEX_MEDIA__LISTEN")]
    Bind {
        /// The address of `media.listen`.
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// The addresses of this machine cannot be listed.
    #[error("the addresses of this machine can not be listed ({0}): set media.advertise")]
    Addresses(io::Error),
}

/// The media socket before its thread runs.
pub struct Transport {
    socket: std::net::UdpSocket,
    candidates: Vec<SocketAddr>,
}

impl Transport {
    /// Opens the socket and finds the addresses that answers contain.
    ///
    /// # Errors
    /// When the port is taken or the addresses of this machine cannot be listed.
    pub fn bind(config: &config::Media) -> Result<Self, TransportError> {
        let bind = |source| TransportError::Bind { address: config.listen, source };
        let socket = socket::open(config.listen).map_err(bind)?;
        let port = socket.local_addr().map_err(bind)?.port();
        let addresses = match config.advertise.as_slice() {
            [] => socket::own_addresses(config.listen.ip()).map_err(TransportError::Addresses)?,
            advertised => advertised.to_vec(),
        };
        let candidates = addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
        Ok(Self { socket, candidates })
    }

    /// Returns the addresses that answers contain, best first; at least one.
    pub fn candidates(&self) -> &[SocketAddr] {
        &self.candidates
    }

    /// Starts the media thread. The observer is called on that thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn run(
        self,
        limits: &config::Limits,
        observer: Arc<dyn SessionObserver>,
        metrics: Arc<Metrics>,
        heartbeat: &Arc<Heartbeat>,
    ) -> io::Result<(TransportHandle, JoinHandle<()>)> {
        let (commands, receiver) = mpsc::channel(COMMAND_QUEUE_LENGTH);
        let limits = SessionLimits::new(limits);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let candidates = self.candidates;
        let local = *candidates.first().ok_or_else(|| io::Error::other("no address to advertise"))?;
        let beating = heartbeat.begin();
        let thread = std::thread::Builder::new().name("media".into()).spawn(move || {
            runtime.block_on(async {
                match MediaSocket::new(self.socket, local) {
                    Ok(socket) => {
                        let mut media = MediaLoop::new(socket, candidates, limits, observer, metrics);
                        media.run(receiver, || beating.turn()).await;
                        beating.stop();
                    }
                    Err(error) => error!(%error, "the media socket can not be used"),
                }
            });
        })?;
        Ok((TransportHandle::new(commands), thread))
    }
}
