//! The other side of a session: what a browser does, without the browser. Benchmarks and tests use it against a real gateway.
//!
//! [`Client`] is driven by calls on one thread: [`Client::send_frame`] puts a compressed frame on its way, [`Client::poll`] waits
//! for what comes back. It owns the socket and the clock; `endpoint` is the connection itself. It speaks through the same WebRTC
//! library as the gateway, so it shows what the gateway does with packets, not how browsers differ; for that there are the
//! tests in a real browser.

pub(crate) mod endpoint;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ooblex_codec::Rotation;
use ooblex_pipeline::{EncodedFrame, VideoCodec};
use serde_json::Value;
use str0m::RtcError;

use endpoint::{Endpoint, Offered, address_towards};

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
    /// Whether to estimate the bandwidth to the gateway, and hold packets back so as not to exceed it. Without feedback there is
    /// nothing to estimate from.
    pub paced: bool,
    /// The UDP port from which it is spoken; 0: any that is free.
    pub port: u16,
    /// The key or token that is shown with the offer.
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
    /// The session's id at the gateway; empty where the gateway names none.
    pub session: String,
    /// What opens the session to the API; empty where the gateway gives none.
    pub secret: String,
    /// What the gateway answered.
    pub answer: String,
    endpoint: Endpoint,
    socket: UdpSocket,
    buffer: Vec<u8>,
}

impl Client {
    /// A connection comes about within this time, or not at all.
    pub(crate) const CONNECT_WITHIN: Duration = Duration::from_secs(10);

    /// Offers a session to the gateway at `url` (`http://127.0.0.1:8000`) and waits until it is connected.
    ///
    /// # Errors
    /// When the gateway refuses, can not be reached, or no connection comes about.
    pub fn connect(url: &str, wish: &Wish) -> Result<Self, ClientError> {
        let socket = UdpSocket::bind((address_towards(url), wish.port))?;
        let offered = Offered::new(wish, socket.local_addr()?, Instant::now())?;
        let (status, answer) = post(&format!("{url}/offer"), &offered.body, wish.token.as_deref())?;
        let (endpoint, answer) = offered.answered(status, answer)?;
        let mut client =
            Self { session: answer.session, secret: answer.secret, answer: answer.sdp, endpoint, socket, buffer: vec![0; MAX_DATAGRAM] };
        client.wait_for_connection()?;
        Ok(client)
    }

    /// Puts a compressed frame on its way. `rotation`: what the gateway has to do to show it upright.
    ///
    /// # Errors
    /// When the session is broken.
    pub fn send_frame(&mut self, frame: &EncodedFrame, rotation: Option<Rotation>) -> Result<(), ClientError> {
        let now = Instant::now();
        self.endpoint.write_frame(now, frame, rotation)?;
        self.drain(now).map(drop)
    }

    /// Puts a frame of audio on its way; `time` in ticks of 48 kHz.
    ///
    /// # Errors
    /// When the session is broken.
    pub fn send_audio(&mut self, time: u64, data: &[u8]) -> Result<(), ClientError> {
        let now = Instant::now();
        self.endpoint.write_audio(now, time, data)?;
        self.drain(now).map(drop)
    }

    /// Asks for another effect. The answer comes as [`ClientEvent::Message`].
    ///
    /// # Errors
    /// When the session is broken.
    pub fn say(&mut self, message: &Value) -> Result<(), ClientError> {
        self.endpoint.say(message)?;
        self.drain(Instant::now()).map(drop)
    }

    /// Asks the gateway for a keyframe.
    ///
    /// # Errors
    /// When the session is broken.
    pub fn ask_for_keyframe(&mut self) -> Result<(), ClientError> {
        self.endpoint.ask_for_keyframe();
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
            if let Some(event) = self.endpoint.next_event() {
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

    /// Opens another data channel.
    ///
    /// # Errors
    /// When the session is broken.
    pub fn open_channel(&mut self, label: &str) -> Result<(), ClientError> {
        self.endpoint.open_channel(label.into());
        self.drain(Instant::now()).map(drop)
    }

    /// The user fragment of its ICE credentials.
    pub fn ice_user(&mut self) -> String {
        self.endpoint.ice_user()
    }

    /// Speaks from this socket from now on. Returns the one before, to which the gateway still sends.
    pub fn change_socket(&mut self, socket: UdpSocket) -> UdpSocket {
        std::mem::replace(&mut self.socket, socket)
    }

    /// Leaves without a word, as a browser does whose machine is switched off.
    pub fn vanish(self) {}

    /// Says goodbye.
    ///
    /// # Errors
    /// When the session is broken.
    pub fn close(mut self) -> Result<(), ClientError> {
        self.endpoint.close()?;
        self.drain(Instant::now()).map(drop)
    }

    fn wait_for_connection(&mut self) -> Result<(), ClientError> {
        let deadline = Instant::now() + Self::CONNECT_WITHIN;
        while !(self.endpoint.is_connected() && self.endpoint.has_control()) {
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

/// Larger datagrams are not of WebRTC.
pub(crate) const MAX_DATAGRAM: usize = 2048;
/// A gateway that has not answered an offer for so long will not.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// The JSON that the gateway answers to whoever shows `token`, with its status.
///
/// # Errors
/// When the gateway can not be reached.
pub fn post(url: &str, body: &Value, token: Option<&str>) -> Result<(u16, Value), ureq::Error> {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(ANSWER_WITHIN)).build();
    let mut request = ureq::Agent::new_with_config(config).post(url);
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let mut response = request.send_json(body)?;
    let status = response.status().as_u16();
    Ok((status, response.body_mut().read_json().unwrap_or(Value::Null)))
}
