//! The registry of running sessions, for the API and for their secrets.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ooblex_pipeline::{EffectName, round};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::admission::Place;
use crate::auth::SessionAccess;
use crate::auth::keys::Digest;
use crate::pictures::Pictures;
use crate::rooms::{Closed, MAX_VIEWERS, Opened, Room, RoomName, Rooms};
use crate::webhooks::{Event, Webhooks};
use ooblex_gateway::events::Reader;
use ooblex_gateway::ids::SessionId;
use ooblex_gateway::labels::EndReason;
use ooblex_gateway::problem::{Problem, ProblemKind};
use ooblex_gateway::restrictions::Restrictions;
use ooblex_gateway::settings::{ChangedBy, Settings};
use ooblex_gateway::track::{TrackHandle, TrackInput};

/// Time that clients are asked to wait while they cannot enter a room.
const ROOM_RETRY: Duration = Duration::from_secs(2);

/// The running sessions by their ids, and the rooms of those that have one.
#[derive(Default)]
pub struct Sessions {
    state: Mutex<State>,
    webhooks: Webhooks,
}

#[derive(Default)]
struct State {
    running: HashMap<SessionId, Running>,
    rooms: Rooms,
}

struct Running {
    part: Part,
    access: SessionAccess,
    place: Place,
    room: Option<RoomName>,
    started: Instant,
    connected: Option<Instant>,
    progress: watch::Sender<Progress>,
}

/// How far a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The offer was answered.
    Answered,
    /// The session is connected.
    Connected,
    /// The session has ended by itself.
    Ended(EndReason),
}

/// The part of a session in its room, if it has one.
enum Part {
    Publisher(Published),
    Viewer,
}

/// The track of a publisher.
pub struct Published {
    /// Its handle.
    pub track: TrackHandle,
    /// A copy of the settings. The track owns them and reports each change, so the copy is ahead of
    /// the track only while a change waits for it.
    pub settings: Settings,
    /// Its pictures as JPEG.
    pub pictures: Arc<Pictures>,
}

impl Published {
    /// Makes the part of a publisher that has begun with these settings.
    pub fn new(track: TrackHandle, settings: Settings) -> Self {
        Self { pictures: Pictures::new(track.clone()), track, settings }
    }
}

/// A publisher to watch.
pub struct Watched {
    /// Its session.
    pub publisher: SessionId,
    /// Its track.
    pub track: TrackHandle,
}

/// The state of a room for its viewers. The default is that of a room without a publisher.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoomState {
    /// The publisher sends video.
    pub is_active: bool,
    /// The number of viewers.
    pub viewers: usize,
}

/// The session has the largest number of readers of its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyReaders;

impl Sessions {
    /// Makes an empty registry, which tells webhooks of sessions that are connected. `linger`: the
    /// time for which a room outlives its publisher.
    pub fn new(linger: Duration, webhooks: Webhooks) -> Self {
        let state = State { rooms: Rooms::new(linger), ..State::default() };
        Self { state: Mutex::new(state), webhooks }
    }

    /// Adds a publisher, to a room if one is given. It keeps its place until it ends. Returns the
    /// former publisher of the room if its viewers wait for this one.
    ///
    /// # Errors
    /// When another session publishes to the room.
    pub fn publish(
        &self,
        id: SessionId,
        published: Published,
        access: SessionAccess,
        place: Place,
        room: Option<RoomName>,
    ) -> Result<Option<SessionId>, Problem> {
        let mut state = self.state.lock();
        let publish = |room| state.rooms.publish(room, id).map_err(|closed| closed.problem(room));
        let Opened { former } = room.as_ref().map(publish).transpose()?.unwrap_or_default();
        state.running.insert(id, Running::new(Part::Publisher(published), access, place, room));
        Ok(former)
    }

    /// Adds a viewer to a room. It keeps its place until it ends.
    ///
    /// # Errors
    /// When the publisher has ended, or the room is full.
    pub fn watch(&self, id: SessionId, publisher: SessionId, access: SessionAccess, place: Place, room: RoomName) -> Result<(), Problem> {
        let mut state = self.state.lock();
        state.rooms.watch(&room, publisher, id).map_err(|closed| closed.problem(&room))?;
        state.running.insert(id, Running::new(Part::Viewer, access, place, Some(room)));
        Ok(())
    }

    /// Checks that a session may publish to a room.
    ///
    /// # Errors
    /// When another session does.
    pub fn check_publish(&self, room: &RoomName) -> Result<(), Problem> {
        self.state.lock().rooms.check_publish(room).map_err(|closed| closed.problem(room))
    }

