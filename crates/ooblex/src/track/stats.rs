//! The live statistics of one track, for the last second and since it began.
//!
//! The track's thread and the media thread write; the API reads.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::labels::Stage;
use crate::metrics::Metrics;
use crate::rounding::round;

/// The live statistics of one track: stage times, residence, and the report of the last second.
pub struct TrackStats {
    inner: Mutex<Inner>,
    metrics: std::sync::Arc<Metrics>,
}

struct Inner {
    stages: [StageTime; Stage::ALL.len()],
    /// Residence since the last report: microseconds from the last packet of a frame in to its first packet out.
    residence: Histogram<u32>,
    /// Residence since the track began.
    residence_total: Histogram<u32>,
    latest: Value,
}

/// The time that frames have spent in a stage since the last report.
#[derive(Debug, Clone, Copy, Default)]
struct StageTime {
    sum: Duration,
    frames: u32,
}

impl TrackStats {
    /// Starts without frames.
    pub fn new(metrics: std::sync::Arc<Metrics>) -> Self {
        let inner = Inner { stages: Default::default(), residence: histogram(), residence_total: histogram(), latest: Value::Null };
        Self { inner: Mutex::new(inner), metrics }
    }

    /// Notes that a frame has passed a stage.
    pub fn on_stage(&self, stage: Stage, took: Duration) {
        self.metrics.on_stage(stage, took);
        let time = &mut self.lock().stages[stage as usize];
        time.sum += took;
        time.frames += 1;
    }

    /// Notes that the first packet of a frame has left, whose last packet arrived at `arrived`.
    pub fn on_sent(&self, arrived: Instant, now: Instant) {
        let residence = now.saturating_duration_since(arrived);
        self.metrics.on_residence(residence);
        let mut inner = self.lock();
        let micros = residence.as_micros() as u64;
        inner.residence.saturating_record(micros);
        inner.residence_total.saturating_record(micros);
    }

    /// Returns the mean time of each stage in ms, and the quantiles of residence, since the last call.
    pub fn take_window(&self) -> (Value, Value) {
        let mut inner = self.lock();
        let stages = std::mem::take(&mut inner.stages);
        let means: Map<String, Value> = Stage::ALL
            .into_iter()
            .zip(stages)
            .filter(|(_, time)| time.frames > 0)
            .map(|(stage, time)| (stage.label().to_string(), json!(round(time.sum.as_secs_f64() * 1e3 / f64::from(time.frames)))))
            .collect();
        let residence = quantiles(&inner.residence);
        inner.residence.reset();
        (means.into(), residence)
    }

    /// Returns the quantiles of residence since the track began, in ms.
    pub fn residence_ms(&self) -> Value {
        quantiles(&self.lock().residence_total)
    }

    /// Stores the report of the last second.
    pub fn set_latest(&self, stats: Value) {
        self.lock().latest = stats;
    }

    /// Returns the report of the last second; null before the first.
    pub fn latest(&self) -> Value {
        self.lock().latest.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a histogram from one microsecond to one minute, with three digits.
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
