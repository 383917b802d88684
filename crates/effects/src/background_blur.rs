//! The effect `background_blur`: the person stays sharp, everything else is blurred.
//!
//! **Model.** The person segmentation of [`crate::person`].
//!
//! **Painting.** [`crate::matte`] makes the mask steady over time and aligns it with the picture's
//! edges; the blurred picture is then put behind the person. The blur leaves the person out, so
//! that there is no halo. It is never weaker than at `strength` 0, and until the first mask arrives
//! the whole picture is blurred.

use std::sync::LazyLock;

use ooblex_pipeline::{Analysis, EffectName, I420, ModelInput};

use crate::blur::Blur;
use crate::effect::{ComposeError, Effect, Painter, WhenSlow};
use crate::matte::{Backdrop, Matte, mask_of};
use crate::parameters::{Kind, Parameter, Parameters};
use crate::person;
use crate::pixels::{Shrinker, rows_mut};
use ooblex_inference::{ModelSpec, Models, RunError};

/// The effect `background_blur`; see the module documentation.
pub(crate) struct BackgroundBlur;

const NAME: &str = "background_blur";
static PARAMETERS: LazyLock<[Parameter; 2]> = LazyLock::new(|| {
    let share = |default| Kind::Number { min: 0.0, max: 1.0, default };
    [
        Parameter::new(
            "strength",
            "Strength",
            "How strongly the background is blurred; at 0 it is still blurred enough that nothing can be read.",
            share(0.6),
        ),
        Parameter::new("edge_softness", "Soft edge", "How gradually the person passes into the blurred background.", share(0.5)),
    ]
});

/// Standard deviation of the blur at strength 0, as a fraction of the square root of the frame's
/// area.
const SIGMA_LEAST: f32 = 0.014;
/// Standard deviation that strength 1 adds, as a fraction of the square root of the frame's area.
const SIGMA_RANGE: f32 = 0.03;
/// Standard deviation of the placeholder's blur, as a fraction of the square root of the frame's
/// area.
const SIGMA_PLACEHOLDER: f32 = 0.06;

impl Effect for BackgroundBlur {
    fn name(&self) -> EffectName {
        EffectName::new(NAME)
    }

    fn title(&self) -> &'static str {
        "Background blur"
    }

    fn description(&self) -> &'static str {
        "You stay sharp, everything behind you is blurred, from the first frame on."
    }

    fn parameters(&self) -> &[Parameter] {
        &*PARAMETERS
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
        Box::new(BlurPainter::default())
    }
}

#[derive(Default)]
struct BlurPainter {
    shrinker: Shrinker,
    blur: Blur,
    /// Weight of each pixel of the mask in the blur, 0..=255: the likelier it shows the person, the
    /// lower.
    weights: Vec<u8>,
    matte: Matte,
}

impl Painter for BlurPainter {
    fn prepare(&mut self, source: &I420, _parameters: &Parameters) -> ModelInput {
        person::prepare(&mut self.shrinker, source)
    }

    fn compose(&mut self, picture: &mut I420, analysis: Option<&Analysis>, parameters: &Parameters) -> Result<(), ComposeError> {
        let mask = mask_of(NAME, analysis)?;
        self.matte.update(picture, mask);
        self.weights.clear();
        self.weights.extend(mask.probability.iter().map(|p| 255 - 3 * (*p).min(85)));
        let sigma = SIGMA_LEAST + SIGMA_RANGE * parameters.number("strength") as f32;
        self.blur.set(picture, sigma, Some((&self.weights, [mask.width, mask.height])));
        self.matte.put_behind(picture, &self.blur, parameters.number("edge_softness") as f32);
        Ok(())
    }

    fn on_turned(&mut self) {
        self.matte = Matte::default();
    }

    fn placeholder(&mut self, picture: &mut I420, _parameters: &Parameters) {
        self.blur.set(picture, SIGMA_PLACEHOLDER, None);
        for (rows, blurred) in rows_mut(picture).into_iter().zip(self.blur.planes()) {
            rows.enumerate().for_each(|(y, row)| blurred.row(y).copy_to(row));
        }
    }
}

impl Backdrop for Blur {
    fn row(&self, index: usize, y: usize, target: &mut [u8]) {
        self.planes()[index].row(y).copy_to(target);
    }
}

