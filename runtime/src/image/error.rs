//! Why an image cannot be used.

use std::path::PathBuf;

/// Why an image cannot be used. The messages say what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// There are no bytes at all: the file's fault.
    #[error("the image is empty (zero bytes): was it written or sent completely?")]
    Empty,

    /// The bytes begin like none of the supported formats: the file's fault.
    #[error("not a JPEG, PNG, WebP, BMP or GIF image{}: convert it to one of these first",
        .looks_like.map(|name| format!(" (it looks like {name})")).unwrap_or_default())]
    UnknownFormat {
        /// What the bytes look like instead, where that is known.
        looks_like: Option<&'static str>,
    },

    /// The file ends before the picture does: the file's fault.
    #[error("the {format} image is truncated: it ends before the picture does; copy or send it again")]
    Truncated {
        /// The format that the first bytes announce.
        format: &'static str,
    },

    /// The file contradicts its own format: the file's fault.
    #[error("the {format} image is broken: {reason}; export it again from its source")]
    Broken {
        /// The format that the first bytes announce.
        format: &'static str,
        /// What the decoder said.
        reason: String,
    },

    /// The file is right, but uses a part of its format that is not supported.
    #[error(
        "the {format} image uses a feature that is not supported: {reason}; convert it to a plain PNG or JPEG"
    )]
    Unsupported {
        /// The format that the first bytes announce.
        format: &'static str,
        /// What the decoder said.
        reason: String,
    },

    /// The picture has more pixels on a side than [`ImageLimits::side_max`](super::ImageLimits::side_max).
    #[error(
        "the image is {width}x{height} pixels, more than the limit of {side_max} per side: make it smaller first"
    )]
    SideTooLarge {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The limit in pixels.
        side_max: u32,
    },

    /// Decoding would need more memory than [`ImageLimits::decoded_bytes_max`](super::ImageLimits::decoded_bytes_max).
    #[error(
        "decoding this image of {width}x{height} pixels needs {needed_bytes} bytes, more than the limit of \
         {limit_bytes}: make it smaller first"
    )]
    TooManyBytes {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Estimate of the memory that decoding would hold at once.
        needed_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },

    /// The file is longer than [`ImageLimits::encoded_bytes_max`](super::ImageLimits::encoded_bytes_max).
    #[error("the image file is longer than the limit of {limit_bytes} bytes: make it smaller first")]
    FileTooLarge {
        /// The limit.
        limit_bytes: u64,
    },

    /// The file cannot be read: the machine's fault.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },

    /// Pixels, sizes or buffers of a call do not fit each other: the caller's fault.
    #[error("{0}")]
    InvalidArgument(String),
}
