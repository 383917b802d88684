//! The operator's limits on streams, which [`crate::Decoder`] takes.

use std::fmt;
use std::str::FromStr;

use ooblex_pipeline::I420;

/// Limits on what a stream may ask of its decoder. A frame that asks for more is refused before any
/// memory is allocated for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of pixels in a picture: width times height.
    pub pixels: u64,
    /// Highest level of H.264 that is decoded.
    pub h264_level: H264Level,
}

impl Limits {
    /// Returns whether pictures of this size are decoded.
    pub(crate) fn allow(&self, width: u32, height: u32) -> bool {
        let sides = 1..=I420::MAX_SIDE;
        sides.contains(&width) && sides.contains(&height) && u64::from(width) * u64::from(height) <= self.pixels
    }
}

/// The default is the most that the decoders support: pictures of up to [`I420::MAX_SIDE`] on each
/// side, and H.264 up to level 5.2. It is meant for streams that this program has encoded.
impl Default for Limits {
    fn default() -> Self {
        Self { pixels: u64::from(I420::MAX_SIDE).pow(2), h264_level: H264Level::default() }
    }
}

/// A level of H.264 (A.3), 1.0 to 5.2: a bound of what a stream may ask of its decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct H264Level(u8);

/// Levels by their `level_idc`, with the macroblocks of all pictures that a decoder keeps at most
/// (MaxDpbMbs of H.264 table A-1).
const LEVELS: [(u8, u32); 16] = [
    (10, 396),
    (11, 900),
    (12, 2_376),
    (13, 2_376),
    (20, 2_376),
    (21, 4_752),
    (22, 8_100),
    (30, 8_100),
    (31, 18_000),
    (32, 20_480),
    (40, 32_768),
    (41, 32_768),
    (42, 34_816),
    (50, 110_400),
    (51, 184_320),
    (52, 184_320),
];

impl H264Level {
    /// Returns the level that a sequence parameter set names. The value 9 is level 1b of the High
    /// profiles, which keeps as many macroblocks as level 1.
    pub(crate) fn from_idc(idc: u8) -> Option<Self> {
        let idc = if idc == 9 { 10 } else { idc };
        LEVELS.iter().any(|(known, _)| *known == idc).then_some(Self(idc))
    }

    /// Returns the number of macroblocks of all pictures that a decoder keeps at most.
    pub(crate) fn kept_macroblocks(self) -> u32 {
        LEVELS.iter().find(|(idc, _)| *idc == self.0).map_or(0, |(_, macroblocks)| *macroblocks)
    }
}

/// Level 5.2, the highest that is decoded.
impl Default for H264Level {
    fn default() -> Self {
        Self(52)
    }
}

impl fmt::Display for H264Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 10, self.0 % 10)
    }
}

/// The text is not a level of H.264.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a level of H.264 that is decoded: write one of 1.0 to 1.3, 2.0 to 2.2, 3.0 to 3.2, 4.0 to 4.2, 5.0 to 5.2")]
pub struct UnknownLevel(String);

impl FromStr for H264Level {
    type Err = UnknownLevel;

    /// Parses the output of [`fmt::Display`], and also `4` for 4.0.
    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        let digit = |text: &str| text.parse::<u8>().ok().filter(|digit| *digit < 10 && text.len() == 1);
        let idc = digit(major).zip(digit(minor)).map(|(major, minor)| major * 10 + minor);
        idc.filter(|idc| *idc >= 10).and_then(Self::from_idc).ok_or_else(|| UnknownLevel(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_as_they_are_written() {
        for (idc, _) in LEVELS {
            let level = H264Level::from_idc(idc).unwrap();
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        assert_eq!("4".parse(), Ok(H264Level(40)));
        for text in ["", "6.0", "5.3", "0.9", "3.1.1", "31", "level 3", "3.", "+3.1"] {
            assert_eq!(text.parse::<H264Level>(), Err(UnknownLevel(text.into())));
        }
    }

    #[test]
    fn limits_count_pixels_and_sides() {
        let limits = Limits { pixels: 640 * 480, ..Limits::default() };
        assert!(limits.allow(640, 480) && limits.allow(480, 640) && limits.allow(4096, 75));
        assert!(!limits.allow(641, 480) && !limits.allow(0, 480) && !limits.allow(4097, 1));
    }
}
