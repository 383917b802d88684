//! The UDP socket of the media thread and the addresses at which it is reached.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use tokio::net::UdpSocket;

/// Buffer of the socket in either direction, bytes: a burst of keyframes of many sessions.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// The media socket on the media thread. It hides that an IPv6 socket shows IPv4 addresses in their
/// mapped form.
pub(super) struct MediaSocket {
    socket: UdpSocket,
    is_v6: bool,
    local: SocketAddr,
}

impl MediaSocket {
    /// Registers the socket with the tokio runtime of the current thread.
    pub(super) fn new(socket: std::net::UdpSocket, local: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::from_std(socket)?;
        let is_v6 = socket.local_addr().is_ok_and(|address| address.is_ipv6());
        Ok(Self { socket, is_v6, local })
    }

    /// Returns the local address that the WebRTC endpoints know. Every datagram came to this
    /// socket, whichever address of the machine it was sent to.
    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Waits for a datagram.
    pub(super) async fn readable(&self) {
        _ = self.socket.readable().await;
    }

    /// Reads a datagram that has arrived; `None` if there is none. Returns its length and its
    /// source.
    pub(super) fn try_receive(&self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        let (length, source) = self.socket.try_recv_from(buffer).ok()?;
        Some((length, SocketAddr::new(source.ip().to_canonical(), source.port())))
    }

    /// Sends a datagram, or fails if the buffer of the socket is full.
    pub(super) fn try_send(&self, datagram: &[u8], destination: SocketAddr) -> io::Result<()> {
        self.socket.try_send_to(datagram, mapped(destination, self.is_v6)).map(drop)
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

/// Returns the addresses at which a socket that listens on `listen` is reached: those of the
/// network first, loopback last.
pub(super) fn own_addresses(listen: IpAddr) -> io::Result<Vec<IpAddr>> {
    if !listen.is_unspecified() {
        return Ok(vec![listen]);
    }
    let usable = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_link_local(),
        IpAddr::V6(ip) => listen.is_ipv6() && !ip.is_unicast_link_local() && !ip.is_loopback(),
    };
    let mut addresses: Vec<_> = if_addrs::get_if_addrs()?.into_iter().map(|interface| interface.ip()).filter(usable).collect();
    addresses.sort_by_key(|ip| (ip.is_loopback(), ip.is_ipv6()));
    addresses.dedup();
    if addresses.is_empty() {
        addresses.push(IpAddr::from([127, 0, 0, 1]));
    }
    Ok(addresses)
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
    use super::*;

    #[test]
    fn socket_of_one_address_is_reached_at_that_address_only() {
        let address = IpAddr::from([192, 0, 2, 7]);
        assert_eq!(own_addresses(address).unwrap(), [address]);
    }

    #[test]
    fn ipv6_socket_sends_to_ipv4_addresses_in_their_mapped_form() {
        let v4: SocketAddr = ([192, 0, 2, 7], 4000).into();
        assert_eq!(mapped(v4, false), v4);
        assert_eq!(mapped(v4, true), "[::ffff:192.0.2.7]:4000".parse().unwrap());
        let v6: SocketAddr = "[2001:db8::7]:4000".parse().unwrap();
        assert_eq!(mapped(v6, true), v6);
    }
}
