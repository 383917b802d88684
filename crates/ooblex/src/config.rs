//! What the operator can set: `ooblex.toml`, then the environment (`OOBLEX_SERVE__LISTEN=…`), then flags.
//!
//! `ooblex.toml` at the root of the repository documents every option in place; a test holds it against these structures.

mod auth;
mod broker;
mod words;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use ooblex_codec::H264Level;
use ooblex_effects::{Device, OwnLimits};
use ooblex_pipeline::{Patience, Sampling, VideoCodec};
use serde::{Deserialize, Serialize};

use crate::authority::{HostPattern, is_origin};
use crate::tls::Files;
pub use auth::{Auth, Hook, HttpUrl, HttpUrlError, Jwt, KeyEntry, Mode, Modes, Role, Secret, Turn};
pub use broker::{Broker, BrokerUrl, BrokerUrlError};
pub use words::AutoOr;
use words::{codecs, names, networks, optional_word, parsed, shown, shown_all, word};

/// The whole configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The gateway.
    pub serve: Serve,
    /// Who may do what.
    pub auth: Auth,
    /// Relays for browsers that UDP does not reach.
    pub turn: Turn,
    /// Between the gateway and its workers.
    pub broker: Broker,
    /// The workers, in a process of their own or in the gateway's.
    pub worker: Worker,
    /// Transport of media.
    pub media: Media,
    /// The encoder.
    pub video: Video,
    /// The way of frames through the models.
    pub frames: Frames,
    /// What runs the models.
    pub inference: Inference,
    /// Effects of one's own.
    pub own_effects: OwnEffects,
    /// What is refused.
    pub limits: Limits,
    /// How the process is restricted.
    pub security: Security,
    /// By effect.
    pub effects: BTreeMap<String, EffectConfig>,
    /// For tests and benchmarks.
    pub diagnostics: Diagnostics,
    /// Logs.
    pub log: Log,
}

/// `[serve]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Serve {
    /// Address and port of HTTP.
    pub listen: SocketAddr,
    /// Worker threads in the gateway's own process; `auto`: one for each core with the local broker, none with Redis.
    pub workers: AutoOr<0>,
    /// The effect of sessions that ask for none.
    pub default_effect: String,
    /// Names of the gateway that requests may be for; none: those that it knows of itself; `*` stands for all.
    #[serde(deserialize_with = "names")]
    pub hosts: Vec<String>,
    /// Address and port of operators' routes; none: they are on `listen`, for this machine only.
    pub admin_listen: Option<SocketAddr>,
    /// Origins of other hosts' pages that may use the API; `*` stands for all.
    #[serde(deserialize_with = "names")]
    pub allow_origins: Vec<String>,
    /// Pages that `allow_origins` names may have their browser send cookies and the like.
    pub allow_credentials: bool,
    /// Networks of proxies whose `X-Forwarded-For` is believed.
    #[serde(serialize_with = "shown_all", deserialize_with = "networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// PEM file of the certificate for HTTPS; none: plain HTTP.
    pub tls_certificate: Option<PathBuf>,
    /// PEM file of its key.
    pub tls_key: Option<PathBuf>,
    /// Time that sessions go on after the gateway was asked to stop, s.
    pub drain_s: u64,
}

/// `[worker]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Worker {
    /// Worker threads of `ooblex worker`; `auto`: one for each core.
    pub threads: AutoOr<1>,
    /// Names of the effects that the workers of this process serve; none: all.
    #[serde(deserialize_with = "names")]
    pub effects: Vec<String>,
    /// Address and port of `ooblex worker`'s health and metrics.
    pub listen: SocketAddr,
}

/// `[media]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Media {
    /// Address and UDP port of all media.
    pub listen: SocketAddr,
    /// Addresses told to browsers; none: those of this machine.
    pub advertise: Vec<IpAddr>,
}

/// `[video]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Video {
    /// Codecs that cameras may come in.
    #[serde(deserialize_with = "codecs")]
    pub codecs: Vec<VideoCodec>,
    /// Lowest bitrate of an encoder, kbit/s.
    pub min_bitrate_kbps: u32,
    /// Bitrate until there is an estimate, in both directions, kbit/s.
    pub start_bitrate_kbps: u32,
    /// Highest bitrate of an encoder, kbit/s.
    pub max_bitrate_kbps: u32,
    /// libvpx's cpu-used.
    #[serde(deserialize_with = "word")]
    pub vp8_speed: Vp8Speed,
}

