//! The effect `face_detection`: a box around each face, its six keypoints and its score, and the
//! number of faces.
//!
//! **Model.** The face detector of [`crate::face_model`].
//!
//! **Painting.** [`crate::faces`] tracks faces from frame to frame, suppresses jitter, and bridges
//! short gaps in their detection. A face that is already tracked needs a lower score than a new one
//! (hysteresis), so the model is run with a lower threshold than the parameter's.

use std::sync::LazyLock;
use std::time::Duration;

use ooblex_pipeline::{Analysis, EffectName, I420, ModelInput};

use crate::drawing::{Canvas, Colour};
use crate::effect::{ComposeError, Effect, Painter, WhenSlow};
use crate::face_model;
use crate::faces::{LOYALTY, Seen, Tracker, faces_of};
use crate::found::Found;
use crate::parameters::{Kind, Parameter, Parameters};
use crate::pixels::Shrinker;
use ooblex_inference::{ModelSpec, Models, RunError};

/// The effect `face_detection`; see the module documentation.
pub(crate) struct FaceDetection;

const NAME: &str = "face_detection";
/// Maximum age of a detection that is painted on a newer frame.
const MAX_AGE: Duration = Duration::from_millis(200);
/// Number of frames for which a face that is no longer detected is still painted.
const KEPT: u32 = 8;
/// Luma of the placeholder.
const PLACEHOLDER_LUMA: u8 = 96;

static PARAMETERS: LazyLock<[Parameter; 3]> = LazyLock::new(|| {
    [
        Parameter::new(
            "threshold",
            "Certainty",
            "How certain the model must be that something is a face.",
            Kind::Number { min: 0.3, max: 0.95, default: 0.65 },
        ),
        Parameter::new("keypoints", "Points", "Dots on eyes, nose, mouth and ears.", Kind::Flag { default: true }),
        Parameter::new("labels", "Labels", "The score at each box, and the count of faces.", Kind::Flag { default: true }),
    ]
});

impl Effect for FaceDetection {
    fn name(&self) -> EffectName {
        EffectName::new(NAME)
    }

    fn title(&self) -> &'static str {
        "Face detection"
    }

    fn description(&self) -> &'static str {
        "Every face in a box, with eyes, nose, mouth and ears marked, and counted."
    }

    fn parameters(&self) -> &[Parameter] {
        &*PARAMETERS
    }

    fn models(&self) -> Vec<&ModelSpec> {
        face_model::MODELS.to_vec()
    }

    fn when_slow(&self) -> WhenSlow {
        WhenSlow::Reuse { max_age: MAX_AGE }
    }

    /// Runs the detector; `input.arguments` holds the threshold.
    fn analyse(&self, models: &mut Models, input: &ModelInput) -> Result<Analysis, RunError> {
        face_model::analyse(models, input)
    }

    fn painter(&self) -> Box<dyn Painter> {
        Box::new(FacePainter::default())
    }
}

#[derive(Default)]
struct FacePainter {
    shrinker: Shrinker,
    tracker: Tracker,
}

impl Painter for FacePainter {
    fn prepare(&mut self, source: &I420, parameters: &Parameters) -> ModelInput {
        face_model::prepare(&mut self.shrinker, source, parameters.number("threshold") as f32 * LOYALTY)
    }

    fn compose(&mut self, picture: &mut I420, analysis: Option<&Analysis>, parameters: &Parameters) -> Result<(), ComposeError> {
        let threshold = parameters.number("threshold") as f32;
        self.tracker.update(faces_of(NAME, analysis)?.iter().map(|face| (face, &[][..])), threshold, KEPT);
        let [width, height] = [picture.width(), picture.height()];
        let pixel = |[x, y]: [f32; 2]| [(x, width), (y, height)].map(|(share, side)| (share.clamp(-1.0, 2.0) * side as f32).round() as i32);
        let mut canvas = Canvas::new(picture);
        for Seen { face, .. } in self.tracker.found() {
            let [left, top] = pixel([face.rect[0], face.rect[1]]);
            let [right, bottom] = pixel([face.rect[2], face.rect[3]]);
            canvas.outline([left, top, right, bottom], Colour::GREEN);
            if parameters.flag("keypoints") {
                face.keypoints.map(pixel).iter().for_each(|[x, y]| canvas.dot(*x, *y, Colour::YELLOW));
            }
            if parameters.flag("labels") {
                canvas.label(&format!("{:.0}%", face.score * 100.0), left, top - canvas.line, Colour::GREEN);
            }
        }
        if parameters.flag("labels") {
            let count = match self.tracker.found().len() {
                0 => "no face".into(),
                1 => "1 face".into(),
                count => format!("{count} faces"),
            };
            let margin = 2 * canvas.line;
            canvas.label(&count, margin, height as i32 - margin, Colour::WHITE);
        }
        Ok(())
    }

