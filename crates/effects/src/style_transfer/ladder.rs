//! Automatic resolution of the styled picture: a ladder of sizes, of which the largest that the
//! machine can process is used. The caller decides when to take a step.

/// Value of the `resolution` parameter and number of pixels for each step.
pub(super) const STEPS: [(&str, u32); 6] =
    [("180p", 320 * 180), ("216p", 384 * 216), ("288p", 512 * 288), ("360p", 640 * 360), ("540p", 960 * 540), ("720p", 1280 * 720)];

/// Index of the initial step.
const FIRST: usize = 1;
/// Maximum utilisation of the workers that is expected after a step up.
const ROOM_WANTED: f32 = 0.7;

/// The current step of one track.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ladder {
    step: usize,
}

impl Ladder {
    pub(super) fn new() -> Self {
        Self { step: FIRST }
    }

    /// Takes a step down. Returns `false` on the lowest step.
    pub(super) fn down(&mut self) -> bool {
        let may = self.step > 0;
        self.step = self.step.saturating_sub(1);
        may
    }

    /// Takes a step up if the workers have enough capacity. `utilisation` is the fraction of their
    /// time in use on the current step; it is expected to grow in proportion to the number of
    /// pixels.
    pub(super) fn up(&mut self, utilisation: f32) -> bool {
        let Some((_, pixels)) = STEPS.get(self.step + 1) else { return false };
        let may = utilisation * *pixels as f32 / (self.pixels() as f32) < ROOM_WANTED;
        self.step += usize::from(may);
        may
    }

    /// Returns the number of pixels of the styled picture.
    pub(super) fn pixels(&self) -> u32 {
        STEPS[self.step].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_leads_down_to_the_lowest_step_and_no_further() {
        let mut ladder = Ladder::new();
        assert_eq!(ladder.pixels(), 384 * 216);
        assert!(ladder.down());
        assert_eq!(ladder.pixels(), 320 * 180);
        assert!(!ladder.down());
        assert_eq!(ladder.pixels(), 320 * 180);
    }

    #[test]
    fn it_leads_up_to_the_highest_step_while_there_is_room() {
        let mut ladder = Ladder::new();
        assert!((2..6).all(|_| ladder.up(0.2)) && !ladder.up(0.2));
        assert_eq!(ladder.pixels(), 1280 * 720);
    }

    #[test]
    fn no_step_up_without_room() {
        // 288p is 1.78 times the pixels of 216p.
        assert!(!Ladder::new().up(0.4));
        assert!(Ladder::new().up(0.39));
    }
}
