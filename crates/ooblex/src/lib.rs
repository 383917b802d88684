//! The gateway: what stands between browsers and effects, and the commands of the program.
//!
//! [`serve`] wires it up, [`worker`] the process that only runs models. A frame's way:
//! [`rtc::transport`] (the media socket) ▸ [`rtc::session`] (WebRTC) ▸ [`track`] (decode, prepare,
//! paint, encode) ▸ broker ▸ [`workers`] (models) ▸ [`track`] ▸ [`rtc::session`] ▸
//! [`rtc::transport`].

pub mod about;
pub mod admission;
pub mod apply;
mod assets;
pub mod auth;
mod authority;
pub mod bench;
pub mod check;
pub mod client;
pub mod config;
pub mod cores;
mod data_channel;
pub mod events;
pub mod figures;
#[doc(hidden)]
pub mod fuzz;
pub mod health;
pub mod http;
pub mod ids;
pub mod labels;
pub mod logs;
pub mod metrics;
mod notify;
pub mod own;
pub mod problem;
mod rate;
pub mod reload;
mod rounding;
pub mod rtc;
mod sample;
pub mod sandbox;
pub mod serve;
mod server;
pub mod sessions;
pub mod settings;
pub mod shares;
mod start;
pub mod thumbnails;
pub mod tls;
pub mod token;
pub mod track;
pub mod turn;
mod visitor;
pub mod watchdog;
pub mod worker;
pub mod workers;
mod y4m;
