//! Trial of a custom model in a child process, so that a crash, a hang or excessive memory use does
//! not affect this process.
//!
//! The child has only the environment variables in `INHERITED` and no descriptors except its pipes.
//! Its memory, CPU time, files and processes are limited. It is killed with the processes of its
//! process group.
//!
//! The child is this program, started as `ooblex effect try`. It reads a request as one line of
//! JSON, and writes a report as one line of JSON, followed by the painted picture as PNG.

use std::fmt::Display;
use std::io::{BufRead, Cursor, Read, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ooblex_effects::{CustomEffect, Device, Effect, i420_from_rgb, rgb_from_i420};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process_group, set_parent_process_death_signal, setrlimit};
use serde::{Deserialize, Serialize};

use crate::picture::{decode_png, encode_png};
use ooblex_config::{Config, CustomEffects, Inference};
use ooblex_worker::inference as load_runtime;

/// Number of frames in the speed measurement.
const RUNS: usize = 9;
/// Largest output of a child in bytes.
const MAX_ANSWER: u64 = 64 << 20;
/// Longest time from the end of a child to the end of its output. The output continues only if a
/// process that the model has started holds the pipes open.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest excerpt of a child's error output in characters.
const MAX_WORDS: usize = 300;
/// Limit of open files in a child.
const MAX_FILES: u64 = 64;
/// Limit of processes and threads of the child's user, including this program's own.
const MAX_PROCESSES: u64 = 8192;
/// Largest file that the runtime and device drivers may write, such as compiled code, in bytes.
const MAX_FILE: u64 = 256 << 20;

/// Environment variables that a child inherits: search paths and the language of messages. All
/// others may contain secrets.
const INHERITED: [&str; 7] = ["PATH", "LD_LIBRARY_PATH", "ORT_DYLIB_PATH", "TMPDIR", "LANG", "LC_ALL", "LC_MESSAGES"];
/// Additional environment variables for device drivers: the cache location, and prefixes.
const OF_DRIVERS: [&str; 7] = ["HOME", "CUDA_", "NVIDIA_", "HIP_", "ROCR_", "OPENVINO_", "TENSORRT_"];

/// The request to a child.
#[derive(Serialize, Deserialize)]
struct Request {
    folder: PathBuf,
    /// Version of the effect that is expected in the folder.
    queue: String,
    own_effects: CustomEffects,
    inference: Inference,
    /// PNG file to try the model on; `None` for the built-in sample.
    picture: Option<PathBuf>,
}

/// The result of a successful trial.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// Backend that ran the model.
    pub runtime: String,
    /// Time until the first run was complete, in ms.
    pub load_ms: f64,
    /// Time of a typical frame, in ms.
    pub typical_ms: f64,
    /// Time of the slowest frame, in ms.
    pub slowest_ms: f64,
    /// Number of measured frames.
    pub runs: usize,
    /// Detections in the picture; empty for effects that detect nothing.
    pub found: String,
    /// Picture with the effect applied, as PNG.
    #[serde(skip)]
    pub painted: Arc<[u8]>,
}

/// A failed trial.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The child reported an error, with the file, the line and the tensor.
    #[error("{0}")]
    Refused(String),
    /// The child did not answer within its time limit.
    #[error("{model}: it was ended after {limit:?}: the model hangs, or is far too slow (own_effects.trial_s)")]
    Hangs {
        /// Path of the model.
        model: PathBuf,
        /// Time limit.
        limit: Duration,
    },
    /// The child process crashed.
    #[error("{model}: it crashed the process that tried it ({status}{words}): it would have taken a worker with it")]
    Crashed {
        /// Path of the model.
        model: PathBuf,
        /// Exit status of the child.
        status: ExitStatus,
        /// Last line of the child's error output.
        words: String,
    },
    /// The model is too slow for video.
    #[error(
        "{model}: a frame takes {typical_ms:.0} ms, and {limit_ms} are allowed: take a smaller model or a smaller input, or raise own_effects.frame_ms"
    )]
    Slow {
        /// Path of the model.
        model: PathBuf,
        /// Time of a typical frame, in ms.
        typical_ms: f64,
        /// Time limit of a frame, in ms.
        limit_ms: u64,
    },
    /// The child could not be started, or its pipes failed.
    #[error("{model}: no process can be started to try it in: {reason}")]
    NoProcess {
        /// Path of the model.
        model: PathBuf,
        /// Error of the operating system.
        reason: std::io::Error,
    },
}

