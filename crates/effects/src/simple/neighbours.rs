//! The neighbourhood of each pixel of a plane, and the gradient there.

/// A plane whose outermost pixels are repeated once on every side, so that each pixel has eight
/// neighbours.
#[derive(Default)]
pub(super) struct Bordered {
    data: Vec<u8>,
    stride: usize,
}

impl Bordered {
    /// Copies a plane of `width` columns.
    pub(super) fn set(&mut self, plane: &[u8], width: usize) {
        self.stride = width + 2;
        self.data.clear();
        self.data.reserve((plane.len() / width + 2) * self.stride);
        let rows = plane.chunks_exact(width);
        let (first, last) = (rows.clone().next(), rows.clone().next_back());
        for row in first.into_iter().chain(rows).chain(last) {
            self.data.push(row[0]);
            self.data.extend_from_slice(row);
            self.data.push(row[width - 1]);
        }
    }

    /// Returns the rows above, at and below row `y` of the plane, each starting one column to the
    /// left of it.
    pub(super) fn around(&self, y: usize) -> [&[u8]; 3] {
        [y, y + 1, y + 2].map(|row| &self.data[row * self.stride..][..self.stride])
    }
}

/// Computes the luma gradient at each pixel of a row with the two Sobel masks: (|across| + |down|)
/// / 4, limited to 0..=255.
pub(super) fn turns([above, row, below]: [&[u8]; 3], out: &mut [u8]) {
    let width = out.len();
    let (above, row, below) = (&above[..width + 2], &row[..width + 2], &below[..width + 2]);
    for (x, out) in out.iter_mut().enumerate() {
        let at = |row: &[u8], x: usize| i16::from(row[x]);
        let across = at(above, x + 2) + 2 * at(row, x + 2) + at(below, x + 2) - at(above, x) - 2 * at(row, x) - at(below, x);
        let down = at(below, x) + 2 * at(below, x + 1) + at(below, x + 2) - at(above, x) - 2 * at(above, x + 1) - at(above, x + 2);
        *out = ((across.abs() + down.abs()) >> 2).min(255) as u8;
    }
}
