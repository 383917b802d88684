//! Containers of video: Y4M for pictures that are not compressed, and IVF for VP8.

pub mod ivf;
pub mod rate;
pub mod y4m;
