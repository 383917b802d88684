//! Figures of the effects' temporal stability and accuracy, each before and after temporal
//! smoothing and edge alignment by the painters.
//!
//! *Before* is a new painter for each frame; *after* is one painter for all frames in order. The
//! matte is measured through `background_replace`: the difference between the pictures with a black
//! and a white backdrop gives the opacity of the person.
// The test and the example each use a part of this module.
#![allow(dead_code, unreachable_pub)]

use ooblex_effects::{Effect, Found, Models, Painter, Parameters};
use ooblex_pipeline::{Analysis, I420};
use serde_json::{Value, json};

use super::scenes::{self, Random};
use crate::common::{effect, png};

/// One figure.
pub struct Figure {
    pub name: &'static str,
    /// Description for users.
    pub meaning: &'static str,
    /// True if higher is better.
    pub rises: bool,
    pub before: f64,
    pub after: f64,
}

impl Figure {
    fn new(name: &'static str, meaning: &'static str, rises: bool, [before, after]: [f64; 2]) -> Self {
        let round = |value: f64| (value * 1e4).round() / 1e4;
        Self { name, meaning, rises, before: round(before), after: round(after) }
    }
}

/// An effect measured with a new painter for each frame and with one painter for all frames.
struct Pair {
    effect: std::sync::Arc<dyn Effect>,
    parameters: Parameters,
    painter: Box<dyn Painter>,
}

impl Pair {
    fn new(name: &str, given: &Value) -> Self {
        let effect = effect(name);
        let parameters = Parameters::parse(effect.parameters(), given).expect("the parameters exist");
        let painter = effect.painter();
        Self { effect, parameters, painter }
    }

    fn analyse(&mut self, models: &mut Models, frame: &I420) -> Analysis {
        let input = self.effect.painter().prepare(frame, &self.parameters);
        self.effect.analyse(models, &input).expect("the models run")
    }

    /// Paints a frame with a new painter and with the persistent one.
    fn paint(&mut self, frame: &I420, analysis: &Analysis) -> [I420; 2] {
        let mut fresh = self.effect.painter();
        [&mut fresh, &mut self.painter].map(|painter| {
            let mut picture = frame.clone();
            painter.compose(&mut picture, Some(analysis), &self.parameters).expect("it is its own analysis");
            picture
        })
    }

    /// Returns the faces found by a new painter and by the persistent one.
    fn find(&mut self, frame: &I420, analysis: &Analysis) -> [Vec<Found>; 2] {
        let mut fresh = self.effect.painter();
        [&mut fresh, &mut self.painter].map(|painter| {
            painter.compose(&mut frame.clone(), Some(analysis), &self.parameters).expect("it is its own analysis");
            painter.found().expect("it looks for faces")
        })
    }
}

/// Measures the opacity of the person, 0..=255, with a new painter for each frame and with one for
/// all frames.
struct MattePair {
    black: Pair,
    white: Pair,
}

impl MattePair {
    fn new() -> Self {
        let pair = |background| Pair::new("background_replace", &json!({"background": background}));
        Self { black: pair("black"), white: pair("white") }
    }

    fn matte(&mut self, models: &mut Models, frame: &I420) -> ([Vec<f64>; 2], Analysis) {
        let analysis = self.black.analyse(models, frame);
        let (black, white) = (self.black.paint(frame, &analysis), self.white.paint(frame, &analysis));
        let opacity = |index: usize| -> Vec<f64> {
            let luma = black[index].planes()[0].iter().zip(white[index].planes()[0]);
            luma.map(|(black, white)| 255.0 - (f64::from(*white) - f64::from(*black)) * 255.0 / 218.0).collect()
        };
        ([opacity(0), opacity(1)], analysis)
    }
}

/// Returns all figures, measured on pictures that come with the tests.
pub fn all(models: &mut Models) -> Vec<Figure> {
    let mut figures = person(models);
    figures.extend(style(models));
    figures.extend(faces(models));
    figures
}

