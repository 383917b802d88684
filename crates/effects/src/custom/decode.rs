//! Conversion from a frame to the model's input, and from the model's tensors to an analysis. It is
//! pure, and runs on any worker.

use ooblex_pipeline::{Analysis, Mask, ModelInput, Rgb, Thing};

use super::shape::{self, Side};
use super::spec::{self, Boxes, Labels, Output, Picture};
use super::toml::{Activation, Colours, Form, Keeps, Layout, Order, Range, Units};
use crate::faces::overlap;
use ooblex_inference::{ModelSpec, RunError, Tensor};

/// Mask threshold at which probabilities are used unchanged: the painter's edge is half opaque
/// there.
pub(super) const NEUTRAL_THRESHOLD: f32 = 0.55;
/// Maximum number of candidate boxes that are checked for overlaps, best first.
const CANDIDATES: usize = 1000;

/// Converts the picture to the model's input.
pub(super) fn encode(model: &spec::Model, picture: &Rgb) -> Vec<f32> {
    let pixels = picture.data.as_chunks::<3>().0;
    let channels = model.gain.len();
    let value = |pixel: &[u8; 3], channel: usize| {
        let raw = match model.colours {
            Colours::Rgb => f32::from(pixel[channel]),
            Colours::Bgr => f32::from(pixel[2 - channel]),
            // Luma of BT.601, like all colour in this crate.
            Colours::Grey => 0.299 * f32::from(pixel[0]) + 0.587 * f32::from(pixel[1]) + 0.114 * f32::from(pixel[2]),
        };
        raw * model.gain[channel] + model.bias[channel]
    };
    match model.layout {
        Layout::Nchw => (0..channels).flat_map(|channel| pixels.iter().map(move |pixel| value(pixel, channel))).collect(),
        Layout::Nhwc => pixels.iter().flat_map(|pixel| (0..channels).map(move |channel| value(pixel, channel))).collect(),
    }
}

/// Interprets the model's tensors. Detections with a score below `least` are left out.
///
/// # Errors
/// When a tensor does not have the declared shape.
pub(super) fn decode(output: &Output, spec: &ModelSpec, tensors: &[Tensor], input: &ModelInput, least: f32) -> Result<Analysis, RunError> {
    let sides: Vec<Vec<Side>> = tensors.iter().map(|tensor| tensor.shape.iter().copied().map(Some).collect()).collect();
    let wrong = |index: usize| {
        let (sides, name) = (tensors[index].shape.clone(), spec.outputs[index].name.to_string());
        move |expected: String| RunError::WrongShape { model: spec.name.to_string(), tensor: name, expected, got: sides }
    };
    let size = [input.picture.width, input.picture.height];
    match output {
        Output::Picture(picture) => {
            let plane = shape::planes(&sides[0], picture.layout).map_err(wrong(0))?.map(Option::unwrap_or_default);
            let painted = picture_of(picture, &tensors[0].data, plane, scaled(input.content, size, plane));
            painted.map(Analysis::Picture).ok_or_else(|| wrong(0)("of some columns and rows".into()))
        }
        Output::Mask(mask) => {
            let plane = shape::planes(&sides[0], mask.layout).map_err(wrong(0))?.map(Option::unwrap_or_default);
            let cut = mask_of(mask, &tensors[0].data, plane, scaled(input.content, size, plane));
            cut.map(Analysis::Mask).ok_or_else(|| wrong(0)("of some columns and rows".into()))
        }
        Output::Boxes(boxes) => {
            let table = shape::table(&sides[0], boxes.order).map_err(wrong(0))?.map(Option::unwrap_or_default);
            let found = match tensors {
                [both] => candidates(boxes, (&both.data, table), (&both.data, table, numbers(boxes)), least),
                [_, scores, ..] => {
                    let of = shape::scores(&sides[1], boxes.order, Some(table[0])).map_err(wrong(1))?.map(Option::unwrap_or_default);
                    candidates(boxes, (&tensors[0].data, table), (&scores.data, of, 0), least)
                }
                [] => None,
            };
            let found = found.ok_or_else(|| wrong(0)("of four numbers for each box, with a score for each".into()))?;
            let kept = suppress(found, boxes.overlap, boxes.most);
            Ok(Analysis::Things(kept.into_iter().map(|thing| in_frame(thing, boxes.units, input.content, size)).collect()))
        }
        Output::Labels(labels) => Ok(Analysis::Things(best_labels(labels, &tensors[0].data, least))),
    }
}

