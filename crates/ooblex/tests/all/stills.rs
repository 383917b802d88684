//! Tests of the pictures of rooms as JPEG: they are the processed ones that viewers see, encoded once
//! for all, and only while somebody asks.

use std::io::{BufRead, BufReader, Read};
use std::thread;
use std::time::{Duration, Instant};

use ooblex_client::{Client, ClientEvent, Wish};
use ooblex_codec::{Decoder, Encoder, EncoderConfig, Limits, Speed};
use ooblex_pipeline::{I420, MediaTime, VideoCodec};
use serde_json::{Value, json};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::common::{FRAME, Gateway, PLENTY, WITHIN, background_sharpness, likeness, picture, scenes};

const SIZE: (u32, u32) = (640, 480);
/// Flags for cheap effects: `delay` makes negatives, after a while.
const CHEAP: &[&str] = &["--workers", "1", "--effects", "delay", "--diagnostics"];
const SNAPSHOT: &str = "/rooms/room/snapshot.jpg";
const STREAM: &str = "/rooms/room/stream.mjpeg";

/// An answer of the gateway.
struct Answer {
    status: u16,
    kind: String,
    retry_after: Option<String>,
    body: Vec<u8>,
}

fn ask(url: &str) -> Answer {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(WITHIN)).build();
    let mut response = ureq::Agent::new_with_config(config).get(url).call().unwrap();
    let text = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_string());
    let (kind, retry_after) = (text("content-type").unwrap_or_default(), text("retry-after"));
    Answer { status: response.status().as_u16(), kind, retry_after, body: response.body_mut().read_to_vec().unwrap() }
}

impl Answer {
    fn picture(&self) -> I420 {
        assert_eq!((self.status, self.kind.as_str()), (200, "image/jpeg"), "{}", String::from_utf8_lossy(&self.body));
        decode(&self.body)
    }

    fn problem(&self) -> String {
        let problem: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(self.kind, "application/problem+json");
        problem["type"].as_str().unwrap().trim_start_matches("urn:ooblex:problem:").into()
    }
}

/// Decodes a JPEG, from full range to limited range.
fn decode(jpeg: &[u8]) -> I420 {
    let options = DecoderOptions::default().jpeg_set_out_colorspace(ColorSpace::YCbCr);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(jpeg), options);
    let pixels = decoder.decode().unwrap();
    let (width, height) = decoder.dimensions().unwrap();
    let mut picture = I420::grey(width as u32, height as u32, 16);
    let [luma, u, v] = picture.planes_mut();
    let limited = |value: u8, span: f64, from: f64, to: f64| ((f64::from(value) - from) * span / 255.0 + to).round() as u8;
    luma.iter_mut().zip(pixels.chunks_exact(3)).for_each(|(luma, pixel)| *luma = limited(pixel[0], 219.0, 0.0, 16.0));
    for (plane, component) in [(u, 1), (v, 2)] {
        for (at, chroma) in plane.iter_mut().enumerate() {
            let (x, y) = (at % width.div_ceil(2) * 2, at / width.div_ceil(2) * 2);
            *chroma = limited(pixels[(y * width + x) * 3 + component], 224.0, 128.0, 128.0);
        }
    }
    picture
}

/// Returns the mean difference of two pictures in each plane.
fn differences(a: &I420, b: &I420) -> [f64; 3] {
    assert_eq!(a.size(), b.size());
    let [planes, others] = [a, b].map(I420::planes);
    [0, 1, 2].map(|plane| {
        let sum: u64 = planes[plane].iter().zip(others[plane]).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        sum as f64 / planes[plane].len() as f64
    })
}

/// A publisher of the room. Its camera plays while something else is waited for.
struct Publisher {
    client: Client,
    encoder: Encoder,
    next: u64,
}