fn person(models: &mut Models) -> Vec<Figure> {
    let picture = scenes::frame(&png("picture_640x480.png"));
    let reference: Vec<u8> = png("person_640x480.png").data.into_iter().step_by(3).collect();
    let (mut random, mut pair, mut last) = (Random::new(1), MattePair::new(), None);
    let (mut flicker, mut iou, mut edge) = ([0.0; 2], [0.0; 2], [0.0; 2]);
    let frames = 16;
    for n in 0..frames {
        let (mattes, analysis) = pair.matte(models, &scenes::noisy(&picture, &mut random));
        let Analysis::Mask(mask) = analysis else { unreachable!("it is a mask") };
        let plain = stretched(&mask.probability, [mask.width as usize, mask.height as usize], [640, 480]);
        if n >= 6 {
            let last: &[Vec<f64>; 2] = last.as_ref().expect("there was a frame before");
            (0..2).for_each(|i| flicker[i] += mean_change(&mattes[i], &last[i]) / f64::from(frames - 6));
            for (i, matte) in [&plain, &mattes[1]].into_iter().enumerate() {
                iou[i] += overlap(matte, &reference) / f64::from(frames - 6);
                edge[i] += error_at_edge(matte, &reference) / f64::from(frames - 6);
            }
        }
        last = Some(mattes);
    }
    let moving = moving_overlap(models, &reference);
    vec![
        Figure::new("mask_flicker", "change of the matte of a still scene from frame to frame, levels", false, flicker),
        Figure::new("mask_iou", "matte against a mask made by hand; before: the model's mask, stretched", true, iou),
        Figure::new("mask_edge_error", "mean error within 8 px of the person's edge, levels; before: as above", false, edge),
        Figure::new("mask_iou_moving", "the same while the camera pans", true, moving),
    ]
}

fn moving_overlap(models: &mut Models, reference: &[u8]) -> [f64; 2] {
    let picture = png("picture_640x480.png");
    let grey = ooblex_pipeline::Rgb { data: reference.iter().flat_map(|value| [*value; 3]).collect(), ..picture.clone() };
    let (mut random, mut pair, mut sum) = (Random::new(2), MattePair::new(), [0.0; 2]);
    let frames = 10;
    for n in 0..frames {
        let frame = scenes::noisy(&scenes::frame(&scenes::moved(&picture, scenes::pan(n))), &mut random);
        let truth: Vec<u8> = scenes::moved(&grey, scenes::pan(n)).data.into_iter().step_by(3).collect();
        let (mattes, _) = pair.matte(models, &frame);
        (0..2).for_each(|i| sum[i] += overlap(&mattes[i], &truth) / frames as f64);
    }
    sum
}

fn style(models: &mut Models) -> Vec<Figure> {
    let given = json!({"resolution": "180p"});
    // The frame has the painting's own size, so that no downscaling removes the noise: the worst
    // case.
    let picture = scenes::frame(&crate::common::crop(&png("picture_640x480.png"), 120, 55, 320, 180));
    let (mut random, mut pair) = (Random::new(3), Pair::new("style_transfer", &given));
    let mut changes = Changes::default();
    for _ in 0..16 {
        let frame = scenes::noisy(&picture, &mut random);
        let analysis = pair.analyse(models, &frame);
        let painted = pair.paint(&frame, &analysis);
        changes.note(&frame, painted);
    }
    let (mut pair, mut last, mut smear) = (Pair::new("style_transfer", &given), None::<(I420, [I420; 2])>, [0.0; 2]);
    for n in 0..8 {
        let frame = scenes::noisy(&scenes::frame(&scenes::moved(&png("picture_640x480.png"), scenes::pan(n))), &mut random);
        let analysis = pair.analyse(models, &frame);
        let painted = pair.paint(&frame, &analysis);
        if let Some((source, paintings)) = &last {
            let moved = |i: &usize| source.planes()[0][*i].abs_diff(frame.planes()[0][*i]) > 24;
            let luma = |picture: &I420, i: usize| f64::from(picture.planes()[0][i]);
            for i in (0..640 * 480).filter(moved) {
                smear[0] += (luma(&painted[0], i) - luma(&paintings[0], i)).abs();
                smear[1] += (luma(&painted[0], i) - luma(&painted[1], i)).abs();
            }
        }
        last = Some((frame, painted));
    }
    vec![
        Figure::new("style_flicker", "change of the painting of a still scene over that of the scene", false, changes.ratios(8)),
        Figure::new(
            "style_smear",
            "where the picture moves: what the painting lags behind, as a share of its change",
            false,
            [0.0, smear[1] / smear[0]],
        ),
    ]
}

/// Change of pictures from frame to frame.
#[derive(Default)]
struct Changes {
    last: Option<(I420, [I420; 2])>,
    /// Change of the source and of both painters, for each frame.
    sums: Vec<[f64; 3]>,
}

impl Changes {
    fn note(&mut self, source: &I420, painted: [I420; 2]) {
        if let Some((last_source, last)) = &self.last {
            let of = |a: &I420, b: &I420| crate::common::mean_difference(a.planes()[0], b.planes()[0]);
            self.sums.push([of(source, last_source), of(&painted[0], &last[0]), of(&painted[1], &last[1])]);
        }
        self.last = Some((source.clone(), painted));
    }

