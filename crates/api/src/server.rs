//! HTTP/1 server: accepts connections, limits their number and duration, and terminates TLS if
//! there is a certificate.
//!
//! Each connection has a deadline for every phase in which it waits for its client ([`Timeouts`]),
//! and occupies a connection slot ([`Capacity`]). A client that opens many connections, or sends or
//! reads too slowly, loses its own connections and does not delay others. The server knows no
//! routes. `ooblex serve` and `ooblex worker` start it.

mod bodies;
mod places;
#[cfg(test)]
mod tests;
mod watch;
mod wire;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use ipnet::IpNet;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch as channel};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, error};

pub use self::bodies::BodyTimedOut;
use self::bodies::{Answer, Limited};
use self::places::{Place, Places, Refusal};
use self::watch::{Phase, Watch};
use self::wire::Wire;
use crate::tls::{self, Certificate};
use crate::visitor::{Listener, Local, Peer};
use ooblex_config::{Config, Limits};
use ooblex_gateway::metrics::HttpFigures;

/// Largest request head in bytes. Browsers send all cookies of a host, including those that servers
/// on other ports have set.
const MAX_HEAD: usize = 32 * 1024;
/// Largest number of header lines in a request.
const MAX_HEADERS: usize = 100;
/// Buffer size of a connection in each direction, in bytes.
const BUFFER: usize = 64 * 1024;
/// Limit of unsent bytes in the kernel's send buffer of a connection. A smaller limit detects a
/// stalled reader earlier.
const UNSENT: u32 = 16 * 1024;
/// Interval of TCP keep-alive probes to a silent peer.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// First pause after `accept` has failed; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Longest pause after `accept` has failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Largest number of refused connections that concurrently receive an answer with the reason;
/// others are closed immediately.
const FAREWELLS: usize = 64;
/// Time limit for a refused connection to read the answer.
const FAREWELL_WITHIN: Duration = Duration::from_secs(1);

/// Timeouts of a connection while it waits for its client.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Time limit until the first byte of a TLS connection.
    pub first_byte: Duration,
    /// Time limit for the TLS handshake.
    pub handshake: Duration,
    /// Time limit for the request head, from its first byte, or, for the first request, from the
    /// beginning of the connection.
    pub head: Duration,
    /// Time limit for the request body.
    pub body: Duration,
    /// Time limit until the next request on the same connection.
    pub idle: Duration,
    /// Time limit in which the client must accept at least one byte of the answer.
    pub write: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { first_byte: seconds(3), handshake: seconds(10), head: seconds(10), body: seconds(15), idle: seconds(60), write: seconds(30) }
    }
}

/// Limits of the number of connections.
#[derive(Debug, Clone)]
pub struct Capacity {
    /// Total number of connections.
    pub connections: usize,
    /// Number of connections of one client: an IPv4 address, or a /64 network of IPv6.
    pub per_address: usize,
    /// Networks whose addresses are exempt from the limit per address, for proxies that carry the
    /// connections of many clients.
    pub exempt: Vec<IpNet>,
}

impl Capacity {
    /// Reads the limits from the configuration.
    pub fn of(config: &Config) -> Self {
        let Limits { connections, connections_per_address, .. } = config.limits;
        Self { connections, per_address: connections_per_address, exempt: config.serve.trusted_proxies.clone() }
    }
}

/// Settings of a server.
pub struct Options {
    /// The listener that each request carries as an extension.
    pub listener: Listener,
    /// Limits on the number of connections.
    pub capacity: Capacity,
    /// Timeouts of a connection.
    pub timeouts: Timeouts,
    /// Certificate for HTTPS; `None` for plain HTTP.
    pub certificate: Option<Arc<Certificate>>,
    /// Connection counters for metrics.
    pub figures: HttpFigures,
}

/// A running server. Dropping it does not stop it; it runs until it is stopped or the runtime ends.
pub struct Server {
    address: SocketAddr,
    stop: channel::Sender<Option<Instant>>,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Starts to serve `routes` on a non-blocking listener, on the current tokio runtime.
    ///
    /// # Errors
    /// When the listener has no local address, or TLS cannot be set up.
    pub fn start(listener: std::net::TcpListener, routes: Router, options: Options) -> io::Result<Self> {
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let acceptor = options.certificate.map(tls::acceptor).transpose()?;
        let (stop, stopping) = channel::channel(None);
        let shared = Arc::new(Shared {
            listener: options.listener,
            timeouts: options.timeouts,
            places: Places::new(options.capacity, options.figures.clone()),
            figures: options.figures,
            acceptor,
            routes,
            farewells: Arc::new(Semaphore::new(FAREWELLS)),
        });
        let accepting = tokio::spawn(accept(listener, shared, stopping));
        Ok(Self { address, stop, accepting })
    }

