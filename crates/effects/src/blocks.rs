//! Downscaling of planes: every pixel is the mean of a block of the large plane.
//!
//! Blocks lie side by side and consist of whole pixels, so that their sides differ by one where the
//! sizes do not divide evenly. The rows of a row of blocks are added up first, all columns side by
//! side, which the compiler vectorises; then the columns of each block.

use fearless_simd::{Level, Simd, dispatch};
use fearless_simd_macros::simd;

/// Maximum number of pixels of a block: the sums of its columns must fit into 16 bits.
const MOST_PIXELS: usize = 257;
/// Number of column sums that fit into one 64-bit register.
const PACKED: usize = 4;
/// Fractional bits of the fixed-point factors that replace a division.
const PRECISION: u32 = 24;

/// Downscales planes of one size, and keeps its tables and buffers for the next plane.
#[derive(Default)]
pub(crate) struct Blocks {
    made_for: Option<MadeFor>,
    across: Sides,
    down: Sides,
    /// Sum of each column of the current row of blocks.
    sums: Vec<u16>,
    /// Sum of each block of the current row of blocks.
    totals: Vec<u32>,
}

/// Sizes (columns, rows) of the planes.
#[derive(Clone, Copy, PartialEq)]
struct MadeFor {
    size: [u32; 2],
    /// Size of the part of the large plane that is shown.
    shown: [f64; 2],
    target_size: [u32; 2],
}

/// The blocks along one axis.
#[derive(Default)]
struct Sides {
    /// Index of the first pixel of each block.
    starts: Vec<u16>,
    /// True for each block that is one pixel longer than the shortest.
    longer: Vec<bool>,
    /// Length of the shortest block in pixels.
    least: usize,
}

impl Sides {
    /// Divides the first `shown` of `from` pixels into `to` blocks of at least one pixel each. A
    /// pixel belongs to the block that contains its centre.
    fn new(from: u32, shown: f64, to: u32) -> Self {
        let scale = shown / f64::from(to);
        let edge = |index: u32| ((f64::from(index) * scale + 0.5) as u32).min(from) as u16;
        let lengths: Vec<_> = (0..to).map(|index| usize::from(edge(index + 1) - edge(index))).collect();
        let least = lengths.iter().copied().min().unwrap_or(0);
        Self { starts: (0..to).map(edge).collect(), longer: lengths.iter().map(|length| *length > least).collect(), least }
    }

    fn longest(&self) -> usize {
        self.least + 1
    }
}

impl Blocks {
    /// Writes the block means of the `shown` part of `plane`, from its top left corner, into
    /// `target`; `size` and `target_size` are columns and rows.
    ///
    /// Returns `false`, and writes nothing, if the target is larger than the source or the scale is
    /// so small that the sums would overflow.
    pub(crate) fn set(&mut self, plane: &[u8], size: [u32; 2], shown: [f64; 2], target: &mut [u8], target_size: [u32; 2]) -> bool {
        let wanted = MadeFor { size, shown, target_size };
        if self.made_for != Some(wanted) {
            if !shown.iter().zip(target_size).all(|(from, to)| *from >= f64::from(to)) {
                return false;
            }
            let [across, down] = [0, 1].map(|axis| Sides::new(size[axis], shown[axis], target_size[axis]));
            if across.longest() * down.longest() > MOST_PIXELS {
                return false;
            }
            (self.across, self.down, self.made_for) = (across, down, Some(wanted));
        }
        let width = size[0] as usize;
        // The buffer has more columns than the plane: `few` reads beyond the end, and masks out
        // what it reads there.
        self.sums.resize(width + PACKED, 0);
        let rows = |index: usize| {
            let start = usize::from(self.down.starts[index]);
            &plane[start * width..][..(self.down.least + usize::from(self.down.longer[index])) * width]
        };
        for (index, out) in target.chunks_exact_mut(target_size[0] as usize).enumerate() {
            let rows = rows(index);
            dispatch!(Level::new(), simd => add_up(simd, rows, &mut self.sums[..width]));
            self.totals.clear();
            match self.across.longest() {
                ..=PACKED => self.totals.extend(self.across.few(&self.sums)),
                _ => self.totals.extend(self.across.many(&self.sums)),
            }
            let factors = [self.across.least, self.across.longest()].map(|columns| factor(columns * rows.len() / width));
            dispatch!(Level::new(), simd => divide(simd, &self.totals, &self.across.longer, factors, out));
        }
        true
    }
}

/// Adds up each column of `rows`.
#[simd]
fn add_up<S: Simd>(_: S, rows: &[u8], sums: &mut [u16]) {
    let mut rows = rows.chunks_exact(sums.len());
    if let Some(first) = rows.next() {
        sums.iter_mut().zip(first).for_each(|(sum, value)| *sum = u16::from(*value));
    }
    for row in rows {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += u16::from(*value));
    }
}

