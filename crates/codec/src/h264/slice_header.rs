//! Parses the beginning of an H.264 slice header (7.3.3): the picture of the slice, its position in
//! it, and its number of references.

use super::bits::{Bits, Fault, unescape};
use super::nal_units::{IDR_SLICE, kind};
use super::parameter_sets::{PICTURE_IDS, Picture, PictureOrder, Sequence};

/// Number of bytes after the NAL unit's header that are read. The fields take less than 40.
const LOOKED_AT: usize = 64;
/// Maximum of `num_ref_idx_l0_active_minus1` in frames.
const MAX_REFERENCES: u32 = 15;

const P: u32 = 0;
const B: u32 = 1;
const I: u32 = 2;

/// Fields that are equal in all slices of a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PictureOfSlice {
    pub(super) is_idr: bool,
    pub(super) is_reference: bool,
    pub(super) parameters: u32,
    pub(super) frame_num: u32,
    idr_id: Option<u32>,
    order: OutputOrder,
}

/// Syntax elements from which the output order of a picture follows; 0 where they are not sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct OutputOrder {
    /// `pic_order_cnt_lsb` or `delta_pic_order_cnt[0]`.
    first: u32,
    /// `delta_pic_order_cnt_bottom` or `delta_pic_order_cnt[1]`.
    bottom: i32,
}

/// Fields of a slice header that are used later.
pub(super) struct Slice {
    /// Number of the macroblock that the slice begins with.
    pub(super) first: u32,
    pub(super) picture: PictureOfSlice,
}

impl Slice {
    /// Parses the beginning of a NAL unit. `parameters` finds the picture parameter set of an id
    /// and its sequence parameter set.
    pub(super) fn read<'a>(unit: &[u8], parameters: impl FnOnce(u32) -> Option<(&'a Picture, &'a Sequence)>) -> Result<Self, Fault> {
        let mut payload = [0; LOOKED_AT];
        let length = unescape(&unit[1..], &mut payload)?;
        let mut bits = if length < LOOKED_AT { Bits::of_payload(&payload[..length])? } else { Bits::of_beginning(&payload) };
        let is_idr = kind(unit) == IDR_SLICE;
        let is_reference = unit[0] & 0x60 != 0;
        if is_idr && !is_reference {
            return Err(Fault::Rule("an IDR picture is not marked as a reference"));
        }
        let first = bits.unsigned(u16::MAX.into(), "first_mb_in_slice")?;
        let slice_type = bits.unsigned(9, "slice_type")? % 5;
        let id = bits.unsigned(PICTURE_IDS - 1, "pic_parameter_set_id")?;
        let (picture, sequence) = parameters(id).ok_or(Fault::Rule("its parameter sets have not come"))?;
        if slice_type > I {
            return Err(Fault::Rule("it is of type SP or SI, which are not supported"));
        }
        if is_idr && slice_type != I || sequence.is_baseline && slice_type == B {
            return Err(Fault::Rule("its picture must not have slices of its type"));
        }
        if first >= sequence.macroblocks {
            let (value, most) = (first.into(), i64::from(sequence.macroblocks) - 1);
            return Err(Fault::Range { field: "first_mb_in_slice", value, least: 0, most });
        }
        let frame_num = bits.fixed(sequence.frame_num_bits, "frame_num")?;
        if is_idr && frame_num != 0 {
            return Err(Fault::Rule("the frame_num of an IDR picture is not 0"));
        }
        let idr_id = is_idr.then(|| bits.unsigned(u16::MAX.into(), "idr_pic_id")).transpose()?;
        let order = picture_order(&mut bits, picture, sequence)?;
        if picture.sends_redundant_count && bits.unsigned(127, "redundant_pic_cnt")? > 0 {
            return Err(Fault::Rule("it is of a redundant picture, which are not supported"));
        }
        if slice_type == B {
            bits.flag("direct_spatial_mv_pred_flag")?;
        }
        if (slice_type == P || slice_type == B) && bits.flag("num_ref_idx_active_override_flag")? {
            bits.unsigned(MAX_REFERENCES, "num_ref_idx_l0_active_minus1")?;
            if slice_type == B {
                bits.unsigned(MAX_REFERENCES, "num_ref_idx_l1_active_minus1")?;
            }
        }
        Ok(Self { first, picture: PictureOfSlice { is_idr, is_reference, parameters: id, frame_num, idr_id, order } })
    }
}

fn picture_order(bits: &mut Bits<'_>, picture: &Picture, sequence: &Sequence) -> Result<OutputOrder, Fault> {
    const MOST: i32 = 65_535;
    match sequence.order {
        PictureOrder::LowBits(count) => {
            let first = bits.fixed(count, "pic_order_cnt_lsb")?;
            let bottom = if picture.sends_bottom_order { bits.signed(-MOST, MOST, "delta_pic_order_cnt_bottom")? } else { 0 };
            Ok(OutputOrder { first, bottom })
        }
        PictureOrder::Difference { is_sent: true } => {
            let first = bits.signed(-MOST, MOST, "delta_pic_order_cnt")?;
            let bottom = if picture.sends_bottom_order { bits.signed(-MOST, MOST, "delta_pic_order_cnt")? } else { 0 };
            Ok(OutputOrder { first: first.cast_unsigned(), bottom })
        }
        PictureOrder::Difference { is_sent: false } | PictureOrder::AsDecoded => Ok(OutputOrder::default()),
    }
}
