//! Pictures and compressed frames, with their capture time.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Pool, Size};

/// Capture time in 90 kHz ticks, extended to 64 bits. It never wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MediaTime(pub u64);

/// A video codec that Ooblex can decode and encode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VideoCodec {
    /// VP8 (RFC 6386), carried in RTP by RFC 7741.
    Vp8,
    /// H.264 constrained baseline, carried in RTP by RFC 6184.
    H264,
}

impl VideoCodec {
    /// Returns the label in logs, metrics and the API.
    pub fn label(self) -> &'static str {
        match self {
            VideoCodec::Vp8 => "vp8",
            VideoCodec::H264 => "h264",
        }
    }
}

/// Compressed picture.
#[derive(Debug, Clone)]
pub struct EncodedFrame {
    /// Codec of `data`.
    pub codec: VideoCodec,
    /// Bitstream of the whole picture: a VP8 frame, or H.264 NAL units with Annex B start codes.
    /// Clones of the frame share these bytes.
    pub data: Arc<[u8]>,
    /// Capture time of the picture.
    pub capture: MediaTime,
    /// True if the picture can be decoded without earlier ones.
    pub keyframe: bool,
}

/// Picture in planar YUV 4:2:0, BT.601 limited range, tightly packed: the rows of a plane follow
/// each other without padding.
///
/// The luma plane is `width × height` bytes, each chroma plane `ceil(width / 2) × ceil(height /
/// 2)`.
pub struct I420 {
    width: u32,
    height: u32,
    data: Vec<u8>,
    /// Pool that gets the memory when the picture is dropped. With `None` it returns to the
    /// allocator.
    pool: Option<Pool>,
}

impl I420 {
    /// Maximum width and height of a picture. Larger ones are refused where they come in.
    pub const MAX_SIDE: u32 = 4096;

    /// Creates a picture of one grey level (`luma`, 16..=235) with neutral chroma.
    ///
    /// # Panics
    /// When a side is 0 or above [`I420::MAX_SIDE`]: sizes are checked where pictures come in.
    pub fn grey(width: u32, height: u32, luma: u8) -> Self {
        Self::check(width, height);
        let mut data = vec![128; Self::len(width, height)];
        data[..width as usize * height as usize].fill(luma);
        Self { width, height, data, pool: None }
    }

    /// Creates a picture in `data`, which is resized to fit and goes to `pool` when the picture is
    /// dropped.
    pub(crate) fn in_memory_of(pool: Pool, mut data: Vec<u8>, width: u32, height: u32) -> Self {
        Self::check(width, height);
        data.resize(Self::len(width, height), 0);
        Self { width, height, data, pool: Some(pool) }
    }

    /// Returns a picture of this size from the pool of this one, or a new one if there is no pool.
    /// As with [`Pool::picture`], the caller must write all of its pixels.
    ///
    /// # Panics
    /// As [`I420::grey`].
    pub fn another(&self, width: u32, height: u32) -> Self {
        match &self.pool {
            Some(pool) => pool.picture(width, height),
            None => Self::grey(width, height, 16),
        }
    }

    /// Returns the number of bytes of a picture of this size.
    pub fn len(width: u32, height: u32) -> usize {
        width as usize * height as usize + 2 * width.div_ceil(2) as usize * height.div_ceil(2) as usize
    }

    /// Returns the luma, U and V planes for writing.
    pub fn planes_mut(&mut self) -> [&mut [u8]; 3] {
        let (y, chroma) = self.data.split_at_mut(self.width as usize * self.height as usize);
        let (u, v) = chroma.split_at_mut(chroma.len() / 2);
        [y, u, v]
    }

    /// Returns the luma, U and V planes.
    pub fn planes(&self) -> [&[u8]; 3] {
        let (y, chroma) = self.data.split_at(self.width as usize * self.height as usize);
        let (u, v) = chroma.split_at(chroma.len() / 2);
        [y, u, v]
    }

    /// Returns width and height.
    pub fn size(&self) -> Size {
        Size::new(self.width, self.height)
    }

    /// Returns the width of the luma plane in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Returns the height of the luma plane in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Returns the width of a chroma plane in pixels.
    pub fn chroma_width(&self) -> u32 {
        self.width.div_ceil(2)
    }

    /// Returns the height of a chroma plane in pixels.
    pub fn chroma_height(&self) -> u32 {
        self.height.div_ceil(2)
    }

    fn check(width: u32, height: u32) {
        assert!((1..=Self::MAX_SIDE).contains(&width) && (1..=Self::MAX_SIDE).contains(&height), "picture of {width}x{height}");
    }
}

impl Clone for I420 {
    fn clone(&self) -> Self {
        let mut copy = self.another(self.width, self.height);
        copy.data.copy_from_slice(&self.data);
        copy
    }
}

impl PartialEq for I420 {
    fn eq(&self, other: &Self) -> bool {
        (self.width, self.height, &self.data) == (other.width, other.height, &other.data)
    }
}

impl Eq for I420 {}

impl Drop for I420 {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.put(std::mem::take(&mut self.data));
        }
    }
}

impl std::fmt::Debug for I420 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "I420({}x{})", self.width, self.height)
    }
}
