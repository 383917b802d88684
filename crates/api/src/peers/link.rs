//! One pull or push: what it is for, and its state.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::rooms::RoomName;
use ooblex_config::{PeerUrl, Secret};
use ooblex_gateway::ids::SessionId;

/// A pull or a push.
pub struct Link {
    pub(crate) id: u64,
    pub(crate) role: Role,
    pub(crate) room: RoomName,
    pub(crate) target: Target,
    state: Mutex<State>,
    stop: watch::Sender<bool>,
    ended: watch::Sender<bool>,
}

/// The direction of a link.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Role {
    /// The stream of another server is published to the room.
    Pull {
        /// The effect; the default if not set.
        effect: Option<String>,
        params: Value,
    },
    /// The pictures of the room are published to another server.
    Push,
}

/// The endpoint of the other server.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) url: PeerUrl,
    pub(crate) token: Option<Secret>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    since: Instant,
    session: Option<SessionId>,
    /// Why the last attempt or connection has ended.
    error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// An offer is made, or answered and not connected yet.
    Connecting,
    /// Media can flow.
    Connected,
    /// The next attempt begins at this time.
    Waiting(Instant),
}

impl Role {
    /// Returns whether this is a pull.
    pub(crate) fn is_pull(&self) -> bool {
        matches!(self, Role::Pull { .. })
    }
}

impl Link {
    pub(super) fn new(id: u64, role: Role, room: RoomName, target: Target) -> Self {
        let state = State { phase: Phase::Connecting, since: Instant::now(), session: None, error: None };
        Self { id, role, room, target, state: Mutex::new(state), stop: watch::Sender::new(false), ended: watch::Sender::new(true) }
    }

    /// The link begins to run.
    pub(crate) fn on_begin(&self) {
        self.ended.send_replace(false);
    }

    /// The other server is called.
    pub(crate) fn on_call(&self) {
        self.state.lock().enter(Phase::Connecting);
    }

    /// The other server has answered, and the session has begun.
    pub(crate) fn on_session(&self, session: SessionId) {
        self.state.lock().session = Some(session);
    }

    /// The session is connected.
    pub(crate) fn on_connected(&self) {
        let mut state = self.state.lock();
        state.enter(Phase::Connected);
        state.error = None;
    }

    /// An attempt has failed, or a connection has ended. Returns whether the reason is a new one.
    pub(crate) fn on_failed(&self, why: String, wait: Duration) -> bool {
        let mut state = self.state.lock();
        state.enter(Phase::Waiting(Instant::now() + wait));
        state.session = None;
        let is_new = state.error.as_ref() != Some(&why);
        state.error = Some(why);
        is_new
    }

    /// The link has ended, and the other server knows it.
    pub(crate) fn on_end(&self) {
        self.ended.send_replace(true);
    }

    /// Asks the link to end.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Returns whether the link is asked to end.
    pub(crate) fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// Waits until the link is asked to end.
    pub(crate) async fn stopped(&self) {
        // The sender lives as long as this link.
        _ = self.stop.subscribe().wait_for(|stopped| *stopped).await;
    }

    /// Waits until the link has ended.
    pub(crate) async fn ended(&self) {
        _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Returns the link with its state as JSON. The token is not in it.
    pub(crate) fn describe(&self) -> Value {
        let state = self.state.lock();
        let mut described = json!({"id": self.id.to_string(), "room": self.room});
        match &self.role {
            Role::Pull { effect, params } => {
                described["whep"] = json!(self.target.url);
                described["effect"] = json!(effect);
                described["params"] = params.clone();
            }
            Role::Push => described["whip"] = json!(self.target.url),
        }
        let (name, next) = match state.phase {
            Phase::Connecting => ("connecting", None),
            Phase::Connected => ("connected", None),
            Phase::Waiting(next) => ("waiting", Some(next.saturating_duration_since(Instant::now()).as_secs())),
        };
        described["state"] = json!(name);
        described["since_s"] = json!(state.since.elapsed().as_secs());
        described["next_attempt_s"] = json!(next);
        described["error"] = json!(state.error);
        described["session"] = json!(state.session);
        described
    }
}

impl State {
    fn enter(&mut self, phase: Phase) {
        // An attempt that calls nobody changes only the time of the next one.
        if !matches!((self.phase, phase), (Phase::Waiting(_), Phase::Waiting(_))) {
            self.since = Instant::now();
        }
        self.phase = phase;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_that_calls_nobody_waits_since_its_first_failure() {
        let target = Target { url: "https://media.example/whip".parse().unwrap(), token: None };
        let link = Link::new(1, Role::Push, RoomName::parse("a").unwrap(), target);
        let since = || link.state.lock().since;
        let begun = since();
        assert!(link.on_failed("nobody publishes".into(), Duration::ZERO));
        let waiting = since();
        assert!(waiting > begun);
        assert!(!link.on_failed("nobody publishes".into(), Duration::ZERO));
        assert_eq!((since(), link.describe()["state"].as_str()), (waiting, Some("waiting")));
        link.on_call();
        assert!(since() > waiting);
    }
}
