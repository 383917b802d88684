//! `ooblex bench`: a load generator that opens real WebRTC sessions to any gateway that accepts
//! `POST /offer`, and reports what it measures.
//!
//! A run uses the modules as follows. `options` turns the command line (`value_parsers`) into a `plan`, and
//! `clip` makes the video that is sent (`frame_number` draws and reads its frame numbers). `load_generator` owns
//! the sessions. A `session` has a `connection` with a simulated link in each direction, and a `viewer`
//! with the `session_stats` of its measurements, one `interval_stats` per interval. `decoding` decodes pictures, and
//! `effect_check` judges them. `knee` and `churn` are two other modes of measurement. `figures` derives
//! the results, which are reported as `json`, as `table` and as a `report` with plots (`plot`).
//! docs/bench.md defines each figure and its limitations.

mod churn;
mod clip;
mod connection;
mod decoding;
mod effect_check;
mod figures;
mod frame_number;
mod interval_stats;
mod json;
mod knee;
mod load_generator;
mod options;
mod plan;
mod plot;
mod process;
mod progress;
mod report;
mod session;
mod session_stats;
mod table;
mod value_parsers;
mod viewer;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};

use self::clip::Clip;
use self::figures::Outcome;
use self::load_generator::{LoadGenerator, Measured};
pub use self::options::Options;
use self::plan::{Mode, Plan};
use self::process::Processes;
use self::progress::Progress;
pub use self::value_parsers::Parameter;

/// Runs a bench. Progress goes to standard error, and the table to standard output.
///
/// # Errors
/// Returns an error if the options are invalid, the gateway is unusable, or a file cannot be
/// written. Sessions that fail later are counted instead.
pub fn bench(options: &Options) -> anyhow::Result<()> {
    let plan = options.plan()?;
    if let Some(process) = Processes::new(plan.instruments.gateway_pids.clone()).missing() {
        bail!("there is no process {process} here: --gateway-pid takes processes of this machine, on Linux");
    }
    let mut progress = Progress::new();
    progress.say("The clip is being made.");
    let clip = Arc::new(Clip::make(&plan.clip)?);
    let mut generator = LoadGenerator::new(&plan, clip.clone(), progress).context("the threads of the sessions cannot be started")?;
    let outcome = run(&plan, &clip, &mut generator)?;
    generator.end();
    write_out(&outcome)
}

fn run<'a>(plan: &'a Plan, clip: &'a Clip, generator: &mut LoadGenerator<'_>) -> anyhow::Result<Outcome<'a>> {
    generator.begin_first().map_err(anyhow::Error::msg)?;
    let mut outcome = Outcome { plan, clip, measured: Measured::default(), churned: None, knee: None };
    match plan.mode {
        Mode::Steady => {
            generator.set_sessions(plan.sessions);
            generator.watch(plan.timing.warm_up);
            outcome.measured = generator.measure(plan.timing.duration);
        }
        Mode::Churn { count } => {
            generator.set_sessions(0);
            outcome.churned = Some(churn::churn(generator, count, plan.sessions, plan.timing.duration));
        }
        Mode::Knee(limits) => {
            let (knee, measured) = knee::find(generator, plan, limits);
            (outcome.knee, outcome.measured) = (Some(knee), measured);
        }
    }
    Ok(outcome)
}

fn write_out(outcome: &Outcome<'_>) -> anyhow::Result<()> {
    if let Some(path) = &outcome.plan.output.report {
        write(path, &report::html(outcome))?;
    }
    let json = outcome.plan.output.json.as_ref().map(|path| (path, format!("{:#}\n", json::json(outcome))));
    match json {
        Some((path, json)) if path.as_os_str() == "-" => {
            eprint!("{}", table::table(outcome));
            print!("{json}");
        }
        Some((path, json)) => {
            write(path, &json)?;
            print!("{}", table::table(outcome));
        }
        None => print!("{}", table::table(outcome)),
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}
