//! Metrics of the encoders, whose frames several receivers share.

use ooblex_pipeline::VideoCodec;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::registry::add_new;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EncoderLabel {
    codec: &'static str,
    quality: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodecLabel {
    codec: &'static str,
}

/// Metrics of the encoders of all tracks.
pub(crate) struct EncoderMetrics {
    running: Family<EncoderLabel, Gauge>,
    encoded: Family<CodecLabel, Counter>,
    withheld: Counter,
}

/// Counts an encoder from its start until it is dropped.
pub(crate) struct RunningEncoder {
    running: Gauge,
    encoded: Counter,
}

impl EncoderMetrics {
    pub(super) fn new(r: &mut Registry) -> Self {
        let metrics = Self {
            running: add_new(r, "encoders", "Running encoders, by codec and quality; all receivers of both share one"),
            encoded: add_new(
                r,
                "pictures_encoded",
                "Pictures given to encoders, by codec; each counts once, however many receivers it has",
            ),
            withheld: add_new(
                r,
                "frames_withheld",
                "Encoded frames not sent to one of their receivers, because its network or the media thread was too slow, or it waited for a keyframe",
            ),
        };
        for codec in [VideoCodec::Vp8, VideoCodec::H264].map(VideoCodec::label) {
            drop(metrics.encoded.get_or_create(&CodecLabel { codec }));
            for quality in ["full", "half"] {
                drop(metrics.running.get_or_create(&EncoderLabel { codec, quality }));
            }
        }
        metrics
    }

    /// Counts an encoder that starts.
    pub(crate) fn start(&self, codec: VideoCodec, quality: &'static str) -> RunningEncoder {
        let codec = codec.label();
        let running = self.running.get_or_create(&EncoderLabel { codec, quality }).clone();
        running.inc();
        RunningEncoder { running, encoded: self.encoded.get_or_create(&CodecLabel { codec }).clone() }
    }

    pub(crate) fn on_withheld(&self) {
        self.withheld.inc();
    }
}

impl RunningEncoder {
    /// Counts a picture.
    pub(crate) fn on_encode(&self) {
        self.encoded.inc();
    }
}

impl Drop for RunningEncoder {
    fn drop(&mut self) {
        self.running.dec();
    }
}
