//! Video files, read and written picture by picture. This program handles YUV4MPEG2 and VP8 in IVF
//! itself, and other formats through ffmpeg.
//!
//! The format of an input is detected from its first bytes, and the format of an output is selected
//! by its extension.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context as _, bail};
use ooblex_codec::{Decoder, Encoder, EncoderConfig, Limits, Speed};
use ooblex_pipeline::{I420, MediaTime, Size, VideoCodec};

use super::ffmpeg;
use ooblex_codec::container::ivf::{self, IvfError, IvfReader};
use ooblex_codec::container::y4m::{self, Head, Y4m, Y4mError};

/// Bits per pixel of VP8 output: twice as many as in live video, because file encoding has no
/// bandwidth limit.
const BITS_PER_PIXEL: f64 = 0.5;

/// A video that is read.
pub(super) struct Film {
    from: Origin,
    head: Head,
    frames: Option<u64>,
    path: String,
    /// True if the file may contain audio.
    pub(super) has_sound: bool,
}

enum Origin {
    Y4m(Y4m<BufReader<File>>),
    Ivf(Box<Ivf>),
    Ffmpeg(Box<ffmpeg::Reading>),
}

struct Ivf {
    reader: IvfReader<BufReader<File>>,
    decoder: Decoder,
    next: u64,
    /// The picture from which the size was determined, to be returned first.
    first: Option<I420>,
}

impl Film {
    /// Opens a file.
    ///
    /// # Errors
    /// Returns an error if the file is missing or damaged, or needs ffmpeg and ffmpeg is missing.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let name = || path.display().to_string();
        let mut file = File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
        let mut begin = [0; 9];
        let length = read_up_to(&mut file, &mut begin).with_context(|| format!("{} cannot be read", path.display()))?;
        file.seek(SeekFrom::Start(0)).with_context(|| format!("{} cannot be read", path.display()))?;
        match &begin[..length] {
            [] => bail!("{} is empty", path.display()),
            b"YUV4MPEG2" => match Y4m::new(BufReader::with_capacity(1 << 20, file)) {
                Err(Y4mError::Pixels(_)) if ffmpeg::is_there() => Self::through_ffmpeg(path),
                video => Self::y4m(path, video.with_context(name)?),
            },
            [b'D', b'K', b'I', b'F', ..] => match IvfReader::new(BufReader::with_capacity(1 << 20, file)) {
                Err(IvfError::Codec(_)) if ffmpeg::is_there() => Self::through_ffmpeg(path),
                Err(error @ IvfError::Codec(_)) => Err(error).context(name()).context("without the program ffmpeg, only VP8 can be read"),
                reader => Self::ivf(path, reader.with_context(name)?),
            },
            _ => Self::through_ffmpeg(path),
        }
    }

    fn y4m(path: &Path, video: Y4m<BufReader<File>>) -> anyhow::Result<Self> {
        let (head, Size { width, height }) = (video.head().clone(), video.size());
        let bytes = std::fs::metadata(path).map(|about| about.len()).unwrap_or_default();
        let frames = Some(bytes / y4m::bytes_of_picture(width, height));
        Ok(Self { from: Origin::Y4m(video), head, frames, path: path.display().to_string(), has_sound: false })
    }

    fn ivf(path: &Path, reader: IvfReader<BufReader<File>>) -> anyhow::Result<Self> {
        let (frames, rate) = (reader.frames(), reader.rate());
        let mut ivf = Box::new(Ivf { reader, decoder: Decoder::new(VideoCodec::Vp8, Limits::default())?, next: 0, first: None });
        let first = ivf.next_picture().with_context(|| path.display().to_string())?;
        let Some(first) = first else { bail!("{}: there is no picture in it", path.display()) };
        let head = Head { width: first.width(), height: first.height(), rate, aspect: None };
        ivf.first = Some(first);
        Ok(Self { from: Origin::Ivf(ivf), head, frames: Some(frames), path: path.display().to_string(), has_sound: false })
    }

    fn through_ffmpeg(path: &Path) -> anyhow::Result<Self> {
        let reading = ffmpeg::Reading::start(path)?;
        let (head, frames) = (reading.head().clone(), reading.frames());
        Ok(Self { from: Origin::Ffmpeg(Box::new(reading)), head, frames, path: path.display().to_string(), has_sound: true })
    }

    /// Returns the size, frame rate and pixel aspect ratio.
    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    /// Returns the approximate number of pictures; `None` if unknown.
    pub(super) fn frames(&self) -> Option<u64> {
        self.frames
    }

    /// Returns the next picture; `None` at the end.
    ///
    /// # Errors
    /// Returns an error if the file is damaged or truncated, or if the size of its pictures
    /// changes.
    pub(super) fn next_picture(&mut self) -> anyhow::Result<Option<I420>> {
        let picture = match &mut self.from {
            Origin::Y4m(video) => match video.next_picture() {
                Err(Y4mError::Io(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    bail!("{}: it ends within a picture: the file is cut short", self.path)
                }
                picture => picture.with_context(|| self.path.clone())?,
            },
            Origin::Ivf(ivf) => ivf.next_picture().with_context(|| self.path.clone())?,
            Origin::Ffmpeg(reading) => reading.next_picture()?,
        };
        let size = (self.head.width, self.head.height);
        if let Some(picture) = picture.as_ref().filter(|picture| (picture.width(), picture.height()) != size) {
            let now = (picture.width(), picture.height());
            bail!("{}: its pictures change from {}x{} to {}x{}: cut it where they do", self.path, size.0, size.1, now.0, now.1);
        }
        Ok(picture)
    }
}

