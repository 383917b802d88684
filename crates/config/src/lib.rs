//! Configuration, read from `ooblex.toml`, then from the environment (`OOBLEX_SERVE__LISTEN=…`),
//! then from command-line flags.
//!
//! `ooblex.toml` at the root of the repository documents every option in place; a test compares it
//! with these structures.

mod auth;
pub mod authority;
mod broker;
mod peers;
mod recordings;
mod webhooks;
mod words;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use ooblex_codec::H264Level;
use ooblex_effects::{CustomEffectLimits, Device};
use ooblex_pipeline::{Patience, Sampling, VideoCodec};
use serde::{Deserialize, Serialize};

use crate::authority::{Authority, HostPattern, is_origin};
pub use auth::{Auth, Hook, HttpUrl, HttpUrlError, Jwt, KeyEntry, Mode, Modes, Role, Secret, Turn};
pub use broker::{Broker, BrokerUrl, BrokerUrlError};
pub use peers::{MAX_LINKS, MAX_MJPEG_FPS, PeerPrefix, PeerUrl, PeerUrlError, Pull, Push, Rooms};
pub use recordings::Recordings;
pub use webhooks::Webhook;
pub use words::AutoOr;
use words::{authorities, codecs, names, networks, optional_word, parsed, shown, shown_all, word};

/// The whole configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// HTTP server of the gateway.
    pub serve: Serve,
    /// Authentication and authorization.
    pub auth: Auth,
    /// TURN relays for browsers that UDP does not reach.
    pub turn: Turn,
    /// Rooms, and the servers that they exchange video with.
    pub rooms: Rooms,
    /// Streams of other servers that are published to rooms.
    pub pulls: Vec<Pull>,
    /// Rooms that are published to other servers.
    pub pushes: Vec<Push>,
    /// Servers that are told when rooms and sessions begin and end.
    pub webhooks: Vec<Webhook>,
    /// Recordings of rooms.
    pub recordings: Recordings,
    /// Connection between the gateway and its workers.
    pub broker: Broker,
    /// Workers, in a separate process or in the gateway's.
    pub worker: Worker,
    /// Transport of media.
    pub media: Media,
    /// Video codecs and encoders.
    pub video: Video,
    /// Scheduling of frames through the models.
    pub frames: Frames,
    /// Inference backend and device.
    pub inference: Inference,
    /// Custom effects.
    pub own_effects: CustomEffects,
    /// Limits of sessions, requests and streams.
    pub limits: Limits,
    /// Sandbox of the process.
    pub security: Security,
    /// Options of single effects, by name.
    pub effects: BTreeMap<String, EffectConfig>,
    /// Options for tests and benchmarks.
    pub diagnostics: Diagnostics,
    /// Logs.
    pub log: Log,
}

/// `[serve]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Serve {
    /// Address and port of the HTTP server.
    pub listen: SocketAddr,
    /// Number of worker threads in the gateway's process; `auto` means one per core with the local
    /// broker, and none with Redis.
    pub workers: AutoOr<0>,
    /// Effect of sessions that request none.
    pub default_effect: String,
    /// Host names under which the gateway is reached. If empty, the names that it determines itself
    /// are accepted; `*` accepts all.
    #[serde(deserialize_with = "names")]
    pub hosts: Vec<String>,
    /// Address and port of the routes for operators. If not set, they are on `listen`, and accept
    /// requests from this machine only.
    pub admin_listen: Option<SocketAddr>,
    /// Origins of pages on other hosts that may use the API; `*` accepts all.
    #[serde(deserialize_with = "names")]
    pub allow_origins: Vec<String>,
    /// True if pages from `allow_origins` may send cookies and other browser credentials.
    pub allow_credentials: bool,
    /// Networks of proxies whose `X-Forwarded-For` header is trusted.
    #[serde(serialize_with = "shown_all", deserialize_with = "networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// PEM file of the HTTPS certificate. If not set, the server uses plain HTTP.
    pub tls_certificate: Option<PathBuf>,
    /// PEM file of the certificate's private key.
    pub tls_key: Option<PathBuf>,
    /// Time in seconds for which sessions continue after the gateway was told to stop.
    pub drain_s: u64,
}

/// `[worker]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Worker {
    /// Number of worker threads of `ooblex worker`; `auto` means one per core.
    pub threads: AutoOr<1>,
    /// Names of the effects that this process's workers serve; if empty, all effects.
    #[serde(deserialize_with = "names")]
    pub effects: Vec<String>,
    /// Address and port of the health and metrics routes of `ooblex worker`.
    pub listen: SocketAddr,
}

