//! Pixel operations between frames and models: downscaling, upscaling, blending.
//!
//! A frame is downscaled before its colour is converted, and a small picture is stretched while it
//! is blended, so that only one pass touches every pixel of a frame.

use std::slice::ChunksExactMut;

use crate::blocks::Blocks;
use crate::colour;
use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use fearless_simd::prelude::*;
use fearless_simd::{Level, dispatch, u8x16, u16x8};
use fearless_simd_macros::simd;
use ooblex_pipeline::{I420, Rgb};

/// Error for a picture with invalid sides or a wrong number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a picture of {width}x{height} with {bytes} bytes: sides must be 1 to {max}, and bytes 3 for each pixel", max = I420::MAX_SIDE)]
pub struct BadPicture {
    width: u32,
    height: u32,
    bytes: usize,
}

/// Converts a picture to a frame.
///
/// # Errors
/// When a side is 0 or above [`I420::MAX_SIDE`], or the bytes do not match the sides.
pub fn i420_from_rgb(rgb: &Rgb) -> Result<I420, BadPicture> {
    let (width, height) = (rgb.width, rgb.height);
    check(rgb)?;
    let mut picture = I420::grey(width, height, 16);
    colour::planes_420_of(&rgb.data, width as usize, picture.planes_mut());
    Ok(picture)
}

/// Converts a frame to a picture.
pub fn rgb_from_i420(picture: &I420) -> Rgb {
    let (width, height) = (picture.width(), picture.height());
    let mut data = vec![0; 3 * width as usize * height as usize];
    colour::rgb_of_420(picture.planes(), width as usize, &mut data);
    Rgb { width, height, data }
}

/// Checks that the sides of a picture are valid and match its number of bytes.
pub(crate) fn check(rgb: &Rgb) -> Result<(), BadPicture> {
    let sides = 1..=I420::MAX_SIDE;
    let bytes = rgb.data.len();
    match sides.contains(&rgb.width) && sides.contains(&rgb.height) && bytes == 3 * rgb.width as usize * rgb.height as usize {
        true => Ok(()),
        false => Err(BadPicture { width: rgb.width, height: rgb.height, bytes }),
    }
}

/// Returns the size of plane `index` (0 luma, 1 and 2 chroma) in columns and rows, and the part of
/// it that shows the frame.
pub(crate) fn plane_size(picture: &I420, index: usize) -> ([u32; 2], [f64; 2]) {
    let shown = [picture.width(), picture.height()].map(f64::from);
    match index {
        0 => ([picture.width(), picture.height()], shown),
        _ => ([picture.chroma_width(), picture.chroma_height()], shown.map(|side| side / 2.0)),
    }
}

/// Returns iterators over the rows of Y, U and V.
pub(crate) fn rows_mut(picture: &mut I420) -> [ChunksExactMut<'_, u8>; 3] {
    let (luma, chroma) = (picture.width() as usize, picture.chroma_width() as usize);
    let [y, u, v] = picture.planes_mut();
    [y.chunks_exact_mut(luma), u.chunks_exact_mut(chroma), v.chunks_exact_mut(chroma)]
}

/// Converts a small RGB picture to three planes of its size (4:4:4). `rgb` must have been checked.
pub(crate) fn planes_from_rgb(rgb: &Rgb, planes: &mut [Vec<u8>; 3]) {
    let pixels = rgb.width as usize * rgb.height as usize;
    planes.iter_mut().for_each(|plane| plane.resize(pixels, 0));
    colour::planes_444_of(&rgb.data, planes.each_mut().map(|plane| &mut plane[..]));
}

/// Converts pixels to a model's input: `value / scale + offset`, all of R, then all of G, then all
/// of B.
pub(crate) fn nchw(rgb: &[u8], scale: f32, offset: f32) -> Vec<f32> {
    let mut data = Vec::new();
    nchw_into(&mut data, rgb, scale, offset);
    data
}

/// Like [`nchw`], but writes into `data`.
pub(crate) fn nchw_into(data: &mut Vec<f32>, rgb: &[u8], scale: f32, offset: f32) {
    let pixels = rgb.len() / 3;
    data.clear();
    data.resize(3 * pixels, 0.0);
    let (red, rest) = data.split_at_mut(pixels);
    let (green, blue) = rest.split_at_mut(pixels);
    dispatch!(Level::new(), simd => part(simd, rgb, [red, green, blue], 1.0 / scale, offset));
}