    /// Returns the session that publishes to a room.
    pub fn publisher(&self, room: &RoomName) -> Option<SessionId> {
        self.state.lock().rooms.find(room).and_then(Room::publisher)
    }

    /// Returns the publisher of a room, for a viewer.
    ///
    /// # Errors
    /// When nobody publishes to the room, or it is full.
    pub fn watched(&self, room: &RoomName) -> Result<Watched, Problem> {
        let state = self.state.lock();
        let publisher = state.rooms.check_watch(room).map_err(|closed| closed.problem(room))?;
        let published = state.running.get(&publisher).and_then(Running::published);
        let track = published.map(|published| published.track.clone()).ok_or_else(|| Closed::Empty.problem(room))?;
        Ok(Watched { publisher, track })
    }

    /// Returns the pictures of a room as JPEG. `None` if nobody publishes to it.
    pub fn pictures(&self, room: &RoomName) -> Option<Arc<Pictures>> {
        let state = self.state.lock();
        let publisher = state.rooms.find(room)?.publisher()?;
        Some(state.running.get(&publisher)?.published()?.pictures.clone())
    }

    /// Returns the publisher of a room, for a recording.
    ///
    /// # Errors
    /// When nobody publishes to the room.
    pub fn recorded(&self, room: &RoomName) -> Result<Watched, Problem> {
        let state = self.state.lock();
        let publisher = state.rooms.find(room).and_then(Room::publisher).ok_or_else(|| Closed::Empty.problem(room))?;
        let published = state.running.get(&publisher).and_then(Running::published);
        let track = published.map(|published| published.track.clone()).ok_or_else(|| Closed::Empty.problem(room))?;
        Ok(Watched { publisher, track })
    }

    /// Returns the session of a room with this secret.
    pub fn in_room(&self, room: &RoomName, presented: &Digest) -> Option<SessionId> {
        let state = self.state.lock();
        let found = state.running.iter().find(|(_, session)| session.room.as_ref() == Some(room) && session.access.belongs_to(presented));
        found.map(|(id, _)| *id)
    }

    /// Returns the state of a room for its viewers.
    pub fn room_state(&self, room: &RoomName) -> RoomState {
        let state = self.state.lock();
        let found = state.rooms.find(room);
        found.map_or_else(RoomState::default, |room| RoomState { is_active: state.is_active(room), viewers: room.viewers.len() })
    }

    /// Returns whether there is a room, perhaps one that waits for a publisher.
    pub fn has_room(&self, room: &RoomName) -> bool {
        self.state.lock().rooms.find(room).is_some()
    }

    /// Returns the rooms that `may_watch` admits, as JSON for viewers.
    pub fn list_rooms(&self, may_watch: impl Fn(&RoomName) -> bool) -> Value {
        let state = self.state.lock();
        let listed = state.rooms.iter().filter(|(name, _)| may_watch(name));
        listed.map(|(name, room)| json!({"room": name, "active": state.is_active(room), "viewer_count": room.viewers.len()})).collect()
    }

    /// Returns the rooms as JSON for operators. One that waits for a publisher has none.
    pub fn describe_rooms(&self, is_recorded: impl Fn(&RoomName) -> bool) -> Value {
        let state = self.state.lock();
        let describe = |(name, room): (&RoomName, &Room)| {
            let publisher = room.publisher().and_then(|publisher| state.running.get(&publisher));
            let published = publisher.and_then(Running::published);
            json!({
                "room": name,
                "active": state.is_active(room),
                "viewer_count": room.viewers.len(),
                "effect": published.map(|published| published.settings.effect.name()),
                "age_s": publisher.map(|session| session.started.elapsed().as_secs()),
                "publisher": room.publisher(),
                "viewers": room.viewers,
                "mjpeg_streams": published.map(|published| published.pictures.streams()),
                "is_recorded": is_recorded(name),
            })
        };
        state.rooms.iter().map(describe).collect()
    }

    /// The session is connected.
    pub fn connected(&self, id: SessionId) {
        let mut state = self.state.lock();
        let Some(session) = state.running.get_mut(&id) else { return };
        session.place.connected();
        session.progress.send_replace(Progress::Connected);
        let now = Instant::now();
        session.connected = Some(now);
        let room = session.room.clone().filter(|_| session.published().is_some());
        if let Some(room) = room.filter(|room| state.rooms.connected(now, room)) {
            state.tell_opened(&room, id, &self.webhooks);
        }
        state.tell_start(id, &self.webhooks);
    }

