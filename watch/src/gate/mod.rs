//! Gates: whether a picture is worth a look at all.

mod luma;
mod pixel;
mod zone;

pub use pixel::{PixelGate, PixelOptions, PixelReport};
pub use zone::{Polygon, PolygonError, Zones};
