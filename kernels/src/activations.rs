//! Quantized activations: the left side of an integer matrix product.

use crate::layout::{CHUNK, GROUP};

/// Groups of a chunk.
pub const CHUNK_GROUPS: usize = CHUNK / GROUP;

/// Rows of activations as int8, chunk after chunk: all rows of the first 256 columns, then of the next.
///
/// A chunk of a row has 256 bytes (zeros beyond the last column), one f32 scale, and the sums of its sixteen
/// groups, which pay for multiplying with unsigned weights where that is faster.
#[derive(Clone, Copy)]
pub struct QuantizedRows<'a> {
    q: &'a [[i8; CHUNK]],
    scales: &'a [f32],
    sums: &'a [[i32; CHUNK_GROUPS]],
    rows: usize,
}

impl<'a> QuantizedRows<'a> {
    /// Binds storage for `rows` rows of so many chunks; all three slices have one entry per chunk and row.
    pub fn new(
        q: &'a [[i8; CHUNK]],
        scales: &'a [f32],
        sums: &'a [[i32; CHUNK_GROUPS]],
        rows: usize,
    ) -> Self {
        assert!(rows > 0 && q.len().is_multiple_of(rows));
        assert!(q.len() == scales.len() && q.len() == sums.len());
        Self { q, scales, sums, rows }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Chunks of a row.
    pub fn chunks(&self) -> usize {
        self.q.len() / self.rows
    }

    /// All rows of a chunk.
    #[inline(always)]
    pub fn chunk(&self, c: usize) -> &'a [[i8; CHUNK]] {
        &self.q[c * self.rows..(c + 1) * self.rows]
    }

    /// The scales of all rows of a chunk.
    #[inline(always)]
    pub fn scales(&self, c: usize) -> &'a [f32] {
        &self.scales[c * self.rows..(c + 1) * self.rows]
    }

    /// The group sums of all rows of a chunk.
    #[inline(always)]
    pub fn sums(&self, c: usize) -> &'a [[i32; CHUNK_GROUPS]] {
        &self.sums[c * self.rows..(c + 1) * self.rows]
    }
}
