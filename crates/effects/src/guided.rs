//! Guided filter: upsamples a small plane to the size of a frame along the frame's own edges (He,
//! Sun, *Fast Guided Filter*, 2015).
//!
//! Around each pixel of the small plane its value is modelled as a linear function of luma,
//! `slope · luma + offset`, fitted over a window. The coefficients are stretched over the frame, so
//! that the result has edges where the frame's luma has edges, at the frame's own resolution. Where
//! luma is flat, the slope is 0 and the result is the smoothed small plane.

use fearless_simd::{Level, Simd, dispatch};
use fearless_simd_macros::simd;

use crate::boxes::{Boxes, Four};
use crate::pixels::{Stretched, byte};

/// Scale of slopes stored in a byte: a slope of 1 is 64 steps above [`LEVEL`], and slopes range
/// from -2 to 2.
const SLOPE_UNIT: f32 = 64.0;
/// Byte that stands for a slope of 0.
const LEVEL: u8 = 128;
/// Regularisation of the fit: luma variance, (8 levels)², that counts as noise.
const NOISE: f32 = 64.0;

/// The fitted coefficients, ready to be stretched; buffers are kept for the next frame.
#[derive(Default)]
pub(crate) struct Guided {
    moments: Boxes,
    lines: Boxes,
    /// Factors that turn the sum over a window into a mean: one for each column, one for each row.
    factors: [Vec<f32>; 2],
    /// Planes of coefficients: the result at the mean luma, the mean luma, and the slope.
    /// [`Guided::even_out`] stores the offset and the slope instead.
    small: [Vec<u8>; 3],
    stretched: [Stretched; 3],
    /// The current row of each stretched plane.
    rows: [Vec<u8>; 3],
}

impl Guided {
    /// Fits `plane` to `luma`, both of `size` columns and rows, in windows of `radius` pixels to
    /// each side, and stretches the coefficients over a plane of `to` columns and rows.
    pub(crate) fn smooth(&mut self, luma: &[u8], plane: &[u8], size: [u32; 2], radius: usize, to: [u32; 2]) {
        self.fit(luma, plane, size, radius, |[slope, offset, mean, _]| [byte(slope * mean + offset), byte(mean), coded(slope)]);
        self.stretch(size, to);
    }

    /// Like [`Guided::smooth`], but the small plane keeps all of its own detail, and the frame only
    /// adds the detail between its pixels.
    pub(crate) fn sharpen(&mut self, luma: &[u8], plane: &[u8], size: [u32; 2], radius: usize, to: [u32; 2]) {
        self.fit(luma, plane, size, radius, |[slope, ..]| [0, 0, coded(slope)]);
        self.small.iter_mut().zip([plane, luma]).for_each(|(small, source)| small.copy_from_slice(source));
        self.stretch(size, to);
    }

    /// Writes row `y` of the result, given that row of the frame's luma.
    pub(crate) fn row(&mut self, y: usize, luma: &[u8], target: &mut [u8]) {
        for (row, stretched) in self.rows.iter_mut().zip(&self.stretched) {
            row.resize(luma.len(), 0);
            stretched.row(y).copy_to(row);
        }
        dispatch!(Level::new(), simd => turn(simd, &self.rows, luma, target));
    }

    /// Flattens areas of `luma` (`size` columns and rows) that vary little, and keeps edges. The
    /// rows of the result are read with [`Guided::even_row`].
    pub(crate) fn even_out(&mut self, luma: &[u8], size: [u32; 2], radius: usize, to: [u32; 2]) {
        // Fitted to itself, luma has slopes from 0 to 1, so that every offset is in the range of
        // luma.
        self.fit(luma, luma, size, radius, |[slope, offset, ..]| [byte(offset), byte(slope * 256.0), 0]);
        for (stretched, small) in self.stretched.iter_mut().zip(&self.small).take(2) {
            stretched.set(small, size, to, to.map(f64::from));
        }
    }

