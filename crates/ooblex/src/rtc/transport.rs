//! The media socket: one UDP port for all sessions, and the thread that owns it.
//!
//! It finds the session that a datagram is for, tells sessions the time, and sends what they have to send. It runs on a
//! thread of its own, so that neither HTTP nor codecs hold up packets.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use str0m::Input;
use str0m::net::{DatagramRecv, Protocol, Receive, Transmit};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error, info, warn};

use crate::config;
use crate::data_channel;
use crate::ids::SessionId;
use crate::labels::{ByeReason, EndReason};
use crate::metrics::Metrics;
use crate::problem::{Problem, ProblemKind};
use crate::rtc::crypto;
use crate::rtc::media_budget::MediaBudget;
use crate::rtc::paths::{Arrival, Paths};
use crate::rtc::rate_limit::{Decision, Rates};
use crate::rtc::session::Session;
use crate::rtc::stun;
use crate::rtc::traffic::{Kind, Traffic};
use crate::sessions::Sessions;
use crate::track::TrackOutput;
use crate::watchdog::{Heartbeat, TURN_EVERY};

/// Buffer of the socket in either direction, bytes: a burst of keyframes of many sessions.
const SOCKET_BUFFER: usize = 4 << 20;
/// Commands that wait for the thread: some seconds of frames of all sessions.
const COMMANDS: usize = 8192;
/// Datagrams that are read, or commands that are followed, before anything else is looked at.
const BATCH: usize = 256;
/// Largest datagram that is read; WebRTC stays below 1500 bytes.
const MAX_DATAGRAM: usize = 2048;
/// Of a session that is there something comes several times in this time.
const SILENT_AFTER: Duration = Duration::from_secs(1);
/// When the gateway stops, sessions have this long to hear the goodbye.
const STOP_WITHIN: Duration = Duration::from_millis(1500);

/// A media socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The port is taken, or the address is none of this machine's.
    #[error("media.listen: UDP {address} can not be opened ({source}): choose another port with --media or OOBLEX_MEDIA__LISTEN")]
    Bind {
        /// What was to be opened.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The machine's own addresses can not be listed.
    #[error("the addresses of this machine can not be listed ({0}): set media.advertise")]
    Addresses(io::Error),
}

/// What the media thread is told.
enum Command {
    Add(Box<Session>),
    Track(SessionId, TrackOutput),
    End(SessionId, ByeReason),
    Stop(ByeReason, oneshot::Sender<()>),
}

/// Why a session has its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It has something to do.
    Own,
    /// A datagram came that may be forged. It is charged for what it costs only when it was authenticated.
    Datagram,
}

/// The way to the media thread. Clones lead to the same one.
#[derive(Clone)]
pub struct TransportHandle {
    commands: mpsc::Sender<Command>,
}

impl TransportHandle {
    /// A session was negotiated; from now on datagrams reach it. `false` when it could not be taken and is gone.
    pub fn add(&self, session: Session) -> bool {
        self.commands.try_send(Command::Add(Box::new(session))).is_ok()
    }

    /// A track has something for its browser. `false` when it could not be taken and is lost.
    pub fn track(&self, session: SessionId, output: TrackOutput) -> bool {
        self.commands.try_send(Command::Track(session, output)).is_ok()
    }

    /// The session is to end.
    pub async fn end(&self, session: SessionId) {
        _ = self.commands.send(Command::End(session, ByeReason::Ended)).await;
    }

    /// Ends a session as soon as the media thread comes to it. Does not block. Returns false if the media thread is too busy to be told.
    pub(crate) fn try_end(&self, session: SessionId, why: ByeReason) -> bool {
        self.commands.try_send(Command::End(session, why)).is_ok()
    }

    /// Ends all sessions with a goodbye, then the thread. It waits for that no longer than sessions may take to hear it.
    pub(crate) async fn stop(&self, goodbye: ByeReason) {
        let (done, stopped) = oneshot::channel();
        let stop = async {
            if self.commands.send(Command::Stop(goodbye, done)).await.is_ok() {
                _ = stopped.await;
            }
        };
        _ = tokio::time::timeout(2 * STOP_WITHIN, stop).await;
    }
}

/// The media socket before its thread runs.
pub struct Transport {
    socket: std::net::UdpSocket,
    candidates: Vec<SocketAddr>,
}

impl Transport {
    /// Opens the socket and finds the addresses to tell browsers.
    ///
    /// # Errors
    /// When the port is taken or the machine's addresses can not be listed.
    pub fn bind(config: &config::Media) -> Result<Self, TransportError> {
        let bind = |source| TransportError::Bind { address: config.listen, source };
        let socket = open(config.listen).map_err(bind)?;
        let port = socket.local_addr().map_err(bind)?.port();
        let addresses = match config.advertise.as_slice() {
            [] => own_addresses(config.listen.ip()).map_err(TransportError::Addresses)?,
            advertised => advertised.to_vec(),
        };
        let candidates = addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
        Ok(Self { socket, candidates })
    }

