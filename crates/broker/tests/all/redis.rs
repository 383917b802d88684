//! Failures that only a broker between processes can have: lost turns, hanging workers, dead
//! gateways, other versions, foreign bytes.

use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{RedisServer, analysis, eventually, gateway, job, next, open, test};
use ooblex_broker::{Notice, Service};
use ooblex_pipeline::{Completion, EffectName, FrameSeq, Job, Outcome, TrackId};
use redis::Value;
const QUEUE: &[u8] = b"ooblex:v3:frames_to_process:test";

#[test]
fn lost_turn_is_queued_again_with_the_next_frame_although_the_slot_is_never_empty() {
    let server = RedisServer::start();
    let broker = gateway(&server);
    let completions = open(&broker, 1);
    broker.submit(job(1, 0));
    eventually("a turn to take", || matches!(server.command(&[b"LPOP", QUEUE]), Value::BulkString(_)));
    // The worker has died, with the turn and before it took the frame.
    broker.submit(job(1, 1));
    assert!(matches!(next(&completions), Completion { seq: FrameSeq(0), outcome: Outcome::Replaced, .. }));
    let seat = broker.join(&[test()]);
    let taken = seat.take().unwrap();
    assert_eq!(taken.job().seq, FrameSeq(1));
    assert_eq!(broker.health().turns_requeued, 1);
}

#[test]
fn job_that_a_worker_keeps_is_lost_and_one_that_nobody_took_has_expired() {
    let server = RedisServer::start();
    let broker = gateway(&server);
    let completions = open(&broker, 1);
    let seat = broker.join(&[test()]);
    broker.submit(soon(1, 0));
    let kept = seat.take().unwrap();
    broker.submit(soon(1, 1));
    let mut ends = [next(&completions), next(&completions)];
    ends.sort_by_key(|end| end.seq);
    assert!(matches!(ends[0].outcome, Outcome::Lost), "{ends:?}");
    assert!(matches!(ends[1].outcome, Outcome::Expired), "{ends:?}");
    kept.complete(Ok(analysis(0)));
    eventually("the late result to be counted", || broker.health().late == 1);
    broker.submit(job(1, 2));
    let taken = seat.take().unwrap();
    assert_eq!(taken.job().seq, FrameSeq(2), "frames whose deadline has passed are gone");
}

#[test]
fn memory_in_redis_is_bounded_by_tracks_and_not_by_time() {
    let server = RedisServer::start();
    let broker = gateway(&server);
    let tracks = [open(&broker, 1), open(&broker, 2)];
    for seq in 0..500 {
        (1..=2).for_each(|track| broker.submit(job(track, seq)));
        // The previous frame has been replaced: this one is in Redis, or about to be.
        if seq > 0 {
            tracks.iter().for_each(|track| assert!(matches!(next(track).outcome, Outcome::Replaced)));
        }
    }
    eventually("both turns", || server.command(&[b"LLEN", QUEUE]) == Value::Int(2));
    assert_eq!(keys(&server).iter().filter(|key| key.contains(":frame:")).count(), 2);
}

#[test]
fn gateway_that_has_gone_leaves_nothing_for_long() {
    let server = RedisServer::start();
    let broker = gateway(&server);
    let _completions = open(&broker, 1);
    broker.submit(soon(1, 0));
    eventually("a frame to wait", || keys(&server).iter().any(|key| key.contains(":frame:")));
    let everything_expires = |key: &String| matches!(server.command(&[b"PTTL", key.as_bytes()]), Value::Int(left) if left != -1);
    assert!(keys(&server).iter().all(everything_expires), "{:?}", keys(&server));
    drop(broker);
    eventually("its frame and its announcement to go", || keys(&server).iter().all(|key| key.contains("frames_to_process")));
}

#[test]
fn two_gateways_with_tracks_of_one_number_get_their_own_results() {
    let server = RedisServer::start();
    let (one, two, workers) = (gateway(&server), gateway(&server), server.broker("ooblex:"));
    let (of_one, of_two) = (open(&one, 1), open(&two, 1));
    one.submit(job(1, 10));
    two.submit(job(1, 20));
    let seat = workers.join(&[test()]);
    for _ in 0..2 {
        let taken = seat.take().unwrap();
        let mark = taken.job().seq.0 as u32;
        taken.complete(Ok(analysis(mark)));
    }
    for (completions, seq) in [(of_one, 10), (of_two, 20)] {
        let end = next(&completions);
        let Outcome::Analysed { analysis: result, .. } = end.outcome else { panic!("{end:?}") };
        assert_eq!((end.seq, result), (FrameSeq(seq), analysis(seq as u32)));
    }
}

