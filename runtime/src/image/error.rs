//! Why an image cannot be used.

use std::error::Error;
use std::path::PathBuf;

use super::kind::{FileKind, Format};

/// Why an image cannot be used. The messages say what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// There are no bytes at all: the file's fault.
    #[error("the image is empty (zero bytes): was it written or sent completely?")]
    Empty,

    /// The bytes begin like none of the supported formats: the file's fault.
    #[error("{}: {}", not_a_picture(*.kind), .kind.advice())]
    UnknownFormat {
        /// What the bytes look like instead.
        kind: FileKind,
    },

    /// The file ends, or its data do, before the picture does: the file's fault. With
    /// [`DecodeOptions::allow_truncated`](super::DecodeOptions::allow_truncated) what is there is decoded.
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
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

/// How pixels, sizes or buffers of a call do not fit each other.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// A side is zero.
    #[error("an image of {width}x{height} pixels has no pixels")]
    NoPixels {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// A frame is to be turned by something else than quarters.
    #[error("a frame cannot be turned by {degrees} degrees: choose 0, 90, 180 or 270")]
    Rotation {
        /// Degrees that were asked for.
        degrees: u32,
    },
    /// The samples of a row would all lie at one place.
    #[error("the {samples} have a step of 0 bytes from one sample to the next")]
    NoStep {
        /// Which plane's samples.
        samples: &'static str,
    },
    /// The picture would have more bytes than there are addresses.
    #[error("{width}x{height} {samples} do not fit in this machine's memory")]
    Unaddressable {
        /// Samples of a row.
        width: usize,
        /// Rows.
        height: usize,
        /// Which plane's samples.
        samples: &'static str,
    },
    /// Rows would overlap.
    #[error(
        "a stride of {stride_bytes} bytes is shorter than a row of {width} {samples} ({row_bytes} bytes)"
    )]
    RowsOverlap {
        /// From a row to the next.
        stride_bytes: usize,
        /// Samples of a row.
        width: usize,
        /// Which plane's samples.
        samples: &'static str,
        /// Bytes of a row.
        row_bytes: usize,
    },
    /// The data ends before the last row does.
    #[error(
        "{given_bytes} bytes are too few for {width}x{height} {samples} with a stride of {stride_bytes} bytes: they take \
         {needed_bytes}"
    )]
    TooShort {
        /// Bytes that were given.
        given_bytes: usize,
        /// Samples of a row.
        width: usize,
        /// Rows.
        height: usize,
        /// Which plane's samples.
        samples: &'static str,
        /// From a row to the next.
        stride_bytes: usize,
        /// Bytes that are needed.
        needed_bytes: usize,
    },
    /// A buffer does not have exactly the elements that it must have.
    #[error("these pixels are {needed} values, the buffer has {given}")]
    Length {
        /// Elements that are needed.
        needed: usize,
        /// Elements that were given.
        given: usize,
    },
    /// A side that the resizer does not take.
    #[error("a {what} of {side} pixels cannot be resized: it must be from 1 to {most}")]
    Side {
        /// Which side.
        what: &'static str,
        /// Its pixels.
        side: u32,
        /// The most that there can be.
        most: u32,
    },
    /// The sides are no multiples of a patch's.
    #[error("an image of {width}x{height} pixels does not divide into patches of {patch}")]
    Patches {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Pixels of a patch's side.
        patch: u32,
    },
    /// Mean, standard deviation and rescale factor give infinities or no numbers.
    #[error("image mean {mean:?}, std {std:?} and rescale factor {rescale} give pixels that are not finite")]
    NotFinite {
        /// Per colour, red first.
        mean: [f32; 3],
        /// Per colour, red first.
        std: [f32; 3],
        /// Applied to 0..=255.
        rescale: f64,
    },
}

fn not_a_picture(kind: FileKind) -> String {
    const NONE: &str = "not a JPEG, PNG, WebP, BMP, GIF or TIFF image";
    match kind {
        FileKind::NoPicture(name) => format!("not a picture, but {name}"),
        _ => kind.name().map_or(NONE.into(), |name| format!("{NONE} (it looks like {name})")),
    }
}

/// What an error of a decoder means.
pub(super) fn from_decoder(format: Format, error: &(dyn Error + 'static)) -> ImageError {
    let format = format.name();
    let reason = error.to_string();
    match (error.downcast_ref(), error.downcast_ref()) {
        (Some(image::ImageError::Unsupported(_)), _) | (_, Some(tiff::TiffError::UnsupportedError(_))) => {
            ImageError::Unsupported { format, reason }
        }
        _ if is_end_of_file(error) => ImageError::Truncated { format },
        _ => ImageError::Broken { format, reason },
    }
}

/// Whether the cause of `error` is that bytes are missing.
fn is_end_of_file(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // Two of the libraries show such a cause only in their own type.
        let own = match (error.downcast_ref(), error.downcast_ref()) {
            (Some(image::ImageError::IoError(error)), _) => Some(error),
            (_, Some(tiff::TiffError::IoError(error))) => Some(error),
            _ => error.downcast_ref::<std::io::Error>(),
        };
        if own.is_some_and(|error| error.kind() == std::io::ErrorKind::UnexpectedEof) {
            return true;
        }
        cause = error.source();
    }
    false
}
