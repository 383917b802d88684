//! One WebRTC connection: it stands between the packets of the media socket and the thread of a
//! track.
//!
//! A session owns an endpoint of the WebRTC library and knows nothing of pixels. It is driven by
//! [`crate::transport`], which owns the socket and the clock: call `Session::on_datagram`,
//! `Session::on_timeout` and `Session::on_track`, send the datagrams that they give, and call
//! `Session::on_timeout` at the time that they return. Each of them returns an error when the
//! session is over.
//!
//! This file routes the events of the endpoint. The state is in the parts: `lifecycle` (set-up,
//! time limits, end) with `lifetime` (the configured limits), `video_line` (the negotiated media
//! lines), `media_in` and `media_out` (received and sent media), `layers` (simulcast), `audio`, `sound_delay` (lip sync),
//! `timeline` (timestamps across publishers), `control_channel` (the data channel), `network` (the bandwidth estimate) and `reports` (packet
//! counts and losses).

mod audio;
mod control_channel;
mod layers;
mod lifecycle;
mod lifetime;
mod media_in;
mod media_out;
mod network;
mod reports;
mod sound_delay;
mod timeline;
mod video_line;

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ooblex_pipeline::EncodedFrame;
use str0m::bwe::{Bitrate, BweKind};
use str0m::media::{KeyframeRequestKind, MediaData, MediaKind, Mid, Rid};
use str0m::net::{Protocol, Receive, Transmit};
use str0m::rtp::rtcp::Rtcp;
use str0m::rtp::{RawPacket, StreamPaused};
use str0m::stats::{MediaEgressStats, PeerStats};
use str0m::{Event, IceConnectionState, Input, Output, RtcError};
use tracing::{debug, info};

pub(crate) use self::audio::AudioPacket;
use self::audio::{AudioLine, HeldSound};
pub use self::audio::{Sound, SoundListener};
use self::control_channel::ControlChannel;
use self::layers::Choice;
use self::lifecycle::{Closing, Due, Lifecycle};
pub use self::lifetime::Lifetime;
use self::media_in::MediaIn;
use self::media_out::MediaOut;
use self::network::{ChangeKind, NetworkEstimate};
use self::reports::{Counted, Reports};
use self::sound_delay::Next;
use self::timeline::Timeline;
use self::video_line::VideoLine;
use crate::crypto;
use crate::negotiate::{Connection, LocalAddresses, Negotiated};
use ooblex_gateway::data_channel;
use ooblex_gateway::ids::SessionId;
use ooblex_gateway::labels::{ByeReason, Direction, EndReason, SetupStage, SoundDropReason};
use ooblex_gateway::track::{OutputInput, ReceptionFeedback, TrackHandle, TrackInput, TrackOutput};

/// Time by which the endpoint runs ahead of the clock: timeouts that are due within it are due now.
const TIMEOUT_TOLERANCE: Duration = Duration::from_micros(500);
/// Steps of the endpoint in one call, before the other sessions have their turn.
const MAX_STEPS: usize = 4096;

/// The part of a session in the room of its track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It sends the camera of the track, and may receive the pictures of the track as well.
    Publisher,
    /// It receives the pictures and the sound of this publisher, and changes nothing.
    Viewer(SessionId),
}

impl Role {
    /// Returns whether the track of this publisher serves a session, which is the publisher itself if it
    /// is no viewer.
    pub(crate) fn is_served_by(self, publisher: SessionId) -> bool {
        match self {
            Self::Publisher => true,
            Self::Viewer(watched) => watched == publisher,
        }
    }
}

/// The identifiers by which the datagrams of a session are recognised.
struct TransportIds {
    ice_user: String,
    sources: Vec<u32>,
    local: LocalAddresses,
    /// The socket of a session whose offer the gateway has made, until the media thread takes it.
    socket: Option<UdpSocket>,
}

