//! The life of a pull or push: attempt after attempt, until it is ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tracing::{debug, info, warn};

use super::begin::{Begun, Publishing, Term, Watching, Wish};
use super::gateway::Gateway;
use crate::backoff::Backoff;
use crate::peers::{Accepted, Failure, Link, RemoteSession, Retry, Role};
use crate::sessions::Progress;
use crate::visitor::Visitor;
use ooblex_gateway::ids::SessionId;
use ooblex_gateway::labels::{ByeReason, EndReason};
use ooblex_gateway::problem::{Problem, ProblemKind};
use ooblex_rtc::negotiate::{Negotiated, Purpose};
use ooblex_rtc::session::Lifetime;

/// Time between two looks at a room of this gateway that is not ready.
const ROOM_RETRY: Duration = Duration::from_secs(1);
/// Time between two attempts to end a session while the media thread is too busy.
const END_RETRY: Duration = Duration::from_millis(100);

/// Begins the pulls and pushes of the configuration.
pub fn start_links(gateway: &Arc<Gateway>) {
    for link in gateway.peers.all() {
        start(gateway, link);
    }
}

/// Begins a pull or push.
pub(super) fn start(gateway: &Arc<Gateway>, link: Arc<Link>) {
    link.on_begin();
    tokio::spawn(run(gateway.clone(), link));
}

/// A session with another server.
struct Established {
    id: SessionId,
    /// The session as the other server knows it.
    session: RemoteSession,
}

/// A place in a room of this gateway.
enum Entrance {
    Publishing(Publishing),
    Watching(Watching),
}

async fn run(gateway: Arc<Gateway>, link: Arc<Link>) {
    let mut backoff = Backoff::default();
    info!(link = link.id, url = %link.target.url, room = %link.room, "a {} begins", name(&link));
    // A gateway that stops begins no sessions.
    while !link.is_stopped() && !gateway.admission.is_draining() {
        let failure = match attempt(&gateway, &link).await {
            Ok(established) => {
                let (reason, lasted) = follow(&gateway, &link, established).await;
                backoff.on_end(lasted);
                ended(reason)
            }
            Err(failure) => failure,
        };
        if link.is_stopped() {
            break;
        }
        let wait = match failure.retry {
            Retry::Soon => ROOM_RETRY,
            Retry::Later(least) => backoff.next(least, rand::random()),
        };
        if link.on_failed(failure.detail.clone(), wait) {
            warn!(link = link.id, url = %link.target.url, room = %link.room, ?wait, "a {} waits: {}", name(&link), failure.detail);
        } else {
            debug!(link = link.id, ?wait, "a {} waits for the same reason", name(&link));
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = link.stopped() => {}
        }
    }
    info!(link = link.id, "a {} has ended", name(&link));
    link.on_end();
}

fn name(link: &Link) -> &'static str {
    if link.role.is_pull() { "pull" } else { "push" }
}

/// Begins a session with the other server.
async fn attempt(gateway: &Arc<Gateway>, link: &Link) -> Result<Established, Failure> {
    let entrance = Entrance::prepare(gateway, link).await.map_err(local)?;
    let (dialler, purpose) = (gateway.peers.dialler.clone(), if link.role.is_pull() { Purpose::Watch } else { Purpose::Publish });
    let dialled = blocking(move || dialler.offer(purpose, Instant::now())).await?.map_err(local)?;
    if link.is_stopped() {
        return Err(stopped());
    }
    link.on_call();
    let exchange = &gateway.peers.exchange;
    let Accepted { answer, session } = exchange.offer(link.target.clone(), dialled.offer.clone()).await?;
    let negotiated = blocking(move || dialled.answered(&answer))
        .await
        .and_then(|answered| answered.map_err(|reason| Failure::new(format!("the answer of the other server can not be used: {reason}"))));
    let begun = match negotiated {
        Ok(_) if link.is_stopped() => Err(stopped()),
        // The other server was called, so the time until the next attempt grows.
        Ok(negotiated) => entrance.begin(gateway, negotiated).await.map_err(|problem| Failure::new(problem.detail)),
        Err(failure) => Err(failure),
    };
    match begun {
        Ok(Begun { id, .. }) => {
            link.on_session(id);
            Ok(Established { id, session })
        }
        Err(failure) => {
            exchange.end(session).await;
            Err(failure)
        }
    }
}

