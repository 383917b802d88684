//! Notifications for the service manager, with the protocol of `sd_notify`, which systemd uses for
//! services of `Type=notify`.
//!
//! Nothing is sent when no service manager listens.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Socket of the service manager, if there is one.
#[derive(Debug, Clone, Default)]
pub struct Notify {
    to: Option<SocketAddr>,
    wants_signs_of_life: bool,
}

impl Notify {
    /// Reads the socket address from the environment (`NOTIFY_SOCKET`).
    pub fn from_environment() -> Self {
        let to = std::env::var("NOTIFY_SOCKET").ok().and_then(|name| address(&name));
        Self { to, wants_signs_of_life: std::env::var_os("WATCHDOG_USEC").is_some() }
    }

    /// Reports that the service is ready.
    pub fn ready(&self) {
        self.say("READY=1");
    }

    /// Reports that the service is stopping.
    pub fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// Sends a watchdog keep-alive.
    pub fn alive(&self) {
        if self.wants_signs_of_life {
            self.say("WATCHDOG=1");
        }
    }

    fn say(&self, words: &str) {
        let Some(to) = &self.to else { return };
        // Errors are ignored: the service manager may not listen.
        let said = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.send_to_addr(words.as_bytes(), to)
        });
        _ = said;
    }
}

/// Parses a socket path, or `@name` in the abstract namespace.
fn address(name: &str) -> Option<SocketAddr> {
    match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None if name.starts_with('/') => SocketAddr::from_pathname(name),
        None => return None,
    }
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_arrives_and_nothing_is_said_where_nobody_listens() {
        let name = format!("ooblex-test-{:016x}", rand::random::<u64>());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let notify = Notify { to: address(&format!("@{name}")), wants_signs_of_life: true };
        notify.ready();
        notify.alive();
        notify.stopping();
        let mut buffer = [0; 64];
        let heard: Vec<_> = (0..3)
            .map(|_| {
                let length = manager.recv(&mut buffer).unwrap();
                String::from_utf8_lossy(&buffer[..length]).into_owned()
            })
            .collect();
        assert_eq!(heard, ["READY=1", "WATCHDOG=1", "STOPPING=1"]);
        Notify::default().ready();
        assert!(address("relative").is_none());
    }
}
