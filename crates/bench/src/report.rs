//! The report: a self-contained HTML file with the figures and plots over time.

use std::fmt::Write as _;

use super::figures::{IN_ORDER, Outcome, Summary, counted, ms};
use super::knee::Step;
use super::load_generator::Second;
use super::plot::{Line, Plot, Point, escape};
use super::table::warnings;
use super::viewer::State;

/// Style sheet of the report. Its line colours also differ in lightness, and it follows the
/// reader's light or dark mode.
const STYLE: &str = "
:root{color-scheme:light dark;--back:#fff;--text:#1c1f23;--faint:#667;--rule:#dde1e6;--shade:#8881;
--c0:#0b62c4;--c1:#c2480c;--c2:#087f5b;--c3:#8a2be2;--c4:#9a7400;--c5:#c2185b;--c6:#4a5568;--bad:#c2180c}
@media (prefers-color-scheme:dark){:root{--back:#14171a;--text:#e6e9ec;--faint:#98a2ad;--rule:#2c333a;--shade:#fff1;
--c0:#63a9ff;--c1:#ff9a5c;--c2:#4fd1a5;--c3:#c79bff;--c4:#e6c14a;--c5:#ff85b0;--c6:#a9b4c0;--bad:#ff7b6b}}
body{background:var(--back);color:var(--text);font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}p{max-width:46rem}
.tiles{display:flex;flex-wrap:wrap;gap:.6rem}.tile{border:1px solid var(--rule);border-radius:6px;padding:.4rem .8rem}
.tile b{display:block;font-size:1.25rem;font-variant-numeric:tabular-nums}.tile span{color:var(--faint);font-size:.85rem}
.bad b,.bad{color:var(--bad)}figure{margin:1.2rem 0}figcaption{font-size:.9rem}svg{width:100%;height:auto}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9rem}
th,td{padding:.15rem .6rem;text-align:right;border-bottom:1px solid var(--rule)}th{color:var(--faint);font-weight:500}
td:nth-child(2),th:nth-child(2){text-align:left}.grid{stroke:var(--rule)}.tick{fill:var(--faint);font-size:11px}.shade{fill:var(--shade)}
.line{fill:none;stroke-width:1.8;stroke-linejoin:round}.key{margin-left:.9rem;white-space:nowrap}
.key::before{content:'';display:inline-block;width:.8em;height:.2em;margin-right:.35em;vertical-align:.25em;background:currentColor}
path.c0,circle.c0{stroke:var(--c0)}path.c1,circle.c1{stroke:var(--c1)}path.c2,circle.c2{stroke:var(--c2)}path.c3,circle.c3{stroke:var(--c3)}
path.c4,circle.c4{stroke:var(--c4)}path.c5,circle.c5{stroke:var(--c5)}path.c6,circle.c6{stroke:var(--c6)}.mark{fill:var(--back)}
.key.c0{color:var(--c0)}.key.c1{color:var(--c1)}.key.c2{color:var(--c2)}.key.c3{color:var(--c3)}.key.c4{color:var(--c4)}.key.c5{color:var(--c5)}.key.c6{color:var(--c6)}
";

/// Renders the report.
pub(super) fn html(outcome: &Outcome<'_>) -> String {
    let (plan, clip) = (outcome.plan, outcome.clip);
    let title = format!("ooblex bench: {}, {}", outcome.effects().join(" + "), counted(outcome.sessions(), "session"));
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>",
        title = escape(&title)
    );
    _ = write!(
        page,
        "<p>{}x{} at {} frames a second, {} at {} kbit/s, against {}; version {}.</p>",
        clip.size.width,
        clip.size.height,
        clip.fps,
        clip.codec.label(),
        clip.bitrate_bps / 1000,
        escape(&plan.url),
        env!("CARGO_PKG_VERSION"),
    );
    if let Some(knee) = &outcome.knee {
        _ = write!(page, "<h2>How many sessions</h2><p>{}</p>", escape(&knee.words()));
        knee_plots(knee.steps()).iter().for_each(|plot| page += &plot.to_html());
    }
    if let Some(churned) = &outcome.churned {
        _ = write!(page, "<h2>Sessions that come and go</h2><pre>{}</pre>", escape(&churned.table()));
        let points = churned.memory().iter().map(|sample| Point { x: sample.at_s, y: Some(sample.mb) }).collect();
        let lines = vec![Line { name: "gateway".into(), points }];
        page += &Plot { title: "Memory", x: "s", unit: "MB", lines, from: None }.to_html();
    } else {
        let summary = Summary::of(&outcome.measured);
        page += "<h2>Figures</h2>";
        if let Some(knee) = &outcome.knee {
            let at = counted(outcome.measured.sessions.len(), "session");
            _ = write!(page, "<p>With {at}{}:</p>", if knee.sessions > 0 { "" } else { ", which did not work" });
        }
        page += &tiles(&summary);
        for warning in warnings(&summary, &outcome.measured).lines() {
            _ = write!(page, "<p class=\"bad\">{}</p>", escape(warning));
        }
        page += "<h2>Over time</h2><p>Each point is a second; what is shaded was not counted.</p>";
        let from_s = outcome.measured.from_s;
        plots(&outcome.measured.series, from_s).iter().for_each(|plot| page += &plot.to_html());
        page += &sessions_table(outcome);
    }
    page + "</body></html>\n"
}

fn tiles(summary: &Summary) -> String {
    let sum = &summary.all.sum;
    let figure = |value: Option<f64>, digits: usize| value.map_or("–".to_string(), |value| format!("{value:.digits$}"));
    let latency = |quantile| figure(summary.all.latency_ms(quantile), 1);
    let tiles = [
        (figure(summary.fps.processed_min, 1), "frames a second processed, least session", false),
        (figure(summary.fps.shown_min, 1), "frames a second shown, least session", false),
        (figure(Some(summary.fps.processed_total), 1), "frames a second processed, all", false),
        (latency(0.5), "ms latency, p50", false),
        (latency(0.95), "ms, p95", false),
        (latency(0.99), "ms, p99", false),
        (latency(1.0), "ms, most", false),
        (figure(Some(ms(sum.longest_freeze)), 0), "ms, longest freeze", false),
        (sum.frames.order_errors.to_string(), "order errors", sum.frames.order_errors > 0),
        (summary.raw_leaks.map_or("not judged".into(), |raw| raw.to_string()), "unprocessed pictures", sum.pictures.raw > 0),
        (summary.setup_failures.to_string(), "set-ups failed", summary.setup_failures > 0),
        (summary.sessions_lost.to_string(), "sessions lost", summary.sessions_lost > 0),
        (figure(Some(summary.kbps_down), 0), "kbit/s back to a session", false),
        (figure(summary.gateway.cpu_cores, 2), "cores, gateway", false),
        (figure(summary.gateway.memory_mb, 0), "MB, gateway", false),
        (figure(summary.bench_cpu_cores, 2), "cores, this bench", false),
    ];
    let of = |(value, name, bad): &(String, &str, bool)| {
        let class = if *bad { "tile bad" } else { "tile" };
        format!("<div class=\"{class}\"><b>{}</b><span>{name}</span></div>", escape(value))
    };
    format!("<div class=\"tiles\">{}</div>", tiles.iter().map(of).collect::<String>())
}

fn plots(series: &[Second], from_s: f64) -> Vec<Plot<'static>> {
    let line = |name: &str, of: &dyn Fn(&Second) -> Option<f64>| Line {
        name: name.into(),
        points: series.iter().map(|second| Point { x: second.at_s, y: of(second) }).collect(),
    };
    let over_time = |title, unit, lines| Plot { title, x: "s", unit, lines, from: Some(from_s) };
    let mean = |count: fn(&Second) -> u64| move |second: &Second| (second.sessions > 0).then(|| second.rate(count(second)));
    let kbps = |count: fn(&Second) -> u64| move |second: &Second| (second.sessions > 0).then(|| second.rate(count(second)) * 8.0 / 1e3);
    let stage = |name: &'static str| move |second: &Second| second.all.gateway.stages().find(|(stage, _)| *stage == name).map(|(_, ms)| ms);
    vec![
        over_time(
            "Frames of a session",
            "a second",
            vec![
                line("processed, mean", &mean(|second| second.all.frames.processed)),
                line("processed, least", &|second| (second.sessions > 0).then(|| second.least_processed as f64 / second.length_s)),
                line("shown, mean", &mean(|second| second.all.frames.shown)),
                line("sent, mean", &mean(|second| second.all.frames.sent)),
            ],
        ),
        over_time(
            "Latency",
            "ms",
            vec![
                line("p50", &|second| second.latency_ms(0.5)),
                line("p95", &|second| second.latency_ms(0.95)),
                line("most", &|second| second.latency_ms(1.0)),
            ],
        ),
        over_time(
            "Longest time without a new picture",
            "ms",
            vec![line("of any session", &|second| (second.sessions > 0).then(|| ms(second.all.longest_freeze)))],
        ),
        over_time(
            "Bitrate of a session",
            "kbit/s",
            vec![line("to the gateway", &kbps(|second| second.all.up.bytes)), line("back", &kbps(|second| second.all.down.bytes))],
        ),
        over_time("Time of a frame in the gateway, by stage", "ms", IN_ORDER.into_iter().map(|name| line(name, &stage(name))).collect()),
        over_time(
            "Cores kept busy",
            "cores",
            vec![line("gateway", &|second| second.gateway.cpu_cores), line("this bench", &|second| second.own.cpu_cores)],
        ),
        over_time("Memory", "MB", vec![line("gateway", &|second| second.gateway.memory_mb)]),
        over_time("Sessions", "at a time", vec![line("connected", &|second| Some(second.sessions as f64))]),
    ]
}

