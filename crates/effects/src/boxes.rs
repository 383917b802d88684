//! Box sums: every pixel becomes the sum of its neighbourhood, for four planes at once.
//!
//! The sums are computed row by row, keeping only the rows of the window: those fit into the
//! processor's caches, whole planes of four floats a pixel do not.

/// Values of one pixel in the four planes.
pub(crate) type Four = [f32; 4];

/// Number of parts of a row that are summed in parallel; within a part, each pixel depends on the
/// one before it.
const PARTS: usize = 4;

/// Running box sums over one plane. Rows are put in from top to bottom, and each sum can be taken
/// as soon as the rows it needs are there. [`Boxes::start`] begins a new plane and keeps the
/// buffers.
#[derive(Default)]
pub(crate) struct Boxes {
    width: usize,
    height: usize,
    /// Number of whole pixels of the radius.
    whole: usize,
    /// Weight of the outermost pixels: the fraction of the radius.
    part: f32,
    /// The last row that was put in, with a margin of zeros on both sides.
    line: Vec<Four>,
    /// Horizontal sums of the newest rows, followed by a row of zeros that stands for rows beyond
    /// the edge.
    rows: Vec<Four>,
    /// Vertical sums of the `rows` in the window of the row that was taken last, whole pixels only.
    columns: Vec<Four>,
    /// Sums of the row that was taken last, including the outermost pixels.
    sums: Vec<Four>,
    /// Number of rows put in so far.
    put: usize,
    /// Number of rows taken out so far.
    taken: usize,
}

impl Boxes {
    /// Starts a plane of `width` columns and `height` rows. Each pixel becomes the sum of those
    /// within `radius` columns and rows that exist. The radius may have a fraction: the outermost
    /// pixels then count with that weight.
    pub(crate) fn start(&mut self, [width, height]: [usize; 2], radius: f32) {
        *self = Self { width, height, whole: radius as usize, part: radius.fract(), put: 0, taken: 0, ..std::mem::take(self) };
        let stride = self.stride();
        for (buffer, length) in [
            (&mut self.line, stride + 2 * self.whole + 2),
            (&mut self.rows, stride * (2 * self.whole + 4)),
            (&mut self.columns, stride),
            (&mut self.sums, stride),
        ] {
            buffer.clear();
            buffer.resize(length, [0.0; 4]);
        }
    }

    /// Takes the next row, which `fill` writes.
    #[inline(always)]
    pub(crate) fn put(&mut self, fill: impl FnOnce(&mut [Four])) {
        fill(&mut self.line[self.whole + 1..][..self.width]);
        let (stride, slot) = (self.stride(), self.put % self.kept());
        self.put += 1;
        along(&self.line, &mut self.rows[slot * stride..][..stride], self.whole);
        if self.part > 0.0 {
            let (before, after) = (&self.line[..stride], &self.line[2 * self.whole + 2..]);
            fade(&mut self.rows[slot * stride..][..stride], before, after, self.part);
        }
    }

    /// Returns the sums of the next row, if the rows it needs are there.
    #[inline(always)]
    pub(crate) fn take(&mut self) -> Option<&[Four]> {
        let (y, reach) = (self.taken, self.whole + usize::from(self.part > 0.0));
        if y == self.height || self.put < self.height.min(y + reach + 1) {
            return None;
        }
        self.taken += 1;
        let (stride, kept) = (self.stride(), self.kept());
        let row = |y: Option<usize>| {
            let slot = y.filter(|y| *y < self.height).map_or(kept, |y| y % kept);
            &self.rows[slot * stride..][..stride]
        };
        if y == 0 {
            (0..self.whole).for_each(|y| step(&mut self.columns, row(Some(y)), row(None)));
        }
        let [old, new, next] = [y.checked_sub(self.whole + 1), Some(y + self.whole), Some(y + self.whole + 1)].map(row);
        step(&mut self.columns, new, old);
        self.sums.copy_from_slice(&self.columns);
        if self.part > 0.0 {
            fade(&mut self.sums, old, next, self.part);
        }
        Some(&self.sums[..self.width])
    }

    /// Returns the columns of a row in memory, a multiple of [`PARTS`].
    fn stride(&self) -> usize {
        PARTS * self.width.div_ceil(PARTS)
    }

    /// Returns the number of rows that are kept.
    fn kept(&self) -> usize {
        2 * self.whole + 3
    }
}

/// Computes the horizontal sums of a row, without the outermost pixels that count in part.
#[inline(always)]
fn along(line: &[Four], out: &mut [Four], whole: usize) {
    let length = out.len() / PARTS;
    let [old, new] = [0, 2 * whole + 1].map(|from| {
        let parts: [&[Four]; PARTS] = std::array::from_fn(|part| &line[from + part * length..][..length]);
        parts
    });
    // Each sum starts as that of the pixel before the first one of its part.
    let mut sums: [Four; PARTS] = std::array::from_fn(|part| {
        let mut sum = [0.0; 4];
        for pixel in &line[part * length..][..=2 * whole] {
            sum.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += value);
        }
        sum
    });
    for x in 0..length {
        for part in 0..PARTS {
            for (sum, (new, old)) in sums[part].iter_mut().zip(new[part][x].iter().zip(&old[part][x])) {
                *sum += new - old;
            }
            out[part * length + x] = sums[part];
        }
    }
}

/// Moves the sums one pixel on: adds the pixel that enters the window and subtracts the one that
/// leaves it.
#[inline(always)]
fn step(sums: &mut [Four], new: &[Four], old: &[Four]) {
    for ((sum, new), old) in sums.as_flattened_mut().iter_mut().zip(new.as_flattened()).zip(old.as_flattened()) {
        *sum += new - old;
    }
}

/// Adds the outermost pixels on either side, which count in part.
#[inline(always)]
fn fade(sums: &mut [Four], before: &[Four], after: &[Four], part: f32) {
    for ((sum, before), after) in sums.as_flattened_mut().iter_mut().zip(before.as_flattened()).zip(after.as_flattened()) {
        *sum += part * (before + after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The box sum by its definition.
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
    fn every_pixel_is_the_sum_of_those_around_it_in_one_plane_after_the_other() {
        let mut boxes = Boxes::default();
        for (width, height, radius) in [(9, 7, 2.0), (5, 4, 1.6), (1, 1, 0.5), (2, 9, 3.0), (13, 6, 0.0), (21, 33, 4.3), (3, 2, 5.7)] {
            let given: Vec<Four> = (0..width * height).map(|at| [at % 11, at % 7, at * 3 % 13, 1].map(|value| value as f32)).collect();
            boxes.start([width, height], radius);
            let mut sums = Vec::new();
            for row in given.chunks_exact(width) {
                boxes.put(|line| line.copy_from_slice(row));
                while let Some(row) = boxes.take() {
                    sums.extend_from_slice(row);
                }
            }
            assert_eq!(sums.len(), given.len());
            for (at, sum) in sums.iter().enumerate() {
                let expected = expected(&given, width, radius, at);
                let is_near = sum.iter().zip(expected).all(|(sum, expected)| (sum - expected).abs() < 1e-3);
                assert!(is_near, "{sum:?} instead of {expected:?} at {at} of {width}x{height}, radius {radius}");
            }
        }
    }
}
