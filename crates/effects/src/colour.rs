//! Conversion between RGB and planes of Y, U and V, as ITU-R BT.601 defines them, in limited range.
//!
//! Values are rounded to the nearest, in fixed-point numbers with [`BITS`] binary digits.

use fearless_simd::prelude::*;
use fearless_simd::{Level, dispatch};
use fearless_simd_macros::simd;

const BITS: i32 = 14;
const HALF: i32 = 1 << (BITS - 1);

/// The weights of R, G and B in Y.
const KR: f64 = 0.299;
const KG: f64 = 1.0 - KR - KB;
const KB: f64 = 0.114;
/// The steps of Y, and of U and V, for the 255 steps of R, G and B.
const LUMA_STEPS: f64 = 219.0 / 255.0;
const CHROMA_STEPS: f64 = 224.0 / 255.0;

/// The values of black, and of no colour.
const BLACK: i32 = 16;
const GREY: i32 = 128;

const Y_OF_RGB: [i32; 3] = [fixed(KR * LUMA_STEPS), fixed(KG * LUMA_STEPS), fixed(KB * LUMA_STEPS)];
const U_OF_RGB: [i32; 3] = chroma([-KR, -KG, 1.0 - KB], 1.0 - KB);
const V_OF_RGB: [i32; 3] = chroma([1.0 - KR, -KG, -KB], 1.0 - KR);

const RGB_OF_Y: i32 = fixed(1.0 / LUMA_STEPS);
const B_OF_U: i32 = fixed(2.0 * (1.0 - KB) / CHROMA_STEPS);
const R_OF_V: i32 = fixed(2.0 * (1.0 - KR) / CHROMA_STEPS);
const G_OF_U: i32 = fixed(-2.0 * (1.0 - KB) * KB / KG / CHROMA_STEPS);
const G_OF_V: i32 = fixed(-2.0 * (1.0 - KR) * KR / KG / CHROMA_STEPS);

const fn fixed(value: f64) -> i32 {
    (value * (1 << BITS) as f64).round() as i32
}

const fn chroma([red, green, blue]: [f64; 3], largest: f64) -> [i32; 3] {
    let scale = CHROMA_STEPS / (2.0 * largest);
    [fixed(red * scale), fixed(green * scale), fixed(blue * scale)]
}

/// Converts interleaved RGB to planes of the same size (4:4:4): 3 bytes to one of each plane.
pub(crate) fn planes_444_of(rgb: &[u8], planes: [&mut [u8]; 3]) {
    dispatch!(Level::new(), simd => to_planes(simd, rgb, planes));
}

/// Converts planes of one size (4:4:4) to interleaved RGB.
pub(crate) fn rgb_of_444(planes: [&[u8]; 3], rgb: &mut [u8]) {
    dispatch!(Level::new(), simd => to_rgb(simd, planes, rgb));
}

/// Converts interleaved RGB of this width to planes with a value of U and V for four pixels
/// (4:2:0), which is that of their mean.
pub(crate) fn planes_420_of(rgb: &[u8], width: usize, [y, u, v]: [&mut [u8]; 3]) {
    for (pixel, y) in rgb.as_chunks::<3>().0.iter().zip(y) {
        *y = rounded(weighed(pixel.map(i32::from), Y_OF_RGB), BLACK, 0);
    }
    let chroma_width = width.div_ceil(2);
    for (rows, (u, v)) in rgb.chunks(6 * width).zip(u.chunks_mut(chroma_width).zip(v.chunks_mut(chroma_width))) {
        // The last row and the last column of an odd size are their own neighbours.
        let (upper, lower) = (&rows[..3 * width], &rows[rows.len() - 3 * width..]);
        for (((upper, lower), u), v) in upper.chunks(6).zip(lower.chunks(6)).zip(u).zip(v) {
            let right = upper.len() - 3;
            let sum =
                [0, 1, 2].map(|part| [upper[part], upper[right + part], lower[part], lower[right + part]].map(i32::from).iter().sum());
            *u = rounded(weighed(sum, U_OF_RGB), GREY, 2);
            *v = rounded(weighed(sum, V_OF_RGB), GREY, 2);
        }
    }
}

/// Converts planes with a value of U and V for four pixels (4:2:0) to interleaved RGB of this
/// width.
pub(crate) fn rgb_of_420([y, u, v]: [&[u8]; 3], width: usize, rgb: &mut [u8]) {
    let chroma_width = width.div_ceil(2);
    for (row, (y, rgb)) in y.chunks(width).zip(rgb.chunks_mut(3 * width)).enumerate() {
        let chroma = row / 2 * chroma_width..;
        for (((y, u), v), rgb) in y.chunks(2).zip(&u[chroma.clone()]).zip(&v[chroma]).zip(rgb.chunks_mut(6)) {
            for (y, rgb) in y.iter().zip(rgb.as_chunks_mut::<3>().0) {
                *rgb = pixel_of(*y, *u, *v);
            }
        }
    }
}

