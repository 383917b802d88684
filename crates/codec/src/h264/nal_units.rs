//! Splits an access unit into its NAL units (H.264 Annex B) as openh264 does, so that every unit
//! that openh264 would read is found.

// Values of `nal_unit_type` (H.264 table 7-1).
pub(super) const SLICE: u8 = 1;
pub(super) const DATA_PARTITION_A: u8 = 2;
pub(super) const DATA_PARTITION_C: u8 = 4;
pub(super) const IDR_SLICE: u8 = 5;
pub(super) const SUPPLEMENTAL_INFORMATION: u8 = 6;
pub(super) const SEQUENCE_PARAMETERS: u8 = 7;
pub(super) const PICTURE_PARAMETERS: u8 = 8;
pub(super) const DELIMITER: u8 = 9;
pub(super) const PREFIX: u8 = 14;
pub(super) const SUBSET_SEQUENCE_PARAMETERS: u8 = 15;
pub(super) const SLICE_EXTENSION: u8 = 20;
pub(super) const SLICE_EXTENSION_3D: u8 = 21;

/// Returns the NAL units, without the start codes before them and the zeros that may follow a unit.
/// Units that consist of zeros are left out.
pub(super) fn nal_units(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = after_start_code(data);
    std::iter::from_fn(move || {
        loop {
            let from = rest?;
            let next = after_start_code(from);
            let unit = next.map_or(from, |next| &from[..from.len() - next.len() - 3]);
            rest = next;
            if let Some(last) = unit.iter().rposition(|byte| *byte != 0) {
                return Some(&unit[..=last]);
            }
        }
    })
}

/// Returns the bytes that follow the first `00 00 01`. The search skips two of three bytes where
/// there are no zeros.
fn after_start_code(data: &[u8]) -> Option<&[u8]> {
    let mut at = 2;
    while let Some(byte) = data.get(at) {
        match *byte {
            2.. => at += 3,
            1 if data[at - 2] == 0 && data[at - 1] == 0 => return Some(&data[at + 1..]),
            1 => at += 3,
            0 => at += 1,
        }
    }
    None
}

/// Returns the type of a unit, which must not be empty.
pub(super) fn kind(unit: &[u8]) -> u8 {
    unit[0] & 0x1f
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn units_are_found_with_both_start_codes_and_without_their_zeros() {
        let data = [9, 9, 0, 0, 1, 0x67, 5, 0, 0, 0, 1, 0x68, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0x65, 1, 0, 0, 1, 0, 0, 0, 0, 1];
        let units: Vec<_> = nal_units(&data).collect();
        assert_eq!(units, [&[0x67, 5][..], &[0x68], &[0x65, 1]]);
        assert_eq!(nal_units(&[0, 0, 1]).count() + nal_units(&[0, 1]).count() + nal_units(&[]).count(), 0);
        assert_eq!(nal_units(&[0, 0, 1, 0x41]).collect::<Vec<_>>(), [&[0x41]]);
    }

    #[test]
    fn no_start_code_is_missed() {
        let mut random = StdRng::seed_from_u64(3);
        for _ in 0..20_000 {
            let data: Vec<u8> = (0..random.random_range(0..24)).map(|_| [0, 0, 0, 1, 2, 3, 0x65][random.random_range(0..7)]).collect();
            let plain = data.windows(3).position(|window| window == [0, 0, 1]).map(|at| &data[at + 3..]);
            assert_eq!(after_start_code(&data), plain, "{data:?}");
        }
    }
}
