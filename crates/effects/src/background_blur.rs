//! The effect `background_blur`: the person stays sharp, everything else is blurred.
//!
//! **Model.** `selfie_landscape_144x256` (MediaPipe). In: RGB `/255`, the whole frame stretched to 256×144, its aspect not kept.
//! Out: the probability of each pixel to belong to a person, 0..=1.
//!
//! **Painting.** The probability `p` becomes an opacity `clamp((p - 0.3) / width)`, where the width (0.3 to 0.7) is the softness
//! of the edge. The opacity is smoothed in time where it hardly changes, and follows at once where the person leaves, so that the
//! background is never seen sharp behind a moving person. The blur is made without the person, who thus has no halo. It is
//! never weaker than the weakest strength, whatever is asked for, and before there is a mask all of the picture is blurred.

use std::sync::LazyLock;

use ooblex_pipeline::{Analysis, EffectName, I420, Mask, ModelInput};

use crate::blur::Blur;
use crate::effect::{ComposeError, Effect, Painter, WhenSlow};
use crate::model::Extent::Fixed;
use crate::model::{Input, ModelSpec, Models, RunError, TensorSpec};
use crate::parameters::{Kind, Parameter, Parameters};
use crate::pixels::{Shrinker, Stretched, nchw, plane_size, rows_mut};

/// See the top of this file.
pub(crate) struct BackgroundBlur;

const NAME: &str = "background_blur";
const WIDTH: u32 = 256;
const HEIGHT: u32 = 144;

static MODELS: [&ModelSpec; 1] = [&MODEL];

static MODEL: ModelSpec = ModelSpec {
    name: "selfie_landscape_144x256",
    file: "selfie_landscape_144x256.onnx",
    sha256: "d4bca3a85b81e3659ebbe1c25a5e1a5f967453f5fec1db8245409395106ff5a6",
    embedded: include_bytes!("../../../models/selfie_landscape_144x256.onnx"),
    inputs: &[TensorSpec { name: "input", shape: &[Fixed(1), Fixed(3), Fixed(HEIGHT as usize), Fixed(WIDTH as usize)] }],
    outputs: &[TensorSpec { name: "mask", shape: &[Fixed(1), Fixed(1), Fixed(HEIGHT as usize), Fixed(WIDTH as usize)] }],
    threads: 1,
    warm_up: &[],
};

static PARAMETERS: LazyLock<[Parameter; 2]> = LazyLock::new(|| {
    let share = |default| Kind::Number { min: 0.0, max: 1.0, default };
    [
        Parameter {
            name: "strength",
            title: "Strength",
            description: "How strongly the background is blurred; at 0 it is still blurred enough that nothing can be read.",
            kind: share(0.6),
        },
        Parameter {
            name: "edge_softness",
            title: "Soft edge",
            description: "How gradually the person passes into the blurred background.",
            kind: share(0.5),
        },
    ]
});

/// Probability up to which a pixel is all background.
const LEAST_PROBABILITY: f32 = 0.3;
/// Blur at strength 0, what strength 1 adds, and the blur of the placeholder: shares of the square root of the frame's area.
const SIGMA_LEAST: f32 = 0.014;
const SIGMA_RANGE: f32 = 0.03;
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

    fn models(&self) -> &[&'static ModelSpec] {
        &MODELS
    }

    fn when_slow(&self) -> WhenSlow {
        WhenSlow::Hold
    }

    fn analyse(&self, models: &mut Models, input: &ModelInput) -> Result<Analysis, RunError> {
        let picture = MODEL.picture_of(input, WIDTH, HEIGHT)?;
        let data = nchw(&picture.data, 255.0, 0.0);
        let outputs = models.run(&MODEL, &[Input { shape: &[1, 3, HEIGHT as usize, WIDTH as usize], data: &data }])?;
        let probability = outputs[0].data.iter().map(|p| (p.clamp(0.0, 1.0) * 255.0 + 0.5) as u8).collect();
        Ok(Analysis::Mask(Mask { width: WIDTH, height: HEIGHT, probability }))
    }

    fn painter(&self) -> Box<dyn Painter> {
        Box::new(BlurPainter::default())
    }
}

#[derive(Default)]
struct BlurPainter {
    shrinker: Shrinker,
    blur: Blur,
    /// How much a pixel of the blurred picture is made of this one: all the less, the likelier it is the person.
    weights: Vec<u8>,
    opacity: Opacity,
    /// The opacity, stretched to the planes of the frame: luma, chroma.
    stretched: [Stretched; 2],
}

impl Painter for BlurPainter {
    fn prepare(&mut self, source: &I420, _parameters: &Parameters) -> ModelInput {
        let picture = self.shrinker.rgb(source, WIDTH, HEIGHT);
        ModelInput { picture, content: [0, 0, WIDTH, HEIGHT], arguments: Vec::new() }
    }

