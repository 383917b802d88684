//! One WebRTC connection: between the packets of the media socket and the thread of its track.
//!
//! Owns the endpoint of the WebRTC library and nothing of pixels. Driven by [`crate::transport`], which owns the socket and
//! the clock.

mod twice;

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use ooblex_codec::Rotation;
use ooblex_effects::Chain;
use ooblex_pipeline::{EncodedFrame, MediaTime, TrackId, VideoCodec};
use serde::{Serialize, Serializer};
use str0m::bwe::{Bitrate, BweKind};
use str0m::channel::ChannelId;
use str0m::format::Codec;
use str0m::media::{Frequency, KeyframeRequestKind, MediaAdded, MediaData, MediaKind, Mid, Pt, Rid};
use str0m::net::{Receive, Transmit};
use str0m::rtp::VideoOrientation;
use str0m::stats::{MediaEgressStats, PeerStats};
use str0m::{Event, IceConnectionState, Input, Output, Rtc, RtcError};
use tracing::{debug, info};

use self::twice::{PayloadTypes, Twice};
use crate::bandwidth::{Bandwidth, Finding};
use crate::control::{self, Goodbye};
use crate::metrics::{Direction, LineCounts};
use crate::reception::{Reception, Report, Resent};
use crate::track::{TrackHandle, TrackInput, TrackOutput};

/// Identity of a session: 16 hexadecimal digits that can not be guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl SessionId {
    /// A new one.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }

    /// The track of the session.
    pub fn track(self) -> TrackId {
        TrackId(self.0)
    }

    /// Its lines to the workers: one for each effect of a chain, the first one the track itself.
    pub fn lanes(self) -> impl Iterator<Item = TrackId> {
        (0..Chain::MOST).map(move |lane| self.lane(lane))
    }

    /// Line number `lane`. As ids are random, no two sessions share one but by a chance of 2^-60.
    pub fn lane(self, lane: usize) -> TrackId {
        TrackId(self.0.wrapping_add((lane as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// The browser said goodbye.
    ByPeer,
    /// The browser was not heard of for too long.
    Vanished,
    /// No connection came about after the offer.
    NeverConnected,
    /// The API was asked to end it, or the gateway stops.
    Requested,
    /// The WebRTC library gave up on it.
    Failed,
}

impl End {
    /// All reasons.
    pub const ALL: [End; 5] = [End::ByPeer, End::Vanished, End::NeverConnected, End::Requested, End::Failed];

    /// The label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            End::ByPeer => "by_peer",
            End::Vanished => "vanished",
            End::NeverConnected => "never_connected",
            End::Requested => "requested",
            End::Failed => "failed",
        }
    }
}

/// How far a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SetUp {
    /// The offer was answered, and no packet of the browser came: they do not reach the media port.
    Answered,
    /// Packets of the browser came; it did not settle on a way: ours do not reach it.
    Heard,
    /// The browser has settled on a way; the keys were not agreed on.
    Reached,
    /// Media can flow.
    Connected,
}

impl SetUp {
    /// All steps, in their order.
    pub const ALL: [SetUp; 4] = [SetUp::Answered, SetUp::Heard, SetUp::Reached, SetUp::Connected];

    /// The label in metrics of a session that came so far and no further.
    pub fn failure(self) -> Option<&'static str> {
        match self {
            SetUp::Answered => Some("no_packets"),
            SetUp::Heard => Some("no_way_back"),
            SetUp::Reached => Some("no_keys"),
            SetUp::Connected => None,
        }
    }

    /// What that means, and the mend.
    pub fn explain(self) -> &'static str {
        match self {
            SetUp::Answered => {
                "no packet of the browser has come to the media port: it is closed by a firewall, not published by the container, or media.advertise does not name an address by which browsers reach this machine"
            }
            SetUp::Heard => {
                "packets of the browser come, and our answers do not reach it: look for a firewall that lets UDP in and not out, or an address in media.advertise that is another machine's"
            }
            SetUp::Reached => {
                "the browser is reached, and no keys were agreed on (DTLS): the network may drop large UDP packets, see its MTU"
            }
            SetUp::Connected => "it was connected",
        }
    }
}

