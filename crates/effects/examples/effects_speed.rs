//! Prints what each step of each effect takes, on one thread, and the memory of a process with two workers.
//!
//! `cargo run --release -p ooblex-effects --example effects_speed [ort|rten]`: memory is told apart only when one backend runs alone.

use std::error::Error;
use std::fs;
use std::time::{Duration, Instant};

use ooblex_effects::{Backend, Effect, ModelStore, Models, Parameters, Runtime, effects, find};
use ooblex_pipeline::{EffectName, I420};
use serde_json::{Value, json};

const SIZES: [(u32, u32); 2] = [(640, 480), (1280, 720)];
const ROUNDS: usize = 60;

fn main() -> Result<(), Box<dyn Error>> {
    println!("at start: {}", memory());
    let only = std::env::args().nth(1);
    for backend in [Backend::Ort, Backend::Rten].into_iter().filter(|backend| only.as_deref().is_none_or(|only| only == backend.label())) {
        let runtime = Runtime::load(None, Some(backend))?;
        println!("\n{}", runtime.describe());
        two_workers(&runtime)?;
        let mut models = Models::load(&runtime, &ModelStore::embedded(), &effects())?;
        println!("one worker, models loaded: {}", memory());
        println!("{:42} {:>9} {:>9} {:>9}   median ms", "", "prepare", "analyse", "compose");
        for effect in effects() {
            for (width, height) in SIZES {
                for given in settings(&*effect) {
                    let steps = measure(&*effect, &mut models, &frame(width, height), &given)?;
                    let [prepare, analyse, compose] = steps.map(|time| time.as_secs_f64() * 1e3);
                    let name = format!("{} {width}x{height} {}", effect.name(), given.as_object().map_or(String::new(), words));
                    println!("{name:42} {prepare:9.2} {analyse:9.2} {compose:9.2}");
                }
            }
        }
    }
    Ok(())
}

/// The memory of a process with two workers, each with models of its own: loaded, then after style at each size on both at once.
fn two_workers(runtime: &Runtime) -> Result<(), Box<dyn Error>> {
    let sizes = ["216p", "288p", "360p"];
    let barrier = std::sync::Barrier::new(3);
    let work = || -> Result<(), Box<dyn Error>> {
        let mut models = Models::load(runtime, &ModelStore::embedded(), &effects())?;
        barrier.wait();
        barrier.wait();
        let [blur, faces, style] = ["background_blur", "face_detection", "style_transfer"].map(|name| find(&EffectName::new(name)));
        for effect in [blur, faces].into_iter().flatten() {
            measure(&*effect, &mut models, &frame(1280, 720), &json!({}))?;
        }
        for size in sizes {
            let style = style.as_ref().ok_or("there is no style_transfer")?;
            measure(&**style, &mut models, &frame(1280, 720), &json!({"resolution": size}))?;
            barrier.wait();
            barrier.wait();
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| work().expect("the models run"));
        }
        for step in ["models loaded", "style at 216p having run", "style at 288p having run", "style at 360p having run"] {
            barrier.wait();
            println!("two workers, {step}: {}", memory());
            barrier.wait();
        }
    });
    Ok(())
}

fn settings(effect: &dyn Effect) -> Vec<Value> {
    match effect.name().as_str() {
        "style_transfer" => ["180p", "216p", "288p", "360p"].map(|word| json!({"resolution": word})).to_vec(),
        _ => vec![json!({})],
    }
}

fn measure(effect: &dyn Effect, models: &mut Models, frame: &I420, given: &Value) -> Result<[Duration; 3], Box<dyn Error>> {
    let parameters = Parameters::parse(effect.parameters(), given)?;
    let mut painter = effect.painter();
    let mut times = [const { Vec::new() }; 3];
    let rounds = if given.as_object().is_some_and(|given| given.is_empty()) { ROUNDS } else { ROUNDS / 6 };
    for _ in 0..rounds {
        let mut picture = frame.clone();
        let start = Instant::now();
        let input = painter.prepare(frame, &parameters);
        let prepared = Instant::now();
        let analysis = if effect.models().is_empty() { None } else { Some(effect.analyse(models, &input)?) };
        let analysed = Instant::now();
        painter.compose(&mut picture, analysis.as_ref(), &parameters)?;
        let steps = [prepared - start, analysed - prepared, analysed.elapsed()];
        times.iter_mut().zip(steps).for_each(|(times, step)| times.push(step));
    }
    Ok(times.map(|mut times| {
        times.sort();
        times[times.len() / 2]
    }))
}

/// A frame with something in every pixel.
fn frame(width: u32, height: u32) -> I420 {
    let mut picture = I420::grey(width, height, 100);
    for plane in picture.planes_mut() {
        plane.iter_mut().enumerate().for_each(|(index, value)| *value = (40 + (index * 7919 % 977) % 160) as u8);
    }
    picture
}

fn words(given: &serde_json::Map<String, Value>) -> String {
    given.values().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
}

/// Resident memory now and at most.
fn memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of = |key| status.lines().find_map(|line: &str| line.strip_prefix(key)).map_or("?", str::trim);
    format!("{} resident, {} at most", of("VmRSS:"), of("VmHWM:"))
}
