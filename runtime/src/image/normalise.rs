//! From 8-bit pixels to the numbers that the vision tower takes.

use super::pixels::CHANNELS;
use super::{ImageError, LayoutError, RgbView};

/// Maps each byte of each channel to `(byte * rescale - mean) / std`, as the Hugging Face image processor does.
///
/// The product is rounded once, from f64 to f32; the difference and the quotient are f32. There are only 256
/// bytes, so the formula is a table.
#[derive(Clone)]
pub struct Normaliser {
    table: [[f32; 256]; CHANNELS],
}

impl Normaliser {
    /// Builds the table from the processor's `image_mean`, `image_std` and `rescale_factor`.
    ///
    /// `rescale` is f64 because the processor multiplies in f64: a factor rounded to f32 gives other bits.
    ///
    /// # Errors
    /// If a value of the table would not be finite (a `std` of zero, a NaN).
    pub fn new(mean: [f32; 3], std: [f32; 3], rescale: f64) -> Result<Self, ImageError> {
        let table = std::array::from_fn(|c| {
            std::array::from_fn(|byte| ((byte as f64 * rescale) as f32 - mean[c]) / std[c])
        });
        let normaliser = Self { table };
        if normaliser.table.iter().flatten().any(|value| !value.is_finite()) {
            return Err(LayoutError::NotFinite { mean, std, rescale }.into());
        }
        Ok(normaliser)
    }

    /// Writes the pixels as planes, `[3, height, width]`.
    ///
    /// # Errors
    /// If `out` is not `3 * height * width` long.
    pub fn planes(&self, rgb: RgbView, out: &mut [f32]) -> Result<(), ImageError> {
        let (width, height) = (rgb.width() as usize, rgb.height() as usize);
        check_len(out, width * height * CHANNELS)?;
        for (c, plane) in out.chunks_exact_mut(width * height).enumerate() {
            let table = &self.table[c];
            for (y, out_row) in plane.chunks_exact_mut(width).enumerate() {
                for (value, pixel) in out_row.iter_mut().zip(rgb.row(y as u32).chunks_exact(CHANNELS)) {
                    *value = table[pixel[c] as usize];
                }
            }
        }
        Ok(())
    }

    /// Writes the pixels as the rows of the patch embedding's matrix product: `[patches, 3 * patch * patch]`.
    ///
    /// Patches go from left to right, then down; within a patch the order is channel, row, column: that of the
    /// weights of the convolution. `patch` is the side of a patch in pixels.
    ///
    /// # Errors
    /// If the sides of the image are not multiples of `patch`, or `out` is not `3 * height * width` long.
    pub fn patches(&self, rgb: RgbView, patch: u32, out: &mut [f32]) -> Result<(), ImageError> {
        if patch == 0 || !rgb.width().is_multiple_of(patch) || !rgb.height().is_multiple_of(patch) {
            let (width, height) = (rgb.width(), rgb.height());
            return Err(LayoutError::Patches { width, height, patch }.into());
        }
        check_len(out, rgb.row_bytes() * rgb.height() as usize)?;
        let side = patch as usize;
        let patch_len = CHANNELS * side * side;
        let patches_per_row = (rgb.width() / patch) as usize;
        for (patch_y, patch_row) in out.chunks_exact_mut(patches_per_row * patch_len).enumerate() {
            for ky in 0..side {
                let row = rgb.row((patch_y * side + ky) as u32);
                let sources = row.chunks_exact(side * CHANNELS);
                for (vector, pixels) in patch_row.chunks_exact_mut(patch_len).zip(sources) {
                    for (c, table) in self.table.iter().enumerate() {
                        let line = &mut vector[(c * side + ky) * side..][..side];
                        for (value, pixel) in line.iter_mut().zip(pixels.chunks_exact(CHANNELS)) {
                            *value = table[pixel[c] as usize];
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Normaliser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The ends of each channel's table say all that the 768 values do.
        let ends = self.table.map(|table| (table[0], table[255]));
        f.debug_struct("Normaliser").field("range_per_channel", &ends).finish()
    }
}

fn check_len(out: &[f32], needed: usize) -> Result<(), ImageError> {
    if out.len() == needed {
        return Ok(());
    }
    Err(LayoutError::Length { needed, given: out.len() }.into())
}
