//! How int4 lies packed: its nibbles, and the scales of its groups.

use std::arch::x86_64::*;

use super::super::packed::{GROUP_TILES, PackedChunk};
use crate::layout::TILE_BYTES;

/// For both halves of a stripe's outputs: see [`spread`].
const SPREAD: [[u8; 32]; 2] = [spread(0), spread(8)];

/// Indices that spread bytes `first..first + 8` over eight lanes, for a shuffle of each of two copies of 16 bytes.
const fn spread(first: u8) -> [u8; 32] {
    let mut index = [0; 32];
    let mut i = 0;
    while i < 32 {
        index[i] = first + (i / 4) as u8;
        i += 1;
    }
    index
}

/// The scales of group `g` and of the one that it shares bytes with, eight outputs from `8 · n` on: each output's byte,
/// the even group's scale in its low half, in all four bytes of its lane.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn pair_of_scales(chunk: &PackedChunk<'_>, g: usize, n: usize) -> __m256i {
    // SAFETY: 16 bytes of an array of 16, 32 of one of 32; the CPU has AVX2, as the caller vouches.
    unsafe {
        let pair = _mm_loadu_si128(chunk.group_scales[g / 2].as_ptr().cast());
        let spread = _mm256_loadu_si256(SPREAD[n].as_ptr().cast());
        _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(pair), spread)
    }
}

/// The scales of group `g`, eight outputs from `8 · n` on: each in all four bytes of its lane.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn group_scales(chunk: &PackedChunk<'_>, g: usize, n: usize) -> __m256i {
    // SAFETY: registers only; the CPU has AVX2, as the caller vouches.
    unsafe {
        let pair = pair_of_scales(chunk, g, n);
        let scales = if g.is_multiple_of(2) { pair } else { _mm256_srli_epi16::<4>(pair) };
        _mm256_and_si256(scales, _mm256_set1_epi8(15))
    }
}

/// The nibbles of a group, eight outputs from `8 · n` on: a register for every four k.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn nibbles(tiles: &[[u8; TILE_BYTES]; 2], n: usize) -> [__m256i; GROUP_TILES] {
    const { assert!(GROUP_TILES == 4, "two packed tiles are a group") };
    // SAFETY: 32 bytes within tiles; the CPU has AVX2, as the caller vouches.
    unsafe {
        let low = _mm256_set1_epi8(15);
        let a = _mm256_loadu_si256(tiles[0].as_ptr().add(32 * n).cast());
        let b = _mm256_loadu_si256(tiles[1].as_ptr().add(32 * n).cast());
        [
            _mm256_and_si256(a, low),
            _mm256_and_si256(_mm256_srli_epi16::<4>(a), low),
            _mm256_and_si256(b, low),
            _mm256_and_si256(_mm256_srli_epi16::<4>(b), low),
        ]
    }
}
