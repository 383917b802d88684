//! Lines, dots and text drawn onto a frame, clipped to its edges.

use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::ascii::FONT_7X13_BOLD as FONT;
use embedded_graphics::pixelcolor::BinaryColor;
use embedded_graphics::prelude::{Dimensions, DrawTarget, Drawable, Pixel, Point, Size};
use embedded_graphics::primitives::Rectangle;
use embedded_graphics::text::{Baseline, Text};
use ooblex_pipeline::I420;

/// Y, U and V of a colour, BT.601 limited range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Colour(pub(crate) [u8; 3]);

impl Colour {
    pub(crate) const BLACK: Colour = Colour([16, 128, 128]);
    pub(crate) const WHITE: Colour = Colour([235, 128, 128]);
    pub(crate) const GREEN: Colour = Colour([173, 86, 47]);
    pub(crate) const YELLOW: Colour = Colour([210, 16, 146]);
}

/// A frame to draw on. Positions are in its pixels; (0, 0) is the top left one.
pub(crate) struct Canvas<'a> {
    picture: &'a mut I420,
    /// Thickness of lines in pixels.
    pub(crate) line: i32,
    /// Side of one font dot in pixels.
    dot: i32,
}

impl<'a> Canvas<'a> {
    /// Creates a canvas whose lines and letters have a thickness in proportion to the frame.
    pub(crate) fn new(picture: &'a mut I420) -> Self {
        let side = picture.width().min(picture.height()) as i32;
        Self { picture, line: ((side + 90) / 180).max(1), dot: ((side + 135) / 270).max(1) }
    }

    /// Draws a box `[left, top, right, bottom]` with a dark edge on both sides of its line.
    pub(crate) fn outline(&mut self, rect: [i32; 4], colour: Colour) {
        let edge = (self.line / 2).max(1);
        self.ring(rect, self.line + edge, edge, Colour::BLACK);
        self.ring(rect, self.line, 0, colour);
    }

    /// Draws a dot with a dark edge.
    pub(crate) fn dot(&mut self, x: i32, y: i32, colour: Colour) {
        let radius = self.line + 1;
        self.disc(x, y, radius + (self.line / 2).max(1), Colour::BLACK);
        self.disc(x, y, radius, colour);
    }

    /// Draws text on a dark background whose bottom left corner is at `(x, y)`. The label is moved
    /// so that it lies within the frame, if it fits.
    pub(crate) fn label(&mut self, text: &str, x: i32, y: i32, colour: Colour) {
        let [width, height] = self.label_size(text);
        let (left, top) = (self.kept_within(x, width, self.picture.width()), self.kept_within(y - height, height, self.picture.height()));
        self.fill([left, top, left + width, top + height], Colour::BLACK);
        let style = MonoTextStyle::new(&FONT, BinaryColor::On);
        let mut letters = Letters { left: left + 2 * self.dot, top: top + self.dot, colour, canvas: self };
        // Drawing cannot fail: the target's error is `Infallible`.
        let Ok(_) = Text::with_baseline(text, Point::zero(), style, Baseline::Top).draw(&mut letters);
    }

    /// Returns the width and height of a label in pixels.
    pub(crate) fn label_size(&self, text: &str) -> [i32; 2] {
        let letters = text.chars().count() as i32;
        let size = FONT.character_size;
        [self.dot * (letters * size.width as i32 + 4), self.dot * (size.height as i32 + 2)]
    }

    /// Draws an anti-aliased line between two points.
    pub(crate) fn stroke(&mut self, from: [f32; 2], to: [f32; 2], thick: f32, colour: Colour) {
        let along = [to[0] - from[0], to[1] - from[1]];
        let length = along[0].hypot(along[1]);
        if length < f32::EPSILON {
            return;
        }
        let [x, y] = along.map(|side| side / length * thick / 2.0);
        // The line extends by half its thickness at both ends, so that joined lines leave no notch.
        let corner = |[px, py]: [f32; 2], end: f32, side: f32| [px + end * x - side * y, py + end * y + side * x];
        let shape = [corner(from, -1.0, 1.0), corner(to, 1.0, 1.0), corner(to, 1.0, -1.0), corner(from, -1.0, -1.0)];
        self.fill_shape(&[&shape], colour, 1.0);
    }

