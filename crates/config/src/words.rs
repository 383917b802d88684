//! Parsers and serializers of single configuration values: words, numbers or `auto`, and lists.
//!
//! This module knows no option by name; `config` selects the parser of each option.

use std::fmt::{self, Display};
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use ooblex_pipeline::VideoCodec;
use serde::de::{self, IntoDeserializer, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::authority::{Authority, Host};

/// `"auto"`, or a number of at least `LEAST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoOr<const LEAST: u32> {
    /// The program chooses the number.
    Auto,
    /// The number is configured.
    Number(u32),
}

impl<const LEAST: u32> AutoOr<LEAST> {
    /// Returns the configured number, or the result of `otherwise` for `auto`.
    pub fn number_or(self, otherwise: impl FnOnce() -> u32) -> u32 {
        match self {
            AutoOr::Auto => otherwise(),
            AutoOr::Number(number) => number,
        }
    }
}

impl<const LEAST: u32> Serialize for AutoOr<LEAST> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            AutoOr::Auto => to.serialize_str("auto"),
            AutoOr::Number(number) => to.serialize_u32(*number),
        }
    }
}

impl<'de, const LEAST: u32> Deserialize<'de> for AutoOr<LEAST> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(AutoVisitor::<LEAST>)
    }
}

struct AutoVisitor<const LEAST: u32>;

impl<const LEAST: u32> Visitor<'_> for AutoVisitor<LEAST> {
    type Value = AutoOr<LEAST>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match LEAST {
            0 => f.write_str("\"auto\" or a number"),
            1 => f.write_str("\"auto\" or a number above 0"),
            least => write!(f, "\"auto\" or a number from {least} on"),
        }
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        match u32::try_from(number) {
            Ok(number) if number >= LEAST => Ok(AutoOr::Number(number)),
            _ => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
        }
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
    }

    /// Command-line flags pass numbers as strings.
    fn visit_str<E: de::Error>(self, word: &str) -> Result<Self::Value, E> {
        match (word, word.parse()) {
            ("auto", _) => Ok(AutoOr::Auto),
            (_, Ok(number)) => self.visit_i64(number),
            _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
        }
    }
}

/// Deserializes an enum from a string. When an enum is deserialized directly from the
/// configuration, the error does not list its valid values.
pub(super) fn word<'de, D: Deserializer<'de>, W: Deserialize<'de>>(from: D) -> Result<W, D::Error> {
    W::deserialize(String::deserialize(from)?.into_deserializer())
}

/// Deserializes an optional enum from a string.
pub(super) fn optional_word<'de, D: Deserializer<'de>, W: Deserialize<'de>>(from: D) -> Result<Option<W>, D::Error> {
    Option::<String>::deserialize(from)?.map(|word| W::deserialize(word.into_deserializer())).transpose()
}

/// Deserializes a value that implements [`FromStr`].
pub(super) fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(from: D) -> Result<T, D::Error> {
    String::deserialize(from)?.trim().parse().map_err(de::Error::custom)
}

/// Serializes a value that implements [`Display`].
pub(super) fn shown<S: Serializer, T: Display>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

/// Deserializes a list of names. Surrounding blanks are removed, and blank names are dropped, so an
/// empty environment variable is an empty list.
pub(super) fn names<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(from)?;
    Ok(names.iter().map(|name| name.trim().to_string()).filter(|name| !name.is_empty()).collect())
}

/// Deserializes a list of video codecs from their labels.
pub(super) fn codecs<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<VideoCodec>, D::Error> {
    let mut codecs = Vec::new();
    for name in names(from)? {
        let known = [VideoCodec::Vp8, VideoCodec::H264].into_iter().find(|codec| codec.label() == name);
        let unknown = || de::Error::custom(format_args!("{name:?} is no codec of Ooblex: write \"vp8\", \"h264\", or both"));
        let codec = known.ok_or_else(unknown)?;
        if !codecs.contains(&codec) {
            codecs.push(codec);
        }
    }
    Ok(codecs)
}

/// Deserializes a list of addresses and host names, each with an optional port.
pub(super) fn authorities<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Authority>, D::Error> {
    let authority = |text: &String| {
        // Brackets are needed only before a port.
        let bare = text.parse().map(|ip: IpAddr| Authority { host: Host::Ip(ip.to_canonical()), port: None });
        let authority = bare.ok().or_else(|| Authority::parse(text)).filter(|authority| authority.port != Some(0));
        authority.ok_or_else(|| {
            de::Error::custom(format_args!(
                "{text:?} is neither an IP address nor a host name: write \"203.0.113.7\", \"video.example\", or \"203.0.113.7:9000\" if \
                 another port is published"
            ))
        })
    };
    names(from)?.iter().map(authority).collect()
}

/// Deserializes a list of networks (`10.0.0.0/8`) and of addresses, which are networks of one
/// address.
pub(super) fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    let network = |name: &String| {
        let read = name.parse().or_else(|_| name.parse::<IpAddr>().map(IpNet::from));
        read.map_err(|_| de::Error::custom(format_args!("{name:?} is no network: write one as \"10.0.0.0/8\", or an address")))
    };
    names(from)?.iter().map(network).collect()
}

/// Deserializes a list of values that implement [`FromStr`].
pub(super) fn parsed_all<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(from: D) -> Result<Vec<T>, D::Error> {
    names(from)?.iter().map(|name| name.parse().map_err(de::Error::custom)).collect()
}

/// Serializes a list of values that implement [`Display`].
pub(super) fn shown_all<S: Serializer, T: Display>(values: &[T], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(values.iter().map(T::to_string))
}
