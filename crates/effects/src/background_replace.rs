//! The effect `background_replace`: the person stays, everything else becomes a uniform colour or a
//! generated backdrop.
//!
//! **Model.** The person segmentation of [`crate::person`].
//!
//! **Painting.** [`crate::matte`] separates the person from the background. The backdrops are
//! computed for the size of the frame and need no files: a uniform colour (`green` is the one that
//! video editors key out), or a scene of soft light. Until the first mask arrives only the backdrop
//! is shown.

use ooblex_pipeline::{Analysis, EffectName, I420, ModelInput, Rgb, Size};

use crate::effect::{ComposeError, Effect, Painter, WhenSlow};
use crate::matte::{Backdrop, Matte, mask_of};
use crate::parameters::{Kind, Parameter, Parameters};
use crate::person;
use crate::pixels::{Shrinker, i420_from_rgb};
use ooblex_inference::{ModelSpec, Models, RunError};

/// The effect `background_replace`; see the module documentation.
pub(crate) struct BackgroundReplace;

const NAME: &str = "background_replace";

const BACKDROPS: [&str; 8] = ["studio", "sunset", "lights", "forest", "green", "white", "black", "colour"];

static PARAMETERS: [Parameter; 4] = [
    Parameter::new(
        "background",
        "Background",
        "What stands behind you: a scene, or an even colour; 'green' is the one that video editors take out.",
        Kind::Choice { options: &BACKDROPS, default: BACKDROPS[0] },
    ),
    Parameter::new(
        "hue",
        "Hue",
        "With the background 'colour': its hue in degrees, 0 red, 120 green, 240 blue.",
        Kind::Number { min: 0.0, max: 360.0, default: 210.0 },
    ),
    Parameter::new(
        "lightness",
        "Lightness",
        "With the background 'colour': from 0, black, over 0.5, the full colour, to 1, white.",
        Kind::Number { min: 0.0, max: 1.0, default: 0.5 },
    ),
    Parameter::new(
        "edge_softness",
        "Soft edge",
        "How gradually the person passes into the background.",
        Kind::Number { min: 0.0, max: 1.0, default: 0.3 },
    ),
];

impl Effect for BackgroundReplace {
    fn name(&self) -> EffectName {
        EffectName::new(NAME)
    }

    fn title(&self) -> &'static str {
        "Background replacement"
    }

    fn description(&self) -> &'static str {
        "You, in front of another background: a scene, a colour, or green to be taken out."
    }

    fn parameters(&self) -> &[Parameter] {
        &PARAMETERS
    }

    fn models(&self) -> Vec<&ModelSpec> {
        person::MODELS.to_vec()
    }

    fn when_slow(&self) -> WhenSlow {
        WhenSlow::Hold
    }

    fn analyse(&self, models: &mut Models, input: &ModelInput) -> Result<Analysis, RunError> {
        person::analyse(models, input)
    }

    fn painter(&self) -> Box<dyn Painter> {
        Box::new(ReplacePainter::default())
    }
}

#[derive(Default)]
struct ReplacePainter {
    shrinker: Shrinker,
    matte: Matte,
    scene: Option<Scene>,
}

/// A backdrop computed for one frame size and one set of parameters.
struct Scene {
    made_for: MadeFor,
    picture: I420,
}

#[derive(Clone, Copy, PartialEq)]
struct MadeFor {
    size: Size,
    /// Hue and lightness of a plain backdrop.
    colour: [f64; 2],
    background: &'static str,
}

impl Painter for ReplacePainter {
    fn prepare(&mut self, source: &I420, _parameters: &Parameters) -> ModelInput {
        person::prepare(&mut self.shrinker, source)
    }

    fn compose(&mut self, picture: &mut I420, analysis: Option<&Analysis>, parameters: &Parameters) -> Result<(), ComposeError> {
        let mask = mask_of(NAME, analysis)?;
        self.matte.update(picture, mask);
        let Self { matte, scene, .. } = self;
        matte.put_behind(picture, scene_for(scene, picture.size(), parameters), parameters.number("edge_softness") as f32);
        Ok(())
    }

    fn on_turned(&mut self) {
        self.matte = Matte::default();
    }

    /// Shows the backdrop alone.
    fn placeholder(&mut self, picture: &mut I420, parameters: &Parameters) {
        picture.clone_from(&scene_for(&mut self.scene, picture.size(), parameters).picture);
    }
}

