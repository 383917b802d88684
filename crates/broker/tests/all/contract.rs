//! Contract tests of the broker, run on every kind of it.

use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{RedisServer, WITHIN, analysis, eventually, gateway, job, next, open};
use ooblex_broker::{Broker, Notice, Service, WorkerSeat};
use ooblex_pipeline::{Completion, EffectName, FrameSeq, Job, Outcome, TrackId};

/// A broker with the server that it needs.
struct Made {
    broker: Broker,
    _server: Option<RedisServer>,
}

fn local() -> Made {
    Made { broker: Broker::local(), _server: None }
}

fn redis() -> Made {
    let server = RedisServer::start();
    let broker = gateway(&server);
    Made { broker, _server: Some(server) }
}

/// Runs every case of the contract on every kind of broker.
macro_rules! contract {
    ($($case:ident),+ $(,)?) => {
        mod local {
            $(#[test]
            fn $case() {
                let made = super::local();
                super::$case(made.broker.clone());
            })+
        }
        mod redis {
            $(#[test]
            fn $case() {
                let made = super::redis();
                super::$case(made.broker.clone());
            })+
        }
    };
}

contract!(
    newest_frame_of_a_track_replaces_the_one_that_waits,
    newest_frame_replaces_the_one_that_waits_for_another_effect,
    tracks_take_turns,
    effects_take_turns,
    frame_past_its_deadline_reaches_no_worker,
    frame_that_waits_until_its_deadline_reaches_no_worker,
    failure_and_panic_of_a_worker_come_back_as_failed,
    completions_go_to_their_own_track_only,
    worker_gets_only_jobs_of_effects_that_it_serves,
    worker_serves_other_effects_from_when_it_is_told,
    tracks_are_told_of_the_first_worker_and_of_the_last,
    closed_track_gets_nothing_and_leaves_nothing,
    close_wakes_all_workers,
    workers_are_counted_while_they_are_there,
    every_job_completes_once_under_load,
);

fn newest_frame_of_a_track_replaces_the_one_that_waits(broker: Broker) {
    let completions = open(&broker, 1);
    (0..3).for_each(|seq| broker.submit(job(1, seq)));
    let mut replaced = [next(&completions), next(&completions)];
    replaced.sort_by_key(|completion| completion.seq);
    assert!(replaced.iter().all(|completion| matches!(completion.outcome, Outcome::Replaced)));
    assert_eq!(replaced.map(|completion| completion.seq), [FrameSeq(0), FrameSeq(1)]);
    let seat = join(&broker);
    let taken = seat.take().unwrap();
    assert_eq!(taken.job().seq, FrameSeq(2));
    taken.complete(Ok(analysis(2)));
    let Completion { seq, outcome: Outcome::Analysed { analysis: result, queued, .. }, .. } = next(&completions) else { panic!() };
    assert_eq!((seq, result), (FrameSeq(2), analysis(2)));
    assert!(queued <= WITHIN);
}

fn newest_frame_replaces_the_one_that_waits_for_another_effect(broker: Broker) {
    let completions = open(&broker, 1);
    broker.submit(Job { effect: EffectName::new("other"), ..job(1, 0) });
    broker.submit(job(1, 1));
    assert!(matches!(next(&completions), Completion { seq: FrameSeq(0), outcome: Outcome::Replaced, .. }));
    let seat = broker.join(&[EffectName::new("other"), EffectName::new("test")]);
    let taken = seat.take().unwrap();
    assert_eq!(taken.job().seq, FrameSeq(1));
    taken.complete(Ok(analysis(1)));
    assert!(matches!(next(&completions), Completion { seq: FrameSeq(1), outcome: Outcome::Analysed { .. }, .. }));
}

fn tracks_take_turns(broker: Broker) {
    let _sinks = [open(&broker, 1), open(&broker, 2), open(&broker, 3)];
    [1, 2, 3].into_iter().for_each(|track| broker.submit(job(track, 0)));
    let seat = join(&broker);
    let mut order = Vec::new();
    for seq in 1..7 {
        let taken = seat.take().unwrap();
        order.push(taken.job().track.0);
        broker.submit(job(taken.job().track.0, seq));
        taken.complete(Ok(analysis(0)));
    }
    assert_eq!(order, [1, 2, 3, 1, 2, 3]);
}

fn effects_take_turns(broker: Broker) {
    let completions = [open(&broker, 1), open(&broker, 2)];
    let both = [EffectName::new("busy"), EffectName::new("test")];
    let seat = broker.join(&both);
    let mut of_test = 0;
    for seq in 0..10 {
        broker.submit(Job { effect: both[0].clone(), ..job(1, seq) });
        broker.submit(job(2, seq));
        for _ in 0..2 {
            let taken = seat.take().unwrap();
            of_test += usize::from(taken.job().effect == both[1]);
            taken.complete(Ok(analysis(0)));
        }
        completions.iter().for_each(|completions| assert!(matches!(next(completions).outcome, Outcome::Analysed { .. })));
    }
    assert_eq!(of_test, 10, "the effect that is always asked for does not starve the other");
}