    /// Returns the painters' change relative to the source's, from frame `from` on.
    fn ratios(&self, from: usize) -> [f64; 2] {
        let sum = |of: usize| self.sums.iter().skip(from).map(|sums| sums[of]).sum::<f64>();
        [sum(1) / sum(0), sum(2) / sum(0)]
    }
}

fn faces(models: &mut Models) -> Vec<Figure> {
    let picture = png("picture_640x480.png");
    let (mut random, mut pair) = (Random::new(4), Pair::new("face_detection", &json!({})));
    let mut away: [Vec<[f64; 4]>; 2] = Default::default();
    for n in 0..45 {
        let shift = scenes::pan(n);
        let frame = scenes::noisy(&scenes::frame(&scenes::moved(&picture, shift)), &mut random);
        let analysis = pair.analyse(models, &frame);
        for (away, found) in away.iter_mut().zip(pair.find(&frame, &analysis)) {
            let Some(found) = found.first() else { continue };
            let side = |index: usize| f64::from(rect(found)[index]) * [640.0, 480.0][index % 2] - shift[index % 2];
            away.push(std::array::from_fn(side));
        }
    }
    let jitter = away.each_ref().map(|away| root_mean(away.windows(2).flat_map(|pair| (0..4).map(|i| pair[1][i] - pair[0][i]))));
    let error = away.each_ref().map(|away| {
        let mean: [f64; 4] = std::array::from_fn(|i| away.iter().map(|a| a[i]).sum::<f64>() / away.len() as f64);
        root_mean(away.iter().flat_map(|a| (0..4).map(move |i| a[i] - mean[i])))
    });
    let (switches, recall, false_ones) = several(models);
    vec![
        Figure::new("face_jitter", "move of a box against the face under it from frame to frame while the camera pans, px", false, jitter),
        Figure::new("face_error", "where a box is against where it should be, lag included, px", false, error),
        Figure::new("face_recall", "faces found of six on one wall, over frames of which one in eight is blank", true, recall),
        Figure::new("face_false", "boxes without a face, a frame", false, false_ones),
        Figure::new("id_switches", "faces whose number changed, in those frames", false, switches),
    ]
}

/// Measures six faces that pan, with a blank frame now and then.
fn several(models: &mut Models) -> ([f64; 2], [f64; 2], [f64; 2]) {
    let (wall, mut random, mut pair) = (scenes::wall(), Random::new(5), Pair::new("face_detection", &json!({})));
    let truth = scenes::faces();
    let (mut ids, mut switches, mut hits, mut extra) = ([vec![0; 6], vec![0; 6]], [0.0; 2], [0.0; 2], [0.0; 2]);
    let frames = 24;
    for n in 0..frames {
        let shift = scenes::pan(n);
        let picture = if n % 8 == 5 { I420::grey(960, 540, 100) } else { scenes::frame(&scenes::moved(&wall, shift)) };
        let frame = scenes::noisy(&picture, &mut random);
        let analysis = pair.analyse(models, &frame);
        for (which, found) in pair.find(&frame, &analysis).into_iter().enumerate() {
            let mut real = 0;
            for (index, at) in truth.iter().enumerate() {
                let at = [0, 1].map(|axis| (at[axis] - [480.0, 270.0][axis]) * scenes::ZOOM + [480.0, 270.0][axis] + shift[axis]);
                let Some(face) = found.iter().find(|found| contains(found, at)) else { continue };
                real += 1;
                hits[which] += 1.0 / (6 * frames) as f64;
                if ids[which][index] != 0 && ids[which][index] != id(face) {
                    switches[which] += 1.0;
                }
                ids[which][index] = id(face);
            }
            extra[which] += (found.len().saturating_sub(real)) as f64 / frames as f64;
        }
    }
    (switches, hits, extra)
}

fn id(found: &Found) -> u64 {
    found.id.expect("faces are followed")
}

fn rect(found: &Found) -> [f32; 4] {
    found.rect.expect("faces have boxes")
}

fn contains(found: &Found, [x, y]: [f64; 2]) -> bool {
    let [left, top, right, bottom] = rect(found).map(f64::from);
    (left * 960.0..right * 960.0).contains(&x) && (top * 540.0..bottom * 540.0).contains(&y)
}

