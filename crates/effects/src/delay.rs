//! The diagnostic effect `delay`: it occupies a worker for a chosen time without computing
//! anything.
//!
//! It is not offered to users. Tests, benchmarks and the diagnostics option use it to observe the
//! pipeline around a model, with a model as slow as they want.
//!
//! **Prepare.** The input is one black pixel, and the pause of this frame in milliseconds. The
//! painter counts the frames of its track, so that `analyse` depends on its input alone.
//!
//! **Painting.** Luma is inverted, so that a frame that went through a worker can be told from a
//! raw one.

use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use ooblex_pipeline::{Analysis, EffectName, I420, ModelInput, Rgb};

use crate::effect::{ComposeError, Effect, Painter, WhenSlow};
use crate::parameters::{Kind, Parameter, Parameters};
use ooblex_inference::{ModelSpec, Models, RunError};

/// The effect `delay`; see the module documentation.
pub(crate) struct Delay;

const NAME: &str = "delay";
/// Longest pause in milliseconds.
const MOST_MS: f64 = 5000.0;
/// Luma of the placeholder.
const PLACEHOLDER_LUMA: u8 = 96;

static PARAMETERS: LazyLock<[Parameter; 3]> = LazyLock::new(|| {
    let pause = |default| Kind::Number { min: 0.0, max: MOST_MS, default };
    [
        Parameter::new("ms", "Pause", "How many milliseconds a worker is busy with a frame.", pause(100.0)),
        Parameter::new(
            "slow_every",
            "Slow frames",
            "One frame of a track out of this number takes the slow pause instead; 0 for none. Rounded to a whole number.",
            Kind::Number { min: 0.0, max: 1000.0, default: 0.0 },
        ),
        Parameter::new("slow_ms", "Slow pause", "How many milliseconds a worker is busy with a slow frame.", pause(0.0)),
    ]
});

impl Effect for Delay {
    fn name(&self) -> EffectName {
        EffectName::new(NAME)
    }

    fn title(&self) -> &'static str {
        "Delay"
    }

    fn description(&self) -> &'static str {
        "For diagnostics: the inverted picture, after a worker has paused for a while."
    }

    fn parameters(&self) -> &[Parameter] {
        &*PARAMETERS
    }

    fn models(&self) -> Vec<&ModelSpec> {
        Vec::new()
    }

    /// Returns true: the effect has no models, but exists to occupy a worker.
    fn needs_worker(&self) -> bool {
        true
    }

    fn when_slow(&self) -> WhenSlow {
        WhenSlow::Hold
    }

    /// Sleeps for the pause in `input.arguments`, in milliseconds.
    fn analyse(&self, _models: &mut Models, input: &ModelInput) -> Result<Analysis, RunError> {
        thread::sleep(pause_of(input)?);
        Ok(Analysis::Picture(pixel()))
    }

    fn painter(&self) -> Box<dyn Painter> {
        Box::new(DelayPainter { frames: 0 })
    }
}

/// Returns the pause of a prepared frame. The frame may come from another machine, so the pause is
/// checked against [`MOST_MS`].
fn pause_of(input: &ModelInput) -> Result<Duration, RunError> {
    match input.arguments[..] {
        [pause] if (0.0..=MOST_MS).contains(&f64::from(pause)) => Ok(Duration::from_secs_f64(f64::from(pause) / 1e3)),
        _ => {
            let reason = format!("its arguments are {:?} instead of one pause from 0 to {MOST_MS} ms", input.arguments);
            Err(RunError::BadInput { model: NAME.into(), reason })
        }
    }
}

/// Returns the payload of both directions: one black pixel.
fn pixel() -> Rgb {
    Rgb { width: 1, height: 1, data: vec![0; 3] }
}

struct DelayPainter {
    /// Number of frames prepared so far.
    frames: u64,
}

impl Painter for DelayPainter {
    fn prepare(&mut self, _source: &I420, parameters: &Parameters) -> ModelInput {
        self.frames += 1;
        let slow_every = parameters.number("slow_every").round() as u64;
        let is_slow = slow_every > 0 && self.frames.is_multiple_of(slow_every);
        let pause = parameters.number(if is_slow { "slow_ms" } else { "ms" });
        ModelInput { picture: pixel(), content: [0, 0, 1, 1], arguments: vec![pause as f32] }
    }

    fn compose(&mut self, picture: &mut I420, analysis: Option<&Analysis>, _parameters: &Parameters) -> Result<(), ComposeError> {
        let refused = |got| Err(ComposeError { effect: EffectName::new(NAME), got });
        match analysis {
            Some(Analysis::Picture(got)) if *got == pixel() => {}
            Some(Analysis::Picture(_)) => return refused("a picture other than one black pixel"),
            Some(other) => return refused(other.kind()),
            None => return refused("a frame that no worker has seen"),
        }
        let [luma, ..] = picture.planes_mut();
        luma.iter_mut().for_each(|luma| *luma = 255 - *luma);
        Ok(())
    }

