//! Integer matrix products with AVX2, and with AVX-VNNI.
//!
//! Weights are read where they lie, packed, by up to six rows at once. int8 rows go through `vpdpbusd`, or `vpmaddubsw`
//! with signs moved so that nothing saturates. int4 multiplies nibbles, group by group: sixteen products fit 16 bits,
//! and one `vpmaddwd` both widens their sum and multiplies it with the group's scale.

use std::arch::x86_64::*;
use std::ops::Range;

use super::packed::{GROUP_TILES, PackedChunk, StreamAhead, check, scale_bytes};
use super::{PANEL, PanelScratch};
use crate::activations::QuantizedRows;
use crate::layout::{CHUNK_MAX, GROUP, LANES, PackedMatrix, WeightFormat};

/// Rows of a register block: 6 · 2 sums of int8, or 6 sums and 4 weights of int4.
const BLOCK_ROWS: usize = 6;
/// Up to so many rows leave memory the limit, and what they stream is fetched ahead.
const STREAM_ROWS: usize = 2;
/// How far ahead of its use a stream of packed weights is fetched.
const PREFETCH_BYTES: usize = 1024;

/// See [`super::MatmulInteger`].
///
/// # Safety
/// The CPU has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn matmul_integer(
    w: &PackedMatrix<'_>,
    stripes: Range<usize>,
    x: &QuantizedRows<'_>,
    rows: Range<usize>,
    _scratch: &mut PanelScratch,
    out: &mut [[f32; PANEL]],
) {
    // SAFETY: as this function's.
    unsafe { matmul::<Avx2>(w, stripes, x, rows, out) };
}

/// See [`super::MatmulInteger`].
///
/// # Safety
/// The CPU has AVX2, FMA and AVX-VNNI.
#[target_feature(enable = "avx2,fma,avxvnni")]
pub unsafe fn matmul_integer_vnni(
    w: &PackedMatrix<'_>,
    stripes: Range<usize>,
    x: &QuantizedRows<'_>,
    rows: Range<usize>,
    _scratch: &mut PanelScratch,
    out: &mut [[f32; PANEL]],
) {
    // SAFETY: as this function's.
    unsafe { matmul::<AvxVnni>(w, stripes, x, rows, out) };
}

/// A way to multiply bytes. Eight outputs are a register of weights, four k of a row are the same 32 bits eight times.
///
/// # Safety
/// Of all methods: the CPU has what the implementor names, and AVX2.
trait Dots: Copy {
    /// What multiplies a group's sum and makes 32 bits of it: its scale, in one or both of the halves of a lane.
    const SCALE_MASK: i32;

    /// What sums of int8 start at, where `sum` is that of the row's chunk.
    fn start(sum: i32) -> i32;

    /// What sums of a group of int4 start at, where `pairs` holds 8 times the sum of all `x[4·t]` and `x[4·t + 1]` in
    /// its low half, and of all `x[4·t + 2]` and `x[4·t + 3]` in its high half.
    fn group_start(pairs: [i16; 2]) -> i32;

    /// Eight weights of int8 in the form that `dot` multiplies.
    unsafe fn weights(w: __m256i) -> [__m256i; 2];

    /// `acc + Σ w · x`, four products a lane.
    unsafe fn dot(acc: __m256i, w: [__m256i; 2], x: __m256i) -> __m256i;

    /// `acc + Σ nibble · x`, four products a lane, in the form that the scale multiplies.
    unsafe fn dot_nibbles(acc: __m256i, w: __m256i, x: __m256i) -> __m256i;
}

/// Products in 16 bits.
#[derive(Clone, Copy)]
struct Avx2;

impl Dots for Avx2 {
    const SCALE_MASK: i32 = 0x000F_000F;

    #[inline(always)]
    fn start(_sum: i32) -> i32 {
        0
    }

    #[inline(always)]
    fn group_start([a, b]: [i16; 2]) -> i32 {
        i32::from(-a as u16) | i32::from(-b) << 16
    }

    /// The weights and their magnitudes.
    #[inline(always)]
    unsafe fn weights(w: __m256i) -> [__m256i; 2] {
        // SAFETY: by the caller's promise.
        unsafe { [w, _mm256_abs_epi8(w)] }
    }

