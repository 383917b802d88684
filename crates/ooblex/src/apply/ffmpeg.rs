//! The `ffmpeg` program reads and writes all formats that this program does not support itself. It
//! runs as a child process with pictures on its standard input or output.
//!
//! This module owns the processes, their arguments and their error output. Pictures are transferred
//! as YUV4MPEG2 in BT.601 limited range, the colour format of this program.

use std::ffi::OsStr;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context as _, bail};
use ooblex_pipeline::I420;
use serde_json::Value;

use ooblex_codec::container::rate::Rate;
use ooblex_codec::container::y4m::{self, Head, Y4m, Y4mError};

/// Maximum size in bytes of ffmpeg's error output that is kept; only the end is kept.
const MAX_SAID: usize = 2000;
const MISSING: &str =
    "the program ffmpeg is not there: install it (apt-get install ffmpeg), or use .y4m, .ivf (VP8) or .png, which need none";

/// Returns whether the program is installed.
pub(super) fn is_there() -> bool {
    Command::new("ffmpeg").arg("-version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// A child process whose error output is collected.
struct Program {
    child: Child,
    said: Option<JoinHandle<String>>,
}

impl Program {
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command.stderr(Stdio::piped()).spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => anyhow::anyhow!(MISSING),
            _ => anyhow::Error::new(error).context("ffmpeg cannot be started"),
        })?;
        let said = child.stderr.take().map(|stderr| std::thread::spawn(move || tail_of(stderr)));
        Ok(Self { child, said })
    }

    /// Waits until the process exits. Returns its error output, or an error that contains it if the
    /// process failed.
    fn end(&mut self, what: &str) -> anyhow::Result<String> {
        let status = self.child.wait().context("ffmpeg")?;
        let said = self.said.take().and_then(|said| said.join().ok()).unwrap_or_default();
        if !status.success() {
            let said = if said.is_empty() { status.to_string() } else { said };
            bail!("ffmpeg {what}: {said}");
        }
        Ok(said)
    }
}

