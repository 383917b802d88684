//! WebRTC client that does what a browser does in a session. Benchmarks and tests use it against a
//! real gateway.
//!
//! [`Client`] is blocking, and is driven from one thread: [`Client::send_frame`] sends an encoded
//! frame, and [`Client::poll`] waits for events. It owns the socket and the clock; `endpoint` is
//! the connection itself. It uses the same WebRTC library as the gateway. So it tests how the
//! gateway handles packets, but not how browsers differ; the tests in a real browser do.

pub mod endpoint;
pub mod link;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ooblex_codec::Rotation;
use ooblex_pipeline::{EncodedFrame, VideoCodec};
use serde_json::{Value, json};
use str0m::RtcError;

use endpoint::{Answer, Endpoint, Offered, Purpose, address_towards};

/// Parameters of a session.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Codecs to offer, in order of preference.
    pub codecs: Vec<VideoCodec>,
    /// Name of the effect; `None` selects the gateway's default.
    pub effect: Option<String>,
    /// Parameters of the effect.
    pub params: Value,
    /// True to offer an audio m-line too.
    pub audio: bool,
    /// True to send transport-wide feedback, from which the gateway estimates the bandwidth.
    pub feedback: bool,
    /// True to estimate the bandwidth to the gateway and to pace packets accordingly. It requires
    /// `feedback`.
    pub paced: bool,
    /// Local UDP port; 0 selects any free port.
    pub port: u16,
    /// API key or token that is sent with the offer.
    pub token: Option<String>,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            codecs: vec![VideoCodec::Vp8],
            effect: None,
            params: Value::Null,
            audio: false,
            feedback: true,
            paced: true,
            port: 0,
            token: None,
        }
    }
}

/// Event of a session.
#[derive(Debug)]
pub enum ClientEvent {
    /// A complete encoded frame was received.
    Frame {
        /// The encoded frame.
        frame: EncodedFrame,
        /// True if frames before this one were lost.
        gap: bool,
        /// Time at which the frame was complete.
        arrived: Instant,
    },
    /// An audio frame was received.
    Audio {
        /// RTP timestamp, at 48 kHz.
        time: u64,
        /// Opus packet.
        data: Vec<u8>,
    },
    /// A message was received on the data channel.
    Message(Value),
    /// The gateway requests a keyframe.
    KeyframeWanted,
    /// The session has ended.
    Ended,
}

