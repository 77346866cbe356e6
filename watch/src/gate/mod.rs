//! Gates: whether a picture is worth a look at all.

mod feature;
mod luma;
mod pixel;
mod zone;

pub use feature::{FeatureGate, FeatureOptions, FeatureReport};
pub use pixel::{PixelGate, PixelOptions, PixelReport};
pub use zone::{Polygon, PolygonError, Zones};
