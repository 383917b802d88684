//! Scenes with known motion: a still scene with camera noise, a pan, several faces on one wall; and
//! clips from disk.
// The test and the example each use a part of this module.
#![allow(dead_code, unreachable_pub)]

use std::fs;
use std::path::Path;

use ooblex_effects::i420_from_rgb;
use ooblex_pipeline::{I420, Rgb};

use crate::common::{crop, png};

/// Standard deviation of the noise added to luma: that of a camera in an ordinary room.
const NOISE: f64 = 3.0;

/// Deterministic random numbers.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns an approximately Gaussian number with a standard deviation of 1.
    fn normal(&mut self) -> f64 {
        (0..6).map(|_| self.next() - 0.5).sum::<f64>() * std::f64::consts::SQRT_2
    }
}

/// Adds camera noise to the frame.
pub fn noisy(frame: &I420, random: &mut Random) -> I420 {
    let mut picture = frame.clone();
    let [luma, u, v] = picture.planes_mut();
    for (plane, share) in [(luma, 1.0), (u, 0.4), (v, 0.4)] {
        plane.iter_mut().for_each(|value| *value = (f64::from(*value) + random.normal() * NOISE * share).round().clamp(0.0, 255.0) as u8);
    }
    picture
}

/// Offset of a pan at frame `n` in pixels: alternately slow, fast and still.
pub fn pan(n: usize) -> [f64; 2] {
    let turn = n as f64 / 30.0;
    [24.0 * (2.2 * turn).sin(), 10.0 * (3.1 * turn).sin()]
}

/// Enlarges the picture by [`ZOOM`] and moves it by `x` pixels to the right and `y` pixels down.
pub fn moved(picture: &Rgb, [x, y]: [f64; 2]) -> Rgb {
    let (width, height) = (picture.width as usize, picture.height as usize);
    let mut data = Vec::with_capacity(picture.data.len());
    for row in 0..height {
        for column in 0..width {
            let [from_x, from_y] = [source(column as f64, width, x), source(row as f64, height, y)];
            let (left, top) = ((from_x as usize).min(width - 2), (from_y as usize).min(height - 2));
            let (right, down) = (from_x - left as f64, from_y - top as f64);
            for channel in 0..3 {
                let at = |x: usize, y: usize| f64::from(picture.data[3 * (y * width + x) + channel]);
                let upper = at(left, top) * (1.0 - right) + at(left + 1, top) * right;
                let lower = at(left, top + 1) * (1.0 - right) + at(left + 1, top + 1) * right;
                data.push((upper * (1.0 - down) + lower * down).round() as u8);
            }
        }
    }
    Rgb { width: picture.width, height: picture.height, data }
}

/// Enlargement by [`moved`], so that no edge of the picture comes into view.
pub const ZOOM: f64 = 1.15;

fn source(at: f64, side: usize, shift: f64) -> f64 {
    let middle = side as f64 / 2.0;
    ((at - shift - middle) / ZOOM + middle).clamp(0.0, side as f64 - 1.001)
}

/// Left, top and width of each face's cut-out on [`wall`], whether it is mirrored, and its
/// brightness.
const FACES: [(u32, u32, u32, bool, f64); 6] = [
    (20, 30, 240, false, 1.0),
    (300, 250, 200, true, 0.85),
    (560, 40, 160, false, 0.6),
    (760, 90, 120, true, 1.0),
    (620, 320, 200, false, 1.1),
    (120, 330, 110, true, 0.9),
];

/// Returns the centre of each face of [`wall`] in pixels.
pub fn faces() -> Vec<[f64; 2]> {
    // The centre of the face lies at 0.455, 0.61 of the cut-out.
    let middle = |width: u32, mirrored: bool| f64::from(width) * if mirrored { 0.545 } else { 0.455 };
    FACES
        .iter()
        .map(|(left, top, width, mirrored, _)| [f64::from(*left) + middle(*width, *mirrored), f64::from(*top) + 0.61 * f64::from(*width)])
        .collect()
}