    /// The addresses that browsers are told, best first; at least one.
    pub fn candidates(&self) -> &[SocketAddr] {
        &self.candidates
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn run(
        self,
        limits: &config::Limits,
        sessions: Arc<Sessions>,
        metrics: Arc<Metrics>,
        heartbeat: &Arc<Heartbeat>,
    ) -> io::Result<(TransportHandle, JoinHandle<()>)> {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let rates = Rates { packets: limits.session_packets, kbps: limits.session_kbps };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let candidates = self.candidates;
        let local = *candidates.first().ok_or_else(|| io::Error::other("no address to advertise"))?;
        let media_time = Duration::from_millis(limits.media_ms.into());
        let beating = heartbeat.begin();
        let thread = std::thread::Builder::new().name("media".into()).spawn(move || {
            runtime.block_on(async {
                match UdpSocket::from_std(self.socket) {
                    Ok(socket) => {
                        let mut media = MediaLoop::new(socket, local, candidates, rates, media_time, sessions, metrics);
                        media.run(receiver, || beating.turn()).await;
                        beating.stop();
                    }
                    Err(error) => error!(%error, "the media socket can not be used"),
                }
            });
        })?;
        Ok((TransportHandle { commands }, thread))
    }
}

fn open(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::DGRAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // The system may grant less; that is its right.
    _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Addresses at which a socket that listens on `listen` is reached: those of the network first, loopback last.
fn own_addresses(listen: IpAddr) -> io::Result<Vec<IpAddr>> {
    if !listen.is_unspecified() {
        return Ok(vec![listen]);
    }
    let usable = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_link_local(),
        IpAddr::V6(ip) => listen.is_ipv6() && !ip.is_unicast_link_local() && !ip.is_loopback(),
    };
    let mut addresses: Vec<_> = if_addrs::get_if_addrs()?.into_iter().map(|interface| interface.ip()).filter(usable).collect();
    addresses.sort_by_key(|ip| (ip.is_loopback(), ip.is_ipv6()));
    addresses.dedup();
    if addresses.is_empty() {
        addresses.push(IpAddr::from([127, 0, 0, 1]));
    }
    Ok(addresses)
}

struct MediaLoop {
    socket: UdpSocket,
    is_v6: bool,
    /// What each session may send.
    rates: Rates,
    /// What each session may take of this thread in a second.
    media_time: Duration,
    /// The local address that the endpoints know. Whatever address a datagram was sent to, it came to this socket.
    local: SocketAddr,
    /// The addresses that browsers are told.
    candidates: Vec<SocketAddr>,
    sessions: HashMap<SessionId, Entry>,
    by_address: HashMap<SocketAddr, SessionId>,
    /// For datagrams from addresses that are not known yet.
    by_ice_user: HashMap<String, SessionId>,
    timers: BTreeSet<(Instant, SessionId)>,
    registry: Arc<Sessions>,
    metrics: Arc<Metrics>,
    /// The gateway stops: until when sessions may hear the goodbye, and who waits for that.
    stopping: Option<(Instant, oneshot::Sender<()>)>,
}

struct Entry {
    session: Session,
    timer: Instant,
    paths: Paths,
    traffic: Traffic,
    budget: MediaBudget,
    is_connected: bool,
    /// When something came last that was its own.
    heard: Instant,
}

impl MediaLoop {
    fn new(
        socket: UdpSocket,
        local: SocketAddr,
        candidates: Vec<SocketAddr>,
        rates: Rates,
        media_time: Duration,
        registry: Arc<Sessions>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let is_v6 = socket.local_addr().is_ok_and(|address| address.is_ipv6());
        Self {
            socket,
            is_v6,
            local,
            rates,
            media_time,
            candidates,
            sessions: HashMap::new(),
            by_address: HashMap::new(),
            by_ice_user: HashMap::new(),
            timers: BTreeSet::new(),
            registry,
            metrics,
            stopping: None,
        }
    }

    /// Until it is told to stop. `on_turn` is called at least every [`TURN_EVERY`].
    async fn run(&mut self, mut commands: mpsc::Receiver<Command>, on_turn: impl Fn()) {
        let mut buffer = [0; MAX_DATAGRAM];
        loop {
            on_turn();
            if let Some((_, done)) = self.stopping.take_if(|(until, _)| self.sessions.is_empty() || Instant::now() >= *until) {
                _ = done.send(());
                return;
            }
            let next_turn = Instant::now() + TURN_EVERY;
            let timer = self.timers.first().map_or(next_turn, |(at, _)| next_turn.min(*at));
            tokio::select! {
                command = commands.recv() => {
                    let mut next = command;
                    for _ in 0..BATCH {
                        let Some(command) = next.take() else { break };
                        self.guarded(|media| media.on_command(command));
                        next = commands.try_recv().ok();
                    }
                    if let Some(command) = next {
                        self.guarded(|media| media.on_command(command));
                    }
                }
                _ = self.socket.readable() => {
                    for _ in 0..BATCH {
                        let Ok((length, source)) = self.socket.try_recv_from(&mut buffer) else { break };
                        self.guarded(|media| media.on_datagram(source, &buffer[..length]));
                    }
                }
                () = tokio::time::sleep_until(timer.into()) => self.guarded(Self::on_timers),
            }
        }
    }

