//! One row, and up to four of int8: packed weights are read where they lie, the stripes of a panel side by side, each a
//! stream that is fetched ahead into the second-level cache.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::PANEL;
use super::super::packed::{GROUP_TILES, PackedChunk, StreamAhead, prefetch, prefetch_far};
use super::rows::{Rows, Starts, make_starts};
use super::{Dots, accumulate, scales};
use crate::activations::QuantizedRows;
use crate::layout::{CHUNK_MAX, GROUP, PackedMatrix, WeightFormat};

/// How far ahead of their use streams of int8 are fetched, all that are side by side together.
const INT8_AHEAD: usize = 4096;
/// The same of int4, half of whose bytes are multiplied in the same time.
const INT4_AHEAD: usize = 8192;

/// Up to so many rows stream.
pub(super) const fn rows_max(format: WeightFormat) -> usize {
    match format {
        WeightFormat::Int4 => 1,
        _ => 4,
    }
}

/// Rows from `m` on, as many as `out` has, at most [`rows_max`]; so many stripes side by side as leave registers for
/// their sums.
///
/// # Safety
/// The CPU has what `D` names, and AVX2 and FMA.
#[inline(always)]
pub(super) unsafe fn matmul<D: Dots>(
    w: &PackedMatrix<'_>,
    stripes: Range<usize>,
    x: &QuantizedRows<'_>,
    m: usize,
    out: &mut [[f32; PANEL]],
) {
    assert!(out.len() <= rows_max(w.layout().format));
    // SAFETY: as this function's.
    unsafe {
        match out.len() {
            0 => {}
            1 => matmul_rows::<D, 1, 4>(w, stripes, x, m, out),
            2 => matmul_rows::<D, 2, 2>(w, stripes, x, m, out),
            3 => matmul_rows::<D, 3, 1>(w, stripes, x, m, out),
            _ => matmul_rows::<D, 4, 1>(w, stripes, x, m, out),
        }
    }
}

/// `M` rows, `S` stripes side by side.
///
/// # Safety
/// The CPU has what `D` names, and AVX2 and FMA.
#[inline(always)]
unsafe fn matmul_rows<D: Dots, const M: usize, const S: usize>(
    w: &PackedMatrix<'_>,
    stripes: Range<usize>,
    x: &QuantizedRows<'_>,
    m: usize,
    out: &mut [[f32; PANEL]],
) {
    let out = out.first_chunk_mut::<M>().expect("M rows");
    let mut s = stripes.start;
    // SAFETY: as this function's.
    unsafe {
        while s + S <= stripes.end {
            side_by_side::<D, M, S>(w, s, x, m, s - stripes.start, out);
            s += S;
        }
        while s < stripes.end {
            side_by_side::<D, M, 1>(w, s, x, m, s - stripes.start, out);
            s += 1;
        }
    }
}

/// Stripes `s..s + S`, of which the first is number `j` of the panel.
///
/// # Safety
/// The CPU has what `D` names, and AVX2 and FMA.
#[inline(always)]
unsafe fn side_by_side<D: Dots, const M: usize, const S: usize>(
    w: &PackedMatrix<'_>,
    s: usize,
    x: &QuantizedRows<'_>,
    m: usize,
    j: usize,
    out: &mut [[f32; PANEL]; M],
) {
    let layout = w.layout();
    let mut stripes: [&[u8]; S] = [&[]; S];
    for i in 0..S {
        stripes[i] = w.stripe(s + i);
    }
    let is_int4 = layout.format == WeightFormat::Int4;
    let distance = if is_int4 { INT4_AHEAD } else { INT8_AHEAD };
    let mut starts: [Starts; M] = [[0; CHUNK_MAX / GROUP]; M];
    for c in 0..layout.chunks() {
        let ahead = StreamAhead::new(layout, c, S, distance / S);
        let mut chunks = [PackedChunk::new(w, stripes[0], c); S];
        for i in 0..S {
            chunks[i] = PackedChunk::new(w, stripes[i], c);
            for line in ahead.scales(stripes[i]) {
                prefetch(line);
            }
        }
        let rows = Rows::<M>::new(x, c, m);
        // SAFETY: as this function's.
        unsafe {
            make_starts::<D>(layout.format, x, c, m, &mut starts);
            // More rows than one are int8's.
            let sums = match M == 1 && is_int4 {
                true => rows.int4_side_by_side::<D, S>(&chunks, &starts, &ahead),
                false => rows.int8_side_by_side::<D, S>(&chunks, &starts, &ahead),
            };
            for i in 0..S {
                let scales = scales(stripes[i], c);
                for r in 0..M {
                    let out = &mut out[r].as_chunks_mut().0[j + i];
                    accumulate(sums[i][r], x.scale(c, m + r), scales, c == 0, out);
                }
            }
        }
    }
}

/// Sums of `S` stripes and `M` rows.
type Sums<const M: usize, const S: usize> = [[[__m256i; 2]; M]; S];

impl<const M: usize> Rows<'_, M> {
    /// The sums of a chunk of int8.
    ///
    /// # Safety
    /// The CPU has what `D` names, and AVX2 and FMA.
    #[inline(always)]
    unsafe fn int8_side_by_side<D: Dots, const S: usize>(
        &self,
        chunks: &[PackedChunk<'_>; S],
        starts: &[Starts; M],
        ahead: &StreamAhead,
    ) -> Sums<M, S> {
        let tiles = chunks[0].tiles.len();
        self.check(tiles);
        // SAFETY: the CPU has what `D` needs, as the caller vouches; rows have 4 bytes for each tile (checked above).
        unsafe {
            let mut sums = [[[_mm256_setzero_si256(); 2]; M]; S];
            for of_stripe in &mut sums {
                for r in 0..M {
                    of_stripe[r] = [_mm256_set1_epi32(starts[r][0]); 2];
                }
            }
            for t in 0..tiles {
                for i in 0..S {
                    let tile = &chunks[i].tiles[t];
                    prefetch_far(ahead.tile(tile, t));
                    self.int8_tile::<D>(tile, t, &mut sums[i]);
                }
            }
            sums
        }
    }

    /// The sums of a chunk of int4.
    ///
    /// # Safety
    /// The CPU has what `D` names, and AVX2 and FMA.
    #[inline(always)]
    unsafe fn int4_side_by_side<D: Dots, const S: usize>(
        &self,
        chunks: &[PackedChunk<'_>; S],
        starts: &[Starts; M],
        ahead: &StreamAhead,
    ) -> Sums<M, S> {
        let groups = chunks[0].tiles.len() / 2;
        self.check(groups * GROUP_TILES);
        // SAFETY: the CPU has what `D` needs, as the caller vouches; rows have 16 bytes for each group (checked above).
        unsafe {
            let mut halves = [[[_mm256_setzero_si256(); M]; 2]; S];
            for first in (0..groups).step_by(2) {
                for i in 0..S {
                    let tiles = &chunks[i].tiles[2 * first..2 * groups.min(first + 2)];
                    for (t, tile) in tiles.iter().enumerate() {
                        prefetch_far(ahead.tile(tile, 2 * first + t));
                    }
                    let two = tiles.as_chunks::<2>().0;
                    for n in 0..2 {
                        self.int4_two_groups::<D>(&chunks[i], two, n, first, starts, &mut halves[i][n]);
                    }
                }
            }
            let mut sums = [[[_mm256_setzero_si256(); 2]; M]; S];
            for i in 0..S {
                for r in 0..M {
                    sums[i][r] = [halves[i][0][r], halves[i][1][r]];
                }
            }
            sums
        }
    }
}
