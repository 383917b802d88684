//! How frames leave a session: one after another, and while they wait they can still be given up.

use std::time::Instant;

use ooblex_pipeline::EncodedFrame;
use str0m::media::Frequency;

use super::{EndReason, Session};
use crate::track::TrackInput;

impl Session {
    pub(super) fn hold(&mut self, frame: EncodedFrame, arrived: Instant) {
        if self.video.is_none() {
            return;
        }
        if self.held.len() == Self::MOST_HELD {
            // The track leaves pictures out long before.
            self.drop_held();
        }
        if self.has_dropped && !frame.keyframe {
            // It builds on one that never left, which nobody could tell from its packets.
            self.track.send(TrackInput::KeyframeWanted);
            return;
        }
        self.has_dropped = false;
        self.held.push_back((frame, arrived));
    }

    pub(super) fn drop_held(&mut self) {
        self.has_dropped |= !self.held.is_empty();
        self.held.clear();
    }

    /// Gives the endpoint the next frame, if it has sent all that it has. Returns whether it did.
    pub(super) fn write_next(&mut self) -> Result<bool, EndReason> {
        if self.held.is_empty() || self.unsent_bytes() > 0 {
            return Ok(false);
        }
        let Some((frame, arrived)) = self.held.pop_front() else { return Ok(false) };
        self.write_frame(frame, arrived)?;
        Ok(true)
    }

    /// Bytes of frames that the endpoint has not sent yet.
    pub(super) fn unsent_bytes(&mut self) -> usize {
        let Some(video) = self.video else { return 0 };
        let mut api = self.rtc.direct_api();
        api.stream_tx_by_mid(video.mid, None).and_then(|stream| stream.queue_info()).map_or(0, |queue| queue.byte_size())
    }

    pub(super) fn write_frame(&mut self, frame: EncodedFrame, arrived: Instant) -> Result<(), EndReason> {
        let Some((video, writer)) = self.video.and_then(|video| Some((video, self.rtc.writer(video.mid)?))) else { return Ok(()) };
        self.resent.on_written(frame.data.len());
        let time = str0m::media::MediaTime::new(frame.capture.0, Frequency::NINETY_KHZ);
        // The browser shows each frame as soon as it is decoded: a mirror that lags is worse than one that now and then jerks.
        let asap = str0m::media::MediaTime::ZERO;
        let writer = writer.playout_delay(asap, asap);
        writer.write(video.pt, arrived, time, frame.data).map_err(|error| self.failed(&error))
    }

    /// What was lost or waits would take the place of what is new: it is not sent (again).
    pub(super) fn give_up_what_waits(&mut self) {
        self.drop_held();
        self.redundancy.stop();
        let Some(video) = self.video else { return };
        if let Some(stream) = self.rtc.direct_api().stream_tx_by_mid(video.mid, None) {
            let (packets, age) = Self::RESENDABLE;
            stream.set_rtx_cache(packets, age, Some(Self::MOST_RESENT));
        }
    }

    /// The track leaves pictures out while much waits to be sent.
    pub(super) fn tell_backlog(&mut self) {
        let held: usize = self.held.iter().map(|(frame, _)| frame.data.len()).sum();
        let unsent = self.unsent_bytes();
        self.track.set_backlog(held + unsent);
    }
}
