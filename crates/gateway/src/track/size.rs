//! The size of a picture.

use ooblex_pipeline::I420;
use serde::Serialize;

/// The size of a picture in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Size {
    pub(super) width: u32,
    pub(super) height: u32,
}

impl Size {
    pub(super) const fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }

    /// Returns the size of a picture.
    pub(super) fn of(picture: &I420) -> Self {
        Self::new(picture.width(), picture.height())
    }

    pub(super) fn pixels(self) -> f64 {
        f64::from(self.width) * f64::from(self.height)
    }

    pub(super) fn shorter_side(self) -> u32 {
        self.width.min(self.height)
    }
}
