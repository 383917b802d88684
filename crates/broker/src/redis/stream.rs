//! Byte stream to a Redis: TCP, TLS over TCP, or a unix socket, each with timeouts. It knows
//! nothing of the protocol.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

/// Address on which a Redis listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Tcp(Host),
    Unix(PathBuf),
}

/// Host name or IP address with a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) port: u16,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}

/// Connection that can be read and written.
pub(super) enum Stream {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Unix(UnixStream),
}

impl Stream {
    /// Connects and, with `tls`, performs the handshake. Each attempt at an address and each step
    /// of the handshake takes at most `within`. So does every later read and write, until
    /// [`Stream::set_read_timeout`] changes the timeout of reads.
    pub(super) fn connect(place: &Place, tls: Option<&Arc<ClientConfig>>, within: Duration) -> io::Result<Self> {
        let host = match place {
            Place::Unix(path) => {
                let socket = UnixStream::connect(path)?;
                socket.set_read_timeout(Some(within))?;
                socket.set_write_timeout(Some(within))?;
                return Ok(Stream::Unix(socket));
            }
            Place::Tcp(host) => host,
        };
        let mut tcp = Err(io::Error::new(io::ErrorKind::NotFound, "its name has no address"));
        for address in (host.name.as_str(), host.port).to_socket_addrs()? {
            tcp = TcpStream::connect_timeout(&address, within);
            if tcp.is_ok() {
                break;
            }
        }
        let mut tcp = tcp?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(within))?;
        tcp.set_write_timeout(Some(within))?;
        let Some(config) = tls else { return Ok(Stream::Tcp(tcp)) };
        let name = ServerName::try_from(host.name.clone()).map_err(io::Error::other)?;
        let mut session = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut tcp)?;
        }
        Ok(Stream::Tls(Box::new(StreamOwned::new(session, tcp))))
    }

    pub(super) fn set_read_timeout(&self, within: Duration) -> io::Result<()> {
        match self {
            Stream::Tcp(tcp) => tcp.set_read_timeout(Some(within)),
            Stream::Tls(tls) => tls.sock.set_read_timeout(Some(within)),
            Stream::Unix(unix) => unix.set_read_timeout(Some(within)),
        }
    }

    /// Writes all bytes. If the other side has ended TLS with an alert, returns that alert, which
    /// says more than the write error that it causes.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes).and_then(|()| self.flush()).map_err(|error| match self {
            Stream::Tls(tls) => match tls.read(&mut [0]) {
                Err(alert) if alert.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => alert,
                _ => error,
            },
            _ => error,
        })
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(tcp) => tcp.read(buffer),
            Stream::Tls(tls) => tls.read(buffer),
            Stream::Unix(unix) => unix.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(tcp) => tcp.write(bytes),
            Stream::Tls(tls) => tls.write(bytes),
            Stream::Unix(unix) => unix.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Tcp(tcp) => tcp.flush(),
            Stream::Tls(tls) => tls.flush(),
            Stream::Unix(unix) => unix.flush(),
        }
    }
}