/// Kills the process, so that none is left behind after an error.
impl Drop for Program {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn tail_of(mut stderr: impl Read) -> String {
    let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = stderr.read(&mut buffer) {
        kept.extend_from_slice(&buffer[..length]);
        kept.drain(..kept.len().saturating_sub(MAX_SAID));
    }
    String::from_utf8_lossy(&kept).trim().lines().collect::<Vec<_>>().join("; ")
}

/// A video file that ffmpeg decodes.
pub(super) struct Reading {
    program: Program,
    video: Y4m<BufReader<ChildStdout>>,
    frames: Option<u64>,
    read: u64,
    path: String,
}

impl Reading {
    /// Starts to decode the first video track of a file.
    pub(super) fn start(path: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-hide_banner", "-loglevel", "error", "-i"]).arg(as_file(path));
        command.args(["-map", "0:v:0", "-vf", "scale=out_color_matrix=bt601:out_range=tv,format=yuv420p"]);
        command.args(["-f", "yuv4mpegpipe", "-"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut program = Program::start(&mut command)?;
        let stdout = program.child.stdout.take().context("ffmpeg has no output")?;
        let what = || format!("cannot read {}", path.display());
        match Y4m::new(BufReader::with_capacity(1 << 20, stdout)) {
            Ok(video) => {
                let frames = expected_frames(path, video.head().rate);
                Ok(Self { program, video, frames, read: 0, path: path.display().to_string() })
            }
            Err(error) => {
                program.end(&what())?;
                Err(error).with_context(what)
            }
        }
    }

    pub(super) fn head(&self) -> &Head {
        self.video.head()
    }

    /// Returns the approximate number of frames, if the file has a duration.
    pub(super) fn frames(&self) -> Option<u64> {
        self.frames
    }

    pub(super) fn next_picture(&mut self) -> anyhow::Result<Option<I420>> {
        let what = format!("cannot read {} after {} frames", self.path, self.read);
        match self.video.next_picture() {
            Ok(Some(picture)) => {
                self.read += 1;
                Ok(Some(picture))
            }
            Ok(None) => {
                let said = self.program.end(&what)?;
                if self.read == 0 {
                    bail!("{}: there is no picture in it", self.path);
                }
                if !said.is_empty() {
                    eprintln!("ooblex: {} was read as far as it goes; ffmpeg says: {said}", self.path);
                }
                Ok(None)
            }
            Err(error) => {
                if matches!(error, Y4mError::Io(_)) {
                    self.program.end(&what)?;
                }
                Err(error).context(what)
            }
        }
    }
}

/// Computes the number of frames from the file's duration.
fn expected_frames(path: &Path, rate: Rate) -> Option<u64> {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-show_entries", "format=duration", "-of", "json"]).arg(as_file(path)).stdin(Stdio::null());
    let told: Value = serde_json::from_slice(&command.output().ok()?.stdout).ok()?;
    let seconds: f64 = told["format"]["duration"].as_str()?.parse().ok()?;
    Some((seconds * rate.hz()).round() as u64)
}

/// A video file that ffmpeg encodes.
pub(super) struct Writing {
    program: Program,
    to: Option<BufWriter<ChildStdin>>,
    wanted: String,
}

impl Writing {
    /// Starts to encode a file; the extension of `place` selects its format. `wanted` is the file
    /// name for error messages. Audio comes from the file `sound`, and is copied unchanged if both
    /// files have the same extension.
    pub(super) fn start(place: &Path, wanted: &Path, head: &Head, sound: Option<&Path>) -> anyhow::Result<Self> {
        let mut command = Command::new("ffmpeg");
        command.args(["-hide_banner", "-loglevel", "error", "-y", "-f", "yuv4mpegpipe", "-i", "pipe:0"]);
        if let Some(sound) = sound {
            command.arg("-i").arg(as_file(sound)).args(["-map", "0:v:0", "-map", "1:a?", "-map_metadata", "1"]);
            if sound.extension().map(OsStr::to_ascii_lowercase) == wanted.extension().map(OsStr::to_ascii_lowercase) {
                command.args(["-c:a", "copy"]);
            }
        }
        if head.width % 2 == 1 || head.height % 2 == 1 {
            // Most encoders accept only even widths and heights.
            command.args(["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2"]);
        }
        command.args(["-pix_fmt", "yuv420p", "-colorspace", "smpte170m", "-color_range", "tv"]);
        command.arg(as_file(place)).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut program = Program::start(&mut command)?;
        let mut to = BufWriter::with_capacity(1 << 20, program.child.stdin.take().context("ffmpeg has no input")?);
        y4m::write_head(&mut to, head).with_context(|| format!("{} cannot be written", wanted.display()))?;
        Ok(Self { program, to: Some(to), wanted: wanted.display().to_string() })
    }

    pub(super) fn put(&mut self, picture: &I420) -> anyhow::Result<()> {
        let Some(to) = &mut self.to else { bail!("{} is closed", self.wanted) };
        match y4m::write_picture(to, picture) {
            Ok(()) => Ok(()),
            // If a write fails, ffmpeg has exited, and its error output gives the reason.
            Err(error) => self.end().and(Err(error.into())),
        }
    }

    /// Closes the input, and waits until ffmpeg has written the rest.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        self.end()
    }

    fn end(&mut self) -> anyhow::Result<()> {
        let flushed = self.to.take().map_or(Ok(()), |mut to| to.flush());
        self.program.end(&format!("cannot write {}", self.wanted))?;
        flushed.with_context(|| format!("{} cannot be written", self.wanted))
    }
}

/// Prefixes a path with `file:`, so that ffmpeg does not take a leading '-' for an option or a ':'
/// for a protocol.
fn as_file(path: &Path) -> std::ffi::OsString {
    let mut file = std::ffi::OsString::from("file:");
    file.push(path);
    file
}
