//! The configured time limits of sessions: until they are connected, without media, and in total.

use std::time::Duration;

use ooblex_config as config;
use ooblex_gateway::labels::ByeReason;

/// The time limits of a session.
#[derive(Debug, Clone, Copy)]
pub struct Lifetime {
    /// Longest time from the answer to the connection.
    pub connect: Duration,
    /// Longest time without media.
    pub idle: Duration,
    /// Longest time since the connection; `None` for no limit.
    pub most: Option<Duration>,
}

impl Lifetime {
    /// Returns the limits of the configuration.
    pub fn new(limits: &config::Limits) -> Self {
        let most = Some(60 * limits.session_minutes).filter(|seconds| *seconds > 0).map(Duration::from_secs);
        Self { connect: Duration::from_secs(limits.connect_s), idle: Duration::from_secs(limits.idle_s), most }
    }

    /// Returns why a session is over that has been connected for `connected` and without media for
    /// `idle`.
    pub(super) fn over(&self, connected: Duration, idle: Duration) -> Option<ByeReason> {
        if self.most.is_some_and(|most| connected >= most) {
            Some(ByeReason::TimeLimit)
        } else {
            (idle >= self.idle).then_some(ByeReason::Idle)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Instant;

    use crossbeam_channel::bounded;
    use ooblex_broker::Broker;
    use ooblex_pipeline::VideoCodec;
    use str0m::net::{Protocol, Receive, Transmit};

    use super::*;
    use crate::negotiate::{Endpoint, Purpose, negotiate};
    use crate::session::Session;
    use ooblex_client::endpoint::Offered;
    use ooblex_client::{ClientEvent, Wish};
    use ooblex_gateway::ids::SessionId;
    use ooblex_gateway::labels::EndReason;
    use ooblex_gateway::metrics::Metrics;
    use ooblex_gateway::track::TrackHandle;
    use ooblex_worker::about::About;

    const MS: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

    /// Returns the reason of the end of a session without media, the time after which it ended, and
    /// the reasons that the browser received.
    fn ends(lifetime: Lifetime, browser_answers: impl Fn(Duration) -> bool) -> (EndReason, Duration, Vec<String>) {
        let began = Instant::now();
        let addresses = [SocketAddr::from(([10, 0, 0, 1], 4000)), SocketAddr::from(([10, 0, 0, 2], 5000))];
        let offered = Offered::new(&Wish::default(), addresses[1], began).unwrap();
        let endpoint = Endpoint { candidates: vec![addresses[0]].into(), codecs: vec![VideoCodec::Vp8], start_bitrate_bps: 1_000_000 };
        let negotiated = negotiate(offered.body["sdp"].as_str().unwrap(), Purpose::Exchange, &endpoint, began).unwrap();
        let (mut browser, _) = offered.answered(200, serde_json::json!({"sdp": negotiated.answer})).unwrap();
        let metrics = Arc::new(Metrics::new(&About::default(), &Broker::local(), &[], None));
        let (sender, _inbox) = bounded(1000);
        let mut session = Session::new(SessionId(1), negotiated, TrackHandle::new(sender, metrics), lifetime, began);
        let (mut heard, mut up) = (Vec::new(), Vec::<Vec<u8>>::new());
        for n in 0..20_000 {
            let now = began + n * 10 * MS;
            let mut down = Vec::new();
            let mut send = |transmit: Transmit| down.push(transmit.contents.to_vec());
            let mut end = session.on_timeout(now, &mut send).err();
            if browser_answers(now - began) {
                browser.on_timeout(now).unwrap();
                browser.drain(now, |_, bytes| up.push(bytes.to_vec())).unwrap();
            } else {
                up.clear();
            }
            for datagram in up.drain(..) {
                let contents = datagram[..].try_into().unwrap();
                let receive = Receive { proto: Protocol::Udp, source: addresses[1], destination: addresses[0], contents };
                end = end.or_else(|| session.on_datagram(now, receive, &mut send).err());
            }
            for datagram in down {
                browser.on_datagram(now, addresses[0], &datagram).unwrap();
                browser.drain(now, |_, bytes| up.push(bytes.to_vec())).unwrap();
            }
            while let Some(event) = browser.next_event() {
                if let ClientEvent::Message(message) = event {
                    heard.extend(message["reason"].as_str().map(String::from));
                }
            }
            if let Some(end) = end {
                return (session.reason(end), now - began, heard);
            }
        }
        panic!("it has not ended");
    }

    #[test]
    fn a_session_that_never_connects_ends_in_time() {
        let lifetime = Lifetime { connect: 10 * SECOND, idle: 60 * SECOND, most: None };
        let (end, after, heard) = ends(lifetime, |_| false);
        assert!(end == EndReason::NeverConnected && (10 * SECOND..11 * SECOND).contains(&after) && heard.is_empty(), "{end:?} {after:?}");
    }

    #[test]
    fn a_session_without_media_hears_why_it_ends() {
        let lifetime = Lifetime { connect: 10 * SECOND, idle: 60 * SECOND, most: None };
        let (end, after, heard) = ends(lifetime, |_| true);
        assert!(end == EndReason::Idle && (60 * SECOND..63 * SECOND).contains(&after), "{end:?} {after:?}");
        assert_eq!(heard, ["idle"]);
    }

    #[test]
    fn a_session_ends_when_its_time_is_up_and_hears_why() {
        let lifetime = Lifetime { connect: 10 * SECOND, idle: 60 * SECOND, most: Some(30 * SECOND) };
        let (end, after, heard) = ends(lifetime, |_| true);
        assert!(end == EndReason::TimeLimit && (30 * SECOND..33 * SECOND).contains(&after), "{end:?} {after:?}");
        assert_eq!(heard, ["time_limit"]);
    }

    #[test]
    fn a_browser_that_acknowledges_nothing_is_waited_for_for_a_second() {
        let lifetime = Lifetime { connect: 10 * SECOND, idle: 60 * SECOND, most: Some(20 * SECOND) };
        let (end, after, _) = ends(lifetime, |time| time < 19 * SECOND);
        assert!(end == EndReason::TimeLimit && (21 * SECOND..23 * SECOND).contains(&after), "{end:?} {after:?}");
    }
}
