//! How large the styled picture is when nobody fixed it: as large as the machine manages. It knows steps and the room for them;
//! when to take one is the caller's to say.

/// The words of the parameter for each step, and the pixels that each is worth.
pub(super) const STEPS: [(&str, u32); 6] =
    [("180p", 320 * 180), ("216p", 384 * 216), ("288p", 512 * 288), ("360p", 640 * 360), ("540p", 960 * 540), ("720p", 1280 * 720)];

/// Where the ladder is entered.
const FIRST: usize = 1;
/// Share of the workers' time that the next step up may be expected to take.
const ROOM_WANTED: f32 = 0.7;

/// The step that one track is on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ladder {
    step: usize,
}

impl Ladder {
    pub(super) fn new() -> Self {
        Self { step: FIRST }
    }

    /// A step down. `false`: this is the lowest.
    pub(super) fn down(&mut self) -> bool {
        let may = self.step > 0;
        self.step = self.step.saturating_sub(1);
        may
    }

    /// A step up, if the workers, of whose time `utilisation` is in use on this one, have room for it. The models' time grows
    /// with the pixels.
    pub(super) fn up(&mut self, utilisation: f32) -> bool {
        let Some((_, pixels)) = STEPS.get(self.step + 1) else { return false };
        let may = utilisation * *pixels as f32 / (self.pixels() as f32) < ROOM_WANTED;
        self.step += usize::from(may);
        may
    }

    /// Pixels of the styled picture.
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
