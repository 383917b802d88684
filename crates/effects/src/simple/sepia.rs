//! The effect `sepia`: the brown of old photographs.

use ooblex_pipeline::I420;

use super::base::{Simple, of_256, share};
use crate::effect::Chaining;
use crate::parameters::{Parameter, Parameters};
use crate::pixels::mix_with;

static PARAMETERS: [Parameter; 1] = [share("strength", "Strength", "How much of the colour becomes brown: at 1 all of it.", 1.0)];

pub(super) static FACTS: Simple = Simple {
    name: "sepia",
    title: "Sepia",
    description: "Your picture in the brown of old photographs.",
    parameters: &PARAMETERS,
    chaining: Chaining::Anywhere,
    paint: || Box::new(paint),
};

/// U and V of the brown.
const BROWN: [u8; 2] = [109, 140];

fn paint(picture: &mut I420, parameters: &Parameters) {
    let strength = of_256(parameters.number("strength")) as u16;
    let [_, u, v] = picture.planes_mut();
    mix_with(u, BROWN[0], strength);
    mix_with(v, BROWN[1], strength);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{painted, ramp};
    use super::*;

    #[test]
    fn all_colour_is_brown_and_no_light_is_lost() {
        let (frame, picture) = (ramp(64, 48), painted(&FACTS, &ramp(64, 48), json!({}), 0));
        assert_eq!(picture.planes()[0], frame.planes()[0]);
        for (plane, brown) in picture.planes()[1..].iter().zip(BROWN) {
            assert!(plane.iter().all(|chroma| *chroma == brown));
        }
        assert!(painted(&FACTS, &frame, json!({"strength": 0}), 0) == frame);
    }
}