    fn on_turned(&mut self) {
        self.tracker.forget();
    }

    fn found(&self) -> Option<Vec<Found>> {
        Some(self.tracker.told())
    }

    /// Paints a uniform grey: nothing is shown of a frame that was not analysed.
    fn placeholder(&mut self, picture: &mut I420, _parameters: &Parameters) {
        *picture = I420::grey(picture.width(), picture.height(), PLACEHOLDER_LUMA);
    }
}

#[cfg(test)]
mod tests {
    use ooblex_pipeline::{Face, Rgb};

    use super::*;
    use crate::faces::MOST_FACES;

    fn face(score: f32, left: f32, top: f32, side: f32) -> Face {
        Face { score, rect: [left, top, left + side, top + side], keypoints: [[left + side / 2.0, top + side / 2.0]; 6] }
    }

    #[test]
    fn what_is_told_is_what_was_painted() {
        let parameters = Parameters::defaults(&*PARAMETERS);
        let mut painter = FaceDetection.painter();
        for left in [0.40, 0.402] {
            let faces = vec![face(0.9, left, 0.4, 0.2), face(0.5, 0.1, 0.1, 0.2)];
            painter.compose(&mut I420::grey(640, 480, 100), Some(&Analysis::Faces(faces)), &parameters).unwrap();
        }
        let found = painter.found().unwrap();
        assert_eq!(found.len(), 1, "a face below the threshold is not painted");
        let [left, ..] = found[0].rect.unwrap();
        assert!(left > 0.4 && left < 0.4015, "{left}: held back, as in the picture");
        assert_eq!((found[0].id, found[0].label.as_ref(), found[0].names.len(), found[0].points.len()), (Some(1), "face", 6, 6));
    }

    #[test]
    fn faces_below_the_threshold_are_not_painted_and_places_outside_do_no_harm() {
        let parameters = Parameters::parse(&*PARAMETERS, &serde_json::json!({"labels": false})).unwrap();
        let paint = |faces: Vec<Face>| {
            let mut picture = I420::grey(640, 480, 100);
            FaceDetection.painter().compose(&mut picture, Some(&Analysis::Faces(faces)), &parameters).unwrap();
            picture != I420::grey(640, 480, 100)
        };
        assert!(paint(vec![face(0.7, 0.2, 0.2, 0.3)]));
        assert!(!paint(vec![face(0.6, 0.2, 0.2, 0.3)]));
        paint(vec![face(0.9, 1e30, -1e30, 0.3), face(0.9, 0.5, 0.5, -0.3)]);
    }

    #[test]
    fn faces_that_can_not_be_are_refused_and_the_next_ones_painted() {
        let parameters = Parameters::defaults(&*PARAMETERS);
        let keypoint = Face { keypoints: [[0.5, f32::NAN]; 6], ..face(0.9, 0.2, 0.2, 0.3) };
        let single = [face(0.9, f32::NAN, 0.2, 0.3), face(0.9, 0.2, f32::INFINITY, 0.3), face(f32::NAN, 0.2, 0.2, 0.3)];
        let single = single.into_iter().chain([face(1e30, 0.2, 0.2, 0.3), face(-0.1, 0.2, 0.2, 0.3), keypoint]).map(|face| vec![face]);
        let mut painter = FaceDetection.painter();
        for faces in single.chain([vec![face(0.9, 0.2, 0.2, 0.3); MOST_FACES + 1]]) {
            let mut picture = I420::grey(640, 480, 100);
            let refused = painter.compose(&mut picture, Some(&Analysis::Faces(faces)), &parameters);
            assert!(refused.unwrap_err().to_string().starts_with("face_detection cannot paint"));
            assert!(picture == I420::grey(640, 480, 100));
        }
        painter.compose(&mut I420::grey(640, 480, 100), Some(&Analysis::Faces(vec![face(0.9, 0.2, 0.2, 0.3)])), &parameters).unwrap();
    }

    #[test]
    fn an_analysis_of_another_kind_is_refused() {
        let parameters = Parameters::defaults(&*PARAMETERS);
        let picture = Analysis::Picture(Rgb { width: 1, height: 1, data: vec![0; 3] });
        for analysis in [None, Some(&picture)] {
            let refused = FaceDetection.painter().compose(&mut I420::grey(64, 48, 16), analysis, &parameters);
            assert!(refused.unwrap_err().to_string().starts_with("face_detection cannot paint"));
        }
    }

    #[test]
    fn the_placeholder_shows_nothing_of_the_source() {
        let mut picture = I420::grey(65, 49, 16);
        picture.planes_mut()[0][..1000].fill(200);
        FaceDetection.painter().placeholder(&mut picture, &Parameters::defaults(&*PARAMETERS));
        assert!(picture == I420::grey(65, 49, PLACEHOLDER_LUMA));
    }
}
