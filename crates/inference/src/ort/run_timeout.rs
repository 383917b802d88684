//! Run timeout for custom models, which may never finish.
//!
//! ONNX Runtime checks for termination between two nodes, also within loops. A single node that
//! never finishes cannot be terminated.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use ort::session::RunOptions;
use parking_lot::{Condvar, Mutex};

use crate::LONGEST_RUN;

/// The run timeout of one model, enforced by a watchdog thread that sleeps until a run exceeds
/// [`LONGEST_RUN`].
pub(super) struct RunTimeout {
    shared: Arc<Shared>,
    watcher: Option<JoinHandle<()>>,
}

struct Shared {
    options: RunOptions,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Time at which the current run is terminated; `None` if no run is in progress.
    deadline: Option<Instant>,
    /// True if the current run was terminated.
    pulled: bool,
    /// True once the model is dropped.
    closed: bool,
}

impl RunTimeout {
    pub(super) fn new() -> ort::Result<Self> {
        let shared = Arc::new(Shared { options: RunOptions::new()?, state: Mutex::default(), changed: Condvar::new() });
        let watched = shared.clone();
        let watcher = std::thread::Builder::new().name("run-timeout".into()).spawn(move || watched.watch());
        let watcher = watcher.map_err(|error| ort::Error::new(format!("the system gives no thread to watch it: {error}")))?;
        Ok(Self { shared, watcher: Some(watcher) })
    }

    /// Calls `work` with run options that terminate it after [`LONGEST_RUN`].
    pub(super) fn run<T>(&self, work: impl FnOnce(&RunOptions) -> ort::Result<T>) -> ort::Result<T> {
        self.shared.state.lock().deadline = Some(Instant::now() + LONGEST_RUN);
        self.shared.changed.notify_one();
        let done = work(&self.shared.options);
        let mut state = self.shared.state.lock();
        state.deadline = None;
        if std::mem::take(&mut state.pulled) {
            self.shared.options.unterminate()?;
            return done
                .map_err(|_| ort::Error::new(format!("it was ended after {LONGEST_RUN:?}, since no frame waits that long: it may hang")));
        }
        done
    }
}

impl Shared {
    fn watch(&self) {
        let mut state = self.state.lock();
        while !state.closed {
            let now = Instant::now();
            match state.deadline {
                None => self.changed.wait(&mut state),
                Some(deadline) if now < deadline => _ = self.changed.wait_until(&mut state, deadline),
                Some(_) => {
                    (state.deadline, state.pulled) = (None, true);
                    // This fails only for invalid options, and these are valid.
                    _ = self.options.terminate();
                }
            }
        }
    }
}

impl Drop for RunTimeout {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.changed.notify_one();
        _ = self.watcher.take().map(JoinHandle::join);
    }
}
