//! Pixels out of the codec libraries' memory, and pictures widened to what a codec can take.

use ooblex_pipeline::{I420, Pool};

/// Three planes in foreign memory: where each begins, and the bytes from one row to the next.
pub(crate) struct ForeignPlanes {
    pub(crate) start: [*const u8; 3],
    pub(crate) stride: [usize; 3],
}

impl ForeignPlanes {
    /// Copies the planes into a picture of `pool`.
    ///
    /// # Safety
    /// `width` and `height` are in 1..=`I420::MAX_SIDE`, and for every plane of such a picture `start[i] + row * stride[i]` is readable for
    /// that plane's columns at each of its rows.
    pub(crate) unsafe fn copy(&self, pool: &Pool, width: u32, height: u32) -> I420 {
        let mut picture = pool.picture(width, height);
        let columns = [width as usize, width.div_ceil(2) as usize, width.div_ceil(2) as usize];
        for (index, plane) in picture.planes_mut().into_iter().enumerate() {
            for (row, target) in plane.chunks_exact_mut(columns[index]).enumerate() {
                // SAFETY: the caller vouches for this row of this plane; `target` is as long as its columns.
                target.copy_from_slice(unsafe {
                    std::slice::from_raw_parts(self.start[index].add(row * self.stride[index]), columns[index])
                });
            }
        }
        picture
    }
}

/// Writes `picture` into `even`, whose sides are those of `picture` or one more, by repeating the last column and row.
pub(crate) fn widen(picture: &I420, even: &mut I420) {
    let (from, to) = (picture.width() as usize, even.width() as usize);
    let source = picture.planes()[0];
    let [luma, u, v] = even.planes_mut();
    for (row, target) in luma.chunks_exact_mut(to).enumerate() {
        let row = row.min(source.len() / from - 1);
        target[..from].copy_from_slice(&source[row * from..][..from]);
        target[from..].fill(source[row * from + from - 1]);
    }
    // Chroma planes are rounded up already: they are the same for 641 and 642.
    u.copy_from_slice(picture.planes()[1]);
    v.copy_from_slice(picture.planes()[2]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_sides_repeat_their_last_column_and_row() {
        let mut odd = I420::grey(3, 3, 16);
        odd.planes_mut()[0].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8, 9]);
        odd.planes_mut()[1].copy_from_slice(&[10, 11, 12, 13]);
        let mut even = I420::grey(4, 4, 16);
        widen(&odd, &mut even);
        assert_eq!(even.planes()[0], [1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9, 7, 8, 9, 9]);
        assert_eq!(even.planes()[1], [10, 11, 12, 13]);
    }
}
