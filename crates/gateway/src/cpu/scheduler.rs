//! The CPU scheduler: permits to compute, for about as many tracks at a time as the machine has
//! cores, the most urgent first.
//!
//! Each track has a thread. Without permits, thirty busy threads share the cores in time slices:
//! every step of every frame takes as long as the thirty together, caches are never warm, and
//! models starve. With permits each step runs through, and a frame that waits can still be dropped.
//! A frame that has been started cannot, so there is one permit more than cores, for steps near a
//! frame's end and for frames that need no worker. More starts of frames that need a worker would
//! only wait for one, and leave it less of the cores. Workers hold no permits, and neither does a
//! track that uses more than its share ([`super::shares`]): both run at a lower priority, and
//! nobody waits for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
#[cfg(target_os = "linux")]
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The urgency of a step of a track. Permits go to the lowest value first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// A frame is near its end: paint, encode, send.
    Finish,
    /// Frames are to be decoded. Those that arrived at `due` or later are kept. An earlier `due` is
    /// served first. A track that has only older frames waits behind all others for at most
    /// `SPARE_TIMEOUT`.
    Begin {
        /// The earliest arrival time of a frame that is kept.
        due: Instant,
        /// The frames cannot be shown without the result of a worker.
        needs_worker: bool,
    },
}

/// The scheduler. [`CpuScheduler::acquire`] gives a [`Permit`], which is returned when it is
/// dropped.
#[derive(Debug)]
pub struct CpuScheduler(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Permits that are free, of both kinds.
    free: usize,
    /// Permits that are free to start frames that need a worker. It never exceeds `free`.
    starts: usize,
    /// Threads that wait, in order of arrival. A linear search is enough: there is one a session.
    waiting: Vec<Waiting>,
    /// Mean wait for `Begin` permits, measured from the request.
    waited: MeanWait,
    /// Mean wait for `Begin` permits, measured from the moment when a frame to keep was there.
    late: MeanWait,
}

#[derive(Debug)]
struct Waiting {
    urgency: Urgency,
    thread: Thread,
    ticket: Arc<Ticket>,
}

/// The mean waits for `Begin` permits during about the last 50 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// The mean time from the request to the permit.
    pub waited: Duration,
    /// The mean time from the arrival of the first frame that is kept to the permit. Older frames
    /// do not count.
    pub late: Duration,
}

/// An exponentially weighted mean of waits, with `MEAN_TIME_CONSTANT`.
#[derive(Debug, Default)]
pub struct MeanWait {
    mean: Duration,
    last: Option<Instant>,
}

/// The time constant of [`MeanWait`].
const MEAN_TIME_CONSTANT: Duration = Duration::from_millis(50);

/// A track without a frame to keep waits behind all others until this time after `due`. Then it is
/// served like the others, since its thread has to notice that its camera has stopped or its
/// session has ended.
const SPARE_TIMEOUT: Duration = Duration::from_millis(100);

/// The ticket of one thread: its state in the queue for permits.
#[derive(Debug)]
pub struct Ticket {
    /// The thread has its permit.
    granted: AtomicBool,
    /// The permit is one to start frames that need a worker.
    starts_frame: AtomicBool,
    /// [`CpuScheduler::boost`] was called since the last permit.
    boosted: AtomicBool,
    created: Instant,
    /// The arrival time of the newest frame, in nanoseconds since `created`.
    newest_ns: AtomicU64,
}

/// The right to compute. Dropping it returns it to the scheduler.
#[derive(Debug)]
pub struct Permit<'s> {
    scheduler: &'s CpuScheduler,
    /// It came early because [`CpuScheduler::boost`] was called: it is meant for a frame near its
    /// end.
    pub boosted: bool,
    /// It is one of the permits to start frames that need a worker.
    starts_frame: bool,
}

/// Takes one core out of the affinity mask of the calling thread, and of threads that it starts,
/// where the mask has more than one. All callers leave the same core free, so that threads that
/// wake up find it idle. Nothing happens on systems other than Linux.
pub fn leave_one_core_free() {
    #[cfg(target_os = "linux")]
    if let Ok(mut cores) = sched_getaffinity(None)
        && cores.count() > 1
        && let Some(first) = (0..CpuSet::MAX_CPU).find(|core| cores.is_set(*core))
    {
        cores.unset(first);
        _ = sched_setaffinity(None, &cores);
    }
}

