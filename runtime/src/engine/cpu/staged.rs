//! The input of a matrix product.

use palmtop_kernels::layout::chunk_of;
use palmtop_kernels::{Kernels, QuantizedRows};

use crate::error::Result;
use crate::model::weights::Matrix;
use crate::system::memory::{Aligned, Reserve};
use crate::system::pool::Disjoint;

/// Rows of activations in the form that a matrix multiplies with: int8 for integer weights, f32 for float ones.
pub(crate) struct Staged {
    q: Aligned<i8>,
    scales: Aligned<f32>,
    sums: Aligned<i32>,
    floats: Aligned<f32>,
    rows: usize,
    cols: usize,
    /// Whether the matrix has integers.
    integer: bool,
}

/// Sizes of a [`Staged`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StagedSizes {
    /// Integers, over all rows and chunks.
    pub integers: usize,
    /// Chunks, over all rows.
    pub chunks: usize,
    /// Values that stay f32, over all rows.
    pub floats: usize,
}

impl StagedSizes {
    /// Makes room for `rows` rows of input to a matrix.
    pub fn cover(&mut self, integer: bool, rows: usize, cols: usize) {
        if integer {
            let chunks = rows * cols.div_ceil(chunk_of(cols));
            self.chunks = self.chunks.max(chunks);
            self.integers = self.integers.max(chunks * chunk_of(cols));
        } else {
            self.floats = self.floats.max(rows * cols);
        }
    }
}

impl Staged {
    pub fn new(reserve: &mut Reserve, sizes: &StagedSizes) -> Result<Self> {
        Ok(Self {
            q: reserve.aligned(sizes.integers)?,
            scales: reserve.aligned(sizes.chunks)?,
            sums: reserve.aligned(sizes.chunks)?,
            floats: reserve.aligned(sizes.floats)?,
            rows: 0,
            cols: 0,
            integer: false,
        })
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Begins an input of `rows` rows to a matrix.
    pub fn writer(&mut self, matrix: &Matrix, rows: usize) -> StagedWriter<'_> {
        (self.rows, self.cols) = (rows, matrix.cols());
        self.integer = matrix.format().is_integer();
        StagedWriter {
            q: Disjoint::new(&mut self.q),
            scales: Disjoint::new(&mut self.scales),
            sums: Disjoint::new(&mut self.sums),
            floats: Disjoint::new(&mut self.floats),
            rows,
            cols: matrix.cols(),
            integer: self.integer,
        }
    }

    /// The rows as a matrix of integers multiplies with them.
    pub fn quantized(&self) -> QuantizedRows<'_> {
        let chunk = chunk_of(self.cols);
        let chunks = self.rows * self.cols.div_ceil(chunk);
        let (scales, sums) = (&self.scales[..chunks], &self.sums[..chunks]);
        QuantizedRows::new(&self.q[..chunks * chunk], scales, sums, self.rows, chunk)
    }

    /// The rows as a matrix of floats multiplies with them.
    pub fn floats(&self) -> &[f32] {
        &self.floats[..self.rows * self.cols]
    }

    /// The rows, one behind the other, rounded as the matrix sees them.
    pub fn to_f32(&self) -> Vec<f32> {
        let (rows, cols) = (self.rows, self.cols);
        if !self.integer {
            return self.floats().to_vec();
        }
        let chunk = chunk_of(cols);
        let mut out = vec![0.0; rows * cols];
        for (m, row) in out.chunks_mut(cols).enumerate() {
            for (c, values) in row.chunks_mut(chunk).enumerate() {
                let i = c * rows + m;
                let q = &self.q[i * chunk..];
                values.iter_mut().zip(q).for_each(|(v, &q)| *v = self.scales[i] * f32::from(q));
            }
        }
        out
    }
}

/// Rows of a staged input, written by several threads.
pub(crate) struct StagedWriter<'a> {
    q: Disjoint<'a, i8>,
    scales: Disjoint<'a, f32>,
    sums: Disjoint<'a, i32>,
    floats: Disjoint<'a, f32>,
    rows: usize,
    cols: usize,
    integer: bool,
}

impl StagedWriter<'_> {
    /// Makes `values` the columns from `from` on, the first of a chunk, of row `m`.
    ///
    /// # Safety
    /// No other thread writes to these columns of this row meanwhile.
    pub unsafe fn put(&self, kernels: &Kernels, m: usize, from: usize, values: &[f32]) {
        if !self.integer {
            let at = m * self.cols + from;
            // SAFETY: by the caller's promise.
            unsafe { self.floats.get(at..at + values.len()) }.copy_from_slice(values);
            return;
        }
        let chunk = chunk_of(self.cols);
        debug_assert!(from.is_multiple_of(chunk));
        for (c, values) in (from / chunk..).zip(values.chunks(chunk)) {
            let i = c * self.rows + m;
            // SAFETY: by the caller's promise.
            let (q, scale, sum) = unsafe {
                (self.q.get(i * chunk..(i + 1) * chunk), self.scales.get(i..i + 1), self.sums.get(i..i + 1))
            };
            (scale[0], sum[0]) = kernels.quantize_chunk(values, q);
        }
    }
}
