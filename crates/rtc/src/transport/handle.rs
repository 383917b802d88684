//! The handle of the media thread, and the commands that it sends there.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::session::{Session, SoundListener};
use ooblex_gateway::ids::SessionId;
use ooblex_gateway::labels::ByeReason;
use ooblex_gateway::track::TrackOutput;

/// Capacity of the command queue: some seconds of frames of all sessions.
pub(super) const COMMAND_QUEUE_LENGTH: usize = 8192;
/// Time that sessions have to receive the message `bye` when the gateway stops.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_millis(1500);

/// A command for the media thread.
pub(super) enum Command {
    /// Takes a session that was negotiated, and hands it the viewers of a publisher that has ended.
    Add(Box<Session>, Option<SessionId>),
    /// Hands the output of the track of a publisher to a session that receives it.
    Track {
        /// The session of the track.
        publisher: SessionId,
        /// The session that the output is for.
        receiver: SessionId,
        /// The output.
        output: TrackOutput,
    },
    /// Passes the sound of a publisher to a listener.
    Listen(SessionId, SoundListener),
    /// Ends a session with the message `bye`.
    End(SessionId, ByeReason),
    /// Reports whether a session was not heard for a time.
    IsSilent(SessionId, Duration, oneshot::Sender<bool>),
    /// Ends a session that was not heard for a time. Reports whether that was so.
    EndSilent(SessionId, Duration, oneshot::Sender<bool>),
    /// Ends all sessions with the message `bye`, then the thread, and reports that it has ended.
    Stop(ByeReason, oneshot::Sender<()>),
}

/// A handle of the media thread. All clones belong to one thread.
#[derive(Clone)]
pub struct TransportHandle {
    commands: mpsc::Sender<Command>,
}

impl TransportHandle {
    pub(super) fn new(commands: mpsc::Sender<Command>) -> Self {
        Self { commands }
    }

    /// Adds a session that was negotiated, so that datagrams reach it. `former`: the publisher that
    /// has ended, and whose viewers it gets. Returns false if the queue is full; the session is
    /// dropped then.
    pub fn add(&self, session: Session, former: Option<SessionId>) -> bool {
        self.commands.try_send(Command::Add(Box::new(session), former)).is_ok()
    }

    /// Hands the output of the track of `publisher` to a session that receives it. Returns false if the
    /// queue is full; the output is lost then.
    pub fn track(&self, publisher: SessionId, receiver: SessionId, output: TrackOutput) -> bool {
        self.commands.try_send(Command::Track { publisher, receiver, output }).is_ok()
    }

    /// Passes the sound of a publisher to a listener, as long as both want. Returns false if the queue
    /// is full.
    pub fn listen(&self, publisher: SessionId, listener: SoundListener) -> bool {
        self.commands.try_send(Command::Listen(publisher, listener)).is_ok()
    }

    /// Ends a session without waiting. Returns false if the queue is full.
    pub fn try_end(&self, session: SessionId, why: ByeReason) -> bool {
        self.commands.try_send(Command::End(session, why)).is_ok()
    }

    /// Returns whether a session runs whose client was not heard for `silence`.
    pub async fn is_silent(&self, session: SessionId, silence: Duration) -> bool {
        let (done, told) = oneshot::channel();
        self.commands.try_send(Command::IsSilent(session, silence, done)).is_ok() && told.await.unwrap_or(false)
    }

    /// Ends a session whose client was not heard for `silence`. Returns whether that was so.
    pub async fn end_silent(&self, session: SessionId, silence: Duration) -> bool {
        let (done, ended) = oneshot::channel();
        self.commands.try_send(Command::EndSilent(session, silence, done)).is_ok() && ended.await.unwrap_or(false)
    }

    /// Ends all sessions with the message `bye`, then the thread. Waits for that at most twice
    /// `STOP_TIMEOUT`.
    pub async fn stop(&self, why: ByeReason) {
        let (done, stopped) = oneshot::channel();
        let stop = async {
            if self.commands.send(Command::Stop(why, done)).await.is_ok() {
                _ = stopped.await;
            }
        };
        _ = tokio::time::timeout(2 * STOP_TIMEOUT, stop).await;
    }
}
