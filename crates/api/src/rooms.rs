//! Rooms: names under which one session publishes and others watch.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use ooblex_gateway::ids::SessionId;
use ooblex_gateway::problem::{Problem, ProblemKind};

/// Largest number of viewers of a room. They share encoders, but each packet is encrypted for each
/// of them, on the media thread.
pub(crate) const MAX_VIEWERS: usize = 32;
/// Longest name of a room, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// The name of a room: 1 to 64 letters, digits and `-._~`, which a URL contains unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct RoomName(String);

impl RoomName {
    /// Reads a name.
    ///
    /// # Errors
    /// When it is empty, too long, or has other characters.
    pub fn parse(name: &str) -> Result<Self, Problem> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.bytes().all(is_allowed) && name.bytes().any(|byte| byte != b'.') {
            return Ok(Self(name.into()));
        }
        let detail = format!("the name of a room has 1 to {MAX_NAME_BYTES} letters, digits and -._~ : choose another one");
        Err(Problem::new(ProblemKind::BadRequest, detail))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The rooms that somebody publishes to.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    open: BTreeMap<RoomName, Room>,
}

/// A room that somebody publishes to.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) publisher: SessionId,
    pub(crate) viewers: Vec<SessionId>,
}

/// Why a session cannot enter a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    /// Another session publishes to it.
    Taken,
    /// No session publishes to it.
    Empty,
    /// It has [`MAX_VIEWERS`].
    Full,
}

impl Rooms {
    /// Returns whether a session may publish to a room, or why not.
    pub(crate) fn check_publish(&self, name: &RoomName) -> Result<(), Closed> {
        if self.open.contains_key(name) { Err(Closed::Taken) } else { Ok(()) }
    }

    /// Opens a room for a publisher.
    pub(crate) fn publish(&mut self, name: &RoomName, publisher: SessionId) -> Result<(), Closed> {
        self.check_publish(name)?;
        self.open.insert(name.clone(), Room { publisher, viewers: Vec::new() });
        Ok(())
    }

    /// Returns the publisher of a room that another session may watch, or why it may not.
    pub(crate) fn check_watch(&self, name: &RoomName) -> Result<SessionId, Closed> {
        let room = self.open.get(name).ok_or(Closed::Empty)?;
        if room.viewers.len() < MAX_VIEWERS { Ok(room.publisher) } else { Err(Closed::Full) }
    }

    /// Adds a viewer to a room. `publisher`: the one that it is to watch.
    pub(crate) fn watch(&mut self, name: &RoomName, publisher: SessionId, viewer: SessionId) -> Result<(), Closed> {
        if self.check_watch(name)? != publisher {
            return Err(Closed::Empty);
        }
        if let Some(room) = self.open.get_mut(name) {
            room.viewers.push(viewer);
        }
        Ok(())
    }

    /// A session of a room has ended. The room of a publisher is closed.
    pub(crate) fn leave(&mut self, name: &RoomName, session: SessionId) {
        let Some(room) = self.open.get_mut(name) else { return };
        room.viewers.retain(|viewer| *viewer != session);
        if room.publisher == session {
            self.open.remove(name);
        }
    }

    /// Returns a room that somebody publishes to.
    pub(crate) fn find(&self, name: &RoomName) -> Option<&Room> {
        self.open.get(name)
    }

    /// Returns the rooms in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&RoomName, &Room)> {
        self.open.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> RoomName {
        RoomName::parse(name).unwrap()
    }

    #[test]
    fn names_are_those_that_a_url_contains_unchanged() {
        for good in ["a", "camera-1", "A.b_c~9", &"x".repeat(64)] {
            assert_eq!(RoomName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "a b", "ä", "a%2fb", "a?b", &"x".repeat(65)] {
            let problem = RoomName::parse(bad).unwrap_err();
            assert_eq!((problem.status, problem.kind), (400, ProblemKind::BadRequest), "{bad}");
        }
    }

    #[test]
    fn room_has_one_publisher_and_a_limited_number_of_viewers() {
        let mut rooms = Rooms::default();
        let (room, publisher) = (name("room"), SessionId(1));
        assert_eq!(rooms.check_watch(&room), Err(Closed::Empty));
        rooms.publish(&room, publisher).unwrap();
        assert_eq!(rooms.publish(&room, SessionId(2)), Err(Closed::Taken));
        for viewer in 0..MAX_VIEWERS as u64 {
            rooms.watch(&room, publisher, SessionId(10 + viewer)).unwrap();
        }
        assert_eq!(rooms.watch(&room, publisher, SessionId(9)), Err(Closed::Full));
        rooms.leave(&room, SessionId(10));
        rooms.watch(&room, publisher, SessionId(9)).unwrap();
        rooms.leave(&room, publisher);
        assert_eq!((rooms.check_watch(&room), rooms.iter().count()), (Err(Closed::Empty), 0));
        rooms.publish(&room, SessionId(2)).unwrap();
        assert_eq!(rooms.watch(&room, publisher, SessionId(9)), Err(Closed::Empty), "the publisher is another one");
    }
}
