//! Search for the knee: the number of sessions that a gateway supports, and the bottleneck beyond
//! it.
//!
//! The number of sessions is doubled until the limits are missed, and then found by bisection. The
//! bottleneck is derived from the stage times that the gateway reports; [`LoadGenerator`] measures.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ooblex_pipeline::round;
use serde_json::{Value, json};

use super::figures::{IN_ORDER, Summary, counted};
use super::load_generator::{LoadGenerator, Measured};
use super::plan::{Limits, Plan};

/// Result of the search.
#[derive(Debug, Clone)]
pub(super) struct Knee {
    limits: Limits,
    steps: Vec<Step>,
    /// Largest number of sessions that met the limits; 0 if none did.
    pub(super) sessions: usize,
    /// The bottleneck beyond that number; `None` if every tested number met the limits.
    pub(super) verdict: Option<Verdict>,
}

/// Measurement with one number of sessions.
#[derive(Debug, Clone)]
pub(super) struct Step {
    /// Number of sessions.
    pub(super) sessions: usize,
    /// Limits that were missed; empty if the step succeeded.
    pub(super) broken: Vec<String>,
    /// Latency in ms at p50 and p95.
    pub(super) latency_ms: [Option<f64>; 2],
    /// Processed frames per second of the session with the lowest rate.
    pub(super) fps_processed_min: Option<f64>,
    gateway_cpu_cores: Option<f64>,
    bench_cpu_cores: Option<f64>,
    /// Mean time in each stage in ms.
    stages_ms: BTreeMap<String, f64>,
    utilisation: Option<f64>,
    /// Frames per second that the gateway dropped, by reason.
    dropped: BTreeMap<String, f64>,
}

/// The number of sessions that failed, and the likely bottleneck.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Verdict {
    /// Smallest number of sessions that missed the limits.
    pub(super) sessions: usize,
    /// Limits that were missed.
    pub(super) broken: Vec<String>,
    /// The bottleneck: a stage of the gateway, or `workers`, `machine`, `setup` or `unknown`.
    pub(super) stage: String,
    /// Evidence for the bottleneck.
    pub(super) reason: String,
}

/// Resolution of the search: it stops when the gap between success and failure is at most this
/// fraction of the successful number.
const EXACT: f64 = 0.1;
/// Worker utilisation from which the workers count as saturated.
const BUSY: f64 = 0.9;
/// Fraction of busy cores from which the machine counts as saturated. The rest covers the system's
/// own work and idle gaps between frames.
const FULL: f64 = 0.92;

/// Finds the knee. Returns it with the measurement of the largest number of sessions that met the
/// limits, or of the first number if none did.
pub(super) fn find(generator: &mut LoadGenerator<'_>, plan: &Plan, limits: Limits) -> (Knee, Measured) {
    let mut knee = Knee { limits, steps: Vec::new(), sessions: 0, verdict: None };
    let mut best: Option<Measured> = None;
    let mut search = Search::new(plan.sessions, limits.sessions);
    while let Some(sessions) = search.next().filter(|_| !generator.is_interrupted()) {
        generator.progress().set_stage(format!("{}, ", counted(sessions, "session")));
        generator.set_sessions(sessions);
        generator.watch(plan.timing.warm_up);
        let measured = generator.measure(plan.timing.duration);
        if generator.is_interrupted() {
            best.get_or_insert(measured);
            break;
        }
        let step = Step::of(sessions, &measured, limits);
        let works = step.broken.is_empty();
        generator.progress().say(&format!(
            "{}: {}",
            counted(sessions, "session"),
            if works { "works".into() } else { step.broken.join("; ") }
        ));
        knee.steps.push(step);
        search.tell(sessions, works);
        if works || best.is_none() {
            best = Some(measured);
        }
        // Broken sessions are discarded; the next step starts with the sessions that are still
        // connected.
        generator.drop_broken();
    }
    knee.sessions = search.good;
    let step_of = |sessions: usize| knee.steps.iter().find(|step| step.sessions == sessions);
    knee.verdict = search.bad.and_then(step_of).map(|broken| Verdict::of(step_of(search.good), broken, machine_cores()));
    knee.steps.sort_by_key(|step| step.sessions);
    (knee, best.unwrap_or_default())
}

/// Doubling followed by bisection over the number of sessions.
struct Search {
    good: usize,
    bad: Option<usize>,
    next: usize,
    most: usize,
}

