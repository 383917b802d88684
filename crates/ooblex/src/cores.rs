//! Turns on the machine's cores: about as many tracks compute at a time as there are cores, the most urgent first.
//!
//! Each track has a thread, and left to the system all that have something to do share the cores in slices: with thirty of them every step
//! of every frame takes as long as the thirty together, caches are never warm, and models starve. In turn, each step runs through, and what
//! waits is what can still be given up: a frame that has been begun can not, so what is near its end has a turn more. So has what needs no
//! worker: more beginnings of other frames would only wait for one, and leave it less of the cores. Workers are not counted, nor is who uses
//! more than its share ([`crate::shares`]): they stand back by their priority, and nobody waits for them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// What a thread wants to do. What comes first here goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Something is near its end: paint, encode, send.
    Finish,
    /// Frames are to be decoded, of which those go on that came at this time or later. What is due sooner goes first; as long as there is nothing
    /// but older ones, all else does for a while.
    Begin {
        /// That time.
        due: Instant,
        /// They are not ready before a worker has had them.
        needs_worker: bool,
    },
}

/// The cores. One is taken by [`Cores::take`] and given back when its [`Core`] is dropped.
#[derive(Debug)]
pub struct Cores(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Turns that can be taken; and how many of them to begin what needs a worker.
    free: usize,
    beginnings: usize,
    /// In the order in which they came. Few enough to be looked through: no more than there are sessions.
    waiting: Vec<Waiting>,
    /// Of those that began something: since they asked, and since there was a frame that goes on.
    waited: MeanWait,
    late: MeanWait,
}

#[derive(Debug)]
struct Waiting {
    urgency: Urgency,
    thread: Thread,
    place: Arc<Place>,
}

/// How turns come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// How long they are waited for.
    pub waited: Duration,
    /// How long after there was a frame that goes on: nobody waits for others.
    pub late: Duration,
}

/// How long is waited lately, on average.
#[derive(Debug, Default)]
pub struct MeanWait {
    mean: Duration,
    last: Option<Instant>,
}

/// What is longer ago than this hardly counts any more.
const MEMORY: Duration = Duration::from_millis(50);

/// Who has no frame that goes on waits behind all others until so long after one was due: cameras stop, sessions end, and their threads
/// have to see it, however many others wait.
const SPARE_FOR: Duration = Duration::from_millis(100);

/// One thread's place in the line for a core.
#[derive(Debug)]
pub struct Place {
    /// It has its turn; and that is one of those that are for beginning what needs a worker.
    granted: AtomicBool,
    begins: AtomicBool,
    hurried: AtomicBool,
    created: Instant,
    /// When the newest frame came, in nanoseconds since the place was created.
    newest: AtomicU64,
}

/// One core, taken.
#[derive(Debug)]
pub struct Core<'c> {
    cores: &'c Cores,
    /// It came early, because [`Cores::hurry`] was called: it is meant for what is near its end.
    pub hurried: bool,
    /// It is one of those that are for beginning what needs a worker.
    begins: bool,
}

/// The calling thread, and threads that it starts, stand back behind all others by this much (`nice`), for good: what was given up can not
/// be taken back without privileges. Nothing happens where a policy forbids it, or where priorities are not a thread's own but its
/// process's; that costs nothing but speed.
pub fn stand_back(by: i32) {
    if cfg!(target_os = "linux") {
        _ = rustix::process::nice(by);
    }
}

