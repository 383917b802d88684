//! Buffer pool for large tensors, reused by the same worker thread.
//!
//! The tensor of a painted picture is larger than what allocators cache. Allocating those of a
//! 320×180 picture from the system for each frame, and freeing them, cost 460 page faults a frame,
//! a quarter of the worker's time.

/// Buffers that are currently unused.
#[derive(Default)]
pub struct BufferPool(Vec<Vec<f32>>);

impl BufferPool {
    /// Maximum number of buffers kept: one for a model's input, one for its output.
    const KEPT: usize = 2;
    /// Minimum capacity, in values, of a buffer that is kept. Allocators handle smaller ones well.
    const LEAST: usize = 1 << 16;

    /// Returns an empty buffer with room for `values` values.
    pub fn with_room(&mut self, values: usize) -> Vec<f32> {
        let fits = |kept: &Vec<f32>| (values..=2 * values).contains(&kept.capacity());
        match self.0.iter().position(fits) {
            Some(index) => self.0.swap_remove(index),
            None => Vec::with_capacity(values),
        }
    }

    /// Returns a buffer to the pool; its values are discarded.
    pub fn put(&mut self, mut memory: Vec<f32>) {
        if memory.capacity() < Self::LEAST {
            return;
        }
        memory.clear();
        if self.0.len() == Self::KEPT {
            // The oldest buffer has a size that was not requested recently.
            self.0.remove(0);
        }
        self.0.push(memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_serves_the_next_of_its_size_with_nothing_in_it() {
        let mut buffers = BufferPool::default();
        let memory = vec![7.0; BufferPool::LEAST];
        let place = memory.as_ptr();
        buffers.put(memory);
        for other in [BufferPool::LEAST / 4, BufferPool::LEAST + 1] {
            assert!(buffers.with_room(other).capacity() >= other);
            assert_eq!(buffers.0.len(), 1, "what is much larger or too small stays");
        }
        let again = buffers.with_room(BufferPool::LEAST);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
    }

    #[test]
    fn two_are_kept_at_most_the_newest_and_none_that_are_small() {
        let mut buffers = BufferPool::default();
        buffers.put(vec![1.0; BufferPool::LEAST - 1]);
        assert!(buffers.0.is_empty());
        (1..4).for_each(|times| buffers.put(vec![1.0; times * BufferPool::LEAST]));
        assert_eq!(buffers.0.iter().map(Vec::capacity).collect::<Vec<_>>(), [2 * BufferPool::LEAST, 3 * BufferPool::LEAST]);
    }
}