#[simd]
fn to_planes<S: Simd>(_: S, rgb: &[u8], [y, u, v]: [&mut [u8]; 3]) {
    for (((pixel, y), u), v) in rgb.as_chunks::<3>().0.iter().zip(y).zip(u).zip(v) {
        let pixel = pixel.map(i32::from);
        *y = rounded(weighed(pixel, Y_OF_RGB), BLACK, 0);
        *u = rounded(weighed(pixel, U_OF_RGB), GREY, 0);
        *v = rounded(weighed(pixel, V_OF_RGB), GREY, 0);
    }
}

#[simd]
fn to_rgb<S: Simd>(_: S, [y, u, v]: [&[u8]; 3], rgb: &mut [u8]) {
    for (((y, u), v), rgb) in y.iter().zip(u).zip(v).zip(rgb.as_chunks_mut::<3>().0) {
        *rgb = pixel_of(*y, *u, *v);
    }
}

#[inline(always)]
fn weighed(values: [i32; 3], weights: [i32; 3]) -> i32 {
    values[0] * weights[0] + values[1] * weights[1] + values[2] * weights[2]
}

/// Returns `base` plus a fixed-point number with `more` binary digits more than usual.
#[inline(always)]
fn rounded(value: i32, base: i32, more: i32) -> u8 {
    (base + ((value + (HALF << more)) >> (BITS + more))).clamp(0, 255) as u8
}

#[inline(always)]
fn pixel_of(y: u8, u: u8, v: u8) -> [u8; 3] {
    let y = (i32::from(y) - BLACK) * RGB_OF_Y;
    let (u, v) = (i32::from(u) - GREY, i32::from(v) - GREY);
    [y + v * R_OF_V, y + u * G_OF_U + v * G_OF_V, y + u * B_OF_U].map(|value| rounded(value, 0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition of BT.601, in floating point.
    fn planes_by_definition([red, green, blue]: [u8; 3]) -> [f64; 3] {
        let [red, green, blue] = [red, green, blue].map(f64::from);
        let y = KR * red + KG * green + KB * blue;
        let [u, v] = [(blue - y) / (1.0 - KB), (red - y) / (1.0 - KR)];
        [16.0 + LUMA_STEPS * y, 128.0 + CHROMA_STEPS / 2.0 * u, 128.0 + CHROMA_STEPS / 2.0 * v]
    }

    /// Returns colours of which no two parts are always equal.
    fn colours() -> Vec<[u8; 3]> {
        let steps = || (0..=255u8).step_by(15);
        steps().flat_map(|red| steps().flat_map(move |green| steps().map(move |blue| [red, green, blue]))).collect()
    }

    #[test]
    fn colours_are_those_of_the_definition_and_come_back() {
        let rgb = colours().concat();
        let pixels = rgb.len() / 3;
        let mut planes = [(); 3].map(|()| vec![0; pixels]);
        planes_444_of(&rgb, planes.each_mut().map(|plane| &mut plane[..]));
        for (index, colour) in colours().into_iter().enumerate() {
            for (plane, expected) in planes.iter().zip(planes_by_definition(colour)) {
                assert!((f64::from(plane[index]) - expected).abs() <= 0.51, "{} instead of {expected} for {colour:?}", plane[index]);
            }
        }
        let mut back = vec![0; rgb.len()];
        rgb_of_444(planes.each_ref().map(|plane| &plane[..]), &mut back);
        let farthest = rgb.iter().zip(&back).map(|(value, back)| value.abs_diff(*back)).max();
        assert!(farthest <= Some(2), "limited range has fewer steps: {farthest:?}");
    }

    #[test]
    fn all_instructions_of_the_processor_give_the_same() {
        let rgb = colours().concat();
        let [few, all] = [Level::baseline(), Level::new()].map(|level| {
            let mut planes = [(); 3].map(|()| vec![0; rgb.len() / 3]);
            let mut back = vec![0; rgb.len()];
            dispatch!(level, simd => to_planes(simd, &rgb, planes.each_mut().map(|plane| &mut plane[..])));
            dispatch!(level, simd => to_rgb(simd, planes.each_ref().map(|plane| &plane[..]), &mut back));
            (planes, back)
        });
        assert_eq!(few, all);
    }

    #[test]
    fn four_pixels_have_the_colour_of_their_mean() {
        let [red, blue] = [[255, 0, 0], [0, 0, 255]];
        let rgb = [[red, blue, red], [red, blue, blue], [blue, blue, red]].concat().concat();
        let (mut y, mut u, mut v) = ([0; 9], [0; 4], [0; 4]);
        planes_420_of(&rgb, 3, [&mut y, &mut u, &mut v]);
        let means = [[128, 0, 128], [128, 0, 128], [0, 0, 255], [255, 0, 0]].map(planes_by_definition);
        for (index, [_, expected_u, expected_v]) in means.into_iter().enumerate() {
            assert!((f64::from(u[index]) - expected_u).abs() <= 1.0 && (f64::from(v[index]) - expected_v).abs() <= 1.0, "{u:?} {v:?}");
        }
        let mut back = [0; 27];
        rgb_of_420([&y, &u, &v], 3, &mut back);
        assert_eq!(back[24..], [254, 0, 0], "the last pixel has a value of U and V of its own");
    }
}
