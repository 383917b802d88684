//! One WebRTC connection: between the packets of the media socket and the thread of its track.
//!
//! Owns the endpoint of the WebRTC library and nothing of pixels. Driven by [`crate::transport`], which owns the socket and
//! the clock. Here is what drives it and what its endpoint says; `incoming` is the media that comes, `outgoing` how frames leave, `network` what
//! is learnt of the network, `twice` which packets are sent twice, `about` the words about sessions, `lifetime` how long they last, `guard` what the library's cryptography shows.

pub(crate) mod guard;
mod incoming;
mod lifetime;
mod network;
mod outgoing;
mod twice;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ooblex_pipeline::EncodedFrame;
use str0m::bwe::{Bitrate, BweKind};
use str0m::channel::ChannelId;
use str0m::media::{KeyframeRequestKind, MediaData, Mid, Pt, Rid};
use str0m::net::{Receive, Transmit};
use str0m::{Event, IceConnectionState, Input, Output, RtcError};
use tracing::{debug, info};

pub use self::lifetime::Lifetime;
use self::twice::Twice;
use crate::bandwidth::Bandwidth;
use crate::control;
use crate::ids::SessionId;
use crate::labels::{Direction, End, Goodbye, LineCounts, SetUp};
use crate::negotiate::{Connection, Negotiated};
use crate::reception::{Reception, Resent};
use crate::track::{TrackHandle, TrackInput, TrackOutput};

/// One WebRTC connection.
pub struct Session {
    id: SessionId,
    rtc: Connection,
    ice_user: String,
    sources: Vec<u32>,
    track: TrackHandle,
    lifetime: Lifetime,
    created: Instant,
    /// When the token that it began with expires.
    expires_at: Option<Instant>,
    /// When media came last.
    media_at: Option<Instant>,
    closing: Option<Closing>,
    connected: Option<Instant>,
    set_up: SetUp,
    /// What the video line had counted when it was looked at last, from the browser and to it.
    counted: [LineCounts; 2],
    video: Option<Video>,
    control: Option<ChannelId>,
    /// Audio that came in while the endpoint was being drained; it goes back before the next packet is read.
    audio_back: VecDeque<MediaData>,
    /// A frame was lost on its way to the track: the decoder must not see what depends on it.
    gap: bool,
    /// Bits a second that would be of use.
    desired: Bitrate,
    /// What the network is thought to carry; `None` for a browser whose feedback does not tell.
    bandwidth: Option<Bandwidth>,
    /// When the counts of the lines were looked at, and whether they are in this turn.
    counts: (Option<Instant>, bool),
    /// What the browser reports of losses.
    reception: Reception,
    /// What it asked for again.
    resent: Resent,
    /// The camera was heard, and then silent for a while.
    was_paused: bool,
    /// Frames that wait until those before them are sent; here they can still be given up.
    held: VecDeque<(EncodedFrame, Instant)>,
    /// Some were, and no keyframe has come since.
    has_dropped: bool,
    /// What is sent a second time unasked.
    twice: Twice,
}

/// The gateway has said goodbye, and waits until the browser has heard it.
#[derive(Debug, Clone, Copy)]
struct Closing {
    deadline: Instant,
    end: End,
}

/// The line that the camera comes in and the effect goes out on.
#[derive(Debug, Clone, Copy)]
struct Video {
    mid: Mid,
    pt: Pt,
    /// Of a browser that sends the picture in several sizes, the one that came first; the others would confuse the decoder.
    rid: Option<Option<Rid>>,
}

impl Session {
    /// A browser that has not acknowledged the goodbye after this time does not get it any more.
    const GOODBYE_WITHIN: Duration = Duration::from_secs(1);
    /// Whoever has waited this long for a connection does not just think better of it.
    const CONNECTS_MOSTLY_WITHIN: Duration = Duration::from_secs(5);
    /// What is due within this time is due now.
    const SOON: Duration = Duration::from_micros(500);
    /// Steps of the endpoint before the other sessions get their turn.
    const MAX_STEPS: usize = 4096;
    /// Longest text on the data channel that is read.
    const MAX_CONTROL_BYTES: usize = 16 * 1024;
    /// Packets that can be sent again, and for how long: after an outage of a few seconds, too.
    const RESENDABLE: (usize, Duration) = (1500, Duration::from_secs(6));
    /// The share of what is sent that may be sent again. The library's own 0.15 is used up at 10 % loss, where some asks twice for the
    /// same, and then nothing is sent again at all. Without a limit, those who ask for everything until it comes fill a narrow network.
    const MOST_RESENT: f32 = 0.3;
    /// Bandwidth is sought up to so many times what is thought to be there: more would fill a narrow network for a second.
    const SOUGHT: f64 = 3.0;
    /// The same, of the first attempt of a search that is begun anew.
    const SOUGHT_FIRST: f64 = 1.5;
    /// The same, while the network is to come to rest. The library takes no zero.
    const SOUGHT_NOT: f64 = 0.001;
    /// Between two looks at what the lines have counted; browsers report losses about once a second.
    const COUNTS_EVERY: Duration = Duration::from_secs(1);
    /// Frames that wait for those before them.
    const MOST_HELD: usize = 16;
    /// Bytes that wait on the data channel before messages that can be missed are left out.
    const MAX_CONTROL_BACKLOG: usize = 64 * 1024;