    /// Writes row `y` of the flattened luma, given that row of the frame's luma.
    pub(crate) fn even_row(&mut self, y: usize, luma: &[u8], target: &mut [u8]) {
        for (row, stretched) in self.rows.iter_mut().zip(&self.stretched).take(2) {
            row.resize(luma.len(), 0);
            stretched.row(y).copy_to(row);
        }
        dispatch!(Level::new(), simd => even_turn(simd, &self.rows, luma, target));
    }

    /// Fits the coefficients and stores what `code` returns for each pixel. Its argument is slope,
    /// offset and luma, each averaged over the windows that contain the pixel.
    fn fit(&mut self, luma: &[u8], plane: &[u8], size: [u32; 2], radius: usize, code: impl Fn(Four) -> [u8; 3]) {
        let sides = size.map(|side| side as usize);
        for (factors, side) in self.factors.iter_mut().zip(sides) {
            let within = |at: usize| (at + radius).min(side - 1) + 1 - at.saturating_sub(radius);
            factors.clear();
            factors.extend((0..side).map(|at| 1.0 / within(at) as f32));
        }
        [&mut self.moments, &mut self.lines].into_iter().for_each(|boxes| boxes.start(sides, radius as f32));
        self.small.iter_mut().for_each(|plane| plane.resize(luma.len(), 0));
        dispatch!(Level::new(), simd => self.fit_rows(simd, luma, plane, code));
    }

    #[simd]
    fn fit_rows<S: Simd>(&mut self, _: S, luma: &[u8], plane: &[u8], code: impl Fn(Four) -> [u8; 3]) {
        let Self { moments, lines, factors, small, .. } = self;
        let [across, down] = &*factors;
        let width = across.len();
        let mut targets = small.each_mut().map(|plane| plane.chunks_exact_mut(width));
        let (mut downs, mut last_downs) = (down.iter(), down.iter());
        for (luma, plane) in luma.chunks_exact(width).zip(plane.chunks_exact(width)) {
            moments.put(|row| multiply(luma, plane, row));
            while let Some(sums) = moments.take()
                && let Some(down) = downs.next()
            {
                lines.put(|row| {
                    for (line, (sums, across)) in row.iter_mut().zip(sums.iter().zip(across)) {
                        *line = line_of(sums.map(|sum| sum * (across * down)));
                    }
                });
                while let Some(sums) = lines.take()
                    && let Some(down) = last_downs.next()
                {
                    let [Some(first), Some(second), Some(third)] = targets.each_mut().map(Iterator::next) else { return };
                    let pixels = first.iter_mut().zip(second.iter_mut().zip(third));
                    for ((first, (second, third)), (sums, across)) in pixels.zip(sums.iter().zip(across)) {
                        [*first, *second, *third] = code(sums.map(|sum| sum * (across * down)));
                    }
                }
            }
        }
    }

    fn stretch(&mut self, size: [u32; 2], to: [u32; 2]) {
        for (stretched, small) in self.stretched.iter_mut().zip(&self.small) {
            stretched.set(small, size, to, to.map(f64::from));
        }
    }
}

/// Writes luma, the plane, luma², and luma · plane.
#[inline(always)]
fn multiply(luma: &[u8], plane: &[u8], row: &mut [Four]) {
    for (moments, (luma, plane)) in row.iter_mut().zip(luma.iter().zip(plane)) {
        let (i, p) = (f32::from(*luma), f32::from(*plane));
        *moments = [i, p, i * i, i * p];
    }
}

/// Returns slope, offset and mean luma, given the window's means of the values written by
/// [`multiply`].
#[inline(always)]
fn line_of([i, p, ii, ip]: Four) -> Four {
    let slope = (ip - i * p) / ((ii - i * i).max(0.0) + NOISE);
    [slope, p - slope * i, i, 0.0]
}

#[inline(always)]
fn coded(slope: f32) -> u8 {
    byte(slope * SLOPE_UNIT + f32::from(LEVEL))
}

#[simd]
fn turn<S: Simd>(_: S, [base, mean, slope]: &[Vec<u8>; 3], luma: &[u8], target: &mut [u8]) {
    for ((((out, luma), base), mean), slope) in target.iter_mut().zip(luma).zip(base).zip(mean).zip(slope) {
        let away = i16::from(*luma) - i16::from(*mean);
        let turn = (i16::from(*slope) - i16::from(LEVEL)) * away;
        *out = (i16::from(*base) + ((turn + 32) >> 6)).clamp(0, 255) as u8;
    }
}