/// The calling thread, and threads that it starts, leave one of the cores that they may use to all others, where there are more: who wakes up finds it,
/// and need not first displace them. Nothing happens where the system does not know of that.
pub fn leave_a_core() {
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

impl Default for Place {
    fn default() -> Self {
        let [granted, begins, hurried] = [false; 3].map(AtomicBool::new);
        Self { granted, begins, hurried, created: Instant::now(), newest: AtomicU64::new(0) }
    }
}

impl Place {
    /// A frame came.
    pub fn on_frame(&self, at: Instant) {
        let since = at.saturating_duration_since(self.created);
        self.newest.store(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn newest(&self) -> Instant {
        self.created + Duration::from_nanos(self.newest.load(Ordering::Relaxed))
    }
}

impl Cores {
    /// As many turns at a time to begin what needs a worker as the machine has cores, and one more for all else: while one is handed over,
    /// another computes.
    pub fn new(count: usize) -> Self {
        let beginnings = count.max(1);
        let (waited, late) = (MeanWait::default(), MeanWait::default());
        Self(Mutex::new(State { free: beginnings + 1, beginnings, waiting: Vec::new(), waited, late }))
    }

    /// Waits until a turn is free and nothing else is more urgent. A thread takes one at a time, and has a place of its own.
    pub fn take(&self, place: &Arc<Place>, urgency: Urgency) -> Core<'_> {
        let asked = Instant::now();
        place.granted.store(false, Ordering::Relaxed);
        let mut state = self.lock();
        state.waiting.push(Waiting { urgency, thread: std::thread::current(), place: place.clone() });
        state.hand_out();
        drop(state);
        while !place.granted.load(Ordering::Acquire) {
            std::thread::park();
        }
        if urgency != Urgency::Finish {
            let now = Instant::now();
            self.lock().waited.on_waited(now, now - asked);
        }
        Core { cores: self, begins: place.begins.load(Ordering::Relaxed), hurried: place.hurried.swap(false, Ordering::Relaxed) }
    }

    /// Something came up that is near its end: whatever the thread of this place waits for, it goes first now.
    pub fn hurry(&self, place: &Place) {
        place.hurried.store(true, Ordering::Relaxed);
        self.lock().hand_out();
    }

    /// A turn came so long after there was a frame that goes on, and a thread to look at it.
    pub fn on_late(&self, now: Instant, late: Duration) {
        self.lock().late.on_waited(now, late);
    }

    /// How turns have come lately to those that began something, on average.
    pub fn waits(&self) -> Waits {
        let state = self.lock();
        Waits { waited: state.waited.mean(), late: state.late.mean() }
    }

    /// A panic while the lock was held can not have left half a move behind, so its poison is ignored.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives the turns that are free to those who may have them, the most urgent first.
    fn hand_out(&mut self) {
        while let Some((at, begins)) = self.most_urgent() {
            let Waiting { thread, place, .. } = self.waiting.remove(at);
            self.free -= 1;
            self.beginnings -= usize::from(begins);
            place.begins.store(begins, Ordering::Relaxed);
            place.granted.store(true, Ordering::Release);
            thread.unpark();
        }
    }

    /// Who is to have a turn, if there is one for anybody that waits, and whether it is one of those that are for beginning what needs a worker.
    fn most_urgent(&self) -> Option<(usize, bool)> {
        let now = Instant::now();
        let ranks = self.waiting.iter().enumerate().map(|(at, waiting)| (waiting.is_spare(now), waiting.urgency(), at));
        let may_go = |urgency: Urgency| self.free > 0 && (!urgency.needs_worker() || self.beginnings > 0);
        let (_, urgency, at) = ranks.filter(|(_, urgency, _)| may_go(*urgency)).min()?;
        Some((at, urgency.needs_worker()))
    }
}

impl Waiting {
    fn urgency(&self) -> Urgency {
        if self.place.hurried.load(Ordering::Relaxed) { Urgency::Finish } else { self.urgency }
    }

    /// Nothing is there yet that goes on, and it can still be waited for.
    fn is_spare(&self, now: Instant) -> bool {
        matches!(self.urgency(), Urgency::Begin { due, .. } if self.place.newest() < due && now < due + SPARE_FOR)
    }
}

impl MeanWait {
    /// Somebody has waited so long.
    pub fn on_waited(&mut self, now: Instant, waited: Duration) {
        let since = self.last.replace(now).map_or(MEMORY, |last| now.saturating_duration_since(last));
        let new = since.as_secs_f64() / (since + MEMORY).as_secs_f64();
        self.mean = self.mean.mul_f64(1.0 - new) + waited.mul_f64(new);
    }

    /// How long is waited.
    pub fn mean(&self) -> Duration {
        self.mean
    }
}

impl Drop for Core<'_> {
    fn drop(&mut self) {
        let mut state = self.cores.lock();
        state.free += 1;
        state.beginnings += usize::from(self.begins);
        state.hand_out();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc::channel;

    /// To begin what needs a worker.
    fn begin(due: Instant) -> Urgency {
        Urgency::Begin { due, needs_worker: true }
    }

    /// Turns that nobody has, and how many of them are for beginning what needs a worker.
    fn free(cores: &Cores) -> (usize, usize) {
        let state = cores.lock();
        (state.free, state.beginnings)
    }

    /// Until so many wait.
    fn until_waiting(cores: &Cores, count: usize) {
        while cores.lock().waiting.len() != count {
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_most_urgent_goes_first_and_among_equals_the_first_in_line_and_last_who_has_only_what_does_not_go_on() {
        let (cores, now) = (Cores::new(1), Instant::now());
        let [soon, later] = [1, 2].map(|hours| now + Duration::from_secs(3600 * hours));
        let wants = [
            ("spare", begin(soon)),
            ("later", begin(later)),
            ("early", begin(now)),
            ("hurried", begin(later)),
            ("finish", Urgency::Finish),
            ("early too", begin(now)),
        ];
        let (done, order) = channel();
        std::thread::scope(|scope| {
            let (first, _other) = (cores.take(&Arc::default(), begin(now)), cores.take(&Arc::default(), Urgency::Finish));
            for (at, (name, urgency)) in wants.into_iter().enumerate() {
                let (cores, done, place) = (&cores, done.clone(), Arc::new(Place::default()));
                let its = place.clone();
                if name != "spare" {
                    place.on_frame(later);
                }
                scope.spawn(move || {
                    let _core = cores.take(&its, urgency);
                    done.send(name).expect("somebody listens");
                });
                until_waiting(cores, at + 1);
                if name == "hurried" {
                    cores.hurry(&place);
                }
            }
            drop((first, done));
            until_waiting(&cores, 0);
        });
        assert_eq!(order.iter().collect::<Vec<_>>(), ["hurried", "finish", "early", "early too", "later", "spare"]);
        assert_eq!(free(&cores), (2, 1));
    }

    #[test]
    fn who_has_only_what_does_not_go_on_is_not_forgotten() {
        let place = Arc::new(Place::default());
        let due = Instant::now() + Duration::from_secs(1);
        let waiting = Waiting { urgency: begin(due), thread: std::thread::current(), place: place.clone() };
        assert!(waiting.is_spare(due));
        assert!(!waiting.is_spare(due + SPARE_FOR), "its camera may have stopped, or its session ended");
        place.on_frame(due);
        assert!(!waiting.is_spare(due), "it has a frame that goes on");
    }

    #[test]
    fn a_hurry_lasts_for_one_turn() {
        let (cores, place) = (Cores::new(1), Arc::new(Place::default()));
        cores.hurry(&place);
        assert!(cores.take(&place, Urgency::Finish).hurried);
        assert!(!cores.take(&place, Urgency::Finish).hurried);
    }

    #[test]
    fn one_turn_is_for_what_is_near_its_end_also_if_that_comes_up_while_one_waits() {
        let (cores, place, now) = (Cores::new(1), Arc::new(Place::default()), Instant::now());
        let beginning = cores.take(&Arc::default(), begin(now));
        drop(cores.take(&Arc::default(), Urgency::Finish));
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| cores.take(&place, begin(now)).hurried);
            until_waiting(&cores, 1);
            cores.hurry(&place);
            assert!(waits.join().expect("it does not panic"), "before the other has begun");
        });
        drop(beginning);
        assert_eq!(free(&cores), (2, 1));
    }

    #[test]
    fn what_needs_no_worker_may_begin_in_the_turn_for_all_else() {
        let (cores, now) = (Cores::new(1), Instant::now());
        let beginning = cores.take(&Arc::default(), begin(now));
        let direct = cores.take(&Arc::default(), Urgency::Begin { due: now, needs_worker: false });
        assert_eq!(free(&cores), (0, 0));
        drop(direct);
        assert_eq!(free(&cores), (1, 0));
        drop(beginning);
        assert_eq!(free(&cores), (2, 1));
    }

    #[test]
    fn no_more_begin_at_a_time_than_there_are_cores() {
        let (cores, computing, most) = (Cores::new(2), AtomicUsize::new(0), AtomicUsize::new(0));
        let now = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let place = Arc::new(Place::default());
                    for _ in 0..200 {
                        let _core = cores.take(&place, begin(now));
                        most.fetch_max(computing.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        computing.fetch_sub(1, Ordering::SeqCst);
                        drop(cores.take(&Arc::default(), Urgency::Finish));
                    }
                });
            }
        });
        assert_eq!(most.into_inner(), 2);
        assert_eq!(free(&cores), (3, 2));
    }

    #[test]
    fn a_panic_gives_the_core_back() {
        let cores = Cores::new(1);
        std::thread::scope(|scope| {
            let panics = scope.spawn(|| {
                let _core = cores.take(&Arc::default(), Urgency::Finish);
                panic!("on purpose");
            });
            assert!(panics.join().is_err());
        });
        drop(cores.take(&Arc::default(), Urgency::Finish));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn all_who_leave_a_core_leave_the_same_one_and_keep_one() {
        let all = sched_getaffinity(None).expect("Linux tells");
        let after = |times| {
            let leave = move || {
                (0..times).for_each(|_| leave_a_core());
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
    fn a_mean_wait_follows_within_a_few_turns_however_rare_they_are() {
        let (mut wait, start) = (MeanWait::default(), Instant::now());
        let ms = Duration::from_millis;
        (0..1000).for_each(|at| wait.on_waited(start + ms(at), ms(80)));
        assert!(wait.mean() > ms(75));
        (0..10).for_each(|at| wait.on_waited(start + ms(1000 + 33 * at), ms(0)));
        assert!(wait.mean() < ms(2), "{:?}", wait.mean());
    }
}
