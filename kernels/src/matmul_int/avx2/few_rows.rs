//! Few rows: packed weights are read where they lie, chunk by chunk, the stripes of a panel in turn, and the panel's
//! next chunk is fetched meanwhile.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::PANEL;
use super::super::packed::{GROUP_TILES, NextChunk, PIECE, PackedChunk};
use super::rows::{Rows, Starts, make_starts};
use super::{BLOCK_ROWS, Dots, FEW_ROWS, accumulate, scales};
use crate::activations::QuantizedRows;
use crate::layout::{CHUNK_MAX, GROUP, PackedMatrix, WeightFormat};

/// Rows from `m` on, as many as `out` has, at least two: fewer stream. What they need for a chunk is made once for all
/// stripes.
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
    let (rows, blocks) = (out.len(), out.len().div_ceil(BLOCK_ROWS));
    let mut starts = [[0; CHUNK_MAX / GROUP]; FEW_ROWS];
    for c in 0..x.chunks() {
        // SAFETY: as this function's.
        unsafe { make_starts::<D>(w.layout().format, x, c, m, &mut starts[..rows]) };
        let next = NextChunk::new(w, &stripes, c);
        let tiles = PackedChunk::new(w, w.stripe(stripes.start), c).tiles.len();
        for (j, s) in stripes.clone().enumerate() {
            for b in 0..blocks {
                let part = b * rows / blocks..(b + 1) * rows / blocks;
                let chunk = Chunk { w, s, j, x, c, next: next.part(j, tiles, b, blocks) };
                let (m, starts, out) = (m + part.start, &starts[part.clone()], &mut out[part]);
                // SAFETY: as this function's.
                unsafe {
                    match out.len() {
                        2 => chunk.block::<D, 2>(m, starts, out),
                        3 => chunk.block::<D, 3>(m, starts, out),
                        4 => chunk.block::<D, 4>(m, starts, out),
                        5 => chunk.block::<D, 5>(m, starts, out),
                        _ => chunk.block::<D, BLOCK_ROWS>(m, starts, out),
                    }
                }
            }
        }
    }
}

/// A chunk of stripe `s`, number `j` of the panel.
struct Chunk<'a> {
    w: &'a PackedMatrix<'a>,
    s: usize,
    j: usize,
    x: &'a QuantizedRows<'a>,
    c: usize,
    /// What is to be fetched meanwhile.
    next: NextChunk,
}

impl Chunk<'_> {
    /// Rows from `m` on.
    ///
    /// # Safety
    /// The CPU has what `D` names, and AVX2 and FMA.
    #[inline(always)]
    unsafe fn block<D: Dots, const M: usize>(&self, m: usize, starts: &[Starts], out: &mut [[f32; PANEL]]) {
        let &Self { w, s, j, x, c, next } = self;
        let starts = starts.first_chunk::<M>().expect("M rows");
        let out = out.first_chunk_mut::<M>().expect("M rows");
        let rows = Rows::<M>::new(x, c, m);
        let stripe = w.stripe(s);
        let chunk = PackedChunk::new(w, stripe, c);
        // SAFETY: as this function's.
        unsafe {
            let sums = if w.layout().format == WeightFormat::Int8 {
                rows.int8::<D>(chunk, starts, next)
            } else {
                rows.int4::<D>(chunk, starts, next)
            };
            let scales = scales(stripe, c);
            for i in 0..M {
                accumulate(sums[i], x.scale(c, m + i), scales, c == 0, &mut out[i].as_chunks_mut().0[j]);
            }
        }
    }
}

impl<const M: usize> Rows<'_, M> {
    /// The sums of a chunk of int8.
    ///
    /// # Safety
    /// The CPU has what `D` names, and AVX2 and FMA.
    #[inline(always)]
    unsafe fn int8<D: Dots>(
        &self,
        chunk: PackedChunk<'_>,
        starts: &[Starts; M],
        next: NextChunk,
    ) -> [[__m256i; 2]; M] {
        /// Tiles from one sum to the other and back.
        const TURN: usize = 2;
        const { assert!(PIECE.is_multiple_of(TURN)) };
        self.check(chunk.tiles.len());
        // SAFETY: the CPU has what `D` needs, as the caller vouches; tile `t` is one of the chunk's, of which rows have at
        // most stride / 4 (asserted above).
        unsafe {
            // One or two rows have two sums in turn, so that one product need not wait for the one before.
            let second = usize::from(M <= 2);
            let mut sums = [[[_mm256_setzero_si256(); 2]; M]; TURN];
            for i in 0..M {
                sums[0][i] = [_mm256_set1_epi32(starts[i][0]); 2];
            }
            for (piece, tiles) in chunk.tiles.chunks(PIECE).enumerate() {
                let first = piece * PIECE;
                next.fetch(first..first + tiles.len());
                let (pairs, rest) = tiles.as_chunks::<TURN>();
                for (t, [a, b]) in (first..).step_by(TURN).zip(pairs) {
                    self.int8_tile::<D>(a, t, &mut sums[0]);
                    self.int8_tile::<D>(b, t + 1, &mut sums[second]);
                }
                for tile in rest {
                    self.int8_tile::<D>(tile, first + tiles.len() - 1, &mut sums[0]);
                }
            }
            let mut totals = sums[0];
            for i in 0..M {
                for n in 0..2 {
                    totals[i][n] = _mm256_add_epi32(totals[i][n], sums[1][i][n]);
                }
            }
            totals
        }
    }

    /// The sums of a chunk of int4, eight outputs after the other: so the sums of six rows and the weights of a group
    /// fit the registers.
    ///
    /// # Safety
    /// The CPU has what `D` names, and AVX2 and FMA.
    #[inline(always)]
    unsafe fn int4<D: Dots>(
        &self,
        chunk: PackedChunk<'_>,
        starts: &[Starts; M],
        next: NextChunk,
    ) -> [[__m256i; 2]; M] {
        const { assert!(PIECE.is_multiple_of(2), "two groups share their bytes of scales") };
        let groups = chunk.tiles.as_chunks::<2>().0;
        self.check(groups.len() * GROUP_TILES);
        // SAFETY: the CPU has what `D` needs, as the caller vouches; group `g` is one of the chunk's, of which rows have at
        // most stride / 16 (checked above).
        unsafe {
            let mut totals = [[_mm256_setzero_si256(); 2]; M];
            for n in 0..2 {
                let mut sums = [_mm256_setzero_si256(); M];
                let passed = n * groups.len();
                for (piece, groups) in groups.chunks(PIECE).enumerate() {
                    let first = piece * PIECE;
                    next.fetch(passed + first..passed + first + groups.len());
                    for (g, two) in (first..).step_by(2).zip(groups.chunks(2)) {
                        self.int4_two_groups::<D>(&chunk, two, n, g, starts, &mut sums);
                    }
                }
                for i in 0..M {
                    totals[i][n] = sums[i];
                }
            }
            totals
        }
    }
}