fn frame_past_its_deadline_reaches_no_worker(broker: Broker) {
    let late = open(&broker, 1);
    let fresh = open(&broker, 2);
    broker.submit(Job { deadline: Instant::now(), ..job(1, 0) });
    broker.submit(job(2, 0));
    let seat = join(&broker);
    let taken = seat.take().unwrap();
    assert_eq!(taken.job().track, TrackId(2));
    taken.complete(Ok(analysis(0)));
    assert!(matches!(next(&late).outcome, Outcome::Expired));
    assert!(matches!(next(&fresh).outcome, Outcome::Analysed { .. }));
}

fn frame_that_waits_until_its_deadline_reaches_no_worker(broker: Broker) {
    let (late, fresh) = (open(&broker, 1), open(&broker, 2));
    let deadline = Instant::now() + Duration::from_millis(50);
    broker.submit(Job { deadline, ..job(1, 0) });
    // A frame with a later deadline waits behind it.
    broker.submit(job(2, 0));
    while Instant::now() < deadline {
        thread::park_timeout(deadline - Instant::now());
    }
    let seat = join(&broker);
    let taken = seat.take().unwrap();
    assert_eq!(taken.job().track, TrackId(2));
    taken.complete(Ok(analysis(0)));
    assert!(matches!(next(&late).outcome, Outcome::Expired));
    assert!(matches!(next(&fresh).outcome, Outcome::Analysed { .. }));
}

fn failure_and_panic_of_a_worker_come_back_as_failed(broker: Broker) {
    let completions = open(&broker, 1);
    let seat = join(&broker);
    broker.submit(job(1, 0));
    seat.take().unwrap().complete(Err("a tensor of NaN".into()));
    let Outcome::Failed { reason } = next(&completions).outcome else { panic!() };
    assert_eq!(reason, "a tensor of NaN");
    broker.submit(job(1, 1));
    let panicked = thread::spawn(move || {
        let _taken = seat.take().unwrap();
        std::panic::resume_unwind(Box::new("a worker's panic"));
    });
    assert!(panicked.join().is_err());
    assert!(matches!(next(&completions), Completion { seq: FrameSeq(1), outcome: Outcome::Failed { .. }, .. }));
}

fn completions_go_to_their_own_track_only(broker: Broker) {
    let (one, two) = (open(&broker, 1), open(&broker, 2));
    broker.submit(job(1, 10));
    broker.submit(job(2, 20));
    let seat = join(&broker);
    let (first, second) = (seat.take().unwrap(), seat.take().unwrap());
    second.complete(Ok(analysis(2)));
    first.complete(Ok(analysis(1)));
    assert_eq!((next(&one).seq, next(&two).seq), (FrameSeq(10), FrameSeq(20)));
    assert!(one.try_recv().is_err() && two.try_recv().is_err());
}

fn worker_gets_only_jobs_of_effects_that_it_serves(broker: Broker) {
    let (mine, other) = (open(&broker, 1), open(&broker, 2));
    broker.submit(Job { effect: EffectName::new("other"), ..job(2, 0) });
    broker.submit(job(1, 0));
    let seat = join(&broker);
    let taken = seat.take().unwrap();
    assert_eq!(taken.job().track, TrackId(1));
    taken.complete(Ok(analysis(1)));
    assert!(matches!(next(&mine).outcome, Outcome::Analysed { .. }));
    assert!(other.try_recv().is_err(), "nobody who could has come yet");
    let seat = broker.join(&[EffectName::new("other")]);
    seat.take().unwrap().complete(Ok(analysis(2)));
    assert!(matches!(next(&other).outcome, Outcome::Analysed { .. }));
}

fn worker_serves_other_effects_from_when_it_is_told(broker: Broker) {
    let (completions, others) = (open(&broker, 1), open(&broker, 2));
    let [test, other] = ["test", "other"].map(EffectName::new);
    let seat = broker.join(std::slice::from_ref(&other));
    eventually("the first service", || broker.service(&other) == Service::Served);
    broker.submit(job(1, 0));
    thread::scope(|scope| {
        // The worker waits, because there is no job for the effect that it serves.
        let taking = scope.spawn(|| seat.take().unwrap().complete(Ok(analysis(1))));
        seat.serve(std::slice::from_ref(&test));
        taking.join().unwrap();
    });
    assert!(matches!(next(&completions).outcome, Outcome::Analysed { .. }));
    eventually("the other service", || broker.service(&test) == Service::Served && broker.service(&other) == Service::NoWorker);
    assert_eq!(broker.capacity().serving.get(&test), Some(&1));
    broker.submit(Job { effect: other, ..job(2, 0) });
    broker.submit(job(1, 1));
    let taken = seat.take().unwrap();
    assert_eq!(taken.job().effect, test);
    taken.complete(Ok(analysis(2)));
    drop(seat);
    eventually("its end", || broker.service(&test) == Service::NoWorker);
    assert!(others.try_recv().is_err(), "nobody serves what it served before");
}

