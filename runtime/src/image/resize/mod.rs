//! Resizing to the bits of Pillow (up to 12.1) `Image.resize(size, BICUBIC)` and `BILINEAR` on 8-bit RGB, in memory of
//! its own; [`lerp`] is bilinear without antialias, as TensorFlow does it.
//!
//! Pillow resamples with the bicubic kernel of a = -0.5 or with a triangle, stretched by the scale when shrinking
//! (antialias), in two passes: rows first, then columns, rounded to bytes in between. Weights are computed in f64 and
//! rounded to 22-bit fixed point; sums are integers, hence the same on every machine. A pass that would not change its
//! size is left out. This follows `src/libImaging/Resample.c` operation by operation. Pillow 12.2 runs the vertical
//! pass first on images over a hundred times as high as wide, Pillow 13 on many tall ones, which gives other bits;
//! torchvision and every Pillow up to 12.1 keep to the order used here.
//!
//! Columns are resampled as rows arrive: only the rows under the vertical window are held, in a ring.

mod filter;
mod lerp;

use super::pixels::CHANNELS;
use super::{Frame, ImageError, LayoutError};
use crate::error::Result;
use crate::system::memory::Reserve;

pub use filter::Filter;

use filter::{Axis, Window, taps_max};
use lerp::Between;

/// Fraction bits of a weight: a byte times a weight and its sign fit in 32 bits.
const WEIGHT_BITS: u32 = 32 - 8 - 2;
/// What rounds a sum to the nearest byte.
const HALF: i32 = 1 << (WEIGHT_BITS - 1);
/// The longest side, in or out. Far above any model's; it keeps every size below within 32 bits.
const SIDE_MAX: u32 = 1 << 16;
/// Sums that a row is accumulated in side by side: four pixels.
const LANES: usize = 4 * CHANNELS;

/// Resizes RGB images to one size, without allocating.
pub struct Resizer {
    filter: Filter,
    out_width: u32,
    out_height: u32,
    side_in_max: u32,
    /// Width of the source that `columns` and `column_weights` are for; 0 before the first one.
    columns_width_in: u32,
    /// Window of each output column, `[out_width]`.
    columns: Vec<Window>,
    /// Weights of each output column, every one three times, once a channel: `[out_width, taps_max, 3]`.
    column_weights: Vec<i32>,
    /// Weights of the output row in work, `[taps_max]`.
    row_weights: Vec<i32>,
    /// Weights before they are normalised and rounded, `[taps_max]` of the longer axis.
    weights_f64: Vec<f64>,
    /// Rows of the output's width that the vertical pass still needs; row `y` sits at `y % rows`.
    ring: Vec<u8>,
    /// Sums of the row in work, `[out_width, 3]`.
    sums: Vec<i32>,
    /// A row of a source that does not lie in memory as RGB, `[side_in_max, 3]`; two of them without antialias.
    converted: Vec<u8>,
    /// Without antialias: where each output column lies, `[out_width]`.
    between: Vec<Between>,
}

impl Resizer {
    /// A resizer to `out_width` by `out_height` pixels, of images with sides up to `side_in_max` pixels.
    /// Allocates [`bytes_for`](Self::bytes_for) the same filter and sizes.
    ///
    /// # Errors
    /// If a size is zero or above 65536, or the memory cannot be had.
    pub fn new(filter: Filter, out_width: u32, out_height: u32, side_in_max: u32) -> Result<Self> {
        Self::reserved(&mut Reserve::taking(false), filter, out_width, out_height, side_in_max)
    }

    /// Bytes on the heap of a resizer of this filter and these sizes, exactly.
    ///
    /// # Errors
    /// If a size is zero or above 65536.
    pub fn bytes_for(filter: Filter, out_width: u32, out_height: u32, side_in_max: u32) -> Result<usize> {
        let mut reserve = Reserve::counting();
        Self::reserved(&mut reserve, filter, out_width, out_height, side_in_max)?;
        Ok(reserve.total())
    }

