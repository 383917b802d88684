//! Tests of rooms with many viewers: pictures are encoded once, everybody gets all of them in order,
//! and a viewer that stalls matters to nobody else.

use std::time::{Duration, Instant};

use ooblex_client::{Client, ClientError, ClientEvent, Wish};
use ooblex_codec::{Decoder, Encoder, EncoderConfig, Limits, Speed};
use ooblex_pipeline::{EncodedFrame, MediaTime, VideoCodec};

use crate::common::{FRAME, Gateway, PLENTY, WITHIN, scenes};

const SIZE: (u32, u32) = (320, 240);
/// Viewers beside the one that stalls.
const VIEWERS: usize = 8;

struct Publisher {
    client: Client,
    encoder: Encoder,
    next: u64,
}

struct Viewer {
    client: Client,
    frames: Vec<EncodedFrame>,
}

impl Publisher {
    fn begin(gateway: &Gateway) -> Self {
        Self::with_effect(gateway, "none")
    }

    fn with_effect(gateway: &Gateway, effect: &str) -> Self {
        let wish = Wish { effect: Some(effect.into()), ..Wish::default() };
        let config = EncoderConfig { codec: VideoCodec::Vp8, bitrate_bps: 1_000_000, frame_rate: 30.0, speed: Speed::Fast };
        Self { client: Client::publish(&gateway.url, "room", &wish).unwrap(), encoder: Encoder::new(config).unwrap(), next: 0 }
    }

    /// Sends a picture, and lets everybody listen until the next one is due.
    fn play(&mut self, viewers: &mut [Viewer]) {
        let scenes = scenes(SIZE.0, SIZE.1);
        let capture = MediaTime(90_000 + self.next * 3000);
        let frame = self.encoder.encode(&scenes[self.next as usize % scenes.len()], capture, false).unwrap().unwrap();
        self.client.send_frame(&frame, None).unwrap();
        self.next += 1;
        let share = FRAME / (viewers.len() as u32 + 1);
        viewers.iter_mut().for_each(|viewer| viewer.listen(share));
        let until = Instant::now() + share;
        while let Some(event) = self.client.poll(until).unwrap() {
            assert!(!matches!(event, ClientEvent::Ended));
        }
    }

    fn play_until(&mut self, viewers: &mut [Viewer], what: &str, enough: impl Fn(&[Viewer]) -> bool) {
        for _ in 0..PLENTY {
            if enough(viewers) {
                return;
            }
            self.play(viewers);
        }
        panic!("{what}: {:?}", viewers.iter().map(|viewer| viewer.frames.len()).collect::<Vec<_>>());
    }
}

impl Viewer {
    fn begin(gateway: &Gateway, codec: VideoCodec) -> Self {
        // Without feedback a busy machine is not taken for a narrow network.
        let wish = Wish { codecs: vec![codec], feedback: false, ..Wish::default() };
        Self { client: Client::watch(&gateway.url, "room", &wish).unwrap(), frames: Vec::new() }
    }

    fn listen(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while let Some(event) = self.client.poll(until).unwrap() {
            if let ClientEvent::Frame { frame, gap, .. } = event {
                assert!(!gap, "no frame is lost");
                assert!(self.frames.last().is_none_or(|last| last.capture < frame.capture), "frames come in their order");
                self.frames.push(frame);
            }
        }
    }

    /// Returns the times of the frames after `mark`.
    fn since(&self, mark: MediaTime) -> Vec<MediaTime> {
        self.frames.iter().map(|frame| frame.capture).filter(|capture| *capture > mark).collect()
    }
}

#[test]
fn pictures_of_a_room_are_encoded_once_and_a_viewer_that_stalls_matters_to_nobody() {
    let gateway = Gateway::start("", &[]);
    let mut publisher = Publisher::begin(&gateway);
    gateway.wait("the camera", |_| {
        publisher.play(&mut []);
        gateway.metric("ooblex_frames_admitted_total") > 0.0
    });
    let codecs = [VideoCodec::Vp8, VideoCodec::H264].into_iter().cycle();
    let mut viewers: Vec<_> = codecs.take(VIEWERS + 1).map(|codec| Viewer::begin(&gateway, codec)).collect();
    publisher.play_until(&mut viewers, "pictures", |viewers| viewers.iter().all(|viewer| viewer.frames.len() >= 10));
    assert!(viewers.iter().all(|viewer| viewer.frames[0].keyframe), "a viewer begins with a keyframe");
    assert_eq!((gateway.metric("ooblex_encoders"), gateway.metric("ooblex_viewers")), (2.0, VIEWERS as f64 + 1.0));
    let mut stalled = viewers.pop().unwrap();
    let of_codec = |codec: &str| gateway.metric_of("ooblex_pictures_encoded_total", &format!("codec=\"{codec}\""));

    // Nothing is sent while the counters are read, so they belong to the last frame that came.
    let settle = |viewers: &mut [Viewer]| viewers.iter_mut().for_each(|viewer| viewer.listen(Duration::from_millis(300) / VIEWERS as u32));
    settle(&mut viewers);
    let mark = viewers[0].frames.last().unwrap().capture;
    let withheld = gateway.metric("ooblex_frames_withheld_total");
    let before = [of_codec("vp8"), of_codec("h264"), gateway.metric("ooblex_keyframes_wanted_total")];
    let keyframes_before = viewers[0].frames.iter().filter(|frame| frame.keyframe).count();
    let started = Instant::now();
    // The viewer that stalls reads nothing, and asks for a keyframe again and again.
    for _ in 0..150 {
        publisher.play(&mut viewers);
        stalled.client.ask_for_keyframe().unwrap();
    }
    let seconds = started.elapsed().as_secs();
    // The last request may give another picture, since no camera sends any more.
    gateway.wait("each picture encoded once for each codec, not for each viewer", |_| {
        settle(&mut viewers);
        let encoded = [of_codec("vp8") - before[0], of_codec("h264") - before[1]];
        let counts = viewers.iter().map(|viewer| viewer.since(mark).len() as f64);
        counts.zip(encoded.into_iter().cycle()).all(|(count, encoded)| count == encoded)
    });
    let frames = viewers[0].since(mark);
    assert!(frames.len() > 75, "{} of 150 pictures came", frames.len());
    for viewer in &viewers {
        assert_eq!(viewer.since(mark), frames, "all viewers get all frames");
    }
    assert!(gateway.metric("ooblex_keyframes_wanted_total") > before[2], "the requests came");
    let keyframes = viewers[0].frames.iter().filter(|frame| frame.keyframe).count() - keyframes_before;
    assert!((1..=seconds as usize + 1).contains(&keyframes), "{keyframes} keyframes in {seconds} s");
    assert_eq!(gateway.metric("ooblex_frames_withheld_total"), withheld, "no frame was kept from a viewer");
}