impl Sides {
    /// Returns the sum of each block, given the sums of columns, if no block has more than
    /// [`PACKED`] columns: they are added up within a register.
    fn few(&self, sums: &[u16]) -> impl Iterator<Item = u32> {
        let [short, long] = [self.least, self.longest()].map(|columns| u64::MAX >> (16 * (PACKED - columns)));
        self.starts.iter().zip(&self.longer).map(move |(start, longer)| {
            let columns = sums[usize::from(*start)..].first_chunk::<PACKED>().map_or([0; PACKED], |columns| *columns);
            let packed = columns.iter().rev().fold(0, |packed, sum| packed << 16 | u64::from(*sum));
            let kept = packed & if *longer { long } else { short };
            (kept.wrapping_mul(0x0001_0001_0001_0001) >> 48) as u32
        })
    }

    /// Returns the sum of each block, given the sums of columns.
    fn many(&self, sums: &[u16]) -> impl Iterator<Item = u32> {
        self.starts.iter().zip(&self.longer).map(|(start, longer)| {
            let columns = self.least + usize::from(*longer);
            sums[usize::from(*start)..][..columns].iter().map(|sum| u32::from(*sum)).sum()
        })
    }
}

/// Returns the factor that turns a sum of `count` bytes into their mean. It is rounded down, so
/// that the mean stays below 256.
fn factor(count: usize) -> u32 {
    (1 << PRECISION) / count as u32
}

/// Converts sums of blocks to means. `longer` selects the second factor.
#[simd]
fn divide<S: Simd>(_: S, totals: &[u32], longer: &[bool], [short, long]: [u32; 2], out: &mut [u8]) {
    for ((out, total), longer) in out.iter_mut().zip(totals).zip(longer) {
        *out = ((total * if *longer { long } else { short } + (1 << (PRECISION - 1))) >> PRECISION) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean of all pixels whose centre lies in the block, by the definition.
    fn expected(plane: &[u8], size: [u32; 2], shown: [f64; 2], to: [u32; 2], at: [u32; 2]) -> f64 {
        let within = |index: u32, axis: usize| {
            let scale = shown[axis] / f64::from(to[axis]);
            let middle = f64::from(index) + 0.5;
            middle > f64::from(at[axis]) * scale && middle <= f64::from(at[axis] + 1) * scale
        };
        let mut values = Vec::new();
        for y in (0..size[1]).filter(|y| within(*y, 1)) {
            values.extend((0..size[0]).filter(|x| within(*x, 0)).map(|x| f64::from(plane[(y * size[0] + x) as usize])));
        }
        values.iter().sum::<f64>() / values.len() as f64
    }

    #[test]
    fn every_pixel_is_the_mean_of_its_block() {
        let mut blocks = Blocks::default();
        for (size, shown, to) in [
            ([64, 48], [64.0, 48.0], [25, 14]),
            ([33, 17], [32.5, 16.5], [16, 16]),
            ([40, 40], [40.0, 40.0], [40, 20]),
            ([100, 30], [100.0, 30.0], [7, 3]),
            ([9, 3], [9.0, 3.0], [9, 3]),
            ([160, 90], [160.0, 90.0], [14, 6]),
        ] {
            let plane: Vec<u8> = (0..size[0] * size[1]).map(|index| (index * 7919 % 251) as u8).collect();
            let mut target = vec![0; (to[0] * to[1]) as usize];
            assert!(blocks.set(&plane, size, shown, &mut target, to));
            for (index, got) in target.iter().enumerate() {
                let at = [index as u32 % to[0], index as u32 / to[0]];
                let expected = expected(&plane, size, shown, to, at);
                assert!((f64::from(*got) - expected).abs() <= 0.51, "{size:?} to {to:?} at {at:?}: {got} instead of {expected}");
            }
        }
    }

    #[test]
    fn the_brightest_plane_stays_the_brightest() {
        for to in [[64, 48], [31, 7], [5, 4]] {
            let mut target = vec![0; (to[0] * to[1]) as usize];
            assert!(Blocks::default().set(&[255; 64 * 48], [64, 48], [64.0, 48.0], &mut target, to));
            assert!(target.iter().all(|value| *value == 255), "{to:?}");
        }
    }

    #[test]
    fn what_it_can_not_do_it_refuses() {
        let mut target = vec![7; 64];
        assert!(!Blocks::default().set(&[0; 64], [8, 8], [8.0, 8.0], &mut target, [16, 4]), "wider");
        assert!(!Blocks::default().set(&[0; 64 * 64], [64, 64], [64.0, 64.0], &mut target[..4], [2, 2]), "blocks of 1024 pixels");
        assert!(target.iter().all(|value| *value == 7));
    }
}
