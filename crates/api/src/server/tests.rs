use ooblex_config::TlsFiles;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use futures_util::stream;
use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::x509::X509;
use tokio::sync::Notify;

use super::*;

/// A timeout that is long enough for every expected event.
const WITHIN: Duration = Duration::from_secs(30);
/// A timeout that does not pass in a test.
const NEVER: Duration = Duration::from_secs(3600);
/// A delay in which a client on the same thread surely makes progress.
const SOON: Duration = Duration::from_millis(400);

/// Timeouts that never pass; each test shortens the one that it covers.
const PATIENT: Timeouts = Timeouts { first_byte: NEVER, handshake: NEVER, head: NEVER, body: NEVER, idle: NEVER, write: NEVER };

struct Running {
    server: Server,
    figures: HttpFigures,
    /// Number of requests that `/held` has received.
    held: Arc<AtomicUsize>,
    /// Releases the answers of `/held`.
    release: Arc<Notify>,
}

impl Running {
    fn start(timeouts: Timeouts, connections: usize, per_address: usize) -> Self {
        Self::with(timeouts, Capacity { connections, per_address, exempt: Vec::new() }, None)
    }

    fn with(timeouts: Timeouts, capacity: Capacity, certificate: Option<Arc<Certificate>>) -> Self {
        let (figures, held, release) = (HttpFigures::default(), Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (taken, released) = (held.clone(), release.clone());
        let routes = Router::new()
            .route("/", get(async || "here\n"))
            .route("/body", post(async |body: Bytes| format!("{} bytes\n", body.len())))
            .route(
                "/held",
                get(async move || {
                    taken.fetch_add(1, Ordering::Relaxed);
                    released.notified().await;
                }),
            )
            .route("/ticks", get(async || ticks(SOON / 10, 8).into_response()))
            .route("/flood", get(async || ticks(Duration::ZERO, 64 * 1024).into_response()));
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let options = Options { listener: Listener::Public, capacity, timeouts, certificate, figures: figures.clone() };
        Self { server: Server::start(socket, routes, options).unwrap(), figures, held, release }
    }

    /// Waits until `/held` has received `count` requests.
    async fn holding(&self, count: usize) {
        let reached = async {
            while self.held.load(Ordering::Relaxed) < count {
                tokio::task::yield_now().await;
            }
        };
        timeout(WITHIN, reached).await.expect("the requests are not taken");
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.server.address()).await.unwrap()
    }

    /// Connects and sends a request.
    async fn asking(&self, path: &str) -> TcpStream {
        let mut stream = self.connect().await;
        ask(&mut stream, path).await;
        stream
    }
}

/// Returns an endless body with `size` bytes after each `pause`.
fn ticks(pause: Duration, size: usize) -> Body {
    Body::from_stream(stream::unfold((), move |()| async move {
        sleep(pause).await;
        Some((Ok::<_, Infallible>(Bytes::from(vec![b'.'; size])), ()))
    }))
}

async fn ask(stream: &mut TcpStream, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes()).await.unwrap();
}

/// Reads until `text` has been received.
async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut read = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&read).contains(text) {
            assert!(stream.read_buf(&mut read).await.unwrap() > 0, "it ended after {}", String::from_utf8_lossy(&read));
        }
    };
    timeout(WITHIN, reading).await.unwrap();
    String::from_utf8(read).unwrap()
}

/// Reads until the connection is closed.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    // A connection that is closed with data in flight ends with an error.
    _ = timeout(WITHIN, stream.read_to_end(&mut read)).await.expect("the connection does not end");
    String::from_utf8_lossy(&read).into_owned()
}

#[tokio::test]
async fn half_a_head_is_given_up_however_slowly_the_rest_comes() {
    let running = Running::start(Timeouts { head: SOON, ..PATIENT }, 9, 9);
    let mut silent = running.connect().await;
    let mut half = running.connect().await;
    half.write_all(b"GET / HTTP/1.1\r\nhost: te").await.unwrap();
    let (mut slow, mut feeder) = running.connect().await.into_split();
    let feeding = tokio::spawn(async move {
        _ = feeder.write_all(b"GET / HTTP/1.1\r\nx: ").await;
        while feeder.write_all(b"x").await.is_ok() {
            sleep(SOON / 10).await;
        }
    });
    for stream in [&mut silent, &mut half] {
        assert_eq!(read_to_end(stream).await, "");
    }
    let mut read = Vec::new();
    _ = timeout(WITHIN, slow.read_to_end(&mut read)).await.expect("the slow head is not given up");
    assert_eq!(read, b"");
    timeout(WITHIN, feeding).await.unwrap().unwrap();
    assert_eq!(running.figures.cut("head"), 3);
    // The time limit of a head applies to every request of a connection.
    let mut second = running.asking("/").await;
    read_until(&mut second, "here\n").await;
    second.write_all(b"GET").await.unwrap();
    assert_eq!(read_to_end(&mut second).await, "");
    assert_eq!(running.figures.cut("head"), 4);
}