/// Ends the publisher of the room, as an operator does.
fn end_publisher(gateway: &Gateway) {
    let publisher = gateway.json("/api/rooms")["rooms"][0]["publisher"].as_str().unwrap().to_string();
    ureq::delete(format!("{}/api/sessions/{publisher}", gateway.url)).call().unwrap();
}

#[test]
fn publisher_that_comes_back_has_its_viewers_who_hold_the_last_picture_meanwhile() {
    let gateway = Gateway::start("[rooms]\nlinger_s = 20\n", &[]);
    let mut viewers = Vec::new();
    let mut publisher = Publisher::begin(&gateway);
    publisher.play_until(&mut viewers, "the camera", |_| gateway.metric("ooblex_frames_admitted_total") > 0.0);
    viewers.extend([VideoCodec::Vp8, VideoCodec::H264].map(|codec| Viewer::begin(&gateway, codec)));
    publisher.play_until(&mut viewers, "pictures", |viewers| viewers.iter().all(|viewer| viewer.frames.len() >= 10));
    for effect in ["invert", "sepia"] {
        end_publisher(&gateway);
        drop(publisher);
        gateway.wait("a room without a publisher", |gateway| gateway.json("/api/rooms")["rooms"][0]["publisher"].is_null());
        assert_eq!(gateway.json("/api/rooms")["rooms"][0]["viewers"].as_array().unwrap().len(), 2);
        let other = Client::watch(&gateway.url, "room", &Wish::default());
        assert!(matches!(other, Err(ClientError::Refused(409, _))), "there is nothing to see");
        viewers.iter_mut().for_each(|viewer| viewer.listen(Duration::from_millis(700)));
        let before = viewers.iter().map(|viewer| viewer.frames.len()).collect::<Vec<_>>();
        publisher = Publisher::with_effect(&gateway, effect);
        publisher.play_until(&mut viewers, "pictures of the next one", |viewers| {
            viewers.iter().zip(&before).all(|(viewer, before)| viewer.frames.len() >= before + 10)
        });
        for (viewer, before) in viewers.iter().zip(before) {
            let [last, first] = [before - 1, before].map(|at| &viewer.frames[at]);
            let pause = (first.capture.0 - last.capture.0) as f64 / 90_000.0;
            assert!(first.keyframe && (0.5..10.0).contains(&pause), "{effect}: it begins with a keyframe, {pause} s later");
        }
        assert_eq!(gateway.metric("ooblex_viewers"), 2.0);
    }
    // The last one of each codec shows the last effect.
    for viewer in &viewers {
        let mut decoder = Decoder::new(viewer.frames[0].codec, Limits::default()).unwrap();
        let from = viewer.frames.iter().rposition(|frame| frame.keyframe).unwrap();
        let shown = viewer.frames[from..].iter().filter_map(|frame| decoder.decode(&frame.data).unwrap()).last().unwrap();
        let [_, u, v] = shown.planes();
        let mean = |plane: &[u8]| plane.iter().map(|chroma| u32::from(*chroma)).sum::<u32>() / plane.len() as u32;
        assert!(mean(u) < 126 && mean(v) > 130, "sepia has {} and {}", mean(u), mean(v));
    }
}

#[test]
fn viewers_end_when_no_publisher_comes_back_in_time() {
    let gateway = Gateway::start("[rooms]\nlinger_s = 2\n", &[]);
    let mut publisher = Publisher::begin(&gateway);
    publisher.play_until(&mut [], "the camera", |_| gateway.metric("ooblex_frames_admitted_total") > 0.0);
    let mut viewer = Client::watch(&gateway.url, "room", &Wish::default()).unwrap();
    let ended_at = Instant::now();
    end_publisher(&gateway);
    let deadline = Instant::now() + WITHIN;
    while !matches!(viewer.poll(deadline).unwrap(), Some(ClientEvent::Ended)) {
        assert!(Instant::now() < deadline, "it goes on");
    }
    assert!(ended_at.elapsed() >= Duration::from_secs(2), "{:?}", ended_at.elapsed());
    gateway.wait("no room", |gateway| gateway.json("/api/rooms")["rooms"].as_array().unwrap().is_empty());
    assert_eq!(gateway.metric_of("ooblex_sessions_ended_total", "reason=\"publisher_ended\""), 1.0);
}
