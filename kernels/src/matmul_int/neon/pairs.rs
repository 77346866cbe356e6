//! Matrix products of bytes, `smmla`: two rows times two outputs at a time.

use std::arch::aarch64::*;
use std::arch::asm;
use std::hint::black_box;
use std::ops::Range;

use super::dots::Dotprod;
use super::panel::unpack_panel;
use super::{START, Tile, UNPACK_FROM_ROWS, accumulate, cast_i8, matmul, panel_scales};
use crate::activations::QuantizedRows;
use crate::layout::{CHUNK_MAX, GROUP, LANES, PackedMatrix, TILE_BYTES};
use crate::matmul_int::packed::{Ahead, GROUP_TILES, check};
use crate::matmul_int::{PANEL, PANEL_STRIPES, PanelScratch};
use crate::simd::neon::prefetch_far;

/// Rows of a register block: 3 · 8 sums of two by two, 3 activations, and the weights in turn.
const PAIR_ROWS: usize = 6;

/// See [`MatmulInteger`](crate::matmul_int::MatmulInteger).
///
/// # Safety
/// The CPU has `dotprod` and `i8mm`.
#[target_feature(enable = "neon,dotprod,i8mm")]
pub unsafe fn matmul_integer_i8mm(
    w: &PackedMatrix<'_>,
    stripes: Range<usize>,
    x: &QuantizedRows<'_>,
    rows: Range<usize>,
    scratch: &mut PanelScratch,
    out: &mut [[f32; PANEL]],
) {
    if rows.len() < UNPACK_FROM_ROWS {
        // SAFETY: as this function's.
        return unsafe { matmul::<Dotprod>(w, stripes, x, rows, scratch, out) };
    }
    check(w, &stripes, x, &rows);
    let layout = w.layout();
    for c in 0..layout.chunks() {
        let tiles = unpack_panel(w, &stripes, c, scratch);
        for j in 0..stripes.len() {
            pair_tiles(&mut scratch.0[j], tiles);
        }
        let scales = panel_scales(w, &stripes, c);
        let ahead = Ahead::new(w, &stripes, c, rows.len().div_ceil(PAIR_ROWS));
        // Six rows at a time, their bytes in pairs of rows by eight k.
        let mut pairs = [[0i8; 16]; PAIR_ROWS / 2 * CHUNK_MAX / 8];
        for (b, out) in out[..rows.len()].chunks_mut(PAIR_ROWS).enumerate() {
            let m = rows.start + b * PAIR_ROWS;
            ahead.fetch(b, prefetch_far);
            pair_rows(x, c, m, out.len(), tiles / 2, &mut pairs);
            for j in 0..stripes.len() {
                let weights = cast_i8(&scratch.0[j][..tiles * TILE_BYTES]);
                // SAFETY: as this function's.
                unsafe {
                    match out.len() {
                        1 => pair_block::<1>(weights, &pairs, x, c, m, &scales[j], j, out),
                        2 => pair_block::<2>(weights, &pairs, x, c, m, &scales[j], j, out),
                        3 => pair_block::<3>(weights, &pairs, x, c, m, &scales[j], j, out),
                        4 => pair_block::<4>(weights, &pairs, x, c, m, &scales[j], j, out),
                        5 => pair_block::<5>(weights, &pairs, x, c, m, &scales[j], j, out),
                        _ => pair_block::<PAIR_ROWS>(weights, &pairs, x, c, m, &scales[j], j, out),
                    }
                }
            }
        }
    }
}