fn tracks_are_told_of_the_first_worker_and_of_the_last(broker: Broker) {
    let (sender, told) = channel();
    let seen = broker.clone();
    let effect = EffectName::new("test");
    broker.open_track(TrackId(1), tell(sender));
    let expect = |service: Service| {
        let deadline = Instant::now() + WITHIN;
        while seen.service(&EffectName::new("test")) != service {
            let notice = told.recv_timeout(deadline - Instant::now()).expect("the track is told");
            assert!(matches!(notice, Notice::ServiceChanged));
        }
    };
    expect(Service::NoWorker);
    let first = broker.join(std::slice::from_ref(&effect));
    expect(Service::Served);
    let second = broker.join(std::slice::from_ref(&effect));
    eventually("two workers", || broker.capacity().serving.get(&effect) == Some(&2));
    drop(first);
    eventually("one worker", || broker.capacity().serving.get(&effect) == Some(&1));
    assert_eq!(broker.service(&effect), Service::Served);
    drop(second);
    expect(Service::NoWorker);
}

fn closed_track_gets_nothing_and_leaves_nothing(broker: Broker) {
    let (gone, stays) = (open(&broker, 1), open(&broker, 2));
    broker.submit(job(1, 0));
    let seat = join(&broker);
    let in_hand = seat.take().unwrap();
    broker.submit(job(1, 1));
    eventually("a frame to wait", || broker.capacity().waiting == 1);
    broker.close_track(TrackId(1));
    eventually("nothing to wait", || broker.capacity().waiting == 0);
    in_hand.complete(Ok(analysis(0)));
    broker.submit(job(1, 2));
    broker.submit(job(2, 0));
    let taken = seat.take().unwrap();
    assert_eq!(taken.job().track, TrackId(2));
    taken.complete(Ok(analysis(0)));
    assert!(matches!(next(&stays).outcome, Outcome::Analysed { .. }));
    assert!(gone.recv().is_err(), "the sink of a closed track is dropped without a call");
}

fn close_wakes_all_workers(broker: Broker) {
    let workers: Vec<_> = (0..3).map(|_| join(&broker)).map(|seat| thread::spawn(move || seat.take().is_none())).collect();
    broker.close();
    assert!(workers.into_iter().all(|worker| worker.join().unwrap()));
}

fn workers_are_counted_while_they_are_there(broker: Broker) {
    assert_eq!(broker.capacity().workers, 0);
    let seats = [join(&broker), join(&broker)];
    eventually("two workers", || broker.capacity().workers == 2);
    drop(seats);
    eventually("no worker", || broker.capacity().workers == 0);
}

fn every_job_completes_once_under_load(broker: Broker) {
    const TRACKS: u64 = 8;
    const JOBS: u64 = 2000;
    let workers: Vec<_> = (0..4)
        .map(|_| join(&broker))
        .map(|seat| {
            thread::spawn(move || {
                while let Some(taken) = seat.take() {
                    let seq = taken.job().seq.0;
                    taken.complete(Ok(analysis(seq as u32)));
                }
            })
        })
        .collect();
    eventually("four workers", || broker.capacity().workers == 4);
    let tracks: Vec<_> = (0..TRACKS).map(|track| (track, open(&broker, track))).collect();
    for seq in 0..JOBS {
        (0..TRACKS).for_each(|track| broker.submit(job(track, seq)));
    }
    let mut analysed = 0;
    for (track, completions) in &tracks {
        let mut seen = vec![false; JOBS as usize];
        for _ in 0..JOBS {
            let completion = next(completions);
            assert_eq!(completion.track, TrackId(*track));
            assert!(!std::mem::replace(&mut seen[completion.seq.0 as usize], true), "completed twice");
            if let Outcome::Analysed { analysis: result, .. } = completion.outcome {
                assert_eq!(result, analysis(completion.seq.0 as u32), "the result of another frame");
                analysed += 1;
            }
        }
    }
    assert!(analysed >= TRACKS, "the last frame of each track is analysed at least");
    eventually("the time that was spent", || broker.capacity().busy > Duration::ZERO);
    broker.close();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
}

fn tell(told: Sender<Notice>) -> ooblex_broker::Sink {
    Box::new(move |notice| _ = told.send(notice))
}

/// Joins a worker of the effect of the test jobs.
fn join(broker: &Broker) -> WorkerSeat {
    broker.join(&[EffectName::new("test")])
}
