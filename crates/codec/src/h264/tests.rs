//! Tests with access units that have every kind of value that must be refused. They are made bit by
//! bit.

use super::check::{Check, Checked};
use super::parameter_sets::Sequence;
use super::*;
use crate::{ColourMatrix, ColourRange, H264Level, HeaderPart};

/// Bit writer for the fields of a NAL unit.
#[derive(Clone, Default)]
struct Writer(Vec<bool>);

impl Writer {
    fn fixed(mut self, value: u32, count: u32) -> Self {
        self.0.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
        self
    }

    fn flag(self, value: bool) -> Self {
        self.fixed(value.into(), 1)
    }

    fn unsigned(self, value: u32) -> Self {
        let code = u64::from(value) + 1;
        let count = code.ilog2();
        let prefix = (0..count).fold(self, |writer, _| writer.fixed(0, 1)).fixed(1, 1);
        prefix.fixed((code - (1 << count)) as u32, count)
    }

    fn signed(self, value: i32) -> Self {
        self.unsigned(if value > 0 { value as u32 * 2 - 1 } else { value.unsigned_abs() * 2 })
    }

    /// Returns the NAL unit, with its header, stop bit and emulation prevention.
    fn unit(mut self, header: u8) -> Vec<u8> {
        self.0.push(true);
        let bytes = self.0.chunks(8).map(|bits| bits.iter().enumerate().fold(0, |byte, (at, bit)| byte | u8::from(*bit) << (7 - at)));
        let (mut unit, mut zeros) = (vec![header], 0);
        for byte in bytes {
            if zeros >= 2 && byte <= 3 {
                unit.push(3);
                zeros = 0;
            }
            zeros = if byte == 0 { zeros + 1 } else { 0 };
            unit.push(byte);
        }
        unit
    }
}

/// Fields of a sequence parameter set. The default is a valid set for 640x480.
#[derive(Clone)]
struct Fields {
    profile: u32,
    constraints: u32,
    level: u32,
    id: u32,
    chroma: u32,
    depths: [u32; 2],
    lossless: bool,
    frame_num: u32,
    order: u32,
    low_bits: u32,
    references: u32,
    columns: u32,
    rows: u32,
    progressive: bool,
    crop: Option<[u32; 4]>,
    usability: Option<Writer>,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            profile: 66,
            constraints: 0xc0,
            level: 31,
            id: 0,
            chroma: 1,
            depths: [0, 0],
            lossless: false,
            frame_num: 0,
            order: 0,
            low_bits: 0,
            references: 1,
            columns: 40,
            rows: 30,
            progressive: true,
            crop: None,
            usability: None,
        }
    }
}

impl Fields {
    fn unit(&self) -> Vec<u8> {
        let mut writer = Writer::default().fixed(self.profile, 8).fixed(self.constraints, 8).fixed(self.level, 8).unsigned(self.id);
        if self.profile == 100 {
            writer = writer.unsigned(self.chroma);
            if self.chroma == 3 {
                writer = writer.flag(false);
            }
            writer = writer.unsigned(self.depths[0]).unsigned(self.depths[1]).flag(self.lossless).flag(false);
        }
        writer = writer.unsigned(self.frame_num).unsigned(self.order);
        if self.order == 0 {
            writer = writer.unsigned(self.low_bits);
        }
        writer = writer.unsigned(self.references).flag(false).unsigned(self.columns.wrapping_sub(1)).unsigned(self.rows.wrapping_sub(1));
        writer = writer.flag(self.progressive);
        if !self.progressive {
            writer = writer.flag(false);
        }
        writer = writer.flag(true).flag(self.crop.is_some());
        writer = self.crop.into_iter().flatten().fold(writer, Writer::unsigned).flag(self.usability.is_some());
        if let Some(usability) = &self.usability {
            writer.0.extend(&usability.0);
        }
        writer.unit(0x67)
    }
}

