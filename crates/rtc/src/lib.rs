//! WebRTC: the media socket, one endpoint for each session, and the limits on what sessions send.
//!
//! [`transport`] owns the sockets, the media thread and its clock. [`session`] is one WebRTC
//! connection, which takes the time as an argument. [`negotiate`] makes an endpoint and an SDP
//! answer from an SDP offer, and offers of the gateway to other servers; [`sdp`] reads the offer, and
//! writes both for the WebRTC library and for the browser. [`candidates`] are the addresses in the
//! answer. `colour_extension` reads the colours of a video.
//!
//! Limits on incoming packets: `rate_limit` (a token bucket), `traffic` (which bucket a datagram
//! spends), `paths` (the addresses of a session), `remote` (an address with its protocol),
//! `media_budget` (time on the media thread), `stun` and `sctp` (the fields that are read before the
//! WebRTC library reads a datagram), `crypto` (which packets were authenticated).
//!
//! Sending: `bandwidth` (the bandwidth estimate), `reception` (reported losses), `redundancy`
//! (packets that are sent twice), `retransmission` (packets that are sent again without RTX).

mod bandwidth;
pub mod candidates;
pub mod colour_extension;
mod crypto;
mod media_budget;
pub mod negotiate;
mod paths;
mod rate_limit;
mod reception;
mod redundancy;
mod remote;
mod retransmission;
pub mod sctp;
pub mod sdp;
pub mod session;
#[cfg(test)]
mod simulation;
pub mod stun;
mod traffic;
pub mod transport;

pub use crypto::install_cryptography;