impl Backdrop for Scene {
    fn row(&self, index: usize, y: usize, target: &mut [u8]) {
        target.copy_from_slice(&self.picture.planes()[index][y * target.len()..][..target.len()]);
    }
}

/// Returns the requested backdrop, recomputing it if the size or the parameters have changed.
fn scene_for<'a>(scene: &'a mut Option<Scene>, size: Size, parameters: &Parameters) -> &'a Scene {
    let colour = [parameters.number("hue"), parameters.number("lightness")];
    let wanted = MadeFor { size, colour, background: parameters.choice("background") };
    if scene.as_ref().is_none_or(|scene| scene.made_for != wanted) {
        *scene = None;
    }
    scene.get_or_insert_with(|| {
        let pixel: Box<dyn Fn(f32, f32) -> [f32; 3]> = match wanted.background {
            "sunset" => Box::new(sunset),
            "lights" => Box::new(lights),
            "forest" => Box::new(forest),
            "studio" => Box::new(studio),
            "green" => Box::new(|_, _| [0.0, 0.69, 0.25]),
            "white" => Box::new(|_, _| [1.0; 3]),
            "black" => Box::new(|_, _| [0.0; 3]),
            _ => {
                let colour = rgb_from_hsl(colour[0] as f32, 0.75, colour[1] as f32);
                Box::new(move |_, _| colour)
            }
        };
        let Size { width, height } = size;
        let aspect = width as f32 / height as f32;
        let mut data = Vec::with_capacity(3 * width as usize * height as usize);
        for y in 0..height {
            for x in 0..width {
                // Dither of less than one level, so that soft light shows no banding.
                let grain = ((x.wrapping_mul(73_856_093) ^ y.wrapping_mul(19_349_663)) >> 4 & 255) as f32 / 255.0;
                let colour = pixel((x as f32 + 0.5) / width as f32 * aspect - aspect / 2.0, (y as f32 + 0.5) / height as f32);
                data.extend(colour.map(|value| (value.clamp(0.0, 1.0) * 254.0 + grain) as u8));
            }
        }
        let picture = i420_from_rgb(&Rgb { width, height, data }).expect("the bytes were made for the sides");
        Scene { made_for: wanted, picture }
    })
}

/// Backdrop of a grey wall, lit from the upper left. In all backdrop functions `x` is 0 in the
/// middle; `y` is 0 at the top and 1 at the bottom.
fn studio(x: f32, y: f32) -> [f32; 3] {
    let light = (-((x + 0.35).powi(2) + (y - 0.3).powi(2)) * 1.6).exp();
    mixed([0.16, 0.18, 0.22], [0.66, 0.68, 0.72], light)
}

/// Backdrop of a sunset over the sea.
fn sunset(x: f32, y: f32) -> [f32; 3] {
    let horizon = 0.68;
    let sky = |y: f32| mixed([0.20, 0.22, 0.45], [0.98, 0.62, 0.36], (y / horizon).clamp(0.0, 1.0).powf(1.5));
    let glow = |x: f32, y: f32| (-(x.powi(2) * 2.0 + (y - horizon + 0.1).powi(2) * 14.0)).exp();
    if y < horizon {
        let sun = (1.0 - ((x.powi(2) + (y - horizon + 0.1).powi(2)).sqrt() - 0.055) * 120.0).clamp(0.0, 1.0);
        return mixed(mixed(sky(y), [1.0, 0.80, 0.50], 0.7 * glow(x, y)), [1.0, 0.95, 0.80], sun);
    }
    let depth = (y - horizon) / (1.0 - horizon);
    let waves = 0.5 + 0.5 * ((y * 190.0 / (0.3 + depth)).sin() * (x * 9.0 + y * 40.0).cos());
    let sea = mixed(mixed([0.62, 0.42, 0.38], [0.10, 0.14, 0.28], depth.sqrt()), [0.95, 0.70, 0.45], 0.12 * waves * (1.0 - depth));
    mixed(sea, [1.0, 0.82, 0.55], 0.5 * (-(x / (0.05 + 0.2 * depth)).powi(2)).exp() * (0.4 + 0.6 * waves))
}

