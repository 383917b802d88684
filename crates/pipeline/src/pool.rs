//! Pool that reuses the memory of dropped pictures for the next pictures of the same stream.
//!
//! A picture of 1280×720 is larger than what allocators keep: taken from the system for each frame
//! and returned after it, it costs 340 page faults. A pool belongs to one stream and ends with it,
//! so a picture's memory never gets to another stream.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::I420;

/// Memory pool for the pictures of one stream. Clones share one pool.
#[derive(Debug, Clone, Default)]
pub struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

impl Pool {
    /// Maximum number of pictures whose memory is kept. A track without load paints one picture and
    /// holds another.
    pub const KEPT: usize = 3;

    /// Returns a picture of this size. **Its pixels may be those of an earlier picture of this
    /// pool**, so the caller must write all of them.
    ///
    /// # Panics
    /// When a side is 0 or above [`I420::MAX_SIDE`]: sizes are checked where pictures come in.
    pub fn picture(&self, width: u32, height: u32) -> I420 {
        let bytes = I420::len(width, height);
        let mut kept = self.0.lock();
        let data = match kept.pop() {
            Some(data) if data.len() == bytes => data,
            Some(_) => {
                // The stream has another size now.
                kept.clear();
                Vec::new()
            }
            None => Vec::new(),
        };
        drop(kept);
        I420::in_memory_of(self.clone(), data, width, height)
    }

    /// Takes back the memory of a picture that was dropped.
    pub(crate) fn put(&self, data: Vec<u8>) {
        let mut kept = self.0.lock();
        if kept.len() < Self::KEPT {
            kept.push(data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the address of the luma plane.
    fn place(picture: &I420) -> *const u8 {
        picture.planes()[0].as_ptr()
    }

    fn kept(pool: &Pool) -> usize {
        pool.0.lock().len()
    }

    #[test]
    fn the_memory_of_a_dropped_picture_serves_the_next_one() {
        let pool = Pool::default();
        let first = pool.picture(64, 48);
        let memory = place(&first);
        drop(first);
        assert_eq!(place(&pool.picture(64, 48)), memory);
        assert_eq!(place(&pool.picture(48, 64)), memory, "as many bytes, turned");
    }

    #[test]
    fn the_pool_keeps_no_more_than_its_limit_and_only_buffers_of_one_size() {
        let pool = Pool::default();
        drop((0..5).map(|_| pool.picture(64, 48)).collect::<Vec<_>>());
        assert_eq!(kept(&pool), Pool::KEPT);
        let larger = pool.picture(128, 96);
        assert_eq!((larger.planes()[0].len(), kept(&pool)), (128 * 96, 0));
    }

    #[test]
    fn a_copy_comes_from_the_same_pool_and_has_the_same_pixels() {
        let pool = Pool::default();
        let (mut first, spare) = (pool.picture(64, 48), pool.picture(64, 48));
        first.planes_mut().into_iter().for_each(|plane| plane.fill(77));
        let memory = place(&spare);
        drop(spare);
        let copy = first.clone();
        assert!(copy == first && place(&copy) == memory);
    }

    #[test]
    fn a_picture_may_outlive_its_stream() {
        let pool = Pool::default();
        let picture = pool.picture(64, 48);
        drop(pool);
        drop(picture.another(64, 48));
        assert_eq!(picture.width(), 64);
    }
}