    /// The same, from a reserve.
    pub(crate) fn reserved(
        reserve: &mut Reserve,
        filter: Filter,
        out_width: u32,
        out_height: u32,
        side_in_max: u32,
    ) -> Result<Self> {
        for (what, side) in
            [("width", out_width), ("height", out_height), ("longest source side", side_in_max)]
        {
            if !(1..=SIDE_MAX).contains(&side) {
                return Err(ImageError::from(LayoutError::Side { what, side, most: SIDE_MAX }).into());
            }
        }
        // Where memory cannot be addressed, the reserve says so.
        let row = out_width as usize * CHANNELS;
        let is_aliased = filter == Filter::BilinearAliased;
        let [taps_x, taps_y] = [out_width, out_height].map(|side| match is_aliased {
            true => 0,
            false => taps_max(filter, side_in_max, side),
        });
        let rows_in = if is_aliased { 2 } else { 1 };
        Ok(Self {
            filter,
            out_width,
            out_height,
            side_in_max,
            columns_width_in: 0,
            columns: reserve.filled(if is_aliased { 0 } else { out_width as usize }, Window::default())?,
            column_weights: reserve.filled(row.saturating_mul(taps_x), 0)?,
            row_weights: reserve.filled(taps_y, 0)?,
            weights_f64: reserve.filled(taps_x.max(taps_y), 0.0)?,
            ring: reserve.filled(row.saturating_mul(taps_y), 0)?,
            sums: reserve.filled(if is_aliased { 0 } else { row }, 0)?,
            converted: reserve.filled(rows_in * side_in_max as usize * CHANNELS, 0)?,
            between: reserve.filled(if is_aliased { out_width as usize } else { 0 }, Between::default())?,
        })
    }

    /// Width of the output in pixels.
    pub fn out_width(&self) -> u32 {
        self.out_width
    }

    /// Height of the output in pixels.
    pub fn out_height(&self) -> u32 {
        self.out_height
    }

