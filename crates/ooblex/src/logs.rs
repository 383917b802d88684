//! Logs: for people, or as JSON for machines, to standard error. What repeats is limited, and the filter can change while the program runs.
//!
//! A thread of its own writes the lines, so that nobody else waits for a reader of standard error that has stopped reading.

use std::collections::HashMap;
use std::fmt::{Debug, Write as _};
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use crossbeam_channel::{Receiver, Sender, bounded};
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, info, warn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::config::{Log, LogFormat};

/// Lines of one kind are counted for this long.
const WINDOW: Duration = Duration::from_secs(10);
/// Complaints of one kind that are written in that time.
const COMPLAINTS: u32 = 20;
/// Other lines of one kind that are written in that time: several sessions begin and end each second.
const NEWS: u32 = 500;

/// Lines that wait to be written; more are dropped and counted.
const QUEUE: usize = 4096;
/// Time in which the last lines must be written when the program ends.
const LAST_LINES_WITHIN: Duration = Duration::from_secs(1);

/// The running logs.
pub struct Logs {
    filter: reload::Handle<EnvFilter, Registry>,
    lines: Lines,
}

/// Begins to log.
///
/// # Errors
/// When the filter is not understood.
pub fn start(config: &Log) -> anyhow::Result<Logs> {
    let (filter, handle) = reload::Layer::new(parse(&config.filter)?);
    let lines = Lines::start(io::stderr())?;
    let layer = tracing_subscriber::fmt::layer().with_writer(lines.clone()).with_target(false);
    let layer = match config.format {
        LogFormat::Text => layer.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(Repeats::default()).with(layer).init();
    Ok(Logs { filter: handle, lines })
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
        self.lines.flush(LAST_LINES_WITHIN);
    }
}

/// The queue of lines in front of the thread that writes them. Clones lead to the same one.
#[derive(Clone)]
struct Lines {
    queue: Sender<Item>,
    dropped: Arc<AtomicU64>,
}

enum Item {
    Line(Vec<u8>),
    /// All lines before are written when this is dropped.
    Mark(#[allow(dead_code, reason = "only its end is of use")] Sender<()>),
}

impl Lines {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    fn start(to: impl io::Write + Send + 'static) -> io::Result<Self> {
        let (queue, items) = bounded(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = dropped.clone();
        std::thread::Builder::new().name("logs".into()).spawn(move || write_all(to, &items, &counted))?;
        Ok(Self { queue, dropped })
    }

    /// Waits until all lines are written, at most for `within`.
    fn flush(&self, within: Duration) {
        let deadline = Instant::now() + within;
        let (mark, passed) = bounded(0);
        if self.queue.send_deadline(Item::Mark(mark), deadline).is_ok() {
            // It ends with an error as soon as the mark is dropped.
            _ = passed.recv_deadline(deadline);
        }
    }
}

fn write_all(mut to: impl io::Write, items: &Receiver<Item>, dropped: &AtomicU64) {
    let mut told = 0;
    for item in items {
        let Item::Line(line) = item else { continue };
        // Nobody can be told where standard error is closed.
        _ = to.write_all(&line);
        let dropped = dropped.load(Ordering::Relaxed);
        if dropped > told {
            warn!(dropped = dropped - told, "lines of the log were dropped: standard error was not read in time");
            told = dropped;
        }
    }
}

/// Takes a whole line with each call.
impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Item::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
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

    #[test]
    fn nobody_waits_for_a_reader_who_does_not_read() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut lines = Lines::start(writer).unwrap();
        let line = format!("{}\n", "x".repeat(99));
        // More than the pipe and the queue hold.
        for _ in 0..3 * QUEUE {
            io::Write::write_all(&mut lines, line.as_bytes()).unwrap();
        }
        let dropped = lines.dropped.clone();
        drop(lines);
        let mut read = String::new();
        io::Read::read_to_string(&mut reader, &mut read).unwrap();
        assert!(read.lines().all(|one| one.len() == 99), "each line is whole");
        let dropped = dropped.load(Ordering::Relaxed);
        assert!(dropped > 0);
        assert_eq!(read.lines().count() as u64 + dropped, 3 * QUEUE as u64);
    }

    #[test]
    fn the_last_lines_are_written_before_the_program_ends() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut lines = Lines::start(writer).unwrap();
        for _ in 0..100 {
            io::Write::write_all(&mut lines, b"line\n").unwrap();
        }
        lines.flush(Duration::from_secs(30));
        let mut read = [0; 500];
        // All of it lies in the pipe already.
        assert_eq!(io::Read::read(&mut reader, &mut read).unwrap(), 500);
    }
}