/// Returns the figures of a clip without ground truth.
pub fn of_clip(models: &mut Models, frames: &[I420]) -> Vec<Figure> {
    let (mut matte, mut style, mut face) =
        (MattePair::new(), Pair::new("style_transfer", &json!({"resolution": "180p"})), Pair::new("face_detection", &json!({})));
    let (mut last, mut flicker, mut changes) = (None::<[Vec<f64>; 2]>, [0.0; 2], Changes::default());
    let (mut boxes, mut most, mut count): ([Vec<[f64; 4]>; 2], [u64; 2], [f64; 2]) = Default::default();
    for frame in frames {
        let (mattes, _) = matte.matte(models, frame);
        if let Some(last) = &last {
            (0..2).for_each(|i| flicker[i] += mean_change(&mattes[i], &last[i]) / (frames.len() - 1) as f64);
        }
        last = Some(mattes);
        let analysis = style.analyse(models, frame);
        let painted = style.paint(frame, &analysis);
        changes.note(frame, painted);
        let analysis = face.analyse(models, frame);
        for (which, found) in face.find(frame, &analysis).into_iter().enumerate() {
            count[which] += found.len() as f64 / frames.len() as f64;
            most[which] = found.iter().map(id).fold(most[which], u64::max);
            if let [only] = &found[..] {
                let sides = [frame.width(), frame.height()].map(f64::from);
                boxes[which].push(std::array::from_fn(|i| f64::from(rect(only)[i]) * sides[i % 2]));
            }
        }
    }
    let trembling = boxes.each_ref().map(|boxes| {
        let second = |three: &[[f64; 4]]| -> [f64; 4] { std::array::from_fn(|i| three[2][i] - 2.0 * three[1][i] + three[0][i]) };
        root_mean(boxes.windows(3).flat_map(second))
    });
    vec![
        Figure::new("mask_flicker", "change of the matte from frame to frame, levels", false, flicker),
        Figure::new("style_flicker", "change of the painting over that of the clip", false, changes.ratios(0)),
        Figure::new("face_trembling", "second difference of the box of a single face, px", false, trembling),
        Figure::new("faces", "boxes a frame", true, count),
        Figure::new("highest_id", "numbers given to faces in all", false, most.map(|id| id as f64)),
    ]
}

fn root_mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0_f64), |(sum, count), value| (sum + value * value, count + 1.0));
    (sum / count.max(1.0)).sqrt()
}

fn mean_change(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>() / a.len() as f64
}

/// Intersection over union where the reference is decided; 128 stands for pixels that may be
/// either.
fn overlap(matte: &[f64], reference: &[u8]) -> f64 {
    let (mut both, mut either) = (0.0, 0.0);
    for (opacity, truth) in matte.iter().zip(reference).filter(|(_, truth)| !(64..192).contains(*truth)) {
        let (ours, theirs) = (*opacity >= 127.5, *truth >= 128);
        both += f64::from(u8::from(ours && theirs));
        either += f64::from(u8::from(ours || theirs));
    }
    both / either
}

/// Mean difference within 8 px of the reference's edges, where the reference is decided.
fn error_at_edge(matte: &[f64], reference: &[u8]) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for y in 8..472 {
        for x in 8..632 {
            let at = |x: usize, y: usize| reference[y * 640 + x];
            let around = [at(x - 8, y), at(x + 8, y), at(x, y - 8), at(x, y + 8)];
            if !around.contains(&128) && at(x, y) != 128 && around.iter().any(|other| *other != at(x, y)) {
                sum += (matte[y * 640 + x] - f64::from(at(x, y))).abs();
                count += 1.0;
            }
        }
    }
    sum / count
}

/// Stretches a plane (bilinear) over a larger one.
fn stretched(plane: &[u8], from: [usize; 2], to: [usize; 2]) -> Vec<f64> {
    let place = |index: usize, axis: usize| {
        let at = ((index as f64 + 0.5) * from[axis] as f64 / to[axis] as f64 - 0.5).clamp(0.0, from[axis] as f64 - 1.0);
        (at as usize, (at as usize + 1).min(from[axis] - 1), at.fract())
    };
    let mut out = Vec::with_capacity(to[0] * to[1]);
    for y in 0..to[1] {
        let (top, bottom, down) = place(y, 1);
        for x in 0..to[0] {
            let (left, right, over) = place(x, 0);
            let row = |y: usize| f64::from(plane[y * from[0] + left]) * (1.0 - over) + f64::from(plane[y * from[0] + right]) * over;
            out.push(row(top) * (1.0 - down) + row(bottom) * down);
        }
    }
    out
}