#[test]
fn brokers_with_other_prefixes_or_databases_do_not_meet() {
    let server = RedisServer::start();
    let (here, there) = (gateway(&server), server.broker("elsewhere:"));
    let seat = there.join(&[test()]);
    let own = here.join(&[EffectName::new("other")]);
    eventually("the own worker", || here.capacity().workers == 1);
    assert_eq!(here.service(&test()), Service::NoWorker);
    drop((seat, own));
}

#[test]
fn foreign_bytes_stop_nothing() {
    let server = RedisServer::start();
    let broker = gateway(&server);
    let completions = open(&broker, 1);
    let malformed = || broker.health().errors["malformed"];

    // The queue is not a list, and slots and turns contain noise.
    server.command(&[b"SET", QUEUE, b"hello"]);
    broker.submit(job(1, 0));
    eventually("a queue", || server.command(&[b"TYPE", QUEUE]) == Value::SimpleString("list".into()));
    for turn in [&b"noise"[..], b"", b"0:0", &[0xff; 40]] {
        server.command(&[b"LPUSH", QUEUE, turn]);
    }
    server.command(&[b"SET", b"ooblex:v3:frame:test:0:0", b"garbage"]);
    server.command(&[b"RPUSH", b"ooblex:v3:frame:test:noise", b"a list where a frame belongs"]);
    let seat = broker.join(&[test()]);
    let taken = seat.take().unwrap();
    assert_eq!(taken.job().seq, FrameSeq(0));
    assert_eq!(malformed(), 1);

    // The next frame has another version.
    broker.submit(job(1, 1));
    let slot = || keys(&server).into_iter().find(|key| key.contains(":frame:test:") && !key.ends_with("noise"));
    eventually("the next frame", || slot().is_some());
    server.command(&[b"SETRANGE", slot().unwrap().as_bytes(), b"2", &[9]]);
    taken.complete(Ok(analysis(0)));
    assert!(matches!(next(&completions).outcome, Outcome::Analysed { .. }));
    let seat = thread::spawn(move || (seat.take().unwrap().complete(Ok(analysis(2))), seat)).join_after(|| {
        eventually("the other version to be seen", || malformed() == 2);
        broker.submit(job(1, 2));
    });
    assert!(matches!(next(&completions), Completion { seq: FrameSeq(2), .. }));

    // There is noise among the results, and then a value that is not a list in place of them.
    let results = gateway_of(&server).replace("gateway:", "v3:processed_frames:");
    server.command(&[b"RPUSH", results.as_bytes(), b"noise", b"OB\x01R\xff\xff", b""]);
    eventually("the noise to be seen", || malformed() == 5);
    server.command(&[b"SET", results.as_bytes(), b"noise"]);
    eventually("the obstacle to be seen", || malformed() > 5);
    broker.submit(job(1, 3));
    seat.take().unwrap().complete(Ok(analysis(3)));
    assert!(matches!(next(&completions), Completion { seq: FrameSeq(3), outcome: Outcome::Analysed { .. }, .. }));
}

#[test]
fn result_of_somebody_who_did_not_get_the_job_is_counted_and_ends_nothing() {
    let server = RedisServer::start();
    let broker = gateway(&server);
    let completions = open(&broker, 1);
    broker.submit(job(1, 0));
    let results = gateway_of(&server).replace("gateway:", "v3:processed_frames:");
    let forged = || broker.health().errors["forged"];
    // A forged result has track 1, frame 0, a nonce, a time of zero, and a failure with the reason
    // "no".
    for nonce in [[0; 16], [0xff; 16]] {
        let before = forged();
        server.command(&[b"RPUSH", results.as_bytes(), &[b"OB\x03R\x01\x00", &nonce[..], b"\x00\x00\x01\x02no"].concat()]);
        eventually("the forgery to be counted", || forged() == before + 1);
    }
    let seat = broker.join(&[test()]);
    seat.take().unwrap().complete(Ok(analysis(7)));
    let end = next(&completions);
    assert!(matches!(&end.outcome, Outcome::Analysed { analysis: result, .. } if *result == analysis(7)), "{end:?}");
    assert!(completions.try_recv().is_err());
    // Neither forged result counts as a late one.
    assert_eq!((forged(), broker.health().late), (2, 0));
}

