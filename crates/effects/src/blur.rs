//! A strong blur of a frame, computed on a small copy of it.
//!
//! Three successive box blurs approximate a Gaussian (Kovesi, *Fast almost-Gaussian filtering*,
//! 2010). Each pixel has a weight, so that pixels which must not bleed into their surroundings can
//! be left out: the result is Σ weight · pixel / Σ weight.

use fearless_simd::{Level, Simd, dispatch};
use fearless_simd_macros::simd;
use ooblex_pipeline::I420;

use crate::boxes::{Boxes, Four};
use crate::pixels::{Shrinker, Stretched, byte, plane_size};

/// Number of pixels of the small copy, whatever the size of the frame.
const SMALL_PIXELS: f64 = 14_400.0;

/// Minimum standard deviation in pixels of the small copy, which takes effect for tiny frames.
const LEAST_SIGMA: f32 = 1.4;

/// Computes the blurred picture of a frame, and keeps its buffers for the next one.
#[derive(Default)]
pub(crate) struct Blur {
    shrinker: Shrinker,
    weights: Vec<u8>,
    boxes: [Boxes; 3],
    planes: [Vec<u8>; 3],
    stretched: [Stretched; 3],
}

impl Blur {
    /// Blurs `source` with a Gaussian of standard deviation `sigma`, given as a fraction of the
    /// square root of the frame's area.
    ///
    /// `weights` is a plane with its columns and rows that covers the frame; a pixel of weight 0
    /// hardly bleeds into its surroundings. Without it all pixels have the same weight.
    pub(crate) fn set(&mut self, source: &I420, sigma: f32, weights: Option<(&[u8], [u32; 2])>) {
        let (width, height) = (source.width(), source.height());
        let scale = (SMALL_PIXELS / (f64::from(width) * f64::from(height))).sqrt().min(1.0);
        let [small_width, small_height] = [width, height].map(|side| (f64::from(side) * scale).ceil().max(1.0) as u32);
        let small = [small_width, small_height];
        match weights {
            Some((plane, size)) => self.shrinker.plane(plane, size, &mut self.weights, small),
            None => {
                self.weights.clear();
                self.weights.resize(small_width as usize * small_height as usize, 255);
            }
        }
        let sigma = (sigma * (small_width as f32 * small_height as f32).sqrt()).max(LEAST_SIGMA);
        let radius = ((4.0 * sigma * sigma + 1.0).sqrt() - 1.0) / 2.0;
        self.boxes.iter_mut().for_each(|boxes| boxes.start(small.map(|side| side as usize), radius));
        self.planes.iter_mut().for_each(|plane| plane.resize(self.weights.len(), 0));
        let pixels = self.shrinker.planes(source, small_width, small_height);
        dispatch!(Level::new(), simd => blur(simd, pixels, &self.weights, &mut self.boxes, &mut self.planes, small_width as usize));
        for ((index, stretched), plane) in self.stretched.iter_mut().enumerate().zip(&self.planes) {
            let (size, shown) = plane_size(source, index);
            stretched.set(plane, small, size, shown);
        }
    }

    /// Returns the planes of the blurred picture, stretched to those of the frame.
    pub(crate) fn planes(&self) -> &[Stretched; 3] {
        &self.stretched
    }
}

/// Passes Y, U and V through the three box sums, row by row.
#[simd]
fn blur<S: Simd>(
    _: S,
    [y, u, v]: [&[u8]; 3],
    weights: &[u8],
    [first, second, third]: &mut [Boxes; 3],
    planes: &mut [Vec<u8>; 3],
    width: usize,
) {
    let mut targets = planes.each_mut().map(|plane| plane.chunks_exact_mut(width));
    let colours = y.chunks_exact(width).zip(u.chunks_exact(width).zip(v.chunks_exact(width)));
    for (weights, (y, (u, v))) in weights.chunks_exact(width).zip(colours) {
        first.put(|row| weigh(row, weights, [y, u, v]));
        while let Some(sums) = first.take() {
            second.put(|row| row.copy_from_slice(sums));
            while let Some(sums) = second.take() {
                third.put(|row| row.copy_from_slice(sums));
                while let Some(sums) = third.take() {
                    let [Some(y), Some(u), Some(v)] = targets.each_mut().map(Iterator::next) else { return };
                    divide(sums, [y, u, v]);
                }
            }
        }
    }
}

