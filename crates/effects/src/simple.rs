//! Effects that need no model. Each file below is a [`Simple`] table of facts with a paint
//! function; `base.rs` turns it into an effect.
//!
//! They work directly on the planes of a frame, in loops that the compiler vectorises: none takes
//! more than about a millisecond for 1280×720. They hide nothing, so their placeholder is the
//! painted frame itself.

mod base;
mod cartoon;
mod denoise;
mod edges;
mod grayscale;
mod invert;
mod mirror;
mod neighbours;
mod sepia;
mod sharpen;
mod vignette;

pub(crate) use base::Simple;

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

#[cfg(test)]
mod tests {
    use ooblex_pipeline::I420;
    use serde_json::{Value, json};

    use super::neighbours::{Bordered, turns};
    use super::*;
    use crate::effect::Effect as _;
    use crate::parameters::{Kind, Parameters};

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
                        let picture = painted(facts, &ramp(width, height), json!({parameter.name.clone(): end}), 1);
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
