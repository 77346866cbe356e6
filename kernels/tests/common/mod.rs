//! Test values, and matrices and activations made of them.

#![allow(dead_code, reason = "not every test needs all of it")]

use half::bf16;
use palmtop_kernels::layout::{
    LANES, MatrixLayout, QuantizedRow, WeightFormat, chunk_of, pack_float_stripe, pack_integer_stripe,
};
use palmtop_kernels::{Kernels, QuantizedRows};

/// A small generator of test values; the seed is in every failure message.
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let x = self.0 ^ (self.0 >> 33);
        x.wrapping_mul(0xff51afd7ed558ccd) >> 16
    }
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }
    /// Roughly normal.
    pub fn f32(&mut self) -> f32 {
        (0..6).map(|_| (self.bits() & 0xFFFF) as f32 / 65536.0 - 0.5).sum::<f32>() * 1.4
    }
    pub fn f32s(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.f32()).collect()
    }
}

pub fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

/// Memory that starts at a multiple of 64, as a mapped tensor does.
pub fn aligned(bytes: usize) -> Vec<[u8; 64]> {
    vec![[0u8; 64]; bytes.div_ceil(64)]
}

pub fn matrix(r: &mut Random, layout: MatrixLayout) -> Vec<[u8; 64]> {
    let mut memory = aligned(layout.bytes());
    let bytes = &mut memory.as_flattened_mut()[..layout.bytes()];
    for (s, out) in bytes.chunks_mut(layout.stripe_bytes()).enumerate() {
        let rows = LANES.min(layout.rows - s * LANES);
        if layout.format.is_integer() {
            let int4 = layout.format == WeightFormat::Int4;
            let rows: Vec<QuantizedRow> = (0..rows)
                .map(|_| QuantizedRow {
                    q: (0..layout.cols)
                        .map(|_| if int4 { r.below(16) as i8 - 8 } else { (r.below(255) as i32 - 127) as i8 })
                        .collect(),
                    scales: (0..layout.chunks()).map(|_| bf16::from_f32(r.f32() * 0.01)).collect(),
                    group_scales: if int4 {
                        (0..layout.groups()).map(|_| r.below(16) as u8).collect()
                    } else {
                        vec![]
                    },
                })
                .collect();
            pack_integer_stripe(&layout, &rows, out);
        } else {
            let rows: Vec<Vec<f32>> = (0..rows).map(|_| r.f32s(layout.cols)).collect();
            pack_float_stripe(&layout, &rows.iter().map(|r| &r[..]).collect::<Vec<_>>(), out);
        }
    }
    memory
}

pub struct Quantized {
    pub q: Vec<i8>,
    pub scales: Vec<f32>,
    pub sums: Vec<i32>,
    pub rows: usize,
    pub chunk: usize,
}

impl Quantized {
    pub fn new(kernels: &Kernels, x: &[f32], rows: usize) -> Self {
        let cols = x.len() / rows;
        let chunk = chunk_of(cols);
        let n = cols.div_ceil(chunk) * rows;
        let mut out = Self { q: vec![7; n * chunk], scales: vec![7.0; n], sums: vec![7; n], rows, chunk };
        for (m, row) in x.chunks(cols).enumerate() {
            for (c, part) in row.chunks(chunk).enumerate() {
                let i = c * rows + m;
                (out.scales[i], out.sums[i]) =
                    kernels.quantize_chunk(part, &mut out.q[i * chunk..(i + 1) * chunk]);
            }
        }
        out
    }
    pub fn view(&self) -> QuantizedRows<'_> {
        QuantizedRows::new(&self.q, &self.scales, &self.sums, self.rows, self.chunk)
    }
}
