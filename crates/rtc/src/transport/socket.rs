//! The UDP socket of the media thread.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Buffer of the socket in either direction, bytes: a burst of keyframes of many sessions.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// Largest datagram that is read, bytes; WebRTC stays below 1500.
pub(super) const MAX_DATAGRAM_BYTES: usize = 2048;
/// Size of a buffer into which the system may receive several datagrams at a time, bytes.
pub(super) const RECEIVE_BUFFER_BYTES: usize = 1 << 16;

/// The media socket on the media thread. It hides that an IPv6 socket shows IPv4 addresses in their
/// mapped form.
pub(super) struct MediaSocket {
    socket: UdpSocket,
    state: UdpSocketState,
    is_v6: bool,
}

/// Datagrams that were received together. They are of one size, except for the last, which may be
/// smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) source: SocketAddr,
    /// The address of this machine that they were sent to, if the system tells it.
    pub(super) local: Option<IpAddr>,
    /// Bytes of all datagrams.
    pub(super) bytes: usize,
    /// Bytes of one datagram.
    pub(super) datagram_bytes: usize,
}

impl MediaSocket {
    /// Registers the socket with the tokio runtime of the current thread.
    pub(super) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let socket = UdpSocket::from_std(socket)?;
        let state = UdpSocketState::new((&socket).into())?;
        let is_v6 = socket.local_addr().is_ok_and(|address| address.is_ipv6());
        Ok(Self { socket, state, is_v6 })
    }

    /// Waits for a datagram.
    pub(super) async fn readable(&self) {
        _ = self.socket.readable().await;
    }

    /// Reads datagrams that have arrived into a buffer of [`RECEIVE_BUFFER_BYTES`]; `None` if there
    /// are none.
    pub(super) fn try_receive(&self, buffer: &mut [u8]) -> Option<Received> {
        let (mut buffers, mut about) = ([IoSliceMut::new(buffer)], [RecvMeta::default()]);
        let receive = || self.state.recv((&self.socket).into(), &mut buffers, &mut about);
        self.socket.try_io(Interest::READABLE, receive).ok()?;
        let [RecvMeta { addr, dst_ip, len, stride, .. }] = about;
        let source = SocketAddr::new(addr.ip().to_canonical(), addr.port());
        Some(Received { source, local: dst_ip.map(|ip| ip.to_canonical()), bytes: len, datagram_bytes: stride.max(1) })
    }

    /// Sends a datagram from an address of this machine, or fails if the buffer of the socket is
    /// full. `local`: the address; the system chooses it if there is none.
    pub(super) fn try_send(&self, datagram: &[u8], local: Option<IpAddr>, destination: SocketAddr) -> io::Result<()> {
        let destination = mapped(destination, self.is_v6);
        let transmit = Transmit { destination, ecn: None, contents: datagram, segment_size: None, src_ip: local };
        self.socket.try_io(Interest::WRITABLE, || self.state.try_send((&self.socket).into(), &transmit))
    }
}

/// Opens the socket.
pub(super) fn open(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::DGRAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // The system may grant a smaller buffer without an error.
    _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Returns the address in the form that the socket takes: an IPv6 socket sends to IPv4 addresses in
/// their mapped form.
fn mapped(address: SocketAddr, is_v6: bool) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if is_v6 => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    #[test]
    fn ipv6_socket_sends_to_ipv4_addresses_in_their_mapped_form() {
        let v4: SocketAddr = ([192, 0, 2, 7], 4000).into();
        assert_eq!(mapped(v4, false), v4);
        assert_eq!(mapped(v4, true), "[::ffff:192.0.2.7]:4000".parse().unwrap());
        let v6: SocketAddr = "[2001:db8::7]:4000".parse().unwrap();
        assert_eq!(mapped(v6, true), v6);
    }

    /// Sends `datagrams` to `to` at a socket that listens on `listen`, and answers each. Returns
    /// the local address that the socket tells, the datagrams that it reads, and the source of the
    /// first answer.
    async fn answered(listen: &str, to: Ipv4Addr, datagrams: &[&[u8]]) -> (Option<IpAddr>, Vec<Vec<u8>>, IpAddr) {
        let socket = MediaSocket::new(open(listen.parse().unwrap()).unwrap()).unwrap();
        let port = socket.socket.local_addr().unwrap().port();
        let browser = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        for datagram in datagrams {
            browser.send_to(datagram, (to, port)).await.unwrap();
        }
        let (mut buffer, mut read, mut local) = (vec![0; RECEIVE_BUFFER_BYTES], Vec::new(), None);
        while read.len() < datagrams.len() {
            socket.readable().await;
            while let Some(received) = socket.try_receive(&mut buffer) {
                assert_eq!(received.source, browser.local_addr().unwrap());
                read.extend(buffer[..received.bytes].chunks(received.datagram_bytes).map(<[u8]>::to_vec));
                local = received.local;
                socket.try_send(b"answer", received.local, received.source).unwrap();
            }
        }
        let (_, from) = browser.recv_from(&mut buffer).await.unwrap();
        (local, read, from.ip())
    }

    #[tokio::test]
    async fn answers_leave_from_the_address_that_was_asked() {
        let asked = Ipv4Addr::new(127, 0, 0, 2);
        for listen in ["0.0.0.0:0", "[::]:0", "127.0.0.2:0"] {
            let answered = tokio::time::timeout(Duration::from_secs(10), answered(listen, asked, &[b"question"])).await;
            assert_eq!(answered.unwrap(), (Some(asked.into()), vec![b"question".to_vec()], asked.into()), "{listen}");
        }
    }

    #[tokio::test]
    async fn datagrams_that_arrive_together_stay_apart() {
        let sent: Vec<Vec<u8>> = (0..20).map(|n| vec![n; if n == 19 { 100 } else { 1000 }]).collect();
        let sent: Vec<&[u8]> = sent.iter().map(Vec::as_slice).collect();
        let answered = tokio::time::timeout(Duration::from_secs(10), answered("0.0.0.0:0", Ipv4Addr::LOCALHOST, &sent)).await;
        assert_eq!(answered.unwrap().1, sent);
    }
}
