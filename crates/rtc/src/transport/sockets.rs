//! The sockets of the media thread: one for UDP, the connections of TCP, and those of the sessions
//! that the gateway has dialled.

use std::io;
use std::net::IpAddr;

use str0m::net::Protocol;

use super::dialled::DialledSockets;
use super::socket::MediaSocket;
use super::tcp::TcpConnections;
use crate::remote::Remote;

/// The sockets on which datagrams arrive and leave.
pub(super) struct Sockets {
    pub(super) udp: MediaSocket,
    pub(super) tcp: TcpConnections,
    pub(super) dialled: DialledSockets,
}

impl Sockets {
    /// Sends a datagram without waiting, from an address of this machine if it is named. On TCP, that
    /// is the address of the connection.
    pub(super) fn try_send(&self, datagram: &[u8], local: Option<IpAddr>, remote: Remote) -> io::Result<()> {
        match remote.proto {
            Protocol::Udp => self.udp.try_send(datagram, local, remote.address),
            _ => self.tcp.try_send(datagram, remote.address),
        }
    }
}