#[tokio::test]
async fn a_body_must_come_in_time_as_a_whole() {
    let running = Running::start(Timeouts { body: SOON, ..PATIENT }, 9, 9);
    let (mut answer, mut feeder) = running.connect().await.into_split();
    feeder.write_all(b"POST /body HTTP/1.1\r\nhost: test\r\ncontent-length: 100000\r\n\r\n").await.unwrap();
    let feeding = tokio::spawn(async move {
        while feeder.write_all(b"x").await.is_ok() {
            sleep(SOON / 10).await;
        }
    });
    let mut read = Vec::new();
    _ = timeout(WITHIN, answer.read_to_end(&mut read)).await.expect("the slow body is not given up");
    assert!(read.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&read));
    timeout(WITHIN, feeding).await.unwrap().unwrap();
    assert_eq!(running.figures.cut("body"), 1);
    let mut quick = running.connect().await;
    quick.write_all(b"POST /body HTTP/1.1\r\nhost: test\r\ncontent-length: 3\r\n\r\nabc").await.unwrap();
    read_until(&mut quick, "3 bytes").await;
}

#[tokio::test]
async fn an_idle_connection_ends_and_a_stream_of_events_lives_on() {
    let running = Running::start(Timeouts { head: SOON, idle: SOON, write: SOON, body: SOON, ..PATIENT }, 9, 9);
    let mut idle = running.asking("/").await;
    read_until(&mut idle, "here\n").await;
    ask(&mut idle, "/").await;
    assert!(read_to_end(&mut idle).await.ends_with("here\n"), "the second request is answered, the third never comes");
    assert_eq!(running.figures.cut("head"), 0, "that is how connections end");
    let mut events = running.asking("/ticks").await;
    let began = Instant::now();
    while began.elapsed() < 4 * SOON {
        read_until(&mut events, "........").await;
    }
}

#[tokio::test]
async fn a_reader_who_does_not_read_is_cut_and_one_who_reads_is_not() {
    let running = Running::start(Timeouts { write: SOON, ..PATIENT }, 9, 9);
    let mut reading = running.asking("/flood").await;
    let deaf = running.asking("/flood").await;
    let mut buffer = vec![0; 256 * 1024];
    timeout(WITHIN, async {
        while running.figures.cut("write") == 0 {
            assert!(reading.read(&mut buffer).await.unwrap() > 0);
        }
    })
    .await
    .unwrap();
    assert!(reading.read(&mut buffer).await.unwrap() > 0, "the other continues");
    drop(deaf);
    assert_eq!(running.figures.cut("write"), 1);
}

#[tokio::test]
async fn an_address_has_no_more_connections_than_it_may() {
    let running = Running::start(PATIENT, 100, 3);
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = running.asking("/").await;
        read_until(&mut stream, "here\n").await;
        held.push(stream);
    }
    let refused = read_to_end(&mut running.asking("/").await).await;
    assert!(refused.starts_with("HTTP/1.1 429 ") && refused.contains("limits.connections_per_address"), "{refused}");
    assert!(refused.contains("retry-after: 1\r\n"), "{refused}");
    held.pop();
    timeout(WITHIN, async { while !read_to_end(&mut running.asking_once("/").await).await.ends_with("here\n") {} })
        .await
        .expect("one that left makes room");
}

#[tokio::test]
async fn connections_that_only_wait_keep_nobody_out() {
    let running = Running::start(PATIENT, 3, 100);
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut stream = running.connect().await;
        stream.write_all(b"GET").await.unwrap();
        waiting.push(stream);
    }
    assert!(read_to_end(&mut running.asking_once("/").await).await.ends_with("here\n"));
    assert_eq!(read_to_end(&mut waiting[0]).await, "", "the one that waited longest had to go");
    assert_eq!(running.figures.cut("displaced"), 1);
    // Connections that are being answered keep their slots.
    drop(waiting);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(running.asking("/held").await);
    }
    running.holding(3).await;
    let refused = read_to_end(&mut running.asking_once("/").await).await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    running.release.notify_waiters();
    for stream in &mut held {
        read_until(stream, "200 OK").await;
    }
}

