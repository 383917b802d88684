//! The directory of sessions: it finds the session of a datagram by its address, or by the ICE user
//! fragment in a STUN message.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::ids::SessionId;

/// The sessions by remote address and by ICE user fragment. An address belongs to one session at a
/// time.
#[derive(Debug, Default)]
pub(super) struct Directory {
    by_address: HashMap<SocketAddr, SessionId>,
    by_ice_user: HashMap<String, SessionId>,
}

impl Directory {
    /// Adds a session by its ICE user fragment. It has no address before its first datagram.
    pub(super) fn add(&mut self, ice_user: &str, id: SessionId) {
        self.by_ice_user.insert(ice_user.to_string(), id);
    }

    /// Removes a session with its addresses.
    pub(super) fn remove(&mut self, ice_user: &str, addresses: impl Iterator<Item = SocketAddr>, id: SessionId) {
        self.by_ice_user.remove(ice_user);
        addresses.for_each(|address| self.remove_address(address, id));
    }

    /// Assigns an address to a session. The session that had it before has it no more.
    pub(super) fn assign(&mut self, address: SocketAddr, id: SessionId) {
        self.by_address.insert(address, id);
    }

    /// Removes an address of a session, unless another session has it by now.
    pub(super) fn remove_address(&mut self, address: SocketAddr, id: SessionId) {
        if self.by_address.get(&address) == Some(&id) {
            self.by_address.remove(&address);
        }
    }

    /// Returns the session that an address belongs to.
    pub(super) fn at(&self, address: SocketAddr) -> Option<SessionId> {
        self.by_address.get(&address).copied()
    }

    /// Returns the session with an ICE user fragment.
    pub(super) fn named(&self, ice_user: &str) -> Option<SessionId> {
        self.by_ice_user.get(ice_user).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_that_moved_to_another_session_stays_when_the_former_one_ends() {
        let [first, second] = [SessionId(1), SessionId(2)];
        let [shared, own] = [4000, 4001].map(|port| SocketAddr::from(([192, 0, 2, 1], port)));
        let mut directory = Directory::default();
        directory.add("first", first);
        directory.add("second", second);
        directory.assign(shared, first);
        directory.assign(own, first);
        directory.assign(shared, second);
        directory.remove("first", [shared, own].into_iter(), first);
        assert_eq!((directory.at(shared), directory.at(own)), (Some(second), None));
        assert_eq!((directory.named("first"), directory.named("second")), (None, Some(second)));
    }
}
