//! The painter of a custom effect: it makes the model's input from a frame, and paints the model's
//! output.

use std::sync::Arc;

use ooblex_pipeline::{Analysis, I420, Mask, ModelInput, Rgb, Thing};

use super::settings::{LABELS, SOFTNESS, STRENGTH, THRESHOLD};
use super::spec::BoundSpec;
use super::spec::{self, MAX_BOXES, Output};
use super::toml::{Fit, Rest};
use crate::blur::Blur;
use crate::drawing::{Canvas, Colour};
use crate::effect::{ComposeError, Painter};
use crate::face_model::letterbox;
use crate::found::Found;
use crate::matte::{Backdrop, Matte, check_mask};
use crate::parameters::Parameters;
use crate::pixels::{self, Shrinker, Stretched, plane_size, planes_from_rgb, rows_mut};

/// Standard deviation of the blur at strength 0, as a fraction of the square root of the frame's
/// area. The blur is that of `background_blur`.
const SIGMA_LEAST: f32 = 0.014;
/// Standard deviation that strength 1 adds, as a fraction of the square root of the frame's area.
const SIGMA_RANGE: f32 = 0.03;
/// Standard deviation of the placeholder's blur, as a fraction of the square root of the frame's
/// area.
const SIGMA_PLACEHOLDER: f32 = 0.06;
/// Luma of the placeholder of effects that do not blur.
const PLACEHOLDER_LUMA: u8 = 96;
/// Colours of boxes, by class.
const COLOURS: [Colour; 3] = [Colour::GREEN, Colour::YELLOW, Colour::WHITE];

/// The painter of a custom effect; see the module documentation.
pub(super) struct CustomPainter {
    form: Arc<BoundSpec>,
    shrinker: Shrinker,
    planes: [Vec<u8>; 3],
    stretched: [Stretched; 3],
    blur: Blur,
    weights: Vec<u8>,
    matte: Matte,
    found: Option<Vec<Found>>,
}

impl CustomPainter {
    pub(super) fn new(form: Arc<BoundSpec>) -> Self {
        Self {
            form,
            shrinker: Shrinker::default(),
            planes: Default::default(),
            stretched: Default::default(),
            blur: Blur::default(),
            weights: Vec::new(),
            matte: Matte::default(),
            found: None,
        }
    }

    fn lay_picture(&mut self, picture: &mut I420, painted: &Rgb, strength: f64) {
        planes_from_rgb(painted, &mut self.planes);
        for (index, stretched) in self.stretched.iter_mut().enumerate() {
            let (to, shown) = plane_size(picture, index);
            stretched.set(&self.planes[index], [painted.width, painted.height], to, shown);
        }
        let opacity = (strength * 256.0).round() as u16;
        for (rows, stretched) in rows_mut(picture).into_iter().zip(&self.stretched) {
            rows.enumerate().for_each(|(y, row)| stretched.row(y).blend_onto(row, opacity));
        }
    }

    fn lay_mask(&mut self, picture: &mut I420, mask: &Mask, declared: &spec::Mask, parameters: &Parameters) {
        let softness = parameters.number(SOFTNESS) as f32;
        self.matte.update(picture, mask);
        match declared.rest {
            Rest::Blur => {
                self.weights.clear();
                self.weights.extend(mask.probability.iter().map(|p| 255 - p.saturating_mul(3)));
                let sigma = SIGMA_LEAST + SIGMA_RANGE * parameters.number(STRENGTH) as f32;
                self.blur.set(picture, sigma, Some((&self.weights, [mask.width, mask.height])));
                self.matte.put_behind(picture, &self.blur, softness);
            }
            Rest::Replace => self.matte.put_behind(picture, &Plain(yuv(declared.colour)), softness),
            Rest::Tint => {
                let mut tinted = picture.clone();
                let opacity = (parameters.number(STRENGTH) * 256.0).round() as u16;
                for (plane, value) in tinted.planes_mut().into_iter().zip(yuv(declared.colour)) {
                    pixels::mix_with(plane, value, opacity);
                }
                self.matte.put_behind(picture, &Copied(&tinted), softness);
            }
        }
    }

    fn draw(&mut self, picture: &mut I420, things: &[Thing], parameters: &Parameters) {
        let labels = &self.form.labels;
        let threshold = parameters.number(THRESHOLD) as f32;
        let certain: Vec<_> = things.iter().filter(|thing| thing.score >= threshold).collect();
        let told = certain.iter().map(|thing| Found {
            id: None,
            label: labels.get(thing.class as usize).map_or_else(|| format!("class {}", thing.class).into(), |label| label.clone().into()),
            score: thing.score,
            rect: thing.rect,
            points: Vec::new(),
            names: &[],
        });
        let found: Vec<Found> = told.collect();
        let size = [picture.width(), picture.height()];
        let written = matches!(self.form.output, Output::Labels(_)) || parameters.flag(LABELS);
        let mut canvas = Canvas::new(picture);
        let margin = 2 * canvas.line;
        let mut bottom = size[1] as i32 - margin;
        for (found, thing) in found.iter().zip(&certain).rev() {
            let text = format!("{} {:.0}%", found.label, found.score * 100.0);
            match found.rect {
                Some(rect) => {
                    let pixel = |side: usize| (rect[side].clamp(-1.0, 2.0) * size[side % 2] as f32).round() as i32;
                    let colour = COLOURS[thing.class as usize % COLOURS.len()];
                    canvas.outline([pixel(0), pixel(1), pixel(2), pixel(3)], colour);
                    if written {
                        canvas.label(&text, pixel(0), pixel(1) - canvas.line, colour);
                    }
                }
                None => {
                    canvas.label(&text, margin, bottom, Colour::WHITE);
                    bottom -= canvas.label_size(&text)[1];
                }
            }
        }
        self.found = Some(found);
    }

