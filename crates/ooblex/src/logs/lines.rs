//! The way of log lines to standard error, which may be blocked: no thread waits for it but the one that writes.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait to be written; more are lost.
const WAITING: usize = 4096;
/// The last lines of a process are waited for this long.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

static LOST: AtomicU64 = AtomicU64::new(0);

/// Lines that were lost so far because standard error did not take them.
pub(crate) fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// The entrance; clones lead to the same writer.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    queue: SyncSender<Item>,
}

#[derive(Debug)]
enum Item {
    Line(Vec<u8>),
    /// All lines before were written.
    Flush(SyncSender<()>),
}

impl Lines {
    /// Begins to write to `out`, from a thread of its own.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, items) = sync_channel(WAITING);
        let told = lost();
        std::thread::Builder::new().name("log".into()).spawn(move || write(out, &items, told))?;
        Ok(Self { queue })
    }

    /// Waits until what was said is written, but not for long.
    pub(super) fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.queue.try_send(Item::Flush(done)).is_ok() {
            _ = written.recv_timeout(FLUSH_WITHIN);
        }
    }
}

/// `told`: lost lines that were told of before.
fn write(mut out: impl Write, items: &Receiver<Item>, mut told: u64) {
    while let Ok(item) = items.recv() {
        match item {
            // A failure cannot be reported anywhere.
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
    /// One line at a time, as the formatter hands them out.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Item::Line(line.to_vec())).is_err() {
            LOST.fetch_add(1, Ordering::Relaxed);
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

    /// Takes nothing until it may.
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
