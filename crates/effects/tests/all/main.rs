//! Tests of the effects with their real models, on both backends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod devices;
mod golden;
mod own;
mod quality;
mod reference;
mod rewritten;
mod safety;