impl Publisher {
    fn begin(gateway: &Gateway, effect: &str) -> Self {
        let wish = Wish { effect: Some(effect.into()), ..Wish::default() };
        let config = EncoderConfig { codec: VideoCodec::Vp8, bitrate_bps: 3_000_000, frame_rate: 30.0, speed: Speed::Fast };
        Self { client: Client::publish(&gateway.url, "room", &wish).unwrap(), encoder: Encoder::new(config).unwrap(), next: 0 }
    }

    fn play(&mut self) {
        let scenes = scenes(SIZE.0, SIZE.1);
        let capture = MediaTime(90_000 + self.next * 3000);
        let frame = self.encoder.encode(&scenes[self.next as usize % scenes.len()], capture, false).unwrap().unwrap();
        self.client.send_frame(&frame, None).unwrap();
        self.next += 1;
        let until = Instant::now() + FRAME;
        while let Some(event) = self.client.poll(until).unwrap() {
            assert!(!matches!(event, ClientEvent::Ended));
        }
    }

    /// Plays until `done` returns something.
    fn play_until<T>(&mut self, what: &str, mut done: impl FnMut() -> Option<T>) -> T {
        for _ in 0..PLENTY {
            if let Some(done) = done() {
                return done;
            }
            self.play();
        }
        panic!("timeout while waiting for {what}");
    }

    /// Plays while another thread does something.
    fn play_while<T: Send + 'static>(&mut self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let worker = thread::spawn(work);
        self.play_until("the other thread", || worker.is_finished().then_some(()));
        worker.join().unwrap()
    }

    fn ask(&mut self, gateway: &Gateway, path: &str) -> Answer {
        let url = format!("{}{path}", gateway.url);
        self.play_while(move || ask(&url))
    }
}

/// Returns the likeness of a picture to the scene that it is most like, of either sign.
fn of_scene(picture: &I420) -> f64 {
    let likenesses = scenes(picture.width(), picture.height()).iter().map(|scene| likeness(picture, scene)).collect::<Vec<_>>();
    likenesses.into_iter().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap()
}

/// A reader of a stream of pictures.
struct Reader(BufReader<Box<dyn Read + Send>>);

impl Reader {
    fn open(gateway: &Gateway, query: &str) -> Self {
        let response = ureq::get(format!("{}{STREAM}{query}", gateway.url)).call().unwrap();
        assert_eq!(response.headers()["content-type"], "multipart/x-mixed-replace; boundary=ooblex-picture");
        let mut reader = BufReader::new(Box::new(response.into_body().into_reader()) as Box<dyn Read + Send>);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, "--ooblex-picture\r\n");
        Self(reader)
    }

    /// Reads the next picture. Returns `None` at the end.
    fn next(&mut self) -> Option<Vec<u8>> {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).ok().filter(|read| *read > 0).is_none() {
                assert!(head.is_empty(), "it ends between two pictures");
                return None;
            }
            if line == "\r\n" {
                break;
            }
            head.push(line.trim_end().to_string());
        }
        assert_eq!(head[0], "Content-Type: image/jpeg");
        let mut jpeg = vec![0; head[1].strip_prefix("Content-Length: ").unwrap().parse().unwrap()];
        self.0.read_exact(&mut jpeg).unwrap();
        let mut boundary = [0; 20];
        self.0.read_exact(&mut boundary).unwrap();
        assert_eq!(&boundary, b"\r\n--ooblex-picture\r\n");
        Some(jpeg)
    }
}

