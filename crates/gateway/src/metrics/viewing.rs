//! Quality of the video that viewers see: frame rate, age of the picture, and freezes.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

use super::label_sets::EffectLabel;
use crate::labels::Viewing;

/// Bucket bounds of frame rates, in frames per second.
const RATES: [f64; 11] = [0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 24.0, 28.0, 32.0, 61.0];
/// Bucket bounds of picture ages, in seconds. The lower bounds suit latencies, and the upper ones
/// outages.
const AGES: [f64; 13] = [0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

type Histograms = Family<EffectLabel, Histogram, fn() -> Histogram>;

/// Quality metrics over all sessions, by effect.
pub(super) struct Viewings {
    rates: Histograms,
    ages: Histograms,
    freezes: Family<EffectLabel, Counter>,
    frozen: Family<EffectLabel, Counter<f64, AtomicU64>>,
}

impl Viewings {
    pub(super) fn new() -> Self {
        Self {
            rates: Family::new_with_constructor(|| Histogram::new(RATES)),
            ages: Family::new_with_constructor(|| Histogram::new(AGES)),
            freezes: Family::default(),
            frozen: Family::default(),
        }
    }

    /// Creates the metrics of an effect at zero.
    pub(super) fn know(&self, effect: &str) {
        let label = EffectLabel { effect: effect.into() };
        drop((self.rates.get_or_create(&label), self.ages.get_or_create(&label)));
        drop((self.freezes.get_or_create(&label), self.frozen.get_or_create(&label)));
    }

    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "processed_fps",
            "Processed frames per second of a session whose camera sends, sampled once a second",
            self.rates.clone(),
        );
        r.register("picture_age_seconds", "Age of the picture that a viewer sees, sampled once a second", self.ages.clone());
        r.register("freezes", "Freezes: half a second without a processed frame while the camera was sending", self.freezes.clone());
        r.register("frozen_seconds", "Time in which pictures were frozen while the camera was sending", self.frozen.clone());
    }

    pub(super) fn on_second(&self, effect: &str, viewing: &Viewing) {
        let label = EffectLabel { effect: effect.into() };
        if let Some(rate) = viewing.rate {
            self.rates.get_or_create(&label).observe(rate);
        }
        if let Some(age) = viewing.age {
            self.ages.get_or_create(&label).observe(age.as_secs_f64());
        }
        if viewing.freezes > 0 {
            self.freezes.get_or_create(&label).inc_by(viewing.freezes);
        }
        if !viewing.frozen.is_zero() {
            self.frozen.get_or_create(&label).inc_by(viewing.frozen.as_secs_f64());
        }
    }
}
