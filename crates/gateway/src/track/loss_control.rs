//! The loss-based controller of the bitrate: it steps down when many packets are lost, and up again
//! when none are.
//!
//! For browsers that give no estimate of the bandwidth (GStreamer, for one) it is the only
//! controller. For all others it is a backstop, since an estimate made of delays does not see a
//! queue that is always full. It looks at the receiver's reports only (RFC 3550 §6.4.1), in the
//! manner of draft-ietf-rmcat-gcc-02 §6. Losses are fractions of the packets, 0..=1; reports come
//! about once a second.

/// Below this loss the bitrate is raised.
const NEGLIGIBLE_LOSS: f32 = 0.02;
/// The loss above which the bitrate is lowered where there is no estimate.
const LOSS_LIMIT: f32 = 0.10;
/// The loss above which the bitrate is lowered where there is an estimate, which reacts to smaller
/// losses itself.
const LOSS_LIMIT_WITH_ESTIMATE: f32 = 0.25;
/// The loss above which the bitrate is lowered where there is an estimate and a standing queue:
/// such a queue delays all packets alike, which the estimate does not see.
const LOSS_LIMIT_WITH_QUEUE: f32 = 0.08;
/// The fraction of the received bitrate that is sent while a standing queue empties.
const QUEUE_DRAIN_RATIO: f32 = 0.9;
/// A loss above this is never taken for a property of the network.
const MAX_INHERENT_LOSS: f32 = 0.5;
/// The ratio of the losses after and before a step down within which the step has not helped.
const UNCHANGED_LOSS_RATIO: std::ops::Range<f32> = 0.75..1.5;
/// The factor of a step up where there is no estimate.
const STEP_UP_RATIO: f32 = 1.15;
/// The factor of a step up where there is an estimate, which limits the bitrate itself.
const STEP_UP_RATIO_WITH_ESTIMATE: f32 = 1.3;
/// The growth of the factor with each step up near the bitrate of the last step down. The steps are
/// small at first, since that bitrate may still be too high, or the network may have become wider.
const STEP_UP_INCREMENT: f32 = 0.03;
/// The fraction of the bitrate of the last step down from which on steps up are small.
const NEAR_CEILING_RATIO: f32 = 0.85;

/// The knowledge of the network beside losses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EstimateContext {
    /// There is no estimate of the bandwidth.
    None,
    /// There is an estimate of the bandwidth.
    Estimate,
    /// There is an estimate, and packets take much longer than the quickest did: a queue stands in
    /// the network.
    StandingQueue,
}

/// The loss-based controller of one track.
#[derive(Debug)]
pub(super) struct LossControl {
    /// The limit is never below this.
    min_bps: u32,
    /// The limit. `None`: losses limit nothing.
    limit_bps: Option<u32>,
    /// The bitrate that was sent at the last step down.
    ceiling_bps: u32,
    /// The loss at the last step down, until a report without losses.
    loss_at_step_down: Option<f32>,
    /// Reports without losses since the limit came near `ceiling_bps`.
    clean_reports: u16,
    /// The next report still covers the time before the step down, and is ignored.
    ignores_next: bool,
    /// The loss that lower bitrates do not reduce, such as that of a radio link.
    inherent_loss: f32,
}

impl LossControl {
    /// Starts without a limit.
    pub(super) fn new(min_bps: u32) -> Self {
        Self {
            min_bps,
            limit_bps: None,
            ceiling_bps: u32::MAX,
            clean_reports: 0,
            loss_at_step_down: None,
            ignores_next: false,
            inherent_loss: 0.0,
        }
    }

    /// Takes a report: the fraction of packets that the receiver has missed while `sent_bps` were
    /// sent. `wanted_bps` would be sent without a limit.
    pub(super) fn on_report(&mut self, loss: f32, sent_bps: u32, wanted_bps: u32, context: EstimateContext) {
        let (limit, growth, kept) = match context {
            EstimateContext::None => (LOSS_LIMIT, STEP_UP_RATIO, 1.0),
            EstimateContext::Estimate => (LOSS_LIMIT_WITH_ESTIMATE, STEP_UP_RATIO_WITH_ESTIMATE, 1.0),
            EstimateContext::StandingQueue => (LOSS_LIMIT_WITH_QUEUE, STEP_UP_RATIO_WITH_ESTIMATE, QUEUE_DRAIN_RATIO),
        };
        let loss = loss.clamp(0.0, 1.0);
        if std::mem::take(&mut self.ignores_next) {
            return;
        }
        if loss > limit.max(self.inherent_loss).min(MAX_INHERENT_LOSS) {
            if self.loss_at_step_down.is_some_and(|before| UNCHANGED_LOSS_RATIO.contains(&(loss / before))) {
                // The step down did not help: the loss is that of a radio link, not of a full
                // queue.
                self.inherent_loss = 1.1 * loss;
            }
            if loss > self.inherent_loss.min(MAX_INHERENT_LOSS) {
                self.limit_bps = Some(((sent_bps as f32 * (1.0 - loss) * kept) as u32).max(self.min_bps));
                self.loss_at_step_down = Some(loss);
                (self.ceiling_bps, self.clean_reports) = (sent_bps, 0);
                self.ignores_next = true;
            }
        } else if loss < NEGLIGIBLE_LOSS && context != EstimateContext::StandingQueue {
            (self.loss_at_step_down, self.inherent_loss) = (None, 0.0);
            let near = (self.ceiling_bps as f32 * NEAR_CEILING_RATIO) as u32;
            let grown = self.limit_bps.map(|limit| match (limit as f32 * growth) as u32 {
                grown if grown > near => {
                    self.clean_reports = self.clean_reports.saturating_add(1);
                    let factor = (1.0 + STEP_UP_INCREMENT * f32::from(self.clean_reports)).min(growth);
                    near.max((limit as f32 * factor) as u32)
                }
                grown => grown,
            });
            self.limit_bps = grown.filter(|limit| *limit < wanted_bps);
        }
    }

