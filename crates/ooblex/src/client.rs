//! The other side of a session: what a browser does, without the browser. Benchmarks and tests use it against a real gateway.
//!
//! It is driven by calls on one thread: [`Client::send_frame`] puts a compressed frame on its way, [`Client::poll`] waits for
//! what comes back. It speaks through the same WebRTC library as the gateway, so it shows what the gateway does with
//! packets, not how browsers differ; for that there are the tests in a real browser.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ooblex_codec::Rotation;
use ooblex_pipeline::{EncodedFrame, MediaTime, VideoCodec};
use serde_json::{Value, json};
use str0m::bwe::Bitrate;
use str0m::change::SdpAnswer;
use str0m::channel::ChannelId;
use str0m::format::Codec;
use str0m::media::{Direction, Frequency, KeyframeRequestKind, MediaKind, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{Extension, ExtensionMap, VideoOrientation};
use str0m::{Candidate, Event, IceConnectionState, Input, Output, Rtc, RtcConfig, RtcError};

/// What a session is begun with.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Codecs to offer, the preferred one first.
    pub codecs: Vec<VideoCodec>,
    /// The effect; `None` leaves it to the gateway.
    pub effect: Option<String>,
    /// Its parameters.
    pub params: Value,
    /// Whether to offer an audio line, too.
    pub audio: bool,
    /// Whether to give feedback that bandwidth can be estimated from.
    pub feedback: bool,
}

impl Default for Wish {
    fn default() -> Self {
        Self { codecs: vec![VideoCodec::Vp8], effect: None, params: Value::Null, audio: false, feedback: true }
    }
}

/// What comes back.
#[derive(Debug)]
pub enum ClientEvent {
    /// A compressed frame came in whole.
    Frame {
        /// The frame.
        frame: EncodedFrame,
        /// Frames before it were lost.
        gap: bool,
        /// When it was whole.
        arrived: Instant,
    },
    /// A frame of audio: its timestamp in its own clock (48 kHz) and its content.
    Audio {
        /// RTP timestamp.
        time: u64,
        /// Opus.
        data: Vec<u8>,
    },
    /// A message on the data channel.
    Message(Value),
    /// The gateway asks for a keyframe.
    KeyframeWanted,
    /// The session is over.
    Ended,
}

