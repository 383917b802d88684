//! Tests of the session events over HTTP: they equal those on the data channel, and never slow down
//! the video.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;

use crate::common::{FRAME, Gateway, PLENTY, Player, WITHIN};
use ooblex_client::Wish;
use ooblex_pipeline::VideoCodec;
use serde_json::{Value, json};

fn detecting(gateway: &Gateway) -> Player {
    Player::new(gateway, &Wish { codecs: vec![VideoCodec::H264], effect: Some("face_detection".into()), ..Wish::default() })
}

/// A received event.
#[derive(Debug, Default)]
struct Event {
    name: String,
    id: String,
    data: Value,
}

/// Requests the events, and reads the head of the answer. The request is HTTP/1.0, so that the body
/// contains only events.
fn ask(gateway: &Gateway, id: &str, socket: TcpStream) -> (u16, BufReader<TcpStream>) {
    socket.set_read_timeout(Some(WITHIN)).unwrap();
    (&socket).write_all(format!("GET /api/sessions/{id}/events HTTP/1.0\r\nHost: {}\r\n\r\n", address(gateway)).as_bytes()).unwrap();
    let mut reader = BufReader::new(socket);
    let mut lines = (&mut reader).lines().map(Result::unwrap);
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
    if status == 200 {
        assert!(head.iter().any(|line| line == "content-type: text/event-stream"), "{head:?}");
    }
    (status, reader)
}

fn address(gateway: &Gateway) -> SocketAddr {
    gateway.url.trim_start_matches("http://").parse().unwrap()
}

fn connect(gateway: &Gateway) -> TcpStream {
    TcpStream::connect(address(gateway)).unwrap()
}

/// Reads all events until the stream ends.
fn events(reader: BufReader<TcpStream>) -> Vec<Event> {
    let (mut events, mut event) = (Vec::new(), Event::default());
    for line in reader.lines().map(Result::unwrap) {
        match line.split_once(':') {
            Some(("event", name)) => event.name = name.trim().into(),
            Some(("id", id)) => event.id = id.trim().into(),
            Some(("data", data)) => event.data = serde_json::from_str(data).unwrap(),
            _ if !event.name.is_empty() => events.push(std::mem::take(&mut event)),
            _ => {}
        }
    }
    events
}

fn end(gateway: &Gateway, id: &str) {
    ureq::delete(format!("{}/api/sessions/{id}", gateway.url)).call().unwrap();
}

fn read_all(reader: BufReader<TcpStream>) -> JoinHandle<Vec<Event>> {
    std::thread::spawn(move || events(reader))
}

#[test]
fn events_over_http_are_those_of_the_data_channel_and_end_with_the_session() {
    let gateway = Gateway::start("", &[]);
    let mut player = detecting(&gateway);
    let (status, reader) = ask(&gateway, player.client.session.as_str(), connect(&gateway));
    assert_eq!(status, 200);
    let reader = read_all(reader);
    player.play_until(640, 480, "detections and figures", |player| {
        player.heard(0, "detections").len() >= 20 && !player.heard(0, "stats").is_empty()
    });
    end(&gateway, &player.client.session);
    let events = reader.join().unwrap();
    let end = events.last().unwrap();
    assert_eq!((end.name.as_str(), &end.data), ("end", &json!({"type": "end"})));
    assert!(events.iter().all(|event| event.data["type"] == event.name), "{events:?}");
    for kind in ["detections", "stats"] {
        let read: Vec<_> = events.iter().filter(|event| event.name == kind).collect();
        let heard = player.heard(0, kind);
        let both = read.iter().filter(|event| heard.contains(&&event.data)).count();
        // Events that were in transit when the connection ended are only received here.
        assert!(both == heard.len() && read.len() >= both, "{kind}: {} read, {} heard, {both} of them the same", read.len(), heard.len());
    }
    let detections: Vec<_> = events.iter().filter(|event| event.name == "detections").collect();
    assert!(detections.iter().all(|event| event.id.parse().ok() == event.data["sequence"].as_u64()));
    assert!(detections.iter().all(|event| event.data["faces"][0]["label"] == "face"), "{detections:?}");
    assert!(detections.is_sorted_by_key(|event| event.data["sequence"].as_u64()));
}

#[test]
fn a_reader_that_does_not_read_loses_events_and_nobody_loses_video() {
    let gateway = Gateway::start("", &[]);
    let mut player = detecting(&gateway);
    // Small packets and a small buffer keep the amount of data in transit small.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_tcp_mss(536).unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    socket.connect(&address(&gateway).into()).unwrap();
    let (status, slow) = ask(&gateway, player.client.session.as_str(), socket.into());
    assert_eq!(status, 200);
    let quick = read_all(ask(&gateway, player.client.session.as_str(), connect(&gateway)).1);
    // This number of events exceeds the capacity of the ring and of the socket buffers. If slow
    // readers held up the video, fewer frames would be analysed.
    player.play_until(160, 120, "detections, whoever reads events or not", |player| player.heard(0, "detections").len() >= 250);
    end(&gateway, &player.client.session);
    let (slow, quick) = (events(slow), quick.join().unwrap());
    let told: u64 = slow.iter().filter(|event| event.name == "lost").map(|event| event.data["events"].as_u64().unwrap()).sum();
    assert_eq!((told > 0, told as f64), (true, gateway.metric("ooblex_events_lost_total")), "who lost events knows how many");
    assert_eq!(slow.last().unwrap().name, "end");
    assert!(quick.iter().all(|event| event.name != "lost"), "the other reader has them all");
    let count = |events: &[Event]| events.iter().filter(|event| event.name != "lost").count() as u64;
    assert!(count(&slow) < count(&quick), "{} and {}", slow.len(), quick.len());
    assert!(count(&slow) + told >= count(&quick), "it began to read first");
}

#[test]
fn readers_are_limited_and_told_what_is_wrong() {
    let gateway = Gateway::start("[limits]\nevent_readers = 1\n", &[]);
    let mut player = detecting(&gateway);
    let id = player.client.session.clone();
    let problem = |id: &str| {
        let (status, mut reader) = ask(&gateway, id, connect(&gateway));
        let mut body = String::new();
        reader.read_to_string(&mut body).unwrap();
        (status, serde_json::from_str::<Value>(&body).unwrap())
    };
    let first = ask(&gateway, &id, connect(&gateway));
    assert_eq!(first.0, 200);
    let (status, refused) = problem(&id);
    assert_eq!((status, refused["type"].as_str().unwrap()), (429, "urn:ooblex:problem:too-many-readers"));
    assert!(refused["detail"].as_str().unwrap().contains("limits.event_readers"));
    for unknown in ["0123456789abcdef", "nonsense"] {
        assert_eq!(problem(unknown).1["type"], "urn:ooblex:problem:unknown-session");
    }
    drop(first);
    // The gateway notices that a reader has gone when it sends the next event.
    player.play_until(320, 240, "room for another reader", |_| gateway.metric("ooblex_event_readers") == 0.0);
    let reader = read_all(ask(&gateway, &id, connect(&gateway)).1);
    end(&gateway, &id);
    assert_eq!(reader.join().unwrap().last().unwrap().name, "end");
    for _ in 0..PLENTY {
        if player.ended {
            break;
        }
        player.listen(FRAME);
    }
    assert_eq!(player.heard(0, "bye")[0]["reason"], "ended", "the browser is not to come back by itself");
}
