//! The style networks: one that knows every style and their blends, and small ones distilled from
//! it that know one style each.
//!
//! A style requested without a blend is painted by its small network, if there is one: it takes a
//! fifth of the time and flickers less.

use std::borrow::Cow;

use ooblex_inference::Extent::{Fixed, Free};
use ooblex_inference::{FreeExtent, ModelSpec, TensorSpec};

/// Number of styles of the large network.
pub(super) const STYLES: usize = 26;
const SMALL_ONES: usize = 11;

/// All networks, which a worker loads.
pub(super) static ALL: [&ModelSpec; 1 + SMALL_ONES] = {
    let mut all = [&EVERY_STYLE; 1 + SMALL_ONES];
    let mut index = 0;
    while index < SMALL_ONES {
        all[1 + index] = &SMALL[index].1;
        index += 1;
    }
    all
};

/// Conditional instance normalisation network (Dumoulin et al. 2017). Input: RGB, 0..=1, of any
/// size in multiples of 4, and a weight for each style, with a sum of 1. Output: RGB, 0..=1, of the
/// same size; its outermost 4 px are wrong.
pub(super) static EVERY_STYLE: ModelSpec = ModelSpec {
    name: Cow::Borrowed("style26"),
    file: Cow::Borrowed("style26.onnx"),
    sha256: Cow::Borrowed("9666058870addbc2800f16d0a9e89cd98746eb7c8da515e3e7933dbf266ffe0c"),
    embedded: include_bytes!("../../../../models/style26.onnx"),
    inputs: Cow::Borrowed(&[IMAGE, TensorSpec::new("style_weights", &[Fixed(STYLES)])]),
    outputs: Cow::Borrowed(&STYLIZED),
    threads: 2,
    warm_up: WARM_UP,
};

/// The small networks, each with its style's index in the large network. They take the same
/// picture, but no weights.
static SMALL: [(usize, ModelSpec); SMALL_ONES] = [
    (
        24,
        small(
            "style_wave_print",
            "style_wave_print.onnx",
            "f3d67e4290cbd7f320511cca9213e4a4feb1ae4ee36815f80e5aa527f404eece",
            include_bytes!("../../../../models/style_wave_print.onnx"),
        ),
    ),
    (
        8,
        small(
            "style_pink_pencil",
            "style_pink_pencil.onnx",
            "6c4af25c6053a6470026579373449cb079a17e8ef24424ef044c755653468db7",
            include_bytes!("../../../../models/style_pink_pencil.onnx"),
        ),
    ),
    (
        22,
        small(
            "style_comic_ink",
            "style_comic_ink.onnx",
            "95655b98f1e1a0dc0c80d6068c1841df17e23e3404e357788f7402aab58c1613",
            include_bytes!("../../../../models/style_comic_ink.onnx"),
        ),
    ),
    (
        19,
        small(
            "style_blue_starlight",
            "style_blue_starlight.onnx",
            "296ff16e51e9f7b26c91616f72e31a5d3f121a4104c293711b12d1f6a679d350",
            include_bytes!("../../../../models/style_blue_starlight.onnx"),
        ),
    ),
    (
        12,
        small(
            "style_lavender_pastel",
            "style_lavender_pastel.onnx",
            "0440fd439f87b67c1f3c1bd4717f398ad089ede192cf2b2a81fb25eed4e83126",
            include_bytes!("../../../../models/style_lavender_pastel.onnx"),
        ),
    ),
    (
        4,
        small(
            "style_crimson_poster",
            "style_crimson_poster.onnx",
            "c37ada2330a3e01987aa2aae0cdbc4f372e93f89b6da20bc26750280576869ac",
            include_bytes!("../../../../models/style_crimson_poster.onnx"),
        ),
    ),
    (
        15,
        small(
            "style_stained_glass",
            "style_stained_glass.onnx",
            "e6f4f17aee831f9980dcacc83451103dcccfdfc6642d9e1dd41209a3b9b2639d",
            include_bytes!("../../../../models/style_stained_glass.onnx"),
        ),
    ),
    (
        1,
        small(
            "style_yellow_ink",
            "style_yellow_ink.onnx",
            "94120621a883ba82d9ebda93aad5e7d4342e7a14809b648739be9f3120c91ef2",
            include_bytes!("../../../../models/style_yellow_ink.onnx"),
        ),
    ),
    (
        0,
        small(
            "style_apricot_canvas",
            "style_apricot_canvas.onnx",
            "d4fe9870d2256c02779638adcfecd290fd36c868e30b7da5ca770281838108e6",
            include_bytes!("../../../../models/style_apricot_canvas.onnx"),
        ),
    ),
    (
        14,
        small(
            "style_ice_watercolour",
            "style_ice_watercolour.onnx",
            "027b547964b0583ab71cbb9909f94b01a6c4f7007fee2a4e59cdd4c6a5e3902e",
            include_bytes!("../../../../models/style_ice_watercolour.onnx"),
        ),
    ),
    (
        11,
        small(
            "style_golden_engraving",
            "style_golden_engraving.onnx",
            "1282d98be8d8f4f78475278286fa6210cb4f18e0b8cddb7ea9d1726ddecf1308",
            include_bytes!("../../../../models/style_golden_engraving.onnx"),
        ),
    ),
];

static PICTURE: [TensorSpec; 1] = [IMAGE];
const IMAGE: TensorSpec = TensorSpec::new("image", &[Fixed(1), Fixed(3), Free(Cow::Borrowed("height")), Free(Cow::Borrowed("width"))]);
static STYLIZED: [TensorSpec; 1] =
    [TensorSpec::new("stylized", &[Fixed(1), Fixed(3), Free(Cow::Borrowed("height")), Free(Cow::Borrowed("width"))])];
const WARM_UP: &[FreeExtent] = &[FreeExtent { name: "height", size: 16 }, FreeExtent { name: "width", size: 16 }];

const fn small(name: &'static str, file: &'static str, sha256: &'static str, embedded: &'static [u8]) -> ModelSpec {
    ModelSpec {
        name: Cow::Borrowed(name),
        file: Cow::Borrowed(file),
        sha256: Cow::Borrowed(sha256),
        embedded,
        inputs: Cow::Borrowed(&PICTURE),
        outputs: Cow::Borrowed(&STYLIZED),
        threads: 2,
        warm_up: WARM_UP,
    }
}

/// Returns the small network for these weights, if they select a single style that has one.
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
        assert_eq!(small_one(&weights).map(|spec| spec.name.as_ref()), Some("style_wave_print"));
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