    /// No panic ends the thread that all sessions share.
    fn guarded(&mut self, act: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| act(self))).is_err() {
            error!("the media thread panicked and goes on");
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            // Whoever comes while it stops is told by the end of the connection.
            Command::Add(session) if self.stopping.is_some() => self.registry.remove(session.id()),
            Command::Add(session) => {
                let (id, now) = (session.id(), Instant::now());
                self.by_ice_user.insert(session.ice_user().to_string(), id);
                self.sessions.insert(
                    id,
                    Entry {
                        traffic: Traffic::new(self.rates, session.sources(), now),
                        session: *session,
                        timer: now,
                        paths: Paths::new(now),
                        budget: MediaBudget::new(self.media_time, now),
                        is_connected: false,
                        heard: now,
                    },
                );
                self.with_session(id, Turn::Own, Session::on_timeout);
            }
            Command::Track(id, output) => self.with_session(id, Turn::Own, |session, now, send| session.on_track(now, output, send)),
            Command::End(id, goodbye) => self.with_session(id, Turn::Own, |session, now, send| session.close(now, goodbye, send)),
            Command::Stop(goodbye, done) => {
                self.stopping = Some((Instant::now() + STOP_WITHIN, done));
                let ids: Vec<_> = self.sessions.keys().copied().collect();
                ids.into_iter().for_each(|id| self.on_command(Command::End(id, goodbye)));
            }
        }
    }

    fn on_datagram(&mut self, source: SocketAddr, bytes: &[u8]) {
        let source = SocketAddr::new(source.ip().to_canonical(), source.port());
        let Ok(contents) = DatagramRecv::try_from(bytes) else { return self.metrics.on_stray_datagram() };
        let receive = Receive { proto: Protocol::Udp, source, destination: self.local, contents };
        let now = Instant::now();
        let input = Input::Receive(now, receive);
        let kind = Kind::of(bytes);
        let known = self.by_address.get(&source).copied();
        let named = (kind == Kind::Stun).then(|| self.by_ice_user.get(stun::receiver(bytes)?).copied()).flatten();
        // A check of ICE is for the session that it names: whoever forges only its address does not know the name. Everything else is for the
        // session that the address belongs to.
        let accepts = |id: &SessionId| self.sessions.get(id).is_some_and(|entry| entry.session.accepts(&input));
        let accepted = if kind == Kind::Stun { named } else { known }.filter(accepts);
        // A session that has vanished leaves its address to whoever gets it next. One that is there does not: a sender's address can be forged.
        let is_taken = |id: SessionId| known.is_some_and(|former| former != id && !self.is_silent(former, now));
        let accepted = accepted.filter(|id| !is_taken(*id));
        let (Some(id), Input::Receive(_, receive)) = (accepted, input) else { return self.metrics.on_stray_datagram() };
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        // Before anything is decrypted for it.
        match entry.traffic.admit(now, kind, bytes.len()) {
            Decision::Accept => {}
            Decision::Refuse => return self.metrics.on_refused_datagram(),
            Decision::RefuseAndNotify => return self.refuse(id),
        }
        if known != Some(id) {
            match entry.paths.arrive(now, source) {
                Arrival::Refused => return self.metrics.on_refused_datagram(),
                Arrival::Remembered { forgotten } => {
                    // Another session may have come to that address since.
                    if let Some(address) = forgotten.filter(|address| self.by_address.get(address) == Some(&id)) {
                        self.by_address.remove(&address);
                    }
                }
            }
            self.by_address.insert(source, id);
            if let Some(former) = known {
                self.remove(former, EndReason::Vanished);
            }
        }
        let authenticated_before = crypto::authenticated();
        if kind != Kind::Stun
            && let Some(entry) = self.sessions.get_mut(&id)
        {
            entry.paths.on_received(now, source, bytes.len());
        }
        self.with_session(id, Turn::Datagram, |session, now, send| session.on_datagram(now, receive, send));
        let is_own = crypto::authenticated() != authenticated_before;
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        if is_own {
            entry.traffic.on_authenticated(kind, bytes.len());
            if kind.is_fresh() {
                entry.paths.prove(source);
            }
        } else if kind != Kind::Stun && entry.is_connected {
            entry.traffic.on_unauthenticated(now, kind, bytes.len());
            self.metrics.on_unauthenticated_datagram();
        }
        if is_own || !entry.is_connected {
            entry.heard = now;
        }
    }

    /// Whether nothing has come of the session for a while.
    fn is_silent(&self, id: SessionId, now: Instant) -> bool {
        self.sessions.get(&id).is_some_and(|entry| now.saturating_duration_since(entry.heard) > SILENT_AFTER)
    }

    /// Tells a session that it sends too much.
    fn refuse(&mut self, id: SessionId) {
        self.metrics.on_refused_datagram();
        let Rates { packets, kbps } = self.rates;
        let detail = format!(
            "the session sends more than the {packets} packets or {kbps} kbit/s allowed in a second, and the rest is dropped: lower the bitrate \
             or the size of the picture, or raise limits.session_packets or limits.session_kbps"
        );
        debug!(session = %id, detail, "datagrams refused");
        let text = data_channel::error(&Value::Null, &Problem::new(ProblemKind::TooFast, detail));
        let told = TrackOutput::Message { text, may_be_missed: true };
        self.with_session(id, Turn::Own, |session, now, send| session.on_track(now, told, send));
    }

    fn on_timers(&mut self) {
        let now = Instant::now();
        while let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            self.with_session(id, Turn::Own, Session::on_timeout);
        }
    }

    /// Lets a session do something, sends what it has to send, and takes note of when it wants to be called again and of what it took.
    fn with_session(
        &mut self,
        id: SessionId,
        turn: Turn,
        act: impl FnOnce(&mut Session, Instant, &mut dyn FnMut(Transmit)) -> Result<Instant, EndReason>,
    ) {
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        let Entry { session, paths, budget, .. } = entry;
        let (socket, is_v6, metrics) = (&self.socket, self.is_v6, &self.metrics);
        let mut send = |transmit: Transmit| {
            let is_reply = stun::is_stun(&transmit.contents);
            if !paths.may_send(transmit.destination, transmit.contents.len(), is_reply) {
                return metrics.on_withheld_datagram();
            }
            if let Err(error) = socket.try_send_to(&transmit.contents, mapped(transmit.destination, is_v6)) {
                metrics.on_unsent_datagram();
                debug!(session = %id, %error, "a datagram was not sent");
            }
        };
        let authenticated = crypto::authenticated();
        let cpu = budget.wants_cpu().then(cpu_time);
        let began = Instant::now();
        // The WebRTC library panics on states that it believes impossible: that costs this session only.
        let done = catch_unwind(AssertUnwindSafe(|| act(session, began, &mut send)));
        let mut next = done.unwrap_or_else(|_| {
            error!(session = %id, "the WebRTC library panicked; the session ends");
            Err(EndReason::Failed)
        });
        let ended = Instant::now();
        let took = ended.saturating_duration_since(began);
        let is_charged = turn == Turn::Own || crypto::authenticated() != authenticated;
        if is_charged && !budget.charge(ended, took, cpu.map(|before| cpu_time().saturating_sub(before))) && next.is_ok() {
            let close = || session.close_at_once(ended, ByeReason::Budget, &mut send);
            next = Err(catch_unwind(AssertUnwindSafe(close)).unwrap_or(EndReason::Budget));
        }
        if !entry.is_connected && entry.session.connected_at().is_some() {
            entry.is_connected = true;
            self.registry.connected(id);
        }
        self.timers.remove(&(entry.timer, id));
        match next {
            Ok(at) => {
                entry.timer = at;
                self.timers.insert((at, id));
            }
            Err(end) => self.remove(id, end),
        }
    }

    fn remove(&mut self, id: SessionId, end: EndReason) {
        let Some(entry) = self.sessions.remove(&id) else { return };
        let end = entry.session.reason(end);
        self.by_ice_user.remove(entry.session.ice_user());
        for address in entry.paths.addresses() {
            // Another session may have come to this address since.
            if self.by_address.get(&address) == Some(&id) {
                self.by_address.remove(&address);
            }
        }
        self.timers.remove(&(entry.timer, id));
        self.registry.remove(id);
        let now = Instant::now();
        let failed = entry.session.failed_set_up(now);
        self.metrics.on_session_end(end, failed, entry.session.connected_at().map(|at| now.duration_since(at)));
        if let Some(set_up) = failed {
            warn!(session = %id, reason = end.label(), candidates = ?self.candidates, "session never connected: {}", set_up.explain());
        } else {
            info!(session = %id, reason = end.label(), "session ended");
        }
    }
}

/// Processor time of this thread so far.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// An IPv6 socket sends to IPv4 addresses in their mapped form.
fn mapped(address: SocketAddr, is_v6: bool) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if is_v6 => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into(),
        other => other,
    }
}
