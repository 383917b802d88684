//! The effect `edges`: the lines of the picture, as a pencil or as neon lights would draw them.

use ooblex_pipeline::I420;

use super::base::{Paint, Simple, share};
use super::neighbours::{Bordered, turns};
use crate::effect::Chaining;
use crate::parameters::{Kind, Parameter, Parameters};

static PARAMETERS: [Parameter; 2] = [
    Parameter::new(
        "look",
        "Look",
        "'pencil' draws dark lines on paper, 'neon' lines of light in the picture's own colours.",
        Kind::Choice { options: &["pencil", "neon"], default: "pencil" },
    ),
    share("strength", "Strength", "How faint a line may be and still be drawn.", 0.5),
];

pub(super) static FACTS: Simple = Simple {
    name: "edges",
    title: "Edges",
    description: "Your picture as a drawing of its lines.",
    parameters: &PARAMETERS,
    chaining: Chaining::Anywhere,
    paint: || Box::<Edges>::default(),
};

/// Luma of the paper.
const PAPER: i16 = 228;
/// Luma gradient up to which a pixel counts as noise.
const NOISE: i16 = 5;

#[derive(Default)]
struct Edges {
    source: Bordered,
}

impl Paint for Edges {
    fn paint(&mut self, picture: &mut I420, parameters: &Parameters) {
        let is_neon = parameters.choice("look") == "neon";
        let gain = (12.0 + 84.0 * parameters.number("strength")) as i16;
        let width = picture.width() as usize;
        let [luma, u, v] = picture.planes_mut();
        self.source.set(luma, width);
        for (y, row) in luma.chunks_exact_mut(width).enumerate() {
            turns(self.source.around(y), row);
            for value in &mut *row {
                let line = (((i16::from(*value) - NOISE).max(0) * gain) >> 4).min(255);
                let (neon, pencil) = (16 + ((line * 110) >> 7), (PAPER - line).max(24));
                *value = if is_neon { neon } else { pencil } as u8;
            }
        }
        // Neon doubles the saturation; paper has no colour.
        match is_neon {
            true => u.iter_mut().chain(v).for_each(|chroma| *chroma = (2 * i16::from(*chroma) - 128).clamp(16, 240) as u8),
            false => u.iter_mut().chain(v).for_each(|chroma| *chroma = 128),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::painted;
    use super::*;

    #[test]
    fn lines_are_drawn_where_the_picture_turns_and_nowhere_else() {
        let mut frame = I420::grey(64, 48, 60);
        frame.planes_mut()[0].chunks_exact_mut(64).for_each(|row| row[32..].fill(180));
        for (look, line, ground) in [("pencil", 24, 228), ("neon", 235, 16)] {
            let picture = painted(&FACTS, &frame, json!({"look": look}), 0);
            let row = &picture.planes()[0][20 * 64..][..64];
            assert!(row[31].abs_diff(line) <= 2 && row[32].abs_diff(line) <= 2, "{look}: {row:?}");
            assert!(row[..30].iter().chain(&row[34..]).all(|luma| *luma == ground), "{look}: {row:?}");
        }
    }
}
