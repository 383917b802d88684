//! Logs to standard error, as text or JSON. Repeated lines are rate-limited, and the filter can
//! change at run time. Logging never blocks on standard error; see `lines`.

mod lines;

use std::backtrace::Backtrace;
use std::collections::HashMap;
use std::fmt::{Debug, Write as _};
use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, error, info, warn};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

use lines::Lines;
use ooblex_config::{Log, LogFormat};

/// Time window of the rate limit.
const WINDOW: Duration = Duration::from_secs(10);
/// Largest number of errors and warnings from one call site in a window.
const COMPLAINTS: u32 = 20;
/// Largest number of info lines from one call site in a window. It allows for several sessions that
/// begin and end each second.
const NEWS: u32 = 500;

static WRITER: OnceLock<Lines> = OnceLock::new();

/// Waits until the queued lines are written, at most for a second.
pub(crate) fn flush() {
    if let Some(writer) = WRITER.get() {
        writer.flush();
    }
}

/// Handle to the logs. Dropping it flushes the queued lines.
pub struct Logs {
    filter: reload::Handle<Targets, Registry>,
}

/// Installs the global logger and the panic hook.
///
/// # Errors
/// When the filter cannot be parsed.
pub fn start(config: &Log) -> anyhow::Result<Logs> {
    let (filter, handle) = reload::Layer::new(parse(&config.filter)?);
    let writer = Lines::start(std::io::stderr()).context("no thread for the logs")?;
    let writer = WRITER.get_or_init(|| writer).clone();
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false);
    let lines = match config.format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(Repeats::default()).with(lines).init();
    // A panic is logged like other lines: it is rate-limited, and its thread does not block on
    // standard error.
    std::panic::set_hook(Box::new(|panic| error!(backtrace = %Backtrace::capture(), "{panic}")));
    Ok(Logs { filter: handle })
}

impl Logs {
    /// Replaces the filter.
    ///
    /// # Errors
    /// When the filter cannot be parsed; the previous one stays in force.
    pub fn set_filter(&self, filter: &str) -> anyhow::Result<()> {
        Ok(self.filter.reload(parse(filter)?)?)
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        flush();
    }
}

fn parse(filter: &str) -> anyhow::Result<Targets> {
    let parsed = filter.parse::<Targets>();
    parsed.with_context(|| format!("log.filter '{filter}' is not understood: write 'info' or 'ooblex=debug,str0m=warn'"))
}

/// Rate limiter of repeated lines, by call site.
#[derive(Default)]
struct Repeats {
    by_place: Mutex<HashMap<Identifier, Window>>,
}

/// The current window of one call site.
#[derive(Debug)]
struct Window {
    since: Instant,
    written: u32,
    left_out: u64,
}

/// The decision about a line.
#[derive(Debug, PartialEq)]
enum Verdict {
    Write,
    /// Write it after a note with this number of suppressed lines.
    WriteAfter(u64),
    LeaveOut,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self { since: now, written: 0, left_out: 0 }
    }

    fn on_line(&mut self, now: Instant, limit: u32) -> Verdict {
        if now.saturating_duration_since(self.since) >= WINDOW {
            let left_out = std::mem::replace(self, Self { written: 1, ..Self::new(now) }).left_out;
            return if left_out > 0 { Verdict::WriteAfter(left_out) } else { Verdict::Write };
        }
        if self.written < limit {
            self.written += 1;
            return Verdict::Write;
        }
        self.left_out += 1;
        Verdict::LeaveOut
    }
}

impl<S: Subscriber> Layer<S> for Repeats {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let level = *event.metadata().level();
        let limit = match level {
            Level::ERROR | Level::WARN => COMPLAINTS,
            Level::INFO => NEWS,
            // Debug and trace lines are not limited.
            _ => return true,
        };
        let now = Instant::now();
        let verdict = {
            let mut places = self.by_place.lock();
            places.entry(event.metadata().callsite()).or_insert_with(|| Window::new(now)).on_line(now, limit)
        };
        if let Verdict::WriteAfter(left_out) = verdict {
            let mut message = Message::default();
            event.record(&mut message);
            match level {
                Level::INFO => info!(left_out, like = message.0, "lines that repeat were left out"),
                _ => warn!(left_out, like = message.0, "lines that repeat were left out"),
            }
        }
        verdict != Verdict::LeaveOut
    }
}

/// The message of an event, without its other fields.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            _ = write!(self.0, "{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_limit_are_left_out_and_told_of_when_the_next_one_is_written() {
        let start = Instant::now();
        let mut window = Window::new(start);
        let written = (0..50).filter(|_| window.on_line(start, COMPLAINTS) == Verdict::Write).count();
        assert_eq!(written, 20);
        assert_eq!(window.on_line(start + WINDOW, COMPLAINTS), Verdict::WriteAfter(30));
        assert_eq!(window.on_line(start + WINDOW, COMPLAINTS), Verdict::Write);
        assert_eq!(window.on_line(start + 3 * WINDOW, COMPLAINTS), Verdict::Write, "nothing was left out meanwhile");
    }
}
