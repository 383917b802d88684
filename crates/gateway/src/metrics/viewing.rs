//! Quality of the video that viewers see: frame rate, age of the picture, freezes, quality steps.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

use super::label_sets::EffectLabel;
use super::registry::{add, add_new};
use crate::labels::{QUALITY_STEPS, QualityStep, Viewing};

/// Bucket bounds of frame rates, in frames per second.
const RATES: [f64; 11] = [0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 24.0, 28.0, 32.0, 61.0];
/// Bucket bounds of picture ages, in seconds. The lower bounds suit latencies, and the upper ones
/// outages.
const AGES: [f64; 13] = [0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

type Histograms = Family<EffectLabel, Histogram, fn() -> Histogram>;

/// Quality metrics over all sessions, by effect.
pub(crate) struct Viewings {
    rates: Histograms,
    ages: Histograms,
    freezes: Family<EffectLabel, Counter>,
    frozen: Family<EffectLabel, Counter<f64, AtomicU64>>,
    quality_steps: Family<QualityLabel, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QualityLabel {
    step: &'static str,
    direction: &'static str,
}

impl Viewings {
    pub(super) fn new(r: &mut Registry) -> Self {
        let viewings = Self {
            rates: add(
                r,
                "processed_fps",
                "Processed frames per second of a session whose camera sends, sampled once a second",
                Family::new_with_constructor(|| Histogram::new(RATES)),
            ),
            ages: add(
                r,
                "picture_age_seconds",
                "Age of the picture that a viewer sees, sampled once a second",
                Family::new_with_constructor(|| Histogram::new(AGES)),
            ),
            freezes: add_new(r, "freezes", "Freezes: half a second without a processed frame while the camera was sending"),
            frozen: add_new(r, "frozen_seconds", "Time in which pictures were frozen while the camera was sending"),
            quality_steps: add_new(r, "adaptations", "Quality steps that tracks made down because of CPU overload, or up again"),
        };
        for (step, direction) in QUALITY_STEPS.into_iter().flat_map(|step| [(step.label(), "down"), (step.label(), "up")]) {
            drop(viewings.quality_steps.get_or_create(&QualityLabel { step, direction }));
        }
        viewings
    }

    /// Creates the metrics of an effect at zero.
    pub(super) fn know(&self, effect: &str) {
        let label = EffectLabel { effect: effect.into() };
        drop((self.rates.get_or_create(&label), self.ages.get_or_create(&label)));
        drop((self.freezes.get_or_create(&label), self.frozen.get_or_create(&label)));
    }

    pub(crate) fn on_quality_step(&self, step: QualityStep, direction: &'static str) {
        self.quality_steps.get_or_create(&QualityLabel { step: step.label(), direction }).inc();
    }

    pub(crate) fn on_second(&self, effect: &str, viewing: &Viewing) {
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
