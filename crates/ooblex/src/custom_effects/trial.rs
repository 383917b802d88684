//! A model is tried in a process of its own, which may crash, hang and ask for memory without anybody being the worse for it.
//!
//! It gets nothing of the program that it does not need: no environment but what `INHERITED` names, no descriptors but its pipes, and what it may
//! take of memory, CPU time, files and processes is limited.
//!
//! The child is this program as `ooblex effect try`. It reads what is wanted as a line of JSON, and writes what came out of it as another, followed by
//! the painted picture as PNG.

use std::fmt::Display;
use std::io::{BufRead, Cursor, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ooblex_effects::{CustomEffect, Device, Effect, i420_from_rgb, rgb_from_i420};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};
use serde::{Deserialize, Serialize};

use crate::apply::picture::{decode_png, encode_png};
use crate::config::{Config, CustomEffects, Inference};
use crate::start;

/// Frames that a model is timed on.
const RUNS: usize = 9;
/// Bytes that a child may say.
const MAX_ANSWER: u64 = 64 << 20;
/// Characters of a child's last words.
const MAX_WORDS: usize = 300;
/// Files that a child may have open.
const MAX_FILES: u64 = 64;
/// Processes and threads that the user of a child may have, those of the program itself among them.
const MAX_PROCESSES: u64 = 8192;
/// Bytes that the runtime and drivers of devices may write into a file, such as the code that they compile.
const MAX_FILE: u64 = 256 << 20;

/// The variables that a child gets: where programs and libraries are, and the language of messages. All others may be secrets.
const INHERITED: [&str; 7] = ["PATH", "LD_LIBRARY_PATH", "ORT_DYLIB_PATH", "TMPDIR", "LANG", "LC_ALL", "LC_MESSAGES"];
/// What drivers of devices need beside them: the place of their caches, and variables with these beginnings.
const OF_DRIVERS: [&str; 7] = ["HOME", "CUDA_", "NVIDIA_", "HIP_", "ROCR_", "OPENVINO_", "TENSORRT_"];

/// What the child is asked for.
#[derive(Serialize, Deserialize)]
struct Request {
    folder: PathBuf,
    /// The version that it is to find there.
    queue: String,
    own_effects: CustomEffects,
    inference: Inference,
    /// PNG; without it a picture that is in the program.
    picture: Option<PathBuf>,
}

/// How a model did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// What ran it.
    pub runtime: String,
    /// Until it had run once, ms.
    pub load_ms: f64,
    /// A typical frame, ms.
    pub typical_ms: f64,
    /// The slowest frame, ms.
    pub slowest_ms: f64,
    /// Frames that it was timed on.
    pub runs: usize,
    /// What was found in the picture; empty for effects that look for nothing.
    pub found: String,
    /// The picture with the effect on it, as PNG.
    #[serde(skip)]
    pub painted: Arc<[u8]>,
}

/// A model that did not do well.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The child said what is wrong, with the file, the line and the tensor.
    #[error("{0}")]
    Refused(String),
    /// It gave no answer in the time that it has.
    #[error("{model}: it was ended after {limit:?}: the model hangs, or is far too slow (own_effects.trial_s)")]
    Hangs {
        /// The model's file.
        model: PathBuf,
        /// The time that it had.
        limit: Duration,
    },
    /// Its process ended in the middle of it.
    #[error("{model}: it crashed the process that tried it ({status}{words}): it would have taken a worker with it")]
    Crashed {
        /// The model's file.
        model: PathBuf,
        /// How the process ended.
        status: ExitStatus,
        /// Its last words.
        words: String,
    },
    /// It is too slow for video.
    #[error(
        "{model}: a frame takes {typical_ms:.0} ms, and {limit_ms} are allowed: take a smaller model or a smaller input, or raise own_effects.frame_ms"
    )]
    Slow {
        /// The model's file.
        model: PathBuf,
        /// A typical frame.
        typical_ms: f64,
        /// The limit.
        limit_ms: u64,
    },
    /// The child could not be started, or not be spoken with.
    #[error("{model}: no process can be started to try it in: {reason}")]
    NoProcess {
        /// The model's file.
        model: PathBuf,
        /// The system's words.
        reason: std::io::Error,
    },
}

