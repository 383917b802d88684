//! The beginning of a session: from an offer to a session that runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tracing::{error, info};

use super::gateway::Gateway;
use super::recordings;
use crate::admission::Place;
use crate::auth::{Caller, SessionAccess, SessionSecret};
use crate::rooms::RoomName;
use crate::sessions::{Published, Sessions, Watched};
use crate::visitor::Visitor;
use ooblex_gateway::ids::SessionId;
use ooblex_gateway::labels::{ByeReason, EndReason};
use ooblex_gateway::problem::{Problem, ProblemKind};
use ooblex_gateway::restrictions::Restrictions;
use ooblex_gateway::settings::Settings;
use ooblex_gateway::track::{self, TrackHandle, TrackOutput, TrackSink};
use ooblex_recording::Recordings;
use ooblex_rtc::negotiate::{Negotiated, Purpose};
use ooblex_rtc::session::{Lifetime, Session};
use ooblex_rtc::transport::TransportHandle;

/// Time without a sign of life after which a publisher has vanished, and another one may take its
/// room. Clients send ICE checks every few seconds.
const VANISHED_AFTER: Duration = Duration::from_secs(10);

/// Interval at which rooms without a publisher are looked at.
const ABANDONED_LOOK: Duration = Duration::from_millis(250);

/// The client that begins a session.
#[derive(Clone, Copy)]
pub(super) struct Client<'a> {
    pub(super) visitor: Visitor,
    pub(super) caller: &'a Caller,
}

/// The effect and the room that a publisher asks for.
pub(super) struct Wish<'a> {
    pub(super) effect: Option<&'a str>,
    pub(super) params: &'a Value,
    /// The room to publish to. `None`: only the publisher itself sees the effect.
    pub(super) room: Option<RoomName>,
}

/// A session that has begun.
pub(super) struct Begun {
    pub(super) id: SessionId,
    pub(super) secret: SessionSecret,
    /// The SDP answer.
    pub(super) answer: String,
    /// The time after which the session ends because its token expires.
    pub(super) time_left: Option<Duration>,
}

/// Passes the outputs of a track to their sessions on the media thread or to its recording, and the
/// settings in force to the session registry.
struct SessionSink {
    id: SessionId,
    transport: TransportHandle,
    sessions: Arc<Sessions>,
    recordings: Recordings,
}

impl TrackSink for SessionSink {
    fn send(&self, session: SessionId, output: TrackOutput) -> bool {
        self.recordings.take(session, output).unwrap_or_else(|output| self.transport.track(self.id, session, output))
    }

    fn settings_changed(&self, settings: &Settings) {
        self.sessions.note_settings(self.id, settings.clone());
    }

    fn end(&self, why: ByeReason) -> bool {
        self.transport.try_end(self.id, why)
    }
}

/// Begins the session of a publisher. With [`Purpose::Exchange`] it gets the effect back.
///
/// # Errors
/// When the offer or the wish cannot be served, the room is taken, or a limit is reached.
pub(super) async fn publish(
    gateway: &Gateway,
    client: Client<'_>,
    offer: String,
    purpose: Purpose,
    wish: Wish<'_>,
) -> Result<Begun, Problem> {
    let publishing = Publishing::prepare(gateway, client.visitor, Arc::new(client.caller.restrictions()), wish).await?;
    let negotiated = gateway.negotiator.answer(offer, purpose).await?;
    publishing.begin(gateway, negotiated, Term::of(gateway, client)).await
}

/// Checks that a room has no publisher, or one that has vanished.
async fn check_vacant(gateway: &Gateway, room: &RoomName) -> Result<(), Problem> {
    let taken = gateway.sessions.check_publish(room);
    match gateway.sessions.publisher(room) {
        Some(publisher) if gateway.transport.is_silent(publisher, VANISHED_AFTER).await => Ok(()),
        _ => taken,
    }
}

/// Ends the publisher of a room if it has vanished, as a client that lost its network and comes
/// back.
async fn vacate(gateway: &Gateway, room: &RoomName) {
    if let Some(publisher) = gateway.sessions.publisher(room)
        && gateway.transport.end_silent(publisher, VANISHED_AFTER).await
    {
        gateway.sessions.remove(publisher, EndReason::Vanished);
    }
}

/// Closes rooms that have waited too long for another publisher, for ever.
pub async fn close_abandoned_rooms(gateway: Arc<Gateway>) {
    loop {
        tokio::time::sleep(ABANDONED_LOOK).await;
        for viewer in gateway.sessions.close_abandoned_rooms() {
            while !gateway.transport.try_end(viewer, ByeReason::PublisherEnded) {
                tokio::time::sleep(ABANDONED_LOOK).await;
            }
        }
    }
}

/// Begins the session of a viewer.
///
/// # Errors
/// When the offer cannot be served, nobody publishes to the room, it is full, or a limit is reached.
pub(super) async fn watch(gateway: &Gateway, client: Client<'_>, offer: String, room: RoomName) -> Result<Begun, Problem> {
    let watching = Watching::prepare(gateway, client.visitor, room)?;
    let negotiated = gateway.negotiator.answer(offer, Purpose::Watch).await?;
    watching.begin(gateway, negotiated, Term::of(gateway, client))
}

/// The time for which a session may run.
#[derive(Clone, Copy)]
pub(super) struct Term {
    pub(super) lifetime: Lifetime,
    /// The time after which its token expires.
    pub(super) time_left: Option<Duration>,
}

