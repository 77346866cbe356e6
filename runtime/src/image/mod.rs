//! From the bytes of a picture to the pixels that the model sees.
//!
//! The path is [`decode`] (any supported file to RGB) → [`Resizer`] (exactly Pillow's antialiased bicubic, or another
//! [`Filter`]) → [`Normaliser`] (to f32, as planes or as the patches of the vision tower). Decoding allocates, within
//! [`ImageLimits`]; resizing and normalising write into memory that was allocated beforehand. A [`Frame`] is a picture
//! that needs no decoding: pixels as cameras deliver them, which the resizer reads where they lie.

mod bmp;
mod bytes;
mod color;
mod decode;
mod directory;
mod error;
mod frame;
mod gif;
mod jpeg;
mod kind;
mod limits;
mod native;
mod normalise;
mod notes;
mod pixels;
mod png;
mod resize;
mod tiff;
mod webp;

pub use decode::{
    Decoded, decode, decode_file, decode_file_with, decode_into, decode_with, orientation_of_file, read_file,
};
pub use error::{ImageError, LayoutError};
pub use frame::{Frame, PixelFormat, Plane, Rotation, YuvColor};
pub use kind::FileKind;
pub use limits::{DecodeOptions, ImageLimits};
pub use normalise::Normaliser;
pub use pixels::{RgbImage, RgbView};
pub use resize::{Filter, Resizer};

#[cfg(test)]
mod tests;
