//! The data channel `control` of a session, on which the browser and the track exchange messages.

use str0m::channel::{ChannelData, ChannelId};
use str0m::{Rtc, RtcError};

/// Label of the data channel. Channels with other labels are ignored.
const LABEL: &str = "control";
/// Longest message that is read, bytes.
const MAX_MESSAGE_BYTES: usize = 16 * 1024;
/// Unacknowledged bytes above which messages that may be missed are not sent.
const MAX_BACKLOG_BYTES: usize = 64 * 1024;

/// The data channel `control`, once the browser has opened it.
#[derive(Debug, Default)]
pub(super) struct ControlChannel {
    id: Option<ChannelId>,
}

/// A message of the browser; `None` if it was longer than [`MAX_MESSAGE_BYTES`].
pub(super) type Message = Option<Vec<u8>>;

impl ControlChannel {
    /// The browser has opened a channel. Returns true if it is this one.
    pub(super) fn on_open(&mut self, id: ChannelId, label: &str) -> bool {
        let is_own = label == LABEL;
        if is_own {
            self.id = Some(id);
        }
        is_own
    }

    /// A channel is closed.
    pub(super) fn on_close(&mut self, id: ChannelId) {
        self.id = self.id.filter(|own| *own != id);
    }

    /// Takes the data of a channel. Returns `None` for data of another channel.
    pub(super) fn read(&self, data: ChannelData) -> Option<Message> {
        (self.id == Some(data.id)).then(|| Some(data.data).filter(|text| text.len() <= MAX_MESSAGE_BYTES))
    }

    /// Sends a message if the channel is open. `may_be_missed`: it is dropped when the browser is
    /// slow to acknowledge earlier ones.
    ///
    /// # Errors
    /// When the WebRTC library fails.
    pub(super) fn write(&self, rtc: &mut Rtc, text: &str, may_be_missed: bool) -> Result<(), RtcError> {
        let Some(mut channel) = self.id.and_then(|id| rtc.channel(id)) else { return Ok(()) };
        if may_be_missed && channel.buffered_amount() > MAX_BACKLOG_BYTES {
            return Ok(());
        }
        channel.write(false, text.as_bytes()).map(drop)
    }

    /// Returns the bytes that the browser has not acknowledged.
    pub(super) fn unacknowledged_bytes(&self, rtc: &mut Rtc) -> usize {
        self.id.and_then(|id| rtc.channel(id)).map_or(0, |mut channel| channel.buffered_amount())
    }
}