impl Urgency {
    fn needs_worker(self) -> bool {
        matches!(self, Self::Begin { needs_worker: true, .. })
    }
}

impl Default for Ticket {
    fn default() -> Self {
        let [granted, starts_frame, boosted] = [false; 3].map(AtomicBool::new);
        Self { granted, starts_frame, boosted, created: Instant::now(), newest_ns: AtomicU64::new(0) }
    }
}

impl Ticket {
    /// Notes the arrival of a frame.
    pub fn on_frame(&self, at: Instant) {
        let since = at.saturating_duration_since(self.created);
        self.newest_ns.store(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Returns the arrival time of the newest frame.
    fn newest(&self) -> Instant {
        self.created + Duration::from_nanos(self.newest_ns.load(Ordering::Relaxed))
    }
}

impl CpuScheduler {
    /// Makes a scheduler for this many cores: that many permits to start frames that need a worker,
    /// and one more for everything else, so that one thread computes while a permit changes hands.
    pub fn new(count: usize) -> Self {
        let starts = count.max(1);
        let (waited, late) = (MeanWait::default(), MeanWait::default());
        Self(Mutex::new(State { free: starts + 1, starts, waiting: Vec::new(), waited, late }))
    }

    /// Blocks until a permit is free and no other thread is more urgent. A thread holds one permit
    /// at a time, and has a ticket of its own.
    pub fn acquire(&self, ticket: &Arc<Ticket>, urgency: Urgency) -> Permit<'_> {
        let requested = Instant::now();
        ticket.granted.store(false, Ordering::Relaxed);
        let mut state = self.0.lock();
        state.waiting.push(Waiting { urgency, thread: std::thread::current(), ticket: ticket.clone() });
        state.hand_out();
        drop(state);
        while !ticket.granted.load(Ordering::Acquire) {
            std::thread::park();
        }
        if urgency != Urgency::Finish {
            let now = Instant::now();
            self.0.lock().waited.on_waited(now, now - requested);
        }
        Permit {
            scheduler: self,
            starts_frame: ticket.starts_frame.load(Ordering::Relaxed),
            boosted: ticket.boosted.swap(false, Ordering::Relaxed),
        }
    }

    /// Raises the thread of this ticket to [`Urgency::Finish`] for its next permit: a frame near
    /// its end has come up.
    pub fn boost(&self, ticket: &Ticket) {
        ticket.boosted.store(true, Ordering::Relaxed);
        self.0.lock().hand_out();
    }

    /// Notes how late a `Begin` permit came: the time since a frame to keep was there and its
    /// thread had asked.
    pub fn on_late(&self, now: Instant, late: Duration) {
        self.0.lock().late.on_waited(now, late);
    }

    /// Returns the mean waits for `Begin` permits.
    pub fn waits(&self) -> Waits {
        let state = self.0.lock();
        Waits { waited: state.waited.mean(), late: state.late.mean() }
    }
}

impl State {
    /// Gives free permits to the waiting threads that may have them, the most urgent first.
    fn hand_out(&mut self) {
        while let Some((at, starts_frame)) = self.most_urgent() {
            let Waiting { thread, ticket, .. } = self.waiting.remove(at);
            self.free -= 1;
            self.starts -= usize::from(starts_frame);
            ticket.starts_frame.store(starts_frame, Ordering::Relaxed);
            ticket.granted.store(true, Ordering::Release);
            thread.unpark();
        }
    }