/// Makes a picture parameter set with everything at its simplest, except the fields in `change`.
fn picture_set(id: u32, sequence: u32, change: &[(&str, i32)]) -> Vec<u8> {
    let of = |name: &str, usual: i32| change.iter().find(|(changed, _)| *changed == name).map_or(usual, |(_, value)| *value);
    Writer::default()
        .unsigned(id)
        .unsigned(sequence)
        .flag(false)
        .flag(false)
        .unsigned(of("slice groups", 0) as u32)
        .unsigned(of("references 0", 0) as u32)
        .unsigned(of("references 1", 0) as u32)
        .flag(false)
        .fixed(of("bipred", 0) as u32, 2)
        .signed(of("qp", 0))
        .signed(of("qs", 0))
        .signed(of("chroma", 0))
        .flag(true)
        .flag(false)
        .flag(of("redundant", 0) == 1)
        .unit(0x68)
}

/// Makes the beginning of a slice of a stream with [`Fields::default`]. `kind` 0 is P, 1 is B, 2 is
/// I.
fn slice(header: u8, first: u32, kind: u32, picture: u32, frame_num: u32) -> Vec<u8> {
    let mut writer = Writer::default().unsigned(first).unsigned(kind).unsigned(picture).fixed(frame_num, 4);
    if header & 0x1f == 5 {
        writer = writer.unsigned(0);
    }
    writer.fixed(frame_num * 2, 4).flag(false).fixed(0x5555, 32).fixed(0x5555, 32).unit(header)
}

fn idr(first: u32) -> Vec<u8> {
    slice(0x65, first, 7, 0, 0)
}

fn inter(frame_num: u32) -> Vec<u8> {
    slice(0x41, 0, 5, 0, frame_num)
}

fn access_unit(units: &[Vec<u8>]) -> Vec<u8> {
    units.iter().flat_map(|unit| [&[0, 0, 0, 1], &unit[..]].concat()).collect()
}

fn keyframe(fields: &Fields) -> Vec<u8> {
    access_unit(&[fields.unit(), picture_set(0, fields.id, &[]), idr(0)])
}

fn check_one(data: &[u8], limits: Limits) -> Result<Checked, Undecodable> {
    Check::new(limits).check(data)
}

/// Returns a check that has seen a keyframe of [`Fields::default`].
fn running() -> Check {
    let mut check = Check::new(Limits::default());
    assert_eq!(
        check.check(&keyframe(&Fields::default())),
        Ok(Checked { size: Some(Size::new(640, 480)), is_idr: true, begins_anew: true, follows: true })
    );
    check
}

fn assert_refused(result: Result<Checked, Undecodable>, part: HeaderPart, words: &str) {
    match result {
        Err(Undecodable::Refused { part: refused, why }) => {
            assert_eq!(refused, part, "{why}");
            assert!(why.contains(words), "{why:?} says nothing of {words:?}");
        }
        other => panic!("{words}: {other:?}"),
    }
}

#[test]
fn sequence_parameters_out_of_range_are_refused() {
    let usual = Fields::default;
    let high = || Fields { profile: 100, constraints: 0, ..usual() };
    for (fields, words) in [
        (Fields { profile: 88, ..usual() }, "profile"),
        (Fields { profile: 83, ..usual() }, "profile"),
        (Fields { profile: 110, ..usual() }, "profile"),
        (Fields { profile: 244, ..usual() }, "profile"),
        (Fields { level: 60, ..usual() }, "level"),
        (Fields { level: 0, ..usual() }, "level"),
        (Fields { id: 32, ..usual() }, "seq_parameter_set_id"),
        (Fields { chroma: 0, ..high() }, "4:2:0"),
        (Fields { chroma: 2, ..high() }, "4:2:0"),
        (Fields { chroma: 3, ..high() }, "4:2:0"),
        (Fields { depths: [2, 0], ..high() }, "bit_depth_luma"),
        (Fields { depths: [0, 1], ..high() }, "bit_depth_chroma"),
        (Fields { lossless: true, ..high() }, "lossless"),
        (Fields { frame_num: 13, ..usual() }, "log2_max_frame_num"),
        (Fields { order: 3, ..usual() }, "pic_order_cnt_type"),
        (Fields { low_bits: 13, ..usual() }, "log2_max_pic_order_cnt_lsb"),
        (Fields { references: 17, ..usual() }, "max_num_ref_frames"),
        (Fields { references: 70_000, ..usual() }, "max_num_ref_frames"),
        (Fields { references: u32::MAX - 1, ..usual() }, "max_num_ref_frames"),
        (Fields { columns: 65_537, ..usual() }, "pic_width_in_mbs"),
        (Fields { rows: u32::MAX, ..usual() }, "pic_height_in_map_units"),
        (Fields { progressive: false, ..usual() }, "interlaced"),
        (Fields { crop: Some([160, 160, 0, 0]), ..usual() }, "cropping"),
        (Fields { crop: Some([0, 0, 0, 240]), ..usual() }, "cropping"),
        (Fields { crop: Some([65_535, 65_535, 0, 0]), ..usual() }, "cropping"),
        (Fields { crop: Some([1 << 31, 1 << 31, 0, 0]), ..usual() }, "frame_crop_left_offset"),
        (Fields { crop: Some([0, 0, u32::MAX - 8, 8]), ..usual() }, "frame_crop_top_offset"),
    ] {
        assert_refused(check_one(&keyframe(&fields), Limits::default()), HeaderPart::SequenceParameters, words);
    }
    let order_1 = Writer::default().fixed(0x42c01f, 24).unsigned(0).unsigned(0).unsigned(1).flag(true).signed(0).signed(0).unsigned(256);
    assert_refused(check_one(&access_unit(&[order_1.unit(0x67)]), Limits::default()), HeaderPart::SequenceParameters, "cycle");
}