    #[inline(always)]
    unsafe fn dot(acc: __m256i, [w, magnitude]: [__m256i; 2], x: __m256i) -> __m256i {
        // SAFETY: by the caller's promise. No byte of `x` is -128, so its sign can change, and two products are at most
        // 2 · 128 · 127, which fits an i16.
        unsafe {
            let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(x, w));
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }

    /// In 16 bits: eight products of a half lane are at most 8 · 15 · 127, and what they start at 8 · 8 · 127.
    #[inline(always)]
    unsafe fn dot_nibbles(acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        // SAFETY: by the caller's promise.
        unsafe { _mm256_add_epi16(acc, _mm256_maddubs_epi16(w, x)) }
    }
}

/// `vpdpbusd`
#[derive(Clone, Copy)]
struct AvxVnni;

impl Dots for AvxVnni {
    /// A group's sum fits 16 bits: 16 · 8 · 127.
    const SCALE_MASK: i32 = 0x0000_000F;

    /// Weights are made unsigned by adding 128.
    #[inline(always)]
    fn start(sum: i32) -> i32 {
        -128 * sum
    }

    #[inline(always)]
    fn group_start([a, b]: [i16; 2]) -> i32 {
        -(i32::from(a) + i32::from(b))
    }

    #[inline(always)]
    unsafe fn weights(w: __m256i) -> [__m256i; 2] {
        // SAFETY: by the caller's promise.
        unsafe { [_mm256_xor_si256(w, _mm256_set1_epi8(-128)); 2] }
    }

    #[inline(always)]
    unsafe fn dot(acc: __m256i, [w, _]: [__m256i; 2], x: __m256i) -> __m256i {
        // SAFETY: by the caller's promise.
        unsafe { _mm256_dpbusd_avx_epi32(acc, w, x) }
    }

    #[inline(always)]
    unsafe fn dot_nibbles(acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        // SAFETY: by the caller's promise.
        unsafe { _mm256_dpbusd_avx_epi32(acc, w, x) }
    }
}

/// # Safety
/// The CPU has what `D` names, and AVX2 and FMA.
#[inline(always)]
unsafe fn matmul<D: Dots>(
    w: &PackedMatrix<'_>,
    stripes: Range<usize>,
    x: &QuantizedRows<'_>,
    rows: Range<usize>,
    out: &mut [[f32; PANEL]],
) {
    check(w, &stripes, x, &rows);
    let out = &mut out[..rows.len()];
    if rows.len() <= BLOCK_ROWS {
        // Each stripe is read once, from its beginning to its end.
        for (j, s) in stripes.enumerate() {
            for c in 0..x.chunks() {
                // SAFETY: as this function's.
                unsafe { block_of::<D>(w, s..s + 1, j, x, c, rows.start, out) };
            }
        }
    } else {
        // A panel's chunk is read by all rows while it lies in the first-level cache.
        for c in 0..x.chunks() {
            for (m, out) in (rows.start..).step_by(BLOCK_ROWS).zip(out.chunks_mut(BLOCK_ROWS)) {
                // SAFETY: as this function's.
                unsafe { block_of::<D>(w, stripes.clone(), 0, x, c, m, out) };
            }
        }
    }
}

/// Chunk `c` of rows from `m` on times some stripes, the first of which is number `j` of the panel.
///
/// # Safety
/// The CPU has what `D` names, and AVX2 and FMA.
#[inline(always)]
unsafe fn block_of<D: Dots>(
    w: &PackedMatrix<'_>,
    stripes: Range<usize>,
    j: usize,
    x: &QuantizedRows<'_>,
    c: usize,
    m: usize,
    out: &mut [[f32; PANEL]],
) {
    // SAFETY: as this function's.
    unsafe {
        match out.len() {
            0 => {}
            1 => block::<D, 1>(w, stripes, j, x, c, m, out),
            2 => block::<D, 2>(w, stripes, j, x, c, m, out),
            3 => block::<D, 3>(w, stripes, j, x, c, m, out),
            4 => block::<D, 4>(w, stripes, j, x, c, m, out),
            5 => block::<D, 5>(w, stripes, j, x, c, m, out),
            _ => block::<D, BLOCK_ROWS>(w, stripes, j, x, c, m, out),
        }
    }
}