    fn compose(&mut self, picture: &mut I420, analysis: Option<&Analysis>, parameters: &Parameters) -> Result<(), ComposeError> {
        let mask = mask_of(analysis)?;
        let size = [mask.width, mask.height];
        self.opacity.update(mask, parameters.number("edge_softness") as f32);
        self.weights.clear();
        self.weights.extend(mask.probability.iter().map(|p| 255 - p.saturating_mul(3)));
        let sigma = SIGMA_LEAST + SIGMA_RANGE * parameters.number("strength") as f32;
        self.blur.set(picture, sigma, Some((&self.weights, size)));
        for (index, stretched) in self.stretched.iter_mut().enumerate() {
            let (to, shown) = plane_size(picture, index);
            stretched.set(&self.opacity.values, size, to, shown);
        }
        for (index, rows) in rows_mut(picture).into_iter().enumerate() {
            let (behind, opacity) = (&self.blur.planes()[index], &self.stretched[index.min(1)]);
            rows.enumerate().for_each(|(y, row)| behind.row(y).blend_behind(row, &opacity.row(y)));
        }
        Ok(())
    }

    fn placeholder(&mut self, picture: &mut I420, _parameters: &Parameters) {
        self.blur.set(picture, SIGMA_PLACEHOLDER, None);
        for (rows, blurred) in rows_mut(picture).into_iter().zip(self.blur.planes()) {
            rows.enumerate().for_each(|(y, row)| blurred.row(y).copy_to(row));
        }
    }
}

/// The mask, if that is what the analysis holds. It may come from another machine: its size is checked.
fn mask_of(analysis: Option<&Analysis>) -> Result<&Mask, ComposeError> {
    let refused = |got| ComposeError { effect: EffectName::new(NAME), got };
    let mask = match analysis {
        Some(Analysis::Mask(mask)) => mask,
        Some(Analysis::Faces(_)) => return Err(refused("faces instead of a mask")),
        Some(Analysis::Picture(_)) => return Err(refused("a picture instead of a mask")),
        None => return Err(refused("a frame without its mask")),
    };
    let sides = 1..=I420::MAX_SIDE;
    let fits =
        sides.contains(&mask.width) && sides.contains(&mask.height) && mask.probability.len() == mask.width as usize * mask.height as usize;
    if fits { Ok(mask) } else { Err(refused("a mask whose bytes do not match its size")) }
}

/// The opacity of the person, 0..=255 for each pixel of the mask, smoothed in time.
#[derive(Default)]
struct Opacity {
    size: [u32; 2],
    values: Vec<u8>,
}

impl Opacity {
    fn update(&mut self, mask: &Mask, softness: f32) {
        let of_probability = opacity_table(softness);
        let targets = mask.probability.iter().map(|p| of_probability[usize::from(*p)]);
        if self.size != [mask.width, mask.height] {
            self.size = [mask.width, mask.height];
            self.values = targets.collect();
            return;
        }
        for (value, target) in self.values.iter_mut().zip(targets) {
            *value = follow(*value, target);
        }
    }
}

/// The opacity for each probability of 0..=255.
fn opacity_table(softness: f32) -> [u8; 256] {
    let width = 0.3 + 0.4 * softness;
    std::array::from_fn(|p| (((p as f32 / 255.0 - LEAST_PROBABILITY) / width).clamp(0.0, 1.0) * 255.0 + 0.5) as u8)
}

/// One step towards `target`: small changes, which are mostly the model's flicker, are slowed down. A fall of 20 or more is
/// followed at once, a rise of 88 or more as well.
fn follow(value: u8, target: u8) -> u8 {
    let change = i32::from(target) - i32::from(value);
    let pace = if change < 0 { 96 - 8 * change } else { 80 + 2 * change };
    (i32::from(value) + ((change * pace.min(256)) >> 8)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(width: u32, height: u32, of: impl Fn(u32, u32) -> u8) -> Analysis {
        let probability = (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).map(|(x, y)| of(x, y)).collect();
        Analysis::Mask(Mask { width, height, probability })
    }

    /// Columns of 16 and 235 in turn: as sharp as a picture can be.
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
    fn flicker_is_damped_and_arrives_in_the_end() {
        assert!(follow(100, 110).abs_diff(100) <= 5);
        assert_eq!(follow(100, 80), 80);
        assert_eq!(follow(0, 255), 255);
        for target in 0..=255 {
            for start in [0, 255] {
                let settled = (0..200).fold(start, |value, _| follow(value, target));
                assert!(settled.abs_diff(target) <= 3, "{settled} instead of {target} from {start}");
                assert!(settled <= target || start == 255 && settled == target, "stays above: {settled} instead of {target}");
            }
        }
    }

    #[test]
    fn an_analysis_of_another_kind_or_with_a_wrong_size_is_refused() {
        let parameters = Parameters::defaults(&*PARAMETERS);
        let broken = |width, height, bytes| Analysis::Mask(Mask { width, height, probability: vec![0; bytes] });
        let analyses = [Analysis::Faces(vec![]), broken(256, 144, 7), broken(0, 0, 0), broken(u32::MAX, u32::MAX, 1)];
        for analysis in analyses.iter().map(Some).chain([None]) {
            let refused = BackgroundBlur.painter().compose(&mut I420::grey(64, 48, 16), analysis, &parameters);
            assert!(refused.unwrap_err().to_string().starts_with("background_blur can not paint"));
        }
    }
}
