//! Registration and encoding shared by the metrics of gateways and workers.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::process::Process;
use ooblex_worker::about::About;

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
