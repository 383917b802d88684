//! The watchdog of the media thread: it checks that the thread turns, and ends the process
//! otherwise.
//!
//! All sessions share that thread. Without it a gateway answers HTTP and does nothing else, and
//! nobody would restart it. When the thread has ended, or has not turned for `STALL_TIMEOUT`,
//! `/healthz` fails and the process ends with a status on which supervisors restart it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tracing::error;

use crate::notify::Notify;

/// Time without a turn after which the media thread counts as lost.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest time between two turns of the media thread, also when it has nothing to do.
pub const MAX_TURN_INTERVAL: Duration = Duration::from_millis(500);
/// Time between two checks of the media thread.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// Delay of a check which shows that the whole process did not run: it was stopped, or the machine
/// slept.
const SUSPENSION_DELAY: Duration = Duration::from_millis(1000);
/// Time for which `/healthz` fails before the process ends, so that a probe can see it.
const EXIT_DELAY: Duration = Duration::from_secs(1);

const RUNNING: u8 = 0;
const STOPPED: u8 = 1;
const BROKEN: u8 = 2;

/// The heartbeat of the media thread.
#[derive(Debug, Default)]
pub struct Heartbeat {
    turns: AtomicU64,
    state: AtomicU8,
    is_lost: AtomicBool,
}

/// The media thread's end of the heartbeat, which it holds while it runs.
#[derive(Debug)]
pub struct Beating(Arc<Heartbeat>);

/// The result of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// The thread turns, or may still turn in time.
    Well,
    /// The thread has not turned for too long.
    Stalled,
}

/// The last turn that the watchdog has seen.
#[derive(Debug)]
struct StallDetector {
    turns: u64,
    since: Instant,
    looked: Instant,
}

impl Heartbeat {
    /// Returns whether the media thread works, or was stopped in order.
    pub fn is_well(&self) -> bool {
        !self.is_lost.load(Ordering::Relaxed) && self.state.load(Ordering::Relaxed) != BROKEN
    }

    /// Begins the heartbeat. If the result is dropped without [`Beating::stop`], the thread broke.
    pub fn begin(self: &Arc<Self>) -> Beating {
        Beating(self.clone())
    }

    /// Starts the watchdog's thread, which notifies the service manager, and ends the process when
    /// the media thread is lost.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn watch(self: &Arc<Self>, notify: Notify) -> std::io::Result<()> {
        let own = self.clone();
        std::thread::Builder::new().name("watchdog".into()).spawn(move || {
            if own.look_until_lost(|| notify.alive()) {
                std::thread::sleep(EXIT_DELAY);
                // Exit handlers may wait for a thread that hangs.
                _ = std::thread::Builder::new().spawn(|| std::process::exit(1));
                std::thread::sleep(EXIT_DELAY);
                std::process::abort();
            }
        })?;
        Ok(())
    }

    /// Checks the thread until it stops (`false`) or is lost (`true`). `is_well` is called after
    /// each check that finds no fault.
    fn look_until_lost(&self, is_well: impl Fn()) -> bool {
        let mut watch = StallDetector::new(self.turns.load(Ordering::Relaxed), Instant::now());
        loop {
            let why = match self.state.load(Ordering::Relaxed) {
                STOPPED => return false,
                BROKEN => Some("the media thread has ended"),
                _ if watch.look(self.turns.load(Ordering::Relaxed), Instant::now()) == Look::Stalled => {
                    Some("the media thread hangs: it has not turned for two seconds")
                }
                _ => None,
            };
            if let Some(why) = why {
                self.is_lost.store(true, Ordering::Relaxed);
                error!("{why}; no session can go on, so this process ends and must be started again");
                return true;
            }
            is_well();
            std::thread::sleep(CHECK_INTERVAL);
        }
    }
}

impl Beating {
    /// The thread turns.
    pub fn turn(&self) {
        self.0.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// The thread ends in order.
    pub fn stop(&self) {
        self.0.state.store(STOPPED, Ordering::Relaxed);
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        _ = self.0.state.compare_exchange(RUNNING, BROKEN, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl StallDetector {
    fn new(turns: u64, now: Instant) -> Self {
        Self { turns, since: now, looked: now }
    }

    fn look(&mut self, turns: u64, now: Instant) -> Look {
        let was_asleep = now.saturating_duration_since(self.looked) >= SUSPENSION_DELAY;
        self.looked = now;
        if turns != self.turns || was_asleep {
            (self.turns, self.since) = (turns, now);
        }
        if now.saturating_duration_since(self.since) >= STALL_TIMEOUT { Look::Stalled } else { Look::Well }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_thread_that_loops_is_alive_and_one_that_does_not_is_stalled_after_two_seconds() {
        let began = Instant::now();
        let mut watch = StallDetector::new(0, began);
        for n in 1..100 {
            assert_eq!(watch.look(u64::from(n / 2), began + 250 * n * MS), Look::Well, "it turns every half second");
        }
        let last = began + 250 * 99 * MS;
        let stalled: Vec<_> = (1..=8).map(|n| watch.look(49, last + 250 * n * MS)).collect();
        assert_eq!(stalled.iter().filter(|look| **look == Look::Well).count(), 7 - usize::from(stalled[6] == Look::Stalled));
        assert_eq!(stalled[7], Look::Stalled);
    }

    #[test]
    fn a_process_that_was_suspended_is_given_time() {
        let began = Instant::now();
        let mut watch = StallDetector::new(7, began);
        assert_eq!(watch.look(7, began + 3_600_000 * MS), Look::Well, "the machine slept for an hour");
        assert_eq!(watch.look(7, began + 3_601_750 * MS), Look::Well, "and once more");
        assert_eq!(watch.look(8, began + 3_602_000 * MS), Look::Well);
        for n in 1..8 {
            assert_eq!(watch.look(8, began + (3_602_000 + 250 * n) * MS), Look::Well);
        }
        assert_eq!(watch.look(8, began + 3_604_000 * MS), Look::Stalled);
    }

    #[test]
    fn a_thread_that_hangs_is_noticed_and_the_heartbeat_says_so() {
        let heartbeat = Arc::new(Heartbeat::default());
        let (hang, hangs) = channel::<()>();
        let beating = heartbeat.begin();
        let thread = std::thread::spawn(move || {
            beating.turn();
            _ = hangs.recv();
            beating.stop();
        });
        assert!(heartbeat.is_well());
        assert!(heartbeat.look_until_lost(|| {}), "it is lost");
        assert!(!heartbeat.is_well());
        drop(hang);
        thread.join().unwrap();
    }

    #[test]
    fn a_thread_that_panics_is_noticed_and_one_that_stops_in_order_is_not() {
        let broken = Arc::new(Heartbeat::default());
        let beating = broken.begin();
        let thread = std::thread::spawn(move || {
            beating.turn();
            panic!("a test of the watchdog");
        });
        assert!(thread.join().is_err());
        assert!(broken.look_until_lost(|| {}) && !broken.is_well());

        let stopped = Arc::new(Heartbeat::default());
        let beating = stopped.begin();
        beating.stop();
        drop(beating);
        assert!(!stopped.look_until_lost(|| {}) && stopped.is_well());
    }
}