#[cfg(test)]
mod tests {
    use ooblex_pipeline::Mask;

    use super::*;

    fn mask(width: u32, height: u32, of: impl Fn(u32, u32) -> u8) -> Analysis {
        let probability = (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).map(|(x, y)| of(x, y)).collect();
        Analysis::Mask(Mask { width, height, probability })
    }

    /// Alternating columns of luma 16 and 235, the highest possible spatial frequency.
    fn stripes(width: u32, height: u32) -> I420 {
        let mut picture = I420::grey(width, height, 16);
        let [luma, ..] = picture.planes_mut();
        luma.chunks_exact_mut(width as usize).for_each(|row| row.iter_mut().step_by(2).for_each(|luma| *luma = 235));
        picture
    }

    fn contrast(row: &[u8]) -> u8 {
        row.windows(2).map(|pair| pair[0].abs_diff(pair[1])).max().unwrap_or(0)
    }

    #[test]
    fn the_person_stays_sharp_and_the_background_is_gone() {
        let parameters = Parameters::defaults(&*PARAMETERS);
        let mut picture = stripes(640, 480);
        let left_is_person = mask(256, 144, |x, _| if x < 128 { 255 } else { 0 });
        BackgroundBlur.painter().compose(&mut picture, Some(&left_is_person), &parameters).unwrap();
        let row = &picture.planes()[0][200 * 640..][..640];
        assert_eq!(row[..300], stripes(640, 480).planes()[0][..300]);
        assert!(contrast(&row[330..]) <= 2, "contrast of {}", contrast(&row[330..]));
    }

    #[test]
    fn the_background_is_blurred_at_every_strength_and_softness() {
        for (strength, softness) in [(0.0, 0.0), (0.0, 1.0), (0.5, 0.5), (1.0, 1.0)] {
            let given = serde_json::json!({"strength": strength, "edge_softness": softness});
            let parameters = Parameters::parse(&*PARAMETERS, &given).unwrap();
            for (width, height) in [(320, 180), (97, 161), (1280, 720)] {
                let mut picture = stripes(width, height);
                let unsure = mask(256, 144, |_, _| 76);
                BackgroundBlur.painter().compose(&mut picture, Some(&unsure), &parameters).unwrap();
                let worst = picture.planes()[0].chunks_exact(width as usize).map(contrast).max();
                assert!(worst <= Some(4), "contrast of {worst:?} at {width}x{height}, strength {strength}, softness {softness}");
            }
        }
    }

    #[test]
    fn the_placeholder_is_blurred_all_over() {
        let mut picture = stripes(640, 480);
        BackgroundBlur.painter().placeholder(&mut picture, &Parameters::defaults(&*PARAMETERS));
        assert!(picture.planes()[0].chunks_exact(640).all(|row| contrast(row) <= 1));
    }

    #[test]
    fn what_the_person_leaves_is_blurred_in_the_next_frame() {
        let parameters = Parameters::defaults(&*PARAMETERS);
        let mut painter = BackgroundBlur.painter();
        painter.compose(&mut stripes(640, 480), Some(&mask(256, 144, |_, _| 255)), &parameters).unwrap();
        let mut picture = stripes(640, 480);
        painter.compose(&mut picture, Some(&mask(256, 144, |_, _| 0)), &parameters).unwrap();
        assert!(picture.planes()[0].chunks_exact(640).all(|row| contrast(row) <= 2));
    }

    #[test]
    fn an_analysis_of_another_kind_or_with_a_wrong_size_is_refused() {
        let parameters = Parameters::defaults(&*PARAMETERS);
        let broken = |width, height, bytes| Analysis::Mask(Mask { width, height, probability: vec![0; bytes] });
        let analyses = [Analysis::Faces(vec![]), broken(256, 144, 7), broken(0, 0, 0), broken(u32::MAX, u32::MAX, 1)];
        for analysis in analyses.iter().map(Some).chain([None]) {
            let refused = BackgroundBlur.painter().compose(&mut I420::grey(64, 48, 16), analysis, &parameters);
            assert!(refused.unwrap_err().to_string().starts_with("background_blur cannot paint"));
        }
    }
}