/// Returns the number of values of a candidate before its scores, if both are in the same tensor.
pub(super) fn numbers(boxes: &Boxes) -> usize {
    4 + usize::from(boxes.objectness)
}

/// Returns all scores of a tensor that contains boxes as well.
pub(super) fn scores_beside(boxes: &Boxes, tensor: &Tensor) -> Vec<f32> {
    let sides: Vec<Side> = tensor.shape.iter().copied().map(Some).collect();
    let Ok([Some(count), Some(wide)]) = shape::table(&sides, boxes.order) else { return Vec::new() };
    let is_score = |index: usize| numbers(boxes) <= if boxes.order == Order::Rows { index % wide } else { index / count };
    tensor.data.iter().enumerate().filter(|(index, _)| is_score(*index)).map(|(_, value)| *value).collect()
}

/// Returns the lower and upper end of a range.
pub(super) fn ends(range: Range) -> [f32; 2] {
    match range {
        Range::Unit => [0.0, 1.0],
        Range::Signed => [-1.0, 1.0],
        Range::Bytes => [0.0, 255.0],
    }
}

/// Returns the part (left, top, width, height) of a tensor `[_, rows, columns]` that shows the
/// frame, which occupies `content` in an input of this size.
fn scaled([left, top, width, height]: [u32; 4], size: [u32; 2], [_, rows, columns]: [usize; 3]) -> [usize; 4] {
    let along = |start: u32, length: u32, side: u32, to: usize| {
        let place = |at: u32| ((at as usize * to) as f64 / f64::from(side.max(1))).round() as usize;
        let (from, until) = (place(start).min(to.saturating_sub(1)), place(start + length).min(to));
        [from, until.max(from + 1).min(to) - from]
    };
    let ([x, w], [y, h]) = (along(left, width, size[0], columns), along(top, height, size[1], rows));
    [x, y, w, h]
}

/// Returns the index of the value of a channel at a row and column.
fn place(layout: Layout, [channels, rows, columns]: [usize; 3], channel: usize, y: usize, x: usize) -> usize {
    match layout {
        Layout::Nchw => (channel * rows + y) * columns + x,
        Layout::Nhwc => (y * columns + x) * channels + channel,
    }
}

fn picture_of(picture: &Picture, data: &[f32], plane: [usize; 3], [left, top, width, height]: [usize; 4]) -> Option<Rgb> {
    let [low, high] = ends(picture.range);
    let channels = match picture.colours {
        Colours::Rgb => [0, 1, 2],
        Colours::Bgr => [2, 1, 0],
        Colours::Grey => [0, 0, 0],
    };
    let mut pixels = Vec::with_capacity(3 * width * height);
    for y in top..top + height {
        for x in left..left + width {
            for channel in channels {
                let value = data.get(place(picture.layout, plane, channel, y, x))?;
                pixels.push((((value - low) / (high - low)).clamp(0.0, 1.0) * 255.0 + 0.5) as u8);
            }
        }
    }
    (!pixels.is_empty()).then_some(Rgb { width: width as u32, height: height as u32, data: pixels })
}

fn mask_of(mask: &spec::Mask, data: &[f32], plane: [usize; 3], [left, top, width, height]: [usize; 4]) -> Option<Mask> {
    let mut probability = Vec::with_capacity(width * height);
    for y in top..top + height {
        for x in left..left + width {
            let at = |channel| data.get(place(mask.layout, plane, channel, y, x)).copied();
            let raw = at(mask.channel.value)?;
            let marked = match mask.activation {
                Activation::None => raw,
                Activation::Sigmoid => sigmoid(raw),
                // Softmax of one channel, 1 / Σ exp(v - own), without a buffer for each pixel.
                Activation::Softmax => {
                    let mut sum = 0.0;
                    for channel in 0..plane[0] {
                        sum += (at(channel)? - raw).clamp(-80.0, 80.0).exp();
                    }
                    1.0 / sum
                }
            };
            let kept =
                if mask.keeps == Keeps::Marked { at_threshold(marked, mask.threshold) } else { 1.0 - at_threshold(marked, mask.threshold) };
            probability.push((kept.clamp(0.0, 1.0) * 255.0 + 0.5) as u8);
        }
    }
    (!probability.is_empty()).then_some(Mask { width: width as u32, height: height as u32, probability })
}

