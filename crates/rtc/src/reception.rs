//! Losses from receiver reports (RFC 3550 §6.4.1), computed from their running counts.
//!
//! The fraction in a report itself is not used. A receiver that gets a packet twice, because it
//! requested it twice, has a negative number of losses, which some receivers report as a loss of
//! everything.

/// Largest number of packets between two reports. More belong to another stream (some receivers
/// also report on the stream of retransmissions), or to a new beginning.
const MAX_PACKETS: u64 = 20_000;
/// Overhead of packets over the frames that they carry, as a divisor of the frames' bytes.
const OVERHEAD_DIVISOR: u64 = 50;

/// The receiver reports of one stream.
#[derive(Debug, Default)]
pub(crate) struct Reception {
    last: Option<Report>,
}

/// The counts of a receiver report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Report {
    /// The highest sequence number received, extended.
    pub highest: u64,
    /// Packets lost since the beginning, less those received twice: 24 bits with a sign.
    pub lost: u32,
}

impl Reception {
    /// Takes a report. Returns the share of packets that was lost since the last one, 0..=1; `None`
    /// if the two cannot be compared.
    pub(crate) fn on_report(&mut self, report: Report) -> Option<f32> {
        let last = self.last.replace(report)?;
        let expected = report.highest.checked_sub(last.highest).filter(|packets| (1..=MAX_PACKETS).contains(packets))?;
        let lost = signed(report.lost.wrapping_sub(last.lost)).max(0);
        Some((lost as f32 / expected as f32).min(1.0))
    }
}

/// The share of retransmissions in what is sent.
#[derive(Debug, Default)]
pub(crate) struct Resent {
    written_bytes: u64,
    last_written_bytes: u64,
    last_sent_bytes: u64,
}

impl Resent {
    /// A frame of this size is sent for the first time.
    pub(crate) fn on_written(&mut self, bytes: usize) {
        self.written_bytes += bytes as u64;
    }

    /// Returns the share of retransmissions in the bytes that were sent since the last call, 0..=1.
    /// `sent_bytes`: all bytes sent since the beginning.
    pub(crate) fn share(&mut self, sent_bytes: u64) -> f32 {
        let written = self.written_bytes - self.last_written_bytes;
        let sent = sent_bytes.saturating_sub(self.last_sent_bytes);
        (self.last_written_bytes, self.last_sent_bytes) = (self.written_bytes, sent_bytes);
        let resent = sent.saturating_sub(written + written / OVERHEAD_DIVISOR);
        if sent == 0 { 0.0 } else { resent as f32 / sent as f32 }
    }
}

/// Returns the value of a signed number of 24 bits.
fn signed(bits: u32) -> i32 {
    (bits << 8) as i32 >> 8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(reports: &[(u64, u32)]) -> Vec<Option<f32>> {
        let mut reception = Reception::default();
        reports.iter().map(|(highest, lost)| reception.on_report(Report { highest: *highest, lost: *lost })).collect()
    }

    #[test]
    fn losses_are_those_between_two_reports() {
        assert_eq!(shares(&[(1000, 7), (1100, 17), (1300, 17), (1400, 67)]), [None, Some(0.1), Some(0.0), Some(0.5)]);
    }

    #[test]
    fn packets_that_came_twice_are_no_losses() {
        let below_zero = 0x00ff_fffe;
        assert_eq!(shares(&[(1000, 3), (1100, 0), (1200, below_zero), (1300, 8)]), [None, Some(0.0), Some(0.0), Some(0.1)]);
    }

    #[test]
    fn what_is_sent_beyond_what_was_written_was_sent_again() {
        let mut resent = Resent::default();
        resent.on_written(10_000);
        assert_eq!(resent.share(10_100), 0.0);
        resent.on_written(10_000);
        assert!((resent.share(22_850) - 0.2).abs() < 0.01);
        assert_eq!(resent.share(22_850), 0.0, "nothing was sent");
        resent.on_written(10_000);
        assert_eq!(resent.share(22_850), 0.0, "it still waits");
    }

    #[test]
    fn reports_that_can_not_be_compared_say_nothing() {
        assert_eq!(shares(&[(1000, 0), (1000, 5), (900, 0), (900_000, 0), (900_100, 25)]), [None, None, None, None, Some(0.25)]);
        assert_eq!(shares(&[(u64::MAX, u32::MAX), (0, 0), (100, u32::MAX / 2)])[2], Some(0.0));
    }
}
