//! Parsers of option values such as sizes, weights and pairs. Each error says how the value is
//! written.

use std::str::FromStr;
use std::time::Duration;

use ooblex_pipeline::Size;
use serde_json::Value;

use super::plan::{Decode, Interval};

/// A time in seconds, with optional fractions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Seconds(pub(super) Duration);

/// An effect and the weight of its share of the sessions.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Share {
    /// Name of the effect.
    pub(super) effect: String,
    /// Weight relative to the other effects, 1..=1000.
    pub(super) weight: usize,
}

/// A value for each direction of the network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Both {
    /// Value for the direction to the gateway.
    pub(super) up: f64,
    /// Value for the direction from the gateway.
    pub(super) down: f64,
}

/// A percentage, 0..=100.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Percent(pub(super) f64);

/// A parameter of an effect, written `NAME=VALUE`.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Name, with or without that of the effect before it.
    pub name: String,
    /// Value: what is valid JSON becomes that value, such as 0.7; anything else becomes a string.
    pub value: Value,
}

/// Parses `WIDTHxHEIGHT`.
pub(super) fn parse_size(text: &str) -> Result<Size, &'static str> {
    let size = text.split_once('x').and_then(|(width, height)| Some(Size::new(width.parse().ok()?, height.parse().ok()?)));
    size.ok_or("write WIDTHxHEIGHT, such as 640x480")
}

fn number(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|number: &f64| number.is_finite() && *number >= 0.0)
        .ok_or_else(|| format!("'{text}' is not a number of 0 or more"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    number(text).map(|seconds| Duration::from_secs_f64(seconds.min(1e7)))
}

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        seconds(text).map(Self)
    }
}

impl FromStr for Parameter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
        Ok(Self { name: name.into(), value: serde_json::from_str(value).unwrap_or_else(|_| value.into()) })
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (effect, weight) = match text.split_once(':') {
            None => (text, 1),
            Some((effect, weight)) => (
                effect,
                weight.parse().ok().filter(|weight| (1..=1000).contains(weight)).ok_or("write NAME:WEIGHT, a weight of 1 to 1000")?,
            ),
        };
        if effect.is_empty() { Err("write the name of an effect".into()) } else { Ok(Self { effect: effect.into(), weight }) }
    }
}

impl FromStr for Both {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (up, down) = text.split_once('/').unwrap_or((text, text));
        Ok(Self { up: number(up)?, down: number(down)? })
    }
}

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (start, length) = text.split_once(',').ok_or("write START,LENGTH in seconds, such as 5,2")?;
        Ok(Self { start: seconds(start)?, length: seconds(length)? })
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        number(text).and_then(|percent| if percent <= 100.0 { Ok(Self(percent)) } else { Err("write a percentage of 0 to 100".into()) })
    }
}

impl FromStr for Decode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            "none" => Ok(Self::Some(0)),
            number => number.parse().map(Self::Some).map_err(|_| "write a number, all, or none".into()),
        }
    }
}
