//! The address of a peer, with the protocol that carries its datagrams.

use std::net::SocketAddr;

use str0m::net::{Protocol, Transmit};

/// The source or destination of datagrams. The same address and port may be two peers, one over UDP
/// and one over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Remote {
    pub(crate) proto: Protocol,
    pub(crate) address: SocketAddr,
}

impl Remote {
    pub(crate) fn udp(address: SocketAddr) -> Self {
        Self { proto: Protocol::Udp, address }
    }

    pub(crate) fn tcp(address: SocketAddr) -> Self {
        Self { proto: Protocol::Tcp, address }
    }

    /// Returns where a datagram goes to.
    pub(crate) fn of(transmit: &Transmit) -> Self {
        Self { proto: transmit.proto, address: transmit.destination }
    }
}
