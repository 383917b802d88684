//! The rule for the bitrate that several receivers share.

/// A network carries a bitrate if it is estimated to carry at least this fraction of it: estimates
/// leave that much room.
const CARRIES_RATIO: f64 = 0.9;
/// The factor on the sum of a bitrate that is about as high as the last one, so that two of them with
/// about the same sum do not take turns.
const STAY_RATIO: f64 = 1.15;

/// Tells whether a network that is estimated to carry `allowed_bps` carries frames of `bps`.
pub(super) fn carries(allowed_bps: u32, bps: u32) -> bool {
    f64::from(allowed_bps) >= CARRIES_RATIO * f64::from(bps)
}

/// The bitrate that several receivers share.
#[derive(Debug, Default)]
pub(super) struct SharedBitrate {
    last_bps: Option<u32>,
}

impl SharedBitrate {
    /// Chooses the bitrate from those that the network of each receiver carries: the one with the
    /// largest sum over the receivers that carry it. One slow receiver alone never lowers it, however
    /// few the others are: a lower bitrate has to reach two receivers more. Nor do any number of them
    /// lower it below `least_bps`. No receiver has priority. `None` without receivers.
    pub(super) fn choose(&mut self, allowed_bps: impl Iterator<Item = u32>, least_bps: u32) -> Option<u32> {
        let mut rates: Vec<u32> = allowed_bps.collect();
        rates.sort_unstable_by(|a, b| b.cmp(a));
        let mut best: Option<Choice> = None;
        for bps in rates.iter().copied() {
            let carried = rates.partition_point(|rate| carries(*rate, bps));
            let is_near = self.last_bps.is_some_and(|last| carries(bps, last) && carries(last, bps));
            let sum = f64::from(bps) * carried as f64 * if is_near { STAY_RATIO } else { 1.0 };
            if best.as_ref().is_none_or(|best| bps >= least_bps && carried >= best.carried + 2 && sum > best.sum) {
                best = Some(Choice { bps, carried, sum });
            }
        }
        self.last_bps = best.map(|best| best.bps);
        self.last_bps
    }
}

/// A bitrate that could be chosen.
struct Choice {
    bps: u32,
    /// The number of receivers that carry it.
    carried: usize,
    /// The bits a second for all of them.
    sum: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(kbps: &[u32]) -> Option<u32> {
        choose_above(0, kbps)
    }

    fn choose_above(least_kbps: u32, kbps: &[u32]) -> Option<u32> {
        SharedBitrate::default().choose(kbps.iter().map(|kbps| kbps * 1000), least_kbps * 1000).map(|bps| bps / 1000)
    }

    #[test]
    fn a_receiver_alone_has_what_its_network_carries() {
        assert_eq!((choose(&[]), choose(&[700])), (None, Some(700)));
    }

    #[test]
    fn one_slow_receiver_lowers_nothing() {
        assert_eq!(choose(&[2300, 150]), Some(2300));
        assert_eq!(choose(&[1300, 2300]), Some(2300), "whoever it is");
        assert_eq!(choose(&[2300, 2300, 2200, 1900]), Some(2300));
        assert_eq!(choose(&[2300, 2250, 2200, 2100]), Some(2300), "all carry that");
    }

    #[test]
    fn several_slower_receivers_count_if_that_gives_more_in_sum() {
        assert_eq!(choose(&[2300, 1300, 1200]), Some(1300));
        assert_eq!(choose(&[2300, 150, 150, 150]), Some(2300));
        assert_eq!(choose(&[2300, 2300, 2300, 500, 500, 500]), Some(2300));
        assert_eq!(choose(&[6000, 2300, 2300, 2300, 2300]), Some(2300));
    }

    #[test]
    fn any_number_of_slow_receivers_lower_nothing_below_the_least_rate() {
        assert_eq!(choose(&[&[6000][..], &[200; 31]].concat()), Some(200));
        assert_eq!(choose_above(1728, &[&[6000][..], &[200; 31]].concat()), Some(6000));
        assert_eq!(choose_above(1728, &[6000, 2300, 2300, 2300, 2300]), Some(2300));
        assert_eq!(choose_above(1728, &[900, 800, 700]), Some(900), "the fastest one");
    }

    #[test]
    fn rates_with_about_the_same_sum_do_not_take_turns() {
        let mut shared = SharedBitrate::default();
        assert_eq!(shared.choose([2000, 660, 660].into_iter(), 0), Some(2000));
        assert_eq!(shared.choose([2000, 700, 700].into_iter(), 0), Some(2000));
        assert_eq!(shared.choose([2000, 800, 800].into_iter(), 0), Some(800));
        assert_eq!(shared.choose([2000, 720, 720].into_iter(), 0), Some(720));
        assert_eq!(shared.choose([2000, 650, 650].into_iter(), 0), Some(650));
        assert_eq!(shared.choose([2000, 500, 500].into_iter(), 0), Some(2000));
    }
}