impl Search {
    fn new(first: usize, most: usize) -> Self {
        Self { good: 0, bad: None, next: first, most }
    }

    fn next(&self) -> Option<usize> {
        (self.next > 0).then_some(self.next)
    }

    fn tell(&mut self, sessions: usize, works: bool) {
        if works {
            self.good = self.good.max(sessions);
        } else {
            self.bad = Some(self.bad.map_or(sessions, |bad| bad.min(sessions)));
        }
        let near = 1.0_f64.max(self.good as f64 * EXACT);
        self.next = match self.bad {
            None if self.good >= self.most => 0,
            None => (2 * self.good).min(self.most),
            Some(bad) if (bad - self.good) as f64 <= near => 0,
            Some(bad) => self.good.midpoint(bad),
        };
    }
}

impl Step {
    fn of(sessions: usize, measured: &Measured, limits: Limits) -> Self {
        let summary = Summary::of(measured);
        let (sum, p95) = (&summary.all.sum, summary.all.latency_ms(0.95));
        let mut broken = Vec::new();
        if summary.setup_failures > 0 {
            let first = measured.failures().next().unwrap_or_default();
            broken.push(format!("{} set-ups failed: {first}", summary.setup_failures));
        }
        if summary.sessions_lost > 0 {
            broken.push(format!("{} ended too early", counted(summary.sessions_lost, "session")));
        }
        if let Some(p95) = p95.filter(|p95| *p95 > limits.latency_ms) {
            broken.push(format!("latency at p95 is {p95:.0} ms, more than {:.0}", limits.latency_ms));
        }
        // The rate of shown frames replaces that of processed frames where frames cannot be
        // identified.
        let fps = summary.fps.processed_min.or(summary.fps.shown_min).unwrap_or(0.0);
        if fps < limits.fps {
            broken.push(format!("a session gets {fps:.1} processed frames a second, fewer than {:.1}", limits.fps));
        }
        let gateway = &sum.gateway;
        let seconds = measured.seconds.max(1e-3);
        Self {
            sessions,
            broken,
            latency_ms: [summary.all.latency_ms(0.5), p95],
            fps_processed_min: summary.fps.processed_min,
            gateway_cpu_cores: summary.gateway.cpu_cores,
            bench_cpu_cores: summary.bench_cpu_cores,
            stages_ms: gateway.stages().map(|(stage, ms)| (stage.to_string(), ms)).collect(),
            utilisation: gateway.mean(gateway.utilisation),
            dropped: gateway.dropped.iter().map(|(reason, count)| (reason.clone(), *count as f64 / seconds)).collect(),
        }
    }

    fn stage(&self, name: &str) -> f64 {
        self.stages_ms.get(name).copied().unwrap_or(0.0)
    }

    /// Returns the stages in the order in which frames pass through them.
    fn stages_in_order(&self) -> impl Iterator<Item = (&String, &f64)> {
        let unknown = self.stages_ms.iter().filter(|(stage, _)| !IN_ORDER.contains(&stage.as_str()));
        IN_ORDER.into_iter().filter_map(|stage| self.stages_ms.get_key_value(stage)).chain(unknown)
    }

    fn dropped(&self, name: &str) -> f64 {
        self.dropped.get(name).copied().unwrap_or(0.0)
    }
}

impl Verdict {
    /// Finds the bottleneck between a successful and a failed number of sessions, on a machine with
    /// `cores` cores.
    fn of(good: Option<&Step>, bad: &Step, cores: f64) -> Self {
        let (stage, mut reason) = bottleneck(good, bad);
        reason += &match bad.gateway_cpu_cores.zip(bad.bench_cpu_cores) {
            Some((gateway, bench)) if gateway + bench >= FULL * cores => format!(
                ". The machine is full: the gateway keeps {gateway:.2} and this bench {bench:.2} of {cores:.0} cores busy, so it takes more \
                 cores, or workers on another machine"
            ),
            Some(_) if stage == "workers" => ". There are cores to spare, so it takes more workers".into(),
            None if stage == "workers" => ". It takes more workers, or more cores for them: --gateway-pid tells which".into(),
            _ => String::new(),
        };
        Self { sessions: bad.sessions, broken: bad.broken.clone(), stage, reason }
    }
}