/// Tries an effect's model in a child process, on `picture` or on one that is in the program.
///
/// # Errors
/// When the model does not do well, or the child can not be started.
pub fn run(config: &Config, effect: &CustomEffect, picture: Option<&Path>) -> Result<Report, TrialError> {
    let folder = effect.folder().unwrap_or(Path::new(""));
    let model = folder.join(effect.models().first().map_or("", |model| model.file));
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
    let (said, complained) = child.words();
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

/// The child's side: `ooblex effect try`. Returns whether it could answer.
pub fn answer() -> bool {
    let mut line = String::new();
    let request: Option<Request> = std::io::stdin().read_line(&mut line).ok().and_then(|_| serde_json::from_str(&line).ok());
    let Some(request) = request else {
        eprintln!("'ooblex effect try' is what the program calls itself; for people there is 'ooblex effect check FOLDER'");
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
    // A model that hangs would outlive a program that is ended while it waits.
    _ = set_parent_process_death_signal(Some(Signal::KILL));
    limit(own_effects, inference);
    let effect = CustomEffect::read(folder, own_effects.limits()).map_err(words)?;
    if effect.queue().as_str() != queue {
        return Err(format!("{}: it was changed while it was read: reload once more", folder.display()));
    }
    let png = picture.as_ref().map(std::fs::read).transpose().map_err(words)?;
    let rgb =
        decode_png(png.as_deref().unwrap_or(crate::sample::SAMPLE)).map_err(|error| format!("the picture can not be read: {error:#}"))?;
    let frame = i420_from_rgb(&rgb).map_err(words)?;
    let effect = Arc::new(effect);
    let effects: [Arc<dyn Effect>; 1] = [effect.clone()];
    let (runtime, _) = start::inference(inference, &effects).map_err(|error| format!("{error:#}"))?;
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

/// What a model asks for beyond it is refused by the system, or ends the process. Drivers of other devices reserve more address space than any
/// machine has, so memory is limited only on the processor.
fn limit(own: &CustomEffects, inference: &Inference) {
    let is_cpu = inference.device == Device::Cpu;
    // As much as the threads of a model can use within the time that it has.
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
        // It can only become less than the program itself has. Where a policy forbids it, the other limits are left.
        let most = Some(getrlimit(resource).maximum.map_or(wanted, |maximum| maximum.min(wanted)));
        _ = setrlimit(resource, Rlimit { current: most, maximum: most });
    }
}

/// Whether a child that runs a model on `device` gets this variable.
fn is_inherited(name: &str, device: Device) -> bool {
    let is_of_drivers = |beginning: &&str| name == *beginning || (beginning.ends_with('_') && name.starts_with(*beginning));
    INHERITED.contains(&name) || (device != Device::Cpu && OF_DRIVERS.iter().any(is_of_drivers))
}

fn words(error: impl Display) -> String {
    error.to_string()
}

/// A child that is ended when nobody waits for it any more.
struct Trying {
    child: Child,
    readers: Option<[JoinHandle<Vec<u8>>; 2]>,
}

impl Trying {
    fn start(request: &Request) -> std::io::Result<Self> {
        // Also when the file was replaced by a newer version meanwhile, this is the program that runs.
        let running = Path::new("/proc/self/exe");
        let program = if running.exists() { running.into() } else { std::env::current_exe()? };
        let device = request.inference.device;
        let inherited = std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(|name| is_inherited(name, device)));
        // Everything else that is open here is closed by the system when the child begins.
        let mut child = Command::new(program)
            .args(["effect", "try"])
            .env_clear()
            .envs(inherited)
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let mut trying = Self { child, readers: None };
        let reader = |stream: Box<dyn std::io::Read + Send>| {
            std::thread::Builder::new().name("trial".into()).spawn(move || {
                let mut said = Vec::new();
                _ = stream.take(MAX_ANSWER).read_to_end(&mut said);
                said
            })
        };
        if let (Some(stdout), Some(stderr)) = (stdout, stderr) {
            trying.readers = Some([reader(Box::new(stdout))?, reader(Box::new(stderr))?]);
        }
        // A child that ended before it could read is seen by its status.
        if let (Some(mut stdin), Ok(line)) = (stdin, serde_json::to_string(request)) {
            _ = writeln!(stdin, "{line}");
        }
        Ok(trying)
    }

    /// How it ended; `None` when it had not by then.
    fn wait_until(&mut self, deadline: Instant) -> std::io::Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it has written to standard output and error, once it has ended.
    fn words(&mut self) -> (Vec<u8>, String) {
        let Some(readers) = self.readers.take() else { return Default::default() };
        let [said, complained] = readers.map(|reader| reader.join().unwrap_or_default());
        (said, String::from_utf8_lossy(&complained).into_owned())
    }
}

impl Drop for Trying {
    fn drop(&mut self) {
        // Whoever has ended already can not be ended, which is fine.
        _ = self.child.kill();
        _ = self.child.wait();
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
}
