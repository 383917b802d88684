//! The figures as a text table for the terminal, printed at the end of a run.

use std::fmt::Write as _;

use super::figures::{IN_ORDER, Outcome, REASONS, Summary, counted, is_known, ms};
use super::interval_stats::Totals;
use super::load_generator::{Measured, SessionFigures};
use super::viewer::State;

impl Outcome<'_> {
    /// Formats the result of the run as text.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        let clip = self.clip;
        _ = writeln!(
            text,
            "{}, {}x{} at {} fps, {} {} kbit/s, {}, {:.0} s",
            counted(self.sessions(), "session"),
            clip.size.0,
            clip.size.1,
            clip.fps,
            clip.codec.label(),
            clip.bitrate_bps / 1000,
            self.effects().join(" + "),
            self.churned.as_ref().map_or(self.measured.seconds, |churned| churned.took.as_secs_f64()),
        );
        if let Some(churned) = &self.churned {
            text += &churned.table();
        } else {
            text += &self.figures_table();
        }
        if let Some(knee) = &self.knee {
            text += &knee.table();
        }
        text
    }

    fn figures_table(&self) -> String {
        let summary = Summary::of(&self.measured);
        let mut text = String::from(
            "session effect               sent  shown  processed |  p50    p95    p99    max ms | freeze ms | order   raw | kbit/s up  back\n",
        );
        let several = self.measured.sessions.len() > 1;
        for session in &self.measured.sessions {
            text += &row(session, self.measured.seconds);
        }
        if several {
            let count = self.measured.connected().count().max(1) as f64;
            let name = "least / all";
            let least = [summary.fps_sent_min, summary.fps_shown_min, summary.fps_processed_min];
            text += &figures_row("all", name, least, &summary.all, self.measured.seconds * count);
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
        text += &warnings(&summary, &self.measured);
        text
    }
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
    if sum.sent_late * 50 > sum.sent {
        let percent = sum.sent_late * 100 / sum.sent.max(1);
        _ = writeln!(
            text,
            "{percent} % of the frames were sent late: this machine is too busy for so many sessions, so take less from the figures"
        );
    }
    if summary.numbers == "picture" {
        _ = writeln!(
            text,
            "The gateway stamps frames anew: they were known by the number on the picture ({} read, {} not).",
            sum.read, sum.unreadable
        );
    }
    if sum.raw > 0 {
        _ = writeln!(text, "UNPROCESSED PICTURES CAME BACK: {} of {} that were judged", sum.raw, sum.judged);
    }
    text
}

fn usage_line(summary: &Summary) -> String {
    let mut parts = Vec::new();
    if let Some(cores) = summary.gateway_cpu_cores {
        parts.push(format!("gateway {cores:.2} cores"));
    }
    if let Some(megabytes) = summary.gateway_memory_mb {
        parts.push(format!("{megabytes:.0} MB at most"));
    }
    if let Some(cores) = summary.bench_cpu_cores {
        parts.push(format!("bench {cores:.2} cores"));
    }
    parts.push(format!("{:.1} fps processed in all", summary.fps_processed_total));
    parts.join(", ") + "\n"
}

fn row(session: &SessionFigures, seconds: f64) -> String {
    let (sum, number) = (&session.totals.sum, session.index.to_string());
    let effect = session.effect.as_deref().unwrap_or("(the gateway's)");
    if let State::Failed(_) | State::SettingUp = session.state {
        return format!("{number:>7} {effect:<16} no connection\n");
    }
    let rate = |count: u64| Some(count as f64 / seconds.max(1e-3));
    let rates = [rate(sum.sent), rate(sum.shown), rate(sum.processed).filter(|_| is_known(session))];
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
    let kbps = |bytes: u64| bytes as f64 * 8.0 / 1e3 / seconds.max(1e-3);
    format!(
        "{number:>7} {effect:<16} {} {} {} | {}   | {:>9.0} | {:>5} {} | {:>9.0} {:>5.0}\n",
        figure(rates[0], 8, 1),
        figure(rates[1], 6, 1),
        figure(rates[2], 10, 1),
        &latency[1..],
        ms(sum.longest_freeze),
        sum.order_errors,
        figure((sum.judged > 0).then_some(sum.raw as f64), 5, 0),
        kbps(sum.bytes_up),
        kbps(sum.bytes_down),
    )
}