/// How much time VP8 takes for how good a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vp8Speed {
    /// cpu-used -8.
    Balanced,
    /// cpu-used -12.
    Fast,
}

/// `[frames]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Frames {
    /// Which frames are analysed.
    pub sampling: AutoOr<1>,
    /// A frame waits for its analysis at most this long, ms.
    pub deadline_ms: u64,
    /// A frame holds up newer ones that are ready at most this long, ms.
    pub overtaken_ms: u64,
    /// With `reuse`, a frame waits for its own analysis at most this long, ms.
    pub own_ms: u64,
}

/// `[inference]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Inference {
    /// What runs the models.
    #[serde(deserialize_with = "word")]
    pub backend: BackendChoice,
    /// What they run on.
    #[serde(serialize_with = "shown", deserialize_with = "parsed")]
    pub device: Device,
    /// Path of `libonnxruntime.so`; none: it is looked for.
    pub library: Option<PathBuf>,
    /// Most threads that compute one frame.
    pub threads_per_frame: usize,
    /// Folder of the model files; none: those in the program.
    pub models: Option<PathBuf>,
}

/// What runs the models.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendChoice {
    /// ONNX Runtime if its library is found, else rten.
    #[default]
    Auto,
    /// ONNX Runtime or nothing.
    OnnxRuntime,
    /// rten, which is in the program.
    Rten,
}

/// `[own_effects]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OwnEffects {
    /// Folder of folders, each an effect.
    pub folder: PathBuf,
    /// Effects that are read from it.
    pub most: usize,
    /// Size of a model's file, MiB.
    pub model_mib: u64,
    /// Time that a model may take for a frame when it is tried, ms.
    pub frame_ms: u64,
    /// Time that a trial may take in all, s.
    pub trial_s: u64,
    /// Memory that a trial may take, MiB.
    pub trial_memory_mib: u64,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Sessions at a time.
    pub sessions: usize,
    /// Sessions at a time of one visitor: an IPv4 address, or a /64 of IPv6.
    pub sessions_per_address: usize,
    /// Connections of HTTP at a time, in all.
    pub connections: usize,
    /// Connections of HTTP at a time of one visitor: an IPv4 address, or a /64 of IPv6.
    pub connections_per_address: usize,
    /// Sessions at a time that are not connected yet.
    pub unconnected_sessions: usize,
    /// The same, of one visitor.
    pub unconnected_per_address: usize,
    /// Offers of one visitor in a minute.
    pub offers_per_minute: u32,
    /// Time from the answer to the connection, s.
    pub connect_s: u64,
    /// Time of a session without media, s.
    pub idle_s: u64,
    /// Time of a session in all, minutes; 0: without end.
    pub session_minutes: u64,
    /// Processor time that a session may take of the media thread in a second, ms.
    pub media_ms: u32,
    /// Size of an SDP offer, KiB.
    pub sdp_kib: usize,
    /// Size of a request's body, KiB.
    pub body_kib: usize,
    /// Pixels of a frame, in thousands.
    pub frame_kilopixels: u32,
    /// The highest level of H.264.
    #[serde(serialize_with = "shown", deserialize_with = "parsed")]
    pub h264_level: H264Level,
    /// Packets that a session may send in a second.
    pub session_packets: u32,
    /// Kilobits that a session may send in a second.
    pub session_kbps: u32,
    /// Readers of the events of one session.
    pub event_readers: usize,
}

/// `[security]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Security {
    /// Whether `serve` and `worker` restrict what they may do themselves.
    #[serde(deserialize_with = "word")]
    pub sandbox: SandboxChoice,
}

/// Whether the process restricts its access to files and system calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxChoice {
    /// As far as the kernel can.
    #[default]
    Auto,
    /// Not at all.
    Off,
}

/// `[effects.NAME]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EffectConfig {
    /// What to show when the models are slower than the camera; none: as the effect says.
    #[serde(deserialize_with = "optional_word")]
    pub when_slow: Option<WhenSlowConfig>,
    /// With `reuse`: oldest analysis that is painted, ms.
    pub max_age_ms: Option<u64>,
}

/// What to show when the models are slower than the camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenSlowConfig {
    /// Only frames that were analysed.
    Hold,
    /// Every frame, painted with the newest analysis.
    Reuse,
}

/// `[diagnostics]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Diagnostics {
    /// Also the effects that only tests and benchmarks want are served.
    pub effects: bool,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// A filter such as `info` or `ooblex=debug,str0m=warn`.
    pub filter: String,
    /// How a line is written.
    #[serde(deserialize_with = "word")]
    pub format: LogFormat,
}

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// A JSON object a line, for machines.
    Json,
}

