//! Checks every access unit before openh264 sees it. Owns the parameter sets of a stream.
//!
//! The parameter sets kept here are those that the library has. A stream changes the size, or any
//! other of its sequence parameters, only with an IDR picture. An access unit that is refused
//! changes nothing.

use std::sync::Arc;

use ooblex_pipeline::Size;

use super::nal_units::{self, kind, nal_units};
use super::parameter_sets::{PICTURE_IDS, Picture, SEQUENCE_IDS, Sequence, SequenceFault};
use super::slice_header::Slice;
use crate::colour::ColourSpace;
use crate::limits::Limits;
use crate::undecodable::{HeaderPart, Undecodable};

/// Maximum size of an access unit in bytes, which is 500 Mbit/s at 30 Hz.
const MAX_BYTES: usize = 2 << 20;
/// Maximum number of NAL units in an access unit. A picture of 1080p in slices that fit into
/// packets has some 300.
const MAX_UNITS: usize = 640;
/// Maximum number of parameter sets in an access unit.
const MAX_PARAMETER_SETS: usize = 64;

/// Parameter set with the NAL unit that it was read from.
#[derive(Debug)]
struct Kept<T> {
    set: T,
    unit: Box<[u8]>,
}

/// Parameter sets of a stream, and the limits that it is checked against.
pub(super) struct Check {
    limits: Limits,
    sequences: Vec<Option<Arc<Kept<Sequence>>>>,
    pictures: Vec<Option<Arc<Kept<Picture>>>>,
    /// Sequence parameter set of the last IDR picture.
    active: Option<Arc<Kept<Sequence>>>,
    /// `frame_num` of the last reference picture.
    last_reference: Option<u32>,
}

/// Facts about an access unit that may be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checked {
    /// Size of its picture; `None` if it has no picture.
    pub(super) size: Option<Size>,
    /// True if its picture is an IDR picture.
    pub(super) is_idr: bool,
    /// True if its picture has other sequence parameters than the last one.
    pub(super) begins_anew: bool,
    /// True if no reference picture is missing before its picture, by `frame_num` (7.4.3), which
    /// repeats after at least 16 pictures.
    pub(super) follows: bool,
}

/// Access unit that is being checked.
#[derive(Default)]
struct AccessUnit {
    sequences: Vec<Arc<Kept<Sequence>>>,
    pictures: Vec<Arc<Kept<Picture>>>,
    /// Last slice; all slices belong to its picture.
    last: Option<Slice>,
    /// True if a unit came that belongs to the next picture.
    is_over: bool,
}

impl Check {
    pub(super) fn new(limits: Limits) -> Self {
        let (sequences, pictures) = (vec![None; SEQUENCE_IDS as usize], vec![None; PICTURE_IDS as usize]);
        Self { limits, sequences, pictures, active: None, last_reference: None }
    }

    /// Checks an access unit and keeps its parameter sets.
    pub(super) fn check(&mut self, data: &[u8]) -> Result<Checked, Undecodable> {
        if data.len() > MAX_BYTES {
            return refuse(HeaderPart::NalUnit, "the access unit is longer than 2 MiB");
        }
        let mut access_unit = AccessUnit::default();
        for (number, unit) in nal_units(data).enumerate() {
            if number == MAX_UNITS {
                return refuse(HeaderPart::NalUnit, "the access unit has too many of them");
            }
            self.look_at(unit, &mut access_unit)?;
        }
        self.take(access_unit)
    }

    /// Returns the parameter sets received so far, for a decoder that has seen none of them.
    pub(super) fn parameter_sets(&self) -> impl Iterator<Item = Vec<u8>> {
        let sequences = self.sequences.iter().flatten().map(|kept| &kept.unit);
        let pictures = self.pictures.iter().flatten().map(|kept| &kept.unit);
        sequences.chain(pictures).map(|unit| [&[0, 0, 0, 1], &**unit].concat())
    }

    /// Returns the colours that the sequence parameter set of the last IDR picture names.
    pub(super) fn colours(&self) -> Option<ColourSpace> {
        self.active.as_ref()?.set.colours
    }

