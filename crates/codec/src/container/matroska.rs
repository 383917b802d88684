//! Matroska container (RFC 9559) with VP8 or H.264 and Opus; with VP8 it is WebM, a subset. It writes
//! files, and reads none. The caller forms the clusters and knows the times.
//!
//! A file can be played from its first cluster on: every cluster has its length, and the segment has
//! none until the file is complete. Then the index, the duration and the length of the segment are
//! added in places that were kept free for them. Matroska is a tree of elements, each with its
//! identifier, length and contents (EBML, RFC 8794).

use std::io::{self, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::Duration;

use ooblex_pipeline::{EncodedFrame, Size, VideoCodec};

use crate::decoder::keyframe_size;
use crate::h264;

// Identifiers of elements (RFC 9559, section 5), with the bits that tell their length.
const EBML: u32 = 0x1a45_dfa3;
const DOC_TYPE: u32 = 0x4282;
const DOC_TYPE_VERSION: u32 = 0x4287;
const DOC_TYPE_READ_VERSION: u32 = 0x4285;
const VOID: u32 = 0xec;
const SEGMENT: u32 = 0x1853_8067;
const SEEK_HEAD: u32 = 0x114d_9b74;
const SEEK: u32 = 0x4dbb;
const SEEK_ID: u32 = 0x53ab;
const SEEK_POSITION: u32 = 0x53ac;
const INFO: u32 = 0x1549_a966;
const TIMESTAMP_SCALE: u32 = 0x2a_d7b1;
const DURATION: u32 = 0x4489;
const MUXING_APP: u32 = 0x4d80;
const WRITING_APP: u32 = 0x5741;
const TRACKS: u32 = 0x1654_ae6b;
const TRACK_ENTRY: u32 = 0xae;
const TRACK_NUMBER: u32 = 0xd7;
const TRACK_UID: u32 = 0x73c5;
const TRACK_TYPE: u32 = 0x83;
const FLAG_LACING: u32 = 0x9c;
const CODEC_ID: u32 = 0x86;
const CODEC_PRIVATE: u32 = 0x63a2;
const SEEK_PRE_ROLL: u32 = 0x56bb;
const VIDEO: u32 = 0xe0;
const PIXEL_WIDTH: u32 = 0xb0;
const PIXEL_HEIGHT: u32 = 0xba;
const AUDIO: u32 = 0xe1;
const SAMPLING_FREQUENCY: u32 = 0xb5;
const CHANNELS: u32 = 0x9f;
const CLUSTER: u32 = 0x1f43_b675;
const TIMESTAMP: u32 = 0xe7;
const SIMPLE_BLOCK: u32 = 0xa3;
const CUES: u32 = 0x1c53_bb6b;
const CUE_POINT: u32 = 0xbb;
const CUE_TIME: u32 = 0xb3;
const CUE_TRACK_POSITIONS: u32 = 0xb7;
const CUE_TRACK: u32 = 0xf7;
const CUE_CLUSTER_POSITION: u32 = 0xf1;

/// Length of an element that is not known yet, in eight bytes.
const UNKNOWN_LENGTH: [u8; 8] = [0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
/// Nanoseconds of a timestamp.
const TIMESTAMP_NS: u64 = 1_000_000;
/// Bytes that are kept free for the index of the segment's parts.
const SEEK_HEAD_BYTES: usize = 96;
/// Bytes of the element of the duration.
const DURATION_BYTES: usize = 11;
/// Sampling frequency of Opus, in Hz.
const OPUS_HZ: u32 = 48_000;
/// Channels of Opus in WebRTC (RFC 7587): a decoder for two of them also decodes one.
const OPUS_CHANNELS: u8 = 2;
/// Time that an Opus decoder needs before its output is right (RFC 7845), in ns.
const OPUS_PRE_ROLL_NS: u64 = 80_000_000;
/// The longest file, in seconds: its times keep their precision.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);

/// A track of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Track {
    /// The pictures.
    Video,
    /// The sound, in Opus.
    Audio,
}

/// A compressed picture or packet of sound.
#[derive(Debug, Clone)]
pub struct Block {
    /// The track that it belongs to.
    pub track: Track,
    /// The time from the beginning of the file.
    pub at: Duration,
    /// It can be decoded without earlier ones.
    pub keyframe: bool,
    /// A VP8 frame, H.264 NAL units with start codes (Annex B), or an Opus packet.
    pub data: Arc<[u8]>,
}

/// Writes a file.
pub struct Writer<W> {
    file: W,
    codec: VideoCodec,
    places: Places,
    /// The clusters that begin with a keyframe.
    cues: Vec<Cue>,
    /// The number of bytes written.
    length: u64,
}

/// Positions in the file.
struct Places {
    /// The contents of the segment, from which Matroska counts positions.
    segment: u64,
    seek_head: u64,
    duration: u64,
    info: u64,
    tracks: u64,
}

struct Cue {
    at: Duration,
    /// The position of the cluster within the segment.
    position: u64,
}

/// Returns the extension of the names of files with this codec.
pub fn extension(codec: VideoCodec) -> &'static str {
    match codec {
        VideoCodec::Vp8 => "webm",
        VideoCodec::H264 => "mkv",
    }
}

