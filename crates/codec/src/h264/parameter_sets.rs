//! Parses and checks the sequence and picture parameter sets of H.264 (7.3.2.1, 7.3.2.2) before a
//! decoder sees them.
//!
//! Every field is read. A value that H.264 does not allow, that openh264 does not support, or that
//! asks for more than the limits is a fault.

use super::bits::{Bits, Fault, unescape};
use crate::colour::ColourSpace;
use crate::limits::{H264Level, Limits};

/// Maximum size of a parameter set in bytes. Those of cameras have some 30 bytes; one with all
/// scaling lists has less than 1000.
const MAX_BYTES: usize = 2048;
/// Number of ids of sequence parameter sets, which begin at 0.
pub(super) const SEQUENCE_IDS: u32 = 32;
/// Number of ids of picture parameter sets, which begin at 0.
pub(super) const PICTURE_IDS: u32 = 256;

const BASELINE: u8 = 66;
const MAIN: u8 = 77;
const HIGH: u8 = 100;

const MACROBLOCK: u32 = 16;
/// Upper bound of fields that H.264 bounds only by their 32 bits. No encoder needs larger values.
const ANY: u32 = 65_535;
const ANY_SIGNED: i32 = 65_535;
/// Maximum number of reference frames in H.264, and of frames to keep for reordering.
const MAX_FRAMES: u32 = 16;
/// Number of reference frames that are allowed at any level.
const LEAST_REFERENCES: u32 = 4;

/// Reason why a sequence parameter set is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SequenceFault {
    /// The set announces a picture that is too large.
    Size { width: u32, height: u32 },
    /// A field of the set cannot be accepted.
    Field(Fault),
}

impl From<Fault> for SequenceFault {
    fn from(fault: Fault) -> Self {
        Self::Field(fault)
    }
}

/// Fields of a sequence parameter set that are used later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sequence {
    pub(super) id: u32,
    pub(super) is_baseline: bool,
    /// Width of the visible picture in pixels.
    pub(super) width: u32,
    /// Height of the visible picture in pixels.
    pub(super) height: u32,
    /// Number of macroblocks in the coded picture.
    pub(super) macroblocks: u32,
    pub(super) frame_num_bits: u32,
    pub(super) order: PictureOrder,
    /// Colours of the pictures; `None` if they are not named.
    pub(super) colours: Option<ColourSpace>,
}

/// Coding of the order in which pictures are shown (`pic_order_cnt_type`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PictureOrder {
    /// Type 0: slices have the low bits of the picture order count, with this number of bits.
    LowBits(u32),
    /// Type 1: slices have the difference from the expected count.
    Difference { is_sent: bool },
    /// Type 2: pictures are shown in decoding order.
    AsDecoded,
}

/// Fields of a picture parameter set that are used later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) id: u32,
    pub(super) sequence: u32,
    pub(super) sends_bottom_order: bool,
    pub(super) sends_redundant_count: bool,
}

