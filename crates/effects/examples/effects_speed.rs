//! Prints the duration of each step of each effect on one thread, and the memory of a process with
//! two workers. For a device other than the CPU it also prints how much the results differ from
//! those of the CPU.
//!
//! Usage: `cargo run --release -p ooblex-effects --example effects_speed [ort|rten] [DEVICE]`. Run
//! one backend at a time to measure its memory. `ORT_DYLIB_PATH` names a library of ONNX Runtime
//! built for the device.

use std::error::Error;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ooblex_effects::{Backend, Device, Effect, ModelStore, Models, Parameters, Runtime, effects, find, i420_from_rgb, load_models};
use ooblex_pipeline::{Analysis, EffectName, Face, I420, Rgb};
use serde_json::{Value, json};

const SIZES: [(u32, u32); 2] = [(640, 480), (1280, 720)];
const ROUNDS: usize = 60;

fn main() -> ExitCode {
    match print_all() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn print_all() -> Result<(), Box<dyn Error>> {
    println!("at start: {}", memory());
    let mut backends = vec![Backend::Ort, Backend::Rten];
    let mut device = Device::Cpu;
    for argument in std::env::args().skip(1) {
        match backends.iter().find(|backend| backend.label() == argument) {
            Some(only) => backends = vec![*only],
            None => device = argument.parse()?,
        }
    }
    if device != Device::Cpu && backends.len() > 1 {
        backends = vec![Backend::Ort];
    }
    for backend in backends {
        let runtime = Runtime::load(None, Some(backend))?.with_device(device)?;
        println!("\n{}", runtime.describe());
        two_workers(&runtime)?;
        let start = Instant::now();
        let mut models = load_models(&runtime, &ModelStore::embedded(), &effects())?;
        println!("one worker, models loaded in {:.1} s: {}", start.elapsed().as_secs_f64(), memory());
        println!("{:42} {:>9} {:>9} {:>9} {:>9}   median ms", "", "prepare", "analyse", "compose", "first");
        for effect in effects() {
            for (width, height) in SIZES {
                for given in settings(&*effect) {
                    let steps = measure(&*effect, &mut models, &frame(width, height), &given)?;
                    let [prepare, analyse, compose, first] = steps.map(|time| time.as_secs_f64() * 1e3);
                    let name = format!("{} {width}x{height} {}", effect.name(), given.as_object().map_or(String::new(), words));
                    println!("{name:42} {prepare:9.2} {analyse:9.2} {compose:9.2} {first:9.2}");
                }
            }
        }
        if device != Device::Cpu {
            differences(runtime, &mut models)?;
        }
    }
    Ok(())
}

/// Prints the differences between the results of the device and of the CPU, with the same library,
/// on a real picture.
fn differences(runtime: Runtime, on_device: &mut Models) -> Result<(), Box<dyn Error>> {
    let mut on_cpu = load_models(&runtime.with_device(Device::Cpu)?, &ModelStore::embedded(), &effects())?;
    let picture = picture()?;
    for effect in effects().into_iter().filter(|effect| effect.needs_worker()) {
        for given in settings(&*effect) {
            let input = effect.painter().prepare(&picture, &Parameters::parse(effect.parameters(), &given)?);
            let [cpu, device] = [effect.analyse(&mut on_cpu, &input)?, effect.analyse(on_device, &input)?].map(numbers);
            if cpu.len() != device.len() {
                println!("{} {given}: {} numbers instead of {}", effect.name(), device.len(), cpu.len());
                continue;
            }
            let differences: Vec<_> = cpu.iter().zip(&device).map(|(a, b)| (a - b).abs()).collect();
            let (most, mean) = (differences.iter().copied().fold(0.0, f32::max), differences.iter().sum::<f32>() / cpu.len() as f32);
            println!("{} {given}: differs from cpu by {mean:.5} on average, {most:.5} at most, in {} numbers", effect.name(), cpu.len());
        }
    }
    Ok(())
}

/// Returns all numbers of a result: probabilities and colours of 0..=255, scores and positions as
/// fractions.
fn numbers(analysis: Analysis) -> Vec<f32> {
    let of_face = |face: Face| [face.score].into_iter().chain(face.rect).chain(face.keypoints.into_iter().flatten());
    match analysis {
        Analysis::Mask(mask) => mask.probability.into_iter().map(f32::from).collect(),
        Analysis::Faces(faces) => faces.into_iter().flat_map(of_face).collect(),
        Analysis::Picture(picture) => picture.data.into_iter().map(f32::from).collect(),
        Analysis::Things(things) => {
            things.into_iter().flat_map(|thing| [thing.score].into_iter().chain(thing.rect.into_iter().flatten())).collect()
        }
        Analysis::Meshes(meshes) => {
            meshes.into_iter().flat_map(|mesh| of_face(mesh.face).chain(mesh.points.into_iter().flatten()).collect::<Vec<_>>()).collect()
        }
    }
}

fn picture() -> Result<I420, Box<dyn Error>> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "data", "picture_640x480.png"].iter().collect();
    let mut reader = png::Decoder::new(BufReader::new(File::open(path)?)).read_info()?;
    let mut data = vec![0; reader.output_buffer_size().ok_or("the picture is too large")?];
    let info = reader.next_frame(&mut data)?;
    Ok(i420_from_rgb(&Rgb { width: info.width, height: info.height, data })?)
}

/// Prints the memory of a process with two workers, each with its own models: after loading, then
/// after both have run style transfer at each size at the same time.
fn two_workers(runtime: &Runtime) -> Result<(), Box<dyn Error>> {
    let sizes = ["216p", "288p", "360p"];
    let barrier = std::sync::Barrier::new(3);
    let work = || -> Result<(), Box<dyn Error>> {
        let mut models = load_models(runtime, &ModelStore::embedded(), &effects())?;
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

/// Returns the median durations of prepare, analyse and compose, and the duration of the first
/// analyse.
fn measure(effect: &dyn Effect, models: &mut Models, frame: &I420, given: &Value) -> Result<[Duration; 4], Box<dyn Error>> {
    let parameters = Parameters::parse(effect.parameters(), given)?;
    let mut painter = effect.painter();
    let mut times = [const { Vec::new() }; 3];
    let rounds = if given.as_object().is_some_and(|given| given.is_empty()) { ROUNDS } else { ROUNDS / 6 };
    for _ in 0..rounds {
        let mut picture = frame.clone();
        let start = Instant::now();
        let input = painter.prepare(frame, &parameters);
        let prepared = Instant::now();
        let analysis = if effect.needs_worker() { Some(effect.analyse(models, &input)?) } else { None };
        let analysed = Instant::now();
        painter.compose(&mut picture, analysis.as_ref(), &parameters)?;
        let steps = [prepared - start, analysed - prepared, analysed.elapsed()];
        times.iter_mut().zip(steps).for_each(|(times, step)| times.push(step));
    }
    let first = times[1][0];
    let [prepare, analyse, compose] = times.map(|mut times| {
        times.sort();
        times[times.len() / 2]
    });
    Ok([prepare, analyse, compose, first])
}

/// A synthetic frame with detail in every pixel.
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

/// Returns the current and the peak resident memory.
fn memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of = |key| status.lines().find_map(|line: &str| line.strip_prefix(key)).map_or("?", str::trim);
    format!("{} resident, {} at most", of("VmRSS:"), of("VmHWM:"))
}