impl<W: Write + Seek> Writer<W> {
    /// Begins a file with the parameters of its first picture, which must be a keyframe.
    ///
    /// # Errors
    /// When the file cannot be written, or the frame is no keyframe.
    pub fn begin(file: W, first: &EncodedFrame, has_audio: bool) -> io::Result<Self> {
        let no_keyframe = || io::Error::new(io::ErrorKind::InvalidData, "the first frame is no keyframe");
        let size = keyframe_size(first.codec, &first.data).ok_or_else(no_keyframe)?;
        let private = match first.codec {
            VideoCodec::Vp8 => Vec::new(),
            VideoCodec::H264 => h264::decoder_configuration(&first.data).ok_or_else(no_keyframe)?,
        };
        let mut bytes = head(first.codec);
        bytes.extend(id(SEGMENT));
        bytes.extend(UNKNOWN_LENGTH);
        let segment = bytes.len() as u64;
        bytes.extend(void(SEEK_HEAD_BYTES));
        let info = bytes.len() as u64;
        bytes.extend(element(
            INFO,
            &[
                unsigned(TIMESTAMP_SCALE, TIMESTAMP_NS),
                element(MUXING_APP, b"ooblex"),
                element(WRITING_APP, b"ooblex"),
                void(DURATION_BYTES),
            ]
            .concat(),
        ));
        let tracks = bytes.len() as u64;
        let video = video_track(first.codec, size, &private);
        let audio = if has_audio { audio_track() } else { Vec::new() };
        bytes.extend(element(TRACKS, &[video, audio].concat()));
        let places = Places { segment, seek_head: segment, duration: tracks - DURATION_BYTES as u64, info, tracks };
        let mut writer = Self { file, codec: first.codec, places, cues: Vec::new(), length: 0 };
        writer.write(&bytes)?;
        Ok(writer)
    }

    /// Appends a cluster with these blocks, in their order. Its blocks are within half a minute.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn cluster(&mut self, blocks: &[Block]) -> io::Result<()> {
        let Some(begin) = blocks.iter().map(|block| block.at).min() else { return Ok(()) };
        let keyframe = blocks.iter().find(|block| block.track == Track::Video).filter(|block| block.keyframe);
        if let Some(Block { at, .. }) = keyframe {
            self.cues.push(Cue { at: *at, position: self.length - self.places.segment });
        }
        let begin_ms = milliseconds(begin);
        let mut contents = unsigned(TIMESTAMP, begin_ms);
        for block in blocks {
            let offset_ms = i16::try_from(milliseconds(block.at) - begin_ms).unwrap_or(i16::MAX);
            let flags = if block.keyframe { 0x80 } else { 0 };
            let mut bytes = vec![0x80 | number(block.track)];
            bytes.extend(offset_ms.to_be_bytes());
            bytes.push(flags);
            match (block.track, self.codec) {
                (Track::Video, VideoCodec::H264) => h264::with_lengths(&block.data, &mut bytes),
                _ => bytes.extend_from_slice(&block.data),
            }
            contents.extend(element(SIMPLE_BLOCK, &bytes));
        }
        self.write(&element(CLUSTER, &contents))
    }

    /// Completes the file, which lasts for `duration`: adds the index, the duration and the length.
    /// Returns the file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(mut self, duration: Duration) -> io::Result<W> {
        let cues = self.length - self.places.segment;
        let points = self.cues.iter().flat_map(|Cue { at, position }| {
            let positions = [unsigned(CUE_TRACK, number(Track::Video).into()), unsigned(CUE_CLUSTER_POSITION, *position)].concat();
            element(CUE_POINT, &[unsigned(CUE_TIME, milliseconds(*at)), element(CUE_TRACK_POSITIONS, &positions)].concat())
        });
        let points: Vec<u8> = points.collect();
        if !points.is_empty() {
            self.write(&element(CUES, &points))?;
        }
        let Places { segment, seek_head, duration: duration_at, info, tracks } = self.places;
        let seek = |of: u32, position: u64| element(SEEK, &[element(SEEK_ID, &id(of)), unsigned(SEEK_POSITION, position)].concat());
        let index = if points.is_empty() { Vec::new() } else { seek(CUES, cues) };
        let mut seeks = element(SEEK_HEAD, &[seek(INFO, info - segment), seek(TRACKS, tracks - segment), index].concat());
        seeks.extend(void(SEEK_HEAD_BYTES - seeks.len()));
        let length = (self.length - segment) | 1 << 56;
        self.overwrite(seek_head, &seeks)?;
        self.overwrite(duration_at, &float(DURATION, milliseconds(duration) as f64))?;
        self.overwrite(segment - UNKNOWN_LENGTH.len() as u64, &length.to_be_bytes())?;
        self.file.flush()?;
        Ok(self.file)
    }

    /// Returns the number of bytes written.
    pub fn length(&self) -> u64 {
        self.length
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn overwrite(&mut self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(position))?;
        self.file.write_all(bytes)
    }
}

