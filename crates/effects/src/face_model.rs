//! The face detection model, and the functions that prepare its input and run it.
//!
//! **Model.** `blazeface_back_160x256` (MediaPipe). Input: RGB `/127.5 - 1`, the frame letterboxed
//! into 256×160 (aspect ratio kept, centred, black around it). Output: 560 candidates, each with an
//! offset to its anchor, a size and six keypoint offsets, in pixels of the input. Anchors: 16×10
//! cells (of 16 px) with two each, then 8×5 cells (of 32 px) with six each, row by row, at the
//! cells' centres.
//!
//! **Result.** Candidates with `sigmoid(score) >= threshold`, best first. Those whose IoU with the
//! best one is above 0.3 are merged with it, as a mean weighted by the scores (MediaPipe's weighted
//! non-maximum suppression).

use std::borrow::Cow;

use ooblex_pipeline::{Analysis, Face, I420, ModelInput, Rgb};

use crate::faces::overlap;
use crate::models::picture_of;
use crate::pixels::{Shrinker, nchw};
use ooblex_inference::Extent::Fixed;
use ooblex_inference::{Input, ModelSpec, Models, RunError, TensorSpec};

/// Width of the model's input in pixels.
pub(crate) const WIDTH: u32 = 256;
/// Height of the model's input in pixels.
pub(crate) const HEIGHT: u32 = 160;
const ANCHORS: usize = 560;
/// Number of values of a candidate: offset, size, six keypoint offsets; x before y.
const NUMBERS: usize = 16;
/// IoU above which two candidates are the same face.
const SAME_FACE: f32 = 0.3;

/// The models of effects that detect faces.
pub(crate) static MODELS: [&ModelSpec; 1] = [&MODEL];

/// The face detection model; see the module documentation.
pub(crate) static MODEL: ModelSpec = ModelSpec {
    name: Cow::Borrowed("blazeface_back_160x256"),
    file: Cow::Borrowed("blazeface_back_160x256.onnx"),
    sha256: Cow::Borrowed("9d5ad3dcb23da8402e41eb8463321fb4b7a2f86662c294acfd4b849beaf5f2c3"),
    embedded: include_bytes!("../../../models/blazeface_back_160x256.onnx"),
    inputs: Cow::Borrowed(&[TensorSpec::new("input", &[Fixed(1), Fixed(3), Fixed(HEIGHT as usize), Fixed(WIDTH as usize)])]),
    outputs: Cow::Borrowed(&[
        TensorSpec::new("boxes", &[Fixed(1), Fixed(ANCHORS), Fixed(NUMBERS)]),
        TensorSpec::new("scores", &[Fixed(1), Fixed(ANCHORS), Fixed(1)]),
    ]),
    threads: 1,
    warm_up: &[],
};

/// Makes the model's input from a frame; `threshold` is the minimum score of a face.
pub(crate) fn prepare(shrinker: &mut Shrinker, source: &I420, threshold: f32) -> ModelInput {
    letterboxed(shrinker, source, [WIDTH, HEIGHT], threshold)
}

/// Returns the faces of a prepared frame.
///
/// # Errors
/// When the input was not made by [`prepare`], or the model fails.
pub(crate) fn analyse(models: &mut Models, input: &ModelInput) -> Result<Analysis, RunError> {
    let picture = picture_of(&MODEL, input, WIDTH, HEIGHT)?;
    let threshold = threshold_of(input)?;
    let content = input.content.map(|side| side as f32);
    Ok(Analysis::Faces(detect(models, picture, threshold)?.into_iter().map(|face| in_frame(face, content)).collect()))
}

/// Letterboxes the frame into a picture of `into` columns and rows: aspect ratio kept, centred,
/// black around it.
pub(crate) fn letterboxed(shrinker: &mut Shrinker, source: &I420, into: [u32; 2], threshold: f32) -> ModelInput {
    let content = letterbox(source.width(), source.height(), into);
    let [left, top, width, height] = content;
    let frame = shrinker.rgb(source, width, height);
    let stride = 3 * into[0] as usize;
    let mut data = vec![0; stride * into[1] as usize];
    let rows = data.chunks_exact_mut(stride).skip(top as usize);
    for (row, line) in rows.zip(frame.data.chunks_exact(3 * width as usize)) {
        row[3 * left as usize..][..line.len()].copy_from_slice(line);
    }
    ModelInput { picture: Rgb { width: into[0], height: into[1], data }, content, arguments: vec![threshold] }
}