impl Sequence {
    /// Parses a NAL unit, its header included.
    pub(super) fn read(unit: &[u8], limits: &Limits) -> Result<Self, SequenceFault> {
        let mut payload = [0; MAX_BYTES];
        let mut bits = payload_of(unit, &mut payload)?;
        let profile = bits.fixed(8, "profile_idc")? as u8;
        if ![BASELINE, MAIN, HIGH].contains(&profile) {
            return rule("its profile is none of Baseline, Main and High");
        }
        let constraints = bits.fixed(8, "constraint flags")? as u8;
        let level_idc = bits.fixed(8, "level_idc")? as u8;
        // Level 1b of Baseline and Main is level 1.1 with constraint_set3_flag.
        let is_1b = profile != HIGH && level_idc == 11 && constraints & 0x10 != 0;
        let Some(level) = H264Level::from_idc(if is_1b { 9 } else { level_idc }) else {
            return rule("its level is unknown");
        };
        if level > limits.h264_level {
            return rule("its level is above the one allowed (limits.h264_level)");
        }
        let id = bits.unsigned(SEQUENCE_IDS - 1, "seq_parameter_set_id")?;
        if profile == HIGH {
            bits_per_sample(&mut bits)?;
        }
        let frame_num_bits = 4 + bits.unsigned(12, "log2_max_frame_num_minus4")?;
        let order = picture_order(&mut bits)?;
        let references = bits.unsigned(MAX_FRAMES, "max_num_ref_frames")?;
        bits.flag("gaps_in_frame_num_value_allowed_flag")?;
        let columns = 1 + bits.unsigned(ANY, "pic_width_in_mbs_minus1")?;
        let rows = 1 + bits.unsigned(ANY, "pic_height_in_map_units_minus1")?;
        if !bits.flag("frame_mbs_only_flag")? {
            return rule("it is interlaced, which is not supported");
        }
        bits.flag("direct_8x8_inference_flag")?;
        let (width, height) = cropped(&mut bits, columns, rows)?;
        // The size is checked before the references, so that a picture that is too large is
        // reported as such.
        if !limits.allow(width, height) || !limits.allow_coded(columns, rows) {
            let coded = (columns * MACROBLOCK, rows * MACROBLOCK);
            let (width, height) = if limits.allow(width, height) { coded } else { (width, height) };
            return Err(SequenceFault::Size { width, height });
        }
        let macroblocks = columns * rows;
        // Some hardware announces a level that is too low for its pictures. A few references are
        // accepted nevertheless.
        let most = (level.kept_macroblocks() / macroblocks).clamp(LEAST_REFERENCES, MAX_FRAMES);
        if references > most {
            let (value, most) = (references.into(), most.into());
            return Err(Fault::Range { field: "max_num_ref_frames", value, least: 0, most }.into());
        }
        let colours = if bits.flag("vui_parameters_present_flag")? { usability(&mut bits)? } else { None };
        Ok(Self { id, is_baseline: profile == BASELINE, width, height, macroblocks, frame_num_bits, order, colours })
    }
}

impl Picture {
    /// Parses a NAL unit, its header included.
    pub(super) fn read(unit: &[u8]) -> Result<Self, Fault> {
        let mut payload = [0; MAX_BYTES];
        let mut bits = payload_of(unit, &mut payload)?;
        let id = bits.unsigned(PICTURE_IDS - 1, "pic_parameter_set_id")?;
        let sequence = bits.unsigned(SEQUENCE_IDS - 1, "seq_parameter_set_id")?;
        bits.flag("entropy_coding_mode_flag")?;
        let sends_bottom_order = bits.flag("bottom_field_pic_order_in_frame_present_flag")?;
        if bits.unsigned(7, "num_slice_groups_minus1")? > 0 {
            return Err(Fault::Rule("it has slice groups, which are not supported"));
        }
        bits.unsigned(MAX_FRAMES - 1, "num_ref_idx_l0_default_active_minus1")?;
        bits.unsigned(MAX_FRAMES - 1, "num_ref_idx_l1_default_active_minus1")?;
        bits.flag("weighted_pred_flag")?;
        if bits.fixed(2, "weighted_bipred_idc")? > 2 {
            return Err(Fault::Rule("weighted_bipred_idc is 3"));
        }
        bits.signed(-26, 25, "pic_init_qp_minus26")?;
        bits.signed(-26, 25, "pic_init_qs_minus26")?;
        bits.signed(-12, 12, "chroma_qp_index_offset")?;
        bits.flag("deblocking_filter_control_present_flag")?;
        bits.flag("constrained_intra_pred_flag")?;
        let sends_redundant_count = bits.flag("redundant_pic_cnt_present_flag")?;
        if bits.has_more() {
            let transforms_8x8 = bits.flag("transform_8x8_mode_flag")?;
            if bits.flag("pic_scaling_matrix_present_flag")? {
                scaling_lists(&mut bits, if transforms_8x8 { 8 } else { 6 })?;
            }
            bits.signed(-12, 12, "second_chroma_qp_index_offset")?;
        }
        Ok(Self { id, sequence, sends_bottom_order, sends_redundant_count })
    }
}

