//! Kernels, threads and their scratch memory: the parallel matrix product that the graph is made of.

use std::ops::Range;

use palmtop_kernels::layout::{LANES, PackedMatrix, chunk_of};
use palmtop_kernels::{Kernels, PANEL, PANEL_STRIPES, PanelScratch, QuantizedRows};

use super::scratch::{Scratch, UNIT};
use super::staged::Staged;
use crate::model::weights::Matrix;
use crate::system::pool::{Disjoint, ThreadPool};

/// Fewer rows are not shared between tasks.
const GROUP_ROWS_MIN: usize = 48;

/// Kernels, threads, and a scratch per thread.
pub(crate) struct Compute {
    pub kernels: Kernels,
    pub pool: ThreadPool,
    pub scratch: Vec<Scratch>,
}

/// Where a product `c` (rows × outputs) goes, and its epilogue.
pub(crate) struct Output<'a> {
    pub out: &'a mut [f32],
    /// From a row of `out` to the next.
    pub stride: usize,
    pub epilogue: Epilogue<'a>,
}

/// What is done to a product `c` as it is written.
#[derive(Clone, Copy)]
pub(crate) enum Epilogue<'a> {
    /// `out = c`
    Store,
    /// `out = c + bias`
    Bias(&'a [f32]),
    /// `out = out + (c + bias)`
    AddBias(&'a [f32]),
    /// `out = out + c`
    Add,
}

/// The activation between the two matrices of an MLP.
#[derive(Clone, Copy)]
pub(crate) enum Activation<'a> {
    /// `gelu(c + bias)`
    BiasGelu(&'a [f32]),
    /// Outputs alternate between 16 gates and 16 ups: `gelu(gate) · up`.
    GatedGelu,
}

impl Activation<'_> {
    /// Values of a full panel.
    fn width(self) -> usize {
        match self {
            Self::BiasGelu(_) => PANEL,
            Self::GatedGelu => PANEL / 2,
        }
    }

    /// Values `from..` of a row, from a panel of products.
    fn apply(self, kernels: &Kernels, c: &[f32; PANEL], from: usize, out: &mut [f32]) {
        match self {
            Self::BiasGelu(bias) => kernels.bias_gelu(&c[..out.len()], &bias[from..from + out.len()], out),
            Self::GatedGelu => kernels.gelu_mul(c, out),
        }
    }
}

impl Compute {
    /// Makes rows the input of a matrix: `fill(row, values)` writes each of them.
    pub fn stage(
        &mut self,
        staged: &mut Staged,
        matrix: &Matrix,
        rows: usize,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        let (kernels, cols) = (self.kernels, matrix.cols());
        let writer = staged.writer(matrix, rows);
        self.pool.run(&mut self.scratch, rows, |m, scratch| {
            let row = &mut scratch.row[..cols];
            fill(m, row);
            // SAFETY: every task has its own row.
            unsafe { writer.put(&kernels, m, 0, row) };
        });
    }

    /// Makes rows that stand one behind the other the input of a matrix.
    pub fn stage_rows(&mut self, staged: &mut Staged, matrix: &Matrix, rows: usize, input: &[f32]) {
        let width = matrix.cols();
        self.stage(staged, matrix, rows, |m, out| out.copy_from_slice(&input[m * width..(m + 1) * width]));
    }

    /// Multiplies the staged rows with a matrix. Threads share the outputs, never a sum.
    pub fn matmul(&mut self, w: &PackedMatrix<'_>, staged: &Staged, output: Output<'_>) {
        self.matmul_part(w, staged, output, 0..w.layout().stripes().div_ceil(PANEL_STRIPES));
    }

    /// Like [`matmul`](Self::matmul), for some of the panels, of which each has [`PANEL`] outputs.
    pub fn matmul_part(
        &mut self,
        w: &PackedMatrix<'_>,
        staged: &Staged,
        output: Output<'_>,
        panels: Range<usize>,
    ) {
        let stripes = w.layout().stripes();
        // SAFETY: panels follow each other.
        unsafe {
            self.matmul_panels(w, staged, output, panels.len(), |panel| {
                panel_of(panels.start + panel, stripes)
            });
        }
    }

    /// Like [`matmul`](Self::matmul), for some outputs: those of ascending runs of up to [`PANEL_STRIPES`] stripes. They
    /// get the same bits; no other output is written, and no other stripe read.
    pub fn matmul_stripes(
        &mut self,
        w: &PackedMatrix<'_>,
        staged: &Staged,
        output: Output<'_>,
        runs: &[Range<u32>],
    ) {
        assert!(runs.windows(2).all(|pair| pair[0].end <= pair[1].start), "runs ascend and do not overlap");
        // SAFETY: runs do not overlap, as just checked.
        unsafe {
            self.matmul_panels(w, staged, output, runs.len(), |panel| {
                runs[panel].start as usize..runs[panel].end as usize
            });
        }
    }

