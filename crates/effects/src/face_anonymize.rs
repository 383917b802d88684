//! The effect `face_anonymize`: every face is made unrecognisable.
//!
//! **Model.** The face detector of [`crate::face_model`], with a lower threshold than
//! `face_detection`: a cover too many does less harm than one too few.
//!
//! **Painting.** Each face is covered by a rounded area with a margin, large enough for hair and
//! chin. The effect fails closed: a face stays covered for 45 frames (1.5 s) after it was last
//! detected, with a growing margin; both its last detected and its tracked position are covered;
//! frames are shown only with their own analysis; a turn of the camera uncovers nothing; and until the first analysis arrives the whole
//! picture is hidden.

use ooblex_pipeline::{Analysis, EffectName, I420, ModelInput};

use crate::blur::Blur;
use crate::effect::{ComposeError, Effect, Painter, WhenSlow};
use crate::face_model;
use crate::faces::{LOYALTY, Tracker, faces_of};
use crate::found::Found;
use crate::parameters::{Kind, Parameter, Parameters};
use crate::pixels::Shrinker;
use ooblex_inference::{ModelSpec, Models, RunError};

/// The effect `face_anonymize`; see the module documentation.
pub(crate) struct FaceAnonymize;

const NAME: &str = "face_anonymize";
/// Number of frames for which a face that is no longer detected stays covered.
const KEPT: u32 = 45;
/// Number of blocks across a pixelated face.
const BLOCKS: f32 = 7.0;
/// Standard deviation of the blur, as a fraction of the width of the widest covered area.
const SIGMA: f32 = 0.22;
/// Minimum standard deviation of the blur, as a fraction of the square root of the frame's area.
const LEAST_SIGMA: f32 = 0.03;
/// Y, U and V of covers.
const COVER: [u8; 3] = [70, 128, 128];
/// Luma of the placeholder.
const PLACEHOLDER_LUMA: u8 = 96;

static PARAMETERS: [Parameter; 3] = [
    Parameter::new(
        "way",
        "Way",
        "How faces are hidden: 'pixelate', 'blur', or 'cover' with an even grey, which keeps nothing of them.",
        Kind::Choice { options: &["pixelate", "blur", "cover"], default: "pixelate" },
    ),
    Parameter::new(
        "margin",
        "Room",
        "How much around a face is hidden with it, as a share of its size.",
        Kind::Number { min: 0.1, max: 1.0, default: 0.35 },
    ),
    Parameter::new(
        "threshold",
        "Certainty",
        "How certain the model must be that something is a face; with less, more is hidden.",
        Kind::Number { min: 0.2, max: 0.8, default: 0.45 },
    ),
];

impl Effect for FaceAnonymize {
    fn name(&self) -> EffectName {
        EffectName::new(NAME)
    }

    fn title(&self) -> &'static str {
        "Hidden faces"
    }

    fn description(&self) -> &'static str {
        "Every face pixelated, blurred or covered, and kept so while it may be there."
    }

    fn parameters(&self) -> &[Parameter] {
        &PARAMETERS
    }

    fn models(&self) -> Vec<&ModelSpec> {
        face_model::MODELS.to_vec()
    }

    fn when_slow(&self) -> WhenSlow {
        WhenSlow::Hold
    }

    fn analyse(&self, models: &mut Models, input: &ModelInput) -> Result<Analysis, RunError> {
        face_model::analyse(models, input)
    }

    fn painter(&self) -> Box<dyn Painter> {
        Box::new(AnonymizePainter::default())
    }
}

#[derive(Default)]
struct AnonymizePainter {
    shrinker: Shrinker,
    tracker: Tracker,
    blur: Blur,
    row: Vec<u8>,
}

impl Painter for AnonymizePainter {
    fn prepare(&mut self, source: &I420, parameters: &Parameters) -> ModelInput {
        face_model::prepare(&mut self.shrinker, source, parameters.number("threshold") as f32 * LOYALTY)
    }