impl Limits {
    /// Returns whether pictures of this many macroblocks are decoded. The up to 15 columns and rows
    /// that only fill the last macroblocks do not count against the limit.
    fn allow_coded(&self, columns: u32, rows: u32) -> bool {
        let least = |macroblocks: u32| u64::from(macroblocks * MACROBLOCK - (MACROBLOCK - 1));
        least(columns) * least(rows) <= self.pixels && least(columns).max(least(rows)) <= ooblex_pipeline::I420::MAX_SIDE.into()
    }
}

fn rule<T>(sentence: &'static str) -> Result<T, SequenceFault> {
    Err(Fault::Rule(sentence).into())
}

fn payload_of<'a>(unit: &[u8], payload: &'a mut [u8; MAX_BYTES]) -> Result<Bits<'a>, Fault> {
    let escaped = unit.get(1..).unwrap_or_default();
    // At most every third byte of a unit is emulation prevention, so a valid set fits.
    if escaped.len() > MAX_BYTES {
        return Err(Fault::Rule("it is longer than any parameter set"));
    }
    let length = unescape(escaped, payload)?;
    Bits::of_payload(&payload[..length])
}

/// Reads the fields of the High profile that come before those of all profiles.
fn bits_per_sample(bits: &mut Bits<'_>) -> Result<(), Fault> {
    if bits.unsigned(3, "chroma_format_idc")? != 1 {
        return Err(Fault::Rule("its chroma format is not 4:2:0"));
    }
    bits.unsigned(0, "bit_depth_luma_minus8")?;
    bits.unsigned(0, "bit_depth_chroma_minus8")?;
    if bits.flag("qpprime_y_zero_transform_bypass_flag")? {
        return Err(Fault::Rule("it is lossless, which is not supported"));
    }
    if bits.flag("seq_scaling_matrix_present_flag")? {
        scaling_lists(bits, 8)?;
    }
    Ok(())
}

/// Reads scaling lists. The first six have 16 numbers, the others 64.
fn scaling_lists(bits: &mut Bits<'_>, count: usize) -> Result<(), Fault> {
    for list in 0..count {
        if !bits.flag("scaling_list_present_flag")? {
            continue;
        }
        let (mut last, mut next) = (8, 8);
        for _ in 0..if list < 6 { 16 } else { 64 } {
            if next != 0 {
                next = (last + bits.signed(-128, 127, "delta_scale")? + 256) % 256;
                last = if next == 0 { last } else { next };
            }
        }
    }
    Ok(())
}

fn picture_order(bits: &mut Bits<'_>) -> Result<PictureOrder, Fault> {
    match bits.unsigned(2, "pic_order_cnt_type")? {
        0 => Ok(PictureOrder::LowBits(4 + bits.unsigned(12, "log2_max_pic_order_cnt_lsb_minus4")?)),
        1 => {
            let is_sent = !bits.flag("delta_pic_order_always_zero_flag")?;
            bits.signed(-ANY_SIGNED, ANY_SIGNED, "offset_for_non_ref_pic")?;
            bits.signed(-ANY_SIGNED, ANY_SIGNED, "offset_for_top_to_bottom_field")?;
            for _ in 0..bits.unsigned(255, "num_ref_frames_in_pic_order_cnt_cycle")? {
                bits.signed(-ANY_SIGNED, ANY_SIGNED, "offset_for_ref_frame")?;
            }
            Ok(PictureOrder::Difference { is_sent })
        }
        _ => Ok(PictureOrder::AsDecoded),
    }
}

/// Reads the cropping, and returns the width and height of the visible picture in pixels. Offsets
/// count two pixels each, because chroma is half as wide and as high.
fn cropped(bits: &mut Bits<'_>, columns: u32, rows: u32) -> Result<(u32, u32), Fault> {
    let (width, height) = (columns * MACROBLOCK, rows * MACROBLOCK);
    if !bits.flag("frame_cropping_flag")? {
        return Ok((width, height));
    }
    let left = bits.unsigned(ANY, "frame_crop_left_offset")?;
    let right = bits.unsigned(ANY, "frame_crop_right_offset")?;
    let top = bits.unsigned(ANY, "frame_crop_top_offset")?;
    let bottom = bits.unsigned(ANY, "frame_crop_bottom_offset")?;
    let shown = |side: u32, before: u32, after: u32| {
        let cut = 2 * (u64::from(before) + u64::from(after));
        u64::from(side).checked_sub(cut).filter(|left| *left > 0).map(|left| left as u32)
    };
    shown(width, left, right).zip(shown(height, top, bottom)).ok_or(Fault::Rule("nothing is left of its picture by the cropping"))
}

