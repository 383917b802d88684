//! Simulation of the frame path in simulated time: tracks, the queue, and workers that are slow,
//! crash and come back, with bursts of frames and changes of effect. The invariants of the pipeline
//! are asserted after every event.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ooblex_pipeline::{Admission, DropReason, FairSlots, FrameSeq, Generation, Mode, Patience, Release, Sampling, Track, TrackId, View};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const REUSE: Mode = Mode::Reuse { max_age: Duration::from_millis(200) };

/// Data that the simulation attaches to a frame.
#[derive(Debug, Clone, Copy)]
struct SimFrame {
    admitted: Instant,
    mode: Mode,
    view: View,
}

/// Analysis that records the frame and the settings that it was made from.
#[derive(Debug, Clone, Copy)]
struct SimAnalysis {
    seq: FrameSeq,
    generation: Generation,
    view: View,
    admitted: Instant,
}

#[derive(Debug, Clone, Copy)]
struct SimJob {
    track: TrackId,
    analysis: SimAnalysis,
    deadline: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Camera(TrackId),
    WorkerDone(usize),
    WorkerBack(usize),
    Wakeup(TrackId),
}

struct SimTrack {
    track: Track<SimFrame, SimAnalysis>,
    frame_interval: Duration,
    burst: u32,
    next_seq: u64,
    view: View,
    last_shown: Option<FrameSeq>,
    newest_submitted: Option<FrameSeq>,
    /// Tracks that workers have served since this one began to wait.
    served_while_waiting: BTreeSet<TrackId>,
    released: u64,
}

struct Simulation {
    random: SmallRng,
    now: Instant,
    events: BTreeMap<(Instant, u64), Event>,
    next_event: u64,
    tracks: BTreeMap<TrackId, SimTrack>,
    slots: FairSlots<SimJob>,
    workers: Vec<Worker>,
    steps: u64,
    tally: Tally,
}

enum Worker {
    Idle,
    Busy(SimJob),
    Dead,
}