#[tokio::test]
async fn streams_keep_nobody_out() {
    let running = Running::start(PATIENT, 3, 100);
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = running.asking("/ticks").await;
        read_until(&mut stream, "........").await;
        streams.push(stream);
    }
    assert!(read_to_end(&mut running.asking_once("/").await).await.ends_with("here\n"));
    read_to_end(&mut streams[0]).await;
    assert_eq!(running.figures.cut("displaced"), 1);
    read_until(&mut streams[1], "........").await;
}

#[tokio::test]
async fn tls_must_begin_soon_and_be_done_soon() {
    let folder = std::env::temp_dir().join(format!("ooblex-test-{:016x}", rand::random::<u64>()));
    let certificate = Arc::new(certificate(&folder));
    let capacity = || Capacity { connections: 9, per_address: 9, exempt: Vec::new() };
    let silent = Running::with(Timeouts { first_byte: SOON, ..PATIENT }, capacity(), Some(certificate.clone()));
    assert_eq!(read_to_end(&mut silent.connect().await).await, "");
    assert_eq!(silent.figures.cut("handshake"), 1);
    let slow = Running::with(Timeouts { handshake: SOON, ..PATIENT }, capacity(), Some(certificate));
    let mut begun = slow.connect().await;
    begun.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    assert_eq!(read_to_end(&mut begun).await, "");
    assert_eq!(slow.figures.cut("handshake"), 1);
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_server_that_stops_finishes_its_answers_and_takes_no_more() {
    let running = Running::start(PATIENT, 9, 9);
    let mut idle = running.asking("/").await;
    read_until(&mut idle, "here\n").await;
    let mut held = running.asking("/held").await;
    running.holding(1).await;
    let (address, release) = (running.server.address(), running.release.clone());
    let stopping = tokio::spawn(running.server.stop(WITHIN));
    assert_eq!(read_to_end(&mut idle).await, "");
    release.notify_one();
    assert!(read_to_end(&mut held).await.starts_with("HTTP/1.1 200 "));
    timeout(WITHIN, stopping).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_server_that_stops_waits_for_nobody_longer_than_it_may() {
    let running = Running::start(PATIENT, 9, 9);
    let mut endless = running.asking("/ticks").await;
    read_until(&mut endless, "........").await;
    timeout(WITHIN, running.server.stop(SOON)).await.expect("it waits for a stream that does not end");
    read_to_end(&mut endless).await;
}

#[tokio::test]
async fn heads_are_limited_in_size_and_lines() {
    let running = Running::start(PATIENT, 9, 9);
    for head in [format!("x: {}\r\n", "x".repeat(2 * MAX_HEAD)), "x: y\r\n".repeat(MAX_HEADERS + 1)] {
        let mut stream = running.connect().await;
        _ = stream.write_all(format!("GET / HTTP/1.1\r\nhost: test\r\n{head}\r\n").as_bytes()).await;
        let answer = read_to_end(&mut stream).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
}

impl Running {
    /// Connects and sends a request with `Connection: close`.
    async fn asking_once(&self, path: &str) -> TcpStream {
        let mut stream = self.connect().await;
        // A refused connection may be closed before the request is written.
        _ = stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").as_bytes()).await;
        stream
    }
}

fn certificate(folder: &std::path::Path) -> Certificate {
    std::fs::create_dir_all(folder).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap()).unwrap()).unwrap();
    let mut issued = X509::builder().unwrap();
    issued.set_version(2).unwrap();
    issued.set_pubkey(&key).unwrap();
    issued.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    issued.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
    issued.sign(&key, MessageDigest::sha256()).unwrap();
    let files = TlsFiles { certificate: folder.join("fullchain.pem"), key: folder.join("privkey.pem") };
    std::fs::write(&files.certificate, issued.build().to_pem().unwrap()).unwrap();
    std::fs::write(&files.key, key.private_key_to_pem_pkcs8().unwrap()).unwrap();
    Certificate::load(files).unwrap()
}
