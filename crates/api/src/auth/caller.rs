//! The identity of a caller.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::grant::Grant;
use crate::rooms::RoomName;
use ooblex_gateway::ids::SessionId;
use ooblex_gateway::restrictions::Restrictions;

/// The authenticated identity of a caller.
#[derive(Debug, Clone)]
pub enum Caller {
    /// An unauthenticated caller: the route is public, or `auth.mode` is `none`.
    Anyone,
    /// The operator, on this machine or through `serve.admin_listen`.
    Operator,
    /// The holder of the secret of this session.
    Session(SessionId),
    /// The holder of a key or token.
    Granted(Arc<Grant>),
}

impl Caller {
    /// Returns whether the caller has operator rights.
    pub fn is_operator(&self) -> bool {
        match self {
            Caller::Operator => true,
            Caller::Granted(grant) => grant.admin,
            Caller::Anyone | Caller::Session(_) => false,
        }
    }

    /// Returns whether the caller has the permission to watch a room.
    pub fn may_watch(&self, room: &RoomName) -> bool {
        match self {
            Caller::Operator => true,
            Caller::Granted(grant) => grant.may_watch(room),
            Caller::Anyone | Caller::Session(_) => false,
        }
    }

    /// Returns the restrictions of a session that the caller begins.
    pub fn restrictions(&self) -> Restrictions {
        match self {
            Caller::Granted(grant) => grant.restrictions.clone(),
            Caller::Anyone | Caller::Operator | Caller::Session(_) => Restrictions::default(),
        }
    }

    /// Returns the longest duration of a session that the caller begins, or `None` for no limit.
    pub fn time_left(&self) -> Option<Duration> {
        match self {
            Caller::Granted(grant) => Grant::time_left(grant, SystemTime::now()),
            Caller::Anyone | Caller::Operator | Caller::Session(_) => None,
        }
    }
}
