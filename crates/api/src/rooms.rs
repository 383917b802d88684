//! Rooms: names under which one session publishes and others watch.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

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

/// The rooms that somebody publishes to, or did a moment ago.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    open: BTreeMap<RoomName, Room>,
    /// The time for which a room outlives its publisher.
    linger: Duration,
}

/// A room.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) source: Source,
    pub(crate) viewers: Vec<SessionId>,
    /// When the first of its publishers was connected.
    pub(crate) opened: Option<Instant>,
}

/// The publisher of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// It publishes.
    Publisher(SessionId),
    /// It has ended. The room closes then, unless another one replaces it.
    Former(SessionId, Instant),
}

/// A publisher that has opened a room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Opened {
    /// The publisher that had the room before, and whose viewers are still there.
    pub(crate) former: Option<SessionId>,
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

impl Room {
    /// Returns the session that publishes to it. `None` if that has ended.
    pub(crate) fn publisher(&self) -> Option<SessionId> {
        match self.source {
            Source::Publisher(publisher) => Some(publisher),
            Source::Former(..) => None,
        }
    }
}

impl Rooms {
    /// Makes an empty list. `linger`: the time for which a room outlives its publisher.
    pub(crate) fn new(linger: Duration) -> Self {
        Self { linger, ..Self::default() }
    }

    /// Returns whether a session may publish to a room, or why not.
    pub(crate) fn check_publish(&self, name: &RoomName) -> Result<(), Closed> {
        let is_taken = self.open.get(name).is_some_and(|room| room.publisher().is_some());
        if is_taken { Err(Closed::Taken) } else { Ok(()) }
    }

    /// Opens a room for a publisher, or gives it one whose publisher has ended, with its viewers.
    pub(crate) fn publish(&mut self, name: &RoomName, publisher: SessionId) -> Result<Opened, Closed> {
        self.check_publish(name)?;
        let source = Source::Publisher(publisher);
        let room = self.open.entry(name.clone()).or_insert_with(|| Room { source, viewers: Vec::new(), opened: None });
        let former = match std::mem::replace(&mut room.source, source) {
            Source::Former(former, _) => Some(former),
            Source::Publisher(_) => None,
        };
        Ok(Opened { former })
    }

