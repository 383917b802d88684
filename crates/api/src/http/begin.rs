//! The beginning of a session: from an offer that a client makes to a session that runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tracing::{error, info};

use super::gateway::Gateway;
use crate::auth::{Caller, SessionAccess, SessionSecret};
use crate::rooms::RoomName;
use crate::sessions::{Published, Sessions};
use crate::visitor::Visitor;
use ooblex_gateway::ids::SessionId;
use ooblex_gateway::labels::ByeReason;
use ooblex_gateway::problem::{Problem, ProblemKind};
use ooblex_gateway::rtc::negotiate::{Negotiated, Purpose};
use ooblex_gateway::rtc::session::{Lifetime, Session};
use ooblex_gateway::rtc::transport::TransportHandle;
use ooblex_gateway::settings::Settings;
use ooblex_gateway::track::{self, TrackHandle, TrackOutput, TrackSink};

/// Time without a sign of life after which a publisher has vanished, and another one may take its
/// room. Clients send ICE checks every few seconds.
const VANISHED_AFTER: Duration = Duration::from_secs(10);

/// The client that begins a session.
#[derive(Clone, Copy)]
pub(super) struct Client<'a> {
    pub(super) visitor: Visitor,
    pub(super) caller: &'a Caller,
}

/// What a publisher asks for.
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

/// Passes the outputs of a track to their sessions on the media thread, and the settings in force
/// to the session registry.
struct SessionSink {
    id: SessionId,
    transport: TransportHandle,
    sessions: Arc<Sessions>,
}

impl TrackSink for SessionSink {
    fn send(&self, session: SessionId, output: TrackOutput) -> bool {
        self.transport.track(session, output)
    }

    fn settings_changed(&self, settings: &Settings) {
        self.sessions.note_settings(self.id, settings.clone());
    }

    fn end(&self, why: ByeReason) -> bool {
        self.transport.try_end(self.id, why)
    }
}

/// Begins the session of a publisher.
///
/// # Errors
/// When the offer or the wish cannot be served, the room is taken, or a limit is reached.
pub(super) async fn publish(gateway: &Gateway, client: Client<'_>, offer: String, wish: Wish<'_>) -> Result<Begun, Problem> {
    let context = &gateway.context;
    let restrictions = Arc::new(client.caller.restrictions());
    let settings = restrictions.settings(&context.catalogue, wish.effect, wish.params)?;
    if let Some(room) = &wish.room {
        vacate(gateway, room).await;
        gateway.sessions.check_publish(room)?;
    }
    let place = gateway.admission.enter(client.visitor)?;
    let purpose = if wish.room.is_some() { Purpose::Publish } else { Purpose::Exchange };
    let negotiated = gateway.negotiator.answer(offer, purpose).await?;
    let (id, secret) = (SessionId::random(), SessionSecret::random());
    let sink = Arc::new(SessionSink { id, transport: gateway.transport.clone(), sessions: gateway.sessions.clone() });
    let track = track::spawn(context.clone(), id, settings.clone(), restrictions.clone(), sink).map_err(|error| {
        error!(%error, "no thread for a track");
        Problem::new(ProblemKind::Unavailable, "the gateway has no thread left for another session: try again later")
    })?;
    info!(session = %id, effect = %settings.effect.name(), room = wish.room.as_ref().map(RoomName::as_str), "session begins");
    let published = Published { track: track.clone(), settings };
    let access = SessionAccess::new(&secret, restrictions);
    gateway.sessions.publish(id, published, access, place, wish.room).inspect_err(|_| track.end())?;
    begin(gateway, client, Beginning { id, secret, negotiated, track, publisher: None })
}

/// Ends the publisher of a room if it has vanished, as a client that lost its network and comes
/// back.
async fn vacate(gateway: &Gateway, room: &RoomName) {
    if let Some(publisher) = gateway.sessions.publisher(room)
        && gateway.transport.end_silent(publisher, VANISHED_AFTER).await
    {
        gateway.sessions.remove(publisher);
    }
}

/// Begins the session of a viewer.
///
/// # Errors
/// When the offer cannot be served, nobody publishes to the room, it is full, or a limit is reached.
pub(super) async fn watch(gateway: &Gateway, client: Client<'_>, offer: String, room: RoomName) -> Result<Begun, Problem> {
    let watched = gateway.sessions.watched(&room)?;
    let place = gateway.admission.enter(client.visitor)?;
    let negotiated = gateway.negotiator.answer(offer, Purpose::Watch).await?;
    let (id, secret) = (SessionId::random(), SessionSecret::random());
    info!(session = %id, %room, "a viewer begins");
    let access = SessionAccess::new(&secret, Arc::default());
    gateway.sessions.watch(id, watched.publisher, access, place, room)?;
    begin(gateway, client, Beginning { id, secret, negotiated, track: watched.track, publisher: Some(watched.publisher) })
}

/// A session that the registry knows, and the media thread does not yet.
struct Beginning {
    id: SessionId,
    secret: SessionSecret,
    negotiated: Negotiated,
    track: TrackHandle,
    /// The publisher that a viewer watches.
    publisher: Option<SessionId>,
}

fn begin(gateway: &Gateway, client: Client<'_>, beginning: Beginning) -> Result<Begun, Problem> {
    let Beginning { id, secret, negotiated, track, publisher } = beginning;
    let (now, time_left, answer) = (Instant::now(), client.caller.time_left(), negotiated.answer.clone());
    let mut session = Session::new(id, negotiated, track, Lifetime::new(&gateway.context.config.limits), now);
    if let Some(publisher) = publisher {
        session = session.watching(publisher);
    }
    if let Some(left) = time_left {
        session = session.with_expiry(now + left);
    }
    if !gateway.transport.add(session) {
        gateway.sessions.remove(id);
        let detail = "the gateway is stopping or far too busy: try again in a moment";
        return Err(Problem::new(ProblemKind::Unavailable, detail).retry_after(Duration::from_secs(1)));
    }
    Ok(Begun { id, secret, answer, time_left })
}
