//! The directory of sessions: it finds the session of a datagram by its address, or by the ICE user
//! fragment in a STUN message.

use std::collections::HashMap;

use crate::remote::Remote;
use ooblex_gateway::ids::SessionId;

/// The sessions by remote address and by ICE user fragment. An address belongs to one session at a
/// time. Another session may claim it.
#[derive(Debug, Default)]
pub(super) struct Directory {
    by_address: HashMap<Remote, SessionId>,
    /// The sessions that claim an address of another session: an ICE check from there, which may be
    /// forged, has named them.
    claims: HashMap<Remote, SessionId>,
    by_ice_user: HashMap<String, SessionId>,
}

impl Directory {
    /// Adds a session by its ICE user fragment. It has no address before its first datagram.
    pub(super) fn add(&mut self, ice_user: &str, id: SessionId) {
        self.by_ice_user.insert(ice_user.to_string(), id);
    }

    /// Removes a session with its addresses.
    pub(super) fn remove(&mut self, ice_user: &str, addresses: impl Iterator<Item = Remote>, id: SessionId) {
        self.by_ice_user.remove(ice_user);
        addresses.for_each(|address| self.remove_address(address, id));
    }

    /// Assigns an address to a session and ends all claims to it. Returns the session that had it
    /// before.
    pub(super) fn assign(&mut self, address: Remote, id: SessionId) -> Option<SessionId> {
        self.claims.remove(&address);
        self.by_address.insert(address, id).filter(|former| *former != id)
    }

    /// Notes that a session claims an address of another session. The last claim counts.
    pub(super) fn claim(&mut self, address: Remote, id: SessionId) {
        self.claims.insert(address, id);
    }

    /// Removes an address of a session, or its claim to it. The session that claims the address of
    /// the removed one gets it.
    pub(super) fn remove_address(&mut self, address: Remote, id: SessionId) {
        if self.claims.get(&address) == Some(&id) {
            self.claims.remove(&address);
        }
        if self.by_address.get(&address) == Some(&id) {
            match self.claims.remove(&address) {
                Some(claimant) => self.by_address.insert(address, claimant),
                None => self.by_address.remove(&address),
            };
        }
    }

    /// Returns the session that an address belongs to.
    pub(super) fn at(&self, address: Remote) -> Option<SessionId> {
        self.by_address.get(&address).copied()
    }

    /// Returns the session that claims an address of another session.
    pub(super) fn claimant(&self, address: Remote) -> Option<SessionId> {
        self.claims.get(&address).copied()
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
        let [shared, own] = [4000, 4001].map(|port| Remote::udp(([192, 0, 2, 1], port).into()));
        let mut directory = Directory::default();
        directory.add("first", first);
        directory.add("second", second);
        directory.assign(shared, first);
        directory.assign(own, first);
        assert_eq!(directory.assign(shared, second), Some(first));
        directory.remove("first", [shared, own].into_iter(), first);
        assert_eq!((directory.at(shared), directory.at(own)), (Some(second), None));
        assert_eq!((directory.named("first"), directory.named("second")), (None, Some(second)));
    }

    #[test]
    fn same_address_over_udp_and_tcp_belongs_to_two_sessions() {
        let address = ([192, 0, 2, 1], 4000).into();
        let mut directory = Directory::default();
        directory.assign(Remote::udp(address), SessionId(1));
        assert_eq!(directory.assign(Remote::tcp(address), SessionId(2)), None);
        assert_eq!((directory.at(Remote::udp(address)), directory.at(Remote::tcp(address))), (Some(SessionId(1)), Some(SessionId(2))));
    }

    #[test]
    fn claimed_address_stays_until_its_session_is_gone_or_the_claim_is_proven() {
        let [first, second, third] = [SessionId(1), SessionId(2), SessionId(3)];
        let address = Remote::udp(([192, 0, 2, 1], 4000).into());
        let mut directory = Directory::default();
        directory.assign(address, first);
        directory.claim(address, second);
        assert_eq!((directory.at(address), directory.claimant(address)), (Some(first), Some(second)));
        assert_eq!(directory.assign(address, first), None, "the first session was heard again");
        assert_eq!((directory.at(address), directory.claimant(address)), (Some(first), None));
        directory.claim(address, second);
        assert_eq!(directory.assign(address, second), Some(first), "the claim was proven");
        directory.claim(address, third);
        directory.remove_address(address, second);
        assert_eq!((directory.at(address), directory.claimant(address)), (Some(third), None));
        directory.claim(address, first);
        directory.remove_address(address, first);
        assert_eq!((directory.at(address), directory.claimant(address)), (Some(third), None));
    }
}
