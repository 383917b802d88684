//! H.264 through openh264. Owns the objects of openh264. Does not decide when to encode or how to
//! handle errors.
//!
//! It calls the library directly, because the safe wrapper can neither change the bitrate without a
//! restart nor tell why a frame could not be decoded.

mod bits;
mod check;
mod nal_units;
mod parameter_sets;
mod raw;
mod slice_header;
#[cfg(test)]
mod tests;

use std::ffi::c_int;
use std::ptr::null_mut;

use ooblex_pipeline::{I420, Pool, Size};
use openh264_sys2 as sys;

use crate::encoding::{EncodeError, Output, Speed, Task};
use crate::planes::{ForeignPlanes, widen};
use crate::undecodable::Undecodable;
use crate::{CodecError, ColourSpace, Limits};
use check::Check;
use nal_units::{IDR_SLICE, PICTURE_PARAMETERS, SEQUENCE_PARAMETERS, SLICE, kind, nal_units};
use parameter_sets::Sequence;
use raw::{RawDecoder, RawEncoder};

const LIBRARY: &str = "openh264";
/// The smallest side that openh264 encodes.
const MIN_SIDE: u32 = 16;
/// The largest picture that openh264 encodes (level 5.1), in macroblocks of 16x16.
const MAX_MACROBLOCKS: u32 = 36_864;
/// Relative change of the frame rate from which the encoder is told the new one.
const FRAME_RATE_TOLERANCE: f32 = 0.15;

/// Returns whether openh264 was built with its assembler routines and this processor supports them.
/// Without them H.264 takes three times as long, so the build refuses to leave them out unless
/// `OOBLEX_ALLOW_SLOW_H264` is 1.
pub fn h264_is_accelerated() -> bool {
    unsafe extern "C" {
        // `uint32_t WelsCPUFeatureDetect(int32_t*)` of openh264's `cpu.h`, which its own headers do not export. Returns 0 when built without assembler.
        #[link_name = "WelsCPUFeatureDetect"]
        fn cpu_features(logical_processors: *mut i32) -> u32;
    }
    // SAFETY: the argument may be null.
    unsafe { cpu_features(null_mut()) != 0 }
}

/// Returns whether pictures of this size can be encoded.
pub(crate) fn can_encode(width: u32, height: u32) -> bool {
    width >= MIN_SIDE && height >= MIN_SIDE && macroblocks(width, height) <= MAX_MACROBLOCKS
}

/// Returns whether the first slice of the access unit (Annex B) belongs to an IDR picture.
pub(crate) fn is_keyframe(data: &[u8]) -> bool {
    slice_types(data).next() == Some(IDR_SLICE)
}

/// Returns the size of the picture that the first sequence parameter set of the access unit (Annex B)
/// announces, if that is valid.
pub(crate) fn keyframe_size(data: &[u8]) -> Option<Size> {
    let set = nal_units(data).find(|unit| kind(unit) == SEQUENCE_PARAMETERS)?;
    Sequence::read(set, &Limits::default()).ok().map(|sequence| Size::new(sequence.width, sequence.height))
}

/// Returns the decoder configuration record (ISO/IEC 14496-15, `avcC`) for the parameter sets of an
/// access unit (Annex B) of the Baseline profile. `None` if they are missing.
pub(crate) fn decoder_configuration(data: &[u8]) -> Option<Vec<u8>> {
    let set = |of: u8| nal_units(data).find(|unit| kind(unit) == of);
    let (sequence, picture) = (set(SEQUENCE_PARAMETERS)?, set(PICTURE_PARAMETERS)?);
    let profile_and_level = sequence.get(1..4)?;
    // Version; profile, compatibility, level; four bytes of length; one set of each kind.
    let mut record = vec![1];
    record.extend_from_slice(profile_and_level);
    record.extend([0xff, 0xe1]);
    record.extend(u16::try_from(sequence.len()).ok()?.to_be_bytes());
    record.extend_from_slice(sequence);
    record.push(1);
    record.extend(u16::try_from(picture.len()).ok()?.to_be_bytes());
    record.extend_from_slice(picture);
    Some(record)
}

/// Appends the NAL units of an access unit (Annex B) with their lengths in four bytes in place of
/// start codes, as files have them.
pub(crate) fn with_lengths(data: &[u8], to: &mut Vec<u8>) {
    for unit in nal_units(data) {
        to.extend((unit.len() as u32).to_be_bytes());
        to.extend_from_slice(unit);
    }
}

