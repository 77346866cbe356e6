//! Pictures and the features of pictures.

use std::ffi::c_void;
use std::sync::{Arc, RwLock};

use palmtop::ImageFeatures;
use palmtop::image::{Frame, ImageLimits, PixelFormat, Plane, Rotation, YuvColor, decode};

use crate::arguments::{self, Out, Versioned};
use crate::failure::{Failure, Result, call, palmtop_status};
use crate::handles::handle;
use crate::model::{MODELS, palmtop_model};
use crate::session::{SESSIONS, palmtop_session, try_lock};

handle!(palmtop_features, FEATURES: FeaturesEntry, 3, "features");

pub const PALMTOP_RGB: i32 = 1;
pub const PALMTOP_BGR: i32 = 2;
pub const PALMTOP_RGBA: i32 = 3;
pub const PALMTOP_BGRA: i32 = 4;
pub const PALMTOP_GREY: i32 = 5;
pub const PALMTOP_NV12: i32 = 6;
pub const PALMTOP_NV21: i32 = 7;
pub const PALMTOP_YUV420: i32 = 8;

pub const PALMTOP_BT601_LIMITED: i32 = 0;
pub const PALMTOP_BT601_FULL: i32 = 1;
pub const PALMTOP_BT709_LIMITED: i32 = 2;
pub const PALMTOP_BT709_FULL: i32 = 3;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct palmtop_plane {
    pub data: *const u8,
    pub bytes: usize,
    pub stride: usize,
    pub step: usize,
}

const NO_PLANE: palmtop_plane = palmtop_plane { data: std::ptr::null(), bytes: 0, stride: 0, step: 0 };

#[repr(C)]
#[derive(Clone, Copy)]
pub struct palmtop_pixels {
    pub size: usize,
    pub format: i32,
    pub width: u32,
    pub height: u32,
    pub rotation: u32,
    pub color: i32,
    pub reserved: u32,
    pub planes: [palmtop_plane; 3],
}

// SAFETY: integers and addresses, the first a `usize`.
unsafe impl Versioned for palmtop_pixels {
    const NAME: &'static str = "palmtop_pixels";
    const FIRST_BYTES: usize = size_of::<Self>();
}

pub(crate) const NO_PIXELS: palmtop_pixels = palmtop_pixels {
    size: size_of::<palmtop_pixels>(),
    format: 0,
    width: 0,
    height: 0,
    rotation: 0,
    color: PALMTOP_BT601_LIMITED,
    reserved: 0,
    planes: [NO_PLANE; 3],
};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct palmtop_encode_options {
    pub size: usize,
    pub deadline_ns: u64,
}

// SAFETY: integers, the first a `usize`.
unsafe impl Versioned for palmtop_encode_options {
    const NAME: &'static str = "palmtop_encode_options";
    const FIRST_BYTES: usize = size_of::<Self>();
}

const DEFAULT_ENCODE_OPTIONS: palmtop_encode_options =
    palmtop_encode_options { size: size_of::<palmtop_encode_options>(), deadline_ns: 0 };

/// Features: read by any number of answers at a time, or written by one encoding.
pub(crate) struct FeaturesEntry {
    pub features: RwLock<ImageFeatures>,
}

fn packed(format: i32) -> Option<PixelFormat> {
    Some(match format {
        PALMTOP_RGB => PixelFormat::Rgb,
        PALMTOP_BGR => PixelFormat::Bgr,
        PALMTOP_RGBA => PixelFormat::Rgba,
        PALMTOP_BGRA => PixelFormat::Bgra,
        PALMTOP_GREY => PixelFormat::Grey,
        _ => return None,
    })
}

fn no_format(format: i32) -> Failure {
    Failure::argument(format!("{format} is not a pixel format"))
}

