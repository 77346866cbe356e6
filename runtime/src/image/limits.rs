//! What an image may cost, checked before anything of that size is allocated.

use super::error::ImageError;
use super::kind::Format;
use super::pixels::CHANNELS;

/// What an image may cost at most. Checked before anything of that size is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    /// Longest side in pixels.
    pub side_max: u32,
    /// Most bytes that decoding may hold at once: the pixels as the file has them, their conversion, and the
    /// decoder's own buffers (estimated).
    pub decoded_bytes_max: u64,
    /// Longest file in bytes.
    pub encoded_bytes_max: u64,
}

impl Default for ImageLimits {
    /// 16384 pixels per side, 512 MiB decoded, 256 MiB encoded.
    fn default() -> Self {
        Self { side_max: 16384, decoded_bytes_max: 512 << 20, encoded_bytes_max: 256 << 20 }
    }
}

impl ImageLimits {
    pub(super) fn check_side(&self, width: u32, height: u32) -> Result<(), ImageError> {
        if width.max(height) > self.side_max {
            return Err(ImageError::SideTooLarge { width, height, side_max: self.side_max });
        }
        Ok(())
    }
}

/// How [`decode_with`] decodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DecodeOptions {
    /// What the image may cost.
    pub limits: ImageLimits,
    /// Whether an image that ends too early is decoded as far as it goes, the rest being grey, black or what the
    /// decoder makes of it. Its size must be known from what is there.
    pub allow_truncated: bool,
}

impl DecodeOptions {
    /// `Ok(true)` if `error` is that the image ends too early, and that is allowed.
    pub(super) fn passes_over(&self, error: ImageError) -> Result<bool, ImageError> {
        match error {
            ImageError::Truncated { .. } if self.allow_truncated => Ok(true),
            error => Err(error),
        }
    }
}

/// What decoding a picture takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub(super) width: u32,
    pub(super) height: u32,
    /// Bytes of a pixel as the decoder gives it.
    pub(super) native: u64,
    /// Bytes per pixel that the decoder holds beside them.
    pub(super) extra: u64,
    /// Whether they become RGB in their place.
    pub(super) narrows: bool,
    /// Whether the picture is turned afterwards.
    pub(super) transposes: bool,
}

impl Cost {
    /// Checks sides and bytes against the limits; gives the bytes of the picture as the decoder gives it.
    pub(super) fn check(&self, format: Format, limits: &ImageLimits) -> Result<usize, ImageError> {
        let &Self { width, height, .. } = self;
        if width == 0 || height == 0 {
            return Err(ImageError::Broken { format: format.name(), reason: "it has no pixels".into() });
        }
        limits.check_side(width, height)?;
        let rgb = CHANNELS as u64;
        let pixels = u64::from(width) * u64::from(height);
        let converting = if self.narrows { self.native } else { self.native + rgb };
        let turning = if self.transposes { 2 * rgb } else { 0 };
        let needed_bytes = pixels * (self.native + self.extra).max(converting).max(turning);
        let limit_bytes = limits.decoded_bytes_max;
        if needed_bytes > limit_bytes {
            return Err(ImageError::TooManyBytes { width, height, needed_bytes, limit_bytes });
        }
        // On a machine with 32-bit addresses the limit may be set above what can be addressed.
        let limit_bytes = usize::MAX as u64;
        let bytes = usize::try_from(pixels * self.native);
        bytes.map_err(|_| ImageError::TooManyBytes { width, height, needed_bytes, limit_bytes })
    }
}