    /// Fills the area within an odd number of outlines (even-odd rule), anti-aliased. The outlines
    /// are closed; points may lie outside the frame.
    pub(crate) fn fill_shape(&mut self, outlines: &[&[[f32; 2]]], colour: Colour, opacity: f32) {
        let strides = [self.picture.width(), self.picture.chroma_width(), self.picture.chroma_width()];
        for (index, plane) in self.picture.planes_mut().into_iter().enumerate() {
            let scale = if index == 0 { 1.0 } else { 0.5 };
            fill_plane(plane, strides[index] as usize, outlines, scale, (colour.0[index], opacity));
        }
    }

    fn kept_within(&self, start: i32, length: i32, side: u32) -> i32 {
        start.min(side as i32 - length).max(0)
    }

    /// Draws a box whose lines reach `inside` pixels into `rect` and `outside` pixels beyond it.
    fn ring(&mut self, rect: [i32; 4], inside: i32, outside: i32, colour: Colour) {
        let [left, top, right, bottom] = [rect[0] - outside, rect[1] - outside, rect[2] + outside, rect[3] + outside];
        let thick = inside + outside;
        self.fill([left, top, right, top + thick], colour);
        self.fill([left, bottom - thick, right, bottom], colour);
        self.fill([left, top, left + thick, bottom], colour);
        self.fill([right - thick, top, right, bottom], colour);
    }

    fn disc(&mut self, x: i32, y: i32, radius: i32, colour: Colour) {
        for dy in -radius..=radius {
            let half = f64::from(radius * radius - dy * dy).sqrt().round() as i32;
            self.fill([x - half, y + dy, x + half + 1, y + dy + 1], colour);
        }
    }

    /// Fills `[left, top, right, bottom]`; right and bottom are exclusive.
    fn fill(&mut self, rect: [i32; 4], colour: Colour) {
        let [width, height] = [self.picture.width(), self.picture.height()].map(|side| side as i32);
        let (left, right) = (rect[0].clamp(0, width), rect[2].clamp(0, width));
        let (top, bottom) = (rect[1].clamp(0, height), rect[3].clamp(0, height));
        if left >= right || top >= bottom {
            return;
        }
        let strides = [self.picture.width(), self.picture.chroma_width(), self.picture.chroma_width()];
        for (index, plane) in self.picture.planes_mut().into_iter().enumerate() {
            let halved = i32::from(index > 0);
            let (columns, rows) = ((left >> halved)..((right + halved) >> halved), (top >> halved)..((bottom + halved) >> halved));
            for row in plane.chunks_exact_mut(strides[index] as usize).take(rows.end as usize).skip(rows.start as usize) {
                row[columns.start as usize..columns.end as usize].fill(colour.0[index]);
            }
        }
    }
}

/// Fills a shape, scaled by `scale`, on one plane.
fn fill_plane(plane: &mut [u8], width: usize, outlines: &[&[[f32; 2]]], scale: f32, (value, opacity): (u8, f32)) {
    /// Number of scan lines within a row of pixels on which coverage is sampled.
    const LINES: usize = 4;
    let height = plane.len() / width;
    let bounds = |axis: usize, side: usize| {
        let places = outlines.iter().flat_map(|outline| outline.iter()).map(|point| (point[axis] * scale).clamp(0.0, side as f32));
        let (first, last) = places.fold((side as f32, 0.0_f32), |(first, last), at| (first.min(at), last.max(at)));
        first.floor() as usize..last.ceil() as usize
    };
    let (columns, rows) = (bounds(0, width), bounds(1, height));
    if columns.is_empty() || rows.is_empty() {
        return;
    }
    let (mut cover, mut crossings) = (vec![0.0_f32; columns.len()], Vec::new());
    for y in rows {
        cover.fill(0.0);
        for line in 0..LINES {
            let at = y as f32 + (line as f32 + 0.5) / LINES as f32;
            crossings.clear();
            for outline in outlines {
                let turned = outline.iter().skip(1).chain(outline.first());
                for (a, b) in outline.iter().zip(turned) {
                    let ([ax, ay], [bx, by]) = (a.map(|at| at * scale), b.map(|at| at * scale));
                    if (ay <= at) != (by <= at) {
                        let x = ax + (at - ay) / (by - ay) * (bx - ax) - columns.start as f32;
                        crossings.push(x.clamp(0.0, columns.len() as f32));
                    }
                }
            }
            crossings.sort_by(f32::total_cmp);
            crossings.chunks_exact(2).for_each(|pair| add_span(&mut cover, pair[0], pair[1], opacity / LINES as f32));
        }
        for (out, cover) in plane[y * width..][columns.clone()].iter_mut().zip(&cover) {
            *out = (f32::from(*out) + (f32::from(value) - f32::from(*out)) * cover.min(1.0) + 0.5) as u8;
        }
    }
}

