//! The video lines of a session: the media lines on which the camera arrives and the effect leaves,
//! which are often the same.

use std::time::Duration;

use ooblex_pipeline::VideoCodec;
use str0m::Rtc;
use str0m::format::Codec;
use str0m::media::{Mid, Rid};

use crate::redundancy::PayloadTypes;
use crate::retransmission::Retransmission;

/// Packets that are kept for retransmissions.
const RETRANSMISSION_CACHE_PACKETS: usize = 1500;
/// Time for which packets are kept for retransmissions: they help also after an outage of a few
/// seconds.
const RETRANSMISSION_CACHE_AGE: Duration = Duration::from_secs(6);
/// Largest share of retransmissions and duplicates in all that is sent. The library's default of
/// 0.15 is used up at 10 % loss, where some packets are requested twice; then nothing is
/// retransmitted any more. Without a limit, a browser that repeats its requests until the packets
/// arrive fills a narrow network.
pub(super) const MAX_RESENT_SHARE: f32 = 0.3;

/// A video line, by its identifiers in SDP and RTP.
#[derive(Debug, Clone, Copy)]
pub(super) struct VideoLine {
    pub(super) mid: Mid,
    pub(super) codec: VideoCodec,
    pub(super) payload_types: PayloadTypes,
}

impl VideoLine {
    /// Returns a media line as video line, with the first payload type of the browser whose codec
    /// is known. Prepares its retransmissions.
    pub(super) fn negotiated(rtc: &mut Rtc, mid: Mid) -> Option<Self> {
        let media = rtc.media(mid)?;
        let params = rtc.codec_config().params();
        let line = media.remote_pts().iter().find_map(|pt| {
            let params = params.iter().find(|params| params.pt() == *pt)?;
            let codec = video_codec(params.spec().codec)?;
            Some(Self { mid, codec, payload_types: PayloadTypes { media: *pt, resent: params.resend() } })
        })?;
        line.reset_retransmissions(rtc);
        Some(line)
    }

    /// Empties the cache of packets for retransmissions.
    pub(super) fn reset_retransmissions(self, rtc: &mut Rtc) {
        if let Some(stream) = rtc.direct_api().stream_tx_by_mid(self.mid, None) {
            stream.set_rtx_cache(RETRANSMISSION_CACHE_PACKETS, RETRANSMISSION_CACHE_AGE, Some(MAX_RESENT_SHARE));
        }
    }

    /// Returns whether the browser has RTX (RFC 4588).
    pub(super) fn has_rtx(self) -> bool {
        self.payload_types.resent.is_some()
    }

    /// Returns the retransmissions on the media SSRC, for a browser without RTX.
    pub(super) fn retransmission(self) -> Option<Retransmission> {
        let new = || Retransmission::new(self.payload_types.media, RETRANSMISSION_CACHE_PACKETS, RETRANSMISSION_CACHE_AGE);
        (!self.has_rtx()).then(new)
    }

    /// Requests lost packets of the camera by NACK. Without this, the library requests them from a
    /// browser with RTX only.
    pub(super) fn enable_nack(self, rtc: &mut Rtc, rid: Option<Rid>) {
        if let Some(stream) = rtc.direct_api().stream_rx_by_mid(self.mid, rid) {
            stream.suppress_nack(false);
        }
    }

    /// Returns the bytes of frames that the endpoint has not sent yet.
    pub(super) fn unsent_bytes(self, rtc: &mut Rtc) -> usize {
        let mut api = rtc.direct_api();
        api.stream_tx_by_mid(self.mid, None).and_then(|stream| stream.queue_info()).map_or(0, |queue| queue.byte_size())
    }
}

/// Returns the codec of frames if this program has a decoder for it.
pub(super) fn video_codec(codec: Codec) -> Option<VideoCodec> {
    match codec {
        Codec::Vp8 => Some(VideoCodec::Vp8),
        Codec::H264 => Some(VideoCodec::H264),
        _ => None,
    }
}
