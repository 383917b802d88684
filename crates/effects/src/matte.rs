//! Matting: the opacity of the person in each pixel of a frame, and blending with a backdrop. A
//! small mask is made steady over time and aligned with the picture's edges.
//!
//! **In time.** A small change of a probability in a still area is flicker of the model, and is
//! followed slowly; a large change, or one in a moving area, is followed at once. So there is no
//! lag, and the area that the person leaves is covered in the next frame.
//!
//! **In space.** The steady mask is stretched along the frame's edges ([`Guided`]), so that hair
//! and shoulders end at their edge in the picture, not somewhere within a pixel of the mask, which
//! covers five of the frame's.
//!
//! **The ramp.** The probability `p` becomes the opacity `clamp((p - 0.3) / width)`; the width (0.3
//! to 0.7) is the softness of the edge.

use fearless_simd::{Level, Simd, dispatch};
use fearless_simd_macros::simd;
use ooblex_pipeline::{Analysis, EffectName, I420, Mask};

use crate::effect::ComposeError;
use crate::guided::Guided;
use crate::pixels::{Shrinker, rows_mut};
use crate::stillness::Stillness;

/// Probability, of 255, up to which a pixel is entirely background.
const LEAST_PROBABILITY: i16 = 76;
/// Window of the guided filter, in pixels of the mask to each side.
const WINDOW: usize = 2;
/// Neighbourhood in which motion is detected, in pixels of the mask to each side.
const NEIGHBOURHOOD: usize = 2;

/// A picture to put behind the person.
pub(crate) trait Backdrop {
    /// Writes row `y` of plane `index` (0 luma, 1 and 2 chroma).
    fn row(&self, index: usize, y: usize, target: &mut [u8]);
}

/// The matte of one track.
#[derive(Default)]
pub(crate) struct Matte {
    shrinker: Shrinker,
    stillness: Stillness,
    size: [u32; 2],
    /// Probabilities in units of 1/128, smoothed over time.
    steady: Vec<i16>,
    probability: Vec<u8>,
    guided: Guided,
    rows: Rows,
}

/// Buffers for the rows being processed.
#[derive(Default)]
struct Rows {
    /// Opacity of two rows of luma, and of the row of chroma that belongs to them.
    opacity: [Vec<u8>; 3],
    behind: Vec<u8>,
}

impl Matte {
    /// Updates the matte with the mask of the next frame, `source`.
    pub(crate) fn update(&mut self, source: &I420, mask: &Mask) {
        let size = [mask.width, mask.height];
        let luma = self.shrinker.luma(source, size[0], size[1]);
        let moved = self.stillness.update(luma, size, NEIGHBOURHOOD);
        if self.size == size {
            dispatch!(Level::new(), simd => follow_all(simd, &mut self.steady, &mask.probability, moved));
        } else {
            self.size = size;
            self.steady = mask.probability.iter().map(|p| i16::from(*p) << 7).collect();
        }
        self.probability.clear();
        self.probability.extend(self.steady.iter().map(|p| ((p + 64) >> 7).clamp(0, 255) as u8));
        self.guided.smooth(luma, &self.probability, size, WINDOW, [source.width(), source.height()]);
    }

    /// Puts `behind` behind the person. `picture` is the frame of the last [`Matte::update`];
    /// `softness` is 0..=1.
    pub(crate) fn put_behind(&mut self, picture: &mut I420, behind: &impl Backdrop, softness: f32) {
        let ramp = Ramp::new(softness);
        let Self { guided, rows: Rows { opacity: [even, odd, chroma], behind: scratch }, .. } = self;
        let (width, half) = (picture.width() as usize, picture.chroma_width() as usize);
        even.resize(width, 0);
        odd.resize(width, 0);
        chroma.resize(half, 0);
        let [mut luma, mut u, mut v] = rows_mut(picture);
        for y in 0.. {
            let Some(upper) = luma.next() else { break };
            guided.row(2 * y, upper, even);
            ramp.apply(even);
            blend(upper, behind, even, scratch, (0, 2 * y));
            match luma.next() {
                Some(lower) => {
                    guided.row(2 * y + 1, lower, odd);
                    ramp.apply(odd);
                    blend(lower, behind, odd, scratch, (0, 2 * y + 1));
                }
                None => odd.copy_from_slice(even),
            }
            dispatch!(Level::new(), simd => halve(simd, even, odd, chroma));
            for (index, plane) in [(1, &mut u), (2, &mut v)] {
                let Some(row) = plane.next() else { continue };
                blend(row, behind, chroma, scratch, (index, y));
            }
        }
    }
}

/// Returns the mask of an analysis. It may come from another machine, so its size is validated.
pub(crate) fn mask_of<'a>(effect: &'static str, analysis: Option<&'a Analysis>) -> Result<&'a Mask, ComposeError> {
    let refused = |got| ComposeError { effect: EffectName::new(effect), got };
    let mask = match analysis {
        Some(Analysis::Mask(mask)) => mask,
        Some(other) => return Err(refused(other.kind())),
        None => return Err(refused("a frame without its mask")),
    };
    if check_mask(mask) { Ok(mask) } else { Err(refused("a mask whose bytes do not match its size")) }
}

