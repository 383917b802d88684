//! Media over TCP, for networks that drop UDP: ICE-TCP with passive candidates (RFC 6544), and the
//! framing of datagrams (RFC 4571).
//!
//! Browsers open the connections. Each has a task on the media thread that reads and writes
//! datagrams. The media thread closes a connection whose datagrams no session takes.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::debug;

use super::socket::MAX_DATAGRAM_BYTES;
use ooblex_config as config;
use ooblex_gateway::client_network::client_network;

/// Time from the connection to its first datagram.
const FIRST_DATAGRAM_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two datagrams of a browser, which sends ICE checks every few seconds.
const NEXT_DATAGRAM_TIMEOUT: Duration = Duration::from_secs(30);
/// Time in which a browser takes one datagram.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Datagrams, of at most 1500 bytes, that wait for a connection. Others are dropped.
const MAX_QUEUED_DATAGRAMS: usize = 128;
/// Datagrams of all connections that wait for the media thread. While it is full, nothing is read.
const MAX_ARRIVED_DATAGRAMS: usize = 256;
/// Buffer of the system for what a connection sends, bytes: what waits there is late.
const SEND_BUFFER_BYTES: usize = 128 << 10;
/// Pause after a connection could not be accepted, since the process has too many files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections, at most as many as `limits.connections`, and of one client
/// `limits.connections_per_address`.
pub(super) struct TcpConnections {
    listener: Option<TcpListener>,
    max_connections: usize,
    max_connections_per_client: usize,
    open: HashMap<SocketAddr, Connection>,
    last_id: u64,
    events: mpsc::Sender<Event>,
    arrived: mpsc::Receiver<Event>,
}

/// A connection whose task runs.
struct Connection {
    id: u64,
    /// The datagrams that wait to be written; `None` when the connection ends.
    outgoing: Option<mpsc::Sender<Vec<u8>>>,
}

enum Event {
    Datagram(TcpDatagram),
    Ended { source: SocketAddr, id: u64 },
}

/// A datagram that has arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TcpDatagram {
    pub(super) source: SocketAddr,
    /// The address of this machine that the connection was made to.
    pub(super) local: IpAddr,
    pub(super) bytes: Vec<u8>,
}

impl TcpConnections {
    /// Registers the listener, if there is one, with the tokio runtime of the current thread.
    pub(super) fn new(listener: Option<std::net::TcpListener>, limits: &config::Limits) -> io::Result<Self> {
        let (events, arrived) = mpsc::channel(MAX_ARRIVED_DATAGRAMS);
        Ok(Self {
            listener: listener.map(TcpListener::from_std).transpose()?,
            max_connections: limits.connections,
            max_connections_per_client: limits.connections_per_address,
            open: HashMap::new(),
            last_id: 0,
            events,
            arrived,
        })
    }

    /// Accepts connections, and waits for the next datagram.
    pub(super) async fn next(&mut self) -> TcpDatagram {
        loop {
            tokio::select! {
                (stream, source) = accept(self.listener.as_ref()) => self.open(stream, source),
                Some(event) = self.arrived.recv() => match event {
                    Event::Datagram(datagram) => return datagram,
                    Event::Ended { source, id } => {
                        if self.open.get(&source).is_some_and(|connection| connection.id == id) {
                            self.open.remove(&source);
                        }
                    }
                }
            }
        }
    }

    /// Queues a datagram for a connection, or fails if it has ended or too many wait.
    pub(super) fn try_send(&self, datagram: &[u8], destination: SocketAddr) -> io::Result<()> {
        let outgoing = self.open.get(&destination).and_then(|connection| connection.outgoing.as_ref());
        let outgoing = outgoing.ok_or(io::ErrorKind::NotConnected)?;
        let frame = frame(datagram)?;
        outgoing.try_send(frame).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => io::ErrorKind::WouldBlock.into(),
            mpsc::error::TrySendError::Closed(_) => io::ErrorKind::NotConnected.into(),
        })
    }

    /// Ends a connection after the datagrams that wait.
    pub(super) fn close(&mut self, source: SocketAddr) {
        if let Some(connection) = self.open.get_mut(&source) {
            connection.outgoing = None;
        }
    }

    fn open(&mut self, stream: TcpStream, source: SocketAddr) {
        let source = SocketAddr::new(source.ip().to_canonical(), source.port());
        let of_client = self.open.keys().filter(|other| client_network(other.ip()) == client_network(source.ip())).count();
        if self.open.len() >= self.max_connections || of_client >= self.max_connections_per_client {
            return debug!(%source, "a media connection was refused, because there are too many");
        }
        let Ok(local) = stream.local_addr() else { return };
        // Both only improve the latency.
        _ = stream.set_nodelay(true);
        _ = socket2::SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER_BYTES);
        let (outgoing, queue) = mpsc::channel(MAX_QUEUED_DATAGRAMS);
        self.last_id += 1;
        let (id, events) = (self.last_id, self.events.clone());
        tokio::spawn(async move {
            if let Err(error) = run(stream, source, local.ip().to_canonical(), queue, &events).await {
                debug!(%source, %error, "a media connection has ended");
            }
            _ = events.send(Event::Ended { source, id }).await;
        });
        self.open.insert(source, Connection { id, outgoing: Some(outgoing) });
    }
}

