//! The picture that effects are shown and tried on.

/// NASA's portrait of Eileen Collins, in the public domain: see `models/README.md`. 320×180.
pub(crate) const SAMPLE: &[u8] = include_bytes!("thumbnails/sample.png");
