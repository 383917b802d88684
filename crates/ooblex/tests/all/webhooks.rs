//! Tests of webhooks: they are signed, come in order, and are sent again until they are accepted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use crate::common::{Gateway, WITHIN};
use ooblex_client::{Client, Wish};
use openssl::base64::{decode_block, encode_block};
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use parking_lot::Mutex;
use serde_json::Value;

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const CHEAP: &[&str] = &["--workers", "1", "--effects", "delay", "--diagnostics", "--effect", "none"];

/// A request that came to a receiver.
#[derive(Clone)]
struct Request {
    head: String,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find_map(|line| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)));
        line.unwrap_or_else(|| panic!("no {name}: {}", self.head)).1
    }

    /// Returns the message, whose signature is right.
    fn message(&self) -> Value {
        let (id, time) = (self.header("webhook-id"), self.header("webhook-timestamp"));
        let key = PKey::hmac(&decode_block(SECRET.strip_prefix("whsec_").unwrap()).unwrap()).unwrap();
        let signed = format!("{id}.{time}.{}", self.body);
        let signature = Signer::new(MessageDigest::sha256(), &key).unwrap().sign_oneshot_to_vec(signed.as_bytes()).unwrap();
        assert_eq!(self.header("webhook-signature"), format!("v1,{}", encode_block(&signature)));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert!(now.abs_diff(time.parse().unwrap()) < 60, "{time} is not now, {now}");
        assert_eq!(self.header("content-type"), "application/json");
        serde_json::from_str(&self.body).unwrap()
    }

    fn kind(&self) -> String {
        self.message()["type"].as_str().unwrap().into()
    }
}

/// A receiver that keeps all requests. `status` gives the status of the answer to each, by its
/// number, or none to answer nothing.
fn receive(listener: TcpListener, status: impl Fn(usize) -> Option<u16> + Send + Sync + 'static) -> Arc<Mutex<Vec<Request>>> {
    let (requests, status) = (Arc::<Mutex<Vec<Request>>>::default(), Arc::new(status));
    let kept = requests.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, kept, status) = (stream.unwrap(), kept.clone(), status.clone());
            thread::spawn(move || {
                let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
                loop {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    if let Some((head, body)) = text.split_once("\r\n\r\n") {
                        let request = Request { head: head.into(), body: body.into() };
                        if body.len() >= request.header("content-length").parse().unwrap() {
                            let mut kept = kept.lock();
                            kept.push(request);
                            let answer = status(kept.len() - 1);
                            drop(kept);
                            match answer {
                                Some(status) => {
                                    _ = write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                                }
                                None => thread::sleep(WITHIN),
                            }
                            return;
                        }
                    }
                    match stream.read(&mut buffer) {
                        Ok(read) if read > 0 => bytes.extend_from_slice(&buffer[..read]),
                        _ => return,
                    }
                }
            });
        }
    });
    requests
}

fn start(address: SocketAddr, more: &str) -> Gateway {
    let config = format!("[[webhooks]]\nurl = \"http://{address}/events\"\nsecret_variable = \"WEBHOOK_SECRET\"\n{more}");
    Gateway::with_environment(&config, CHEAP, &[("WEBHOOK_SECRET", SECRET)])
}

fn publish(gateway: &Gateway, room: &str) -> Client {
    Client::publish(&gateway.url, room, &Wish { effect: Some("sepia".into()), ..Wish::default() }).unwrap()
}

fn sessions(gateway: &Gateway) -> Vec<Value> {
    gateway.json("/api/sessions")["sessions"].as_array().unwrap().clone()
}

/// Ends all sessions, as an operator does.
fn end_all(gateway: &Gateway) {
    for session in sessions(gateway) {
        ureq::delete(format!("{}/api/sessions/{}", gateway.url, session["id"].as_str().unwrap())).call().unwrap();
    }
}