    /// Returns the address that the server listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the server ends without having been stopped, which is a defect.
    pub async fn ended(&mut self) {
        _ = (&mut self.accepting).await;
    }

    /// Stops accepting connections, gives running requests `within` to finish, then closes all
    /// connections.
    pub async fn stop(self, within: Duration) {
        self.stop.send_replace(Some(Instant::now() + within));
        _ = self.accepting.await;
    }
}

/// State that the connections of a server share.
struct Shared {
    listener: Listener,
    timeouts: Timeouts,
    places: Places,
    figures: HttpFigures,
    acceptor: Option<TlsAcceptor>,
    routes: Router,
    farewells: Arc<Semaphore>,
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, mut stopping: channel::Receiver<Option<Instant>>) {
    let mut connections = JoinSet::new();
    let mut pause = FIRST_PAUSE;
    let stop_at = loop {
        let accepted = tokio::select! {
            biased;
            _ = stopping.changed() => break *stopping.borrow(),
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let error = match accepted {
            Ok((stream, from)) => {
                pause = FIRST_PAUSE;
                match shared.places.take(from.ip().to_canonical(), shared.acceptor.is_some()) {
                    Ok(place) => _ = connections.spawn(serve(shared.clone(), stream, from, place, stopping.clone())),
                    Err(refusal) => shared.turn_away(stream, refusal),
                }
                continue;
            }
            Err(error) => error,
        };
        if is_of_one_connection(&error) {
            continue;
        }
        // The system is out of descriptors or memory. Closing an idle connection releases some.
        error!(%error, "no connection can be accepted now");
        shared.places.make_room();
        let paused = sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
        tokio::select! {
            biased;
            _ = stopping.changed() => break *stopping.borrow(),
            () = paused => {}
        }
    };
    drop(listener);
    let finished = async { while connections.join_next().await.is_some() {} };
    // Connections that are not finished by then are aborted when the set is dropped.
    _ = timeout_at(stop_at.unwrap_or_else(Instant::now), finished).await;
}

/// Returns whether an error of `accept` concerns only one connection, so that the next call can
/// succeed.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    [ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted].contains(&error.kind())
}

impl Shared {
    /// Sends a refused connection the reason, unless the server uses TLS or is already answering
    /// [`FAREWELLS`] others.
    fn turn_away(&self, mut stream: TcpStream, refusal: Refusal) {
        debug!(?refusal, "a connection was refused");
        if self.acceptor.is_some() {
            return;
        }
        let Ok(permit) = self.farewells.clone().try_acquire_owned() else { return };
        tokio::spawn(async move {
            let farewell = async {
                stream.write_all(refusal.answer().as_bytes()).await?;
                stream.shutdown().await?;
                // Closing a socket with unread data would send a reset and discard the answer.
                let mut rest = [0; 1024];
                while stream.read(&mut rest).await? > 0 {}
                io::Result::Ok(())
            };
            _ = timeout(FAREWELL_WITHIN, farewell).await;
            drop(permit);
        });
    }
}