/// Returns the only argument of an input, the threshold.
///
/// # Errors
/// When there is not exactly one argument within 0..=1.
pub(crate) fn threshold_of(input: &ModelInput) -> Result<f32, RunError> {
    match input.arguments[..] {
        [threshold] if (0.0..=1.0).contains(&threshold) => Ok(threshold),
        _ => {
            let reason = format!("its arguments are {:?} instead of one threshold from 0 to 1", input.arguments);
            Err(RunError::BadInput { model: MODEL.name.to_string(), reason })
        }
    }
}

/// Returns the faces in a picture of the model's size, in its pixels, best first.
///
/// # Errors
/// When the model fails.
pub(crate) fn detect(models: &mut Models, picture: &Rgb, threshold: f32) -> Result<Vec<Face>, RunError> {
    let data = nchw(&picture.data, 127.5, -1.0);
    let outputs = models.run(&MODEL, &[Input { shape: &[1, 3, HEIGHT as usize, WIDTH as usize], data: &data }])?;
    Ok(merge(candidates(&outputs[0].data, &outputs[1].data, threshold)))
}

/// Returns the anchors' centres in pixels of the input, in the order of the candidates.
fn anchors() -> impl Iterator<Item = [f32; 2]> {
    [(16, 2), (32, 6)].into_iter().flat_map(|(stride, each)| {
        let centre = move |cell: u32| (cell as f32 + 0.5) * stride as f32;
        (0..HEIGHT / stride).flat_map(move |y| (0..WIDTH / stride).flat_map(move |x| (0..each).map(move |_| [centre(x), centre(y)])))
    })
}

/// Returns the candidates whose score is at least `threshold`, in pixels of the input, best first.
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

/// Merges overlapping candidates into one face each. Candidates and faces are sorted best first.
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

/// Converts pixels of the input to coordinates of the frame, which occupies `content` in it.
pub(crate) fn in_frame(face: Face, [left, top, width, height]: [f32; 4]) -> Face {
    let point = |[x, y]: [f32; 2]| [(x - left) / width, (y - top) / height];
    let [start, end] = [[face.rect[0], face.rect[1]], [face.rect[2], face.rect[3]]].map(point);
    Face { score: face.score, rect: [start[0], start[1], end[0], end[1]], keypoints: face.keypoints.map(point) }
}

/// Returns the area (left, top, width, height) of a picture of size `into` that a letterboxed frame
/// occupies.
pub(crate) fn letterbox(width: u32, height: u32, into: [u32; 2]) -> [u32; 4] {
    let [most_width, most_height] = into;
    let scale = (f64::from(most_width) / f64::from(width)).min(f64::from(most_height) / f64::from(height));
    let inner_width = ((f64::from(width) * scale).round() as u32).clamp(1, most_width);
    let inner_height = ((f64::from(height) * scale).round() as u32).clamp(1, most_height);
    [(most_width - inner_width) / 2, (most_height - inner_height) / 2, inner_width, inner_height]
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
        assert_eq!(letterbox(640, 480, [WIDTH, HEIGHT]), [21, 0, 213, 160]);
        assert_eq!(letterbox(1280, 720, [WIDTH, HEIGHT]), [0, 8, 256, 144]);
        assert_eq!(letterbox(480, 640, [WIDTH, HEIGHT]), [68, 0, 120, 160]);
        assert_eq!(letterbox(4096, 1, [WIDTH, HEIGHT]), [0, 79, 256, 1]);
        assert_eq!(letterbox(1, 1, [WIDTH, HEIGHT]), [48, 0, 160, 160]);
    }

    #[test]
    fn the_corners_of_the_content_are_the_corners_of_the_frame() {
        let mapped = in_frame(
            Face { score: 1.0, rect: [21.0, 0.0, 234.0, 160.0], keypoints: [[127.5, 80.0]; 6] },
            letterbox(640, 480, [WIDTH, HEIGHT]).map(|side| side as f32),
        );
        assert_eq!(mapped.rect, [0.0, 0.0, 1.0, 1.0]);
        assert_eq!(mapped.keypoints[0], [0.5, 0.5]);
    }
}