/// Reads the video usability information (H.264 E.1.1). Returns the colours, if they are named.
fn usability(bits: &mut Bits<'_>) -> Result<Option<ColourSpace>, Fault> {
    const EXTENDED_SAMPLE_ASPECT_RATIO: u32 = 255;
    if bits.flag("aspect_ratio_info_present_flag")? && bits.fixed(8, "aspect_ratio_idc")? == EXTENDED_SAMPLE_ASPECT_RATIO {
        bits.fixed(32, "sar_width, sar_height")?;
    }
    if bits.flag("overscan_info_present_flag")? {
        bits.flag("overscan_appropriate_flag")?;
    }
    let colours = if bits.flag("video_signal_type_present_flag")? { Some(colours(bits)?) } else { None };
    if bits.flag("chroma_loc_info_present_flag")? {
        bits.unsigned(5, "chroma_sample_loc_type_top_field")?;
        bits.unsigned(5, "chroma_sample_loc_type_bottom_field")?;
    }
    if bits.flag("timing_info_present_flag")? {
        bits.fixed(32, "num_units_in_tick")?;
        bits.fixed(32, "time_scale")?;
        bits.flag("fixed_frame_rate_flag")?;
    }
    let of_units = bits.flag("nal_hrd_parameters_present_flag")?;
    if of_units {
        reference_decoder(bits)?;
    }
    let of_slices = bits.flag("vcl_hrd_parameters_present_flag")?;
    if of_slices {
        reference_decoder(bits)?;
    }
    if of_units || of_slices {
        bits.flag("low_delay_hrd_flag")?;
    }
    bits.flag("pic_struct_present_flag")?;
    if bits.flag("bitstream_restriction_flag")? {
        bits.flag("motion_vectors_over_pic_boundaries_flag")?;
        bits.unsigned(16, "max_bytes_per_pic_denom")?;
        bits.unsigned(16, "max_bits_per_mb_denom")?;
        bits.unsigned(16, "log2_max_mv_length_horizontal")?;
        bits.unsigned(16, "log2_max_mv_length_vertical")?;
        let reordered = bits.unsigned(MAX_FRAMES, "max_num_reorder_frames")?;
        if bits.unsigned(MAX_FRAMES, "max_dec_frame_buffering")? < reordered {
            return Err(Fault::Rule("max_dec_frame_buffering is less than max_num_reorder_frames"));
        }
    }
    Ok(colours)
}

/// Reads the type of the video signal (H.264 E.2.1).
fn colours(bits: &mut Bits<'_>) -> Result<ColourSpace, Fault> {
    const UNSPECIFIED: u8 = 2;
    bits.fixed(3, "video_format")?;
    let is_full_range = bits.flag("video_full_range_flag")?;
    let matrix = if bits.flag("colour_description_present_flag")? {
        bits.fixed(16, "colour_primaries, transfer_characteristics")?;
        bits.fixed(8, "matrix_coefficients")? as u8
    } else {
        UNSPECIFIED
    };
    Ok(ColourSpace::from_code_points(matrix, is_full_range))
}

/// Reads the parameters of the hypothetical reference decoder (H.264 E.1.2).
fn reference_decoder(bits: &mut Bits<'_>) -> Result<(), Fault> {
    let count = 1 + bits.unsigned(31, "cpb_cnt_minus1")?;
    bits.fixed(8, "bit_rate_scale, cpb_size_scale")?;
    for _ in 0..count {
        bits.skip_unsigned("bit_rate_value_minus1")?;
        bits.skip_unsigned("cpb_size_value_minus1")?;
        bits.flag("cbr_flag")?;
    }
    bits.fixed(20, "lengths of delays").map(drop)
}
