//! Second moments of a matrix's inputs: H = Σ x·xᵀ over all rows x that it is multiplied with.
//!
//! Rounding adds the error E·H·Eᵀ to the outputs, where E is the error of the weights. So H is all that calibration
//! must know about the inputs. The inputs of a wide matrix are split into blocks, and products between different blocks
//! are left out: H then takes 4 · 4096² bytes per block instead of 4 · K² in all, 256 MiB instead of 1 GiB for 16384
//! inputs.

use std::ops::Range;

use palmtop_kernels::layout::{LANES, MatrixLayout, PackedMatrix, WeightFormat, chunk_of};
use palmtop_kernels::{Kernels, PANEL, PANEL_STRIPES};
use rayon::prelude::*;

/// Inputs of a block at most.
const BLOCK_MAX: usize = 4096;
/// Rows that are gathered before they are multiplied.
const ROWS: usize = 256;
/// Rows of H that a task makes at a time.
const TILE: usize = 32;

/// The sums of a matrix, while they are gathered.
pub struct Moments {
    cols: usize,
    blocks: Vec<MomentBlock>,
    /// Rows of inputs that are still to be multiplied.
    pending: Vec<f32>,
}

/// H of consecutive inputs. Only the lower triangle counts.
pub struct MomentBlock {
    pub inputs: Range<usize>,
    pub sums: Vec<f32>,
}

/// Blocks of whole chunks, as equal as can be.
fn blocks_of(cols: usize) -> impl Iterator<Item = Range<usize>> {
    let chunk = chunk_of(cols);
    let width = cols.div_ceil(chunk).div_ceil(cols.div_ceil(BLOCK_MAX)) * chunk;
    (0..cols).step_by(width).map(move |from| from..cols.min(from + width))
}

impl Moments {
    /// Memory for a matrix of so many inputs, what multiplying needs included.
    pub fn bytes(cols: usize) -> usize {
        let squares: usize = blocks_of(cols).map(|b| b.len() * b.len()).sum();
        4 * (squares + 3 * ROWS * cols)
    }

    pub fn new(cols: usize) -> Self {
        let block =
            |inputs: Range<usize>| MomentBlock { sums: vec![0.0; inputs.len() * inputs.len()], inputs };
        Self { cols, blocks: blocks_of(cols).map(block).collect(), pending: Vec::new() }
    }

    /// Adds rows of inputs, one behind the other.
    pub fn add(&mut self, kernels: &Kernels, mut rows: &[f32]) {
        while !rows.is_empty() {
            let room = ROWS * self.cols - self.pending.len();
            let (now, later) = rows.split_at(room.min(rows.len()));
            self.pending.extend_from_slice(now);
            rows = later;
            if self.pending.len() == ROWS * self.cols {
                self.multiply(kernels);
            }
        }
    }

    /// The sums.
    pub fn finish(mut self, kernels: &Kernels) -> Vec<MomentBlock> {
        if !self.pending.is_empty() {
            self.multiply(kernels);
        }
        self.blocks
    }

    /// Adds the products of the pending rows. The order of all sums is that of the rows.
    fn multiply(&mut self, kernels: &Kernels) {
        let (cols, rows) = (self.cols, self.pending.len() / self.cols);
        for block in &mut self.blocks {
            let n = block.inputs.len();
            // The inputs twice: as a packed matrix of n outputs, and as n rows that it is multiplied with.
            let layout = MatrixLayout::new(WeightFormat::F32, n, rows).expect("a block is not empty");
            let mut packed = vec![0f32; layout.bytes() / 4];
            let mut transposed = vec![0f32; n * rows];
            for (m, row) in self.pending.chunks(cols).enumerate() {
                for (i, &x) in row[block.inputs.clone()].iter().enumerate() {
                    packed[(i / LANES * rows + m) * LANES + i % LANES] = x;
                    transposed[i * rows + m] = x;
                }
            }
            let matrix =
                PackedMatrix::new(layout, bytemuck::cast_slice(&packed)).expect("of the layout's length");
            block.sums.par_chunks_mut(TILE * n).enumerate().for_each(|(tile, sums)| {
                let (first, count) = (tile * TILE, sums.len() / n);
                let x = &transposed[first * rows..(first + count) * rows];
                let mut out = [[0f32; PANEL]; TILE];
                let stripes = (first + count).div_ceil(LANES);
                for from in (0..stripes).step_by(PANEL_STRIPES) {
                    let part = from..stripes.min(from + PANEL_STRIPES);
                    kernels.matmul_float(&matrix, part.clone(), x, &mut out[..count]);
                    let columns = part.start * LANES..n.min(part.end * LANES);
                    for (sums, out) in sums.chunks_mut(n).zip(&out) {
                        sums[columns.clone()].iter_mut().zip(out).for_each(|(s, o)| *s += o);
                    }
                }
            });
        }
        self.pending.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::normal;

    #[test]
    fn blocks_are_whole_chunks_and_cover_all_inputs() {
        for (cols, lengths) in [
            (1, vec![1]),
            (512, vec![512]),
            (4096, vec![4096]),
            (4304, vec![2304, 2000]),
            (16384, vec![4096; 4]),
            (9216, vec![3072; 3]),
        ] {
            let blocks: Vec<_> = blocks_of(cols).collect();
            assert_eq!(blocks.iter().map(ExactSizeIterator::len).collect::<Vec<_>>(), lengths);
            assert!(blocks.windows(2).all(|b| b[0].end == b[1].start));
        }
    }

    #[test]
    fn sums_are_those_of_all_rows_however_they_come() {
        let kernels = Kernels::select().unwrap();
        for (cols, rows) in [(5, 3), (37, 300), (64, 256), (150, 513)] {
            let x: Vec<f32> = (0..cols * rows).map(|i| normal(3, i as u64)).collect();
            let mut at_once = Moments::new(cols);
            at_once.add(&kernels, &x);
            let mut in_parts = Moments::new(cols);
            for part in x.chunks(7 * cols) {
                in_parts.add(&kernels, part);
            }
            let (a, b) = (at_once.finish(&kernels), in_parts.finish(&kernels));
            assert_eq!((a.len(), &a[0].sums), (1, &b[0].sums));
            for i in 0..cols {
                for j in 0..=i {
                    let product = |m: usize| f64::from(x[m * cols + i]) * f64::from(x[m * cols + j]);
                    let want: f64 = (0..rows).map(product).sum();
                    let got = f64::from(a[0].sums[i * cols + j]);
                    assert!((got - want).abs() < 1e-3, "{cols} {rows}: {got} at {i}, {j}, not {want}");
                }
            }
        }
    }
}