/// Writes Y, U and V, each multiplied by the weight, and the weight itself.
#[inline(always)]
fn weigh(row: &mut [Four], weights: &[u8], [y, u, v]: [&[u8]; 3]) {
    for ((pixel, weight), (y, (u, v))) in row.iter_mut().zip(weights).zip(y.iter().zip(u.iter().zip(v))) {
        // The weight is never 0, so that a pixel has a colour even where all its neighbours are
        // left out.
        let weight = f32::from(*weight) + 1.0;
        *pixel = [f32::from(*y) * weight, f32::from(*u) * weight, f32::from(*v) * weight, weight];
    }
}

/// Divides the weighted sums of a row by the sum of the weights.
#[inline(always)]
fn divide(sums: &[Four], [y, u, v]: [&mut [u8]; 3]) {
    for (pixel, (y, (u, v))) in sums.iter().zip(y.iter_mut().zip(u.iter_mut().zip(v))) {
        let factor = 1.0 / pixel[3];
        *y = byte(pixel[0] * factor);
        *u = byte(pixel[1] * factor);
        *v = byte(pixel[2] * factor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blurs a single bright pixel along both axes; returns its mass and its spread.
    fn spread_of(radius: f32) -> (f32, f32, f32) {
        let (size, middle) = (61, 30);
        let mut pixels = vec![[0.0; 4]; size * size];
        pixels[size * middle + middle] = [1.0; 4];
        let mut boxes = Boxes::default();
        for _ in 0..3 {
            boxes.start([size; 2], radius);
            let mut sums = Vec::new();
            for row in pixels.chunks_exact(size) {
                boxes.put(|line| line.copy_from_slice(row));
                while let Some(row) = boxes.take() {
                    sums.extend_from_slice(row);
                }
            }
            pixels = sums;
        }
        let mass: f32 = pixels.iter().map(|p| p[0]).sum();
        let variance = |along: fn(usize) -> usize| {
            let distance = |index: usize| along(index) as f32 - middle as f32;
            pixels.iter().enumerate().map(|(index, p)| p[0] * distance(index).powi(2)).sum::<f32>() / mass
        };
        (mass, variance(|index| index % 61), variance(|index| index / 61))
    }

    #[test]
    fn the_blur_is_about_as_wide_as_asked_for_and_alike_along_both_axes() {
        for sigma in [1.4_f32, 2.0, 3.3, 5.0] {
            let radius = ((4.0 * sigma * sigma + 1.0).sqrt() - 1.0) / 2.0;
            let (mass, across, down) = spread_of(radius);
            assert!((mass / (2.0 * radius + 1.0).powi(6) - 1.0).abs() < 1e-3, "mass {mass} at {sigma}");
            assert!((across.sqrt() / sigma - 1.0).abs() < 0.1, "{} instead of {sigma} across", across.sqrt());
            assert!((across / down - 1.0).abs() < 1e-3, "{across} across, {down} down");
        }
    }

    #[test]
    fn a_grey_frame_stays_grey() {
        for (width, height) in [(1, 1), (640, 480), (33, 91), (2, 4000)] {
            let frame = I420::grey(width, height, 90);
            let mut blur = Blur::default();
            blur.set(&frame, 0.03, None);
            let mut row = vec![0; width as usize];
            blur.planes()[0].row(height as usize / 2).copy_to(&mut row);
            assert!(row.iter().all(|luma| *luma == 90), "{width}x{height}");
        }
    }

    #[test]
    fn what_has_no_weight_does_not_bleed() {
        let mut frame = I420::grey(160, 90, 50);
        let [luma, ..] = frame.planes_mut();
        luma.chunks_exact_mut(160).for_each(|row| row[..80].fill(235));
        let weights: Vec<u8> = (0..90).flat_map(|_| (0..160).map(|x| if x < 80 { 0 } else { 255 })).collect();
        let mut blur = Blur::default();
        blur.set(&frame, 0.03, Some((&weights, [160, 90])));
        let mut row = vec![0; 160];
        blur.planes()[0].row(45).copy_to(&mut row);
        assert!(row[80] < 54, "the bright half bleeds: {}", row[80]);
    }
}
