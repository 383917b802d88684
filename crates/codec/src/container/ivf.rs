//! IVF container with VP8 video: a file header, and frames with their length and timestamp. This
//! module owns the container; the codec is in `ooblex_codec`.
//!
//! Layout, little-endian (libvpx, `ivfdec.c`): `DKIF`, version u16, header length u16, FourCC,
//! width u16, height u16, time base denominator u32, time base numerator u32, number of frames u32,
//! unused u32; then for each frame its length u32, its timestamp u64 in units of the time base, and
//! its bytes.

use std::io::{Read, Seek, SeekFrom, Write};

use super::rate::Rate;

/// Length of a written file header, in bytes.
const HEAD: u16 = 32;
/// Maximum length of a frame in bytes. Compressed pictures are never larger, and the limit keeps a
/// damaged length from exhausting the memory.
const MAX_FRAME: u32 = 64 << 20;

/// Reads an IVF file frame by frame.
pub struct IvfReader<R> {
    from: R,
    ticks: Rate,
    frames: u64,
    rate: Rate,
}

/// Error in reading an IVF file.
#[derive(Debug, thiserror::Error)]
pub enum IvfError {
    /// The file cannot be read, or it ends within a frame.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The file does not begin with an IVF header.
    #[error("its header is no IVF header")]
    Header,
    /// The file contains another codec.
    #[error("its video is '{0}', not VP8")]
    Codec(String),
    /// The length of a frame exceeds the maximum.
    #[error("frame {frame} claims to have {bytes} bytes: the file is damaged")]
    Length {
        /// Index of the frame, from 0.
        frame: u64,
        /// Length in its frame header.
        bytes: u32,
    },
    /// The file ends within a frame.
    #[error("it ends within frame {frame}: the file is cut short")]
    Cut {
        /// Index of the frame, from 0.
        frame: u64,
    },
}

impl<R: Read + Seek> IvfReader<R> {
    /// Reads the header, and scans the frames to determine their number and the frame rate.
    pub fn new(mut from: R) -> Result<Self, IvfError> {
        let mut head = [0; HEAD as usize];
        from.read_exact(&mut head).map_err(|_| IvfError::Header)?;
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if &head[..4] != b"DKIF" {
            return Err(IvfError::Header);
        }
        if &head[8..12] != b"VP80" {
            let name = head[8..12].iter().map(|byte| char::from(*byte)).filter(char::is_ascii_graphic).collect();
            return Err(IvfError::Codec(name));
        }
        let ticks = Rate::new(word(16), word(20)).ok_or(IvfError::Header)?;
        let begins = u64::from(u16::from_le_bytes([head[6], head[7]]).max(HEAD));
        let end = from.seek(SeekFrom::End(0))?;
        let (mut at, mut frames, mut first, mut last) = (begins, 0, 0, 0);
        while at < end {
            from.seek(SeekFrom::Start(at))?;
            let (length, time) = frame_head(&mut from, frames)?;
            at += 12 + u64::from(length);
            if at > end {
                return Err(IvfError::Cut { frame: frames });
            }
            first = if frames == 0 { time } else { first };
            last = time;
            frames += 1;
        }
        from.seek(SeekFrom::Start(begins))?;
        let rate = mean_rate(ticks, frames, last.saturating_sub(first)).unwrap_or(ticks);
        Ok(Self { from, ticks, frames, rate })
    }

    /// Returns the next frame: its timestamp at 90 kHz, and its bytes.
    pub fn next_frame(&mut self, index: u64) -> Result<Option<(u64, Vec<u8>)>, IvfError> {
        if index >= self.frames {
            return Ok(None);
        }
        let (length, time) = frame_head(&mut self.from, index)?;
        let mut data = vec![0; length as usize];
        self.from.read_exact(&mut data).map_err(|_| IvfError::Cut { frame: index })?;
        let (count, per) = self.ticks.parts();
        let time = u128::from(time) * 90_000 * u128::from(per) / u128::from(count);
        Ok(Some((u64::try_from(time).unwrap_or(u64::MAX), data)))
    }

    /// Returns the number of frames.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Returns the frame rate.
    pub fn rate(&self) -> Rate {
        self.rate
    }
}

/// Computes the mean frame rate from the timestamps, because the time base of a file may be one
/// frame or one millisecond.
fn mean_rate(ticks: Rate, frames: u64, span: u64) -> Option<Rate> {
    let (count, per) = ticks.parts();
    let gaps = frames.checked_sub(1).filter(|gaps| *gaps > 0)?;
    if span == gaps {
        return Some(ticks);
    }
    let hz = gaps as f64 * f64::from(count) / (span as f64 * f64::from(per));
    (hz.is_finite() && (1.0..=1000.0).contains(&hz)).then(|| Rate::new((hz * 1000.0).round() as u32, 1000)).flatten()
}

