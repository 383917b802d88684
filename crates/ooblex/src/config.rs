//! What the operator can set: `ooblex.toml`, then the environment (`OOBLEX_SERVE__LISTEN=…`), then flags.
//!
//! `ooblex.toml` at the root of the repository documents every option in place; a test holds it against these structures.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ooblex_pipeline::{Patience, Sampling};
use serde::de::IntoDeserializer;
use serde::{Deserialize, Deserializer, Serialize};

/// The whole configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The gateway.
    pub serve: Serve,
    /// Transport of media.
    pub media: Media,
    /// The encoder.
    pub video: Video,
    /// The way of frames through the models.
    pub frames: Frames,
    /// What runs the models.
    pub inference: Inference,
    /// What is refused.
    pub limits: Limits,
    /// By effect.
    pub effects: BTreeMap<String, EffectConfig>,
    /// Logs.
    pub log: Log,
}

/// `[serve]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Serve {
    /// Address and port of HTTP.
    pub listen: SocketAddr,
    /// Worker threads; 0 takes one for each core.
    pub workers: usize,
    /// The effect of sessions that ask for none.
    pub default_effect: String,
    /// Origins of other hosts' pages that may use the API; `*` stands for all.
    pub allow_origins: Vec<String>,
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
    pub sampling: SamplingConfig,
    /// A frame waits for its analysis at most this long, ms.
    pub deadline_ms: u64,
    /// A frame holds up newer ones that are ready at most this long, ms.
    pub overtaken_ms: u64,
    /// With `reuse`, a frame waits for its own analysis at most this long, ms.
    pub own_ms: u64,
}

/// `sampling = "auto"` or `sampling = N`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected \"auto\" or a number above 0")]
pub enum SamplingConfig {
    /// Every Nth frame.
    Every(std::num::NonZeroU32),
    /// As a word.
    Word(SamplingWord),
}

/// `"auto"`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplingWord {
    /// All that capacity allows.
    Auto,
}

/// `[inference]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Inference {
    /// What runs the models.
    #[serde(deserialize_with = "word")]
    pub backend: BackendChoice,
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

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Sessions at a time.
    pub sessions: usize,
    /// Size of a request's body, KiB.
    pub body_kib: usize,
    /// Pixels of a frame, in thousands.
    pub frame_kilopixels: u32,
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

/// `[log]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// A filter such as `info` or `ooblex=debug,str0m=warn`.
    pub filter: String,
}

impl Default for Serve {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            workers: 0,
            default_effect: "background_blur".into(),
            allow_origins: Vec::new(),
        }
    }
}

impl Default for Media {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([0, 0, 0, 0], 8000)), advertise: Vec::new() }
    }
}

impl Default for Video {
    fn default() -> Self {
        Self { min_bitrate_kbps: 100, start_bitrate_kbps: 2500, max_bitrate_kbps: 6000, vp8_speed: Vp8Speed::Balanced }
    }
}

impl Default for Frames {
    fn default() -> Self {
        let patience = Patience::default();
        Self {
            sampling: SamplingConfig::Word(SamplingWord::Auto),
            deadline_ms: patience.deadline.as_millis() as u64,
            overtaken_ms: patience.overtaken.as_millis() as u64,
            own_ms: patience.own.as_millis() as u64,
        }
    }
}

impl Default for Inference {
    fn default() -> Self {
        Self { backend: BackendChoice::Auto, library: None, threads_per_frame: 2, models: None }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { sessions: 256, body_kib: 256, frame_kilopixels: 2100 }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info,str0m=error,ort=warn".into() }
    }
}

/// A configuration that can not be used. The message names the option and the mend.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file was asked for that is not there.
    #[error("there is no configuration file {0}: name one that exists, or leave --config away to use the defaults")]
    NoFile(PathBuf),
    /// The file, the environment or a flag says something that is not understood.
    #[error("the configuration is not understood: {0} (ooblex.toml in the source describes every option)")]
    Invalid(String),
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

    /// Worker threads that are to run.
    pub fn worker_threads(&self) -> usize {
        match self.serve.workers {
            0 => std::thread::available_parallelism().map_or(2, |cores| cores.get()),
            workers => workers,
        }
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
        if self.frames.deadline_ms == 0 {
            return senseless("frames.deadline_ms must be above 0");
        }
        if self.serve.workers > 1024 {
            return senseless("serve.workers must be at most 1024");
        }
        if !(1..=64).contains(&self.inference.threads_per_frame) {
            return senseless("inference.threads_per_frame must be from 1 to 64");
        }
        if self.limits.frame_kilopixels == 0 || self.limits.sessions == 0 || self.limits.body_kib == 0 {
            return senseless("limits must be above 0");
        }
        Ok(())
    }
}

fn invalid(error: config::ConfigError) -> ConfigError {
    ConfigError::Invalid(error.to_string().trim_end().into())
}

/// Reads one of an enum's words. Straight from the configuration, the error would not say which words there are.
fn word<'de, D: Deserializer<'de>, W: Deserialize<'de>>(from: D) -> Result<W, D::Error> {
    W::deserialize(String::deserialize(from)?.into_deserializer())
}

fn optional_word<'de, D: Deserializer<'de>, W: Deserialize<'de>>(from: D) -> Result<Option<W>, D::Error> {
    Option::<String>::deserialize(from)?.map(|word| W::deserialize(word.into_deserializer())).transpose()
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
            SamplingConfig::Every(n) => Sampling::Every(n),
            SamplingConfig::Word(SamplingWord::Auto) => Sampling::Auto,
        }
    }
}
