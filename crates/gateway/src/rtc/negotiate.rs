//! Negotiation: from an SDP offer to a WebRTC endpoint and an SDP answer.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ooblex_pipeline::VideoCodec;
use str0m::bwe::Bitrate;
use str0m::change::SdpOffer;
use str0m::rtp::Extension;
use str0m::{Candidate, Rtc, RtcConfig};
use tokio::sync::Semaphore;
use tracing::error;

use crate::problem::{Problem, ProblemKind};
use crate::rtc::crypto;
use crate::rtc::sdp::{check_size, declared_sources, offered_codecs};

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
    /// The addresses of the media socket, best first; at least one.
    pub candidates: Vec<SocketAddr>,
    /// The codecs that a camera may use.
    pub codecs: Vec<VideoCodec>,
    /// The first bandwidth estimate, bit/s.
    pub start_bitrate_bps: u32,
}

/// The gateway's endpoint of a WebRTC connection. A panic of the library when it is dropped ends
/// only this session.
pub struct Connection(Option<Box<Rtc>>);

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
    pub connection: Connection,
    /// The user fragment of the endpoint's ICE credentials, which the first datagrams of a browser
    /// name.
    pub ice_user: String,
    /// The sources of media (SSRC) that the offer declares.
    pub sources: Vec<u32>,
    /// The SDP answer.
    pub answer: String,
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
    pub async fn answer(&self, offer: String) -> Result<Negotiated, Problem> {
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
            negotiate(&offer, &endpoint, Instant::now())
        });
        answered.await.unwrap_or_else(|_| Err(Problem::new(ProblemKind::Unavailable, "the offer could not be answered: try again")))
    }
}

/// Accepts an offer whose size was checked.
///
/// # Errors
/// When the offer cannot be read or served.
pub fn negotiate(offer: &str, endpoint: &Endpoint, now: Instant) -> Result<Negotiated, Problem> {
    let codecs = offered_codecs(offer, &endpoint.codecs)?;
    // The library is known to panic on some states that it believes impossible. An offer must not
    // cause that.
    let accepted = catch_unwind(AssertUnwindSafe(|| accept(offer, &codecs, endpoint, now)));
    let answer = accepted.unwrap_or_else(|_| Err("it makes no sense as a whole".into()));
    answer.map_err(|reason| Problem::new(ProblemKind::BadSdp, format!("the SDP offer can not be used: {reason}")))
}

fn accept(offer: &str, codecs: &[VideoCodec], endpoint: &Endpoint, now: Instant) -> Result<Negotiated, String> {
    let sources = declared_sources(offer);
    let offer = SdpOffer::from_sdp_string(offer).map_err(|error| error.to_string())?;
    let mut rtc = Connection(Some(Box::new(config(codecs, endpoint).build(now))));
    for address in &endpoint.candidates {
        let candidate = Candidate::host(*address, "udp").map_err(|error| error.to_string())?;
        rtc.add_local_candidate(candidate);
    }
    let answer = rtc.sdp_api().accept_offer(offer).map_err(|error| error.to_string())?;
    let ice_user = rtc.direct_api().local_ice_credentials().ufrag;
    let answer = with_start_bitrate(&answer.to_sdp_string(), endpoint.start_bitrate_bps / 1000);
    Ok(Negotiated { connection: rtc, ice_user, sources, answer })
}

/// Returns the answer with a start bitrate for browsers that support it (Chromium, Safari). They
/// would begin at 300 kbit/s, and send a small, blurred picture for ten seconds.
fn with_start_bitrate(answer: &str, kbps: u32) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut in_video = false;
    for line in answer.lines() {
        if line.starts_with("m=") {
            in_video = line.starts_with("m=video");
        }
        lines.push(line.to_string());
        let last = lines.len() - 1;
        let Some((attribute, rest)) = line.split_once(':').filter(|_| in_video) else { continue };
        let (payload_type, value) = rest.split_once(' ').unwrap_or((rest, ""));
        match attribute {
            "a=rtpmap" if value.starts_with("VP8/") => lines.push(format!("a=fmtp:{payload_type} x-google-start-bitrate={kbps}")),
            "a=fmtp" if value.contains("packetization-mode") => lines[last] = format!("{line};x-google-start-bitrate={kbps}"),
            _ => {}
        }
    }
    lines.push(String::new());
    lines.join("\r\n")
}

fn config(codecs: &[VideoCodec], endpoint: &Endpoint) -> RtcConfig {
    let mut config = RtcConfig::new()
        .set_ice_lite(true)
        .set_crypto_provider(crypto::provider())
        .clear_codecs()
        .enable_opus(true, false)
        .enable_bwe(Some(Bitrate::bps(endpoint.start_bitrate_bps.into())))
        .set_stats_interval(Some(STATS_INTERVAL))
        .set_extension(PLAYOUT_DELAY_ID, Extension::PlayoutDelay)
        .set_pause_threshold(PAUSE_THRESHOLD)
        .set_reordering_size_video(REORDERING_PACKETS)
        .set_reordering_timeout_video(Some(REORDERING_TIMEOUT));
    // The answer lists codecs in this order, and the browser sends the first of them.
    for codec in codecs {
        match codec {
            VideoCodec::Vp8 => config = config.enable_vp8(true),
            VideoCodec::H264 => add_h264(&mut config),
        }
    }
    config
}

/// Adds the H.264 profiles that openh264 decodes, all with packetization-mode=1. The encoder sends
/// constrained baseline, which each of them includes.
fn add_h264(config: &mut RtcConfig) {
    for (pt, rtx, profile_level_id) in [(108, 109, 0x42e01f), (127, 121, 0x42001f), (123, 119, 0x4d001f), (114, 115, 0x64001f)] {
        config.codec_config().add_h264(pt.into(), Some(rtx.into()), true, profile_level_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_bitrate_is_told_for_both_codecs_of_the_video_line_only() {
        let answer = "v=0\r\nm=audio 9 X 111\r\na=fmtp:111 minptime=10\r\nm=video 9 X 96 108\r\na=rtpmap:96 VP8/90000\r\n\
                      a=rtpmap:108 H264/90000\r\na=fmtp:108 packetization-mode=1\r\na=fmtp:97 apt=96\r\n";
        let told = with_start_bitrate(answer, 2500);
        assert!(told.contains("a=rtpmap:96 VP8/90000\r\na=fmtp:96 x-google-start-bitrate=2500\r\n"), "{told}");
        assert!(told.contains("a=fmtp:108 packetization-mode=1;x-google-start-bitrate=2500\r\n"), "{told}");
        assert!(told.contains("a=fmtp:111 minptime=10\r\n") && told.ends_with("a=fmtp:97 apt=96\r\n"), "{told}");
    }
}
