//! Pictures in messages of type `Image` and `CompressedImage` (github.com/ros2/common_interfaces, `sensor_msgs`).
//!
//! Any node can send anything: all sizes are checked against the bytes that came before a byte is copied, and no more
//! is allocated than the message itself has.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use palmtop::image::{PixelFormat, YuvColor};

use super::cdr::Cdr;
use crate::stream::Layout;

/// Which of the two types a topic has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Pixels.
    Image,
    /// A JPEG or PNG file.
    Compressed,
}

impl Kind {
    /// Image transports publish compressed pictures below the topic of the plain ones.
    pub fn of_topic(topic: &str) -> Self {
        if topic.ends_with("/compressed") { Self::Compressed } else { Self::Image }
    }

    /// The type as DDS knows it.
    pub fn type_name(self) -> &'static str {
        match self {
            Self::Image => "sensor_msgs::msg::dds_::Image_",
            Self::Compressed => "sensor_msgs::msg::dds_::CompressedImage_",
        }
    }

    /// The type as ROS users know it.
    pub fn ros_type(self) -> &'static str {
        match self {
            Self::Image => "sensor_msgs/msg/Image",
            Self::Compressed => "sensor_msgs/msg/CompressedImage",
        }
    }
}

/// What a message says about the bytes of its picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Picture {
    pub layout: Layout,
    /// The header's stamp, if it is a time.
    pub stamp: Option<SystemTime>,
}

/// Why a message has no picture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the message ends too early")]
    Cut,
    #[error("the message is encoded in a way that ROS 2 does not use")]
    Representation,
    #[error("the encoding '{0}' is not read; use rgb8, bgr8, rgba8, bgra8, mono8, yuyv or uyvy")]
    Encoding(String),
    #[error("{width} × {height} is no size of a picture")]
    Size { width: u32, height: u32 },
    #[error("a row of {width} pixels does not fit into a step of {step} bytes")]
    Step { width: u32, step: u32 },
    #[error("the picture has {given} bytes instead of {needed}")]
    Short { needed: u64, given: usize },
    #[error("the picture has {bytes} bytes, and the limit is {bytes_max}")]
    TooLarge { bytes: usize, bytes_max: usize },
    #[error("the data is neither JPEG nor PNG")]
    Format,
}

/// The longest side of a picture.
const SIDE_MAX: u32 = 1 << 16;

/// Puts the picture of a message into `out`, rows without gaps. `bytes_max` bounds the bytes of a picture.
pub(crate) fn read(
    kind: Kind,
    message: &[u8],
    is_little: bool,
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> Result<Picture, Broken> {
    out.clear();
    let mut message = Cdr::new(message, is_little);
    let stamp = header(&mut message).ok_or(Broken::Cut)?;
    let layout = match kind {
        Kind::Image => image(&mut message, bytes_max, out),
        Kind::Compressed => compressed(&mut message, bytes_max, out),
    }?;
    Ok(Picture { layout, stamp })
}

/// `std_msgs/msg/Header`: gives its stamp, if it is a time.
fn header(message: &mut Cdr<'_>) -> Option<Option<SystemTime>> {
    let (sec, nanosec) = (message.u32()?.cast_signed(), message.u32()?);
    // The name of a frame: the camera's name in the configuration stands for it.
    message.text()?;
    let sec = u64::try_from(sec).ok().filter(|_| nanosec < 1_000_000_000);
    Some(sec.map(|sec| UNIX_EPOCH + Duration::new(sec, nanosec)))
}

fn image(message: &mut Cdr<'_>, bytes_max: usize, out: &mut Vec<u8>) -> Result<Layout, Broken> {
    let (height, width) = (message.u32().ok_or(Broken::Cut)?, message.u32().ok_or(Broken::Cut)?);
    let encoding = Encoding::named(message.text().ok_or(Broken::Cut)?)?;
    // The order of bytes: those of these encodings have none.
    message.u8().ok_or(Broken::Cut)?;
    let step = message.u32().ok_or(Broken::Cut)?;
    let data = message.octets().ok_or(Broken::Cut)?;

    if width == 0 || height == 0 || width > SIDE_MAX || height > SIDE_MAX {
        return Err(Broken::Size { width, height });
    }
    let row = encoding.row_bytes(width);
    if (step as usize) < row {
        return Err(Broken::Step { width, step });
    }
    let needed = u64::from(step) * u64::from(height);
    if needed > data.len() as u64 {
        return Err(Broken::Short { needed, given: data.len() });
    }
    // No more than `needed`, so it fits.
    let bytes = row * height as usize;
    if bytes > bytes_max {
        return Err(Broken::TooLarge { bytes, bytes_max });
    }
    out.reserve_exact(bytes);
    for line in data.chunks_exact(step as usize).take(height as usize) {
        out.extend_from_slice(&line[..row]);
    }
    Ok(encoding.layout(width, height))
}

/// How pixels lie: `sensor_msgs/image_encodings.hpp`.
#[derive(Clone, Copy)]
enum Encoding {
    Packed(PixelFormat),
    Yuyv,
    Uyvy,
}

impl Encoding {
    /// OpenCV's `8UC3` does not say which colour is first. The names with 422 are those of older distributions.
    fn named(name: &[u8]) -> Result<Self, Broken> {
        Ok(match name {
            b"rgb8" => Self::Packed(PixelFormat::Rgb),
            b"bgr8" => Self::Packed(PixelFormat::Bgr),
            b"rgba8" => Self::Packed(PixelFormat::Rgba),
            b"bgra8" => Self::Packed(PixelFormat::Bgra),
            b"mono8" | b"8UC1" => Self::Packed(PixelFormat::Grey),
            b"yuyv" | b"yuv422_yuy2" => Self::Yuyv,
            b"uyvy" | b"yuv422" => Self::Uyvy,
            _ => {
                let shown = &name[..name.len().min(32)];
                return Err(Broken::Encoding(String::from_utf8_lossy(shown).escape_debug().to_string()));
            }
        })
    }

    /// Bytes of a row of so many pixels, at most [`SIDE_MAX`].
    fn row_bytes(self, width: u32) -> usize {
        match self {
            Self::Packed(format) => width as usize * format.bytes(),
            Self::Yuyv | Self::Uyvy => 4 * width.div_ceil(2) as usize,
        }
    }

    fn layout(self, width: u32, height: u32) -> Layout {
        // What drivers of USB cameras pass on; the message does not say.
        let color = YuvColor::default();
        match self {
            Self::Packed(format) => Layout::Packed { format, width, height },
            Self::Yuyv => Layout::Yuyv { width, height, color },
            Self::Uyvy => Layout::Uyvy { width, height, color },
        }
    }
}

fn compressed(message: &mut Cdr<'_>, bytes_max: usize, out: &mut Vec<u8>) -> Result<Layout, Broken> {
    // Drivers fill the format in many ways, so what counts is how the file begins.
    message.text().ok_or(Broken::Cut)?;
    let data = message.octets().ok_or(Broken::Cut)?;
    if !data.starts_with(&[0xff, 0xd8, 0xff]) && !data.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Err(Broken::Format);
    }
    if data.len() > bytes_max {
        return Err(Broken::TooLarge { bytes: data.len(), bytes_max });
    }
    out.extend_from_slice(data);
    Ok(Layout::Encoded)
}

#[cfg(test)]
#[path = "picture_tests.rs"]
mod tests;
