//! The loop of the media thread: datagrams, commands and timers of all sessions.

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::Input;
use str0m::net::{DatagramRecv, Protocol, Receive, Transmit};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error, info, warn};

use super::dialled::DialledDatagram;
use super::directory::Directory;
use super::entry::{Cause, Datagram, Entry, SessionLimits, notice};
use super::handle::{Command, STOP_TIMEOUT};
use super::observer::SessionObserver;
use super::socket::{MAX_DATAGRAM_BYTES, RECEIVE_BUFFER_BYTES, Received};
use super::sockets::Sockets;
use super::tcp::TcpDatagram;
use crate::candidates::Candidates;
use crate::crypto;
use crate::paths::Arrival;
use crate::rate_limit::Decision;
use crate::remote::Remote;
use crate::session::{Role, Session, SoundListener};
use crate::stun;
use crate::traffic::Kind;
use ooblex_gateway::ids::SessionId;
use ooblex_gateway::labels::{ByeReason, EndReason};
use ooblex_gateway::metrics::Metrics;
use ooblex_gateway::track::{TrackHandle, TrackOutput};
use ooblex_gateway::watchdog::MAX_TURN_INTERVAL;

/// Datagrams that are read, or commands that are followed, before the loop looks at anything else.
const BATCH_LENGTH: usize = 256;

/// All sessions of the process, on the media thread.
pub(super) struct MediaLoop {
    sockets: Sockets,
    /// The addresses that answers contain, for the log.
    candidates: Candidates,
    limits: SessionLimits,
    sessions: HashMap<SessionId, Entry>,
    directory: Directory,
    /// The audience of each publisher that has one.
    audiences: HashMap<SessionId, Audience>,
    /// Viewers stay when their publisher ends, for one that replaces it. Somebody else ends them.
    keeps_viewers: bool,
    timers: BTreeSet<Timer>,
    observer: Arc<dyn SessionObserver>,
    metrics: Arc<Metrics>,
    stopping: Option<Stopping>,
}

/// Those who get the sound of a publisher.
#[derive(Default)]
struct Audience {
    viewers: Vec<SessionId>,
    listeners: Vec<SoundListener>,
}

/// The next timeout of a session. Timers are ordered by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Timer {
    at: Instant,
    id: SessionId,
}

/// The gateway stops: the sessions may receive `bye` until the deadline.
struct Stopping {
    deadline: Instant,
    done: oneshot::Sender<()>,
}

