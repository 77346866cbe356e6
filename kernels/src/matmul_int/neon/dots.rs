//! Ways to multiply bytes: without a dot product, and with `sdot`.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{START, Tile};
use crate::layout::GROUP;
use crate::matmul_int::packed::GROUP_TILES;
use crate::simd::neon::dot_base;

/// A way to multiply bytes.
pub(super) trait Dots: Copy {
    /// Rows of a register block.
    const BLOCK_ROWS: usize;

    /// `acc[i] + Σ_j w[4·i + j] · x[4·T + j]`
    ///
    /// # Safety
    /// The CPU has what the implementor names.
    unsafe fn dot<const T: i32>(acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t;

    /// Sums of `M` rows, of which `q` has `stride` bytes each, times a stripe's unpacked chunk.
    ///
    /// # Safety
    /// The CPU has what the implementor names; a row has 16 bytes for each group of tiles.
    #[inline(always)]
    unsafe fn sums<const M: usize>(
        weights: &[[Tile; GROUP_TILES]],
        q: &[i8],
        stride: usize,
    ) -> [[int32x4_t; 4]; M] {
        // SAFETY: row i of M, and 16 bytes for each group, as the caller vouches; 16 bytes within a tile. The CPU has what `Self`
        // needs, as the caller vouches.
        unsafe {
            let mut sums = [[vdupq_n_s32(START); 4]; M];
            for (g, tiles) in weights.iter().enumerate() {
                let mut rows = [vdupq_n_s8(0); M];
                for i in 0..M {
                    rows[i] = vld1q_s8(q.as_ptr().add(i * stride + GROUP * g));
                }
                for n in 0..4 {
                    let w = vld1q_s8(tiles[0].as_ptr().add(16 * n));
                    for i in 0..M {
                        sums[i][n] = Self::dot::<0>(sums[i][n], w, rows[i]);
                    }
                }
                for n in 0..4 {
                    let w = vld1q_s8(tiles[1].as_ptr().add(16 * n));
                    for i in 0..M {
                        sums[i][n] = Self::dot::<1>(sums[i][n], w, rows[i]);
                    }
                }
                for n in 0..4 {
                    let w = vld1q_s8(tiles[2].as_ptr().add(16 * n));
                    for i in 0..M {
                        sums[i][n] = Self::dot::<2>(sums[i][n], w, rows[i]);
                    }
                }
                for n in 0..4 {
                    let w = vld1q_s8(tiles[3].as_ptr().add(16 * n));
                    for i in 0..M {
                        sums[i][n] = Self::dot::<3>(sums[i][n], w, rows[i]);
                    }
                }
            }
            sums
        }
    }

    /// `-8 · Σ x` in all lanes.
    ///
    /// # Safety
    /// The CPU has what the implementor names.
    #[inline(always)]
    unsafe fn minus_eight_times(x: int8x16_t) -> int32x4_t {
        // SAFETY: every aarch64 CPU has NEON.
        unsafe { vdupq_n_s32(-8 * i32::from(vaddlvq_s8(x))) }
    }
}

/// The base set.
#[derive(Clone, Copy)]
pub(super) struct Base;

impl Dots for Base {
    // 2 · 8 sums, 2 · 4 activations spread over a register each, and what products need in between.
    const BLOCK_ROWS: usize = 2;

    #[inline(always)]
    unsafe fn dot<const T: i32>(acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: every aarch64 CPU has NEON.
        unsafe {
            let x = vdupq_laneq_s32::<T>(vreinterpretq_s32_s8(x));
            dot_base(acc, w, vreinterpretq_s8_s32(x))
        }
    }