#[test]
fn result_with_the_nonce_of_another_job_is_counted_and_ends_neither() {
    let server = RedisServer::start();
    let broker = gateway(&server);
    let completions = [open(&broker, 1), open(&broker, 2)];
    broker.submit(job(1, 0));
    broker.submit(job(2, 0));
    eventually("both turns", || server.command(&[b"LLEN", QUEUE]) == Value::Int(2));
    // A worker has got the job of track 2: the header of a job, track 2, frame 0, and its nonce.
    let frames = keys(&server).into_iter().filter(|key| key.contains(":frame:test:"));
    let frames = frames.filter_map(|key| match server.command(&[b"GET", key.as_bytes()]) {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    });
    let of_other = frames.into_iter().find(|bytes| bytes.starts_with(b"OB\x03J\x02\x00")).unwrap();
    let results = gateway_of(&server).replace("gateway:", "v3:processed_frames:");
    let forged = || broker.health().errors["forged"];
    server.command(&[b"RPUSH", results.as_bytes(), &[b"OB\x03R\x01\x00", &of_other[6..22], b"\x00\x00\x01\x02no"].concat()]);
    eventually("the forgery to be counted", || forged() == 1);
    let seat = broker.join(&[test()]);
    for _ in 0..2 {
        seat.take().unwrap().complete(Ok(analysis(7)));
    }
    for of_track in &completions {
        let end = next(of_track);
        assert!(matches!(&end.outcome, Outcome::Analysed { analysis: result, .. } if *result == analysis(7)), "{end:?}");
    }
}

#[test]
fn thread_that_panics_goes_on() {
    let server = RedisServer::start();
    let broker = gateway(&server);
    let (sender, completions) = channel();
    let sink = move |notice| {
        if let Notice::Completed(completion) = notice {
            assert_ne!(completion.seq, FrameSeq(0), "this test makes the thread for results panic");
            sender.send(completion).unwrap();
        }
    };
    broker.open_track(TrackId(1), Box::new(sink));
    let seat = broker.join(&[test()]);
    broker.submit(job(1, 0));
    seat.take().unwrap().complete(Ok(analysis(0)));
    let counted = || broker.health().errors["other"];
    eventually("the panic to be counted", || counted() == 1);
    eventually("a new connection", || broker.health().connected);
    broker.submit(job(1, 1));
    seat.take().unwrap().complete(Ok(analysis(1)));
    assert!(matches!(next(&completions), Completion { seq: FrameSeq(1), outcome: Outcome::Analysed { .. }, .. }));
}

#[test]
fn process_of_another_version_is_counted_and_not_believed() {
    let server = RedisServer::start();
    let broker = gateway(&server);
    let incompatible = br#"{"id":"00000000000000aa","wire":99,"threads":4,"effects":["test"],"host":"old","version":"9.9"}"#;
    eventually("the incompatible worker", || {
        server.command(&[b"PUBLISH", b"ooblex:announcements:0", incompatible]);
        broker.health().incompatible_peers == 1
    });
    assert_eq!((broker.capacity().workers, broker.service(&test())), (0, Service::NoWorker));
    eventually("the incompatible peer to be forgotten", || broker.health().incompatible_peers == 0);
}

#[test]
fn queued_and_analysing_are_measured_without_comparing_clocks() {
    let server = RedisServer::start();
    let broker = gateway(&server);
    let completions = open(&broker, 1);
    let submitted = Instant::now();
    broker.submit(job(1, 0));
    let pause = |time| thread::park_timeout(time);
    pause(Duration::from_millis(60));
    let waited = submitted.elapsed();
    let seat = broker.join(&[test()]);
    let taken = seat.take().unwrap();
    let began = Instant::now();
    pause(Duration::from_millis(30));
    let worked = began.elapsed();
    taken.complete(Ok(analysis(0)));
    let Outcome::Analysed { queued, analysing, .. } = next(&completions).outcome else { panic!() };
    assert!(queued >= waited, "{queued:?} of at least {waited:?}");
    assert!(analysing >= worked && queued + analysing <= submitted.elapsed());
}

fn keys(server: &RedisServer) -> Vec<String> {
    let Value::Array(keys) = server.command(&[b"KEYS", b"*"]) else { panic!() };
    keys.into_iter().map(|key| redis::from_redis_value(key).unwrap()).collect()
}

/// Returns the key of the announcement of the only gateway.
fn gateway_of(server: &RedisServer) -> String {
    keys(server).into_iter().find(|key| key.starts_with("ooblex:gateway:")).unwrap()
}

trait JoinAfter<T> {
    fn join_after(self, act: impl FnOnce()) -> T;
}

impl<A, T> JoinAfter<T> for thread::JoinHandle<(A, T)> {
    /// Runs `act`, which the thread waits for, and returns the result of the thread.
    fn join_after(self, act: impl FnOnce()) -> T {
        act();
        self.join().unwrap().1
    }
}

/// Makes a job whose deadline passes after one second.
fn soon(track: u64, seq: u64) -> Job {
    let job = job(track, seq);
    Job { deadline: job.submitted + Duration::from_secs(1), ..job }
}