    /// The session has ended by itself.
    pub fn ended(&self, id: SessionId, reason: EndReason) {
        if let Some(session) = self.state.lock().running.get(&id) {
            session.progress.send_replace(Progress::Ended(reason));
        }
        self.remove(id, reason);
    }

    /// Returns the progress of a session; `None` if it is not running. The channel is closed when
    /// somebody ends the session.
    pub fn progress(&self, id: SessionId) -> Option<watch::Receiver<Progress>> {
        self.state.lock().running.get(&id).map(|session| session.progress.subscribe())
    }

    /// The session has ended: the track and the room of a publisher end, too.
    pub fn remove(&self, id: SessionId, reason: EndReason) {
        let mut state = self.state.lock();
        let Some(session) = state.running.remove(&id) else { return };
        let closed = session.room.as_ref().and_then(|room| state.rooms.leave(Instant::now(), room, id));
        state.tell_end(id, &session, reason, &self.webhooks);
        if let (Some(name), Some(room)) = (&session.room, closed) {
            tell_closed(name, &room, &self.webhooks);
        }
        if let Part::Publisher(Published { track, .. }) = &session.part {
            track.end();
        }
    }

    /// Closes the rooms that have waited too long for a publisher. Returns their viewers, which the
    /// caller ends.
    pub fn close_abandoned_rooms(&self) -> Vec<SessionId> {
        let closed = self.state.lock().rooms.close_abandoned(Instant::now());
        closed.iter().for_each(|(name, room)| tell_closed(name, room, &self.webhooks));
        closed.into_iter().flat_map(|(_, room)| room.viewers).collect()
    }

    /// Ends a session if `tell` returns true, which asks the media thread to end it. Returns false
    /// if it does not, and the session continues. A session that is not running counts as ended.
    pub fn end(&self, id: SessionId, tell: impl FnOnce() -> bool) -> bool {
        // The lock is not held while the media thread is asked, because it uses the registry, too.
        if !self.state.lock().running.contains_key(&id) {
            return true;
        }
        let told = tell();
        if told {
            self.remove(id, EndReason::Requested);
        }
        told
    }

    /// Returns the number of running sessions by requested effect.
    pub fn by_effect(&self) -> BTreeMap<EffectName, usize> {
        let mut counts = BTreeMap::new();
        for published in self.state.lock().running.values().filter_map(Running::published) {
            *counts.entry(published.settings.effect.label()).or_default() += 1;
        }
        counts
    }

    /// Returns the number of running sessions that watch rooms.
    pub fn viewers(&self) -> usize {
        self.state.lock().running.values().filter(|session| session.published().is_none()).count()
    }

    /// Returns the number of running sessions.
    pub fn len(&self) -> usize {
        self.state.lock().running.len()
    }

    /// Returns whether no session is running.
    pub fn is_empty(&self) -> bool {
        self.state.lock().running.is_empty()
    }

    /// Returns whether a session of a client is running, one that is none of a pull or push.
    pub fn has_clients(&self) -> bool {
        self.state.lock().running.values().any(|session| !session.place.is_of_link())
    }

    /// Returns whether a session is running.
    pub fn is_running(&self, id: SessionId) -> bool {
        self.state.lock().running.contains_key(&id)
    }

    /// Returns the settings that were last requested for a publisher.
    pub fn settings(&self, id: SessionId) -> Option<Settings> {
        self.state.lock().running.get(&id)?.published().map(|published| published.settings.clone())
    }

    /// Returns whether a credential is the secret of a session.
    pub fn is_secret_of(&self, id: SessionId, presented: &Digest) -> bool {
        self.state.lock().running.get(&id).is_some_and(|session| session.access.belongs_to(presented))
    }

    /// Returns whether a credential is the secret of any session.
    pub fn has_secret(&self, presented: &Digest) -> bool {
        self.state.lock().running.values().any(|session| session.access.belongs_to(presented))
    }

    /// Returns the restrictions that apply to changes of a session's effect.
    pub fn restrictions(&self, id: SessionId) -> Option<Arc<Restrictions>> {
        self.state.lock().running.get(&id).map(|session| session.access.restrictions.clone())
    }

    /// Requests other settings for a session. Returns false if it is not running, or its track
    /// cannot take the request.
    pub fn change(&self, id: SessionId, settings: Settings) -> bool {
        let mut state = self.state.lock();
        let Some(published) = state.running.get_mut(&id).and_then(Running::published_mut) else { return false };
        let taken = published.track.send(TrackInput::Change { settings: settings.clone(), by: ChangedBy::Api });
        if taken {
            published.settings = settings;
        }
        taken
    }

