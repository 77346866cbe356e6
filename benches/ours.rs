//! Products by palmtop's kernels, walked through as the runtime does on one thread.

use std::time::{Duration, Instant};

use palmtop_kernels::layout::{MatrixLayout, PackedMatrix, WeightFormat, chunk_of};
use palmtop_kernels::{Kernels, PANEL, PANEL_STRIPES, PanelScratch, QuantizedRows};

use crate::{Format, Matrix, Product, activations, any_byte};

/// Rows that the runtime takes through a matrix together.
const BLOCK_ROWS: usize = 512;

pub fn formats(kernels: Kernels) -> Vec<Box<dyn Format>> {
    [WeightFormat::Int8, WeightFormat::Int4].map(|format| Box::new(Ours { kernels, format }) as _).into()
}

struct Ours {
    kernels: Kernels,
    format: WeightFormat,
}

impl Format for Ours {
    fn name(&self) -> String {
        self.format.name().to_owned()
    }

    fn holds(&self, outputs: usize, inputs: usize) -> bool {
        MatrixLayout::new(self.format, outputs, inputs).is_some()
    }

    fn matrix(&self, outputs: usize, inputs: usize) -> Box<dyn Matrix> {
        let layout = MatrixLayout::new(self.format, outputs, inputs).expect("a shape that it holds");
        let mut lines = vec![Line([0; 64]); layout.bytes().div_ceil(64)];
        for (i, byte) in bytemuck::cast_slice_mut(&mut lines).iter_mut().enumerate() {
            // Scales are plain numbers: subnormal ones would slow the additions down.
            let is_scale = i % layout.stripe_bytes() < layout.scale_bytes();
            *byte = if is_scale { 0x3C } else { any_byte(i) };
        }
        Box::new(Weights { kernels: self.kernels, layout, lines })
    }
}

/// Weights begin at a cache line, as they do in a file.
#[derive(Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(64))]
struct Line([u8; 64]);

struct Weights {
    kernels: Kernels,
    layout: MatrixLayout,
    lines: Vec<Line>,
}

impl Matrix for Weights {
    fn bytes(&self) -> usize {
        self.layout.bytes()
    }

    fn product<'a>(&'a self, rows: usize) -> Box<dyn Product + 'a> {
        let bytes = &bytemuck::cast_slice(&self.lines)[..self.layout.bytes()];
        let (outputs, inputs) = (self.layout.rows, self.layout.cols);
        let (chunks, chunk) = (self.layout.chunks(), chunk_of(inputs));
        let block = rows.min(BLOCK_ROWS);
        Box::new(OurProduct {
            kernels: self.kernels,
            w: PackedMatrix::new(self.layout, bytes).expect("exactly its bytes"),
            input: activations(rows * inputs).collect(),
            q: vec![0; block * chunks * chunk],
            scales: vec![0.0; block * chunks],
            sums: vec![0; block * chunks],
            scratch: Box::default(),
            panel: vec![[0.0; PANEL]; block],
            output: vec![0.0; rows * outputs],
        })
    }
}

struct OurProduct<'a> {
    kernels: Kernels,
    w: PackedMatrix<'a>,
    input: Vec<f32>,
    q: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<i32>,
    scratch: Box<PanelScratch>,
    panel: Vec<[f32; PANEL]>,
    output: Vec<f32>,
}

impl Product for OurProduct<'_> {
    fn run(&mut self, times: u64) -> Duration {
        let start = Instant::now();
        for _ in 0..times {
            self.compute();
        }
        let time = start.elapsed();
        std::hint::black_box(&self.output);
        time
    }
}

impl OurProduct<'_> {
    fn compute(&mut self) {
        let (outputs, inputs) = (self.w.rows(), self.w.cols());
        let (chunk, stripes) = (self.w.layout().chunk(), self.w.layout().stripes());
        let blocks = self.input.chunks(BLOCK_ROWS * inputs).zip(self.output.chunks_mut(BLOCK_ROWS * outputs));
        for (input, output) in blocks {
            let rows = input.len() / inputs;
            for (m, row) in input.chunks(inputs).enumerate() {
                for (c, values) in row.chunks(chunk).enumerate() {
                    let i = c * rows + m;
                    (self.scales[i], self.sums[i]) =
                        self.kernels.quantize_chunk(values, &mut self.q[i * chunk..(i + 1) * chunk]);
                }
            }
            let used = rows * self.w.layout().chunks();
            let (scales, sums) = (&self.scales[..used], &self.sums[..used]);
            let x = QuantizedRows::new(&self.q[..used * chunk], scales, sums, rows, chunk);
            for first in (0..stripes).step_by(PANEL_STRIPES) {
                let part = first..stripes.min(first + PANEL_STRIPES);
                let columns =
                    part.start * PANEL / PANEL_STRIPES..outputs.min(part.end * PANEL / PANEL_STRIPES);
                self.kernels.matmul_integer(&self.w, part, &x, 0..rows, &mut self.scratch, &mut self.panel);
                for (panel, output) in self.panel.iter().zip(output.chunks_mut(outputs)) {
                    output[columns.clone()].copy_from_slice(&panel[..columns.len()]);
                }
            }
        }
    }
}