fn bottleneck(good: Option<&Step>, bad: &Step) -> (String, String) {
    if bad.broken.iter().any(|broken| broken.contains("set-ups failed")) {
        return ("setup".into(), "the gateway takes no more sessions: see what it said to the offer".into());
    }
    if bad.stages_ms.is_empty() {
        return ("unknown".into(), "the gateway sends no `stats` messages, so its stages are not known".into());
    }
    let before = |stage: &str| good.map_or(0.0, |good| good.stage(stage));
    let grown = |stage: &str| format!("`{stage}` takes {:.1} ms instead of {:.1}", bad.stage(stage), before(stage));
    let replaced = bad.dropped("replaced") + bad.dropped("expired");
    if let Some(utilisation) = bad.utilisation.filter(|utilisation| *utilisation >= BUSY) {
        let reason = format!(
            "the workers are busy {:.0} % of the time, frames wait for them ({}), and {replaced:.0} a second are replaced by newer ones",
            utilisation * 100.0,
            grown("queue"),
        );
        return ("workers".into(), reason);
    }
    let behind = bad.dropped("behind");
    let most = bad.stages_ms.iter().max_by(|a, b| (a.1 - before(a.0)).total_cmp(&(b.1 - before(b.0))));
    let stage = most.map_or("unknown", |(stage, _)| stage.as_str());
    let mut reason = match stage {
        "queue" => format!("frames wait for a worker: {}", grown(stage)),
        "analyse" => format!("the models have become slower: {}; they share the cores with something", grown(stage)),
        "inbox" => format!("the machine has no CPU for the threads of the sessions: {}", grown(stage)),
        "turn" => format!("results wait for a core to be painted on: {}", grown(stage)),
        "playout" => format!("results wait for older ones: {}", grown(stage)),
        _ => format!("the gateway's own work on pictures has become slower: {}; the cores are shared by too many", grown(stage)),
    };
    if behind > 0.0 {
        _ = write!(reason, "; {behind:.0} frames a second are dropped because their track is behind");
    }
    if replaced > 0.0 {
        _ = write!(reason, "; {replaced:.0} a second are replaced by newer ones before a worker is free");
    }
    (stage.into(), reason)
}

fn machine_cores() -> f64 {
    std::thread::available_parallelism().map_or(f64::INFINITY, |cores| cores.get() as f64)
}

impl Knee {
    /// Returns the tested steps in ascending order of sessions.
    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Returns the figures as JSON.
    pub(super) fn to_json(&self) -> Value {
        let step = |step: &Step| {
            json!({
                "sessions": step.sessions, "works": step.broken.is_empty(), "broken": step.broken,
                "latency_ms": {"p50": step.latency_ms[0].map(round), "p95": step.latency_ms[1].map(round)},
                "fps_processed_min": step.fps_processed_min.map(round),
                "gateway_cpu_cores": step.gateway_cpu_cores.map(round), "bench_cpu_cores": step.bench_cpu_cores.map(round),
                "worker_utilisation": step.utilisation.map(round),
                "stages_ms": step.stages_in_order().map(|(stage, ms)| (stage.clone(), json!(round(*ms)))).collect::<serde_json::Map<_, _>>(),
                "dropped_a_second": step.dropped.iter().map(|(reason, count)| (reason.clone(), json!(round(*count)))).collect::<serde_json::Map<_, _>>(),
            })
        };
        json!({
            "sessions": self.sessions,
            "limits": {"latency_p95_ms": self.limits.latency_ms, "fps_processed": self.limits.fps, "sessions": self.limits.sessions},
            "breaks_at": self.verdict.as_ref().map(|verdict| verdict.sessions),
            "broken": self.verdict.as_ref().map(|verdict| &verdict.broken),
            "stage": self.verdict.as_ref().map(|verdict| &verdict.stage),
            "reason": self.verdict.as_ref().map(|verdict| &verdict.reason),
            "steps": self.steps.iter().map(step).collect::<Vec<_>>(),
        })
    }

    /// Describes the result in a few sentences for the user.
    pub(super) fn words(&self) -> String {
        match &self.verdict {
            None => format!("{} work, and more were not tried (--max-sessions).", counted(self.sessions, "session")),
            Some(verdict) => {
                let fits = if self.sessions == 0 {
                    "Not one session works".into()
                } else {
                    format!("The most that work: {}", counted(self.sessions, "session"))
                };
                format!(
                    "{fits}. With {}, {}. It breaks at '{}': {}.",
                    verdict.sessions,
                    verdict.broken.join(", and "),
                    verdict.stage,
                    verdict.reason
                )
            }
        }
    }

