//! The HTTP side of the gateway.
//!
//! [`http`] has the routes, [`auth`] decides who may use them, [`server`] accepts connections within
//! their limits, and [`sessions`] lists the sessions that run. [`peers`] are other servers that rooms
//! exchange video with. [`custom_effects`] reads, tries and offers the effects of the operator.

pub mod admission;
pub mod assets;
pub mod auth;
mod backoff;
pub mod custom_effects;
pub mod http;
pub mod jpeg;
mod outgoing;
pub mod peers;
pub mod picture;
pub mod pictures;
pub mod rooms;
pub mod sample;
pub mod server;
pub mod sessions;
pub mod still;
pub mod thumbnails;
pub mod tls;
pub mod turn;
pub mod visitor;
pub mod webhooks;
