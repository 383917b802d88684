//! Permissions of a caller: rooms, roles and restrictions of its sessions.
//!
//! A key, a token or the hook gives a [`Grant`]. Its [`Restrictions`] stay with the session and are
//! checked at every change of the effect, over HTTP and over the data channel. This module knows
//! nothing of HTTP.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use crate::rooms::RoomName;
use ooblex_config::Role;
use ooblex_gateway::restrictions::Restrictions;

/// The permissions of a caller.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Grant {
    /// Rooms that the caller may publish to. `POST /offer` has no room; any pattern here allows it.
    pub publish: Rooms,
    /// Rooms that the caller may watch.
    pub view: Rooms,
    /// True if the caller has operator rights.
    pub admin: bool,
    /// Restrictions of the sessions that the caller begins.
    pub restrictions: Restrictions,
    /// Time at which the grant and its sessions end.
    pub expires: Option<SystemTime>,
}

impl Grant {
    /// Returns the permissions of a role.
    pub fn of(role: Role) -> Self {
        let mut grant = Self::default();
        match role {
            Role::Publish => grant.publish = Rooms::all(),
            Role::View => grant.view = Rooms::all(),
            Role::Admin => {
                (grant.publish, grant.view, grant.admin) = (Rooms::all(), Rooms::all(), true);
            }
        }
        grant
    }

    /// Returns whether the caller may publish a camera to a room, or to none.
    pub fn may_publish(&self, room: Option<&RoomName>) -> bool {
        self.admin || room.map_or(self.publish.is_any(), |room| self.publish.has(room.as_str()))
    }

    /// Returns whether the caller may watch a room.
    pub fn may_watch(&self, room: &RoomName) -> bool {
        self.admin || self.view.has(room.as_str())
    }

    /// Returns the remaining validity of the grant, or `None` if it does not expire.
    pub fn time_left(&self, now: SystemTime) -> Option<Duration> {
        self.expires.map(|at| at.duration_since(now).unwrap_or_default())
    }
}

/// Patterns of room names, in which `*` stands for any characters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rooms(Vec<String>);

impl Rooms {
    /// Returns a pattern that matches all rooms.
    pub fn all() -> Self {
        Self(vec!["*".into()])
    }

    /// Returns whether at least one room can match.
    pub fn is_any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Returns whether a room matches one of the patterns.
    pub fn has(&self, room: &str) -> bool {
        self.0.iter().any(|pattern| matches(pattern, room))
    }
}

impl<'de> Deserialize<'de> for Rooms {
    /// Reads `true`, `false`, one pattern or a list of patterns.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Value::deserialize(from)? {
            Value::Bool(true) => Ok(Self::all()),
            Value::Bool(false) => Ok(Self::default()),
            Value::String(pattern) => Ok(Self(vec![pattern])),
            list => Ok(Self(serde_json::from_value(list).map_err(de::Error::custom)?)),
        }
    }
}

/// Returns whether `name` matches a pattern with `*`. Takes time proportional to at most the
/// product of both lengths.
fn matches(pattern: &str, name: &str) -> bool {
    let parts: Vec<&str> = pattern.split('*').collect();
    let [first, middle @ .., last] = parts.as_slice() else { return pattern == name };
    let Some(mut rest) = name.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else { return false };
    middle.iter().all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rooms_match_patterns() {
        let rooms = |claim: Value| serde_json::from_value::<Rooms>(claim).unwrap();
        for (claim, yes, no) in [
            (json!("*"), &["a", "", "a*b"][..], &[][..]),
            (json!(true), &["a"], &[]),
            (json!(["team-*", "lobby"]), &["team-", "team-7", "lobby"], &["lobby2", "a-team-7", ""]),
            (json!("a*b*c"), &["abc", "aXbYc", "abbc"], &["ac", "abcd", "acb"]),
            (json!("aa*aa"), &["aaaa", "aaXaa"], &["aaa"]),
            (json!(false), &[], &["a", ""]),
            (json!([]), &[], &["a"]),
        ] {
            let rooms = rooms(claim.clone());
            assert!(yes.iter().all(|room| rooms.has(room)) && !no.iter().any(|room| rooms.has(room)), "{claim}");
        }
        assert!(serde_json::from_value::<Rooms>(json!(7)).is_err() && serde_json::from_value::<Rooms>(Value::Null).is_err());
    }
}
