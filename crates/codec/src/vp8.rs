//! VP8 through libvpx. Owns the contexts of libvpx. Does not decide when to encode or how to handle
//! errors.

mod header;

use std::ffi::{CStr, c_int, c_uint};
use std::mem::MaybeUninit;

use ooblex_pipeline::{I420, Pool, Size};
use vpx_sys::vp8_dec_control_id::VP8D_GET_FRAME_CORRUPTED;
use vpx_sys::vp8e_enc_control_id as control;
use vpx_sys::vpx_codec_err_t::VPX_CODEC_OK;

use crate::encoding::{EncodeError, Output, Speed, Task};
use crate::planes::ForeignPlanes;
use crate::undecodable::Undecodable;
use crate::{CodecError, Limits};
use header::is_shown;
pub(crate) use header::{is_keyframe, keyframe_size};

const LIBRARY: &str = "libvpx";

/// Decoder of one VP8 stream, on the calling thread.
pub(crate) struct Decoder {
    context: Context,
    limits: Limits,
    /// Width and height that the last key frame announced.
    size: Size,
}

impl Decoder {
    pub(crate) fn new(limits: Limits) -> Result<Self, CodecError> {
        let config = vpx_sys::vpx_codec_dec_cfg_t { threads: 1, w: 0, h: 0 };
        let context = Context::start("decoder", |context| {
            // SAFETY: `context` is zeroed and `config` is read during the call only.
            unsafe {
                vpx_sys::vpx_codec_dec_init_ver(context, vpx_sys::vpx_codec_vp8_dx(), &config, 0, vpx_sys::VPX_DECODER_ABI_VERSION as c_int)
            }
        })?;
        Ok(Self { context, limits, size: Size::new(0, 0) })
    }

    /// Decodes one frame into a picture in memory of `pool`. Every frame is checked before libvpx
    /// sees it, because libvpx allocates memory for any size that is announced.
    pub(crate) fn decode(&mut self, data: &[u8], pool: &Pool) -> Result<Option<I420>, Undecodable> {
        self.size = header::check(data, &self.limits)?.unwrap_or(self.size);
        let length = c_uint::try_from(data.len()).map_err(|_| damaged("a frame of more than 4 GiB"))?;
        // SAFETY: the context is alive, `data` is readable for `length` bytes, and libvpx keeps no pointer to it.
        let result = unsafe { vpx_sys::vpx_codec_decode(self.context.pointer(), data.as_ptr(), length, std::ptr::null_mut(), 0) };
        if result != VPX_CODEC_OK {
            return Err(damaged(self.context.last_error()));
        }
        let mut corrupted: c_int = 0;
        // SAFETY: this control writes one int.
        let result = unsafe { vpx_sys::vpx_codec_control_(self.context.pointer(), VP8D_GET_FRAME_CORRUPTED as c_int, &raw mut corrupted) };
        if result != VPX_CODEC_OK || corrupted != 0 {
            return Err(damaged("the picture is corrupted"));
        }
        match self.take_picture(pool)? {
            None if is_shown(data) => Err(damaged("no picture came out")),
            picture => Ok(picture),
        }
    }

    fn take_picture(&mut self, pool: &Pool) -> Result<Option<I420>, Undecodable> {
        let mut iterator: vpx_sys::vpx_codec_iter_t = std::ptr::null();
        // SAFETY: the context is alive; the image that is returned, if any, lives until the next call on it.
        let image = unsafe { vpx_sys::vpx_codec_get_frame(self.context.pointer(), &mut iterator).as_ref() };
        let Some(image) = image else { return Ok(None) };
        if Size::new(image.d_w, image.d_h) != self.size || image.fmt != vpx_sys::vpx_img_fmt::VPX_IMG_FMT_I420 {
            let Size { width, height } = self.size;
            return Err(damaged(format!("a picture of {}x{} came out for one of {width}x{height}", image.d_w, image.d_h)));
        }
        let start = [image.planes[0], image.planes[1], image.planes[2]].map(<*mut u8>::cast_const);
        let planes = ForeignPlanes::new(start, [image.stride[0], image.stride[1], image.stride[2]], self.size);
        let planes = planes.ok_or_else(|| damaged("the planes of the picture make no sense"))?;
        // SAFETY: the image is I420, and libvpx says that its planes hold its displayed size.
        Ok(Some(unsafe { planes.copy(pool) }))
    }
}

/// Encoder of one VP8 stream of fixed size, on the calling thread.
pub(crate) struct Encoder {
    context: Context,
    width: u32,
    height: u32,
    bitrate_kbps: u32,
}

