//! Queue and writer thread for log lines, so that a blocked standard error blocks no other thread.

use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use ooblex_gateway::metrics::LOST_LOG_LINES;
use tracing_subscriber::fmt::MakeWriter;

/// Capacity of the queue in lines; further lines are dropped.
const WAITING: usize = 4096;
/// Longest wait for the queued lines at the end of the process.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// Returns the number of lines that were dropped because standard error was blocked.
pub(crate) fn lost() -> u64 {
    LOST_LOG_LINES.load(Ordering::Relaxed)
}

/// Sender of log lines; clones share one writer thread.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    queue: SyncSender<Item>,
}

#[derive(Debug)]
enum Item {
    Line(Vec<u8>),
    /// Requests a notification when all previous lines are written.
    Flush(SyncSender<()>),
}

impl Lines {
    /// Starts the writer thread, which writes to `out`.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, items) = sync_channel(WAITING);
        let told = lost();
        std::thread::Builder::new().name("log".into()).spawn(move || write(out, &items, told))?;
        Ok(Self { queue })
    }

    /// Waits until the queued lines are written, at most for `FLUSH_WITHIN`.
    pub(super) fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.queue.try_send(Item::Flush(done)).is_ok() {
            _ = written.recv_timeout(FLUSH_WITHIN);
        }
    }
}

/// Writes the queued items. `told` is the number of dropped lines that was reported already.
fn write(mut out: impl Write, items: &Receiver<Item>, mut told: u64) {
    while let Ok(item) = items.recv() {
        match item {
            // An error on standard error cannot be reported anywhere.
            Item::Line(line) => _ = out.write_all(&line),
            Item::Flush(done) => _ = done.try_send(()),
        }
        let lost = lost();
        if lost > told {
            _ = writeln!(out, "{} log lines were lost because standard error did not take them", lost - told);
            told = lost;
        }
    }
}

impl Write for Lines {
    /// Queues one line; the formatter calls this once for each line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Item::Line(line.to_vec())).is_err() {
            LOST_LOG_LINES.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// A writer that blocks until it receives a message.
    struct Blocked(Receiver<()>, Sender<Vec<u8>>);

    impl Write for Blocked {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            _ = self.0.recv();
            _ = self.1.send(line.to_vec());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_blocked_output_holds_up_nobody_and_lines_that_are_lost_are_counted() {
        let (open, gate) = channel();
        let (writer, written) = channel();
        let mut lines = Lines::start(Blocked(gate, writer)).unwrap();
        let before = lost();
        for n in 0..2 * WAITING {
            lines.write_all(format!("line {n}\n").as_bytes()).unwrap();
        }
        let missing = (lost() - before) as usize;
        assert!((WAITING - 1..=WAITING).contains(&missing), "{missing}");
        drop(open);
        let first: Vec<_> = written.iter().take(2).collect();
        assert_eq!(first[0], b"line 0\n");
        lines.flush();
        let rest = String::from_utf8(written.try_iter().flatten().collect()).unwrap();
        assert!(first[1].starts_with(b"4") || rest.contains("log lines were lost"), "{rest}");
    }
}