/// Serves a connection until it ends.
async fn serve(shared: Arc<Shared>, mut stream: TcpStream, from: SocketAddr, place: Place, stopping: channel::Receiver<Option<Instant>>) {
    if let Err(error) = prepare(&stream, shared.timeouts.write) {
        debug!(%from, %error, "the options of a connection could not be set");
    }
    let peer = Peer(from.ip().to_canonical());
    let local = stream.local_addr().ok().map(|address| Local(address.ip().to_canonical()));
    let watch = place.watch().clone();
    let Timeouts { first_byte, handshake, write, .. } = shared.timeouts;
    let cut = match shared.acceptor.clone() {
        None => drive(&shared, Wire::new(stream, watch.clone(), write), peer, local, &watch, stopping).await,
        Some(acceptor) => {
            let deadline = Instant::now() + handshake;
            let shaken = async {
                let is_tls = timeout(first_byte, tls::begins_with_handshake(&stream)).await.map_err(|_| Cut::Handshake)?;
                if !is_tls.map_err(|_| Cut::Client)? {
                    _ = tls::send_to_https(&mut stream).await;
                    return Err(Cut::Client);
                }
                acceptor.accept(Wire::new(stream, watch.clone(), write)).await.map_err(|_| Cut::Client)
            };
            let shaken = tokio::select! {
                shaken = timeout_at(deadline, shaken) => shaken.unwrap_or(Err(Cut::Handshake)),
                () = watch.displaced() => Err(Cut::Displaced),
            };
            match shaken {
                Ok(stream) => {
                    watch.enter(Phase::Head);
                    drive(&shared, stream, peer, local, &watch, stopping).await
                }
                Err(cut) => cut,
            }
        }
    };
    // A write timeout appears as an I/O error of the connection.
    let cut = if watch.write_timed_out() { Cut::Write } else { cut };
    if let Some(reason) = cut.label() {
        debug!(%from, reason, "a connection was cut");
        shared.figures.on_cut(reason);
    }
    drop(place);
}

fn prepare(stream: &TcpStream, write: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3))?;
    // TCP_USER_TIMEOUT makes the kernel drop a peer that acknowledges nothing for the write
    // timeout, even if all unsent data is already in the kernel.
    socket.set_tcp_user_timeout(Some(write))?;
    socket.set_tcp_notsent_lowat(UNSENT)
}

/// The reason why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// The client closed it, or the server is stopping.
    Client,
    /// The idle timeout passed without another request, which is the usual end of a connection.
    Idle,
    Handshake,
    Head,
    Write,
    Displaced,
}

impl Cut {
    /// Returns the label in metrics, or `None` for an ordinary end.
    fn label(self) -> Option<&'static str> {
        match self {
            Cut::Client | Cut::Idle => None,
            Cut::Handshake => Some("handshake"),
            Cut::Head => Some("head"),
            Cut::Write => Some("write"),
            Cut::Displaced => Some("displaced"),
        }
    }
}

/// Serves requests until the connection ends or a deadline passes.
async fn drive<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    shared: &Shared,
    stream: S,
    peer: Peer,
    local: Option<Local>,
    watch: &Arc<Watch>,
    mut stopping: channel::Receiver<Option<Instant>>,
) -> Cut {
    let routes = TowerToHyperService::new(shared.routes.clone());
    let (listener, figures) = (shared.listener, shared.figures.clone());
    let body_within = shared.timeouts.body;
    let service = service_fn(|request: Request<Incoming>| {
        let (mut parts, body) = request.into_parts();
        watch.enter(if body.is_end_stream() { Phase::Answering } else { Phase::Body });
        parts.extensions.insert(ConnectInfo(peer));
        if let Some(local) = local {
            parts.extensions.insert(local);
        }
        parts.extensions.insert(listener);
        let body = Body::new(Limited::new(body, body_within, watch.clone(), figures.clone()));
        let answering = routes.call(Request::from_parts(parts, body));
        let watch = watch.clone();
        async move {
            let Ok(answer) = answering.await;
            Ok::<_, Infallible>(answer.map(|body| Answer::new(body, watch)))
        }
    });
    let mut http = http1::Builder::new();
    // The phases of the watch replace hyper's header timeout, which does not distinguish an idle
    // connection from an incomplete head.
    http.header_read_timeout(None).max_headers(MAX_HEADERS).max_header_size(MAX_HEAD).max_buf_size(BUFFER);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    let mut is_stopping = false;
    loop {
        let waits = watch.deadline(&shared.timeouts);
        tokio::select! {
            biased;
            _ = connection.as_mut() => return Cut::Client,
            // The phase may have changed while the connection was polled.
            () = watch.changed() => {}
            () = watch.displaced() => return Cut::Displaced,
            _ = stopping.changed(), if !is_stopping => {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            phase = async {
                match waits {
                    Some((deadline, phase)) => {
                        sleep_until(deadline).await;
                        phase
                    }
                    None => std::future::pending().await,
                }
            } => return if phase == Phase::Idle { Cut::Idle } else { Cut::Head },
        }
    }
}