#[test]
fn pictures_beyond_the_limit_are_refused_by_size() {
    let limits = Limits { pixels: 2_100_000, ..Limits::default() };
    let full_hd = Fields { level: 40, columns: 120, rows: 68, crop: Some([0, 0, 0, 4]), ..Fields::default() };
    assert_eq!(check_one(&keyframe(&full_hd), limits).unwrap().size, Some(Size::new(1920, 1080)));
    let exactly = Limits { pixels: 1920 * 1080, ..limits };
    assert_eq!(
        check_one(&keyframe(&full_hd), exactly).unwrap().size,
        Some(Size::new(1920, 1080)),
        "what rounds up to macroblocks does not count"
    );
    for (fields, size) in [
        (Fields { columns: 120, rows: 69, ..full_hd.clone() }, (1920, 1096)),
        (Fields { columns: 240, rows: 135, crop: None, ..full_hd.clone() }, (3840, 2160)),
        (Fields { columns: 257, rows: 1, crop: None, ..full_hd.clone() }, (4112, 16)),
        (Fields { columns: 65_536, rows: 65_536, crop: None, ..full_hd.clone() }, (1 << 20, 1 << 20)),
        // Only a small part of a large coded picture is visible.
        (Fields { columns: 240, rows: 135, crop: Some([0, 1_900, 0, 1_060]), ..full_hd.clone() }, (3840, 2160)),
    ] {
        let (width, height) = size;
        assert_eq!(check_one(&keyframe(&fields), limits), Err(Undecodable::Size { width, height }));
    }
}

#[test]
fn references_are_bounded_by_what_the_level_lets_a_decoder_keep() {
    let at = |level, constraints, columns, rows, references| {
        let fields = Fields { level, constraints, columns, rows, references, ..Fields::default() };
        check_one(&keyframe(&fields), Limits::default())
    };
    for (level, constraints, columns, rows, most) in [
        (31, 0xc0, 80, 45, 5),
        (40, 0xc0, 120, 68, 4),
        (52, 0xc0, 80, 45, 16),
        (10, 0xc0, 11, 9, 4),
        (11, 0xd0, 11, 9, 4),
        (11, 0xc0, 11, 9, 9),
    ] {
        assert!(at(level, constraints, columns, rows, most).is_ok(), "{most} at level {level}");
        assert_refused(at(level, constraints, columns, rows, most + 1), HeaderPart::SequenceParameters, "max_num_ref_frames");
    }
    assert!(at(10, 0xc0, 80, 45, 4).is_ok(), "some hardware names a level that is too low");
    assert_refused(at(10, 0xc0, 80, 45, 5), HeaderPart::SequenceParameters, "max_num_ref_frames");
}

#[test]
fn level_above_the_operators_is_refused() {
    let limits = Limits { h264_level: "3.1".parse::<H264Level>().unwrap(), ..Limits::default() };
    assert!(check_one(&keyframe(&Fields::default()), limits).is_ok());
    let higher = keyframe(&Fields { level: 32, ..Fields::default() });
    assert_refused(check_one(&higher, limits), HeaderPart::SequenceParameters, "limits.h264_level");
}

