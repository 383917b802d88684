//! Copies pictures out of the codec libraries' memory, and widens pictures to even sizes.

use std::ffi::c_int;

use ooblex_pipeline::{I420, Pool, Size};

/// Three planes of a picture in foreign memory: the start of each, and its stride (the bytes from
/// one row to the next).
pub(crate) struct ForeignPlanes {
    start: [*const u8; 3],
    stride: [usize; 3],
    size: Size,
}

impl ForeignPlanes {
    /// Checks the planes that a library has returned. Returns `None` if a start is null, the rows
    /// of a plane overlap or go backwards, or a side is not in 1..=`I420::MAX_SIDE`.
    pub(crate) fn new(start: [*const u8; 3], stride: [c_int; 3], size: Size) -> Option<Self> {
        let sides = 1..=I420::MAX_SIDE;
        let fits = sides.contains(&size.width) && sides.contains(&size.height) && start.iter().all(|plane| !plane.is_null());
        let stride = stride.map(|stride| usize::try_from(stride).unwrap_or(0));
        let holds_rows = stride.iter().zip(Self::columns(size)).all(|(stride, columns)| *stride >= columns);
        (fits && holds_rows).then_some(Self { start, stride, size })
    }

    /// Copies the planes into a picture of `pool`.
    ///
    /// # Safety
    /// For every plane of a picture of this size `start[i] + row * stride[i]` is readable for that plane's columns at each of its rows.
    pub(crate) unsafe fn copy(&self, pool: &Pool) -> I420 {
        let mut picture = pool.picture(self.size.width, self.size.height);
        let columns = Self::columns(self.size);
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

    fn columns(Size { width, .. }: Size) -> [usize; 3] {
        let chroma = width.div_ceil(2) as usize;
        [width as usize, chroma, chroma]
    }
}

/// Writes `picture` into `even`, whose sides are those of `picture` or one more, and repeats the
/// last column and row.
pub(crate) fn widen(picture: &I420, even: &mut I420) {
    let (from, to) = (picture.width() as usize, even.width() as usize);
    let source = picture.planes()[0];
    let [luma, u, v] = even.planes_mut();
    for (row, target) in luma.chunks_exact_mut(to).enumerate() {
        let row = row.min(source.len() / from - 1);
        target[..from].copy_from_slice(&source[row * from..][..from]);
        target[from..].fill(source[row * from + from - 1]);
    }
    // Chroma planes are rounded up already: their width is equal for 641 and 642 columns.
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

    #[test]
    fn invalid_planes_are_ignored() {
        let memory = [7_u8; 64];
        let (there, nowhere) = (memory.as_ptr(), std::ptr::null());
        let planes = |start, stride, (width, height)| ForeignPlanes::new(start, stride, Size { width, height });
        let fits = planes([there; 3], [8, 4, 4], (8, 4)).unwrap();
        // SAFETY: the largest plane has 32 bytes.
        assert!(unsafe { fits.copy(&Pool::default()) }.planes()[0].iter().all(|pixel| *pixel == 7));
        for (start, stride, size) in [
            ([there; 3], [7, 4, 4], (8, 4)),
            ([there; 3], [8, 3, 4], (8, 4)),
            ([there; 3], [-8, 4, 4], (8, 4)),
            ([there; 3], [8, 4, c_int::MIN], (8, 4)),
            ([there, there, nowhere], [8, 4, 4], (8, 4)),
            ([there; 3], [8, 4, 4], (0, 4)),
            ([there; 3], [5_000, 5_000, 5_000], (4_097, 4)),
        ] {
            assert!(planes(start, stride, size).is_none(), "{stride:?} {size:?}");
        }
    }
}