#[test]
fn rooms_and_sessions_are_told_in_order_and_signed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let requests = receive(listener, |_| Some(204));
    let gateway = start(address, "");
    let publisher = publish(&gateway, "studio");
    let viewer = Client::watch(&gateway.url, "studio", &Wish::default()).unwrap();
    gateway.wait("two sessions", |_| requests.lock().len() >= 3);
    let session = sessions(&gateway).into_iter().find(|session| session["role"] == "publisher").unwrap()["id"].clone();
    end_all(&gateway);
    gateway.wait("their end", |_| requests.lock().len() >= 6);
    drop((publisher, viewer));
    let requests = requests.lock().clone();
    let kinds: Vec<_> = requests.iter().map(Request::kind).collect();
    assert_eq!(kinds[..3], ["room.started", "session.started", "session.started"]);
    let ended = |role: &str| {
        requests.iter().map(Request::message).find(|message| message["type"] == "session.ended" && message["data"]["role"] == role)
    };
    assert!(kinds.len() == 6 && kinds[3..].contains(&"room.ended".into()), "{kinds:?}");
    let (room, first, second) = (requests[0].message(), requests[1].message(), requests[2].message());
    assert_eq!((&room["data"]["room"], &room["data"]["session"], &room["data"]["effect"]), (&"studio".into(), &session, &"sepia".into()));
    assert_eq!((&first["data"]["session"], &first["data"]["role"], &first["data"]["viewers"]), (&session, &"publisher".into(), &0.into()));
    assert_eq!(
        (&second["data"]["room"], &second["data"]["role"], &second["data"]["viewers"]),
        (&"studio".into(), &"viewer".into(), &1.into())
    );
    let ended = ended("publisher").unwrap();
    assert_eq!((&ended["data"]["session"], &ended["data"]["reason"]), (&session, &"requested".into()));
    assert!(
        ended["data"]["duration_s"].as_f64().unwrap() > 0.0 && ended["timestamp"].as_str().unwrap() > first["timestamp"].as_str().unwrap()
    );
    let ids: std::collections::BTreeSet<_> = requests.iter().map(|request| request.header("webhook-id")).collect();
    assert_eq!(ids.len(), 6);
    assert_eq!((gateway.metric("ooblex_webhooks_delivered_total"), gateway.metric("ooblex_webhooks_waiting")), (6.0, 0.0));
    assert!(!gateway.said().contains(SECRET));
}

#[test]
fn message_that_is_refused_or_not_answered_is_sent_again_before_the_next_of_its_room() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // The first message is refused, then redirected, then not answered.
    let requests = receive(listener, |number| [Some(500), Some(302), None].get(number).copied().unwrap_or(Some(200)));
    let gateway = start(address, "timeout_ms = 300\n");
    let publisher = publish(&gateway, "studio");
    gateway.wait("the message", |_| requests.lock().len() >= 5);
    drop(publisher);
    let requests = requests.lock().clone();
    let told: Vec<_> = requests.iter().take(5).map(|request| (request.header("webhook-id").to_string(), request.kind())).collect();
    assert!(told[..4].iter().all(|told| *told == told_first(&requests)), "{told:?}");
    assert_eq!((told[0].1.as_str(), told[4].1.as_str()), ("room.started", "session.started"));
    assert_ne!(told[0].0, told[4].0);
    assert_eq!(gateway.metric("ooblex_webhooks_failed_total"), 3.0);
    assert!(gateway.said().contains("a webhook was not delivered") && gateway.said().contains("500"));
}

fn told_first(requests: &[Request]) -> (String, String) {
    (requests[0].header("webhook-id").into(), requests[0].kind())
}

#[test]
fn receiver_that_is_away_holds_up_nobody_and_gets_everything_when_it_comes() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway = start(address, "");
    let publishers = ["a", "b"].map(|room| publish(&gateway, room));
    gateway.wait("attempts", |_| gateway.metric("ooblex_webhooks_failed_total") >= 2.0);
    end_all(&gateway);
    gateway.wait("the end of the sessions", |_| sessions(&gateway).is_empty());
    drop(publishers);
    assert_eq!((gateway.metric("ooblex_webhooks_waiting"), gateway.metric("ooblex_webhooks_dropped_total")), (8.0, 0.0));
    let requests = receive(TcpListener::bind(address).unwrap(), |_| Some(200));
    gateway.wait("all messages", |_| requests.lock().len() >= 8);
    for room in ["a", "b"] {
        let of_room =
            requests.lock().iter().filter(|request| request.message()["data"]["room"] == room).map(Request::kind).collect::<Vec<_>>();
        assert_eq!(of_room, ["room.started", "session.started", "session.ended", "room.ended"]);
    }
    gateway.wait("an empty queue", |_| gateway.metric("ooblex_webhooks_waiting") == 0.0);
}

#[test]
fn gateway_that_stops_tells_the_end_of_its_sessions() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let requests = receive(listener, |_| {
        thread::sleep(Duration::from_millis(50));
        Some(200)
    });
    let mut gateway = start(address, "");
    let publisher = publish(&gateway, "studio");
    gateway.wait("its begin", |_| requests.lock().len() >= 2);
    gateway.signal(rustix::process::Signal::TERM);
    assert!(gateway.ended().success());
    drop(publisher);
    let kinds: Vec<_> = requests.lock().iter().map(Request::kind).collect();
    assert_eq!(kinds, ["room.started", "session.started", "session.ended", "room.ended"]);
}

#[test]
fn secret_of_another_format_is_refused_at_the_start() {
    let folder = crate::common::temporary_folder();
    let file = folder.join("ooblex.toml");
    for (secret, words) in
        [("secret = 'short'", "openssl rand"), ("", "exactly one of secret"), ("secret_variable = 'OOBLEX_NO_SUCH'", "is not set")]
    {
        std::fs::write(&file, format!("[[webhooks]]\nurl = 'http://127.0.0.1:9/'\n{secret}\n")).unwrap();
        let said = Gateway::refuse(&["--config", file.to_str().unwrap()]);
        assert!(said.contains("webhooks") && said.contains(words) && !said.contains("short"), "{said}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}
