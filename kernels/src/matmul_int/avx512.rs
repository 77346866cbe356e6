//! Integer matrix products with AVX-512 VNNI.
//!
//! `vpdpbusd` multiplies unsigned by signed bytes, four k at a time, one output per 32-bit lane. The weights are
//! made unsigned by adding 128, and the activations' sums, which come with them, start the accumulators at what that
//! adds, negated.
//!
//! Few rows stream the packed weights once, through registers. Many rows unpack a chunk of the panel into the
//! first-level cache and use it for all of them, six rows by four stripes at a time.

use std::arch::x86_64::*;
use std::ops::Range;

use super::packed::{
    Ahead, GROUP_TILES, PackedChunk, StreamAhead, check, chunk_tiles, prefetch, prefetch_far, scale_bytes,
};
use super::{PANEL, PANEL_STRIPES, PanelScratch};
use crate::activations::QuantizedRows;
use crate::layout::{CHUNK_MAX, LANES, PackedMatrix, TILE_BYTES, WeightFormat};

/// From so many rows on, weights are unpacked once into the first-level cache and used for all rows.
const UNPACK_FROM_ROWS: usize = 17;
/// Up to so many rows multiply int4's nibbles, and then each group's sum with its scale; more rows multiply the nibbles
/// with their scales first, once for all of them.
const NIBBLE_ROWS: usize = 2;
/// Rows of a register block over unpacked weights: 6 · 4 sums, 4 weights and an activation fill the registers.
const BLOCK_ROWS: usize = 6;
/// How far ahead of their use streams of packed weights are fetched, all that are side by side together …
pub(super) const PREFETCH_BYTES: usize = 4096;
/// … and nibbles, which are multiplied sooner than they come from memory.
const PREFETCH_NIBBLES: usize = 8192;

/// A tile of 16 outputs by 4 k.
type Tile = [u8; TILE_BYTES];

/// See [`super::MatmulInteger`].
///
/// # Safety
/// The CPU has AVX-512 F, BW, VL and VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
pub unsafe fn matmul_integer(
    w: &PackedMatrix<'_>,
    stripes: Range<usize>,
    x: &QuantizedRows<'_>,
    rows: Range<usize>,
    scratch: &mut PanelScratch,
    out: &mut [[f32; PANEL]],
) {
    check(w, &stripes, x, &rows);
    let out = &mut out[..rows.len()];
    if rows.len() >= UNPACK_FROM_ROWS {
        blocked(w, stripes, x, rows.start, scratch, out);
    } else {
        stream(w, stripes, x, rows.start, out);
    }
}

/// The f32 scales of a stripe's chunk, one lane per output.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn scales(stripe: &[u8], c: usize) -> __m512 {
    // SAFETY: 32 bytes are read from an array of 32.
    let bf16 = unsafe { _mm256_loadu_si256(scale_bytes(stripe, c).as_ptr().cast()) };
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bf16)))
}