/// Tries an effect's model in a child process, on `picture` or on the built-in sample.
///
/// # Errors
/// When the model fails, hangs or is too slow, or the child cannot be started.
pub fn run(config: &Config, effect: &CustomEffect, picture: Option<&Path>) -> Result<Report, TrialError> {
    let folder = effect.folder().unwrap_or(Path::new(""));
    let model = folder.join(effect.models().first().map_or("", |model| model.file.as_ref()));
    let no_process = |reason| TrialError::NoProcess { model: model.clone(), reason };
    let request = Request {
        folder: folder.into(),
        queue: effect.queue().to_string(),
        own_effects: config.own_effects.clone(),
        inference: config.inference.clone(),
        picture: picture.map(Into::into),
    };
    let limit = Duration::from_secs(config.own_effects.trial_s);
    let started = Instant::now();
    let mut child = Trying::start(&request).map_err(no_process)?;
    let Some(status) = child.wait_until(started + limit).map_err(no_process)? else {
        return Err(TrialError::Hangs { model, limit });
    };
    if status.signal() == Some(Signal::XCPU.as_raw()) {
        return Err(TrialError::Hangs { model, limit });
    }
    let Some((said, complained)) = child.words() else {
        return Err(TrialError::Refused(format!("{}: it has started a process that continues after the trial", model.display())));
    };
    let mut said = Cursor::new(said);
    let mut line = String::new();
    let answer = said.read_line(&mut line).ok().and_then(|_| serde_json::from_str::<Result<Report, String>>(&line).ok());
    let mut report = match answer.filter(|_| status.success()) {
        Some(Ok(report)) => report,
        Some(Err(reason)) => return Err(TrialError::Refused(reason)),
        None => {
            let last = complained.lines().rev().find(|line| !line.trim().is_empty() && !line.starts_with("note: ")).unwrap_or_default();
            let words = if last.is_empty() { String::new() } else { format!("; {}", last.chars().take(MAX_WORDS).collect::<String>()) };
            return Err(TrialError::Crashed { model, status, words });
        }
    };
    let limit_ms = config.own_effects.frame_ms;
    if report.typical_ms > limit_ms as f64 {
        return Err(TrialError::Slow { model, typical_ms: report.typical_ms, limit_ms });
    }
    let start = said.position() as usize;
    report.painted = said.into_inner()[start..].into();
    Ok(report)
}

/// Runs the child's side of a trial (`ooblex effect try`). Returns whether it could answer.
pub fn answer() -> bool {
    let mut line = String::new();
    let request: Option<Request> = std::io::stdin().read_line(&mut line).ok().and_then(|_| serde_json::from_str(&line).ok());
    let Some(request) = request else {
        eprintln!("'ooblex effect try' is started by the program itself: run 'ooblex effect check FOLDER' instead");
        return false;
    };
    let (report, painted) = match attempt(&request) {
        Ok((report, painted)) => (Ok(report), painted),
        Err(reason) => (Err(reason), Vec::new()),
    };
    let mut out = std::io::stdout().lock();
    let written = serde_json::to_string(&report).map_err(std::io::Error::from).and_then(|line| writeln!(out, "{line}"));
    written.and_then(|()| out.write_all(&painted)).and_then(|()| out.flush()).is_ok()
}

fn attempt(request: &Request) -> Result<(Report, Vec<u8>), String> {
    let Request { folder, queue, own_effects, inference, picture } = request;
    // Without this, a hanging model would outlive a parent that is killed while it waits.
    _ = set_parent_process_death_signal(Some(Signal::KILL));
    limit(own_effects, inference);
    let effect = CustomEffect::read(folder, own_effects.limits()).map_err(words)?;
    if effect.queue().as_str() != queue {
        return Err(format!("{}: it was changed while it was read: reload once more", folder.display()));
    }
    let png = picture.as_ref().map(std::fs::read).transpose().map_err(words)?;
    let rgb =
        decode_png(png.as_deref().unwrap_or(crate::sample::SAMPLE)).map_err(|error| format!("the picture cannot be read: {error:#}"))?;
    let frame = i420_from_rgb(&rgb).map_err(words)?;
    let effect = Arc::new(effect);
    let effects: [Arc<dyn Effect>; 1] = [effect.clone()];
    let (runtime, _) = load_runtime(inference, &effects).map_err(|error| format!("{error:#}"))?;
    let trial = effect.try_on(&runtime, &frame, RUNS).map_err(words)?;
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let report = Report {
        runtime: runtime.describe(),
        load_ms: ms(trial.load),
        typical_ms: ms(trial.typical),
        slowest_ms: ms(trial.slowest),
        runs: trial.runs,
        found: trial.found,
        painted: Arc::default(),
    };
    Ok((report, encode_png(&rgb_from_i420(&trial.painted)).map_err(|error| format!("{error:#}"))?))
}

/// Sets the resource limits of the child. Exceeding them makes a system call fail, or ends the
/// process. Drivers of GPUs reserve more address space than any machine has, so memory is limited
/// only on the CPU.
fn limit(own: &CustomEffects, inference: &Inference) {
    let is_cpu = inference.device == Device::Cpu;
    // The CPU time that all threads of a model can use within the time limit.
    let cpu_s = own.trial_s.saturating_mul(inference.threads_per_frame.saturating_add(1) as u64);
    let limits = [
        (Resource::As, is_cpu.then_some(own.trial_memory_mib << 20)),
        (Resource::Cpu, Some(cpu_s)),
        (Resource::Fsize, Some(MAX_FILE)),
        (Resource::Nofile, Some(MAX_FILES)),
        (Resource::Nproc, Some(MAX_PROCESSES)),
        (Resource::Core, Some(0)),
    ];
    for (resource, wanted) in limits {
        let Some(wanted) = wanted else { continue };
        // A limit cannot exceed the one of this process. If a policy forbids it, the other limits
        // still apply.
        let most = Some(getrlimit(resource).maximum.map_or(wanted, |maximum| maximum.min(wanted)));
        _ = setrlimit(resource, Rlimit { current: most, maximum: most });
    }
}

