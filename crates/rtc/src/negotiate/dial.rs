//! The other direction of negotiation: an SDP offer of the gateway to another server, and its answer.
//!
//! Such a session has a socket of its own. Another server knows a session by its address, and may
//! have several sessions with this gateway. The gateway is a full ICE agent then, which checks the
//! addresses of the answer, because the other server may be ICE-lite.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use ooblex_pipeline::VideoCodec;
use str0m::Candidate;
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::format::{Codec, CodecSpec, FormatParams};
use str0m::media::{Direction, Frequency, MediaKind, Mid};
use tracing::debug;

use super::{Connection, Endpoint, LocalAddresses, Negotiated, Purpose, config};
use crate::candidates::distinct;
use crate::colour_extension;
use crate::sdp::{Format, Offer, check_size, declared_sources};
use ooblex_gateway::problem::{Problem, ProblemKind};

/// Payload type of Opus.
const OPUS: u8 = 111;
/// First payload type of video. Each format has two: of the media, and of its retransmissions.
const FIRST_VIDEO: u8 = 96;
/// The profile of H.264 that the gateway sends (constrained Baseline).
const SENT_PROFILES: [&str; 1] = ["42e01f"];
/// The profiles of H.264 that the gateway takes: constrained Baseline, Main and High.
const TAKEN_PROFILES: [&str; 3] = ["42e01f", "4d001f", "64001f"];

/// Makes offers to other servers.
#[derive(Debug, Clone)]
pub struct Dialler {
    endpoint: Endpoint,
    /// The address that sockets are bound to.
    from: IpAddr,
    sdp_kib: usize,
}

/// An offer of the gateway that is not answered yet.
pub struct Dialled {
    connection: Connection,
    pending: SdpPendingOffer,
    lines: Vec<Mid>,
    local: LocalAddresses,
    socket: UdpSocket,
    /// The part of the gateway: it publishes to the other server, or watches it.
    purpose: Purpose,
    codecs: Vec<VideoCodec>,
    sdp_kib: usize,
    /// The SDP offer.
    pub offer: String,
}

impl Dialler {
    /// Creates a dialler for endpoints of this configuration. Its sockets have the address `from`,
    /// that of `media.listen`. Answers of more than `sdp_kib` are refused.
    pub fn new(endpoint: Endpoint, from: IpAddr, sdp_kib: usize) -> Self {
        Self { endpoint, from, sdp_kib }
    }

    /// Makes an offer. `purpose`: [`Purpose::Publish`] sends the pictures of a track, and
    /// [`Purpose::Watch`] receives a camera. It takes milliseconds, for the keys.
    ///
    /// # Errors
    /// When there is no socket left, or the library fails.
    pub fn offer(&self, purpose: Purpose, now: Instant) -> Result<Dialled, Problem> {
        let unavailable = |reason: String| Problem::new(ProblemKind::Unavailable, format!("no offer could be made: {reason}"));
        let offered = catch_unwind(AssertUnwindSafe(|| self.make(purpose, now)));
        offered.unwrap_or_else(|_| Err("the WebRTC library panicked".into())).map_err(unavailable)
    }

    fn make(&self, purpose: Purpose, now: Instant) -> Result<Dialled, String> {
        let is_reachable = |ip: &IpAddr| self.from.is_unspecified() || ip.is_ipv4() == self.from.is_ipv4();
        let mut ips = distinct(self.endpoint.candidates.current().iter().map(SocketAddr::ip).filter(is_reachable));
        // The library checks the addresses of the family of its only one.
        let own = *ips.first().ok_or("the gateway has no address")?;
        ips.retain(|ip| ip.is_ipv4() == own.is_ipv4());
        let socket = self.socket(own).map_err(|error| format!("no socket is left ({error})"))?;
        let port = socket.local_addr().map_err(|error| error.to_string())?.port();
        let addresses: Vec<_> = ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
        let (direction, profiles) = match purpose {
            Purpose::Publish => (Direction::SendOnly, &SENT_PROFILES[..]),
            Purpose::Watch | Purpose::Exchange => (Direction::RecvOnly, &TAKEN_PROFILES[..]),
        };
        let formats = formats(&self.endpoint.codecs, profiles);
        let mut rtc = Connection(Some(Box::new(config(&formats, &self.endpoint).set_ice_lite(false).build(now))));
        rtc.add_local_candidate(host(addresses[0])?);
        let mut api = rtc.sdp_api();
        let lines = [MediaKind::Audio, MediaKind::Video].map(|kind| api.add_media(kind, direction, None, None, None));
        let (offer, pending) = api.apply().ok_or("the WebRTC library made no offer")?;
        let offer = written(&colour_extension::named(&offer.to_sdp_string()), direction.is_sending(), &addresses[1..])?;
        let Self { endpoint: Endpoint { codecs, .. }, sdp_kib, .. } = self.clone();
        Ok(Dialled {
            connection: rtc,
            pending,
            lines: lines.to_vec(),
            local: LocalAddresses::udp(addresses[0]),
            socket,
            purpose,
            codecs,
            sdp_kib,
            offer,
        })
    }

