//! Masks in the pixels of the original picture, pasted from the decoder's 64 × 64 values.

use super::boxes::rounded_edge;
use super::mask_codec::{MASK_SIDE, MaskLogits};
use super::rle::{Rle, RunCollector};

/// How the `<loc>` values of a box become the pixels that its mask covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BoxRounding {
    /// `location / 1024 * size`, rounded half to even: the [`PixelBox`](super::PixelBox) of the detection. The
    /// default, so that a mask fills its box.
    #[default]
    Nearest,
    /// `location / 1023 * size`, truncated: what big_vision's segmentation evaluator does.
    Evaluator,
}

/// The pixels of an object: a rectangle of bits placed in a picture. All pixels outside of it are unset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
    image_width: u32,
    image_height: u32,
    /// Rows of `row_bytes` bytes, the lowest bit first; bits beyond the width are zero.
    bits: Vec<u8>,
}

impl Mask {
    /// Pastes a decoded mask into its box in a picture of `image_width` × `image_height` pixels.
    ///
    /// The way of big_vision's evaluator: the raw values are resized to the box in f32 as Pillow's `BILINEAR` does it
    /// (antialiased when shrinking), and a pixel is set if its value is above zero. `locations` are y1, x1, y2, x2
    /// as in the answer. A box without area, or with edges in the wrong order, has an empty mask.
    pub fn paste(
        logits: &MaskLogits,
        locations: [u16; 4],
        image_width: u32,
        image_height: u32,
        rounding: BoxRounding,
    ) -> Result<Self, MaskError> {
        if image_width.checked_mul(image_height).is_none() {
            return Err(MaskError::TooLarge { width: image_width, height: image_height });
        }
        let edge = |location: u16, size: u32| match rounding {
            BoxRounding::Nearest => rounded_edge(location, size),
            // The evaluator's operations in its order and precision: other orders truncate differently.
            BoxRounding::Evaluator => ((f64::from(location) / 1023.0 * f64::from(size)) as u32).min(size),
        };
        let [y1, x1, y2, x2] = locations;
        let (x, y) = (edge(x1, image_width), edge(y1, image_height));
        let mut width = edge(x2, image_width).saturating_sub(x);
        let mut height = edge(y2, image_height).saturating_sub(y);
        if width == 0 || height == 0 {
            (width, height) = (0, 0);
        }
        let bits = resize_and_threshold(logits, width as usize, height as usize)?;
        Ok(Self { x, y, width, height, image_width, image_height, bits })
    }

    /// The column of the picture in which the rectangle begins.
    pub fn x(&self) -> u32 {
        self.x
    }

    /// The row of the picture in which the rectangle begins.
    pub fn y(&self) -> u32 {
        self.y
    }

    /// Columns of the rectangle.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows of the rectangle.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Columns of the picture.
    pub fn image_width(&self) -> u32 {
        self.image_width
    }

    /// Rows of the picture.
    pub fn image_height(&self) -> u32 {
        self.image_height
    }

    /// Whether the pixel at column `x` and row `y` of the picture is set. Any coordinate may be asked for.
    pub fn contains(&self, x: u32, y: u32) -> bool {
        match (x.checked_sub(self.x), y.checked_sub(self.y)) {
            (Some(column), Some(row)) if column < self.width && row < self.height => self.bit(column, row),
            _ => false,
        }
    }

    /// Number of pixels set.
    pub fn area(&self) -> u64 {
        self.bits.iter().map(|byte| u64::from(byte.count_ones())).sum()
    }

    /// The rows of the rectangle from the top, each from the left: whether each pixel is set.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = impl ExactSizeIterator<Item = bool> + '_> + '_ {
        (0..self.height).map(move |row| (0..self.width).map(move |column| self.bit(column, row)))
    }

    /// The whole picture as COCO's run lengths.
    pub fn rle(&self) -> Rle {
        let mut runs = RunCollector::new();
        runs.push(false, self.x * self.image_height);
        let rows_below = self.image_height - self.y - self.height;
        for column in 0..self.width {
            runs.push(false, self.y);
            for row in 0..self.height {
                runs.push(self.bit(column, row), 1);
            }
            runs.push(false, rows_below);
        }
        runs.push(false, (self.image_width - self.x - self.width) * self.image_height);
        Rle { width: self.image_width, height: self.image_height, counts: runs.finish() }
    }

    fn bit(&self, column: u32, row: u32) -> bool {
        let (column, row) = (column as usize, row as usize);
        self.bits[row * row_bytes(self.width as usize) + column / 8] >> (column % 8) & 1 != 0
    }
}