#[simd]
fn part<S: Simd>(_: S, rgb: &[u8], [red, green, blue]: [&mut [f32]; 3], factor: f32, offset: f32) {
    for (((pixel, r), g), b) in rgb.as_chunks::<3>().0.iter().zip(red).zip(green).zip(blue) {
        *r = f32::from(pixel[0]) * factor + offset;
        *g = f32::from(pixel[1]) * factor + offset;
        *b = f32::from(pixel[2]) * factor + offset;
    }
}

/// Downscales frames and planes, and keeps its buffers for the next one.
#[derive(Default)]
pub(crate) struct Shrinker {
    luma: Resize,
    chroma: Resize,
    other: Resize,
    planes: [Vec<u8>; 3],
}

/// Resizes planes from one size to another, and keeps its buffers for the next one.
#[derive(Default)]
struct Resize {
    blocks: Blocks,
    resizer: Resizer,
}

impl Shrinker {
    /// Returns the frame in interleaved RGB of this size, ignoring its aspect ratio.
    pub(crate) fn rgb(&mut self, source: &I420, width: u32, height: u32) -> Rgb {
        let mut data = vec![0; 3 * width as usize * height as usize];
        colour::rgb_of_444(self.planes(source, width, height), &mut data);
        Rgb { width, height, data }
    }

    /// Returns Y, U and V of the frame, each of this size (4:4:4).
    pub(crate) fn planes(&mut self, source: &I420, width: u32, height: u32) -> [&[u8]; 3] {
        let shown = [f64::from(source.width()), f64::from(source.height())];
        let luma = [source.width(), source.height()];
        let chroma = [source.chroma_width(), source.chroma_height()];
        let halved = shown.map(|side| side / 2.0);
        for (index, (plane, (size, shown))) in
            source.planes().into_iter().zip([(luma, shown), (chroma, halved), (chroma, halved)]).enumerate()
        {
            let target = &mut self.planes[index];
            target.resize(width as usize * height as usize, 0);
            let resize = if index == 0 { &mut self.luma } else { &mut self.chroma };
            resize.set(plane, size, shown, target, [width, height]);
        }
        self.planes.each_ref().map(|plane| &plane[..])
    }

    /// Returns the luma of the frame in this size.
    pub(crate) fn luma(&mut self, source: &I420, width: u32, height: u32) -> &[u8] {
        let [plane, ..] = source.planes();
        let target = &mut self.planes[0];
        target.resize(width as usize * height as usize, 0);
        let size = [source.width(), source.height()];
        self.luma.set(plane, size, size.map(f64::from), target, [width, height]);
        target
    }

    /// Resizes one plane into `target`.
    pub(crate) fn plane(&mut self, plane: &[u8], size: [u32; 2], target: &mut Vec<u8>, target_size: [u32; 2]) {
        target.resize(target_size[0] as usize * target_size[1] as usize, 0);
        self.other.set(plane, size, size.map(f64::from), target, target_size);
    }
}

impl Resize {
    /// Resizes the `shown` part of a plane, from its top left corner; the last column and row of
    /// chroma of an odd-sized frame extend beyond the frame. Shrinking averages, enlarging
    /// interpolates.
    fn set(&mut self, plane: &[u8], size: [u32; 2], shown: [f64; 2], target: &mut [u8], target_size: [u32; 2]) {
        if self.blocks.set(plane, size, shown, target, target_size) {
            return;
        }
        let shrinks = shown.iter().zip(target_size).all(|(from, to)| *from >= f64::from(to));
        let filter = if shrinks { FilterType::Box } else { FilterType::Bilinear };
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).crop(0.0, 0.0, shown[0], shown[1]).use_alpha(false);
        // `resize` would compile the filters for all types of pixels, a minute of CPU time.
        let from = TypedImageRef::<U8>::from_buffer(size[0], size[1], plane).expect("a plane has the bytes of its size");
        let mut to = TypedImage::<U8>::from_buffer(target_size[0], target_size[1], target).expect("the target was made for it");
        self.resizer.resize_typed(&from, &mut to, &options).expect("the crop lies within");
    }
}

