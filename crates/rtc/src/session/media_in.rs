//! The media that a session receives: frames of the camera for the track, and audio for viewers.

use std::time::Instant;

use ooblex_codec::{ColourSpace, Rotation, keyframe_size};
use ooblex_pipeline::{EncodedFrame, MediaTime};
use str0m::format::CodecExtra;
use str0m::media::{Frequency, MediaData, Rid};
use str0m::rtp::VideoOrientation;

use super::audio::AudioPacket;
use super::layers::{Choice, LayerFrame, Layers};
use super::video_line::video_codec;
use crate::colour_extension::NamedColours;
use ooblex_gateway::track::TrackInput;

/// The state of the incoming media of one session.
#[derive(Default)]
pub(super) struct MediaIn {
    /// The simulcast layers of the camera.
    layers: Layers,
    /// A frame was lost on its way to the track, so the decoder must not see the frames that depend
    /// on it.
    has_gap: bool,
    /// The picture id of the last VP8 frame, if its sender numbers pictures.
    picture: Option<u64>,
    /// The camera was silent at least once.
    has_paused: bool,
    /// The colours that the sender has named. They hold until others are named, or a keyframe names
    /// none.
    colours: Option<ColourSpace>,
    /// Audio for viewers; `None` without viewers.
    heard: Option<Vec<AudioPacket>>,
}

impl MediaIn {
    /// Returns the RID of the simulcast layer that the track receives.
    pub(super) fn layer(&self) -> Option<Rid> {
        self.layers.selected()
    }

    /// Chooses what is done with a received frame.
    pub(super) fn choose(&mut self, now: Instant, data: &MediaData) -> Choice {
        // The sizes of layers are compared only where there are several.
        let is_measured = data.rid.is_some() && data.is_keyframe();
        let size = video_codec(data.params.spec().codec).filter(|_| is_measured).map(|codec| keyframe_size(codec, &data.data));
        // A keyframe that cannot be read is the smallest.
        let keyframe_pixels = size.map(|size| size.map_or(1, |size| u64::from(size.width) * u64::from(size.height)));
        let time = data.time.rebase(Frequency::NINETY_KHZ).numer();
        self.layers.choose(now, LayerFrame { rid: data.rid, time, keyframe_pixels })
    }

    /// Returns a received frame as input of the track; `None` if its codec is unknown.
    pub(super) fn frame(&mut self, now: Instant, data: &MediaData, time: u64) -> Option<TrackInput> {
        let codec = video_codec(data.params.spec().codec)?;
        let frame = EncodedFrame { codec, keyframe: data.is_keyframe(), capture: MediaTime(time), data: data.data.clone() };
        let rotation = data.ext_vals.video_orientation.map(rotation);
        self.name_colours(data.ext_vals.user_values.get().copied(), data.is_keyframe());
        let is_next = self.is_next_picture(&data.codec_extra);
        let (colours, gap) = (self.colours, self.take_gap(data.contiguous || is_next));
        Some(TrackInput::Frame { frame, arrived: now, rotation, colours, gap })
    }

    /// Notes the colours that a frame names. Browsers name them with keyframes and with changes only.
    fn name_colours(&mut self, named: Option<NamedColours>, keyframe: bool) {
        match named {
            Some(NamedColours(colours)) => self.colours = Some(colours),
            None if keyframe => self.colours = None,
            None => {}
        }
    }

    /// Notes the picture id of a frame. Returns true if it follows that of the frame before, so that
    /// no frame was lost between them. The packets that are missing were padding, which a browser
    /// without RTX sends on the media SSRC, and never again.
    fn is_next_picture(&mut self, extra: &CodecExtra) -> bool {
        let CodecExtra::Vp8(extra) = extra else { return false };
        let before = std::mem::replace(&mut self.picture, extra.picture_id);
        before.zip(extra.picture_id).is_some_and(|(before, picture)| before + 1 == picture)
    }

    /// Returns whether frames are missing before the next one, which is `contiguous` or not by its
    /// packets.
    fn take_gap(&mut self, contiguous: bool) -> bool {
        std::mem::take(&mut self.has_gap) || !contiguous
    }

    /// The track could not take a frame.
    pub(super) fn on_lost_frame(&mut self) {
        self.has_gap = true;
    }

    /// The camera is silent, or sends. Returns true if it sends again after a silence.
    pub(super) fn on_paused(&mut self, is_paused: bool) -> bool {
        let is_back = self.has_paused && !is_paused;
        self.has_paused |= is_paused;
        is_back
    }

    /// Keeps audio for viewers.
    pub(super) fn on_audio(&mut self, packet: &AudioPacket) {
        if let Some(heard) = &mut self.heard {
            heard.push(packet.clone());
        }
    }

    /// Sets whether audio is kept for viewers.
    pub(super) fn set_heard(&mut self, is_heard: bool) {
        self.heard = is_heard.then(|| self.heard.take().unwrap_or_default());
    }

    /// Takes the audio for viewers.
    pub(super) fn take_sound(&mut self) -> Vec<AudioPacket> {
        self.heard.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

/// Returns the rotation that shows a picture upright, from its orientation in the RTP header
/// extension.
fn rotation(orientation: VideoOrientation) -> Rotation {
    match orientation {
        VideoOrientation::Deg0 => Rotation::None,
        VideoOrientation::Deg270 => Rotation::By90,
        VideoOrientation::Deg180 => Rotation::By180,
        VideoOrientation::Deg90 => Rotation::By270,
    }
}

#[cfg(test)]
mod tests {
    use str0m::format::Vp8CodecExtra;

    use super::*;

    #[test]
    fn frame_that_the_track_could_not_take_is_a_gap_before_the_next_one_only() {
        let mut media = MediaIn::default();
        assert!(!media.take_gap(true));
        media.on_lost_frame();
        assert!(media.take_gap(true));
        assert!(!media.take_gap(true));
        assert!(media.take_gap(false), "packets were lost");
    }

    #[test]
    fn missing_packets_between_consecutive_pictures_were_padding() {
        let mut media = MediaIn::default();
        let mut is_next = |picture_id| media.is_next_picture(&CodecExtra::Vp8(vp8(picture_id)));
        let pictures = [Some(7), Some(8), Some(10), Some(11), None, Some(12), Some(13)];
        assert_eq!(pictures.map(&mut is_next), [false, true, false, true, false, false, true]);
        assert!(!media.is_next_picture(&CodecExtra::None), "H.264 does not number its pictures");
    }

    fn vp8(picture_id: Option<u64>) -> Vp8CodecExtra {
        Vp8CodecExtra { discardable: false, sync: false, layer_index: 0, picture_id, tl0_picture_id: None, is_keyframe: false }
    }

    #[test]
    fn named_colours_hold_until_a_keyframe_names_none() {
        let mut media = MediaIn::default();
        let full = ColourSpace::from_code_points(1, true);
        let limited = ColourSpace::default();
        for (named, keyframe, expected) in [
            (None, false, None),
            (Some(full), true, Some(full)),
            (None, false, Some(full)),
            (Some(limited), false, Some(limited)),
            (None, false, Some(limited)),
            (None, true, None),
        ] {
            media.name_colours(named.map(NamedColours), keyframe);
            assert_eq!(media.colours, expected);
        }
    }

    #[test]
    fn camera_is_back_only_after_a_silence() {
        let mut media = MediaIn::default();
        assert!(!media.on_paused(false), "the first packet");
        assert!(!media.on_paused(true));
        assert!(media.on_paused(false));
        assert!(!media.on_paused(true));
        assert!(media.on_paused(false));
    }
}
