//! Sessions and their tracks.
//!
//! [`track`] decodes, prepares, paints and encodes the frames of a session, [`cpu`] shares the cores
//! among tracks, and [`metrics`] counts what happens. [`settings`] are the effects that can be asked
//! for, [`restrictions`] what a token leaves of them. The crate `ooblex-rtc` has the WebRTC side of
//! a session.

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
pub mod settings;
pub mod track;
pub mod watchdog;
