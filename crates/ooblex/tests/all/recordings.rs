//! Tests of recordings: ffmpeg plays the files, whatever ends them, and they have the processed pictures
//! and the sound at their times.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use ooblex_api::auth::jwt;
use ooblex_client::{Client, ClientEvent, Wish};
use ooblex_codec::container::ivf::IvfReader;
use ooblex_codec::{Decoder, Encoder, EncoderConfig, Limits, Speed};
use ooblex_config::Secret;
use ooblex_pipeline::{I420, MediaTime, VideoCodec};
use serde_json::{Value, json};

use crate::common::{Gateway, WITHIN, likeness, machine, scenes, temporary_folder};

const RECORDINGS: &str = "/api/rooms/room/recordings";
const SIZE: (u32, u32) = (320, 240);
/// An Opus packet of 20 ms of silence.
const SILENCE: [u8; 3] = [0xf8, 0xff, 0xfe];

/// A longer one.
const FLASH_SOUND: [u8; 40] = [0xf8; 40];

/// A folder of recordings.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        Self(temporary_folder())
    }

    /// Returns a configuration that records here, with more options of that section.
    fn config(&self, more: &str) -> String {
        format!("[diagnostics]\neffects = true\n[recordings]\nfolder = \"{}\"\n{more}\n", self.0.display())
    }

    /// Returns the files of the room in the order of their beginning.
    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.0.join("room")).into_iter().flatten();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort_by_key(|file| fs::metadata(file).unwrap().modified().unwrap());
        files
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

/// A publisher that sends pictures and sound.
struct Publisher {
    client: Client,
    encoder: Encoder,
    begun: Instant,
    pictures: u64,
    packets: u64,
    force_keyframe: bool,
    /// The pictures are white, and the packets of sound long.
    is_flashing: bool,
}

impl Publisher {
    fn begin(gateway: &Gateway, wish: Wish) -> Self {
        let config = EncoderConfig { codec: VideoCodec::Vp8, bitrate_bps: 1_000_000, frame_rate: 30.0, speed: Speed::Fast };
        let client = Client::publish(&gateway.url, "room", &Wish { audio: true, ..wish }).unwrap();
        let encoder = Encoder::new(config).unwrap();
        let mut publisher =
            Self { client, encoder, begun: Instant::now(), pictures: 0, packets: 0, force_keyframe: false, is_flashing: false };
        let shown = gateway.metric("ooblex_frames_shown_total");
        gateway.wait("pictures", |gateway| {
            publisher.play(SIZE, Duration::from_millis(100));
            gateway.metric("ooblex_frames_shown_total") > shown
        });
        publisher
    }

    /// Sends pictures of a size, and sound, for a time.
    fn play(&mut self, (width, height): (u32, u32), time: Duration) {
        let (until, scenes, white) = (Instant::now() + time, scenes(width, height), I420::grey(width, height, 235));
        let sound: &[u8] = if self.is_flashing { &FLASH_SOUND } else { &SILENCE };
        while Instant::now() < until {
            let elapsed_ms = self.begun.elapsed().as_millis() as u64;
            if self.pictures <= elapsed_ms * 30 / 1000 {
                // A machine that is late leaves pictures out, as a camera does.
                self.pictures = elapsed_ms * 30 / 1000;
                let capture = MediaTime(90_000 + self.pictures * 3000);
                let scene = &scenes[self.pictures as usize % scenes.len()];
                let picture = if self.is_flashing { &white } else { scene };
                let frame = self.encoder.encode(picture, capture, std::mem::take(&mut self.force_keyframe)).unwrap().unwrap();
                self.client.send_frame(&frame, None).unwrap();
                self.pictures += 1;
            }
            while self.packets <= elapsed_ms / 20 {
                self.client.send_audio(48_000 + self.packets * 960, sound).unwrap();
                self.packets += 1;
            }
            while let Some(event) = self.client.poll(Instant::now() + Duration::from_millis(5)).unwrap() {
                match event {
                    ClientEvent::KeyframeWanted => self.force_keyframe = true,
                    ClientEvent::Ended => panic!("the session goes on"),
                    _ => {}
                }
            }
        }
    }
}