/// Returns whether the mask's size is valid and matches its number of bytes.
pub(crate) fn check_mask(mask: &Mask) -> bool {
    let sides = 1..=I420::MAX_SIDE;
    sides.contains(&mask.width) && sides.contains(&mask.height) && mask.probability.len() == mask.width as usize * mask.height as usize
}

/// Converts probabilities to opacities, both in bytes.
struct Ramp {
    width: i16,
    factor: i16,
}

impl Ramp {
    fn new(softness: f32) -> Self {
        let width = 255.0 * (0.3 + 0.4 * softness.clamp(0.0, 1.0));
        Self { width: width as i16, factor: (255.0 * 128.0 / width.floor()) as i16 }
    }

    fn apply(&self, row: &mut [u8]) {
        dispatch!(Level::new(), simd => rise(simd, row, self.width, self.factor));
    }
}

#[simd]
fn rise<S: Simd>(_: S, row: &mut [u8], width: i16, factor: i16) {
    for value in row {
        let above = (i16::from(*value) - LEAST_PROBABILITY).clamp(0, width);
        *value = ((above * factor + 127) >> 7).min(255) as u8;
    }
}

#[simd]
fn follow_all<S: Simd>(_: S, steady: &mut [i16], targets: &[u8], moved: &[u8]) {
    for ((steady, target), moved) in steady.iter_mut().zip(targets).zip(moved) {
        *steady = follow(*steady, *target, *moved);
    }
}

/// Moves `steady` (in units of 1/128) one step towards `target`. A rise of 64 levels or a fall of
/// 35 is followed at once, smaller changes slowly, unless the picture moved there.
#[inline(always)]
fn follow(steady: i16, target: u8, moved: u8) -> i16 {
    let change = (i32::from(target) << 7) - i32::from(steady);
    let levels = change.abs() >> 7;
    let by_change = if change < 0 { 14 + levels * levels / 5 } else { 12 + levels * levels / 17 };
    let pace = (by_change + i32::from(moved)).min(256);
    (i32::from(steady) + ((change * pace) >> 8)) as i16
}

/// Blends the row over the backdrop.
fn blend(row: &mut [u8], behind: &impl Backdrop, opacity: &[u8], scratch: &mut Vec<u8>, (index, y): (usize, usize)) {
    if opacity.iter().all(|opacity| *opacity == 255) {
        return;
    }
    scratch.resize(row.len(), 0);
    behind.row(index, y, scratch);
    dispatch!(Level::new(), simd => mix(simd, row, scratch, opacity));
}

#[simd]
fn mix<S: Simd>(_: S, row: &mut [u8], behind: &[u8], opacity: &[u8]) {
    for ((out, behind), opacity) in row.iter_mut().zip(behind).zip(opacity) {
        let kept = u16::from(*opacity) + u16::from(*opacity >> 7);
        *out = ((u16::from(*behind) * (256 - kept) + u16::from(*out) * kept + 128) >> 8) as u8;
    }
}

/// Computes the opacity of chroma: the mean of the four luma pixels that share it.
#[simd]
fn halve<S: Simd>(_: S, even: &[u8], odd: &[u8], chroma: &mut [u8]) {
    let (pairs, rests) = (even.as_chunks::<2>(), odd.as_chunks::<2>());
    for ((out, a), b) in chroma.iter_mut().zip(pairs.0).zip(rests.0) {
        *out = ((u16::from(a[0]) + u16::from(a[1]) + u16::from(b[0]) + u16::from(b[1]) + 2) >> 2) as u8;
    }
    if let ([a], [b], Some(out)) = (pairs.1, rests.1, chroma.last_mut()) {
        *out = ((u16::from(*a) + u16::from(*b) + 1) >> 1) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flicker_is_damped_and_arrives_in_the_end() {
        let at = |level: u8| i16::from(level) << 7;
        assert!(follow(at(100), 110, 0) - at(100) <= at(1));
        assert_eq!(follow(at(100), 110, 255), at(110), "but not where something moves");
        assert_eq!(follow(at(100), 60, 0), at(60));
        assert_eq!(follow(at(0), 255, 0), at(255));
        for target in 0..=255 {
            for start in [0, 255] {
                let settled = (0..400).fold(at(start), |value, _| follow(value, target, 0)) >> 7;
                assert!((settled - i16::from(target)).abs() <= 1, "{settled} instead of {target} from {start}");
            }
        }
    }

    #[test]
    fn the_ramp_reaches_both_ends_at_every_softness() {
        for softness in [0.0, 0.3, 0.5, 1.0] {
            let mut row: Vec<u8> = (0..=255).collect();
            Ramp::new(softness).apply(&mut row);
            assert!(row[..=76].iter().all(|opacity| *opacity == 0), "softness {softness}");
            assert_eq!(row[255], 255, "softness {softness}");
            assert!(row.is_sorted());
        }
    }

    #[test]
    fn chroma_has_the_mean_of_its_four_pixels() {
        let mut chroma = [0; 2];
        dispatch!(Level::new(), simd => halve(simd, &[0, 100, 7], &[200, 100, 9], &mut chroma));
        assert_eq!(chroma, [100, 8]);
    }
}