/// Turns tiles of 4 k, two by two, into shapes of 2 outputs by 8 k, as `smmla` multiplies: outputs 0 and 1, then 2 and
/// 3, up to 14 and 15.
#[inline(always)]
fn pair_tiles(bytes: &mut [u8; CHUNK_MAX * LANES], tiles: usize) {
    for pair in bytes[..tiles * TILE_BYTES].as_chunks_mut::<{ 2 * TILE_BYTES }>().0 {
        // SAFETY: 16 bytes at a time within an array of 128.
        unsafe {
            let place = |i: usize| pair.as_ptr().add(16 * i).cast::<i32>();
            let mut shapes = [vdupq_n_s32(0); 8];
            for q in 0..4 {
                let (a, b) = (vld1q_s32(place(q)), vld1q_s32(place(4 + q)));
                (shapes[2 * q], shapes[2 * q + 1]) = (vzip1q_s32(a, b), vzip2q_s32(a, b));
            }
            for (i, shape) in shapes.into_iter().enumerate() {
                vst1q_s32(pair.as_mut_ptr().add(16 * i).cast(), shape);
            }
        }
    }
}

/// Writes rows `m..m + n` in pairs of rows by 8 k, `eights` of them a pair; rows that are missing are zeros.
#[inline(always)]
fn pair_rows(
    x: &QuantizedRows<'_>,
    c: usize,
    m: usize,
    n: usize,
    eights: usize,
    pairs: &mut [[i8; 16]; PAIR_ROWS / 2 * CHUNK_MAX / 8],
) {
    const NONE: [i8; CHUNK_MAX] = [0; CHUNK_MAX];
    for (i, pairs) in pairs.chunks_exact_mut(CHUNK_MAX / 8).enumerate() {
        // Whole groups of 16 k: tiles are filled up to those.
        let row = |r: usize| if r < n { x.q(c, m + r) } else { &NONE[..] }.as_chunks::<GROUP>().0;
        let groups = pairs[..eights].as_chunks_mut::<2>().0;
        for ((a, b), out) in row(2 * i).iter().zip(row(2 * i + 1)).zip(groups) {
            // SAFETY: 16 bytes are read from arrays of 16, and written to arrays of 16.
            unsafe {
                let (a, b) = (vld1q_s64(a.as_ptr().cast()), vld1q_s64(b.as_ptr().cast()));
                vst1q_s64(out[0].as_mut_ptr().cast(), vzip1q_s64(a, b));
                vst1q_s64(out[1].as_mut_ptr().cast(), vzip2q_s64(a, b));
            }
        }
    }
}

/// `M` rows from `m` on, six at most, times a stripe's unpacked chunk in shapes of two by eight.
///
/// # Safety
/// The CPU has `i8mm`.
#[inline(always)]
unsafe fn pair_block<const M: usize>(
    weights: &[[Tile; GROUP_TILES]],
    pairs: &[[i8; 16]; PAIR_ROWS / 2 * CHUNK_MAX / 8],
    x: &QuantizedRows<'_>,
    c: usize,
    m: usize,
    scales: &[float32x4_t; 4],
    j: usize,
    out: &mut [[f32; PANEL]],
) {
    let shapes = weights.as_flattened().as_flattened().as_chunks::<{ 2 * TILE_BYTES }>().0;
    assert!(shapes.len() <= CHUNK_MAX / 8 && j < PANEL_STRIPES);
    // All checks stand here: behind the sums, each row would have its own.
    let out: &mut [[f32; PANEL]; M] = out.try_into().expect("M rows");
    let x_scales: &[f32; M] = x.scales(c, m, M).try_into().expect("M rows");
    // SAFETY: every aarch64 CPU has NEON.
    let mut sums = [[unsafe { vdupq_n_s32(START) }; 8]; PAIR_ROWS / 2];
    for (k, shapes) in shapes.iter().enumerate() {
        // SAFETY: pair i of three, of which each has CHUNK_MAX / 8 (asserted above); 16 bytes within 128. The CPU has `i8mm`, as
        // the entry's caller vouches.
        unsafe {
            let mut rows = [vdupq_n_s8(0); PAIR_ROWS / 2];
            for i in 0..PAIR_ROWS / 2 {
                rows[i] = vld1q_s8(pairs.get_unchecked(i * CHUNK_MAX / 8 + k).as_ptr());
            }
            for n in 0..8 {
                let w = vld1q_s8(shapes.as_ptr().add(16 * n));
                for i in 0..PAIR_ROWS / 2 {
                    sums[i][n] = smmla(sums[i][n], rows[i], w);
                }
            }
        }
    }
    // Written out: with an index that is not known, the sums would go through memory in the loop above.
    let out = out.as_mut_slice();
    finish::<M, 0>(sums[0], x_scales, scales, c == 0, j, out);
    finish::<M, 1>(sums[1], x_scales, scales, c == 0, j, out);
    finish::<M, 2>(sums[2], x_scales, scales, c == 0, j, out);
}