    /// Multiplies the staged rows with `panels` parts of a matrix, each of up to [`PANEL_STRIPES`] stripes.
    ///
    /// # Safety
    /// No two panels have a stripe in common.
    unsafe fn matmul_panels(
        &mut self,
        w: &PackedMatrix<'_>,
        staged: &Staged,
        output: Output<'_>,
        panels: usize,
        stripes: impl Fn(usize) -> Range<usize> + Sync,
    ) {
        let (rows, n) = (staged.rows(), w.rows());
        let product = Product::new(self.kernels, w, staged);
        // More tasks than threads, so that a slow core takes fewer; few enough that a task reads a long stretch.
        let tasks = panels.min(self.pool.threads() * 16);
        let out = Disjoint::new(output.out);
        self.pool.run(&mut self.scratch, tasks, |task, scratch| {
            for panel in task * panels / tasks..(task + 1) * panels / tasks {
                let part = stripes(panel);
                let columns = part.start * LANES..n.min(part.end * LANES);
                product.panel(part, 0..rows, &mut scratch.unpacked, &mut scratch.panel);
                for (m, c) in scratch.panel[..rows].iter().enumerate() {
                    // SAFETY: by the caller's promise, panels have their own columns of every row.
                    let out = unsafe {
                        out.get(m * output.stride + columns.start..m * output.stride + columns.end)
                    };
                    output.epilogue.write(&product.kernels, c, columns.clone(), out);
                }
            }
        });
    }

    /// Multiplies the staged rows with the first matrix of an MLP and makes what comes through the activation the input
    /// of the second one. The values between them, several times as wide as all else, never leave the caches as floats:
    /// a task makes a chunk of every row, and quantizes it.
    pub fn matmul_activated(
        &mut self,
        w: &PackedMatrix<'_>,
        staged: &Staged,
        activation: Activation<'_>,
        next: &Matrix,
        output: &mut Staged,
    ) {
        let (rows, cols, kernels) = (staged.rows(), next.cols(), self.kernels);
        let product = Product::new(kernels, w, staged);
        let stripes = w.layout().stripes();
        let chunk = chunk_of(cols);
        let unit = chunk.max(activation.width());
        let units = cols.div_ceil(unit);
        // Where there are few units, several tasks share one, each for its own rows; each unpacks the weights again, so not
        // for few rows.
        let groups = (self.pool.threads() * 4).div_ceil(units).min(rows.div_ceil(GROUP_ROWS_MIN)).max(1);
        let output = output.writer(next, rows);
        self.pool.run(&mut self.scratch, units * groups, |task, scratch| {
            let (u, group) = (task / groups, task % groups);
            let rows = group * rows / groups..(group + 1) * rows / groups;
            let columns = u * unit..cols.min((u + 1) * unit);
            for from in columns.clone().step_by(activation.width()) {
                let part = panel_of(from / activation.width(), stripes);
                product.panel(part, rows.clone(), &mut scratch.unpacked, &mut scratch.panel);
                let to = columns.end.min(from + activation.width());
                for (c, values) in scratch.panel[..rows.len()].iter().zip(scratch.unit.chunks_mut(UNIT)) {
                    activation.apply(
                        &kernels,
                        c,
                        from,
                        &mut values[from - columns.start..to - columns.start],
                    );
                }
            }
            for (m, values) in rows.zip(scratch.unit.chunks(UNIT)) {
                // SAFETY: every task has its own columns, which begin at a chunk, of its own rows.
                unsafe { output.put(&kernels, m, columns.start, &values[..columns.len()]) };
            }
        });
    }
}

/// The stripes of a panel, where panels follow each other through a matrix of `stripes`.
fn panel_of(panel: usize, stripes: usize) -> Range<usize> {
    panel * PANEL_STRIPES..stripes.min((panel + 1) * PANEL_STRIPES)
}

/// A matrix and the rows that it is multiplied with.
struct Product<'a> {
    kernels: Kernels,
    w: PackedMatrix<'a>,
    quantized: Option<QuantizedRows<'a>>,
    floats: &'a [f32],
}

impl<'a> Product<'a> {
    fn new(kernels: Kernels, w: &PackedMatrix<'a>, staged: &'a Staged) -> Self {
        assert_eq!(staged.cols(), w.cols(), "the staged rows fit the matrix");
        let integer = w.layout().format.is_integer();
        let quantized = integer.then(|| staged.quantized());
        let floats = if integer { &[] } else { staged.floats() };
        Self { kernels, w: *w, quantized, floats }
    }

    /// The outputs of a panel's stripes for some rows, which `out` begins with.
    fn panel(
        &self,
        part: Range<usize>,
        rows: Range<usize>,
        scratch: &mut PanelScratch,
        out: &mut [[f32; PANEL]],
    ) {
        let out = &mut out[..rows.len()];
        match &self.quantized {
            Some(x) => self.kernels.matmul_integer(&self.w, part, x, rows, scratch, out),
            None => {
                let cols = self.w.cols();
                self.kernels.matmul_float(
                    &self.w,
                    part,
                    &self.floats[rows.start * cols..rows.end * cols],
                    out,
                );
            }
        }
    }
}