/// A small plane stretched (bilinear) over a large one. Its rows are stretched at once; rows
/// between two of them are interpolated when they are read. Buffers and tables are kept for the
/// next frame.
#[derive(Default)]
pub(crate) struct Stretched {
    rows: Vec<u8>,
    width: usize,
    across: Taps,
    down: Taps,
}

/// An interpolated row of a [`Stretched`] plane.
#[derive(Clone, Copy)]
pub(crate) struct Between<'a> {
    upper: &'a [u8],
    lower: &'a [u8],
    /// Weight of `lower`, 0..=256.
    weight: u16,
}

impl Stretched {
    /// Stretches a small plane of `from` columns and rows over a large one of `to` columns and
    /// rows, of which `shown` show the frame (half a column less than `to` in the chroma of an
    /// odd-sized frame).
    pub(crate) fn set(&mut self, plane: &[u8], from: [u32; 2], to: [u32; 2], shown: [f64; 2]) {
        for (axis, taps) in [&mut self.across, &mut self.down].into_iter().enumerate() {
            taps.set(Scale { from: from[axis], to: to[axis], shown: shown[axis] });
        }
        self.width = to[0] as usize;
        self.rows.resize(self.width * from[1] as usize, 0);
        let rows = plane.chunks_exact(from[0] as usize).zip(self.rows.chunks_exact_mut(self.width));
        match self.across.windows.is_empty() {
            true => rows.for_each(|(row, stretched)| self.across.stretch(row, stretched)),
            false => dispatch!(Level::new(), simd => stretch(simd, &self.across.windows, rows)),
        }
    }

    /// Returns row `y` of the large plane.
    pub(crate) fn row(&self, y: usize) -> Between<'_> {
        let tap = self.down.taps[y];
        let row = |index: u16| &self.rows[index as usize * self.width..][..self.width];
        Between { upper: row(tap.first), lower: row(tap.second), weight: tap.weight }
    }
}

/// The two columns (or rows) of the small plane between which each one of the large plane lies.
#[derive(Default)]
struct Taps {
    made_for: Option<Scale>,
    taps: Vec<Tap>,
    /// The taps in groups of [`LANES`] columns, for SIMD; empty if a group does not fit into a
    /// [`Window`].
    windows: Vec<Window>,
}

/// Lengths along one axis in pixels: `shown` of the `from` pixels are stretched to `to`.
#[derive(Clone, Copy, PartialEq)]
struct Scale {
    from: u32,
    to: u32,
    shown: f64,
}

/// Number of columns of the large plane that are computed at once.
const LANES: usize = 16;

/// The taps of [`LANES`] columns of the large plane, all within [`LANES`] columns of the small one.
struct Window {
    start: usize,
    /// Left column of each tap, relative to `start`.
    first: [u8; LANES],
    second: [u8; LANES],
    weight: [u16; LANES],
}

#[derive(Clone, Copy)]
struct Tap {
    first: u16,
    second: u16,
    /// Weight of `second`, 0..=256.
    weight: u16,
}

impl Taps {
    fn set(&mut self, scale: Scale) {
        if self.made_for.replace(scale) == Some(scale) {
            return;
        }
        let Scale { from, to, shown } = scale;
        let last = from as u16 - 1;
        self.taps.clear();
        self.taps.extend((0..to).map(|index| {
            let position = ((f64::from(index) + 0.5) * f64::from(from) / shown - 0.5).clamp(0.0, f64::from(last));
            let first = position.floor();
            let (first, weight) = (first as u16, ((position - first) * 256.0).round() as u16);
            Tap { first, second: (first + 1).min(last), weight }
        }));
        self.windows = self.taps.chunks(LANES).map(|taps| Window::of(taps, from as usize)).collect::<Option<_>>().unwrap_or_default();
    }

    fn stretch(&self, row: &[u8], stretched: &mut [u8]) {
        for (out, tap) in stretched.iter_mut().zip(&self.taps) {
            *out = lerp(row[tap.first as usize], row[tap.second as usize], tap.weight);
        }
    }
}