/// Error in setting up or running a session.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The HTTP request failed.
    #[error("the gateway cannot be reached: {0}")]
    Http(#[from] ureq::Error),
    /// The gateway refused the offer, with this HTTP status and problem document.
    #[error("the gateway refused the offer ({0}): {1}")]
    Refused(u16, Value),
    /// The gateway's answer is invalid.
    #[error("the gateway's answer cannot be used: {0}")]
    Answer(String),
    /// The WebRTC library reported an error.
    #[error("WebRTC: {0}")]
    Rtc(#[from] RtcError),
    /// The UDP socket failed.
    #[error("UDP: {0}")]
    Socket(#[from] io::Error),
    /// The connection was not established in time.
    #[error("no connection within {0:?}")]
    Timeout(Duration),
}

/// A session with a gateway.
pub struct Client {
    /// Id of the session at the gateway; empty if the gateway names none.
    pub session: String,
    /// Secret that authorises API requests about the session; empty if the gateway gives none.
    pub secret: String,
    /// SDP answer of the gateway.
    pub answer: String,
    endpoint: Endpoint,
    socket: UdpSocket,
    buffer: Vec<u8>,
}

impl Client {
    /// Maximum time for establishing the connection.
    pub const CONNECT_WITHIN: Duration = Duration::from_secs(10);

    /// Offers a session to the gateway at `url` (`http://127.0.0.1:8000`), and waits until it is
    /// connected.
    ///
    /// # Errors
    /// Returns an error if the gateway is unreachable or refuses the offer, or if the connection is
    /// not established in time.
    pub fn connect(url: &str, wish: &Wish) -> Result<Self, ClientError> {
        Self::begin(url, wish, &Purpose::Exchange)
    }

    /// Publishes to a room of the gateway at `url` by WHIP, and waits until it is connected.
    ///
    /// # Errors
    /// Returns an error like [`Client::connect`].
    pub fn publish(url: &str, room: &str, wish: &Wish) -> Result<Self, ClientError> {
        Self::begin(url, wish, &Purpose::Publish(room.into()))
    }

    /// Watches a room of the gateway at `url` by WHEP, and waits until it is connected.
    ///
    /// # Errors
    /// Returns an error like [`Client::connect`].
    pub fn watch(url: &str, room: &str, wish: &Wish) -> Result<Self, ClientError> {
        Self::begin(url, wish, &Purpose::Watch(room.into()))
    }

    fn begin(url: &str, wish: &Wish, purpose: &Purpose) -> Result<Self, ClientError> {
        let socket = UdpSocket::bind((address_towards(url), wish.port))?;
        let (endpoint, answer) = negotiate(url, wish, purpose, socket.local_addr()?)?;
        let mut client =
            Self { session: answer.session, secret: answer.secret, answer: answer.sdp, endpoint, socket, buffer: vec![0; MAX_DATAGRAM] };
        client.wait_for_connection(*purpose == Purpose::Exchange)?;
        Ok(client)
    }

    /// Sends an encoded frame. `rotation` is the rotation that the gateway must apply to show it
    /// upright.
    ///
    /// # Errors
    /// Returns an error if the session is broken.
    pub fn send_frame(&mut self, frame: &EncodedFrame, rotation: Option<Rotation>) -> Result<(), ClientError> {
        let now = Instant::now();
        self.endpoint.write_frame(now, frame, rotation)?;
        self.drain(now).map(drop)
    }

    /// Sends an audio frame; `time` is its RTP timestamp at 48 kHz.
    ///
    /// # Errors
    /// Returns an error if the session is broken.
    pub fn send_audio(&mut self, time: u64, data: &[u8]) -> Result<(), ClientError> {
        let now = Instant::now();
        self.endpoint.write_audio(now, time, data)?;
        self.drain(now).map(drop)
    }

    /// Sends a message on the data channel, such as a change of the effect. The gateway's reply
    /// arrives as [`ClientEvent::Message`].
    ///
    /// # Errors
    /// Returns an error if the session is broken.
    pub fn say(&mut self, message: &Value) -> Result<(), ClientError> {
        self.endpoint.say(message)?;
        self.drain(Instant::now()).map(drop)
    }

    /// Requests a keyframe from the gateway.
    ///
    /// # Errors
    /// Returns an error if the session is broken.
    pub fn ask_for_keyframe(&mut self) -> Result<(), ClientError> {
        self.endpoint.ask_for_keyframe();
        self.drain(Instant::now()).map(drop)
    }

    /// Returns the next event, and waits for it until `deadline` at most.
    ///
    /// # Errors
    /// Returns an error if the session is broken.
    pub fn poll(&mut self, deadline: Instant) -> Result<Option<ClientEvent>, ClientError> {
        loop {
            let now = Instant::now();
            let wakeup = self.drain(now)?.min(deadline);
            if let Some(event) = self.endpoint.next_event() {
                return Ok(Some(event));
            }
            if now >= deadline {
                return Ok(None);
            }
            self.receive(wakeup)?;
        }
    }

    /// Sends bytes that are not part of the protocol, from the session's own address.
    ///
    /// # Errors
    /// Returns an error if the socket does not accept them.
    pub fn send_garbage(&self, gateway: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        self.socket.send_to(bytes, gateway).map(drop)
    }

    /// Opens another data channel.
    ///
    /// # Errors
    /// Returns an error if the session is broken.
    pub fn open_channel(&mut self, label: &str) -> Result<(), ClientError> {
        self.endpoint.open_channel(label.into());
        self.drain(Instant::now()).map(drop)
    }

    /// Returns the local ICE username fragment.
    pub fn ice_user(&mut self) -> String {
        self.endpoint.ice_user()
    }

    /// Replaces the socket. Returns the previous one, to which the gateway still sends.
    pub fn change_socket(&mut self, socket: UdpSocket) -> UdpSocket {
        std::mem::replace(&mut self.socket, socket)
    }

    /// Ends without closing the session, like a browser on a machine that is switched off.
    pub fn vanish(self) {}

    /// Closes the session.
    ///
    /// # Errors
    /// Returns an error if the session is broken.
    pub fn close(mut self) -> Result<(), ClientError> {
        self.endpoint.close()?;
        self.drain(Instant::now()).map(drop)
    }

    fn wait_for_connection(&mut self, needs_control: bool) -> Result<(), ClientError> {
        let deadline = Instant::now() + Self::CONNECT_WITHIN;
        while !(self.endpoint.is_connected() && (self.endpoint.has_control() || !needs_control)) {
            let wakeup = self.drain(Instant::now())?.min(deadline);
            if Instant::now() >= deadline {
                return Err(ClientError::Timeout(Self::CONNECT_WITHIN));
            }
            self.receive(wakeup)?;
        }
        Ok(())
    }

    /// Waits for a datagram until `wakeup`, and handles the timeout if none arrives.
    fn receive(&mut self, wakeup: Instant) -> Result<(), ClientError> {
        let wait = wakeup.saturating_duration_since(Instant::now()).max(Duration::from_micros(100));
        self.socket.set_read_timeout(Some(wait))?;
        let received = self.socket.recv_from(&mut self.buffer);
        let now = Instant::now();
        match received {
            Ok((length, source)) => self.endpoint.on_datagram(now, source, &self.buffer[..length]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => self.endpoint.on_timeout(now),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn drain(&mut self, now: Instant) -> Result<Instant, ClientError> {
        let mut unsent = None;
        let wakeup = self.endpoint.drain(now, |to, bytes| unsent = self.socket.send_to(bytes, to).err().or(unsent.take()))?;
        match unsent {
            Some(error) => Err(error.into()),
            None => Ok(wakeup),
        }
    }
}

/// Size of the receive buffer in bytes; WebRTC datagrams are smaller.
pub const MAX_DATAGRAM: usize = 2048;
/// Maximum time for the gateway's answer to a request.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Offers a session to the gateway at `url`, for an endpoint with the local address `local`.
///
/// # Errors
/// Returns an error if the gateway is unreachable, refuses the offer, or gives an unusable answer.
pub fn negotiate(url: &str, wish: &Wish, purpose: &Purpose, local: SocketAddr) -> Result<(Endpoint, Answer), ClientError> {
    let offered = Offered::with_purpose(wish, purpose, local, Instant::now())?;
    let address = match purpose {
        Purpose::Exchange => {
            let (status, answer) = post(&format!("{url}/offer"), &offered.body, wish.token.as_deref())?;
            return offered.answered(status, answer);
        }
        Purpose::Publish(room) => format!("{url}/whip/{room}"),
        Purpose::Watch(room) => format!("{url}/whep/{room}"),
    };
    let mut request = request(&address, wish.token.as_deref()).content_type("application/sdp");
    if let (Purpose::Publish(_), Some(effect)) = (purpose, &wish.effect) {
        request = request.query("effect", effect);
        if !wish.params.is_null() {
            request = request.query("params", wish.params.to_string());
        }
    }
    let mut response = request.send(offered.body["sdp"].as_str().unwrap_or_default())?;
    let (status, sdp) = (response.status().as_u16(), response.body_mut().read_to_string()?);
    match status {
        201 => offered.answered(200, json!({ "sdp": sdp })),
        _ => Err(ClientError::Refused(status, serde_json::from_str(&sdp).unwrap_or(Value::Null))),
    }
}

/// Posts JSON with a bearer `token`. Returns the HTTP status and the JSON answer.
///
/// # Errors
/// Returns an error if the gateway is unreachable.
pub fn post(url: &str, body: &Value, token: Option<&str>) -> Result<(u16, Value), ureq::Error> {
    let mut response = request(url, token).send_json(body)?;
    let status = response.status().as_u16();
    Ok((status, response.body_mut().read_json().unwrap_or(Value::Null)))
}

fn request(url: &str, token: Option<&str>) -> ureq::RequestBuilder<ureq::typestate::WithBody> {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(ANSWER_WITHIN)).build();
    let request = ureq::Agent::new_with_config(config).post(url);
    match token {
        Some(token) => request.header("Authorization", format!("Bearer {token}")),
        None => request,
    }
}
