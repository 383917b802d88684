//! How large the styled picture is when nobody fixed it: as large as the machine manages. It knows reports of load, not pixels.

use crate::effect::Load;

/// The words of the parameter for each step, and the pixels that each is worth.
pub(super) const STEPS: [(&str, u32); 4] = [("180p", 320 * 180), ("216p", 384 * 216), ("288p", 512 * 288), ("360p", 640 * 360)];

/// Where the ladder is entered.
const FIRST: usize = 1;
/// Share of frames that no worker was free for, above which the models are too slow.
const TOO_MANY_REPLACED: f32 = 0.1;
/// Share of the workers' time that the next step up may be expected to take.
const ROOM_WANTED: f32 = 0.7;
/// Reports (one a second) without a replaced frame before a step up is tried, and the most that failures make of it.
const PATIENCE: u32 = 5;
const MOST_PATIENCE: u32 = 320;

/// The step that one track is on. Down at once when the models can not keep up; up after some quiet seconds when there is room,
/// and each step up that fails doubles the seconds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ladder {
    step: usize,
    /// Reports since a frame was replaced, or since the last step.
    quiet: u32,
    patience: u32,
    /// Whether the last step was one up and has not yet lasted for as long as it was waited for.
    on_trial: bool,
}

impl Ladder {
    pub(super) fn new() -> Self {
        Self { step: FIRST, quiet: 0, patience: PATIENCE, on_trial: false }
    }

    /// Takes a report.
    pub(super) fn on_load(&mut self, load: &Load) {
        if load.offered == 0 {
            return;
        }
        if load.replaced as f32 > TOO_MANY_REPLACED * load.offered as f32 {
            self.down();
        } else if load.replaced > 0 {
            self.quiet = 0;
        } else {
            self.quiet += 1;
            if self.quiet >= self.patience {
                self.up(load);
            }
        }
    }

    /// Pixels of the styled picture.
    pub(super) fn pixels(&self) -> u32 {
        STEPS[self.step].1
    }

    fn down(&mut self) {
        if self.on_trial {
            self.patience = (2 * self.patience).min(MOST_PATIENCE);
        }
        self.step = self.step.saturating_sub(1);
        self.quiet = 0;
        self.on_trial = false;
    }

    fn up(&mut self, load: &Load) {
        if self.on_trial {
            self.on_trial = false;
            self.patience = PATIENCE;
        }
        let Some((_, pixels)) = STEPS.get(self.step + 1) else { return };
        if load.utilisation * *pixels as f32 / (self.pixels() as f32) < ROOM_WANTED {
            self.step += 1;
            self.quiet = 0;
            self.on_trial = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn load(replaced: u32, utilisation: f32) -> Load {
        Load { offered: 30, replaced, model_time: Duration::from_millis(20), utilisation }
    }

    fn after(ladder: &mut Ladder, reports: u32, replaced: u32, utilisation: f32) -> u32 {
        (0..reports).for_each(|_| ladder.on_load(&load(replaced, utilisation)));
        ladder.pixels()
    }

    #[test]
    fn replaced_frames_lead_down_at_once() {
        let mut ladder = Ladder::new();
        assert_eq!(ladder.pixels(), 384 * 216);
        assert_eq!(after(&mut ladder, 1, 4, 1.0), 320 * 180);
        assert_eq!(after(&mut ladder, 5, 30, 1.0), 320 * 180);
    }

    #[test]
    fn a_few_replaced_frames_change_nothing() {
        assert_eq!(after(&mut Ladder::new(), 100, 2, 0.1), 384 * 216);
    }

    #[test]
    fn room_leads_up_after_quiet_seconds() {
        let mut ladder = Ladder::new();
        assert_eq!(after(&mut ladder, 4, 0, 0.2), 384 * 216);
        assert_eq!(after(&mut ladder, 1, 0, 0.2), 512 * 288);
        assert_eq!(after(&mut ladder, 100, 0, 0.2), 640 * 360);
    }

    #[test]
    fn no_step_up_without_room() {
        // 288p is 1.78 times the pixels of 216p.
        assert_eq!(after(&mut Ladder::new(), 100, 0, 0.4), 384 * 216);
        assert_eq!(after(&mut Ladder::new(), 5, 0, 0.39), 512 * 288);
    }

    #[test]
    fn a_step_up_that_fails_is_tried_again_ever_later() {
        let mut ladder = Ladder::new();
        for waited in [5, 10, 20, 40, 80, 160, 320, 320] {
            assert_eq!(after(&mut ladder, waited - 1, 0, 0.2), 384 * 216, "too early, before {waited}");
            assert_eq!(after(&mut ladder, 1, 0, 0.2), 512 * 288, "not after {waited}");
            assert_eq!(after(&mut ladder, 1, 10, 1.0), 384 * 216);
        }
    }

    #[test]
    fn a_step_up_that_lasts_makes_it_trust_again() {
        let mut ladder = Ladder::new();
        after(&mut ladder, 5, 0, 0.2);
        after(&mut ladder, 1, 10, 1.0);
        assert_eq!(after(&mut ladder, 10, 0, 0.2), 512 * 288);
        after(&mut ladder, 10, 0, 0.6);
        assert_eq!(after(&mut ladder, 1, 10, 1.0), 384 * 216);
        assert_eq!(after(&mut ladder, 5, 0, 0.2), 512 * 288);
    }

    #[test]
    fn a_silent_track_stays_where_it_is() {
        let mut ladder = Ladder::new();
        let silent = Load { offered: 0, replaced: 0, model_time: Duration::ZERO, utilisation: 0.0 };
        (0..100).for_each(|_| ladder.on_load(&silent));
        assert_eq!(ladder, Ladder::new());
    }
}
