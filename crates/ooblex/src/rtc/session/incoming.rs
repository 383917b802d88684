//! What comes into a session of media: the line that is its track, the frames of its camera, and sound, which goes back as it came.

use std::time::Instant;

use ooblex_codec::Rotation;
use ooblex_pipeline::{EncodedFrame, MediaTime, VideoCodec};
use str0m::RtcError;
use str0m::format::Codec;
use str0m::media::{Frequency, MediaAdded, MediaData, MediaKind};
use str0m::rtp::VideoOrientation;
use tracing::debug;

use super::{EndReason, Session, Video};
use crate::rtc::redundancy::PayloadTypes;
use crate::track::TrackInput;

impl Session {
    /// The first video line that both sides send on is the track; others are left alone.
    pub(super) fn on_media_added(&mut self, added: MediaAdded) {
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
            self.redundancy.set_types(PayloadTypes { media: pt, resent });
            self.track.send(TrackInput::Codec(codec));
        }
    }

    pub(super) fn is_camera(&mut self, data: &MediaData) -> bool {
        let Some(video) = self.video.as_mut().filter(|video| video.mid == data.mid) else { return false };
        *video.rid.get_or_insert(data.rid) == data.rid
    }

    pub(super) fn on_video(&mut self, now: Instant, data: MediaData) {
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

    pub(super) fn send_audio_back(&mut self) -> Result<(), EndReason> {
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