fn head(codec: VideoCodec) -> Vec<u8> {
    let doc_type: &[u8] = match codec {
        VideoCodec::Vp8 => b"webm",
        VideoCodec::H264 => b"matroska",
    };
    element(EBML, &[element(DOC_TYPE, doc_type), unsigned(DOC_TYPE_VERSION, 4), unsigned(DOC_TYPE_READ_VERSION, 2)].concat())
}

fn video_track(codec: VideoCodec, size: Size, private: &[u8]) -> Vec<u8> {
    let codec_id: &[u8] = match codec {
        VideoCodec::Vp8 => b"V_VP8",
        VideoCodec::H264 => b"V_MPEG4/ISO/AVC",
    };
    let private = if private.is_empty() { Vec::new() } else { element(CODEC_PRIVATE, private) };
    let picture = [unsigned(PIXEL_WIDTH, size.width.into()), unsigned(PIXEL_HEIGHT, size.height.into())].concat();
    track(Track::Video, codec_id, &[private, element(VIDEO, &picture)].concat())
}

fn audio_track() -> Vec<u8> {
    // RFC 7845, section 5.1: version, channels, pre-skip, sampling frequency, gain, mapping.
    let mut private = b"OpusHead\x01".to_vec();
    private.push(OPUS_CHANNELS);
    private.extend(0_u16.to_le_bytes());
    private.extend(OPUS_HZ.to_le_bytes());
    private.extend([0, 0, 0]);
    let sound = [float(SAMPLING_FREQUENCY, OPUS_HZ.into()), unsigned(CHANNELS, OPUS_CHANNELS.into())].concat();
    track(
        Track::Audio,
        b"A_OPUS",
        &[element(CODEC_PRIVATE, &private), unsigned(SEEK_PRE_ROLL, OPUS_PRE_ROLL_NS), element(AUDIO, &sound)].concat(),
    )
}

fn track(track: Track, codec_id: &[u8], rest: &[u8]) -> Vec<u8> {
    let number = u64::from(number(track));
    let parts = [
        unsigned(TRACK_NUMBER, number),
        unsigned(TRACK_UID, number),
        // The types of video and audio are the numbers of our tracks.
        unsigned(TRACK_TYPE, number),
        unsigned(FLAG_LACING, 0),
        element(CODEC_ID, codec_id),
        rest.to_vec(),
    ];
    element(TRACK_ENTRY, &parts.concat())
}

fn number(track: Track) -> u8 {
    match track {
        Track::Video => 1,
        Track::Audio => 2,
    }
}

/// Returns a time in whole milliseconds, rounded.
fn milliseconds(time: Duration) -> u64 {
    (time.min(MAX_DURATION) + Duration::from_micros(500)).as_millis() as u64
}

fn element(of: u32, contents: &[u8]) -> Vec<u8> {
    let mut bytes = id(of);
    let length = contents.len() as u64;
    // The first byte tells by its leading zeros how many bytes the length has.
    if length < 0x7f {
        bytes.push(0x80 | length as u8);
    } else {
        bytes.extend((length | 1 << 56).to_be_bytes());
    }
    bytes.extend_from_slice(contents);
    bytes
}

fn id(of: u32) -> Vec<u8> {
    of.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect()
}

fn unsigned(of: u32, value: u64) -> Vec<u8> {
    element(of, &value.to_be_bytes())
}

fn float(of: u32, value: f64) -> Vec<u8> {
    element(of, &value.to_be_bytes())
}

/// Returns an element without meaning that takes this number of bytes, from 2 to 128.
fn void(bytes: usize) -> Vec<u8> {
    element(VOID, &vec![0; bytes - 2])
}
