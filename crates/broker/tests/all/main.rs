//! Tests of the broker: its contract on every kind of it, and failures that only Redis has.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod contract;
mod redis;