    /// Formats the result with one row for each tested number of sessions.
    pub(super) fn table(&self) -> String {
        let mut text = String::from("sessions    p50     p95 ms   least fps   workers busy   gateway cores   bench cores\n");
        let figure = |value: Option<f64>, digits: usize| value.map_or("–".to_string(), |value| format!("{value:.digits$}"));
        for step in &self.steps {
            _ = writeln!(
                text,
                "{:>8} {:>6} {:>7} {:>14} {:>12} % {:>15} {:>13}   {}",
                step.sessions,
                figure(step.latency_ms[0], 0),
                figure(step.latency_ms[1], 0),
                figure(step.fps_processed_min, 1),
                figure(step.utilisation.map(|share| share * 100.0), 0),
                figure(step.gateway_cpu_cores, 2),
                figure(step.bench_cpu_cores, 2),
                if step.broken.is_empty() { "works" } else { "does not" },
            );
        }
        text + &self.words() + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(works_up_to: usize, first: usize, most: usize) -> (Vec<usize>, usize, Option<usize>) {
        let (mut search, mut tried) = (Search::new(first, most), Vec::new());
        while let Some(sessions) = search.next() {
            tried.push(sessions);
            assert!(tried.len() < 50, "{tried:?}");
            search.tell(sessions, sessions <= works_up_to);
        }
        (tried, search.good, search.bad)
    }

    #[test]
    fn sessions_are_doubled_until_it_breaks_and_then_halved() {
        assert_eq!(tried(5, 1, 256), (vec![1, 2, 4, 8, 6, 5], 5, Some(6)));
        assert_eq!(tried(0, 1, 256), (vec![1], 0, Some(1)));
        assert_eq!(tried(1, 8, 256), (vec![8, 4, 2, 1], 1, Some(2)));
    }

    #[test]
    fn search_ends_at_the_most_sessions_and_when_it_is_exact_enough() {
        assert_eq!(tried(1000, 1, 6), (vec![1, 2, 4, 6], 6, None));
        let (tried, good, bad) = tried(100, 1, 256);
        assert!(tried.len() <= 12 && good <= 100 && bad.unwrap() > 100 && bad.unwrap() - good <= 10, "{tried:?}");
    }

    fn step(sessions: usize, stages: &[(&str, f64)], utilisation: f64, dropped: &[(&str, f64)]) -> Step {
        let named = |list: &[(&str, f64)]| list.iter().map(|(name, value)| ((*name).to_string(), *value)).collect();
        Step {
            sessions,
            broken: vec!["latency at p95 is 400 ms, more than 250".into()],
            latency_ms: [Some(100.0), Some(400.0)],
            fps_processed_min: Some(20.0),
            gateway_cpu_cores: Some(1.0),
            bench_cpu_cores: Some(0.5),
            stages_ms: named(stages),
            utilisation: Some(utilisation),
            dropped: named(dropped),
        }
    }

    #[test]
    fn busy_workers_are_where_it_breaks() {
        let good = step(4, &[("queue", 1.0), ("analyse", 20.0)], 0.6, &[]);
        let bad = step(8, &[("queue", 60.0), ("analyse", 21.0)], 0.98, &[("replaced", 90.0)]);
        let verdict = Verdict::of(Some(&good), &bad, 8.0);
        assert_eq!(verdict.stage, "workers");
        assert!(verdict.reason.contains("60.0 ms instead of 1.0") && verdict.reason.contains("90 a second"), "{}", verdict.reason);
        assert!(verdict.reason.contains("more workers"), "{}", verdict.reason);
    }

    #[test]
    fn the_stage_that_grew_most_is_where_it_breaks() {
        let good = step(4, &[("decode", 1.0), ("compose", 3.0), ("encode", 4.0)], 0.3, &[]);
        let bad = step(8, &[("decode", 2.0), ("compose", 5.0), ("encode", 40.0)], 0.4, &[("behind", 12.0)]);
        let verdict = Verdict::of(Some(&good), &bad, 1.5);
        assert_eq!(verdict.stage, "encode");
        assert!(
            verdict.reason.contains("12 frames a second are dropped") && verdict.reason.contains("The machine is full"),
            "{}",
            verdict.reason
        );
    }

    #[test]
    fn without_statistics_of_the_gateway_the_stage_is_unknown() {
        assert_eq!(Verdict::of(None, &step(1, &[], 0.0, &[]), 8.0).stage, "unknown");
    }
}
