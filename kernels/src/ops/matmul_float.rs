//! Matrix products in f32 over packed stripes of f32, f16 or i8: weights, attention scores and attention values.
//!
//! The sum over k runs in chunks of 256: inside a chunk one fused multiply-add after another, then the chunks are
//! added in order. One lane is one output, so no lane is ever added to another.

use crate::layout::{CHUNK_MAX, LANES};
use crate::simd::Simd;

/// What a stripe may hold: f32, half-precision bits, or integers that someone scales afterwards.
pub trait Element: Copy + Send + Sync {
    /// Sixteen of them as f32 lanes.
    fn load<I: Simd>(isa: I, x: &[Self; LANES]) -> I::F;
}

impl Element for f32 {
    #[inline(always)]
    fn load<I: Simd>(isa: I, x: &[f32; LANES]) -> I::F {
        isa.load(x)
    }
}

impl Element for u16 {
    #[inline(always)]
    fn load<I: Simd>(isa: I, x: &[u16; LANES]) -> I::F {
        isa.load_f16(x)
    }
}

impl Element for i8 {
    #[inline(always)]
    fn load<I: Simd>(isa: I, x: &[i8; LANES]) -> I::F {
        isa.load_i8(x)
    }
}

/// Rows of a register block.
pub const BLOCK_ROWS: usize = 6;
/// Stripes of the wider register block.
const WIDE: usize = 4;

/// `out[m][16·s + lane] = Σ_k x[m][k] · w[s][k][lane]` for `rows` rows and `stripes` stripes.
///
/// Row `m` of `x` starts at `m · x_stride`, of `out` at `m · out_stride`; stripe `s` of `w` starts at
/// `s · w_stride` and has `k` vectors of 16.
#[inline(always)]
pub fn matmul<I: Simd, W: Element>(
    isa: I,
    x: &[f32],
    x_stride: usize,
    rows: usize,
    w: &[W],
    w_stride: usize,
    stripes: usize,
    k: usize,
    out: &mut [f32],
    out_stride: usize,
) {
    for chunk in (0..k.max(1)).step_by(CHUNK_MAX) {
        let len = CHUNK_MAX.min(k - chunk);
        let mut m = 0;
        while m < rows {
            let mut s = 0;
            while s < stripes {
                let part = Part {
                    x: &x[m * x_stride + chunk..],
                    x_stride,
                    w: &w[s * w_stride + chunk * LANES..],
                    w_stride,
                    k: len,
                    first: chunk == 0,
                };
                let out = &mut out[m * out_stride + s * LANES..];
                s += if I::BLOCK_STRIPES >= WIDE && stripes - s >= WIDE {
                    part.rows::<I, WIDE>(isa, rows - m, out, out_stride);
                    WIDE
                } else {
                    part.rows::<I, 1>(isa, rows - m, out, out_stride);
                    1
                };
            }
            m += BLOCK_ROWS;
        }
    }
}

/// A chunk of a block of rows and stripes.
#[derive(Clone, Copy)]
struct Part<'a, W> {
    x: &'a [f32],
    x_stride: usize,
    w: &'a [W],
    w_stride: usize,
    k: usize,
    first: bool,
}

impl<W: Element> Part<'_, W> {
    #[inline(always)]
    fn rows<I: Simd, const S: usize>(self, isa: I, rows: usize, out: &mut [f32], out_stride: usize) {
        match rows {
            1 => self.block::<I, 1, S>(isa, out, out_stride),
            2 => self.block::<I, 2, S>(isa, out, out_stride),
            3 => self.block::<I, 3, S>(isa, out, out_stride),
            4 => self.block::<I, 4, S>(isa, out, out_stride),
            5 => self.block::<I, 5, S>(isa, out, out_stride),
            _ => self.block::<I, BLOCK_ROWS, S>(isa, out, out_stride),
        }
    }

    // Plain loops: see the head of this folder's `mod.rs`.
    #[allow(clippy::needless_range_loop, reason = "register blocks are loops over indices of several arrays")]
    #[inline(always)]
    fn block<I: Simd, const M: usize, const S: usize>(self, isa: I, out: &mut [f32], out_stride: usize) {
        let mut x: [&[f32]; M] = [&[]; M];
        for m in 0..M {
            x[m] = &self.x[m * self.x_stride..][..self.k];
        }
        let mut stripes: [&[[W; LANES]]; S] = [&[]; S];
        for s in 0..S {
            stripes[s] = &self.w[s * self.w_stride..].as_chunks::<LANES>().0[..self.k];
        }
        let mut sums = [[isa.splat(0.0); S]; M];
        for k in 0..self.k {
            let mut w = [isa.splat(0.0); S];
            for s in 0..S {
                // SAFETY: every slice of `x` and `stripes` was cut to `self.k` elements just above.
                w[s] = W::load(isa, unsafe { stripes[s].get_unchecked(k) });
            }
            for m in 0..M {
                // SAFETY: as above.
                let x = isa.splat(unsafe { *x[m].get_unchecked(k) });
                for s in 0..S {
                    sums[m][s] = isa.fma(x, w[s], sums[m][s]);
                }
            }
        }
        for (m, sums) in sums.into_iter().enumerate() {
            let out = out[m * out_stride..][..S * LANES].as_chunks_mut::<LANES>().0;
            for (out, sum) in out.iter_mut().zip(sums) {
                isa.store(if self.first { sum } else { isa.add(isa.load(out), sum) }, out);
            }
        }
    }
}
