//! What a tile or a group of packed weights adds to the sums of a few rows.
//!
//! int8 goes through `vpdpbusd`, or `vpmaddubsw` with signs moved so that nothing saturates. int4 multiplies nibbles,
//! group by group: sixteen products fit 16 bits, and one `vpmaddwd` both widens their sum and multiplies it with the
//! group's scale.

use std::arch::x86_64::*;

use super::super::packed::{GROUP_TILES, PackedChunk};
use super::Dots;
use super::nibbles::{nibbles, pair_of_scales};
use crate::activations::QuantizedRows;
use crate::layout::{CHUNK_MAX, GROUP, TILE_BYTES, WeightFormat};

/// What the sums of a row's groups in a chunk start at; int8 has one sum, the first.
pub(super) type Starts = [i32; CHUNK_MAX / GROUP];

/// Of chunk `c` of rows from `m` on.
///
/// # Safety
/// The CPU has what `D` names, and AVX2 and FMA.
#[inline(always)]
pub(super) unsafe fn make_starts<D: Dots>(
    format: WeightFormat,
    x: &QuantizedRows<'_>,
    c: usize,
    m: usize,
    starts: &mut [Starts],
) {
    for (i, starts) in starts.iter_mut().enumerate() {
        if format == WeightFormat::Int8 {
            starts[0] = D::start(x.sum(c, m + i));
            continue;
        }
        for (x, start) in x.q(c, m + i).as_chunks::<GROUP>().0.iter().zip(starts) {
            // SAFETY: 16 bytes are read from an array of 16; the CPU has AVX2, as the caller vouches.
            let sum = unsafe {
                let x = _mm_loadu_si128(x.as_ptr().cast());
                let x = _mm_madd_epi16(_mm_maddubs_epi16(_mm_set1_epi8(8), x), _mm_set1_epi16(-1));
                let x = _mm_add_epi32(x, _mm_shuffle_epi32::<0b01_00_11_10>(x));
                _mm_cvtsi128_si32(_mm_add_epi32(x, _mm_shuffle_epi32::<0b10_11_00_01>(x)))
            };
            *start = sum & D::START_MASK;
        }
    }
}

/// A chunk of `M` rows.
pub(super) struct Rows<'a, const M: usize> {
    /// All of them, one behind the other.
    q: &'a [i8],
    /// Bytes of each.
    stride: usize,
}

impl<'a, const M: usize> Rows<'a, M> {
    /// Chunk `c` of rows from `m` on.
    #[inline(always)]
    pub fn new(x: &QuantizedRows<'a>, c: usize, m: usize) -> Self {
        Self { q: x.q_rows(c, m, M), stride: x.chunk() }
    }

    /// Panics unless rows have four bytes for each of so many tiles, and a chunk's at most.
    #[inline(always)]
    pub fn check(&self, tiles: usize) {
        assert!(4 * tiles <= self.stride && self.stride <= CHUNK_MAX && self.q.len() == M * self.stride);
    }

    /// Adds the products of tile `t`.
    ///
    /// # Safety
    /// Rows have `4 · t + 4` bytes and more. The CPU has what `D` names, and AVX2 and FMA.
    #[inline(always)]
    pub unsafe fn int8_tile<D: Dots>(&self, tile: &[u8; TILE_BYTES], t: usize, sums: &mut [[__m256i; 2]; M]) {
        // SAFETY: by the caller's promise; 32 bytes within a tile, 4 of row i of M.
        unsafe {
            let mut w = [[_mm256_setzero_si256(); 2]; 2];
            for n in 0..2 {
                w[n] = D::weights(_mm256_loadu_si256(tile.as_ptr().add(32 * n).cast()));
            }
            for i in 0..M {
                let x = self.q.as_ptr().add(i * self.stride + 4 * t).cast::<i32>().read_unaligned();
                for n in 0..2 {
                    sums[i][n] = D::dot(sums[i][n], w[n], _mm256_set1_epi32(x));
                }
            }
        }
    }

    /// Adds the products of group `g`, an even one, and of the one behind it, if there are two: they share their bytes
    /// of scales. Eight outputs from `8 · n` on.
    ///
    /// # Safety
    /// Rows have 16 bytes for each of the groups up to these, which are below the number of starts. The CPU has what
    /// `D` names, and AVX2 and FMA.
    #[inline(always)]
    pub unsafe fn int4_two_groups<D: Dots>(
        &self,
        chunk: &PackedChunk<'_>,
        groups: &[[[u8; TILE_BYTES]; 2]],
        n: usize,
        g: usize,
        starts: &[Starts; M],
        sums: &mut [__m256i; M],
    ) {
        // SAFETY: by the caller's promise.
        unsafe {
            let mask = _mm256_set1_epi32(D::SCALE_MASK);
            let pair = pair_of_scales(chunk, g, n);
            self.int4_group::<D>(&groups[0], n, g, _mm256_and_si256(pair, mask), starts, sums);
            if let Some(group) = groups.get(1) {
                let scale = _mm256_and_si256(_mm256_srli_epi16::<4>(pair), mask);
                self.int4_group::<D>(group, n, g + 1, scale, starts, sums);
            }
        }
    }

    /// Adds the products of group `g`, eight outputs from `8 · n` on.
    ///
    /// # Safety
    /// Rows have `16 · g + 16` bytes and more, and `g` is below the number of starts. The CPU has what `D` names, and
    /// AVX2 and FMA.
    #[inline(always)]
    unsafe fn int4_group<D: Dots>(
        &self,
        tiles: &[[u8; TILE_BYTES]; 2],
        n: usize,
        g: usize,
        scale: __m256i,
        starts: &[Starts; M],
        sums: &mut [__m256i; M],
    ) {
        // SAFETY: by the caller's promise; 16 bytes of row i of M.
        unsafe {
            let w = nibbles(tiles, n);
            for i in 0..M {
                let x = self.q.as_ptr().add(i * self.stride + GROUP * g).cast::<i32>();
                let mut sum = _mm256_set1_epi32(starts[i][g]);
                for t in 0..GROUP_TILES {
                    sum = D::dot_nibbles(sum, w[t], _mm256_set1_epi32(x.add(t).read_unaligned()));
                }
                sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(sum, scale));
            }
        }
    }
}
