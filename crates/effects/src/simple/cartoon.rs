//! The effect `cartoon`: flat areas in a few tones, with dark lines around them.
//!
//! A guided filter, guided by the picture itself, flattens areas of little variation and keeps
//! edges. Luma is then quantised to a few tones, with steps soft enough not to flicker.

use ooblex_pipeline::I420;

use super::base::{Paint, Simple, of_256, share};
use super::neighbours::{Bordered, turns};
use crate::effect::Chaining;
use crate::guided::Guided;
use crate::parameters::{Kind, Parameter, Parameters};
use crate::pixels::Shrinker;

static PARAMETERS: [Parameter; 3] = [
    Parameter::new(
        "tones",
        "Tones",
        "How many tones there are from dark to bright, about.",
        Kind::Number { min: 3.0, max: 12.0, default: 6.0 },
    ),
    share("lines", "Lines", "How strong the lines are.", 0.6),
    share("colour", "Colour", "How much stronger the colours become.", 0.5),
];

pub(super) static FACTS: Simple = Simple {
    name: "cartoon",
    title: "Cartoon",
    description: "Your picture as a cartoon: a few tones, strong colours, dark lines.",
    parameters: &PARAMETERS,
    chaining: Chaining::Anywhere,
    paint: || Box::<Cartoon>::default(),
};

/// Number of pixels of the small copy on which areas are flattened.
const SMALL_PIXELS: f64 = 14_400.0;
/// Radius of the guided filter's window in pixels of the small copy.
const WINDOW: usize = 1;
/// Luma gradient up to which no line is drawn.
const FAINT: i16 = 14;

#[derive(Default)]
struct Cartoon {
    shrinker: Shrinker,
    guided: Guided,
    source: Bordered,
    even: Vec<u8>,
}

impl Paint for Cartoon {
    fn paint(&mut self, picture: &mut I420, parameters: &Parameters) {
        let (width, height) = (picture.width(), picture.height());
        let scale = (SMALL_PIXELS / (f64::from(width) * f64::from(height))).sqrt().min(1.0);
        let small = [width, height].map(|side| (f64::from(side) * scale).ceil().max(1.0) as u32);
        let luma = self.shrinker.luma(picture, small[0], small[1]);
        self.guided.even_out(luma, small, WINDOW, [width, height]);
        let step = (220.0 / parameters.number("tones")).round() as i16;
        let (lines, colour) = (of_256(parameters.number("lines")) >> 1, 64 + (of_256(parameters.number("colour")) >> 2));
        let [luma, u, v] = picture.planes_mut();
        self.source.set(luma, width as usize);
        self.even.resize(width as usize, 0);
        let tones = Tones::new(step);
        for (y, row) in luma.chunks_exact_mut(width as usize).enumerate() {
            self.guided.even_row(y, row, &mut self.even);
            turns(self.source.around(y), row);
            for (value, even) in row.iter_mut().zip(&self.even) {
                let line = ((i16::from(*value) - FAINT).clamp(0, 100) * lines) >> 5;
                *value = (tones.of(*even) - line).max(16) as u8;
            }
        }
        let stronger = |chroma: &mut u8| *chroma = (128 + (((i16::from(*chroma) - 128) * colour) >> 6)).clamp(16, 240) as u8;
        u.iter_mut().chain(v).for_each(stronger);
    }
}

/// Soft quantisation of luma: flat for two thirds of a step, then a slope of 3 up to the next tone.
struct Tones {
    step: i16,
    /// 256 / step, so that no division is needed.
    inverse: i16,
}

impl Tones {
    fn new(step: i16) -> Self {
        Self { step, inverse: (256 + step / 2) / step }
    }

    fn of(&self, luma: u8) -> i16 {
        let luma = i16::from(luma);
        let base = ((luma * self.inverse) >> 8) * self.step;
        (base + (3 * (luma - base - self.step / 3)).clamp(0, self.step)).min(255)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::super::tests::{painted, ramp};
    use super::*;

    #[test]
    fn an_even_run_becomes_a_few_tones() {
        let picture = painted(&FACTS, &ramp(640, 48), json!({"lines": 0, "tones": 4}), 0);
        let row = &picture.planes()[0][24 * 640..][..640];
        let flat = row.windows(8).filter(|run| run.iter().all(|luma| *luma == run[0])).count();
        assert!(flat > 250, "{flat} of 640 are flat");
        let tones: BTreeSet<_> = row.windows(16).filter(|run| run.iter().all(|luma| *luma == run[0])).map(|run| run[0]).collect();
        assert!((3..=6).contains(&tones.len()), "{tones:?}");
    }

    #[test]
    fn what_turns_gets_a_dark_line() {
        let mut frame = I420::grey(64, 48, 90);
        frame.planes_mut()[0].chunks_exact_mut(64).for_each(|row| row[32..].fill(200));
        let row = painted(&FACTS, &frame, json!({"lines": 1}), 0).planes()[0][20 * 64..][..64].to_vec();
        assert!(row[31] <= 20 && row[8] > 60, "{row:?}");
    }
}