/// Waits for the end of a session, here or there, and tells the other server. Returns the reason, and
/// for how long the session was connected.
async fn follow(gateway: &Gateway, link: &Link, Established { id, session }: Established) -> (EndReason, Duration) {
    let progress = gateway.sessions.progress(id);
    let mut connected = None;
    let reason = match progress {
        Some(mut progress) => loop {
            match *progress.borrow_and_update() {
                Progress::Answered => {}
                Progress::Connected => {
                    info!(link = link.id, session = %id, "a {} is connected", name(link));
                    link.on_connected();
                    connected.get_or_insert_with(Instant::now);
                }
                Progress::Ended(reason) => break reason,
            }
            tokio::select! {
                changed = progress.changed() => if changed.is_err() { break EndReason::Requested },
                () = link.stopped() => {
                    while !gateway.sessions.end(id, || gateway.transport.try_end(id, ByeReason::Ended)) {
                        tokio::time::sleep(END_RETRY).await;
                    }
                    break EndReason::Requested;
                }
            }
        },
        None => EndReason::Failed,
    };
    let lasted = connected.map_or(Duration::ZERO, |at| at.elapsed());
    gateway.peers.exchange.end(session).await;
    (reason, lasted)
}

impl Entrance {
    /// Reserves the place in the room.
    async fn prepare(gateway: &Gateway, link: &Link) -> Result<Self, Problem> {
        let (visitor, room) = (Visitor::own(link.id), link.room.clone());
        match &link.role {
            Role::Pull { effect, params } => {
                let params: &Value = params;
                let wish = Wish { effect: effect.as_deref(), params, room: Some(room) };
                Publishing::prepare(gateway, visitor, Arc::default(), wish).await.map(Self::Publishing)
            }
            Role::Push => Watching::prepare(gateway, visitor, room).map(Self::Watching),
        }
    }

    async fn begin(self, gateway: &Gateway, negotiated: Negotiated) -> Result<Begun, Problem> {
        // It may last as long as it is not ended.
        let term = Term { lifetime: Lifetime { most: None, ..Lifetime::new(&gateway.context.config.limits) }, time_left: None };
        match self {
            Self::Publishing(publishing) => publishing.begin(gateway, negotiated, term).await,
            Self::Watching(watching) => watching.begin(gateway, negotiated, term),
        }
    }
}

async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(act).await.map_err(|_| Failure::new("the session could not be negotiated: the log says why"))
}

/// Returns the failure of an attempt whose link was asked to end.
fn stopped() -> Failure {
    Failure::new("the link was ended")
}

/// Returns a problem of this gateway, before the other server is called.
fn local(problem: Problem) -> Failure {
    let is_of_room = matches!(problem.kind, ProblemKind::RoomEmpty | ProblemKind::RoomFull | ProblemKind::RoomTaken);
    Failure { retry: if is_of_room { Retry::Soon } else { Retry::Later(Duration::ZERO) }, detail: problem.detail }
}

/// Returns the end of a session, in words. The other server was called, so the time until the next
/// attempt grows unless the connection has lasted, whoever ended it.
fn ended(reason: EndReason) -> Failure {
    let detail = match reason {
        EndReason::NeverConnected => {
            "the other server has answered, and no connection for media came about within limits.connect_s: one of the two must be reachable by \
             UDP at an address that it has told the other"
        }
        EndReason::ByPeer => "the other server has ended the connection",
        EndReason::Vanished => "the other server is not heard any more",
        EndReason::Idle => "no media came for limits.idle_s",
        EndReason::Requested => "the session was ended here",
        EndReason::PublisherEnded => "the publisher of the room has ended",
        other => return Failure::new(format!("the session has ended ({})", other.label())),
    };
    Failure::new(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_between_attempts_grows_once_the_other_server_was_called() {
        for reason in EndReason::ALL {
            assert_eq!(ended(reason).retry, Retry::Later(Duration::ZERO), "{}", reason.label());
        }
        let empty = local(Problem::new(ProblemKind::RoomEmpty, "nobody publishes"));
        assert_eq!(empty.retry, Retry::Soon);
        assert_eq!(local(Problem::new(ProblemKind::TooManySessions, "full")).retry, Retry::Later(Duration::ZERO));
    }
}
