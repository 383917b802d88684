//! How much may be sent as far as losses tell, in steps down when many packets are lost and up again when none are.
//!
//! For browsers that give no estimate of the bandwidth (GStreamer, for one) it is all there is to go by. For the others it is a backstop:
//! an estimate that is made of delays does not see a queue that is always full. It looks at the receiver's reports only
//! (RFC 3550 §6.4.1), in the manner of draft-ietf-rmcat-gcc-02 §6.

/// With fewer packets lost than this, all is well, and more is tried.
const FEW: f32 = 0.02;
/// Where there is no estimate, more than this are too many.
const MANY: f32 = 0.10;
/// Where there is one, it answers to losses itself; more than this it has overlooked,
const OVERLOOKED: f32 = 0.25;
/// and more than this, when packets take long as well: a queue that is always full delays all of them alike, which it does not see.
const OVERFLOWING: f32 = 0.08;
/// Such a queue empties when so much of what came through is sent.
const EMPTYING: f32 = 0.9;
/// More than this are never taken for a property of the network.
const INTOLERABLE: f32 = 0.5;
/// A step down has not helped when about as much is lost as before: this part of it, at least and at most.
const AS_BEFORE: std::ops::Range<f32> = 0.75..1.5;
/// The steps up where there is no estimate: reports come about once a second.
const CAREFUL: f32 = 1.15;
/// The steps up where there is an estimate, which is careful itself.
const BOLD: f32 = 1.3;

/// Near to what was too much, the steps up are small at first, and each is larger than the last by this: it may still be too much, or
/// the network has become wider.
const CREEPING: f32 = 0.03;
/// Near is from so much of it on.
const NEAR: f32 = 0.85;

/// What there is beside losses to go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beside {
    /// Nothing.
    Nothing,
    /// An estimate of the bandwidth.
    Estimate,
    /// The same, and packets take much longer than the quickest did.
    Queue,
}

/// What the losses allow.
#[derive(Debug)]
pub(super) struct LossControl {
    /// It allows no less.
    least_bps: u32,
    /// `None`: as much as is wanted.
    limit_bps: Option<u32>,
    /// What was sent at the last step down: too much, then.
    ceiling_bps: u32,
    /// Losses at the last step down, as long as they last.
    cut_at: Option<f32>,
    /// Reports without losses since what is sent came near to that.
    clean: u16,
    /// The next report still tells of what was before the step down.
    is_fresh: bool,
    /// Losses that sending less does not lessen.
    inherent: f32,
}

impl LossControl {
    /// Nothing is lost.
    pub(super) fn new(least_bps: u32) -> Self {
        Self { least_bps, limit_bps: None, ceiling_bps: u32::MAX, clean: 0, cut_at: None, is_fresh: false, inherent: 0.0 }
    }

    /// The share of packets that the receiver has missed, 0..=1, while `sent_bps` were sent of the `wanted_bps` that there would be without
    /// a limit.
    pub(super) fn on_report(&mut self, loss: f32, sent_bps: u32, wanted_bps: u32, beside: Beside) {
        let (many, growth, left) = match beside {
            Beside::Nothing => (MANY, CAREFUL, 1.0),
            Beside::Estimate => (OVERLOOKED, BOLD, 1.0),
            Beside::Queue => (OVERFLOWING, BOLD, EMPTYING),
        };
        let loss = loss.clamp(0.0, 1.0);
        if std::mem::take(&mut self.is_fresh) {
            return;
        }
        if loss > many.max(self.inherent).min(INTOLERABLE) {
            if self.cut_at.is_some_and(|before| AS_BEFORE.contains(&(loss / before))) {
                // Sending less did not help: a radio that loses, not a queue that is full.
                self.inherent = 1.1 * loss;
            }
            if loss > self.inherent.min(INTOLERABLE) {
                self.limit_bps = Some(((sent_bps as f32 * (1.0 - loss) * left) as u32).max(self.least_bps));
                self.cut_at = Some(loss);
                (self.ceiling_bps, self.clean) = (sent_bps, 0);
                self.is_fresh = true;
            }
        } else if loss < FEW && beside != Beside::Queue {
            (self.cut_at, self.inherent) = (None, 0.0);
            let near = (self.ceiling_bps as f32 * NEAR) as u32;
            let grown = self.limit_bps.map(|limit| match (limit as f32 * growth) as u32 {
                grown if grown > near => {
                    self.clean = self.clean.saturating_add(1);
                    let careful = (1.0 + CREEPING * f32::from(self.clean)).min(growth);
                    near.max((limit as f32 * careful) as u32)
                }
                grown => grown,
            });
            self.limit_bps = grown.filter(|limit| *limit < wanted_bps);
        }
    }

