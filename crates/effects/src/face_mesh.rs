//! The effect `face_mesh`: 468 points on every face, drawn as a mesh, as glasses, or as a carnival
//! mask.
//!
//! **Models.** The detector of [`crate::face_model`] finds the faces. For each of the [`MOST`]
//! faces with the highest scores, the square around it that is 1.5 times as large, rotated so that
//! the eyes are level, is passed to `face_landmark_192` (MediaPipe). Input: RGB `/255`, 192×192.
//! Output: 468 times x, y, z in pixels of that square, and the logit of a face being present.
//!
//! **Prepare.** The frame is letterboxed into 512×320, twice the detector's input, so that faces
//! have enough pixels for the second model.
//!
//! **Painting.** The points are smoothed and tracked like boxes ([`crate::faces`]).

use std::borrow::Cow;

use ooblex_pipeline::{Analysis, EffectName, FaceMesh as Mesh, I420, ModelInput, Rgb};

use crate::drawing::{Canvas, Colour};
use crate::effect::{ComposeError, Effect, Painter, WhenSlow};
use crate::face_model::{self, letterboxed};
use crate::faces::{LOYALTY, Tracker, meshes_of};
use crate::found::Found;
use crate::models::picture_of;
use crate::parameters::{Kind, Parameter, Parameters};
use crate::pixels::{Shrinker, nchw};
use ooblex_inference::Extent::Fixed;
use ooblex_inference::{Input, ModelSpec, Models, RunError, TensorSpec};

/// The effect `face_mesh`; see the module documentation.
pub(crate) struct FaceMesh;

const NAME: &str = "face_mesh";
/// Maximum number of faces in a frame that get a mesh.
const MOST: usize = 4;
/// Size of the prepared picture relative to the detector's input.
const FINENESS: u32 = 2;
/// Side of the second model's square input, in pixels.
const SIDE: usize = 192;
/// Side of the square around a face, relative to the face.
const ROOM: f32 = 1.5;
/// Minimum logit of a face being present: a probability of one half.
const LEAST_PRESENCE: f32 = 0.0;
/// Number of frames for which a face that is no longer detected is still painted.
const KEPT: u32 = 5;
/// Luma of the placeholder.
const PLACEHOLDER_LUMA: u8 = 96;

static MODELS: [&ModelSpec; 2] = [&face_model::MODEL, &MODEL];

static MODEL: ModelSpec = ModelSpec {
    name: Cow::Borrowed("face_landmark_192"),
    file: Cow::Borrowed("face_landmark_192.onnx"),
    sha256: Cow::Borrowed("3e77a9a49a0e86a106746b193e8b2cd3333a098357e3e338a391e8fc5fd38617"),
    embedded: include_bytes!("../../../models/face_landmark_192.onnx"),
    inputs: Cow::Borrowed(&[TensorSpec::new("input", &[Fixed(1), Fixed(3), Fixed(SIDE), Fixed(SIDE)])]),
    outputs: Cow::Borrowed(&[
        TensorSpec::new("landmarks", &[Fixed(1), Fixed(3 * Mesh::POINTS), Fixed(1), Fixed(1)]),
        TensorSpec::new("presence", &[Fixed(1), Fixed(1), Fixed(1), Fixed(1)]),
    ]),
    threads: 1,
    warm_up: &[],
};

static PARAMETERS: [Parameter; 2] = [
    Parameter::new(
        "look",
        "Look",
        "What is drawn on each face.",
        Kind::Choice { options: &["mesh", "points", "glasses", "mask"], default: "mesh" },
    ),
    Parameter::new(
        "threshold",
        "Certainty",
        "How certain the model must be that something is a face.",
        Kind::Number { min: 0.3, max: 0.95, default: 0.6 },
    ),
];

