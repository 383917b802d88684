//! How many pictures a video has a second: a fraction, as in its file, so that nothing drifts.

use std::fmt;
use std::str::FromStr;

/// Pictures a second, `count / per`; both above 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    count: u32,
    per: u32,
}

impl Rate {
    /// Rate of a file that does not state one.
    pub const THIRTY: Self = Self { count: 30, per: 1 };

    /// `None` for what is no rate.
    pub fn new(count: u32, per: u32) -> Option<Self> {
        (count > 0 && per > 0).then_some(Self { count, per })
    }

    /// As a number.
    pub fn hz(self) -> f64 {
        f64::from(self.count) / f64::from(self.per)
    }

    /// Counter and denominator.
    pub fn parts(self) -> (u32, u32) {
        (self.count, self.per)
    }
}

/// `30000:1001`, as YUV4MPEG2 has it.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.count, self.per)
    }
}

/// No rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRate;

/// Reads `30000:1001` and `30000/1001`.
impl FromStr for Rate {
    type Err = NoRate;

    fn from_str(text: &str) -> Result<Self, NoRate> {
        let (count, per) = text.split_once([':', '/']).ok_or(NoRate)?;
        Self::new(count.parse().map_err(|_| NoRate)?, per.parse().map_err(|_| NoRate)?).ok_or(NoRate)
    }
}