/// Returns whether the access unit (Annex B) has a picture, not only parameter sets and the like.
pub(crate) fn has_slices(data: &[u8]) -> bool {
    slice_types(data).next().is_some()
}

fn slice_types(data: &[u8]) -> impl Iterator<Item = u8> {
    nal_units(data).map(kind).filter(|kind| (SLICE..=IDR_SLICE).contains(kind))
}

fn macroblocks(width: u32, height: u32) -> u32 {
    width.div_ceil(16) * height.div_ceil(16)
}

/// Decoder of one H.264 stream, on the calling thread.
pub(crate) struct Decoder {
    check: Check,
    raw: RawDecoder,
    condition: Condition,
    /// The next picture is decoded only if it follows the last one by its number.
    must_follow: bool,
}

/// Condition of the library's decoder object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    /// The object has seen no data yet.
    Fresh,
    /// All data that the object saw was valid, or seemed so.
    Used,
    /// The object saw damaged data.
    Suspect,
}

impl Decoder {
    pub(crate) fn new(limits: Limits) -> Result<Self, CodecError> {
        Ok(Self { check: Check::new(limits), raw: RawDecoder::start()?, condition: Condition::Fresh, must_follow: false })
    }

    /// Packets before the next frame were lost, perhaps those of a picture.
    pub(crate) fn packets_lost(&mut self) {
        self.must_follow = true;
    }

    /// Decodes one access unit into a picture in memory of `pool`. Every access unit is checked
    /// before the library sees it.
    ///
    /// After damage openh264 may refuse even a valid keyframe, so a keyframe is then decoded by a
    /// new library object. So is a keyframe with other sequence parameters: no object ever
    /// reallocates its memory, and what is left of the old pictures is freed with the old object.
    pub(crate) fn decode(&mut self, data: &[u8], pool: &Pool) -> Result<Option<I420>, Undecodable> {
        let checked = self.check.check(data)?;
        if checked.size.is_some() && std::mem::take(&mut self.must_follow) && !checked.follows {
            return Err(Undecodable::AwaitsKeyframe);
        }
        let is_unfit = match self.condition {
            Condition::Fresh => false,
            Condition::Used => checked.begins_anew,
            Condition::Suspect => true,
        };
        if checked.is_idr && is_unfit {
            self.start_anew()?;
        }
        let was_fresh = self.condition == Condition::Fresh;
        let mut decoded = self.decode_as_is(data, checked.size, pool);
        if decoded.is_err() && checked.is_idr && !was_fresh {
            self.start_anew()?;
            decoded = self.decode_as_is(data, checked.size, pool);
        }
        self.condition = if decoded.is_ok() { Condition::Used } else { Condition::Suspect };
        decoded
    }

    /// Returns the colours that the stream names for its last picture.
    pub(crate) fn colours(&self) -> Option<ColourSpace> {
        self.check.colours()
    }

    fn start_anew(&mut self) -> Result<(), Undecodable> {
        self.raw = RawDecoder::start().map_err(|error| damaged(error.to_string()))?;
        self.condition = Condition::Fresh;
        // Senders need not repeat the parameter sets. They are passed one at a time, because the
        // library ignores what follows a set that it rejects.
        for set in self.check.parameter_sets() {
            _ = self.pass_on(&set);
        }
        Ok(())
    }

    /// Decodes `data`, an access unit that was checked. `size` is that of its picture, if it has
    /// one.
    fn decode_as_is(&mut self, data: &[u8], size: Option<Size>, pool: &Pool) -> Result<Option<I420>, Undecodable> {
        let (start, info) = self.pass_on(data)?;
        let Some(size @ Size { width, height }) = size else { return Ok(None) };
        if info.iBufferStatus != 1 {
            // After some errors openh264 resets itself and reports success.
            return Err(damaged("no picture came out"));
        }
        // SAFETY: the union has this one member.
        let buffer = unsafe { info.UsrData.sSystemBuffer };
        if (i64::from(buffer.iWidth), i64::from(buffer.iHeight)) != (width.into(), height.into()) {
            return Err(damaged(format!("a picture of {}x{} came out for one of {width}x{height}", buffer.iWidth, buffer.iHeight)));
        }
        let [luma, chroma] = buffer.iStride;
        let planes = ForeignPlanes::new(start.map(<*mut u8>::cast_const), [luma, chroma, chroma], size);
        let planes = planes.ok_or_else(|| damaged("the planes of the picture make no sense"))?;
        // SAFETY: openh264 says that the planes, which live until the next call, hold a picture of this size, which is that of the checked
        // parameter sets.
        Ok(Some(unsafe { planes.copy(pool) }))
    }