/// An answer of the gateway.
struct Answer {
    status: u16,
    headers: ureq::http::HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    fn kind(&self) -> String {
        self.json()["type"].as_str().unwrap_or_default().trim_start_matches("urn:ooblex:problem:").to_string()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

fn ask(gateway: &Gateway, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(WITHIN)).build();
    let agent = ureq::Agent::new_with_config(config);
    let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", gateway.url));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = if method == "POST" { agent.run(request.body(String::new()).unwrap()) } else { agent.run(request.body(()).unwrap()) };
    let mut answer = answer.unwrap();
    Answer { status: answer.status().as_u16(), headers: answer.headers().clone(), body: answer.body_mut().read_to_vec().unwrap() }
}

fn begin(gateway: &Gateway) {
    let answer = ask(gateway, "POST", RECORDINGS, &[]);
    assert_eq!((answer.status, answer.header("location")), (201, RECORDINGS), "{}", answer.json());
}

/// Waits until nothing is recorded any more.
fn wait_for_end(gateway: &Gateway) {
    gateway.wait("the end of the recording", |gateway| gateway.metric("ooblex_recordings") == 0.0);
}

fn end(gateway: &Gateway) {
    assert_eq!(ask(gateway, "DELETE", RECORDINGS, &[]).status, 204);
    wait_for_end(gateway);
}

/// Decodes a whole file, which must have no fault, and returns what ffprobe says of it.
fn played(file: &Path) -> Value {
    let checked = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(file)
        .args(["-fps_mode", "passthrough", "-enc_time_base", "1:1000", "-f", "null", "-"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success() && said.is_empty(), "{}: {said}", file.display());
    let probe = ["-v", "error", "-count_packets", "-show_streams", "-show_format", "-show_packets", "-of", "json"];
    let output = Command::new("ffprobe").args(probe).arg(file).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn stream<'a>(probed: &'a Value, kind: &str) -> &'a Value {
    let streams = probed["streams"].as_array().unwrap();
    streams.iter().find(|stream| stream["codec_type"] == kind).unwrap_or_else(|| panic!("no {kind} in {streams:?}"))
}

/// Returns the times of the pictures or packets of sound, in seconds.
fn times(probed: &Value, kind: &str) -> Vec<f64> {
    let packets = probed["packets"].as_array().unwrap().iter().filter(|packet| packet["codec_type"] == kind);
    packets.map(|packet| number(&packet["pts_time"])).collect()
}

fn number(value: &Value) -> f64 {
    value.as_str().unwrap().parse().unwrap()
}

#[test]
fn file_of_a_room_plays_and_is_downloaded_in_parts() {
    let _machine = machine::alone();
    for (codecs, codec, extension, mime) in
        [("[\"vp8\", \"h264\"]", "vp8", "webm", "video/webm"), ("[\"h264\", \"vp8\"]", "h264", "mkv", "video/x-matroska")]
    {
        let folder = Folder::new();
        let gateway = Gateway::start(&format!("{}[video]\ncodecs = {codecs}\n", folder.config("")), &[]);
        let mut publisher = Publisher::begin(&gateway, Wish { effect: Some("sepia".into()), ..Wish::default() });
        begin(&gateway);
        let again = ask(&gateway, "POST", RECORDINGS, &[]);
        assert_eq!((again.status, again.kind().as_str()), (409, "recorded"));
        assert_eq!(gateway.json("/api/rooms")["rooms"][0]["is_recorded"], true);
        let before = gateway.metric("ooblex_frames_shown_total");
        publisher.play(SIZE, Duration::from_secs(4));
        let shown = gateway.metric("ooblex_frames_shown_total") - before;
        assert_eq!(gateway.json(RECORDINGS)["files"][0]["is_complete"], false);
        end(&gateway);
        assert_eq!(ask(&gateway, "DELETE", RECORDINGS, &[]).status, 204, "it has ended");

        let listed = gateway.json(RECORDINGS);
        let name = listed["files"][0]["file"].as_str().unwrap();
        assert_eq!((listed["files"].as_array().unwrap().len(), &listed["files"][0]["is_complete"]), (1, &json!(true)));
        assert!(name.ends_with(&format!("Z.{extension}")), "{name}");
        let file = &folder.files()[0];
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);

        let probed = played(file);
        let (video, audio) = (stream(&probed, "video"), stream(&probed, "audio"));
        assert_eq!((video["codec_name"].as_str(), &video["width"], &video["height"]), (Some(codec), &json!(SIZE.0), &json!(SIZE.1)));
        assert_eq!(audio["codec_name"], "opus");
        let (pictures, sound) = (times(&probed, "video"), times(&probed, "audio"));
        assert!(pictures.len() as f64 >= shown - 3.0 && shown > 80.0, "{} of {shown} pictures", pictures.len());
        assert!(pictures[0] == 0.0 && pictures.is_sorted_by(|a, b| a < b) && sound.is_sorted_by(|a, b| a < b));
        let steps = sound.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(sound.len() > 180 && steps.clone().all(|step| step < 0.1), "{:?}", steps.fold(0.0, f64::max));
        let duration = number(&probed["format"]["duration"]);
        let last = pictures.last().unwrap().max(sound.last().unwrap() + 0.02);
        assert!((duration - last).abs() < 0.101 && (3.5..6.0).contains(&duration), "{duration} after {last}");

        let path = format!("{RECORDINGS}/{name}");
        let whole = ask(&gateway, "GET", &path, &[]);
        assert_eq!((whole.status, whole.header("content-type"), whole.header("accept-ranges")), (200, mime, "bytes"));
        assert_eq!(whole.header("content-disposition"), format!("attachment; filename=\"room-{name}\""));
        assert!(whole.body == fs::read(file).unwrap());
        let part = ask(&gateway, "GET", &path, &[("range", "bytes=100-199")]);
        assert_eq!((part.status, &part.body[..]), (206, &whole.body[100..200]));
        let head = ask(&gateway, "HEAD", &path, &[]);
        assert_eq!((head.status, head.header("content-length")), (200, whole.body.len().to_string().as_str()));
        assert_eq!(ask(&gateway, "GET", &path, &[("range", "bytes=99999999-")]).status, 416);
        assert_eq!((gateway.metric("ooblex_recording_files_total"), gateway.metric("ooblex_recording_drops_total")), (1.0, 0.0));
        assert!(gateway.metric("ooblex_recording_bytes_total") > whole.body.len() as f64 * 0.9);
        assert_eq!(gateway.metric("ooblex_recording_failures_total"), 0.0);
    }
}

