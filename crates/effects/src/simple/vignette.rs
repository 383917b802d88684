//! The effect `vignette`: the picture darkens towards its corners, which draws the eye to the
//! middle.

use ooblex_pipeline::{I420, Size};

use super::base::{Paint, Simple, share};
use crate::effect::Chaining;
use crate::parameters::{Parameter, Parameters};

static PARAMETERS: [Parameter; 2] = [
    share("strength", "Strength", "How dark the corners become.", 0.7),
    share("size", "Size", "How far the light reaches: at 1 almost to the corners.", 0.5),
];

pub(super) static FACTS: Simple = Simple {
    name: "vignette",
    title: "Vignette",
    description: "Your picture, darker towards its corners.",
    parameters: &PARAMETERS,
    chaining: Chaining::Anywhere,
    paint: || Box::<Vignette>::default(),
};

/// Brightness of each pixel, computed once for each frame size and set of parameters.
#[derive(Default)]
struct Vignette {
    made_for: Option<MadeFor>,
    /// Brightness factors of luma and of chroma, 0..=128.
    light: [Vec<u8>; 2],
}

#[derive(Clone, Copy, PartialEq)]
struct MadeFor {
    size: Size,
    strength: f64,
    /// Value of the parameter `size`.
    radius: f64,
}

impl Paint for Vignette {
    fn paint(&mut self, picture: &mut I420, parameters: &Parameters) {
        let wanted = MadeFor { size: picture.size(), strength: parameters.number("strength"), radius: parameters.number("size") };
        if self.made_for != Some(wanted) {
            self.made_for = Some(wanted);
            let [width, height] = [picture.width(), picture.height()];
            let [half_width, half_height] = [picture.chroma_width(), picture.chroma_height()];
            self.light =
                [(width, height), (half_width, half_height)].map(|(width, height)| light(width, height, [wanted.strength, wanted.radius]));
        }
        for (index, plane) in picture.planes_mut().into_iter().enumerate() {
            let black = if index == 0 { 16 } else { 128 };
            for (value, light) in plane.iter_mut().zip(&self.light[index.min(1)]) {
                *value = (black + (((i16::from(*value) - black) * i16::from(*light)) >> 7)).clamp(0, 255) as u8;
            }
        }
    }
}

fn light(width: u32, height: u32, [strength, size]: [f64; 2]) -> Vec<u8> {
    let squares = |side: u32| -> Vec<f32> { (0..side).map(|at| (2.0 * (at as f32 + 0.5) / side as f32 - 1.0).powi(2)).collect() };
    let (across, down) = (squares(width), squares(height));
    // `square` is the squared distance from the middle (0) to the corners (2). The picture is
    // unchanged up to `inner` and darkest at the corners.
    let inner = 1.6 * size as f32;
    let falloff = |square: f32| {
        let share = ((square - inner) / (2.0 - inner)).clamp(0.0, 1.0);
        share * share * (3.0 - 2.0 * share)
    };
    let lit = |square: f32| (128.0 * (1.0 - strength as f32 * falloff(square)) + 0.5) as u8;
    down.iter().flat_map(|y| across.iter().map(move |x| lit(x + y))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::painted;
    use super::*;

    #[test]
    fn the_middle_keeps_its_light_and_the_corners_lose_it() {
        let frame = I420::grey(65, 49, 200);
        let luma = |given| painted(&FACTS, &frame, given, 0).planes()[0].to_vec();
        let vignette = luma(json!({}));
        assert_eq!(vignette[24 * 65 + 32], 200);
        assert!([0, 64, 48 * 65, 48 * 65 + 64].iter().all(|corner| vignette[*corner] < 90), "{}", vignette[0]);
        assert!(luma(json!({"strength": 0})).iter().all(|luma| *luma == 200));
        assert!(luma(json!({"size": 1}))[24 * 65] == 200 && luma(json!({"size": 0}))[24 * 65] < 190);
    }
}
