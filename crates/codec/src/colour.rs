//! Converts decoded pictures to the colours of [`I420`]: BT.601, limited range.
//!
//! A sender says which colours its pictures have: in the bitstream (H.264 only), or beside it, which
//! the caller knows. Primaries and transfer characteristics are left as they are.

use ooblex_pipeline::I420;

/// Colours of a picture: the meaning of its luma and chroma levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ColourSpace {
    /// Range of the levels.
    pub range: ColourRange,
    /// Matrix that makes luma and chroma from red, green and blue.
    pub matrix: ColourMatrix,
}

/// Range of the levels of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ColourRange {
    /// Luma in 16..=235, chroma in 16..=240. It is assumed where a sender names none.
    #[default]
    Limited,
    /// All levels in 0..=255.
    Full,
}

/// Matrix that makes luma and chroma from red, green and blue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ColourMatrix {
    /// ITU-R BT.601. It is assumed where a sender names none, or an unknown one.
    #[default]
    Bt601,
    /// ITU-R BT.709.
    Bt709,
    /// ITU-R BT.2020 with non-constant luminance.
    Bt2020,
}

/// Binary digits after the point of the coefficients.
const PRECISION: u32 = 14;
const ONE: f64 = (1 << PRECISION) as f64;
const HALF: i32 = 1 << (PRECISION - 1);

impl ColourSpace {
    /// Returns the colours for code points of ITU-T H.273 (`MatrixCoefficients`,
    /// `VideoFullRangeFlag`), which H.264 and the header extension `color-space` use.
    pub fn from_code_points(matrix: u8, is_full_range: bool) -> Self {
        let matrix = match matrix {
            1 => ColourMatrix::Bt709,
            9 => ColourMatrix::Bt2020,
            _ => ColourMatrix::Bt601,
        };
        Self { range: if is_full_range { ColourRange::Full } else { ColourRange::Limited }, matrix }
    }

    /// Converts a picture with these colours to BT.601 with limited range.
    pub(crate) fn convert(self, picture: &mut I420) {
        match (self.matrix, self.range) {
            (ColourMatrix::Bt601, ColourRange::Limited) => {}
            (ColourMatrix::Bt601, ColourRange::Full) => limit_range(picture),
            (ColourMatrix::Bt709 | ColourMatrix::Bt2020, _) => Conversion::from(self).apply(picture),
        }
    }
}

impl ColourMatrix {
    /// Returns the weights of red and blue in luma.
    fn weights(self) -> (f64, f64) {
        match self {
            ColourMatrix::Bt601 => (0.299, 0.114),
            ColourMatrix::Bt709 => (0.2126, 0.0722),
            ColourMatrix::Bt2020 => (0.2627, 0.0593),
        }
    }
}

/// Converts full range to limited range with the same matrix.
fn limit_range(picture: &mut I420) {
    let [luma, u, v] = picture.planes_mut();
    // The sums fit into 16 bits, in which the compiler converts many levels at once.
    let limit = |plane: &mut [u8], scale: u16, offset: u16| {
        plane.iter_mut().for_each(|level| *level = ((u16::from(*level) * scale + offset + 127) / 255) as u8);
    };
    limit(luma, 219, 16 * 255);
    // Chroma: (level - 128) * 224 / 255 + 128.
    limit(u, 224, 128 * (255 - 224));
    limit(v, 224, 128 * (255 - 224));
}

/// Conversion from another matrix, as coefficients for levels, with [`PRECISION`].
struct Conversion {
    luma: Luma,
    /// New U from U and V, and new V from U and V.
    chroma: [[i32; 2]; 2],
}

/// Coefficients of luma, and its offset.
struct Luma {
    of_luma: i32,
    of_u: i32,
    of_v: i32,
    offset: i32,
}

impl From<ColourSpace> for Conversion {
    fn from(from: ColourSpace) -> Self {
        let ((kr, kb), (to_kr, to_kb)) = (from.matrix.weights(), ColourMatrix::Bt601.weights());
        // Normalised luma and chroma in BT.601 of a colour without luma in the other matrix.
        let converted = |pb: f64, pr: f64| {
            let (red, blue) = (2.0 * (1.0 - kr) * pr, 2.0 * (1.0 - kb) * pb);
            let green = -(kr * red + kb * blue) / (1.0 - kr - kb);
            let luma = to_kr * red + (1.0 - to_kr - to_kb) * green + to_kb * blue;
            [luma, (blue - luma) / (2.0 * (1.0 - to_kb)), (red - luma) / (2.0 * (1.0 - to_kr))]
        };
        let (luma_levels, chroma_levels, black) = match from.range {
            ColourRange::Limited => (219.0, 224.0, 16.0),
            ColourRange::Full => (255.0, 255.0, 0.0),
        };
        let fixed = |coefficient: f64| (coefficient * ONE).round() as i32;
        let [of_u, of_v] = [converted(1.0, 0.0), converted(0.0, 1.0)];
        let of_luma = 219.0 / luma_levels;
        Self {
            luma: Luma {
                of_luma: fixed(of_luma),
                of_u: fixed(of_u[0] * 219.0 / chroma_levels),
                of_v: fixed(of_v[0] * 219.0 / chroma_levels),
                offset: fixed(16.0 - black * of_luma) + HALF,
            },
            chroma: [1, 2].map(|row| [of_u, of_v].map(|of: [f64; 3]| fixed(of[row] * 224.0 / chroma_levels))),
        }
    }
}