#[target_feature(enable = "avx512f")]
fn load(tile: &Tile) -> __m512i {
    // SAFETY: 64 bytes are read from an array of 64.
    unsafe { _mm512_loadu_si512(tile.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
fn store(v: __m512i, tile: &mut Tile) {
    // SAFETY: 64 bytes are written to an array of 64.
    unsafe { _mm512_storeu_si512(tile.as_mut_ptr().cast(), v) }
}

/// How packed weights become bytes `weight + 128`.
impl PackedChunk<'_> {
    /// Writes the chunk as signed bytes. `fetch` is called with every packed tile and its number.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub fn unpack_signed(&self, format: WeightFormat, fetch: impl Fn(&Tile, usize), out: &mut [Tile]) {
        if format == WeightFormat::Int8 {
            self.tiles.iter().enumerate().for_each(|(t, tile)| fetch(tile, t));
            out[..self.tiles.len()].copy_from_slice(self.tiles);
        } else {
            for (g, out) in
                out.as_chunks_mut::<GROUP_TILES>().0.iter_mut().enumerate().take(self.tiles.len() / 2)
            {
                fetch(&self.tiles[2 * g], 2 * g);
                fetch(&self.tiles[2 * g + 1], 2 * g + 1);
                for (tile, out) in self.int4(g, 0).into_iter().zip(out) {
                    store(tile, out);
                }
            }
        }
    }

    /// int8: tile `t`.
    #[target_feature(enable = "avx512f,avx512bw")]
    fn int8(&self, t: usize) -> __m512i {
        _mm512_xor_si512(load(&self.tiles[t]), _mm512_set1_epi8(-128))
    }

    /// int4: the nibbles of group `g`, a register for every four k.
    #[target_feature(enable = "avx512f,avx512bw")]
    fn nibbles(&self, g: usize) -> [__m512i; GROUP_TILES] {
        const { assert!(GROUP_TILES == 4, "two packed tiles are a group") };
        let low = _mm512_set1_epi8(15);
        let (a, b) = (load(&self.tiles[2 * g]), load(&self.tiles[2 * g + 1]));
        [
            _mm512_and_si512(a, low),
            _mm512_and_si512(_mm512_srli_epi16::<4>(a), low),
            _mm512_and_si512(b, low),
            _mm512_and_si512(_mm512_srli_epi16::<4>(b), low),
        ]
    }

    /// int4: the scales of groups `2 · pair` and the one behind it, each in the low half of its output's lane.
    #[target_feature(enable = "avx512f")]
    fn scales_of_two(&self, pair: usize) -> [__m512i; 2] {
        // SAFETY: 16 bytes are read from an array of 16.
        let bytes = unsafe { _mm_loadu_si128(self.group_scales[pair].as_ptr().cast()) };
        let both = _mm512_cvtepu8_epi32(bytes);
        [_mm512_and_si512(both, _mm512_set1_epi32(15)), _mm512_srli_epi32::<4>(both)]
    }

    /// int4: the four tiles of group `g`, as `weight + offset`.
    ///
    /// With nibbles in all bytes and the scale in 16-bit lanes, one product gives both bytes: 15 · 15 has no carry.
    /// Then `weight + offset = nibble · scale + (offset - 8 · scale)`.
    #[target_feature(enable = "avx512f,avx512bw")]
    fn int4(&self, g: usize, offset: i8) -> [__m512i; GROUP_TILES] {
        // SAFETY: 16 bytes are read from an array of 16.
        let pair = unsafe { _mm_loadu_si128(self.group_scales[g / 2].as_ptr().cast()) };
        let pair = _mm512_broadcast_i32x4(pair);
        // Each output's byte in all four bytes of its lane.
        let spread = _mm512_shuffle_epi8(
            pair,
            _mm512_set_epi32(
                0x0F0F0F0F, 0x0E0E0E0E, 0x0D0D0D0D, 0x0C0C0C0C, 0x0B0B0B0B, 0x0A0A0A0A, 0x09090909,
                0x08080808, 0x07070707, 0x06060606, 0x05050505, 0x04040404, 0x03030303, 0x02020202,
                0x01010101, 0x00000000,
            ),
        );
        let bytes = if g.is_multiple_of(2) { spread } else { _mm512_srli_epi16::<4>(spread) };
        let bytes = _mm512_and_si512(bytes, _mm512_set1_epi8(15));
        let scale = _mm512_and_si512(bytes, _mm512_set1_epi16(0xFF));
        let shift = _mm512_sub_epi8(_mm512_set1_epi8(offset), _mm512_slli_epi16::<3>(bytes));
        let weight = |nibbles| _mm512_add_epi8(_mm512_mullo_epi16(nibbles, scale), shift);
        self.nibbles(g).map(weight)
    }
}

/// Many rows: chunk after chunk, unpacked once.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
fn blocked(
    w: &PackedMatrix<'_>,
    stripes: Range<usize>,
    x: &QuantizedRows<'_>,
    first_row: usize,
    scratch: &mut PanelScratch,
    out: &mut [[f32; PANEL]],
) {
    let layout = w.layout();
    for c in 0..layout.chunks() {
        let tiles = chunk_tiles(layout, c);
        let unpacked = scratch.0.as_flattened_mut().as_chunks_mut::<TILE_BYTES>().0;
        let unpacked = &mut unpacked.as_chunks_mut::<PANEL_STRIPES>().0[..tiles];
        for (j, s) in stripes.clone().enumerate() {
            unpack(layout.format, PackedChunk::new(w, w.stripe(s), c), j, unpacked);
        }
        let mut scale = [_mm512_setzero_ps(); PANEL_STRIPES];
        for (scale, s) in scale.iter_mut().zip(stripes.clone()) {
            *scale = scales(w.stripe(s), c);
        }
        let ahead = Ahead::new(w, &stripes, c, out.len().div_ceil(BLOCK_ROWS));
        for (b, out) in out.chunks_mut(BLOCK_ROWS).enumerate() {
            let m = first_row + b * BLOCK_ROWS;
            ahead.fetch(b, prefetch);
            let block = Block { unpacked, stripes: stripes.len(), scale: &scale, c, x, m };
            match out.len() {
                1 => block.rows::<1>(out),
                2 => block.rows::<2>(out),
                3 => block.rows::<3>(out),
                4 => block.rows::<4>(out),
                5 => block.rows::<5>(out),
                _ => block.rows::<BLOCK_ROWS>(out),
            }
        }
    }
}

/// Writes a chunk of stripe `j` of the panel as bytes `weight + 128`; tiles of the panel's stripes alternate.
#[target_feature(enable = "avx512f,avx512bw")]
fn unpack(format: WeightFormat, chunk: PackedChunk<'_>, j: usize, out: &mut [[Tile; PANEL_STRIPES]]) {
    if format == WeightFormat::Int8 {
        for (t, out) in out.iter_mut().enumerate() {
            store(chunk.int8(t), &mut out[j]);
        }
    } else {
        for (g, out) in out.as_chunks_mut::<GROUP_TILES>().0.iter_mut().enumerate() {
            for (tile, out) in chunk.int4(g, -128).into_iter().zip(out) {
                store(tile, &mut out[j]);
            }
        }
    }
}

/// A few rows times an unpacked chunk of a panel.
struct Block<'a> {
    unpacked: &'a [[Tile; PANEL_STRIPES]],
    stripes: usize,
    scale: &'a [__m512; PANEL_STRIPES],
    c: usize,
    x: &'a QuantizedRows<'a>,
    m: usize,
}

