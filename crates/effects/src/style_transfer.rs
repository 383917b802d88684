//! The effect `style_transfer`: the picture as a painting, in one of 26 styles or a blend of them.
//!
//! **Models.** `style26` knows every style and their blends; the most popular styles have a small
//! network each ([`networks`]), which is used if such a style is requested without a blend.
//!
//! **Prepare.** The frame is scaled to the chosen number of pixels, its aspect ratio kept as far as
//! multiples of 4 allow, and its outermost pixels are repeated on every side. These borders are cut
//! off from the result, so that it shows the whole frame.
//!
//! **Painting.** The network responds to camera noise with flickering strokes. Where the picture is
//! still ([`crate::stillness`]), the painting is blended with the previous ones; where it moves,
//! the newest one is used unchanged, so that nothing smears. The painting is stretched over the
//! frame along the frame's edges ([`crate::guided`]).

mod ladder;
mod networks;
mod steady;

use std::sync::LazyLock;

use ooblex_pipeline::{Analysis, EffectName, I420, ModelInput, Rgb};

use self::ladder::{Ladder, STEPS};
use self::networks::{ALL, EVERY_STYLE, STYLES, small_one};
use self::steady::Steady;
use crate::effect::{Chaining, ComposeError, Effect, Painter, WhenSlow};
use crate::guided::Guided;
use crate::models::checked_picture;
use crate::parameters::{Kind, Parameter, Parameters};
use crate::pixels::{self, Shrinker, Stretched, byte, nchw_into, plane_size, planes_from_rgb, rows_mut};
use crate::stillness::Stillness;
use ooblex_inference::{Input, ModelSpec, Models, RunError};

/// The effect `style_transfer`; see the module documentation.
pub(crate) struct StyleTransfer;

const NAME: &str = "style_transfer";
/// Width in pixels of the border of repeated pixels around the input of the large network, whose
/// outermost 4 px are wrong.
const LARGE_BORDER: u32 = 4;
/// Width in pixels of the border of repeated pixels around the input of a small network. Such a
/// network draws a line 20 px from the edge; further inside, the edge has no effect.
const SMALL_BORDER: u32 = 24;
/// Maximum number of pixels of a model's input, borders included. Larger inputs are not made by
/// this effect and are refused.
const MOST_PIXELS: u32 = 1_100_000;
/// Distance in pixels of the painting that a stroke reaches beyond a moving pixel.
const STROKE: usize = 4;
/// Window of the guided filter, in pixels of the painting to each side.
const EDGE: usize = 2;
/// Luma of the placeholder.
const PLACEHOLDER_LUMA: u8 = 96;
/// Value of `resolution` that adapts the resolution to the speed of the machine.
const AUTO: &str = "auto";

/// Name of each style for users, the best-looking ones first, and its index in the model.
const PALETTE: [(&str, usize); STYLES] = [
    ("wave_print", 24),
    ("pink_pencil", 8),
    ("comic_ink", 22),
    ("blue_starlight", 19),
    ("lavender_pastel", 12),
    ("crimson_poster", 4),
    ("stained_glass", 15),
    ("yellow_ink", 1),
    ("apricot_canvas", 0),
    ("autumn_brush", 5),
    ("ice_watercolour", 14),
    ("golden_engraving", 11),
    ("peach_fresco", 2),
    ("bronze_strokes", 25),
    ("green_woodcut", 13),
    ("misty_oil", 23),
    ("paper_cutout", 21),
    ("primary_blaze", 7),
    ("sandstone_relief", 18),
    ("umber_oil", 10),
    ("ember_red", 20),
    ("blue_chalk", 16),
    ("pebble_mosaic", 9),
    ("cubist_shards", 3),
    ("indigo_dots", 6),
    ("red_weave", 17),
];

const NAMES: [&str; STYLES] = {
    let mut names = [""; STYLES];
    let mut index = 0;
    while index < STYLES {
        names[index] = PALETTE[index].0;
        index += 1;
    }
    names
};

const RESOLUTIONS: [&str; 1 + STEPS.len()] = {
    let mut words = [AUTO; 1 + STEPS.len()];
    let mut index = 0;
    while index < STEPS.len() {
        words[1 + index] = STEPS[index].0;
        index += 1;
    }
    words
};

