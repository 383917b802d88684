//! The lifecycle of a session: set-up stage, time limits, and the end with the message `bye`. The
//! time is an argument.

use std::time::{Duration, Instant};

use super::lifetime::Lifetime;
use ooblex_gateway::labels::{ByeReason, EndReason, SetupStage};

/// Time that a browser has to acknowledge the message `bye`.
const BYE_TIMEOUT: Duration = Duration::from_secs(1);
/// Age from which an unconnected session counts as a failed set-up. A browser that leaves earlier
/// may have changed its mind.
const MIN_FAILED_SETUP_AGE: Duration = Duration::from_secs(5);

/// The silence after which a client is gone that sends no ICE checks. Receivers report every few
/// seconds (RFC 3550, section 6.2).
const LONGEST_SILENCE: Duration = Duration::from_secs(10);

/// The lifecycle of one session.
#[derive(Debug)]
pub(super) struct Lifecycle {
    lifetime: Lifetime,
    stage: SetupStage,
    created_at: Instant,
    connected_at: Option<Instant>,
    /// The arrival of the last media.
    media_at: Option<Instant>,
    /// The arrival of the last datagram of the client: before the connection of any, then of an
    /// authenticated one.
    heard_at: Instant,
    /// No ICE check has come for a while. Clients need not send any once they are connected: RFC 8445
    /// (section 11) allows indications, to which an agent does not listen.
    is_unchecked: bool,
    /// The expiry of the token that the session began with.
    expires_at: Option<Instant>,
    closing: Option<Closing>,
}

/// The gateway has sent `bye` and waits for the acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Closing {
    pub(super) deadline: Instant,
    pub(super) reason: EndReason,
}

/// The consequence of a time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// No limit is reached.
    Nothing,
    /// The session ends with the message `bye`.
    Close(ByeReason),
    /// The session ends at once, because no browser is connected that could read a message.
    End(EndReason),
}

impl Lifecycle {
    /// Begins with the answer to the offer.
    pub(super) fn new(lifetime: Lifetime, now: Instant) -> Self {
        Self {
            lifetime,
            stage: SetupStage::Answered,
            created_at: now,
            connected_at: None,
            media_at: None,
            heard_at: now,
            is_unchecked: false,
            expires_at: None,
            closing: None,
        }
    }

    /// Sets the expiry of the token.
    pub(super) fn expire_at(&mut self, at: Instant) {
        self.expires_at = Some(at);
    }

    /// The set-up has reached a stage. An earlier stage than the current one changes nothing.
    pub(super) fn on_stage(&mut self, stage: SetupStage) {
        self.stage = self.stage.max(stage);
    }

    /// The session is connected. Returns the time since the answer.
    pub(super) fn on_connected(&mut self, now: Instant) -> Duration {
        self.connected_at = Some(now);
        self.stage = SetupStage::Connected;
        now.saturating_duration_since(self.created_at)
    }

    /// Media arrived.
    pub(super) fn on_media(&mut self, now: Instant) {
        self.media_at = Some(now);
    }

    /// A datagram arrived. `is_authenticated`: it is media, a report, or data of the client.
    pub(super) fn on_heard(&mut self, now: Instant, is_authenticated: bool) {
        if is_authenticated || self.connected_at.is_none() {
            self.heard_at = now;
        }
    }

