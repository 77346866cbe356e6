//! One or two rows: the packed weights stream through registers.

use std::arch::aarch64::*;

use super::dots::Dots;
use super::panel::spread;
use super::{Aligned, START, accumulate, scales};
use crate::activations::QuantizedRows;
use crate::layout::{CHUNK_MAX, GROUP, PackedMatrix, WeightFormat};
use crate::matmul_int::PANEL;
use crate::matmul_int::packed::{GROUP_TILES, PackedChunk};
use crate::simd::neon::prefetch;

/// How far ahead of its use a stream of packed weights is fetched.
const PREFETCH_BYTES: usize = 1024;

const TO_LANES: [[u8; 16]; 4] = [spread(0, false), spread(1, false), spread(2, false), spread(3, false)];

/// One or two rows times packed stripe `s`, number `j` of the panel.
///
/// # Safety
/// The CPU has what `D` names.
#[inline(always)]
pub(super) unsafe fn stream<D: Dots, const M: usize>(
    w: &PackedMatrix<'_>,
    s: usize,
    x: &QuantizedRows<'_>,
    m: usize,
    j: usize,
    out: &mut [[f32; PANEL]],
) {
    let (layout, stripe) = (w.layout(), w.stripe(s));
    for c in 0..layout.chunks() {
        let chunk = PackedChunk::new(w, stripe, c);
        let q = x.q_rows(c, m, M);
        // SAFETY: as this function's.
        let sums = unsafe {
            if layout.format == WeightFormat::Int8 {
                stream_int8::<D, M>(chunk, q, x.chunk())
            } else {
                stream_int4::<D, M>(chunk, q, x.chunk())
            }
        };
        let scales = scales(stripe, c);
        for i in 0..M {
            accumulate(sums[i], x.scale(c, m + i), &scales, c == 0, &mut out[i].as_chunks_mut().0[j]);
        }
    }
}

/// # Safety
/// The CPU has what `D` names.
#[inline(always)]
unsafe fn stream_int8<D: Dots, const M: usize>(
    chunk: PackedChunk<'_>,
    q: &[i8],
    stride: usize,
) -> [[int32x4_t; 4]; M] {
    assert!(chunk.tiles.len() * 4 <= stride && q.len() == M * stride);
    // SAFETY: every aarch64 CPU has NEON.
    let (start, zero) = unsafe { (vdupq_n_s32(START), vdupq_n_s32(0)) };
    // Two sums in turn, so that one product need not wait for the one before.
    let mut sums = [[[start; 4], [zero; 4]]; M];
    let (groups, rest) = chunk.tiles.as_chunks::<GROUP_TILES>();
    for (g, tiles) in groups.iter().enumerate() {
        for tile in tiles {
            prefetch(tile.as_ptr().wrapping_add(PREFETCH_BYTES));
        }
        // SAFETY: row i of M, 16 bytes of each of at most stride / 16 groups (asserted above); 16 bytes within a tile. The CPU has
        // what `D` needs, as the caller vouches.
        unsafe {
            for i in 0..M {
                let x = vld1q_s8(q.as_ptr().add(i * stride + GROUP * g));
                for n in 0..4 {
                    let w = |t: usize| vld1q_s8(tiles[t].as_ptr().cast::<i8>().add(16 * n));
                    sums[i][0][n] = D::dot::<0>(sums[i][0][n], w(0), x);
                    sums[i][1][n] = D::dot::<1>(sums[i][1][n], w(1), x);
                    sums[i][0][n] = D::dot::<2>(sums[i][0][n], w(2), x);
                    sums[i][1][n] = D::dot::<3>(sums[i][1][n], w(3), x);
                }
            }
        }
    }
    for (t, tile) in (groups.len() * GROUP_TILES..).zip(rest) {
        for i in 0..M {
            // SAFETY: row i of M, 4 bytes for each of at most stride / 4 tiles; 16 bytes within a tile.
            unsafe {
                let x = q.as_ptr().add(i * stride + 4 * t).cast::<i32>().read_unaligned();
                let x = vreinterpretq_s8_s32(vdupq_n_s32(x));
                for n in 0..4 {
                    let w = vld1q_s8(tile.as_ptr().cast::<i8>().add(16 * n));
                    sums[i][0][n] = D::dot::<0>(sums[i][0][n], w, x);
                }
            }
        }
    }
    let mut totals = [[zero; 4]; M];
    for i in 0..M {
        for n in 0..4 {
            // SAFETY: every aarch64 CPU has NEON.
            totals[i][n] = unsafe { vaddq_s32(sums[i][0][n], sums[i][1][n]) };
        }
    }
    totals
}