/// The media lines of a session, once they are negotiated.
#[derive(Default)]
struct Lines {
    /// The video line on which the camera arrives.
    video_in: Option<VideoLine>,
    /// The video line on which the effect leaves: often the same. `None`: the browser receives none.
    video_out: Option<VideoLine>,
    /// The track was asked for its pictures.
    is_output_started: bool,
    /// The audio line of a viewer, and its timestamps.
    audio: Option<AudioLine>,
    sound: Timeline,
    /// The lines that the gateway has offered, until the session is connected.
    offered: Vec<Mid>,
}

/// One WebRTC connection.
pub struct Session {
    id: SessionId,
    role: Role,
    endpoint: Connection,
    ids: TransportIds,
    track: TrackHandle,
    lifecycle: Lifecycle,
    lines: Lines,
    media_in: MediaIn,
    media_out: MediaOut,
    control: ControlChannel,
    network: NetworkEstimate,
    reports: Reports,
}

impl Session {
    /// Begins a session whose offer was answered.
    pub fn new(id: SessionId, negotiated: Negotiated, track: TrackHandle, lifetime: Lifetime, now: Instant) -> Self {
        let (offered, socket) = negotiated.dialled.map(|side| (side.lines, side.socket)).unzip();
        Self {
            id,
            role: Role::Publisher,
            endpoint: negotiated.connection,
            ids: TransportIds { ice_user: negotiated.ice_user, sources: negotiated.sources, local: negotiated.local, socket },
            track,
            lifecycle: Lifecycle::new(lifetime, now),
            lines: Lines { offered: offered.unwrap_or_default(), ..Lines::default() },
            media_in: MediaIn::default(),
            media_out: MediaOut::new(),
            control: ControlChannel::default(),
            network: NetworkEstimate::new(),
            reports: Reports::default(),
        }
    }

    /// Returns the session with an expiry of its token, at which it ends.
    #[must_use]
    pub fn with_expiry(mut self, at: Instant) -> Self {
        self.lifecycle.expire_at(at);
        self
    }

    /// Returns the session as a viewer of the publisher of its track.
    #[must_use]
    pub fn watching(self, publisher: SessionId) -> Self {
        Self { role: Role::Viewer(publisher), ..self }
    }

    /// Returns the track.
    pub(crate) fn track(&self) -> &TrackHandle {
        &self.track
    }

    /// Makes this viewer one of another publisher: it gets the pictures of that one's track, and
    /// until they come its client shows the last one.
    pub(crate) fn follow(&mut self, publisher: SessionId, track: TrackHandle) {
        self.role = Role::Viewer(publisher);
        self.track = track;
        self.media_out.on_other_track();
        self.lines.sound.on_other_source();
        self.lines.is_output_started = false;
        self.start_output();
        if let Some(room) = self.network.room() {
            self.to_output(OutputInput::Estimate(u32::try_from(room.bps).unwrap_or(u32::MAX)));
        }
    }

    /// Returns the role.
    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// Takes the sound that has come since the last call; nothing unless
    /// [`Session::set_heard`] has been called.
    pub(crate) fn take_sound(&mut self) -> Vec<AudioPacket> {
        self.media_in.take_sound()
    }

    /// Sets whether viewers hear the sound of this publisher.
    pub(crate) fn set_heard(&mut self, is_heard: bool) {
        self.media_in.set_heard(is_heard);
    }

    /// Sends the sound of the publisher to this viewer. Returns the time of the next
    /// [`Session::on_timeout`].
    ///
    /// # Errors
    /// When the session is over.
    pub(crate) fn on_sound(&mut self, now: Instant, sound: &AudioPacket, send: &mut dyn FnMut(Transmit)) -> Result<Instant, EndReason> {
        // Sound that waits for the connection would only be late.
        if let Some(line) = self.lines.audio.filter(|_| self.connected_at().is_some()) {
            let time = self.lines.sound.place(sound.arrived, sound.time);
            self.hold_sound(HeldSound { line, time, packet: sound.clone() });
        }
        self.drain(now, send)
    }

    /// Returns the identity.
    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    /// Returns the stage at which the set-up failed, if the session had the time to connect and did
    /// not. A browser that waits in vain ends the session itself, before the gateway does.
    pub(crate) fn failed_stage(&self, now: Instant) -> Option<SetupStage> {
        self.lifecycle.failed_stage(now)
    }

