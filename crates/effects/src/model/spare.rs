//! Memory of large tensors, for the next ones of the same worker thread.
//!
//! A tensor of a painted picture is larger than what allocators keep at hand: taken from the system for each frame and given back after it,
//! those of 320×180 cost 460 page faults a frame, a quarter of what the worker did.

/// Memory that nobody uses at the moment.
#[derive(Default)]
pub(crate) struct Spare(Vec<Vec<f32>>);

impl Spare {
    /// Most that is kept: what goes into a model, and what comes out.
    const KEPT: usize = 2;
    /// From so many values on: allocators are good at less.
    const LEAST: usize = 1 << 16;

    /// Nothing, with room for so many values.
    pub(crate) fn with_room(&mut self, values: usize) -> Vec<f32> {
        let fits = |kept: &Vec<f32>| (values..=2 * values).contains(&kept.capacity());
        match self.0.iter().position(fits) {
            Some(index) => self.0.swap_remove(index),
            None => Vec::with_capacity(values),
        }
    }

    /// Takes memory for what comes next. Its values are gone.
    pub(crate) fn put(&mut self, mut memory: Vec<f32>) {
        if memory.capacity() < Self::LEAST {
            return;
        }
        memory.clear();
        if self.0.len() == Self::KEPT {
            // What was put first is of a size that nobody asked for lately.
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
        let mut spare = Spare::default();
        let memory = vec![7.0; Spare::LEAST];
        let place = memory.as_ptr();
        spare.put(memory);
        for other in [Spare::LEAST / 4, Spare::LEAST + 1] {
            assert!(spare.with_room(other).capacity() >= other);
            assert_eq!(spare.0.len(), 1, "what is much larger or too small stays");
        }
        let again = spare.with_room(Spare::LEAST);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
    }

    #[test]
    fn two_are_kept_at_most_the_newest_and_none_that_are_small() {
        let mut spare = Spare::default();
        spare.put(vec![1.0; Spare::LEAST - 1]);
        assert!(spare.0.is_empty());
        (1..4).for_each(|times| spare.put(vec![1.0; times * Spare::LEAST]));
        assert_eq!(spare.0.iter().map(Vec::capacity).collect::<Vec<_>>(), [2 * Spare::LEAST, 3 * Spare::LEAST]);
    }
}
