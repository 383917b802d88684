//! Motion detection for temporal smoothing: what is painted may be smoothed over time only where a
//! track's picture is still.
//!
//! Small luma planes are compared with a reference picture of the still scene. Sensor noise is
//! below [`FLOOR`]; a larger difference, averaged over the neighbourhood, is motion. Slow changes
//! of the camera (its exposure, its white balance) are adapted to and count as still.

use fearless_simd::{Level, Simd, dispatch};
use fearless_simd_macros::simd;

/// Mean difference within a neighbourhood, in luma levels, up to which it counts as noise.
const FLOOR: i32 = 3;
/// Adaptation of the reference picture where the picture is still: 256ths of the difference per
/// frame.
const DRIFT: i32 = 40;

/// Motion detector of one track.
#[derive(Debug, Default)]
pub(crate) struct Stillness {
    size: [u32; 2],
    /// Luma of the reference picture in units of 1/64.
    remembered: Vec<i16>,
    sums: Vec<u16>,
    moved: Vec<u8>,
}

impl Stillness {
    /// Compares the luma of the next frame, `size` columns and rows, and returns for each pixel the
    /// amount of motion within `radius` pixels of it: 0 = still, 255 = certainly moved. The first
    /// frame of a size counts as moved everywhere.
    pub(crate) fn update(&mut self, luma: &[u8], size: [u32; 2], radius: usize) -> &[u8] {
        if self.size != size {
            self.size = size;
            self.remembered = luma.iter().map(|luma| i16::from(*luma) << 6).collect();
            self.moved = vec![255; luma.len()];
            return &self.moved;
        }
        dispatch!(Level::new(), simd => self.compare(simd, luma, size[0] as usize, radius));
        &self.moved
    }

    #[simd]
    fn compare<S: Simd>(&mut self, _: S, luma: &[u8], width: usize, radius: usize) {
        self.differences(luma);
        mean_within(&mut self.moved, &mut self.sums, width, radius);
        let span = 2 * radius as i32 + 1;
        for ((moved, remembered), luma) in self.moved.iter_mut().zip(&mut self.remembered).zip(luma) {
            // The mean over span² pixels dilutes a local change; `span` compensates in part.
            *moved = ((i32::from(*moved) - FLOOR).max(0) * 16 * span).min(255) as u8;
            let pace = DRIFT.max(i32::from(*moved) + 1);
            let away = (i32::from(*luma) << 6) - i32::from(*remembered);
            *remembered += ((away * pace) >> 8) as i16;
        }
    }

    #[inline(always)]
    fn differences(&mut self, luma: &[u8]) {
        for ((moved, remembered), luma) in self.moved.iter_mut().zip(&self.remembered).zip(luma) {
            *moved = ((*remembered + 32) >> 6).clamp(0, 255).abs_diff(i16::from(*luma)) as u8;
        }
    }
}

/// Replaces each value by the mean of those at most `radius` columns and rows away. Values beyond
/// the edge count as 0.
#[inline(always)]
fn mean_within(values: &mut [u8], sums: &mut Vec<u16>, width: usize, radius: usize) {
    let height = values.len() / width;
    sums.clear();
    sums.resize(values.len(), 0);
    for (row, out) in values.chunks_exact(width).zip(sums.chunks_exact_mut(width)) {
        let mut sum: u16 = row.iter().take(radius).map(|value| u16::from(*value)).sum();
        for x in 0..width {
            sum += row.get(x + radius).map_or(0, |value| u16::from(*value));
            out[x] = sum;
            if x >= radius {
                sum -= u16::from(row[x - radius]);
            }
        }
    }
    let area = ((2 * radius + 1) * (2 * radius + 1)) as u32;
    let factor = 65536 / area;
    let mut column = vec![0_u32; width];
    let add =
        |column: &mut [u32], y: usize| column.iter_mut().zip(&sums[y * width..][..width]).for_each(|(sum, row)| *sum += u32::from(*row));
    (0..radius.min(height)).for_each(|y| add(&mut column, y));
    for y in 0..height {
        if y + radius < height {
            add(&mut column, y + radius);
        }
        for (out, sum) in values[y * width..][..width].iter_mut().zip(&column) {
            *out = ((sum * factor + 32768) >> 16) as u8;
        }
        if y >= radius {
            column.iter_mut().zip(&sums[(y - radius) * width..][..width]).for_each(|(sum, row)| *sum -= u32::from(*row));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(state: &mut u32) -> u8 {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((*state >> 24) % 5) as u8
    }

    #[test]
    fn noise_stands_still_and_what_moves_does_not() {
        let (mut stillness, mut state) = (Stillness::default(), 7);
        let frame = |state: &mut u32, at: Option<usize>| -> Vec<u8> {
            (0..64 * 36).map(|i| 100 + noise(state) + if at.is_some_and(|at| (at..at + 6).contains(&(i % 64))) { 60 } else { 0 }).collect()
        };
        assert!(stillness.update(&frame(&mut state, None), [64, 36], 2).iter().all(|moved| *moved == 255));
        for _ in 0..20 {
            let moved = stillness.update(&frame(&mut state, None), [64, 36], 2);
            assert!(moved.iter().all(|moved| *moved == 0), "noise moves by {:?}", moved.iter().max());
        }
        let moved = stillness.update(&frame(&mut state, Some(20)), [64, 36], 2);
        assert!((20..26).all(|x| moved[18 * 64 + x] == 255));
        assert!((32..60).all(|x| moved[18 * 64 + x] == 0));
    }

    #[test]
    fn a_slow_drift_counts_as_still() {
        let mut stillness = Stillness::default();
        stillness.update(&[100; 640], [32, 20], 2);
        for n in 1..100_u8 {
            let moved = stillness.update(&[100 + n / 4; 640], [32, 20], 2).iter().max().copied();
            assert!(moved <= Some(80), "{moved:?} at {n}");
        }
    }

    #[test]
    fn every_size_is_taken() {
        let mut stillness = Stillness::default();
        for size in [[1, 1], [1, 9], [9, 1], [3, 2], [256, 144]] {
            let luma = vec![9; (size[0] * size[1]) as usize];
            (0..3).for_each(|_| assert_eq!(stillness.update(&luma, size, 3).len(), luma.len()));
        }
    }
}