    /// Resizes `src` into `out`, `[out_height, out_width, 3]`. The aspect ratio is not kept. Allocates nothing
    /// unless it fails.
    ///
    /// # Errors
    /// If a side of `src` is above the limit given to [`new`](Self::new), or `out` has another length.
    pub fn resize<'a>(&mut self, src: impl Into<Frame<'a>>, out: &mut [u8]) -> Result<(), ImageError> {
        self.resize_unless(src.into(), out, &mut || false).map(|_| ())
    }

    /// Like [`resize`](Self::resize), but asks before each row of `out` whether to stop; false if it did.
    pub(crate) fn resize_unless(
        &mut self,
        src: Frame,
        out: &mut [u8],
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<bool, ImageError> {
        if src.width().max(src.height()) > self.side_in_max {
            return Err(ImageError::SideTooLarge {
                width: src.width(),
                height: src.height(),
                side_max: self.side_in_max,
            });
        }
        let row_len = self.out_width as usize * CHANNELS;
        if out.len() != row_len * self.out_height as usize {
            let needed = row_len * self.out_height as usize;
            return Err(LayoutError::Length { needed, given: out.len() }.into());
        }
        if self.filter == Filter::BilinearAliased {
            return Ok(self.interpolate(&src, out, stop));
        }
        self.prepare_columns(src.width());
        // Leaves `self` for the loops, so that methods of `self` can be called meanwhile.
        let mut converted = std::mem::take(&mut self.converted);
        let goes_on = if src.height() == self.out_height {
            out.chunks_exact_mut(row_len).enumerate().all(|(y, out_row)| {
                let goes_on = !stop();
                if goes_on {
                    self.resample_row(row_of(&src, y as u32, &mut converted), out_row);
                }
                goes_on
            })
        } else {
            self.resample_columns(&src, &mut converted, out, stop)
        };
        self.converted = converted;
        Ok(goes_on)
    }

    /// Bilinear without antialias. Gives false if it was stopped.
    fn interpolate(&mut self, src: &Frame, out: &mut [u8], stop: &mut dyn FnMut() -> bool) -> bool {
        if self.columns_width_in != src.width() {
            for (x, between) in self.between.iter_mut().enumerate() {
                *between = Between::new(x as u32, src.width(), self.out_width);
            }
            self.columns_width_in = src.width();
        }
        let row_len = self.out_width as usize * CHANNELS;
        let (first, second) = self.converted.split_at_mut(self.side_in_max as usize * CHANNELS);
        out.chunks_exact_mut(row_len).enumerate().all(|(y, out_row)| {
            let goes_on = !stop();
            if goes_on {
                let between = Between::new(y as u32, src.height(), self.out_height);
                let top = row_of(src, between.lower, first);
                let bottom = row_of(src, between.upper, second);
                lerp::row::<CHANNELS>(&self.between, top, bottom, between.share, out_row);
            }
            goes_on
        })
    }

    /// Fills the windows and weights of the horizontal pass, unless the last image was as wide.
    fn prepare_columns(&mut self, width_in: u32) {
        if self.columns_width_in == width_in {
            return;
        }
        let axis = Axis::new(self.filter, width_in, self.out_width);
        let stride = self.column_weights.len() / self.columns.len();
        let weights = self.column_weights.chunks_exact_mut(stride);
        for (x, (window, weights)) in self.columns.iter_mut().zip(weights).enumerate() {
            *window = axis.window(x as u32);
            let weights_f64 = &mut self.weights_f64[..window.len as usize];
            axis.fill_weights(x as u32, *window, weights_f64);
            for (triple, &weight) in weights.chunks_exact_mut(CHANNELS).zip(&*weights_f64) {
                triple.fill(to_fixed_point(weight));
            }
        }
        self.columns_width_in = width_in;
    }

    /// The horizontal pass of one row. A function of its own, so that how its loops are compiled does not depend on the
    /// callers.
    #[inline(never)]
    fn resample_row(&self, src: &[u8], out: &mut [u8]) {
        if src.len() == out.len() {
            out.copy_from_slice(src);
            return;
        }
        let stride = self.column_weights.len() / self.columns.len();
        let weights = self.column_weights.chunks_exact(stride);
        for ((pixel, window), weights) in out.chunks_exact_mut(CHANNELS).zip(&self.columns).zip(weights) {
            let len = window.len as usize * CHANNELS;
            let taps = &src[window.first as usize * CHANNELS..][..len];
            pixel.copy_from_slice(&weighted_pixel(taps, &weights[..len]));
        }
    }

    /// The vertical pass over all rows, with the horizontal pass of each row when its turn comes.
    fn resample_columns(
        &mut self,
        src: &Frame,
        converted: &mut [u8],
        out: &mut [u8],
        stop: &mut dyn FnMut() -> bool,
    ) -> bool {
        let axis = Axis::new(self.filter, src.height(), self.out_height);
        let row_len = self.out_width as usize * CHANNELS;
        // Rows that are used as they lie in memory need not be held.
        let holds_rows = src.width() != self.out_width || !src.is_plain();
        let ring_rows = (self.ring.len() / row_len) as u32;
        // The ring leaves `self` for the loop, so that methods of `self` can write its rows.
        let mut ring = std::mem::take(&mut self.ring);
        let mut next_row = 0;
        let mut goes_on = true;
        for (y, out_row) in out.chunks_exact_mut(row_len).enumerate() {
            goes_on = !stop();
            if !goes_on {
                break;
            }
            let window = self.prepare_row(&axis, y as u32);
            if holds_rows {
                let end = window.first + window.len;
                for row in next_row.max(window.first)..end {
                    let slot = (row % ring_rows) as usize * row_len;
                    self.resample_row(row_of(src, row, converted), &mut ring[slot..][..row_len]);
                }
                next_row = next_row.max(end);
            }
            let row = |tap: usize| {
                let row = window.first + tap as u32;
                match src.plain_row(row) {
                    Some(plain) if !holds_rows => plain,
                    _ => &ring[(row % ring_rows) as usize * row_len..][..row_len],
                }
            };
            let weights = &self.row_weights[..window.len as usize];
            weighted_row(row, weights, &mut self.sums, out_row);
        }
        self.ring = ring;
        goes_on
    }

    /// Fills the weights of output row `y` and returns its window.
    fn prepare_row(&mut self, axis: &Axis, y: u32) -> Window {
        let window = axis.window(y);
        let weights_f64 = &mut self.weights_f64[..window.len as usize];
        axis.fill_weights(y, window, weights_f64);
        for (weight, &exact) in self.row_weights.iter_mut().zip(&*weights_f64) {
            *weight = to_fixed_point(exact);
        }
        window
    }
}