#[test]
fn snapshot_is_the_processed_picture_that_viewers_see() {
    let gateway = Gateway::start("", CHEAP);
    let unknown = ask(&format!("{}{SNAPSHOT}", gateway.url));
    assert_eq!((unknown.status, unknown.problem().as_str()), (404, "unknown-room"));
    let mut publisher = Publisher::begin(&gateway, "invert");
    let early = ask(&format!("{}{SNAPSHOT}", gateway.url));
    assert_eq!((early.status, early.problem().as_str(), early.retry_after.is_some()), (503, "unavailable", true));
    assert!(String::from_utf8_lossy(&early.body).contains("its camera has sent none"));

    let first = publisher.ask(&gateway, SNAPSHOT).picture();
    assert!(of_scene(&first) < -0.9, "the first one is a negative: {}", of_scene(&first));
    let wish = Wish { feedback: false, ..Wish::default() };
    let mut viewer = Client::watch(&gateway.url, "room", &wish).unwrap();
    let (mut decoder, mut seen) = (Decoder::new(VideoCodec::Vp8, Limits::default()).unwrap(), Vec::new());
    publisher.play_until("pictures of the viewer", || {
        while let Some(event) = viewer.poll(Instant::now() + Duration::from_millis(3)).unwrap() {
            if let ClientEvent::Frame { frame, .. } = event {
                seen.extend(decoder.decode(&frame.data).unwrap());
            }
        }
        (seen.len() >= 60).then_some(())
    });
    // All eight scenes were seen by then, and the snapshot is one of them.
    let snapshot = publisher.ask(&gateway, SNAPSHOT).picture();
    let nearest = seen.iter().map(|seen| differences(seen, &snapshot)).min_by(|a, b| a[0].total_cmp(&b[0])).unwrap();
    assert!(nearest[0] < 4.0 && nearest[1] < 3.0 && nearest[2] < 3.0, "{nearest:?}");
    // Levels are those of the picture, not only its shape.
    let mut expected = picture().clone();
    expected.planes_mut()[0].iter_mut().for_each(|luma| *luma = 251_u8.saturating_sub(*luma));
    let mean = |picture: &I420| picture.planes()[0].iter().map(|luma| f64::from(*luma)).sum::<f64>() / picture.planes()[0].len() as f64;
    assert!((mean(&snapshot) - mean(&expected)).abs() < 5.0, "{} instead of {}", mean(&snapshot), mean(&expected));
}

#[test]
fn without_a_worker_a_snapshot_is_a_placeholder() {
    let gateway = Gateway::start("", CHEAP);
    let mut publisher = Publisher::begin(&gateway, "background_blur");
    let stand_in = publisher.ask(&gateway, SNAPSHOT).picture();
    let [sharp, blurred] = [background_sharpness(picture()), background_sharpness(&stand_in)];
    assert!(blurred < sharp / 4.0, "{blurred} of {sharp}");
}

#[test]
fn snapshot_after_a_change_of_the_effect_has_the_new_effect() {
    let gateway = Gateway::start("", CHEAP);
    let mut publisher = Publisher::begin(&gateway, "none");
    assert!(publisher.ask(&gateway, SNAPSHOT).picture().size().pixels() > 0.0);
    let session = gateway.json("/api/rooms")["rooms"][0]["publisher"].as_str().unwrap().to_string();
    let url = gateway.url.clone();
    // Frames of the effect before still wait for their worker at each change.
    for round in 0..6 {
        for (change, is_negative) in [(json!({"effect": "delay", "params": {"ms": 200}}), true), (json!({"effect": "none"}), false)] {
            let (url, session, body) = (url.clone(), session.clone(), change.to_string());
            let answer = publisher.play_while(move || {
                let request = ureq::http::Request::builder().method("PATCH").uri(format!("{url}/api/sessions/{session}"));
                let request = request.header("content-type", "application/json").body(body).unwrap();
                assert_eq!(ureq::run(request).unwrap().status(), 200);
                ask(&format!("{url}{SNAPSHOT}"))
            });
            let like = of_scene(&answer.picture());
            assert!(if is_negative { like < 0.2 } else { like > 0.9 }, "round {round}: {change} gives {like}");
            (0..10).for_each(|_| publisher.play());
        }
    }
}