impl Window {
    /// Converts taps of a plane of `from` columns, if they fit into a window of it.
    fn of(taps: &[Tap], from: usize) -> Option<Self> {
        let start = usize::from(taps[0].first).min(from.checked_sub(LANES)?);
        let mut window = Self { start, first: [0; LANES], second: [0; LANES], weight: [0; LANES] };
        for (lane, tap) in taps.iter().enumerate() {
            let [first, second] = [tap.first, tap.second].map(|column| usize::from(column) - start);
            (window.first[lane], window.second[lane], window.weight[lane]) = (first as u8, second as u8, tap.weight);
            if second >= LANES {
                return None;
            }
        }
        Some(window)
    }
}

/// Stretches rows one window at a time: a byte shuffle gathers the columns of all lanes at once.
#[simd]
fn stretch<'a, S: Simd>(simd: S, windows: &[Window], rows: impl Iterator<Item = (&'a [u8], &'a mut [u8])>) {
    for (row, stretched) in rows {
        for (window, out) in windows.iter().zip(stretched.chunks_mut(LANES)) {
            let columns = u8x16::from_slice(simd, &row[window.start..][..LANES]);
            let [first, second] = [window.first, window.second].map(|lanes| columns.swizzle_dyn(u8x16::simd_from(simd, lanes)).widen());
            let (left, right) = window.weight.split_at(LANES / 2);
            let lerp = |a: u16x8<S>, b: u16x8<S>, weight: &[u16]| {
                let weight = u16x8::from_slice(simd, weight);
                (a * (256 - weight) + b * weight + 128) >> 8
            };
            let mut lanes = [0; LANES];
            lerp(first.0, second.0, left).narrow(lerp(first.1, second.1, right)).store_slice(&mut lanes);
            match out.first_chunk_mut() {
                Some(whole) => *whole = lanes,
                None => out.copy_from_slice(&lanes[..out.len()]),
            }
        }
    }
}

impl Between<'_> {
    /// Writes the row to `target`.
    pub(crate) fn copy_to(&self, target: &mut [u8]) {
        dispatch!(Level::new(), simd => between(simd, target, self.upper, self.lower, self.weight));
    }

    /// Blends the row over `target` with one opacity, 0..=256.
    pub(crate) fn blend_onto(&self, target: &mut [u8], opacity: u16) {
        dispatch!(Level::new(), simd => between_onto(simd, target, self.upper, self.lower, self.weight, opacity));
    }
}

#[simd]
fn between<S: Simd>(_: S, target: &mut [u8], upper: &[u8], lower: &[u8], weight: u16) {
    for ((out, upper), lower) in target.iter_mut().zip(upper).zip(lower) {
        *out = lerp(*upper, *lower, weight);
    }
}

#[simd]
fn between_onto<S: Simd>(_: S, target: &mut [u8], upper: &[u8], lower: &[u8], weight: u16, opacity: u16) {
    for ((out, upper), lower) in target.iter_mut().zip(upper).zip(lower) {
        *out = lerp(*out, lerp(*upper, *lower, weight), opacity);
    }
}

/// Blends `row` over `target` with one opacity, 0..=256.
pub(crate) fn mix(target: &mut [u8], row: &[u8], opacity: u16) {
    match opacity {
        256 => target.copy_from_slice(row),
        opacity => target.iter_mut().zip(row).for_each(|(out, value)| *out = lerp(*out, *value, opacity)),
    }
}

/// Blends one value over all of `target` with one opacity, 0..=256.
pub(crate) fn mix_with(target: &mut [u8], value: u8, opacity: u16) {
    target.iter_mut().for_each(|out| *out = lerp(*out, value, opacity));
}

/// Rounds to the nearest byte. The sum with 2²³ has the rounded value in its lowest bits; unlike
/// `as`, this can be vectorised.
#[inline(always)]
pub(crate) fn byte(value: f32) -> u8 {
    (value.clamp(0.0, 255.0) + 8_388_608.0).to_bits() as u8
}

/// Converts fractions of 0..=1 to bytes.
pub(crate) fn bytes(shares: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; shares.len()];
    dispatch!(Level::new(), simd => to_bytes(simd, shares, &mut bytes));
    bytes
}

#[simd]
fn to_bytes<S: Simd>(_: S, shares: &[f32], bytes: &mut [u8]) {
    bytes.iter_mut().zip(shares).for_each(|(out, share)| *out = byte(share * 255.0));
}