/// Group by group: `Σ nibble · x - 8 · Σ x`, times the group's scale.
///
/// # Safety
/// The CPU has what `D` names.
#[inline(always)]
unsafe fn stream_int4<D: Dots, const M: usize>(
    chunk: PackedChunk<'_>,
    q: &[i8],
    stride: usize,
) -> [[int32x4_t; 4]; M] {
    let groups = chunk.tiles.as_chunks::<2>().0;
    assert!(groups.len() * GROUP <= stride && stride <= CHUNK_MAX && q.len() == M * stride);
    // What the sums of a group start at, in all lanes.
    // SAFETY: every aarch64 CPU has NEON.
    let mut starts = [[Aligned(unsafe { vdupq_n_s32(0) }); CHUNK_MAX / GROUP]; M];
    for i in 0..M {
        for g in 0..groups.len() {
            // SAFETY: row i of M, 16 bytes of each of at most stride / 16 groups, as asserted above. The CPU has what `D` needs,
            // as the caller vouches.
            let start = unsafe { D::minus_eight_times(vld1q_s8(q.as_ptr().add(i * stride + GROUP * g))) };
            starts[i][g] = Aligned(start);
        }
    }
    // SAFETY: every aarch64 CPU has NEON.
    let mut totals = [[unsafe { vdupq_n_s32(START) }; 4]; M];
    for (g, tiles) in groups.iter().enumerate() {
        prefetch(tiles[0].as_ptr().wrapping_add(PREFETCH_BYTES));
        prefetch(tiles[1].as_ptr().wrapping_add(PREFETCH_BYTES));
        let scale = chunk.scale_bytes(g);
        // SAFETY: row i of M, 16 bytes of each of at most stride / 16 groups (asserted above); 16 bytes within a tile. The CPU has
        // what `D` needs, as the caller vouches.
        unsafe {
            let mut x = [vdupq_n_s8(0); M];
            for i in 0..M {
                x[i] = vld1q_s8(q.as_ptr().add(i * stride + GROUP * g));
            }
            for n in 0..4 {
                let a = vld1q_u8(tiles[0].as_ptr().add(16 * n));
                let b = vld1q_u8(tiles[1].as_ptr().add(16 * n));
                let low = |v| vreinterpretq_s8_u8(vandq_u8(v, vdupq_n_u8(15)));
                let high = |v| vreinterpretq_s8_u8(vshrq_n_u8::<4>(v));
                let w = [low(a), high(a), low(b), high(b)];
                let scale = vreinterpretq_s32_u8(vqtbl1q_u8(scale, vld1q_u8(TO_LANES[n].as_ptr())));
                for i in 0..M {
                    // Loaded each time, from where loads are free: a copy would take one of the two vector units.
                    let start = std::ptr::read_volatile(&raw const starts[i].get_unchecked(g).0);
                    let sum = D::dot::<0>(start, w[0], x[i]);
                    let sum = D::dot::<1>(sum, w[1], x[i]);
                    let sum = D::dot::<2>(sum, w[2], x[i]);
                    let sum = D::dot::<3>(sum, w[3], x[i]);
                    totals[i][n] = vmlaq_s32(totals[i][n], sum, scale);
                }
            }
        }
    }
    totals
}