    /// A session whose offer was answered.
    pub fn new(id: SessionId, negotiated: Negotiated, track: TrackHandle, lifetime: Lifetime, now: Instant) -> Self {
        Self {
            id,
            rtc: negotiated.connection,
            ice_user: negotiated.ice_user,
            sources: negotiated.sources,
            track,
            lifetime,
            created: now,
            expires_at: None,
            media_at: None,
            closing: None,
            connected: None,
            set_up: SetUp::Answered,
            counted: [LineCounts::default(); 2],
            video: None,
            control: None,
            audio_back: VecDeque::new(),
            gap: false,
            desired: Bitrate::ZERO,
            bandwidth: None,
            counts: (None, false),
            reception: Reception::default(),
            resent: Resent::default(),
            was_paused: false,
            held: VecDeque::new(),
            has_dropped: false,
            twice: Twice::new(Self::MOST_RESENT),
        }
    }

    /// The same session, which ends when its token expires.
    #[must_use]
    pub fn with_expiry(mut self, at: Instant) -> Self {
        self.expires_at = Some(at);
        self
    }

    /// Its identity.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// How far it came, if it ends without the connection that it had the time to make. Browsers that wait in vain end it themselves, before
    /// we do.
    pub fn failed_set_up(&self, now: Instant) -> Option<SetUp> {
        let had_time = now.saturating_duration_since(self.created) >= Self::CONNECTS_MOSTLY_WITHIN;
        (self.set_up != SetUp::Connected && had_time).then_some(self.set_up)
    }

    /// When the connection stood.
    pub fn connected_at(&self) -> Option<Instant> {
        self.connected
    }

    /// The user fragment of its ICE credentials, by which a browser's first datagrams name it.
    pub fn ice_user(&self) -> &str {
        &self.ice_user
    }

    /// The sources of media that its offer declares.
    pub fn sources(&self) -> &[u32] {
        &self.sources
    }

    /// Why it is over, when its last call said `end`: what the gateway has decided counts, whatever the browser does then.
    pub fn reason(&self, end: End) -> End {
        self.closing.map_or(end, |closing| closing.end)
    }

    /// Whether a datagram is for this session.
    pub fn accepts(&self, input: &Input<'_>) -> bool {
        self.rtc.accepts(input)
    }

    /// A datagram came in. Returns when to call [`Session::on_timeout`] at the latest.
    ///
    /// # Errors
    /// When the session is over.
    pub fn on_datagram(&mut self, now: Instant, datagram: Receive<'_>, send: &mut dyn FnMut(Transmit)) -> Result<Instant, End> {
        self.set_up = self.set_up.max(SetUp::Heard);
        self.rtc.handle_input(Input::Receive(now, datagram)).map_err(|error| self.failed(&error))?;
        self.drain(now, send)
    }

    /// Time has passed.
    ///
    /// # Errors
    /// When the session is over.
    pub fn on_timeout(&mut self, now: Instant, send: &mut dyn FnMut(Transmit)) -> Result<Instant, End> {
        if self.closing.is_none() {
            if self.expires_at.is_some_and(|at| at <= now) {
                return self.close(now, Goodbye::Expired, send);
            }
            let since = |then: Instant| now.saturating_duration_since(then);
            match self.connected {
                None if since(self.created) > self.lifetime.connect => return Err(End::NeverConnected),
                None => {}
                Some(connected) => {
                    let over = self.lifetime.over(since(connected), since(self.media_at.unwrap_or(connected)));
                    if let Some(goodbye) = over {
                        return self.close(now, goodbye, send);
                    }
                }
            }
        }
        self.rtc.handle_input(Input::Timeout(now)).map_err(|error| self.failed(&error))?;
        self.drain(now, send)
    }