    /// Passes bytes that were checked to the library. Returns the planes of the decoded picture, if
    /// there is one, and its description.
    fn pass_on(&self, data: &[u8]) -> Result<([*mut u8; 3], sys::SBufferInfo), Undecodable> {
        let length = c_int::try_from(data.len()).map_err(|_| damaged("an access unit of more than 2 GiB"))?;
        let mut start = [null_mut::<u8>(); 3];
        let mut info = sys::SBufferInfo::default();
        // SAFETY: the decoder is alive, `data` is readable for `length` bytes, openh264 copies it, and the other two are written during the call.
        let mut state = unsafe { (self.raw.calls.decode)(self.raw.object, data.as_ptr(), length, start.as_mut_ptr(), &mut info) };
        // Of all profiles but Baseline, openh264 holds each picture back until the next one. Senders of
        // WebRTC do not reorder pictures.
        if state == sys::dsErrorFree && info.iBufferStatus != 1 {
            // SAFETY: the decoder is alive, and the other two are written during the call.
            state = unsafe { (self.raw.calls.flush)(self.raw.object, start.as_mut_ptr(), &mut info) };
        }
        if state == sys::dsErrorFree { Ok((start, info)) } else { Err(damaged(describe_state(state))) }
    }
}

/// Encoder of one H.264 stream of fixed size, on the calling thread.
pub(crate) struct Encoder {
    raw: RawEncoder,
    /// Buffer in which pictures with an odd side are widened.
    even: Option<I420>,
    bitrate_bps: u32,
    frame_rate: f32,
}

impl Encoder {
    /// Creates an encoder for a size for which [`can_encode`] holds.
    pub(crate) fn new(width: u32, height: u32, bitrate_bps: u32, frame_rate: f32, speed: Speed) -> Result<Self, CodecError> {
        let (even_width, even_height) = (width.next_multiple_of(2), height.next_multiple_of(2));
        let even = (even_width, even_height) != (width, height);
        Ok(Self {
            raw: RawEncoder::start(even_width, even_height, bitrate_bps, frame_rate, speed)?,
            even: even.then(|| I420::grey(even_width, even_height, 16)),
            bitrate_bps,
            frame_rate,
        })
    }

    /// Encodes `picture`, which must have the size of this encoder.
    pub(crate) fn encode(&mut self, picture: &I420, task: &Task) -> Result<Option<Output>, EncodeError> {
        self.apply_rates(task)?;
        if task.force_keyframe {
            // SAFETY: the encoder is alive. The layer, which the C++ method also takes, has no
            // effect without simulcast.
            check("force a keyframe", unsafe { (self.raw.calls.force_intra_frame)(self.raw.object, true) })?;
        }
        let picture = match &mut self.even {
            Some(even) => {
                widen(picture, even);
                &*even
            }
            None => picture,
        };
        let mut source = sys::SSourcePicture {
            iColorFormat: sys::videoFormatI420,
            iPicWidth: picture.width() as c_int,
            iPicHeight: picture.height() as c_int,
            uiTimeStamp: (task.elapsed / 90) as _,
            ..Default::default()
        };
        for (index, plane) in picture.planes().into_iter().enumerate() {
            source.pData[index] = plane.as_ptr().cast_mut();
            source.iStride[index] = if index == 0 { picture.width() } else { picture.chroma_width() } as c_int;
        }
        let mut bitstream = sys::SFrameBSInfo::default();
        // SAFETY: the encoder is alive; it only reads from the planes, which outlive the call, and writes `bitstream`.
        check("encode", unsafe { (self.raw.calls.encode)(self.raw.object, &source, &mut bitstream) })?;
        // SAFETY: filled by the encoder, which was not called since.
        unsafe { copy_output(&bitstream) }
    }

