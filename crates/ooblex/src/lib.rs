//! The gateway: what stands between browsers and effects, and the commands of the program.
//!
//! [`serve`] wires it up, [`worker`] the process that only runs models. A frame's way: [`transport`] (the media socket) ▸
//! [`session`] (WebRTC) ▸ [`track`] (decode, prepare, paint, encode) ▸ broker ▸ [`workers`] (models) ▸ [`track`] ▸ [`session`] ▸
//! [`transport`].

pub mod about;
pub mod admission;
mod allowance;
pub mod apply;
mod assets;
pub mod auth;
mod authority;
mod bandwidth;
pub mod bench;
pub mod check;
pub mod client;
pub mod config;
mod control;
pub mod cpu;
pub mod events;
#[doc(hidden)]
pub mod fuzz;
pub mod health;
pub mod http;
pub mod ids;
pub mod labels;
pub mod logs;
mod media_budget;
pub mod metrics;
pub mod negotiate;
mod notify;
pub mod own;
mod paths;
pub mod problem;
mod rate;
mod reception;
pub mod reload;
mod rounding;
mod sample;
pub mod sandbox;
mod sctp;
mod sdp;
pub mod serve;
mod server;
pub mod session;
pub mod sessions;
pub mod settings;
mod start;
mod stun;
pub mod thumbnails;
pub mod tls;
pub mod token;
pub mod track;
mod traffic;
pub mod transport;
pub mod turn;
mod visitor;
pub mod watchdog;
pub mod worker;
pub mod workers;
mod y4m;