static PARAMETERS: LazyLock<[Parameter; 4]> = LazyLock::new(|| {
    [
        Parameter::new("style", "Style", "How the picture is painted.", Kind::Choice { options: &NAMES, default: NAMES[0] }),
        Parameter::new(
            "blend",
            "Blend",
            "Further styles to mix in, each with its weight beside the style's own of 1.",
            Kind::Weights { options: &NAMES },
        ),
        Parameter::new(
            "strength",
            "Strength",
            "How much of the painting is seen: at 0 the camera's picture, at 1 the painting alone.",
            Kind::Number { min: 0.0, max: 1.0, default: 1.0 },
        ),
        Parameter::new(
            "resolution",
            "Resolution",
            "The fineness of the painting: finer takes longer. 'auto' takes the finest that the machine manages.",
            Kind::Choice { options: &RESOLUTIONS, default: AUTO },
        ),
    ]
});

impl Effect for StyleTransfer {
    fn name(&self) -> EffectName {
        EffectName::new(NAME)
    }

    fn title(&self) -> &'static str {
        "Style transfer"
    }

    fn description(&self) -> &'static str {
        "Your picture as a painting, in one of 26 styles or a blend of them."
    }

    fn parameters(&self) -> &[Parameter] {
        &*PARAMETERS
    }

    fn models(&self) -> Vec<&ModelSpec> {
        ALL.to_vec()
    }

    fn when_slow(&self) -> WhenSlow {
        WhenSlow::Hold
    }

    /// Runs the network; `input.arguments` holds the weights of the styles.
    fn analyse(&self, models: &mut Models, input: &ModelInput) -> Result<Analysis, RunError> {
        let picture = checked(input)?;
        let [height, width] = [picture.height, picture.width].map(|side| side as usize);
        let mut data = models.buffers().with_room(picture.data.len());
        nchw_into(&mut data, &picture.data, 255.0, 0.0);
        let image = Input { shape: &[1, 3, height, width], data: &data };
        let weights = Input { shape: &[STYLES], data: &input.arguments };
        let outputs = match small_one(&input.arguments) {
            Some(small) => models.run(small, &[image])?,
            None => models.run(&EVERY_STYLE, &[image, weights])?,
        };
        let painted = cut_out(&outputs[0].data, width, height, input.content);
        models.buffers().put(data);
        outputs.into_iter().for_each(|output| models.buffers().put(output.data));
        Ok(Analysis::Picture(painted))
    }

    fn chaining(&self) -> Chaining {
        Chaining::First
    }

    fn painter(&self) -> Box<dyn Painter> {
        Box::new(StylePainter::new())
    }
}

/// Returns the picture of an input after validation.
fn checked(input: &ModelInput) -> Result<&Rgb, RunError> {
    let picture = checked_picture(&EVERY_STYLE, input)?;
    let bad = |reason| Err(RunError::BadInput { model: EVERY_STYLE.name.to_string(), reason });
    let (width, height) = (picture.width, picture.height);
    if !width.is_multiple_of(4) || !height.is_multiple_of(4) || width * height > MOST_PIXELS {
        return bad(format!("{width}x{height} instead of multiples of 4 with at most {MOST_PIXELS} pixels"));
    }
    let weights = &input.arguments;
    let sum: f32 = weights.iter().sum();
    if weights.len() != STYLES || !weights.iter().all(|weight| *weight >= 0.0) || (sum - 1.0).abs() > 0.01 {
        return bad(format!("{} weights with a sum of {sum} instead of {STYLES} with a sum of 1", weights.len()));
    }
    Ok(picture)
}

/// Cuts the `content` part out of the model's output and converts it to a picture.
fn cut_out(data: &[f32], width: usize, height: usize, content: [u32; 4]) -> Rgb {
    let [left, top, columns, rows] = content.map(|side| side as usize);
    let mut cut = vec![0; 3 * columns * rows];
    for (channel, plane) in data.chunks_exact(width * height).enumerate() {
        for (row, line) in plane.chunks_exact(width).skip(top).zip(cut.chunks_exact_mut(3 * columns)) {
            for (value, pixel) in row[left..left + columns].iter().zip(line.as_chunks_mut::<3>().0) {
                pixel[channel] = byte(value * 255.0);
            }
        }
    }
    Rgb { width: columns as u32, height: rows as u32, data: cut }
}

