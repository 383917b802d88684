//! The video that the sessions of `ooblex bench` send: a few seconds, generated and encoded once.
//! Every frame has its number drawn on it, and is kept with the [`Look`] that its decoded picture
//! has.
//!
//! This module owns pictures, camera motion and noise, and knows nothing of sessions. The clip is
//! made before the first session begins, and all sessions share it.

use std::fs::File;
use std::io::{BufReader, Cursor};
use std::path::Path;

use ooblex_codec::{CodecError, DecodeError, Decoder, EncodeError, Encoder, EncoderConfig, Limits, Speed};
use ooblex_effects::{BadPicture, i420_from_rgb};
use ooblex_pipeline::{EncodedFrame, I420, MediaTime, Rgb, Size, VideoCodec};

use super::effect_check::{Area, Look};
use super::frame_number;
use ooblex_codec::container::y4m::{Y4m, Y4mError};

/// Number of frames of a clip made of one picture; the camera motion repeats with this period.
const FRAMES: u16 = 256;
/// Bits per pixel of the default bitrate.
const BITS_PER_PIXEL: f64 = 0.15;
/// Minimum width and height, in pixels: a smaller picture has no room for a number.
const LEAST_SIDE: u32 = 96;
/// Standard deviation of the noise, in luma levels: about that of a webcam in a lit room.
const NOISE: f32 = 2.0;
/// The default picture: NASA's portrait of Eileen Collins, in the public domain.
const PORTRAIT: &[u8] = include_bytes!("../../../tests/media/astronaut.png");
/// A box of background, in pixels of the portrait: left, top, right, bottom. It is the lower part
/// of the space shuttle behind her, which has hard edges and is background in every frame.
const PORTRAIT_BACKGROUND: [f64; 4] = [362.0, 145.0, 454.0, 250.0];

/// Parameters of a clip.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ClipPlan {
    /// Path of a PNG or Y4M file; `None` selects the portrait.
    pub(super) file: Option<std::path::PathBuf>,
    /// Size in pixels; `None` selects the file's size, or 640×480 where the file is not
    /// a video.
    pub(super) size: Option<Size>,
    /// Frames per second.
    pub(super) fps: u32,
    /// Codec of the frames.
    pub(super) codec: VideoCodec,
    /// Bitrate in bits per second; `None` selects one by the size.
    pub(super) bitrate_bps: Option<u32>,
}

/// A few seconds of encoded video. It begins with a keyframe and can be repeated.
#[derive(Debug)]
pub(super) struct Clip {
    /// The frames; the number drawn on each is its index.
    pub(super) frames: Vec<ClipFrame>,
    /// Codec of the frames.
    pub(super) codec: VideoCodec,
    /// Size in pixels.
    pub(super) size: Size,
    /// Frames per second.
    pub(super) fps: u32,
    /// Target bitrate in bits per second.
    pub(super) bitrate_bps: u32,
    /// The area that is background in every frame; `None` if unknown.
    pub(super) background: Option<Area>,
}

/// One frame of a clip.
#[derive(Debug)]
pub(super) struct ClipFrame {
    /// The encoded picture.
    pub(super) frame: EncodedFrame,
    /// Appearance of the picture once decoded.
    pub(super) look: Look,
}

