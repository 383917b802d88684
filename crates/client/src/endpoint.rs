//! A WebRTC endpoint in the role of the offerer: it creates the offer, applies the answer, and
//! emits the events of a session.
//!
//! It has no socket and no clock (sans-IO): datagrams and times are passed in, datagrams and events
//! come out. [`super::Client`] drives it from a blocking thread, and the sessions of `ooblex bench`
//! drive it from async tasks.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use ooblex_codec::Rotation;
use ooblex_pipeline::{EncodedFrame, MediaTime, VideoCodec};
use serde_json::{Value, json};
use str0m::bwe::Bitrate;
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::channel::ChannelId;
use str0m::format::Codec;
use str0m::media::{Direction, Frequency, KeyframeRequestKind, MediaKind, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{Extension, ExtensionMap, VideoOrientation};
use str0m::{Candidate, Event, IceConnectionState, Input, Output, Rtc, RtcConfig};

use crate::{ClientError, ClientEvent, Wish};

/// Maximum number of packets in the reordering buffer; a keyframe of 1080p has about 150.
const REORDERING_PACKETS: usize = 300;
/// Time to wait for a missing packet before the gap is skipped. Browsers wait longer for a frame,
/// but show a complete keyframe at once, which this library does not do.
const REORDERING_TIMEOUT: Duration = Duration::from_millis(500);
/// Size of the retransmission buffer in packets, and the maximum age of its packets. No limit is
/// set on the share of retransmissions, because browsers have none.
const RESENDABLE: (usize, Duration) = (1000, Duration::from_secs(3));
/// Timeouts within this time are handled at once, because otherwise the pacer would spread the
/// packets of a frame over several milliseconds.
const SOON: Duration = Duration::from_micros(500);

/// What an offer is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// `POST /offer`: video in both directions, and a data channel.
    Exchange,
    /// `POST /whip/{room}`: video to the gateway, for this room.
    Publish(String),
    /// `POST /whep/{room}`: video from the gateway, of this room.
    Watch(String),
}

/// An endpoint whose offer has not been answered.
pub struct Offered {
    endpoint: Endpoint,
    pending: SdpPendingOffer,
    /// JSON body for `POST /offer`.
    pub body: Value,
}

/// Contents of the gateway's answer.
pub struct Answer {
    /// Id of the session; empty if the gateway names none.
    pub session: String,
    /// Secret that authorises API requests about the session; empty if the gateway gives none.
    pub secret: String,
    /// SDP answer, unchanged.
    pub sdp: String,
}

/// One side of a WebRTC connection.
pub struct Endpoint {
    rtc: Rtc,
    local: SocketAddr,
    video: Mid,
    audio: Option<Mid>,
    control: Option<ChannelId>,
    connected: bool,
    events: VecDeque<ClientEvent>,
}

impl Offered {
    /// Creates the offer of an endpoint with the local address `local`.
    pub fn new(wish: &Wish, local: SocketAddr, now: Instant) -> Result<Self, ClientError> {
        Self::with_purpose(wish, &Purpose::Exchange, local, now)
    }

    /// Creates the offer of an endpoint of a room, or like [`Offered::new`].
    pub fn with_purpose(wish: &Wish, purpose: &Purpose, local: SocketAddr, now: Instant) -> Result<Self, ClientError> {
        let direction = match purpose {
            Purpose::Exchange => Direction::SendRecv,
            Purpose::Publish(_) => Direction::SendOnly,
            Purpose::Watch(_) => Direction::RecvOnly,
        };
        let mut rtc = config(wish).build(now);
        let candidate = Candidate::host(local, "udp").map_err(|error| ClientError::Answer(error.to_string()))?;
        rtc.add_local_candidate(candidate);
        let mut api = rtc.sdp_api();
        let audio = wish.audio.then(|| api.add_media(MediaKind::Audio, direction, None, None, None));
        let video = api.add_media(MediaKind::Video, direction, None, None, None);
        if *purpose == Purpose::Exchange {
            api.add_channel("control".into());
        }
        let Some((offer, pending)) = api.apply() else { return Err(ClientError::Answer("nothing was offered".into())) };
        let body = json!({"sdp": offer.to_sdp_string(), "type": "offer", "effect": wish.effect, "params": wish.params});
        let endpoint = Endpoint { rtc, local, video, audio, control: None, connected: false, events: VecDeque::new() };
        Ok(Self { endpoint, pending, body })
    }

