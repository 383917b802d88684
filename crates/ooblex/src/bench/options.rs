//! What `ooblex bench` can be asked for, and what is made of it.
//!
//! Here words become checked values: what a [`Plan`] holds makes sense. It knows nothing of how a plan is carried out.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ooblex_pipeline::VideoCodec;
use serde_json::{Map, Value};

use super::clip::ClipPlan;
use super::link::Conditions;
use super::plan::{Decode, Limits, Mode, Plan};
use super::words::{Both, Outage, Percent, Seconds, Share, Size, parse_parameter};
use crate::client::Wish;
use crate::config::Secret;

/// The flags of `ooblex bench`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// The gateway, such as http://127.0.0.1:8000: anything that answers POST /offer with {sdp, type}.
    url: String,
    /// File that holds the key or token that is shown with each offer.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Sessions at a time.
    #[arg(long, value_name = "N", default_value_t = 1)]
    sessions: usize,
    /// Seconds in which they begin, one after another [default: 0.1 for each].
    #[arg(long, value_name = "SECONDS")]
    ramp: Option<Seconds>,
    /// Seconds before anything is counted.
    #[arg(long, value_name = "SECONDS", default_value = "2")]
    warm_up: Seconds,
    /// Seconds that are counted.
    #[arg(long, value_name = "SECONDS", default_value = "10")]
    duration: Seconds,

    /// Columns and rows of the picture [default: 640x480, or those of a video in --clip].
    #[arg(long, value_name = "WxH", help_heading = "What is sent")]
    size: Option<Size>,
    /// Frames a second.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=120), help_heading = "What is sent")]
    fps: u32,
    /// What it is compressed with.
    #[arg(long, value_enum, default_value_t = CodecName::Vp8, help_heading = "What is sent")]
    codec: CodecName,
    /// Bitrate, kbit/s [default: by size, 1382 at 640x480 and 30 frames a second].
    #[arg(long, value_name = "KBPS", value_parser = clap::value_parser!(u32).range(30..=12_000), help_heading = "What is sent")]
    bitrate: Option<u32>,
    /// A picture (PNG) that is moved, or a video (Y4M) [default: a portrait].
    #[arg(long, value_name = "FILE", help_heading = "What is sent")]
    clip: Option<PathBuf>,
    /// The effect, or several that the sessions take in turn: background_blur,style_transfer:3 has three times as many of the
    /// second [default: the gateway's].
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = "What is sent")]
    effect: Vec<Share>,
    /// Parameter of the effect, or of one of them: style_transfer.strength=0.5; can be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_parameter, help_heading = "What is sent")]
    parameters: Vec<(String, Value)>,

    /// Percent of datagrams that are lost.
    #[arg(long, value_name = "UP[/DOWN]", default_value = "0", help_heading = "Network, to the gateway and back; one value is for both")]
    loss: Both,
    /// Milliseconds that each takes longer.
    #[arg(long, value_name = "UP[/DOWN]", default_value = "0", help_heading = "Network, to the gateway and back; one value is for both")]
    delay: Both,
    /// Milliseconds that each takes up to longer still, by chance.
    #[arg(long, value_name = "UP[/DOWN]", default_value = "0", help_heading = "Network, to the gateway and back; one value is for both")]
    jitter: Both,
    /// Kbit/s that fit through; 0 is any number.
    #[arg(long, value_name = "UP[/DOWN]", default_value = "0", help_heading = "Network, to the gateway and back; one value is for both")]
    rate: Both,
    /// Nothing comes through for LENGTH seconds, from START seconds after the count began.
    #[arg(long, value_name = "START,LENGTH", help_heading = "Network, to the gateway and back; one value is for both")]
    outage: Option<Outage>,
    /// Loss and rate hold only for LENGTH seconds, from START seconds after the count began.
    #[arg(long, value_name = "START,LENGTH", conflicts_with_all = ["find_knee", "churn"], help_heading = "Network, to the gateway and back; one value is for both")]
    bad_during: Option<Outage>,
    /// Give no feedback that bandwidth can be estimated from, like GStreamer.
    #[arg(long, help_heading = "Network, to the gateway and back; one value is for both")]
    no_feedback: bool,
    /// What chance draws from: the same number loses the same datagrams.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Network, to the gateway and back; one value is for both")]
    seed: u64,

    /// Percent of the sessions that end by silence instead of a goodbye.
    #[arg(long, value_name = "PERCENT", default_value = "0", help_heading = "Other ways to measure")]
    vanish: Percent,
    /// Set up and end N sessions, --sessions at a time, each until it has a picture.
    #[arg(long, value_name = "N", conflicts_with_all = ["find_knee", "outage", "ramp"], help_heading = "Other ways to measure")]
    churn: Option<usize>,
    /// Begin with --sessions and look for the most that work, --duration for each number.
    #[arg(long, conflicts_with = "outage", help_heading = "Other ways to measure")]
    find_knee: bool,
    /// With more milliseconds at p95, it does not work.
    #[arg(long, value_name = "MS", default_value_t = 250.0, help_heading = "Other ways to measure")]
    max_latency: f64,
    /// When a session has fewer processed frames a second, it does not work [default: 0.8 of --fps].
    #[arg(long, value_name = "FPS", help_heading = "Other ways to measure")]
    min_fps: Option<f64>,
    /// More are not tried.
    #[arg(long, value_name = "N", default_value_t = 256, help_heading = "Other ways to measure")]
    max_sessions: usize,

    /// Process of the gateway, with those of its workers after commas: what they use is measured, too.
    #[arg(long, value_name = "PIDS", value_delimiter = ',', help_heading = "How it is measured")]
    gateway_pid: Vec<u32>,
    /// Sessions of each effect whose pictures are decoded and looked at: a number, all, or none [default: 2, or all where timestamps
    /// do not come back].
    #[arg(long, value_name = "N", help_heading = "How it is measured")]
    decode: Option<Decode>,
    /// Threads that drive the sessions [default: one for each core, at most 4].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256), help_heading = "How it is measured")]
    threads: Option<u16>,
    /// Write the figures as JSON; '-' is standard output, and the table goes to standard error then.
    #[arg(long, value_name = "FILE", help_heading = "How it is measured")]
    json: Option<PathBuf>,
    /// Write a report with plots, one HTML file that needs no other.
    #[arg(long, value_name = "FILE", help_heading = "How it is measured")]
    report: Option<PathBuf>,
}