    /// Starts anew after the network has changed. The next report covers the time before, and is
    /// ignored.
    pub(super) fn forget(&mut self) {
        *self = Self { ignores_next: true, ..Self::new(self.min_bps) };
    }

    /// Returns the limit in bits a second. `None`: losses limit nothing.
    pub(super) fn limit_bps(&self) -> Option<u32> {
        self.limit_bps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u32 = 2_500_000;
    const MIN: u32 = 100_000;

    /// The loss of a report that is ignored.
    const IGNORED: f32 = 0.9;

    /// Returns the bitrate after reports of these losses.
    fn after(control: &mut LossControl, losses: &[f32], context: EstimateContext) -> u32 {
        for loss in losses {
            let sent = control.limit_bps().unwrap_or(START);
            control.on_report(*loss, sent, START, context);
        }
        control.limit_bps().unwrap_or(START)
    }

    #[test]
    fn a_few_losses_change_nothing() {
        assert_eq!(after(&mut LossControl::new(MIN), &[0.0, 0.01, 0.05, 0.09, 0.0], EstimateContext::None), START);
        assert_eq!(after(&mut LossControl::new(MIN), &[0.0, 0.2, 0.1, 0.2], EstimateContext::Estimate), START, "the estimate sees to that");
    }

    #[test]
    fn many_losses_leave_what_has_come_through() {
        assert_eq!(after(&mut LossControl::new(MIN), &[0.2], EstimateContext::None), 2_000_000);
        assert_eq!(
            after(&mut LossControl::new(MIN), &[0.2, IGNORED, 0.12], EstimateContext::None),
            1_760_000,
            "and then less, as long as it helps"
        );
    }

    #[test]
    fn between_few_and_many_it_stays_where_it_is() {
        let mut control = LossControl::new(MIN);
        let low = after(&mut control, &[0.5, IGNORED], EstimateContext::None);
        assert_eq!(after(&mut control, &[0.03, 0.09, 0.05], EstimateContext::None), low);
    }

    #[test]
    fn it_comes_back_step_by_step_and_then_all_is_free() {
        let mut control = LossControl::new(MIN);
        assert_eq!(after(&mut control, &[0.5, IGNORED], EstimateContext::None), 1_250_000);
        assert_eq!(after(&mut control, &[0.0], EstimateContext::None), 1_437_500);
        assert_eq!(after(&mut control, &[0.0; 3], EstimateContext::None), 2_125_000, "most of the way in seconds");
        assert!((2_180_000..2_260_000).contains(&after(&mut control, &[0.0], EstimateContext::None)), "the rest with care");
        after(&mut control, &[0.0; 5], EstimateContext::None);
        assert_eq!(control.limit_bps(), None);
    }

    #[test]
    fn losses_that_a_lower_bitrate_does_not_reduce_are_tolerated() {
        let mut control = LossControl::new(MIN);
        let cut = after(&mut control, &[0.2, IGNORED], EstimateContext::None);
        assert_eq!(after(&mut control, &[0.2, 0.19, 0.21, 0.2, 0.2], EstimateContext::None), cut, "one step was enough to know");
        assert!(after(&mut control, &[0.4], EstimateContext::None) < cut, "but not with more");
    }

    #[test]
    fn fewer_losses_are_too_many_where_packets_queue_and_it_stays_low_until_they_do_not() {
        let mut control = LossControl::new(MIN);
        assert_eq!(after(&mut control, &[0.2], EstimateContext::StandingQueue), 1_800_000);
        assert_eq!(after(&mut control, &[IGNORED, 0.0, 0.0], EstimateContext::StandingQueue), 1_800_000);
        assert!(after(&mut control, &[0.0], EstimateContext::Estimate) > 1_800_000);
    }

    #[test]
    fn a_link_that_takes_a_twentieth_is_found_with_one_report_and_the_least_is_kept() {
        let mut control = LossControl::new(MIN);
        assert_eq!(after(&mut control, &[0.95, IGNORED], EstimateContext::Estimate), 125_000);
        assert_eq!(after(&mut control, &[0.6], EstimateContext::Estimate), MIN);
    }

    #[test]
    fn reports_that_make_no_sense_do_no_harm() {
        let mut control = LossControl::new(MIN);
        assert_eq!(after(&mut control, &[f32::NAN, -1.0, f32::NAN], EstimateContext::None), START);
        assert_eq!(after(&mut control, &[7.0, f32::INFINITY], EstimateContext::None), MIN);
    }
}