/// Writes the usability fields that x264 writes with a constant bitrate.
fn usability(restriction: [u32; 6]) -> Writer {
    let decoder = |writer: Writer| writer.unsigned(0).fixed(0x20, 8).unsigned(300_000).unsigned(400_000).flag(true).fixed(0x5_b5b5, 20);
    let head = Writer::default().flag(true).fixed(255, 8).fixed(0x0001_0001, 32).flag(true).flag(false).flag(true).fixed(0xb, 4).flag(true);
    let head = head.fixed(0x01_0101, 24).flag(true).unsigned(0).unsigned(5).flag(true).fixed(1, 32).fixed(60, 32).flag(true).flag(true);
    let head = decoder(decoder(head).flag(true)).flag(false).flag(true).flag(true).flag(true);
    restriction.into_iter().fold(head, Writer::unsigned)
}

#[test]
fn usability_information_is_read_to_its_end() {
    let with = |restriction| Fields { usability: Some(usability(restriction)), ..Fields::default() };
    let sound = with([0, 0, 11, 11, 2, 4]);
    assert!(check_one(&keyframe(&sound), Limits::default()).is_ok());
    for (restriction, words) in [
        ([17, 0, 11, 11, 2, 4], "max_bytes_per_pic_denom"),
        ([0, 0, 17, 11, 2, 4], "horizontal"),
        ([0, 0, 11, 11, 17, 17], "max_num_reorder_frames"),
        ([0, 0, 11, 11, 2, 17], "max_dec_frame_buffering"),
        ([0, 0, 11, 11, 3, 2], "less than"),
    ] {
        assert_refused(check_one(&keyframe(&with(restriction)), Limits::default()), HeaderPart::SequenceParameters, words);
    }
    let unit = sound.unit();
    for length in 1..unit.len() {
        let cut = check_one(&access_unit(&[unit[..length].to_vec()]), Limits::default());
        assert!(matches!(cut, Err(Undecodable::Refused { part: HeaderPart::SequenceParameters, .. })), "{length} bytes: {cut:?}");
    }
}

#[test]
fn colours_are_those_of_the_last_idr_picture() {
    let full = Some(ColourSpace { range: ColourRange::Full, matrix: ColourMatrix::Bt709 });
    let named = Fields { usability: Some(usability([0, 0, 11, 11, 2, 4])), ..Fields::default() };
    let mut check = Check::new(Limits::default());
    assert_eq!(check.colours(), None);
    for (fields, expected) in [(named, full), (Fields::default(), None)] {
        assert!(check.check(&keyframe(&fields)).is_ok());
        assert_eq!(check.colours(), expected);
    }
    // Chromium 156 writes the first one for a canvas, and the second one for a camera.
    let head = [0x67, 0x42, 0xc0, 0x1f, 0x8c, 0x8d, 0x40, 0x50, 0x1e];
    for (rest, expected) in [(&[0xd3, 0x70, 0x10, 0xd0, 0x10, 0x78, 0x44, 0x23, 0x50][..], full), (&[0xd0, 0x0f, 0x08, 0x84, 0x6a], None)] {
        let sequence = Sequence::read(&[&head, rest].concat(), &Limits::default()).unwrap();
        assert_eq!((sequence.width, sequence.height, sequence.colours), (640, 480, expected));
    }
}

#[test]
fn encoder_names_the_colours_of_its_pictures() {
    let mut encoder = Encoder::new(64, 48, 300_000, 30.0, Speed::Balanced).unwrap();
    let task = Task { elapsed: 0, duration: 3000, frame_rate: 30.0, bitrate_bps: 300_000, force_keyframe: true };
    let keyframe = encoder.encode(&I420::grey(64, 48, 90), &task).unwrap().unwrap().data;
    let mut check = Check::new(Limits::default());
    assert!(check.check(&keyframe).is_ok());
    assert_eq!(check.colours(), Some(ColourSpace::default()));
}

