//! Command-line options of `ooblex bench`, and their translation into a [`Plan`].
//!
//! Options are validated here, so a [`Plan`] is always consistent. This module knows nothing of how
//! a plan is carried out.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ooblex_pipeline::{Size, VideoCodec};
use serde_json::{Map, Value};

use super::clip::ClipPlan;
use super::plan::{Decode, Instruments, Interval, Limits, Mode, Network, Output, Plan, Timing};
use super::value_parsers::{Both, Parameter, Percent, Seconds, Share, parse_size};
use ooblex_client::Wish;
use ooblex_client::link::Conditions;

/// Command-line options of `ooblex bench`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// URL of the gateway, such as http://127.0.0.1:8000. Any server that answers POST /offer with
    /// {sdp, type} works.
    url: String,
    /// File with the API key or token that is sent with each offer.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Number of concurrent sessions.
    #[arg(long, value_name = "N", default_value_t = 1)]
    sessions: usize,
    /// Seconds over which the sessions are started, one after another [default: 0.1 for each].
    #[arg(long, value_name = "SECONDS")]
    ramp: Option<Seconds>,
    /// Seconds of warm-up, which are not measured.
    #[arg(long, value_name = "SECONDS", default_value = "2")]
    warm_up: Seconds,
    /// Seconds to measure.
    #[arg(long, value_name = "SECONDS", default_value = "10")]
    duration: Seconds,
    #[command(flatten, next_help_heading = "What is sent")]
    source: SourceOptions,
    #[command(flatten, next_help_heading = "Network, to the gateway and back; one value is for both")]
    network: NetworkOptions,
    #[command(flatten, next_help_heading = "Other ways to measure")]
    modes: ModeOptions,
    #[command(flatten, next_help_heading = "How it is measured")]
    measuring: MeasuringOptions,
}

#[derive(Debug, Clone, Args)]
struct SourceOptions {
    /// Width and height of the video in pixels [default: 640x480, or those of a video in --clip].
    #[arg(long, value_name = "WxH", value_parser = parse_size)]
    size: Option<Size>,
    /// Frames per second.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=120))]
    fps: u32,
    /// Video codec.
    #[arg(long, value_enum, default_value_t = CodecName::Vp8)]
    codec: CodecName,
    /// Bitrate in kbit/s [default: by size, 1382 at 640x480 and 30 frames per second].
    #[arg(long, value_name = "KBPS", value_parser = clap::value_parser!(u32).range(30..=12_000))]
    bitrate: Option<u32>,
    /// A picture (PNG), over which a virtual camera moves, or a video (Y4M) [default: a portrait].
    #[arg(long, value_name = "FILE")]
    clip: Option<PathBuf>,
    /// Effect, or several effects that are spread over the sessions by weight:
    /// background_blur,style_transfer:3 gives three times as many sessions to the second [default:
    /// the gateway's].
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    effect: Vec<Share>,
    /// Parameter of the effect, or of one of several: style_transfer.strength=0.5. Can be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    parameters: Vec<Parameter>,
}

