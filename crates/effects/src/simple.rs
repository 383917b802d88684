//! Effects that need no model. Each is a [`Simple`] table of facts with a paint function; this file
//! implements [`Effect`] for them.
//!
//! They work directly on the planes of a frame, in loops that the compiler vectorises: none takes
//! more than about a millisecond for 1280×720. They hide nothing, so their placeholder is the
//! painted frame itself.

mod cartoon;
mod denoise;
mod edges;
mod grayscale;
mod invert;
mod mirror;
mod sepia;
mod sharpen;
mod vignette;

use ooblex_pipeline::{Analysis, EffectName, I420, ModelInput, Rgb};

use crate::effect::{Chaining, ComposeError, Effect, Painter, WhenSlow};
use crate::parameters::{Kind, Parameter, Parameters};
use ooblex_inference::{ModelSpec, Models, RunError};

/// All effects without a model, in the order in which they are offered.
pub(crate) static SIMPLE: [&Simple; 9] = [
    &cartoon::FACTS,
    &edges::FACTS,
    &grayscale::FACTS,
    &sepia::FACTS,
    &invert::FACTS,
    &mirror::FACTS,
    &vignette::FACTS,
    &sharpen::FACTS,
    &denoise::FACTS,
];

/// Description and paint function of one effect without a model.
pub(crate) struct Simple {
    /// Name used in requests.
    name: &'static str,
    /// Name shown to users.
    title: &'static str,
    /// One sentence that says what the viewer sees.
    description: &'static str,
    parameters: &'static [Parameter],
    /// Position that the effect may take in a chain.
    chaining: Chaining,
    /// Creates the state that paints the frames of one track.
    paint: fn() -> Box<dyn Paint>,
}

/// Paints the frames of one track, in order.
trait Paint: Send {
    fn paint(&mut self, picture: &mut I420, parameters: &Parameters);

    /// Returns the position in the painted picture of a point of the source; see
    /// [`Painter::place`].
    fn place(&self, point: [f32; 2], _parameters: &Parameters) -> [f32; 2] {
        point
    }
}

impl<F: FnMut(&mut I420, &Parameters) + Send> Paint for F {
    fn paint(&mut self, picture: &mut I420, parameters: &Parameters) {
        self(picture, parameters);
    }
}

impl Effect for &'static Simple {
    fn name(&self) -> EffectName {
        EffectName::new(self.name)
    }

    fn title(&self) -> &'static str {
        self.title
    }

    fn description(&self) -> &'static str {
        self.description
    }

    fn parameters(&self) -> &[Parameter] {
        self.parameters
    }

    fn models(&self) -> &[&'static ModelSpec] {
        &[]
    }

    fn when_slow(&self) -> WhenSlow {
        WhenSlow::Hold
    }

    fn analyse(&self, _models: &mut Models, _input: &ModelInput) -> Result<Analysis, RunError> {
        Err(RunError::Missing { model: self.name })
    }

    fn chaining(&self) -> Chaining {
        self.chaining
    }

    fn painter(&self) -> Box<dyn Painter> {
        Box::new(SimplePainter { facts: self, paint: (self.paint)() })
    }
}

struct SimplePainter {
    facts: &'static Simple,
    paint: Box<dyn Paint>,
}

impl Painter for SimplePainter {
    fn prepare(&mut self, _source: &I420, _parameters: &Parameters) -> ModelInput {
        ModelInput { picture: Rgb { width: 0, height: 0, data: Vec::new() }, content: [0; 4], arguments: Vec::new() }
    }

    fn compose(&mut self, picture: &mut I420, analysis: Option<&Analysis>, parameters: &Parameters) -> Result<(), ComposeError> {
        match analysis {
            None => self.paint.paint(picture, parameters),
            Some(other) => return Err(ComposeError { effect: EffectName::new(self.facts.name), got: other.kind() }),
        }
        Ok(())
    }

    fn place(&self, point: [f32; 2], parameters: &Parameters) -> [f32; 2] {
        self.paint.place(point, parameters)
    }

    fn placeholder(&mut self, picture: &mut I420, parameters: &Parameters) {
        self.paint.paint(picture, parameters);
    }
}

/// Creates a number parameter from 0 to 1.
const fn share(name: &'static str, title: &'static str, description: &'static str, default: f64) -> Parameter {
    Parameter { name, title, description, kind: Kind::Number { min: 0.0, max: 1.0, default } }
}

/// Converts a fraction of 0..=1 to an integer of 0..=256.
fn of_256(share: f64) -> i16 {
    (share * 256.0).round() as i16
}

