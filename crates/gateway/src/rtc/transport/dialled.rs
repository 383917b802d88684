//! The sockets of the sessions that the gateway has dialled, one for each.
//!
//! Each has a task on the media thread that reads datagrams. It ends with the session.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::sync::Arc;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::warn;

use super::socket::MAX_DATAGRAM_BYTES;
use crate::ids::SessionId;

/// Datagrams of all sockets that wait for the media thread. While there are as many, nothing is read.
const MAX_ARRIVED_DATAGRAMS: usize = 256;

/// The open sockets.
pub(super) struct DialledSockets {
    open: HashMap<SessionId, DialledSocket>,
    arrivals: mpsc::Sender<DialledDatagram>,
    arrived: mpsc::Receiver<DialledDatagram>,
}

struct DialledSocket {
    socket: Arc<UdpSocket>,
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
        let socket = Arc::new(UdpSocket::from_std(socket)?);
        let reader = tokio::spawn(read(session, socket.clone(), self.arrivals.clone())).abort_handle();
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
        socket.socket.try_send_to(datagram, destination).map(|_| ())
    }

    /// Closes the socket of a session, if it has one.
    pub(super) fn close(&mut self, session: SessionId) {
        if let Some(socket) = self.open.remove(&session) {
            socket.reader.abort();
        }
    }
}

async fn read(session: SessionId, socket: Arc<UdpSocket>, arrivals: mpsc::Sender<DialledDatagram>) {
    let mut buffer = [0; MAX_DATAGRAM_BYTES + 1];
    loop {
        let (bytes, source) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // The session ends when it hears nothing any more.
            Err(error) => return warn!(%session, %error, "the socket of a session can not be read"),
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