#[test]
fn streams_of_a_room_share_its_pictures_are_capped_and_end_with_it() {
    let gateway = Gateway::start("[rooms]\nmjpeg_fps = 5\nmjpeg_streams = 3\n", CHEAP);
    let mut publisher = Publisher::begin(&gateway, "invert");
    let encoded = || gateway.metric("ooblex_jpegs_encoded_total");
    publisher.ask(&gateway, SNAPSHOT).picture();
    let before = encoded();
    (0..30).for_each(|_| publisher.play());
    assert_eq!(encoded(), before, "nobody asks");

    let url = gateway.url.clone();
    let mut readers: Vec<_> = ["?fps=1000", "", "?fps=1"]
        .into_iter()
        .map(|query| {
            let mut reader = Reader::open(&gateway, query);
            thread::spawn(move || std::iter::from_fn(|| reader.next()).map(|jpeg| (Instant::now(), jpeg)).collect::<Vec<_>>())
        })
        .collect();
    let refused = publisher.ask(&gateway, STREAM);
    assert_eq!((refused.status, refused.problem().as_str(), refused.retry_after.is_some()), (503, "room-full", true));
    assert!(String::from_utf8_lossy(&refused.body).contains("rooms.mjpeg_streams"));
    assert_eq!((gateway.metric("ooblex_mjpeg_streams"), gateway.json("/api/rooms")["rooms"][0]["mjpeg_streams"].clone()), (3.0, json!(3)));
    let (started, before) = (Instant::now(), encoded());
    (0..150).for_each(|_| publisher.play());
    let (seconds, made) = (started.elapsed().as_secs_f64(), encoded() - before);
    let session = gateway.json("/api/rooms")["rooms"][0]["publisher"].as_str().unwrap().to_string();
    ureq::delete(format!("{}/api/sessions/{session}", gateway.url)).call().unwrap();
    let slow = readers.pop().unwrap().join().unwrap();
    let [fast, usual] = [(); 2].map(|()| readers.pop().unwrap().join().unwrap());
    assert!(made <= 5.0 * seconds + 2.0, "{made} pictures in {seconds} s");
    for reader in [&fast, &usual] {
        let count = reader.len() as f64;
        assert!(count >= 10.0 && count <= 5.0 * seconds + 6.0, "{count} pictures in {seconds} s");
        assert!(reader.iter().all(|(_, jpeg)| of_scene(&decode(jpeg)) < -0.9));
    }
    let shared = fast.iter().filter(|(_, jpeg)| usual.iter().any(|(_, other)| other == jpeg)).count();
    assert!(shared * 10 >= fast.len() * 8, "{shared} of {} pictures are shared", fast.len());
    assert!(slow.len() as f64 <= seconds + 3.0, "{} pictures in {seconds} s", slow.len());
    gateway.wait("no stream", |_| gateway.metric("ooblex_mjpeg_streams") == 0.0);
    assert_eq!(ask(&format!("{url}{SNAPSHOT}")).status, 404);
}

#[test]
fn reader_that_stalls_asks_for_nothing_and_holds_up_nobody() {
    let gateway = Gateway::start("[rooms]\nmjpeg_fps = 30\n", CHEAP);
    let mut publisher = Publisher::begin(&gateway, "invert");
    publisher.ask(&gateway, SNAPSHOT).picture();
    let stalled = Reader::open(&gateway, "?fps=30");
    let encoded = || gateway.metric("ooblex_jpegs_encoded_total");
    let mut last = (encoded(), Instant::now());
    publisher.play_until("an end of the pictures that nobody reads", || {
        let now = encoded();
        if now > last.0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() > Duration::from_secs(1)).then_some(())
    });
    let shown = gateway.metric("ooblex_frames_shown_total");
    (0..60).for_each(|_| publisher.play());
    assert!(gateway.metric("ooblex_frames_shown_total") > shown + 30.0, "the track goes on");
    assert_eq!(publisher.ask(&gateway, SNAPSHOT).picture().width(), SIZE.0);
    drop(stalled);
    gateway.wait("no stream", |_| gateway.metric("ooblex_mjpeg_streams") == 0.0);
}