/// Points along the oval of a face, as MediaPipe indices. In this and the following lists, right
/// and left are the person's.
const OVAL: [usize; 36] = [
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150, 136, 172, 58, 132,
    93, 234, 127, 162, 21, 54, 103, 67, 109,
];
const RIGHT_EYE: [usize; 16] = [33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246];
const LEFT_EYE: [usize; 16] = [263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466];
const LIPS: [usize; 20] = [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185];
const MOUTH: [usize; 20] = [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191];
const RIGHT_BROW: [usize; 10] = [70, 63, 105, 66, 107, 55, 65, 52, 53, 46];
const LEFT_BROW: [usize; 10] = [300, 293, 334, 296, 336, 285, 295, 282, 283, 276];
const NOSE: [usize; 5] = [168, 6, 197, 195, 4];
/// Outline of a carnival mask: the upper half of a face, down to cheeks and nose.
const MASK: [usize; 22] = [127, 162, 21, 54, 103, 67, 109, 10, 338, 297, 332, 284, 251, 389, 356, 454, 352, 280, 195, 50, 123, 234];

impl Effect for FaceMesh {
    fn name(&self) -> EffectName {
        EffectName::new(NAME)
    }

    fn title(&self) -> &'static str {
        "Face mesh"
    }

    fn description(&self) -> &'static str {
        "468 points on every face: as a mesh, or wearing glasses or a mask."
    }

    fn parameters(&self) -> &[Parameter] {
        &PARAMETERS
    }

    fn models(&self) -> Vec<&ModelSpec> {
        MODELS.to_vec()
    }

    fn when_slow(&self) -> WhenSlow {
        WhenSlow::Hold
    }

    /// Runs both models; `input.arguments` holds the threshold.
    fn analyse(&self, models: &mut Models, input: &ModelInput) -> Result<Analysis, RunError> {
        let [width, height] = [face_model::WIDTH, face_model::HEIGHT].map(|side| side * FINENESS);
        let fine = picture_of(&MODEL, input, width, height)?;
        let threshold = face_model::threshold_of(input)?;
        let faces = face_model::detect(models, &halved(fine), threshold)?;
        let content = input.content.map(|side| side as f32 / FINENESS as f32);
        let mut meshes = Vec::new();
        for (index, face) in faces.into_iter().enumerate() {
            let mut points = Vec::new();
            if index < MOST {
                let square = Square::of(&face);
                let data = nchw(&square.cut(fine).data, 255.0, 0.0);
                let outputs = models.run(&MODEL, &[Input { shape: &[1, 3, SIDE, SIDE], data: &data }])?;
                if outputs[1].data.first().is_some_and(|presence| *presence >= LEAST_PRESENCE) {
                    points = outputs[0].data.as_chunks::<3>().0.iter().map(|point| in_frame(square.place(*point), content)).collect();
                }
            }
            meshes.push(Mesh { face: face_model::in_frame(face, content), points });
        }
        Ok(Analysis::Meshes(meshes))
    }

    fn painter(&self) -> Box<dyn Painter> {
        Box::new(MeshPainter::default())
    }
}

/// Returns the picture at half its size; each pixel is the mean of four.
fn halved(fine: &Rgb) -> Rgb {
    let (width, height) = (fine.width / 2, fine.height / 2);
    let mut data = Vec::with_capacity(3 * width as usize * height as usize);
    let stride = 3 * fine.width as usize;
    for rows in fine.data.chunks_exact(2 * stride) {
        let (upper, lower) = rows.split_at(stride);
        for (a, b) in upper.chunks_exact(6).zip(lower.chunks_exact(6)) {
            data.extend((0..3).map(|c| ((u16::from(a[c]) + u16::from(a[c + 3]) + u16::from(b[c]) + u16::from(b[c + 3]) + 2) / 4) as u8));
        }
    }
    Rgb { width, height, data }
}

/// Converts pixels of the detector's input to coordinates of the frame.
fn in_frame([x, y, z]: [f32; 3], [left, top, width, height]: [f32; 4]) -> [f32; 3] {
    [(x - left) / width, (y - top) / height, z / width]
}