#[derive(Debug, Clone, Args)]
struct NetworkOptions {
    /// Packet loss in percent.
    #[arg(long, value_name = "UP[/DOWN]", default_value = "0")]
    loss: Both,
    /// Additional delay of each datagram in ms.
    #[arg(long, value_name = "UP[/DOWN]", default_value = "0")]
    delay: Both,
    /// Maximum random delay in ms, on top of --delay.
    #[arg(long, value_name = "UP[/DOWN]", default_value = "0")]
    jitter: Both,
    /// Rate limit in kbit/s; 0 is unlimited.
    #[arg(long, value_name = "UP[/DOWN]", default_value = "0")]
    rate: Both,
    /// Drop all datagrams for LENGTH seconds, from START seconds after the measurement began.
    #[arg(long, value_name = "START,LENGTH")]
    outage: Option<Interval>,
    /// Apply loss and rate limit only for LENGTH seconds, from START seconds after the measurement
    /// began.
    #[arg(long, value_name = "START,LENGTH", conflicts_with_all = ["find_knee", "churn"])]
    bad_during: Option<Interval>,
    /// Send no transport-wide feedback for bandwidth estimation, like GStreamer.
    #[arg(long)]
    no_feedback: bool,
    /// Seed of the random numbers: runs with the same seed lose the same datagrams.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Clone, Args)]
struct ModeOptions {
    /// Percentage of sessions that end silently, without closing the connection.
    #[arg(long, value_name = "PERCENT", default_value = "0")]
    vanish: Percent,
    /// Set up and end N sessions, --sessions at a time; each ends after its first picture.
    #[arg(long, value_name = "N", conflicts_with_all = ["find_knee", "outage", "ramp"])]
    churn: Option<usize>,
    /// Publish to a room with one session, and watch it with N others, which are measured.
    #[arg(long, value_name = "N", conflicts_with = "sessions")]
    viewers: Option<usize>,
    /// The room of --viewers.
    #[arg(long, value_name = "NAME", default_value = "bench", requires = "viewers")]
    room: String,
    /// Search for the largest number of sessions that meets the limits. It begins with --sessions
    /// and measures each number for --duration.
    #[arg(long, conflicts_with = "outage")]
    find_knee: bool,
    /// Limit of the latency at p95 in ms.
    #[arg(long, value_name = "MS", default_value_t = 250.0)]
    max_latency: f64,
    /// Limit of processed frames per second in each session [default: 0.8 of --fps].
    #[arg(long, value_name = "FPS")]
    min_fps: Option<f64>,
    /// Largest number of sessions to test.
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_sessions: usize,
}

#[derive(Debug, Clone, Args)]
struct MeasuringOptions {
    /// Process IDs of the gateway and its workers, separated by commas: measure their CPU time and
    /// memory.
    #[arg(long, value_name = "PIDS", value_delimiter = ',')]
    gateway_pid: Vec<u32>,
    /// Number of sessions of each effect whose pictures are decoded and judged: a number, all, or
    /// none [default: 2, or all if the gateway does not keep timestamps].
    #[arg(long, value_name = "N")]
    decode: Option<Decode>,
    /// Number of threads that drive the sessions [default: one per core, at most 4].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Write the figures as JSON to FILE. With '-' they go to standard output, and the table to
    /// standard error.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a self-contained HTML report with plots to FILE.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// The codec of the clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CodecName {
    /// VP8.
    Vp8,
    /// H.264, Constrained Baseline profile.
    H264,
}

/// The options cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PlanError {
    /// The URL has an unsupported scheme.
    #[error("'{0}' is not supported, because the bench runs beside the gateway: write http://HOST:PORT")]
    Scheme(String),
    /// The URL has no host.
    #[error("'{0}' names no gateway: write http://HOST:PORT, such as http://127.0.0.1:8000")]
    Host(String),
    /// A number or a duration is too small for a run.
    #[error("{0} must be at least {1}")]
    TooSmall(&'static str, &'static str),
    /// The packet loss exceeds 100 %.
    #[error("--loss is a share in percent, of 0 to 100")]
    Loss,
    /// A parameter names an effect that no session has.
    #[error("--set {0} is for an effect that no session has: name it in --effect")]
    Unused(String),
    /// A parameter names no effect, and there are several effects.
    #[error("--set {0} does not say which effect it is for: write EFFECT.{0}=VALUE")]
    Ambiguous(String),
    /// The token file cannot be read.
    #[error("--token-file: {0}")]
    Token(String),
}

impl Options {
    /// Validates the options and returns the plan.
    pub(super) fn plan(&self) -> Result<Plan, PlanError> {
        let Self { source, modes, measuring, .. } = self;
        let positive = |holds: bool, name, least| if holds { Ok(()) } else { Err(PlanError::TooSmall(name, least)) };
        let sessions = modes.viewers.unwrap_or(self.sessions);
        positive(sessions > 0, if modes.viewers.is_some() { "--viewers" } else { "--sessions" }, "1")?;
        positive(self.duration.0 >= Duration::from_secs(1), "--duration", "1 second")?;
        positive(modes.churn != Some(0), "--churn", "1")?;
        let codec = match source.codec {
            CodecName::Vp8 => VideoCodec::Vp8,
            CodecName::H264 => VideoCodec::H264,
        };
        let default_spacing = Duration::from_millis(100);
        let mode = match (modes.churn, modes.find_knee) {
            (Some(count), _) => Mode::Churn { count },
            (None, false) => Mode::Steady,
            (None, true) => Mode::Knee(Limits {
                latency_ms: modes.max_latency,
                fps: modes.min_fps.unwrap_or(0.8 * f64::from(source.fps)),
                sessions: modes.max_sessions.max(sessions),
            }),
        };
        Ok(Plan {
            url: base_url(&self.url)?,
            sessions,
            room: modes.viewers.map(|_| modes.room.clone()),
            timing: Timing {
                spacing: self.ramp.map_or(default_spacing, |ramp| ramp.0 / sessions as u32),
                warm_up: self.warm_up.0,
                duration: self.duration.0,
            },
            clip: ClipPlan {
                file: source.clip.clone(),
                size: source.size,
                fps: source.fps,
                codec,
                bitrate_bps: source.bitrate.map(|kbps| kbps * 1000),
            },
            wishes: self.wishes(codec)?,
            network: self.network.plan()?,
            vanish: modes.vanish.0 / 100.0,
            mode,
            instruments: Instruments {
                gateway_pids: measuring.gateway_pid.clone(),
                decode: measuring.decode,
                threads: measuring.threads.map_or_else(default_threads, usize::from),
            },
            output: Output { json: measuring.json.clone(), report: measuring.report.clone() },
        })
    }