impl Encoder {
    pub(crate) fn new(width: u32, height: u32, bitrate_bps: u32, frame_rate: f32, speed: Speed) -> Result<Self, CodecError> {
        let config = encoder_config(width, height, bitrate_bps)?;
        let context = Context::start("encoder", |context| {
            // SAFETY: `context` is zeroed, `config` was filled by libvpx and is read during the call only.
            unsafe {
                vpx_sys::vpx_codec_enc_init_ver(context, vpx_sys::vpx_codec_vp8_cx(), &config, 0, vpx_sys::VPX_ENCODER_ABI_VERSION as c_int)
            }
        })?;
        let mut encoder = Self { context, width, height, bitrate_kbps: config.rc_target_bitrate };
        // As in WebRTC, a keyframe may take half of the optimal buffer. The unit is percent of an
        // average picture.
        let max_intra_percent = (config.rc_buf_optimal_sz as f32 * 0.5 * frame_rate / 10.0).max(300.0) as c_int;
        for (id, value) in [
            (control::VP8E_SET_CPUUSED, cpu_used(speed)),
            (control::VP8E_SET_STATIC_THRESHOLD, 1),
            (control::VP8E_SET_NOISE_SENSITIVITY, 0),
            (control::VP8E_SET_TOKEN_PARTITIONS, 0),
            (control::VP8E_SET_SCREEN_CONTENT_MODE, 0),
            (control::VP8E_SET_MAX_INTRA_BITRATE_PCT, max_intra_percent),
        ] {
            // SAFETY: the context is alive, and each of these controls takes one int.
            let result = unsafe { vpx_sys::vpx_codec_control_(encoder.context.pointer(), id as c_int, value) };
            if result != VPX_CODEC_OK {
                return Err(CodecError::Start { library: LIBRARY, part: "encoder", reason: encoder.context.last_error() });
            }
        }
        Ok(encoder)
    }

    /// Encodes `picture`, which must have the size of this encoder.
    pub(crate) fn encode(&mut self, picture: &I420, task: &Task) -> Result<Option<Output>, EncodeError> {
        self.apply_bitrate(task.bitrate_bps)?;
        let image = borrow_image(picture);
        let flags = if task.force_keyframe { vpx_sys::VPX_EFLAG_FORCE_KF } else { 0 };
        // SAFETY: the context is alive; libvpx only reads from the image, copies it during the call, and the picture outlives the call.
        let result = unsafe {
            vpx_sys::vpx_codec_encode(
                self.context.pointer(),
                &image,
                task.elapsed as vpx_sys::vpx_codec_pts_t,
                task.duration as _,
                flags as _,
                vpx_sys::VPX_DL_REALTIME as _,
            )
        };
        if result != VPX_CODEC_OK {
            return Err(self.failed());
        }
        Ok(self.take_output())
    }

    /// Sets the speed from the next picture on. Returns false if libvpx refuses it.
    pub(crate) fn set_speed(&mut self, speed: Speed) -> bool {
        // SAFETY: the context is alive, and this control takes one int.
        let result = unsafe { vpx_sys::vpx_codec_control_(self.context.pointer(), control::VP8E_SET_CPUUSED as c_int, cpu_used(speed)) };
        result == VPX_CODEC_OK
    }

    fn apply_bitrate(&mut self, bitrate_bps: u32) -> Result<(), EncodeError> {
        if bitrate_bps / 1000 == self.bitrate_kbps {
            return Ok(());
        }
        let config = encoder_config(self.width, self.height, bitrate_bps)?;
        self.bitrate_kbps = config.rc_target_bitrate;
        // SAFETY: the context is alive, and the configuration, which is copied, is the one it was made with but for the bitrate.
        match unsafe { vpx_sys::vpx_codec_enc_config_set(self.context.pointer(), &config) } {
            VPX_CODEC_OK => Ok(()),
            _ => Err(self.failed()),
        }
    }

    fn take_output(&mut self) -> Option<Output> {
        let mut iterator: vpx_sys::vpx_codec_iter_t = std::ptr::null();
        let mut output: Option<Output> = None;
        loop {
            // SAFETY: the context is alive; a packet that is returned lives until the next encode.
            let packet = unsafe { vpx_sys::vpx_codec_get_cx_data(self.context.pointer(), &mut iterator).as_ref() };
            let Some(packet) = packet else { return output };
            if packet.kind != vpx_sys::vpx_codec_cx_pkt_kind::VPX_CODEC_CX_FRAME_PKT {
                continue;
            }
            // SAFETY: of the union's members this kind of packet has `frame`.
            let frame = unsafe { packet.data.frame };
            // SAFETY: libvpx says that `buf` holds `sz` bytes.
            let bytes = unsafe { std::slice::from_raw_parts(frame.buf.cast::<u8>(), frame.sz as usize) };
            let output = output.get_or_insert_with(|| Output { data: Vec::with_capacity(bytes.len()), keyframe: false });
            output.data.extend_from_slice(bytes);
            output.keyframe |= frame.flags & vpx_sys::VPX_FRAME_IS_KEY != 0;
        }
    }

    fn failed(&mut self) -> EncodeError {
        EncodeError::Failed { library: LIBRARY, reason: self.context.last_error() }
    }
}

/// Returns the value of libvpx's `cpu-used`. There is no speed with -16, because that loses 4 to 5
/// dB.
fn cpu_used(speed: Speed) -> c_int {
    match speed {
        Speed::Balanced => -8,
        Speed::Fast => -12,
    }
}