/// Counters of rare events, so that a test can show that they happened.
#[derive(Debug, Default)]
struct Tally {
    crashes: u64,
    changes: u64,
    turns: u64,
    failures: u64,
    expired_in_slot: u64,
    reused: u64,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let now = Instant::now();
        let tracks = (0..random.random_range(1..=6)).map(|id| {
            let sampling = if random.random_bool(0.7) { Sampling::Auto } else { Sampling::Every(3.try_into().unwrap()) };
            let track = SimTrack {
                track: Track::new(random_mode(&mut random), sampling, Patience::default()),
                frame_interval: Duration::from_millis(random.random_range(10..70)),
                burst: 1,
                next_seq: 0,
                view: View(0),
                last_shown: None,
                newest_submitted: None,
                served_while_waiting: BTreeSet::new(),
                released: 0,
            };
            (TrackId(id), track)
        });
        let tracks: BTreeMap<_, _> = tracks.collect();
        let workers = (0..random.random_range(1..=5)).map(|_| Worker::Idle).collect();
        let mut simulation = Self {
            random,
            now,
            events: BTreeMap::new(),
            next_event: 0,
            tracks,
            slots: FairSlots::new(),
            workers,
            steps: 0,
            tally: Tally::default(),
        };
        let ids: Vec<_> = simulation.tracks.keys().copied().collect();
        ids.into_iter().for_each(|id| simulation.schedule(Duration::ZERO, Event::Camera(id)));
        simulation
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.next_event += 1;
        self.events.insert((self.now + after, self.next_event), event);
    }

    fn step(&mut self, cameras_on: bool) -> bool {
        let Some(((at, _), event)) = self.events.pop_first() else { return false };
        self.now = at;
        self.steps += 1;
        match event {
            Event::Camera(id) if cameras_on => self.camera(id),
            Event::Camera(_) => {}
            Event::Wakeup(id) => self.poll(id),
            Event::WorkerDone(worker) => self.worker_done(worker),
            Event::WorkerBack(worker) => self.workers[worker] = Worker::Idle,
        }
        self.hand_out_work();
        self.assert_laws();
        true
    }

    fn camera(&mut self, id: TrackId) {
        let sim = self.tracks.get_mut(&id).unwrap();
        if self.random.random_bool(0.01) {
            self.tally.changes += 1;
            sim.track.change(random_mode(&mut self.random));
        }
        if self.random.random_bool(0.01) {
            self.tally.turns += 1;
            sim.view.0 += 1;
            sim.track.on_view(sim.view);
        }
        for _ in 0..sim.burst {
            let sim = self.tracks.get_mut(&id).unwrap();
            let seq = FrameSeq(sim.next_seq);
            sim.next_seq += 1;
            let generation = sim.track.generation();
            let (mode, view) = (sim.track.mode(), sim.view);
            let admission = sim.track.on_frame(self.now, seq, SimFrame { admitted: self.now, mode, view });
            if let Admission::Analyse { deadline } = admission {
                let job = SimJob { track: id, analysis: SimAnalysis { seq, generation, view, admitted: self.now }, deadline };
                sim.newest_submitted = Some(seq);
                match self.slots.put(id, job) {
                    Some(replaced) => {
                        assert!(replaced.analysis.seq < seq, "only an older frame is replaced");
                        sim.track.on_lost(replaced.analysis.seq, DropReason::Replaced);
                    }
                    None => sim.served_while_waiting.clear(),
                }
            }
            self.poll(id);
        }
        let sim = self.tracks.get_mut(&id).unwrap();
        sim.burst = if self.random.random_bool(0.02) { self.random.random_range(2..90) } else { 1 };
        let interval = sim.frame_interval.mul_f64(self.random.random_range(0.7..1.3));
        self.schedule(interval, Event::Camera(id));
    }

    fn hand_out_work(&mut self) {
        for worker in 0..self.workers.len() {
            if !matches!(self.workers[worker], Worker::Idle) {
                continue;
            }
            while let Some(job) = self.slots.take() {
                let sim = self.tracks.get_mut(&job.track).unwrap();
                assert_eq!(Some(job.analysis.seq), sim.newest_submitted, "a worker gets the freshest frame of the track");
                for (id, other) in &mut self.tracks {
                    let fresh = *id == job.track || other.served_while_waiting.insert(job.track) || other.idle();
                    assert!(fresh, "track {} was served twice while {id} waited", job.track);
                }
                self.tracks.get_mut(&job.track).unwrap().newest_submitted = None;
                if job.deadline <= self.now {
                    self.tally.expired_in_slot += 1;
                    self.tracks.get_mut(&job.track).unwrap().track.on_lost(job.analysis.seq, DropReason::Expired);
                    self.poll(job.track);
                    continue;
                }
                self.start(worker, job);
                break;
            }
        }
    }

    fn start(&mut self, worker: usize, job: SimJob) {
        if self.random.random_bool(0.01) {
            self.tally.crashes += 1;
            self.workers[worker] = Worker::Dead;
            let away = Duration::from_millis(self.random.random_range(1..3000));
            self.schedule(away, Event::WorkerBack(worker));
        } else {
            self.workers[worker] = Worker::Busy(job);
            let slow = if self.random.random_bool(0.02) { 1500 } else { 80 };
            let takes = Duration::from_micros(self.random.random_range(500..slow * 1000));
            self.schedule(takes, Event::WorkerDone(worker));
        }
    }

    fn worker_done(&mut self, worker: usize) {
        let Worker::Busy(job) = std::mem::replace(&mut self.workers[worker], Worker::Idle) else { panic!("not busy") };
        let sim = self.tracks.get_mut(&job.track).unwrap();
        if self.random.random_bool(0.02) {
            self.tally.failures += 1;
            sim.track.on_lost(job.analysis.seq, DropReason::AnalysisFailed);
        } else {
            sim.track.on_analysis(self.now, job.analysis.seq, job.analysis);
        }
        self.poll(job.track);
    }

    fn poll(&mut self, id: TrackId) {
        let sim = self.tracks.get_mut(&id).unwrap();
        while let Some(release) = sim.track.poll(self.now) {
            sim.released += 1;
            match release {
                Release::Paint { seq, generation, frame, analysis, reused } => {
                    assert!(sim.last_shown.is_none_or(|last| last < seq), "shown in capture order");
                    sim.last_shown = Some(seq);
                    assert!(self.now - frame.admitted <= Patience::default().deadline, "nothing older than the deadline is shown");
                    match (frame.mode, analysis) {
                        (Mode::Direct, analysis) => assert!(analysis.is_none()),
                        (_, None) => panic!("a frame would be shown raw"),
                        (mode, Some(analysis)) => {
                            assert_eq!(analysis.generation, generation, "painted with an analysis of other settings");
                            assert_eq!(analysis.view, frame.view, "painted with an analysis from before the camera was turned");
                            assert_eq!(reused, analysis.seq != seq);
                            if let Mode::Reuse { max_age } = mode {
                                assert!(frame.admitted - analysis.admitted <= max_age, "painted with an old analysis");
                            } else {
                                assert!(!reused, "only analysed frames are shown");
                            }
                        }
                    }
                    self.tally.reused += u64::from(reused);
                    if self.random.random_bool(0.01) {
                        sim.track.on_paint_failed(DropReason::EncodeFailed);
                    } else {
                        sim.track.on_painted(reused);
                    }
                }
                Release::Drop { seq, .. } => assert!(sim.last_shown.is_none_or(|last| last < seq), "dropped in its turn"),
            }
        }
        if let Some(at) = sim.track.next_wakeup() {
            assert!(at > self.now, "what is due has been released");
            self.schedule(at - self.now, Event::Wakeup(id));
        }
    }

    fn assert_laws(&self) {
        assert!(self.slots.len() <= self.tracks.len(), "at most one frame of a track waits");
        for sim in self.tracks.values() {
            let counts = sim.track.counts();
            assert_eq!(counts.admitted, counts.shown + counts.dropped_total() + sim.track.in_flight(), "conservation");
            assert!(sim.track.in_flight() <= Track::<SimFrame, SimAnalysis>::MAX_WAITING as u64, "bounded");
        }
    }
}