/// The codec of the clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CodecName {
    /// VP8.
    Vp8,
    /// H.264, constrained baseline.
    H264,
}

/// What was asked for can not be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PlanError {
    /// The URL has a scheme that is not spoken here.
    #[error("'{0}' is not spoken by the bench, which runs beside the gateway: write http://HOST:PORT")]
    Scheme(String),
    /// There is no host.
    #[error("'{0}' names no gateway: write http://HOST:PORT, such as http://127.0.0.1:8000")]
    Host(String),
    /// Nothing would happen.
    #[error("{0} must be at least {1}")]
    TooSmall(&'static str, &'static str),
    /// More than all are lost.
    #[error("--loss is a share in percent, of 0 to 100")]
    Loss,
    /// Parameters for an effect that no session has.
    #[error("--set {0} is for an effect that no session has: name it in --effect")]
    Unused(String),
    /// Parameters without an effect's name, where there are several effects.
    #[error("--set {0} does not say which effect it is for: write EFFECT.{0}=VALUE")]
    Ambiguous(String),
    /// The file of the token cannot be read.
    #[error("--token-file: {0}")]
    Token(String),
}

impl Options {
    /// Checks what was asked for.
    pub(super) fn plan(&self) -> Result<Plan, PlanError> {
        let positive = |holds: bool, name, least| if holds { Ok(()) } else { Err(PlanError::TooSmall(name, least)) };
        positive(self.sessions > 0, "--sessions", "1")?;
        positive(self.duration.0 >= Duration::from_secs(1), "--duration", "1 second")?;
        positive(self.churn != Some(0), "--churn", "1")?;
        let [up, down] = [|both: &Both| both.up, |both: &Both| both.down].map(|of| self.conditions(of));
        let codec = match self.codec {
            CodecName::Vp8 => VideoCodec::Vp8,
            CodecName::H264 => VideoCodec::H264,
        };
        let default_spacing = Duration::from_millis(100);
        let mode = match (self.churn, self.find_knee) {
            (Some(count), _) => Mode::Churn { count },
            (None, false) => Mode::Steady,
            (None, true) => Mode::Knee(Limits {
                latency_ms: self.max_latency,
                fps: self.min_fps.unwrap_or(0.8 * f64::from(self.fps)),
                sessions: self.max_sessions.max(self.sessions),
            }),
        };
        Ok(Plan {
            url: base_url(&self.url)?,
            sessions: self.sessions,
            spacing: self.ramp.map_or(default_spacing, |ramp| ramp.0 / self.sessions as u32),
            warm_up: self.warm_up.0,
            duration: self.duration.0,
            clip: ClipPlan {
                file: self.clip.clone(),
                size: self.size.map(|Size(width, height)| (width, height)),
                fps: self.fps,
                codec,
                bitrate_bps: self.bitrate.map(|kbps| kbps * 1000),
            },
            wishes: self.wishes(codec)?,
            up: up?,
            down: down?,
            outage: self.outage.map(|outage| (outage.start, outage.length)),
            bad: self.bad_during.map(|bad| (bad.start, bad.length)),
            seed: self.seed,
            vanish: self.vanish.0 / 100.0,
            mode,
            gateway_pids: self.gateway_pid.clone(),
            decode: self.decode,
            threads: self.threads.map_or_else(default_threads, usize::from),
            json: self.json.clone(),
            report: self.report.clone(),
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

    /// Each effect as often as its weight says, well mixed: whatever the number of sessions, the shares are about right.
    fn wishes(&self, codec: VideoCodec) -> Result<Vec<Wish>, PlanError> {
        let shares: Vec<_> = match self.effect.as_slice() {
            [] => vec![(None, 1)],
            shares => shares.iter().map(|share| (Some(share.effect.clone()), share.weight)).collect(),
        };
        let params = shares.iter().map(|(effect, _)| self.params_of(effect.as_deref(), shares.len())).collect::<Result<Vec<_>, _>>()?;
        for (name, _) in &self.parameters {
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
            // The first of those that are owed most.
            let next = (0..shares.len()).rev().max_by_key(|index| credit[*index]).unwrap_or(0);
            credit[next] -= total as i64;
            next
        });
        let wish = |index: usize| Wish {
            codecs: vec![codec],
            effect: shares[index].0.clone(),
            params: params[index].clone(),
            // What is sent does not follow an estimate, so packets that wait for one would only grow old.
            paced: false,
            feedback: !self.no_feedback,
            token: token.clone(),
            ..Wish::default()
        };
        Ok(turns.map(wish).collect())
    }

    fn token(&self) -> Result<Option<String>, PlanError> {
        let read = |file: &PathBuf| Secret::read(file, "--token-file").map(|token| token.reveal().to_string());
        self.token_file.as_ref().map(read).transpose().map_err(|error| PlanError::Token(error.to_string()))
    }

    fn params_of(&self, effect: Option<&str>, effects: usize) -> Result<Value, PlanError> {
        let mut params = Map::new();
        for (name, value) in &self.parameters {
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

/// `http://HOST:PORT` of what a person may write: without the scheme, with a slash, with /offer.
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
        let plan = plan("--loss 3 --delay 20/50 --rate 0/1000").unwrap();
        assert_eq!((plan.up.loss, plan.down.loss), (0.03, 0.03));
        assert_eq!((plan.up.delay, plan.down.delay), (Duration::from_millis(20), Duration::from_millis(50)));
        assert_eq!((plan.up.rate_bps, plan.down.rate_bps), (None, Some(1_000_000)));
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