/// `[media]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Media {
    /// Address and UDP port of all media.
    pub listen: SocketAddr,
    /// IP addresses and host names offered to browsers as ICE candidates, with the port if it is
    /// another than that of `listen`; if empty, the addresses of this machine.
    #[serde(serialize_with = "shown_all", deserialize_with = "authorities")]
    pub advertise: Vec<Authority>,
    /// Address and TCP port of media for networks that drop UDP (ICE-TCP). If not set, media has UDP
    /// only.
    pub tcp_listen: Option<SocketAddr>,
}

/// `[video]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Video {
    /// Codecs that are accepted from cameras.
    #[serde(deserialize_with = "codecs")]
    pub codecs: Vec<VideoCodec>,
    /// Minimum bitrate of an encoder, in kbit/s.
    pub min_bitrate_kbps: u32,
    /// Bitrate in both directions until there is a bandwidth estimate, in kbit/s.
    pub start_bitrate_kbps: u32,
    /// Maximum bitrate of an encoder, in kbit/s.
    pub max_bitrate_kbps: u32,
    /// Speed of the VP8 encoder, libvpx's `cpu-used`.
    #[serde(deserialize_with = "word")]
    pub vp8_speed: Vp8Speed,
}

/// Speed of the VP8 encoder: more speed costs quality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vp8Speed {
    /// `cpu-used` -8.
    Balanced,
    /// `cpu-used` -12.
    Fast,
}

/// `[frames]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Frames {
    /// Selection of the frames that are analysed.
    pub sampling: AutoOr<1>,
    /// Maximum time that a frame waits for its analysis, in ms.
    pub deadline_ms: u64,
    /// Maximum time that a frame holds up newer frames that are ready, in ms.
    pub overtaken_ms: u64,
    /// With `reuse`, maximum time that a frame waits for its own analysis, in ms.
    pub own_ms: u64,
}

/// `[inference]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Inference {
    /// Inference backend.
    #[serde(deserialize_with = "word")]
    pub backend: BackendChoice,
    /// Device that runs the models.
    #[serde(serialize_with = "shown", deserialize_with = "parsed")]
    pub device: Device,
    /// Path of `libonnxruntime.so`. If not set, the library is searched for.
    pub library: Option<PathBuf>,
    /// Maximum number of threads that process one frame.
    pub threads_per_frame: usize,
    /// Folder of the model files. If not set, the embedded models are used.
    pub models: Option<PathBuf>,
}

/// Inference backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendChoice {
    /// ONNX Runtime if its library is found, otherwise rten, if the program was built with it.
    #[default]
    Auto,
    /// ONNX Runtime; an error if its library is missing.
    OnnxRuntime,
    /// rten; an error if the program was built without it.
    Rten,
}

/// Paths of a certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM file with the certificate, followed by its intermediate certificates.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// `[own_effects]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CustomEffects {
    /// Folder of the custom effects, with a subfolder for each.
    pub folder: PathBuf,
    /// Maximum number of effects that are read from the folder.
    pub most: usize,
    /// Maximum size of a model file, in MiB.
    pub model_mib: u64,
    /// Maximum inference time of one frame in the trial of a model, in ms.
    pub frame_ms: u64,
    /// Maximum total time of a trial, in seconds.
    pub trial_s: u64,
    /// Maximum memory of a trial, in MiB.
    pub trial_memory_mib: u64,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Maximum number of concurrent sessions.
    pub sessions: usize,
    /// Maximum number of concurrent sessions of one client address (an IPv4 address or an IPv6
    /// /64).
    pub sessions_per_address: usize,
    /// Maximum number of concurrent HTTP connections.
    pub connections: usize,
    /// Maximum number of concurrent HTTP connections of one client address (an IPv4 address or an
    /// IPv6 /64).
    pub connections_per_address: usize,
    /// Maximum number of concurrent sessions that are not connected yet.
    pub unconnected_sessions: usize,
    /// Maximum number of concurrent sessions of one client address that are not connected yet.
    pub unconnected_per_address: usize,
    /// Maximum number of offers per minute from one client address.
    pub offers_per_minute: u32,
    /// Maximum time from the answer to the connection, in seconds.
    pub connect_s: u64,
    /// Time without media after which a session is ended, in seconds.
    pub idle_s: u64,
    /// Maximum duration of a session in minutes; 0 is unlimited.
    pub session_minutes: u64,
    /// Maximum CPU time of the media thread that a session may use per second, in ms.
    pub media_ms: u32,
    /// Maximum size of an SDP offer, in KiB.
    pub sdp_kib: usize,
    /// Maximum size of a request body, in KiB.
    pub body_kib: usize,
    /// Maximum number of pixels of a frame after decoding, in thousands. Larger frames are scaled
    /// down.
    pub frame_kilopixels: u32,
    /// Maximum number of pixels of a frame that is decoded, in thousands.
    pub decode_kilopixels: u32,
    /// Highest H.264 level that is accepted.
    #[serde(serialize_with = "shown", deserialize_with = "parsed")]
    pub h264_level: H264Level,
    /// Maximum number of packets that a session may send per second.
    pub session_packets: u32,
    /// Maximum bitrate that a session may send, in kbit/s.
    pub session_kbps: u32,
    /// Maximum number of concurrent readers of one session's events.
    pub event_readers: usize,
}