#[test]
fn scaling_lists_are_read_to_their_end() {
    let lists = |writer: Writer, deltas: i32| {
        let of = |writer: Writer, count| (0..count).fold(writer.flag(true), |writer, _| writer.signed(deltas));
        let writer = (0..6).fold(writer, |writer, _| of(writer, 16));
        (0..2).fold(writer, |writer, _| of(writer, 64))
    };
    let head = || Writer::default().fixed(0x64001f, 24).unsigned(0).unsigned(1).unsigned(0).unsigned(0).flag(false).flag(true);
    let tail = |writer: Writer| {
        writer
            .unsigned(0)
            .unsigned(2)
            .unsigned(1)
            .flag(false)
            .unsigned(39)
            .unsigned(29)
            .flag(true)
            .flag(true)
            .flag(false)
            .flag(false)
            .unit(0x67)
    };
    assert!(check_one(&access_unit(&[tail(lists(head(), 1))]), Limits::default()).is_ok());
    assert_refused(check_one(&access_unit(&[tail(lists(head(), 128))]), Limits::default()), HeaderPart::SequenceParameters, "delta_scale");
}

#[test]
fn picture_parameters_out_of_range_are_refused() {
    let with = |id, sequence, change: &[(&str, i32)]| {
        check_one(&access_unit(&[Fields::default().unit(), picture_set(id, sequence, change), idr(0)]), Limits::default())
    };
    for (field, value, words) in [
        ("slice groups", 1, "slice groups"),
        ("slice groups", 60_000, "num_slice_groups"),
        ("references 0", 16, "l0"),
        ("references 1", 70_000, "l1"),
        ("bipred", 3, "bipred"),
        ("qp", 26, "pic_init_qp"),
        ("qp", -27, "pic_init_qp"),
        ("qs", 1_000, "pic_init_qs"),
        ("chroma", 13, "chroma_qp_index_offset"),
    ] {
        assert_refused(with(0, 0, &[(field, value)]), HeaderPart::PictureParameters, words);
    }
    assert_refused(with(256, 0, &[]), HeaderPart::PictureParameters, "pic_parameter_set_id");
    assert_refused(with(0, 32, &[]), HeaderPart::PictureParameters, "seq_parameter_set_id");
    assert_refused(with(0, 1, &[]), HeaderPart::SliceHeader, "parameter sets have not come");
}

#[test]
fn units_that_are_not_supported_are_refused() {
    for kind in [2, 3, 4, 14, 15, 20, 21] {
        let data = access_unit(&[vec![0x60 | kind, 0x88, 0x84, 0x21, 0xa0], idr(0)]);
        assert_refused(running().check(&data), HeaderPart::NalUnit, "not supported");
    }
    for kind in [6, 9, 10, 11, 12, 13, 19, 24] {
        let data = access_unit(&[vec![0x60 | kind, 0x88, 0x84, 0x21, 0xa0], inter(1)]);
        assert!(running().check(&data).is_ok(), "type {kind}");
    }
    assert_refused(running().check(&access_unit(&[vec![0xe5, 0x88, 0x84]])), HeaderPart::NalUnit, "header");
    // Some decoders read a unit's type from what follows the zeros.
    let hidden = [vec![0, 0, 3], Fields { references: 17, ..Fields::default() }.unit()].concat();
    assert_refused(running().check(&access_unit(&[hidden])), HeaderPart::NalUnit, "header");
}

#[test]
fn forbidden_sequences_in_parameter_sets_are_refused() {
    for sequence in [&[0, 0, 3, 9][..], &[0, 0, 2], &[0, 0, 0, 7]] {
        let unit = [&Fields::default().unit()[..4], sequence, &[0x80]].concat();
        assert_refused(check_one(&access_unit(&[unit]), Limits::default()), HeaderPart::SequenceParameters, "sequence that must not occur");
    }
    let long = [Fields::default().unit(), vec![0x55; 3_000]].concat();
    assert_refused(check_one(&access_unit(&[long]), Limits::default()), HeaderPart::SequenceParameters, "longer");
}

