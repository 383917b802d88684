//! Tests of the command `ooblex apply`: pictures and videos, with and without ffmpeg, and the files
//! that remain after an error.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::{difference, machine, scene, temporary_folder};
use ooblex_codec::{Decoder, Encoder, EncoderConfig, Limits, Speed};
use ooblex_pipeline::{I420, MediaTime, VideoCodec};
use serde_json::Value;

const FRAMES: usize = 12;
const SIZE: (u32, u32) = (160, 120);

/// A temporary folder that is deleted after the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        Self(temporary_folder())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Returns the names of all files in the folder, including hidden ones.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

fn command(effect: &str, input: &Path, output: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ooblex"));
    command.args(["apply", "--effect", effect]).args([input, output]);
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn apply(effect: &str, input: &Path, output: &Path) -> String {
    let _machine = machine::share();
    let done = command(effect, input, output).output().unwrap();
    assert!(done.status.success(), "{}", said(&done));
    said(&done)
}

fn refused(mut command: Command) -> String {
    let done = command.output().unwrap();
    assert!(!done.status.success(), "it was accepted: {}", said(&done));
    let said = said(&done);
    assert!(!said.contains("panicked"), "{said}");
    said
}

fn pictures() -> Vec<I420> {
    (0..FRAMES as u32).map(|step| scene(SIZE.0, SIZE.1, step)).collect()
}

fn y4m(path: &Path, pictures: &[I420], rate: &str) {
    let mut file = format!("YUV4MPEG2 W{} H{} F{rate} Ip A1:1 C420jpeg\n", pictures[0].width(), pictures[0].height()).into_bytes();
    for picture in pictures {
        file.extend(b"FRAME\n");
        picture.planes().into_iter().for_each(|plane| file.extend(plane));
    }
    fs::write(path, file).unwrap();
}

/// Reads the header and the pictures of a file.
fn read_y4m(path: &Path) -> (String, Vec<I420>) {
    let file = fs::read(path).unwrap();
    let end = file.iter().position(|byte| *byte == b'\n').unwrap();
    let header = String::from_utf8(file[..end].to_vec()).unwrap();
    let side = |letter: &str| header.split(' ').find_map(|word| word.strip_prefix(letter)?.parse::<u32>().ok()).unwrap();
    let (width, height) = (side("W"), side("H"));
    let pictures = file[end + 1..].chunks(6 + I420::len(width, height)).map(|chunk| {
        let mut rest = chunk.strip_prefix(b"FRAME\n").unwrap();
        let mut picture = I420::grey(width, height, 16);
        for plane in picture.planes_mut() {
            let (now, later) = rest.split_at(plane.len());
            plane.copy_from_slice(now);
            rest = later;
        }
        picture
    });
    (header.clone(), pictures.collect())
}

fn ivf(path: &Path, pictures: &[I420]) {
    let config = EncoderConfig { codec: VideoCodec::Vp8, bitrate_bps: 1_000_000, frame_rate: 25.0, speed: Speed::Balanced };
    let mut encoder = Encoder::new(config).unwrap();
    let mut file = [&b"DKIF\0\0\x20\0VP80"[..], &(SIZE.0 as u16).to_le_bytes(), &(SIZE.1 as u16).to_le_bytes()].concat();
    [25, 1, pictures.len() as u32, 0].iter().for_each(|word: &u32| file.extend(word.to_le_bytes()));
    for (index, picture) in pictures.iter().enumerate() {
        let frame = encoder.encode(picture, MediaTime(index as u64 * 3600), false).unwrap().unwrap();
        file.extend((frame.data.len() as u32).to_le_bytes());
        file.extend((index as u64).to_le_bytes());
        file.extend_from_slice(&frame.data);
    }
    fs::write(path, file).unwrap();
}

fn read_ivf(path: &Path) -> Vec<I420> {
    let file = fs::read(path).unwrap();
    assert_eq!(&file[..12], b"DKIF\0\0\x20\0VP80");
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    let mut decoder = Decoder::new(VideoCodec::Vp8, Limits::default()).unwrap();
    let (mut at, mut pictures) = (32, Vec::new());
    while at < file.len() {
        let length = word(at) as usize;
        pictures.extend(decoder.decode(&file[at + 12..at + 12 + length]).unwrap());
        at += 12 + length;
    }
    assert_eq!(word(24) as usize, pictures.len(), "the header knows how many there are");
    assert_eq!((word(16), word(20)), (25, 1));
    pictures
}

fn alike(a: &[I420], b: &[I420], most: f64) {
    assert_eq!(a.len(), b.len());
    let differences: Vec<_> = a.iter().zip(b).map(|(a, b)| difference(a, b)).collect();
    assert!(differences.iter().all(|difference| *difference <= most), "{differences:?}");
}

#[test]
fn a_y4m_comes_out_frame_by_frame_with_its_rate_and_says_how_fast() {
    let folder = Folder::new();
    let [input, same, painted] = ["in.y4m", "same.y4m", "painted.y4m"].map(|name| folder.path(name));
    y4m(&input, &pictures(), "30000:1001");
    let said = apply("none", &input, &same);
    assert!(said.contains("12 frames in") && said.contains("frames a second"), "{said}");
    let (header, untouched) = read_y4m(&same);
    assert!(header.contains(" F30000:1001 ") && untouched == pictures(), "{header}");
    apply("face_detection", &input, &painted);
    let (_, painted) = read_y4m(&painted);
    assert_eq!(painted.len(), FRAMES);
    assert!(painted.iter().zip(pictures()).all(|(painted, source)| *painted != source), "the labels are on every frame");
    assert_eq!(folder.names(), ["in.y4m", "painted.y4m", "same.y4m"], "nothing else is left");
}

#[test]
fn frames_are_painted_in_order_with_one_state_however_many_threads_analyse() {
    let folder = Folder::new();
    let input = folder.path("in.y4m");
    y4m(&input, &pictures(), "25:1");
    let outputs = ["1", "3"].map(|threads| {
        let output = folder.path(&format!("{threads}.y4m"));
        let done = command("background_blur", &input, &output).env("OOBLEX_WORKER__THREADS", threads).output().unwrap();
        assert!(done.status.success(), "{}", said(&done));
        read_y4m(&output).1
    });
    assert_eq!(outputs[0].len(), FRAMES);
    assert!(outputs[0] == outputs[1], "the same to the last bit");
    assert!(outputs[0] != pictures());
}

#[test]
fn vp8_in_ivf_goes_both_ways_without_ffmpeg() {
    let folder = Folder::new();
    let [raw, input, output, back] = ["raw.y4m", "in.ivf", "out.IVF", "back.y4m"].map(|name| folder.path(name));
    y4m(&raw, &pictures(), "25:1");
    let nowhere = |mut command: Command| {
        let done = command.env("PATH", "/nowhere").output().unwrap();
        assert!(done.status.success(), "{}", said(&done));
    };
    nowhere(command("none", &raw, &input));
    alike(&read_ivf(&input), &pictures(), 6.0);
    ivf(&input, &pictures());
    nowhere(command("none", &input, &output));
    alike(&read_ivf(&output), &read_ivf(&input), 6.0);
    nowhere(command("none", &input, &back));
    let (header, pictures) = read_y4m(&back);
    assert!(header.contains(" F25:1 ") && pictures == read_ivf(&input), "{header}");
}

#[test]
fn what_is_damaged_is_told_and_leaves_nothing_under_the_final_name() {
    let folder = Folder::new();
    let (input, output) = (folder.path("in"), folder.path("out.y4m"));
    let [whole_y4m, whole_ivf] = ["a.y4m", "a.ivf"].map(|name| folder.path(name));
    y4m(&whole_y4m, &pictures(), "25:1");
    ivf(&whole_ivf, &pictures());
    let [whole_y4m, whole_ivf] = [whole_y4m, whole_ivf].map(|path| fs::read(path).unwrap());
    let cut = |file: &[u8]| file[..file.len() - 100].to_vec();
    let mut broken = whole_ivf.clone();
    broken[44..60].fill(0xff);
    for (file, words) in [
        (Vec::new(), "is empty"),
        (cut(&whole_y4m), "cut short"),
        (cut(&whole_ivf), "cut short"),
        (broken, "frame 0"),
        (b"YUV4MPEG2 W0 H0\n".to_vec(), "YUV4MPEG2"),
        ([&whole_ivf[..8], b"VP90", &whole_ivf[12..]].concat(), "VP8"),
        (b"no video".to_vec(), "ffmpeg"),
    ] {
        fs::write(&input, file).unwrap();
        fs::write(&output, "what was there before").unwrap();
        let mut command = command("none", &input, &output);
        command.env("PATH", "/nowhere");
        let said = refused(command);
        assert!(said.contains(words) && (said.contains("ffmpeg") || said.contains(input.to_str().unwrap())), "{words}: {said}");
        assert_eq!(fs::read_to_string(&output).unwrap(), "what was there before", "{words}");
        assert_eq!(folder.names(), ["a.ivf", "a.y4m", "in", "out.y4m"], "{words}");
    }
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing_behind() {
    let folder = Folder::new();
    let input = folder.path("in.y4m");
    y4m(&input, &pictures(), "25:1");
    for name in ["out.y4m", "out.ivf", "out.png"] {
        let output = folder.path(name);
        let input = if name == "out.png" {
            concat!(env!("CARGO_MANIFEST_DIR"), "/../effects/tests/data/picture_640x480.png").into()
        } else {
            input.clone()
        };
        // The limit of the file size is 8 KiB; with the signal ignored, larger writes fail like on
        // a full disk.
        let mut shell = Command::new("bash");
        shell.args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$@\"", "bash", env!("CARGO_BIN_EXE_ooblex"), "apply", "--effect", "none"]);
        shell.args([&input, &output]);
        let said = refused(shell);
        assert!(said.contains(&format!("{} cannot be written", output.display())), "{said}");
        assert_eq!(folder.names(), ["in.y4m"]);
    }
}