impl Epilogue<'_> {
    /// Writes a row of a panel, `columns` of the whole row.
    fn write(self, kernels: &Kernels, c: &[f32; PANEL], columns: Range<usize>, out: &mut [f32]) {
        let c = &c[..out.len()];
        match self {
            Epilogue::Store => out.copy_from_slice(c),
            Epilogue::Add => kernels.add_product(c, None, true, out),
            Epilogue::Bias(bias) => kernels.add_product(c, Some(&bias[columns]), false, out),
            Epilogue::AddBias(bias) => kernels.add_product(c, Some(&bias[columns]), true, out),
        }
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "runs are lists of ranges, of one too")]
mod tests {
    use half::bf16;
    use palmtop_kernels::layout::{
        MatrixLayout, QuantizedRow, WeightFormat, pack_float_stripe, pack_integer_stripe,
    };

    use super::super::scratch::ScratchSizes;
    use super::super::staged::StagedSizes;
    use super::*;
    use crate::system::memory::Reserve;

    /// Numbers of no pattern.
    fn noise(i: usize) -> u64 {
        let z = (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (z ^ z >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 40
    }

    fn packed(layout: &MatrixLayout) -> Vec<u64> {
        let mut bytes = vec![0u64; layout.bytes() / 8];
        let stripes = bytemuck::cast_slice_mut::<u64, u8>(&mut bytes).chunks_mut(layout.stripe_bytes());
        for (s, stripe) in stripes.enumerate() {
            let rows = s * LANES..layout.rows.min((s + 1) * LANES);
            let value = |n: usize, k: usize| noise(n * layout.cols + k);
            if layout.format.is_integer() {
                let rows: Vec<QuantizedRow> = rows
                    .map(|n| QuantizedRow {
                        q: (0..layout.cols).map(|k| (value(n, k) % 16) as i8 - 8).collect(),
                        scales: (0..layout.chunks())
                            .map(|c| bf16::from_f32(0.01 * (1 + n + c) as f32))
                            .collect(),
                        group_scales: (0..layout.groups()).map(|g| (value(n, g) % 16) as u8).collect(),
                    })
                    .collect();
                pack_integer_stripe(layout, &rows, stripe);
            } else {
                let rows: Vec<Vec<f32>> = rows
                    .map(|n| (0..layout.cols).map(|k| value(n, k) as f32 / (1 << 23) as f32 - 1.0).collect())
                    .collect();
                pack_float_stripe(layout, &rows.iter().map(Vec::as_slice).collect::<Vec<_>>(), stripe);
            }
        }
        bytes
    }

    #[test]
    fn some_stripes_of_a_product_have_the_bits_of_all_and_nothing_else_is_written() {
        const ROWS: usize = 3;
        // The last stripe is not full.
        let (n, k) = (16 * 21 - 5, 600);
        for format in [WeightFormat::F32, WeightFormat::F16, WeightFormat::Int8, WeightFormat::Int4] {
            let layout = MatrixLayout::new(format, n, k).unwrap();
            let bytes = packed(&layout);
            let w = PackedMatrix::new(layout, bytemuck::cast_slice(&bytes)).unwrap();
            let mut sizes = StagedSizes::default();
            sizes.cover(format.is_integer(), ROWS, k);
            let scratch = ScratchSizes { rows: ROWS, width: k, head_dim: 16, keys: 16 };
            let reserve = &mut Reserve::taking(false);
            for threads in [1, 3] {
                let mut compute = Compute {
                    kernels: Kernels::select().unwrap(),
                    pool: ThreadPool::new(threads).unwrap(),
                    scratch: (0..threads).map(|_| Scratch::new(reserve, &scratch).unwrap()).collect(),
                };
                let mut staged = Staged::new(reserve, &sizes).unwrap();
                let writer = staged.writer(&Matrix::without_a_file(layout), ROWS);
                for m in 0..ROWS {
                    let x: Vec<f32> = (0..k).map(|i| noise(m * k + i + 99) as f32 / 1e7 - 0.8).collect();
                    // SAFETY: there is no other thread.
                    unsafe { writer.put(&compute.kernels, m, 0, &x) };
                }
                let mut all = vec![0.0; ROWS * n];
                compute.matmul(&w, &staged, Output { out: &mut all, stride: n, epilogue: Epilogue::Store });
                for runs in [&[0..1][..], &[0..4, 4..5, 7..9, 12..16, 19..21], &[3..7, 20..21], &[]] {
                    let mut some = vec![f32::MAX; ROWS * n];
                    let output = Output { out: &mut some, stride: n, epilogue: Epilogue::Store };
                    compute.matmul_stripes(&w, &staged, output, runs);
                    for (i, (some, all)) in some.iter().zip(&all).enumerate() {
                        let stripe = (i % n / LANES) as u32;
                        let selected = runs.iter().any(|run| run.contains(&stripe));
                        let want = if selected { *all } else { f32::MAX };
                        assert_eq!(some.to_bits(), want.to_bits(), "{format}, output {i}, {runs:?}");
                    }
                }
            }
        }
    }
}
