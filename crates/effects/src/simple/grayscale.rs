//! The effect `grayscale`: the picture with less colour, or none.

use ooblex_pipeline::I420;

use super::base::{Simple, of_256, share};
use crate::effect::Chaining;
use crate::parameters::{Parameter, Parameters};

static PARAMETERS: [Parameter; 1] = [share("strength", "Strength", "How much of the colour is taken away: at 1 all of it.", 1.0)];

pub(super) static FACTS: Simple = Simple {
    name: "grayscale",
    title: "Grayscale",
    description: "Your picture in black and white.",
    parameters: &PARAMETERS,
    chaining: Chaining::Anywhere,
    paint: || Box::new(paint),
};

fn paint(picture: &mut I420, parameters: &Parameters) {
    let kept = 256 - of_256(parameters.number("strength"));
    let [_, u, v] = picture.planes_mut();
    // The full product is at most 128 · 256, one more than 16 bits hold; hence half of `kept`.
    let less = |chroma: &mut u8| *chroma = (128 + (((i16::from(*chroma) - 128) * (kept / 2)) >> 7)).clamp(0, 255) as u8;
    u.iter_mut().chain(v).for_each(less);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{painted, ramp};
    use super::*;

    #[test]
    fn no_colour_is_left_and_no_light_is_lost() {
        let (frame, picture) = (ramp(64, 48), painted(&FACTS, &ramp(64, 48), json!({}), 0));
        assert_eq!(picture.planes()[0], frame.planes()[0]);
        assert!(picture.planes()[1..].iter().all(|plane| plane.iter().all(|chroma| *chroma == 128)));
        assert!(painted(&FACTS, &frame, json!({"strength": 0}), 0) == frame);
    }
}