impl Term {
    fn of(gateway: &Gateway, client: Client<'_>) -> Self {
        Self { lifetime: Lifetime::new(&gateway.context.config.limits), time_left: client.caller.time_left() }
    }
}

/// A publisher whose session is not negotiated yet, with its place.
pub(super) struct Publishing {
    settings: Settings,
    restrictions: Arc<Restrictions>,
    place: Place,
    room: Option<RoomName>,
}

impl Publishing {
    /// Reserves a place.
    ///
    /// # Errors
    /// When the wish cannot be served, the room is taken, or a limit is reached.
    pub(super) async fn prepare(
        gateway: &Gateway,
        visitor: Visitor,
        restrictions: Arc<Restrictions>,
        wish: Wish<'_>,
    ) -> Result<Self, Problem> {
        let settings = restrictions.settings(&gateway.context.catalogue, wish.effect, wish.params)?;
        if let Some(room) = &wish.room {
            check_vacant(gateway, room).await?;
        }
        let place = gateway.admission.enter(visitor)?;
        Ok(Self { settings, restrictions, place, room: wish.room })
    }

    /// Begins the session.
    ///
    /// # Errors
    /// When the room is taken by now, or the gateway cannot run another session.
    pub(super) async fn begin(self, gateway: &Gateway, negotiated: Negotiated, term: Term) -> Result<Begun, Problem> {
        let Self { settings, restrictions, place, room } = self;
        if let Some(room) = &room {
            vacate(gateway, room).await;
        }
        // The rest does not wait, so a client that disconnects leaves no track behind.
        let (id, secret) = (SessionId::random(), SessionSecret::random());
        let sink = SessionSink {
            id,
            transport: gateway.transport.clone(),
            sessions: gateway.sessions.clone(),
            recordings: gateway.recordings.clone(),
        };
        let track = track::spawn(gateway.context.clone(), id, settings.clone(), restrictions.clone(), Arc::new(sink)).map_err(|error| {
            error!(%error, "no thread for a track");
            Problem::new(ProblemKind::Unavailable, "the gateway has no thread left for another session: try again later")
        })?;
        info!(session = %id, effect = %settings.effect.name(), room = room.as_ref().map(RoomName::as_str), "session begins");
        let published = Published::new(track.clone(), settings);
        let is_recorded = gateway.context.config.recordings.all_rooms || restrictions.record;
        let recorded = room.clone().filter(|_| is_recorded);
        let access = SessionAccess::new(&secret, restrictions);
        let former = gateway.sessions.publish(id, published, access, place, room).inspect_err(|_| track.end())?;
        let begun = begin(gateway, term, Beginning { id, secret, negotiated, track, part: Part::Publisher { former } })?;
        if let Some(room) = recorded
            && let Err(problem) = recordings::record(gateway, &room)
        {
            error!(%room, detail = problem.detail, "the room is not recorded, although it is to be");
        }
        Ok(begun)
    }
}

/// A viewer whose session is not negotiated yet, with its place.
pub(super) struct Watching {
    watched: Watched,
    place: Place,
    room: RoomName,
}

impl Watching {
    /// Reserves a place.
    ///
    /// # Errors
    /// When nobody publishes to the room, it is full, or a limit is reached.
    pub(super) fn prepare(gateway: &Gateway, visitor: Visitor, room: RoomName) -> Result<Self, Problem> {
        let watched = gateway.sessions.watched(&room)?;
        Ok(Self { watched, place: gateway.admission.enter(visitor)?, room })
    }

    /// Begins the session.
    ///
    /// # Errors
    /// When the publisher has ended by now, the room is full, or the gateway cannot run another
    /// session.
    pub(super) fn begin(self, gateway: &Gateway, negotiated: Negotiated, term: Term) -> Result<Begun, Problem> {
        let Self { watched: Watched { publisher, track }, place, room } = self;
        let (id, secret) = (SessionId::random(), SessionSecret::random());
        info!(session = %id, %room, "a viewer begins");
        let access = SessionAccess::new(&secret, Arc::default());
        gateway.sessions.watch(id, publisher, access, place, room)?;
        begin(gateway, term, Beginning { id, secret, negotiated, track, part: Part::Viewer(publisher) })
    }
}

/// A session that the registry knows, and the media thread does not yet.
struct Beginning {
    id: SessionId,
    secret: SessionSecret,
    negotiated: Negotiated,
    track: TrackHandle,
    part: Part,
}

/// The part of a session in a room.
enum Part {
    /// It publishes. `former`: the publisher whose viewers it takes over.
    Publisher { former: Option<SessionId> },
    /// It watches this publisher.
    Viewer(SessionId),
}

fn begin(gateway: &Gateway, term: Term, beginning: Beginning) -> Result<Begun, Problem> {
    let Beginning { id, secret, negotiated, track, part } = beginning;
    let Term { lifetime, time_left } = term;
    let (now, answer) = (Instant::now(), negotiated.answer.clone());
    let mut session = Session::new(id, negotiated, track, lifetime, now);
    let former = match part {
        Part::Publisher { former } => former,
        Part::Viewer(publisher) => {
            session = session.watching(publisher);
            None
        }
    };
    if let Some(left) = time_left {
        session = session.with_expiry(now + left);
    }
    if !gateway.transport.add(session, former) {
        gateway.sessions.remove(id, EndReason::Requested);
        let detail = "the gateway is stopping or far too busy: try again in a moment";
        return Err(Problem::new(ProblemKind::Unavailable, detail).retry_after(Duration::from_secs(1)));
    }
    Ok(Begun { id, secret, answer, time_left })
}