    /// The track has something for the browser.
    ///
    /// # Errors
    /// When the session is over.
    pub fn on_track(&mut self, now: Instant, output: TrackOutput, send: &mut dyn FnMut(Transmit)) -> Result<Instant, End> {
        match output {
            TrackOutput::Frame { frame, arrived } => {
                let mut first = true;
                let stats = self.track.stats.clone();
                self.hold(frame, arrived);
                return self.drain(now, &mut |transmit| {
                    send(transmit);
                    if std::mem::take(&mut first) {
                        stats.on_sent(arrived, Instant::now());
                    }
                });
            }
            TrackOutput::NeedKeyframe => {
                if let Some(mut writer) = self.video.and_then(|video| self.rtc.writer(video.mid)) {
                    // It fails before the first packet only, and the first frame is a keyframe.
                    let asked = writer.request_keyframe(None, KeyframeRequestKind::Pli);
                    debug!(session = %self.id, ?asked, "asked the browser for a keyframe");
                }
            }
            TrackOutput::DesiredBitrate(bps) => {
                self.desired = Bitrate::bps(bps.into());
                if let Some(bandwidth) = &mut self.bandwidth {
                    bandwidth.set_desired(bps.into());
                }
                let known = self.bandwidth.as_ref().map_or(Bitrate::INFINITY, |bandwidth| Bitrate::bps(bandwidth.told_bps()));
                self.rtc.bwe().set_desired_bitrate(self.desired.min(known * Self::SOUGHT));
            }
            TrackOutput::Message { text, may_be_missed } => {
                if let Some(mut channel) = self.control.and_then(|id| self.rtc.channel(id))
                    && !(may_be_missed && channel.buffered_amount() > Self::MAX_CONTROL_BACKLOG)
                {
                    channel.write(false, text.as_bytes()).map_err(|error| self.failed(&error))?;
                }
            }
        }
        self.drain(now, send)
    }

    /// Says goodbye to the browser. The session ends as soon as that has heard it, or after a second.
    pub(crate) fn close(&mut self, now: Instant, goodbye: Goodbye, send: &mut dyn FnMut(Transmit)) -> Result<Instant, End> {
        if self.closing.is_some() {
            return self.drain(now, send);
        }
        self.closing = Some(Closing { deadline: now + Self::GOODBYE_WITHIN, end: goodbye.into() });
        self.on_track(now, TrackOutput::Message { text: control::bye(goodbye), may_be_missed: false }, send)
    }

    /// Says goodbye to the browser and ends without waiting.
    pub(crate) fn close_at_once(&mut self, now: Instant, goodbye: Goodbye, send: &mut dyn FnMut(Transmit)) -> End {
        self.closing = Some(Closing { deadline: now, end: goodbye.into() });
        let said = self.on_track(now, TrackOutput::Message { text: control::bye(goodbye), may_be_missed: false }, send);
        said.err().unwrap_or_else(|| goodbye.into())
    }

    /// Whether there is nothing more to wait for.
    fn has_closed(&mut self, now: Instant, closing: Closing) -> bool {
        let unheard = self.control.and_then(|id| self.rtc.channel(id)).map_or(0, |mut channel| channel.buffered_amount());
        unheard == 0 || now >= closing.deadline || !self.rtc.is_alive()
    }

    /// The end of DTLS, too, if it can still be said.
    fn finish(&mut self, send: &mut dyn FnMut(Transmit)) {
        if self.rtc.close().is_err() {
            return;
        }
        for _ in 0..Self::MAX_STEPS {
            match self.rtc.poll_output() {
                Ok(Output::Transmit(transmit)) => send(transmit),
                Ok(Output::Event(_)) => {}
                Ok(Output::Timeout(_)) | Err(_) => return,
            }
        }
    }

    /// Lets the endpoint say all that it has to say. Returns when it wants to be called again.
    ///
    /// After each packet its pacer asks to be called a microsecond later. A timer would make that a millisecond, and a frame
    /// of eight packets would take eight; so what is due within [`Self::SOON`] is due now, and the endpoint's time runs ahead
    /// by that much.
    fn drain(&mut self, now: Instant, send: &mut dyn FnMut(Transmit)) -> Result<Instant, End> {
        let soon = now + Self::SOON;
        // What is said from here on is said of this session.
        _ = guard::take_too_many_channels();
        for _ in 0..Self::MAX_STEPS {
            match self.rtc.poll_output().map_err(|error| self.failed(&error))? {
                Output::Transmit(transmit) => {
                    self.twice.on_sent(now, &transmit);
                    send(transmit);
                }
                Output::Event(event) => self.on_event(now, event)?,
                Output::Timeout(_) if !self.audio_back.is_empty() => self.send_audio_back()?,
                Output::Timeout(at) if at <= soon && self.rtc.is_alive() => {
                    self.rtc.handle_input(Input::Timeout(at.max(now))).map_err(|error| self.failed(&error))?;
                }
                Output::Timeout(_) if self.write_next()? => {}
                Output::Timeout(at) => {
                    while let Some(copy) = self.twice.due(now) {
                        send(copy);
                    }
                    let at = self.twice.next_due().map_or(at, |copy| copy.min(at));
                    let at = self.expires_at.filter(|_| self.closing.is_none()).map_or(at, |expiry| expiry.min(at));
                    self.tell_backlog();
                    if guard::take_too_many_channels() && self.closing.is_none() {
                        return Err(self.close_at_once(now, Goodbye::TooManyChannels, send));
                    }
                    if let Some(closing) = self.closing {
                        if self.has_closed(now, closing) {
                            self.finish(send);
                            return Err(closing.end);
                        }
                        return Ok(at.min(closing.deadline));
                    }
                    return if self.rtc.is_alive() { Ok(at) } else { Err(End::ByPeer) };
                }
            }
        }
        // An endpoint that never has enough would hold up all others: they come first.
        Ok(now)
    }

