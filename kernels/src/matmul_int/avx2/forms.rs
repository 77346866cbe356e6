//! What many rows are multiplied with, and as what: [`Bytes`] for `vpdpbusd`; [`Words`] (int8) and [`Nibbles`] (int4)
//! for AVX2.

use std::arch::x86_64::*;
use std::marker::PhantomData;

use super::super::PanelScratch;
use super::super::packed::{GROUP_TILES, PackedChunk};
use super::nibbles::{group_scales, nibbles};
use super::{BLOCK_ROWS, Dots};
use crate::layout::{CHUNK_MAX, GROUP, LANES, TILE_BYTES, WeightFormat};

/// Bytes of scratch for a chunk of a stripe, if `STRIPES` of them are unpacked together.
pub(super) const fn room(stripes: usize) -> usize {
    size_of::<PanelScratch>() / stripes
}

/// A chunk of the rows of a block, in the form that is multiplied.
#[repr(align(32))]
pub(super) struct Prepared([[u8; 2 * CHUNK_MAX]; BLOCK_ROWS]);

impl Prepared {
    /// Zeros.
    pub fn new() -> Self {
        Self([[0; 2 * CHUNK_MAX]; BLOCK_ROWS])
    }
}

/// `M` rows: row `i` begins `i · stride` behind the first.
#[derive(Clone, Copy)]
pub(super) struct RowBytes<const M: usize> {
    at: *const u8,
    stride: usize,
}

impl<const M: usize> RowBytes<M> {
    /// Bytes `4·t..4·t + 4` of row `i`, eight times.
    ///
    /// # Safety
    /// The row is at least so long, and `i` below `M`. The CPU has AVX2.
    #[inline(always)]
    unsafe fn four(&self, i: usize, t: usize) -> __m256i {
        // SAFETY: by the caller's promise.
        unsafe { _mm256_set1_epi32(self.at.add(i * self.stride + 4 * t).cast::<i32>().read_unaligned()) }
    }
}

/// A form of weights and rows.
///
/// # Safety
/// Of all methods: the CPU has what the implementor names, and AVX2 and FMA.
pub(super) trait Form {
    /// So many stripes' chunks fit the scratch.
    const STRIPES: usize;

    /// Writes a chunk of a stripe.
    unsafe fn unpack(format: WeightFormat, chunk: PackedChunk<'_>, out: &mut [u8]);

    /// A chunk of `M` rows, of `stride` bytes each, for a chunk of `tiles` tiles.
    unsafe fn rows<const M: usize>(q: &[i8], stride: usize, tiles: usize, room: &mut Prepared)
    -> RowBytes<M>;

    /// The sums of a chunk of `tiles` tiles; `sums[i]` is that of what row `i` has in this chunk.
    ///
    /// Also: `x` has rows of `tiles` tiles, by [`Form::rows`].
    unsafe fn sums<const M: usize>(
        w: &[u8],
        tiles: usize,
        x: RowBytes<M>,
        sums: [i32; M],
    ) -> [[__m256i; 2]; M];
}

/// How registers of eight weights are multiplied with four bytes of a row.
///
/// # Safety
/// As [`Form`]'s.
trait Step {
    /// `acc + w · x`
    unsafe fn step(acc: __m256i, w: __m256i, x: __m256i) -> __m256i;
}

/// `steps` steps through tiles of sixteen outputs and rows of four bytes each, from `starts` on.
///
/// # Safety
/// Rows have `4 · steps` bytes. The CPU has what `S` names, and AVX2.
#[inline(always)]
unsafe fn walk<S: Step, const M: usize>(
    w: &[u8],
    steps: usize,
    x: RowBytes<M>,
    starts: [i32; M],
) -> [[__m256i; 2]; M] {
    let tiles = &w.as_chunks::<TILE_BYTES>().0[..steps];
    // SAFETY: by the caller's promise; 32 bytes within a tile.
    unsafe {
        let mut sums = [[_mm256_setzero_si256(); 2]; M];
        for i in 0..M {
            sums[i] = [_mm256_set1_epi32(starts[i]); 2];
        }
        for (t, tile) in tiles.iter().enumerate() {
            let mut w = [_mm256_setzero_si256(); 2];
            for n in 0..2 {
                w[n] = _mm256_loadu_si256(tile.as_ptr().add(32 * n).cast());
            }
            for i in 0..M {
                let x = x.four(i, t);
                for n in 0..2 {
                    sums[i][n] = S::step(sums[i][n], w[n], x);
                }
            }
        }
        sums
    }
}

/// For `vpdpbusd`: both formats as bytes `weight + 128`, and rows as they are.
pub(super) struct Bytes<D>(PhantomData<D>);

impl<D: Dots> Step for Bytes<D> {
    #[inline(always)]
    unsafe fn step(acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        // SAFETY: by the caller's promise.
        unsafe { D::dot(acc, [w, w], x) }
    }
}

impl<D: Dots> Form for Bytes<D> {
    const STRIPES: usize = 4;

