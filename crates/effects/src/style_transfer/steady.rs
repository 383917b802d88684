//! Temporal smoothing of paintings: where the source is still, each painting is blended with the
//! previous ones.

use fearless_simd::{Level, Simd, dispatch};
use fearless_simd_macros::simd;

/// Weight, of 256, of a new painting where the source is still.
const STILL: i32 = 44;

/// The smoothed painting of one track.
#[derive(Debug, Default)]
pub(super) struct Steady {
    /// Y, U and V in units of 1/64.
    planes: [Vec<i16>; 3],
    /// Weights of the styles in the last painting.
    style: Vec<f32>,
}

impl Steady {
    /// Replaces a new painting by its blend with the previous ones. `moved` is the motion of the
    /// source at each pixel, 0..=255; `style` is the weights of the styles. The first painting of
    /// another style or size is left
    /// unchanged.
    pub(super) fn blend(&mut self, planes: &mut [Vec<u8>; 3], moved: &[u8], style: &[f32]) {
        let is_same = self.style == style && self.planes[0].len() == planes[0].len();
        if !is_same {
            self.style = style.to_vec();
            for (steady, plane) in self.planes.iter_mut().zip(planes) {
                steady.clear();
                steady.extend(plane.iter().map(|value| i16::from(*value) << 6));
            }
            return;
        }
        for (steady, plane) in self.planes.iter_mut().zip(planes) {
            dispatch!(Level::new(), simd => follow(simd, steady, plane, moved));
        }
    }
}

#[simd]
fn follow<S: Simd>(_: S, steady: &mut [i16], plane: &mut [u8], moved: &[u8]) {
    for ((steady, value), moved) in steady.iter_mut().zip(plane).zip(moved) {
        let pace = STILL.max(i32::from(*moved) + 1);
        let away = (i32::from(*value) << 6) - i32::from(*steady);
        *steady += ((away * pace) >> 8) as i16;
        *value = ((*steady + 32) >> 6).clamp(0, 255) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMIC_INK: [f32; 2] = [1.0, 0.0];
    const YELLOW_INK: [f32; 2] = [0.0, 1.0];

    fn blended(steady: &mut Steady, value: u8, moved: u8, style: &[f32]) -> u8 {
        let mut planes = [const { Vec::new() }; 3].map(|_: Vec<u8>| vec![value; 4]);
        steady.blend(&mut planes, &[moved; 4], style);
        planes[2][3]
    }

    #[test]
    fn flicker_of_a_painting_is_reduced_where_its_source_is_still() {
        let mut steady = Steady::default();
        let shown: Vec<u8> = (0..40).map(|n| blended(&mut steady, if n % 2 == 0 { 100 } else { 140 }, 0, &COMIC_INK)).collect();
        assert!(shown[20..].windows(2).all(|pair| pair[0].abs_diff(pair[1]) <= 8), "{shown:?}");
        let settled = (0..60).map(|_| blended(&mut steady, 200, 0, &COMIC_INK)).last();
        assert!(settled >= Some(199), "{settled:?}");
    }

    #[test]
    fn where_the_source_moves_and_in_another_style_the_new_painting_is_taken_as_it_is() {
        let mut steady = Steady::default();
        assert_eq!(blended(&mut steady, 100, 0, &COMIC_INK), 100);
        assert_eq!(blended(&mut steady, 30, 255, &COMIC_INK), 30);
        assert_eq!(blended(&mut steady, 220, 0, &YELLOW_INK), 220);
    }
}
