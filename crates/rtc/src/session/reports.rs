//! The reports on the video line: packet counts for metrics, and the losses that the browser
//! reports.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use str0m::media::Rid;
use str0m::stats::{MediaEgressStats, MediaIngressStats};

use crate::reception::{Reception, Report};
use ooblex_gateway::labels::LineCounts;

/// Time between two reports. Browsers report losses about once per second.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Largest share of losses that is believed, so that the number of lost packets stays finite.
const MAX_LOSS: f64 = 0.99;

/// The reports on the video line of one session. The WebRTC library gives the statistics of the
/// peer, then of each line, several times per second. [`Reports::begin`] decides whether those of
/// the lines are due.
#[derive(Debug, Default)]
pub(super) struct Reports {
    begun_at: Option<Instant>,
    is_due: bool,
    /// The counts of each simulcast layer.
    incoming: HashMap<Option<Rid>, LineCounts>,
    outgoing: LineCounts,
    reception: Reception,
}

/// Two successive counts of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) before: LineCounts,
    pub(super) now: LineCounts,
}

impl Reports {
    /// The statistics of the peer have come. Returns whether a report is due, one per
    /// [`REPORT_INTERVAL`].
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        self.is_due = self.begun_at.is_none_or(|last| now.saturating_duration_since(last) >= REPORT_INTERVAL);
        if self.is_due {
            self.begun_at = Some(now);
        }
        self.is_due
    }

    /// Returns whether the statistics of the lines that follow belong to a report.
    pub(super) fn is_due(&self) -> bool {
        self.is_due
    }

    /// Takes the statistics of the incoming video, or of one simulcast layer of it. The library tells only the share of losses of
    /// the last second, from which the number is estimated.
    pub(super) fn on_incoming(&mut self, stats: &MediaIngressStats) -> Counted {
        let before = self.incoming.get(&stats.rid).copied().unwrap_or_default();
        let share = f64::from(stats.loss.unwrap_or(0.0)).clamp(0.0, MAX_LOSS);
        let received = stats.packets.saturating_sub(before.packets) as f64;
        let lost = before.lost + (received * share / (1.0 - share)).round() as u64;
        let now = LineCounts { packets: stats.packets, bytes: stats.bytes, lost, nacks: stats.nacks, plis: stats.plis };
        self.incoming.insert(stats.rid, now);
        Counted { before, now }
    }

    /// Takes the statistics of the outgoing video.
    pub(super) fn on_outgoing(&mut self, stats: &MediaEgressStats) -> Counted {
        let lost = stats.remote.as_ref().map_or(0, |remote| remote.packets_lost);
        let now = LineCounts { packets: stats.packets, bytes: stats.bytes, lost, nacks: stats.nacks, plis: stats.plis };
        Counted { before: std::mem::replace(&mut self.outgoing, now), now }
    }

    /// Returns the share of packets that the browser has lost since the last report, 0..=1; `None`
    /// if it has not told.
    pub(super) fn lost_share(&mut self, stats: &MediaEgressStats) -> Option<f32> {
        let remote = stats.remote.as_ref()?;
        self.reception.on_report(Report { highest: *remote.maximum_sequence_number, lost: remote.packets_lost as u32 })
    }
}

#[cfg(test)]
mod tests {
    use str0m::media::Mid;
    use str0m::stats::RemoteIngressStats;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn incoming(packets: u64, loss: Option<f32>) -> MediaIngressStats {
        MediaIngressStats {
            mid: Mid::from("0"),
            rid: None,
            bytes: 1000 * packets,
            packets,
            firs: 0,
            plis: 2,
            nacks: 3,
            jitter: 0,
            rtt: None,
            loss,
            timestamp: Instant::now(),
            remote: None,
        }
    }

    fn outgoing(packets: u64, remote: Option<(u64, u64)>) -> MediaEgressStats {
        let remote =
            remote.map(|(highest, packets_lost)| RemoteIngressStats { jitter: 0, maximum_sequence_number: highest.into(), packets_lost });
        MediaEgressStats {
            mid: Mid::from("0"),
            rid: None,
            bytes: 1000 * packets,
            packets,
            firs: 0,
            plis: 2,
            nacks: 3,
            rtt: None,
            loss: None,
            timestamp: Instant::now(),
            remote,
        }
    }

    #[test]
    fn report_is_due_once_per_second() {
        let began = Instant::now();
        let mut reports = Reports::default();
        let due: Vec<_> = (0..25).filter(|n| reports.begin(began + 100 * *n * MS)).collect();
        assert_eq!(due, [0, 10, 20]);
        assert!(!reports.is_due());
    }

    #[test]
    fn lost_packets_of_the_camera_are_estimated_from_the_share_of_each_second() {
        let mut reports = Reports::default();
        assert_eq!(reports.on_incoming(&incoming(90, Some(0.1))).now.lost, 10);
        assert_eq!(reports.on_incoming(&incoming(180, None)).now.lost, 10);
        let last = reports.on_incoming(&incoming(210, Some(0.25)));
        assert_eq!((last.before.packets, last.now), (180, LineCounts { packets: 210, bytes: 210_000, lost: 20, nacks: 3, plis: 2 }));
        assert_eq!(reports.on_incoming(&incoming(211, Some(1.0))).now.lost, 119, "all is at most 99 %");
    }

    #[test]
    fn lost_packets_of_the_effect_are_those_that_the_browser_reports() {
        let mut reports = Reports::default();
        let first = outgoing(100, Some((100, 5)));
        assert_eq!((reports.lost_share(&first), reports.on_outgoing(&first).now.lost), (None, 5));
        let second = outgoing(200, Some((200, 15)));
        assert_eq!(reports.lost_share(&second), Some(0.1));
        let counted = reports.on_outgoing(&second);
        assert_eq!((counted.before.lost, counted.now), (5, LineCounts { packets: 200, bytes: 200_000, lost: 15, nacks: 3, plis: 2 }));
        assert_eq!(reports.lost_share(&outgoing(300, None)), None, "a browser that reports nothing");
    }
}