/// Interpolates between `a` (weight 0) and `b` (weight 256).
#[inline(always)]
fn lerp(a: u8, b: u8, weight: u16) -> u8 {
    ((u16::from(a) * (256 - weight) + u16::from(b) * weight + 128) >> 8) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient(width: u32, height: u32) -> Rgb {
        let pixel = |x: u32, y: u32| [(x * 255 / width) as u8, (y * 255 / height) as u8, 128];
        Rgb { width, height, data: (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect() }
    }

    #[test]
    fn colour_survives_the_way_to_planes_and_back() {
        for (width, height) in [(64, 48), (63, 47), (2, 2), (1, 1), (3, 200)] {
            let rgb = gradient(width, height);
            let back = rgb_from_i420(&i420_from_rgb(&rgb).unwrap());
            let difference: u32 = rgb.data.iter().zip(&back.data).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
            let allowed = if width > 60 { 3.0 } else { 60.0 };
            assert!(difference as f32 / (rgb.data.len() as f32) < allowed, "{width}x{height}: {difference}");
        }
    }

    #[test]
    fn pictures_that_can_not_be_are_refused() {
        for (width, height, bytes) in [(0, 4, 0), (4, 0, 0), (4, 4, 47), (4, 4, 49), (5000, 1, 15000), (u32::MAX, u32::MAX, 3)] {
            let refused = i420_from_rgb(&Rgb { width, height, data: vec![0; bytes] });
            assert_eq!(refused.unwrap_err(), BadPicture { width, height, bytes });
        }
    }

    #[test]
    fn a_shrunk_frame_has_the_mean_of_its_pixels() {
        let frame = i420_from_rgb(&gradient(640, 481)).unwrap();
        let small = Shrinker::default().rgb(&frame, 8, 4);
        assert_eq!(small.data.len(), 96);
        for (x, y) in [(0, 0), (7, 3), (3, 2)] {
            let expected = [((x as f32 + 0.5) * 32.0) as u8, ((y as f32 + 0.5) * 64.0) as u8, 128];
            for (got, expected) in small.data[3 * (8 * y + x)..][..3].iter().zip(expected) {
                assert!(got.abs_diff(expected) <= 4, "{got} instead of {expected} at {x},{y}");
            }
        }
    }

    #[test]
    fn a_plane_is_stretched_alike_with_all_instructions_of_the_processor_and_with_few() {
        for (from, to, shown) in
            [(16, 16, 16.0), (17, 100, 99.5), (256, 640, 640.0), (139, 320, 319.5), (640, 1919, 1919.0), (40, 31, 31.0)]
        {
            let row: Vec<u8> = (0..from).map(|index| (index * 7919 % 251) as u8).collect();
            let mut taps = Taps::default();
            taps.set(Scale { from, to, shown });
            assert_eq!(taps.windows.is_empty(), to < from, "{from} to {to}");
            let mut expected = vec![0; to as usize];
            taps.stretch(&row, &mut expected);
            for level in [Level::baseline(), Level::new()].into_iter().filter(|_| !taps.windows.is_empty()) {
                let mut stretched = vec![0; to as usize];
                dispatch!(level, simd => stretch(simd, &taps.windows, [(&row[..], &mut stretched[..])].into_iter()));
                assert_eq!(stretched, expected, "{from} to {to}");
            }
        }
    }

    #[test]
    fn bytes_are_the_nearest() {
        let values = [-1e9, -0.6, 0.4, 0.6, 127.4, 254.6, 255.4, 1e9, f32::NAN];
        assert_eq!(values.map(byte), [0, 0, 0, 1, 127, 255, 255, 255, 0]);
    }

    #[test]
    fn a_stretched_plane_keeps_its_ends_and_runs_evenly_between() {
        let mut stretched = Stretched::default();
        stretched.set(&[0, 200], [2, 1], [8, 3], [8.0, 3.0]);
        let mut row = [0; 8];
        stretched.row(1).copy_to(&mut row);
        assert_eq!(row, [0, 0, 25, 75, 125, 175, 200, 200]);
        stretched.set(&[10, 250], [1, 2], [3, 2], [3.0, 2.0]);
        stretched.row(1).copy_to(&mut row[..3]);
        assert_eq!(row[..3], [250; 3]);
    }
}