/// Returns whether a child that runs a model on `device` inherits this environment variable.
fn is_inherited(name: &str, device: Device) -> bool {
    let is_of_drivers = |beginning: &&str| name == *beginning || (beginning.ends_with('_') && name.starts_with(*beginning));
    INHERITED.contains(&name) || (device != Device::Cpu && OF_DRIVERS.iter().any(is_of_drivers))
}

fn words(error: impl Display) -> String {
    error.to_string()
}

/// A child process. It is killed with its process group when this is dropped.
struct Trying {
    child: Child,
    /// Its standard output and standard error, once they have ended.
    outputs: [Receiver<Vec<u8>>; 2],
}

impl Trying {
    fn start(request: &Request) -> std::io::Result<Self> {
        // /proc/self/exe is the running program even if its file was replaced by a newer version.
        let running = Path::new("/proc/self/exe");
        let program = if running.exists() { running.into() } else { std::env::current_exe()? };
        let device = request.inference.device;
        let inherited = std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(|name| is_inherited(name, device)));
        let mut command = Command::new(program);
        command.args(["effect", "try"]).env_clear().envs(inherited).env("RUST_BACKTRACE", "0");
        Self::spawn(&mut command, &serde_json::to_string(request)?)
    }

    /// Starts a command in a process group of its own, and gives it one line of input.
    fn spawn(command: &mut Command, line: &str) -> std::io::Result<Self> {
        // All other descriptors are close-on-exec.
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn()?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (said, output) = channel();
        let (complained, errors) = channel();
        let trying = Self { child, outputs: [output, errors] };
        let streams = [stdout.map(|stream| Box::new(stream) as Box<dyn Read + Send>), stderr.map(|stream| Box::new(stream) as _)];
        for (stream, sender) in streams.into_iter().zip([said, complained]) {
            let Some(stream) = stream else { continue };
            std::thread::Builder::new().name("trial".into()).spawn(move || {
                let mut bytes = Vec::new();
                _ = stream.take(MAX_ANSWER).read_to_end(&mut bytes);
                _ = sender.send(bytes);
            })?;
        }
        // If the child has ended before it read the request, its exit status shows that.
        if let Some(mut stdin) = stdin {
            _ = writeln!(stdin, "{line}");
        }
        Ok(trying)
    }

    /// Waits for the end of the child until `deadline`, and kills the processes that it has left.
    /// Returns `None` if it still runs.
    fn wait_until(&mut self, deadline: Instant) -> std::io::Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.kill_group();
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns the child's standard output and standard error, once it has ended. Returns `None` if
    /// another process holds one of them open, which has left the process group.
    fn words(&self) -> Option<(Vec<u8>, String)> {
        let deadline = Instant::now() + OUTPUT_TIMEOUT;
        let read = |output: &Receiver<Vec<u8>>| output.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok();
        let [said, complained] = &self.outputs;
        Some((read(said)?, String::from_utf8_lossy(&read(complained)?).into_owned()))
    }

    /// Kills all processes of the child's group. It fails if there are none left, which is fine.
    fn kill_group(&self) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Trying {
    fn drop(&mut self) {
        // The number of a child that was waited for may belong to another process by now.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill_group();
            _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_inherited() {
        for secret in
            ["OOBLEX_BROKER__URL", "OOBLEX_AUTH__JWT__SECRET", "AWS_SECRET_ACCESS_KEY", "HOMEPAGE", "PATH_TO_KEY", "LD_PRELOAD", ""]
        {
            assert!(!is_inherited(secret, Device::Cpu) && !is_inherited(secret, "cuda".parse().unwrap()), "{secret}");
        }
        for (name, on_the_processor) in [("PATH", true), ("ORT_DYLIB_PATH", true), ("HOME", false), ("CUDA_VISIBLE_DEVICES", false)] {
            assert_eq!((is_inherited(name, Device::Cpu), is_inherited(name, "cuda".parse().unwrap())), (on_the_processor, true), "{name}");
        }
    }

    /// Runs a shell script in place of a child. Returns its output once it has ended.
    fn words_of(script: &str) -> Option<(Vec<u8>, String)> {
        let mut trying = Trying::spawn(Command::new("sh").args(["-c", script]), "").expect("there is a shell");
        let status = trying.wait_until(Instant::now() + Duration::from_secs(60)).expect("it can be waited for");
        assert!(status.is_some_and(|status| status.success()));
        trying.words()
    }

    #[test]
    fn processes_that_a_child_leaves_are_killed_with_it() {
        let began = Instant::now();
        assert_eq!(words_of("sleep 300 & echo said"), Some((b"said\n".to_vec(), String::new())));
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    }

    #[test]
    fn process_that_has_left_the_group_is_not_waited_for() {
        assert_eq!(words_of("setsid sh -c 'sleep 60 & echo said'; true"), None);
    }
}
