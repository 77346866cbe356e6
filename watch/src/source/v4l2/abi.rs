//! What is exchanged with Video4Linux: the structs and constants of `include/uapi/linux/videodev2.h` that are needed,
//! under the names they have there.
//!
//! All fields are plain numbers, so that any bytes of the kernel's are a value. `c_long` and `c_ulong` are what the
//! header has them for: 64 bits on 64-bit systems, 32 on 32-bit Arm, where this is the struct with 32-bit times.
//! Kernels take that one too; it holds monotonic times, which begin when the system does.

use std::ffi::{c_long, c_ulong};
use std::mem::offset_of;

/// Four letters as a number, `v4l2_fourcc`.
pub(super) const fn fourcc(letters: &[u8; 4]) -> u32 {
    u32::from_le_bytes(*letters)
}

/// The letters of such a number, those that are printable.
pub(super) fn letters(fourcc: u32) -> String {
    let letter = |byte: u8| if byte.is_ascii_graphic() { char::from(byte) } else { '.' };
    fourcc.to_le_bytes().into_iter().map(letter).collect()
}

/// `V4L2_PIX_FMT_NV12`
pub(super) const NV12: u32 = fourcc(b"NV12");
/// `V4L2_PIX_FMT_YUV420`
pub(super) const YU12: u32 = fourcc(b"YU12");
/// `V4L2_PIX_FMT_YUYV`
pub(super) const YUYV: u32 = fourcc(b"YUYV");
/// `V4L2_PIX_FMT_UYVY`
pub(super) const UYVY: u32 = fourcc(b"UYVY");
/// `V4L2_PIX_FMT_GREY`
pub(super) const GREY: u32 = fourcc(b"GREY");
/// `V4L2_PIX_FMT_MJPEG`
pub(super) const MJPG: u32 = fourcc(b"MJPG");
/// `V4L2_PIX_FMT_JPEG`
pub(super) const JPEG: u32 = fourcc(b"JPEG");

/// `V4L2_BUF_TYPE_VIDEO_CAPTURE`
pub(super) const BUF_TYPE_VIDEO_CAPTURE: u32 = 1;
/// `V4L2_MEMORY_MMAP`
pub(super) const MEMORY_MMAP: u32 = 1;
/// `V4L2_FIELD_NONE`
pub(super) const FIELD_NONE: u32 = 1;

/// `V4L2_CAP_VIDEO_CAPTURE`
pub(super) const CAP_VIDEO_CAPTURE: u32 = 0x0000_0001;
/// `V4L2_CAP_VIDEO_CAPTURE_MPLANE`
pub(super) const CAP_VIDEO_CAPTURE_MPLANE: u32 = 0x0000_1000;
/// `V4L2_CAP_STREAMING`
pub(super) const CAP_STREAMING: u32 = 0x0400_0000;
/// `V4L2_CAP_DEVICE_CAPS`: `device_caps` says what this node can do, of all that the device can.
pub(super) const CAP_DEVICE_CAPS: u32 = 0x8000_0000;
/// `V4L2_CAP_TIMEPERFRAME`: the rate can be chosen.
pub(super) const CAP_TIMEPERFRAME: u32 = 0x1000;

/// `V4L2_FRMSIZE_TYPE_DISCRETE`, and `V4L2_FRMIVAL_TYPE_DISCRETE`
pub(super) const TYPE_DISCRETE: u32 = 1;

/// `V4L2_BUF_FLAG_ERROR`: the data of the buffer may be corrupt.
pub(super) const BUF_FLAG_ERROR: u32 = 0x0000_0040;
/// `V4L2_BUF_FLAG_TIMESTAMP_MASK`
pub(super) const BUF_FLAG_TIMESTAMP_MASK: u32 = 0x0000_e000;
/// `V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC`
pub(super) const BUF_FLAG_TIMESTAMP_MONOTONIC: u32 = 0x0000_2000;

/// `V4L2_COLORSPACE_REC709`
pub(super) const COLORSPACE_REC709: u32 = 3;
/// `V4L2_COLORSPACE_JPEG`
pub(super) const COLORSPACE_JPEG: u32 = 7;
/// `V4L2_YCBCR_ENC_DEFAULT`
pub(super) const YCBCR_ENC_DEFAULT: u32 = 0;
/// `V4L2_YCBCR_ENC_709`
pub(super) const YCBCR_ENC_709: u32 = 2;
/// `V4L2_QUANTIZATION_DEFAULT`
pub(super) const QUANTIZATION_DEFAULT: u32 = 0;
/// `V4L2_QUANTIZATION_FULL_RANGE`
pub(super) const QUANTIZATION_FULL_RANGE: u32 = 1;
/// `V4L2_PIX_FMT_PRIV_MAGIC` in `priv`: the fields behind it are meant.
pub(super) const PIX_FMT_PRIV_MAGIC: u32 = 0xfeed_cafe;

/// `struct v4l2_capability`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Capability {
    pub driver: [u8; 16],
    pub card: [u8; 32],
    pub bus_info: [u8; 32],
    pub version: u32,
    pub capabilities: u32,
    pub device_caps: u32,
    pub reserved: [u32; 3],
}

/// `struct v4l2_fmtdesc`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct FormatDescription {
    pub index: u32,
    pub kind: u32,
    pub flags: u32,
    pub description: [u8; 32],
    pub pixelformat: u32,
    pub mbus_code: u32,
    pub reserved: [u32; 3],
}

