//! Registration and encoding shared by the metrics of gateways and workers.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

use super::process::Process;
use ooblex_worker::about::About;

/// Registers a metric and returns it.
pub(super) fn add<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// Registers a histogram with these upper bounds of its buckets, and returns it.
pub(super) fn add_histogram<const N: usize>(registry: &mut Registry, name: &str, help: &str, bounds: [f64; N]) -> Histogram {
    add(registry, name, help, Histogram::new(bounds))
}

/// Registers a metric that starts at zero or without label values, and returns it.
pub(super) fn add_new<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    add(registry, name, help, M::default())
}

pub(super) fn register_about(registry: &mut Registry, about: &About) {
    let word = |word: &Option<String>| word.clone().unwrap_or_else(|| "none".into());
    let version = env!("CARGO_PKG_VERSION").to_string();
    let build = vec![("version", version), ("backend", word(&about.backend)), ("device", word(&about.device))];
    registry.register_collector(Box::new(Process::new()));
    registry.register("build", "Version of the program, and backend and device of its models", Info::new(build));
}

pub(super) fn encoded(registry: &Registry) -> String {
    let mut text = String::new();
    match encode(&mut text, registry) {
        Ok(()) => text,
        Err(std::fmt::Error) => unreachable!("writing to a string does not fail"),
    }
}
