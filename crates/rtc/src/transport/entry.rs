//! One session on the media thread with its limits: which datagrams it may receive, to which
//! addresses it may send, and how much time of the thread it may use.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use serde_json::Value;
use str0m::net::Transmit;
use tracing::{debug, error};

use super::sockets::Sockets;
use crate::crypto;
use crate::media_budget::MediaBudget;
use crate::paths::{Arrival, Paths};
use crate::rate_limit::{Decision, Rates};
use crate::remote::Remote;
use crate::session::Session;
use crate::stun;
use crate::traffic::{Kind, Traffic};
use ooblex_config as config;
use ooblex_gateway::data_channel;
use ooblex_gateway::labels::{ByeReason, EndReason};
use ooblex_gateway::metrics::Metrics;
use ooblex_gateway::problem::{Problem, ProblemKind};

/// Silence after which another session may claim an address of a session. A session that is present
/// sends several datagrams in this time.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(1);

/// The limits of each session.
#[derive(Debug, Clone, Copy)]
pub(super) struct SessionLimits {
    /// Packets and kilobits that a session may send per second.
    rates: Rates,
    /// Time of the media thread that a session may use per second.
    media_time: Duration,
}

impl SessionLimits {
    pub(super) fn new(limits: &config::Limits) -> Self {
        Self {
            rates: Rates { packets: limits.session_packets, kbps: limits.session_kbps },
            media_time: Duration::from_millis(limits.media_ms.into()),
        }
    }

    /// Returns the problem of a session that sends more than its rates.
    pub(super) fn exceeded(&self) -> Problem {
        let Rates { packets, kbps } = self.rates;
        let detail = format!(
            "the session sends more than the {packets} packets or {kbps} kbit/s allowed in a second, and the rest is dropped: lower the bitrate \
             or the size of the picture, or raise limits.session_packets or limits.session_kbps"
        );
        Problem::new(ProblemKind::TooFast, detail)
    }
}

/// A datagram, without its contents.
#[derive(Debug, Clone, Copy)]
pub(super) struct Datagram {
    pub(super) kind: Kind,
    pub(super) source: Remote,
    /// The address of this machine that it was sent to, if it is known.
    pub(super) local: Option<IpAddr>,
    pub(super) bytes: usize,
}

/// The cause of a step of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The session itself: a timer, the output of its track, a command.
    Own,
    /// A datagram to this address of this machine. It may be forged, so its time is charged only if
    /// it was authenticated.
    Datagram {
        /// The address, if it is known.
        local: Option<IpAddr>,
    },
}

/// One session with its limits.
pub(super) struct Entry {
    pub(super) session: Session,
    /// The time of its next timeout.
    pub(super) timer: Instant,
    paths: Paths,
    traffic: Traffic,
    budget: MediaBudget,
    is_connected: bool,
    /// The time of the last ICE check, which the client's ICE password protects.
    checked_at: Instant,
}

impl Entry {
    pub(super) fn new(session: Session, limits: SessionLimits, now: Instant) -> Self {
        Self {
            traffic: Traffic::new(limits.rates, session.sources(), now),
            session,
            timer: now,
            paths: Paths::new(now),
            budget: MediaBudget::new(limits.media_time, now),
            is_connected: false,
            checked_at: now,
        }
    }

    /// Decides whether a datagram is handled, before anything is decrypted for it.
    pub(super) fn admit(&mut self, now: Instant, kind: Kind, bytes: usize) -> Decision {
        self.traffic.admit(now, kind, bytes)
    }

    /// Decides whether a STUN message is verified and handled.
    pub(super) fn admits_stun(&mut self, now: Instant, source: Remote, bytes: usize) -> bool {
        self.paths.admits_stun(now, source, bytes)
    }

    /// Returns whether a datagram is media, or a report, of a source of this session.
    pub(super) fn has_source(&self, kind: Kind) -> bool {
        self.traffic.is_known(kind)
    }

    /// Returns whether the session was heard from an address.
    pub(super) fn has_address(&self, address: Remote) -> bool {
        self.addresses().any(|known| known == address)
    }

    /// Decides whether the session may be heard from a new address.
    pub(super) fn arrive(&mut self, now: Instant, source: Remote) -> Arrival {
        self.paths.arrive(now, source)
    }