    /// Applies the gateway's answer, given as HTTP status and JSON.
    pub fn answered(self, status: u16, answer: Value) -> Result<(Endpoint, Answer), ClientError> {
        if status != 200 {
            return Err(ClientError::Refused(status, answer));
        }
        let sdp = answer["sdp"].as_str().map(String::from).ok_or_else(|| ClientError::Answer("it has no 'sdp'".into()))?;
        let session = answer["session"].as_str().unwrap_or_default().to_string();
        let secret = answer["secret"].as_str().unwrap_or_default().to_string();
        let parsed = SdpAnswer::from_sdp_string(&sdp).map_err(|error| ClientError::Answer(error.to_string()))?;
        let mut endpoint = self.endpoint;
        endpoint.rtc.sdp_api().accept_answer(self.pending, parsed)?;
        if let Some(stream) = endpoint.rtc.direct_api().stream_tx_by_mid(endpoint.video, None) {
            stream.set_rtx_cache(RESENDABLE.0, RESENDABLE.1, None);
        }
        Ok((endpoint, Answer { session, secret, sdp }))
    }
}

impl Endpoint {
    /// Handles a received datagram. A datagram of another protocol is ignored.
    pub fn on_datagram(&mut self, now: Instant, source: SocketAddr, bytes: &[u8]) -> Result<(), ClientError> {
        if let Ok(contents) = bytes.try_into() {
            let receive = Receive { proto: Protocol::Udp, source, destination: self.local, contents };
            self.rtc.handle_input(Input::Receive(now, receive))?;
        }
        Ok(())
    }

    /// Handles a timeout.
    pub fn on_timeout(&mut self, now: Instant) -> Result<(), ClientError> {
        Ok(self.rtc.handle_input(Input::Timeout(now))?)
    }

    /// Sends all datagrams that are due. Returns the time of the next timeout.
    pub fn drain(&mut self, now: Instant, mut send: impl FnMut(SocketAddr, &[u8])) -> Result<Instant, ClientError> {
        let soon = now + SOON;
        loop {
            match self.rtc.poll_output()? {
                Output::Transmit(transmit) => send(transmit.destination, &transmit.contents),
                Output::Event(event) => self.on_event(now, event),
                Output::Timeout(at) if at <= soon && self.rtc.is_alive() => self.rtc.handle_input(Input::Timeout(at.max(now)))?,
                Output::Timeout(at) => return Ok(at),
            }
        }
    }

    /// Returns the next event.
    pub fn next_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// Sends an encoded frame. Returns `false` if the gateway does not accept this codec.
    pub fn write_frame(&mut self, now: Instant, frame: &EncodedFrame, rotation: Option<Rotation>) -> Result<bool, ClientError> {
        let Some((pt, writer)) = self.payload_type(frame.codec).zip(self.rtc.writer(self.video)) else { return Ok(false) };
        let writer = match rotation {
            Some(rotation) => writer.video_orientation(orientation(rotation)),
            None => writer,
        };
        let time = str0m::media::MediaTime::new(frame.capture.0, Frequency::NINETY_KHZ);
        writer.write(pt, now, time, frame.data.clone())?;
        Ok(true)
    }

    /// Sends an audio frame; `time` is its RTP timestamp at 48 kHz.
    pub fn write_audio(&mut self, now: Instant, time: u64, data: &[u8]) -> Result<(), ClientError> {
        let Some(writer) = self.audio.and_then(|mid| self.rtc.writer(mid)) else { return Ok(()) };
        let Some(pt) = writer.payload_params().next().map(|params| params.pt()) else { return Ok(()) };
        Ok(writer.write(pt, now, str0m::media::MediaTime::new(time, Frequency::FORTY_EIGHT_KHZ), data.to_vec())?)
    }

    /// Sends a message on the data channel, if it is open.
    pub fn say(&mut self, message: &Value) -> Result<(), ClientError> {
        if let Some(mut channel) = self.control.and_then(|id| self.rtc.channel(id)) {
            channel.write(false, message.to_string().as_bytes())?;
        }
        Ok(())
    }

    /// Returns the local ICE username fragment.
    pub fn ice_user(&mut self) -> String {
        self.rtc.direct_api().local_ice_credentials().ufrag
    }

    /// Opens another data channel.
    pub fn open_channel(&mut self, label: String) {
        let mut api = self.rtc.sdp_api();
        api.add_channel(label);
        // With an open data channel, another one needs no new offer.
        _ = api.apply();
    }

