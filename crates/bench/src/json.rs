//! The figures as JSON. docs/bench.md defines each name.

use serde_json::{Map, Value, json};

use super::figures::{Outcome, REASONS, Summary, is_known, ms, set_up_ms, spread};
use super::load_generator::{Second, SessionFigures};
use super::session_stats::Numbering;
use super::viewer::State;
use crate::rounding::round;
use ooblex_client::link::Conditions;

impl Outcome<'_> {
    /// Returns all figures as one object.
    pub(super) fn to_json(&self) -> Value {
        let summary = Summary::of(&self.measured);
        let mut object = Map::new();
        let mut add = |part: Value| {
            if let Value::Object(part) = part {
                object.extend(part);
            }
        };
        add(self.set_up_json());
        add(summary.to_json());
        let gateway = &summary.all.sum.gateway;
        add(json!({
            "setup_ms": spread(self.measured.connected().filter_map(set_up_ms)),
            "first_picture_ms": spread(self.measured.connected().filter_map(|session| Some(ms(session.first_picture?)))),
            "setup_errors": self.measured.failures().take(REASONS).collect::<Vec<_>>(),
            "lost_sessions": self.measured.sessions.iter().filter_map(|session| match &session.state {
                State::Lost { reason, .. } => Some(json!({"session": session.index, "reason": reason})),
                _ => None,
            }).collect::<Vec<_>>(),
            "gateway": (gateway.reports > 0).then(|| json!({
                "fps_in": gateway.mean(gateway.fps_in).map(round),
                "fps_analysed": gateway.mean(gateway.fps_analysed).map(round),
                "fps_out": gateway.mean(gateway.fps_out).map(round),
                "worker_utilisation": gateway.mean(gateway.utilisation).map(round),
                "stages_ms": gateway.stages().map(|(stage, ms)| (stage.to_string(), json!(round(ms)))).collect::<Map<_, _>>(),
                "dropped": gateway.dropped,
            })),
        }));
        if let Some(churned) = &self.churned {
            add(churned.common_json());
            add(json!({"churn": churned.to_json()}));
        }
        if let Some(knee) = &self.knee {
            add(json!({"knee": knee.to_json()}));
        }
        add(json!({
            "per_session": self.measured.sessions.iter().map(|session| session_json(session, self.measured.seconds)).collect::<Vec<_>>(),
            "series": self.measured.series.iter().map(|second| second_json(second, self.measured.from_s)).collect::<Vec<_>>(),
        }));
        object.into()
    }

    fn set_up_json(&self) -> Value {
        let (plan, clip) = (self.plan, self.clip);
        let network = |conditions: &Conditions| {
            json!({
                "loss_percent": round(conditions.loss * 100.0), "delay_ms": ms(conditions.delay), "jitter_ms": ms(conditions.jitter),
                "rate_kbps": conditions.rate_bps.map(|bps| bps / 1000),
            })
        };
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "url": plan.url,
            "sessions": self.sessions(),
            "duration_s": round(self.measured.seconds),
            "warm_up_s": round(plan.warm_up.as_secs_f64()),
            "clip": {
                "file": plan.clip.file.as_ref().map(|file| file.display().to_string()),
                "width": clip.size.0, "height": clip.size.1, "fps": clip.fps, "frames": clip.frames.len(),
                "codec": clip.codec.label(), "bitrate_kbps": clip.bitrate_bps / 1000,
            },
            "effects": self.effects(),
            "network": {
                "up": network(&plan.up), "down": network(&plan.down),
                "outage_s": plan.outage.map(|(start, length)| [start.as_secs_f64(), length.as_secs_f64()]),
                "bad_s": plan.bad.map(|(start, length)| [start.as_secs_f64(), length.as_secs_f64()]),
            },
        })
    }
}

