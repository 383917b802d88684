//! The effect `sharpen`: emphasises small details (an unsharp mask on luma).

use ooblex_pipeline::I420;

use super::base::{Paint, Simple, share};
use super::neighbours::Bordered;
use crate::effect::Chaining;
use crate::parameters::{Parameter, Parameters};

static PARAMETERS: [Parameter; 1] = [share("strength", "Strength", "How much details stand out.", 0.5)];

pub(super) static FACTS: Simple = Simple {
    name: "sharpen",
    title: "Sharpen",
    description: "Your picture with its details brought out.",
    parameters: &PARAMETERS,
    chaining: Chaining::Anywhere,
    paint: || Box::<Sharpen>::default(),
};

/// Difference up to which a detail counts as noise and is not emphasised.
const NOISE: i16 = 2;

#[derive(Default)]
struct Sharpen {
    source: Bordered,
}

impl Paint for Sharpen {
    fn paint(&mut self, picture: &mut I420, parameters: &Parameters) {
        let gain = (parameters.number("strength") * 40.0).round() as i16;
        let width = picture.width() as usize;
        let [luma, ..] = picture.planes_mut();
        self.source.set(luma, width);
        for (y, out) in luma.chunks_exact_mut(width).enumerate() {
            let [above, row, below] = self.source.around(y).map(|row| &row[..width + 2]);
            for (x, out) in out.iter_mut().enumerate() {
                let at = |row: &[u8], x: usize| i16::from(row[x]);
                let corners = at(above, x) + at(above, x + 2) + at(below, x) + at(below, x + 2);
                let sides = at(above, x + 1) + at(below, x + 1) + at(row, x) + at(row, x + 2);
                let own = at(row, x + 1);
                let detail = own - ((corners + 2 * sides + 4 * own + 8) >> 4);
                let clear = detail - detail.clamp(-NOISE, NOISE);
                *out = (own + ((clear * gain) >> 4)).clamp(0, 255) as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::painted;
    use super::*;

    #[test]
    fn edges_become_steeper_and_noise_stays_as_it_is() {
        let mut frame = I420::grey(64, 48, 90);
        frame.planes_mut()[0].chunks_exact_mut(64).for_each(|row| {
            row[32..].fill(130);
            row.iter_mut().step_by(2).for_each(|luma| *luma += 1);
        });
        let picture = painted(&FACTS, &frame, json!({}), 0);
        let (before, after) = (&frame.planes()[0][20 * 64..][..64], &picture.planes()[0][20 * 64..][..64]);
        assert_eq!(before[..30], after[..30]);
        assert!(after[31] < before[31] - 5 && after[32] > before[32] + 5);
        assert!(painted(&FACTS, &frame, json!({"strength": 0}), 0) == frame);
    }
}