impl Block<'_> {
    /// One stripe after another where the panel, at the edge, is not full.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
    fn rows<const M: usize>(&self, out: &mut [[f32; PANEL]]) {
        if self.stripes == PANEL_STRIPES {
            self.columns::<M, PANEL_STRIPES>(0, out);
        } else {
            (0..self.stripes).for_each(|s| self.columns::<M, 1>(s, out));
        }
    }

    /// Rows `m..m + M` times stripes `s0..s0 + S` of the panel.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
    fn columns<const M: usize, const S: usize>(&self, s0: usize, out: &mut [[f32; PANEL]]) {
        assert!(s0 + S <= PANEL_STRIPES && out.len() == M);
        let (x, stride) = (self.x.q_rows(self.c, self.m, M), self.x.chunk());
        assert!(4 * self.unpacked.len() <= stride && x.len() == M * stride);
        let mut sums: [[__m512i; S]; M] =
            std::array::from_fn(|i| [_mm512_set1_epi32(-128 * self.x.sum(self.c, self.m + i)); S]);
        let mut x = x.as_ptr();
        let mut step = |tiles: &[Tile; PANEL_STRIPES]| {
            let w: [__m512i; S] = std::array::from_fn(|s| load(&tiles[s0 + s]));
            for (i, sums) in sums.iter_mut().enumerate() {
                // SAFETY: row i of M, and 4 bytes for each of at most stride / 4 tiles (asserted above).
                let x = _mm512_set1_epi32(unsafe { x.add(i * stride).cast::<i32>().read_unaligned() });
                for s in 0..S {
                    sums[s] = _mm512_dpbusd_epi32(sums[s], w[s], x);
                }
            }
            // SAFETY: at most one past the last of `stride` bytes of the first row.
            x = unsafe { x.add(4) };
        };
        let (pairs, rest) = self.unpacked.as_chunks::<2>();
        for [a, b] in pairs {
            step(a);
            step(b);
        }
        rest.iter().for_each(step);
        for (i, (out, sums)) in out.iter_mut().zip(sums).enumerate() {
            let row = &mut out.as_chunks_mut::<LANES>().0[s0..s0 + S];
            let x_scale = self.x.scale(self.c, self.m + i);
            for s in 0..S {
                accumulate(sums[s], x_scale, self.scale[s0 + s], self.c == 0, &mut row[s]);
            }
        }
    }
}