/// The rotated square around a face, in pixels of the detector's input.
struct Square {
    centre: [f32; 2],
    side: f32,
    /// Cosine and sine of the rotation.
    turn: [f32; 2],
}

impl Square {
    fn of(face: &ooblex_pipeline::Face) -> Self {
        let [left, top, right, bottom] = face.rect;
        let [right_eye, left_eye, ..] = face.keypoints;
        let [across, down] = [left_eye[0] - right_eye[0], left_eye[1] - right_eye[1]];
        let length = across.hypot(down);
        let turn = if length > f32::EPSILON { [across / length, down / length] } else { [1.0, 0.0] };
        Self { centre: [(left + right) / 2.0, (top + bottom) / 2.0], side: ROOM * (right - left).max(bottom - top).max(1.0), turn }
    }

    /// Converts pixels of the square to pixels of the detector's input; z is scaled like x and y.
    fn place(&self, [x, y, z]: [f32; 3]) -> [f32; 3] {
        let scale = self.side / SIDE as f32;
        let [x, y] = [x, y].map(|at| (at - SIDE as f32 / 2.0) * scale);
        let [cos, sin] = self.turn;
        [self.centre[0] + x * cos - y * sin, self.centre[1] + x * sin + y * cos, z * scale]
    }

    /// Cuts the square out of a picture that is [`FINENESS`] times as large as the detector's
    /// input; pixels beyond its edges are black.
    fn cut(&self, fine: &Rgb) -> Rgb {
        let mut data = Vec::with_capacity(3 * SIDE * SIDE);
        for row in 0..SIDE {
            for column in 0..SIDE {
                // In both pictures the centre of a pixel lies half a pixel beyond its index.
                let [x, y, _] = self.place([column as f32 + 0.5, row as f32 + 0.5, 0.0]);
                data.extend(bilinear(fine, [x, y].map(|at| at * FINENESS as f32 - 0.5)));
            }
        }
        Rgb { width: SIDE as u32, height: SIDE as u32, data }
    }
}

fn bilinear(picture: &Rgb, [x, y]: [f32; 2]) -> [u8; 3] {
    let (left, top) = (x.floor(), y.floor());
    let mut mean = [0.5; 3];
    for (dx, dy) in [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)] {
        let (column, row) = (left + dx, top + dy);
        let weight = (1.0 - (x - column).abs()) * (1.0 - (y - row).abs());
        if (0.0..picture.width as f32).contains(&column) && (0.0..picture.height as f32).contains(&row) {
            let pixel = &picture.data[3 * (row as usize * picture.width as usize + column as usize)..][..3];
            mean.iter_mut().zip(pixel).for_each(|(mean, value)| *mean += weight * f32::from(*value));
        }
    }
    mean.map(|value| value as u8)
}

#[derive(Default)]
struct MeshPainter {
    shrinker: Shrinker,
    tracker: Tracker,
}

impl Painter for MeshPainter {
    fn prepare(&mut self, source: &I420, parameters: &Parameters) -> ModelInput {
        let threshold = parameters.number("threshold") as f32 * LOYALTY;
        letterboxed(&mut self.shrinker, source, [face_model::WIDTH * FINENESS, face_model::HEIGHT * FINENESS], threshold)
    }

