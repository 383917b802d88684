//! The contract of the broker, held against every kind of it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use ooblex_broker::Broker;
use ooblex_pipeline::{Analysis, Completion, EffectName, FrameSeq, Job, ModelInput, Outcome, Rgb, TrackId};

const WITHIN: Duration = Duration::from_secs(10);

/// Runs every case of the contract on one kind of broker.
macro_rules! contract {
    ($kind:ident, $make:expr; $($case:ident),+ $(,)?) => {
        mod $kind {
            $(#[test]
            fn $case() {
                super::$case($make);
            })+
        }
    };
}

contract!(local, ooblex_broker::Broker::local();
    newest_frame_of_a_track_replaces_the_one_that_waits,
    tracks_take_turns,
    frame_past_its_deadline_reaches_no_worker,
    failure_and_panic_of_a_worker_come_back_as_failed,
    completions_go_to_their_own_track_only,
    closed_track_gets_nothing_and_leaves_nothing,
    close_wakes_all_workers,
    workers_are_counted_while_they_are_there,
    every_job_completes_once_under_load,
);

fn newest_frame_of_a_track_replaces_the_one_that_waits(broker: Broker) {
    let completions = open(&broker, 1);
    (0..3).for_each(|seq| broker.submit(job(1, seq)));
    let seat = broker.join();
    let taken = seat.take().unwrap();
    assert_eq!(taken.job().seq, FrameSeq(2));
    taken.complete(Ok(analysis(2)));
    assert!(matches!(next(&completions), Completion { seq: FrameSeq(0), outcome: Outcome::Replaced, .. }));
    assert!(matches!(next(&completions), Completion { seq: FrameSeq(1), outcome: Outcome::Replaced, .. }));
    let Completion { seq, outcome: Outcome::Analysed { analysis: result, queued, .. }, .. } = next(&completions) else { panic!() };
    assert_eq!((seq, result), (FrameSeq(2), analysis(2)));
    assert!(queued <= WITHIN);
}

fn tracks_take_turns(broker: Broker) {
    let _sinks = [open(&broker, 1), open(&broker, 2), open(&broker, 3)];
    [1, 2, 3].into_iter().for_each(|track| broker.submit(job(track, 0)));
    let seat = broker.join();
    let mut order = Vec::new();
    for seq in 1..7 {
        let taken = seat.take().unwrap();
        order.push(taken.job().track.0);
        broker.submit(job(taken.job().track.0, seq));
        taken.complete(Ok(analysis(0)));
    }
    assert_eq!(order, [1, 2, 3, 1, 2, 3]);
}

fn frame_past_its_deadline_reaches_no_worker(broker: Broker) {
    let late = open(&broker, 1);
    let fresh = open(&broker, 2);
    broker.submit(Job { deadline: Instant::now(), ..job(1, 0) });
    broker.submit(job(2, 0));
    let seat = broker.join();
    let taken = seat.take().unwrap();
    assert_eq!(taken.job().track, TrackId(2));
    taken.complete(Ok(analysis(0)));
    assert!(matches!(next(&late).outcome, Outcome::Expired));
    assert!(matches!(next(&fresh).outcome, Outcome::Analysed { .. }));
}

fn failure_and_panic_of_a_worker_come_back_as_failed(broker: Broker) {
    let completions = open(&broker, 1);
    let seat = broker.join();
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
    let seat = broker.join();
    let (first, second) = (seat.take().unwrap(), seat.take().unwrap());
    second.complete(Ok(analysis(2)));
    first.complete(Ok(analysis(1)));
    assert_eq!((next(&one).seq, next(&two).seq), (FrameSeq(10), FrameSeq(20)));
    assert!(one.try_recv().is_err() && two.try_recv().is_err());
}

fn closed_track_gets_nothing_and_leaves_nothing(broker: Broker) {
    let (gone, stays) = (open(&broker, 1), open(&broker, 2));
    broker.submit(job(1, 0));
    let seat = broker.join();
    let in_hand = seat.take().unwrap();
    broker.submit(job(1, 1));
    broker.close_track(TrackId(1));
    assert_eq!(broker.capacity().waiting, 0);
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
    let workers: Vec<_> = (0..3).map(|_| broker.join()).map(|seat| thread::spawn(move || seat.take().is_none())).collect();
    broker.close();
    assert!(workers.into_iter().all(|worker| worker.join().unwrap()));
}

fn workers_are_counted_while_they_are_there(broker: Broker) {
    assert_eq!(broker.capacity().workers, 0);
    let seats = [broker.join(), broker.join()];
    assert_eq!(broker.capacity().workers, 2);
    drop(seats);
    assert_eq!(broker.capacity().workers, 0);
}

fn every_job_completes_once_under_load(broker: Broker) {
    const TRACKS: u64 = 8;
    const JOBS: u64 = 2000;
    let workers: Vec<_> = (0..4)
        .map(|_| broker.join())
        .map(|seat| {
            thread::spawn(move || {
                while let Some(taken) = seat.take() {
                    let seq = taken.job().seq.0;
                    taken.complete(Ok(analysis(seq as u32)));
                }
            })
        })
        .collect();
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
    assert!(broker.capacity().busy > Duration::ZERO);
    broker.close();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
}

fn open(broker: &Broker, track: u64) -> Receiver<Completion> {
    let (sender, receiver) = channel();
    broker.open_track(TrackId(track), Box::new(move |completion| _ = sender.send(completion)));
    receiver
}

fn job(track: u64, seq: u64) -> Job {
    let input = ModelInput { picture: Rgb { width: 1, height: 1, data: vec![0; 3] }, content: [0, 0, 1, 1], arguments: Vec::new() };
    let submitted = Instant::now();
    Job { track: TrackId(track), seq: FrameSeq(seq), effect: EffectName::new("test"), input, submitted, deadline: submitted + WITHIN }
}

fn analysis(mark: u32) -> Analysis {
    Analysis::Picture(Rgb { width: mark, height: 0, data: Vec::new() })
}

fn next(completions: &Receiver<Completion>) -> Completion {
    completions.recv_timeout(WITHIN).expect("a completion")
}
