//! Pictures as PNG files.

use std::io::Cursor;

use anyhow::{Context as _, bail};
use ooblex_pipeline::{I420, Rgb};

/// Decodes a PNG of any colour type.
///
/// # Errors
/// Returns an error if the bytes are not a PNG, or if the picture is too large.
pub fn decode_png(bytes: &[u8]) -> anyhow::Result<Rgb> {
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info()?;
    let (width, height) = (reader.info().width, reader.info().height);
    if width > I420::MAX_SIDE || height > I420::MAX_SIDE {
        bail!("it has {width}x{height} pixels; a side may have {} at most", I420::MAX_SIDE);
    }
    let mut pixels = vec![0; reader.output_buffer_size().context("it is too large")?];
    let info = reader.next_frame(&mut pixels)?;
    let channels = info.color_type.samples();
    let rgb = pixels.chunks_exact(channels).flat_map(|pixel| if channels < 3 { [pixel[0]; 3] } else { [pixel[0], pixel[1], pixel[2]] });
    Ok(Rgb { width, height, data: rgb.collect() })
}

/// Encodes a picture as PNG.
///
/// # Errors
/// Returns an error if the number of bytes does not match the size.
pub fn encode_png(picture: &Rgb) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, picture.width, picture.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&picture.data)?;
    writer.finish()?;
    Ok(bytes)
}