/// A session that did not come about, or broke.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// HTTP did not work.
    #[error("the gateway can not be reached: {0}")]
    Http(#[from] ureq::Error),
    /// The gateway refused the offer: status and problem document.
    #[error("the gateway refused the offer ({0}): {1}")]
    Refused(u16, Value),
    /// The answer is not one.
    #[error("the gateway's answer can not be used: {0}")]
    Answer(String),
    /// The WebRTC library gave up.
    #[error("WebRTC: {0}")]
    Rtc(#[from] RtcError),
    /// The socket does not work.
    #[error("UDP: {0}")]
    Socket(#[from] io::Error),
    /// No connection came about in time.
    #[error("no connection within {0:?}")]
    Timeout(Duration),
}

/// One session with a gateway.
pub struct Client {
    /// The session's id at the gateway.
    pub session: String,
    /// What the gateway answered.
    pub answer: String,
    rtc: Rtc,
    socket: UdpSocket,
    local: SocketAddr,
    video: Mid,
    audio: Option<Mid>,
    control: Option<ChannelId>,
    connected: bool,
    events: VecDeque<ClientEvent>,
    buffer: Vec<u8>,
}

impl Client {
    const CONNECT_WITHIN: Duration = Duration::from_secs(10);

    /// Offers a session to the gateway at `url` (`http://127.0.0.1:8000`) and waits until it is connected.
    ///
    /// # Errors
    /// When the gateway refuses, can not be reached, or no connection comes about.
    pub fn connect(url: &str, wish: &Wish) -> Result<Self, ClientError> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let local = socket.local_addr()?;
        let mut rtc = config(wish).build(Instant::now());
        let candidate = Candidate::host(local, "udp").map_err(|error| ClientError::Answer(error.to_string()))?;
        rtc.add_local_candidate(candidate);
        let mut api = rtc.sdp_api();
        let audio = wish.audio.then(|| api.add_media(MediaKind::Audio, Direction::SendRecv, None, None, None));
        let video = api.add_media(MediaKind::Video, Direction::SendRecv, None, None, None);
        api.add_channel("control".into());
        let Some((offer, pending)) = api.apply() else { return Err(ClientError::Answer("nothing was offered".into())) };
        let body = json!({"sdp": offer.to_sdp_string(), "type": "offer", "effect": wish.effect, "params": wish.params});
        let (status, answer) = post(&format!("{url}/offer"), &body)?;
        if status != 200 {
            return Err(ClientError::Refused(status, answer));
        }
        let text = |name: &str| answer[name].as_str().map(String::from).ok_or_else(|| ClientError::Answer(format!("no '{name}'")));
        let (session, sdp) = (text("session")?, text("sdp")?);
        let parsed = SdpAnswer::from_sdp_string(&sdp).map_err(|error| ClientError::Answer(error.to_string()))?;
        rtc.sdp_api().accept_answer(pending, parsed)?;
        let mut client = Self {
            session,
            answer: sdp,
            rtc,
            socket,
            local,
            video,
            audio,
            control: None,
            connected: false,
            events: VecDeque::new(),
            buffer: vec![0; 2048],
        };
        client.wait_for_connection()?;
        Ok(client)
    }

    /// Puts a compressed frame on its way. `rotation`: what the gateway has to do to show it upright.
    ///
    /// # Errors
    /// When the session is broken.
    pub fn send_frame(&mut self, frame: &EncodedFrame, rotation: Option<Rotation>) -> Result<(), ClientError> {
        let now = Instant::now();
        let Some((pt, writer)) = self.payload_type(frame.codec).zip(self.rtc.writer(self.video)) else { return Ok(()) };
        let writer = match rotation {
            Some(rotation) => writer.video_orientation(orientation(rotation)),
            None => writer,
        };
        let time = str0m::media::MediaTime::new(frame.capture.0, Frequency::NINETY_KHZ);
        writer.write(pt, now, time, frame.data.clone())?;
        self.drain(now).map(drop)
    }

    /// Puts a frame of audio on its way; `time` in ticks of 48 kHz.
    ///
    /// # Errors
    /// When the session is broken.
    pub fn send_audio(&mut self, time: u64, data: &[u8]) -> Result<(), ClientError> {
        let now = Instant::now();
        let Some(writer) = self.audio.and_then(|mid| self.rtc.writer(mid)) else { return Ok(()) };
        let Some(pt) = writer.payload_params().next().map(|params| params.pt()) else { return Ok(()) };
        writer.write(pt, now, str0m::media::MediaTime::new(time, Frequency::FORTY_EIGHT_KHZ), data.to_vec())?;
        self.drain(now).map(drop)
    }

    /// Asks for another effect. The answer comes as [`ClientEvent::Message`].
    ///
    /// # Errors
    /// When the session is broken.
    pub fn say(&mut self, message: &Value) -> Result<(), ClientError> {
        if let Some(mut channel) = self.control.and_then(|id| self.rtc.channel(id)) {
            channel.write(false, message.to_string().as_bytes())?;
        }
        self.drain(Instant::now()).map(drop)
    }

    /// Asks the gateway for a keyframe.
    ///
    /// # Errors
    /// When the session is broken.
    pub fn ask_for_keyframe(&mut self) -> Result<(), ClientError> {
        if let Some(mut writer) = self.rtc.writer(self.video) {
            // It fails before the first packet came in only.
            _ = writer.request_keyframe(None, KeyframeRequestKind::Pli);
        }
        self.drain(Instant::now()).map(drop)
    }

    /// The next event, waiting for it until `deadline` at most.
    ///
    /// # Errors
    /// When the session is broken.
    pub fn poll(&mut self, deadline: Instant) -> Result<Option<ClientEvent>, ClientError> {
        loop {
            let now = Instant::now();
            let wakeup = self.drain(now)?.min(deadline);
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if now >= deadline {
                return Ok(None);
            }
            self.receive(wakeup)?;
        }
    }

    /// Sends bytes that are no part of the protocol from the session's own address.
    ///
    /// # Errors
    /// When the socket does not take them.
    pub fn send_garbage(&self, gateway: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        self.socket.send_to(bytes, gateway).map(drop)
    }

    /// Leaves without a word, as a browser does whose machine is switched off.
    pub fn vanish(self) {}

    /// Says goodbye.
    ///
    /// # Errors
    /// When the session is broken.
    pub fn close(mut self) -> Result<(), ClientError> {
        self.rtc.close()?;
        self.drain(Instant::now()).map(drop)
    }

    fn wait_for_connection(&mut self) -> Result<(), ClientError> {
        let deadline = Instant::now() + Self::CONNECT_WITHIN;
        while !(self.connected && self.control.is_some()) {
            let wakeup = self.drain(Instant::now())?.min(deadline);
            if Instant::now() >= deadline {
                return Err(ClientError::Timeout(Self::CONNECT_WITHIN));
            }
            self.receive(wakeup)?;
        }
        Ok(())
    }

    /// Waits for one datagram until `wakeup`, then lets time pass.
    fn receive(&mut self, wakeup: Instant) -> Result<(), ClientError> {
        let wait = wakeup.saturating_duration_since(Instant::now()).max(Duration::from_micros(100));
        self.socket.set_read_timeout(Some(wait))?;
        let received = self.socket.recv_from(&mut self.buffer);
        let now = Instant::now();
        match received {
            Ok((length, source)) => {
                if let Ok(contents) = self.buffer[..length].try_into() {
                    let receive = Receive { proto: Protocol::Udp, source, destination: self.local, contents };
                    self.rtc.handle_input(Input::Receive(now, receive))?;
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                self.rtc.handle_input(Input::Timeout(now))?;
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// What is due within a moment is due now, or the pacer would spread the packets of a frame over milliseconds.
    fn drain(&mut self, now: Instant) -> Result<Instant, ClientError> {
        let soon = now + Duration::from_micros(500);
        loop {
            match self.rtc.poll_output()? {
                Output::Transmit(transmit) => _ = self.socket.send_to(&transmit.contents, transmit.destination)?,
                Output::Event(event) => self.on_event(now, event),
                Output::Timeout(at) if at <= soon && self.rtc.is_alive() => self.rtc.handle_input(Input::Timeout(at.max(now)))?,
                Output::Timeout(at) => return Ok(at),
            }
        }
    }

    fn on_event(&mut self, now: Instant, event: Event) {
        let event = match event {
            Event::Connected => {
                self.connected = true;
                return;
            }
            Event::ChannelOpen(id, _) => {
                self.control = Some(id);
                return;
            }
            Event::ChannelData(data) => ClientEvent::Message(serde_json::from_slice(&data.data).unwrap_or(Value::Null)),
            Event::MediaData(data) if data.mid == self.video => {
                let codec = if data.params.spec().codec == Codec::H264 { VideoCodec::H264 } else { VideoCodec::Vp8 };
                let (gap, keyframe, capture) = (!data.contiguous, data.is_keyframe(), MediaTime(data.time.numer()));
                let frame = EncodedFrame { codec, keyframe, capture, data: data.data.to_vec() };
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

fn config(wish: &Wish) -> RtcConfig {
    let mut config = RtcConfig::new().clear_codecs().enable_opus(wish.audio, false);
    if wish.feedback {
        config = config.enable_bwe(Some(Bitrate::mbps(4)));
    } else {
        let mut extensions = ExtensionMap::empty();
        extensions.set(4, Extension::RtpMid);
        extensions.set(13, Extension::VideoOrientation);
        config = config.set_extension_map(extensions);
    }
    for codec in &wish.codecs {
        match codec {
            VideoCodec::Vp8 => config = config.enable_vp8(true),
            VideoCodec::H264 => config.codec_config().add_h264(108.into(), Some(109.into()), true, 0x42e01f),
        }
    }
    config
}

/// The JSON that the gateway answers, with its status.
///
/// # Errors
/// When the gateway can not be reached.
pub fn post(url: &str, body: &Value) -> Result<(u16, Value), ureq::Error> {
    let agent = ureq::Agent::new_with_config(ureq::Agent::config_builder().http_status_as_error(false).build());
    let mut response = agent.post(url).send_json(body)?;
    let status = response.status().as_u16();
    Ok((status, response.body_mut().read_json().unwrap_or(Value::Null)))
}

fn orientation(rotation: Rotation) -> VideoOrientation {
    match rotation {
        Rotation::None => VideoOrientation::Deg0,
        Rotation::By90 => VideoOrientation::Deg270,
        Rotation::By180 => VideoOrientation::Deg180,
        Rotation::By270 => VideoOrientation::Deg90,
    }
}