impl Summary {
    fn to_json(&self) -> Value {
        let sum = &self.all.sum;
        let at = |quantile| self.all.latency_ms(quantile).map(round);
        json!({
            "numbers": self.numbers,
            "fps_sent_min": self.fps_sent_min.map(round),
            "fps_shown_min": self.fps_shown_min.map(round),
            "fps_processed_min": self.fps_processed_min.map(round),
            "fps_shown_total": round(self.fps_shown_total),
            "fps_processed_total": round(self.fps_processed_total),
            "latency_ms": {"p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": at(1.0)},
            "longest_freeze_ms": ms(sum.longest_freeze),
            "order_errors": sum.order_errors,
            "raw_leaks": self.raw_leaks,
            "judged": sum.judged,
            "numbers_read": sum.read,
            "numbers_unreadable": sum.unreadable,
            "number_mismatches": sum.mismatched,
            "repeats": sum.repeats,
            "gaps": sum.gaps,
            "undecodable": sum.undecodable,
            "keyframes": sum.keyframes,
            "keyframes_wanted": sum.keyframes_wanted,
            "keyframes_asked": sum.keyframes_asked,
            "bitrate_kbps": {"up": round(self.kbps_up), "down": round(self.kbps_down)},
            "setup_failures": self.setup_failures,
            "sessions_lost": self.sessions_lost,
            "gateway_cpu_cores": self.gateway_cpu_cores.map(round),
            "gateway_memory_mb": self.gateway_memory_mb.map(round),
            "bench_cpu_cores": self.bench_cpu_cores.map(round),
            "sent_late": sum.sent_late,
        })
    }
}

fn session_json(session: &SessionFigures, seconds: f64) -> Value {
    let sum = &session.totals.sum;
    let (rate, at) = (|count: u64| round(count as f64 / seconds.max(1e-3)), |quantile| session.totals.latency_ms(quantile).map(round));
    let kbps = |bytes: u64| round(bytes as f64 * 8.0 / 1e3 / seconds.max(1e-3));
    let (state, reason) = match &session.state {
        State::SettingUp => ("setting_up", None),
        State::Up { .. } => ("up", None),
        State::Left { .. } => ("left", None),
        State::Failed(reason) => ("failed", Some(reason)),
        State::Lost { reason, .. } => ("lost", Some(reason)),
    };
    json!({
        "session": session.index, "effect": session.effect, "state": state, "reason": reason,
        "numbers": match session.numbering {
            Numbering::Timestamp => "timestamp",
            Numbering::Picture if session.decoded => "picture",
            Numbering::Picture | Numbering::Unknown => "none",
        },
        "decoded": session.decoded,
        "setup_ms": set_up_ms(session), "first_picture_ms": session.first_picture.map(ms),
        "fps_sent": rate(sum.sent), "fps_shown": rate(sum.shown),
        "fps_processed": is_known(session).then(|| rate(sum.processed)),
        "latency_ms": {"p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": at(1.0)},
        "longest_freeze_ms": ms(sum.longest_freeze), "order_errors": sum.order_errors,
        "raw_leaks": (sum.judged > 0).then_some(sum.raw), "judged": sum.judged,
        "numbers_read": sum.read, "numbers_unreadable": sum.unreadable, "number_mismatches": sum.mismatched,
        "repeats": sum.repeats, "gaps": sum.gaps, "undecodable": sum.undecodable,
        "keyframes_wanted": sum.keyframes_wanted, "keyframes_asked": sum.keyframes_asked,
        "bitrate_kbps": {"up": kbps(sum.bytes_up), "down": kbps(sum.bytes_down)},
        "datagrams_lost": {"up": sum.lost_up, "down": sum.lost_down},
        "sent_late": sum.sent_late,
    })
}

fn second_json(second: &Second, from_s: f64) -> Value {
    let at = |quantile| second.latency_ms(quantile).map(round);
    let sum = &second.all;
    json!({
        "at_s": round(second.at_s - from_s), "counted": second.at_s > from_s + 1e-6, "sessions": second.sessions,
        "fps_sent": round(second.rate(sum.sent)), "fps_shown": round(second.rate(sum.shown)), "fps_processed": round(second.rate(sum.processed)),
        "fps_processed_min": round(second.least_processed as f64 / second.length_s.max(1e-3)),
        "latency_ms": {"p50": at(0.5), "p95": at(0.95), "max": at(1.0)},
        "longest_freeze_ms": ms(sum.longest_freeze),
        "kbps_up": round(second.rate(sum.bytes_up) * 8.0 / 1e3), "kbps_down": round(second.rate(sum.bytes_down) * 8.0 / 1e3),
        "gateway_cpu_cores": second.gateway.cpu_cores.map(round), "gateway_memory_mb": second.gateway.memory_mb.map(round),
        "bench_cpu_cores": second.own.cpu_cores.map(round),
        "keyframes": sum.keyframes,
        "target_kbps": sum.gateway.mean(sum.gateway.target_kbps).map(round), "height": sum.gateway.mean(sum.gateway.height).map(round),
        "stages_ms": sum.gateway.stages().map(|(stage, ms)| (stage.to_string(), json!(round(ms)))).collect::<Map<_, _>>(),
    })
}
