//! Shared parts of the tests of the running program: its processes, a Redis, a clip, and sessions
//! that play the clip.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test and benchmark uses a part of it, and fails by panicking"
)]

mod farm;
mod judge;
pub mod machine;
mod program;
mod redis;

use std::cell::OnceCell;
use std::collections::HashMap;
use std::io::BufReader;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ooblex_client::{Client, ClientEvent, Wish};
use ooblex_codec::{Decoder, Encoder, EncoderConfig, Limits, Rotation, Speed};
use ooblex_effects::i420_from_rgb;
use ooblex_pipeline::{I420, MediaTime, Rgb, VideoCodec};
use parking_lot::Mutex;
use serde_json::Value;

pub use self::farm::*;
pub use self::judge::{Look, likeness};
pub use self::program::{Gateway, Worker};
pub use self::redis::RedisServer;

/// Timeout for expected events, long enough for any machine.
pub const WITHIN: Duration = Duration::from_secs(30);

pub fn temporary_folder() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("ooblex-test-{:016x}", rand::random::<u64>()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// The test picture, 640×480: a woman in front of a flag and a model of the space shuttle.
pub fn picture() -> &'static I420 {
    static PICTURE: OnceLock<I420> = OnceLock::new();
    PICTURE.get_or_init(read_picture)
}

fn read_picture() -> I420 {
    let file = std::fs::File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../effects/tests/data/picture_640x480.png")).unwrap();
    let mut reader = png::Decoder::new(BufReader::new(file)).read_info().unwrap();
    let mut data = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut data).unwrap();
    i420_from_rgb(&Rgb { width: 640, height: 480, data }).unwrap()
}

/// Returns the test picture at any size, shifted by `step` pixels, with camera noise.
pub fn scene(width: u32, height: u32, step: u32) -> I420 {
    let source = picture();
    let mut scene = I420::grey(width, height, 128);
    let sizes = [(width, height, 640, 480), (width.div_ceil(2), height.div_ceil(2), 320, 240)];
    let mut noise = 0x1234_5678_u32.wrapping_add(step.wrapping_mul(7919));
    for (plane, (to, from)) in scene.planes_mut().into_iter().zip(source.planes()).enumerate() {
        let (w, h, sw, sh) = sizes[plane.min(1)];
        let shift = if plane == 0 { step % 16 } else { step % 16 / 2 };
        for (y, row) in to.chunks_exact_mut(w as usize).enumerate() {
            let from_row = &from[(y as u32 * sh / h * sw) as usize..][..sw as usize];
            for (x, to) in row.iter_mut().enumerate() {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let pixel = from_row[((x as u32 * sw / w) + shift).min(sw - 1) as usize];
                *to = pixel.saturating_add((noise >> 30) as u8);
            }
        }
    }
    scene
}

/// Returns the eight scenes that sessions play in a loop.
pub fn scenes(width: u32, height: u32) -> Arc<Vec<I420>> {
    /// Scenes by size, each created once.
    #[derive(Default)]
    struct Scenes(HashMap<(u32, u32), Arc<Vec<I420>>>);
    static SCENES: OnceLock<Mutex<Scenes>> = OnceLock::new();
    let mut scenes = SCENES.get_or_init(Mutex::default).lock();
    scenes.0.entry((width, height)).or_insert_with(|| Arc::new((0..8).map(|step| scene(width, height, step)).collect())).clone()
}

/// A session that plays scenes and decodes the received pictures.
pub struct Player {
    pub client: Client,
    pub codec: VideoCodec,
    pub rotation: Option<Rotation>,
    encoder: Encoder,
    decoder: Decoder,
    next: u64,
    pub sent: Vec<MediaTime>,
    pub shown: Vec<Shown>,
    pub messages: Vec<Value>,
    pub audio: Vec<(u64, Vec<u8>)>,
    pub keyframes_wanted: usize,
    pub ended: bool,
}

/// A received picture.
pub struct Shown {
    pub capture: MediaTime,
    pub picture: I420,
    look: OnceCell<Look>,
}

impl Player {
    pub fn new(gateway: &Gateway, wish: &Wish) -> Self {
        let codec = wish.codecs[0];
        let config = EncoderConfig { codec, bitrate_bps: 2_500_000, frame_rate: 30.0, speed: Speed::Fast };
        Self {
            client: Client::connect(&gateway.url, wish).unwrap(),
            codec,
            rotation: None,
            encoder: Encoder::new(config).unwrap(),
            decoder: Decoder::new(codec, Limits::default()).unwrap(),
            next: 0,
            sent: Vec::new(),
            shown: Vec::new(),
            messages: Vec::new(),
            audio: Vec::new(),
            keyframes_wanted: 0,
            ended: false,
        }
    }

    /// Sends a picture, and handles received events for a thirtieth of a second.
    pub fn play(&mut self, picture: &I420) {
        self.send(picture);
        self.listen(FRAME);
    }

    fn send(&mut self, picture: &I420) {
        let capture = MediaTime(90_000 + self.next * 3000);
        self.next += 1;
        let force = std::mem::take(&mut self.keyframes_wanted) > 0;
        let frame = self.encoder.encode(picture, capture, force).unwrap().unwrap();
        self.client.send_frame(&frame, self.rotation).unwrap();
        self.sent.push(capture);
    }