#[simd]
fn even_turn<S: Simd>(_: S, [offset, slope, _]: &[Vec<u8>; 3], luma: &[u8], target: &mut [u8]) {
    for (((out, luma), offset), slope) in target.iter_mut().zip(luma).zip(offset).zip(slope) {
        let turn = (u16::from(*luma) * u16::from(*slope) + 128) >> 8;
        *out = (turn + u16::from(*offset)).min(255) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coarse_step_becomes_as_sharp_as_the_picture_and_stands_where_the_picture_has_it() {
        // The picture has an edge at column 70 of 160; the plane of 16 columns only locates it
        // between 60 and 80.
        let frame: Vec<u8> = (0..160).map(|x| if x < 70 { 40 } else { 180 }).collect();
        let luma: Vec<u8> = (0..16).flat_map(|_| (0..16).map(|x| if x < 7 { 40 } else { 180 })).collect();
        let plane: Vec<u8> = (0..16).flat_map(|_| (0..16).map(|x: i32| ((x - 5) * 85).clamp(0, 255) as u8)).collect();
        let mut guided = Guided::default();
        guided.smooth(&luma, &plane, [16, 16], 2, [160, 160]);
        let mut row = vec![0; 160];
        guided.row(80, &frame, &mut row);
        let turn = i32::from(row[70]) - i32::from(row[69]);
        assert!(turn > 120, "{:?}", &row[60..80]);
        assert!(row[..30].iter().all(|value| *value < 10) && row[110..].iter().all(|value| *value > 245));
    }

    #[test]
    fn over_an_even_picture_the_plane_is_only_stretched_and_smoothed() {
        let mut guided = Guided::default();
        for (size, to) in [([16, 9], [160, 90]), ([1, 1], [3, 2]), ([2, 40], [2, 40])] {
            let pixels = (size[0] * size[1]) as usize;
            guided.smooth(&vec![90; pixels], &vec![77; pixels], size, 3, to);
            let mut row = vec![0; to[0] as usize];
            guided.row(to[1] as usize - 1, &vec![90; to[0] as usize], &mut row);
            assert!(row.iter().all(|value| *value == 77), "{row:?}");
        }
    }

    #[test]
    fn evened_out_luma_keeps_its_edge_and_loses_its_noise() {
        let frame: Vec<u8> = (0..160).map(|x| if x < 70 { 40 } else { 180 } + 3 * (x % 2) as u8).collect();
        let luma: Vec<u8> = (0..16).flat_map(|_| (0..16).map(|x| if x < 7 { 41 } else { 181 })).collect();
        let mut guided = Guided::default();
        guided.even_out(&luma, [16, 16], 1, [160, 160]);
        let mut row = vec![0; 160];
        guided.even_row(80, &frame, &mut row);
        assert!(i32::from(row[70]) - i32::from(row[69]) > 80, "{:?}", &row[60..80]);
        assert!(
            row[..40].iter().all(|value| (40..=42).contains(value)) && row[110..].iter().all(|value| (180..=182).contains(value)),
            "{row:?}"
        );
    }

    #[test]
    fn sharpening_adds_what_lies_between_the_pixels_and_nothing_to_what_is_even() {
        let luma: Vec<u8> = (0..16).flat_map(|_| (0..16).map(|x| if x < 7 { 40 } else { 180 })).collect();
        let plane: Vec<u8> = luma.iter().map(|luma| 220 - luma).collect();
        let mut guided = Guided::default();
        guided.sharpen(&luma, &plane, [16, 16], 2, [160, 160]);
        let frame: Vec<u8> = (0..160).map(|x| if x < 70 { 40 } else { 180 }).collect();
        let mut row = vec![0; 160];
        guided.row(80, &frame, &mut row);
        assert!(i32::from(row[69]) - i32::from(row[70]) > 110, "{:?}", &row[60..80]);
        assert!(row[..40].iter().all(|value| *value == 180) && row[110..].iter().all(|value| *value == 40));
    }
}