    /// Two products fit an i16: those of two tiles are added up as they are multiplied, so that the one unit that
    /// multiplies has nothing else to do, and the other one half as much.
    #[inline(always)]
    unsafe fn sums<const M: usize>(
        weights: &[[Tile; GROUP_TILES]],
        q: &[i8],
        stride: usize,
    ) -> [[int32x4_t; 4]; M] {
        // SAFETY: row i of M, and 16 bytes for each group, as the caller vouches; 16 bytes within a tile.
        unsafe {
            // Of outputs two by two, each in two halves.
            let mut halves = [[[vdupq_n_s32(0); 2]; 4]; M];
            for (g, [a, b, c, d]) in weights.iter().enumerate() {
                let mut x = [[vdupq_n_s8(0); 4]; M];
                for i in 0..M {
                    let row = vreinterpretq_s32_s8(vld1q_s8(q.as_ptr().add(i * stride + GROUP * g)));
                    x[i][0] = vreinterpretq_s8_s32(vdupq_laneq_s32::<0>(row));
                    x[i][1] = vreinterpretq_s8_s32(vdupq_laneq_s32::<1>(row));
                    x[i][2] = vreinterpretq_s8_s32(vdupq_laneq_s32::<2>(row));
                    x[i][3] = vreinterpretq_s8_s32(vdupq_laneq_s32::<3>(row));
                }
                for n in 0..4 {
                    let (a, b) = (vld1q_s8(a.as_ptr().add(16 * n)), vld1q_s8(b.as_ptr().add(16 * n)));
                    for i in 0..M {
                        halves[i][n] = dot_two(halves[i][n], a, b, x[i][0], x[i][1]);
                    }
                }
                for n in 0..4 {
                    let (c, d) = (vld1q_s8(c.as_ptr().add(16 * n)), vld1q_s8(d.as_ptr().add(16 * n)));
                    for i in 0..M {
                        halves[i][n] = dot_two(halves[i][n], c, d, x[i][2], x[i][3]);
                    }
                }
            }
            let mut sums = [[vdupq_n_s32(START); 4]; M];
            for i in 0..M {
                for n in 0..4 {
                    sums[i][n] = vaddq_s32(sums[i][n], vpaddq_s32(halves[i][n][0], halves[i][n][1]));
                }
            }
            sums
        }
    }
}

/// Adds four outputs of two tiles, times four bytes each that `x` and `y` have in all lanes, to sums in two halves.
#[inline(always)]
fn dot_two(
    [low, high]: [int32x4_t; 2],
    a: int8x16_t,
    b: int8x16_t,
    x: int8x16_t,
    y: int8x16_t,
) -> [int32x4_t; 2] {
    // SAFETY: every aarch64 CPU has NEON.
    unsafe {
        let first = vmlal_s8(vmull_s8(vget_low_s8(a), vget_low_s8(x)), vget_low_s8(b), vget_low_s8(y));
        let second = vmlal_high_s8(vmull_high_s8(a, x), b, y);
        [vpadalq_s16(low, first), vpadalq_s16(high, second)]
    }
}

/// `sdot`
#[derive(Clone, Copy)]
pub(super) struct Dotprod;

impl Dots for Dotprod {
    // 5 · 4 sums, 5 activations, and the weights in turn.
    const BLOCK_ROWS: usize = 5;

    #[inline(always)]
    unsafe fn dot<const T: i32>(mut acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: by the caller's promise; registers only. The intrinsic is not stable in Rust yet.
        unsafe {
            asm!(
                ".arch_extension dotprod",
                "sdot {acc:v}.4s, {w:v}.16b, {x:v}.4b[{t}]",
                acc = inout(vreg) acc, w = in(vreg) w, x = in(vreg) x, t = const T,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        acc
    }

    // Sums across a register take longer.
    #[inline(always)]
    unsafe fn minus_eight_times(x: int8x16_t) -> int32x4_t {
        // SAFETY: as this function's.
        unsafe {
            let eights = vdupq_n_s8(-8);
            let sum = Self::dot::<0>(vdupq_n_s32(0), eights, x);
            let sum = Self::dot::<1>(sum, eights, x);
            let sum = Self::dot::<2>(sum, eights, x);
            Self::dot::<3>(sum, eights, x)
        }
    }
}
