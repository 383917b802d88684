//! What a person sees while a bench runs: a line on standard error, once a second. On a terminal it stays one line.

use std::io::{IsTerminal, Write, stderr};

use super::crew::Second;

/// The display.
pub(super) struct Progress {
    is_terminal: bool,
    /// A line stands that is to be overwritten.
    open: bool,
    /// What the run is at, such as a number of sessions.
    stage: String,
}

impl Progress {
    /// A display on standard error.
    pub(super) fn new() -> Self {
        Self { is_terminal: stderr().is_terminal(), open: false, stage: String::new() }
    }

    /// Something that is worth a line of its own.
    pub(super) fn say(&mut self, text: &str) {
        self.done();
        eprintln!("{text}");
    }

    /// What the run is at from now on; shown before each line.
    pub(super) fn set_stage(&mut self, stage: String) {
        self.stage = stage;
    }

    /// A second has passed, with so many sessions begun.
    pub(super) fn second(&mut self, second: &Second, begun: usize, counts: bool) {
        let rate = |count: u64| second.rate(count);
        let ms = |quantile| second.latency_ms(quantile).map_or("–".into(), |ms| format!("{ms:.0}"));
        let mut line = format!(
            "{}{:4.0} s{} {}/{begun} sessions  {:.1} fps shown, {:.1} processed (least {:.0})  p50 {} p95 {} ms  {:.0} kbit/s back",
            self.stage,
            second.at_s,
            if counts { "" } else { " warming up" },
            second.sessions,
            rate(second.all.shown),
            rate(second.all.processed),
            second.least_processed as f64 / second.length_s,
            ms(0.5),
            ms(0.95),
            rate(second.all.bytes_down) * 8.0 / 1e3,
        );
        if let Some(cores) = second.gateway.cpu_cores {
            line += &format!("  gateway {cores:.2} cores");
        }
        if let Some(cores) = second.own.cpu_cores {
            line += &format!("  bench {cores:.2}");
        }
        if second.all.raw > 0 {
            line += &format!("  {} RAW", second.all.raw);
        }
        self.show(&line);
    }

    /// Shows a line that the next one takes the place of, where that can be.
    pub(super) fn show(&mut self, line: &str) {
        if self.is_terminal {
            // Back to the left edge, and what stood there is cleared.
            eprint!("\r\x1b[2K{line}");
            _ = stderr().flush();
            self.open = true;
        } else {
            eprintln!("{line}");
        }
    }

    /// What stands there is final.
    pub(super) fn done(&mut self) {
        if std::mem::take(&mut self.open) {
            eprintln!();
        }
    }
}