    /// Returns the time of the connection.
    pub(crate) fn connected_at(&self) -> Option<Instant> {
        self.lifecycle.connected_at()
    }

    /// Returns the time since the last datagram of the client, ICE checks left out.
    pub(crate) fn silence(&self, now: Instant) -> Duration {
        self.lifecycle.silence(now)
    }

    /// Returns the user fragment of the ICE credentials, which the first datagrams of a browser
    /// name.
    pub(crate) fn ice_user(&self) -> &str {
        &self.ids.ice_user
    }

    /// Returns the address that the endpoint takes for its own: datagrams are handed to it as sent
    /// there. `None` if the protocol is not in the answer.
    pub(crate) fn local(&self, protocol: Protocol) -> Option<SocketAddr> {
        self.ids.local.of(protocol)
    }

    /// Takes the socket of a session whose offer the gateway has made.
    pub(crate) fn take_socket(&mut self) -> Option<UdpSocket> {
        self.ids.socket.take()
    }

    /// Returns the sources of media (SSRC) that the offer declares.
    pub(crate) fn sources(&self) -> &[u32] {
        &self.ids.sources
    }

    /// Returns the reason of the end, after a call has returned the error `reason`. A reason for
    /// which the gateway has said `bye` counts, whatever the browser does afterwards.
    pub(crate) fn reason(&self, reason: EndReason) -> EndReason {
        self.lifecycle.reason(reason)
    }

    /// Returns whether the endpoint takes a datagram.
    pub(crate) fn accepts(&self, input: &Input<'_>) -> bool {
        self.endpoint.accepts(input)
    }

    /// Handles a datagram. Returns the time of the next [`Session::on_timeout`].
    ///
    /// # Errors
    /// When the session is over.
    pub(crate) fn on_datagram(
        &mut self,
        now: Instant,
        datagram: Receive<'_>,
        send: &mut dyn FnMut(Transmit),
    ) -> Result<Instant, EndReason> {
        self.lifecycle.on_stage(SetupStage::Heard);
        let authenticated_before = crypto::authenticated();
        self.endpoint.handle_input(Input::Receive(now, datagram)).map_err(|error| self.failed(&error))?;
        self.lifecycle.on_heard(now, crypto::authenticated() != authenticated_before);
        self.drain(now, send)
    }

    /// Handles the passage of time. Returns the time of the next [`Session::on_timeout`].
    ///
    /// # Errors
    /// When the session is over.
    pub(crate) fn on_timeout(&mut self, now: Instant, send: &mut dyn FnMut(Transmit)) -> Result<Instant, EndReason> {
        match self.lifecycle.poll(now) {
            Due::Nothing => {}
            Due::Close(why) => return self.close(now, why, send),
            Due::End(reason) => return Err(reason),
        }
        self.start_output();
        self.endpoint.handle_input(Input::Timeout(now)).map_err(|error| self.failed(&error))?;
        self.drain(now, send)
    }

    /// Handles an output of the track. Returns the time of the next [`Session::on_timeout`].
    ///
    /// # Errors
    /// When the session is over.
    pub(crate) fn on_track(&mut self, now: Instant, output: TrackOutput, send: &mut dyn FnMut(Transmit)) -> Result<Instant, EndReason> {
        match output {
            TrackOutput::Frame { frame, arrived } => {
                if self.role != Role::Publisher {
                    self.lifecycle.on_media(now);
                }
                self.queue_frame(frame, arrived);
                let (stats, mut is_first) = (self.track.stats.clone(), true);
                return self.drain(now, &mut |transmit| {
                    send(transmit);
                    if std::mem::take(&mut is_first) {
                        stats.on_sent(arrived, now);
                    }
                });
            }
            TrackOutput::NeedKeyframe => self.ask_for_keyframe(self.media_in.layer()),
            // Without outgoing video there is nothing to look for bandwidth for.
            TrackOutput::DesiredBitrate(_) if self.lines.video_out.is_none() => {}
            TrackOutput::DesiredBitrate(bps) => {
                let probe_limit = self.network.set_desired(bps.into());
                self.set_probe_limit(probe_limit);
            }
            TrackOutput::Message { text, may_be_missed } => {
                self.control.write(&mut self.endpoint, &text, may_be_missed).map_err(|error| self.failed(&error))?;
            }
        }
        self.drain(now, send)
    }