/// Adds to each pixel `amount` times the fraction of it that lies between `from` and `to`.
fn add_span(cover: &mut [f32], from: f32, to: f32, amount: f32) {
    let (first, last) = (from as usize, to as usize);
    if first == last {
        if let Some(cover) = cover.get_mut(first) {
            *cover += (to - from) * amount;
        }
        return;
    }
    cover[first] += (first as f32 + 1.0 - from) * amount;
    cover[first + 1..last].iter_mut().for_each(|cover| *cover += amount);
    if let Some(cover) = cover.get_mut(last) {
        *cover += (to - last as f32) * amount;
    }
}

/// Writes text into the lower left corner of a picture.
pub fn caption(picture: &mut I420, text: &str) {
    let bottom = picture.height() as i32;
    let mut canvas = Canvas::new(picture);
    canvas.label(text, 0, bottom, Colour::WHITE);
}

/// Draws each dot of the font as a square of pixels.
struct Letters<'a, 'b> {
    canvas: &'a mut Canvas<'b>,
    left: i32,
    top: i32,
    colour: Colour,
}

impl Dimensions for Letters<'_, '_> {
    fn bounding_box(&self) -> Rectangle {
        Rectangle::new(Point::zero(), Size::new(self.canvas.picture.width(), self.canvas.picture.height()))
    }
}

impl DrawTarget for Letters<'_, '_> {
    type Color = BinaryColor;
    type Error = std::convert::Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<BinaryColor>>>(&mut self, pixels: I) -> Result<(), Self::Error> {
        let dot = self.canvas.dot;
        for Pixel(point, colour) in pixels {
            if colour.is_on() {
                let (x, y) = (self.left + point.x * dot, self.top + point.y * dot);
                self.canvas.fill([x, y, x + dot, y + dot], self.colour);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_drawn_outside_and_nothing_panics_there() {
        for (width, height) in [(1, 1), (2, 3), (33, 17), (320, 180)] {
            let mut picture = I420::grey(width, height, 100);
            let mut canvas = Canvas::new(&mut picture);
            for (x, y) in [(-5000, -5000), (0, 0), (5000, 5000), (10, -3)] {
                canvas.outline([x, y, x + 40, y + 30], Colour::GREEN);
                canvas.outline([x + 40, y + 30, x, y], Colour::GREEN);
                canvas.dot(x, y, Colour::YELLOW);
                canvas.label("93%", x, y, Colour::WHITE);
            }
        }
    }

    #[test]
    fn a_shape_covers_what_lies_within_it_and_a_hole_in_it_nothing() {
        let mut picture = I420::grey(40, 40, 100);
        let square = |from: f32, to: f32| [[from, from], [to, from], [to, to], [from, to]];
        Canvas::new(&mut picture).fill_shape(&[&square(10.0, 30.5), &square(16.0, 24.0)], Colour([200, 90, 60]), 1.0);
        let luma = |x: usize, y: usize| picture.planes()[0][y * 40 + x];
        assert_eq!((luma(9, 20), luma(10, 20), luma(20, 20), luma(29, 20), luma(30, 20), luma(31, 20)), (100, 200, 100, 200, 150, 100));
        assert_eq!(picture.planes()[1][6 * 20 + 6], 90);
    }

    #[test]
    fn shapes_far_outside_do_no_harm() {
        let mut picture = I420::grey(33, 17, 100);
        let mut canvas = Canvas::new(&mut picture);
        for far in [1e30, -1e30, 0.0, 33.0] {
            canvas.stroke([far, -far], [5.0, 5.0], 3.0, Colour::GREEN);
            canvas.fill_shape(&[&[[far, 0.0], [0.0, far], [far, far]], &[]], Colour::GREEN, 0.5);
        }
    }

    #[test]
    fn letters_are_bright_on_dark() {
        let mut picture = I420::grey(640, 480, 100);
        Canvas::new(&mut picture).label("2 faces", 10, 470, Colour::WHITE);
        let luma = picture.planes()[0];
        assert!(luma.iter().filter(|luma| **luma == 235).count() > 300);
        assert!(luma.iter().filter(|luma| **luma == 16).count() > 1000);
    }
}
