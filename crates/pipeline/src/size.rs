//! The size of a picture.

use serde::Serialize;

/// The size of a picture in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Size {
    /// Number of columns.
    pub width: u32,
    /// Number of rows.
    pub height: u32,
}

impl Size {
    /// Creates a size.
    pub const fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }

    /// Returns the number of pixels.
    pub fn pixels(self) -> f64 {
        f64::from(self.width) * f64::from(self.height)
    }

    /// Returns this size if it has at most `most` pixels, otherwise a smaller one of the same shape
    /// with even sides. It is in sixteenths where it is not very small, so that 3840×2160 becomes
    /// 1920×1080.
    pub fn within(self, most: u64) -> Self {
        if self.pixels() <= most as f64 {
            return self;
        }
        let ratio = (most as f64 / self.pixels()).sqrt();
        let ratio = if ratio >= 0.25 { (ratio * 16.0).floor() / 16.0 } else { ratio };
        let even = |side: f64| 2 * ((side / 2.0) as u32).max(1);
        let scaled = |side: u32| even(f64::from(side) * ratio);
        // A side of less than two pixels grows to two, and the other one shrinks for it.
        let (width, height) = (scaled(self.width), scaled(self.height));
        let beside = |side: u32| even(most as f64 / f64::from(side));
        Self::new(width.min(beside(height)), height.min(beside(width)))
    }

    /// Returns the smaller one of width and height.
    pub fn shorter_side(self) -> u32 {
        self.width.min(self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_beyond_the_limit_becomes_an_even_one_of_the_same_shape() {
        for ((width, height), most, expected) in [
            ((1920, 1080), 2_100_000, (1920, 1080)),
            ((637, 479), 2_100_000, (637, 479)),
            ((1920, 1200), 2_100_000, (1800, 1124)),
            ((2560, 1440), 2_100_000, (1920, 1080)),
            ((3840, 2160), 2_100_000, (1920, 1080)),
            ((2160, 3840), 2_100_000, (1080, 1920)),
            ((3840, 2160), 10_000, (132, 74)),
            ((4096, 1), 1_000, (500, 2)),
            ((1, 4096), 1_000, (2, 500)),
        ] {
            let size = Size::new(width, height).within(most);
            assert_eq!((size.width, size.height), expected, "{width}x{height}");
            assert!(size.pixels() <= most as f64);
        }
    }
}
