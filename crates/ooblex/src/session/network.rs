//! What a session learns of its network, from estimates and reports, and who is told of it.

use std::time::{Duration, Instant};

use str0m::bwe::Bitrate;
use str0m::stats::{MediaEgressStats, PeerStats};
use tracing::debug;

use super::Session;
use crate::bandwidth::{Bandwidth, Finding};
use crate::labels::{Direction, LineCounts};
use crate::reception::Report;
use crate::track::{ReceptionFeedback, TrackInput};

impl Session {
    /// Tells the track what the network carries, and the library how far to look for more.
    pub(super) fn on_estimate(&mut self, now: Instant, estimate: Bitrate, rtt: Option<Duration>) {
        let bps = estimate.as_u64();
        let finding = self.bandwidth.as_mut().map_or(Finding::Changed(bps), |bandwidth| bandwidth.on_estimate(now, bps, rtt));
        if let Some(bandwidth) = &self.bandwidth {
            self.twice.on_estimate(bandwidth.told_bps(), bandwidth.is_ample());
        }
        let (bps, sought) = match finding {
            Finding::Nothing => return,
            Finding::Changed(bps) => (bps, Self::SOUGHT),
            Finding::BrokenDown(bps) => {
                debug!(session = %self.id, bps, "the network has broken down");
                self.give_up_what_waits();
                self.rtc.bwe().reset(Bitrate::bps(bps));
                (bps, Self::SOUGHT_NOT)
            }
            Finding::SearchAnew(bps) => {
                debug!(session = %self.id, bps, "looking for more");
                self.rtc.bwe().reset(Bitrate::bps(bps));
                (bps, Self::SOUGHT_FIRST)
            }
        };
        let told_bps = u32::try_from(bps).unwrap_or(u32::MAX);
        self.track.send(match finding {
            Finding::BrokenDown(_) => TrackInput::BrokenDown(told_bps),
            _ => TrackInput::Estimate(told_bps),
        });
        self.rtc.bwe().set_desired_bitrate(self.desired.min(Bitrate::bps(bps) * sought));
    }

    pub(super) fn on_peer_stats(&mut self, now: Instant, stats: &PeerStats) {
        if let Some(estimate) = stats.bwe_tx.filter(|_| self.bandwidth.is_some()) {
            self.on_estimate(now, estimate, stats.rtt);
        }
        let is_time = self.counts.0.is_none_or(|last| now.saturating_duration_since(last) >= Self::COUNTS_EVERY);
        self.counts = (if is_time { Some(now) } else { self.counts.0 }, is_time);
        if let Some(took) = stats.rtt.filter(|_| is_time) {
            self.track.metrics().on_round_trip(took);
        }
    }

    /// Tells the track how what was sent has fared.
    pub(super) fn on_reception(&mut self, stats: &MediaEgressStats) {
        let report = stats.remote.as_ref().map(|remote| (*remote.maximum_sequence_number, remote.packets_lost as u32));
        let lost = report.and_then(|(highest, lost)| self.reception.on_report(Report { highest, lost }));
        let resent = self.resent.share(stats.bytes);
        self.twice.on_loss(lost.unwrap_or(0.0).max(resent));
        let duplicated = self.twice.share(stats.bytes);
        if lost.is_some() || resent > 0.0 {
            let queued = self.bandwidth.as_ref().is_some_and(Bandwidth::has_standing_queue);
            self.track.send(TrackInput::Feedback(ReceptionFeedback { lost: lost.unwrap_or(0.0), resent, duplicated, queued }));
        }
    }

    /// Notes what has passed on the video line since it was looked at before.
    pub(super) fn on_counts(&mut self, direction: Direction, now: LineCounts) {
        let before = std::mem::replace(&mut self.counted[direction as usize], now);
        self.track.metrics().on_line(direction, &before, &now);
    }
}
