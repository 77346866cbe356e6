//! Quantized activations: the left side of an integer matrix product.

use crate::layout::GROUP;

/// Rows of activations as int8, chunk after chunk: all rows of the first chunk of columns, then of the next.
///
/// A chunk of a row has `chunk` bytes (zeros beyond the last column), one f32 scale, and the sum of its bytes, which
/// pays for multiplying with unsigned weights where that is faster.
#[derive(Clone, Copy)]
pub struct QuantizedRows<'a> {
    q: &'a [i8],
    scales: &'a [f32],
    sums: &'a [i32],
    rows: usize,
    chunk: usize,
}

impl<'a> QuantizedRows<'a> {
    /// Binds storage for `rows` rows in chunks of `chunk` columns. `scales` and `sums` have one entry per chunk and
    /// row; `q` has `chunk` for each of them.
    pub fn new(q: &'a [i8], scales: &'a [f32], sums: &'a [i32], rows: usize, chunk: usize) -> Self {
        assert!(rows > 0 && chunk > 0 && chunk.is_multiple_of(GROUP) && scales.len().is_multiple_of(rows));
        assert!(q.len() == scales.len() * chunk && sums.len() == scales.len());
        Self { q, scales, sums, rows, chunk }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of a chunk.
    pub fn chunk(&self) -> usize {
        self.chunk
    }

    /// Chunks of a row.
    pub fn chunks(&self) -> usize {
        self.scales.len() / self.rows
    }

    /// Chunk `c` of row `m`.
    #[inline(always)]
    pub fn q(&self, c: usize, m: usize) -> &'a [i8] {
        &self.q[(c * self.rows + m) * self.chunk..][..self.chunk]
    }

    /// Chunk `c` of rows `m..m + n`, one behind the other.
    #[inline(always)]
    pub fn q_rows(&self, c: usize, m: usize, n: usize) -> &'a [i8] {
        assert!(m + n <= self.rows);
        &self.q[(c * self.rows + m) * self.chunk..][..n * self.chunk]
    }

    /// The scale of chunk `c` of row `m`.
    #[inline(always)]
    pub fn scale(&self, c: usize, m: usize) -> f32 {
        self.scales[c * self.rows + m]
    }

    /// The scales of chunk `c` of rows `m..m + n`.
    #[inline(always)]
    pub fn scales(&self, c: usize, m: usize, n: usize) -> &'a [f32] {
        assert!(m + n <= self.rows);
        &self.scales[c * self.rows + m..][..n]
    }

    /// The sum of chunk `c` of row `m`.
    #[inline(always)]
    pub fn sum(&self, c: usize, m: usize) -> i32 {
        self.sums[c * self.rows + m]
    }
}
