//! Containers of video: Y4M for pictures that are not compressed, IVF for VP8, and Matroska for
//! compressed pictures with sound.

pub mod ivf;
pub mod matroska;
pub mod rate;
pub mod y4m;