/// Returns the settings of WebRTC's own VP8 encoder (`libvpx_vp8_encoder.cc`), except that pictures
/// are never dropped and that the quantizer may therefore go higher.
fn encoder_config(width: u32, height: u32, bitrate_bps: u32) -> Result<vpx_sys::vpx_codec_enc_cfg_t, CodecError> {
    let mut config = MaybeUninit::zeroed();
    // SAFETY: libvpx writes the whole structure.
    let result = unsafe { vpx_sys::vpx_codec_enc_config_default(vpx_sys::vpx_codec_vp8_cx(), config.as_mut_ptr(), 0) };
    if result != VPX_CODEC_OK {
        return Err(CodecError::Start { library: LIBRARY, part: "encoder", reason: format!("{result:?}") });
    }
    // SAFETY: written by the call above, which succeeded.
    let mut config: vpx_sys::vpx_codec_enc_cfg_t = unsafe { config.assume_init() };
    config.g_w = width;
    config.g_h = height;
    config.g_threads = 1;
    config.g_timebase = vpx_sys::vpx_rational { num: 1, den: 90_000 };
    config.g_error_resilient = 0;
    config.g_pass = vpx_sys::vpx_enc_pass::VPX_RC_ONE_PASS;
    config.g_lag_in_frames = 0;
    config.rc_dropframe_thresh = 0;
    config.rc_resize_allowed = 0;
    config.rc_end_usage = vpx_sys::vpx_rc_mode::VPX_CBR;
    config.rc_target_bitrate = bitrate_bps / 1000;
    config.rc_min_quantizer = 2;
    config.rc_max_quantizer = 63;
    config.rc_undershoot_pct = 100;
    config.rc_overshoot_pct = 15;
    config.rc_buf_initial_sz = 500;
    config.rc_buf_optimal_sz = 600;
    config.rc_buf_sz = 1000;
    config.kf_mode = vpx_sys::vpx_kf_mode::VPX_KF_DISABLED;
    Ok(config)
}

/// Returns a view of `picture` for libvpx, which is valid as long as `picture` is.
fn borrow_image(picture: &I420) -> vpx_sys::vpx_image_t {
    // SAFETY: zero is a valid value for every member: null pointers, numbers, and enums that begin at 0.
    let mut image: vpx_sys::vpx_image_t = unsafe { MaybeUninit::zeroed().assume_init() };
    image.fmt = vpx_sys::vpx_img_fmt::VPX_IMG_FMT_I420;
    (image.w, image.h) = (picture.width(), picture.height());
    (image.d_w, image.d_h) = (picture.width(), picture.height());
    image.bit_depth = 8;
    image.bps = 12;
    image.x_chroma_shift = 1;
    image.y_chroma_shift = 1;
    for (index, plane) in picture.planes().into_iter().enumerate() {
        image.planes[index] = plane.as_ptr().cast_mut();
        image.stride[index] = if index == 0 { picture.width() } else { picture.chroma_width() } as c_int;
    }
    image
}

fn damaged(reason: impl Into<String>) -> Undecodable {
    Undecodable::Damaged { library: LIBRARY, reason: reason.into() }
}

/// Initialised libvpx context, which is destroyed when dropped.
struct Context(Box<vpx_sys::vpx_codec_ctx_t>);

// SAFETY: libvpx contexts are bound to no thread and share nothing; one that is owned may be used from one thread after another.
unsafe impl Send for Context {}

impl Context {
    fn start(part: &'static str, init: impl FnOnce(*mut vpx_sys::vpx_codec_ctx_t) -> vpx_sys::vpx_codec_err_t) -> Result<Self, CodecError> {
        // SAFETY: zero is a valid value for every member: null pointers, numbers, and an error code of 0.
        let mut context: Box<vpx_sys::vpx_codec_ctx_t> = Box::new(unsafe { MaybeUninit::zeroed().assume_init() });
        match init(&mut *context) {
            VPX_CODEC_OK => Ok(Self(context)),
            // libvpx itself frees the memory of a failed start.
            error => Err(CodecError::Start { library: LIBRARY, part, reason: format!("{error:?}") }),
        }
    }

    fn pointer(&mut self) -> *mut vpx_sys::vpx_codec_ctx_t {
        &mut *self.0
    }

    fn last_error(&mut self) -> String {
        // SAFETY: the context is alive; both calls return null or a text that lives until the next call on it.
        unsafe {
            let texts = [vpx_sys::vpx_codec_error(self.pointer()), vpx_sys::vpx_codec_error_detail(self.pointer())];
            let texts = texts.into_iter().filter(|text| !text.is_null()).map(|text| CStr::from_ptr(text).to_string_lossy().into_owned());
            texts.collect::<Vec<_>>().join(": ")
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: started in `start`, and destroyed only here.
        unsafe { vpx_sys::vpx_codec_destroy(self.pointer()) };
    }
}