    fn compose(&mut self, picture: &mut I420, analysis: Option<&Analysis>, parameters: &Parameters) -> Result<(), ComposeError> {
        let (threshold, margin) = (parameters.number("threshold") as f32, parameters.number("margin") as f32);
        let seen = faces_of(NAME, analysis)?;
        self.tracker.update(seen.iter().map(|face| (face, &[][..])), threshold, KEPT);
        let certain = seen.iter().filter(|face| face.score >= threshold).map(|face| (face.rect, margin));
        let tracked = self.tracker.found().iter().map(|seen| (seen.face.rect, margin + 0.02 * seen.missed as f32));
        let areas: Vec<_> = certain.chain(tracked).map(|(rect, margin)| Area::around(rect, margin, picture)).collect();
        let way = parameters.choice("way");
        if way == "blur" && !areas.is_empty() {
            let widest = areas.iter().map(|area| area.radii[0]).fold(0.0, f32::max) * 2.0;
            let side = (picture.width() as f32 * picture.height() as f32).sqrt();
            self.blur.set(picture, (SIGMA * widest / side).clamp(LEAST_SIGMA, 0.12), None);
        }
        let source = (way == "pixelate" && !areas.is_empty()).then(|| picture.clone());
        for area in areas {
            match (way, &source) {
                (_, Some(source)) => area.pixelate(picture, source),
                ("blur", _) => self.put_blurred(&area, picture),
                _ => area.rows(picture, |index, _, _, row| row.fill(COVER[index])),
            }
        }
        Ok(())
    }

    fn found(&self) -> Option<Vec<Found>> {
        Some(self.tracker.told())
    }

    /// Paints a uniform grey, because the positions of the faces are unknown.
    fn placeholder(&mut self, picture: &mut I420, _parameters: &Parameters) {
        *picture = I420::grey(picture.width(), picture.height(), PLACEHOLDER_LUMA);
    }
}

impl AnonymizePainter {
    fn put_blurred(&mut self, area: &Area, picture: &mut I420) {
        let (blur, scratch) = (&self.blur, &mut self.row);
        let widths = [picture.width(), picture.chroma_width(), picture.chroma_width()];
        area.rows(picture, |index, y, left, row| {
            scratch.resize(widths[index] as usize, 0);
            blur.planes()[index].row(y).copy_to(scratch);
            row.copy_from_slice(&scratch[left..left + row.len()]);
        });
    }
}

/// A rounded area (superellipse), in pixels of luma.
struct Area {
    centre: [f32; 2],
    radii: [f32; 2],
}

impl Area {
    /// Returns the area of a face with a margin: more above, where the hair is.
    fn around(rect: [f32; 4], margin: f32, picture: &I420) -> Self {
        let sides = [picture.width() as f32, picture.height() as f32];
        // Positions far outside the frame cover nothing, so they may be clamped.
        let [left, top, right, bottom] = std::array::from_fn(|i| rect[i].clamp(-4.0, 5.0) * sides[i % 2]);
        let (width, height) = ((right - left).abs(), (bottom - top).abs());
        let centre = [(left + right) / 2.0, (top + bottom) / 2.0 - 0.12 * height];
        Self { centre, radii: [width * (0.5 + margin) + 2.0, height * (0.56 + margin) + 2.0] }
    }

    /// Returns half of the area's width at height `y` in pixels: a superellipse, rounder than a box
    /// and fuller than an ellipse.
    fn half_width(&self, y: f32) -> f32 {
        let away = ((y - self.centre[1]) / self.radii[1]).abs();
        if away < 1.0 { self.radii[0] * (1.0 - away.powi(4)).powf(0.25) } else { 0.0 }
    }

    /// Calls `paint` for each row of each plane that the area covers, with the plane's index, the
    /// row's index, the first covered column, and the covered pixels.
    fn rows(&self, picture: &mut I420, mut paint: impl FnMut(usize, usize, usize, &mut [u8])) {
        let strides = [picture.width(), picture.chroma_width(), picture.chroma_width()];
        for (index, plane) in picture.planes_mut().into_iter().enumerate() {
            let scale = if index == 0 { 1.0 } else { 2.0 };
            let width = strides[index] as usize;
            for (y, row) in plane.chunks_exact_mut(width).enumerate() {
                let half = self.half_width((y as f32 + 0.5) * scale);
                let bound = |x: f32| (x / scale).clamp(0.0, width as f32);
                let (left, right) = (bound(self.centre[0] - half).floor() as usize, bound(self.centre[0] + half).ceil() as usize);
                if half > 0.0 && left < right {
                    paint(index, y, left, &mut row[left..right]);
                }
            }
        }
    }