impl Default for Serve {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            workers: AutoOr::Auto,
            default_effect: "background_blur".into(),
            hosts: Vec::new(),
            admin_listen: None,
            allow_origins: Vec::new(),
            allow_credentials: false,
            trusted_proxies: vec![
                Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).into(),
                Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128).into(),
            ],
            tls_certificate: None,
            tls_key: None,
            drain_s: 0,
        }
    }
}

impl Default for Worker {
    fn default() -> Self {
        Self { threads: AutoOr::Auto, effects: Vec::new(), listen: SocketAddr::from(([127, 0, 0, 1], 8001)) }
    }
}

impl Default for Media {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([0, 0, 0, 0], 8000)), advertise: Vec::new() }
    }
}

impl Default for Video {
    fn default() -> Self {
        Self {
            codecs: vec![VideoCodec::Vp8, VideoCodec::H264],
            min_bitrate_kbps: 100,
            start_bitrate_kbps: 2500,
            max_bitrate_kbps: 6000,
            vp8_speed: Vp8Speed::Balanced,
        }
    }
}

impl Default for Frames {
    fn default() -> Self {
        let patience = Patience::default();
        Self {
            sampling: AutoOr::Auto,
            deadline_ms: patience.deadline.as_millis() as u64,
            overtaken_ms: patience.overtaken.as_millis() as u64,
            own_ms: patience.own.as_millis() as u64,
        }
    }
}

impl Default for Inference {
    fn default() -> Self {
        Self { backend: BackendChoice::Auto, device: Device::default(), library: None, threads_per_frame: 2, models: None }
    }
}

impl Default for OwnEffects {
    fn default() -> Self {
        Self { folder: "effects.d".into(), most: 32, model_mib: 64, frame_ms: 250, trial_s: 15, trial_memory_mib: 4096 }
    }
}

impl OwnEffects {
    /// What is not read.
    pub fn limits(&self) -> OwnLimits {
        OwnLimits { model_bytes: self.model_mib << 20, effects: self.most }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions: 256,
            sessions_per_address: 16,
            connections: 1024,
            connections_per_address: 64,
            unconnected_sessions: 32,
            unconnected_per_address: 4,
            offers_per_minute: 60,
            connect_s: 10,
            idle_s: 60,
            session_minutes: 0,
            media_ms: 200,
            sdp_kib: 64,
            body_kib: 256,
            frame_kilopixels: 2100,
            h264_level: H264Level::default(),
            session_packets: 3000,
            session_kbps: 20_000,
            event_readers: 8,
        }
    }
}

impl Limits {
    /// What a camera's stream may ask of its decoder.
    pub fn decoder(&self) -> ooblex_codec::Limits {
        ooblex_codec::Limits { pixels: u64::from(self.frame_kilopixels) * 1000, h264_level: self.h264_level }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info,str0m=error,ort=warn".into(), format: LogFormat::Text }
    }
}

/// A configuration that cannot be used. The message names the option and the mend.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file was asked for that is not there.
    #[error("there is no configuration file {0}: name one that exists, or leave --config away to use the defaults")]
    NoFile(PathBuf),
    /// The file, the environment or a flag says something that is not understood.
    #[error("the configuration is not understood: {0} (ooblex.toml in the source describes every option)")]
    Invalid(String),
    /// The file that was to hold the password of Redis does not.
    #[error("broker.password_file {path} {reason}: write the password of Redis into it, readable for this user")]
    PasswordFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that was to hold a secret does not.
    #[error("{option} {path} {reason}: write the secret into it, readable for this user")]
    SecretFile {
        /// What names the file.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Options are understood and make no sense.
    #[error("{0}")]
    Senseless(String),
}

impl Config {
    /// Where the configuration is looked for when no file is named.
    pub const DEFAULT_FILE: &str = "ooblex.toml";