fn knee_plots(steps: &[Step]) -> Vec<Plot<'static>> {
    let line = |name: &str, of: &dyn Fn(&Step) -> Option<f64>| Line {
        name: name.into(),
        points: steps.iter().map(|step| Point { x: step.sessions as f64, y: of(step) }).collect(),
    };
    let over_sessions = |title, unit, lines| Plot { title, x: "sessions", unit, lines, from: None };
    vec![
        over_sessions("Latency", "ms", vec![line("p50", &|step| step.latency_ms[0]), line("p95", &|step| step.latency_ms[1])]),
        over_sessions("Frames processed", "a second", vec![line("least session", &|step| step.fps_processed_min)]),
    ]
}

fn sessions_table(outcome: &Outcome<'_>) -> String {
    let seconds = outcome.measured.seconds.max(1e-3);
    let mut rows = String::new();
    for session in &outcome.measured.sessions {
        let sum = &session.totals.sum;
        let effect = escape(session.effect.as_deref().unwrap_or("(the gateway's)"));
        if let State::Failed(reason) = &session.state {
            _ = write!(rows, "<tr><td>{}<td>{effect}<td colspan=\"10\" class=\"bad\">{}", session.index, escape(reason));
            continue;
        }
        let at = |quantile| session.totals.latency_ms(quantile).map_or("–".to_string(), |ms| format!("{ms:.1}"));
        _ = write!(
            rows,
            "<tr><td>{}<td>{effect}<td>{:.1}<td>{:.1}<td>{:.1}<td>{}<td>{}<td>{}<td>{:.0}<td>{}<td>{}<td>{:.0}",
            session.index,
            sum.frames.sent as f64 / seconds,
            sum.frames.shown as f64 / seconds,
            sum.frames.processed as f64 / seconds,
            at(0.5),
            at(0.95),
            at(0.99),
            ms(sum.longest_freeze),
            sum.frames.order_errors,
            if sum.pictures.judged > 0 { sum.pictures.raw.to_string() } else { "–".into() },
            sum.down.kbps(seconds),
        );
    }
    format!(
        "<h2>Sessions</h2><div class=\"scroll\"><table><tr><th>session<th>effect<th>sent<th>shown<th>processed<th>p50 ms<th>p95<th>p99\
         <th>freeze ms<th>order<th>raw<th>kbit/s back{rows}</table></div>"
    )
}