#[test]
fn sequence_parameters_change_with_an_idr_picture_only() {
    let other = Fields { columns: 20, rows: 15, ..Fields::default() };
    let second = Fields { id: 1, ..other.clone() };
    let mut check = running();
    assert_refused(check.check(&access_unit(&[other.unit(), inter(1)])), HeaderPart::SliceHeader, "last IDR picture");
    assert!(check.check(&access_unit(&[inter(1)])).is_ok(), "what was refused has changed nothing");
    let picture = picture_set(0, 1, &[]);
    assert_refused(check.check(&access_unit(&[second.unit(), picture.clone(), inter(2)])), HeaderPart::SliceHeader, "last IDR picture");
    let inactive = check.check(&access_unit(&[second.unit(), inter(2)]));
    assert_eq!(
        inactive,
        Ok(Checked { size: Some(Size::new(640, 480)), is_idr: false, begins_anew: false, follows: true }),
        "one that is not used may come"
    );
    assert_eq!(check.check(&keyframe(&Fields::default())).map(|checked| checked.begins_anew), Ok(false), "the same once more");
    let changed = check.check(&access_unit(&[second.unit(), picture, idr(0)]));
    assert_eq!(changed, Ok(Checked { size: Some(Size::new(320, 240)), is_idr: true, begins_anew: true, follows: true }));
    // Parameter sets alone may come early, but then the next picture must be an IDR picture.
    assert_eq!(check.check(&access_unit(&[Fields { id: 1, ..Fields::default() }.unit()])).unwrap().size, None);
    assert_refused(check.check(&access_unit(&[inter(1)])), HeaderPart::SliceHeader, "last IDR picture");
    assert_eq!(
        check.check(&access_unit(&[idr(0)])).map(|checked| (checked.size, checked.begins_anew)),
        Ok((Some(Size::new(640, 480)), true))
    );
}

#[test]
fn slices_that_do_not_belong_to_the_picture_are_refused() {
    let refuse = |units: &[Vec<u8>], words| assert_refused(running().check(&access_unit(units)), HeaderPart::SliceHeader, words);
    assert!(running().check(&access_unit(&[idr(0), idr(40), idr(1_199)])).is_ok());
    refuse(&[idr(1_200)], "first_mb_in_slice");
    refuse(&[idr(70_000)], "first_mb_in_slice");
    refuse(&[slice(0x41, 0, 10, 0, 1)], "slice_type");
    refuse(&[slice(0x41, 0, 3, 0, 1)], "SP or SI");
    refuse(&[slice(0x41, 0, 6, 0, 1)], "slices of its type");
    refuse(&[slice(0x65, 0, 5, 0, 0)], "slices of its type");
    refuse(&[slice(0x65, 0, 7, 0, 1)], "frame_num");
    refuse(&[slice(0x05, 0, 7, 0, 0)], "marked as a reference");
    refuse(&[slice(0x41, 0, 5, 7, 1)], "parameter sets have not come");
    refuse(&[slice(0x41, 0, 5, 256, 1)], "pic_parameter_set_id");
    refuse(&[idr(40), idr(0)], "does not follow");
    refuse(&[idr(0), idr(0)], "does not follow");
    refuse(&[inter(1), slice(0x41, 40, 5, 0, 2)], "does not follow");
    refuse(&[idr(0), slice(0x41, 40, 5, 0, 0)], "does not follow");
    refuse(&[inter(1), slice(0x01, 40, 5, 0, 1)], "does not follow");
    refuse(&[idr(0), vec![0x06, 5, 1, 0x80], idr(40)], "does not follow");
    refuse(&[vec![0x65]], "empty");
    refuse(&[vec![0x65, 0, 0, 0, 0]], "empty");
    refuse(&[vec![0x65, 0x88]], "ends before");
    refuse(&[[vec![0x65], vec![0; 70]].concat()], "empty");
    let after = access_unit(&[idr(0), Fields::default().unit()]);
    assert_refused(running().check(&after), HeaderPart::NalUnit, "after the slices");
    let references =
        |header: u32| Writer::default().unsigned(0).unsigned(5).unsigned(0).fixed(1, 4).fixed(2, 4).flag(true).unsigned(header);
    refuse(&[references(16).fixed(0x5555, 32).unit(0x41)], "num_ref_idx_l0_active");
    assert!(running().check(&access_unit(&[references(15).fixed(0x5555, 32).unit(0x41)])).is_ok());
    let redundant = picture_set(0, 0, &[("redundant", 1)]);
    let slice = Writer::default().unsigned(0).unsigned(5).unsigned(0).fixed(1, 4).fixed(2, 4).unsigned(1).fixed(0x5555, 32).unit(0x41);
    refuse(&[redundant, slice], "redundant");
}