/// A clip that could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClipError {
    /// The file cannot be opened or read.
    #[error("{file} cannot be read: {reason}")]
    File {
        /// Path of the file.
        file: String,
        /// Reason from the system or the parser.
        reason: String,
    },
    /// The size is outside the limits of a clip.
    #[error("a clip of {0}x{1} cannot be made: sides are {LEAST_SIDE} to {max}, write for example --size 640x480", max = I420::MAX_SIDE)]
    Size(u32, u32),
    /// The encoder refused a picture.
    #[error("the clip cannot be compressed: {0}")]
    Encode(#[from] EncodeError),
    /// The encoder or the decoder could not be created.
    #[error("the clip cannot be compressed: {0}")]
    Codec(#[from] CodecError),
    /// An encoded frame could not be decoded again.
    #[error("the clip that was compressed cannot be decoded: {0}")]
    Decode(#[from] DecodeError),
    /// The encoder returned no frame for a picture.
    #[error("{codec} gave no frame for picture {picture} of the clip: ask for a higher --bitrate")]
    LeftOut {
        /// Name of the codec.
        codec: &'static str,
        /// Index of the picture in the clip.
        picture: usize,
    },
}

impl Clip {
    /// Makes a clip, which takes about 10 ms per frame at 640×480.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, or if the codec does not accept the size.
    pub(super) fn make(plan: &ClipPlan) -> Result<Self, ClipError> {
        let mut source = Source::open(plan.file.as_deref())?;
        let size = plan.size.or(source.own_size()).unwrap_or(Size::new(640, 480));
        let sides = LEAST_SIDE..=I420::MAX_SIDE;
        if !sides.contains(&size.width) || !sides.contains(&size.height) {
            return Err(ClipError::Size(size.width, size.height));
        }
        let useful = size.pixels() * f64::from(plan.fps) * BITS_PER_PIXEL;
        let bitrate_bps = plan.bitrate_bps.unwrap_or((useful as u32).clamp(150_000, 4_000_000));
        let config = EncoderConfig { codec: plan.codec, bitrate_bps, frame_rate: plan.fps as f32, speed: Speed::Fast };
        let (mut encoder, mut decoder) = (Encoder::new(config)?, Decoder::new(plan.codec, Limits::default())?);
        let background = source.background(size);
        let mut frames = Vec::new();
        while let Some(picture) = source.next_picture(size)? {
            let capture = MediaTime(frames.len() as u64 * 90_000 / u64::from(plan.fps));
            let frame =
                encoder.encode(&picture, capture, false)?.ok_or(ClipError::LeftOut { codec: plan.codec.label(), picture: frames.len() })?;
            let shown = decoder.decode(&frame.data)?.unwrap_or(picture);
            frames.push(ClipFrame { frame, look: Look::of(&shown, background) });
        }
        Ok(Self { frames, codec: plan.codec, size, fps: plan.fps, bitrate_bps, background })
    }

    /// Returns the index of the frame after `index`; the last frame is followed by the first.
    pub(super) fn after(&self, index: u16) -> u16 {
        (index + 1) % self.frames.len() as u16
    }
}

/// Source of a clip's pictures.
enum Source {
    /// One picture, over which a virtual camera moves.
    Still { picture: Box<I420>, background: Option<[f64; 4]>, noise: Noise, next: u16 },
    /// A video, used without changes.
    Video { video: Box<Y4m<BufReader<File>>>, file: String, next: u16 },
}

impl Source {
    fn open(file: Option<&Path>) -> Result<Self, ClipError> {
        let still = |picture, background| Self::Still { picture: Box::new(picture), background, noise: Noise::new(), next: 0 };
        let Some(path) = file else {
            let picture = read_png(Cursor::new(PORTRAIT)).map_err(|reason| ClipError::File { file: "the portrait".into(), reason })?;
            return Ok(still(picture, Some(PORTRAIT_BACKGROUND)));
        };
        let unreadable = |reason: String| ClipError::File { file: path.display().to_string(), reason };
        let opened = || File::open(path).map(BufReader::new).map_err(|error| unreadable(error.to_string()));
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("y4m")) {
            let video = Y4m::new(opened()?).map_err(|error| unreadable(error.to_string()))?;
            return Ok(Self::Video { video: Box::new(video), file: path.display().to_string(), next: 0 });
        }
        let picture = read_png(opened()?).map_err(|reason| unreadable(format!("{reason}; a clip is a PNG picture or a video in .y4m")))?;
        Ok(still(picture, None))
    }

    fn own_size(&self) -> Option<Size> {
        match self {
            Source::Still { .. } => None,
            Source::Video { video, .. } => Some(video.size()),
        }
    }

    /// Returns the area of the frame that shows only background throughout the clip.
    fn background(&self, size: Size) -> Option<Area> {
        let Source::Still { picture, background: Some(background), .. } = self else { return None };
        let (width, height, strip) = (f64::from(size.width), f64::from(size.height), f64::from(frame_number::strip_height(size.height)));
        let places = (0..FRAMES).map(|number| Place::moving(picture, size, number));
        // The area excludes the last column and row, because sharpness compares each pixel with the
        // next one.
        let shown = places
            .map(|place| place.shown(*background))
            .fold([0.0, strip, width - 1.0, height - 1.0], |a, b| [a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
        Area::new(shown.map(|side| side.round().max(0.0) as usize))
    }

    /// Returns the next picture with its number drawn on it; `None` at the end of the clip.
    fn next_picture(&mut self, size: Size) -> Result<Option<I420>, ClipError> {
        let mut shown = I420::grey(size.width, size.height, 16);
        let number = match self {
            Source::Still { next, .. } if *next == FRAMES => return Ok(None),
            Source::Still { picture, noise, next, .. } => {
                draw(&mut shown, picture, &Place::moving(picture, size, *next), Some(noise));
                next
            }
            Source::Video { next, .. } if *next == frame_number::NUMBERS => return Ok(None),
            Source::Video { video, file, next } => {
                let read = video.next_picture().map_err(|error| ClipError::File { file: file.clone(), reason: error.to_string() })?;
                match read {
                    Some(picture) => draw(&mut shown, &picture, &Place::still(&picture, size), None),
                    None if *next == 0 => return Err(ClipError::File { file: file.clone(), reason: Y4mError::Empty.to_string() }),
                    None => return Ok(None),
                }
                next
            }
        };
        frame_number::draw(&mut shown, *number);
        *number += 1;
        Ok(Some(shown))
    }
}

/// Placement of a picture in a frame: the picture's point `x, y` is shown at `(x - left) * scale,
/// strip + (y - top) * scale`.
#[derive(Debug, Clone, Copy)]
struct Place {
    left: f64,
    top: f64,
    scale: f64,
    strip: f64,
}

impl Place {
    /// Returns the centred placement with the largest scale that fills the frame below the strip.
    fn still(picture: &I420, Size { width, height }: Size) -> Self {
        let strip = f64::from(frame_number::strip_height(height));
        let (columns, rows) = (f64::from(picture.width()), f64::from(picture.height()));
        let (width, height) = (f64::from(width), f64::from(height) - strip);
        let view = columns.min(rows * width / height);
        Self { left: (columns - view) / 2.0, top: (rows - view * height / width) / 2.0, scale: width / view, strip }
    }

    /// Returns the placement of frame `frame_number` under the motion of a hand-held camera, with a
    /// period of [`FRAMES`] frames. A tall frame shows the right part, where the portrait's
    /// background has edges.
    fn moving(picture: &I420, Size { width, height }: Size, number: u16) -> Self {
        let strip = f64::from(frame_number::strip_height(height));
        let (columns, rows) = (f64::from(picture.width()), f64::from(picture.height()));
        let shape = f64::from(width) / (f64::from(height) - strip);
        let widest = columns.min(0.97 * rows * shape);
        let turn = std::f64::consts::TAU * f64::from(number) / f64::from(FRAMES);
        let view = widest * (0.95 + 0.02 * turn.cos());
        let home = (columns - widest).min(0.19 * columns);
        let top = rows * 0.008 * (1.0 + (2.0 * turn).sin());
        Self { left: home + (widest - view) * (0.5 + 0.45 * turn.sin()), top, scale: f64::from(width) / view, strip }
    }

    /// Returns where a box of the picture is shown in the frame.
    fn shown(&self, [x0, y0, x1, y1]: [f64; 4]) -> [f64; 4] {
        let at = |x: f64, y: f64| [(x - self.left) * self.scale, self.strip + (y - self.top) * self.scale];
        let ([left, top], [right, bottom]) = (at(x0, y0), at(x1, y1));
        [left, top, right, bottom]
    }
}

/// Draws a picture into the frame below the strip, with bilinear interpolation.
fn draw(frame: &mut I420, picture: &I420, place: &Place, mut noise: Option<&mut Noise>) {
    let from_sizes = [(picture.width(), picture.height()), (picture.chroma_width(), picture.chroma_height())];
    let to_widths = [frame.width() as usize, frame.chroma_width() as usize];
    for (index, (to, from)) in frame.planes_mut().into_iter().zip(picture.planes()).enumerate() {
        let ((columns, rows), shrink) = (from_sizes[index.min(1)], if index == 0 { 1.0 } else { 2.0 });
        let place = Place { left: place.left / shrink, top: place.top / shrink, strip: place.strip / shrink, ..*place };
        let width = to_widths[index.min(1)];
        let across: Vec<_> = (0..width).map(|x| between(x as f64 / place.scale + place.left, columns)).collect();
        for (y, row) in to.chunks_exact_mut(width).enumerate().skip(place.strip as usize) {
            let (above, below) = between((y as f64 - place.strip) / place.scale + place.top, rows);
            let [upper, lower] = [above, (above + 1).min(rows as usize - 1)].map(|y| &from[y * columns as usize..][..columns as usize]);
            for (to, (left, right)) in row.iter_mut().zip(&across) {
                let next = (left + 1).min(columns as usize - 1);
                let mix = |row: &[u8]| f32::from(row[*left]) + (f32::from(row[next]) - f32::from(row[*left])) * right;
                let value = mix(upper) + (mix(lower) - mix(upper)) * below;
                let noise = noise.as_mut().map_or(0.0, |noise| noise.next() / shrink as f32);
                *to = (value + noise + 0.5).clamp(16.0, 240.0) as u8;
            }
        }
    }
}

/// Returns the index of the pixel at or before a position, and the fraction of the way to the next
/// pixel.
fn between(at: f64, count: u32) -> (usize, f32) {
    let at = at.clamp(0.0, f64::from(count - 1));
    (at as usize, at.fract() as f32)
}

/// Sensor-like Gaussian noise from a fixed seed, identical in every run.
struct Noise {
    state: u32,
    bell: Vec<f32>,
}

impl Noise {
    fn new() -> Self {
        let mut noise = Self { state: 0x9e37_79b9, bell: Vec::new() };
        // The sum of twelve uniform numbers in 0..=1 has a standard deviation of 1.
        let mut bell = || (0..12).map(|_| noise.random() as f32 / 2.0_f32.powi(32)).sum::<f32>() - 6.0;
        noise.bell = (0..1 << 14).map(|_| NOISE * bell()).collect();
        noise
    }

    fn next(&mut self) -> f32 {
        let at = self.random() as usize % self.bell.len();
        self.bell[at]
    }

    fn random(&mut self) -> u32 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 17;
        self.state ^= self.state << 5;
        self.state
    }
}

fn read_png(from: impl std::io::BufRead + std::io::Seek) -> Result<I420, String> {
    let mut decoder = png::Decoder::new(from);
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(|error| error.to_string())?;
    let (width, height) = (reader.info().width, reader.info().height);
    if width > I420::MAX_SIDE || height > I420::MAX_SIDE {
        return Err(format!("it has {width}x{height} pixels; a side may have {} at most", I420::MAX_SIDE));
    }
    let mut pixels = vec![0; reader.output_buffer_size().ok_or("it is too large")?];
    let info = reader.next_frame(&mut pixels).map_err(|error| error.to_string())?;
    let channels = info.color_type.samples();
    let rgb = pixels.chunks_exact(channels).flat_map(|pixel| if channels < 3 { [pixel[0]; 3] } else { [pixel[0], pixel[1], pixel[2]] });
    i420_from_rgb(&Rgb { width, height, data: rgb.collect() }).map_err(|error: BadPicture| error.to_string())
}