/// `out = fma(sum, activation scale · weight scale, out)`.
#[target_feature(enable = "avx512f,fma")]
pub(super) fn accumulate(sum: __m512i, x_scale: f32, w_scale: __m512, first: bool, out: &mut [f32; LANES]) {
    let scale = _mm512_mul_ps(_mm512_set1_ps(x_scale), w_scale);
    let before = if first {
        _mm512_setzero_ps()
    } else {
        // SAFETY: 16 numbers are read from an array of 16.
        unsafe { _mm512_loadu_ps(out.as_ptr()) }
    };
    let after = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, before);
    // SAFETY: 16 numbers are written to an array of 16.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), after) }
}

/// `-8 · Σ x` over the 16 bytes of each group of a row's chunk, four times each: what a group's sum of `nibble · x`
/// starts at, since a weight is `nibble - 8`.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn group_starts(q: &[i8], starts: &mut [i32; CHUNK_MAX / 4]) {
    for (q, starts) in q.chunks(TILE_BYTES).zip(starts.as_chunks_mut::<LANES>().0) {
        let mask = u64::MAX >> (TILE_BYTES - q.len());
        // SAFETY: as many bytes are read as there are, and 16 numbers are written to an array of 16.
        unsafe {
            let x = _mm512_maskz_loadu_epi8(mask, q.as_ptr());
            let fours = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(8), x);
            let pairs = _mm512_add_epi32(fours, _mm512_shuffle_epi32::<0b10_11_00_01>(fours));
            let sums = _mm512_add_epi32(pairs, _mm512_shuffle_epi32::<0b01_00_11_10>(pairs));
            let negative = _mm512_sub_epi32(_mm512_setzero_si512(), sums);
            _mm512_storeu_si512(starts.as_mut_ptr().cast(), negative);
        }
    }
}

/// Few rows: the stripes of a panel are read once, up to four side by side.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
pub(super) fn stream(
    w: &PackedMatrix<'_>,
    stripes: Range<usize>,
    x: &QuantizedRows<'_>,
    m: usize,
    out: &mut [[f32; PANEL]],
) {
    /// Rows, and how many stripes side by side leave room for their sums.
    macro_rules! match_rows {
        ($($m:literal: $s:literal),*) => {
            match out.len() {
                0 => {}
                $($m => stream_rows::<$m, $s>(w, stripes, x, m, out),)*
                _ => unreachable!("more rows are unpacked"),
            }
        };
    }
    match_rows!(
        1: 4, 2: 4, 3: 4, 4: 4, 5: 2, 6: 2, 7: 2, 8: 2, 9: 1, 10: 1, 11: 1, 12: 1, 13: 1, 14: 1, 15: 1, 16: 1
    );
}

/// `M` rows, `S` stripes side by side.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
fn stream_rows<const M: usize, const S: usize>(
    w: &PackedMatrix<'_>,
    stripes: Range<usize>,
    x: &QuantizedRows<'_>,
    m: usize,
    out: &mut [[f32; PANEL]],
) {
    let mut s = stripes.start;
    while s + S <= stripes.end {
        stream_stripes::<M, S>(w, s, x, m, s - stripes.start, out);
        s += S;
    }
    for s in s..stripes.end {
        stream_stripes::<M, 1>(w, s, x, m, s - stripes.start, out);
    }
}

