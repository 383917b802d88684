//! Tests that docs/metrics.md lists every metric of gateways and workers with its help text, and no
//! other.

use std::collections::{BTreeMap, BTreeSet};

use ooblex_broker::Broker;
use ooblex_config::Config;
use ooblex_gateway::metrics::{Metrics, WorkerMetrics};
use ooblex_gateway::settings::Catalogue;
use ooblex_worker::WorkerStats;
use ooblex_worker::about::About;

/// Properties of one metric.
#[derive(Debug, Default, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Metric {
    kind: String,
    labels: BTreeSet<String>,
    told_by: BTreeSet<&'static str>,
    help: String,
}

#[test]
fn the_page_of_metrics_is_what_the_program_tells() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md")).unwrap();
    let listed: Vec<&str> = page.lines().filter(|line| line.starts_with("| `ooblex_")).collect();
    let told: BTreeSet<String> = metrics().iter().map(|(name, metric)| row(name, metric)).collect();
    let missing: Vec<_> = told.iter().filter(|row| !listed.contains(&row.as_str())).cloned().collect();
    assert!(missing.is_empty(), "docs/metrics.md lacks these rows:\n{}", missing.join("\n"));
    let stale: Vec<_> = listed.iter().filter(|row| !told.contains(**row)).copied().collect();
    assert!(stale.is_empty(), "docs/metrics.md has rows that are not true any more:\n{}", stale.join("\n"));
    assert_eq!(listed.len(), told.len(), "docs/metrics.md lists a metric twice");
}

#[test]
fn names_follow_the_rules() {
    for (name, metric) in metrics() {
        let rest = name.strip_prefix("ooblex_").unwrap_or_else(|| panic!("{name} does not begin with ooblex_"));
        assert!(rest.bytes().all(|c| c.is_ascii_lowercase() || c == b'_'), "{name}");
        assert_eq!(metric.kind == "counter", name.ends_with("_total"), "{name} is a {}", metric.kind);
        assert!(!metric.help.is_empty() && metric.labels.is_disjoint(&["session", "track", "id"].map(String::from).into()), "{name}");
    }
}

fn metrics() -> BTreeMap<String, Metric> {
    let (broker, catalogue) = (Broker::local(), Catalogue::new(&Config::default()).unwrap());
    let ledger = WorkerStats::new(&catalogue.analysed(), About::default());
    let gateway = Metrics::new(&About::default(), &broker, &catalogue.analysed(), None);
    gateway.know(catalogue.effects().iter().map(|effect| effect.name()), 1);
    let worker = WorkerMetrics::new(&About::default(), &broker, &catalogue.analysed(), &ledger);
    let mut metrics = BTreeMap::new();
    read(&gateway.encode(&BTreeMap::new(), 0), "gateway", &mut metrics);
    read(&worker.encode(), "worker", &mut metrics);
    metrics
}

/// Parses OpenMetrics: `# HELP`, `# TYPE`, and the labels of samples.
fn read(text: &str, told_by: &'static str, into: &mut BTreeMap<String, Metric>) {
    let mut current = String::new();
    let mut families: BTreeMap<String, Metric> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            current = name.into();
            families.entry(current.clone()).or_default().help = help.trim_end_matches('.').into();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            families.entry(name.into()).or_default().kind = kind.into();
        } else if let Some((_, labels)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let labels = labels.split('}').next().unwrap_or_default();
            let names = labels.split("\",").filter_map(|label| label.split_once("=\"")).map(|(name, _)| name.to_string());
            families.get_mut(&current).unwrap().labels.extend(names.filter(|name| name != "le"));
        }
    }
    for (name, metric) in families {
        // Prometheus appends this suffix to the name.
        let suffix = match metric.kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let known = into.entry(format!("{name}{suffix}")).or_insert_with(|| metric.clone());
        assert_eq!((&known.kind, &known.help), (&metric.kind, &metric.help), "{name} is told in two ways");
        known.told_by.insert(told_by);
    }
}

fn row(name: &str, metric: &Metric) -> String {
    let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
    let told_by: Vec<_> = metric.told_by.iter().copied().collect();
    format!("| `{name}` | {} | {} | {} | {} |", metric.kind, labels.join(", "), told_by.join(", "), metric.help)
}