/// One WebRTC connection.
pub struct Session {
    id: SessionId,
    rtc: Rtc,
    track: TrackHandle,
    created: Instant,
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

/// The line that the camera comes in and the effect goes out on.
#[derive(Debug, Clone, Copy)]
struct Video {
    mid: Mid,
    pt: Pt,
    /// Of a browser that sends the picture in several sizes, the one that came first; the others would confuse the decoder.
    rid: Option<Option<Rid>>,
}

impl Session {
    /// From the offer to the connection, at most this long.
    const CONNECT_WITHIN: Duration = Duration::from_secs(30);
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
    pub fn new(id: SessionId, rtc: Rtc, track: TrackHandle, now: Instant) -> Self {
        Self {
            id,
            rtc,
            track,
            created: now,
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
    pub fn ice_user(&mut self) -> String {
        self.rtc.direct_api().local_ice_credentials().ufrag
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
        if self.connected.is_none() && now.duration_since(self.created) > Self::CONNECT_WITHIN {
            return Err(End::NeverConnected);
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
                let figures = self.track.figures.clone();
                self.hold(frame, arrived);
                return self.drain(now, &mut |transmit| {
                    send(transmit);
                    if std::mem::take(&mut first) {
                        figures.on_sent(arrived, Instant::now());
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

    /// Says goodbye to the browser. The session is over.
    pub(crate) fn close(&mut self, now: Instant, goodbye: Goodbye, send: &mut dyn FnMut(Transmit)) {
        let said = TrackOutput::Message { text: control::bye(goodbye), may_be_missed: false };
        if self.on_track(now, said, send).is_ok() && self.rtc.close().is_ok() {
            _ = self.drain(now, send);
        }
    }

    fn hold(&mut self, frame: EncodedFrame, arrived: Instant) {
        if self.video.is_none() {
            return;
        }
        if self.held.len() == Self::MOST_HELD {
            // The track leaves pictures out long before.
            self.drop_held();
        }
        if self.has_dropped && !frame.keyframe {
            // It builds on one that never left, which nobody could tell from its packets.
            self.track.send(TrackInput::KeyframeWanted);
            return;
        }
        self.has_dropped = false;
        self.held.push_back((frame, arrived));
    }

    fn drop_held(&mut self) {
        self.has_dropped |= !self.held.is_empty();
        self.held.clear();
    }

    /// Gives the endpoint the next frame, if it has sent all that it has. Returns whether it did.
    fn write_next(&mut self) -> Result<bool, End> {
        if self.held.is_empty() || self.unsent_bytes() > 0 {
            return Ok(false);
        }
        let Some((frame, arrived)) = self.held.pop_front() else { return Ok(false) };
        self.write_frame(frame, arrived)?;
        Ok(true)
    }

    /// Bytes of frames that the endpoint has not sent yet.
    fn unsent_bytes(&mut self) -> usize {
        let Some(video) = self.video else { return 0 };
        let mut api = self.rtc.direct_api();
        api.stream_tx_by_mid(video.mid, None).and_then(|stream| stream.queue_info()).map_or(0, |queue| queue.byte_size())
    }

    fn write_frame(&mut self, frame: EncodedFrame, arrived: Instant) -> Result<(), End> {
        let Some((video, writer)) = self.video.and_then(|video| Some((video, self.rtc.writer(video.mid)?))) else { return Ok(()) };
        self.resent.on_written(frame.data.len());
        let time = str0m::media::MediaTime::new(frame.capture.0, Frequency::NINETY_KHZ);
        // The browser shows each frame as soon as it is decoded: a mirror that lags is worse than one that now and then jerks.
        let asap = str0m::media::MediaTime::ZERO;
        let writer = writer.playout_delay(asap, asap);
        writer.write(video.pt, arrived, time, frame.data).map_err(|error| self.failed(&error))
    }

    /// Lets the endpoint say all that it has to say. Returns when it wants to be called again.
    ///
    /// After each packet its pacer asks to be called a microsecond later. A timer would make that a millisecond, and a frame
    /// of eight packets would take eight; so what is due within [`Self::SOON`] is due now, and the endpoint's time runs ahead
    /// by that much.
    fn drain(&mut self, now: Instant, send: &mut dyn FnMut(Transmit)) -> Result<Instant, End> {
        let soon = now + Self::SOON;
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
                    self.tell_backlog();
                    return if self.rtc.is_alive() { Ok(at) } else { Err(End::ByPeer) };
                }
            }
        }
        // An endpoint that never has enough would hold up all others: they come first.
        Ok(now)
    }

    /// Tells the track what the network carries, and the library how far to look for more.
    fn on_estimate(&mut self, now: Instant, estimate: Bitrate, rtt: Option<Duration>) {
        let bps = estimate.as_u64();
        let finding = self.bandwidth.as_mut().map_or(Finding::Changed(bps), |bandwidth| bandwidth.on_estimate(now, bps, rtt));
        if let Some(bandwidth) = &self.bandwidth {
            self.twice.on_estimate(bandwidth.told_bps(), bandwidth.is_ample());
        }
        let (bps, sought) = match finding {
            Finding::Nothing => return,
            Finding::Changed(bps) => (bps, Self::SOUGHT),
            Finding::BrokenDown(bps) => {
                debug!(session = %self.id, bps, "the network has broken down");
                self.give_up_what_waits();
                self.rtc.bwe().reset(Bitrate::bps(bps));
                (bps, Self::SOUGHT_NOT)
            }
            Finding::SearchAnew(bps) => {
                debug!(session = %self.id, bps, "looking for more");
                self.rtc.bwe().reset(Bitrate::bps(bps));
                (bps, Self::SOUGHT_FIRST)
            }
        };
        let told_bps = u32::try_from(bps).unwrap_or(u32::MAX);
        self.track.send(match finding {
            Finding::BrokenDown(_) => TrackInput::BrokenDown(told_bps),
            _ => TrackInput::Estimate(told_bps),
        });
        self.rtc.bwe().set_desired_bitrate(self.desired.min(Bitrate::bps(bps) * sought));
    }

    /// What was lost or waits would take the place of what is new: it is not sent (again).
    fn give_up_what_waits(&mut self) {
        self.drop_held();
        self.twice.stop();
        let Some(video) = self.video else { return };
        if let Some(stream) = self.rtc.direct_api().stream_tx_by_mid(video.mid, None) {
            let (packets, age) = Self::RESENDABLE;
            stream.set_rtx_cache(packets, age, Some(Self::MOST_RESENT));
        }
    }

    /// The track leaves pictures out while much waits to be sent.
    fn tell_backlog(&mut self) {
        let held: usize = self.held.iter().map(|(frame, _)| frame.data.len()).sum();
        let unsent = self.unsent_bytes();
        self.track.set_backlog(held + unsent);
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
            Event::MediaData(data) if self.is_camera(&data) => self.on_video(now, data),
            Event::MediaData(data) if data.params.spec().codec.is_audio() => self.audio_back.push_back(data),
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

    /// The first video line that both sides send on is the track; others are left alone.
    fn on_media_added(&mut self, added: MediaAdded) {
        if added.kind != MediaKind::Video || self.video.is_some() {
            return;
        }
        let Some(media) = self.rtc.media(added.mid) else { return };
        let params = self.rtc.codec_config().params();
        let preferred = media.remote_pts().iter().find_map(|pt| {
            let params = params.iter().find(|params| params.pt() == *pt)?;
            Some((*pt, params.resend(), video_codec(params.spec().codec)?))
        });
        if let Some((pt, resent, codec)) = preferred {
            debug!(session = %self.id, %pt, codec = codec.label(), "video line");
            self.video = Some(Video { mid: added.mid, pt, rid: None });
            if let Some(stream) = self.rtc.direct_api().stream_tx_by_mid(added.mid, None) {
                let (packets, age) = Self::RESENDABLE;
                stream.set_rtx_cache(packets, age, Some(Self::MOST_RESENT));
            }
            self.twice.set_types(PayloadTypes { media: pt, resent });
            self.track.send(TrackInput::Codec(codec));
        }
    }

    fn on_peer_stats(&mut self, now: Instant, stats: &PeerStats) {
        if let Some(estimate) = stats.bwe_tx.filter(|_| self.bandwidth.is_some()) {
            self.on_estimate(now, estimate, stats.rtt);
        }
        let is_time = self.counts.0.is_none_or(|last| now.saturating_duration_since(last) >= Self::COUNTS_EVERY);
        self.counts = (if is_time { Some(now) } else { self.counts.0 }, is_time);
        if let Some(took) = stats.rtt.filter(|_| is_time) {
            self.track.metrics().on_round_trip(took);
        }
    }

    fn is_video(&self, mid: Mid) -> bool {
        self.video.is_some_and(|video| video.mid == mid)
    }

    /// Tells the track how what was sent has fared.
    fn on_reception(&mut self, stats: &MediaEgressStats) {
        let report = stats.remote.as_ref().map(|remote| (*remote.maximum_sequence_number, remote.packets_lost as u32));
        let lost = report.and_then(|(highest, lost)| self.reception.on_report(Report { highest, lost }));
        let resent = self.resent.share(stats.bytes);
        self.twice.on_loss(lost.unwrap_or(0.0).max(resent));
        let copied = self.twice.share(stats.bytes);
        if lost.is_some() || resent > 0.0 {
            self.track.send(TrackInput::Loss { lost: lost.unwrap_or(0.0), resent, copied });
        }
    }

    /// Notes what has passed on the video line since it was looked at before.
    fn on_counts(&mut self, direction: Direction, now: LineCounts) {
        let before = std::mem::replace(&mut self.counted[direction as usize], now);
        self.track.metrics().on_line(direction, &before, &now);
    }

    fn is_camera(&mut self, data: &MediaData) -> bool {
        let Some(video) = self.video.as_mut().filter(|video| video.mid == data.mid) else { return false };
        *video.rid.get_or_insert(data.rid) == data.rid
    }

    fn on_video(&mut self, now: Instant, data: MediaData) {
        let Some(codec) = video_codec(data.params.spec().codec) else { return };
        let rotation = data.ext_vals.video_orientation.map(rotation);
        let gap = std::mem::take(&mut self.gap) || !data.contiguous;
        let frame = EncodedFrame {
            codec,
            keyframe: data.is_keyframe(),
            capture: MediaTime(data.time.rebase(Frequency::NINETY_KHZ).numer()),
            data: data.data.to_vec(),
        };
        if !self.track.send(TrackInput::Frame { frame, arrived: now, rotation, gap }) {
            self.gap = true;
        }
    }

    fn send_audio_back(&mut self) -> Result<(), End> {
        let Some(data) = self.audio_back.pop_front() else { return Ok(()) };
        let Some(writer) = self.rtc.writer(data.mid) else { return Ok(()) };
        let mut writer = writer.start_of_talkspurt(data.audio_start_of_talk_spurt);
        if let (Some(level), Some(voice)) = (data.ext_vals.audio_level, data.ext_vals.voice_activity) {
            writer = writer.audio_level(level, voice);
        }
        match writer.write(data.pt, data.network_time, data.time, data.data) {
            // A line that only sends, or a payload type that was not negotiated: there is nothing to send back on.
            Err(RtcError::UnknownPt(_) | RtcError::NotSendingDirection(_) | RtcError::NoSenderSource) | Ok(()) => Ok(()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn failed(&self, error: &RtcError) -> End {
        debug!(session = %self.id, %error, "the WebRTC endpoint gave up");
        End::Failed
    }
}

fn video_codec(codec: Codec) -> Option<VideoCodec> {
    match codec {
        Codec::Vp8 => Some(VideoCodec::Vp8),
        Codec::H264 => Some(VideoCodec::H264),
        _ => None,
    }
}

/// What has to be done to show a picture upright, from how it was turned on its way here.
fn rotation(orientation: VideoOrientation) -> Rotation {
    match orientation {
        VideoOrientation::Deg0 => Rotation::None,
        VideoOrientation::Deg270 => Rotation::By90,
        VideoOrientation::Deg180 => Rotation::By180,
        VideoOrientation::Deg90 => Rotation::By270,
    }
}
