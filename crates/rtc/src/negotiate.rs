//! Negotiation: from an SDP offer to a WebRTC endpoint and an SDP answer. [`dial`] is the other
//! direction, in which the gateway makes the offer.

#[cfg(test)]
mod clients;
pub mod dial;

use std::net::{SocketAddr, UdpSocket};
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ooblex_pipeline::VideoCodec;
use str0m::bwe::Bitrate;
use str0m::change::SdpOffer;
use str0m::format::CodecSpec;
use str0m::media::Mid;
use str0m::net::{Protocol, TcpType};
use str0m::rtp::Extension;
use str0m::{Candidate, Rtc, RtcConfig};
use tokio::sync::Semaphore;
use tracing::{debug, error};

use crate::candidates::Candidates;
pub use crate::sdp::Purpose;
use crate::sdp::{Format, Offer, check_size, declared_sources};
use crate::{colour_extension, crypto};
use ooblex_gateway::problem::{Problem, ProblemKind};

/// Packets that the jitter buffer holds while one is missing; a keyframe of 1080p has about 150.
const REORDERING_PACKETS: usize = 300;
/// Time that the jitter buffer waits for a missing packet. Then a keyframe is requested.
const REORDERING_TIMEOUT: Duration = Duration::from_millis(250);

/// Time between two statistics of the library, which contain the bandwidth estimate.
const STATS_INTERVAL: Duration = Duration::from_millis(100);
/// Silence after which a camera counts as paused: its network is lost. A shared screen without
/// movement still sends a picture per second.
const PAUSE_THRESHOLD: Duration = Duration::from_millis(1500);

/// Identifier of the header extension `playout-delay`, which the library's own extensions leave
/// free. If the browser offers another number, that one is used.
const PLAYOUT_DELAY_ID: u8 = 5;

/// The configuration of all endpoints.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The addresses of the media sockets; at least one for UDP.
    pub candidates: Candidates,
    /// The codecs that a camera may use.
    pub codecs: Vec<VideoCodec>,
    /// The first bandwidth estimate, bit/s.
    pub start_bitrate_bps: u32,
}

/// The gateway's endpoint of a WebRTC connection. A panic of the library when it is dropped ends
/// only this session.
pub(crate) struct Connection(Option<Box<Rtc>>);

impl Deref for Connection {
    type Target = Rtc;

    fn deref(&self) -> &Rtc {
        self.0.as_ref().expect("it is taken by drop only")
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut Rtc {
        self.0.as_mut().expect("it is taken by drop only")
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let rtc = self.0.take();
        if catch_unwind(AssertUnwindSafe(|| drop(rtc))).is_err() {
            error!("the WebRTC library panicked at the end of a connection");
        }
    }
}

/// The result of an offer.
pub struct Negotiated {
    /// The endpoint.
    pub(crate) connection: Connection,
    /// The addresses that the endpoint takes for its own.
    pub(crate) local: LocalAddresses,
    /// The user fragment of the endpoint's ICE credentials, which the first datagrams of a browser
    /// name.
    pub(crate) ice_user: String,
    /// The sources of media (SSRC) that the offer declares.
    pub(crate) sources: Vec<u32>,
    /// The SDP answer; empty if the gateway has made the offer.
    pub answer: String,
    /// The part of a session whose offer the gateway has made. `None` for others.
    pub(crate) dialled: Option<DialledSide>,
}

/// The part of a session whose offer the gateway has made.
pub(crate) struct DialledSide {
    /// The media lines of the offer. The library reports only those that the other side offers.
    pub(crate) lines: Vec<Mid>,
    /// The socket of the session.
    pub(crate) socket: UdpSocket,
}

/// The addresses that an endpoint takes for its own: the first candidate of each protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LocalAddresses {
    udp: SocketAddr,
    tcp: Option<SocketAddr>,
}

impl LocalAddresses {
    /// Returns the address of an endpoint without TCP.
    fn udp(address: SocketAddr) -> Self {
        Self { udp: address, tcp: None }
    }

    /// Returns the address for a protocol; `None` if no candidate has it.
    pub(crate) fn of(self, protocol: Protocol) -> Option<SocketAddr> {
        match protocol {
            Protocol::Udp => Some(self.udp),
            Protocol::Tcp => self.tcp,
            _ => None,
        }
    }
}

