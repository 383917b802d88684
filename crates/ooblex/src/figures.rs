//! The live figures of one track: what its frames went through during the last second, and since it began.
//!
//! The track's thread and the media thread write, the API reads.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::labels::Stage;
use crate::metrics::Metrics;
use crate::rounding::round;

/// The live figures of one track.
pub struct TrackFigures {
    inner: Mutex<Inner>,
    metrics: std::sync::Arc<Metrics>,
}

struct Inner {
    stages: [(Duration, u32); Stage::ALL.len()],
    /// Microseconds from the last packet in to the first packet out, since the last report.
    residence: Histogram<u32>,
    /// The same since the track began.
    residence_total: Histogram<u32>,
    latest: Value,
}

impl TrackFigures {
    /// No frame has passed.
    pub fn new(metrics: std::sync::Arc<Metrics>) -> Self {
        let inner = Inner { stages: Default::default(), residence: histogram(), residence_total: histogram(), latest: Value::Null };
        Self { inner: Mutex::new(inner), metrics }
    }

    /// A frame has passed a stage.
    pub fn on_stage(&self, stage: Stage, took: Duration) {
        self.metrics.on_stage(stage, took);
        let (sum, count) = &mut self.lock().stages[stage as usize];
        *sum += took;
        *count += 1;
    }

    /// The first packet of a frame has left whose last packet had arrived at `arrived`.
    pub fn on_sent(&self, arrived: Instant, now: Instant) {
        let residence = now.saturating_duration_since(arrived);
        self.metrics.on_residence(residence);
        let mut inner = self.lock();
        let micros = residence.as_micros() as u64;
        inner.residence.saturating_record(micros);
        inner.residence_total.saturating_record(micros);
    }

    /// The means of the stages, ms, and the quantiles of residence since the last call, which starts them anew.
    pub fn take_window(&self) -> (Value, Value) {
        let mut inner = self.lock();
        let stages = std::mem::take(&mut inner.stages);
        let means: Map<String, Value> = Stage::ALL
            .into_iter()
            .zip(stages)
            .filter(|(_, (_, count))| *count > 0)
            .map(|(stage, (sum, count))| (stage.label().to_string(), json!(round(sum.as_secs_f64() * 1e3 / f64::from(count)))))
            .collect();
        let residence = quantiles(&inner.residence);
        inner.residence.reset();
        (means.into(), residence)
    }

    /// Quantiles of residence since the track began, ms.
    pub fn residence_ms(&self) -> Value {
        quantiles(&self.lock().residence_total)
    }

    /// Notes the report of the last second.
    pub fn set_latest(&self, stats: Value) {
        self.lock().latest = stats;
    }

    /// The report of the last second; null before the first.
    pub fn latest(&self) -> Value {
        self.lock().latest.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One microsecond to a minute, three digits.
fn histogram() -> Histogram<u32> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are in order")
}

fn quantiles(histogram: &Histogram<u32>) -> Value {
    let at = |q| round(histogram.value_at_quantile(q) as f64 / 1e3);
    match histogram.len() {
        0 => Value::Null,
        count => json!({"p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "frames": count}),
    }
}