    #[inline(always)]
    unsafe fn unpack(format: WeightFormat, chunk: PackedChunk<'_>, out: &mut [u8]) {
        let out = out.as_chunks_mut::<TILE_BYTES>().0;
        // SAFETY: by the caller's promise; 32 bytes within tiles.
        unsafe {
            let high = _mm256_set1_epi8(-128);
            if format == WeightFormat::Int8 {
                for (tile, out) in chunk.tiles.iter().zip(&mut *out) {
                    for n in 0..2 {
                        let w = _mm256_loadu_si256(tile.as_ptr().add(32 * n).cast());
                        _mm256_storeu_si256(out.as_mut_ptr().add(32 * n).cast(), _mm256_xor_si256(w, high));
                    }
                }
                return;
            }
            let groups = chunk.tiles.as_chunks::<2>().0.iter().zip(out.as_chunks_mut::<GROUP_TILES>().0);
            for (g, (tiles, out)) in groups.enumerate() {
                for n in 0..2 {
                    let scales = group_scales(&chunk, g, n);
                    // A 16-bit product is that of both bytes, since 15 · 15 has no carry. With it
                    // `weight + 128 = nibble · scale + (128 - 8 · scale)`.
                    let factor = _mm256_and_si256(scales, _mm256_set1_epi16(0xFF));
                    let shift = _mm256_sub_epi8(high, _mm256_slli_epi16::<3>(scales));
                    let nibbles = nibbles(tiles, n);
                    for (t, out) in out.iter_mut().enumerate() {
                        let w = _mm256_add_epi8(_mm256_mullo_epi16(nibbles[t], factor), shift);
                        _mm256_storeu_si256(out.as_mut_ptr().add(32 * n).cast(), w);
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn rows<const M: usize>(q: &[i8], stride: usize, tiles: usize, _: &mut Prepared) -> RowBytes<M> {
        assert!(q.len() == M * stride && 4 * tiles <= stride);
        RowBytes { at: q.as_ptr().cast(), stride }
    }

    #[inline(always)]
    unsafe fn sums<const M: usize>(
        w: &[u8],
        tiles: usize,
        x: RowBytes<M>,
        sums: [i32; M],
    ) -> [[__m256i; 2]; M] {
        // SAFETY: by the caller's promise.
        unsafe { walk::<Self, M>(w, tiles, x, sums.map(D::start)) }
    }
}

/// For AVX2, int8: weights and rows as 16-bit numbers, of which `vpmaddwd` multiplies two and two.
pub(super) struct Words;

impl Step for Words {
    #[inline(always)]
    unsafe fn step(acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        // SAFETY: by the caller's promise.
        unsafe { multiply_words(acc, w, x) }
    }
}

/// `acc + w · x`, two products of 16-bit numbers a lane.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn multiply_words(acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
    // SAFETY: by the caller's promise.
    unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(w, x)) }
}

impl Form for Words {
    const STRIPES: usize = 2;

    #[inline(always)]
    unsafe fn unpack(_: WeightFormat, chunk: PackedChunk<'_>, out: &mut [u8]) {
        let out = out.as_chunks_mut::<TILE_BYTES>().0.as_chunks_mut::<2>().0;
        for (tile, out) in chunk.tiles.iter().zip(out) {
            for n in 0..2 {
                // SAFETY: by the caller's promise; 32 bytes within tiles.
                unsafe {
                    let w = _mm256_loadu_si256(tile.as_ptr().add(32 * n).cast());
                    // Of four bytes the first two, and the last two: each to the high half of its 16 bits.
                    let first = _mm256_unpacklo_epi8(_mm256_setzero_si256(), w);
                    let last = _mm256_unpackhi_epi8(_mm256_setzero_si256(), w);
                    // Quarters of outputs 0, 1 | 4, 5 and 2, 3 | 6, 7, all four k of each.
                    let (a, b) = (_mm256_srai_epi16::<8>(first), _mm256_srai_epi16::<8>(last));
                    let even = _mm256_castps_si256(_mm256_shuffle_ps::<0b10_00_10_00>(
                        _mm256_castsi256_ps(a),
                        _mm256_castsi256_ps(b),
                    ));
                    let odd = _mm256_castps_si256(_mm256_shuffle_ps::<0b11_01_11_01>(
                        _mm256_castsi256_ps(a),
                        _mm256_castsi256_ps(b),
                    ));
                    _mm256_storeu_si256(out[0].as_mut_ptr().add(32 * n).cast(), even);
                    _mm256_storeu_si256(out[1].as_mut_ptr().add(32 * n).cast(), odd);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn rows<const M: usize>(
        q: &[i8],
        stride: usize,
        tiles: usize,
        room: &mut Prepared,
    ) -> RowBytes<M> {
        assert!(q.len() == M * stride && 4 * tiles <= stride && stride <= CHUNK_MAX);
        for (q, out) in q.chunks_exact(stride).zip(&mut room.0) {
            // Whole sixteens: a chunk is that long, if not its tiles.
            for (q, out) in q.as_chunks::<16>().0.iter().zip(out.as_chunks_mut::<32>().0) {
                // SAFETY: by the caller's promise; 16 bytes of an array of 16, 32 of one of 32.
                unsafe {
                    let words = _mm256_cvtepi8_epi16(_mm_loadu_si128(q.as_ptr().cast()));
                    _mm256_storeu_si256(out.as_mut_ptr().cast(), words);
                }
            }
        }
        RowBytes { at: room.0.as_ptr().cast(), stride: size_of_val(&room.0[0]) }
    }

    #[inline(always)]
    unsafe fn sums<const M: usize>(w: &[u8], tiles: usize, x: RowBytes<M>, _: [i32; M]) -> [[__m256i; 2]; M] {
        // SAFETY: by the caller's promise; rows have twice as many bytes as the chunk.
        unsafe { walk::<Self, M>(w, 2 * tiles, x, [0; M]) }
    }
}

/// For AVX2, int4: weights as bytes `nibble - 8`, with the scales of their groups in 16 bits, and rows as bytes `x +
/// 128`. Eight products of a half lane are at most 8 · 8 · 255, which fits 16 bits; one `vpmaddwd` both widens a
/// group's sum and multiplies it with its scale.
pub(super) struct Nibbles;

impl Nibbles {
    /// Behind the weights: the scales.
    const SCALES: usize = CHUNK_MAX * LANES;
    /// Behind the scales: what all sums start at, `-128 · Σ weight`.
    const STARTS: usize = Self::SCALES + CHUNK_MAX / GROUP * TILE_BYTES;
}

const _: () = assert!(Nibbles::STARTS + TILE_BYTES <= room(Nibbles::STRIPES));

impl Form for Nibbles {
    const STRIPES: usize = 2;

    #[inline(always)]
    unsafe fn unpack(_: WeightFormat, chunk: PackedChunk<'_>, out: &mut [u8]) {
        let (weights, rest) = out.split_at_mut(Self::SCALES);
        let (scales, starts) = rest.split_at_mut(Self::STARTS - Self::SCALES);
        let weights = weights.as_chunks_mut::<TILE_BYTES>().0.as_chunks_mut::<GROUP_TILES>().0;
        let scales = scales.as_chunks_mut::<TILE_BYTES>().0;
        let starts = starts.first_chunk_mut::<TILE_BYTES>().expect("room for them");
        // SAFETY: by the caller's promise; 32 bytes within arrays of 64.
        unsafe {
            for n in 0..2 {
                let mut total = _mm256_setzero_si256();
                let groups = chunk.tiles.as_chunks::<2>().0.iter();
                let outs = weights.iter_mut().zip(&mut *scales);
                for (g, (tiles, (out, scale_out))) in groups.zip(outs).enumerate() {
                    let scale = _mm256_and_si256(group_scales(&chunk, g, n), _mm256_set1_epi32(0x000F_000F));
                    _mm256_storeu_si256(scale_out.as_mut_ptr().add(32 * n).cast(), scale);
                    let mut sum = _mm256_setzero_si256();
                    let nibbles = nibbles(tiles, n);
                    for (t, out) in out.iter_mut().enumerate() {
                        let w = _mm256_sub_epi8(nibbles[t], _mm256_set1_epi8(8));
                        _mm256_storeu_si256(out.as_mut_ptr().add(32 * n).cast(), w);
                        sum = _mm256_add_epi8(sum, w);
                    }
                    let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), sum);
                    total = _mm256_add_epi32(total, _mm256_madd_epi16(pairs, scale));
                }
                let start = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32::<7>(total));
                _mm256_storeu_si256(starts.as_mut_ptr().add(32 * n).cast(), start);
            }
        }
    }

    #[inline(always)]
    unsafe fn rows<const M: usize>(
        q: &[i8],
        stride: usize,
        tiles: usize,
        room: &mut Prepared,
    ) -> RowBytes<M> {
        assert!(q.len() == M * stride && 4 * tiles <= stride && stride <= CHUNK_MAX);
        for (q, out) in q.chunks_exact(stride).zip(&mut room.0) {
            for (q, out) in q.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<32>().0) {
                // SAFETY: by the caller's promise; 32 bytes of arrays of 32.
                unsafe {
                    let bytes = _mm256_loadu_si256(q.as_ptr().cast());
                    let bytes = _mm256_xor_si256(bytes, _mm256_set1_epi8(-128));
                    _mm256_storeu_si256(out.as_mut_ptr().cast(), bytes);
                }
            }
        }
        RowBytes { at: room.0.as_ptr().cast(), stride: size_of_val(&room.0[0]) }
    }

    /// Eight outputs after the other: so the sums of six rows and of their groups fit the registers.
    #[inline(always)]
    unsafe fn sums<const M: usize>(w: &[u8], tiles: usize, x: RowBytes<M>, _: [i32; M]) -> [[__m256i; 2]; M] {
        let (weights, rest) = w.split_at(Self::SCALES);
        let (scales, starts) = rest.split_at(Self::STARTS - Self::SCALES);
        let groups = &weights.as_chunks::<TILE_BYTES>().0.as_chunks::<GROUP_TILES>().0[..tiles / GROUP_TILES];
        let scales = scales.as_chunks::<TILE_BYTES>().0;
        let starts = starts.first_chunk::<TILE_BYTES>().expect("room for them");
        // SAFETY: by the caller's promise; 32 bytes within arrays of 64.
        unsafe {
            let mut totals = [[_mm256_setzero_si256(); 2]; M];
            for n in 0..2 {
                let start = _mm256_loadu_si256(starts.as_ptr().add(32 * n).cast());
                let mut of_rows = [start; M];
                for (g, (tiles, scale)) in groups.iter().zip(scales).enumerate() {
                    let mut sums = [_mm256_setzero_si256(); M];
                    for (t, tile) in tiles.iter().enumerate() {
                        let w = _mm256_loadu_si256(tile.as_ptr().add(32 * n).cast());
                        for i in 0..M {
                            let products = _mm256_maddubs_epi16(x.four(i, GROUP_TILES * g + t), w);
                            sums[i] = if t == 0 { products } else { _mm256_add_epi16(sums[i], products) };
                        }
                    }
                    let scale = _mm256_loadu_si256(scale.as_ptr().add(32 * n).cast());
                    for i in 0..M {
                        of_rows[i] = _mm256_add_epi32(of_rows[i], _mm256_madd_epi16(sums[i], scale));
                    }
                }
                for i in 0..M {
                    totals[i][n] = of_rows[i];
                }
            }
            totals
        }
    }
}