#[test]
fn recorded_pictures_are_processed_and_in_sync_with_the_sound() {
    let _machine = machine::alone();
    let folder = Folder::new();
    let config = format!("{}[serve]\nworkers = 16\n[worker]\neffects = [\"delay\"]\n", folder.config("all_rooms = true"));
    let gateway = Gateway::start(&config, &["--effect", "delay"]);
    let mut publisher = Publisher::begin(&gateway, Wish::default());
    // The pictures come 300 ms after the sound.
    let session = gateway.json("/api/rooms")["rooms"][0]["publisher"].as_str().unwrap().to_string();
    let config = ureq::Agent::config_builder().timeout_global(Some(WITHIN)).build();
    let change = ureq::Agent::new_with_config(config).patch(format!("{}/api/sessions/{session}", gateway.url));
    assert_eq!(change.send_json(json!({"effect": "delay", "params": {"ms": 300}})).unwrap().status(), 200);
    for is_flashing in [false, true, false] {
        publisher.is_flashing = is_flashing;
        publisher.play(SIZE, Duration::from_secs(2));
    }
    publisher.client.close().unwrap();
    wait_for_end(&gateway);
    let [file] = &folder.files()[..] else { panic!("{:?}", folder.files()) };
    let probed = played(file);
    let packets = probed["packets"].as_array().unwrap();
    let long = json!(FLASH_SOUND.len().to_string());
    let is_long = |packet: &&Value| packet["codec_type"] == "audio" && packet["size"] == long;
    let heard = number(&packets.iter().find(is_long).unwrap()["pts_time"]);

    let ivf = folder.0.join("pictures.ivf");
    let copied = Command::new("ffmpeg").args(["-v", "error", "-i"]).arg(file).args(["-an", "-c", "copy"]).arg(&ivf).status().unwrap();
    assert!(copied.success());
    let mut reader = IvfReader::new(fs::File::open(&ivf).unwrap()).unwrap();
    let mut decoder = Decoder::new(VideoCodec::Vp8, Limits::default()).unwrap();
    let source = &scenes(SIZE.0, SIZE.1)[0];
    let (mut processed, mut seen) = (0, None);
    for (index, time) in times(&probed, "video").into_iter().enumerate() {
        let (_, data) = reader.next_frame(index as u64).unwrap().unwrap();
        let picture = decoder.decode(&data).unwrap().unwrap();
        // The effect inverts the luma. A placeholder is like nothing.
        let alike = likeness(&picture, source);
        assert!(alike < 0.2, "picture {index} is not processed: {alike}");
        processed += usize::from(alike < -0.5);
        let luma = picture.planes()[0];
        let mean = luma.iter().map(|luma| u64::from(*luma)).sum::<u64>() / luma.len() as u64;
        // White becomes black.
        seen = seen.or((mean < 40).then_some(time));
    }
    assert!(processed > 50, "{processed}");
    let error = seen.unwrap() - heard;
    assert!(error.abs() < 0.07, "the picture of the flash comes {error} s after its sound");
}

