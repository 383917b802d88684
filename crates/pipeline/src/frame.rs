//! Pixels and compressed pixels, with the time that travels with them.

use serde::{Deserialize, Serialize};

use crate::Pool;

/// 90 kHz media time of a capture, extended to 64 bits; never wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MediaTime(pub u64);

/// A video codec that Ooblex can decode and encode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VideoCodec {
    /// RFC 6386; carried by RFC 7741.
    Vp8,
    /// H.264 constrained baseline; carried by RFC 6184.
    H264,
}

impl VideoCodec {
    /// The label used in logs, metrics and the API.
    pub fn label(self) -> &'static str {
        match self {
            VideoCodec::Vp8 => "vp8",
            VideoCodec::H264 => "h264",
        }
    }
}

/// One compressed picture.
#[derive(Debug, Clone)]
pub struct EncodedFrame {
    /// The codec that `data` is in.
    pub codec: VideoCodec,
    /// Bitstream of the whole picture: a VP8 frame, or H.264 NAL units with Annex B start codes.
    pub data: Vec<u8>,
    /// When the picture was captured.
    pub capture: MediaTime,
    /// Can be decoded without what came before.
    pub keyframe: bool,
}

/// A picture in planar YUV 4:2:0, BT.601 limited range, tightly packed: the rows of a plane follow each other without padding.
///
/// The luma plane is `width × height` bytes, each chroma plane `ceil(width / 2) × ceil(height / 2)`.
pub struct I420 {
    width: u32,
    height: u32,
    data: Vec<u8>,
    /// Where the memory goes when the picture is dropped; `None`: back to the allocator.
    pool: Option<Pool>,
}

impl I420 {
    /// Largest width and height of a picture; larger ones are refused where they come in.
    pub const MAX_SIDE: u32 = 4096;

    /// A picture of one grey level (`luma`, 16..=235) with neutral chroma.
    ///
    /// # Panics
    /// When a side is 0 or above [`I420::MAX_SIDE`]: sizes are checked where pictures come in.
    pub fn grey(width: u32, height: u32, luma: u8) -> Self {
        Self::check(width, height);
        let mut data = vec![128; Self::len(width, height)];
        data[..width as usize * height as usize].fill(luma);
        Self { width, height, data, pool: None }
    }

    /// A picture in `data`, which is made as long as it has to be, and goes to `pool` in the end.
    pub(crate) fn in_memory_of(pool: Pool, mut data: Vec<u8>, width: u32, height: u32) -> Self {
        Self::check(width, height);
        data.resize(Self::len(width, height), 0);
        Self { width, height, data, pool: Some(pool) }
    }

    /// Another picture, of this size, from the pool that this one comes from, if any. As in [`Pool::picture`] all of its pixels are to be
    /// written.
    ///
    /// # Panics
    /// As [`I420::grey`].
    pub fn another(&self, width: u32, height: u32) -> Self {
        match &self.pool {
            Some(pool) => pool.picture(width, height),
            None => Self::grey(width, height, 16),
        }
    }

    /// Bytes of a picture of this size.
    pub fn len(width: u32, height: u32) -> usize {
        width as usize * height as usize + 2 * width.div_ceil(2) as usize * height.div_ceil(2) as usize
    }

    /// Luma, U and V, to be written.
    pub fn planes_mut(&mut self) -> [&mut [u8]; 3] {
        let (y, chroma) = self.data.split_at_mut(self.width as usize * self.height as usize);
        let (u, v) = chroma.split_at_mut(chroma.len() / 2);
        [y, u, v]
    }

    /// Luma, U and V.
    pub fn planes(&self) -> [&[u8]; 3] {
        let (y, chroma) = self.data.split_at(self.width as usize * self.height as usize);
        let (u, v) = chroma.split_at(chroma.len() / 2);
        [y, u, v]
    }

    /// Luma columns.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Luma rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Columns of a chroma plane.
    pub fn chroma_width(&self) -> u32 {
        self.width.div_ceil(2)
    }

    /// Rows of a chroma plane.
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