impl SimTrack {
    /// Returns whether the track has nothing in the queue.
    fn idle(&self) -> bool {
        self.newest_submitted.is_none()
    }
}

fn random_mode(random: &mut SmallRng) -> Mode {
    match random.random_range(0..5) {
        0 => Mode::Direct,
        1 | 2 => Mode::Hold,
        _ => REUSE,
    }
}

#[test]
fn the_invariants_hold_at_every_step() {
    let started = Instant::now();
    let (mut steps, mut tally, mut counts) = (0, Tally::default(), BTreeMap::<&str, u64>::new());
    for seed in 0..200 {
        let mut simulation = Simulation::new(seed);
        while simulation.steps < 2000 && simulation.step(true) {}
        while simulation.step(false) {}
        for sim in simulation.tracks.values() {
            assert_eq!(sim.track.in_flight(), 0, "every frame ends (seed {seed})");
            for reason in DropReason::ALL {
                *counts.entry(reason.label()).or_default() += sim.track.counts().dropped(reason);
            }
        }
        steps += simulation.steps;
        tally.crashes += simulation.tally.crashes;
        tally.changes += simulation.tally.changes;
        tally.turns += simulation.tally.turns;
        tally.failures += simulation.tally.failures;
        tally.expired_in_slot += simulation.tally.expired_in_slot;
        tally.reused += simulation.tally.reused;
    }
    println!("{steps} steps, {:.0} a second, {tally:?}, {counts:?}", steps as f64 / started.elapsed().as_secs_f64());
    for (what, happened) in [
        ("crashes", tally.crashes),
        ("changes", tally.changes),
        ("turns of cameras", tally.turns),
        ("failures", tally.failures),
        ("jobs that expired while they waited", tally.expired_in_slot),
        ("reuse", tally.reused),
    ] {
        assert!(happened > 0, "the simulation has seen no {what}");
    }
    for reason in ["not_sampled", "replaced", "expired", "overtaken", "analysis_failed", "no_analysis", "playout_full", "encode_failed"] {
        assert!(counts[reason] > 0, "the simulation has seen no frame dropped as {reason}: {counts:?}");
    }
}

#[test]
fn one_track_alone_keeps_all_workers_busy() {
    let mut track: Track<u64, u64> = Track::new(Mode::Hold, Sampling::Auto, Patience::default());
    let mut slots: FairSlots<u64> = FairSlots::new();
    let start = Instant::now();
    let mut workers: [Option<(u64, u64)>; 3] = [None; 3];
    let mut seq = 0;
    for ms in 0..30_000 {
        let now = start + Duration::from_millis(ms);
        if ms % 33 == 0 {
            track.on_frame(now, FrameSeq(seq), ms);
            if let Some(replaced) = slots.put(TrackId(0), seq) {
                track.on_lost(FrameSeq(replaced), DropReason::Replaced);
            }
            seq += 1;
        }
        for worker in &mut workers {
            if let Some((done, job)) = *worker
                && done <= ms
            {
                track.on_analysis(now, FrameSeq(job), job);
                *worker = None;
            }
            if worker.is_none() {
                *worker = slots.take().map(|job| (ms + 95, job));
            }
        }
        while let Some(release) = track.poll(now) {
            if let Release::Paint { reused, .. } = release {
                track.on_painted(reused);
            }
        }
    }
    let shown = track.counts().shown as f64 / track.counts().admitted as f64;
    assert!(shown > 0.98, "three workers of 95 ms carry 30 frames a second, shown: {shown}");
}
