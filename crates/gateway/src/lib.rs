//! Sessions and their tracks.
//!
//! [`rtc`] has the WebRTC side of a session, [`track`] decodes, prepares, paints and encodes its
//! frames, [`cpu`] shares the cores among tracks, and [`metrics`] counts what happens. [`settings`]
//! are the effects that can be asked for, [`restrictions`] what a token leaves of them.

pub mod client_network;
pub mod cpu;
pub mod data_channel;
pub mod events;
pub mod ids;
pub mod labels;
pub mod metrics;
pub mod notify;
pub mod problem;
pub mod restrictions;
pub mod rounding;
pub mod rtc;
pub mod settings;
pub mod track;
pub mod watchdog;