    /// Returns one wish for each unit of weight, in a smooth weighted round robin, so that any
    /// number of sessions has about the requested shares.
    fn wishes(&self, codec: VideoCodec) -> Result<Vec<Wish>, PlanError> {
        let shares: Vec<_> = match self.source.effect.as_slice() {
            [] => vec![(None, 1)],
            shares => shares.iter().map(|share| (Some(share.effect.clone()), share.weight)).collect(),
        };
        let params = shares.iter().map(|(effect, _)| self.params_of(effect.as_deref(), shares.len())).collect::<Result<Vec<_>, _>>()?;
        for Parameter { name, .. } in &self.source.parameters {
            let is_for = |effect: &Option<String>| {
                effect.as_deref().is_some_and(|effect| name.strip_prefix(effect).is_some_and(|rest| rest.starts_with('.')))
            };
            if name.contains('.') && !shares.iter().any(|(effect, _)| is_for(effect)) {
                return Err(PlanError::Unused(name.clone()));
            }
        }
        let token = self.token()?;
        let total: usize = shares.iter().map(|(_, weight)| weight).sum();
        let mut credit = vec![0_i64; shares.len()];
        let turns = (0..total).map(|_| {
            credit.iter_mut().zip(&shares).for_each(|(credit, (_, weight))| *credit += *weight as i64);
            // The effect with the largest credit is next; the first of several equal ones.
            let next = (0..shares.len()).rev().max_by_key(|index| credit[*index]).unwrap_or(0);
            credit[next] -= total as i64;
            next
        });
        let wish = |index: usize| Wish {
            codecs: vec![codec],
            effect: shares[index].0.clone(),
            params: params[index].clone(),
            // The clip's bitrate does not follow the bandwidth estimate, so pacing by that estimate
            // would only delay packets.
            paced: false,
            feedback: !self.network.no_feedback,
            token: token.clone(),
            ..Wish::default()
        };
        Ok(turns.map(wish).collect())
    }

    fn token(&self) -> Result<Option<String>, PlanError> {
        let Some(file) = &self.token_file else { return Ok(None) };
        let refused = |reason: String| PlanError::Token(format!("--token-file: {} {reason}", file.display()));
        let text = std::fs::read_to_string(file).map_err(|error| refused(format!("cannot be read ({error})")))?;
        let token = text.trim_end_matches(['\r', '\n']);
        if token.is_empty() { Err(refused("is empty".into())) } else { Ok(Some(token.into())) }
    }

    fn params_of(&self, effect: Option<&str>, effects: usize) -> Result<Value, PlanError> {
        let mut params = Map::new();
        for Parameter { name, value } in &self.source.parameters {
            match name.split_once('.') {
                Some((of, name)) if Some(of) == effect => _ = params.insert(name.into(), value.clone()),
                Some(_) => {}
                None if effects > 1 => return Err(PlanError::Ambiguous(name.clone())),
                None => _ = params.insert(name.clone(), value.clone()),
            }
        }
        Ok(if params.is_empty() { Value::Null } else { params.into() })
    }
}

impl NetworkOptions {
    fn plan(&self) -> Result<Network, PlanError> {
        Ok(Network {
            up: self.conditions(|both| both.up)?,
            down: self.conditions(|both| both.down)?,
            outage: self.outage,
            bad: self.bad_during,
            seed: self.seed,
        })
    }

