//! Kernels, threads and their scratch memory: the parallel matrix product that the graph is made of.

use palmtop_kernels::layout::{LANES, PackedMatrix, chunk_of};
use palmtop_kernels::{Kernels, PANEL, PANEL_STRIPES, PanelScratch, QuantizedRows};

use crate::attention;
use crate::error::Result;
use crate::memory::Aligned;
use crate::pool::{Disjoint, ThreadPool};
use crate::weights::Matrix;

/// Rows that go through a matrix together; longer inputs go in blocks, so that memory stays bounded.
pub(crate) const BLOCK_ROWS: usize = 512;

/// Kernels, threads, and a scratch per thread.
pub(crate) struct Compute {
    pub kernels: Kernels,
    pub pool: ThreadPool,
    pub scratch: Vec<Scratch>,
}

/// What a thread needs for itself.
pub(crate) struct Scratch {
    panel: Aligned<[f32; PANEL]>,
    unpacked: Box<PanelScratch>,
    /// A row of activations.
    pub row: Aligned<f32>,
    pub attention: attention::Scratch,
}

/// Sizes of a [`Scratch`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScratchSizes {
    /// Rows of a matrix product, at most [`BLOCK_ROWS`].
    pub rows: usize,
    /// Widest row of activations.
    pub width: usize,
    pub attention: attention::ScratchSizes,
}

impl ScratchSizes {
    pub fn bytes(&self) -> usize {
        Aligned::<[f32; PANEL]>::bytes(self.rows)
            + size_of::<PanelScratch>()
            + Aligned::<f32>::bytes(self.width)
            + self.attention.bytes()
    }
}

impl Scratch {
    pub fn new(sizes: &ScratchSizes) -> Result<Self> {
        Ok(Self {
            panel: Aligned::zeroed(sizes.rows)?,
            unpacked: Box::default(),
            row: Aligned::zeroed(sizes.width)?,
            attention: attention::Scratch::new(&sizes.attention)?,
        })
    }
}

/// Rows of activations in the form that a matrix multiplies with: int8 for integer weights, f32 for float ones.
pub(crate) struct Staged {
    q: Aligned<i8>,
    scales: Aligned<f32>,
    sums: Aligned<i32>,
    floats: Aligned<f32>,
    rows: usize,
    cols: usize,
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

    pub fn bytes(&self) -> usize {
        Aligned::<i8>::bytes(self.integers)
            + 2 * Aligned::<f32>::bytes(self.chunks)
            + Aligned::<f32>::bytes(self.floats)
    }
}

impl Staged {
    pub fn new(sizes: &StagedSizes) -> Result<Self> {
        Ok(Self {
            q: Aligned::zeroed(sizes.integers)?,
            scales: Aligned::zeroed(sizes.chunks)?,
            sums: Aligned::zeroed(sizes.chunks)?,
            floats: Aligned::zeroed(sizes.floats)?,
            rows: 0,
            cols: 0,
        })
    }
}

/// Where a product `c` (rows × outputs) goes, and what becomes of it on the way.
pub(crate) struct Then<'a> {
    pub out: &'a mut [f32],
    /// From a row of `out` to the next.
    pub stride: usize,
    pub what: What<'a>,
}