fn frame_head(from: &mut impl Read, frame: u64) -> Result<(u32, u64), IvfError> {
    let mut head = [0; 12];
    from.read_exact(&mut head).map_err(|_| IvfError::Cut { frame })?;
    let [a, b, c, d, time @ ..] = head;
    let bytes = u32::from_le_bytes([a, b, c, d]);
    if bytes > MAX_FRAME { Err(IvfError::Length { frame, bytes }) } else { Ok((bytes, u64::from_le_bytes(time))) }
}

/// Writes the header of a VP8 file. It is written again at the end, when the number of frames is
/// known.
pub fn write_head(to: &mut impl Write, (width, height): (u32, u32), rate: Rate, frames: u32) -> std::io::Result<()> {
    let (count, per) = rate.parts();
    to.write_all(b"DKIF\0\0")?;
    to.write_all(&HEAD.to_le_bytes())?;
    to.write_all(b"VP80")?;
    // Widths and heights are at most 4096, so they fit into 16 bits.
    [width, height].into_iter().try_for_each(|side| to.write_all(&(side as u16).to_le_bytes()))?;
    [count, per, frames, 0].into_iter().try_for_each(|word| to.write_all(&word.to_le_bytes()))
}

/// Writes the next frame; `index` is its timestamp in frames.
pub fn write_frame(to: &mut impl Write, index: u64, data: &[u8]) -> std::io::Result<()> {
    to.write_all(&(data.len() as u32).to_le_bytes())?;
    to.write_all(&index.to_le_bytes())?;
    to.write_all(data)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn file(frames: &[(u64, &[u8])], ticks: Rate) -> Vec<u8> {
        let mut file = Vec::new();
        write_head(&mut file, (64, 48), ticks, frames.len() as u32).unwrap();
        frames.iter().for_each(|(time, data)| write_frame(&mut file, *time, data).unwrap());
        file
    }

    #[test]
    fn what_is_written_is_read_again_with_its_times() {
        let rate = Rate::new(25, 1).unwrap();
        let mut ivf = IvfReader::new(Cursor::new(file(&[(0, b"one"), (1, b""), (2, b"three")], rate))).unwrap();
        assert_eq!((ivf.frames(), ivf.rate()), (3, rate));
        assert_eq!(ivf.next_frame(0).unwrap(), Some((0, b"one".to_vec())));
        assert_eq!(ivf.next_frame(1).unwrap(), Some((3600, Vec::new())));
        assert_eq!(ivf.next_frame(2).unwrap(), Some((7200, b"three".to_vec())));
        assert_eq!(ivf.next_frame(3).unwrap(), None);
    }

    #[test]
    fn a_file_in_milliseconds_has_the_rate_of_its_frames() {
        let ivf = IvfReader::new(Cursor::new(file(&[(0, b"a"), (40, b"b"), (80, b"c")], Rate::new(1000, 1).unwrap()))).unwrap();
        assert!((ivf.rate().hz() - 25.0).abs() < 0.01, "{}", ivf.rate());
    }

    #[test]
    fn what_is_damaged_is_told() {
        let whole = file(&[(0, b"one"), (1, b"two")], Rate::THIRTY);
        let refused = |file: Vec<u8>| IvfReader::new(Cursor::new(file)).err().unwrap();
        assert!(matches!(refused(whole[..whole.len() - 1].to_vec()), IvfError::Cut { frame: 1 }));
        assert!(matches!(refused(whole[..whole.len() - 8].to_vec()), IvfError::Cut { frame: 1 }));
        assert!(matches!(refused(whole[..20].to_vec()), IvfError::Header));
        let with = |at: usize, bytes: &[u8]| {
            let mut file = whole.clone();
            file[at..at + bytes.len()].copy_from_slice(bytes);
            file
        };
        assert!(matches!(refused(with(0, b"RIFF")), IvfError::Header));
        assert!(matches!(refused(with(8, b"AV01")), IvfError::Codec(name) if name == "AV01"));
        assert!(matches!(refused(with(16, &[0; 4])), IvfError::Header));
        assert!(matches!(refused(with(32, &[0xff; 4])), IvfError::Length { frame: 0, bytes: u32::MAX }));
    }
}