#[test]
fn files_that_do_not_go_together_are_refused() {
    let folder = Folder::new();
    let [video, picture, nowhere] = ["in.y4m", "in.png", "no/such/folder/out.y4m"].map(|name| folder.path(name));
    y4m(&video, &pictures(), "25:1");
    for (input, output, words) in [
        (&video, &picture, "name a video to write"),
        (&picture, &video, "name a .png to write"),
        (&folder.path("missing.y4m"), &video, "missing.y4m cannot be opened"),
        (&video, &nowhere, "cannot be written"),
        (&video, &PathBuf::from("/"), "names no file"),
    ] {
        let said = refused(command("none", input, output));
        assert!(said.contains(words), "{said}");
    }
    let mut without = command("none", &video, &folder.path("out.mp4"));
    without.env("PATH", "/nowhere");
    let said = refused(without);
    assert!(said.contains("ffmpeg is not there") && said.contains(".y4m"), "{said}");
    assert_eq!(folder.names(), ["in.y4m"]);
}

#[test]
fn through_ffmpeg_a_video_keeps_its_length_and_its_sound() {
    let folder = Folder::new();
    let [raw, input, output, other] = ["raw.y4m", "-in:put.mp4", "out.mp4", "out.webm"].map(|name| folder.path(name));
    y4m(&raw, &(0..50).map(|step| scene(SIZE.0, SIZE.1, step)).collect::<Vec<_>>(), "25:1");
    let made = Command::new("ffmpeg")
        .args(["-loglevel", "error", "-f", "yuv4mpegpipe", "-i"])
        .arg(&raw)
        .args(["-f", "lavfi", "-i", "sine=frequency=440:duration=2", "-pix_fmt", "yuv420p", "-c:a", "aac", "-shortest"])
        .arg(format!("file:{}", input.display()))
        .output()
        .expect("ffmpeg must be there for this test: tools/install-packages.sh test");
    assert!(made.status.success(), "{}", said(&made));
    let said_fast = apply("none", &input, &output);
    assert!(said_fast.contains("50 frames in"), "{said_fast}");
    let about = |path: &Path| -> Value {
        let probe =
            Command::new("ffprobe").args(["-v", "error", "-show_streams", "-count_frames", "-of", "json"]).arg(path).output().unwrap();
        serde_json::from_slice(&probe.stdout).unwrap()
    };
    let streams = about(&output);
    let kinds: Vec<_> = streams["streams"].as_array().unwrap().iter().map(|stream| stream["codec_type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["video", "audio"]);
    let [video, audio] = [&streams["streams"][0], &streams["streams"][1]];
    assert_eq!((video["nb_read_frames"].as_str(), video["avg_frame_rate"].as_str()), (Some("50"), Some("25/1")));
    assert_eq!((video["width"].as_u64(), video["height"].as_u64()), (Some(160), Some(120)));
    assert_eq!(audio["codec_name"], "aac");
    let sound = |path: &Path| {
        let path = format!("file:{}", path.display());
        let copied = Command::new("ffmpeg")
            .args(["-loglevel", "error", "-i", &path, "-map", "0:a", "-c", "copy", "-f", "adts", "-"])
            .output()
            .unwrap();
        copied.stdout
    };
    assert!(!sound(&input).is_empty() && sound(&input) == sound(&output), "the sound is the same to the last bit");
    // Another container has its audio encoded in another format.
    apply("none", &input, &other);
    let streams = about(&other);
    assert_eq!(streams["streams"].as_array().unwrap().len(), 2, "{streams}");
    // This program's own reader decodes the file again, and must return the original pictures.
    let back = folder.path("back.y4m");
    apply("none", &output, &back);
    let (_, pictures) = read_y4m(&back);
    assert_eq!(pictures.len(), 50);
    assert!(difference(&pictures[20], &scene(SIZE.0, SIZE.1, 20)) < 6.0);

    for (name, content, words) in
        [("broken.mp4", &b"not a video at all"[..], "cannot read"), ("half.mp4", &fs::read(&input).unwrap()[..3000], "cannot read")]
    {
        let broken = folder.path(name);
        fs::write(&broken, content).unwrap();
        let said = refused(command("none", &broken, &folder.path("never.mp4")));
        assert!(said.contains("ffmpeg") && said.contains(words) && said.contains(name), "{said}");
    }
    let said = refused(command("none", &raw, &folder.path("never.nonsense")));
    assert!(said.contains("ffmpeg cannot write") && said.contains("never.nonsense"), "{said}");
    assert!(folder.names().iter().all(|name| !name.contains("never")), "{:?}", folder.names());
}
