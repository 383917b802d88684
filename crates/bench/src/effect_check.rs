//! Decides whether a picture from the gateway went through its effect or is the unprocessed source.
//!
//! This module owns the image features and the criterion for each effect. It keeps no pictures:
//! each frame of the clip is represented by its [`Look`].

use ooblex_pipeline::{I420, Size};
use serde_json::Value;

/// A rectangle of a picture: left, top, right, bottom, in luma pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Area([usize; 4]);

/// Features of a picture: a thumbnail, and the sharpness of the background.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Look {
    size: Size,
    /// Mean luma, U and V of each of [`COLUMNS`] × [`ROWS`] parts.
    small: Vec<[f32; 3]>,
    /// Mean difference between neighbouring pixels of the background; `None` if the background is
    /// unknown.
    sharpness: Option<f32>,
}

/// Criterion by which an effect's picture is told from the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EffectCheck {
    /// `background_blur`: the background has lost its edges.
    Blurred,
    /// `delay`: luma is inverted.
    Inverted,
    /// `style_transfer`: the thumbnail differs from the source's.
    Painted,
}

const COLUMNS: usize = 32;
const ROWS: usize = 24;
/// A background whose sharpness exceeds this fraction of the source's is not blurred.
const SHARP: f32 = 0.6;
/// Luma whose correlation with the source's exceeds this value is not inverted. A placeholder
/// picture has no correlation.
const ALIKE: f32 = 0.2;
/// A mean difference from the source below this many levels is explained by compression alone.
const SAME: f32 = 3.0;
/// Minimum width and height of an area, in pixels.
const LEAST_AREA: usize = 12;

impl Area {
    /// Creates an area; `None` if it is smaller than [`LEAST_AREA`] in either direction.
    pub(super) fn new([left, top, right, bottom]: [usize; 4]) -> Option<Self> {
        (left + LEAST_AREA <= right && top + LEAST_AREA <= bottom).then_some(Self([left, top, right, bottom]))
    }
}

impl Look {
    /// Computes the features of a picture.
    pub(super) fn of(picture: &I420, background: Option<Area>) -> Self {
        let sizes = [(picture.width(), picture.height()), (picture.chroma_width(), picture.chroma_height())];
        let mut small = vec![[0.0; 3]; COLUMNS * ROWS];
        for (index, plane) in picture.planes().into_iter().enumerate() {
            let (width, height) = sizes[index.min(1)];
            shrink(plane, width as usize, height as usize, |part, mean| small[part][index] = mean);
        }
        let sharpness = background.and_then(|area| sharpness(picture, area));
        Self { size: picture.size(), small, sharpness }
    }

    /// Returns the correlation of luma: 1 for identical pictures, -1 for a negative, 0 if either
    /// picture is nearly uniform.
    fn likeness(&self, other: &Self) -> f32 {
        let count = (COLUMNS * ROWS) as f32;
        let mean = |look: &Self| look.small.iter().map(|part| part[0]).sum::<f32>() / count;
        let (mean_a, mean_b) = (mean(self), mean(other));
        let (mut both, mut of_a, mut of_b) = (0.0, 0.0, 0.0);
        for (a, b) in self.small.iter().zip(&other.small) {
            let (a, b) = (a[0] - mean_a, b[0] - mean_b);
            both += a * b;
            of_a += a * a;
            of_b += b * b;
        }
        // Codecs leave a uniform picture almost uniform, so a standard deviation below two levels
        // counts as none.
        if of_a < 4.0 * count || of_b < 4.0 * count { 0.0 } else { both / (of_a * of_b).sqrt() }
    }

    /// Returns the mean difference, in levels of luma and chroma.
    fn difference(&self, other: &Self) -> f32 {
        let parts = self.small.iter().zip(&other.small);
        let sum: f32 = parts.flat_map(|(a, b)| a.iter().zip(b)).map(|(a, b)| (a - b).abs()).sum();
        sum / (3 * COLUMNS * ROWS) as f32
    }
}

impl EffectCheck {
    /// Returns the check for an effect with its parameters; `None` if its pictures may legitimately
    /// look like their sources.
    pub(super) fn of(effect: Option<&str>, params: &Value) -> Option<Self> {
        match effect? {
            "background_blur" => Some(Self::Blurred),
            "delay" => Some(Self::Inverted),
            // A result of low strength resembles its source legitimately.
            "style_transfer" => (params["strength"].as_f64().unwrap_or(1.0) >= 0.5).then_some(Self::Painted),
            _ => None,
        }
    }

    /// Returns whether a picture is its unprocessed source; `None` if this cannot be decided.
    pub(super) fn is_raw(self, picture: &Look, source: &Look) -> Option<bool> {
        match self {
            EffectCheck::Blurred if picture.size != source.size => None,
            EffectCheck::Blurred => Some(picture.sharpness? > SHARP * source.sharpness?),
            EffectCheck::Inverted => Some(picture.likeness(source) > ALIKE),
            EffectCheck::Painted => Some(picture.difference(source) < SAME),
        }
    }
}

/// Calls `give` with the index and the mean of each part of a plane.
fn shrink(plane: &[u8], width: usize, height: usize, mut give: impl FnMut(usize, f32)) {
    let mut sums = [(0_u32, 0_u32); COLUMNS];
    let parts: Vec<_> = (0..width).map(|x| x * COLUMNS / width).collect();
    for part in 0..ROWS {
        sums.fill((0, 0));
        // Each part covers at least one row, also in pictures with fewer rows than parts.
        let rows = height * part / ROWS..(height * (part + 1) / ROWS).max(height * part / ROWS + 1);
        for row in plane[rows.start * width..rows.end * width].chunks_exact(width) {
            for (value, part) in row.iter().zip(&parts) {
                sums[*part].0 += u32::from(*value);
                sums[*part].1 += 1;
            }
        }
        for (column, (sum, count)) in sums.iter().enumerate() {
            give(part * COLUMNS + column, *sum as f32 / (*count).max(1) as f32);
        }
    }
}