    fn socket(&self, own: IpAddr) -> io::Result<UdpSocket> {
        let any = if own.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((if self.from.is_unspecified() { any } else { self.from }, 0))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

impl Dialled {
    /// Takes the answer of the other server.
    ///
    /// # Errors
    /// When it is too large, or cannot be used. The text says what is wrong with the answer.
    pub fn answered(self, answer: &str) -> Result<Negotiated, String> {
        let accepted = catch_unwind(AssertUnwindSafe(|| self.accept(answer)));
        accepted.unwrap_or_else(|_| Err("the WebRTC library could not take it".into()))
    }

    fn accept(self, answer: &str) -> Result<Negotiated, String> {
        check_size(answer, self.sdp_kib).map_err(|problem| problem.detail)?;
        // The sender of the answer does what the offerer of a session does that the gateway answers.
        let purpose = if self.purpose == Purpose::Publish { Purpose::Watch } else { Purpose::Publish };
        let read = Offer::read(answer, purpose, &self.codecs).map_err(|problem| {
            debug!(detail = problem.detail, "the answer of another server is refused");
            match problem.kind {
                ProblemKind::NoVideo if purpose == Purpose::Publish => "it sends no video".to_string(),
                ProblemKind::NoVideo => "it takes no video".into(),
                ProblemKind::NoCommonCodec => "it chooses no video codec of the offer".into(),
                ProblemKind::BadSdp => "it is no SDP answer with ICE credentials and a SHA-256 fingerprint".into(),
                _ => "it accepts lines in a way that was not offered".into(),
            }
        })?;
        let for_library = read.for_library() + &read.rejected_for_library();
        let answer_for_library =
            SdpAnswer::from_sdp_string(&colour_extension::renamed(&for_library)).map_err(|error| format!("it cannot be read ({error})"))?;
        let Self { mut connection, pending, lines, local, socket, .. } = self;
        connection.sdp_api().accept_answer(pending, answer_for_library).map_err(|error| format!("it does not fit the offer ({error})"))?;
        let ice_user = connection.direct_api().local_ice_credentials().ufrag;
        let sources = declared_sources(answer);
        Ok(Negotiated { connection, local, ice_user, sources, answer: String::new(), dialled: Some(super::DialledSide { lines, socket }) })
    }
}

/// Returns the formats of an offer, in the order of the configured codecs.
fn formats(codecs: &[VideoCodec], profiles: &[&str]) -> Vec<Format> {
    let video = |codec, format| CodecSpec { codec, clock_rate: Frequency::NINETY_KHZ, channels: None, format };
    let h264 = |profile: &&str| {
        let line = format!("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={profile}");
        video(Codec::H264, FormatParams::parse_line(&line))
    };
    let specs = codecs.iter().flat_map(|codec| match codec {
        VideoCodec::Vp8 => vec![video(Codec::Vp8, FormatParams::default())],
        VideoCodec::H264 => profiles.iter().map(h264).collect(),
    });
    let pts = (FIRST_VIDEO..OPUS).step_by(2);
    let video = specs.zip(pts).map(|(spec, pt)| Format { pt: pt.into(), resent: Some((pt + 1).into()), spec });
    let opus = FormatParams {
        min_p_time: Some(10),
        use_inband_fec: Some(true),
        stereo: Some(true),
        sprop_stereo: Some(true),
        ..FormatParams::default()
    };
    let opus = CodecSpec { codec: Codec::Opus, clock_rate: Frequency::FORTY_EIGHT_KHZ, channels: Some(2), format: opus };
    video.chain([Format { pt: OPUS.into(), resent: None, spec: opus }]).collect()
}

/// Returns the library's offer with the other addresses of the gateway, with the attribute that RFC
/// 9725 asks for, and without sources of media if nothing is sent.
fn written(offer: &str, is_sent: bool, others: &[SocketAddr]) -> Result<String, String> {
    let mut text = String::with_capacity(offer.len() + 64 * others.len());
    let mut has_others = false;
    let is_source = |line: &&str| ["a=msid:", "a=ssrc:", "a=ssrc-group:"].iter().any(|name| line.starts_with(name));
    for line in offer.lines().filter(|line| is_sent || !is_source(line)) {
        text.extend([line, "\r\n"]);
        if line == "a=rtcp-mux" {
            text.push_str("a=rtcp-mux-only\r\n");
        }
        if line.starts_with("a=candidate:") && !std::mem::replace(&mut has_others, true) {
            for address in others {
                text.extend(["a=", &host(*address)?.to_sdp_string(), "\r\n"]);
            }
        }
    }
    Ok(text)
}

fn host(address: SocketAddr) -> Result<Candidate, String> {
    Candidate::builder().udp().host(address).build().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::negotiate;
    use super::*;

    const ADDRESSES: [&str; 2] = ["192.0.2.7:8000", "127.0.0.1:8000"];

    fn endpoint(codecs: &[VideoCodec]) -> Endpoint {
        str0m::crypto::from_feature_flags().install_process_default();
        let candidates = ADDRESSES.map(|address| address.parse().unwrap()).to_vec();
        Endpoint { candidates: candidates.into(), codecs: codecs.to_vec(), start_bitrate_bps: 1_000_000 }
    }

    fn dialled(purpose: Purpose, codecs: &[VideoCodec]) -> Dialled {
        Dialler::new(endpoint(codecs), [127, 0, 0, 1].into(), 64).offer(purpose, Instant::now()).unwrap()
    }

    const BOTH: [VideoCodec; 2] = [VideoCodec::Vp8, VideoCodec::H264];

    #[test]
    fn offer_has_all_addresses_with_the_port_of_its_own_socket_and_what_whip_needs() {
        let dialled = dialled(Purpose::Publish, &[VideoCodec::H264]);
        let port = dialled.socket.local_addr().unwrap().port();
        for address in ["192.0.2.7", "127.0.0.1"] {
            assert!(dialled.offer.contains(&format!(" {address} {port} typ host")), "{}", dialled.offer);
        }
        assert_eq!(dialled.offer.matches("a=rtcp-mux-only\r\n").count(), 2);
        assert!(dialled.offer.contains("a=setup:actpass") && dialled.offer.contains("H264") && !dialled.offer.contains("VP8"));
        assert!(dialled.offer.contains("a=sendonly") && !dialled.offer.contains("a=ice-lite"), "{}", dialled.offer);
        assert!(dialled.offer.contains("a=ssrc:") && dialled.offer.contains("a=msid:"));
        let watching = self::dialled(Purpose::Watch, &BOTH).offer;
        assert!(watching.contains("a=recvonly") && !watching.contains("a=ssrc") && !watching.contains("a=msid:"), "{watching}");
    }

    #[test]
    fn answers_of_the_gateway_itself_are_taken() {
        for (purpose, asked) in [(Purpose::Watch, Purpose::Watch), (Purpose::Publish, Purpose::Publish)] {
            for codecs in [&BOTH[..], &BOTH[..1], &BOTH[1..]] {
                let dialled = dialled(purpose, &BOTH);
                let answer =
                    negotiate(&dialled.offer, asked, &endpoint(codecs), Instant::now()).map_err(|problem| problem.detail).unwrap().answer;
                let Negotiated { connection, dialled, .. } = dialled.answered(&answer).unwrap();
                let lines = dialled.unwrap().lines;
                assert_eq!(lines.len(), 2);
                for mid in lines {
                    let media = connection.media(mid).unwrap();
                    assert!(!media.remote_pts().is_empty(), "{answer}");
                    assert_eq!(media.direction().is_sending(), purpose == Purpose::Publish, "{answer}");
                }
            }
        }
    }

    #[test]
    fn line_that_the_other_server_rejects_is_left_out() {
        for rejected in ["m=audio 0 UDP/TLS/RTP/SAVPF 111", "m=audio 0 UDP/TLS/RTP/SAVPF 0"] {
            let dialled = dialled(Purpose::Watch, &BOTH);
            let mut answer = negotiate(&dialled.offer, Purpose::Watch, &endpoint(&BOTH), Instant::now()).unwrap().answer;
            let audio = dialled.lines[0];
            answer = answer.replace("m=audio 9 UDP/TLS/RTP/SAVPF 111", rejected).replace(&format!("BUNDLE {audio} "), "BUNDLE ");
            let Negotiated { connection, dialled, .. } = dialled.answered(&answer).unwrap();
            let [audio, video] = dialled.unwrap().lines[..] else { panic!("two lines") };
            assert!(!connection.media(audio).unwrap().direction().is_receiving());
            assert!(connection.media(video).unwrap().direction().is_receiving());
        }
    }

    #[test]
    fn answers_that_can_not_be_used_say_why() {
        let answer = |dialled: &Dialled| negotiate(&dialled.offer, Purpose::Watch, &endpoint(&BOTH), Instant::now()).unwrap().answer;
        /// Words of the refusal, and the change of a good answer.
        type Case<'a> = (&'a str, &'a dyn Fn(String) -> String);
        let cases: [Case<'_>; 7] = [
            ("no SDP", &|_| "<html>".into()),
            ("no SDP", &|_| String::new()),
            ("no SDP", &|answer| answer.lines().filter(|line| !line.contains("ice-pwd")).map(|line| format!("{line}\r\n")).collect()),
            ("sdp_kib", &|answer| answer + &"a=x\r\n".repeat(20_000)),
            ("sends no video", &|answer| answer.replace("a=sendonly", "a=recvonly")),
            ("no video codec", &|answer| answer.replace("VP8/", "VP9/").replace("H264/", "H265/")),
            ("does not fit", &|answer| {
                let mid = answer.lines().find_map(|line| line.strip_prefix("a=mid:")).unwrap().to_string();
                answer.replace(&mid, "other")
            }),
        ];
        for (words, change) in cases {
            let dialled = dialled(Purpose::Watch, &BOTH);
            let changed = change(answer(&dialled));
            let refused = dialled.answered(&changed).map(|_| ()).unwrap_err();
            assert!(refused.contains(words), "{words}: {refused}: {changed}");
        }
    }
}