    /// Requests the settings that `renew` makes from those of each session, if it makes any.
    pub fn renew(&self, renew: impl Fn(&Settings, &Restrictions) -> Option<Settings>) {
        for session in self.state.lock().running.values_mut() {
            let Part::Publisher(published) = &mut session.part else { continue };
            if let Some(settings) = renew(&published.settings, &session.access.restrictions)
                && published.track.send(TrackInput::Change { settings: settings.clone(), by: ChangedBy::Reload })
            {
                published.settings = settings;
            }
        }
    }

    /// Takes note of the settings that a track has put in force, for any requester. Only the track
    /// knows the order in which concurrent changes take effect.
    pub fn note_settings(&self, id: SessionId, settings: Settings) {
        if let Some(published) = self.state.lock().running.get_mut(&id).and_then(Running::published_mut) {
            published.settings = settings;
        }
    }

    /// Returns a reader of the events of a session, which may have `limit` readers at a time;
    /// `None` if the session is not running.
    pub fn read_events(&self, id: SessionId, limit: usize) -> Option<Result<Reader, TooManyReaders>> {
        let state = self.state.lock();
        let published = state.running.get(&id)?.published()?;
        Some(published.track.events.read(limit).ok_or(TooManyReaders))
    }

    /// Returns one session with its live figures as JSON.
    pub fn describe(&self, id: SessionId) -> Option<Value> {
        let state = self.state.lock();
        state.running.get(&id).map(|session| state.describe(id, session))
    }

    /// Returns all sessions with their live figures as JSON, oldest first.
    pub fn describe_all(&self) -> Vec<Value> {
        let state = self.state.lock();
        let mut sessions: Vec<_> = state.running.iter().collect();
        sessions.sort_by_key(|(_, session)| session.started);
        sessions.into_iter().map(|(id, session)| state.describe(*id, session)).collect()
    }
}

impl State {
    /// Returns whether the publisher of a room sends video.
    fn is_active(&self, room: &Room) -> bool {
        let published = room.publisher().and_then(|publisher| self.running.get(&publisher)?.published());
        published.is_some_and(|published| published.track.stats.has_video())
    }

    /// Returns a session with its live figures as JSON; that of a publisher has the number of its
    /// viewers.
    fn describe(&self, id: SessionId, session: &Running) -> Value {
        let mut described = session.describe(id);
        if let Some(room) = session.room.as_ref().and_then(|room| self.rooms.find(room)).filter(|room| room.publisher() == Some(id)) {
            described["viewers"] = json!(room.viewers.len());
        }
        described
    }
}

/// Tells webhooks that a room is closed.
fn tell_closed(name: &RoomName, room: &Room, webhooks: &Webhooks) {
    if let Some(opened) = room.opened {
        let data = json!({"room": name, "duration_s": round(opened.elapsed().as_secs_f64())});
        webhooks.tell(Event { kind: "room.ended", subject: name.as_str(), data });
    }
}

impl State {
    /// Tells webhooks that a room is open.
    fn tell_opened(&self, name: &RoomName, publisher: SessionId, webhooks: &Webhooks) {
        let effect = self.running.get(&publisher).and_then(Running::published).map(|published| published.settings.effect.name());
        let data = json!({"room": name, "session": publisher, "effect": effect});
        webhooks.tell(Event { kind: "room.started", subject: name.as_str(), data });
    }

    /// Tells webhooks that a session is connected.
    fn tell_start(&self, id: SessionId, webhooks: &Webhooks) {
        if let Some(session) = self.running.get(&id).filter(|_| !webhooks.is_empty()) {
            webhooks.tell(Event { kind: "session.started", subject: &session.subject(id), data: self.about(id, session) });
        }
    }

    /// Tells webhooks that a session has ended.
    fn tell_end(&self, id: SessionId, session: &Running, reason: EndReason, webhooks: &Webhooks) {
        let Some(connected) = session.connected.filter(|_| !webhooks.is_empty()) else { return };
        let mut data = self.about(id, session);
        data["reason"] = json!(reason.label());
        data["duration_s"] = json!(round(connected.elapsed().as_secs_f64()));
        webhooks.tell(Event { kind: "session.ended", subject: &session.subject(id), data });
    }

    /// Returns what webhooks are told about a session.
    fn about(&self, id: SessionId, session: &Running) -> Value {
        let mut about = json!({"session": id, "room": session.room, "role": session.role()});
        if let Some(published) = session.published() {
            about["effect"] = json!(published.settings.effect.name());
        }
        if let Some(room) = &session.room {
            about["viewers"] = json!(self.rooms.find(room).map_or(0, |room| room.viewers.len()));
        }
        about
    }
}

