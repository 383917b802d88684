//! The figures as a text table for the terminal, printed at the end of a run.

use std::fmt::Write as _;

use super::figures::{IN_ORDER, Outcome, REASONS, Summary, counted, is_known, ms};
use super::interval_stats::Totals;
use super::load_generator::{Measured, SessionFigures};
use super::viewer::State;

/// Formats the result of the run as text.
pub(super) fn table(outcome: &Outcome<'_>) -> String {
    let mut text = String::new();
    let clip = outcome.clip;
    _ = writeln!(
        text,
        "{}, {}x{} at {} fps, {} {} kbit/s, {}, {:.0} s",
        counted(outcome.sessions(), "session"),
        clip.size.width,
        clip.size.height,
        clip.fps,
        clip.codec.label(),
        clip.bitrate_bps / 1000,
        outcome.effects().join(" + "),
        outcome.churned.as_ref().map_or(outcome.measured.seconds, |churned| churned.took.as_secs_f64()),
    );
    if let Some(churned) = &outcome.churned {
        text += &churned.table();
    } else {
        text += &figures_table(outcome);
    }
    if let Some(knee) = &outcome.knee {
        text += &knee.table();
    }
    text
}

fn figures_table(outcome: &Outcome<'_>) -> String {
    let summary = Summary::of(&outcome.measured);
    let mut text = String::from(
        "session effect               sent  shown  processed |  p50    p95    p99    max ms | freeze ms | order   raw | kbit/s up  back\n",
    );
    let several = outcome.measured.sessions.len() > 1;
    for session in &outcome.measured.sessions {
        text += &row(session, outcome.measured.seconds);
    }
    if several {
        let count = outcome.measured.connected().count().max(1) as f64;
        let name = "least / all";
        let least = [summary.fps.sent_min, summary.fps.shown_min, summary.fps.processed_min];
        text += &figures_row("all", name, least, &summary.all, outcome.measured.seconds * count);
    }
    let gateway = &summary.all.sum.gateway;
    if gateway.reports > 0 {
        let stages: Vec<_> = IN_ORDER.into_iter().filter_map(|name| gateway.stages().find(|(stage, _)| *stage == name)).collect();
        let stages: Vec<_> = stages.iter().map(|(stage, ms)| format!("{stage} {ms:.1}")).collect();
        let dropped: Vec<_> = gateway.dropped.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        _ = writeln!(
            text,
            "gateway says: {:.1} fps out, workers busy {:.0} %, ms: {}{}",
            gateway.mean(gateway.fps_out).unwrap_or(0.0),
            gateway.mean(gateway.utilisation).unwrap_or(0.0) * 100.0,
            stages.join(", "),
            if dropped.is_empty() { String::new() } else { format!("; dropped: {}", dropped.join(", ")) },
        );
    }
    text += &usage_line(&summary);
    text += &warnings(&summary, &outcome.measured);
    text
}

/// Lists problems that may have distorted the figures or must not be overlooked.
pub(super) fn warnings(summary: &Summary, measured: &Measured) -> String {
    let (mut text, sum) = (String::new(), &summary.all.sum);
    for reason in measured.failures().take(REASONS) {
        _ = writeln!(text, "set-up failed: {reason}");
    }
    if summary.sessions_lost > 0 {
        _ = writeln!(text, "{} ended too early", counted(summary.sessions_lost, "session"));
    }
    if sum.frames.sent_late * 50 > sum.frames.sent {
        let percent = sum.frames.sent_late * 100 / sum.frames.sent.max(1);
        _ = writeln!(
            text,
            "{percent} % of the frames were sent late: this machine is too busy for so many sessions, so take less from the figures"
        );
    }
    if summary.numbers == "picture" {
        _ = writeln!(
            text,
            "The gateway stamps frames anew: they were known by the number on the picture ({} read, {} not).",
            sum.pictures.read, sum.pictures.unreadable
        );
    }
    if sum.pictures.raw > 0 {
        _ = writeln!(text, "UNPROCESSED PICTURES CAME BACK: {} of {} that were judged", sum.pictures.raw, sum.pictures.judged);
    }
    text
}

fn usage_line(summary: &Summary) -> String {
    let mut parts = Vec::new();
    if let Some(cores) = summary.gateway.cpu_cores {
        parts.push(format!("gateway {cores:.2} cores"));
    }
    if let Some(megabytes) = summary.gateway.memory_mb {
        parts.push(format!("{megabytes:.0} MB at most"));
    }
    if let Some(cores) = summary.bench_cpu_cores {
        parts.push(format!("bench {cores:.2} cores"));
    }
    parts.push(format!("{:.1} fps processed in all", summary.fps.processed_total));
    parts.join(", ") + "\n"
}

fn row(session: &SessionFigures, seconds: f64) -> String {
    let (sum, number) = (&session.totals.sum, session.index.to_string());
    let effect = session.effect.as_deref().unwrap_or("(the gateway's)");
    if let State::Failed(_) | State::SettingUp = session.state {
        return format!("{number:>7} {effect:<16} no connection\n");
    }
    let rate = |count: u64| Some(count as f64 / seconds.max(1e-3));
    let rates = [rate(sum.frames.sent), rate(sum.frames.shown), rate(sum.frames.processed).filter(|_| is_known(session))];
    figures_row(&number, effect, rates, &session.totals, seconds)
}

/// Formats one row. `seconds` is the measured time, summed over all sessions in `totals`.
fn figures_row(number: &str, effect: &str, rates: [Option<f64>; 3], totals: &Totals, seconds: f64) -> String {
    let sum = &totals.sum;
    let figure = |value: Option<f64>, width: usize, digits: usize| match value {
        Some(value) => format!("{value:>width$.digits$}"),
        None => format!("{:>width$}", "–"),
    };
    let latency: String = [0.5, 0.95, 0.99, 1.0].map(|quantile| figure(totals.latency_ms(quantile), 7, 1)).concat();
    format!(
        "{number:>7} {effect:<16} {} {} {} | {}   | {:>9.0} | {:>5} {} | {:>9.0} {:>5.0}\n",
        figure(rates[0], 8, 1),
        figure(rates[1], 6, 1),
        figure(rates[2], 10, 1),
        &latency[1..],
        ms(sum.longest_freeze),
        sum.frames.order_errors,
        figure((sum.pictures.judged > 0).then_some(sum.pictures.raw as f64), 5, 0),
        sum.up.kbps(seconds),
        sum.down.kbps(seconds),
    )
}
