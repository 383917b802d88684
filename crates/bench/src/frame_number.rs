//! Machine-readable frame numbers, drawn large enough to survive compression, blur and style
//! transfer.
//!
//! This module owns the strip of cells at the top of a picture, and knows nothing of clips or
//! clocks. The strip has two rows of eight cells: a black and a white reference, and fourteen bits.
//! Ten bits hold the number as a Gray code, in which consecutive numbers differ in one cell, so
//! that a blend of two consecutive pictures reads as one of them. Four bits are a CRC, which
//! detects every misreading of one or two cells. Doubtful cells make the number unreadable.
//! Inverted strips are readable.

use ooblex_pipeline::I420;

/// Upper bound of frame numbers (exclusive).
pub(super) const NUMBERS: u16 = 1 << NUMBER_BITS;

const NUMBER_BITS: u32 = 10;
const CHECK_BITS: u32 = 4;
/// CRC polynomial, x⁴ + x + 1.
const POLYNOMIAL: u16 = 0b1_0011;
const COLUMNS: u32 = 8;
const ROWS: u32 = 2;
/// Height of one row of cells, as a fraction of the picture's height.
const ROW_SHARE: f64 = 1.0 / 12.0;
const BLACK: u8 = 16;
const WHITE: u8 = 235;
/// Minimum difference between the white and the black reference, in luma levels.
const LEAST_CONTRAST: f64 = 24.0;
/// Minimum difference between the references of an inverted strip, in luma levels. An inverting
/// effect keeps the full contrast, while a painting effect can produce a small inverted contrast by
/// chance.
const LEAST_INVERTED: f64 = 100.0;
/// Distance from the midpoint between black and white within which a cell is unreadable, as a
/// fraction of the contrast.
const DOUBT: f64 = 0.05;

/// Returns the height of the strip in rows, an even number.
pub(super) fn strip_height(height: u32) -> u32 {
    ROWS * row_height(height)
}

/// Draws a number below [`NUMBERS`] over the top of a picture.
pub(super) fn draw(picture: &mut I420, number: u16) {
    let (width, height) = (picture.width(), picture.height());
    let (chroma_width, strip) = (picture.chroma_width() as usize, strip_height(height));
    let word = word_of(number);
    let [luma, u, v] = picture.planes_mut();
    for plane in [u, v] {
        plane[..chroma_width * (strip / 2) as usize].fill(128);
    }
    for index in 0..ROWS * COLUMNS {
        let is_white = match index {
            0 => false,
            1 => true,
            _ => word >> (NUMBER_BITS + CHECK_BITS + 1 - index) & 1 == 1,
        };
        let [left, top, right, bottom] = cell(width, height, index);
        for y in top..bottom {
            luma[(y * width + left) as usize..(y * width + right) as usize].fill(if is_white { WHITE } else { BLACK });
        }
    }
}

/// Reads the number on a picture; `None` if it is unreadable.
pub(super) fn read(picture: &I420) -> Option<u16> {
    let level = |index| level_of(picture, cell(picture.width(), picture.height(), index));
    let (black, white) = (level(0)?, level(1)?);
    if (-LEAST_INVERTED..LEAST_CONTRAST).contains(&(white - black)) {
        return None;
    }
    let mut word = 0;
    for index in 2..ROWS * COLUMNS {
        let share = (level(index)? - black) / (white - black);
        if (share - 0.5).abs() < DOUBT {
            return None;
        }
        word = word << 1 | u16::from(share > 0.5);
    }
    let number = from_gray(word >> CHECK_BITS);
    (word_of(number) == word).then_some(number)
}

/// Returns the Gray code of a number followed by its CRC.
fn word_of(number: u16) -> u16 {
    let gray = (number ^ number >> 1) & (NUMBERS - 1);
    let mut rest = gray << CHECK_BITS;
    for bit in (CHECK_BITS..NUMBER_BITS + CHECK_BITS).rev() {
        if rest >> bit & 1 == 1 {
            rest ^= POLYNOMIAL << (bit - CHECK_BITS);
        }
    }
    gray << CHECK_BITS | rest
}

fn from_gray(gray: u16) -> u16 {
    (0..NUMBER_BITS).fold(0, |number, shift| number ^ gray >> shift)
}

fn row_height(height: u32) -> u32 {
    (f64::from(height) * ROW_SHARE / 2.0).round() as u32 * 2
}

/// Returns the left, top, right and bottom of a cell.
fn cell(width: u32, height: u32, index: u32) -> [u32; 4] {
    let (column, row, tall) = (index % COLUMNS, index / COLUMNS, row_height(height));
    [width * column / COLUMNS, row * tall, width * (column + 1) / COLUMNS, (row + 1) * tall]
}

/// Returns the mean luma of a cell's centre; `None` if the picture is too small for the cell.
fn level_of(picture: &I420, [left, top, right, bottom]: [u32; 4]) -> Option<f64> {
    let inner = |from: u32, to: u32| (from + (to - from) * 3 / 10) as usize..(to - (to - from) * 3 / 10) as usize;
    let (columns, width) = (inner(left, right), picture.width() as usize);
    let [luma, ..] = picture.planes();
    let (mut sum, mut count) = (0_u64, 0_u64);
    for y in inner(top, bottom) {
        let row = luma.get(y * width + columns.start..y * width + columns.end)?;
        sum += row.iter().map(|luma| u64::from(*luma)).sum::<u64>();
        count += row.len() as u64;
    }
    (count > 0).then(|| sum as f64 / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture_of(width: u32, height: u32, number: u16) -> I420 {
        let mut picture = I420::grey(width, height, 90);
        draw(&mut picture, number);
        picture
    }

    #[test]
    fn every_number_is_read_as_itself() {
        for number in 0..NUMBERS {
            assert_eq!(read(&picture_of(160, 120, number)), Some(number));
        }
        for (width, height) in [(640, 480), (1280, 720), (360, 640), (161, 121)] {
            assert_eq!(read(&picture_of(width, height, 777)), Some(777));
        }
    }

    #[test]
    fn neighbours_differ_in_one_cell_beside_the_check() {
        for number in 1..NUMBERS {
            assert_eq!((word_of(number) ^ word_of(number - 1)).wrapping_shr(CHECK_BITS).count_ones(), 1);
        }
    }

    #[test]
    fn neither_one_nor_two_cells_are_misread_unnoticed() {
        let pairs = (0..14).flat_map(|a| (0..14).map(move |b| 1 << a | 1 << b));
        for wrong in pairs {
            for number in 0..NUMBERS {
                let misread = word_of(number) ^ wrong;
                assert_ne!(word_of(from_gray(misread >> CHECK_BITS)), misread, "{number} with {wrong:b}");
            }
        }
    }

    #[test]
    fn a_negative_is_read_as_well() {
        let mut picture = picture_of(640, 480, 321);
        let [luma, ..] = picture.planes_mut();
        luma.iter_mut().for_each(|luma| *luma = 255 - *luma);
        assert_eq!(read(&picture), Some(321));
    }

    #[test]
    fn a_picture_without_a_strip_has_no_number() {
        assert_eq!(read(&I420::grey(640, 480, 90)), None);
        assert_eq!(read(&I420::grey(2, 2, 90)), None);
    }

    #[test]
    fn a_cell_in_between_is_no_number() {
        let mut picture = picture_of(640, 480, 5);
        let [left, top, right, bottom] = cell(640, 480, 9);
        let [luma, ..] = picture.planes_mut();
        for y in top..bottom {
            luma[(y * 640 + left) as usize..(y * 640 + right) as usize].fill(125);
        }
        assert_eq!(read(&picture), None);
    }
}