    /// Requests a keyframe.
    pub fn ask_for_keyframe(&mut self) {
        if let Some(mut writer) = self.rtc.writer(self.video) {
            // The request only fails before the first packet has been received.
            _ = writer.request_keyframe(None, KeyframeRequestKind::Pli);
        }
    }

    /// Begins to close the connection; the closing datagrams are sent by the next
    /// [`Endpoint::drain`].
    pub fn close(&mut self) -> Result<(), ClientError> {
        Ok(self.rtc.close()?)
    }

    /// Returns whether the connection is established.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Returns whether the data channel is open.
    pub fn has_control(&self) -> bool {
        self.control.is_some()
    }

    /// Returns whether the gateway accepts a codec.
    pub fn takes(&self, codec: VideoCodec) -> bool {
        self.payload_type(codec).is_some()
    }

    fn on_event(&mut self, now: Instant, event: Event) {
        let event = match event {
            Event::Connected => {
                self.connected = true;
                return;
            }
            Event::ChannelOpen(id, label) => {
                if label == "control" {
                    self.control = Some(id);
                }
                return;
            }
            Event::ChannelData(data) => ClientEvent::Message(serde_json::from_slice(&data.data).unwrap_or(Value::Null)),
            Event::MediaData(data) if data.mid == self.video => {
                let codec = if data.params.spec().codec == Codec::H264 { VideoCodec::H264 } else { VideoCodec::Vp8 };
                let (gap, keyframe, capture) = (!data.contiguous, data.is_keyframe(), MediaTime(data.time.numer()));
                let frame = EncodedFrame { codec, keyframe, capture, data: data.data.clone() };
                ClientEvent::Frame { frame, gap, arrived: now }
            }
            Event::MediaData(data) => ClientEvent::Audio { time: data.time.numer(), data: data.data.to_vec() },
            Event::KeyframeRequest(_) => ClientEvent::KeyframeWanted,
            Event::Closed | Event::IceConnectionStateChange(IceConnectionState::Disconnected) => ClientEvent::Ended,
            _ => return,
        };
        self.events.push_back(event);
    }

    fn payload_type(&self, codec: VideoCodec) -> Option<Pt> {
        let wanted = match codec {
            VideoCodec::Vp8 => Codec::Vp8,
            VideoCodec::H264 => Codec::H264,
        };
        let media = self.rtc.media(self.video)?;
        let params = self.rtc.codec_config().params();
        media.remote_pts().iter().copied().find(|pt| params.iter().any(|p| p.pt() == *pt && p.spec().codec == wanted))
    }
}

/// Returns the local address from which the gateway at `url` is reached; loopback if it cannot be
/// determined.
pub fn address_towards(url: &str) -> IpAddr {
    let loopback = IpAddr::from([127, 0, 0, 1]);
    let host = url.split_once("://").map_or(url, |(_, rest)| rest).split('/').next().unwrap_or_default();
    let with_port =
        if host.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok()) { host.into() } else { format!("{host}:80") };
    let Some(remote) = with_port.to_socket_addrs().ok().and_then(|mut addresses| addresses.next()) else { return loopback };
    let any: SocketAddr = if remote.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    // Connecting a UDP socket sends nothing; it only makes the system choose the route.
    let chosen = UdpSocket::bind(any).and_then(|socket| socket.connect(remote).and_then(|()| socket.local_addr()));
    chosen.map_or(loopback, |address| address.ip())
}

fn config(wish: &Wish) -> RtcConfig {
    let mut config = RtcConfig::new()
        .clear_codecs()
        .enable_opus(wish.audio, false)
        .set_reordering_size_video(REORDERING_PACKETS)
        .set_reordering_timeout_video(Some(REORDERING_TIMEOUT));
    if !wish.feedback {
        let mut extensions = ExtensionMap::empty();
        extensions.set(4, Extension::RtpMid);
        extensions.set(13, Extension::VideoOrientation);
        config = config.set_extension_map(extensions);
    } else if wish.paced {
        config = config.enable_bwe(Some(Bitrate::mbps(4)));
    }
    for codec in &wish.codecs {
        match codec {
            VideoCodec::Vp8 => config = config.enable_vp8(true),
            VideoCodec::H264 => config.codec_config().add_h264(108.into(), Some(109.into()), true, 0x42e01f),
        }
    }
    config
}

fn orientation(rotation: Rotation) -> VideoOrientation {
    match rotation {
        Rotation::None => VideoOrientation::Deg0,
        Rotation::By90 => VideoOrientation::Deg270,
        Rotation::By180 => VideoOrientation::Deg180,
        Rotation::By270 => VideoOrientation::Deg90,
    }
}
