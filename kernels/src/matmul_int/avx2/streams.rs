//! One row, and up to four of int8: packed weights are read where they lie, the stripes of a panel side by side, each a
//! stream that is fetched ahead into the second-level cache.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::PANEL;
use super::super::packed::{GROUP_TILES, PackedChunk, StreamAhead, prefetch, prefetch_second_level};
use super::few_rows::{Starts, make_starts};
use super::nibbles::{nibbles, pair_of_scales};
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
        let rows = Rows::<M> { q: x.q_rows(c, m, M), stride: x.chunk() };
        // SAFETY: as this function's.
        unsafe {
            make_starts::<D>(layout.format, x, c, m, &mut starts);
            // More rows than one are int8's.
            let sums = match M == 1 && is_int4 {
                true => rows.int4::<D, S>(&chunks, &starts, &ahead),
                false => rows.int8::<D, S>(&chunks, &starts, &ahead),
            };
            for i in 0..S {
                let scales = scales(stripes[i], c);
                for r in 0..M {
                    let out = &mut out[r].as_chunks_mut().0[j + i];
                    accumulate(sums[r][i], x.scale(c, m + r), scales, c == 0, out);
                }
            }
        }
    }
}

/// Sums of `M` rows and `S` stripes.
type Sums<const M: usize, const S: usize> = [[[__m256i; 2]; S]; M];

/// A chunk of some rows.
struct Rows<'a, const M: usize> {
    q: &'a [i8],
    stride: usize,
}

impl<const M: usize> Rows<'_, M> {
    /// Four bytes from `4 · t` on of row `r`, eight times.
    ///
    /// # Safety
    /// The row has them. The CPU has AVX2.
    #[inline(always)]
    unsafe fn four(&self, r: usize, t: usize) -> __m256i {
        // SAFETY: by the caller's promise.
        unsafe {
            _mm256_set1_epi32(self.q.as_ptr().add(r * self.stride + 4 * t).cast::<i32>().read_unaligned())
        }
    }

    /// The sums of a chunk of int8.
    ///
    /// # Safety
    /// The CPU has what `D` names, and AVX2 and FMA.
    #[inline(always)]
    unsafe fn int8<D: Dots, const S: usize>(
        &self,
        chunks: &[PackedChunk<'_>; S],
        starts: &[Starts; M],
        ahead: &StreamAhead,
    ) -> Sums<M, S> {
        let tiles = chunks[0].tiles.len();
        assert!(4 * tiles <= self.stride && self.q.len() == M * self.stride);
        // SAFETY: the CPU has what `D` needs, as the caller vouches; 32 bytes lie within a tile, and rows have 4 for each
        // of them (asserted above).
        unsafe {
            let mut sums = [[[_mm256_setzero_si256(); 2]; S]; M];
            for r in 0..M {
                sums[r] = [[_mm256_set1_epi32(starts[r][0]); 2]; S];
            }
            for t in 0..tiles {
                for i in 0..S {
                    let tile = &chunks[i].tiles[t];
                    prefetch_second_level(ahead.tile(tile, t));
                    for n in 0..2 {
                        let w = D::weights(_mm256_loadu_si256(tile.as_ptr().add(32 * n).cast()));
                        for r in 0..M {
                            sums[r][i][n] = D::dot(sums[r][i][n], w, self.four(r, t));
                        }
                    }
                }
            }
            sums
        }
    }

    /// The sums of a chunk of int4: see [`few_rows`](super::few_rows).
    ///
    /// # Safety
    /// The CPU has what `D` names, and AVX2 and FMA.
    #[inline(always)]
    unsafe fn int4<D: Dots, const S: usize>(
        &self,
        chunks: &[PackedChunk<'_>; S],
        starts: &[Starts; M],
        ahead: &StreamAhead,
    ) -> Sums<M, S> {
        let groups = chunks[0].tiles.len() / 2;
        assert!(groups * GROUP <= self.stride && self.stride <= CHUNK_MAX);
        assert!(self.q.len() == M * self.stride);
        // SAFETY: the CPU has what `D` needs, as the caller vouches; rows have 16 bytes for each group (asserted above).
        unsafe {
            let mut sums = [[[_mm256_setzero_si256(); 2]; S]; M];
            let mask = _mm256_set1_epi32(D::SCALE_MASK);
            // Two groups share their bytes of scales.
            for first in (0..groups).step_by(2) {
                for i in 0..S {
                    let tiles = &chunks[i].tiles[2 * first..2 * groups.min(first + 2)];
                    for (t, tile) in tiles.iter().enumerate() {
                        prefetch_second_level(ahead.tile(tile, 2 * first + t));
                    }
                    for n in 0..2 {
                        let scales = pair_of_scales(&chunks[i], first, n);
                        for (g, tiles) in (first..).zip(tiles.as_chunks::<2>().0) {
                            let scale = if g == first { scales } else { _mm256_srli_epi16::<4>(scales) };
                            let scale = _mm256_and_si256(scale, mask);
                            let w = nibbles(tiles, n);
                            for r in 0..M {
                                let mut sum = _mm256_set1_epi32(starts[r][g]);
                                for t in 0..GROUP_TILES {
                                    sum = D::dot_nibbles(sum, w[t], self.four(r, GROUP_TILES * g + t));
                                }
                                let sums = &mut sums[r][i][n];
                                *sums = _mm256_add_epi32(*sums, _mm256_madd_epi16(sum, scale));
                            }
                        }
                    }
                }
            }
            sums
        }
    }
}