#[test]
fn access_units_without_end_are_refused() {
    let many = vec![vec![0x0c, 0xff, 0x80]; 641];
    assert_refused(running().check(&access_unit(&many)), HeaderPart::NalUnit, "too many");
    let sets: Vec<_> = (0..65).map(|id| picture_set(id, 0, &[])).collect();
    assert_refused(running().check(&access_unit(&sets)), HeaderPart::NalUnit, "too many parameter sets");
    let long = [access_unit(&[inter(1)]), vec![0x55; 2 << 20]].concat();
    assert_refused(running().check(&long), HeaderPart::NalUnit, "longer than 2 MiB");
}

#[test]
fn parameter_sets_that_are_kept_are_given_to_a_new_decoder() {
    let mut check = running();
    assert!(check.check(&access_unit(&[Fields { id: 3, ..Fields::default() }.unit(), picture_set(9, 3, &[]), inter(1)])).is_ok());
    let mut other = Check::new(Limits::default());
    assert!(other.check(&check.parameter_sets().flatten().collect::<Vec<_>>()).is_ok());
    assert!(other.check(&access_unit(&[idr(0)])).is_ok() && other.check(&access_unit(&[slice(0x65, 0, 7, 9, 0)])).is_ok());
}

#[test]
fn encoder_output_that_makes_no_sense_is_an_error() {
    let mut lengths = [3, 2];
    let mut bytes = [1, 2, 3, 4, 5, 6];
    let layer = |count, lengths: *mut c_int, bytes: *mut u8| sys::SLayerBSInfo {
        iNalCount: count,
        pNalLengthInByte: lengths,
        pBsBuf: bytes,
        ..Default::default()
    };
    // SAFETY: the pointers are null, or lead to as much as the counts say.
    unsafe {
        assert_eq!(layer_bytes(&layer(0, null_mut(), null_mut())).unwrap(), [0_u8; 0]);
        assert_eq!(layer_bytes(&layer(2, lengths.as_mut_ptr(), bytes.as_mut_ptr())).unwrap(), [1, 2, 3, 4, 5]);
        assert!(layer_bytes(&layer(1, null_mut(), bytes.as_mut_ptr())).is_err());
        assert!(layer_bytes(&layer(1, lengths.as_mut_ptr(), null_mut())).is_err());
        assert!(layer_bytes(&layer(-1, lengths.as_mut_ptr(), bytes.as_mut_ptr())).is_err());
        lengths[1] = -3;
        assert!(layer_bytes(&layer(2, lengths.as_mut_ptr(), bytes.as_mut_ptr())).is_err());
        let info = sys::SFrameBSInfo { iLayerNum: 1_000, ..Default::default() };
        assert!(copy_output(&info).is_err());
    }
}

/// A stream of a profile, and its pictures.
macro_rules! profile {
    ($name:literal) => {
        ($name, &include_bytes!(concat!("profiles/", $name, ".h264"))[..], &include_bytes!(concat!("profiles/", $name, ".y4m"))[..])
    };
}

#[test]
fn pictures_of_the_profiles_that_are_negotiated_are_decoded_exactly() {
    const DELIMITER: [u8; 5] = [0, 0, 0, 1, 9];
    let constrained = |stream: &[u8], constraints: u8| {
        // The profile and its constraints follow the header of the sequence parameter set.
        let mut stream = stream.to_vec();
        let at = stream.windows(5).position(|window| window == [0, 0, 0, 1, 0x67]).unwrap() + 6;
        stream[at] |= constraints;
        stream
    };
    let (baseline, main, high) = (profile!("baseline"), profile!("main"), profile!("high"));
    for ((name, stream, pictures), constraints) in [(baseline, 0), (baseline, 0x40), (main, 0), (high, 0), (high, 0x0c)] {
        let stream = constrained(stream, constraints);
        let mut expected = crate::container::y4m::Y4m::new(pictures).unwrap();
        let mut decoder = crate::Decoder::new(ooblex_pipeline::VideoCodec::H264, Limits::default()).unwrap();
        let starts: Vec<_> = (0..stream.len()).filter(|at| stream[*at..].starts_with(&DELIMITER)).chain([stream.len()]).collect();
        assert_eq!(starts.len(), 5);
        for unit in starts.windows(2) {
            let decoded = decoder.decode(&stream[unit[0]..unit[1]]).unwrap().unwrap();
            let expected = expected.next_picture().unwrap().unwrap();
            assert!(decoded.planes() == expected.planes(), "{name} with constraints {constraints:02x}");
        }
    }
}