/// A plane whose outermost pixels are repeated once on every side, so that each pixel has eight
/// neighbours.
#[derive(Default)]
struct Bordered {
    data: Vec<u8>,
    stride: usize,
}

impl Bordered {
    /// Copies a plane of `width` columns.
    fn set(&mut self, plane: &[u8], width: usize) {
        self.stride = width + 2;
        self.data.clear();
        self.data.reserve((plane.len() / width + 2) * self.stride);
        let rows = plane.chunks_exact(width);
        let (first, last) = (rows.clone().next(), rows.clone().next_back());
        for row in first.into_iter().chain(rows).chain(last) {
            self.data.push(row[0]);
            self.data.extend_from_slice(row);
            self.data.push(row[width - 1]);
        }
    }

    /// Returns the rows above, at and below row `y` of the plane, each starting one column to the
    /// left of it.
    fn around(&self, y: usize) -> [&[u8]; 3] {
        [y, y + 1, y + 2].map(|row| &self.data[row * self.stride..][..self.stride])
    }
}

/// Computes the luma gradient at each pixel of a row with the two Sobel masks: (|across| + |down|)
/// / 4, limited to 0..=255.
fn turns([above, row, below]: [&[u8]; 3], out: &mut [u8]) {
    let width = out.len();
    let (above, row, below) = (&above[..width + 2], &row[..width + 2], &below[..width + 2]);
    for (x, out) in out.iter_mut().enumerate() {
        let at = |row: &[u8], x: usize| i16::from(row[x]);
        let across = at(above, x + 2) + 2 * at(row, x + 2) + at(below, x + 2) - at(above, x) - 2 * at(row, x) - at(below, x);
        let down = at(below, x) + 2 * at(below, x + 1) + at(below, x + 2) - at(above, x) - 2 * at(above, x + 1) - at(above, x + 2);
        *out = ((across.abs() + down.abs()) >> 2).min(255) as u8;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Paints a frame that the same painter has already painted `times` times.
    pub(super) fn painted(facts: &'static Simple, frame: &I420, given: Value, times: usize) -> I420 {
        let parameters = Parameters::parse(facts.parameters, &given).unwrap();
        let mut painter = (&facts).painter();
        (0..times).for_each(|_| painter.compose(&mut frame.clone(), None, &parameters).unwrap());
        let mut picture = frame.clone();
        painter.compose(&mut picture, None, &parameters).unwrap();
        picture
    }

    /// A frame with horizontal gradients of luma and colour.
    pub(super) fn ramp(width: u32, height: u32) -> I420 {
        let mut picture = I420::grey(width, height, 16);
        for (plane, columns) in picture.planes_mut().into_iter().zip([width, width.div_ceil(2), width.div_ceil(2)]) {
            plane.iter_mut().enumerate().for_each(|(i, value)| *value = (20 + i % columns as usize * 200 / columns as usize) as u8);
        }
        picture
    }

    #[test]
    fn every_size_is_painted_with_every_end_of_every_parameter() {
        for facts in SIMPLE {
            for parameter in facts.parameters {
                let ends = match &parameter.kind {
                    Kind::Number { min, max, .. } => vec![json!(min), json!(max)],
                    Kind::Choice { options, .. } => options.iter().map(|option| json!(option)).collect(),
                    Kind::Flag { .. } => vec![json!(false), json!(true)],
                    Kind::Weights { .. } => vec![],
                };
                for end in ends {
                    for (width, height) in [(1, 1), (2, 1), (1, 2), (3, 5), (65, 49), (320, 180)] {
                        let picture = painted(facts, &ramp(width, height), json!({parameter.name: end}), 1);
                        assert_eq!((picture.width(), picture.height()), (width, height), "{}", facts.name);
                    }
                }
            }
        }
    }

    #[test]
    fn every_one_changes_the_picture_or_its_placeholder_would_show_the_source() {
        for facts in SIMPLE.into_iter().filter(|facts| facts.name != "denoise") {
            let mut frame = ramp(320, 180);
            frame.planes_mut()[0][40_000..41_000].fill(200);
            assert!(painted(facts, &frame, json!({}), 0) != frame, "{}", facts.name);
        }
    }

    #[test]
    fn turns_are_where_luma_turns() {
        let plane: Vec<u8> = (0..64).map(|i| if i % 8 < 4 { 50 } else { 90 }).collect();
        let (mut bordered, mut row) = (Bordered::default(), vec![0; 8]);
        bordered.set(&plane, 8);
        for y in 0..8 {
            turns(bordered.around(y), &mut row);
            assert_eq!(row, [0, 0, 0, 40, 40, 0, 0, 0]);
        }
    }
}
