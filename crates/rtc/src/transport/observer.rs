//! The seam between the media thread and the list of running sessions.

use ooblex_gateway::ids::SessionId;
use ooblex_gateway::labels::EndReason;

/// An observer of the sessions of a transport. Its methods run on the media thread and must not
/// block.
pub trait SessionObserver: Send + Sync {
    /// The session is connected: media can flow. It is called once per session.
    fn connected(&self, id: SessionId);

    /// The session has ended, or was not taken because the media thread stops.
    fn ended(&self, id: SessionId, reason: EndReason);
}
