//! Behaviour of sessions under bad network conditions: `ooblex bench` against a real gateway, with
//! each network in turn.
//!
//! `cargo bench -p ooblex --bench network -- all [--seconds 20 --of vp8]`, or `make bench-network`;
//! `--of` selects one kind of session.

#[path = "../tests/all/common/mod.rs"]
mod common;
mod shared;

use std::process::{Command, Stdio};

use common::Gateway;
use serde_json::{Value, json};
use shared::{Options, machine};

/// Number of sessions that run concurrently; more would compete for CPU cores.
const AT_A_TIME: usize = 2;
/// One-way delay in each direction, in all networks.
const DELAY_MS: &str = "20";
/// Name of a network, and the options that simulate it. Temporary conditions begin after five
/// seconds.
type Network = (&'static str, &'static [&'static str]);
/// The simulated networks.
const NETWORKS: &[Network] = &[
    ("nothing", &[]),
    ("loss 3 %", &["--loss", "3"]),
    ("loss 5 %", &["--loss", "5"]),
    ("loss 10 %", &["--loss", "10"]),
    ("jitter 80 ms", &["--jitter", "80"]),
    ("500 kbit/s for 10 s", &["--rate", "0/500", "--bad-during", "5,10"]),
    ("150 kbit/s for 10 s", &["--rate", "0/150", "--bad-during", "5,10"]),
    ("nothing comes through for 3 s", &["--outage", "5,3"]),
];
/// Kind of session, with the networks that it is measured with.
struct Kind {
    name: &'static str,
    about: &'static str,
    flags: &'static [&'static str],
    networks: &'static [Network],
}
/// Kinds of sessions. The first runs with all networks, the others with those whose effect differs
/// for them.
const KINDS: [Kind; 4] = [
    Kind { name: "vp8", about: "VP8", flags: &["--codec", "vp8", "--effect", "background_blur"], networks: NETWORKS },
    Kind { name: "h264", about: "H.264", flags: &["--codec", "h264", "--effect", "background_blur"], networks: NETWORKS.split_at(2).1 },
    Kind { name: "none", about: "VP8, effect `none`", flags: &["--codec", "vp8", "--effect", "none"], networks: NETWORKS.split_at(2).1 },
    Kind {
        name: "no-feedback",
        about: "VP8, no feedback",
        flags: &["--codec", "vp8", "--effect", "background_blur", "--no-feedback"],
        networks: NETWORKS.split_at(2).1,
    },
];

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    if arguments.next().as_deref() != Some("all") {
        return println!("network: nothing was chosen; -- all, or make bench-network");
    }
    let options = Options::parse(arguments, &["--seconds", "--of", "--json"]);
    let seconds = options.number("--seconds", 20);
    let of = options.text("--of");
    let kinds: Vec<_> = KINDS.iter().filter(|kind| of.is_none_or(|of| of == kind.name)).collect();
    assert!(!kinds.is_empty(), "--of is one of {}", KINDS.map(|kind| kind.name).join(", "));
    println!("640x480, {DELAY_MS} ms each way, {seconds} s each: {}", machine());
    println!(
        "| session | network | fps | longest freeze, ms | after it was over, ms | kbit/s before / during / after | order errors | raw |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let gateway = Gateway::start("[log]\nfilter = \"error\"\n", &[]);
    let mut rows = Vec::new();
    let all = kinds.iter().flat_map(|kind| kind.networks.chunks(AT_A_TIME).map(move |networks| (kind, networks)));
    for (kind, networks) in all {
        let measured: Vec<_> =
            networks.iter().map(|(name, flags)| (*name, *flags, measure(&gateway.url, flags, kind.flags, seconds))).collect();
        for (name, flags, run) in measured {
            let output = run.wait_with_output().expect("the bench ends");
            let figures: Value = serde_json::from_slice(&output.stdout).expect("the bench gives JSON");
            println!("| {} {}", kind.about, row(name, flags, &figures));
            rows.push(json!({"session": kind.about, "network": name, "figures": figures}));
        }
    }
    if let Some(path) = options.text("--json") {
        std::fs::write(path, format!("{:#}", json!({"machine": machine(), "rows": rows}))).expect("the report can be written");
    }
}

fn measure(url: &str, network: &[&str], what: &[&str], seconds: u64) -> std::process::Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ooblex"));
    command.args(["bench", url, "--warm-up", "4", "--delay", DELAY_MS, "--decode", "1", "--json", "-"]);
    command.args(["--duration", &seconds.to_string()]).args(network).args(what);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the bench starts")
}

fn row(name: &str, flags: &[&str], figures: &Value) -> String {
    let during = flags.iter().position(|flag| ["--bad-during", "--outage"].contains(flag)).map(|at| flags[at + 1]);
    let during = during.and_then(|times| times.split_once(',')).map(|(from, length)| {
        let number = |text: &str| text.parse::<f64>().expect("it is a number");
        (number(from), number(from) + number(length))
    });
    let seconds = |name: &str, from: f64, to: f64| -> Vec<f64> {
        let series = figures["series"].as_array().expect("there is a series").iter();
        let within = series.filter(|second| (from..to).contains(&second["at_s"].as_f64().unwrap_or(-1.0)));
        within.filter_map(|second| second[name].as_f64()).collect()
    };
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).map_or("–".into(), |value| format!("{value:.0}"))
    };
    let (after, kbps) = match during {
        None => ("–".into(), median(seconds("kbps_down", 1.0, f64::MAX))),
        Some((from, to)) => {
            let freeze = seconds("longest_freeze_ms", to, to + 3.0).into_iter().fold(0.0, f64::max);
            // A freeze that began before the end of the outage also lasts into the time after it.
            let outage = flags.contains(&"--outage").then_some((to - from) * 1e3);
            let spans = [(1.0, from + 0.5), (from + 1.5, to + 0.5), (to + 3.5, f64::MAX)];
            let kbps = spans.map(|(from, to)| median(seconds("kbps_down", from, to)));
            (format!("{:.0}", (freeze - outage.unwrap_or(0.0)).max(0.0)), kbps.join(" / "))
        }
    };
    format!(
        "| {name} | {:.1} | {:.0} | {after} | {kbps} | {} | {} |",
        figures["fps_processed_min"].as_f64().unwrap_or(0.0),
        figures["longest_freeze_ms"].as_f64().unwrap_or(0.0),
        figures["order_errors"],
        figures["raw_leaks"],
    )
}
