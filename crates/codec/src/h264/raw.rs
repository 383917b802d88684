//! Objects of openh264: created, configured, and destroyed when dropped. Knows nothing of frames.

use std::ffi::{c_int, c_long, c_void};
use std::ptr::null_mut;

use openh264_sys2 as sys;
use openh264_sys2::source::APILoader as Library;

use super::{LIBRARY, macroblocks};
use crate::CodecError;
use crate::encoding::Speed;

/// Initialised openh264 decoder, with the methods that are called on it. It is destroyed when
/// dropped.
pub(super) struct RawDecoder {
    pub(super) object: *mut sys::ISVCDecoder,
    pub(super) calls: DecoderCalls,
}

#[derive(Clone, Copy)]
pub(super) struct DecoderCalls {
    pub(super) decode:
        unsafe extern "C" fn(*mut sys::ISVCDecoder, *const u8, c_int, *mut *mut u8, *mut sys::SBufferInfo) -> sys::DECODING_STATE,
    /// Gives a picture that the decoder holds back, because it might reorder pictures.
    pub(super) flush: unsafe extern "C" fn(*mut sys::ISVCDecoder, *mut *mut u8, *mut sys::SBufferInfo) -> sys::DECODING_STATE,
    uninitialize: unsafe extern "C" fn(*mut sys::ISVCDecoder) -> c_long,
}

impl DecoderCalls {
    fn from_table(table: &sys::ISVCDecoderVtbl) -> Option<Self> {
        Some(Self { decode: table.DecodeFrameNoDelay?, flush: table.FlushFrame?, uninitialize: table.Uninitialize? })
    }
}

// SAFETY: an openh264 decoder without threads of its own is bound to no thread and shares nothing.
unsafe impl Send for RawDecoder {}

impl RawDecoder {
    pub(super) fn start() -> Result<Self, CodecError> {
        let fail = |reason: String| CodecError::Start { library: LIBRARY, part: "decoder", reason };
        let mut object: *mut sys::ISVCDecoder = null_mut();
        // SAFETY: writes the pointer.
        let created = unsafe { Library::WelsCreateDecoder(&mut object) };
        if created != 0 || object.is_null() {
            return Err(fail(format!("code {created}")));
        }
        // SAFETY: an object that was created has its method table.
        let table = unsafe { &**object };
        let (Some(calls), Some(initialize), Some(set_option)) = (DecoderCalls::from_table(table), table.Initialize, table.SetOption) else {
            // SAFETY: created above, not used after.
            unsafe { Library::WelsDestroyDecoder(object) };
            return Err(fail("its method table has gaps".into()));
        };
        let decoder = Self { object, calls };
        let mut quiet = sys::WELS_LOG_QUIET;
        let params = sys::SDecodingParam {
            eEcActiveIdc: sys::ERROR_CON_DISABLE,
            sVideoProperty: sys::SVideoProperty { size: size_of::<sys::SVideoProperty>() as _, eVideoBsType: sys::VIDEO_BITSTREAM_AVC },
            ..Default::default()
        };
        // SAFETY: the object is alive, the option takes one int, and both arguments are read during the calls only.
        let initialized = unsafe {
            set_option(object, sys::DECODER_OPTION_TRACE_LEVEL, (&raw mut quiet).cast());
            initialize(object, &params)
        };
        if initialized == 0 { Ok(decoder) } else { Err(fail(format!("code {initialized}"))) }
    }
}

impl Drop for RawDecoder {
    fn drop(&mut self) {
        // SAFETY: created in `start`, destroyed only here; uninitialising what was not initialised does nothing.
        unsafe {
            (self.calls.uninitialize)(self.object);
            Library::WelsDestroyDecoder(self.object);
        }
    }
}

/// Initialised openh264 encoder, with the methods that are called on it. It is destroyed when
/// dropped.
pub(super) struct RawEncoder {
    pub(super) object: *mut sys::ISVCEncoder,
    pub(super) calls: EncoderCalls,
}

#[derive(Clone, Copy)]
pub(super) struct EncoderCalls {
    pub(super) encode: unsafe extern "C" fn(*mut sys::ISVCEncoder, *const sys::SSourcePicture, *mut sys::SFrameBSInfo) -> c_int,
    pub(super) force_intra_frame: unsafe extern "C" fn(*mut sys::ISVCEncoder, bool) -> c_int,
    set_option: unsafe extern "C" fn(*mut sys::ISVCEncoder, sys::ENCODER_OPTION, *mut c_void) -> c_int,
    uninitialize: unsafe extern "C" fn(*mut sys::ISVCEncoder) -> c_int,
}

// SAFETY: an openh264 encoder of one thread is bound to no thread and shares nothing.
unsafe impl Send for RawEncoder {}