    fn refused(&self, got: &'static str) -> ComposeError {
        ComposeError { effect: self.form.name.clone(), got }
    }
}

impl Painter for CustomPainter {
    fn prepare(&mut self, source: &I420, parameters: &Parameters) -> ModelInput {
        let BoundSpec { model, output, inputs, .. } = self.form.as_ref();
        let (width, height) = (model.width.value, model.height.value);
        let content = match model.fit {
            Fit::Stretch => [0, 0, width, height],
            Fit::Letterbox => letterbox(source.width(), source.height(), [width, height]),
        };
        let frame = self.shrinker.rgb(source, content[2], content[3]);
        let picture = if content == [0, 0, width, height] { frame } else { padded(&frame, content, [width, height], model.padding) };
        let threshold = match output {
            Output::Boxes(_) | Output::Labels(_) => parameters.number(THRESHOLD),
            Output::Picture(_) | Output::Mask(_) => 0.0,
        };
        let numbers = inputs.iter().map(|name| parameters.number(name));
        ModelInput { picture, content, arguments: [threshold].into_iter().chain(numbers).map(|number| number as f32).collect() }
    }

    fn compose(&mut self, picture: &mut I420, analysis: Option<&Analysis>, parameters: &Parameters) -> Result<(), ComposeError> {
        let form = self.form.clone();
        match (&form.output, analysis) {
            (Output::Picture(_), Some(Analysis::Picture(painted))) if pixels::check(painted).is_ok() => {
                self.lay_picture(picture, painted, parameters.number(STRENGTH));
            }
            (Output::Mask(declared), Some(Analysis::Mask(mask))) if check_mask(mask) => self.lay_mask(picture, mask, declared, parameters),
            (Output::Boxes(_) | Output::Labels(_), Some(Analysis::Things(things))) if can_be(things) => {
                self.draw(picture, things, parameters)
            }
            (Output::Picture(_), Some(Analysis::Picture(_))) => return Err(self.refused("a picture whose bytes do not match its size")),
            (Output::Mask(_), Some(Analysis::Mask(_))) => return Err(self.refused("a mask whose bytes do not match its size")),
            (_, Some(Analysis::Things(_))) => return Err(self.refused("invalid detections")),
            (_, Some(other)) => return Err(self.refused(other.kind())),
            (_, None) => return Err(self.refused("a frame without its analysis")),
        }
        Ok(())
    }

    fn found(&self) -> Option<Vec<Found>> {
        self.found.clone()
    }

    fn on_turned(&mut self) {
        self.matte = Matte::default();
    }

    /// Shows nothing of a frame that was not analysed; effects that blur show a picture blurred
    /// beyond recognition.
    fn placeholder(&mut self, picture: &mut I420, _parameters: &Parameters) {
        match self.form.output {
            Output::Mask(spec::Mask { rest: Rest::Blur, .. }) => {
                self.blur.set(picture, SIGMA_PLACEHOLDER, None);
                for (rows, blurred) in rows_mut(picture).into_iter().zip(self.blur.planes()) {
                    rows.enumerate().for_each(|(y, row)| blurred.row(y).copy_to(row));
                }
            }
            _ => *picture = I420::grey(picture.width(), picture.height(), PLACEHOLDER_LUMA),
        }
    }
}

/// A backdrop of one colour.
struct Plain([u8; 3]);

impl Backdrop for Plain {
    fn row(&self, index: usize, _y: usize, target: &mut [u8]) {
        target.fill(self.0[index]);
    }
}

/// A backdrop that is another picture of the frame's size.
struct Copied<'a>(&'a I420);

impl Backdrop for Copied<'_> {
    fn row(&self, index: usize, y: usize, target: &mut [u8]) {
        target.copy_from_slice(&self.0.planes()[index][y * target.len()..][..target.len()]);
    }
}

/// Converts a colour from RGB to Y, U and V.
fn yuv(colour: [u8; 3]) -> [u8; 3] {
    let mut planes = Default::default();
    planes_from_rgb(&Rgb { width: 1, height: 1, data: colour.to_vec() }, &mut planes);
    planes.map(|plane| plane[0])
}

/// Puts the frame at its position in a larger picture.
fn padded(frame: &Rgb, [left, top, width, _]: [u32; 4], size: [u32; 2], padding: u8) -> Rgb {
    let stride = 3 * size[0] as usize;
    let mut data = vec![padding; stride * size[1] as usize];
    let rows = data.chunks_exact_mut(stride).skip(top as usize);
    for (row, line) in rows.zip(frame.data.chunks_exact(3 * width as usize)) {
        row[3 * left as usize..][..line.len()].copy_from_slice(line);
    }
    Rgb { width: size[0], height: size[1], data }
}

/// Validates detections, which may come from another machine.
fn can_be(things: &[Thing]) -> bool {
    let sane = |thing: &Thing| (0.0..=1.0).contains(&thing.score) && thing.rect.iter().flatten().all(|side| side.is_finite());
    things.len() <= MAX_BOXES && things.iter().all(sane)
}