/// `M` rows times stripes `s..s + S`, columns `j..j + S` of the panel.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
fn stream_stripes<const M: usize, const S: usize>(
    w: &PackedMatrix<'_>,
    s: usize,
    x: &QuantizedRows<'_>,
    m: usize,
    j: usize,
    out: &mut [[f32; PANEL]],
) {
    let layout = w.layout();
    let stripes: [&[u8]; S] = std::array::from_fn(|i| w.stripe(s + i));
    let mut totals = [[_mm512_setzero_ps(); S]; M];
    for c in 0..layout.chunks() {
        let in_nibbles = layout.format == WeightFormat::Int4 && M <= NIBBLE_ROWS;
        let distance = if in_nibbles { PREFETCH_NIBBLES } else { PREFETCH_BYTES };
        let ahead = StreamAhead::new(layout, c, S, distance / S);
        for stripe in stripes {
            ahead.scales(stripe).into_iter().for_each(prefetch);
        }
        let chunks: [PackedChunk<'_>; S] = std::array::from_fn(|i| PackedChunk::new(w, stripes[i], c));
        let tiles = chunks[0].tiles.len();
        let (q, stride) = (x.q_rows(c, m, M), x.chunk());
        assert!(chunk_tiles(layout, c) * 4 <= stride && q.len() == M * stride);
        let mut sums: [[__m512i; S]; M] = match in_nibbles {
            true => [[_mm512_setzero_si512(); S]; M],
            false => std::array::from_fn(|i| [_mm512_set1_epi32(-128 * x.sum(c, m + i)); S]),
        };
        // SAFETY: row of M, and 4 bytes for each of at most stride / 4 tiles (asserted above).
        let four = |row: usize, t: usize| unsafe {
            _mm512_set1_epi32(q.as_ptr().add(row * stride + 4 * t).cast::<i32>().read_unaligned())
        };
        let mut add = |t: usize, i: usize, tile: __m512i| {
            for (row, sums) in sums.iter_mut().enumerate() {
                sums[i] = _mm512_dpbusd_epi32(sums[i], tile, four(row, t));
            }
        };
        if layout.format == WeightFormat::Int8 {
            for t in 0..tiles {
                for i in 0..S {
                    prefetch_far(ahead.tile(&chunks[i].tiles[t], t));
                    add(t, i, chunks[i].int8(t));
                }
            }
        } else if in_nibbles {
            let mut starts = [[0; CHUNK_MAX / 4]; M];
            for (q, starts) in q.chunks_exact(stride).zip(&mut starts) {
                group_starts(q, starts);
            }
            for pair in 0..(tiles / 2).div_ceil(2) {
                for i in 0..S {
                    let scales = chunks[i].scales_of_two(pair);
                    for g in 2 * pair..(2 * pair + 2).min(tiles / 2) {
                        prefetch_far(ahead.tile(&chunks[i].tiles[2 * g], 2 * g));
                        prefetch_far(ahead.tile(&chunks[i].tiles[2 * g + 1], 2 * g + 1));
                        let nibbles = chunks[i].nibbles(g);
                        for row in 0..M {
                            let mut sum = _mm512_set1_epi32(starts[row][4 * g]);
                            for t in 0..GROUP_TILES {
                                sum = _mm512_dpbusd_epi32(sum, nibbles[t], four(row, g * GROUP_TILES + t));
                            }
                            sums[row][i] = _mm512_dpwssd_epi32(sums[row][i], sum, scales[g % 2]);
                        }
                    }
                }
            }
        } else {
            for g in 0..tiles / 2 {
                for i in 0..S {
                    prefetch(ahead.tile(&chunks[i].tiles[2 * g], 2 * g));
                    prefetch(ahead.tile(&chunks[i].tiles[2 * g + 1], 2 * g + 1));
                    for (t, tile) in chunks[i].int4(g, -128).into_iter().enumerate() {
                        add(g * GROUP_TILES + t, i, tile);
                    }
                }
            }
        }
        let scales: [__m512; S] = std::array::from_fn(|i| scales(stripes[i], c));
        for (row, (totals, sums)) in totals.iter_mut().zip(sums).enumerate() {
            let x_scale = _mm512_set1_ps(x.scale(c, m + row));
            for i in 0..S {
                let scale = _mm512_mul_ps(x_scale, scales[i]);
                totals[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[i]), scale, totals[i]);
            }
        }
    }
    for (out, totals) in out.iter_mut().zip(totals) {
        for (out, total) in out.as_chunks_mut::<LANES>().0[j..j + S].iter_mut().zip(totals) {
            // SAFETY: 16 numbers are written to an array of 16.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), total) }
        }
    }
}
