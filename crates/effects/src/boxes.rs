//! Box sums: every pixel becomes the sum of those around it, for four planes side by side. It knows numbers, not what they stand for.

use fearless_simd::{Level, Simd, dispatch};
use fearless_simd_macros::simd;

/// What a pixel has in each of the four planes.
pub(crate) type Four = [f32; 4];

/// Rows that are summed at a time: each pixel of a row waits for the one before it, those of other rows do not.
const ROWS: usize = 4;

/// Sums, and keeps its buffers for the next time.
#[derive(Default)]
pub(crate) struct Boxes {
    spare: Vec<Four>,
    /// Some rows, pixel by pixel, between margins of zeros.
    lines: [Vec<[Four; ROWS]>; 2],
    column_sums: Vec<f32>,
    /// What is beyond the edge: zeros.
    no_row: Vec<f32>,
}

impl Boxes {
    /// Replaces each pixel by the sum of those at most `radius` columns and rows away, of those that there are, and does so `times` times. The
    /// radius may have a fraction: the outermost pixels then count with that weight.
    pub(crate) fn sum(&mut self, pixels: &mut Vec<Four>, width: usize, radius: f32, times: usize) {
        dispatch!(Level::new(), simd => self.along_rows(simd, pixels, width, radius, times));
        self.spare.resize(pixels.len(), [0.0; 4]);
        for _ in 0..times {
            dispatch!(Level::new(), simd => self.along_columns(simd, pixels, width, radius));
            std::mem::swap(pixels, &mut self.spare);
        }
    }

    #[simd]
    fn along_rows<S: Simd>(&mut self, _: S, pixels: &mut [Four], width: usize, radius: f32, times: usize) {
        let (whole, part) = (radius as usize, radius.fract());
        let margin = whole + 1;
        for line in &mut self.lines {
            line.clear();
            line.resize(width + 2 * margin, [[0.0; 4]; ROWS]);
        }
        let [from, to] = &mut self.lines;
        for rows in pixels.chunks_mut(ROWS * width) {
            for (index, row) in rows.chunks_exact(width).enumerate() {
                from[margin..].iter_mut().zip(row).for_each(|(at, pixel)| at[index] = *pixel);
            }
            for _ in 0..times {
                let mut sums = [[0.0; 4]; ROWS];
                from[1..=2 * whole].iter().for_each(|at| step(sums.as_flattened_mut(), at.as_flattened(), &[0.0; 4 * ROWS]));
                for (at, out) in from.windows(2 * margin + 1).zip(&mut to[margin..]) {
                    let [old, new, next] = [0, 2 * whole + 1, 2 * margin].map(|x| at[x].as_flattened());
                    step(sums.as_flattened_mut(), new, old);
                    *out = sums;
                    if part > 0.0 {
                        fade(out.as_flattened_mut(), old, next, part);
                    }
                }
                std::mem::swap(from, to);
            }
            for (index, row) in rows.chunks_exact_mut(width).enumerate() {
                from[margin..].iter().zip(row).for_each(|(at, pixel)| *pixel = at[index]);
            }
        }
    }

    /// All columns side by side. The result is in `spare`.
    #[simd]
    fn along_columns<S: Simd>(&mut self, _: S, pixels: &[Four], width: usize, radius: f32) {
        let (whole, part) = (radius as isize, radius.fract());
        let height = (pixels.len() / width) as isize;
        let Self { spare, column_sums: sums, no_row, .. } = self;
        for row in [&mut *sums, &mut *no_row] {
            row.clear();
            row.resize(4 * width, 0.0);
        }
        let row = |y: isize| match (0..height).contains(&y) {
            true => pixels[width * y as usize..][..width].as_flattened(),
            false => &no_row[..],
        };
        (0..whole).for_each(|y| step(sums, row(y), row(-1)));
        for (y, out) in (0..).zip(spare.as_flattened_mut().chunks_exact_mut(4 * width)) {
            let [old, new, next] = [y - whole - 1, y + whole, y + whole + 1].map(row);
            step(sums, new, old);
            out.copy_from_slice(sums);
            if part > 0.0 {
                fade(out, old, next, part);
            }
        }
    }
}

/// The sums one pixel further.
#[inline(always)]
fn step(sums: &mut [f32], new: &[f32], old: &[f32]) {
    for ((sum, new), old) in sums.iter_mut().zip(new).zip(old) {
        *sum += new - old;
    }
}

/// Adds a part of the pixels on either side.
#[inline(always)]
fn fade(sums: &mut [f32], before: &[f32], after: &[f32], part: f32) {
    for ((sum, before), after) in sums.iter_mut().zip(before).zip(after) {
        *sum += part * (before + after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition.
    fn expected(pixels: &[Four], width: usize, radius: f32, at: usize) -> Four {
        let (whole, part) = (radius as usize, radius.fract());
        let weight = |away: usize| {
            if away <= whole {
                1.0
            } else if away == whole + 1 {
                part
            } else {
                0.0
            }
        };
        let mut sum = [0.0; 4];
        for (index, pixel) in pixels.iter().enumerate() {
            let weight = weight((index % width).abs_diff(at % width)) * weight((index / width).abs_diff(at / width));
            sum.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += value * weight);
        }
        sum
    }

    #[test]
    fn every_pixel_is_the_sum_of_those_around_it() {
        for (width, height, radius) in [(9, 7, 2.0), (5, 4, 1.6), (1, 1, 0.5), (2, 9, 3.0), (13, 6, 0.0)] {
            let given: Vec<Four> = (0..width * height).map(|at| [at % 11, at % 7, at * 3 % 13, 1].map(|value| value as f32)).collect();
            let mut sums = given.clone();
            Boxes::default().sum(&mut sums, width, radius, 1);
            for (at, sum) in sums.iter().enumerate() {
                let expected = expected(&given, width, radius, at);
                let is_near = sum.iter().zip(expected).all(|(sum, expected)| (sum - expected).abs() < 1e-3);
                assert!(is_near, "{sum:?} instead of {expected:?} at {at} of {width}x{height}, radius {radius}");
            }
        }
    }

    #[test]
    fn twice_is_the_same_as_one_after_the_other() {
        let given: Vec<Four> = (0..12 * 10).map(|at| [at as f32, 1.0, 0.0, 2.0]).collect();
        let (mut twice, mut after) = (given.clone(), given);
        Boxes::default().sum(&mut twice, 12, 1.5, 2);
        let mut boxes = Boxes::default();
        (0..2).for_each(|_| boxes.sum(&mut after, 12, 1.5, 1));
        assert!(twice.as_flattened().iter().zip(after.as_flattened()).all(|(a, b)| (a - b).abs() <= 1e-4 * b.abs().max(1.0)));
    }
}