/// Adds the sums of pair `P` of the rows, those of both rows with two outputs in each, to what the rows have.
#[inline(always)]
fn finish<const M: usize, const P: usize>(
    sums: [int32x4_t; 8],
    x_scales: &[f32; M],
    scales: &[float32x4_t; 4],
    first: bool,
    j: usize,
    out: &mut [[f32; PANEL]],
) {
    // SAFETY: every aarch64 CPU has NEON.
    let (evens, odds) = unsafe {
        let [a, b, c, d, e, f, g, h] = sums;
        ([even(a, b), even(c, d), even(e, f), even(g, h)], [odd(a, b), odd(c, d), odd(e, f), odd(g, h)])
    };
    if 2 * P < M {
        accumulate(evens, x_scales[2 * P], scales, first, &mut out[2 * P].as_chunks_mut().0[j]);
    }
    if 2 * P + 1 < M {
        accumulate(odds, x_scales[2 * P + 1], scales, first, &mut out[2 * P + 1].as_chunks_mut().0[j]);
    }
}

/// The halves of two sums that are of the first row of a pair.
///
/// # Safety
/// None: every aarch64 CPU has NEON.
#[inline(always)]
unsafe fn even(a: int32x4_t, b: int32x4_t) -> int32x4_t {
    // SAFETY: every aarch64 CPU has NEON.
    unsafe { vreinterpretq_s32_s64(vzip1q_s64(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b))) }
}

/// Those of the second row.
///
/// # Safety
/// None: every aarch64 CPU has NEON.
#[inline(always)]
unsafe fn odd(a: int32x4_t, b: int32x4_t) -> int32x4_t {
    // SAFETY: every aarch64 CPU has NEON.
    unsafe { vreinterpretq_s32_s64(vzip2q_s64(vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b))) }
}

/// See [`peak::multiply`](crate::ops::peak::multiply), with `smmla`.
///
/// # Safety
/// The CPU has `i8mm`.
#[target_feature(enable = "neon,i8mm")]
pub unsafe fn peak_multiply_i8mm(rounds: usize) -> (usize, f32) {
    /// Independent sums: more than latency times throughput.
    const SUMS: usize = 16;
    /// Two rows by two columns by eight.
    const MACS: usize = 32;
    let (a, b) = black_box((vdupq_n_s8(3), vdupq_n_s8(5)));
    // Zeros, but the compiler must not know that all sums are the same.
    let mut sums = black_box([vdupq_n_s32(0); SUMS]);
    for _ in 0..rounds {
        for sum in &mut sums {
            // SAFETY: by the caller's promise.
            *sum = unsafe { smmla(*sum, a, b) };
        }
    }
    let total = sums.map(|sum| vaddvq_f32(vcvtq_f32_s32(sum))).iter().sum();
    (rounds * SUMS * MACS, total)
}

/// `acc[2·i + j] + Σ_k a[8·i + k] · b[8·j + k]`; the intrinsic is not stable in Rust yet.
///
/// # Safety
/// The CPU has `i8mm`.
#[inline(always)]
unsafe fn smmla(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: by the caller's promise; registers only.
    unsafe {
        asm!(
            ".arch_extension i8mm",
            "smmla {acc:v}.4s, {a:v}.16b, {b:v}.16b",
            acc = inout(vreg) acc, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}
