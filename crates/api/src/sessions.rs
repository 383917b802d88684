//! The registry of running sessions, for the API and for their secrets.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ooblex_pipeline::EffectName;
use serde_json::{Value, json};

use crate::admission::Place;
use crate::auth::SessionAccess;
use crate::auth::keys::Digest;
use ooblex_gateway::events::Reader;
use ooblex_gateway::ids::SessionId;
use ooblex_gateway::restrictions::Restrictions;
use ooblex_gateway::settings::{ChangedBy, Settings};
use ooblex_gateway::track::{TrackHandle, TrackInput};

/// The running sessions by their ids.
#[derive(Default)]
pub struct Sessions {
    running: Mutex<HashMap<SessionId, Running>>,
}

struct Running {
    track: TrackHandle,
    /// A copy of the settings. The track owns them and reports each change, so the copy is ahead of
    /// the track only while a change waits for it.
    settings: Settings,
    access: SessionAccess,
    place: Place,
    started: Instant,
}

/// The session has the largest number of readers of its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyReaders;

impl Sessions {
    /// Adds a session, which keeps its place until it ends.
    pub fn insert(&self, id: SessionId, track: TrackHandle, settings: Settings, access: SessionAccess, place: Place) {
        self.lock().insert(id, Running { track, settings, access, place, started: Instant::now() });
    }

    /// The session is connected.
    pub fn connected(&self, id: SessionId) {
        if let Some(session) = self.lock().get_mut(&id) {
            session.place.connected();
        }
    }

    /// The session has ended: its track ends, too.
    pub fn remove(&self, id: SessionId) {
        if let Some(session) = self.lock().remove(&id) {
            session.track.end();
        }
    }

    /// Ends a session if `tell` returns true, which asks the media thread to end it. Returns false
    /// if it does not, and the session continues. A session that is not running counts as ended.
    pub fn end(&self, id: SessionId, tell: impl FnOnce() -> bool) -> bool {
        // The lock is not held while the media thread is asked, because it uses the registry, too.
        if !self.lock().contains_key(&id) {
            return true;
        }
        let told = tell();
        if told {
            self.remove(id);
        }
        told
    }

    /// Returns the number of running sessions by requested effect.
    pub fn by_effect(&self) -> BTreeMap<EffectName, usize> {
        let mut counts = BTreeMap::new();
        for session in self.lock().values() {
            *counts.entry(session.settings.effect.label()).or_default() += 1;
        }
        counts
    }

    /// Returns the number of running sessions.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Returns whether no session is running.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Returns the settings that were last requested for a session.
    pub fn settings(&self, id: SessionId) -> Option<Settings> {
        self.lock().get(&id).map(|session| session.settings.clone())
    }

    /// Returns whether a credential is the secret of a session.
    pub fn is_secret_of(&self, id: SessionId, presented: &Digest) -> bool {
        self.lock().get(&id).is_some_and(|session| session.access.belongs_to(presented))
    }

    /// Returns whether a credential is the secret of any session.
    pub fn has_secret(&self, presented: &Digest) -> bool {
        self.lock().values().any(|session| session.access.belongs_to(presented))
    }

    /// Returns the restrictions that apply to changes of a session's effect.
    pub fn restrictions(&self, id: SessionId) -> Option<Arc<Restrictions>> {
        self.lock().get(&id).map(|session| session.access.restrictions.clone())
    }

    /// Requests other settings for a session. Returns false if it is not running, or its track
    /// cannot take the request.
    pub fn change(&self, id: SessionId, settings: Settings) -> bool {
        let mut running = self.lock();
        let Some(session) = running.get_mut(&id) else { return false };
        let taken = session.track.send(TrackInput::Change { settings: settings.clone(), by: ChangedBy::Api });
        if taken {
            session.settings = settings;
        }
        taken
    }

    /// Requests the settings that `renew` makes from those of each session, if it makes any.
    pub fn renew(&self, renew: impl Fn(&Settings, &Restrictions) -> Option<Settings>) {
        for session in self.lock().values_mut() {
            if let Some(settings) = renew(&session.settings, &session.access.restrictions)
                && session.track.send(TrackInput::Change { settings: settings.clone(), by: ChangedBy::Reload })
            {
                session.settings = settings;
            }
        }
    }

    /// Takes note of the settings that a track has put in force, for any requester. Only the track
    /// knows the order in which concurrent changes take effect.
    pub fn note_settings(&self, id: SessionId, settings: Settings) {
        if let Some(session) = self.lock().get_mut(&id) {
            session.settings = settings;
        }
    }

    /// Returns a reader of the events of a session, which may have `limit` readers at a time;
    /// `None` if the session is not running.
    pub fn read_events(&self, id: SessionId, limit: usize) -> Option<Result<Reader, TooManyReaders>> {
        let running = self.lock();
        let session = running.get(&id)?;
        Some(session.track.events.read(limit).ok_or(TooManyReaders))
    }

    /// Returns one session with its live figures as JSON.
    pub fn describe(&self, id: SessionId) -> Option<Value> {
        self.lock().get(&id).map(|session| session.describe(id))
    }

    /// Returns all sessions with their live figures as JSON, oldest first.
    pub fn describe_all(&self) -> Vec<Value> {
        let running = self.lock();
        let mut sessions: Vec<_> = running.iter().collect();
        sessions.sort_by_key(|(_, session)| session.started);
        sessions.into_iter().map(|(id, session)| session.describe(*id)).collect()
    }

    /// Locks the map. A panic while the lock was held cannot have left half an entry behind, so its
    /// poison is ignored.
    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    fn describe(&self, id: SessionId) -> Value {
        json!({
            "id": id,
            "effect": self.settings.effect.name(),
            "params": self.settings.parameters.to_json(),
            "age_s": self.started.elapsed().as_secs(),
            "stats": self.track.stats.latest(),
            "residence_ms": self.track.stats.residence_ms(),
        })
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

    #[test]
    fn a_session_that_the_media_thread_goes_on_with_keeps_its_place() {
        let (sessions, id) = (Sessions::default(), SessionId(1));
        let admission = Arc::new(Admission::new(&Limits { sessions: 1, ..Limits::default() }));
        let visitor = Visitor::at([192, 0, 2, 1].into());
        let settings = Catalogue::new(&Config::default()).unwrap().settings(Some("none"), &Value::Null).unwrap();
        let (inbox, _track) = bounded(1);
        let track = TrackHandle::detached(inbox, Arc::new(Metrics::new(&About::default(), &Broker::local(), &[], None)));
        let access = SessionAccess::new(&SessionSecret::random(), Arc::default());
        sessions.insert(id, track, settings, access, admission.enter(visitor).unwrap());
        assert!(!sessions.end(id, || false), "the queue of the media thread is full");
        assert!(sessions.describe(id).is_some() && admission.enter(visitor).is_err());
        assert!(sessions.end(id, || true));
        assert!(sessions.is_empty() && admission.enter(visitor).is_ok());
        assert!(sessions.end(id, || unreachable!("it is not running any more")));
    }
}