/// Where the planes of a picture begin that lies in one piece without gaps: bytes of each, and its stride.
fn layout(format: i32, width: u32, height: u32) -> Result<[(usize, usize); 3]> {
    let (width, height) = (width as usize, height as usize);
    let (chroma_width, chroma_height) = (width.div_ceil(2), height.div_ceil(2));
    let plane = |stride: Option<usize>, rows: usize| {
        let stride = stride?;
        Some((stride.checked_mul(rows)?, stride))
    };
    let luma = plane(Some(width), height);
    let none = Some((0, 0));
    let planes = match format {
        PALMTOP_NV12 | PALMTOP_NV21 => [luma, plane(chroma_width.checked_mul(2), chroma_height), none],
        PALMTOP_YUV420 => {
            [luma, plane(Some(chroma_width), chroma_height), plane(Some(chroma_width), chroma_height)]
        }
        _ => {
            let bytes = packed(format).ok_or_else(|| no_format(format))?.bytes();
            [plane(width.checked_mul(bytes), height), none, none]
        }
    };
    match planes {
        [Some(a), Some(b), Some(c)] => Ok([a, b, c]),
        _ => Err(Failure::argument(format!("{width}x{height} pixels do not fit in this machine's memory"))),
    }
}

/// # Safety
/// `pixels` is null, or can be written as far as `size`. `data` is not read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_pixels_init(
    pixels: *mut palmtop_pixels,
    size: usize,
    format: i32,
    width: u32,
    height: u32,
    data: *const c_void,
    bytes: usize,
) -> palmtop_status {
    call(|| {
        let mut value = NO_PIXELS;
        (value.format, value.width, value.height) = (format, width, height);
        let mut start = data.cast::<u8>();
        let mut left = bytes;
        for (plane, (of_plane, stride)) in value.planes.iter_mut().zip(layout(format, width, height)?) {
            if of_plane > left {
                return Err(Failure::argument(format!(
                    "{bytes} bytes are too few for {width}x{height} pixels of this format without gaps"
                )));
            }
            if of_plane > 0 {
                *plane = palmtop_plane { data: start, bytes: of_plane, stride, step: 1 };
                start = start.wrapping_add(of_plane);
                left -= of_plane;
            }
        }
        // SAFETY: as this function's.
        unsafe { arguments::init(pixels, size, value) }
    })
}

/// # Safety
/// Every plane is null, or has its bytes, which do not change for `'a`.
pub(crate) unsafe fn frame<'a>(pixels: &palmtop_pixels) -> Result<Frame<'a>> {
    const NAMES: [&str; 3] = ["the first plane", "the second plane", "the third plane"];
    let plane = |index: usize| {
        let plane = &pixels.planes[index];
        // SAFETY: as this function's.
        let data = unsafe { arguments::bytes(NAMES[index], plane.data, plane.bytes)? };
        Ok::<_, Failure>(Plane { data, stride_bytes: plane.stride, step_bytes: plane.step.max(1) })
    };
    let (width, height) = (pixels.width, pixels.height);
    let frame = match pixels.format {
        PALMTOP_NV12 => Frame::nv12(width, height, plane(0)?, plane(1)?)?,
        PALMTOP_NV21 => Frame::nv21(width, height, plane(0)?, plane(1)?)?,
        PALMTOP_YUV420 => Frame::yuv420(width, height, plane(0)?, plane(1)?, plane(2)?)?,
        other => {
            let format = packed(other).ok_or_else(|| no_format(other))?;
            let plane = plane(0)?;
            Frame::packed(format, width, height, plane.stride_bytes, plane.data)?
        }
    };
    let color = match pixels.color {
        PALMTOP_BT601_LIMITED => YuvColor::Bt601Limited,
        PALMTOP_BT601_FULL => YuvColor::Bt601Full,
        PALMTOP_BT709_LIMITED => YuvColor::Bt709Limited,
        PALMTOP_BT709_FULL => YuvColor::Bt709Full,
        other => {
            return Err(Failure::argument(format!(
                "{other} is not a color format: choose PALMTOP_BT601_LIMITED to PALMTOP_BT709_FULL"
            )));
        }
    };
    Ok(frame.turned(Rotation::from_degrees(pixels.rotation)?).coloured(color))
}