fn sharpness(picture: &I420, Area([left, top, right, bottom]): Area) -> Option<f32> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    if right >= width || bottom >= height {
        return None;
    }
    let [luma, ..] = picture.planes();
    let mut sum = 0_u64;
    for y in top..bottom {
        for at in y * width + left..y * width + right {
            sum += u64::from(luma[at].abs_diff(luma[at + 1])) + u64::from(luma[at].abs_diff(luma[at + width]));
        }
    }
    Some(sum as f32 / ((right - left) * (bottom - top)) as f32)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ooblex_codec::{Decoder, Encoder, EncoderConfig, Limits, Speed};
    use ooblex_effects::{Effect, ModelStore, Parameters, Runtime, diagnostics, effects, load_models};
    use ooblex_pipeline::VideoCodec;
    use serde_json::json;

    use super::*;
    use crate::clip::{Clip, ClipPlan};
    use crate::frame_number;

    const FRAMES: usize = 16;

    fn clip() -> Clip {
        let plan = ClipPlan { file: None, size: Some(Size::new(320, 240)), fps: 30, codec: VideoCodec::Vp8, bitrate_bps: Some(250_000) };
        Clip::make(&plan).unwrap()
    }

    /// Runs the first frames of a clip through an effect. Returns the features and the number read
    /// of each result.
    fn come_back(clip: &Clip, effect: &Arc<dyn Effect>) -> Vec<(Look, Option<u16>)> {
        let runtime = Runtime::load(None, None).unwrap();
        let mut models = load_models(&runtime, &ModelStore::embedded(), std::slice::from_ref(effect)).unwrap();
        let parameters = Parameters::defaults(effect.parameters());
        let config = EncoderConfig { codec: clip.codec, bitrate_bps: 400_000, frame_rate: 30.0, speed: Speed::Balanced };
        let [mut there, mut back] = [(), ()].map(|()| Decoder::new(clip.codec, Limits::default()).unwrap());
        let (mut encoder, mut painter) = (Encoder::new(config).unwrap(), effect.painter());
        let mut of = |frame: &crate::clip::ClipFrame| {
            let mut picture = there.decode(&frame.frame.data).unwrap().unwrap();
            let input = effect.needs_worker().then(|| painter.prepare(&picture, &parameters));
            let analysis = input.map(|input| effect.analyse(&mut models, &input).unwrap());
            painter.compose(&mut picture, analysis.as_ref(), &parameters).unwrap();
            let sent = encoder.encode(&picture, frame.frame.capture, false).unwrap().unwrap();
            let shown = back.decode(&sent.data).unwrap().unwrap();
            (Look::of(&shown, clip.background), frame_number::read(&shown))
        };
        clip.frames.iter().take(FRAMES).map(&mut of).collect()
    }

    fn named(name: &str) -> Arc<dyn Effect> {
        effects().into_iter().chain(diagnostics()).find(|effect| effect.name().as_str() == name).unwrap()
    }

    #[test]
    fn pictures_that_went_through_their_effect_are_not_raw_and_keep_their_number() {
        let clip = clip();
        for name in ["background_blur", "style_transfer"] {
            let judge = EffectCheck::of(Some(name), &json!({})).unwrap();
            for (index, (look, number)) in come_back(&clip, &named(name)).iter().enumerate() {
                assert_eq!(judge.is_raw(look, &clip.frames[index].look), Some(false), "{name}, picture {index}");
                assert_eq!(*number, Some(index as u16), "{name}");
            }
        }
    }

    #[test]
    fn a_source_that_comes_back_is_unprocessed_for_every_check() {
        let clip = clip();
        for (index, (look, number)) in come_back(&clip, &named("none")).iter().enumerate() {
            for judge in [EffectCheck::Blurred, EffectCheck::Inverted, EffectCheck::Painted] {
                assert_eq!(judge.is_raw(look, &clip.frames[index].look), Some(true), "{judge:?}, picture {index}");
            }
            assert_eq!(*number, Some(index as u16));
        }
    }

    #[test]
    fn an_inverted_picture_and_a_plain_one_are_not_raw() {
        let source = &clip().frames[0].look;
        let inverted = Look { small: source.small.iter().map(|[y, u, v]| [255.0 - y, *u, *v]).collect(), ..source.clone() };
        assert_eq!(EffectCheck::Inverted.is_raw(&inverted, source), Some(false));
        let plain = Look::of(&I420::grey(320, 240, 96), None);
        assert_eq!(EffectCheck::Inverted.is_raw(&plain, source), Some(false));
    }

    #[test]
    fn what_can_not_be_told_is_not_told() {
        assert_eq!(EffectCheck::of(Some("face_detection"), &Value::Null), None);
        assert_eq!(EffectCheck::of(None, &Value::Null), None);
        assert_eq!(EffectCheck::of(Some("style_transfer"), &json!({"strength": 0.1})), None);
        let (small, large) = (Look::of(&I420::grey(160, 120, 96), None), Look::of(&I420::grey(320, 240, 96), None));
        assert_eq!(EffectCheck::Blurred.is_raw(&small, &large), None);
    }
}