    /// Returns the time since the last datagram of the client, ICE checks left out.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard_at)
    }

    /// The ICE agent has received checks, or none for a while. Returns the reason of the end if the
    /// client is gone.
    pub(super) fn on_checks(&mut self, now: Instant, are_coming: bool) -> Option<EndReason> {
        self.is_unchecked = !are_coming;
        if are_coming {
            None
        } else if self.connected_at.is_none() {
            Some(EndReason::NeverConnected)
        } else {
            (self.silence(now) >= LONGEST_SILENCE).then_some(EndReason::Vanished)
        }
    }

    /// Begins the end with the message `bye`. Returns false if it has begun already.
    pub(super) fn close(&mut self, now: Instant, why: ByeReason) -> bool {
        let is_new = self.closing.is_none();
        if is_new {
            self.closing = Some(Closing { deadline: now + BYE_TIMEOUT, reason: why.into() });
        }
        is_new
    }

    /// Ends without waiting for an acknowledgement, for a new reason even if the end has begun.
    pub(super) fn close_at_once(&mut self, now: Instant, why: ByeReason) {
        self.closing = Some(Closing { deadline: now, reason: why.into() });
    }

    /// Returns the end that has begun.
    pub(super) fn closing(&self) -> Option<Closing> {
        self.closing
    }

    /// Returns the consequence of the time limits.
    pub(super) fn poll(&self, now: Instant) -> Due {
        let since = |then: Instant| now.saturating_duration_since(then);
        if self.closing.is_some() {
            return Due::Nothing;
        }
        if self.expires_at.is_some_and(|at| at <= now) {
            return Due::Close(ByeReason::Expired);
        }
        match self.connected_at {
            None if since(self.created_at) > self.lifetime.connect => Due::End(EndReason::NeverConnected),
            None => Due::Nothing,
            Some(_) if self.is_unchecked && self.silence(now) >= LONGEST_SILENCE => Due::End(EndReason::Vanished),
            Some(connected_at) => {
                let idle = since(self.media_at.unwrap_or(connected_at));
                self.lifetime.over(since(connected_at), idle).map_or(Due::Nothing, Due::Close)
            }
        }
    }

    /// Returns the time of the next timeout: `at`, the deadline of the end, or the expiry of the
    /// token, whichever is earlier. The other limits are checked at the timeouts of the endpoint,
    /// which asks for one several times per second.
    pub(super) fn next_timeout(&self, at: Instant) -> Instant {
        let limit = self.closing.map(|closing| closing.deadline).or(self.expires_at);
        limit.map_or(at, |limit| limit.min(at))
    }

    /// Returns the reason of an end. The reason for which the gateway said `bye` counts, whatever
    /// the browser does afterwards.
    pub(super) fn reason(&self, reason: EndReason) -> EndReason {
        self.closing.map_or(reason, |closing| closing.reason)
    }

    /// Returns the time of the connection.
    pub(super) fn connected_at(&self) -> Option<Instant> {
        self.connected_at
    }

    /// Returns the stage at which the set-up failed; `None` if the session was connected, or ended
    /// before [`MIN_FAILED_SETUP_AGE`].
    pub(super) fn failed_stage(&self, now: Instant) -> Option<SetupStage> {
        let is_old = now.saturating_duration_since(self.created_at) >= MIN_FAILED_SETUP_AGE;
        (self.stage != SetupStage::Connected && is_old).then_some(self.stage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LIFETIME: Lifetime = Lifetime { connect: Duration::from_secs(10), idle: Duration::from_secs(60), most: None };

    fn connected() -> (Lifecycle, Instant) {
        let began = Instant::now();
        let mut lifecycle = Lifecycle::new(LIFETIME, began);
        assert_eq!(lifecycle.on_connected(began + SECOND), SECOND);
        (lifecycle, began + SECOND)
    }

    #[test]
    fn session_that_is_not_connected_in_time_ends_without_a_message() {
        let began = Instant::now();
        let lifecycle = Lifecycle::new(LIFETIME, began);
        assert_eq!(lifecycle.poll(began + 10 * SECOND), Due::Nothing);
        assert_eq!(lifecycle.poll(began + 11 * SECOND), Due::End(EndReason::NeverConnected));
    }

    #[test]
    fn session_without_media_is_idle_and_media_keeps_it_alive() {
        let (mut lifecycle, now) = connected();
        assert_eq!(lifecycle.poll(now + 59 * SECOND), Due::Nothing);
        assert_eq!(lifecycle.poll(now + 60 * SECOND), Due::Close(ByeReason::Idle));
        lifecycle.on_media(now + 30 * SECOND);
        assert_eq!(lifecycle.poll(now + 89 * SECOND), Due::Nothing);
        assert_eq!(lifecycle.poll(now + 90 * SECOND), Due::Close(ByeReason::Idle));
    }

    #[test]
    fn token_expires_before_and_after_the_connection_and_has_a_timeout() {
        let (mut lifecycle, now) = connected();
        lifecycle.expire_at(now + 5 * SECOND);
        assert_eq!(lifecycle.next_timeout(now + SECOND), now + SECOND);
        assert_eq!(lifecycle.next_timeout(now + 9 * SECOND), now + 5 * SECOND);
        assert_eq!((lifecycle.poll(now + 4 * SECOND), lifecycle.poll(now + 5 * SECOND)), (Due::Nothing, Due::Close(ByeReason::Expired)));

        let mut unconnected = Lifecycle::new(LIFETIME, now);
        unconnected.expire_at(now + 2 * SECOND);
        assert_eq!(unconnected.poll(now + 2 * SECOND), Due::Close(ByeReason::Expired));
    }

    #[test]
    fn end_begins_once_and_no_other_limit_counts_then() {
        let (mut lifecycle, now) = connected();
        lifecycle.expire_at(now + SECOND / 2);
        assert!(lifecycle.close(now, ByeReason::Ended) && !lifecycle.close(now, ByeReason::Idle));
        assert_eq!(lifecycle.closing(), Some(Closing { deadline: now + SECOND, reason: EndReason::Requested }));
        assert_eq!(lifecycle.poll(now + 100 * SECOND), Due::Nothing);
        assert_eq!(lifecycle.next_timeout(now + 5 * SECOND), now + SECOND, "the deadline, not the expiry");
        assert_eq!(lifecycle.reason(EndReason::ByPeer), EndReason::Requested);
        lifecycle.close_at_once(now, ByeReason::Budget);
        assert_eq!(lifecycle.reason(EndReason::ByPeer), EndReason::Budget);
    }

    #[test]
    fn set_up_fails_at_the_last_stage_that_it_reached_unless_the_browser_left_at_once() {
        let began = Instant::now();
        let mut lifecycle = Lifecycle::new(LIFETIME, began);
        lifecycle.on_stage(SetupStage::Reached);
        lifecycle.on_stage(SetupStage::Heard);
        assert_eq!(lifecycle.failed_stage(began + 4 * SECOND), None);
        assert_eq!(lifecycle.failed_stage(began + 5 * SECOND), Some(SetupStage::Reached));
        assert_eq!(lifecycle.on_checks(began + 5 * SECOND, false), Some(EndReason::NeverConnected));
        lifecycle.on_connected(began + 6 * SECOND);
        assert_eq!(lifecycle.failed_stage(began + 9 * SECOND), None);
    }

    #[test]
    fn client_without_ice_checks_is_there_while_it_is_heard() {
        let (mut lifecycle, now) = connected();
        lifecycle.on_heard(now + 14 * SECOND, true);
        assert_eq!(lifecycle.on_checks(now + 15 * SECOND, false), None);
        lifecycle.on_heard(now + 20 * SECOND, true);
        assert_eq!(lifecycle.poll(now + 29 * SECOND), Due::Nothing);
        assert_eq!(lifecycle.poll(now + 30 * SECOND), Due::End(EndReason::Vanished));
        assert_eq!(lifecycle.on_checks(now + 30 * SECOND, true), None);
        assert_eq!(lifecycle.poll(now + 31 * SECOND), Due::Nothing, "it checks again");
    }

    #[test]
    fn silent_client_is_gone_when_its_ice_checks_end() {
        let (mut lifecycle, now) = connected();
        assert_eq!(lifecycle.on_checks(now + 15 * SECOND, false), Some(EndReason::Vanished), "it was never heard");
        lifecycle.on_heard(now + 5 * SECOND, true);
        assert_eq!(lifecycle.on_checks(now + 15 * SECOND, false), Some(EndReason::Vanished));
    }
}