    fn compose(&mut self, picture: &mut I420, analysis: Option<&Analysis>, parameters: &Parameters) -> Result<(), ComposeError> {
        let meshes = meshes_of(NAME, analysis)?;
        let with_points = meshes.iter().filter(|mesh| !mesh.points.is_empty());
        self.tracker.update(with_points.map(|mesh| (&mesh.face, &mesh.points[..])), parameters.number("threshold") as f32, KEPT);
        let [width, height] = [picture.width() as f32, picture.height() as f32];
        let look = parameters.choice("look");
        let mut canvas = Canvas::new(picture);
        for seen in self.tracker.found() {
            let points: Vec<[f32; 2]> =
                seen.landmarks.iter().map(|[x, y, _]| [x.clamp(-4.0, 5.0) * width, y.clamp(-4.0, 5.0) * height]).collect();
            if points.len() == Mesh::POINTS {
                Worn { points: &points, canvas: &mut canvas }.put_on(look);
            }
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

/// Draws on the points of one face.
struct Worn<'a, 'b> {
    points: &'a [[f32; 2]],
    canvas: &'a mut Canvas<'b>,
}

impl Worn<'_, '_> {
    fn put_on(&mut self, look: &str) {
        match look {
            "glasses" => self.glasses(),
            "mask" => self.mask(),
            "points" => self.dots(self.size() * 0.011, Colour::YELLOW),
            _ => self.mesh(),
        }
    }

    fn mesh(&mut self) {
        self.dots(self.size() * 0.006, Colour::WHITE);
        let thick = (self.size() * 0.014).max(1.2);
        for (outline, closed) in [
            (&OVAL[..], true),
            (&RIGHT_EYE, true),
            (&LEFT_EYE, true),
            (&LIPS, true),
            (&MOUTH, true),
            (&RIGHT_BROW, true),
            (&LEFT_BROW, true),
            (&NOSE, false),
        ] {
            let path = self.path(outline);
            let turn = closed.then(|| [path[path.len() - 1], path[0]]);
            for pair in path.windows(2).chain(turn.as_ref().map(|turn| &turn[..])) {
                self.canvas.stroke(pair[0], pair[1], thick, Colour::GREEN);
            }
        }
    }

    fn dots(&mut self, radius: f32, colour: Colour) {
        let radius = radius.max(0.7);
        for [x, y] in self.points {
            let diamond = [[x - radius, *y], [*x, y - radius], [x + radius, *y], [*x, y + radius]];
            self.canvas.fill_shape(&[&diamond], colour, 1.0);
        }
    }

    fn glasses(&mut self) {
        let [right, left] = [self.middle(&RIGHT_EYE), self.middle(&LEFT_EYE)];
        let across = [left[0] - right[0], left[1] - right[1]];
        let span = across[0].hypot(across[1]).max(1.0);
        let along = across.map(|side| side / span);
        let down = [-along[1], along[0]];
        let at = |centre: [f32; 2], x: f32, y: f32| std::array::from_fn(|axis| centre[axis] + along[axis] * x + down[axis] * y);
        let lens = |centre: [f32; 2], size: f32| -> Vec<[f32; 2]> {
            (0..40)
                .map(|step| {
                    let (sin, cos) = (step as f32 / 40.0 * std::f32::consts::TAU).sin_cos();
                    let round = |value: f32| value.signum() * value.abs().powf(0.7);
                    at(centre, size * 0.40 * span * round(cos), 0.04 * span + size * 0.33 * span * round(sin))
                })
                .collect()
        };
        let thick = 0.075 * span;
        self.canvas.stroke(at(right, 0.36 * span, -0.04 * span), at(left, -0.36 * span, -0.04 * span), thick, Colour::BLACK);
        for (eye, outward, temple) in [(right, -1.0, self.points[127]), (left, 1.0, self.points[356])] {
            self.canvas.stroke(at(eye, outward * 0.38 * span, -0.06 * span), temple, thick, Colour::BLACK);
            let (outer, inner) = (lens(eye, 1.12), lens(eye, 0.94));
            self.canvas.fill_shape(&[&outer, &inner], Colour::BLACK, 1.0);
            self.canvas.fill_shape(&[&inner], Colour([60, 140, 116]), 0.62);
            let glint = [at(eye, -0.20 * span, -0.20 * span), at(eye, -0.08 * span, -0.20 * span), at(eye, -0.22 * span, 0.12 * span)];
            self.canvas.fill_shape(&[&glint], Colour::WHITE, 0.28);
        }
    }

    fn mask(&mut self) {
        let outline = self.path(&MASK);
        let holes = [self.hole(&RIGHT_EYE), self.hole(&LEFT_EYE)];
        self.canvas.fill_shape(&[&outline, &holes[0], &holes[1]], Colour([62, 150, 170]), 0.94);
        let gold = Colour([165, 70, 150]);
        let thick = (self.size() * 0.028).max(1.2);
        for path in [&outline, &holes[0], &holes[1]] {
            let turn = [path[path.len() - 1], path[0]];
            path.windows(2).chain([&turn[..]]).for_each(|pair| self.canvas.stroke(pair[0], pair[1], thick, gold));
        }
    }

    /// Returns the enlarged outline of an eye.
    fn hole(&self, eye: &[usize]) -> Vec<[f32; 2]> {
        let middle = self.middle(eye);
        self.path(eye).iter().map(|point| [0, 1].map(|axis| middle[axis] + (point[axis] - middle[axis]) * [1.35, 1.9][axis])).collect()
    }

    fn path(&self, outline: &[usize]) -> Vec<[f32; 2]> {
        outline.iter().map(|index| self.points[*index]).collect()
    }

    fn middle(&self, outline: &[usize]) -> [f32; 2] {
        [0, 1].map(|axis| outline.iter().map(|index| self.points[*index][axis]).sum::<f32>() / outline.len() as f32)
    }

    /// Returns the width of the face in pixels.
    fn size(&self) -> f32 {
        let [a, b] = [self.points[234], self.points[454]];
        (a[0] - b[0]).hypot(a[1] - b[1])
    }
}

#[cfg(test)]
mod tests {
    use ooblex_pipeline::Face;

    use super::*;

    fn face(left: f32, top: f32, side: f32, eyes: [[f32; 2]; 2]) -> Face {
        let [right_eye, left_eye] = eyes;
        Face {
            score: 0.9,
            rect: [left, top, left + side, top + side],
            keypoints: [right_eye, left_eye, [0.0; 2], [0.0; 2], [0.0; 2], [0.0; 2]],
        }
    }

    #[test]
    fn the_square_lies_around_the_face_and_turns_with_its_eyes() {
        let square = Square::of(&face(100.0, 40.0, 40.0, [[110.0, 50.0], [130.0, 50.0]]));
        assert_eq!(square.place([96.0, 96.0, 0.0]), [120.0, 60.0, 0.0]);
        assert_eq!(square.place([0.0, 0.0, 192.0]), [90.0, 30.0, 60.0]);
        let turned = Square::of(&face(100.0, 40.0, 40.0, [[110.0, 50.0], [110.0, 70.0]]));
        let [x, y, _] = turned.place([192.0, 96.0, 0.0]);
        assert!((x - 120.0).abs() < 1e-3 && (y - 90.0).abs() < 1e-3, "{x}, {y}");
    }

    #[test]
    fn eyes_in_one_place_and_boxes_without_size_do_no_harm() {
        let picture = Rgb { width: 512, height: 320, data: vec![9; 3 * 512 * 320] };
        for face in [face(0.0, 0.0, 0.0, [[0.0; 2]; 2]), face(-1e9, 1e9, -5.0, [[1e30; 2]; 2])] {
            assert_eq!(Square::of(&face).cut(&picture).data.len(), 3 * SIDE * SIDE);
        }
    }

    #[test]
    fn every_look_is_painted_and_places_outside_do_no_harm() {
        for look in ["mesh", "points", "glasses", "mask"] {
            let parameters = Parameters::parse(&PARAMETERS, &serde_json::json!({"look": look})).unwrap();
            for places in [0.3..0.6_f32, -1e30..1e30, 0.5..0.5] {
                let at = |index: usize| places.start + (places.end / 468.0 - places.start / 468.0) * index as f32;
                let points = (0..Mesh::POINTS).map(|index| [at(index), at(467 - index), 0.0]).collect();
                let mesh = Mesh { face: face(0.3, 0.3, 0.3, [[0.4, 0.4], [0.5, 0.4]]), points };
                let mut picture = I420::grey(64, 48, 100);
                FaceMesh.painter().compose(&mut picture, Some(&Analysis::Meshes(vec![mesh])), &parameters).unwrap();
            }
        }
    }
}