#[test]
fn after_a_crash_everything_but_the_last_second_plays() {
    let folder = Folder::new();
    let mut gateway = Gateway::start(&folder.config(""), &["--effect", "none"]);
    let mut publisher = Publisher::begin(&gateway, Wish::default());
    begin(&gateway);
    let before = gateway.metric("ooblex_frames_shown_total");
    publisher.play(SIZE, Duration::from_secs(4));
    let shown = gateway.metric("ooblex_frames_shown_total") - before;
    gateway.kill();
    let [file] = &folder.files()[..] else { panic!("{:?}", folder.files()) };
    let probed = played(file);
    let pictures = times(&probed, "video");
    assert!(pictures.len() as f64 + 31.0 > shown, "{} of {shown}", pictures.len());
    assert!(pictures.last().is_some_and(|last| *last > 2.9) && times(&probed, "audio").len() > 100);
}

#[test]
fn another_size_is_another_file_and_a_stopping_gateway_completes_its_files() {
    let folder = Folder::new();
    let mut gateway = Gateway::start(&folder.config("all_rooms = true"), &["--effect", "none"]);
    let mut publisher = Publisher::begin(&gateway, Wish::default());
    publisher.play(SIZE, Duration::from_secs(2));
    publisher.play((160, 120), Duration::from_secs(2));
    gateway.signal(rustix::process::Signal::TERM);
    assert!(gateway.ended().success());
    let files = folder.files();
    let probed: Vec<Value> = files.iter().map(|file| played(file)).collect();
    let sizes: Vec<_> = probed.iter().map(|probed| stream(probed, "video")["width"].as_u64().unwrap()).collect();
    assert_eq!(sizes, [320, 160], "{files:?}");
    assert!(probed.iter().all(|probed| number(&probed["format"]["duration"]) > 1.0), "both are complete");
}

#[test]
fn token_can_ask_for_a_recording() {
    let (folder, secret) = (Folder::new(), "x".repeat(40));
    let auth = format!("[auth]\nmode = \"jwt\"\n[auth.jwt]\nsecret = \"{secret}\"\nrequire_expiry = false\n");
    let gateway = Gateway::start(&format!("{}{auth}", folder.config("")), &["--effect", "none"]);
    let sign = |claims: Value| jwt::sign(&claims, &serde_json::from_value::<Secret>(json!(secret)).unwrap(), None).unwrap();
    let admin = format!("Bearer {}", sign(json!({"admin": true})));
    let list = || ask(&gateway, "GET", RECORDINGS, &[("authorization", &admin)]).json();
    for (claims, is_recorded) in [(json!({"publish": true, "record": true}), true), (json!({"publish": true}), false)] {
        let wish = Wish { token: Some(sign(claims)), audio: true, ..Wish::default() };
        let client = Client::publish(&gateway.url, "room", &wish).unwrap();
        assert_eq!(list()["is_recorded"], is_recorded);
        client.close().unwrap();
        // The next publisher comes at once.
        let mut next = None;
        gateway.wait("the room to be free", |gateway| {
            next = Client::publish(&gateway.url, "room", &wish).ok();
            next.is_some()
        });
        assert_eq!(list()["is_recorded"], is_recorded);
        next.unwrap().close().unwrap();
        gateway.wait("the end", |_| {
            ask(&gateway, "GET", "/api/rooms", &[("authorization", &admin)]).json()["rooms"] == json!([]) && list()["is_recorded"] == false
        });
    }
}