impl Conversion {
    fn apply(&self, picture: &mut I420) {
        let (width, chroma_width) = (picture.width() as usize, picture.chroma_width() as usize);
        // What one row of chroma adds to the luma of its pixels.
        let mut shifts = vec![0; 2 * chroma_width];
        let [luma, u, v] = picture.planes_mut();
        let chroma_rows = u.chunks_exact_mut(chroma_width).zip(v.chunks_exact_mut(chroma_width));
        for (luma, (u, v)) in luma.chunks_mut(2 * width).zip(chroma_rows) {
            for ((pair, u), v) in shifts.chunks_exact_mut(2).zip(u).zip(v) {
                let (from_u, from_v) = (i32::from(*u) - 128, i32::from(*v) - 128);
                pair.fill(self.luma.of_u * from_u + self.luma.of_v * from_v + self.luma.offset);
                let [to_u, to_v] = self.chroma.map(|[of_u, of_v]| ((of_u * from_u + of_v * from_v + HALF) >> PRECISION) + 128);
                (*u, *v) = (to_level(to_u), to_level(to_v));
            }
            for row in luma.chunks_exact_mut(width) {
                for (level, shift) in row.iter_mut().zip(&shifts) {
                    *level = to_level((i32::from(*level) * self.luma.of_luma + shift) >> PRECISION);
                }
            }
        }
    }
}

fn to_level(value: i32) -> u8 {
    value.clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Colours between which all differ: red, green, blue, in 0..=1.
    const COLOURS: [[f64; 3]; 8] = [
        [0.0, 0.0, 0.0],
        [1.0, 1.0, 1.0],
        [0.06, 0.06, 0.06],
        [0.94, 0.94, 0.94],
        [0.8, 0.1, 0.1],
        [0.1, 0.8, 0.1],
        [0.1, 0.1, 0.8],
        [0.9, 0.7, 0.6],
    ];

    /// Returns the levels of a colour.
    fn levels(colour: [f64; 3], space: ColourSpace) -> [u8; 3] {
        let ((kr, kb), [red, green, blue]) = (space.matrix.weights(), colour);
        let luma = kr * red + (1.0 - kr - kb) * green + kb * blue;
        let (pb, pr) = ((blue - luma) / (2.0 * (1.0 - kb)), (red - luma) / (2.0 * (1.0 - kr)));
        match space.range {
            ColourRange::Limited => [16.0 + 219.0 * luma, 128.0 + 224.0 * pb, 128.0 + 224.0 * pr],
            ColourRange::Full => [255.0 * luma, 128.0 + 255.0 * pb, 128.0 + 255.0 * pr],
        }
        .map(|level| level.round().clamp(0.0, 255.0) as u8)
    }

    #[test]
    fn a_colour_becomes_the_same_colour_whatever_its_range_and_matrix() {
        for matrix in [ColourMatrix::Bt601, ColourMatrix::Bt709, ColourMatrix::Bt2020] {
            for range in [ColourRange::Limited, ColourRange::Full] {
                for colour in COLOURS {
                    let space = ColourSpace { range, matrix };
                    // The last column and row have a pixel of chroma of their own.
                    let mut picture = I420::grey(5, 3, 128);
                    picture.planes_mut().into_iter().zip(levels(colour, space)).for_each(|(plane, level)| plane.fill(level));
                    space.convert(&mut picture);
                    for (plane, expected) in picture.planes().into_iter().zip(levels(colour, ColourSpace::default())) {
                        assert!(plane.iter().all(|level| level.abs_diff(expected) <= 1), "{space:?} {colour:?}: {plane:?} for {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn limited_bt601_stays_as_it_is_and_full_range_keeps_its_ends() {
        let mut picture = I420::grey(256, 2, 16);
        picture.planes_mut().into_iter().flatten().enumerate().for_each(|(index, level)| *level = index as u8);
        let same = picture.clone();
        ColourSpace::default().convert(&mut picture);
        assert!(picture == same);
        limit_range(&mut picture);
        let [luma, u, _] = picture.planes();
        assert_eq!([luma[0], luma[15], luma[128], luma[239], luma[255]], [16, 29, 126, 221, 235]);
        assert_eq!([u[0], u[127]], [16, 127]);
        assert!(luma[..256].is_sorted());
    }

    #[test]
    fn unknown_code_points_are_bt601_of_their_range() {
        let space = |range, matrix| ColourSpace { range, matrix };
        for (matrix, is_full, expected) in [
            (1, true, space(ColourRange::Full, ColourMatrix::Bt709)),
            (9, false, space(ColourRange::Limited, ColourMatrix::Bt2020)),
            (6, true, space(ColourRange::Full, ColourMatrix::Bt601)),
            (2, false, ColourSpace::default()),
            (255, false, ColourSpace::default()),
        ] {
            assert_eq!(ColourSpace::from_code_points(matrix, is_full), expected);
        }
    }
}