impl std::fmt::Debug for Resizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Resizer(to {}x{}, from sides up to {})", self.out_width, self.out_height, self.side_in_max)
    }
}

/// Row `y` of a frame as RGB: where it lies, or else in `converted`.
fn row_of<'a>(src: &Frame<'a>, y: u32, converted: &'a mut [u8]) -> &'a [u8] {
    if let Some(row) = src.plain_row(y) {
        return row;
    }
    let row = &mut converted[..src.width() as usize * CHANNELS];
    src.write_row(y, row);
    row
}

/// Rounds half away from zero.
fn to_fixed_point(weight: f64) -> i32 {
    let scaled = weight * f64::from(1u32 << WEIGHT_BITS);
    (if weight < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
}

/// A sum in fixed point as a byte, rounded to nearest and clamped.
fn to_byte(sum: i32) -> u8 {
    (sum >> WEIGHT_BITS).clamp(0, 255) as u8
}

/// The weighted sum of pixels; `taps` and `weights` are `[taps, 3]`.
///
/// No sum overflows: the magnitudes of a window's weights add up to less than 1.3 (tested), hence the magnitude
/// of any partial sum of bytes stays under 1.3 * 255 * 2^22 + 2^21 < 2^31.
#[inline(always)]
fn weighted_pixel(taps: &[u8], weights: &[i32]) -> [u8; CHANNELS] {
    let mut sums = [0i32; LANES];
    let (tap_blocks, tap_rest) = taps.as_chunks::<LANES>();
    let (weight_blocks, weight_rest) = weights.as_chunks::<LANES>();
    for (taps, weights) in tap_blocks.iter().zip(weight_blocks) {
        for ((sum, &tap), &weight) in sums.iter_mut().zip(taps).zip(weights) {
            *sum += i32::from(tap) * weight;
        }
    }
    for ((sum, &tap), &weight) in sums.iter_mut().zip(tap_rest).zip(weight_rest) {
        *sum += i32::from(tap) * weight;
    }
    let pixels = sums.as_chunks::<CHANNELS>().0;
    std::array::from_fn(|c| to_byte(HALF + pixels.iter().map(|pixel| pixel[c]).sum::<i32>()))
}

/// The weighted sum of rows, `row(0)` to `row(weights.len() - 1)`, all as long as `sums` and `out`.
/// Sums do not overflow, for the reason given at [`weighted_pixel`].
fn weighted_row<'a>(row: impl Fn(usize) -> &'a [u8], weights: &[i32], sums: &mut [i32], out: &mut [u8]) {
    sums.fill(HALF);
    let (quads, rest) = weights.as_chunks::<4>();
    for (i, &[w0, w1, w2, w3]) in quads.iter().enumerate() {
        let tap = i * 4;
        let rows = row(tap).iter().zip(row(tap + 1)).zip(row(tap + 2)).zip(row(tap + 3));
        for (sum, (((&a, &b), &c), &d)) in sums.iter_mut().zip(rows) {
            *sum += i32::from(a) * w0 + i32::from(b) * w1 + i32::from(c) * w2 + i32::from(d) * w3;
        }
    }
    for (i, &weight) in rest.iter().enumerate() {
        for (sum, &byte) in sums.iter_mut().zip(row(quads.len() * 4 + i)) {
            *sum += i32::from(byte) * weight;
        }
    }
    for (byte, &sum) in out.iter_mut().zip(&*sums) {
        *byte = to_byte(sum);
    }
}
