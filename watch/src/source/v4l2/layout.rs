//! Where the samples of a frame lie in a driver's buffer, and how they are copied out of it without gaps.

use palmtop::image::{PixelFormat, YuvColor};

use super::abi::{
    COLORSPACE_JPEG, COLORSPACE_REC709, PIX_FMT_PRIV_MAGIC, PixFormat, QUANTIZATION_DEFAULT,
    QUANTIZATION_FULL_RANGE, YCBCR_ENC_709, YCBCR_ENC_DEFAULT,
};
use super::choose::Pixels;
use crate::stream::Layout;

/// The longest side of a frame that is believed.
const SIDE_MAX: u32 = 1 << 14;

/// The frames of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameLayout {
    layout: Layout,
    /// Up to three planes, one behind the other; none for JPEG.
    planes: [Rows; 3],
    bytes_max: usize,
}

/// Rows of a plane.
#[derive(Clone, Copy, Debug, Default)]
struct Rows {
    start: usize,
    /// From row to row.
    stride: usize,
    /// Of a row, without what is behind it.
    bytes: usize,
    count: usize,
}

impl Rows {
    fn end(&self) -> usize {
        if self.count == 0 { 0 } else { self.start + (self.count - 1) * self.stride + self.bytes }
    }
}

impl FrameLayout {
    /// As the driver has set it.
    ///
    /// # Errors
    /// What makes no sense.
    pub fn new(pix: &PixFormat, pixels: Pixels, bytes_max: usize) -> Result<Self, String> {
        let (width, height) = (pix.width, pix.height);
        if !(1..=SIDE_MAX).contains(&width) || !(1..=SIDE_MAX).contains(&height) {
            return Err(format!("frames have {width}x{height} pixels"));
        }
        let color = color(pix);
        let (w, h) = (width as usize, height as usize);
        let (half_w, half_h) = (w.div_ceil(2), h.div_ceil(2));
        // Some drivers leave it zero.
        let stride = |least: usize| (pix.bytesperline as usize).max(least);
        let none = Rows::default();
        let (layout, planes) = match pixels {
            Pixels::Mjpeg => (Layout::Encoded, [none; 3]),
            Pixels::Grey => {
                let plane = Rows { start: 0, stride: stride(w), bytes: w, count: h };
                (Layout::Packed { format: PixelFormat::Grey, width, height }, [plane, none, none])
            }
            Pixels::Yuyv | Pixels::Uyvy => {
                let plane = Rows { start: 0, stride: stride(4 * half_w), bytes: 4 * half_w, count: h };
                let layout = match pixels {
                    Pixels::Yuyv => Layout::Yuyv { width, height, color },
                    _ => Layout::Uyvy { width, height, color },
                };
                (layout, [plane, none, none])
            }
            Pixels::Nv12 => {
                // Chroma has luma's stride.
                let stride = stride(2 * half_w);
                let luma = Rows { start: 0, stride, bytes: w, count: h };
                let chroma = Rows { start: stride * h, stride, bytes: 2 * half_w, count: half_h };
                (Layout::Nv12 { width, height, color }, [luma, chroma, none])
            }
            Pixels::I420 => {
                // Chroma has half of luma's stride.
                let stride = stride(2 * half_w);
                let luma = Rows { start: 0, stride, bytes: w, count: h };
                let chroma = |start| Rows { start, stride: stride / 2, bytes: half_w, count: half_h };
                let u = chroma(stride * h);
                let v = chroma(u.start + u.stride * half_h);
                (Layout::I420 { width, height, color }, [luma, u, v])
            }
        };
        if layout.bytes().is_some_and(|bytes| bytes > bytes_max) {
            return Err(format!(
                "frames have {width}x{height} pixels, more than the limit of {bytes_max} bytes"
            ));
        }
        Ok(Self { layout, planes, bytes_max })
    }

    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Bytes that a buffer must have.
    pub fn bytes_least(&self) -> usize {
        self.planes.iter().map(Rows::end).max().unwrap_or(0).max(1)
    }

    /// Whether a buffer, of which the driver has used so many bytes, has a whole frame.
    pub fn holds(&self, bytes: &[u8], used: usize) -> bool {
        let used = bytes.get(..used).unwrap_or_default();
        match self.layout {
            Layout::Encoded => used.starts_with(&[0xff, 0xd8]) && used.len() <= self.bytes_max,
            _ => used.len() >= self.bytes_least(),
        }
    }

    /// Copies a frame that the buffer [`holds`](Self::holds).
    pub fn copy(&self, bytes: &[u8], used: usize, picture: &mut Vec<u8>) {
        let used = &bytes[..used.min(bytes.len())];
        picture.clear();
        if self.layout == Layout::Encoded {
            picture.extend_from_slice(used);
            return;
        }
        for plane in self.planes.iter().filter(|plane| plane.count > 0) {
            if plane.stride == plane.bytes {
                picture.extend_from_slice(&used[plane.start..plane.end()]);
                continue;
            }
            for row in 0..plane.count {
                picture.extend_from_slice(&used[plane.start + row * plane.stride..][..plane.bytes]);
            }
        }
    }
}

/// What luma and chroma mean, with the header's rules for what the driver leaves open
/// (`V4L2_MAP_YCBCR_ENC_DEFAULT`, `V4L2_MAP_QUANTIZATION_DEFAULT`).
fn color(pix: &PixFormat) -> YuvColor {
    // Else the driver is older than these fields.
    let is_meant = pix.priv_magic == PIX_FMT_PRIV_MAGIC;
    let (matrix, range) = if is_meant { (pix.ycbcr_enc, pix.quantization) } else { Default::default() };
    let is_709 = match matrix {
        YCBCR_ENC_DEFAULT => pix.colorspace == COLORSPACE_REC709,
        matrix => matrix == YCBCR_ENC_709,
    };
    let is_full = match range {
        QUANTIZATION_DEFAULT => pix.colorspace == COLORSPACE_JPEG,
        range => range == QUANTIZATION_FULL_RANGE,
    };
    match (is_709, is_full) {
        (false, false) => YuvColor::Bt601Limited,
        (false, true) => YuvColor::Bt601Full,
        (true, false) => YuvColor::Bt709Limited,
        (true, true) => YuvColor::Bt709Full,
    }
}