    fn conditions(&self, of: fn(&Both) -> f64) -> Result<Conditions, PlanError> {
        let loss = of(&self.loss) / 100.0;
        if loss > 1.0 {
            return Err(PlanError::Loss);
        }
        let ms = |both: &Both| Duration::from_secs_f64(of(both).min(60_000.0) / 1e3);
        let rate = (of(&self.rate) * 1000.0) as u64;
        Ok(Conditions {
            loss,
            delay: ms(&self.delay),
            jitter: ms(&self.jitter),
            rate_bps: (rate > 0).then_some(rate),
            for_a_while: self.bad_during.is_some(),
        })
    }
}

/// Normalises a gateway URL to `http://HOST:PORT`; the scheme may be missing, and a trailing slash
/// or `/offer` is removed.
fn base_url(url: &str) -> Result<String, PlanError> {
    let rest = match url.split_once("://") {
        Some(("http", rest)) => rest,
        Some((scheme, _)) => return Err(PlanError::Scheme(format!("{scheme}://"))),
        None => url,
    };
    let rest = rest.trim_end_matches('/').trim_end_matches("/offer").trim_end_matches('/');
    match rest.split('/').next() {
        None | Some("") => Err(PlanError::Host(url.into())),
        Some(_) => Ok(format!("http://{rest}")),
    }
}

fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(4))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn plan(flags: &str) -> Result<Plan, PlanError> {
        let words = ["bench", "http://gateway:8000"].into_iter().chain(flags.split_whitespace());
        Line::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).options.plan()
    }

    fn effects(flags: &str) -> Vec<String> {
        plan(flags).unwrap().wishes.into_iter().map(|wish| wish.effect.unwrap()).collect()
    }

    #[test]
    fn what_a_person_may_write_for_a_gateway() {
        for text in ["http://gateway:8000", "http://gateway:8000/", "gateway:8000", "http://gateway:8000/offer"] {
            assert_eq!(base_url(text).as_deref(), Ok("http://gateway:8000"), "{text}");
        }
        assert!(matches!(base_url("https://gateway"), Err(PlanError::Scheme(_))));
        assert!(matches!(base_url("http:///offer"), Err(PlanError::Host(_))));
    }

    #[test]
    fn conditions_hold_for_both_directions_or_for_each() {
        let Network { up, down, .. } = plan("--loss 3 --delay 20/50 --rate 0/1000").unwrap().network;
        assert_eq!((up.loss, down.loss), (0.03, 0.03));
        assert_eq!((up.delay, down.delay), (Duration::from_millis(20), Duration::from_millis(50)));
        assert_eq!((up.rate_bps, down.rate_bps), (None, Some(1_000_000)));
    }

    #[test]
    fn effects_are_mixed_by_their_weights() {
        assert_eq!(effects("--effect a,b"), ["a", "b"]);
        assert_eq!(effects("--effect a,b:3"), ["b", "a", "b", "b"]);
        assert_eq!(plan("").unwrap().wishes[0].effect, None);
    }

    #[test]
    fn parameters_go_to_their_effect() {
        let wishes = plan("--effect a,b --set a.x=1 --set b.y=ink").unwrap().wishes;
        assert_eq!((&wishes[0].params, &wishes[1].params), (&json!({"x": 1}), &json!({"y": "ink"})));
        assert_eq!(plan("--effect a --set x=1").unwrap().wishes[0].params, json!({"x": 1}));
        assert_eq!(plan("--effect a,b --set x=1").unwrap_err(), PlanError::Ambiguous("x".into()));
        assert_eq!(plan("--effect a,b --set c.x=1").unwrap_err(), PlanError::Unused("c.x".into()));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert_eq!(plan("--loss 101").unwrap_err(), PlanError::Loss);
        assert_eq!(plan("--sessions 0").unwrap_err(), PlanError::TooSmall("--sessions", "1"));
        for flags in ["--size 640", "--delay -5", "--outage 5", "--effect a:0", "--decode few", "--vanish 101", "--churn 5 --find-knee"] {
            let words = ["bench", "gateway:8000"].into_iter().chain(flags.split_whitespace());
            assert!(Line::try_parse_from(words).is_err(), "{flags}");
        }
    }
}
