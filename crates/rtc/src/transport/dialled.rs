//! The sockets of the sessions that the gateway has dialled, one for each.
//!
//! Each has a task on the media thread that reads datagrams. It ends with the session.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::warn;

use super::socket::MAX_DATAGRAM_BYTES;
use ooblex_gateway::ids::SessionId;

/// Datagrams of all sockets that wait for the media thread. While there are as many, nothing is read.
const MAX_ARRIVED_DATAGRAMS: usize = 256;
/// Time without reading after an error.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// The open sockets.
pub(super) struct DialledSockets {
    open: HashMap<SessionId, DialledSocket>,
    arrivals: mpsc::Sender<DialledDatagram>,
    arrived: mpsc::Receiver<DialledDatagram>,
}

struct DialledSocket {
    /// The socket that sends. The clone that tokio reads from could not send before tokio has seen
    /// that it is writable, which the first ICE checks would not wait for.
    socket: StdUdpSocket,
    reader: AbortHandle,
}

/// A datagram that has arrived.
pub(super) struct DialledDatagram {
    pub(super) session: SessionId,
    pub(super) source: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

impl DialledSockets {
    pub(super) fn new() -> Self {
        let (arrivals, arrived) = mpsc::channel(MAX_ARRIVED_DATAGRAMS);
        Self { open: HashMap::new(), arrivals, arrived }
    }

    /// Registers the socket of a session with the tokio runtime of the current thread.
    pub(super) fn add(&mut self, session: SessionId, socket: StdUdpSocket) -> io::Result<()> {
        let readable = UdpSocket::from_std(socket.try_clone()?)?;
        let reader = tokio::spawn(read(session, readable, self.arrivals.clone())).abort_handle();
        self.open.insert(session, DialledSocket { socket, reader });
        Ok(())
    }

    /// Returns whether a session has a socket of its own.
    pub(super) fn has(&self, session: SessionId) -> bool {
        self.open.contains_key(&session)
    }

    /// Waits for the next datagram.
    pub(super) async fn next(&mut self) -> DialledDatagram {
        match self.arrived.recv().await {
            Some(datagram) => datagram,
            None => std::future::pending().await,
        }
    }

    /// Sends a datagram of a session without waiting.
    pub(super) fn try_send(&self, session: SessionId, datagram: &[u8], destination: SocketAddr) -> io::Result<()> {
        let socket = self.open.get(&session).ok_or(io::ErrorKind::NotConnected)?;
        socket.socket.send_to(datagram, destination).map(|_| ())
    }

    /// Closes the socket of a session, if it has one.
    pub(super) fn close(&mut self, session: SessionId) {
        if let Some(socket) = self.open.remove(&session) {
            socket.reader.abort();
        }
    }
}

async fn read(session: SessionId, socket: UdpSocket, arrivals: mpsc::Sender<DialledDatagram>) {
    let mut buffer = [0; MAX_DATAGRAM_BYTES + 1];
    let mut has_failed = false;
    loop {
        let (bytes, source) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // The session ends when it hears nothing any more, and this task with it.
            Err(error) => {
                if !std::mem::replace(&mut has_failed, true) {
                    warn!(%session, %error, "the socket of a session can not be read");
                }
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        if bytes > MAX_DATAGRAM_BYTES {
            continue;
        }
        let datagram = DialledDatagram { session, source, bytes: buffer[..bytes].to_vec() };
        if arrivals.send(datagram).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn first_datagram_is_sent_at_once_and_answers_arrive() {
        let socket = || {
            let socket = StdUdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            let address = socket.local_addr().unwrap();
            (socket, address)
        };
        let ((own, own_address), (other, other_address)) = (socket(), socket());
        let (mut sockets, id) = (DialledSockets::new(), SessionId(1));
        sockets.add(id, own).unwrap();
        sockets.try_send(id, b"check", other_address).unwrap();
        let other = UdpSocket::from_std(other).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(other.recv_from(&mut buffer).await.unwrap(), (5, own_address));
        other.send_to(b"answer", own_address).await.unwrap();
        let DialledDatagram { session, source, bytes } = sockets.next().await;
        assert_eq!((session, source, bytes.as_slice()), (id, other_address, &b"answer"[..]));
        sockets.close(id);
        assert!(sockets.try_send(id, b"check", other_address).is_err());
    }
}