/// Maps a probability so that `threshold` becomes [`NEUTRAL_THRESHOLD`], where the painter's edge
/// is half opaque.
fn at_threshold(probability: f32, threshold: f32) -> f32 {
    let probability = probability.clamp(0.0, 1.0);
    if probability < threshold {
        probability * NEUTRAL_THRESHOLD / threshold
    } else {
        NEUTRAL_THRESHOLD + (probability - threshold) * (1.0 - NEUTRAL_THRESHOLD) / (1.0 - threshold)
    }
}

/// Returns the boxes with a score of at least `least`, in the units and the form of the model, best
/// first; `None` if the shapes do not match.
fn candidates(
    boxes: &Boxes,
    (data, [count, wide]): (&[f32], [usize; 2]),
    (score_data, [scored, columns], first): (&[f32], [usize; 2], usize),
    least: f32,
) -> Option<Vec<Thing>> {
    if wide < 4 || scored != count || columns <= first {
        return None;
    }
    let at = |data: &[f32], [count, wide]: [usize; 2], row: usize, column: usize| match boxes.order {
        Order::Rows => data.get(row * wide + column).copied(),
        Order::Columns => data.get(column * count + row).copied(),
    };
    let mut found = Vec::new();
    for row in 0..count {
        let mut scores = (first..columns).map(|column| at(score_data, [scored, columns], row, column)).collect::<Option<Vec<_>>>()?;
        activate(boxes.activation, &mut scores);
        let foreground = scores.iter().enumerate().filter(|(class, _)| Some(*class) != boxes.background);
        let Some((class, score)) = foreground.max_by(|a, b| a.1.total_cmp(b.1)) else { continue };
        let certain = match boxes.objectness {
            true => {
                let raw = at(data, [count, wide], row, 4)?;
                score * if boxes.activation == Activation::None { raw } else { sigmoid(raw) }
            }
            false => *score,
        };
        if certain < least {
            continue;
        }
        let mut numbers = [0.0; 4];
        for (column, number) in numbers.iter_mut().enumerate() {
            *number = at(data, [count, wide], row, column)?;
        }
        let rect = corners(boxes.form, numbers);
        if rect.iter().all(|side| side.is_finite()) {
            found.push(Thing { class: class as u32, score: certain.clamp(0.0, 1.0), rect: Some(rect) });
        }
    }
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    found.truncate(CANDIDATES);
    Some(found)
}

/// Converts a box to left, top, right, bottom.
fn corners(form: Form, [a, b, c, d]: [f32; 4]) -> [f32; 4] {
    match form {
        Form::Xyxy => [a, b, c, d],
        Form::Yxyx => [b, a, d, c],
        Form::Xywh => [a, b, a + c, b + d],
        Form::Cxcywh => [a - c / 2.0, b - d / 2.0, a + c / 2.0, b + d / 2.0],
    }
}

/// Non-maximum suppression: of boxes of one class whose IoU exceeds `share` only the best is kept,
/// and at most `most` in total. Input and output are sorted best first.
fn suppress(found: Vec<Thing>, share: f32, most: usize) -> Vec<Thing> {
    let mut kept: Vec<Thing> = Vec::new();
    for thing in found {
        if kept.len() == most {
            break;
        }
        let covered = |better: &Thing| match (better.rect, thing.rect) {
            (Some(a), Some(b)) => better.class == thing.class && overlap(&a, &b) > share,
            _ => false,
        };
        if !kept.iter().any(covered) {
            kept.push(thing);
        }
    }
    kept
}

/// Converts a box in the model's input to coordinates of the frame.
fn in_frame(thing: Thing, units: Units, content: [u32; 4], size: [u32; 2]) -> Thing {
    let rect = thing.rect.map(|rect| {
        std::array::from_fn(|side| {
            let axis = side % 2;
            let pixel = if units == Units::Share { rect[side] * size[axis] as f32 } else { rect[side] };
            ((pixel - content[axis] as f32) / content[axis + 2].max(1) as f32).clamp(-10.0, 10.0)
        })
    });
    Thing { rect, ..thing }
}

