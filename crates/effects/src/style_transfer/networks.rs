//! The networks that paint: one that knows every style and their blends, and small ones that know one style each, made from it.
//!
//! Who asks for one style alone gets the small one of that style, where there is one: it takes a fifth of the time and is calmer.

use crate::model::Extent::{Fixed, Free};
use crate::model::{ModelSpec, TensorSpec};

/// Styles that the large network knows.
pub(super) const STYLES: usize = 26;
const SMALL_ONES: usize = 11;

/// All of them: what a worker loads.
pub(super) static ALL: [&ModelSpec; 1 + SMALL_ONES] = {
    let mut all = [&EVERY_STYLE; 1 + SMALL_ONES];
    let mut index = 0;
    while index < SMALL_ONES {
        all[1 + index] = &SMALL[index].1;
        index += 1;
    }
    all
};

/// A conditional instance norm network (Dumoulin et al. 2017). In: RGB, 0..=1, of any size in multiples of 4, and a weight for each
/// style, which sum to 1. Out: RGB, 0..=1, of the same size, in which the outermost 4 px are not right.
pub(super) static EVERY_STYLE: ModelSpec = ModelSpec {
    name: "style26",
    file: "style26.onnx",
    sha256: "9666058870addbc2800f16d0a9e89cd98746eb7c8da515e3e7933dbf266ffe0c",
    embedded: include_bytes!("../../../../models/style26.onnx"),
    inputs: &[IMAGE, TensorSpec { name: "style_weights", shape: &[Fixed(STYLES)] }],
    outputs: &[STYLIZED],
    threads: 2,
    warm_up: WARM_UP,
};

/// The number of a style in the large network, and the network that paints this one alone, from the same picture and without weights.
static SMALL: [(usize, ModelSpec); SMALL_ONES] = [
    (
        24,
        small(
            "style_wave_print",
            "style_wave_print.onnx",
            "37ecf80d5102d1f036956dd04fa91e0757049bd6d9c92f4f4dfa170f15feff3f",
            include_bytes!("../../../../models/style_wave_print.onnx"),
        ),
    ),
    (
        8,
        small(
            "style_pink_pencil",
            "style_pink_pencil.onnx",
            "9d6f73152cf364f5ea4910d813ea3560e8a038df9fcb445039d98ee828db7a5e",
            include_bytes!("../../../../models/style_pink_pencil.onnx"),
        ),
    ),
    (
        22,
        small(
            "style_comic_ink",
            "style_comic_ink.onnx",
            "dc7d724c89554237bfb7e1cd741367be83e17ab3640be7810e9b30c94afb3fff",
            include_bytes!("../../../../models/style_comic_ink.onnx"),
        ),
    ),
    (
        19,
        small(
            "style_blue_starlight",
            "style_blue_starlight.onnx",
            "a4614a6936211b056094d3c6ec34a896d2443f28fdf7f0560c1ef2130eb13aca",
            include_bytes!("../../../../models/style_blue_starlight.onnx"),
        ),
    ),
    (
        12,
        small(
            "style_lavender_pastel",
            "style_lavender_pastel.onnx",
            "50f3d2ab0600f358f6b9a9bfe3bc24711e61e288c0446c9e32495db994cb63bd",
            include_bytes!("../../../../models/style_lavender_pastel.onnx"),
        ),
    ),
    (
        4,
        small(
            "style_crimson_poster",
            "style_crimson_poster.onnx",
            "dfbc57d8ae3cd5a4d70ced89a836ddebfbd87402d145b52cadb214b77afd53df",
            include_bytes!("../../../../models/style_crimson_poster.onnx"),
        ),
    ),
    (
        15,
        small(
            "style_stained_glass",
            "style_stained_glass.onnx",
            "aa90c5f35cccf5898b2ce682e93b8ea5f8278fd3e8600c9504f9297319611aa2",
            include_bytes!("../../../../models/style_stained_glass.onnx"),
        ),
    ),
    (
        1,
        small(
            "style_yellow_ink",
            "style_yellow_ink.onnx",
            "b9359641b0c76568dfb477ca46e851f642a640a433e565a4efc872e3acdc5ff3",
            include_bytes!("../../../../models/style_yellow_ink.onnx"),
        ),
    ),
    (
        0,
        small(
            "style_apricot_canvas",
            "style_apricot_canvas.onnx",
            "372565e8c678ce3f8d666c969222d56798a67a1a69f0c86ab1af0fa3946c943f",
            include_bytes!("../../../../models/style_apricot_canvas.onnx"),
        ),
    ),
    (
        14,
        small(
            "style_ice_watercolour",
            "style_ice_watercolour.onnx",
            "321966ef2adeec12c6373aea88d8b3bda12a026fca4d07b0f3abb0ae0840117d",
            include_bytes!("../../../../models/style_ice_watercolour.onnx"),
        ),
    ),
    (
        11,
        small(
            "style_golden_engraving",
            "style_golden_engraving.onnx",
            "834edc17fe0c493cc336cf702be5abf209ecb3ad8322825463eb0e897e765667",
            include_bytes!("../../../../models/style_golden_engraving.onnx"),
        ),
    ),
];

const IMAGE: TensorSpec = TensorSpec { name: "image", shape: &[Fixed(1), Fixed(3), Free("height"), Free("width")] };
const STYLIZED: TensorSpec = TensorSpec { name: "stylized", shape: &[Fixed(1), Fixed(3), Free("height"), Free("width")] };
const WARM_UP: &[(&str, usize)] = &[("height", 16), ("width", 16)];

const fn small(name: &'static str, file: &'static str, sha256: &'static str, embedded: &'static [u8]) -> ModelSpec {
    ModelSpec { name, file, sha256, embedded, inputs: &[IMAGE], outputs: &[STYLIZED], threads: 2, warm_up: WARM_UP }
}

/// The small network for these weights: there is one for some styles, if the picture is to be in that style alone.
pub(super) fn small_one(weights: &[f32]) -> Option<&'static ModelSpec> {
    SMALL.iter().find(|(number, _)| weights.get(*number) == Some(&1.0)).map(|(_, spec)| spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_style_alone_is_painted_by_its_own_network_and_a_blend_by_the_large_one() {
        let mut weights = [0.0; STYLES];
        weights[24] = 1.0;
        assert_eq!(small_one(&weights).map(|spec| spec.name), Some("style_wave_print"));
        weights[24] = 0.75;
        weights[22] = 0.25;
        assert!(small_one(&weights).is_none());
    }

    #[test]
    fn every_small_network_is_named_after_its_style() {
        for (number, spec) in &SMALL {
            let (style, _) = super::super::PALETTE.iter().find(|(_, known)| known == number).unwrap();
            assert_eq!(spec.name, format!("style_{style}"));
            assert_eq!(spec.file, format!("{}.onnx", spec.name));
        }
    }
}