    /// Returns the publisher of a room that another session may watch, or why it may not.
    pub(crate) fn check_watch(&self, name: &RoomName) -> Result<SessionId, Closed> {
        let room = self.open.get(name).ok_or(Closed::Empty)?;
        let publisher = room.publisher().ok_or(Closed::Empty)?;
        if room.viewers.len() < MAX_VIEWERS { Ok(publisher) } else { Err(Closed::Full) }
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

    /// A session of a room has ended. Returns the room if that closes it.
    pub(crate) fn leave(&mut self, now: Instant, name: &RoomName, session: SessionId) -> Option<Room> {
        let room = self.open.get_mut(name)?;
        room.viewers.retain(|viewer| *viewer != session);
        if room.publisher() != Some(session) {
            return None;
        }
        // Nobody waits for a publisher that was never connected: the viewers are ended soon.
        let until = if room.opened.is_some() { now + self.linger } else { now };
        room.source = Source::Former(session, until);
        let closes = self.linger.is_zero() || (room.opened.is_none() && room.viewers.is_empty());
        closes.then(|| self.open.remove(name)).flatten()
    }

    /// Closes the rooms whose publishers have ended too long ago, and returns them.
    pub(crate) fn close_abandoned(&mut self, now: Instant) -> Vec<(RoomName, Room)> {
        let is_over = |room: &Room| matches!(room.source, Source::Former(_, until) if until <= now);
        let names: Vec<_> = self.open.iter().filter(|(_, room)| is_over(room)).map(|(name, _)| name.clone()).collect();
        names.into_iter().filter_map(|name| self.open.remove_entry(&name)).collect()
    }

    /// Returns a room.
    pub(crate) fn find(&self, name: &RoomName) -> Option<&Room> {
        self.open.get(name)
    }

    /// A publisher is connected. Returns whether that opens its room.
    pub(crate) fn connected(&mut self, now: Instant, name: &RoomName) -> bool {
        let Some(room) = self.open.get_mut(name) else { return false };
        let is_first = room.opened.is_none();
        room.opened.get_or_insert(now);
        is_first
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
        let (mut rooms, now) = (Rooms::default(), Instant::now());
        let (room, publisher) = (name("room"), SessionId(1));
        assert_eq!(rooms.check_watch(&room), Err(Closed::Empty));
        rooms.publish(&room, publisher).unwrap();
        assert_eq!(rooms.publish(&room, SessionId(2)), Err(Closed::Taken));
        for viewer in 0..MAX_VIEWERS as u64 {
            rooms.watch(&room, publisher, SessionId(10 + viewer)).unwrap();
        }
        assert_eq!(rooms.watch(&room, publisher, SessionId(9)), Err(Closed::Full));
        assert!(rooms.leave(now, &room, SessionId(10)).is_none());
        rooms.watch(&room, publisher, SessionId(9)).unwrap();
        assert_eq!(rooms.leave(now, &room, publisher).map(|room| room.viewers.len()), Some(MAX_VIEWERS));
        assert_eq!((rooms.check_watch(&room), rooms.iter().count()), (Err(Closed::Empty), 0));
        rooms.publish(&room, SessionId(2)).unwrap();
        assert_eq!(rooms.watch(&room, publisher, SessionId(9)), Err(Closed::Empty), "the publisher is another one");
    }

    #[test]
    fn room_waits_for_another_publisher_which_gets_its_viewers() {
        const LINGER: Duration = Duration::from_secs(10);
        let (mut rooms, now, room) = (Rooms::new(LINGER), Instant::now(), name("room"));
        assert_eq!(rooms.publish(&room, SessionId(1)), Ok(Opened { former: None }));
        assert!(rooms.connected(now, &room) && !rooms.connected(now, &room));
        rooms.watch(&room, SessionId(1), SessionId(10)).unwrap();
        assert!(rooms.leave(now, &room, SessionId(1)).is_none());
        assert_eq!(rooms.check_watch(&room), Err(Closed::Empty), "there is nothing to see");
        assert!(rooms.close_abandoned(now + LINGER / 2).is_empty());
        assert_eq!(rooms.publish(&room, SessionId(2)), Ok(Opened { former: Some(SessionId(1)) }));
        assert!(!rooms.connected(now + LINGER / 2, &room), "it was open all the time");
        assert!(rooms.leave(now, &room, SessionId(1)).is_none() && rooms.find(&room).unwrap().publisher() == Some(SessionId(2)));
        assert!(rooms.leave(now + LINGER, &room, SessionId(2)).is_none());
        assert!(rooms.close_abandoned(now + 2 * LINGER - Duration::from_millis(1)).is_empty());
        let closed = rooms.close_abandoned(now + 2 * LINGER);
        assert_eq!((closed.len(), closed[0].1.viewers.clone(), closed[0].1.opened), (1, vec![SessionId(10)], Some(now)));
        assert!(rooms.iter().next().is_none());
    }

    #[test]
    fn room_whose_publisher_was_never_connected_does_not_wait() {
        let (mut rooms, now, room) = (Rooms::new(Duration::from_secs(10)), Instant::now(), name("room"));
        rooms.publish(&room, SessionId(1)).unwrap();
        assert!(rooms.leave(now, &room, SessionId(1)).is_some() && rooms.find(&room).is_none());
        rooms.publish(&room, SessionId(2)).unwrap();
        rooms.watch(&room, SessionId(2), SessionId(3)).unwrap();
        assert!(rooms.leave(now, &room, SessionId(2)).is_none(), "its viewer has to be ended");
        let closed = rooms.close_abandoned(now);
        assert_eq!(closed.iter().map(|(_, room)| room.viewers.clone()).collect::<Vec<_>>(), [[SessionId(3)]]);
        assert!(rooms.find(&room).is_none());
    }
}