/// Accepts a connection. Waits forever without a listener.
async fn accept(listener: Option<&TcpListener>) -> (TcpStream, SocketAddr) {
    let Some(listener) = listener else { return std::future::pending().await };
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                debug!(%error, "a media connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Reads and writes the datagrams of a connection until one side ends it.
async fn run(
    mut stream: TcpStream,
    source: SocketAddr,
    local: IpAddr,
    mut queue: mpsc::Receiver<Vec<u8>>,
    events: &mpsc::Sender<Event>,
) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let read = async {
        let mut reader = BufReader::new(reader);
        let mut within = FIRST_DATAGRAM_TIMEOUT;
        loop {
            let bytes = timeout(within, read_datagram(&mut reader)).await??;
            if events.send(Event::Datagram(TcpDatagram { source, local, bytes })).await.is_err() {
                return Ok::<_, io::Error>(());
            }
            within = NEXT_DATAGRAM_TIMEOUT;
        }
    };
    let write = async {
        while let Some(frame) = queue.recv().await {
            timeout(WRITE_TIMEOUT, writer.write_all(&frame)).await??;
        }
        Ok::<_, io::Error>(())
    };
    tokio::select! {
        ended = read => ended,
        ended = write => ended,
    }
}

/// Reads a datagram after its length (RFC 4571 §2).
async fn read_datagram(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = usize::from(reader.read_u16().await?);
    if length > MAX_DATAGRAM_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a datagram of {length} bytes")));
    }
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Returns a datagram with its length before it (RFC 4571 §2).
fn frame(datagram: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(datagram.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    Ok([&length.to_be_bytes(), datagram].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns connections with these limits, and the address of their listener.
    fn listening(connections: usize, per_client: usize) -> (TcpConnections, SocketAddr) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let limits = config::Limits { connections, connections_per_address: per_client, ..config::Limits::default() };
        (TcpConnections::new(Some(listener), &limits).unwrap(), address)
    }

    async fn soon<T>(wait: impl Future<Output = T>) -> T {
        timeout(Duration::from_secs(10), wait).await.expect("in time")
    }

    /// Waits until the other side has closed a connection, while it serves the others.
    async fn closed(connections: &mut TcpConnections, stream: &mut TcpStream) {
        let mut byte = [0];
        soon(async {
            tokio::select! {
                read = stream.read(&mut byte) => assert!(matches!(read, Ok(0) | Err(_)), "{read:?}"),
                _ = connections.next() => panic!("nothing comes"),
            }
        })
        .await;
    }

    #[tokio::test]
    async fn datagrams_keep_their_boundaries_in_both_directions() {
        let (mut connections, address) = listening(8, 8);
        let mut browser = TcpStream::connect(address).await.unwrap();
        let source = browser.local_addr().unwrap();
        for part in [&[0, 3, 1][..], &[2, 3, 0, 0, 0], &[1, 4]] {
            browser.write_all(part).await.unwrap();
        }
        for bytes in [vec![1, 2, 3], vec![], vec![4]] {
            assert_eq!(soon(connections.next()).await, TcpDatagram { source, local: address.ip(), bytes });
        }
        connections.try_send(&[5, 6], source).unwrap();
        connections.try_send(&[7], source).unwrap();
        let mut read = [0; 7];
        soon(browser.read_exact(&mut read)).await.unwrap();
        assert_eq!(read, [0, 2, 5, 6, 0, 1, 7]);
    }

    #[tokio::test]
    async fn closed_connection_sends_what_waits_and_takes_no_more() {
        let (mut connections, address) = listening(8, 8);
        let mut browser = TcpStream::connect(address).await.unwrap();
        browser.write_all(&[0, 1, 1]).await.unwrap();
        let source = soon(connections.next()).await.source;
        connections.try_send(&[9], source).unwrap();
        connections.close(source);
        assert_eq!(connections.try_send(&[9], source).unwrap_err().kind(), io::ErrorKind::NotConnected);
        let mut read = [0; 3];
        soon(browser.read_exact(&mut read)).await.unwrap();
        assert_eq!(read, [0, 1, 9]);
        closed(&mut connections, &mut browser).await;
        let mut next = TcpStream::connect(address).await.unwrap();
        next.write_all(&[0, 1, 1]).await.unwrap();
        soon(connections.next()).await;
        assert!(!connections.open.contains_key(&source), "it is forgotten");
    }

    #[tokio::test]
    async fn datagram_that_is_too_large_ends_the_connection() {
        let (mut connections, address) = listening(8, 8);
        let mut browser = TcpStream::connect(address).await.unwrap();
        browser.write_all(&[0xff, 0xff]).await.unwrap();
        closed(&mut connections, &mut browser).await;
    }

    #[tokio::test]
    async fn connections_of_one_client_and_of_all_are_limited() {
        for (connections, per_client) in [(2, 8), (8, 2)] {
            let (mut connections, address) = listening(connections, per_client);
            let mut open = Vec::new();
            for n in 0..2 {
                let mut browser = TcpStream::connect(address).await.unwrap();
                browser.write_all(&[0, 1, n]).await.unwrap();
                assert_eq!(soon(connections.next()).await.bytes, [n]);
                open.push(browser);
            }
            let mut refused = TcpStream::connect(address).await.unwrap();
            closed(&mut connections, &mut refused).await;
        }
    }

    #[tokio::test]
    async fn datagrams_that_a_browser_does_not_read_are_bounded() {
        let (mut connections, address) = listening(8, 8);
        let mut browser = TcpStream::connect(address).await.unwrap();
        browser.write_all(&[0, 1, 1]).await.unwrap();
        let source = soon(connections.next()).await.source;
        let taken = (0..10_000).take_while(|_| connections.try_send(&[0; 1200], source).is_ok()).count();
        assert_eq!(taken, MAX_QUEUED_DATAGRAMS);
        assert_eq!(connections.try_send(&[0; 1200], source).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