impl RawEncoder {
    pub(super) fn start(width: u32, height: u32, bitrate_bps: u32, frame_rate: f32, speed: Speed) -> Result<Self, CodecError> {
        let fail = |reason: String| CodecError::Start { library: LIBRARY, part: "encoder", reason };
        let mut object: *mut sys::ISVCEncoder = null_mut();
        // SAFETY: writes the pointer.
        let created = unsafe { Library::WelsCreateSVCEncoder(&mut object) };
        if created != 0 || object.is_null() {
            return Err(fail(format!("code {created}")));
        }
        // SAFETY: an object that was created has its method table.
        let table = unsafe { &**object };
        let (Some(calls), Some(initialize), Some(defaults)) =
            (EncoderCalls::from_table(table), table.InitializeExt, table.GetDefaultParams)
        else {
            // SAFETY: created above, not used after.
            unsafe { Library::WelsDestroySVCEncoder(object) };
            return Err(fail("its method table has gaps".into()));
        };
        let encoder = Self { object, calls };
        let mut quiet = sys::WELS_LOG_QUIET;
        let mut params = sys::SEncParamExt::default();
        // SAFETY: the object is alive, the option takes one int, and the arguments are used during the calls only.
        let initialized = unsafe {
            encoder.set_option(sys::ENCODER_OPTION_TRACE_LEVEL, &mut quiet);
            defaults(object, &mut params);
            configure(&mut params, width, height, bitrate_bps, frame_rate, speed);
            initialize(object, &params)
        };
        if initialized == 0 { Ok(encoder) } else { Err(fail(format!("code {initialized} for {width}x{height}"))) }
    }

    /// Sets an option of the encoder. Returns openh264's result code.
    ///
    /// # Safety
    /// `value` is of the type that `option` takes.
    pub(super) unsafe fn set_option<T>(&self, option: sys::ENCODER_OPTION, value: &mut T) -> c_int {
        // SAFETY: the object is alive; the caller vouches for the value, which is used during the call only.
        unsafe { (self.calls.set_option)(self.object, option, std::ptr::from_mut(value).cast()) }
    }
}

impl EncoderCalls {
    fn from_table(table: &sys::ISVCEncoderVtbl) -> Option<Self> {
        Some(Self {
            encode: table.EncodeFrame?,
            force_intra_frame: table.ForceIntraFrame?,
            set_option: table.SetOption?,
            uninitialize: table.Uninitialize?,
        })
    }
}

impl Drop for RawEncoder {
    fn drop(&mut self) {
        // SAFETY: created in `start`, destroyed only here; uninitialising what was not initialised does nothing.
        unsafe {
            (self.calls.uninitialize)(self.object);
            Library::WelsDestroySVCEncoder(self.object);
        }
    }
}

/// Configures constrained baseline for a live camera: one slice per picture, one reference,
/// keyframes on request only, no pictures dropped.
fn configure(params: &mut sys::SEncParamExt, width: u32, height: u32, bitrate_bps: u32, frame_rate: f32, speed: Speed) {
    params.iUsageType = sys::CAMERA_VIDEO_REAL_TIME;
    params.iPicWidth = width as c_int;
    params.iPicHeight = height as c_int;
    params.iTargetBitrate = bitrate_bps as c_int;
    params.iRCMode = sys::RC_BITRATE_MODE;
    params.fMaxFrameRate = frame_rate;
    params.iTemporalLayerNum = 1;
    params.iSpatialLayerNum = 1;
    params.iComplexityMode = sys::LOW_COMPLEXITY;
    params.uiIntraPeriod = 0;
    params.iNumRefFrame = 1;
    params.eSpsPpsIdStrategy = sys::CONSTANT_ID;
    params.iEntropyCodingModeFlag = 0;
    params.bEnableFrameSkip = false;
    params.iMultipleThreadIdc = 1;
    params.bEnableDenoise = false;
    params.bEnableSceneChangeDetect = false;
    // Background detection skips what hardly changes: a third quicker before a still background, 1
    // dB less.
    params.bEnableBackgroundDetection = speed == Speed::Fast;
    params.bEnableAdaptiveQuant = false;
    params.bEnableLongTermReference = false;
    let layer = &mut params.sSpatialLayers[0];
    layer.iVideoWidth = width as c_int;
    layer.iVideoHeight = height as c_int;
    layer.fFrameRate = frame_rate;
    layer.iSpatialBitrate = bitrate_bps as c_int;
    layer.uiProfileIdc = sys::PRO_BASELINE;
    // The level also bounds the bitrate that can be set later, so small pictures do not get a lower
    // level than 3.1 (H.264 table A-1).
    layer.uiLevelIdc = match macroblocks(width, height) {
        ..=3_600 => sys::LEVEL_3_1,
        3_601..=8_192 => sys::LEVEL_4_0,
        8_193..=22_080 => sys::LEVEL_5_0,
        _ => sys::LEVEL_5_1,
    };
    // The colours of every `I420`. Without them, browsers take H.264 for BT.709.
    layer.bVideoSignalTypePresent = true;
    layer.uiVideoFormat = sys::VF_UNDEF as u8;
    layer.bFullRange = false;
    layer.bColorDescriptionPresent = true;
    layer.uiColorPrimaries = sys::CP_SMPTE170M as u8;
    layer.uiTransferCharacteristics = sys::TRC_SMPTE170M as u8;
    layer.uiColorMatrix = sys::CM_SMPTE170M as u8;
    layer.sSliceArgument.uiSliceMode = sys::SM_SINGLE_SLICE;
}