impl MediaLoop {
    pub(super) fn new(
        sockets: Sockets,
        candidates: Candidates,
        limits: SessionLimits,
        keeps_viewers: bool,
        observer: Arc<dyn SessionObserver>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            sockets,
            candidates,
            limits,
            sessions: HashMap::new(),
            directory: Directory::default(),
            audiences: HashMap::new(),
            keeps_viewers,
            timers: BTreeSet::new(),
            observer,
            metrics,
            stopping: None,
        }
    }

    /// Runs until the command [`Command::Stop`]. `on_turn` is called at least every
    /// [`MAX_TURN_INTERVAL`].
    pub(super) async fn run(&mut self, mut commands: mpsc::Receiver<Command>, on_turn: impl Fn()) {
        let mut buffer = vec![0; RECEIVE_BUFFER_BYTES];
        loop {
            on_turn();
            let is_over = |stopping: &mut Stopping| self.sessions.is_empty() || Instant::now() >= stopping.deadline;
            if let Some(Stopping { done, .. }) = self.stopping.take_if(is_over) {
                _ = done.send(());
                return;
            }
            let next_turn = Instant::now() + MAX_TURN_INTERVAL;
            let timer = self.timers.first().map_or(next_turn, |timer| next_turn.min(timer.at));
            tokio::select! {
                command = commands.recv() => {
                    let mut next = command;
                    for _ in 0..BATCH_LENGTH {
                        let Some(command) = next.take() else { break };
                        self.guarded(|media| media.on_command(command));
                        next = commands.try_recv().ok();
                    }
                    if let Some(command) = next {
                        self.guarded(|media| media.on_command(command));
                    }
                }
                () = self.sockets.udp.readable() => {
                    let mut count = 0;
                    while count < BATCH_LENGTH {
                        let Some(Received { source, local, bytes, datagram_bytes }) = self.sockets.udp.try_receive(&mut buffer) else { break };
                        for bytes in buffer[..bytes].chunks(datagram_bytes) {
                            if bytes.len() > MAX_DATAGRAM_BYTES {
                                self.metrics.network.datagrams.on_stray();
                                continue;
                            }
                            let datagram = Datagram { kind: Kind::of(bytes), source: Remote::udp(source), local, bytes: bytes.len() };
                            self.guarded(|media| media.on_datagram(datagram, bytes));
                        }
                        count += bytes.div_ceil(datagram_bytes).max(1);
                    }
                }
                datagram = self.sockets.tcp.next() => self.on_tcp_datagram(&datagram),
                datagram = self.sockets.dialled.next() => self.guarded(|media| media.on_dialled_datagram(&datagram)),
                () = tokio::time::sleep_until(timer.into()) => self.guarded(Self::on_timers),
            }
        }
    }

    /// Catches a panic, so that none ends the thread that all sessions share.
    fn guarded(&mut self, act: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| act(self))).is_err() {
            error!("the media thread panicked and continues");
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            // The browser of a session that comes while the gateway stops finds no connection.
            Command::Add(session, _) if self.stopping.is_some() => self.observer.ended(session.id(), EndReason::Requested),
            Command::Add(mut session, former) => {
                let (id, now) = (session.id(), Instant::now());
                let socket = session.take_socket();
                let is_dialled = socket.is_some();
                if let Some(Err(error)) = socket.map(|socket| self.sockets.dialled.add(id, socket)) {
                    warn!(session = %id, %error, "the socket of a session can not be used");
                    return self.observer.ended(id, EndReason::Failed);
                }
                if let Role::Viewer(publisher) = session.role()
                    && !self.join(id, publisher)
                {
                    self.sockets.dialled.close(id);
                    return self.observer.ended(id, EndReason::PublisherEnded);
                }
                // Nothing for a session with a socket of its own comes to the others.
                if !is_dialled {
                    self.directory.add(session.ice_user(), id);
                }
                let track = session.track().clone();
                self.sessions.insert(id, Entry::new(*session, self.limits, now));
                self.step(id, Cause::Own, Session::on_timeout);
                if let Some(former) = former {
                    self.hand_over(former, id, &track);
                }
            }
            Command::Track { publisher, receiver, output } => {
                // A viewer that was handed over gets nothing more of its former publisher.
                if self.sessions.get(&receiver).is_some_and(|entry| entry.session.role().is_served_by(publisher)) {
                    self.step(receiver, Cause::Own, |session, now, send| session.on_track(now, output, send));
                }
            }
            Command::Listen(publisher, listener) => {
                if let Some(audience) = self.audience(publisher) {
                    // A room has one recording. The listener of an earlier one learns of its end by the
                    // next sound only.
                    audience.listeners = vec![listener];
                }
            }
            Command::End(id, why) => self.step(id, Cause::Own, |session, now, send| session.close(now, why, send)),
            // The client that asked may have gone.
            Command::IsSilent(id, silence, done) => _ = done.send(self.is_silent(id, silence)),
            Command::EndSilent(id, silence, done) => {
                let is_silent = self.is_silent(id, silence);
                if is_silent {
                    self.remove(id, EndReason::Vanished);
                }
                _ = done.send(is_silent);
            }
            Command::Stop(why, done) => {
                self.stopping = Some(Stopping { deadline: Instant::now() + STOP_TIMEOUT, done });
                let ids: Vec<_> = self.sessions.keys().copied().collect();
                ids.into_iter().for_each(|id| self.on_command(Command::End(id, why)));
            }
        }
    }

    fn is_silent(&self, id: SessionId, silence: Duration) -> bool {
        self.sessions.get(&id).is_some_and(|entry| entry.silence(Instant::now()) >= silence)
    }

    /// Notes a viewer of a publisher. Returns false if the publisher is not running.
    fn join(&mut self, viewer: SessionId, publisher: SessionId) -> bool {
        self.audience(publisher).map(|audience| audience.viewers.push(viewer)).is_some()
    }

    /// Returns the audience of a publisher, which is about to have one. `None` if the publisher is not
    /// running.
    fn audience(&mut self, publisher: SessionId) -> Option<&mut Audience> {
        self.sessions.get_mut(&publisher)?.session.set_heard(true);
        Some(self.audiences.entry(publisher).or_default())
    }

    /// Hands the viewers of a publisher that has ended over to another one.
    fn hand_over(&mut self, former: SessionId, publisher: SessionId, track: &TrackHandle) {
        for viewer in self.audiences.remove(&former).unwrap_or_default().viewers {
            if let Some(entry) = self.sessions.get_mut(&viewer) {
                entry.session.follow(publisher, track.clone());
                self.join(viewer, publisher);
            }
        }
    }

    /// Forgets a viewer of a publisher.
    fn leave(&mut self, viewer: SessionId, publisher: SessionId) {
        let Some(audience) = self.audiences.get_mut(&publisher) else { return };
        audience.viewers.retain(|id| *id != viewer);
        self.review_audience(publisher);
    }

    /// Ends the listeners of a publisher that has ended. Its viewers may get another one.
    fn forget_listeners(&mut self, publisher: SessionId) {
        if let Some(audience) = self.audiences.get_mut(&publisher) {
            audience.listeners.clear();
            self.review_audience(publisher);
        }
    }

    /// Keeps the sound of a publisher only while somebody hears it.
    fn review_audience(&mut self, publisher: SessionId) {
        let is_empty = |audience: &Audience| audience.viewers.is_empty() && audience.listeners.is_empty();
        if self.audiences.get(&publisher).is_some_and(is_empty) {
            self.audiences.remove(&publisher);
            if let Some(entry) = self.sessions.get_mut(&publisher) {
                entry.session.set_heard(false);
            }
        }
    }

    /// Passes the sound of a publisher on to its audience.
    fn pass_sound(&mut self, publisher: SessionId) {
        let Some(entry) = self.sessions.get_mut(&publisher) else { return };
        for packet in entry.session.take_sound() {
            let Some(audience) = self.audiences.get_mut(&publisher) else { return };
            let before = audience.listeners.len();
            audience.listeners.retain(|listener| listener(packet.sound()));
            let has_fewer = audience.listeners.len() < before;
            for viewer in audience.viewers.clone() {
                self.step(viewer, Cause::Own, |session, now, send| session.on_sound(now, &packet, send));
            }
            if has_fewer {
                self.review_audience(publisher);
            }
        }
    }

    /// Handles a datagram of a TCP connection. Closes the connection unless it belongs to a session
    /// then.
    fn on_tcp_datagram(&mut self, TcpDatagram { source, local, bytes }: &TcpDatagram) {
        let remote = Remote::tcp(*source);
        let datagram = Datagram { kind: Kind::of(bytes), source: remote, local: Some(*local), bytes: bytes.len() };
        self.guarded(|media| media.on_datagram(datagram, bytes));
        if self.directory.at(remote).is_none() {
            self.sockets.tcp.close(*source);
        }
    }

    /// Handles a datagram that came to the socket of a session.
    fn on_dialled_datagram(&mut self, DialledDatagram { session, source, bytes }: &DialledDatagram) {
        let (now, id, source) = (Instant::now(), *session, Remote::udp(*source));
        let datagram = Datagram { kind: Kind::of(bytes), source, local: None, bytes: bytes.len() };
        let Ok(contents) = DatagramRecv::try_from(bytes.as_slice()) else { return self.metrics.network.datagrams.on_stray() };
        let Some(receive) = self.admit(now, id, datagram, contents) else { return };
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        if !entry.has_address(source) && entry.arrive(now, source) == Arrival::Refused {
            return self.metrics.network.datagrams.on_refused();
        }
        self.handle(now, id, datagram, receive);
    }

    fn on_datagram(&mut self, datagram: Datagram, bytes: &[u8]) {
        let Datagram { kind, source, .. } = datagram;
        let Ok(contents) = DatagramRecv::try_from(bytes) else { return self.metrics.network.datagrams.on_stray() };
        let now = Instant::now();
        let known = self.directory.at(source);
        let Some(id) = self.recipient(now, kind, source, known, bytes) else { return self.metrics.network.datagrams.on_stray() };
        let Some(receive) = self.admit(now, id, datagram, contents) else { return };
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        if known != Some(id) {
            let arrival = if entry.has_address(source) { Arrival::Remembered { forgotten: None } } else { entry.arrive(now, source) };
            match arrival {
                Arrival::Refused => return self.metrics.network.datagrams.on_refused(),
                Arrival::Remembered { forgotten } => {
                    if let Some(address) = forgotten {
                        self.directory.remove_address(address, id);
                        self.close_unused(address);
                    }
                }
            }
            match known {
                Some(_) => self.directory.claim(source, id),
                None => _ = self.directory.assign(source, id),
            }
        }
        let is_own = self.handle(now, id, datagram, receive);
        // The browser of this session is at the address, and the one of another session is not.
        if is_own
            && kind.is_fresh()
            && self.directory.claimant(source).is_some()
            && let Some(former) = self.directory.assign(source, id)
        {
            self.remove(former, EndReason::Vanished);
        }
    }

    /// Decides whether a session handles a datagram; counts it otherwise.
    fn admit<'a>(&mut self, now: Instant, id: SessionId, datagram: Datagram, contents: DatagramRecv<'a>) -> Option<Receive<'a>> {
        let (Datagram { kind, source, bytes, .. }, counts) = (datagram, &self.metrics.network.datagrams);
        let Some(entry) = self.sessions.get_mut(&id) else {
            counts.on_stray();
            return None;
        };
        // The integrity of an ICE check is verified within a limit.
        if kind == Kind::Stun && !entry.admits_stun(now, source, bytes) {
            counts.on_refused();
            return None;
        }
        // The endpoint knows one address of each protocol. Every datagram came there, whichever address
        // of the machine it was sent to.
        let receive = |destination| Receive { proto: source.proto, source: source.address, destination, contents };
        let input = entry.session.local(source.proto).map(|destination| Input::Receive(now, receive(destination)));
        let Some(Input::Receive(_, receive)) = input.filter(|input| entry.session.accepts(input)) else {
            counts.on_stray();
            return None;
        };
        match entry.admit(now, kind, bytes) {
            Decision::Accept => return Some(receive),
            Decision::Refuse => counts.on_refused(),
            Decision::RefuseAndNotify => self.refuse(id),
        }
        None
    }

    /// Hands an admitted datagram to its session. Returns whether it was authenticated.
    fn handle(&mut self, now: Instant, id: SessionId, datagram: Datagram, receive: Receive<'_>) -> bool {
        let authenticated_before = crypto::authenticated();
        if let Some(entry) = self.sessions.get_mut(&id) {
            entry.on_received(now, datagram);
        }
        self.step(id, Cause::Datagram { local: datagram.local }, |session, now, send| session.on_datagram(now, receive, send));
        self.pass_sound(id);
        let is_own = crypto::authenticated() != authenticated_before;
        let Some(entry) = self.sessions.get_mut(&id) else { return false };
        entry.on_handled(now, datagram, is_own, &self.metrics);
        is_own
    }

    /// Returns the session that a datagram is for. `known`: the session that its source address
    /// belongs to.
    fn recipient(&self, now: Instant, kind: Kind, source: Remote, known: Option<SessionId>, bytes: &[u8]) -> Option<SessionId> {
        // An ICE check is for the session that it names: a sender that forges only the address does
        // not know the name. Any other datagram is for the session that the address belongs to, or
        // for the one that claims it, unless it is media of the former.
        let named = || self.directory.named(stun::receiver(bytes)?);
        let has_source = |id| self.sessions.get(&id).is_some_and(|entry| entry.has_source(kind));
        let holder = || self.directory.claimant(source).filter(|_| !known.is_some_and(has_source)).or(known);
        let id = if kind == Kind::Stun { named() } else { holder() }?;
        // A session that has vanished leaves its address to the next session that comes from there
        // with an authenticated packet. A session that is present keeps it, because a sender's
        // address can be forged.
        let is_silent = |id| self.sessions.get(&id).is_some_and(|entry| entry.is_silent(now));
        let is_taken = known.is_some_and(|former| former != id && !is_silent(former));
        (!is_taken).then_some(id)
    }

    /// Tells a session that it sends too much.
    fn refuse(&mut self, id: SessionId) {
        self.metrics.network.datagrams.on_refused();
        let problem = self.limits.exceeded();
        debug!(session = %id, detail = problem.detail, "datagrams refused");
        let message = TrackOutput::Message { text: notice(&problem), may_be_missed: true };
        self.step(id, Cause::Own, |session, now, send| session.on_track(now, message, send));
    }

    fn on_timers(&mut self) {
        let now = Instant::now();
        while let Some(timer) = self.timers.first().copied().filter(|timer| timer.at <= now) {
            self.timers.remove(&timer);
            self.step(timer.id, Cause::Own, Session::on_timeout);
        }
    }

    /// Runs one step of a session, and takes note of its connection, its next timeout or its end.
    fn step(
        &mut self,
        id: SessionId,
        cause: Cause,
        act: impl FnOnce(&mut Session, Instant, &mut dyn FnMut(Transmit)) -> Result<Instant, EndReason>,
    ) {
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        let next = entry.step(cause, &self.sockets, &self.metrics, act);
        if entry.take_connected() {
            self.observer.connected(id);
        }
        self.timers.remove(&Timer { at: entry.timer, id });
        match next {
            Ok(at) => {
                entry.timer = at;
                self.timers.insert(Timer { at, id });
            }
            Err(reason) => self.remove(id, reason),
        }
    }

    /// Closes the TCP connection of an address that belongs to no session any more.
    fn close_unused(&mut self, remote: Remote) {
        if remote.proto == Protocol::Tcp && self.directory.at(remote).is_none() {
            self.sockets.tcp.close(remote.address);
        }
    }

    fn remove(&mut self, id: SessionId, reason: EndReason) {
        let Some(entry) = self.sessions.remove(&id) else { return };
        let reason = entry.session.reason(reason);
        if let Role::Viewer(publisher) = entry.session.role() {
            self.leave(id, publisher);
        }
        if self.keeps_viewers {
            self.forget_listeners(id);
        } else {
            for viewer in self.audiences.remove(&id).unwrap_or_default().viewers {
                self.on_command(Command::End(viewer, ByeReason::PublisherEnded));
            }
        }
        self.directory.remove(entry.session.ice_user(), entry.addresses(), id);
        entry.addresses().for_each(|address| self.close_unused(address));
        self.sockets.dialled.close(id);
        self.timers.remove(&Timer { at: entry.timer, id });
        self.observer.ended(id, reason);
        let now = Instant::now();
        let failed = entry.session.failed_stage(now);
        self.metrics.set_ups.on_end(reason, failed, entry.session.connected_at().map(|at| now.duration_since(at)));
        if let Some(stage) = failed {
            warn!(session = %id, reason = reason.label(), candidates = ?self.candidates.current(), "session never connected: {}", stage.explain());
        } else {
            info!(session = %id, reason = reason.label(), "session ended");
        }
    }
}