    /// Replaces the area by blocks of one colour, the mean of the source there.
    fn pixelate(&self, picture: &mut I420, source: &I420) {
        let block = ((2.0 * self.radii[0] / BLOCKS / 2.0).ceil() as usize * 2).max(8);
        let strides = [picture.width(), picture.chroma_width(), picture.chroma_width()];
        // Means of the current row of blocks, for each plane.
        let mut means: [Vec<u8>; 3] = Default::default();
        let mut made = [usize::MAX; 3];
        self.rows(picture, |index, y, left, row| {
            let side = if index == 0 { block } else { block / 2 };
            if made[index] != y / side {
                made[index] = y / side;
                means[index] = block_means(source.planes()[index], strides[index] as usize, y / side * side, side);
            }
            row.iter_mut().enumerate().for_each(|(x, value)| *value = means[index][(left + x) / side]);
        });
    }
}

/// Returns the mean of each block of `side` columns in the `side` rows from `top` on.
fn block_means(plane: &[u8], width: usize, top: usize, side: usize) -> Vec<u8> {
    let rows: Vec<_> = plane.chunks_exact(width).skip(top).take(side).collect();
    let mean = |block: usize| {
        let columns = block * side..((block + 1) * side).min(width);
        let sum: u32 = rows.iter().flat_map(|row| &row[columns.clone()]).map(|value| u32::from(*value)).sum();
        (sum / (rows.len() * columns.len()).max(1) as u32) as u8
    };
    (0..width.div_ceil(side)).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use ooblex_pipeline::Face;
    use serde_json::json;

    use super::*;

    fn face(score: f32, left: f32) -> Face {
        Face { score, rect: [left, 0.4, left + 0.2, 0.6], keypoints: [[left + 0.1, 0.5]; 6] }
    }

    fn parameters(way: &str) -> Parameters {
        Parameters::parse(&PARAMETERS, &json!({"way": way})).unwrap()
    }

    /// Alternating columns of luma 16 and 235.
    fn stripes() -> I420 {
        let mut picture = I420::grey(640, 480, 16);
        picture.planes_mut()[0].chunks_exact_mut(640).for_each(|row| row.iter_mut().step_by(2).for_each(|luma| *luma = 235));
        picture
    }

    fn is_hidden(picture: &I420, x: usize) -> bool {
        let row = &picture.planes()[0][240 * 640..][..640];
        row[x - 20..x + 20].windows(2).filter(|pair| pair[0].abs_diff(pair[1]) > 20).count() <= 2
    }

    #[test]
    fn faces_are_hidden_in_every_way_and_nothing_else_is() {
        for way in ["pixelate", "blur", "cover"] {
            let mut picture = stripes();
            FaceAnonymize.painter().compose(&mut picture, Some(&Analysis::Faces(vec![face(0.9, 0.4)])), &parameters(way)).unwrap();
            assert!(is_hidden(&picture, 320) && is_hidden(&picture, 270) && is_hidden(&picture, 370), "{way}");
            assert!(!is_hidden(&picture, 100) && !is_hidden(&picture, 500), "{way}");
        }
    }

    #[test]
    fn a_face_that_was_there_a_moment_ago_stays_hidden() {
        let mut painter = FaceAnonymize.painter();
        let mut shown = |faces: Vec<Face>| {
            let mut picture = stripes();
            painter.compose(&mut picture, Some(&Analysis::Faces(faces)), &parameters("pixelate")).unwrap();
            picture
        };
        shown(vec![face(0.9, 0.4)]);
        for n in 0..KEPT {
            assert!(is_hidden(&shown(vec![]), 320), "bare after {n} frames");
        }
        (0..90).for_each(|_| _ = shown(vec![]));
        assert!(!is_hidden(&shown(vec![]), 320));
    }

    #[test]
    fn a_face_that_jumps_is_hidden_where_it_was_and_where_it_is() {
        let mut painter = FaceAnonymize.painter();
        for left in [0.1, 0.6] {
            let mut picture = stripes();
            painter.compose(&mut picture, Some(&Analysis::Faces(vec![face(0.9, left)])), &parameters("cover")).unwrap();
            assert!(is_hidden(&picture, 128), "at {left}");
            assert_eq!(is_hidden(&picture, 448), left == 0.6);
        }
    }

    #[test]
    fn the_placeholder_shows_nothing_of_the_source() {
        let mut picture = stripes();
        FaceAnonymize.painter().placeholder(&mut picture, &parameters("blur"));
        assert!(picture == I420::grey(640, 480, PLACEHOLDER_LUMA));
    }
}
