//! Audio of a publisher on its way back to it, and to viewers. It is not decoded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::format::Codec;
use str0m::media::{Frequency, MediaData, MediaTime, Mid, Pt};
use str0m::{Rtc, RtcError};

use super::sound_delay::Held;

/// The level up to which a packet contains nothing that anybody would miss.
const QUIET_DBOV: i8 = -50;

/// One packet of audio.
#[derive(Debug, Clone)]
pub(crate) struct AudioPacket {
    /// The line on which it came.
    pub(super) line: AudioLine,
    pub(super) arrived: Instant,
    pub(super) time: MediaTime,
    starts_talk_spurt: bool,
    level: Option<Level>,
    data: Arc<[u8]>,
}

/// An Opus packet of a publisher, for a listener that is no session.
#[derive(Debug, Clone)]
pub struct Sound {
    /// RTP timestamp, at 48 kHz.
    pub timestamp: u64,
    /// When it arrived.
    pub arrived: Instant,
    /// The packet.
    pub data: Arc<[u8]>,
}

/// Hears the sound of a publisher, on the media thread, and must not block. It returns false when it
/// wants no more.
pub type SoundListener = Box<dyn Fn(Sound) -> bool + Send>;

/// A packet that waits to be sent on a line.
#[derive(Debug)]
pub(super) struct HeldSound {
    pub(super) line: AudioLine,
    /// Its RTP time if it leaves at once.
    pub(super) time: MediaTime,
    pub(super) packet: AudioPacket,
}

/// The audio line of a session, by its identifiers in SDP and RTP.
#[derive(Debug, Clone, Copy)]
pub(super) struct AudioLine {
    mid: Mid,
    payload_type: Pt,
}

/// The loudness of a packet, from its header extension.
#[derive(Debug, Clone, Copy)]
struct Level {
    dbov: i8,
    is_voice: bool,
}

impl From<MediaData> for AudioPacket {
    fn from(data: MediaData) -> Self {
        let level = data.ext_vals.audio_level.zip(data.ext_vals.voice_activity);
        Self {
            line: AudioLine { mid: data.mid, payload_type: data.pt },
            arrived: data.network_time,
            time: data.time,
            starts_talk_spurt: data.audio_start_of_talk_spurt,
            level: level.map(|(dbov, is_voice)| Level { dbov, is_voice }),
            data: data.data,
        }
    }
}

impl AudioLine {
    /// Returns a media line as audio line, if Opus was negotiated for it.
    pub(super) fn negotiated(rtc: &Rtc, mid: Mid) -> Option<Self> {
        let (media, params) = (rtc.media(mid)?, rtc.codec_config().params());
        let is_opus = |pt: &Pt| params.iter().any(|params| params.pt() == *pt && params.spec().codec == Codec::Opus);
        let payload_type = media.remote_pts().iter().copied().find(is_opus)?;
        Some(Self { mid, payload_type })
    }
}

impl AudioPacket {
    /// Returns the packet for listeners that are no sessions.
    pub(crate) fn sound(&self) -> Sound {
        let timestamp = self.time.rebase(Frequency::FORTY_EIGHT_KHZ).numer();
        Sound { timestamp, arrived: self.arrived, data: self.data.clone() }
    }
}

impl Held for HeldSound {
    fn arrived(&self) -> Instant {
        self.packet.arrived
    }

    fn time(&self) -> Duration {
        self.time.into()
    }

    /// A packet without a level may contain anything. The mark for voice does not count: Chromium sets
    /// it in every packet unless DTX is on.
    fn is_voice(&self) -> bool {
        self.packet.level.is_none_or(|level| level.dbov > QUIET_DBOV)
    }
}

impl HeldSound {
    /// Hands the packet to an endpoint, with an RTP time that is `later`.
    ///
    /// # Errors
    /// When the WebRTC library fails.
    pub(super) fn write(self, rtc: &mut Rtc, later: Duration) -> Result<(), RtcError> {
        let Self { line, time, packet } = self;
        // The library takes packets for a line on which it does not send, and fails later.
        let is_sending = rtc.media(line.mid).is_some_and(|media| media.direction().is_sending());
        let Some(writer) = rtc.writer(line.mid).filter(|_| is_sending) else { return Ok(()) };
        let mut writer = writer.start_of_talkspurt(packet.starts_talk_spurt);
        if let Some(Level { dbov, is_voice }) = packet.level {
            writer = writer.audio_level(dbov, is_voice);
        }
        let frequency = time.frequency();
        let time = MediaTime::new(time.numer() + MediaTime::from(later).rebase(frequency).numer(), frequency);
        match writer.write(line.payload_type, packet.arrived, time, packet.data) {
            // A line on which the browser only sends, or a payload type that was not negotiated.
            Err(RtcError::UnknownPt(_) | RtcError::NotSendingDirection(_) | RtcError::NoSenderSource) => Ok(()),
            written => written,
        }
    }
}