/// Several faces on one wall of 960×540: the same person near and far, mirrored, in the dark.
pub fn wall() -> Rgb {
    let (width, height) = (960_u32, 540_u32);
    let mut data: Vec<u8> =
        (0..height).flat_map(|y| (0..width).flat_map(move |x| [150 - (y / 8) as u8, 148 - (x / 20) as u8, 140])).collect();
    let head = crop(&png("picture_640x480.png"), 160, 0, 240, 240);
    for (left, top, side, mirrored, brightness) in FACES {
        for y in 0..side {
            for x in 0..side {
                let share = |at: u32| (f64::from(at) + 0.5) * f64::from(head.width) / f64::from(side);
                let column = share(if mirrored { side - 1 - x } else { x });
                let pixel = mean(&head, column, share(y), f64::from(head.width) / f64::from(side));
                let at = 3 * ((top + y) * width + left + x) as usize;
                for (out, value) in data[at..at + 3].iter_mut().zip(pixel) {
                    *out = (value * brightness).clamp(0.0, 255.0) as u8;
                }
            }
        }
    }
    Rgb { width, height, data }
}

fn mean(picture: &Rgb, x: f64, y: f64, span: f64) -> [f64; 3] {
    let range = |at: f64, side: u32| ((at - span / 2.0).max(0.0) as u32)..((at + span / 2.0).ceil() as u32).clamp(1, side);
    let (columns, rows) = (range(x, picture.width), range(y, picture.height));
    let count = f64::from(columns.end - columns.start) * f64::from(rows.end - rows.start);
    let mut sum = [0.0; 3];
    for row in rows {
        for column in columns.clone() {
            let pixel = &picture.data[3 * (row * picture.width + column) as usize..][..3];
            sum.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += f64::from(*value));
        }
    }
    sum.map(|sum| sum / count)
}

/// Reads the first frames of a 4:2:0 Y4M clip.
///
/// # Errors
/// When the file cannot be read, or has another format.
pub fn clip(path: &Path, most: usize) -> Result<Vec<I420>, String> {
    let bytes = fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let head = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let rest = lines.next().unwrap_or_default();
    if !head.starts_with("YUV4MPEG2") || head.split(' ').any(|word| word.starts_with('C') && !word.starts_with("C420")) {
        return Err(format!("{} is no Y4M of 4:2:0: make one with ffmpeg -i CLIP -pix_fmt yuv420p CLIP.y4m", path.display()));
    }
    let side = |letter: char| {
        let word = head.split(' ').skip(1).find(|word| word.starts_with(letter));
        word.and_then(|word| word[1..].parse().ok()).filter(|side| (1..=I420::MAX_SIDE).contains(side))
    };
    let (Some(width), Some(height)) = (side('W'), side('H')) else { return Err(format!("{} says no size", path.display())) };
    let (mut frames, mut rest) = (Vec::new(), rest);
    while frames.len() < most && rest.starts_with(b"FRAME") {
        let Some(start) = rest.iter().position(|byte| *byte == b'\n') else { break };
        let Some(data) = rest.get(start + 1..start + 1 + I420::len(width, height)) else { break };
        let mut frame = I420::grey(width, height, 16);
        let mut data_left = data;
        for plane in frame.planes_mut() {
            let (own, after) = data_left.split_at(plane.len());
            plane.copy_from_slice(own);
            data_left = after;
        }
        frames.push(frame);
        rest = &rest[start + 1 + data.len()..];
    }
    if frames.len() < 3 { Err(format!("{} has {} frames: three are needed", path.display(), frames.len())) } else { Ok(frames) }
}

pub fn frame(picture: &Rgb) -> I420 {
    i420_from_rgb(picture).expect("it has the bytes of its size")
}

/// A person who talks in front of a wall, 384×216, without camera noise: the person sways, the
/// background is still.
pub fn talking(n: usize) -> I420 {
    let [picture, mask] = ["picture_640x480.png", "person_640x480.png"].map(|name| crop(&png(name), 120, 40, 384, 216));
    let turn = n as f64 / 30.0;
    let sway = [5.0 * (4.0 * turn).sin(), 2.5 * (6.5 * turn).sin()];
    let (person, share) = (moved(&picture, sway), moved(&mask, sway));
    let mut data = picture.data;
    for ((shown, person), share) in data.iter_mut().zip(person.data).zip(share.data) {
        let share = f64::from(share) / 255.0;
        *shown = (f64::from(person) * share + f64::from(*shown) * (1.0 - share)).round() as u8;
    }
    frame(&Rgb { data, ..picture })
}
