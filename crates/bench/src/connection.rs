//! A connection of the bench: an endpoint, its socket, and a simulated network between them, one
//! [`Link`] in each direction.
//!
//! It moves datagrams and drives timers; the session handles the endpoint's events.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;

use super::viewer::{Stage, Viewer};
use ooblex_client::endpoint::{Endpoint, Purpose, address_towards};
use ooblex_client::link::{Fate, Link};
use ooblex_client::{Client, ClientError, MAX_DATAGRAM, negotiate};

/// Maximum number of datagrams read before timers run.
const BATCH: usize = 64;
/// Maximum time for a goodbye to leave through the simulated network.
const GOODBYE: Duration = Duration::from_secs(1);

/// An endpoint with its socket and the simulated network between the two.
pub(super) struct Connection {
    /// The endpoint; its output is sent by the next [`Connection::flush`] or [`Connection::step`].
    pub(super) endpoint: Endpoint,
    socket: UdpSocket,
    up: Link<Datagram>,
    down: Link<Datagram>,
    /// Time of the endpoint's next timeout.
    wakeup: Instant,
    buffer: Vec<u8>,
}

struct Datagram {
    /// Destination or source.
    peer: SocketAddr,
    bytes: Vec<u8>,
}

impl Connection {
    /// Sends the offer of a session and applies the answer.
    pub(super) async fn set_up(stage: &Arc<Stage>, viewer: &Viewer) -> Result<Self, ClientError> {
        let (url, wish, purpose) = (stage.url.clone(), viewer.wish.clone(), viewer.purpose.clone());
        let offer = move || {
            let socket = std::net::UdpSocket::bind((address_towards(&url), 0))?;
            let (endpoint, _) = negotiate(&url, &wish, &purpose, socket.local_addr()?)?;
            socket.set_nonblocking(true)?;
            Ok::<_, ClientError>((endpoint, socket))
        };
        let offered = tokio::task::spawn_blocking(offer).await;
        let (endpoint, socket) = offered.unwrap_or_else(|error| Err(ClientError::Answer(error.to_string())))?;
        let seed = stage.network.seed.wrapping_add(2 * viewer.index as u64);
        let mut connection = Self {
            endpoint,
            socket: UdpSocket::from_std(socket)?,
            up: Link::new(stage.network.up, seed),
            down: Link::new(stage.network.down, seed.wrapping_add(1)),
            wakeup: Instant::now(),
            buffer: vec![0; MAX_DATAGRAM],
        };
        // The first write needs the socket to be registered as writable with the runtime.
        connection.socket.writable().await?;
        let codec = stage.clip.codec;
        if !matches!(viewer.purpose, Purpose::Watch(_)) && !connection.endpoint.takes(codec) {
            _ = connection.goodbye(viewer).await;
            return Err(ClientError::Answer(format!("it takes no {}: choose another --codec", codec.label())));
        }
        Ok(connection)
    }

    /// Waits until the connection is established.
    pub(super) async fn connected(mut self, viewer: &Viewer) -> Result<Self, ClientError> {
        let deadline = Instant::now() + Client::CONNECT_WITHIN;
        while !self.endpoint.is_connected() {
            if Instant::now() >= deadline || viewer.leaves().is_some() {
                return Err(ClientError::Timeout(Client::CONNECT_WITHIN));
            }
            self.step(viewer, deadline).await?;
        }
        Ok(self)
    }

    /// Runs the connection until a datagram arrives, a timer fires, or `deadline` passes.
    pub(super) async fn step(&mut self, viewer: &Viewer, deadline: Instant) -> Result<(), ClientError> {
        self.flush(viewer)?;
        let due = [Some(self.wakeup), self.up.next_due(), self.down.next_due(), Some(deadline)];
        let until = due.into_iter().flatten().min().unwrap_or(deadline);
        tokio::select! {
            _ = self.socket.readable() => self.receive(viewer)?,
            () = tokio::time::sleep_until(until.into()) => {}
        }
        let now = Instant::now();
        while let Some(Datagram { peer, bytes }) = self.down.pop(now) {
            self.endpoint.on_datagram(now, peer, &bytes)?;
            self.drain(viewer, now)?;
        }
        if now >= self.wakeup {
            self.endpoint.on_timeout(now)?;
        }
        self.flush(viewer)
    }

    /// Drops all datagrams during this time, in both directions.
    pub(super) fn set_outage(&mut self, outage: Range<Instant>) {
        self.up.set_outage(outage.clone());
        self.down.set_outage(outage);
    }

    /// Limits packet loss and rate limit to this time, in both directions.
    pub(super) fn set_bad(&mut self, bad: Range<Instant>) {
        self.up.set_bad(bad.clone());
        self.down.set_bad(bad);
    }

    fn receive(&mut self, viewer: &Viewer) -> Result<(), ClientError> {
        let now = Instant::now();
        for _ in 0..BATCH {
            let Ok((length, peer)) = self.socket.try_recv_from(&mut self.buffer) else { break };
            let fate = self.down.push(now, Datagram { peer, bytes: self.buffer[..length].to_vec() }, length);
            let mut tally = viewer.tally();
            let slice = tally.slice_mut();
            slice.down.bytes += length as u64;
            slice.down.lost += u64::from(fate != Fate::Queued);
        }
        Ok(())
    }

    /// Sends the endpoint's output into the simulated network, and the datagrams that have passed
    /// it to the socket.
    pub(super) fn flush(&mut self, viewer: &Viewer) -> Result<(), ClientError> {
        let now = Instant::now();
        self.drain(viewer, now)?;
        while let Some(Datagram { peer, bytes }) = self.up.pop(now) {
            // Datagrams that the system refuses count as lost, as on any network. This includes
            // datagrams to unreachable ICE candidates.
            _ = self.socket.try_send_to(&bytes, peer);
        }
        Ok(())
    }

    fn drain(&mut self, viewer: &Viewer, now: Instant) -> Result<(), ClientError> {
        let (mut bytes_up, mut lost_up) = (0, 0);
        let up = &mut self.up;
        self.wakeup = self.endpoint.drain(now, |peer, bytes| {
            bytes_up += bytes.len() as u64;
            lost_up += u64::from(up.push(now, Datagram { peer, bytes: bytes.to_vec() }, bytes.len()) != Fate::Queued);
        })?;
        if bytes_up > 0 {
            let mut tally = viewer.tally();
            let slice = tally.slice_mut();
            slice.up.bytes += bytes_up;
            slice.up.lost += lost_up;
        }
        Ok(())
    }

    /// Closes the endpoint, and waits until the closing datagrams have left.
    pub(super) async fn goodbye(&mut self, viewer: &Viewer) -> Result<(), ClientError> {
        self.endpoint.close()?;
        let deadline = Instant::now() + GOODBYE;
        self.flush(viewer)?;
        while let Some(due) = self.up.next_due().filter(|due| *due < deadline) {
            tokio::time::sleep_until(due.into()).await;
            self.flush(viewer)?;
        }
        Ok(())
    }
}