/// What becomes of a product `c`.
#[derive(Clone, Copy)]
pub(crate) enum What<'a> {
    /// `out = c`
    Store,
    /// `out = c + bias`
    Bias(&'a [f32]),
    /// `out = out + (c + bias)`
    AddBias(&'a [f32]),
    /// `out = out + c`
    Add,
    /// `out = gelu(c + bias)`
    BiasGelu(&'a [f32]),
    /// Outputs alternate between 16 gates and 16 ups: `out = gelu(gate) · up`.
    GeluMul,
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
        (staged.rows, staged.cols) = (rows, cols);
        if !matrix.format().is_integer() {
            let floats = Disjoint::new(&mut staged.floats[..rows * cols]);
            self.pool.run(&mut self.scratch, rows, |m, _| {
                // SAFETY: every task has its own row.
                fill(m, unsafe { floats.get(m * cols..(m + 1) * cols) });
            });
            return;
        }
        let chunk = chunk_of(cols);
        let chunks = cols.div_ceil(chunk);
        let q = Disjoint::new(&mut staged.q[..rows * chunks * chunk]);
        let scales = Disjoint::new(&mut staged.scales[..rows * chunks]);
        let sums = Disjoint::new(&mut staged.sums[..rows * chunks]);
        self.pool.run(&mut self.scratch, rows, |m, scratch| {
            let row = &mut scratch.row[..cols];
            fill(m, row);
            for (c, values) in row.chunks(chunk).enumerate() {
                let i = c * rows + m;
                // SAFETY: every task has the chunks of its own row.
                let (q, scale, sum) =
                    unsafe { (q.get(i * chunk..(i + 1) * chunk), scales.get(i..i + 1), sums.get(i..i + 1)) };
                (scale[0], sum[0]) = kernels.quantize_chunk(values, q);
            }
        });
    }

    /// Makes rows that stand one behind the other the input of a matrix.
    pub fn stage_rows(&mut self, staged: &mut Staged, matrix: &Matrix, rows: usize, input: &[f32]) {
        let width = matrix.cols();
        self.stage(staged, matrix, rows, |m, out| out.copy_from_slice(&input[m * width..(m + 1) * width]));
    }

    /// Multiplies the staged rows with a matrix. Threads share the outputs, never a sum.
    pub fn matmul(&mut self, w: &PackedMatrix<'_>, staged: &Staged, then: Then<'_>) {
        let (rows, n) = (staged.rows, w.rows());
        assert_eq!(staged.cols, w.cols(), "the staged rows fit the matrix");
        let x = w.layout().format.is_integer().then(|| {
            let (chunks, chunk) = (rows * w.layout().chunks(), w.layout().chunk());
            let (scales, sums) = (&staged.scales[..chunks], &staged.sums[..chunks]);
            QuantizedRows::new(&staged.q[..chunks * chunk], scales, sums, rows, chunk)
        });
        let stripes = w.layout().stripes();
        let panels = stripes.div_ceil(PANEL_STRIPES);
        // More tasks than threads, so that a slow core takes fewer; few enough that a task reads a long stretch.
        let tasks = panels.min(self.pool.threads() * 16);
        let kernels = self.kernels;
        let epilogue = Epilogue::new(kernels, then, n);
        self.pool.run(&mut self.scratch, tasks, |task, scratch| {
            for panel in task * panels / tasks..(task + 1) * panels / tasks {
                let part = panel * PANEL_STRIPES..stripes.min((panel + 1) * PANEL_STRIPES);
                let out = &mut scratch.panel[..rows];
                match &x {
                    Some(x) => {
                        kernels.matmul_integer(w, part.clone(), x, 0..rows, &mut scratch.unpacked, out)
                    }
                    None => kernels.matmul_float(w, part.clone(), &staged.floats[..rows * staged.cols], out),
                }
                epilogue.panel(panel, out);
            }
        });
    }
}

/// Writes panels of products to where they belong.
struct Epilogue<'a> {
    kernels: Kernels,
    what: What<'a>,
    out: Disjoint<'a, f32>,
    stride: usize,
    /// Outputs of a full panel.
    width: usize,
    /// Outputs per row.
    n: usize,
}

impl<'a> Epilogue<'a> {
    fn new(kernels: Kernels, then: Then<'a>, n: usize) -> Self {
        let Then { out, stride, what } = then;
        // The gated product has half as many outputs; those past the end are filled up in the matrix.
        let (width, n) = if matches!(what, What::GeluMul) { (PANEL / 2, stride) } else { (PANEL, n) };
        Self { kernels, what, out: Disjoint::new(out), stride, width, n }
    }

    fn panel(&self, panel: usize, c: &[[f32; PANEL]]) {
        let from = panel * self.width;
        let to = self.n.min(from + self.width);
        for (m, c) in c.iter().enumerate() {
            // SAFETY: panels are tasks of their own and have their own columns of every row.
            let out = unsafe { self.out.get(m * self.stride + from..m * self.stride + to) };
            let c = &c[..];
            match self.what {
                What::Store => out.copy_from_slice(&c[..out.len()]),
                What::Add => out.iter_mut().zip(c).for_each(|(o, c)| *o += c),
                What::Bias(bias) => {
                    out.iter_mut().zip(c).zip(&bias[from..to]).for_each(|((o, c), b)| *o = c + b);
                }
                What::AddBias(bias) => {
                    out.iter_mut().zip(c).zip(&bias[from..to]).for_each(|((o, c), b)| *o += c + b);
                }
                What::BiasGelu(bias) => self.kernels.bias_gelu(&c[..out.len()], &bias[from..to], out),
                What::GeluMul => {
                    for (out, pair) in out.chunks_mut(LANES).zip(c.chunks_exact(2 * LANES)) {
                        let (gate, up) = pair.split_at(LANES);
                        self.kernels.gelu_mul(&gate[..out.len()], &up[..out.len()], out);
                    }
                }
            }
        }
    }
}