/// Returns the classes with a score of at least `least`, best first.
fn best_labels(labels: &Labels, data: &[f32], least: f32) -> Vec<Thing> {
    let mut scores = data.to_vec();
    activate(labels.activation, &mut scores);
    let things = scores.into_iter().enumerate().filter(|(_, score)| *score >= least);
    let mut things: Vec<_> = things.map(|(class, score)| Thing { class: class as u32, score: score.clamp(0.0, 1.0), rect: None }).collect();
    things.sort_by(|a, b| b.score.total_cmp(&a.score));
    things.truncate(labels.top);
    things
}

fn activate(activation: Activation, scores: &mut [f32]) {
    match activation {
        Activation::None => {}
        Activation::Sigmoid => scores.iter_mut().for_each(|score| *score = sigmoid(*score)),
        Activation::Softmax => scores.copy_from_slice(&softmax(scores)),
    }
}

fn sigmoid(value: f32) -> f32 {
    1.0 / (1.0 + (-value.clamp(-80.0, 80.0)).exp())
}

fn softmax(values: &[f32]) -> Vec<f32> {
    let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<_> = values.iter().map(|value| (value - most).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thing(class: u32, score: f32, left: f32) -> Thing {
        Thing { class, score, rect: Some([left, 0.0, left + 10.0, 10.0]) }
    }

    #[test]
    fn of_boxes_that_overlap_the_best_of_each_class_stay() {
        let kept = suppress(vec![thing(0, 0.9, 0.0), thing(0, 0.8, 1.0), thing(1, 0.7, 1.0), thing(0, 0.6, 50.0)], 0.5, 3);
        assert_eq!(kept, [thing(0, 0.9, 0.0), thing(1, 0.7, 1.0), thing(0, 0.6, 50.0)]);
        assert_eq!(suppress(kept.clone(), 0.5, 2).len(), 2);
    }

    #[test]
    fn every_form_of_a_box_is_the_same_box() {
        let rect = [10.0, 20.0, 30.0, 60.0];
        assert_eq!(corners(Form::Xyxy, rect), rect);
        assert_eq!(corners(Form::Yxyx, [20.0, 10.0, 60.0, 30.0]), rect);
        assert_eq!(corners(Form::Xywh, [10.0, 20.0, 20.0, 40.0]), rect);
        assert_eq!(corners(Form::Cxcywh, [20.0, 40.0, 20.0, 40.0]), rect);
    }

    #[test]
    fn a_box_in_a_letterboxed_input_is_where_it_is_in_the_frame() {
        let content = [0, 8, 256, 144];
        for (units, rect) in [(Units::Pixels, [64.0, 8.0, 128.0, 80.0]), (Units::Share, [0.25, 0.05, 0.5, 0.5])] {
            let thing = in_frame(Thing { class: 0, score: 1.0, rect: Some(rect) }, units, content, [256, 160]);
            let rect = thing.rect.unwrap();
            assert!(rect.iter().zip([0.25, 0.0, 0.5, 0.5]).all(|(got, wanted)| (got - wanted).abs() < 1e-6), "{units:?}: {rect:?}");
        }
    }

    #[test]
    fn the_threshold_comes_to_lie_where_the_edge_is() {
        for threshold in [0.05, 0.3, 0.55, 0.95] {
            assert!((at_threshold(threshold, threshold) - NEUTRAL_THRESHOLD).abs() < 1e-6);
            assert_eq!((at_threshold(0.0, threshold), at_threshold(1.0, threshold)), (0.0, 1.0));
        }
        assert!((at_threshold(0.4, NEUTRAL_THRESHOLD) - 0.4).abs() < 1e-6);
    }

    #[test]
    fn softmax_survives_large_values() {
        let shares = softmax(&[1000.0, 1000.0, -1000.0]);
        assert!((shares[0] - 0.5).abs() < 1e-6 && shares[2] == 0.0);
        assert_eq!((sigmoid(1e30), sigmoid(-1e30) < 1e-30), (1.0, true));
    }

    #[test]
    fn the_content_of_a_smaller_or_larger_output_is_scaled() {
        assert_eq!(scaled([0, 8, 256, 144], [256, 160], [1, 80, 128]), [0, 4, 128, 72]);
        assert_eq!(scaled([68, 0, 120, 160], [256, 160], [1, 320, 512]), [136, 0, 240, 320]);
        assert_eq!(scaled([255, 0, 1, 160], [256, 160], [1, 1, 1]), [0, 0, 1, 1]);
    }
}