    fn look_at(&self, unit: &[u8], access_unit: &mut AccessUnit) -> Result<(), Undecodable> {
        // Decoders read a unit that begins with zero in two ways: by its first byte, or by what
        // follows an emulation prevention byte.
        if unit[0] & 0x80 != 0 || unit[0] == 0 {
            return refuse(HeaderPart::NalUnit, "its header is not valid");
        }
        match kind(unit) {
            nal_units::SLICE | nal_units::IDR_SLICE => self.look_at_slice(unit, access_unit),
            nal_units::SEQUENCE_PARAMETERS | nal_units::PICTURE_PARAMETERS if access_unit.last.is_some() => {
                refuse(HeaderPart::NalUnit, "parameter sets come after the slices of a picture")
            }
            nal_units::SEQUENCE_PARAMETERS | nal_units::PICTURE_PARAMETERS
                if access_unit.sequences.len() + access_unit.pictures.len() == MAX_PARAMETER_SETS =>
            {
                refuse(HeaderPart::NalUnit, "the access unit has too many parameter sets")
            }
            nal_units::SEQUENCE_PARAMETERS => {
                let set = Sequence::read(unit, &self.limits).map_err(|fault| match fault {
                    SequenceFault::Size { width, height } => Undecodable::Size { width, height },
                    SequenceFault::Field(fault) => refused(HeaderPart::SequenceParameters, fault),
                })?;
                access_unit.sequences.push(Arc::new(Kept { set, unit: unit.into() }));
                Ok(())
            }
            nal_units::PICTURE_PARAMETERS => {
                let set = Picture::read(unit).map_err(|fault| refused(HeaderPart::PictureParameters, fault))?;
                access_unit.pictures.push(Arc::new(Kept { set, unit: unit.into() }));
                Ok(())
            }
            nal_units::DATA_PARTITION_A..=nal_units::DATA_PARTITION_C => refuse(HeaderPart::NalUnit, "data partitioning is not supported"),
            nal_units::PREFIX | nal_units::SUBSET_SEQUENCE_PARAMETERS | nal_units::SLICE_EXTENSION | nal_units::SLICE_EXTENSION_3D => {
                refuse(HeaderPart::NalUnit, "scalable and multiview coding are not supported")
            }
            nal_units::SUPPLEMENTAL_INFORMATION | nal_units::DELIMITER => {
                access_unit.is_over = access_unit.last.is_some();
                Ok(())
            }
            // openh264 ignores all other types.
            _ => Ok(()),
        }
    }

    fn look_at_slice(&self, unit: &[u8], access_unit: &mut AccessUnit) -> Result<(), Undecodable> {
        let sets = |id| {
            let picture = self.picture(access_unit, id)?;
            Some((&picture.set, &self.sequence(access_unit, picture.set.sequence)?.set))
        };
        let slice = Slice::read(unit, sets).map_err(|fault| refused(HeaderPart::SliceHeader, fault))?;
        let follows = match &access_unit.last {
            Some(last) => !access_unit.is_over && slice.first > last.first && slice.picture == last.picture,
            None => true,
        };
        if !follows {
            return refuse(HeaderPart::SliceHeader, "it does not follow the slice before it in the same picture");
        }
        access_unit.last = Some(slice);
        Ok(())
    }

    /// Returns the newest picture parameter set with this id.
    fn picture<'a>(&'a self, access_unit: &'a AccessUnit, id: u32) -> Option<&'a Arc<Kept<Picture>>> {
        let new = access_unit.pictures.iter().rev().find(|kept| kept.set.id == id);
        new.or_else(|| self.pictures.get(id as usize)?.as_ref())
    }

    /// Returns the newest sequence parameter set with this id.
    fn sequence<'a>(&'a self, access_unit: &'a AccessUnit, id: u32) -> Option<&'a Arc<Kept<Sequence>>> {
        let new = access_unit.sequences.iter().rev().find(|kept| kept.set.id == id);
        new.or_else(|| self.sequences.get(id as usize)?.as_ref())
    }

    /// Checks the sequence parameters of an access unit, whose units are valid one by one, and
    /// keeps its parameter sets.
    fn take(&mut self, access_unit: AccessUnit) -> Result<Checked, Undecodable> {
        let is_idr = access_unit.last.as_ref().is_some_and(|slice| slice.picture.is_idr);
        let mut checked = Checked { size: None, is_idr, begins_anew: false, follows: is_idr };
        if let Some(Slice { picture, .. }) = &access_unit.last {
            let of_picture = self.picture(&access_unit, picture.parameters).map(|picture| picture.set.sequence);
            let Some(sequence) = of_picture.and_then(|id| self.sequence(&access_unit, id)) else {
                return refuse(HeaderPart::SliceHeader, "its parameter sets have not come");
            };
            checked.begins_anew = self.active.as_ref().is_none_or(|active| active.unit != sequence.unit);
            if checked.begins_anew && !is_idr {
                return refuse(HeaderPart::SliceHeader, "its sequence parameters are not those of the last IDR picture");
            }
            checked.size = Some(Size::new(sequence.set.width, sequence.set.height));
            let next = |last: u32| (last + 1) % (1 << sequence.set.frame_num_bits);
            checked.follows |= self.last_reference.is_some_and(|last| picture.frame_num == next(last));
            self.active = Some(sequence.clone());
            if picture.is_reference {
                self.last_reference = Some(picture.frame_num);
            }
        }
        for kept in access_unit.sequences {
            let id = kept.set.id as usize;
            self.sequences[id] = Some(kept);
        }
        for kept in access_unit.pictures {
            let id = kept.set.id as usize;
            self.pictures[id] = Some(kept);
        }
        Ok(checked)
    }
}

fn refused(part: HeaderPart, why: impl ToString) -> Undecodable {
    Undecodable::Refused { part, why: why.to_string() }
}

fn refuse<T>(part: HeaderPart, why: &str) -> Result<T, Undecodable> {
    Err(refused(part, why))
}
