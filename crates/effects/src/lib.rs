//! The effects: what a model sees in a frame, and what is painted for it.
