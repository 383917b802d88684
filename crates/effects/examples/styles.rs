//! Prints duration and temporal stability of every style that has its own network, beside those of
//! the network of all styles. Run it with `make styles`.

#![allow(clippy::unwrap_used, reason = "what is shared with the tests may fail by panicking")]

#[path = "../tests/all/common/mod.rs"]
mod common;
#[path = "../tests/all/quality/scenes.rs"]
mod scenes;

use std::error::Error;
use std::time::Instant;

use common::{crop, effect, mean_difference, png};
use ooblex_effects::{Backend, Effect, Input, ModelSpec, ModelStore, Models, Parameters, Runtime, effects, load_models};
use ooblex_pipeline::{Analysis, I420, ModelInput, Rgb};
use scenes::Random;
use serde_json::json;

/// Sizes that are timed, each with the number of runs, of which the median is printed.
const SIZES: [([usize; 2], usize); 3] = [([384, 216], 25), ([640, 360], 11), ([1280, 720], 5)];
/// Number of frames of each scene.
const FRAMES: usize = 24;
/// Number of frames at the start of a scene that are not measured, because painters are still
/// settling.
const SETTLED: usize = 8;
/// Weight moved from the style to another one, so that the network of all styles paints what is in
/// effect a single style.
const A_LITTLE: f32 = 1e-5;

fn main() -> Result<(), Box<dyn Error>> {
    let mut workers = Vec::new();
    for backend in [Backend::Ort, Backend::Rten] {
        let runtime = Runtime::load(None, Some(backend))?;
        println!("{}", runtime.describe());
        workers.push(load_models(&runtime, &ModelStore::embedded(), &effects())?);
    }
    let style = effect("style_transfer");
    println!("\nOne network run, one thread, ms: ONNX Runtime / rten\n");
    println!("| network | bytes | 384×216 | 640×360 | 1280×720 |\n|---|---|---|---|---|");
    for spec in style.models() {
        let mut row = format!("| {} | {} |", spec.name, spec.embedded.len());
        for (size, rounds) in SIZES {
            let [ort, rten] = [0, 1].map(|index| milliseconds(&mut workers[index], spec, size, rounds));
            row += &format!(" {ort:.1} / {rten:.1} |");
        }
        println!("{row}");
    }
    println!("\nSteadiness: its own network / the network of all styles, 384×216\n");
    println!("| style | flicker before smoothing | after | noise gain before | after | spread |\n|---|---|---|---|---|---|");
    let own = style.models().into_iter().filter_map(|spec| spec.name.strip_prefix("style_"));
    for name in own {
        let figures = [false, true].map(|large| Steadiness::of(&*style, &mut workers[0], name, large));
        let cells = (0..5).map(|index| format!("{:.2} / {:.2}", figures[0].cell(index), figures[1].cell(index)));
        println!("| `{name}` | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    println!(
        "\nFlicker: change of the painting from frame to frame over that of the picture, somebody who talks, with a camera's noise. Noise gain: \
         the same of a still picture.\nSpread: deviation of the painting's colours; `own / all styles`."
    );
    Ok(())
}

fn milliseconds(models: &mut Models, spec: &ModelSpec, [width, height]: [usize; 2], rounds: usize) -> f64 {
    let data: Vec<f32> = (0..3 * width * height).map(|at| (at % 251) as f32 / 250.0).collect();
    let mut weights = vec![0.0; 26];
    weights[0] = 1.0;
    let inputs = [Input { shape: &[1, 3, height, width], data: &data }, Input { shape: &[26], data: &weights }];
    let inputs = &inputs[..spec.inputs.len()];
    models.run(spec, inputs).unwrap();
    let mut times: Vec<_> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            models.run(spec, inputs).unwrap();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[rounds / 2]
}

/// Temporal stability of one style on one network. The pairs are without and with temporal
/// smoothing by the painter.
struct Steadiness {
    flicker: [f64; 2],
    noise: [f64; 2],
    spread: f64,
}

impl Steadiness {
    fn of(style: &dyn Effect, models: &mut Models, name: &str, large: bool) -> Self {
        let parameters = Parameters::parse(style.parameters(), &json!({"style": name, "resolution": "216p"})).unwrap();
        let still = scenes::frame(&crop(&png("picture_640x480.png"), 120, 40, 384, 216));
        let flicker = changes(style, models, &parameters, large, scenes::talking);
        let noise = changes(style, models, &parameters, large, |_| still.clone());
        let whole = scenes::frame(&png("picture_640x480.png"));
        let Analysis::Picture(painting) = painting(style, models, &parameters, large, &whole) else { unreachable!("it is a picture") };
        Self { flicker, noise, spread: deviation(&painting) }
    }

    fn cell(&self, index: usize) -> f64 {
        [self.flicker[0], self.flicker[1], self.noise[0], self.noise[1], self.spread][index]
    }
}

/// Analyses a frame with the effect; with `large`, by the network of all styles.
fn painting(style: &dyn Effect, models: &mut Models, parameters: &Parameters, large: bool, frame: &I420) -> Analysis {
    let ModelInput { picture, content, mut arguments } = style.painter().prepare(frame, parameters);
    if large {
        let alone = arguments.iter().position(|weight| *weight == 1.0).unwrap();
        arguments[alone] = 1.0 - A_LITTLE;
        arguments[(alone + 1) % 26] = A_LITTLE;
    }
    style.analyse(models, &ModelInput { picture, content, arguments }).unwrap()
}

/// Returns the change of the painting from frame to frame, relative to that of the scene, for a new
/// painter in each frame and for one painter throughout.
fn changes(style: &dyn Effect, models: &mut Models, parameters: &Parameters, large: bool, scene: impl Fn(usize) -> I420) -> [f64; 2] {
    let (mut random, mut painter, mut last) = (Random::new(7), style.painter(), None::<[I420; 3]>);
    let mut sums = [0.0; 3];
    for n in 0..FRAMES {
        let frame = scenes::noisy(&scene(n), &mut random);
        let analysis = painting(style, models, parameters, large, &frame);
        let mut shown = [frame.clone(), frame.clone(), frame];
        style.painter().compose(&mut shown[1], Some(&analysis), parameters).unwrap();
        painter.compose(&mut shown[2], Some(&analysis), parameters).unwrap();
        if let Some(last) = last.filter(|_| n >= SETTLED) {
            for ((sum, picture), last) in sums.iter_mut().zip(&shown).zip(&last) {
                *sum += mean_difference(picture.planes()[0], last.planes()[0]);
            }
        }
        last = Some(shown);
    }
    [sums[1] / sums[0], sums[2] / sums[0]]
}

/// Returns the standard deviation of the colours, as the mean of the channels, 0..=255.
fn deviation(picture: &Rgb) -> f64 {
    let count = (picture.data.len() / 3) as f64;
    let of_channel = |channel: usize| {
        let values = || picture.data.iter().skip(channel).step_by(3).map(|value| f64::from(*value));
        let mean = values().sum::<f64>() / count;
        (values().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt()
    };
    (0..3).map(of_channel).sum::<f64>() / 3.0
}
