//! The effect `face_detection`: a box around each face, six points in it, its score, and the count of faces.
//!
//! **Model.** `blazeface_back_160x256` (MediaPipe). In: RGB `/127.5 - 1`, the frame letterboxed into 256×160 (aspect kept,
//! centred, black around it). Out: 560 candidates, each an offset to its anchor, a size and six offsets, in pixels of the input.
//! Anchors: 16×10 cells (of 16 px) with two each, then 8×5 cells (of 32 px) with six each, row by row, at the cells' centres.
//!
//! **Result.** Candidates with `sigmoid(score) >= threshold`, best first; those that overlap the best by an IoU above 0.3 become
//! one with it, by the mean weighted with the scores (MediaPipe's weighted non-maximum suppression).
//!
//! **Painting.** [`crate::faces`] knows which face is which from frame to frame, holds still those that only tremble, and keeps those that
//! are missed for a moment. A face that was there before needs less certainty than a new one, so the model is asked for a little
//! more than the threshold says.

use std::sync::LazyLock;
use std::time::Duration;

use ooblex_pipeline::{Analysis, EffectName, Face, I420, ModelInput, Rgb};

use crate::drawing::{Canvas, Colour};
use crate::effect::{ComposeError, Effect, Painter, WhenSlow};
use crate::faces::{LOYALTY, Seen, Tracker, faces_of, overlap};
use crate::found::Found;
use crate::model::Extent::Fixed;
use crate::model::{Input, ModelSpec, Models, RunError, TensorSpec};
use crate::parameters::{Kind, Parameter, Parameters};
use crate::pixels::{Shrinker, nchw};

/// See the top of this file.
pub(crate) struct FaceDetection;

const NAME: &str = "face_detection";
const WIDTH: u32 = 256;
const HEIGHT: u32 = 160;
const ANCHORS: usize = 560;
/// Numbers for each candidate: offset, size, six offsets of keypoints; x before y.
const NUMBERS: usize = 16;
/// Overlap above which two candidates are the same face.
const SAME_FACE: f32 = 0.3;
/// Oldest detection that is painted on a newer frame.
const MAX_AGE: Duration = Duration::from_millis(200);
/// Frames for which a face that is missed is still painted.
const KEPT: u32 = 8;
/// Grey of the placeholder.
const PLACEHOLDER_LUMA: u8 = 96;

static MODELS: [&ModelSpec; 1] = [&MODEL];

static MODEL: ModelSpec = ModelSpec {
    name: "blazeface_back_160x256",
    file: "blazeface_back_160x256.onnx",
    sha256: "02cfac2df5e32b6f984077cde56a4be84916f4e094f07541428ae5fe4d043694",
    embedded: include_bytes!("../../../models/blazeface_back_160x256.onnx"),
    inputs: &[TensorSpec { name: "input", shape: &[Fixed(1), Fixed(3), Fixed(HEIGHT as usize), Fixed(WIDTH as usize)] }],
    outputs: &[
        TensorSpec { name: "boxes", shape: &[Fixed(1), Fixed(ANCHORS), Fixed(NUMBERS)] },
        TensorSpec { name: "scores", shape: &[Fixed(1), Fixed(ANCHORS), Fixed(1)] },
    ],
    threads: 1,
    warm_up: &[],
};

