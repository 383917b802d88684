//! Scales pictures down before they are encoded. The caller decides when and to which size.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use ooblex_pipeline::{I420, Pool};

/// Scales the pictures of one stream down, and keeps its buffers for the next one.
#[derive(Default)]
pub struct Scaler {
    resizer: Resizer,
    pool: Pool,
}

impl Scaler {
    /// Creates a scaler without buffers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the picture scaled to `width × height`. Every pixel is the weighted mean of the
    /// pixels that it replaces.
    ///
    /// # Panics
    /// When a side is 0.
    pub fn scale(&mut self, picture: &I420, width: u32, height: u32) -> I420 {
        let mut scaled = self.pool.picture(width, height);
        let from = [(picture.width(), picture.height()), chroma(picture), chroma(picture)];
        let to = [(width, height), chroma(&scaled), chroma(&scaled)];
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).use_alpha(false);
        for (((source, target), from), to) in picture.planes().into_iter().zip(scaled.planes_mut()).zip(from).zip(to) {
            // `resize` would compile the filters for all types of pixels, a minute of CPU time.
            let source = TypedImageRef::<U8>::from_buffer(from.0, from.1, source).expect("a plane has the bytes of its size");
            let mut target = TypedImage::<U8>::from_buffer(to.0, to.1, target).expect("a plane has the bytes of its size");
            self.resizer.resize_typed(&source, &mut target, &options).expect("the whole source is used");
        }
        scaled
    }
}

fn chroma(picture: &I420) -> (u32, u32) {
    (picture.chroma_width(), picture.chroma_height())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plane_keeps_its_levels_and_its_place() {
        let mut picture = I420::grey(64, 48, 50);
        let half = picture.planes()[0].len() / 2;
        picture.planes_mut()[0][half..].fill(200);
        picture.planes_mut()[1].fill(90);
        picture.planes_mut()[2].fill(160);
        let scaled = Scaler::new().scale(&picture, 33, 21);
        let [luma, u, v] = scaled.planes();
        assert_eq!((luma.len(), u.len()), (33 * 21, 17 * 11));
        assert!(luma[..33 * 9].iter().all(|level| *level == 50) && luma[33 * 12..].iter().all(|level| *level == 200));
        assert!(u.iter().all(|level| *level == 90) && v.iter().all(|level| *level == 160));
    }

    #[test]
    fn nothing_of_earlier_pictures_is_left_in_their_memory() {
        let mut scaler = Scaler::new();
        for (from, to) in [((64, 48), (33, 21)), ((65, 49), (33, 21)), ((65, 49), (17, 33)), ((1280, 720), (427, 241)), ((3, 5), (1, 1))] {
            let mut picture = I420::grey(from.0, from.1, 50);
            picture.planes_mut().into_iter().flatten().enumerate().for_each(|(index, pixel)| *pixel = (index * 7919 % 251) as u8);
            let mut earlier: Vec<_> = (0..Pool::KEPT).map(|_| scaler.pool.picture(to.0, to.1)).collect();
            earlier.iter_mut().flat_map(I420::planes_mut).for_each(|plane| plane.fill(255));
            drop(earlier);
            assert!(scaler.scale(&picture, to.0, to.1) == Scaler::new().scale(&picture, to.0, to.1), "{from:?} to {to:?}");
        }
    }
}