/// `struct v4l2_frmsizeenum`, whose union is width and height, or the least and the greatest of both with their steps.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameSizes {
    pub index: u32,
    pub pixel_format: u32,
    pub kind: u32,
    /// Discrete: width, height. Else: least, greatest and step of the width, then of the height.
    pub sizes: [u32; 6],
    pub reserved: [u32; 2],
}

/// `struct v4l2_fract`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fraction {
    pub numerator: u32,
    pub denominator: u32,
}

/// `struct v4l2_frmivalenum`, whose union is an interval, or the shortest, the longest and the step.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameIntervals {
    pub index: u32,
    pub pixel_format: u32,
    pub width: u32,
    pub height: u32,
    pub kind: u32,
    pub intervals: [Fraction; 3],
    pub reserved: [u32; 2],
}

/// `struct v4l2_format` with the `struct v4l2_pix_format` of its union. The union holds pointers too, so that it is
/// aligned as they are.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    pub kind: u32,
    pub pix: PixFormat,
}

/// `struct v4l2_pix_format`, and the rest of the union that it is in: 200 bytes.
#[repr(C)]
#[cfg_attr(target_pointer_width = "64", repr(align(8)))]
#[derive(Clone, Copy, Debug)]
pub(super) struct PixFormat {
    pub width: u32,
    pub height: u32,
    pub pixelformat: u32,
    pub field: u32,
    pub bytesperline: u32,
    pub sizeimage: u32,
    pub colorspace: u32,
    pub priv_magic: u32,
    pub flags: u32,
    pub ycbcr_enc: u32,
    pub quantization: u32,
    pub xfer_func: u32,
    pub rest: [u32; 38],
}

/// `struct v4l2_streamparm` with the `struct v4l2_captureparm` of its union of 200 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamParameters {
    pub kind: u32,
    pub capability: u32,
    pub capturemode: u32,
    pub timeperframe: Fraction,
    pub extendedmode: u32,
    pub readbuffers: u32,
    pub rest: [u32; 44],
}

/// `struct v4l2_requestbuffers`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestBuffers {
    pub count: u32,
    pub kind: u32,
    pub memory: u32,
    pub capabilities: u32,
    /// Flags, and what is reserved.
    pub flags: u32,
}

/// `struct v4l2_buffer`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Buffer {
    pub index: u32,
    pub kind: u32,
    pub bytesused: u32,
    pub flags: u32,
    pub field: u32,
    /// `struct timeval`: seconds and microseconds.
    pub timestamp: [c_long; 2],
    /// `struct v4l2_timecode`
    pub timecode: [u32; 4],
    pub sequence: u32,
    pub memory: u32,
    /// The union `m`: with `V4L2_MEMORY_MMAP` its first four bytes are the offset.
    pub m: [u32; size_of::<c_ulong>() / 4],
    pub length: u32,
    pub reserved2: u32,
    pub request_fd: u32,
}

// Sizes are a part of the numbers of calls; these are those of the header, as a C compiler has them on 64-bit systems,
// and on 32-bit ones by its rules.
const _: () = assert!(size_of::<Capability>() == 104);
const _: () = assert!(size_of::<FormatDescription>() == 64);
const _: () = assert!(size_of::<FrameSizes>() == 44);
const _: () = assert!(size_of::<FrameIntervals>() == 52);
const _: () = assert!(size_of::<StreamParameters>() == 204);
const _: () = assert!(size_of::<RequestBuffers>() == 20);
#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(size_of::<Format>() == 208 && offset_of!(Format, pix) == 8);
    assert!(size_of::<Buffer>() == 88 && offset_of!(Buffer, timestamp) == 24);
    assert!(offset_of!(Buffer, m) == 64 && offset_of!(Buffer, length) == 72);
};
#[cfg(target_pointer_width = "32")]
const _: () = {
    assert!(size_of::<Format>() == 204 && offset_of!(Format, pix) == 4);
    assert!(size_of::<Buffer>() == 68 && offset_of!(Buffer, timestamp) == 20);
    assert!(offset_of!(Buffer, m) == 52 && offset_of!(Buffer, length) == 56);
};

impl Format {
    /// Of capture, all else zero.
    pub fn new() -> Self {
        let pix = PixFormat {
            width: 0,
            height: 0,
            pixelformat: 0,
            field: FIELD_NONE,
            bytesperline: 0,
            sizeimage: 0,
            colorspace: 0,
            priv_magic: PIX_FMT_PRIV_MAGIC,
            flags: 0,
            ycbcr_enc: 0,
            quantization: 0,
            xfer_func: 0,
            rest: [0; 38],
        };
        Self { kind: BUF_TYPE_VIDEO_CAPTURE, pix }
    }
}

impl StreamParameters {
    /// Of capture, with this time from frame to frame.
    pub fn new(timeperframe: Fraction) -> Self {
        Self {
            kind: BUF_TYPE_VIDEO_CAPTURE,
            capability: 0,
            capturemode: 0,
            timeperframe,
            extendedmode: 0,
            readbuffers: 0,
            rest: [0; 44],
        }
    }
}

impl Buffer {
    /// Of capture in mapped memory, all else zero.
    pub fn new(index: u32) -> Self {
        Self {
            index,
            kind: BUF_TYPE_VIDEO_CAPTURE,
            bytesused: 0,
            flags: 0,
            field: 0,
            timestamp: [0; 2],
            timecode: [0; 4],
            sequence: 0,
            memory: MEMORY_MMAP,
            m: [0; size_of::<c_ulong>() / 4],
            length: 0,
            reserved2: 0,
            request_fd: 0,
        }
    }
}