static PARAMETERS: LazyLock<[Parameter; 3]> = LazyLock::new(|| {
    [
        Parameter {
            name: "threshold",
            title: "Certainty",
            description: "How certain the model must be that something is a face.",
            kind: Kind::Number { min: 0.3, max: 0.95, default: 0.65 },
        },
        Parameter {
            name: "keypoints",
            title: "Points",
            description: "Dots on eyes, nose, mouth and ears.",
            kind: Kind::Flag { default: true },
        },
        Parameter {
            name: "labels",
            title: "Labels",
            description: "The score at each box, and the count of faces.",
            kind: Kind::Flag { default: true },
        },
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

    fn models(&self) -> &[&'static ModelSpec] {
        &MODELS
    }

    fn when_slow(&self) -> WhenSlow {
        WhenSlow::Reuse { max_age: MAX_AGE }
    }

    /// `input.arguments` holds the threshold.
    fn analyse(&self, models: &mut Models, input: &ModelInput) -> Result<Analysis, RunError> {
        let picture = MODEL.picture_of(input, WIDTH, HEIGHT)?;
        let threshold = match input.arguments[..] {
            [threshold] if (0.0..=1.0).contains(&threshold) => threshold,
            _ => {
                let reason = format!("its arguments are {:?} instead of one threshold from 0 to 1", input.arguments);
                return Err(RunError::BadInput { model: MODEL.name, reason });
            }
        };
        let data = nchw(&picture.data, 127.5, -1.0);
        let outputs = models.run(&MODEL, &[Input { shape: &[1, 3, HEIGHT as usize, WIDTH as usize], data: &data }])?;
        let candidates = candidates(&outputs[0].data, &outputs[1].data, threshold);
        Ok(Analysis::Faces(merge(candidates).into_iter().map(|face| in_frame(face, input.content)).collect()))
    }

    fn painter(&self) -> Box<dyn Painter> {
        Box::new(FacePainter::default())
    }
}

/// The anchors' centres in pixels of the input, in the order of the candidates.
fn anchors() -> impl Iterator<Item = [f32; 2]> {
    [(16, 2), (32, 6)].into_iter().flat_map(|(stride, each)| {
        let centre = move |cell: u32| (cell as f32 + 0.5) * stride as f32;
        (0..HEIGHT / stride).flat_map(move |y| (0..WIDTH / stride).flat_map(move |x| (0..each).map(move |_| [centre(x), centre(y)])))
    })
}

/// Candidates with at least this score, in pixels of the input, best first.
fn candidates(boxes: &[f32], scores: &[f32], threshold: f32) -> Vec<Face> {
    let scores = scores.iter().map(|logit| 1.0 / (1.0 + (-logit.clamp(-80.0, 80.0)).exp()));
    let all = anchors().zip(boxes.as_chunks::<NUMBERS>().0).zip(scores);
    let certain = all.filter(|(_, score)| *score >= threshold);
    let mut faces: Vec<_> = certain
        .map(|(([x, y], numbers), score)| {
            let (centre_x, centre_y, width, height) = (x + numbers[0], y + numbers[1], numbers[2], numbers[3]);
            let rect = [centre_x - width / 2.0, centre_y - height / 2.0, centre_x + width / 2.0, centre_y + height / 2.0];
            let keypoints = std::array::from_fn(|k| [x + numbers[4 + 2 * k], y + numbers[5 + 2 * k]]);
            Face { score, rect, keypoints }
        })
        .collect();
    faces.sort_by(|a, b| b.score.total_cmp(&a.score));
    faces
}

/// Makes one face of the candidates that overlap. They come best first, and so do the faces.
fn merge(mut candidates: Vec<Face>) -> Vec<Face> {
    let mut faces = Vec::new();
    while let Some(best) = candidates.first().cloned() {
        let (same, rest): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|face| *face == best || overlap(&best.rect, &face.rect) > SAME_FACE);
        candidates = rest;
        let total: f32 = same.iter().map(|face| face.score).sum();
        let mean = |of: &dyn Fn(&Face) -> f32| same.iter().map(|face| of(face) * face.score).sum::<f32>() / total;
        let rect = std::array::from_fn(|side| mean(&|face| face.rect[side]));
        let keypoints = std::array::from_fn(|k| [mean(&|face| face.keypoints[k][0]), mean(&|face| face.keypoints[k][1])]);
        faces.push(Face { score: best.score, rect, keypoints });
    }
    faces
}

/// From pixels of the input to coordinates of the frame, which lies at `content` in it.
fn in_frame(face: Face, content: [u32; 4]) -> Face {
    let [left, top, width, height] = content.map(|side| side as f32);
    let point = |[x, y]: [f32; 2]| [(x - left) / width, (y - top) / height];
    let [start, end] = [[face.rect[0], face.rect[1]], [face.rect[2], face.rect[3]]].map(point);
    Face { score: face.score, rect: [start[0], start[1], end[0], end[1]], keypoints: face.keypoints.map(point) }
}

#[derive(Default)]
struct FacePainter {
    shrinker: Shrinker,
    tracker: Tracker,
}

impl Painter for FacePainter {
    fn prepare(&mut self, source: &I420, parameters: &Parameters) -> ModelInput {
        let content = letterbox(source.width(), source.height());
        let [left, top, width, height] = content;
        let frame = self.shrinker.rgb(source, width, height);
        let mut data = vec![0; 3 * WIDTH as usize * HEIGHT as usize];
        let rows = data.chunks_exact_mut(3 * WIDTH as usize).skip(top as usize);
        for (row, line) in rows.zip(frame.data.chunks_exact(3 * width as usize)) {
            row[3 * left as usize..][..line.len()].copy_from_slice(line);
        }
        let arguments = vec![parameters.number("threshold") as f32 * LOYALTY];
        ModelInput { picture: Rgb { width: WIDTH, height: HEIGHT, data }, content, arguments }
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

    fn found(&self) -> Option<Vec<Found>> {
        Some(self.tracker.told())
    }

    /// An even grey: of a frame that was not looked at nothing is shown.
    fn placeholder(&mut self, picture: &mut I420, _parameters: &Parameters) {
        *picture = I420::grey(picture.width(), picture.height(), PLACEHOLDER_LUMA);
    }
}

/// Where a frame of this size lies in the model's input: left, top, width, height.
fn letterbox(width: u32, height: u32) -> [u32; 4] {
    let scale = (f64::from(WIDTH) / f64::from(width)).min(f64::from(HEIGHT) / f64::from(height));
    let inner_width = ((f64::from(width) * scale).round() as u32).clamp(1, WIDTH);
    let inner_height = ((f64::from(height) * scale).round() as u32).clamp(1, HEIGHT);
    [(WIDTH - inner_width) / 2, (HEIGHT - inner_height) / 2, inner_width, inner_height]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face(score: f32, left: f32, top: f32, side: f32) -> Face {
        Face { score, rect: [left, top, left + side, top + side], keypoints: [[left + side / 2.0, top + side / 2.0]; 6] }
    }

    #[test]
    fn there_is_an_anchor_for_every_candidate() {
        let anchors: Vec<_> = anchors().collect();
        assert_eq!(anchors.len(), ANCHORS);
        assert_eq!(anchors[..3], [[8.0, 8.0], [8.0, 8.0], [24.0, 8.0]]);
        assert_eq!(anchors[320], [16.0, 16.0]);
        assert_eq!(anchors[559], [240.0, 144.0]);
    }

    #[test]
    fn candidates_that_overlap_become_their_weighted_mean() {
        let merged = merge(vec![face(0.9, 10.0, 10.0, 20.0), face(0.8, 200.0, 50.0, 20.0), face(0.3, 14.0, 10.0, 20.0)]);
        assert_eq!(merged.len(), 2);
        assert_eq!(merged[0].score, 0.9);
        assert!((merged[0].rect[0] - 11.0).abs() < 1e-4, "{:?}", merged[0].rect);
        assert!((merged[1].rect[0] - 200.0).abs() < 1e-3);
    }

    #[test]
    fn a_candidate_without_area_does_not_hang_the_merging() {
        assert_eq!(merge(vec![face(0.9, 10.0, 10.0, 0.0), face(0.8, 10.0, 10.0, -5.0)]).len(), 2);
    }

    #[test]
    fn the_letterbox_keeps_the_aspect_and_lies_in_the_middle() {
        assert_eq!(letterbox(640, 480), [21, 0, 213, 160]);
        assert_eq!(letterbox(1280, 720), [0, 8, 256, 144]);
        assert_eq!(letterbox(480, 640), [68, 0, 120, 160]);
        assert_eq!(letterbox(4096, 1), [0, 79, 256, 1]);
        assert_eq!(letterbox(1, 1), [48, 0, 160, 160]);
    }

    #[test]
    fn the_corners_of_the_content_are_the_corners_of_the_frame() {
        let mapped = in_frame(Face { score: 1.0, rect: [21.0, 0.0, 234.0, 160.0], keypoints: [[127.5, 80.0]; 6] }, letterbox(640, 480));
        assert_eq!(mapped.rect, [0.0, 0.0, 1.0, 1.0]);
        assert_eq!(mapped.keypoints[0], [0.5, 0.5]);
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
        for faces in single.chain([vec![face(0.9, 0.2, 0.2, 0.3); ANCHORS + 1]]) {
            let mut picture = I420::grey(640, 480, 100);
            let refused = painter.compose(&mut picture, Some(&Analysis::Faces(faces)), &parameters);
            assert!(refused.unwrap_err().to_string().starts_with("face_detection can not paint"));
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
            assert!(refused.unwrap_err().to_string().starts_with("face_detection can not paint"));
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