struct StylePainter {
    shrinker: Shrinker,
    ladder: Ladder,
    /// True if the resolution is automatic, that is, chosen by the ladder.
    auto: bool,
    /// True if the network of all styles paints, which takes five times as long as one of a single
    /// style.
    large: bool,
    planes: [Vec<u8>; 3],
    stillness: Stillness,
    steady: Steady,
    guided: Guided,
    chroma: [Stretched; 2],
    /// Buffer for a row of luma.
    row: Vec<u8>,
}

impl StylePainter {
    fn new() -> Self {
        Self {
            shrinker: Shrinker::default(),
            ladder: Ladder::new(),
            auto: true,
            large: false,
            planes: Default::default(),
            stillness: Stillness::default(),
            steady: Steady::default(),
            guided: Guided::default(),
            chroma: Default::default(),
            row: Vec::new(),
        }
    }
}

impl Painter for StylePainter {
    fn prepare(&mut self, source: &I420, parameters: &Parameters) -> ModelInput {
        let fixed = STEPS.iter().find(|(word, _)| *word == parameters.choice("resolution"));
        self.auto = fixed.is_none();
        let arguments = weights(parameters);
        let large = small_one(&arguments).is_none();
        if large != self.large {
            // The speed of one network says nothing about that of the other.
            (self.large, self.ladder) = (large, Ladder::new());
        }
        let [width, height] = styled_size(source.width(), source.height(), fixed.map_or(self.ladder.pixels(), |(_, pixels)| *pixels));
        let border = if large { LARGE_BORDER } else { SMALL_BORDER };
        let picture = with_border(&self.shrinker.rgb(source, width, height), border);
        ModelInput { picture, content: [border, border, width, height], arguments }
    }

    fn compose(&mut self, picture: &mut I420, analysis: Option<&Analysis>, parameters: &Parameters) -> Result<(), ComposeError> {
        let styled = picture_of(analysis)?;
        planes_from_rgb(styled, &mut self.planes);
        let (size, frame) = ([styled.width, styled.height], [picture.width(), picture.height()]);
        let luma = self.shrinker.luma(picture, size[0], size[1]);
        let moved = self.stillness.update(luma, size, STROKE);
        self.steady.blend(&mut self.planes, moved, &weights(parameters));
        self.guided.sharpen(luma, &self.planes[0], size, EDGE, frame);
        for (index, stretched) in self.chroma.iter_mut().enumerate() {
            let (to, shown) = plane_size(picture, index + 1);
            stretched.set(&self.planes[index + 1], size, to, shown);
        }
        let opacity = (parameters.number("strength") * 256.0).round() as u16;
        let [luma, u, v] = rows_mut(picture);
        self.row.resize(frame[0] as usize, 0);
        for (y, row) in luma.enumerate() {
            self.guided.row(y, row, &mut self.row);
            pixels::mix(row, &self.row, opacity);
        }
        for (rows, stretched) in [u, v].into_iter().zip(&self.chroma) {
            rows.enumerate().for_each(|(y, row)| stretched.row(y).blend_onto(row, opacity));
        }
        Ok(())
    }

    fn on_turned(&mut self) {
        (self.stillness, self.steady) = Default::default();
    }

    /// Paints a uniform grey: nothing is shown of a frame that was not painted.
    fn placeholder(&mut self, picture: &mut I420, _parameters: &Parameters) {
        *picture = I420::grey(picture.width(), picture.height(), PLACEHOLDER_LUMA);
    }

    fn shrink_input(&mut self) -> bool {
        self.auto && self.ladder.down()
    }

    fn grow_input(&mut self, utilisation: f32) -> bool {
        self.auto && self.ladder.up(utilisation)
    }
}

/// Returns the weights of the 26 styles, in the order of the model, with a sum of 1.
fn weights(parameters: &Parameters) -> Vec<f32> {
    blended(parameters.choice("style"), parameters.weights("blend"))
}

