//! Progress display of a bench run: one line per second on standard error. On a terminal, each line
//! overwrites the previous one.

use std::io::{IsTerminal, Write, stderr};

use super::load_generator::Second;

/// The progress display.
pub(super) struct Progress {
    is_terminal: bool,
    /// True if the cursor is on a line that the next one overwrites.
    open: bool,
    /// Prefix of each line, such as the number of sessions.
    stage: String,
}

impl Progress {
    /// Creates a display on standard error.
    pub(super) fn new() -> Self {
        Self { is_terminal: stderr().is_terminal(), open: false, stage: String::new() }
    }

    /// Prints a message on a separate line.
    pub(super) fn say(&mut self, text: &str) {
        self.done();
        eprintln!("{text}");
    }

    /// Sets the prefix of the following lines.
    pub(super) fn set_stage(&mut self, stage: String) {
        self.stage = stage;
    }

    /// Shows the figures of a second. `begun` is the number of sessions begun; `counts` is false
    /// during the warm-up.
    pub(super) fn second(&mut self, second: &Second, begun: usize, counts: bool) {
        let rate = |count: u64| second.rate(count);
        let ms = |quantile| second.latency_ms(quantile).map_or("–".into(), |ms| format!("{ms:.0}"));
        let mut line = format!(
            "{}{:4.0} s{} {}/{begun} sessions  {:.1} fps shown, {:.1} processed (least {:.0})  p50 {} p95 {} ms  {:.0} kbit/s back",
            self.stage,
            second.at_s,
            if counts { "" } else { " warming up" },
            second.sessions,
            rate(second.all.frames.shown),
            rate(second.all.frames.processed),
            second.least_processed as f64 / second.length_s,
            ms(0.5),
            ms(0.95),
            rate(second.all.down.bytes) * 8.0 / 1e3,
        );
        if let Some(cores) = second.gateway.cpu_cores {
            line += &format!("  gateway {cores:.2} cores");
        }
        if let Some(cores) = second.own.cpu_cores {
            line += &format!("  bench {cores:.2}");
        }
        if second.all.pictures.raw > 0 {
            line += &format!("  {} RAW", second.all.pictures.raw);
        }
        self.show(&line);
    }

    /// Shows a line, which overwrites the previous one on a terminal.
    pub(super) fn show(&mut self, line: &str) {
        if self.is_terminal {
            // The escape sequence returns to the left edge and clears the line.
            eprint!("\r\x1b[2K{line}");
            _ = stderr().flush();
            self.open = true;
        } else {
            eprintln!("{line}");
        }
    }

    /// Ends the current line, so that it is not overwritten.
    pub(super) fn done(&mut self) {
        if std::mem::take(&mut self.open) {
            eprintln!();
        }
    }
}
