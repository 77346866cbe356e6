//! Streams of bytes, cut into pictures: what cameras, `ffmpeg` and pipes deliver without an end.
//!
//! A [`Splitter`] takes bytes as they come, in pieces of any size, and says where a picture ends. It holds one picture
//! at a time in the caller's memory, never more bytes than its limit, and finds back into a stream that was broken.

mod any;
mod mjpeg;
mod raw;
mod y4m;

use std::time::Duration;

use palmtop::image::{Frame, ImageError, PixelFormat, Plane, RgbImage, YuvColor};

pub use any::Any;
pub use mjpeg::Mjpeg;
pub use raw::Raw;
pub use y4m::Y4m;

/// How the bytes of a picture lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A file in a picture format, such as JPEG.
    Encoded,
    /// Rows of pixels without gaps.
    Packed {
        /// The bytes of a pixel.
        format: PixelFormat,
        /// Pixels of a row.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// A plane of luma, then one in which U and V alternate.
    Nv12 {
        /// Pixels of a row.
        width: u32,
        /// Rows.
        height: u32,
        /// What luma and chroma mean.
        color: YuvColor,
    },
    /// A plane of luma, then one of U, then one of V, each chroma sample for two by two pixels.
    I420 {
        /// Pixels of a row.
        width: u32,
        /// Rows.
        height: u32,
        /// What luma and chroma mean.
        color: YuvColor,
    },
    /// Luma, U, luma, V for two pixels: 4:2:2.
    Yuyv {
        /// Pixels of a row.
        width: u32,
        /// Rows.
        height: u32,
        /// What luma and chroma mean.
        color: YuvColor,
    },
    /// U, luma, V, luma for two pixels: 4:2:2.
    Uyvy {
        /// Pixels of a row.
        width: u32,
        /// Rows.
        height: u32,
        /// What luma and chroma mean.
        color: YuvColor,
    },
}

impl Layout {
    /// Bytes of a picture; `None` if they are not known beforehand, or more than can be addressed.
    pub fn bytes(self) -> Option<usize> {
        let pixels = |width: u32, height: u32| (width as usize).checked_mul(height as usize);
        match self {
            Self::Encoded => None,
            Self::Packed { format, width, height } => pixels(width, height)?.checked_mul(format.bytes()),
            Self::Nv12 { width, height, .. } | Self::I420 { width, height, .. } => {
                let chroma = pixels(width.div_ceil(2), height.div_ceil(2))?;
                pixels(width, height)?.checked_add(chroma.checked_mul(2)?)
            }
            Self::Yuyv { width, height, .. } | Self::Uyvy { width, height, .. } => {
                pixels(width.div_ceil(2), height)?.checked_mul(4)
            }
        }
    }

    /// The picture in such bytes; `None` if it has to be decoded first.
    ///
    /// # Errors
    /// If a side is zero or there are too few bytes.
    pub fn frame(self, bytes: &[u8]) -> Option<Result<Frame<'_>, ImageError>> {
        Some(match self {
            Self::Encoded => return None,
            Self::Packed { format, width, height } => {
                Frame::packed(format, width, height, width as usize * format.bytes(), bytes)
            }
            Self::Nv12 { width, height, color } => {
                let (luma, chroma) = planes(bytes, width, height);
                let row = width.div_ceil(2) as usize * 2;
                let frame =
                    Frame::nv12(width, height, Plane::new(luma, width as usize), Plane::new(chroma, row));
                frame.map(|f| f.coloured(color))
            }
            Self::I420 { width, height, color } => {
                let (luma, chroma) = planes(bytes, width, height);
                let row = width.div_ceil(2) as usize;
                let (u, v) = chroma.split_at((row * height.div_ceil(2) as usize).min(chroma.len()));
                let plane = |data| Plane::new(data, row);
                let frame =
                    Frame::yuv420(width, height, Plane::new(luma, width as usize), plane(u), plane(v));
                frame.map(|f| f.coloured(color))
            }
            Self::Yuyv { width, height, color } => {
                Frame::yuyv(width, height, pairs_bytes(width), bytes).map(|f| f.coloured(color))
            }
            Self::Uyvy { width, height, color } => {
                Frame::uyvy(width, height, pairs_bytes(width), bytes).map(|f| f.coloured(color))
            }
        })
    }
}

/// A copy of a frame's pixels.
///
/// # Errors
/// If they are more than can be addressed.
pub fn to_rgb(frame: &Frame<'_>) -> Result<RgbImage, ImageError> {
    let (width, height) = (frame.width(), frame.height());
    let mut data = vec![0; 3 * width as usize * height as usize];
    for (row, out) in data.chunks_exact_mut(3 * width as usize).enumerate() {
        frame.write_row(row as u32, out);
    }
    RgbImage::new(width, height, data)
}

/// Bytes of a row of 4:2:2.
fn pairs_bytes(width: u32) -> usize {
    4 * width.div_ceil(2) as usize
}

/// Luma, and all that is behind it.
fn planes(bytes: &[u8], width: u32, height: u32) -> (&[u8], &[u8]) {
    bytes.split_at((width as usize).saturating_mul(height as usize).min(bytes.len()))
}

/// How far a splitter has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Bytes that it took; the rest is for the next call.
    pub bytes: usize,
    /// A picture is complete in the caller's memory.
    pub is_complete: bool,
}

/// Why a stream cannot be read on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// It does not begin as a stream of this kind does.
    #[error("the stream is not {expected}: it begins with {found}")]
    OtherKind {
        /// What was expected.
        expected: &'static str,
        /// Its first bytes, printable.
        found: String,
    },
    /// Its header asks for something that is not read.
    #[error("the stream's header says '{entry}': {what}")]
    Header {
        /// The part of the header.
        entry: String,
        /// What is wrong with it, and what to do.
        what: &'static str,
    },
    /// Pictures are larger than the limit.
    #[error("a picture of the stream has {bytes} bytes, and the limit is {bytes_max}")]
    TooLarge {
        /// Bytes of a picture.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
}

/// Cuts a stream into pictures.
pub trait Splitter: Send {
    /// Takes bytes of the stream, up to the end of a picture. `picture` is the caller's memory: it holds what has come
    /// of the picture so far, and must be left alone until it is complete; then the next call begins it anew.
    ///
    /// # Errors
    /// If the stream cannot be read on. Damage that it can find back from is no error but counted
    /// ([`broken`](Self::broken)).
    fn take(&mut self, bytes: &[u8], picture: &mut Vec<u8>) -> Result<Taken, StreamError>;

    /// How the bytes of the pictures lie; `None` before the stream has said so.
    fn layout(&self) -> Option<Layout>;

    /// From one picture to the next, if the stream says so.
    fn period(&self) -> Option<Duration> {
        None
    }

    /// Pictures that were given up so far, because they were cut short or too large.
    fn broken(&self) -> u64;

    /// What room `picture` should have, so that it need not grow.
    fn bytes_max(&self) -> usize;
}

/// The beginning of something, printable, for errors.
fn beginning(bytes: &[u8]) -> String {
    const SHOWN: usize = 16;
    format!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]))
}

#[cfg(test)]
mod tests;