    /// Returns the index of the waiting thread that gets the next permit, and whether it is one to
    /// start a frame that needs a worker. `None` when no waiting thread may have one.
    fn most_urgent(&self) -> Option<(usize, bool)> {
        let now = Instant::now();
        let ranks = self.waiting.iter().enumerate().map(|(at, waiting)| (waiting.is_spare(now), waiting.urgency(), at));
        let may_go = |urgency: Urgency| self.free > 0 && (!urgency.needs_worker() || self.starts > 0);
        let (_, urgency, at) = ranks.filter(|(_, urgency, _)| may_go(*urgency)).min()?;
        Some((at, urgency.needs_worker()))
    }
}

impl Waiting {
    fn urgency(&self) -> Urgency {
        if self.ticket.boosted.load(Ordering::Relaxed) { Urgency::Finish } else { self.urgency }
    }

    /// Tells whether the track has no frame to keep yet, and is not overdue.
    fn is_spare(&self, now: Instant) -> bool {
        matches!(self.urgency(), Urgency::Begin { due, .. } if self.ticket.newest() < due && now < due + SPARE_TIMEOUT)
    }
}

impl MeanWait {
    /// Adds one wait.
    pub fn on_waited(&mut self, now: Instant, waited: Duration) {
        let since = self.last.replace(now).map_or(MEAN_TIME_CONSTANT, |last| now.saturating_duration_since(last));
        let new = since.as_secs_f64() / (since + MEAN_TIME_CONSTANT).as_secs_f64();
        self.mean = self.mean.mul_f64(1.0 - new) + waited.mul_f64(new);
    }

    /// Returns the mean.
    pub fn mean(&self) -> Duration {
        self.mean
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.scheduler.0.lock();
        state.free += 1;
        state.starts += usize::from(self.starts_frame);
        state.hand_out();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc::channel;

    /// The urgency of a start that needs a worker.
    fn begin(due: Instant) -> Urgency {
        Urgency::Begin { due, needs_worker: true }
    }

    /// Free permits, and how many of them are for starts that need a worker.
    fn free(scheduler: &CpuScheduler) -> (usize, usize) {
        let state = scheduler.0.lock();
        (state.free, state.starts)
    }

    /// Blocks until this many threads wait.
    fn until_waiting(scheduler: &CpuScheduler, count: usize) {
        while scheduler.0.lock().waiting.len() != count {
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_most_urgent_goes_first_then_the_first_in_line_and_last_a_track_without_a_frame_to_keep() {
        let (scheduler, now) = (CpuScheduler::new(1), Instant::now());
        let [soon, later] = [1, 2].map(|hours| now + Duration::from_secs(3600 * hours));
        let wants = [
            ("spare", begin(soon)),
            ("later", begin(later)),
            ("early", begin(now)),
            ("boosted", begin(later)),
            ("finish", Urgency::Finish),
            ("early too", begin(now)),
        ];
        let (done, order) = channel();
        std::thread::scope(|scope| {
            let (first, _other) = (scheduler.acquire(&Arc::default(), begin(now)), scheduler.acquire(&Arc::default(), Urgency::Finish));
            for (at, (name, urgency)) in wants.into_iter().enumerate() {
                let (scheduler, done, ticket) = (&scheduler, done.clone(), Arc::new(Ticket::default()));
                let its = ticket.clone();
                if name != "spare" {
                    ticket.on_frame(later);
                }
                scope.spawn(move || {
                    let _permit = scheduler.acquire(&its, urgency);
                    done.send(name).expect("somebody listens");
                });
                until_waiting(scheduler, at + 1);
                if name == "boosted" {
                    scheduler.boost(&ticket);
                }
            }
            drop((first, done));
            until_waiting(&scheduler, 0);
        });
        assert_eq!(order.iter().collect::<Vec<_>>(), ["boosted", "finish", "early", "early too", "later", "spare"]);
        assert_eq!(free(&scheduler), (2, 1));
    }

    #[test]
    fn a_track_without_a_frame_to_keep_is_served_after_a_timeout() {
        let ticket = Arc::new(Ticket::default());
        let due = Instant::now() + Duration::from_secs(1);
        let waiting = Waiting { urgency: begin(due), thread: std::thread::current(), ticket: ticket.clone() };
        assert!(waiting.is_spare(due));
        assert!(!waiting.is_spare(due + SPARE_TIMEOUT), "its camera may have stopped, or its session ended");
        ticket.on_frame(due);
        assert!(!waiting.is_spare(due), "it has a frame to keep");
    }

    #[test]
    fn a_boost_lasts_for_one_permit() {
        let (scheduler, ticket) = (CpuScheduler::new(1), Arc::new(Ticket::default()));
        scheduler.boost(&ticket);
        assert!(scheduler.acquire(&ticket, Urgency::Finish).boosted);
        assert!(!scheduler.acquire(&ticket, Urgency::Finish).boosted);
    }

    #[test]
    fn one_permit_is_kept_for_frames_near_their_end_also_if_one_comes_up_during_the_wait() {
        let (scheduler, ticket, now) = (CpuScheduler::new(1), Arc::new(Ticket::default()), Instant::now());
        let beginning = scheduler.acquire(&Arc::default(), begin(now));
        drop(scheduler.acquire(&Arc::default(), Urgency::Finish));
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| scheduler.acquire(&ticket, begin(now)).boosted);
            until_waiting(&scheduler, 1);
            scheduler.boost(&ticket);
            assert!(waits.join().expect("it does not panic"), "before the other has begun");
        });
        drop(beginning);
        assert_eq!(free(&scheduler), (2, 1));
    }

