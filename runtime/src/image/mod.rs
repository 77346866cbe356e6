//! From the bytes of a picture to the pixels that the model sees.

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {}