/// Why a mask cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MaskError {
    /// The picture has more pixels than a run length can count, or than there is memory for.
    #[error("a mask for a picture of {width} × {height} pixels is too large; use a smaller picture")]
    TooLarge {
        /// Columns of the picture or the box.
        width: u32,
        /// Rows of the picture or the box.
        height: u32,
    },
}

fn row_bytes(width: usize) -> usize {
    width.div_ceil(8)
}

/// Resizes the square of values to `width` × `height` and packs which results are above zero.
fn resize_and_threshold(logits: &MaskLogits, width: usize, height: usize) -> Result<Vec<u8>, MaskError> {
    let too_large = || MaskError::TooLarge { width: width as u32, height: height as u32 };
    let bits_length = row_bytes(width).checked_mul(height).ok_or_else(too_large)?;
    let mut bits = filled(bits_length, 0u8).ok_or_else(too_large)?;
    resize(logits, width, height, |row, values| {
        let row_bits = &mut bits[row * row_bytes(width)..][..row_bytes(width)];
        for (byte, values) in row_bits.iter_mut().zip(values.chunks(8)) {
            for (index, &value) in values.iter().enumerate() {
                *byte |= u8::from(value as f32 > 0.0) << index;
            }
        }
    })
    .ok_or_else(too_large)?;
    Ok(bits)
}

/// Resizes the square of values to `width` × `height`, handing over row by row. `None` if there is no memory.
///
/// The arithmetic of Pillow's `Resample.c` for mode F, bit for bit: columns first (as Pillow up to version 12 always
/// does), then rows; sums in f64, rounded to f32 after each pass, the second time by the receiver.
fn resize(
    logits: &MaskLogits,
    width: usize,
    height: usize,
    mut receive: impl FnMut(usize, &[f64]),
) -> Option<()> {
    if width == 0 || height == 0 {
        return Some(());
    }
    let mut stretched = filled(MASK_SIDE.checked_mul(width)?, 0f32)?;
    let mut sums = filled(width, 0f64)?;

    let mut taps = BilinearTaps::new(width);
    for column in 0..width {
        let (first, weights) = taps.at(column);
        for row in 0..MASK_SIDE {
            let values = &logits[row * MASK_SIDE + first..][..weights.len()];
            let sum: f64 = values.iter().zip(weights).map(|(&value, weight)| f64::from(value) * weight).sum();
            stretched[row * width + column] = sum as f32;
        }
    }

    let mut taps = BilinearTaps::new(height);
    for row in 0..height {
        let (first, weights) = taps.at(row);
        sums.fill(0.0);
        for (values, weight) in stretched.chunks_exact(width).skip(first).zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum += f64::from(value) * weight;
            }
        }
        receive(row, &sums);
    }
    Some(())
}

/// A vector of `length` times `value`, or `None` if the memory cannot be had.
fn filled<T: Clone>(length: usize, value: T) -> Option<Vec<T>> {
    let mut vector = Vec::new();
    vector.try_reserve_exact(length).ok()?;
    vector.resize(length, value);
    Some(vector)
}

/// The weights of Pillow's bilinear filter from [`MASK_SIDE`] values to a given number, one result at a time.
struct BilinearTaps {
    scale: f64,
    filter_scale: f64,
    weights: [f64; MASK_SIDE],
}

impl BilinearTaps {
    fn new(size: usize) -> Self {
        let scale = MASK_SIDE as f64 / size as f64;
        Self { scale, filter_scale: scale.max(1.0), weights: [0.0; MASK_SIDE] }
    }

    /// The first of the values that result `index` is made of, and their weights.
    fn at(&mut self, index: usize) -> (usize, &[f64]) {
        let center = (index as f64 + 0.5) * self.scale;
        let first = (center - self.filter_scale + 0.5).max(0.0) as usize;
        let end = ((center + self.filter_scale + 0.5) as usize).min(MASK_SIDE);
        let weights = &mut self.weights[..end - first];
        let mut sum = 0.0;
        for (offset, weight) in weights.iter_mut().enumerate() {
            let distance = ((offset + first) as f64 - center + 0.5) * (1.0 / self.filter_scale);
            *weight = (1.0 - distance.abs()).max(0.0);
            sum += *weight;
        }
        for weight in weights.iter_mut() {
            *weight /= sum;
        }
        (first, weights)
    }
}

#[cfg(test)]
#[path = "mask_tests.rs"]
mod tests;