/// # Safety
/// The CPU has what `D` names, and AVX2 and FMA.
#[inline(always)]
unsafe fn block<D: Dots, const M: usize>(
    w: &PackedMatrix<'_>,
    stripes: Range<usize>,
    j: usize,
    x: &QuantizedRows<'_>,
    c: usize,
    m: usize,
    out: &mut [[f32; PANEL]],
) {
    assert!(out.len() == M);
    let int8 = w.layout().format == WeightFormat::Int8;
    let rows = Rows::<M> { q: x.q_rows(c, m, M), stride: x.chunk() };
    let mut starts = [[0; CHUNK_MAX / GROUP]; M];
    if int8 {
        for i in 0..M {
            starts[i][0] = D::start(x.sum(c, m + i));
        }
    } else {
        // SAFETY: as this function's.
        unsafe { rows.group_starts::<D>(&mut starts) };
    }
    let ahead = StreamAhead::new(w.layout(), c, 1, PREFETCH_BYTES);
    for (j, s) in (j..).zip(stripes) {
        let stripe = w.stripe(s);
        let chunk = PackedChunk::new(w, stripe, c);
        if M <= STREAM_ROWS {
            ahead.scales(stripe).into_iter().for_each(prefetch);
        }
        // SAFETY: as this function's.
        unsafe {
            let sums = if int8 {
                rows.int8::<D>(chunk, &starts, ahead)
            } else {
                rows.int4::<D>(chunk, &starts, ahead)
            };
            let scales = scales(stripe, c);
            for i in 0..M {
                accumulate(sums[i], x.scale(c, m + i), scales, c == 0, &mut out[i].as_chunks_mut().0[j]);
            }
        }
    }
}

/// The f32 scales of a stripe's chunk, one lane per output.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn scales(stripe: &[u8], c: usize) -> [__m256; 2] {
    let bytes = scale_bytes(stripe, c);
    let half = |i: usize| {
        // SAFETY: 16 bytes are read from within an array of 32; the CPU has AVX2, as the caller vouches.
        unsafe {
            let bf16 = _mm_loadu_si128(bytes.as_ptr().add(16 * i).cast());
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bf16)))
        }
    };
    [half(0), half(1)]
}

/// `out = fma(sum, activation scale · weight scale, out)`.
///
/// # Safety
/// The CPU has AVX2 and FMA.
#[inline(always)]
unsafe fn accumulate(
    sums: [__m256i; 2],
    x_scale: f32,
    scales: [__m256; 2],
    first: bool,
    out: &mut [f32; LANES],
) {
    for n in 0..2 {
        // SAFETY: eight numbers within an array of 16; the CPU has AVX2 and FMA, as the caller vouches.
        unsafe {
            let place = out.as_mut_ptr().add(8 * n);
            let before = if first { _mm256_setzero_ps() } else { _mm256_loadu_ps(place) };
            let scale = _mm256_mul_ps(_mm256_set1_ps(x_scale), scales[n]);
            _mm256_storeu_ps(place, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[n]), scale, before));
        }
    }
}

/// Fetches a cache line.
#[inline(always)]
fn prefetch(address: *const u8) {
    // SAFETY: a prefetch may be given any address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
}

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

/// A chunk of some rows.
struct Rows<'a, const M: usize> {
    q: &'a [i8],
    stride: usize,
}