    /// Paints a uniform grey, which is neither the picture nor its inversion.
    fn placeholder(&mut self, picture: &mut I420, _parameters: &Parameters) {
        *picture = I420::grey(picture.width(), picture.height(), PLACEHOLDER_LUMA);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use ooblex_pipeline::{Face, Mask};
    use serde_json::{Value, json};

    use super::*;
    use ooblex_inference::{Backend, ModelStore, Runtime};

    use crate::models::load_models;

    fn parameters(given: Value) -> Parameters {
        Parameters::parse(&*PARAMETERS, &given).unwrap()
    }

    fn no_models() -> Models {
        let runtime = Runtime::load(None, Some(Backend::Rten)).unwrap();
        load_models(&runtime, &ModelStore::embedded(), &[]).unwrap()
    }

    /// The pauses of the first `count` frames of a track.
    fn pauses(given: Value, count: usize) -> Vec<f32> {
        let (parameters, mut painter) = (parameters(given), Delay.painter());
        (0..count).map(|_| painter.prepare(&I420::grey(64, 48, 100), &parameters).arguments[0]).collect()
    }

    #[test]
    fn it_has_no_model_and_goes_to_a_worker_all_the_same() {
        assert!(Delay.models().is_empty());
        assert!(Delay.needs_worker());
    }

    #[test]
    fn every_so_many_frames_one_is_slow() {
        assert_eq!(pauses(json!({}), 3), [100.0; 3]);
        assert_eq!(pauses(json!({"ms": 10, "slow_ms": 900}), 3), [10.0; 3]);
        assert_eq!(pauses(json!({"ms": 10, "slow_every": 3, "slow_ms": 900}), 7), [10.0, 10.0, 900.0, 10.0, 10.0, 900.0, 10.0]);
        assert_eq!(pauses(json!({"ms": 10, "slow_every": 1, "slow_ms": 900}), 2), [900.0; 2]);
        assert_eq!(pauses(json!({"ms": 10, "slow_every": 0.4, "slow_ms": 900}), 2), [10.0; 2]);
    }

    #[test]
    fn a_new_track_counts_from_the_start_whatever_another_has_seen() {
        let given = json!({"ms": 1, "slow_every": 2, "slow_ms": 2});
        assert_eq!(pauses(given.clone(), 1), [1.0]);
        assert_eq!(pauses(given, 2), [1.0, 2.0]);
    }

    #[test]
    fn the_worker_pauses_for_at_least_as_long_as_the_frame_says() {
        let input = Delay.painter().prepare(&I420::grey(64, 48, 100), &parameters(json!({"ms": 20})));
        let start = Instant::now();
        let analysis = Delay.analyse(&mut no_models(), &input).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(20));
        assert_eq!(analysis, Analysis::Picture(pixel()));
    }

    #[test]
    fn pauses_that_can_not_be_are_refused() {
        let mut models = no_models();
        for arguments in [vec![], vec![1.0, 1.0], vec![-1.0], vec![5000.5], vec![f32::NAN], vec![f32::INFINITY], vec![f32::NEG_INFINITY]] {
            let input = ModelInput { picture: pixel(), content: [0, 0, 1, 1], arguments };
            let refused = Delay.analyse(&mut models, &input).unwrap_err().to_string();
            assert!(refused.contains("one pause from 0 to 5000 ms"), "{refused}");
        }
        for declared in ["ms", "slow_ms"] {
            assert!(Parameters::parse(&*PARAMETERS, &json!({declared: 5001})).is_err());
        }
    }

    #[test]
    fn a_frame_that_went_through_a_worker_is_inverted_and_keeps_its_colour() {
        let mut picture = I420::grey(33, 21, 100);
        picture.planes_mut()[0][40] = 16;
        picture.planes_mut()[1][3] = 77;
        let chroma = picture.planes()[1].to_vec();
        Delay.painter().compose(&mut picture, Some(&Analysis::Picture(pixel())), &parameters(json!({}))).unwrap();
        assert_eq!(picture.planes()[0][39..42], [155, 239, 155]);
        assert_eq!(picture.planes()[1], chroma);
    }

    #[test]
    fn an_analysis_that_is_not_its_own_is_refused() {
        let face = Face { score: 0.9, rect: [0.0, 0.0, 1.0, 1.0], keypoints: [[0.5; 2]; 6] };
        let picture = |width, height, bytes| Analysis::Picture(Rgb { width, height, data: vec![0; bytes] });
        let analyses = [
            Analysis::Faces(vec![face]),
            Analysis::Mask(Mask { width: 1, height: 1, probability: vec![0] }),
            picture(2, 1, 6),
            picture(1, 1, 0),
            picture(0, 0, 0),
            Analysis::Picture(Rgb { data: vec![1; 3], ..pixel() }),
        ];
        for analysis in analyses.iter().map(Some).chain([None]) {
            let mut frame = I420::grey(64, 48, 16);
            let refused = Delay.painter().compose(&mut frame, analysis, &parameters(json!({})));
            assert!(refused.unwrap_err().to_string().starts_with("delay cannot paint"));
            assert!(frame == I420::grey(64, 48, 16));
        }
    }

    #[test]
    fn the_placeholder_shows_nothing_of_the_source() {
        let mut picture = I420::grey(65, 49, 16);
        picture.planes_mut()[0][..1000].fill(200);
        Delay.painter().placeholder(&mut picture, &parameters(json!({})));
        assert!(picture == I420::grey(65, 49, PLACEHOLDER_LUMA));
    }
}
