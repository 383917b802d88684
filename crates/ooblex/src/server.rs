//! The HTTP/1 server below the routes: accepts connections, limits them in number and in time, and speaks TLS where there is a certificate.
//!
//! Each connection has a deadline for every phase in which it waits for its client ([`Timeouts`]), and a place that it holds
//! ([`Capacity`]). A client that opens many connections, or sends or reads too slowly, loses its own connections and delays nobody.
//! The server knows no routes. [`crate::serve`] and [`crate::worker`] start it.

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

pub(crate) use self::bodies::BodyTimedOut;
use self::bodies::{Answer, Limited};
use self::places::{Place, Places, Refusal};
use self::watch::{Phase, Watch};
use self::wire::Wire;
use crate::config::{Config, Limits};
use crate::metrics::HttpFigures;
use crate::tls::{self, Certificate};
use crate::visitor::{Listener, Local, Peer};

/// Largest head of a request, bytes. Browsers send all cookies of a host, whichever port set them.
const MAX_HEAD: usize = 32 * 1024;
/// Header lines of a request at most.
const MAX_HEADERS: usize = 100;
/// Buffer of a connection in either direction, bytes.
const BUFFER: usize = 64 * 1024;
/// Bytes that the kernel holds for a connection before it has sent them. A reader that stops reading is noticed this much later.
const UNSENT: u32 = 16 * 1024;
/// Time between two probes of a silent peer.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// First pause after the system refused to accept a connection; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Longest pause after the system refused to accept a connection.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Refused connections that are told the reason at a time; others are only closed.
const FAREWELLS: usize = 64;
/// Time in which a refused connection can read the reason.
const FAREWELL_WITHIN: Duration = Duration::from_secs(1);

/// Longest waits of a connection for its client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// Time until the first byte of a TLS connection.
    pub(crate) first_byte: Duration,
    /// Time for the whole TLS handshake.
    pub(crate) handshake: Duration,
    /// Time for the whole head of a request, from its first byte, or from the beginning of the connection.
    pub(crate) head: Duration,
    /// Time for the whole body of a request.
    pub(crate) body: Duration,
    /// Time until the next request on the same connection.
    pub(crate) idle: Duration,
    /// Time in which the client must take at least a byte of an answer.
    pub(crate) write: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { first_byte: seconds(3), handshake: seconds(10), head: seconds(10), body: seconds(15), idle: seconds(60), write: seconds(30) }
    }
}

/// Limits on the number of connections.
#[derive(Debug, Clone)]
pub(crate) struct Capacity {
    /// Connections in all.
    pub(crate) connections: usize,
    /// Connections of one visitor: an IPv4 address, or a /64 of IPv6.
    pub(crate) per_address: usize,
    /// Networks whose addresses have no limit of their own: proxies carry the connections of everybody.
    pub(crate) exempt: Vec<IpNet>,
}

impl Capacity {
    /// As the operator wants it.
    pub(crate) fn of(config: &Config) -> Self {
        let Limits { connections, connections_per_address, .. } = config.limits;
        Self { connections, per_address: connections_per_address, exempt: config.serve.trusted_proxies.clone() }
    }
}

/// Settings of a server.
pub(crate) struct Options {
    /// The listener that each request carries as an extension.
    pub(crate) listener: Listener,
    /// Limits on the number of connections.
    pub(crate) capacity: Capacity,
    /// Longest waits of a connection.
    pub(crate) timeouts: Timeouts,
    /// The certificate for HTTPS; none: plain HTTP.
    pub(crate) certificate: Option<Arc<Certificate>>,
    /// Counters of connections.
    pub(crate) figures: HttpFigures,
}

/// A running server. It ends when it is stopped; dropping it leaves it running until the runtime ends.
pub(crate) struct Server {
    address: SocketAddr,
    stop: channel::Sender<Option<Instant>>,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Begins to serve `routes` on a listener that does not block, on the current runtime of tokio.
    ///
    /// # Errors
    /// When the listener has no address, or TLS cannot be set up.
    pub(crate) fn start(listener: std::net::TcpListener, routes: Router, options: Options) -> io::Result<Self> {
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

    /// The address that it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the server has ended although nobody stopped it, which is a defect.
    pub(crate) async fn ended(&mut self) {
        _ = (&mut self.accepting).await;
    }

    /// Accepts no more connections, gives the requests that are being answered `within` to finish, then closes all connections.
    pub(crate) async fn stop(self, within: Duration) {
        self.stop.send_replace(Some(Instant::now() + within));
        _ = self.accepting.await;
    }
}

/// The state that the connections of a server share.
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
        // The system has no descriptor or no memory left. A connection that only waits gives its own back.
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
    // Those that are not done by then end with the set.
    _ = timeout_at(stop_at.unwrap_or_else(Instant::now), finished).await;
}

/// Errors of `accept` that say nothing of the next connection.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    [ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted].contains(&error.kind())
}

impl Shared {
    /// Tells a connection that there is no place for it, if it can be told quickly.
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
                // Closing before everything was read would reset the connection and discard the answer.
                let mut rest = [0; 1024];
                while stream.read(&mut rest).await? > 0 {}
                io::Result::Ok(())
            };
            _ = timeout(FAREWELL_WITHIN, farewell).await;
            drop(permit);
        });
    }
}

/// Serves one connection until it ends.
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
    // A write that timed out ends the connection as an error of the client's.
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
    // The kernel gives up on a peer that takes nothing for as long, also where all that is unsent lies with it.
    socket.set_tcp_user_timeout(Some(write))?;
    socket.set_tcp_notsent_lowat(UNSENT)
}

/// The reason for which a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// The client ended it, or the server stops.
    Client,
    /// No next request came; this is how most connections end.
    Idle,
    Handshake,
    Head,
    Write,
    Displaced,
}

impl Cut {
    /// Its label in the metric; none for an ordinary end.
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

/// Reads requests and writes answers until the connection ends or a deadline passes.
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
    // The phases of the watch stand in for hyper's own timeout, which does not tell an idle connection from half a head.
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
