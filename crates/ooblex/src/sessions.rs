//! The sessions that are running, for those who ask: the API, and the limit on their number.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ooblex_pipeline::EffectName;
use serde_json::{Value, json};

use crate::admission::Place;
use crate::auth::keys::Digest;
use crate::auth::{Restrictions, SessionAccess};
use crate::events::Reader;
use crate::ids::SessionId;
use crate::settings::{ChangedBy, Settings};
use crate::track::{TrackHandle, TrackInput};

/// The running sessions by their ids.
#[derive(Default)]
pub struct Sessions {
    running: Mutex<HashMap<SessionId, Running>>,
}

struct Running {
    track: TrackHandle,
    /// A copy of what the track was asked for. The track owns its settings and notes every change that it makes, so the copy is
    /// ahead of it for as long as a change waits for the track, and equal afterwards.
    settings: Settings,
    access: SessionAccess,
    place: Place,
    started: Instant,
}

/// A session has as many readers of its events as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyReaders;

impl Sessions {
    /// Notes a new session, which keeps its place until it is over.
    pub fn insert(&self, id: SessionId, track: TrackHandle, settings: Settings, access: SessionAccess, place: Place) {
        self.lock().insert(id, Running { track, settings, access, place, started: Instant::now() });
    }

    /// The session is connected.
    pub fn connected(&self, id: SessionId) {
        if let Some(session) = self.lock().get_mut(&id) {
            session.place.connected();
        }
    }

    /// The session is over: its track ends.
    pub fn remove(&self, id: SessionId) {
        if let Some(session) = self.lock().remove(&id) {
            session.track.end();
        }
    }

    /// How many are running, by the effect that they ask for.
    pub fn by_effect(&self) -> BTreeMap<EffectName, usize> {
        let mut counts = BTreeMap::new();
        for session in self.lock().values() {
            *counts.entry(session.settings.effect.label()).or_default() += 1;
        }
        counts
    }

    /// How many are running.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether none is running.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// What was last asked of a session.
    pub fn settings(&self, id: SessionId) -> Option<Settings> {
        self.lock().get(&id).map(|session| session.settings.clone())
    }

    /// Whether a credential is the secret of a session.
    pub(crate) fn is_secret_of(&self, id: SessionId, presented: &Digest) -> bool {
        self.lock().get(&id).is_some_and(|session| session.access.belongs_to(presented))
    }

    /// Whether a credential is the secret of any session.
    pub(crate) fn has_secret(&self, presented: &Digest) -> bool {
        self.lock().values().any(|session| session.access.belongs_to(presented))
    }

    /// What the changes of a session's effect are held against.
    pub fn restrictions(&self, id: SessionId) -> Option<Arc<Restrictions>> {
        self.lock().get(&id).map(|session| session.access.restrictions.clone())
    }

    /// Asks a session for something else. `false` when it is not running, or its track can not take it.
    pub fn change(&self, id: SessionId, settings: Settings) -> bool {
        let mut running = self.lock();
        let Some(session) = running.get_mut(&id) else { return false };
        let taken = session.track.send(TrackInput::Change { settings: settings.clone(), by: ChangedBy::Api });
        if taken {
            session.settings = settings;
        }
        taken
    }

    /// Gives sessions the settings that `renew` makes of theirs, where it makes any.
    pub fn renew(&self, renew: impl Fn(&Settings, &Restrictions) -> Option<Settings>) {
        for session in self.lock().values_mut() {
            if let Some(settings) = renew(&session.settings, &session.access.restrictions)
                && session.track.send(TrackInput::Change { settings: settings.clone(), by: ChangedBy::Reload })
            {
                session.settings = settings;
            }
        }
    }

    /// The track of a session notes the settings that it has put in force, whoever asked for them. The changes of several who ask at a
    /// time take effect in the order in which the track takes them, which only the track knows.
    pub fn note_settings(&self, id: SessionId, settings: Settings) {
        if let Some(session) = self.lock().get_mut(&id) {
            session.settings = settings;
        }
    }

    /// A reader of the events of a session, of which it may have `limit` at a time; `None` when it is not running.
    pub fn read_events(&self, id: SessionId, limit: usize) -> Option<Result<Reader, TooManyReaders>> {
        let running = self.lock();
        let session = running.get(&id)?;
        Some(session.track.events.read(limit).ok_or(TooManyReaders))
    }

    /// One session with its live statistics.
    pub fn describe(&self, id: SessionId) -> Option<Value> {
        self.lock().get(&id).map(|session| session.describe(id))
    }

    /// All sessions with their live statistics, the oldest first.
    pub fn describe_all(&self) -> Vec<Value> {
        let running = self.lock();
        let mut sessions: Vec<_> = running.iter().collect();
        sessions.sort_by_key(|(_, session)| session.started);
        sessions.into_iter().map(|(id, session)| session.describe(*id)).collect()
    }

    /// A panic while the lock was held can not have left half an entry behind, so its poison is ignored.
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