/// Backdrop of a town at night, far out of focus.
fn lights(x: f32, y: f32) -> [f32; 3] {
    let mut colour = mixed([0.05, 0.05, 0.12], [0.13, 0.09, 0.16], y);
    let hues = [[1.0, 0.72, 0.35], [0.95, 0.45, 0.30], [0.45, 0.65, 1.0], [1.0, 0.88, 0.65], [0.80, 0.40, 0.75]];
    for n in 0..34_u32 {
        let random =
            |salt: u32| ((n + 1).wrapping_mul(2_654_435_761).wrapping_add(salt.wrapping_mul(40_503_907)) >> 8) as f32 / 16_777_216.0;
        let (cx, cy, radius) = (2.2 * random(1) - 1.1, 0.15 + 0.7 * random(2), 0.025 + 0.06 * random(3));
        let away = ((x - cx).powi(2) + (y - cy).powi(2)).sqrt() / radius;
        if away < 1.1 {
            let disc = ((1.05 - away) * 14.0).clamp(0.0, 1.0) * (0.75 + 0.25 * away.powi(4));
            colour = mixed(colour, hues[n as usize % hues.len()], disc * (0.25 + 0.35 * random(4)));
        }
    }
    colour
}

/// Backdrop of green leaves out of focus, lit from above.
fn forest(x: f32, y: f32) -> [f32; 3] {
    let wave = |fx: f32, fy: f32, phase: f32| (x * fx + phase + (y * fy).sin()).sin() * (y * fy - phase + (x * fx * 0.7).cos()).cos();
    let leaves = 0.5 + 0.25 * (wave(5.0, 4.0, 0.3) + 0.6 * wave(11.0, 9.0, 1.7) + 0.4 * wave(23.0, 17.0, 4.1));
    let light = (-((x - 0.3).powi(2) * 1.2 + y * y * 1.5)).exp();
    mixed(mixed([0.06, 0.16, 0.08], [0.35, 0.52, 0.20], leaves), [0.90, 0.95, 0.62], 0.55 * light * leaves)
}

fn mixed(a: [f32; 3], b: [f32; 3], share: f32) -> [f32; 3] {
    std::array::from_fn(|channel| a[channel] + (b[channel] - a[channel]) * share)
}

/// Converts a hue in degrees, a saturation and a lightness to RGB (CSS Color 4, section 7.1).
fn rgb_from_hsl(hue: f32, saturation: f32, lightness: f32) -> [f32; 3] {
    [0.0, 8.0, 4.0].map(|n: f32| {
        let k = (n + hue / 30.0).rem_euclid(12.0);
        lightness - saturation * lightness.min(1.0 - lightness) * (k - 3.0).min(9.0 - k).clamp(-1.0, 1.0)
    })
}

#[cfg(test)]
mod tests {
    use ooblex_pipeline::Mask;
    use serde_json::json;

    use super::*;

    fn parameters(background: &str) -> Parameters {
        Parameters::parse(&PARAMETERS, &json!({"background": background})).unwrap()
    }

    fn painted(background: &str, probability: u8) -> I420 {
        let mut picture = I420::grey(65, 49, 77);
        let mask = Analysis::Mask(Mask { width: 256, height: 144, probability: vec![probability; 256 * 144] });
        BackgroundReplace.painter().compose(&mut picture, Some(&mask), &parameters(background)).unwrap();
        picture
    }

    #[test]
    fn of_what_is_not_the_person_nothing_is_left() {
        for background in BACKDROPS {
            let mut placeholder = I420::grey(65, 49, 200);
            BackgroundReplace.painter().placeholder(&mut placeholder, &parameters(background));
            assert!(painted(background, 0) == placeholder, "{background}");
            assert!(painted(background, 76) == placeholder, "{background}, unsure");
            assert!(painted(background, 255) == I420::grey(65, 49, 77), "{background}, all person");
        }
    }

    #[test]
    fn a_change_of_background_or_size_makes_another_scene() {
        let mut painter = BackgroundReplace.painter();
        let mut luma = |background, width| {
            let mut picture = I420::grey(width, 48, 77);
            painter.placeholder(&mut picture, &parameters(background));
            (picture.width(), picture.planes()[0][20])
        };
        assert_eq!((luma("white", 64).0, luma("white", 32).0), (64, 32));
        assert!(luma("white", 64).1 > 200 && luma("black", 64).1 < 20);
    }

    #[test]
    fn hues_are_where_they_should_be() {
        for (hue, brightest) in [(0.0, 0), (120.0, 1), (240.0, 2), (359.0, 0)] {
            let rgb = rgb_from_hsl(hue, 0.75, 0.5);
            assert!((0..3).all(|channel| rgb[channel] <= rgb[brightest]), "{rgb:?} at {hue}");
        }
        assert_eq!(rgb_from_hsl(77.0, 0.75, 1.0), [1.0; 3]);
    }
}