impl Ivf {
    fn next_picture(&mut self) -> anyhow::Result<Option<I420>> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        while let Some((_, data)) = self.reader.next_frame(self.next)? {
            let number = self.next;
            self.next += 1;
            // Some frames are not shown, and only change the reference pictures of later frames.
            if let Some(picture) = self.decoder.decode(&data).with_context(|| format!("frame {number}"))? {
                return Ok(Some(picture));
            }
        }
        Ok(None)
    }
}

fn read_up_to(from: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match from.read(&mut buffer[length..])? {
            0 => break,
            more => length += more,
        }
    }
    Ok(length)
}

/// A video that is written.
pub(super) struct Cut {
    to: To,
    wanted: String,
}

enum To {
    Y4m(BufWriter<File>),
    Ivf(Box<Vp8>),
    Ffmpeg(Box<ffmpeg::Writing>),
}

struct Vp8 {
    file: BufWriter<File>,
    encoder: Encoder,
    head: Head,
    frames: u32,
}

impl Cut {
    /// Starts a file at `place`; the extension of `wanted` selects its format. `sound` is a file
    /// whose audio is copied to the output.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written, or needs ffmpeg and ffmpeg is missing.
    pub(super) fn begin(place: &Path, wanted: &Path, head: &Head, sound: Option<&Path>) -> anyhow::Result<Self> {
        let name = wanted.display().to_string();
        let create = || File::create(place).map(|file| BufWriter::with_capacity(1 << 20, file)).with_context(|| can_not(&name));
        let to = match super::ending(wanted).as_str() {
            "y4m" => {
                let mut file = create()?;
                y4m::write_head(&mut file, head).with_context(|| can_not(&name))?;
                To::Y4m(file)
            }
            "ivf" => {
                let mut file = create()?;
                ivf::write_head(&mut file, (head.width, head.height), head.rate, 0).with_context(|| can_not(&name))?;
                let bits = f64::from(head.width) * f64::from(head.height) * head.rate.hz() * BITS_PER_PIXEL;
                let frame_rate = head.rate.hz().clamp(1.0, 240.0) as f32;
                let config = EncoderConfig { codec: VideoCodec::Vp8, bitrate_bps: bits as u32, frame_rate, speed: Speed::Balanced };
                To::Ivf(Box::new(Vp8 { file, encoder: Encoder::new(config)?, head: head.clone(), frames: 0 }))
            }
            _ => To::Ffmpeg(Box::new(ffmpeg::Writing::start(place, wanted, head, sound)?)),
        };
        Ok(Self { to, wanted: name })
    }

    /// Appends a picture.
    ///
    /// # Errors
    /// Returns an error if the picture cannot be written.
    pub(super) fn put(&mut self, picture: &I420) -> anyhow::Result<()> {
        match &mut self.to {
            To::Y4m(file) => y4m::write_picture(file, picture).with_context(|| can_not(&self.wanted)),
            To::Ivf(vp8) => vp8.put(picture).with_context(|| can_not(&self.wanted)),
            To::Ffmpeg(writing) => writing.put(picture),
        }
    }

    /// Completes the file.
    ///
    /// # Errors
    /// Returns an error if the rest cannot be written.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        match self.to {
            To::Y4m(mut file) => file.flush().with_context(|| can_not(&self.wanted)),
            To::Ivf(vp8) => vp8.finish().with_context(|| can_not(&self.wanted)),
            To::Ffmpeg(writing) => writing.finish(),
        }
    }
}

impl Vp8 {
    fn put(&mut self, picture: &I420) -> anyhow::Result<()> {
        let (count, per) = self.head.rate.parts();
        let time = MediaTime(u64::from(self.frames) * 90_000 * u64::from(per) / u64::from(count));
        if let Some(frame) = self.encoder.encode(picture, time, false)? {
            ivf::write_frame(&mut self.file, self.frames.into(), &frame.data)?;
        }
        self.frames += 1;
        Ok(())
    }

    fn finish(mut self) -> std::io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        ivf::write_head(&mut self.file, (self.head.width, self.head.height), self.head.rate, self.frames)?;
        self.file.flush()
    }
}

fn can_not(name: &str) -> String {
    format!("{name} cannot be written")
}