fn blended(style: &str, blend: &[(&'static str, f64)]) -> Vec<f32> {
    let total = 1.0 + blend.iter().map(|(_, weight)| weight).sum::<f64>();
    let mut weights = vec![0.0; STYLES];
    for (name, weight) in [(style, 1.0)].into_iter().chain(blend.iter().copied()) {
        let number = PALETTE.iter().find(|(known, _)| *known == name).map_or(0, |(_, number)| *number);
        weights[number] += (weight / total) as f32;
    }
    weights
}

/// Returns the columns and rows of the styled picture: about `pixels` pixels, in multiples of 4,
/// not more than the frame has.
fn styled_size(width: u32, height: u32, pixels: u32) -> [u32; 2] {
    let scale = (f64::from(pixels) / (f64::from(width) * f64::from(height))).sqrt().min(1.0);
    [width, height].map(|side| ((f64::from(side) * scale / 4.0).round() as u32 * 4).clamp(4, I420::MAX_SIDE - 2 * SMALL_BORDER))
}

/// Adds a border of `border` px to the picture by repeating its outermost pixels on every side.
fn with_border(inner: &Rgb, border: u32) -> Rgb {
    let (width, height) = (inner.width + 2 * border, inner.height + 2 * border);
    let mut data = Vec::with_capacity(3 * width as usize * height as usize);
    for y in 0..height {
        let row = y.saturating_sub(border).min(inner.height - 1);
        let line = &inner.data[3 * inner.width as usize * row as usize..][..3 * inner.width as usize];
        let (first, last) = (&line[..3], &line[line.len() - 3..]);
        (0..border).for_each(|_| data.extend_from_slice(first));
        data.extend_from_slice(line);
        (0..border).for_each(|_| data.extend_from_slice(last));
    }
    Rgb { width, height, data }
}

/// Returns the picture of an analysis. It may come from another machine, so its size is validated.
fn picture_of(analysis: Option<&Analysis>) -> Result<&Rgb, ComposeError> {
    let refused = |got| Err(ComposeError { effect: EffectName::new(NAME), got });
    match analysis {
        Some(Analysis::Picture(picture)) if pixels::check(picture).is_ok() => Ok(picture),
        Some(Analysis::Picture(_)) => refused("a picture whose bytes do not match its size"),
        Some(other) => refused(other.kind()),
        None => refused("a frame without its picture"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    fn parameters(given: serde_json::Value) -> Parameters {
        Parameters::parse(&*PARAMETERS, &given).unwrap()
    }

    #[test]
    fn every_style_of_the_model_has_one_name() {
        assert_eq!(NAMES.iter().collect::<BTreeSet<_>>().len(), STYLES);
        assert_eq!(PALETTE.iter().map(|(_, number)| number).collect::<BTreeSet<_>>(), (0..STYLES).collect::<Vec<_>>().iter().collect());
    }

    #[test]
    fn a_blend_is_made_of_the_style_and_the_further_ones() {
        let alone = blended("yellow_ink", &[]);
        assert_eq!((alone[1], alone.iter().sum::<f32>()), (1.0, 1.0));
        let blend = blended("yellow_ink", &[("comic_ink", 0.5), ("yellow_ink", 0.5)]);
        assert_eq!((blend[1], blend[22]), (0.75, 0.25));
    }

    #[test]
    fn the_painting_keeps_the_aspect_and_is_never_larger_than_the_frame() {
        assert_eq!(styled_size(1280, 720, 384 * 216), [384, 216]);
        assert_eq!(styled_size(640, 480, 384 * 216), [332, 248]);
        assert_eq!(styled_size(480, 640, 384 * 216), [248, 332]);
        assert_eq!(styled_size(160, 120, 640 * 360), [160, 120]);
        assert_eq!(styled_size(1, 1, 384 * 216), [4, 4]);
        assert_eq!(styled_size(4096, 1, 384 * 216), [4048, 4]);
        for (_, pixels) in STEPS {
            let [width, height] = styled_size(1920, 1080, pixels);
            assert!((width + 2 * SMALL_BORDER) * (height + 2 * SMALL_BORDER) <= MOST_PIXELS);
        }
    }

    #[test]
    fn the_slow_network_does_not_begin_at_the_resolution_that_the_fast_one_managed() {
        let mut painter = StyleTransfer.painter();
        let frame = I420::grey(1280, 720, 100);
        let width = |painter: &mut dyn Painter, given| painter.prepare(&frame, &parameters(given)).content[2];
        width(&mut *painter, json!({}));
        while painter.grow_input(0.05) {}
        assert_eq!(width(&mut *painter, json!({})), 1280);
        assert_eq!(width(&mut *painter, json!({"blend": {"comic_ink": 0.3}})), 384);
    }

    #[test]
    fn a_fixed_resolution_holds_and_auto_follows_the_load() {
        let mut painter = StyleTransfer.painter();
        let frame = I420::grey(1280, 720, 100);
        let width = |painter: &mut dyn Painter, given| painter.prepare(&frame, &parameters(given)).content[2];
        assert_eq!(width(&mut *painter, json!({})), 384);
        assert_eq!(width(&mut *painter, json!({"resolution": "360p"})), 640);
        assert!(!painter.shrink_input() && !painter.grow_input(0.0));
        assert_eq!(width(&mut *painter, json!({"resolution": "360p"})), 640);
        assert_eq!(width(&mut *painter, json!({})), 384);
        assert!(painter.shrink_input() && !painter.shrink_input());
        assert_eq!(width(&mut *painter, json!({})), 320);
        assert!(painter.grow_input(0.2));
        assert_eq!(width(&mut *painter, json!({})), 384);
    }

    #[test]
    fn the_border_repeats_the_outermost_pixels_and_is_cut_off_again() {
        let inner = Rgb { width: 4, height: 4, data: (0..48).collect() };
        let bordered = with_border(&inner, 4);
        assert_eq!((bordered.width, bordered.height, bordered.data.len()), (12, 12, 432));
        assert_eq!(bordered.data[..3], inner.data[..3]);
        assert_eq!(bordered.data[429..], inner.data[45..]);
        let planes: Vec<f32> = (0..3).flat_map(|c| bordered.data.iter().skip(c).step_by(3).map(|v| f32::from(*v) / 255.0)).collect();
        assert_eq!(cut_out(&planes, 12, 12, [4, 4, 4, 4]), inner);
    }

    #[test]
    fn strength_blends_from_the_camera_to_the_painting() {
        let painting = Analysis::Picture(Rgb { width: 4, height: 4, data: vec![255; 48] });
        let luma = |strength| {
            let mut picture = I420::grey(65, 33, 35);
            StyleTransfer.painter().compose(&mut picture, Some(&painting), &parameters(json!({"strength": strength}))).unwrap();
            picture.planes()[0].to_vec()
        };
        assert!(luma(0.0).iter().all(|luma| *luma == 35));
        assert!(luma(0.5).iter().all(|luma| *luma == 135));
        assert!(luma(1.0).iter().all(|luma| *luma == 235));
    }

    #[test]
    fn inputs_that_the_model_can_not_take_are_refused() {
        let good = StyleTransfer.painter().prepare(&I420::grey(640, 480, 100), &parameters(json!({})));
        assert!(checked(&good).is_ok());
        let refused = |change: &dyn Fn(&mut ModelInput)| {
            let mut input = good.clone();
            change(&mut input);
            checked(&input).unwrap_err().to_string()
        };
        assert!(refused(&|input| input.arguments.truncate(25)).contains("25 weights"));
        assert!(refused(&|input| input.arguments[3] = f32::NAN).contains("sum of NaN"));
        assert!(refused(&|input| input.arguments[3] = -0.5).contains("sum of 0.5"));
        assert!(refused(&|input| input.picture.data.truncate(3)).contains("3 bytes"));
        assert!(refused(&|input| input.content = [4, 4, u32::MAX, 1]).contains("reaches beyond"));
        assert!(refused(&|input| input.picture = Rgb { width: 6, height: 4, data: vec![0; 72] }).contains("reaches beyond"));
        let odd = Rgb { width: 374, height: 288, data: vec![0; 3 * 374 * 288] };
        assert!(refused(&|input| input.picture = odd.clone()).contains("multiples of 4"));
    }

    #[test]
    fn an_analysis_of_another_kind_or_with_a_wrong_size_is_refused() {
        let broken = Analysis::Picture(Rgb { width: 640, height: 480, data: vec![0; 9] });
        for analysis in [None, Some(&broken), Some(&Analysis::Faces(vec![]))] {
            let refused = StyleTransfer.painter().compose(&mut I420::grey(64, 48, 16), analysis, &parameters(json!({})));
            assert!(refused.unwrap_err().to_string().starts_with("style_transfer cannot paint"));
        }
    }
}
