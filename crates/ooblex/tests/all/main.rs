//! Tests of the program: as a process, through HTTP, WebRTC and Redis. They are one binary, because
//! linking the program's libraries takes longer than compiling a test. The test runner runs them in
//! parallel; `common/machine.rs` keeps apart those that would disturb each other.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod adaptation;
mod apply;
mod bench;
mod chains;
mod common;
mod config;
mod events;
mod exposure;
mod gateway;
mod limits;
mod metrics;
mod network;
mod operation;
mod outages;
mod own;
mod permissions;
mod recordings;
mod redis_security;
mod regressions;
mod rooms;
mod sessions;
mod settings;
mod stills;
mod undecodable;
mod webhooks;
mod workers;
