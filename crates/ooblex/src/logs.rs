//! Logs: for people, or as JSON for machines, to standard error. What repeats is limited, and the filter can change while the program runs.
//! Nobody who logs waits for standard error; `lines` does.

mod lines;

use std::backtrace::Backtrace;
use std::collections::HashMap;
use std::fmt::{Debug, Write as _};
use std::io::IsTerminal;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, error, info, warn};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::config::{Log, LogFormat};
use lines::Lines;
pub(crate) use lines::lost;

/// Lines of one kind are counted for this long.
const WINDOW: Duration = Duration::from_secs(10);
/// Complaints of one kind that are written in that time.
const COMPLAINTS: u32 = 20;
/// Other lines of one kind that are written in that time: several sessions begin and end each second.
const NEWS: u32 = 500;

static WRITER: OnceLock<Lines> = OnceLock::new();

/// Waits until what was logged is written, but not for long.
pub(crate) fn flush() {
    if let Some(writer) = WRITER.get() {
        writer.flush();
    }
}

/// The running logs. The last lines are written when it is dropped.
pub struct Logs {
    filter: reload::Handle<EnvFilter, Registry>,
}

/// Begins to log.
///
/// # Errors
/// When the filter is not understood.
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
    // A panic is a line like others: it is limited where it repeats, and its thread does not wait for standard error.
    std::panic::set_hook(Box::new(|panic| error!(backtrace = %Backtrace::capture(), "{panic}")));
    Ok(Logs { filter: handle })
}

impl Logs {
    /// From now on another filter is in force.
    ///
    /// # Errors
    /// When it is not understood; the one before stays.
    pub fn set_filter(&self, filter: &str) -> anyhow::Result<()> {
        Ok(self.filter.reload(parse(filter)?)?)
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        flush();
    }
}

fn parse(filter: &str) -> anyhow::Result<EnvFilter> {
    let parsed = EnvFilter::builder().parse(filter);
    parsed.with_context(|| format!("log.filter '{filter}' is not understood: write 'info' or 'ooblex=debug,str0m=warn'"))
}

/// Leaves out lines that repeat, and says how many there were.
#[derive(Default)]
struct Repeats {
    by_place: Mutex<HashMap<Identifier, Window>>,
}

/// Lines of one place in the code.
#[derive(Debug)]
struct Window {
    since: Instant,
    written: u32,
    left_out: u64,
}

/// What is done with a line.
#[derive(Debug, PartialEq)]
enum Verdict {
    Write,
    /// Before it, so many were left out.
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
            // Whoever asks for these wants them all.
            _ => return true,
        };
        let now = Instant::now();
        let verdict = {
            let mut places = self.by_place.lock().unwrap_or_else(PoisonError::into_inner);
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

/// What an event says, without its fields.
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
