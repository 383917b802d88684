//! How single values of the configuration are read and written: words, numbers that may be left to the program, lists.
//!
//! It knows no option by name; `config` says which is read how.

use std::fmt::{self, Display};
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use ooblex_pipeline::VideoCodec;
use serde::de::{self, IntoDeserializer, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `"auto"`, or a number from `LEAST` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoOr<const LEAST: u32> {
    /// The program decides.
    Auto,
    /// The operator has decided.
    Number(u32),
}

impl<const LEAST: u32> AutoOr<LEAST> {
    /// The operator's number, or `otherwise`.
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

    /// Flags say numbers as words.
    fn visit_str<E: de::Error>(self, word: &str) -> Result<Self::Value, E> {
        match (word, word.parse()) {
            ("auto", _) => Ok(AutoOr::Auto),
            (_, Ok(number)) => self.visit_i64(number),
            _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
        }
    }
}

/// Reads one of an enum's words. Straight from the configuration, the error would not say which words there are.
pub(super) fn word<'de, D: Deserializer<'de>, W: Deserialize<'de>>(from: D) -> Result<W, D::Error> {
    W::deserialize(String::deserialize(from)?.into_deserializer())
}

/// The same for a word that may be missing.
pub(super) fn optional_word<'de, D: Deserializer<'de>, W: Deserialize<'de>>(from: D) -> Result<Option<W>, D::Error> {
    Option::<String>::deserialize(from)?.map(|word| W::deserialize(word.into_deserializer())).transpose()
}

/// Reads what has its own way of being read from a text.
pub(super) fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(from: D) -> Result<T, D::Error> {
    String::deserialize(from)?.trim().parse().map_err(de::Error::custom)
}

/// Writes what has its own way of being shown.
pub(super) fn shown<S: Serializer, T: Display>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

/// Reads a list of names. Blanks around them do not count, and what is blank is none: an empty variable is an empty list.
pub(super) fn names<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(from)?;
    Ok(names.iter().map(|name| name.trim().to_string()).filter(|name| !name.is_empty()).collect())
}

/// Reads a list of video codecs by their labels.
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

/// Reads a list of networks (`10.0.0.0/8`) and addresses, which are networks of one.
pub(super) fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    let network = |name: &String| {
        let read = name.parse().or_else(|_| name.parse::<IpAddr>().map(IpNet::from));
        read.map_err(|_| de::Error::custom(format_args!("{name:?} is no network: write one as \"10.0.0.0/8\", or an address")))
    };
    names(from)?.iter().map(network).collect()
}

/// Writes it.
pub(super) fn shown_all<S: Serializer, T: Display>(values: &[T], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(values.iter().map(T::to_string))
}