/// `[security]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Security {
    /// Restriction of the access of `serve` and `worker` to files and system calls.
    #[serde(deserialize_with = "word")]
    pub sandbox: SandboxChoice,
}

/// Restriction of the process's access to files and system calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxChoice {
    /// Restricts the process as far as the kernel supports it.
    #[default]
    Auto,
    /// Does not restrict the process.
    Off,
}

/// `[effects.NAME]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EffectConfig {
    /// Behaviour while the models are slower than the camera. If not set, the effect decides.
    #[serde(deserialize_with = "optional_word")]
    pub when_slow: Option<WhenSlowConfig>,
    /// With `reuse`, maximum age of an analysis that is painted, in ms.
    pub max_age_ms: Option<u64>,
}

/// Behaviour while the models are slower than the camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenSlowConfig {
    /// Shows only frames that were analysed.
    Hold,
    /// Shows every frame, painted with the newest analysis.
    Reuse,
}

/// `[diagnostics]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Diagnostics {
    /// True to serve the effects that exist for tests and benchmarks, too.
    pub effects: bool,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Filter such as `info` or `ooblex=debug,str0m=warn`.
    pub filter: String,
    /// Format of the log lines.
    #[serde(deserialize_with = "word")]
    pub format: LogFormat,
}

/// Format of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line.
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
        Self { listen: SocketAddr::from(([0, 0, 0, 0], 8000)), advertise: Vec::new(), tcp_listen: None }
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

impl Default for CustomEffects {
    fn default() -> Self {
        Self { folder: "effects.d".into(), most: 32, model_mib: 64, frame_ms: 250, trial_s: 15, trial_memory_mib: 4096 }
    }
}

impl CustomEffects {
    /// Returns the limits for reading custom effects.
    pub fn limits(&self) -> CustomEffectLimits {
        CustomEffectLimits { model_bytes: self.model_mib << 20, effects: self.most }
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
            decode_kilopixels: 8300,
            h264_level: H264Level::default(),
            session_packets: 3000,
            session_kbps: 20_000,
            event_readers: 8,
        }
    }
}

impl Limits {
    /// Returns the decoder's limits for camera streams.
    pub fn decoder(&self) -> ooblex_codec::Limits {
        ooblex_codec::Limits { pixels: u64::from(self.decode_kilopixels) * 1000, h264_level: self.h264_level }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info,str0m=error,ort=warn".into(), format: LogFormat::Text }
    }
}

/// An unusable configuration. The message names the option and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The requested file does not exist.
    #[error("there is no configuration file {0}: name one that exists, or leave --config away to use the defaults")]
    NoFile(PathBuf),
    /// The file, the environment or a flag contains something that cannot be parsed.
    #[error("the configuration is not understood: {0} (ooblex.toml in the source describes every option)")]
    Invalid(String),
    /// The file for the Redis password cannot be read or is empty.
    #[error("broker.password_file {path} {reason}: write the password of Redis into it, readable for this user")]
    PasswordFile {
        /// Path of the file.
        path: PathBuf,
        /// Problem with the file.
        reason: String,
    },
    /// The file for a secret cannot be read or is empty.
    #[error("{option} {path} {reason}: write the secret into it, readable for this user")]
    SecretFile {
        /// Option that names the file.
        option: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Problem with the file.
        reason: String,
    },
    /// The options are valid by themselves, but make no sense.
    #[error("{0}")]
    Senseless(String),
}

impl Config {
    /// File that is read when no file is named.
    pub const DEFAULT_FILE: &str = "ooblex.toml";