    fn on_event(&mut self, now: Instant, event: Event) -> Result<(), End> {
        match event {
            Event::Connected => {
                let after = now.duration_since(self.created);
                self.connected = Some(now);
                self.set_up = SetUp::Connected;
                info!(session = %self.id, ?after, "connected");
                self.track.metrics().on_connected(after);
                self.track.send(TrackInput::Connected);
            }
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) => {
                return Err(if self.connected.is_some() { End::Vanished } else { End::NeverConnected });
            }
            Event::IceConnectionStateChange(IceConnectionState::Connected | IceConnectionState::Completed) => {
                self.set_up = self.set_up.max(SetUp::Reached);
            }
            Event::PeerStats(stats) => self.on_peer_stats(now, &stats),
            Event::MediaEgressStats(stats) if self.counts.1 && self.is_video(stats.mid) => {
                let lost = stats.remote.as_ref().map_or(0, |remote| remote.packets_lost);
                let now = LineCounts { packets: stats.packets, bytes: stats.bytes, lost, nacks: stats.nacks, plis: stats.plis };
                self.on_counts(Direction::Out, now);
                self.on_reception(&stats);
            }
            Event::MediaIngressStats(stats) if self.counts.1 && self.is_video(stats.mid) => {
                // The library tells the share of the last second only.
                let share = f64::from(stats.loss.unwrap_or(0.0)).clamp(0.0, 0.99);
                let came = stats.packets.saturating_sub(self.counted[0].packets) as f64;
                let lost = self.counted[0].lost + (came * share / (1.0 - share)).round() as u64;
                let now = LineCounts { packets: stats.packets, bytes: stats.bytes, lost, nacks: stats.nacks, plis: stats.plis };
                self.on_counts(Direction::In, now);
            }
            Event::Closed => return Err(End::ByPeer),
            Event::MediaAdded(added) => self.on_media_added(added),
            Event::MediaData(data) if self.is_camera(&data) => {
                self.media_at = Some(now);
                self.on_video(now, data);
            }
            Event::MediaData(data) if data.params.spec().codec.is_audio() => {
                self.media_at = Some(now);
                self.audio_back.push_back(data);
            }
            Event::KeyframeRequest(_) => _ = self.track.send(TrackInput::KeyframeWanted),
            Event::EgressBitrateEstimate(kind) => {
                match kind {
                    // It is the mean of some seconds. From now on the statistics tell the estimate as it is.
                    BweKind::Twcc { estimate, .. } if self.bandwidth.is_none() => {
                        let mut bandwidth = Bandwidth::new(now);
                        bandwidth.set_desired(self.desired.as_u64());
                        self.bandwidth = Some(bandwidth);
                        self.on_estimate(now, estimate, None);
                    }
                    BweKind::Remb { estimate, .. } if self.bandwidth.is_none() => self.on_estimate(now, estimate, None),
                    _ => {}
                }
            }
            Event::StreamPaused(stream) if self.is_video(stream.mid) && !stream.paused && self.was_paused => {
                // Both ways were cut, as a rule. What is asked for again comes after the keyframe, and some receivers wait for it.
                self.drop_held();
                self.twice.stop();
                self.track.send(TrackInput::Resumed);
            }
            Event::StreamPaused(stream) if self.is_video(stream.mid) => self.was_paused = stream.paused,
            Event::ChannelOpen(id, label) if label == "control" => {
                self.control = Some(id);
                self.track.send(TrackInput::ControlOpen);
            }
            Event::ChannelClose(id) if self.control == Some(id) => self.control = None,
            Event::ChannelData(data) if self.control == Some(data.id) => {
                let text = (data.data.len() <= Self::MAX_CONTROL_BYTES).then_some(data.data);
                self.track.send(TrackInput::Control(text));
            }
            _ => {}
        }
        Ok(())
    }

    fn is_video(&self, mid: Mid) -> bool {
        self.video.is_some_and(|video| video.mid == mid)
    }

    fn failed(&self, error: &RtcError) -> End {
        debug!(session = %self.id, %error, "the WebRTC endpoint gave up");
        End::Failed
    }
}
