//! The media socket: one UDP port for all sessions, and the thread that owns it.
//!
//! [`Transport`] opens the socket and starts the media thread. The rest of the gateway talks to
//! that thread through a [`TransportHandle`]. A [`SessionObserver`] is told which sessions are
//! connected and which have ended. The thread runs neither HTTP nor codecs, so neither delays
//! packets.
//!
//! `media_loop` is the loop of the thread, which finds the session of each datagram, and `entry` is
//! one session with its limits. These two read the clock and pass the time on as an argument.
//! `directory` finds sessions by address and by ICE user fragment, `sockets` sends and receives by
//! UDP (`socket`) and TCP (`tcp`). `dialled` are the sockets of sessions whose offer the gateway
//! has made.

mod dialled;
mod directory;
mod entry;
mod handle;
mod media_loop;
mod observer;
mod socket;
mod sockets;
mod tcp;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::mpsc;
use tracing::error;

use self::dialled::DialledSockets;
use self::entry::SessionLimits;
use self::handle::COMMAND_QUEUE_LENGTH;
pub use self::handle::TransportHandle;
use self::media_loop::MediaLoop;
pub use self::observer::SessionObserver;
use self::socket::MediaSocket;
use self::sockets::Sockets;
use self::tcp::TcpConnections;
use crate::candidates::{Candidates, UnresolvedNames, own_addresses};
use ooblex_config as config;
use ooblex_gateway::metrics::Metrics;
use ooblex_gateway::watchdog::Heartbeat;

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
    /// The TCP port is taken, or this machine does not have the address.
    #[error("media.tcp_listen: TCP {address} can not be opened ({source}): choose another port with OOBLEX_MEDIA__TCP_LISTEN")]
    BindTcp {
        /// The address of `media.tcp_listen`.
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// The addresses of this machine cannot be listed.
    #[error("the addresses of this machine can not be listed ({0}): set media.advertise")]
    Addresses(io::Error),
    /// No advertised name has an address.
    #[error(transparent)]
    Names(#[from] UnresolvedNames),
}

/// The media socket before its thread runs.
pub struct Transport {
    socket: std::net::UdpSocket,
    tcp: Option<std::net::TcpListener>,
    candidates: Candidates,
}

impl Transport {
    /// Opens the socket and finds the addresses that answers contain.
    ///
    /// # Errors
    /// When a port is taken, the addresses of this machine cannot be listed, or no advertised name
    /// has an address.
    pub fn bind(config: &config::Media) -> Result<Self, TransportError> {
        let bind = |source| TransportError::Bind { address: config.listen, source };
        let socket = socket::open(config.listen).map_err(bind)?;
        let listen = socket.local_addr().map_err(bind)?;
        let candidates = match config.advertise.as_slice() {
            [] => {
                let own = own_addresses(listen.ip()).map_err(TransportError::Addresses)?;
                own.into_iter().map(|ip| SocketAddr::new(ip, listen.port())).collect::<Vec<_>>().into()
            }
            advertised => Candidates::advertised(advertised, listen)?,
        };
        let Some(address) = config.tcp_listen else { return Ok(Self { socket, tcp: None, candidates }) };
        let bind = |source| TransportError::BindTcp { address, source };
        let listener = std::net::TcpListener::bind(address).map_err(bind)?;
        listener.set_nonblocking(true).map_err(bind)?;
        let candidates = candidates.with_tcp(listener.local_addr().map_err(bind)?);
        Ok(Self { socket, tcp: Some(listener), candidates })
    }

    /// Returns the addresses that answers contain; at least one.
    pub fn candidates(&self) -> &Candidates {
        &self.candidates
    }

    /// Starts the media thread. The observer is called on that thread. `keeps_viewers`: viewers stay
    /// when their publisher ends, for a publisher that replaces it; the caller ends them.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn run(
        self,
        limits: &config::Limits,
        keeps_viewers: bool,
        observer: Arc<dyn SessionObserver>,
        metrics: Arc<Metrics>,
        heartbeat: &Arc<Heartbeat>,
    ) -> io::Result<(TransportHandle, JoinHandle<()>)> {
        let (commands, receiver) = mpsc::channel(COMMAND_QUEUE_LENGTH);
        let (limits, tcp_limits) = (SessionLimits::new(limits), limits.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let candidates = self.candidates;
        let beating = heartbeat.begin();
        let thread = std::thread::Builder::new().name("media".into()).spawn(move || {
            runtime.block_on(async {
                let sockets = || {
                    let (udp, tcp) = (MediaSocket::new(self.socket)?, TcpConnections::new(self.tcp, &tcp_limits)?);
                    Ok(Sockets { udp, tcp, dialled: DialledSockets::new() })
                };
                match sockets() {
                    Ok(sockets) => {
                        let mut media = MediaLoop::new(sockets, candidates, limits, keeps_viewers, observer, metrics);
                        media.run(receiver, || beating.turn()).await;
                        beating.stop();
                    }
                    Err::<_, io::Error>(error) => error!(%error, "the media sockets can not be used"),
                }
            });
        })?;
        Ok((TransportHandle::new(commands), thread))
    }
}
