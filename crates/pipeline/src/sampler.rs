//! Chooses the frames that are analysed.

use serde::{Deserialize, Serialize};

/// Selection of the frames that are analysed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Sampling {
    /// Every frame is offered. A newer frame replaces one that the workers cannot take.
    #[default]
    Auto,
    /// Every Nth frame is offered, starting with the first.
    Every(
        /// N, at least 1.
        std::num::NonZeroU32,
    ),
}

/// Counts frames and picks those that are offered to the workers.
#[derive(Debug)]
pub(crate) struct Sampler {
    sampling: Sampling,
    since_sample: u32,
}

impl Sampler {
    pub(crate) fn new(sampling: Sampling) -> Self {
        Self { sampling, since_sample: 0 }
    }

    /// Returns whether the next frame is to be analysed.
    pub(crate) fn sample(&mut self) -> bool {
        let Sampling::Every(n) = self.sampling else { return true };
        let take = self.since_sample == 0;
        self.since_sample = (self.since_sample + 1) % n.get();
        take
    }

    /// Selects the next frame in any case, because the effect or its parameters have changed.
    pub(crate) fn restart(&mut self) {
        self.since_sample = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_third_frame_starts_with_the_first() {
        let mut sampler = Sampler::new(Sampling::Every(3.try_into().unwrap()));
        let picks: Vec<bool> = (0..7).map(|_| sampler.sample()).collect();
        assert_eq!(picks, [true, false, false, true, false, false, true]);
    }

    #[test]
    fn auto_offers_all() {
        let mut sampler = Sampler::new(Sampling::Auto);
        assert!((0..10).all(|_| sampler.sample()));
    }

    #[test]
    fn restart_takes_the_next_frame() {
        let mut sampler = Sampler::new(Sampling::Every(3.try_into().unwrap()));
        sampler.sample();
        sampler.restart();
        assert!(sampler.sample());
    }
}