    /// Reads the file (the default one only if it exists), then `OOBLEX_SECTION__OPTION` from the
    /// environment, then `flags` (`("serve.listen", "0.0.0.0:8000".into())`).
    ///
    /// # Errors
    /// Returns an error if a named file is missing, if an option is unknown or has the wrong type,
    /// or if options contradict each other.
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

    /// Returns the number of worker threads in the gateway's process.
    pub fn serve_threads(&self) -> usize {
        let shared = self.broker.is_shared();
        self.serve.workers.number_or(|| if shared { 0 } else { cores() }) as usize
    }

    /// Returns the number of worker threads of `ooblex worker`.
    pub fn worker_threads(&self) -> usize {
        self.worker.threads.number_or(cores) as usize
    }

    /// Returns the certificate and key files for HTTPS, if HTTPS is configured.
    pub fn tls(&self) -> Option<TlsFiles> {
        let (certificate, key) = (self.serve.tls_certificate.clone()?, self.serve.tls_key.clone()?);
        Some(TlsFiles { certificate, key })
    }

    /// Returns the files that are reloaded while the program runs, at SIGHUP or when Redis is
    /// reconnected.
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
        let secrets = [&auth.keys_file, &auth.jwt.secret_file, &self.turn.secret_file, &self.rooms.peers_ca_file];
        let tokens = self.pulls.iter().map(|pull| &pull.token_file).chain(self.pushes.iter().map(|push| &push.token_file));
        let webhooks = self.webhooks.iter().map(|webhook| &webhook.secret_file);
        files.into_iter().chain(secrets).chain(tokens).chain(webhooks).flatten().cloned().collect()
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
        if self.limits.decode_kilopixels < self.limits.frame_kilopixels {
            return senseless("limits.decode_kilopixels must be at least limits.frame_kilopixels: raise the one or lower the other");
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
        let http = [Some(self.serve.listen), self.serve.admin_listen];
        if self.media.tcp_listen.is_some_and(|tcp| tcp.port() != 0 && http.contains(&Some(tcp))) {
            return senseless("media.tcp_listen must be another address or port than serve.listen and serve.admin_listen");
        }
        let limits = &self.limits;
        // With lower limits, sessions that take a second or two to set up would end, which would
        // look like a fault of the gateway.
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
        // Lower limits would not carry the DTLS handshake, or any picture.
        if self.limits.session_packets < 50 || self.limits.session_kbps < 100 {
            return senseless("limits.session_packets must be at least 50, limits.session_kbps at least 100");
        }
        self.auth.check()?;
        if self.rooms.linger_s >= self.limits.idle_s {
            return senseless("rooms.linger_s must be below limits.idle_s, after which viewers without pictures end");
        }
        self.turn.check()?;
        self.rooms.check(&self.pulls, &self.pushes)?;
        Webhook::check(&self.webhooks)?;
        self.recordings.check()?;
        self.broker.check()
    }
}

fn cores() -> u32 {
    std::thread::available_parallelism().map_or(2, |cores| cores.get() as u32)
}

fn invalid(error: config::ConfigError) -> ConfigError {
    ConfigError::Invalid(without_secrets(error.to_string().trim_end()))
}

/// Removes secrets from a TOML error message, which quotes the wrong line of the file, and that
/// line may contain a password. The part of an address that begins with `[user]` is kept.
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

/// Returns the position at which the value of a secret begins in a quoted line of a file, such as
/// `12 | secret = "…"` or `token = "…"`.
fn secret_in(line: &str) -> Option<usize> {
    line.match_indices("secret").chain(line.match_indices("token")).map(|(at, word)| at + word.len()).find(|end| {
        let rest = line[*end..].trim_start_matches(['"', '\'']).trim_start();
        rest.starts_with('=')
    })
}

/// Selects the environment variables that name an option. Other variables that begin with `OOBLEX_`
/// are ignored.
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
        .with_list_parse_key("rooms.peers")
        .source(Some(text.filter(|(name, _)| name.contains("__")).collect()))
}

impl Frames {
    /// Returns the playout policy of the pipeline.
    pub fn patience(&self) -> Patience {
        let ms = Duration::from_millis;
        Patience { deadline: ms(self.deadline_ms), overtaken: ms(self.overtaken_ms), own: ms(self.own_ms) }
    }

    /// Returns the sampling of the pipeline.
    pub fn sampling(&self) -> Sampling {
        match self.sampling {
            AutoOr::Number(n) => NonZeroU32::new(n).map_or(Sampling::Auto, Sampling::Every),
            AutoOr::Auto => Sampling::Auto,
        }
    }
}
