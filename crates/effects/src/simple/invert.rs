//! The effect `invert`: a negative, with luma and optionally colours inverted.

use ooblex_pipeline::I420;

use super::base::Simple;
use crate::effect::Chaining;
use crate::parameters::{Kind, Parameter, Parameters};

static PARAMETERS: [Parameter; 1] = [Parameter::new(
    "colours",
    "Colours",
    "Whether colours are turned around as well, and not only light and dark.",
    Kind::Flag { default: true },
)];

pub(super) static FACTS: Simple = Simple {
    name: "invert",
    title: "Negative",
    description: "Your picture as a negative.",
    parameters: &PARAMETERS,
    chaining: Chaining::Anywhere,
    paint: || Box::new(paint),
};

fn paint(picture: &mut I420, parameters: &Parameters) {
    let [luma, u, v] = picture.planes_mut();
    // Luma ranges from 16 to 235; values beyond one end stay beyond the other.
    luma.iter_mut().for_each(|luma| *luma = 251_u8.saturating_sub(*luma));
    if parameters.flag("colours") {
        u.iter_mut().chain(v).for_each(|chroma| *chroma = (255 - *chroma).saturating_add(1));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{painted, ramp};
    use super::*;

    #[test]
    fn a_negative_of_a_negative_is_the_picture() {
        let frame = ramp(64, 48);
        let once = painted(&FACTS, &frame, json!({}), 0);
        assert_eq!(once.planes()[0][0], 251 - frame.planes()[0][0]);
        assert!(painted(&FACTS, &once, json!({}), 0) == frame);
        assert_eq!(painted(&FACTS, &frame, json!({"colours": false}), 0).planes()[1], frame.planes()[1]);
    }
}
