//! The effect `denoise`: temporal noise reduction that does not smear motion.
//!
//! Each pixel follows its new value slowly while the difference is within the noise level, and at
//! once when it is larger. The first frame, and the first one after a change of size, is shown
//! unchanged.

use ooblex_pipeline::{I420, Size};

use super::base::{Paint, Simple, share};
use crate::effect::Chaining;
use crate::parameters::{Parameter, Parameters};

static PARAMETERS: [Parameter; 1] =
    [share("strength", "Strength", "How much noise is calmed; with more, faint things that move may leave a trace.", 0.5)];

pub(super) static FACTS: Simple = Simple {
    name: "denoise",
    title: "Denoise",
    description: "Your picture without the noise of a camera in the dark.",
    parameters: &PARAMETERS,
    chaining: Chaining::Anywhere,
    paint: || Box::<Denoise>::default(),
};

#[derive(Default)]
struct Denoise {
    size: Option<Size>,
    /// Planes of the last painted frame, in units of 1/32 level.
    shown: [Vec<i16>; 3],
}

impl Paint for Denoise {
    fn paint(&mut self, picture: &mut I420, parameters: &Parameters) {
        let size = Some(picture.size());
        let strength = parameters.number("strength");
        if self.size != size {
            self.size = size;
            for (shown, plane) in self.shown.iter_mut().zip(picture.planes()) {
                shown.clear();
                shown.extend(plane.iter().map(|value| i16::from(*value) << 5));
            }
            return;
        }
        // Step size in 1/64 of the difference: `slow` up to the noise level, and 8 more for each
        // level of difference beyond it.
        let (slow, noise) = ((52.0 - 44.0 * strength) as i16, (2.0 + 14.0 * strength) as i16);
        for (shown, plane) in self.shown.iter_mut().zip(picture.planes_mut()) {
            for (shown, value) in shown.iter_mut().zip(plane) {
                let away = (i16::from(*value) << 5) - *shown;
                let levels = (away.abs() + 16) >> 5;
                let pace = (slow + (levels - noise).max(0) * 8).min(64);
                // A large difference is followed completely. A small one is clamped so that the
                // product fits into 16 bits.
                let step = if pace == 64 { away } else { (away.clamp(-500, 500) * pace) >> 6 };
                *shown += step;
                *value = ((*shown + 16) >> 5).clamp(0, 255) as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{painted, ramp};
    use super::*;

    fn noisy(frame: &I420, seed: u32) -> I420 {
        let (mut picture, mut state) = (frame.clone(), seed);
        for value in picture.planes_mut()[0].iter_mut() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *value += (state >> 24) as u8 % 9;
        }
        picture
    }

    fn change(a: &I420, b: &I420) -> u64 {
        a.planes()[0].iter().zip(b.planes()[0]).map(|(a, b)| u64::from(a.abs_diff(*b))).sum()
    }

    #[test]
    fn noise_is_reduced_and_motion_is_followed_at_once() {
        let parameters = Parameters::parse(&PARAMETERS, &json!({})).unwrap();
        let (frame, mut denoise) = (ramp(64, 48), Denoise::default());
        let mut shown = |frame: &I420| {
            let mut picture = frame.clone();
            denoise.paint(&mut picture, &parameters);
            picture
        };
        (0..10).for_each(|seed| _ = shown(&noisy(&frame, seed)));
        let (a, b) = (shown(&noisy(&frame, 11)), shown(&noisy(&frame, 12)));
        assert!(change(&a, &b) * 2 < change(&noisy(&frame, 11), &noisy(&frame, 12)));
        let elsewhere = I420::grey(64, 48, 235);
        assert!(change(&shown(&elsewhere), &elsewhere) < 64 * 48 / 4);
    }

    #[test]
    fn a_still_frame_stays_what_it_is() {
        assert!(painted(&FACTS, &ramp(65, 49), json!({"strength": 1}), 3) == ramp(65, 49));
    }
}