impl Running {
    fn new(part: Part, access: SessionAccess, place: Place, room: Option<RoomName>) -> Self {
        Self { part, access, place, room, started: Instant::now(), connected: None, progress: watch::Sender::new(Progress::Answered) }
    }

    /// Returns what events of the session are about: its room, if it has one.
    fn subject(&self, id: SessionId) -> String {
        self.room.as_ref().map_or_else(|| id.to_string(), RoomName::to_string)
    }

    fn role(&self) -> &'static str {
        match &self.part {
            Part::Publisher(_) => "publisher",
            Part::Viewer => "viewer",
        }
    }

    fn published(&self) -> Option<&Published> {
        match &self.part {
            Part::Publisher(published) => Some(published),
            Part::Viewer => None,
        }
    }

    fn published_mut(&mut self) -> Option<&mut Published> {
        match &mut self.part {
            Part::Publisher(published) => Some(published),
            Part::Viewer => None,
        }
    }

    fn describe(&self, id: SessionId) -> Value {
        let mut described = match self.published() {
            Some(Published { track, settings, .. }) => json!({
                "id": id,
                "effect": settings.effect.name(),
                "params": settings.parameters.to_json(),
                "age_s": self.started.elapsed().as_secs(),
                "stats": track.stats.latest(),
                "residence_ms": track.stats.residence_ms(),
            }),
            None => json!({"id": id, "age_s": self.started.elapsed().as_secs()}),
        };
        if let Some(room) = &self.room {
            described["room"] = json!(room);
            described["role"] = json!(self.role());
        }
        described
    }
}

impl Closed {
    /// Returns the problem of a client that asks for the room.
    fn problem(self, room: &RoomName) -> Problem {
        let (kind, detail) = match self {
            Closed::Taken => {
                (ProblemKind::RoomTaken, format!("another session publishes to the room '{room}': end it, or choose another room"))
            }
            Closed::Empty => (ProblemKind::RoomEmpty, format!("nobody publishes to the room '{room}' now: try again when somebody does")),
            Closed::Full => (
                ProblemKind::RoomFull,
                format!("the room '{room}' has {MAX_VIEWERS} viewers, as many as it may: try again when one has left"),
            ),
        };
        Problem::new(kind, detail).retry_after(ROOM_RETRY)
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;
    use ooblex_broker::Broker;

    use super::*;
    use crate::admission::Admission;
    use crate::auth::SessionSecret;
    use crate::visitor::Visitor;
    use ooblex_config::{Config, Limits};
    use ooblex_gateway::metrics::Metrics;
    use ooblex_gateway::settings::Catalogue;
    use ooblex_worker::about::About;

    fn publish(sessions: &Sessions, id: SessionId, place: Place) {
        let settings = Catalogue::new(&Config::default()).unwrap().settings(Some("none"), &Value::Null).unwrap();
        let (inbox, _track) = bounded(1);
        let track = TrackHandle::new(inbox, Arc::new(Metrics::new(&About::default(), &Broker::local(), &[], None)));
        let access = SessionAccess::new(&SessionSecret::random(), Arc::default());
        sessions.publish(id, Published::new(track, settings), access, place, None).unwrap();
    }

    #[test]
    fn sessions_of_pulls_and_pushes_are_none_of_clients() {
        let (sessions, admission) = (Sessions::default(), Arc::new(Admission::new(&Limits::default())));
        publish(&sessions, SessionId(1), admission.enter(Visitor::own(1)).unwrap());
        assert!(!sessions.has_clients() && !sessions.is_empty());
        publish(&sessions, SessionId(2), admission.enter(Visitor::at([192, 0, 2, 1].into())).unwrap());
        assert!(sessions.has_clients());
    }

    #[test]
    fn a_session_that_the_media_thread_goes_on_with_keeps_its_place() {
        let (sessions, id) = (Sessions::default(), SessionId(1));
        let admission = Arc::new(Admission::new(&Limits { sessions: 1, ..Limits::default() }));
        let visitor = Visitor::at([192, 0, 2, 1].into());
        publish(&sessions, id, admission.enter(visitor).unwrap());
        assert!(!sessions.end(id, || false), "the queue of the media thread is full");
        assert!(sessions.describe(id).is_some() && admission.enter(visitor).is_err());
        assert!(sessions.end(id, || true));
        assert!(sessions.is_empty() && admission.enter(visitor).is_ok());
        assert!(sessions.end(id, || unreachable!("it is not running any more")));
    }
}