    /// Sends the message `bye`. The session ends when the browser has acknowledged it, or after a
    /// second.
    pub(crate) fn close(&mut self, now: Instant, why: ByeReason, send: &mut dyn FnMut(Transmit)) -> Result<Instant, EndReason> {
        if !self.lifecycle.close(now, why) {
            return self.drain(now, send);
        }
        self.on_track(now, TrackOutput::Message { text: data_channel::bye(why), may_be_missed: false }, send)
    }

    /// Sends the message `bye` and ends the session without waiting.
    pub(crate) fn close_at_once(&mut self, now: Instant, why: ByeReason, send: &mut dyn FnMut(Transmit)) -> EndReason {
        self.lifecycle.close_at_once(now, why);
        let sent = self.on_track(now, TrackOutput::Message { text: data_channel::bye(why), may_be_missed: false }, send);
        sent.err().unwrap_or_else(|| why.into())
    }

    /// Returns whether the end that has begun needs to wait no longer.
    fn has_closed(&mut self, now: Instant, closing: Closing) -> bool {
        self.control.unacknowledged_bytes(&mut self.endpoint) == 0 || now >= closing.deadline || !self.endpoint.is_alive()
    }

    /// Ends DTLS, too, if the endpoint can still send.
    fn finish(&mut self, send: &mut dyn FnMut(Transmit)) {
        if self.endpoint.close().is_err() {
            return;
        }
        for _ in 0..MAX_STEPS {
            match self.endpoint.poll_output() {
                Ok(Output::Transmit(transmit)) => send(transmit),
                Ok(Output::Event(_)) => {}
                Ok(Output::Timeout(_)) | Err(_) => return,
            }
        }
    }

    /// Polls the endpoint until it waits. Returns the time of the next timeout.
    ///
    /// After each packet the pacer of the library asks for a timeout a microsecond later. A timer
    /// would round that up to a millisecond, so that a frame of eight packets would take eight. A
    /// timeout that is due within [`TIMEOUT_TOLERANCE`] is therefore handled at once, and the time
    /// of the endpoint runs ahead by that much.
    fn drain(&mut self, now: Instant, send: &mut dyn FnMut(Transmit)) -> Result<Instant, EndReason> {
        let soon = now + TIMEOUT_TOLERANCE;
        // The note is kept per thread: a note from now on is about this session.
        _ = crypto::take_too_many_channels();
        for _ in 0..MAX_STEPS {
            match self.endpoint.poll_output().map_err(|error| self.failed(&error))? {
                Output::Transmit(transmit) => {
                    self.media_out.on_sent(now, &transmit);
                    send(transmit);
                }
                Output::Event(event) => self.on_event(now, event)?,
                Output::Timeout(_) if self.write_sound(now)? => {}
                Output::Timeout(at) if at <= soon && self.endpoint.is_alive() => {
                    self.endpoint.handle_input(Input::Timeout(at.max(now))).map_err(|error| self.failed(&error))?;
                }
                Output::Timeout(_) if self.write_next(now)? => {}
                Output::Timeout(at) => return self.wait(now, at, send),
            }
        }
        // The other sessions have their turn before this one continues.
        Ok(now)
    }

    /// Ends a call after which the endpoint waits until `at`. Returns the time of the next timeout.
    fn wait(&mut self, now: Instant, at: Instant, send: &mut dyn FnMut(Transmit)) -> Result<Instant, EndReason> {
        while let Some(again) = self.media_out.next_again(now) {
            send(again);
        }
        let due = [self.media_out.redundancy.next_due(), self.media_out.sound.next_due()];
        let at = due.into_iter().flatten().fold(at, Instant::min);
        // The track skips pictures while much waits to be sent.
        self.media_out.report_backlog(&mut self.endpoint, self.lines.video_out);
        let closing = self.lifecycle.closing();
        if crypto::take_too_many_channels() && closing.is_none() {
            return Err(self.close_at_once(now, ByeReason::TooManyChannels, send));
        }
        match closing {
            Some(closing) if self.has_closed(now, closing) => {
                self.finish(send);
                Err(closing.reason)
            }
            None if !self.endpoint.is_alive() => Err(EndReason::ByPeer),
            _ => Ok(self.lifecycle.next_timeout(at)),
        }
    }