    /// A datagram was admitted and is about to be handled.
    pub(super) fn on_received(&mut self, now: Instant, datagram: Datagram) {
        let Datagram { kind, source, local, bytes } = datagram;
        self.paths.on_local(source, local);
        if kind == Kind::Stun {
            self.checked_at = now;
        } else {
            self.paths.on_received(now, source, bytes);
        }
    }

    /// A datagram was handled. `is_own`: it was authenticated, so it is the browser's.
    pub(super) fn on_handled(&mut self, now: Instant, datagram: Datagram, is_own: bool, metrics: &Metrics) {
        let Datagram { kind, source, local, bytes } = datagram;
        if is_own {
            self.traffic.on_authenticated(kind, bytes);
            if kind.is_fresh() {
                self.paths.validate(source, local);
            }
        } else if kind != Kind::Stun {
            self.traffic.on_unauthenticated(now, kind, bytes);
            // Those of the key agreement are never authenticated.
            if self.is_connected {
                metrics.network.datagrams.on_unauthenticated();
            }
        }
    }

    /// Returns whether the session was not heard for [`SILENCE_TIMEOUT`].
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.session.silence(now) > SILENCE_TIMEOUT
    }

    /// Returns the time since the last datagram of the client, ICE checks included.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        self.session.silence(now).min(now.saturating_duration_since(self.checked_at))
    }

    /// Returns the addresses that the session was heard from.
    pub(super) fn addresses(&self) -> impl Iterator<Item = Remote> {
        self.paths.addresses()
    }

    /// Returns true at the first call after the session was connected.
    pub(super) fn take_connected(&mut self) -> bool {
        let is_new = !self.is_connected && self.session.connected_at().is_some();
        self.is_connected |= is_new;
        is_new
    }

    /// Runs one step of the session, sends its datagrams, and charges the time that it took.
    /// Returns the time of the next timeout.
    ///
    /// # Errors
    /// When the session is over.
    pub(super) fn step(
        &mut self,
        cause: Cause,
        sockets: &Sockets,
        metrics: &Metrics,
        act: impl FnOnce(&mut Session, Instant, &mut dyn FnMut(Transmit)) -> Result<Instant, EndReason>,
    ) -> Result<Instant, EndReason> {
        let Self { session, paths, budget, .. } = self;
        let id = session.id();
        let is_dialled = sockets.dialled.has(id);
        let mut send = |transmit: Transmit| {
            if is_dialled {
                // ICE sends to addresses of the answer only, and nothing but checks to those that have
                // not answered one.
                if let Err(error) = sockets.dialled.try_send(id, &transmit.contents, transmit.destination) {
                    metrics.network.datagrams.on_unsent();
                    debug!(session = %id, %error, "a datagram was not sent");
                }
                return;
            }
            let is_reply = stun::is_stun(&transmit.contents);
            let remote = Remote::of(&transmit);
            if !paths.may_send(remote, transmit.contents.len(), is_reply) {
                return metrics.network.datagrams.on_withheld();
            }
            // An ICE check is answered from the address that it came to.
            let local = match cause {
                Cause::Datagram { local } if is_reply => local,
                _ => paths.local(remote),
            };
            if let Err(error) = sockets.try_send(&transmit.contents, local, remote) {
                metrics.network.datagrams.on_unsent();
                debug!(session = %id, %error, "a datagram was not sent");
            }
        };
        let authenticated = crypto::authenticated();
        let cpu = budget.wants_cpu().then(cpu_time);
        let began = Instant::now();
        // The WebRTC library panics on states that it believes impossible: that costs this session
        // only.
        let done = catch_unwind(AssertUnwindSafe(|| act(session, began, &mut send)));
        let next = done.unwrap_or_else(|_| {
            error!(session = %id, "the WebRTC library panicked; the session ends");
            Err(EndReason::Failed)
        });
        let ended = Instant::now();
        let took = ended.saturating_duration_since(began);
        let is_charged = cause == Cause::Own || crypto::authenticated() != authenticated;
        if is_charged && !budget.charge(ended, took, cpu.map(|before| cpu_time().saturating_sub(before))) && next.is_ok() {
            let close = || session.close_at_once(ended, ByeReason::Budget, &mut send);
            return Err(catch_unwind(AssertUnwindSafe(close)).unwrap_or(EndReason::Budget));
        }
        next
    }
}

/// Returns the message for a browser about a problem that is no answer to a request.
pub(super) fn notice(problem: &Problem) -> String {
    data_channel::error(&Value::Null, problem)
}

/// Returns the processor time of this thread.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}