impl<const M: usize> Rows<'_, M> {
    /// What sums of each row's groups start at.
    ///
    /// # Safety
    /// The CPU has what `D` names, and AVX2 and FMA.
    #[inline(always)]
    unsafe fn group_starts<D: Dots>(&self, starts: &mut [[i32; CHUNK_MAX / GROUP]; M]) {
        for (starts, row) in starts.iter_mut().zip(self.q.chunks_exact(self.stride)) {
            for (start, x) in starts.iter_mut().zip(row.as_chunks::<GROUP>().0) {
                // SAFETY: 16 bytes are read from an array of 16; the CPU has AVX2, as the caller vouches.
                let pairs = unsafe {
                    let x = _mm_loadu_si128(x.as_ptr().cast());
                    let x = _mm_maddubs_epi16(_mm_set1_epi8(8), x);
                    let x = _mm_add_epi16(x, _mm_shuffle_epi32::<0b01_00_11_10>(x));
                    _mm_cvtsi128_si32(_mm_add_epi16(x, _mm_shuffle_epi32::<0b10_11_00_01>(x)))
                };
                *start = D::group_start([pairs as i16, (pairs >> 16) as i16]);
            }
        }
    }

    /// The sums of a chunk of int8.
    ///
    /// # Safety
    /// The CPU has what `D` names, and AVX2 and FMA.
    #[inline(always)]
    unsafe fn int8<D: Dots>(
        &self,
        chunk: PackedChunk<'_>,
        starts: &[[i32; CHUNK_MAX / GROUP]; M],
        ahead: StreamAhead,
    ) -> [[__m256i; 2]; M] {
        let (q, stride) = (self.q.as_ptr(), self.stride);
        assert!(chunk.tiles.len() * 4 <= stride && self.q.len() == M * stride);
        // SAFETY: the CPU has what `D` needs, as the caller vouches; row i of M, and 4 bytes for each of at most stride / 4
        // tiles (asserted above); 32 bytes within a tile.
        unsafe {
            // One or two rows have two sums in turn, so that one product need not wait for the one before.
            let mut sums = [[[_mm256_setzero_si256(); 2]; 2]; M];
            for i in 0..M {
                sums[i][0] = [_mm256_set1_epi32(starts[i][0]); 2];
            }
            for (t, tile) in chunk.tiles.iter().enumerate() {
                if M <= STREAM_ROWS {
                    prefetch(ahead.tile(tile, t));
                }
                let a = if M <= STREAM_ROWS { t % 2 } else { 0 };
                let mut w = [[_mm256_setzero_si256(); 2]; 2];
                for n in 0..2 {
                    w[n] = D::weights(_mm256_loadu_si256(tile.as_ptr().add(32 * n).cast()));
                }
                for i in 0..M {
                    let x = q.add(i * stride + 4 * t).cast::<i32>().read_unaligned();
                    for n in 0..2 {
                        sums[i][a][n] = D::dot(sums[i][a][n], w[n], _mm256_set1_epi32(x));
                    }
                }
            }
            let mut totals = [[_mm256_setzero_si256(); 2]; M];
            for i in 0..M {
                for n in 0..2 {
                    totals[i][n] = _mm256_add_epi32(sums[i][0][n], sums[i][1][n]);
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
        starts: &[[i32; CHUNK_MAX / GROUP]; M],
        ahead: StreamAhead,
    ) -> [[__m256i; 2]; M] {
        let (q, stride) = (self.q.as_ptr(), self.stride);
        let groups = chunk.tiles.as_chunks::<2>().0;
        assert!(groups.len() * GROUP <= stride && stride <= CHUNK_MAX && self.q.len() == M * stride);
        // SAFETY: the CPU has what `D` needs, as the caller vouches; row i of M, and 16 bytes for each of at most
        // stride / 16 groups (asserted above); 32 bytes within a tile, 16 of an array of 16, 32 of one of 32.
        unsafe {
            let mut totals = [[_mm256_setzero_si256(); 2]; M];
            let low = _mm256_set1_epi8(15);
            for n in 0..2 {
                let spread = _mm256_loadu_si256(SPREAD[n].as_ptr().cast());
                for (g, tiles) in groups.iter().enumerate() {
                    if M <= STREAM_ROWS {
                        prefetch(ahead.tile(&tiles[n], 2 * g + n));
                    }
                    let pair = _mm_loadu_si128(chunk.group_scales[g / 2].as_ptr().cast());
                    let pair = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(pair), spread);
                    let pair = _mm256_srl_epi16(pair, _mm_cvtsi32_si128(4 * (g as i32 % 2)));
                    let scale = _mm256_and_si256(pair, _mm256_set1_epi32(D::SCALE_MASK));
                    let a = _mm256_loadu_si256(tiles[0].as_ptr().add(32 * n).cast());
                    let b = _mm256_loadu_si256(tiles[1].as_ptr().add(32 * n).cast());
                    let w: [__m256i; GROUP_TILES] = [
                        _mm256_and_si256(a, low),
                        _mm256_and_si256(_mm256_srli_epi16::<4>(a), low),
                        _mm256_and_si256(b, low),
                        _mm256_and_si256(_mm256_srli_epi16::<4>(b), low),
                    ];
                    for i in 0..M {
                        let x = q.add(i * stride + GROUP * g).cast::<i32>();
                        let mut sum = _mm256_set1_epi32(starts[i][g]);
                        for t in 0..GROUP_TILES {
                            let x = _mm256_set1_epi32(x.add(t).read_unaligned());
                            sum = D::dot_nibbles(sum, w[t], x);
                        }
                        totals[i][n] = _mm256_add_epi32(totals[i][n], _mm256_madd_epi16(sum, scale));
                    }
                }
            }
            totals
        }
    }
}
