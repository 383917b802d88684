//! Uncompressed video in YUV4MPEG2, the format of which `ffmpeg -i in.mp4 -pix_fmt yuv420p out.y4m` makes a file.
//!
//! It owns the format, 4:2:0 with eight bits alone, both ways, and nothing of what is done with the pictures.

use std::io::{BufRead, Read, Write};

use ooblex_pipeline::{I420, Size};

use super::rate::Rate;

/// A longer line is none of this format.
const MAX_LINE: u64 = 1024;

/// A video that is read picture by picture.
pub struct Y4m<R> {
    from: R,
    head: Head,
}

/// Properties that the header of a file states for its pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Pictures a second; 30 where the file does not say.
    pub rate: Rate,
    /// Width of a pixel over its height, as it stands in the file, such as `1:1`.
    pub aspect: Option<String>,
}

/// A file that is not of the format.
#[derive(Debug, thiserror::Error)]
pub enum Y4mError {
    /// The file cannot be read, or ends within a picture.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// It does not begin as such a file does.
    #[error("it is no YUV4MPEG2 file: make one with ffmpeg -i VIDEO -pix_fmt yuv420p CLIP.y4m")]
    Header,
    /// Its pixels are of another kind.
    #[error("its pixels are '{0}', not 4:2:0 of 8 bits: make it with ffmpeg -i VIDEO -pix_fmt yuv420p CLIP.y4m")]
    Pixels(String),
    /// A picture does not begin as one does.
    #[error("there is something between its pictures that does not belong there")]
    Frame,
    /// There is no picture in it.
    #[error("there is no picture in it")]
    Empty,
}

impl<R: BufRead> Y4m<R> {
    /// Reads the header.
    pub fn new(mut from: R) -> Result<Self, Y4mError> {
        let header = line(&mut from)?;
        let mut words = header.split(' ');
        if words.next() != Some("YUV4MPEG2") {
            return Err(Y4mError::Header);
        }
        let mut head = Head { width: 0, height: 0, rate: Rate::THIRTY, aspect: None };
        for word in words {
            let mut letters = word.chars();
            match (letters.next(), letters.as_str()) {
                (Some('W'), value) => head.width = value.parse().map_err(|_| Y4mError::Header)?,
                (Some('H'), value) => head.height = value.parse().map_err(|_| Y4mError::Header)?,
                (Some('F'), value) => head.rate = value.parse().unwrap_or(Rate::THIRTY),
                (Some('A'), value) if value != "0:0" => head.aspect = Some(value.into()),
                (Some('C'), "420" | "420jpeg" | "420mpeg2" | "420paldv") => {}
                (Some('C'), other) => return Err(Y4mError::Pixels(other.into())),
                _ => {}
            }
        }
        let sides = 1..=I420::MAX_SIDE;
        if sides.contains(&head.width) && sides.contains(&head.height) { Ok(Self { from, head }) } else { Err(Y4mError::Header) }
    }

    /// Returns the properties that the header states.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Columns and rows.
    pub fn size(&self) -> Size {
        Size::new(self.head.width, self.head.height)
    }

    /// The next picture; `None` at the end.
    pub fn next_picture(&mut self) -> Result<Option<I420>, Y4mError> {
        if self.from.fill_buf()?.is_empty() {
            return Ok(None);
        }
        if line(&mut self.from)?.split(' ').next() != Some("FRAME") {
            return Err(Y4mError::Frame);
        }
        let mut picture = I420::grey(self.head.width, self.head.height, 16);
        for plane in picture.planes_mut() {
            self.from.read_exact(plane)?;
        }
        Ok(Some(picture))
    }
}

/// Bytes of a picture in a file, with the line before it.
pub fn bytes_of_picture(width: u32, height: u32) -> u64 {
    (I420::len(width, height) + FRAME.len()) as u64
}

/// Writes the header of a file.
pub fn write_head(to: &mut impl Write, head: &Head) -> std::io::Result<()> {
    let Head { width, height, rate, aspect } = head;
    let aspect = aspect.as_deref().unwrap_or("1:1");
    writeln!(to, "YUV4MPEG2 W{width} H{height} F{rate} Ip A{aspect} C420jpeg")
}

/// Writes the next picture of a file.
pub fn write_picture(to: &mut impl Write, picture: &I420) -> std::io::Result<()> {
    to.write_all(FRAME)?;
    picture.planes().into_iter().try_for_each(|plane| to.write_all(plane))
}

const FRAME: &[u8] = b"FRAME\n";

fn line(from: &mut impl BufRead) -> Result<String, Y4mError> {
    let mut bytes = Vec::new();
    from.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes)?;
    match bytes.pop() {
        Some(b'\n') => String::from_utf8(bytes).map_err(|_| Y4mError::Header),
        _ => Err(Y4mError::Header),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_read_until_the_end() {
        let mut file = b"YUV4MPEG2 W4 H2 F30:1 Ip C420jpeg\n".to_vec();
        for luma in [20, 30] {
            file.extend(b"FRAME\n");
            file.extend([[luma; 8].as_slice(), &[128; 4]].concat());
        }
        let mut video = Y4m::new(file.as_slice()).unwrap();
        assert_eq!(video.size(), Size::new(4, 2));
        assert_eq!(video.next_picture().unwrap().unwrap().planes()[0], [20; 8]);
        assert_eq!(video.next_picture().unwrap().unwrap().planes()[0], [30; 8]);
        assert!(video.next_picture().unwrap().is_none());
    }

    #[test]
    fn what_is_written_is_read_again() {
        let head = Head { width: 5, height: 3, rate: "30000:1001".parse().unwrap(), aspect: Some("4:3".into()) };
        let mut file = Vec::new();
        write_head(&mut file, &head).unwrap();
        let begins = file.len() as u64;
        write_picture(&mut file, &I420::grey(5, 3, 77)).unwrap();
        assert_eq!(file.len() as u64, begins + bytes_of_picture(5, 3));
        let mut video = Y4m::new(file.as_slice()).unwrap();
        assert_eq!(*video.head(), head);
        assert!(video.next_picture().unwrap().unwrap() == I420::grey(5, 3, 77));
    }

    #[test]
    fn what_is_not_of_the_format_is_told() {
        let refused = |file: &[u8]| Y4m::new(file).err().unwrap();
        assert!(matches!(refused(b"RIFF"), Y4mError::Header));
        assert!(matches!(refused(b"YUV4MPEG2 W0 H2\n"), Y4mError::Header));
        assert!(matches!(refused(b"YUV4MPEG2 W99999 H2\n"), Y4mError::Header));
        assert!(matches!(refused(b"YUV4MPEG2 W4 H2 C444\n"), Y4mError::Pixels(_)));
        let mut cut = Y4m::new(b"YUV4MPEG2 W4 H2\nFRAME\nabc".as_slice()).unwrap();
        assert!(matches!(cut.next_picture(), Err(Y4mError::Io(_))));
        let mut other = Y4m::new(b"YUV4MPEG2 W4 H2\nFRANK\nabc".as_slice()).unwrap();
        assert!(matches!(other.next_picture(), Err(Y4mError::Frame)));
    }
}