/// A thread pool that answers offers. To parse an offer and make the keys of a connection takes
/// milliseconds, for which HTTP must not wait.
pub struct Negotiator {
    endpoint: Endpoint,
    sdp_kib: usize,
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Negotiator {
    /// Largest number of offers that wait; more are refused.
    const MAX_WAITING_OFFERS: usize = 64;
    /// Longest time that an offer waits.
    const MAX_WAIT: Duration = Duration::from_secs(2);

    /// Creates a pool for endpoints of this configuration. Offers of more than `sdp_kib` are
    /// refused.
    pub fn new(endpoint: Endpoint, sdp_kib: usize) -> Self {
        let running = std::thread::available_parallelism().map_or(2, usize::from).max(2);
        let [running, waiting] = [running, Self::MAX_WAITING_OFFERS].map(|permits| Arc::new(Semaphore::new(permits)));
        Self { endpoint, sdp_kib, running, waiting }
    }

    /// Answers an offer.
    ///
    /// # Errors
    /// When the offer cannot be read or served, or too many others are being answered.
    pub async fn answer(&self, offer: String, purpose: Purpose) -> Result<Negotiated, Problem> {
        // An offer that is too large for any browser is refused before it waits.
        check_size(&offer, self.sdp_kib)?;
        let busy = || {
            let detail = "the gateway is answering as many other offers as it can: try again in a moment";
            Problem::new(ProblemKind::Busy, detail).retry_after(Duration::from_secs(1))
        };
        let waiting = self.waiting.try_acquire().map_err(|_| busy())?;
        let permit = tokio::time::timeout(Self::MAX_WAIT, self.running.clone().acquire_owned()).await;
        let permit = permit.map_err(|_| busy())?.map_err(|_| busy())?;
        drop(waiting);
        let endpoint = self.endpoint.clone();
        let answered = tokio::task::spawn_blocking(move || {
            // The client may have disconnected; a running negotiation counts until it has ended.
            let _permit = permit;
            negotiate(&offer, purpose, &endpoint, Instant::now())
        });
        answered.await.unwrap_or_else(|_| Err(Problem::new(ProblemKind::Unavailable, "the offer could not be answered: try again")))
    }
}

/// Accepts an offer whose size was checked.
///
/// # Errors
/// When the offer cannot be read or served.
pub fn negotiate(offer: &str, purpose: Purpose, endpoint: &Endpoint, now: Instant) -> Result<Negotiated, Problem> {
    let sources = declared_sources(offer);
    let offer = Offer::read(offer, purpose, &endpoint.codecs)?;
    for (kind, reason) in offer.refused() {
        debug!(kind, reason, "a media line is refused");
    }
    // The library is known to panic on some states that it believes impossible. An offer must not
    // cause that.
    let accepted = catch_unwind(AssertUnwindSafe(|| accept(&offer, sources, endpoint, now)));
    let answer = accepted.unwrap_or_else(|_| Err("it makes no sense as a whole".into()));
    answer.map_err(|reason| Problem::new(ProblemKind::BadSdp, format!("the SDP offer can not be used: {reason}")))
}

fn accept(offer: &Offer<'_>, sources: Vec<u32>, endpoint: &Endpoint, now: Instant) -> Result<Negotiated, String> {
    let for_library = SdpOffer::from_sdp_string(&colour_extension::renamed(&offer.for_library())).map_err(|error| error.to_string())?;
    let mut rtc = Connection(Some(Box::new(config(offer.formats(), endpoint).build(now))));
    let (udp, tcp) = (endpoint.candidates.current(), endpoint.candidates.current_tcp());
    let local = LocalAddresses { udp: *udp.first().ok_or("the gateway has no address")?, tcp: tcp.first().copied() };
    let udp = udp.into_iter().map(|address| Candidate::builder().udp().host(address).build());
    let tcp = tcp.into_iter().map(|address| Candidate::builder().tcp().host(address).tcptype(TcpType::Passive).build());
    for candidate in udp.chain(tcp) {
        rtc.add_local_candidate(candidate.map_err(|error| error.to_string())?);
    }
    let answer = rtc.sdp_api().accept_offer(for_library).map_err(|error| error.to_string())?;
    let ice_user = rtc.direct_api().local_ice_credentials().ufrag;
    let answer = offer.answer(&colour_extension::named(&answer.to_sdp_string()), endpoint.start_bitrate_bps / 1000);
    Ok(Negotiated { connection: rtc, local, ice_user, sources, answer, dialled: None })
}

fn config(formats: &[Format], endpoint: &Endpoint) -> RtcConfig {
    // Only the raw packets contain the NACKs of a browser without RTX.
    let is_without_rtx = formats.iter().any(|format| format.spec.codec.is_video() && format.resent.is_none());
    let mut config = RtcConfig::new()
        .set_ice_lite(true)
        .set_crypto_provider(crypto::provider())
        .clear_codecs()
        .enable_bwe(Some(Bitrate::bps(endpoint.start_bitrate_bps.into())))
        .enable_raw_packets(is_without_rtx)
        .set_stats_interval(Some(STATS_INTERVAL))
        .set_extension(PLAYOUT_DELAY_ID, Extension::PlayoutDelay)
        .set_extension(colour_extension::ID, colour_extension::extension())
        .set_pause_threshold(PAUSE_THRESHOLD)
        .set_reordering_size_video(REORDERING_PACKETS)
        .set_reordering_timeout_video(Some(REORDERING_TIMEOUT));
    // The answer lists codecs in this order, and the browser sends the first of them.
    for format in formats {
        let CodecSpec { codec, clock_rate, channels, format: params } = format.spec;
        config.codec_config().add_config(format.pt, format.resent, codec, clock_rate, channels, params);
    }
    config
}
