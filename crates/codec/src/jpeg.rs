//! Pictures as JPEG (JFIF): BT.601 with full range and 4:2:0. The planes are taken as they are, so
//! only the range changes, and no picture is converted to RGB.

use jpeg_encoder::{Encoder, EncodingError, ImageBuffer, JpegColorType, SamplingFactor};
use ooblex_pipeline::I420;

/// Quality of the pictures, 1..=100.
const QUALITY: u8 = 85;

/// Full-range values of luma with limited range.
const LUMA: [u8; 256] = full_range(219, 16, 0);
/// Full-range values of chroma with limited range.
const CHROMA: [u8; 256] = full_range(224, 128, 128);

/// Returns the table of `(value - from) · 255 / span + to`, rounded.
const fn full_range(span: i32, from: i32, to: i32) -> [u8; 256] {
    let mut table = [0; 256];
    let mut value = 0;
    while value < 256 {
        let full = ((value - from) * 255 + span / 2).div_euclid(span) + to;
        table[value as usize] = if full < 0 {
            0
        } else if full > 255 {
            255
        } else {
            full as u8
        };
        value += 1;
    }
    table
}

/// Encodes a picture.
///
/// # Errors
/// When the encoder refuses the picture.
pub fn encode_jpeg(picture: &I420) -> Result<Vec<u8>, EncodingError> {
    let mut jpeg = Vec::new();
    let mut encoder = Encoder::new(&mut jpeg, QUALITY);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.encode_image(Planes(picture))?;
    Ok(jpeg)
}

/// The rows of a picture, with each sample of chroma four times: the encoder's mean of four is the
/// sample itself.
struct Planes<'a>(&'a I420);

impl ImageBuffer for Planes<'_> {
    fn get_jpeg_color_type(&self) -> JpegColorType {
        JpegColorType::Ycbcr
    }

    fn width(&self) -> u16 {
        self.0.width() as u16
    }

    fn height(&self) -> u16 {
        self.0.height() as u16
    }

    fn fill_buffers(&self, y: u16, buffers: &mut [Vec<u8>; 4]) {
        let (width, chroma_width) = (self.0.width() as usize, self.0.chroma_width() as usize);
        let [luma, u, v] = self.0.planes();
        let [to_luma, to_u, to_v, _] = buffers;
        to_luma.extend(luma[usize::from(y) * width..][..width].iter().map(|value| LUMA[usize::from(*value)]));
        for (to, plane) in [(to_u, u), (to_v, v)] {
            let row = &plane[usize::from(y) / 2 * chroma_width..][..chroma_width];
            to.extend(row.iter().flat_map(|value| [CHROMA[usize::from(*value)]; 2]).take(width));
        }
    }
}

#[cfg(test)]
mod tests {
    use zune_jpeg::JpegDecoder;
    use zune_jpeg::zune_core::bytestream::ZCursor;
    use zune_jpeg::zune_core::colorspace::ColorSpace;
    use zune_jpeg::zune_core::options::DecoderOptions;

    use super::*;

    /// Decodes a JPEG to pixels of Y, Cb and Cr, in full range.
    fn decode(jpeg: &[u8]) -> ((usize, usize), Vec<u8>) {
        let options = DecoderOptions::default().jpeg_set_out_colorspace(ColorSpace::YCbCr);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(jpeg), options);
        let pixels = decoder.decode().unwrap();
        (decoder.dimensions().unwrap(), pixels)
    }

    #[test]
    fn limited_range_becomes_full_range_and_the_middle_stays() {
        assert_eq!([0, 16, 125, 126, 235, 255].map(|luma| LUMA[luma]), [0, 0, 127, 128, 255, 255]);
        assert_eq!([0, 16, 127, 128, 129, 240, 255].map(|chroma| CHROMA[chroma]), [0, 1, 127, 128, 129, 255, 255]);
    }

    #[test]
    fn picture_is_encoded_with_its_colours_also_with_odd_sides() {
        for (width, height) in [(64, 48), (63, 47), (1, 1), (17, 2)] {
            let mut picture = I420::grey(width, height, 180);
            let [_, u, v] = picture.planes_mut();
            u.fill(90);
            v.fill(200);
            let (size, pixels) = decode(&encode_jpeg(&picture).unwrap());
            assert_eq!(size, (width as usize, height as usize));
            let expected = [LUMA[180], CHROMA[90], CHROMA[200]];
            for pixel in pixels.chunks_exact(3) {
                let is_near = pixel.iter().zip(expected).all(|(value, expected)| value.abs_diff(expected) <= 2);
                assert!(is_near, "{width}x{height}: {pixel:?} instead of {expected:?}");
            }
        }
    }

    #[test]
    fn edges_stay_where_they_are() {
        let mut picture = I420::grey(64, 48, 16);
        let [luma, u, _] = picture.planes_mut();
        luma.chunks_exact_mut(64).for_each(|row| row[32..].fill(235));
        u.chunks_exact_mut(32).take(12).for_each(|row| row.fill(200));
        let (_, pixels) = decode(&encode_jpeg(&picture).unwrap());
        let at = |x: usize, y: usize| &pixels[(y * 64 + x) * 3..][..3];
        assert!(at(20, 20)[0] < 10 && at(40, 20)[0] > 245, "{:?} {:?}", at(20, 20), at(40, 20));
        assert!(at(20, 10)[1].abs_diff(CHROMA[200]) < 5 && at(20, 40)[1].abs_diff(128) < 5, "{:?} {:?}", at(20, 10), at(20, 40));
    }
}