/// # Safety
/// `features` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_features_new(
    model: palmtop_model,
    features: *mut palmtop_features,
) -> palmtop_status {
    call(|| {
        // SAFETY: as this function's.
        let out = unsafe { Out::new("features", features, palmtop_features::default())? };
        let features = RwLock::new(MODELS.get(model.id)?.new_features()?);
        out.give(palmtop_features { id: FEATURES.insert(Arc::new(FeaturesEntry { features }))? });
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn palmtop_features_free(features: palmtop_features) -> palmtop_status {
    call(|| {
        let entry = FEATURES.get(features.id)?;
        if let Err(std::sync::TryLockError::WouldBlock) = entry.features.try_write() {
            try_lock(entry.features.try_write(), "features").map(drop)?;
        }
        FEATURES.remove(features.id).map(drop)
    })
}

/// Looks at a picture.
fn encode(
    session: palmtop_session,
    features: palmtop_features,
    frame: Frame,
    deadline_ns: u64,
) -> Result<()> {
    let (session, features) = (SESSIONS.get(session.id)?, FEATURES.get(features.id)?);
    let mut state = session.lock()?;
    let mut features = try_lock(features.features.try_write(), "features")?;
    let state = &mut *state;
    state.options.deadline = crate::instant(deadline_ns);
    Ok(state.session.encode(frame, &mut features, &state.options)?)
}

/// # Safety
/// `pixels` is null, or can be read as far as its size; each of its planes is null, or has its bytes, and they do not
/// change during the call. `options` is null, or can be read as far as its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_encode_pixels(
    session: palmtop_session,
    features: palmtop_features,
    pixels: *const palmtop_pixels,
    options: *const palmtop_encode_options,
) -> palmtop_status {
    call(|| {
        // SAFETY: as this function's.
        let (options, frame) = unsafe {
            let options = arguments::options(options, DEFAULT_ENCODE_OPTIONS)?;
            (options, frame(&arguments::required(pixels, NO_PIXELS)?)?)
        };
        encode(session, features, frame, options.deadline_ns)
    })
}

/// # Safety
/// `data` is null, or has `bytes` bytes, which do not change during the call; `options` is null, or can be read as far
/// as its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_encode_file(
    session: palmtop_session,
    features: palmtop_features,
    data: *const c_void,
    bytes: usize,
    options: *const palmtop_encode_options,
) -> palmtop_status {
    call(|| {
        // SAFETY: as this function's.
        let (options, file) = unsafe {
            let options = arguments::options(options, DEFAULT_ENCODE_OPTIONS)?;
            (options, arguments::bytes("the picture", data.cast(), bytes)?)
        };
        // Whoever has the wrong handles shall not wait for the decoding.
        drop(SESSIONS.get(session.id)?.lock()?);
        FEATURES.get(features.id)?;
        let picture = decode(file, &ImageLimits::default())?;
        encode(session, features, picture.view().into(), options.deadline_ns)
    })
}

/// # Safety
/// `options` is null, or can be written as far as `size`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_encode_options_init(
    options: *mut palmtop_encode_options,
    size: usize,
) -> palmtop_status {
    // SAFETY: as this function's.
    call(|| unsafe { arguments::init(options, size, DEFAULT_ENCODE_OPTIONS) })
}

/// # Safety
/// `width` and `height` are null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn palmtop_features_get_picture(
    features: palmtop_features,
    width: *mut u32,
    height: *mut u32,
) -> palmtop_status {
    call(|| {
        // SAFETY: as this function's.
        let (out_width, out_height) =
            unsafe { (Out::new("width", width, 0)?, Out::new("height", height, 0)?) };
        let entry = FEATURES.get(features.id)?;
        let (width, height) = try_lock(entry.features.try_read(), "features")?.picture_size();
        out_width.give(width);
        out_height.give(height);
        Ok(())
    })
}
