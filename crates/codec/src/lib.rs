//! VP8 and H.264, colour conversion and scaling.
