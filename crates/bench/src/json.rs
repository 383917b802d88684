//! The figures as JSON. docs/bench.md defines each name.

use ooblex_pipeline::round;
use serde_json::{Map, Value, json};

use super::figures::{Outcome, REASONS, Summary, is_known, ms, set_up_ms, spread};
use super::load_generator::{Second, SessionFigures};
use super::plan::Interval;
use super::session_stats::Numbering;
use super::viewer::State;
use ooblex_client::link::Conditions;

/// Returns all figures as one object.
pub(super) fn json(outcome: &Outcome<'_>) -> Value {
    let summary = Summary::of(&outcome.measured);
    let mut object = Map::new();
    let mut add = |part: Value| {
        if let Value::Object(part) = part {
            object.extend(part);
        }
    };
    add(run_json(outcome));
    add(summary_json(&summary));
    let gateway = &summary.all.sum.gateway;
    add(json!({
        "setup_ms": spread(outcome.measured.connected().filter_map(set_up_ms)),
        "first_picture_ms": spread(outcome.measured.connected().filter_map(|session| Some(ms(session.first_picture?)))),
        "setup_errors": outcome.measured.failures().take(REASONS).collect::<Vec<_>>(),
        "lost_sessions": outcome.measured.sessions.iter().filter_map(|session| match &session.state {
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
    if let Some(churned) = &outcome.churned {
        add(churned.common_json());
        add(json!({"churn": churned.to_json()}));
    }
    if let Some(knee) = &outcome.knee {
        add(json!({"knee": knee.to_json()}));
    }
    add(json!({
        "per_session": outcome.measured.sessions.iter().map(|session| session_json(session, outcome.measured.seconds)).collect::<Vec<_>>(),
        "series": outcome.measured.series.iter().map(|second| second_json(second, outcome.measured.from_s)).collect::<Vec<_>>(),
    }));
    object.into()
}

fn run_json(outcome: &Outcome<'_>) -> Value {
    let (plan, clip) = (outcome.plan, outcome.clip);
    let seconds = |interval: Interval| [interval.start.as_secs_f64(), interval.length.as_secs_f64()];
    let network = |conditions: &Conditions| {
        json!({
            "loss_percent": round(conditions.loss * 100.0), "delay_ms": ms(conditions.delay), "jitter_ms": ms(conditions.jitter),
            "rate_kbps": conditions.rate_bps.map(|bps| bps / 1000),
        })
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "url": plan.url,
        "sessions": outcome.sessions(),
        "duration_s": round(outcome.measured.seconds),
        "warm_up_s": round(plan.timing.warm_up.as_secs_f64()),
        "clip": {
            "file": plan.clip.file.as_ref().map(|file| file.display().to_string()),
            "width": clip.size.width, "height": clip.size.height, "fps": clip.fps, "frames": clip.frames.len(),
            "codec": clip.codec.label(), "bitrate_kbps": clip.bitrate_bps / 1000,
        },
        "effects": outcome.effects(),
        "network": {
            "up": network(&plan.network.up), "down": network(&plan.network.down),
            "outage_s": plan.network.outage.map(seconds),
            "bad_s": plan.network.bad.map(seconds),
        },
    })
}

fn summary_json(summary: &Summary) -> Value {
    let sum = &summary.all.sum;
    let at = |quantile| summary.all.latency_ms(quantile).map(round);
    json!({
        "numbers": summary.numbers,
        "fps_sent_min": summary.fps.sent_min.map(round),
        "fps_shown_min": summary.fps.shown_min.map(round),
        "fps_processed_min": summary.fps.processed_min.map(round),
        "fps_shown_total": round(summary.fps.shown_total),
        "fps_processed_total": round(summary.fps.processed_total),
        "latency_ms": {"p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": at(1.0)},
        "longest_freeze_ms": ms(sum.longest_freeze),
        "order_errors": sum.frames.order_errors,
        "raw_leaks": summary.raw_leaks,
        "judged": sum.pictures.judged,
        "numbers_read": sum.pictures.read,
        "numbers_unreadable": sum.pictures.unreadable,
        "number_mismatches": sum.pictures.mismatched,
        "repeats": sum.frames.repeats,
        "gaps": sum.frames.gaps,
        "undecodable": sum.frames.undecodable,
        "keyframes": sum.keyframes.received,
        "keyframes_wanted": sum.keyframes.wanted,
        "keyframes_asked": sum.keyframes.asked,
        "bitrate_kbps": {"up": round(summary.kbps_up), "down": round(summary.kbps_down)},
        "setup_failures": summary.setup_failures,
        "sessions_lost": summary.sessions_lost,
        "gateway_cpu_cores": summary.gateway.cpu_cores.map(round),
        "gateway_memory_mb": summary.gateway.memory_mb.map(round),
        "bench_cpu_cores": summary.bench_cpu_cores.map(round),
        "sent_late": sum.frames.sent_late,
    })
}

fn session_json(session: &SessionFigures, seconds: f64) -> Value {
    let sum = &session.totals.sum;
    let (rate, at) = (|count: u64| round(count as f64 / seconds.max(1e-3)), |quantile| session.totals.latency_ms(quantile).map(round));
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
        "fps_sent": rate(sum.frames.sent), "fps_shown": rate(sum.frames.shown),
        "fps_processed": is_known(session).then(|| rate(sum.frames.processed)),
        "latency_ms": {"p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": at(1.0)},
        "longest_freeze_ms": ms(sum.longest_freeze), "order_errors": sum.frames.order_errors,
        "raw_leaks": (sum.pictures.judged > 0).then_some(sum.pictures.raw), "judged": sum.pictures.judged,
        "numbers_read": sum.pictures.read, "numbers_unreadable": sum.pictures.unreadable, "number_mismatches": sum.pictures.mismatched,
        "repeats": sum.frames.repeats, "gaps": sum.frames.gaps, "undecodable": sum.frames.undecodable,
        "keyframes_wanted": sum.keyframes.wanted, "keyframes_asked": sum.keyframes.asked,
        "bitrate_kbps": {"up": round(sum.up.kbps(seconds)), "down": round(sum.down.kbps(seconds))},
        "datagrams_lost": {"up": sum.up.lost, "down": sum.down.lost},
        "sent_late": sum.frames.sent_late,
    })
}

fn second_json(second: &Second, from_s: f64) -> Value {
    let at = |quantile| second.latency_ms(quantile).map(round);
    let sum = &second.all;
    json!({
        "at_s": round(second.at_s - from_s), "counted": second.at_s > from_s + 1e-6, "sessions": second.sessions,
        "fps_sent": round(second.rate(sum.frames.sent)), "fps_shown": round(second.rate(sum.frames.shown)), "fps_processed": round(second.rate(sum.frames.processed)),
        "fps_processed_min": round(second.least_processed as f64 / second.length_s.max(1e-3)),
        "latency_ms": {"p50": at(0.5), "p95": at(0.95), "max": at(1.0)},
        "longest_freeze_ms": ms(sum.longest_freeze),
        "kbps_up": round(second.rate(sum.up.bytes) * 8.0 / 1e3), "kbps_down": round(second.rate(sum.down.bytes) * 8.0 / 1e3),
        "gateway_cpu_cores": second.gateway.cpu_cores.map(round), "gateway_memory_mb": second.gateway.memory_mb.map(round),
        "bench_cpu_cores": second.own.cpu_cores.map(round),
        "keyframes": sum.keyframes.received,
        "target_kbps": sum.gateway.mean(sum.gateway.target_kbps).map(round), "height": sum.gateway.mean(sum.gateway.height).map(round),
        "stages_ms": sum.gateway.stages().map(|(stage, ms)| (stage.to_string(), json!(round(ms)))).collect::<Map<_, _>>(),
    })
}