    /// Reads the file (the default one only if it exists), then `OOBLEX_SECTION__OPTION` from the environment, then `flags`
    /// (`("serve.listen", "0.0.0.0:8000".into())`).
    ///
    /// # Errors
    /// When a named file is missing, an option is unknown or of the wrong type, or options contradict each other.
    pub fn load(file: Option<&Path>, flags: &[(&str, config::Value)]) -> Result<Self, ConfigError> {
        if let Some(file) = file
            && !file.is_file()
        {
            return Err(ConfigError::NoFile(file.into()));
        }
        let path = file.unwrap_or(Path::new(Self::DEFAULT_FILE));
        let mut builder = config::Config::builder()
            .add_source(config::File::from(path).format(config::FileFormat::Toml).required(file.is_some()))
            .add_source(environment(std::env::vars_os()));
        for (key, value) in flags {
            builder = builder.set_override(*key, value.clone()).map_err(invalid)?;
        }
        let config: Self = builder.build().and_then(config::Config::try_deserialize).map_err(invalid)?;
        config.check()?;
        Ok(config)
    }

    /// Worker threads that are to run in the gateway's own process.
    pub fn serve_threads(&self) -> usize {
        let shared = self.broker.is_shared();
        self.serve.workers.number_or(|| if shared { 0 } else { cores() }) as usize
    }

    /// Worker threads that `ooblex worker` is to run.
    pub fn worker_threads(&self) -> usize {
        self.worker.threads.number_or(cores) as usize
    }

    /// The files for HTTPS, if that is wanted.
    pub fn tls(&self) -> Option<Files> {
        let (certificate, key) = (self.serve.tls_certificate.clone()?, self.serve.tls_key.clone()?);
        Some(Files { certificate, key })
    }

    /// Files that are read again while the program runs, at SIGHUP or when Redis is reached anew.
    pub fn files(&self) -> Vec<PathBuf> {
        let (serve, broker, auth) = (&self.serve, &self.broker, &self.auth);
        let files = [
            &serve.tls_certificate,
            &serve.tls_key,
            &broker.ca_file,
            &broker.password_file,
            &broker.client_certificate,
            &broker.client_key,
        ];
        let secrets = [&auth.keys_file, &auth.jwt.secret_file, &self.turn.secret_file];
        files.into_iter().chain(secrets).flatten().cloned().collect()
    }

    fn check(&self) -> Result<(), ConfigError> {
        let senseless = |what: &str| Err(ConfigError::Senseless(what.into()));
        let video = &self.video;
        if !(video.min_bitrate_kbps <= video.start_bitrate_kbps && video.start_bitrate_kbps <= video.max_bitrate_kbps) {
            return senseless("video: min_bitrate_kbps <= start_bitrate_kbps <= max_bitrate_kbps must hold");
        }
        if video.min_bitrate_kbps < 30 {
            return senseless("video.min_bitrate_kbps must be at least 30");
        }
        if video.codecs.is_empty() {
            return senseless("video.codecs is empty, so no camera could be taken: name \"vp8\", \"h264\", or both");
        }
        if self.frames.deadline_ms == 0 {
            return senseless("frames.deadline_ms must be above 0");
        }
        if self.serve.workers == AutoOr::Number(0) && !self.broker.is_shared() {
            return senseless(
                "serve.workers = 0 with broker.url = \"local\" leaves nobody to run the models: write \"auto\" or a number above 0, \
                 or name a Redis where other processes serve them with --broker",
            );
        }
        if self.serve_threads() > 1024 || self.worker_threads() > 1024 {
            return senseless("serve.workers and worker.threads must be at most 1024");
        }
        if !(1..=64).contains(&self.inference.threads_per_frame) {
            return senseless("inference.threads_per_frame must be from 1 to 64");
        }
        let own = &self.own_effects;
        if own.frame_ms == 0 || own.trial_s == 0 || !(1..=1024).contains(&own.model_mib) || own.most > 128 {
            return senseless("own_effects: frame_ms and trial_s must be above 0, model_mib from 1 to 1024, most at most 128");
        }
        if !(256..=1 << 20).contains(&own.trial_memory_mib) {
            return senseless("own_effects.trial_memory_mib must be from 256 to 1048576");
        }
        if self.limits.frame_kilopixels == 0
            || self.limits.sessions == 0
            || self.limits.sessions_per_address == 0
            || self.limits.connections == 0
            || self.limits.connections_per_address == 0
            || self.limits.body_kib == 0
            || self.limits.unconnected_sessions == 0
            || self.limits.unconnected_per_address == 0
            || self.limits.offers_per_minute == 0
            || self.limits.sdp_kib == 0
        {
            return senseless("limits must be above 0");
        }
        let Serve { hosts, allow_origins, .. } = &self.serve;
        if let Some(host) = hosts.iter().find(|host| HostPattern::parse(host).is_none()) {
            return senseless(&format!(
                "serve.hosts: '{host}' is no name of a host: write \"video.example\", \"*.video.example\", an address or \"*\", without \
                 scheme and port"
            ));
        }
        if let Some(origin) = allow_origins.iter().find(|origin| !is_origin(origin)) {
            return senseless(&format!(
                "serve.allow_origins: '{origin}' is no origin: write \"https://app.example\" as browsers do, without a path, or \"*\""
            ));
        }
        if self.serve.admin_listen.is_some_and(|admin| admin.port() != 0 && admin == self.serve.listen) {
            return senseless("serve.admin_listen must be another address or port than serve.listen");
        }
        let limits = &self.limits;
        // Sessions that set up or end within a second or two would look like a fault of the gateway.
        if !(2..=120).contains(&limits.connect_s) || !(5..=86_400).contains(&limits.idle_s) || limits.session_minutes > 525_600 {
            return senseless("limits: connect_s must be from 2 to 120, idle_s from 5 to 86400, session_minutes at most 525600");
        }
        if !(20..=1000).contains(&limits.media_ms) {
            return senseless("limits.media_ms must be from 20 to 1000");
        }
        if self.serve.drain_s > 86_400 {
            return senseless("serve.drain_s must be at most 86400");
        }
        if self.serve.tls_certificate.is_some() != self.serve.tls_key.is_some() {
            return senseless(
                "serve.tls_certificate and serve.tls_key belong together: name both PEM files for HTTPS, or none for plain HTTP",
            );
        }
        // Less would not carry the handshake, or any picture.
        if self.limits.session_packets < 50 || self.limits.session_kbps < 100 {
            return senseless("limits.session_packets must be at least 50, limits.session_kbps at least 100");
        }
        self.auth.check()?;
        self.turn.check()?;
        self.broker.check()
    }
}

