//! The quality controller of a track: when it takes a quality step down because CPU is short, and
//! when it takes one up again.
//!
//! It looks at one report a second and gives an advice; [`super::report`] knows the steps
//! ([`QUALITY_STEPS`](crate::labels::QUALITY_STEPS)) and their order. A step down comes at once. A
//! step up comes after some quiet reports, and each step up that fails doubles their number
//! (exponential backoff), so that quality does not oscillate. Each track decides by its own frames
//! alone. All tracks see the same machine, and brokers serve them in turns, so no track stays lower
//! than the others for long.
//!
//! A shortage that quality does not help costs frames: they are replaced by newer ones before they
//! are analysed, or dropped after they are decoded, which [`super::frame_rate`] decides.

use std::time::Duration;

/// The fraction of frames that were missed above which quality is lowered.
const MISSED_RATIO_LIMIT: f64 = 0.1;
/// The mean wait of compressed frames for the track's thread above which quality is lowered. A
/// thread that has CPU takes a frame at once.
const WAIT_LIMIT: Duration = Duration::from_millis(15);
/// Reports (one a second) without a missed frame before the first step up.
const STEP_UP_AFTER_REPORTS: u32 = 5;
/// The upper bound of that number after steps up that failed.
const MAX_STEP_UP_AFTER_REPORTS: u32 = 320;

/// The load of the machine as one track saw it since the last report.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LoadSample {
    /// Frames that were decoded.
    pub(super) admitted: u64,
    /// Decoded frames that gave way to a newer one because this machine was short of CPU.
    pub(super) missed_here: u64,
    /// Decoded frames that were replaced by a newer one because workers on other machines were
    /// busy.
    pub(super) missed_elsewhere: u64,
    /// The mean wait of compressed frames for the track's thread.
    pub(super) waited: Duration,
}

impl LoadSample {
    /// Tells whether this machine is short of CPU, so that it helps to use less of it here.
    pub(super) fn is_short_here(&self) -> bool {
        self.missed_here as f64 > MISSED_RATIO_LIMIT * self.admitted as f64 || self.waited > WAIT_LIMIT
    }

    /// Tells whether this machine or the workers elsewhere are short of CPU.
    fn is_short(&self) -> bool {
        self.is_short_here() || self.missed_elsewhere as f64 > MISSED_RATIO_LIMIT * self.admitted as f64
    }
}

/// The advice of one report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QualityAdvice {
    /// Take the next quality step down.
    StepDown,
    /// Take the last quality step up again, and confirm it with [`QualityController::on_step_up`].
    StepUp,
    /// Change nothing.
    Stay,
}

/// The quality controller of one track.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct QualityController {
    /// Reports in a row without a missed frame since the last step.
    quiet_reports: u32,
    /// Quiet reports before the next step up.
    step_up_after: u32,
    /// The last step was one up, and has not yet lasted for `step_up_after` reports.
    on_trial: bool,
}

impl QualityController {
    pub(super) fn new() -> Self {
        Self { quiet_reports: 0, step_up_after: STEP_UP_AFTER_REPORTS, on_trial: false }
    }

    /// Takes the sample of one report.
    pub(super) fn on_report(&mut self, sample: &LoadSample) -> QualityAdvice {
        if sample.admitted == 0 {
            return QualityAdvice::Stay;
        }
        if sample.is_short() {
            if self.on_trial {
                self.step_up_after = (2 * self.step_up_after).min(MAX_STEP_UP_AFTER_REPORTS);
            }
            self.quiet_reports = 0;
            self.on_trial = false;
            return QualityAdvice::StepDown;
        }
        self.quiet_reports = if sample.missed_here + sample.missed_elsewhere > 0 { 0 } else { self.quiet_reports + 1 };
        if self.quiet_reports < self.step_up_after {
            return QualityAdvice::Stay;
        }
        if self.on_trial {
            self.on_trial = false;
            self.step_up_after = STEP_UP_AFTER_REPORTS;
        }
        QualityAdvice::StepUp
    }