    fn apply_rates(&mut self, task: &Task) -> Result<(), EncodeError> {
        if (task.frame_rate - self.frame_rate).abs() > self.frame_rate * FRAME_RATE_TOLERANCE {
            self.frame_rate = task.frame_rate;
            let mut frame_rate = task.frame_rate;
            // SAFETY: this option takes one float.
            check("change the frame rate", unsafe { self.raw.set_option(sys::ENCODER_OPTION_FRAME_RATE, &mut frame_rate) })?;
        }
        if task.bitrate_bps != self.bitrate_bps {
            self.bitrate_bps = task.bitrate_bps;
            let mut bitrate = sys::SBitrateInfo { iLayer: sys::SPATIAL_LAYER_ALL, iBitrate: task.bitrate_bps as c_int };
            // SAFETY: this option takes one such structure.
            check("change the bitrate", unsafe { self.raw.set_option(sys::ENCODER_OPTION_BITRATE, &mut bitrate) })?;
        }
        Ok(())
    }
}

/// Copies the output of an encoder.
///
/// # Safety
/// `bitstream` was filled by an encoder that is alive and was not called since.
unsafe fn copy_output(bitstream: &sys::SFrameBSInfo) -> Result<Option<Output>, EncodeError> {
    let layers = usize::try_from(bitstream.iLayerNum).ok().and_then(|count| bitstream.sLayerInfo.get(..count));
    let mut data = Vec::with_capacity(bitstream.iFrameSizeInBytes.max(0) as usize);
    for layer in layers.ok_or_else(senseless_output)? {
        // SAFETY: as the caller says.
        data.extend_from_slice(unsafe { layer_bytes(layer) }?);
    }
    let keyframe = bitstream.eFrameType == sys::videoFrameTypeIDR;
    Ok((!data.is_empty()).then_some(Output { data, keyframe }))
}

/// Returns the NAL units of a layer, start codes included. A layer may have none, and then has no
/// memory.
///
/// # Safety
/// Where the pointers of `layer` are not null, `pNalLengthInByte` has `iNalCount` lengths, and the
/// units follow each other in `pBsBuf`.
unsafe fn layer_bytes(layer: &sys::SLayerBSInfo) -> Result<&[u8], EncodeError> {
    let count = usize::try_from(layer.iNalCount).map_err(|_| senseless_output())?;
    if count == 0 {
        return Ok(&[]);
    }
    if layer.pNalLengthInByte.is_null() || layer.pBsBuf.is_null() {
        return Err(senseless_output());
    }
    // SAFETY: neither pointer is null, and the caller vouches for the lengths.
    let lengths = unsafe { std::slice::from_raw_parts(layer.pNalLengthInByte, count) };
    let add = |sum: usize, length: &c_int| sum.checked_add(usize::try_from(*length).ok()?);
    let length = lengths.iter().try_fold(0, add).filter(|sum| isize::try_from(*sum).is_ok()).ok_or_else(senseless_output)?;
    // SAFETY: the pointer is not null, and the caller vouches for the units' bytes.
    Ok(unsafe { std::slice::from_raw_parts(layer.pBsBuf, length) })
}

fn senseless_output() -> EncodeError {
    EncodeError::Failed { library: LIBRARY, reason: "the description of what it wrote makes no sense".into() }
}

fn damaged(reason: impl Into<String>) -> Undecodable {
    Undecodable::Damaged { library: LIBRARY, reason: reason.into() }
}

/// Names the bits of a `DECODING_STATE` (openh264 `codec_def.h`).
fn describe_state(state: sys::DECODING_STATE) -> String {
    let names = [
        (sys::dsFramePending, "frame pending"),
        (sys::dsRefLost, "reference lost"),
        (sys::dsBitstreamError, "bitstream error"),
        (sys::dsDepLayerLost, "layer lost"),
        (sys::dsNoParamSets, "no parameter sets"),
        (sys::dsDataErrorConcealed, "error concealed"),
        (sys::dsRefListNullPtrs, "empty reference list"),
        (sys::dsInvalidArgument, "invalid argument"),
        (sys::dsInitialOptExpected, "not initialised"),
        (sys::dsOutOfMemory, "out of memory"),
        (sys::dsDstBufNeedExpan, "buffer too small"),
    ];
    let named: Vec<_> = names.into_iter().filter(|(bit, _)| state & bit != 0).map(|(_, name)| name).collect();
    if named.is_empty() { format!("state {state:#x}") } else { named.join(", ") }
}

fn check(what: &str, result: c_int) -> Result<(), EncodeError> {
    match result {
        0 => Ok(()),
        code => Err(EncodeError::Failed { library: LIBRARY, reason: format!("could not {what}: code {code}") }),
    }
}