    fn on_event(&mut self, now: Instant, event: Event) -> Result<(), EndReason> {
        match event {
            Event::Connected => {
                let after = self.lifecycle.on_connected(now);
                info!(session = %self.id, ?after, "connected");
                self.track.metrics().set_ups.on_connected(after);
                if self.role == Role::Publisher {
                    self.track.send(TrackInput::Connected);
                }
                for mid in std::mem::take(&mut self.lines.offered) {
                    self.take_line(mid);
                }
                self.start_output();
            }
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) => {
                if let Some(reason) = self.lifecycle.on_checks(now, false) {
                    return Err(reason);
                }
            }
            Event::IceConnectionStateChange(IceConnectionState::Connected | IceConnectionState::Completed) => {
                self.lifecycle.on_checks(now, true);
                self.lifecycle.on_stage(SetupStage::Reached);
            }
            Event::Closed => return Err(EndReason::ByPeer),
            Event::MediaAdded(added) => self.take_line(added.mid),
            Event::MediaData(data) if self.role == Role::Publisher && self.is_incoming(data.mid) => {
                self.lifecycle.on_media(now);
                self.on_camera(now, &data);
            }
            Event::MediaData(data) if data.params.spec().codec.is_audio() => {
                self.lifecycle.on_media(now);
                let packet = AudioPacket::from(data);
                self.media_in.on_audio(&packet);
                self.hold_sound(HeldSound { line: packet.line, time: packet.time, packet });
            }
            Event::StreamPaused(stream) if self.is_incoming(stream.mid) => self.on_stream(&stream),
            Event::RawPacket(packet) => self.on_raw_packet(now, &packet),
            Event::KeyframeRequest(_) if self.media_out.admits_keyframe_request(now) => self.to_output(OutputInput::KeyframeWanted),
            Event::PeerStats(stats) => self.on_peer_stats(now, &stats),
            Event::MediaEgressStats(stats) if self.reports.is_due() && self.is_outgoing(stats.mid) => self.on_egress_stats(stats),
            Event::MediaIngressStats(stats) if self.reports.is_due() && self.is_incoming(stats.mid) => {
                let counted = self.reports.on_incoming(&stats);
                self.on_counted(Direction::In, &counted);
            }
            Event::EgressBitrateEstimate(BweKind::Twcc { estimate, .. }) if !self.network.is_measured() => {
                self.network.begin_measuring(now);
                self.on_estimate(now, estimate, None);
            }
            Event::EgressBitrateEstimate(BweKind::Remb { estimate, .. }) if !self.network.is_measured() => {
                self.on_estimate(now, estimate, None);
            }
            Event::ChannelOpen(..) | Event::ChannelData(_) if self.role != Role::Publisher => {}
            Event::ChannelOpen(id, label) if self.control.on_open(id, &label) => _ = self.track.send(TrackInput::ControlOpen),
            Event::ChannelClose(id) => self.control.on_close(id),
            Event::ChannelData(data) => {
                if let Some(message) = self.control.read(data) {
                    self.track.send(TrackInput::Control(message));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes a negotiated line, as that of the camera, of the effect, or of both. There is at most one
    /// of each.
    fn take_line(&mut self, mid: Mid) {
        let Some((kind, direction)) = self.endpoint.media(mid).map(|media| (media.kind(), media.direction())) else { return };
        if kind == MediaKind::Audio && self.role != Role::Publisher {
            self.lines.audio = self.lines.audio.or_else(|| AudioLine::negotiated(&self.endpoint, mid));
        }
        if kind != MediaKind::Video {
            return;
        }
        let Some(video) = VideoLine::negotiated(&mut self.endpoint, mid) else { return };
        debug!(session = %self.id, pt = %video.payload_types.media, codec = video.codec.label(), ?direction, "video line");
        if direction.is_receiving() {
            self.lines.video_in.get_or_insert(video);
        }
        if direction.is_sending() && self.lines.video_out.is_none() {
            self.lines.video_out = Some(video);
            self.media_out.redundancy.set_types(video.payload_types);
            self.media_out.retransmission = video.retransmission();
            self.start_output();
        }
    }

    /// Asks the track for its pictures, once the session is connected and the line is negotiated. When
    /// the inbox of the track is full, it asks again.
    fn start_output(&mut self) {
        if let Some(video) = self.lines.video_out.filter(|_| !self.lines.is_output_started && self.connected_at().is_some()) {
            let input = OutputInput::Start { codec: video.codec, backlog: self.media_out.backlog() };
            self.lines.is_output_started = self.track.send(TrackInput::Output { receiver: self.id, input });
        }
    }

    fn is_incoming(&self, mid: Mid) -> bool {
        self.lines.video_in.is_some_and(|video| video.mid == mid)
    }

    fn is_outgoing(&self, mid: Mid) -> bool {
        self.lines.video_out.is_some_and(|video| video.mid == mid)
    }

    /// The camera has begun or ended to send.
    fn on_stream(&mut self, stream: &StreamPaused) {
        if let Some(video) = self.lines.video_in.filter(|_| !stream.paused) {
            video.enable_nack(&mut self.endpoint, stream.rid);
        }
        if stream.rid == self.media_in.layer() && self.media_in.on_paused(stream.paused) {
            // An outage usually cuts both directions. Retransmissions would follow the keyframe,
            // and some receivers wait for them.
            self.media_out.drop_waiting();
            self.track.send(TrackInput::Resumed);
            self.to_output(OutputInput::Resumed);
        }
    }

    /// Sends packets again that the browser requests without RTX.
    fn on_raw_packet(&mut self, now: Instant, packet: &RawPacket) {
        if let (RawPacket::RtcpRx(Rtcp::Nack(nack)), Some(retransmission)) = (packet, &mut self.media_out.retransmission) {
            retransmission.on_nack(now, nack);
        }
    }

    /// Hands a frame of the camera to the track, if it is of the layer that the track receives.
    fn on_camera(&mut self, now: Instant, data: &MediaData) {
        let time = match self.media_in.choose(now, data) {
            Choice::Take { time } => time,
            Choice::Leave => return,
            Choice::Ask => return self.ask_for_keyframe(data.rid),
        };
        let Some(frame) = self.media_in.frame(now, data, time) else { return };
        if !self.track.send(frame) {
            self.media_in.on_lost_frame();
        }
    }

    fn ask_for_keyframe(&mut self, layer: Option<Rid>) {
        let Some(mut writer) = self.lines.video_in.and_then(|video| self.endpoint.writer(video.mid)) else { return };
        // It fails only before the first packet, and the first frame is a keyframe.
        let asked = writer.request_keyframe(layer, KeyframeRequestKind::Pli);
        debug!(session = %self.id, ?layer, ?asked, "asked the browser for a keyframe");
    }

    /// Queues a frame of the track. A session whose browser receives no video has nowhere to send it.
    fn queue_frame(&mut self, frame: EncodedFrame, arrived: Instant) {
        if self.lines.video_out.is_some() && !self.media_out.push(frame, arrived) {
            self.to_output(OutputInput::KeyframeWanted);
        }
    }

    /// Hands the next frame to the endpoint. Returns false if the endpoint has not sent all others.
    fn write_next(&mut self, now: Instant) -> Result<bool, EndReason> {
        self.media_out.write_next(now, &mut self.endpoint, self.lines.video_out).map_err(|error| self.failed(&error))
    }

    /// Holds sound back for the picture.
    fn hold_sound(&mut self, sound: HeldSound) {
        if !self.media_out.sound.push(sound) {
            self.track.metrics().network.on_dropped_sound(SoundDropReason::QueueFull);
        }
    }

    /// Hands the next packet of sound to the endpoint. Returns false if none is due.
    fn write_sound(&mut self, now: Instant) -> Result<bool, EndReason> {
        match self.media_out.sound.next(now) {
            Next::Wait => return Ok(false),
            Next::Send(sound, later) => sound.write(&mut self.endpoint, later).map_err(|error| self.failed(&error))?,
            Next::LeaveOut => self.track.metrics().network.on_dropped_sound(SoundDropReason::PictureQuicker),
        }
        Ok(true)
    }

    /// Takes an estimate of the library: tells the track the bitrate, and the library how far to
    /// probe.
    fn on_estimate(&mut self, now: Instant, estimate: Bitrate, rtt: Option<Duration>) {
        let change = self.network.on_estimate(now, estimate, rtt);
        if let Some(room) = self.network.room() {
            self.media_out.redundancy.on_estimate(room.bps, room.is_ample);
        }
        let Some(change) = change else { return };
        let bps = change.bps;
        let told_bps = u32::try_from(bps).unwrap_or(u32::MAX);
        let input = match change.kind {
            ChangeKind::Estimate => OutputInput::Estimate(told_bps),
            ChangeKind::BrokenDown => {
                debug!(session = %self.id, bps, "the network has broken down");
                // Old frames and retransmissions would take the bandwidth of the new ones.
                self.media_out.drop_waiting();
                if let Some(video) = self.lines.video_out {
                    video.reset_retransmissions(&mut self.endpoint);
                }
                if let Some(retransmission) = &mut self.media_out.retransmission {
                    retransmission.clear();
                }
                self.endpoint.bwe().reset(Bitrate::bps(bps));
                OutputInput::BrokenDown(told_bps)
            }
            ChangeKind::SearchAnew => {
                debug!(session = %self.id, bps, "looking for more");
                self.endpoint.bwe().reset(Bitrate::bps(bps));
                OutputInput::Estimate(told_bps)
            }
        };
        self.to_output(input);
        self.set_probe_limit(change.probe_limit);
    }

    /// Tells the library how far to probe. Without RTX it would probe on SSRC 0, which the answer
    /// does not declare.
    fn set_probe_limit(&mut self, limit: Bitrate) {
        if self.lines.video_out.is_some_and(VideoLine::has_rtx) {
            self.endpoint.bwe().set_desired_bitrate(limit);
        }
    }

    fn on_peer_stats(&mut self, now: Instant, stats: &PeerStats) {
        if let Some(estimate) = stats.bwe_tx.filter(|_| self.network.is_measured()) {
            self.on_estimate(now, estimate, stats.rtt);
        }
        let is_due = self.reports.begin(now);
        if let (Some(round_trip), Some(retransmission)) = (stats.rtt, &mut self.media_out.retransmission) {
            retransmission.set_round_trip(round_trip);
        }
        if let Some(round_trip) = stats.rtt.filter(|_| is_due) {
            self.track.metrics().network.on_round_trip(round_trip);
        }
    }

    /// Counts the outgoing video, and tells the track which part of it was lost or sent twice.
    fn on_egress_stats(&mut self, mut stats: MediaEgressStats) {
        self.media_out.complete(&mut stats);
        let counted = self.reports.on_outgoing(&stats);
        self.on_counted(Direction::Out, &counted);
        let lost = self.reports.lost_share(&stats);
        let shares = self.media_out.on_report(stats.bytes, lost);
        if lost.is_some() || shares.resent > 0.0 {
            self.to_output(OutputInput::Feedback(ReceptionFeedback {
                lost: lost.unwrap_or(0.0),
                resent: shares.resent,
                duplicated: shares.duplicated,
                queued: self.network.has_standing_queue(),
            }));
        }
    }

    /// Hands an input to the output of the track that this session receives.
    fn to_output(&self, input: OutputInput) {
        self.track.send(TrackInput::Output { receiver: self.id, input });
    }

    fn on_counted(&self, direction: Direction, Counted { before, now }: &Counted) {
        self.track.metrics().network.on_line(direction, before, now);
    }

    fn failed(&self, error: &RtcError) -> EndReason {
        debug!(session = %self.id, %error, "the WebRTC endpoint gave up");
        EndReason::Failed
    }
}