    #[test]
    fn frames_that_need_no_worker_may_start_with_the_extra_permit() {
        let (scheduler, now) = (CpuScheduler::new(1), Instant::now());
        let beginning = scheduler.acquire(&Arc::default(), begin(now));
        let direct = scheduler.acquire(&Arc::default(), Urgency::Begin { due: now, needs_worker: false });
        assert_eq!(free(&scheduler), (0, 0));
        drop(direct);
        assert_eq!(free(&scheduler), (1, 0));
        drop(beginning);
        assert_eq!(free(&scheduler), (2, 1));
    }

    #[test]
    fn no_more_frames_start_at_a_time_than_there_are_cores() {
        let (scheduler, computing, most) = (CpuScheduler::new(2), AtomicUsize::new(0), AtomicUsize::new(0));
        let now = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let ticket = Arc::new(Ticket::default());
                    for _ in 0..200 {
                        let _permit = scheduler.acquire(&ticket, begin(now));
                        most.fetch_max(computing.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        computing.fetch_sub(1, Ordering::SeqCst);
                        drop(scheduler.acquire(&Arc::default(), Urgency::Finish));
                    }
                });
            }
        });
        assert_eq!(most.into_inner(), 2);
        assert_eq!(free(&scheduler), (3, 2));
    }

    #[test]
    fn a_panic_returns_the_permit() {
        let scheduler = CpuScheduler::new(1);
        std::thread::scope(|scope| {
            let panics = scope.spawn(|| {
                let _permit = scheduler.acquire(&Arc::default(), Urgency::Finish);
                panic!("on purpose");
            });
            assert!(panics.join().is_err());
        });
        drop(scheduler.acquire(&Arc::default(), Urgency::Finish));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn all_threads_leave_the_same_core_free_and_keep_one() {
        let all = sched_getaffinity(None).expect("Linux tells");
        let after = |times| {
            let leave = move || {
                (0..times).for_each(|_| leave_one_core_free());
                sched_getaffinity(None).expect("Linux tells")
            };
            std::thread::spawn(leave).join().expect("it does not panic")
        };
        assert_eq!(after(1).count(), (all.count() - 1).max(1));
        assert_eq!(after(1), after(1));
        assert_eq!(after(all.count() + 1).count(), 1);
        assert_eq!(sched_getaffinity(None).expect("Linux tells"), all, "the others keep theirs");
    }

    #[test]
    fn a_mean_wait_follows_within_a_few_permits_however_rare_they_are() {
        let (mut wait, start) = (MeanWait::default(), Instant::now());
        let ms = Duration::from_millis;
        (0..1000).for_each(|at| wait.on_waited(start + ms(at), ms(80)));
        assert!(wait.mean() > ms(75));
        (0..10).for_each(|at| wait.on_waited(start + ms(1000 + 33 * at), ms(0)));
        assert!(wait.mean() < ms(2), "{:?}", wait.mean());
    }
}
