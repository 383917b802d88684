//! When a track gives something up because the machine is short of CPU, and when it takes it back.
//!
//! It looks at one report a second and says what is due; what there is to give up, and in which order, is [`CONCESSIONS`]'s and the
//! report's to know. Down at once; up after some quiet seconds, and each step up that fails doubles the seconds, so that a track does
//! not swing. Every track decides for itself, by what became of its own frames: all see the same machine, and brokers let them take
//! turns, so none gives up more than the others for long.
//!
//! What can not be helped by giving up quality costs frames: they are replaced by newer ones before they are analysed, which needs no
//! decision, or are left where they were decoded, which [`super::frame_rate`] decides.

use std::time::Duration;

/// Share of the frames that found no CPU, above which a track gives something up.
const TOO_MANY_MISSED: f64 = 0.1;
/// Time that a compressed frame waits for the track's thread, on average, above which a track gives something up: a thread that has
/// CPU takes it at once.
const TOO_LONG_WAITED: Duration = Duration::from_millis(15);
/// Reports (one a second) without a missed frame before something is taken back, and the most that failures make of it.
const PATIENCE: u32 = 5;
const MOST_PATIENCE: u32 = 320;

/// How the machine kept up with one track since the last report.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Signs {
    /// Frames that were decoded.
    pub(super) admitted: u64,
    /// Frames of those that were superseded or replaced by a newer one for want of CPU of this machine.
    pub(super) missed_here: u64,
    /// Frames of those that were replaced by a newer one because workers on other machines were busy.
    pub(super) missed_elsewhere: u64,
    /// Mean time that compressed frames waited for the track's thread.
    pub(super) waited: Duration,
}

impl Signs {
    /// Whether it is this machine that is short of CPU, so that it helps to use less of it here.
    pub(super) fn is_short_here(&self) -> bool {
        self.missed_here as f64 > TOO_MANY_MISSED * self.admitted as f64 || self.waited > TOO_LONG_WAITED
    }

    fn is_short(&self) -> bool {
        self.is_short_here() || self.missed_elsewhere as f64 > TOO_MANY_MISSED * self.admitted as f64
    }
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Advice {
    /// Give up the next thing.
    GiveUp,
    /// Take the last thing back, then say so with [`Adaptation::taken_back`].
    TakeBack,
    /// Leave all as it is.
    Stay,
}

/// The patience of one track.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Adaptation {
    /// Reports without a missed frame in a row, since the last change.
    quiet: u32,
    patience: u32,
    /// The last change was something taken back, and has not yet lasted for as long as it was waited for.
    on_trial: bool,
}

impl Adaptation {
    pub(super) fn new() -> Self {
        Self { quiet: 0, patience: PATIENCE, on_trial: false }
    }

    /// Takes a report.
    pub(super) fn on_report(&mut self, signs: &Signs) -> Advice {
        if signs.admitted == 0 {
            return Advice::Stay;
        }
        if signs.is_short() {
            if self.on_trial {
                self.patience = (2 * self.patience).min(MOST_PATIENCE);
            }
            self.quiet = 0;
            self.on_trial = false;
            return Advice::GiveUp;
        }
        self.quiet = if signs.missed_here + signs.missed_elsewhere > 0 { 0 } else { self.quiet + 1 };
        if self.quiet < self.patience {
            return Advice::Stay;
        }
        if self.on_trial {
            self.on_trial = false;
            self.patience = PATIENCE;
        }
        Advice::TakeBack
    }

    /// Something was taken back: now it has to last.
    pub(super) fn taken_back(&mut self) {
        self.quiet = 0;
        self.on_trial = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signs(missed_here: u64, waited_ms: u64) -> Signs {
        Signs { admitted: 30, missed_here, missed_elsewhere: 0, waited: Duration::from_millis(waited_ms) }
    }

    /// The advice of the last of so many like reports. What may be taken back is.
    fn after(adaptation: &mut Adaptation, reports: u32, missed: u64) -> Advice {
        let mut advice = Advice::Stay;
        for _ in 0..reports {
            advice = adaptation.on_report(&signs(missed, 0));
            if advice == Advice::TakeBack {
                adaptation.taken_back();
            }
        }
        advice
    }

    #[test]
    fn missed_frames_cost_something_at_once_and_every_second() {
        let mut adaptation = Adaptation::new();
        assert_eq!(after(&mut adaptation, 1, 4), Advice::GiveUp);
        assert_eq!(after(&mut adaptation, 1, 4), Advice::GiveUp);
    }

    #[test]
    fn frames_that_wait_for_their_thread_do_so_too() {
        assert_eq!(Adaptation::new().on_report(&signs(0, 16)), Advice::GiveUp);
        assert_eq!(Adaptation::new().on_report(&signs(0, 14)), Advice::Stay);
    }

    #[test]
    fn workers_elsewhere_cost_something_but_not_of_this_machine() {
        let signs = Signs { missed_elsewhere: 20, ..signs(0, 0) };
        assert_eq!(Adaptation::new().on_report(&signs), Advice::GiveUp);
        assert!(!signs.is_short_here());
    }

    #[test]
    fn a_few_missed_frames_change_nothing() {
        assert_eq!(after(&mut Adaptation::new(), 100, 2), Advice::Stay);
    }

    #[test]
    fn quiet_seconds_lead_back() {
        let mut adaptation = Adaptation::new();
        assert_eq!(after(&mut adaptation, 4, 0), Advice::Stay);
        assert_eq!(after(&mut adaptation, 1, 0), Advice::TakeBack);
    }

    #[test]
    fn what_is_not_taken_back_is_offered_again() {
        let mut adaptation = Adaptation::new();
        after(&mut adaptation, 4, 0);
        assert_eq!(adaptation.on_report(&signs(0, 0)), Advice::TakeBack);
        assert_eq!(adaptation.on_report(&signs(0, 0)), Advice::TakeBack);
    }

    #[test]
    fn a_step_back_that_fails_is_tried_again_ever_later() {
        let mut adaptation = Adaptation::new();
        for waited in [5, 10, 20, 40, 80, 160, 320, 320] {
            assert_eq!(after(&mut adaptation, waited - 1, 0), Advice::Stay, "too early, before {waited}");
            assert_eq!(after(&mut adaptation, 1, 0), Advice::TakeBack, "not after {waited}");
            assert_eq!(after(&mut adaptation, 1, 10), Advice::GiveUp);
        }
    }

    #[test]
    fn a_step_back_that_lasts_makes_it_trust_again() {
        let mut adaptation = Adaptation::new();
        after(&mut adaptation, 5, 0);
        after(&mut adaptation, 1, 10);
        assert_eq!(after(&mut adaptation, 10, 0), Advice::TakeBack);
        assert_eq!(after(&mut adaptation, 10, 0), Advice::TakeBack, "it has lasted");
        after(&mut adaptation, 5, 0);
        assert_eq!(after(&mut adaptation, 1, 10), Advice::GiveUp);
    }

    #[test]
    fn a_silent_track_stays_where_it_is() {
        let mut adaptation = Adaptation::new();
        assert!((0..100).all(|_| adaptation.on_report(&Signs::default()) == Advice::Stay));
        assert_eq!(adaptation, Adaptation::new());
    }
}
