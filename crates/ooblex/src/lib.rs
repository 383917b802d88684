//! WebRTC gateway that applies effects to live video, and the commands of the program.
//!
//! [`serve`] builds the gateway, [`worker`] the process that only runs models. Path of a frame:
//! [`rtc::transport`] (UDP socket) ▸ [`rtc::session`] (WebRTC) ▸ [`track`] (decode, prepare, paint, encode) ▸
//! broker ▸ [`workers`] (models) ▸ [`track`] ▸ [`rtc::session`] ▸ [`rtc::transport`].

pub mod about;
pub mod admission;
pub mod apply;
mod assets;
pub mod auth;
mod authority;
pub mod check;
pub mod config;
pub mod cpu;
pub mod custom_effects;
mod data_channel;
pub mod events;
#[doc(hidden)]
pub mod fuzz;
pub mod health;
pub mod http;
pub mod ids;
pub mod labels;
pub mod logs;
pub mod metrics;
mod notify;
pub mod problem;
pub mod reload;
mod rounding;
pub mod rtc;
mod sample;
pub mod sandbox;
pub mod serve;
mod server;
pub mod sessions;
pub mod settings;
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