    /// Confirms that a step up was taken. It has to last from now on.
    pub(super) fn on_step_up(&mut self) {
        self.quiet_reports = 0;
        self.on_trial = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(missed_here: u64, waited_ms: u64) -> LoadSample {
        LoadSample { admitted: 30, missed_here, missed_elsewhere: 0, waited: Duration::from_millis(waited_ms) }
    }

    /// Returns the advice of the last of this many equal reports. Each step up that is advised is
    /// taken.
    fn after(controller: &mut QualityController, reports: u32, missed: u64) -> QualityAdvice {
        let mut advice = QualityAdvice::Stay;
        for _ in 0..reports {
            advice = controller.on_report(&sample(missed, 0));
            if advice == QualityAdvice::StepUp {
                controller.on_step_up();
            }
        }
        advice
    }

    #[test]
    fn missed_frames_lower_quality_at_once_and_every_second() {
        let mut controller = QualityController::new();
        assert_eq!(after(&mut controller, 1, 4), QualityAdvice::StepDown);
        assert_eq!(after(&mut controller, 1, 4), QualityAdvice::StepDown);
    }

    #[test]
    fn frames_that_wait_for_their_thread_lower_quality() {
        assert_eq!(QualityController::new().on_report(&sample(0, 16)), QualityAdvice::StepDown);
        assert_eq!(QualityController::new().on_report(&sample(0, 14)), QualityAdvice::Stay);
    }

    #[test]
    fn busy_workers_elsewhere_lower_quality_but_not_for_this_machine() {
        let sample = LoadSample { missed_elsewhere: 20, ..sample(0, 0) };
        assert_eq!(QualityController::new().on_report(&sample), QualityAdvice::StepDown);
        assert!(!sample.is_short_here());
    }

    #[test]
    fn a_few_missed_frames_change_nothing() {
        assert_eq!(after(&mut QualityController::new(), 100, 2), QualityAdvice::Stay);
    }

    #[test]
    fn quiet_reports_lead_back_up() {
        let mut controller = QualityController::new();
        assert_eq!(after(&mut controller, 4, 0), QualityAdvice::Stay);
        assert_eq!(after(&mut controller, 1, 0), QualityAdvice::StepUp);
    }

    #[test]
    fn a_step_up_that_is_not_taken_is_advised_again() {
        let mut controller = QualityController::new();
        after(&mut controller, 4, 0);
        assert_eq!(controller.on_report(&sample(0, 0)), QualityAdvice::StepUp);
        assert_eq!(controller.on_report(&sample(0, 0)), QualityAdvice::StepUp);
    }

    #[test]
    fn a_step_up_that_fails_is_retried_ever_later() {
        let mut controller = QualityController::new();
        for waited in [5, 10, 20, 40, 80, 160, 320, 320] {
            assert_eq!(after(&mut controller, waited - 1, 0), QualityAdvice::Stay, "too early, before {waited}");
            assert_eq!(after(&mut controller, 1, 0), QualityAdvice::StepUp, "not after {waited}");
            assert_eq!(after(&mut controller, 1, 10), QualityAdvice::StepDown);
        }
    }

    #[test]
    fn a_step_up_that_lasts_resets_the_backoff() {
        let mut controller = QualityController::new();
        after(&mut controller, 5, 0);
        after(&mut controller, 1, 10);
        assert_eq!(after(&mut controller, 10, 0), QualityAdvice::StepUp);
        assert_eq!(after(&mut controller, 10, 0), QualityAdvice::StepUp, "it has lasted");
        after(&mut controller, 5, 0);
        assert_eq!(after(&mut controller, 1, 10), QualityAdvice::StepDown);
    }

    #[test]
    fn a_silent_track_stays_where_it_is() {
        let mut controller = QualityController::new();
        assert!((0..100).all(|_| controller.on_report(&LoadSample::default()) == QualityAdvice::Stay));
        assert_eq!(controller, QualityController::new());
    }
}
