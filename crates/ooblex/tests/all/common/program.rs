//! The program as a child process: `serve` or `worker` on free ports, ended when dropped.

use std::io::{BufRead, BufReader};
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{WITHIN, machine, temporary_folder};

/// A gateway process.
pub struct Gateway(Program);

/// A worker process.
pub struct Worker(Program);

/// Common parts of both: a process that reports its HTTP address.
pub struct Program {
    process: Child,
    pub url: String,
    said: Arc<Mutex<String>>,
    listener: Option<JoinHandle<()>>,
    folder: PathBuf,
    _machine: machine::Share,
}

impl Gateway {
    const COMMAND: &[&str] = &["serve", "--listen", "127.0.0.1:0", "--media", "127.0.0.1:0"];

    /// Starts a gateway on free ports, with `config` as its ooblex.toml.
    pub fn start(config: &str, flags: &[&str]) -> Self {
        Self(Program::start(Self::COMMAND, "Ooblex is ready: ", &with_wide_limits(config), flags, &[]))
    }

    /// Starts a gateway like [`Gateway::start`], with additional environment variables.
    pub fn with_environment(config: &str, flags: &[&str], environment: &[(&str, &str)]) -> Self {
        Self(Program::start(Self::COMMAND, "Ooblex is ready: ", &with_wide_limits(config), flags, environment))
    }

    /// Runs a gateway that must exit at once with an error. Returns its output.
    pub fn refuse(flags: &[&str]) -> String {
        Program::refuse(Self::COMMAND, "", flags)
    }
}

impl Worker {
    const COMMAND: &[&str] = &["worker", "--listen", "127.0.0.1:0"];

    /// Starts a worker, with `config` as its ooblex.toml, and waits until its models are loaded.
    pub fn start(config: &str, flags: &[&str]) -> Self {
        Self(Program::start(Self::COMMAND, "Ooblex worker is ready: ", config, flags, &[]))
    }

    /// Runs a worker that must exit at once with an error. Returns its output.
    pub fn refuse(config: &str, flags: &[&str]) -> String {
        Program::refuse(Self::COMMAND, config, flags)
    }
}

impl Program {
    fn start(command: &[&str], ready: &str, config: &str, flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let machine = machine::share();
        let folder = temporary_folder();
        std::fs::write(folder.join("ooblex.toml"), config).unwrap();
        let mut program = ooblex();
        program.args(command).args(flags).envs(environment.iter().copied()).current_dir(&folder);
        let mut process = program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let (stderr, kept) = (process.stderr.take().unwrap(), said.clone());
        let listener = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // The test runner shows this output when the test fails.
                eprintln!("{line}");
                *kept.lock() += &format!("{line}\n");
            }
        });
        let stdout = process.stdout.take().unwrap();
        let mut program = Self { process, url: String::new(), said, listener: Some(listener), folder, _machine: machine };
        let (first, said_first) = channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            _ = BufReader::new(stdout).read_line(&mut line);
            _ = first.send(line);
        });
        let line = said_first.recv_timeout(WITHIN).unwrap_or_default();
        let url = line.trim().strip_prefix(ready).unwrap_or_else(|| panic!("{command:?} {flags:?} does not say where it is"));
        program.url = url.trim_end_matches('/').to_string();
        program
    }

    fn refuse(command: &[&str], config: &str, flags: &[&str]) -> String {
        let folder = temporary_folder();
        std::fs::write(folder.join("ooblex.toml"), config).unwrap();
        let errors = std::fs::File::create(folder.join("errors")).unwrap();
        let mut process = ooblex().args(command).args(flags).current_dir(&folder).stdout(Stdio::null()).stderr(errors).spawn().unwrap();
        let status = ended(&mut process);
        let said = std::fs::read_to_string(folder.join("errors")).unwrap();
        assert!(!status.success(), "{command:?} {flags:?} was accepted: {said}");
        std::fs::remove_dir_all(folder).unwrap();
        said
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Returns the log output up to now.
    pub fn said(&self) -> String {
        self.said.lock().clone()
    }

    pub fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.text(path)).unwrap()
    }

    pub fn text(&self, path: &str) -> String {
        let (status, body) = self.answer(path);
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Returns the HTTP status and body, also of error responses.
    pub fn answer(&self, path: &str) -> (u16, String) {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(WITHIN)).build();
        let mut response = ureq::Agent::new_with_config(config).get(format!("{}{path}", self.url)).call().unwrap();
        (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
    }

    /// Returns the value of a metric, summed over all labels.
    pub fn metric(&self, name: &str) -> f64 {
        self.metric_of(name, "")
    }

    /// Returns the value of a metric with a label such as `reason="lost"`, summed over its other
    /// labels.
    pub fn metric_of(&self, name: &str, label: &str) -> f64 {
        let text = self.text("/metrics");
        let lines = text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
        lines.filter(|line| line.contains(label)).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until `condition` holds.
    pub fn wait(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + WITHIN;
        while !condition(self) {
            assert!(Instant::now() < deadline, "timeout while waiting for: {what}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Kills the process, as in a crash.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Waits until the process has exited, and until all of its output is read.
    pub fn ended(&mut self) -> ExitStatus {
        let status = ended(&mut self.process);
        self.listener.take().unwrap().join().unwrap();
        status
    }
}

/// Raises the limits per client address that a test does not set itself, because all sessions of a
/// test come from one address at the same time.
fn with_wide_limits(config: &str) -> String {
    let wide = ["sessions_per_address = 256", "unconnected_sessions = 256", "unconnected_per_address = 256", "offers_per_minute = 100000"];
    let own = |line: &&&str| config.lines().all(|own| own.split('=').next().map(str::trim) != line.split(" =").next());
    let wide: String = wide.iter().filter(own).map(|line| format!("{line}\n")).collect();
    let mut lines: Vec<String> =
        config.lines().map(|line| if line == "[limits]" { format!("{line}\n{wide}") } else { line.into() }).collect();
    if !config.lines().any(|line| line == "[limits]") {
        lines.push(format!("[limits]\n{wide}"));
    }
    lines.join("\n")
}

fn ooblex() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ooblex"))
}

fn ended(process: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + WITHIN;
    loop {
        if let Some(status) = process.try_wait().unwrap() {
            return status;
        }
        if Instant::now() >= deadline {
            _ = process.kill();
            panic!("the process has not ended");
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
        _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Deref for Gateway {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.0
    }
}

impl Deref for Worker {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.0
    }
}

impl std::ops::DerefMut for Gateway {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.0
    }
}

impl std::ops::DerefMut for Worker {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.0
    }
}