    /// Plays moving scenes of a size until `enough` holds, within [`PLENTY`] frames.
    pub fn play_until(&mut self, width: u32, height: u32, what: &str, mut enough: impl FnMut(&Self) -> bool) {
        play_together(std::slice::from_mut(self), (width, height), PLENTY, what, |players| enough(&players[0]));
    }

    /// Handles received events for `time`.
    pub fn listen(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        while let Some(event) = self.client.poll(deadline).unwrap() {
            match event {
                ClientEvent::Frame { frame, gap, .. } => {
                    if gap {
                        self.decoder.frames_lost();
                    }
                    match self.decoder.decode(&frame.data) {
                        Ok(Some(picture)) => self.shown.push(Shown { capture: frame.capture, picture, look: OnceCell::new() }),
                        Ok(None) => {}
                        Err(_) => self.client.ask_for_keyframe().unwrap(),
                    }
                }
                ClientEvent::Audio { time, data } => self.audio.push((time, data)),
                ClientEvent::Message(message) => self.messages.push(message),
                ClientEvent::KeyframeWanted => self.keyframes_wanted += 1,
                ClientEvent::Ended => {
                    self.ended = true;
                    return;
                }
            }
        }
    }

    /// Requests an effect, and plays until it is acknowledged. Returns the ack or the error.
    pub fn change(&mut self, width: u32, height: u32, message: &Value) -> Value {
        let id = &message["id"];
        self.client.say(message).unwrap();
        let answers = |message: &&Value| message["id"] == *id && (message["type"] == "ack" || message["type"] == "error");
        self.play_until(width, height, "an answer", |player| player.messages.iter().any(|m| answers(&m)));
        self.messages.iter().find(answers).unwrap().clone()
    }

    /// Returns the timestamp of the last frame sent.
    pub fn mark(&self) -> MediaTime {
        self.sent.last().copied().unwrap_or(MediaTime(0))
    }

    /// Returns the messages of a type, from index `since` on.
    pub fn heard(&self, since: usize, kind: &str) -> Vec<&Value> {
        self.messages[since..].iter().filter(|message| message["type"] == kind).collect()
    }

    /// Returns the scene from which a received picture was made.
    pub fn source_of(&self, shown: &Shown) -> I420 {
        let step = shown.capture.0.saturating_sub(90_000) / 3000 % 8;
        scenes(shown.picture.width(), shown.picture.height())[step as usize].clone()
    }

    /// Returns the received pictures with the timestamps of sent frames.
    pub fn of_sent_frames(&self) -> impl Iterator<Item = &Shown> {
        self.shown.iter().filter(|shown| self.sent.binary_search(&shown.capture).is_ok())
    }
}

/// Time between two frames of a camera.
pub const FRAME: Duration = Duration::from_millis(33);
/// Maximum number of frames to wait for an expected event: those of thirty seconds.
pub const PLENTY: usize = 900;

/// Plays moving scenes of a size in all sessions until `enough` holds, which must happen before
/// `most` frames were sent in each.
pub fn play_together(players: &mut [Player], size: (u32, u32), most: usize, what: &str, enough: impl FnMut(&[Player]) -> bool) {
    play_in_sizes(players, &vec![size; players.len()], most, what, enough);
}

/// Plays like [`play_together`], with a size for each session.
pub fn play_in_sizes(players: &mut [Player], sizes: &[(u32, u32)], most: usize, what: &str, mut enough: impl FnMut(&[Player]) -> bool) {
    let scenes: Vec<_> = sizes.iter().map(|(width, height)| scenes(*width, *height)).collect();
    for _ in 0..most {
        if enough(players) {
            return;
        }
        let share = FRAME / players.len() as u32;
        players.iter_mut().zip(&scenes).for_each(|(player, scenes)| player.send(&scenes[player.next as usize % scenes.len()]));
        players.iter_mut().for_each(|player| player.listen(share));
    }
    let came_back: Vec<_> = players.iter().map(|player| player.shown.len()).collect();
    assert!(enough(players), "{most} frames were not enough for: {what}; {came_back:?} came back");
}

/// Returns the sharpness of the space shuttle model in the background: the mean difference between
/// neighbouring pixels.
pub fn background_sharpness(picture: &I420) -> f64 {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let [luma, ..] = picture.planes();
    let (rows, columns) = (height / 4..height * 5 / 8, width * 3 / 4..width * 7 / 8);
    let count = rows.len() * columns.len();
    let sum: u64 = rows
        .flat_map(|y| columns.clone().map(move |x| y * width + x))
        .map(|at| u64::from(luma[at].abs_diff(luma[at + 1])) + u64::from(luma[at].abs_diff(luma[at + width])))
        .sum();
    sum as f64 / count as f64
}

/// Returns the mean difference between two pictures of the same size, in luma levels.
pub fn difference(a: &I420, b: &I420) -> f64 {
    assert_eq!((a.width(), a.height()), (b.width(), b.height()));
    let [(a, ..), (b, ..)] = [a, b].map(|picture| (picture.planes()[0], ()));
    a.iter().zip(b).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>() as f64 / a.len() as f64
}
