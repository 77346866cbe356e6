//! From the bytes of a picture to the pixels that the model sees.
//!
//! The path is [`decode`] (any supported file to RGB) → [`Resizer`] (exactly Pillow's antialiased bicubic, or another [`Filter`]) →
//! [`Normaliser`] (to f32, as planes or as the patches of the vision tower). Decoding allocates, within
//! [`ImageLimits`]; resizing and normalising write into memory that was allocated beforehand. A [`Frame`] is a picture
//! that needs no decoding: pixels as cameras deliver them, which the resizer reads where they lie.

mod container;
mod decode;
mod error;
mod frame;
mod normalise;
mod pixels;
mod resize;

pub use decode::{ImageLimits, decode, decode_file, orientation_of_file};
pub use error::{ImageError, LayoutError};
pub use frame::{Frame, PixelFormat, Plane, Rotation, YuvColor};
pub use normalise::Normaliser;
pub use pixels::{RgbImage, RgbView};
pub use resize::{Filter, Resizer};

#[cfg(test)]
mod tests;