fn cores() -> u32 {
    std::thread::available_parallelism().map_or(2, |cores| cores.get() as u32)
}

fn invalid(error: config::ConfigError) -> ConfigError {
    ConfigError::Invalid(without_secrets(error.to_string().trim_end()))
}

/// A file that is not TOML is quoted where it is wrong, and that may be the line with the password. The form of addresses, which
/// begins with `[user]`, stays.
fn without_secrets(text: &str) -> String {
    let hidden = text.split('\n').map(|line| {
        if let Some(end) = secret_in(line) {
            return format!("{} = ***", &line[..end]);
        }
        match (line.find("://"), line.rfind('@')) {
            (Some(scheme), Some(at)) if scheme + 3 < at && !line[scheme..].starts_with("://[") => {
                format!("{}***{}", &line[..scheme + 3], &line[at..])
            }
            _ => line.to_string(),
        }
    });
    hidden.collect::<Vec<_>>().join("\n")
}

/// Where the value of a secret begins in a line of a file, such as `12 | secret = "…"`.
fn secret_in(line: &str) -> Option<usize> {
    line.match_indices("secret").map(|(at, word)| at + word.len()).find(|end| {
        let rest = line[*end..].trim_start_matches(['"', '\'']).trim_start();
        rest.starts_with('=')
    })
}

/// The variables that name an option; others that begin with `OOBLEX_` are none of ours.
fn environment(variables: impl Iterator<Item = (OsString, OsString)>) -> config::Environment {
    let text = variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    config::Environment::with_prefix("OOBLEX")
        .prefix_separator("_")
        .separator("__")
        .try_parsing(true)
        .list_separator(",")
        .with_list_parse_key("media.advertise")
        .with_list_parse_key("serve.allow_origins")
        .with_list_parse_key("serve.hosts")
        .with_list_parse_key("serve.trusted_proxies")
        .with_list_parse_key("video.codecs")
        .with_list_parse_key("worker.effects")
        .with_list_parse_key("auth.mode")
        .with_list_parse_key("auth.jwt.algorithms")
        .with_list_parse_key("turn.urls")
        .source(Some(text.filter(|(name, _)| name.contains("__")).collect()))
}

impl Frames {
    /// For the pipeline.
    pub fn patience(&self) -> Patience {
        let ms = Duration::from_millis;
        Patience { deadline: ms(self.deadline_ms), overtaken: ms(self.overtaken_ms), own: ms(self.own_ms) }
    }

    /// For the pipeline.
    pub fn sampling(&self) -> Sampling {
        match self.sampling {
            AutoOr::Number(n) => NonZeroU32::new(n).map_or(Sampling::Auto, Sampling::Every),
            AutoOr::Auto => Sampling::Auto,
        }
    }
}