    /// What earlier losses told is out of date, and so is the next report, which tells of them.
    pub(super) fn forget(&mut self) {
        *self = Self { is_fresh: true, ..Self::new(self.least_bps) };
    }

    /// Bits a second that may be sent; `None`: any number.
    pub(super) fn limit_bps(&self) -> Option<u32> {
        self.limit_bps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u32 = 2_500_000;
    const MIN: u32 = 100_000;

    /// Stands for any report: what it says does not count.
    const ANY: f32 = 0.9;

    /// What is sent after reports of these losses.
    fn after(control: &mut LossControl, losses: &[f32], beside: Beside) -> u32 {
        for loss in losses {
            let sent = control.limit_bps().unwrap_or(START);
            control.on_report(*loss, sent, START, beside);
        }
        control.limit_bps().unwrap_or(START)
    }

    #[test]
    fn a_few_losses_change_nothing() {
        assert_eq!(after(&mut LossControl::new(MIN), &[0.0, 0.01, 0.05, 0.09, 0.0], Beside::Nothing), START);
        assert_eq!(after(&mut LossControl::new(MIN), &[0.0, 0.2, 0.1, 0.2], Beside::Estimate), START, "the estimate sees to that");
    }

    #[test]
    fn many_losses_leave_what_has_come_through() {
        assert_eq!(after(&mut LossControl::new(MIN), &[0.2], Beside::Nothing), 2_000_000);
        assert_eq!(after(&mut LossControl::new(MIN), &[0.2, ANY, 0.12], Beside::Nothing), 1_760_000, "and then less, as long as it helps");
    }

    #[test]
    fn between_few_and_many_it_stays_where_it_is() {
        let mut control = LossControl::new(MIN);
        let low = after(&mut control, &[0.5, ANY], Beside::Nothing);
        assert_eq!(after(&mut control, &[0.03, 0.09, 0.05], Beside::Nothing), low);
    }

    #[test]
    fn it_comes_back_step_by_step_and_then_all_is_free() {
        let mut control = LossControl::new(MIN);
        assert_eq!(after(&mut control, &[0.5, ANY], Beside::Nothing), 1_250_000);
        assert_eq!(after(&mut control, &[0.0], Beside::Nothing), 1_437_500);
        assert_eq!(after(&mut control, &[0.0; 3], Beside::Nothing), 2_125_000, "most of the way in seconds");
        assert!((2_180_000..2_260_000).contains(&after(&mut control, &[0.0], Beside::Nothing)), "the rest with care");
        after(&mut control, &[0.0; 5], Beside::Nothing);
        assert_eq!(control.limit_bps(), None);
    }

    #[test]
    fn losses_that_sending_less_does_not_lessen_are_lived_with() {
        let mut control = LossControl::new(MIN);
        let cut = after(&mut control, &[0.2, ANY], Beside::Nothing);
        assert_eq!(after(&mut control, &[0.2, 0.19, 0.21, 0.2, 0.2], Beside::Nothing), cut, "one step was enough to know");
        assert!(after(&mut control, &[0.4], Beside::Nothing) < cut, "but not with more");
    }

    #[test]
    fn fewer_losses_are_too_many_where_packets_queue_and_it_stays_low_until_they_do_not() {
        let mut control = LossControl::new(MIN);
        assert_eq!(after(&mut control, &[0.2], Beside::Queue), 1_800_000);
        assert_eq!(after(&mut control, &[ANY, 0.0, 0.0], Beside::Queue), 1_800_000);
        assert!(after(&mut control, &[0.0], Beside::Estimate) > 1_800_000);
    }

    #[test]
    fn a_link_that_takes_a_twentieth_is_found_with_one_report_and_the_least_is_kept() {
        let mut control = LossControl::new(MIN);
        assert_eq!(after(&mut control, &[0.95, ANY], Beside::Estimate), 125_000);
        assert_eq!(after(&mut control, &[0.6], Beside::Estimate), MIN);
    }

    #[test]
    fn reports_that_make_no_sense_do_no_harm() {
        let mut control = LossControl::new(MIN);
        assert_eq!(after(&mut control, &[f32::NAN, -1.0, f32::NAN], Beside::Nothing), START);
        assert_eq!(after(&mut control, &[7.0, f32::INFINITY], Beside::Nothing), MIN);
    }
}
