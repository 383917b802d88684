//! The effect `mirror`: swaps left and right or top and bottom, or makes the right half a mirror
//! image of the left one.

use ooblex_pipeline::I420;

use super::base::{Paint, Simple};
use crate::effect::Chaining;
use crate::parameters::{Kind, Parameter, Parameters};
use crate::pixels::rows_mut;

static PARAMETERS: [Parameter; 1] = [Parameter::new(
    "way",
    "Way",
    "Which sides change places; with 'symmetric', the right half becomes the mirror image of the left one.",
    Kind::Choice { options: &["left_right", "top_bottom", "both", "symmetric"], default: "left_right" },
)];

pub(super) static FACTS: Simple = Simple {
    name: "mirror",
    title: "Mirror",
    description: "You as you see yourself in a mirror.",
    parameters: &PARAMETERS,
    chaining: Chaining::Moves,
    paint: || Box::new(Mirror),
};

struct Mirror;

impl Paint for Mirror {
    fn paint(&mut self, picture: &mut I420, parameters: &Parameters) {
        paint(picture, parameters);
    }

    fn place(&self, [x, y]: [f32; 2], parameters: &Parameters) -> [f32; 2] {
        match parameters.choice("way") {
            "left_right" => [1.0 - x, y],
            "top_bottom" => [x, 1.0 - y],
            "both" => [1.0 - x, 1.0 - y],
            // In symmetric mode every point of the left half is seen twice; the left one counts.
            _ => [x, y],
        }
    }
}

fn paint(picture: &mut I420, parameters: &Parameters) {
    let way = parameters.choice("way");
    let widths = [picture.width(), picture.chroma_width(), picture.chroma_width()].map(|width| width as usize);
    if matches!(way, "top_bottom" | "both") {
        for (plane, width) in picture.planes_mut().into_iter().zip(widths) {
            let height = plane.len() / width;
            let (upper, lower) = plane.split_at_mut(height.div_ceil(2) * width);
            upper.chunks_exact_mut(width).zip(lower.chunks_exact_mut(width).rev()).for_each(|(a, b)| a.swap_with_slice(b));
        }
    }
    for row in rows_mut(picture).into_iter().flatten() {
        match way {
            "left_right" | "both" => row.reverse(),
            "symmetric" => {
                let (left, right) = row.split_at_mut(row.len().div_ceil(2));
                right.iter_mut().rev().zip(left).for_each(|(right, left)| *right = *left);
            }
            _ => break,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{painted, ramp};
    use super::*;

    #[test]
    fn each_way_twice_is_the_picture() {
        for (width, height) in [(64, 48), (65, 49), (1, 1)] {
            let mut frame = ramp(width, height);
            frame.planes_mut()[0][0] = 235;
            for way in ["left_right", "top_bottom", "both"] {
                let once = painted(&FACTS, &frame, json!({"way": way}), 0);
                assert!(once != frame || width == 1, "{way}");
                assert!(painted(&FACTS, &once, json!({"way": way}), 0) == frame, "{way}");
            }
        }
    }

    #[test]
    fn the_right_half_is_that_of_the_left_one() {
        for width in [64, 65] {
            let picture = painted(&FACTS, &ramp(width, 48), json!({"way": "symmetric"}), 0);
            let row = &picture.planes()[0][..width as usize];
            assert!(row.iter().eq(row.iter().rev()));
            assert_eq!(row[..10], ramp(width, 48).planes()[0][..10]);
        }
    }
}