#[test]
fn recording_that_cannot_be_written_ends_and_the_session_goes_on() {
    let folder = Folder::new();
    // A file is where the folder of the room would be.
    fs::write(folder.0.join("room"), "").unwrap();
    let gateway = Gateway::start(&folder.config(""), &["--effect", "none"]);
    let mut publisher = Publisher::begin(&gateway, Wish::default());
    begin(&gateway);
    gateway.wait("the failure", |gateway| {
        publisher.play(SIZE, Duration::from_millis(100));
        gateway.metric("ooblex_recording_failures_total") == 1.0
    });
    let shown = gateway.metric("ooblex_frames_shown_total");
    publisher.play(SIZE, Duration::from_secs(1));
    assert!(gateway.metric("ooblex_frames_shown_total") > shown + 10.0);
    assert!(gateway.said().contains("a recording has ended, since its file cannot be written"), "{}", gateway.said());
    assert_eq!(gateway.json(RECORDINGS)["is_recorded"], false);
    // The next one works as soon as the folder does.
    fs::remove_file(folder.0.join("room")).unwrap();
    begin(&gateway);
    publisher.play(SIZE, Duration::from_secs(2));
    end(&gateway);
    played(&folder.files()[0]);
}

#[test]
fn names_lead_nowhere_else_and_refusals_say_why() {
    let (folder, gateway) = (Folder::new(), Gateway::start("", &["--effect", "none"]));
    let mut publisher = Publisher::begin(&gateway, Wish::default());
    publisher.play(SIZE, Duration::from_millis(100));
    let off = ask(&gateway, "POST", RECORDINGS, &[]);
    assert_eq!((off.status, off.kind().as_str()), (422, "unsupported"), "no folder is configured");
    let gateway = Gateway::start(&folder.config(""), &["--effect", "none"]);
    let empty = ask(&gateway, "POST", RECORDINGS, &[]);
    assert_eq!((empty.status, empty.kind().as_str()), (409, "room-empty"));
    fs::create_dir(folder.0.join("room")).unwrap();
    fs::write(folder.0.join("secret"), "secret").unwrap();
    fs::write(folder.0.join("20261130T211058Z.webm"), "secret").unwrap();
    for path in
        ["room/recordings/..%2fsecret", "room/recordings/secret", "room/recordings/..%2f20261130T211058Z.webm", "room/recordings/%2e%2e"]
    {
        assert_eq!(ask(&gateway, "GET", &format!("/api/rooms/{path}"), &[]).status, 404, "{path}");
    }
    for path in ["%2e%2e/recordings", "..%2froom/recordings", "./recordings/20261130T211058Z.webm", "%2e/recordings/20261130T211058Z.webm"]
    {
        let status = ask(&gateway, "GET", &format!("/api/rooms/{path}"), &[]).status;
        assert!([400, 404].contains(&status), "{path}: {status}");
    }
    let refused = Gateway::refuse(&["--config", config_file(&folder, "/proc/recordings").to_str().unwrap()]);
    assert!(refused.contains("recordings.folder") && refused.contains("/proc/recordings"), "{refused}");
}

fn config_file(folder: &Folder, recordings: &str) -> PathBuf {
    let file = folder.0.join("ooblex.toml");
    fs::write(&file, format!("[recordings]\nfolder = \"{recordings}\"\n")).unwrap();
    file
}

#[test]
fn old_recordings_are_removed() {
    let folder = Folder::new();
    let room = folder.0.join("room");
    fs::create_dir(&room).unwrap();
    let files = ["20200101T000000Z.webm", "20200101T000001Z.webm"].map(|name| room.join(name));
    for (file, hours) in files.iter().zip([3, 1]) {
        fs::write(file, "").unwrap();
        let modified = SystemTime::now() - Duration::from_secs(hours * 3600);
        fs::File::options().write(true).open(file).unwrap().set_modified(modified).unwrap();
    }
    let gateway = Gateway::start(&folder.config("max_age_h = 2"), &[]);
    gateway.wait("the removal", |gateway| gateway.metric("ooblex_recording_files_removed_total") == 1.0);
    assert_eq!(folder.files(), [files[1].clone()]);
}
