//! Integer matrix products with AVX-512 VNNI.
//!
//! `vpdpbusd` multiplies unsigned by signed bytes, four k at a time, one output per 32-bit lane. The weights are
//! made unsigned by adding 128 (int8) or 8 (int4 nibbles, which are stored so), and the activations' sums, which
//! come with them, start the accumulators at what that adds, negated.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{PANEL, PANEL_STRIPES, PanelScratch};
use crate::activations::QuantizedRows;
use crate::layout::{CHUNK_MAX, GROUP, LANES, MatrixLayout, PackedMatrix, TILE_BYTES, WeightFormat};

/// From so many rows on, weights are unpacked once into the first-level cache and used for all rows.
const UNPACK_FROM_ROWS: usize = 9;
/// Rows of a register block over unpacked weights: 6 · 4 sums, 4 weights and an activation fill the registers.
const BLOCK_ROWS: usize = 6;
/// Rows of a register block that reads packed weights.
const STREAM_ROWS: usize = 8;

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
    let layout = w.layout();
    assert!(stripes.len() <= PANEL_STRIPES && stripes.end <= layout.stripes());
    assert!(rows.end <= x.rows() && x.chunks() == layout.chunks() && x.chunk() == layout.chunk());
    let out = &mut out[..rows.len()];
    if rows.len() >= UNPACK_FROM_ROWS {
        for c in 0..layout.chunks() {
            let tiles = chunk_tiles(layout, c);
            for (s, unpacked) in stripes.clone().zip(&mut scratch.0) {
                unpack(w, s, c, &mut unpacked.as_chunks_mut().0[..tiles]);
            }
            let weights = Unpacked { w, stripes: stripes.clone(), c, bytes: &scratch.0, tiles };
            let mut m = rows.start;
            for out in out.chunks_mut(BLOCK_ROWS) {
                match out.len() {
                    1 => weights.rows::<1>(x, m, out),
                    2 => weights.rows::<2>(x, m, out),
                    3 => weights.rows::<3>(x, m, out),
                    4 => weights.rows::<4>(x, m, out),
                    5 => weights.rows::<5>(x, m, out),
                    _ => weights.rows::<BLOCK_ROWS>(x, m, out),
                }
                m += out.len();
            }
        }
    } else {
        let mut m = rows.start;
        for out in out.chunks_mut(STREAM_ROWS) {
            for (j, s) in stripes.clone().enumerate() {
                let stream = Stream { w, stripe: s, column: j };
                match out.len() {
                    1 => stream.rows::<1>(x, m, out),
                    2 => stream.rows::<2>(x, m, out),
                    3 => stream.rows::<3>(x, m, out),
                    4 => stream.rows::<4>(x, m, out),
                    5 => stream.rows::<5>(x, m, out),
                    6 => stream.rows::<6>(x, m, out),
                    7 => stream.rows::<7>(x, m, out),
                    _ => stream.rows::<STREAM_ROWS>(x, m, out),
                }
            }
            m += out.len();
        }
    }
}

/// Tiles of 4 k that chunk `c` has.
fn chunk_tiles(layout: &MatrixLayout, c: usize) -> usize {
    (layout.padded_cols() - c * layout.chunk()).min(layout.chunk()) / 4
}

/// The f32 scales of a stripe's chunk, one lane per output.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn scales(stripe: &[u8], c: usize) -> __m512 {
    let bytes: &[u8; LANES * 2] =
        stripe[c * LANES * 2..].first_chunk().expect("a stripe holds all its scales");
    // SAFETY: 32 bytes are read from an array of 32.
    let bf16 = unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bf16)))
}

#[target_feature(enable = "avx512f")]
fn load(tile: &[u8; TILE_BYTES]) -> __m512i {
    // SAFETY: 64 bytes are read from an array of 64.
    unsafe { _mm512_loadu_si512(tile.as_ptr().cast()) }
}

/// The group scales of a pair of groups: 16 bytes, one lane per output, two nibbles each.
#[target_feature(enable = "avx512f")]
fn group_scale_pair(w: &PackedMatrix<'_>, stripe: &[u8], pair: usize) -> __m512i {
    let bytes: &[u8; LANES] = stripe[w.layout().scale_bytes() + pair * LANES..]
        .first_chunk()
        .expect("a stripe holds all group scales");
    // SAFETY: 16 bytes are read from an array of 16.
    _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

/// Group `g`'s own of the two scales of its pair.
#[target_feature(enable = "avx512f")]
fn group_scale(pair: __m512i, g: usize) -> __m512i {
    if g.is_multiple_of(2) {
        _mm512_and_si512(pair, _mm512_set1_epi32(15))
    } else {
        _mm512_srli_epi32::<4>(pair)
    }
}

/// Writes chunk `c` of a stripe as bytes `weight + 128`, one tile per 4 k.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn unpack(w: &PackedMatrix<'_>, s: usize, c: usize, out: &mut [[u8; TILE_BYTES]]) {
    let (layout, stripe) = (w.layout(), w.stripe(s));
    let tiles = stripe[layout.tiles_offset()..].as_chunks::<TILE_BYTES>().0;
    let mut store = |i: usize, v: __m512i| {
        // SAFETY: 64 bytes are written to an array of 64.
        unsafe { _mm512_storeu_si512(out[i].as_mut_ptr().cast(), v) }
    };
    if layout.format == WeightFormat::Int8 {
        let flip = _mm512_set1_epi8(-128);
        let tiles = &tiles[c * layout.chunk() / 4..];
        for (i, tile) in tiles.iter().take(layout.chunk() / 4).enumerate() {
            store(i, _mm512_xor_si512(load(tile), flip));
        }
        return;
    }
    let low = _mm512_set1_epi8(15);
    let even_bytes = _mm512_set1_epi16(0xFF);
    // Two packed tiles are a group of 16 k; nibble · scale is at most 225, so products stay in their bytes.
    let groups = layout.chunk() / GROUP;
    for (g, group) in tiles[c * layout.chunk() / 8..].as_chunks::<2>().0.iter().take(groups).enumerate() {
        let pair = group_scale_pair(w, stripe, (c * groups + g) / 2);
        let scale = group_scale(pair, g);
        let scale = _mm512_or_si512(scale, _mm512_slli_epi32::<16>(scale));
        // weight + 128 = nibble · scale - 8 · scale + 128, in bytes.
        let shift = _mm512_sub_epi16(_mm512_set1_epi16(128), _mm512_slli_epi16::<3>(scale));
        let shift = _mm512_and_si512(shift, even_bytes);
        let shift = _mm512_or_si512(shift, _mm512_slli_epi16::<8>(shift));
        for (t, tile) in group.iter().enumerate() {
            let bytes = load(tile);
            let nibbles =
                [_mm512_and_si512(bytes, low), _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), low)];
            for (h, nibbles) in nibbles.into_iter().enumerate() {
                let even = _mm512_mullo_epi16(_mm512_and_si512(nibbles, even_bytes), scale);
                let odd = _mm512_mullo_epi16(_mm512_andnot_si512(even_bytes, nibbles), scale);
                store(4 * g + 2 * t + h, _mm512_add_epi8(_mm512_or_si512(even, odd), shift));
            }
        }
    }
}

/// A chunk of a panel's weights as bytes `weight + 128`.
struct Unpacked<'a> {
    w: &'a PackedMatrix<'a>,
    stripes: Range<usize>,
    c: usize,
    bytes: &'a [[u8; CHUNK_MAX * LANES]; PANEL_STRIPES],
    tiles: usize,
}

impl Unpacked<'_> {
    /// Rows `m..m + M` times the panel; one stripe after another where the panel, at the edge, is not full.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
    fn rows<const M: usize>(&self, x: &QuantizedRows<'_>, m: usize, out: &mut [[f32; PANEL]]) {
        if self.stripes.len() == PANEL_STRIPES {
            self.columns::<M, PANEL_STRIPES>(x, m, 0, out);
        } else {
            (0..self.stripes.len()).for_each(|s| self.columns::<M, 1>(x, m, s, out));
        }
    }

    /// Rows `m..m + M` times stripes `s0..s0 + S` of the panel.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
    fn columns<const M: usize, const S: usize>(
        &self,
        x: &QuantizedRows<'_>,
        m: usize,
        s0: usize,
        out: &mut [[f32; PANEL]],
    ) {
        let x_rows: [&[[i8; 4]]; M] =
            std::array::from_fn(|i| &x.q(self.c, m + i).as_chunks::<4>().0[..self.tiles]);
        let w: [&[[u8; TILE_BYTES]]; S] =
            std::array::from_fn(|s| &self.bytes[s0 + s].as_chunks::<TILE_BYTES>().0[..self.tiles]);
        let mut sums: [[__m512i; S]; M] = std::array::from_fn(|i| {
            let sum: i32 = x.sums(self.c, m + i).iter().sum();
            [_mm512_set1_epi32(-128 * sum); S]
        });
        for t in 0..self.tiles {
            // SAFETY: the slices of `w` were cut to `self.tiles` tiles.
            let w: [__m512i; S] = std::array::from_fn(|s| load(unsafe { w[s].get_unchecked(t) }));
            for i in 0..M {
                // SAFETY: as above.
                let x =
                    _mm512_set1_epi32(i32::from_le_bytes(*unsafe { x_rows[i].get_unchecked(t) }.map_bytes()));
                for s in 0..S {
                    sums[i][s] = _mm512_dpbusd_epi32(sums[i][s], w[s], x);
                }
            }
        }
        let scale: [__m512; S] =
            std::array::from_fn(|s| scales(self.w.stripe(self.stripes.start + s0 + s), self.c));
        for i in 0..M {
            let row = &mut out[i].as_chunks_mut::<LANES>().0[s0..s0 + S];
            for s in 0..S {
                accumulate(sums[i][s], x.scale(self.c, m + i), scale[s], self.c == 0, &mut row[s]);
            }
        }
    }
}

/// The bytes of four activations.
trait MapBytes {
    fn map_bytes(&self) -> &[u8; 4];
}
impl MapBytes for [i8; 4] {
    #[inline(always)]
    fn map_bytes(&self) -> &[u8; 4] {
        bytemuck::cast_ref(self)
    }
}

/// `out = fma(sum, activation scale · weight scale, out)`.
#[target_feature(enable = "avx512f,fma")]
fn accumulate(sum: __m512i, x_scale: f32, w_scale: __m512, first: bool, out: &mut [f32; LANES]) {
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

/// One packed stripe, read once for a few rows.
struct Stream<'a> {
    w: &'a PackedMatrix<'a>,
    stripe: usize,
    column: usize,
}

impl Stream<'_> {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
    fn rows<const M: usize>(&self, x: &QuantizedRows<'_>, m: usize, out: &mut [[f32; PANEL]]) {
        let (layout, stripe) = (self.w.layout(), self.w.stripe(self.stripe));
        let tiles = stripe[layout.tiles_offset()..].as_chunks::<TILE_BYTES>().0;
        for c in 0..layout.chunks() {
            let x_rows: [&[[i8; 4]]; M] = std::array::from_fn(|i| x.q(c, m + i).as_chunks::<4>().0);
            let sums: [&[i32]; M] = std::array::from_fn(|i| x.sums(c, m + i));
            let n = chunk_tiles(layout, c);
            let sums = match layout.format {
                WeightFormat::Int8 => int8::<M>(&tiles[c * layout.chunk() / 4..][..n], x_rows, sums),
                _ => {
                    let scale =
                        |pair| group_scale_pair(self.w, stripe, c * layout.chunk() / GROUP / 2 + pair);
                    int4::<M>(&tiles[c * layout.chunk() / 8..][..n / 2], scale, x_rows, sums)
                }
            };
            let scale = scales(stripe, c);
            for i in 0..M {
                let out = &mut out[i].as_chunks_mut::<LANES>().0[self.column];
                accumulate(sums[i], x.scale(c, m + i), scale, c == 0, out);
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn int8<const M: usize>(
    tiles: &[[u8; TILE_BYTES]],
    x: [&[[i8; 4]]; M],
    group_sums: [&[i32]; M],
) -> [__m512i; M] {
    assert!(x.iter().all(|x| tiles.len() <= x.len()));
    let flip = _mm512_set1_epi8(-128);
    let mut sums: [__m512i; M] = std::array::from_fn(|i| {
        let sum: i32 = group_sums[i].iter().sum();
        _mm512_set1_epi32(-128 * sum)
    });
    for (t, tile) in tiles.iter().enumerate() {
        let w = _mm512_xor_si512(load(tile), flip);
        for i in 0..M {
            // SAFETY: t < tiles.len(), which no row of x is shorter than.
            let x = _mm512_set1_epi32(i32::from_le_bytes(*unsafe { x[i].get_unchecked(t) }.map_bytes()));
            sums[i] = _mm512_dpbusd_epi32(sums[i], w, x);
        }
    }
    sums
}

/// Group by group: `Σ nibble · x - 8 · Σ x`, times the group's scale.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn int4<const M: usize>(
    tiles: &[[u8; TILE_BYTES]],
    group_scale_pair: impl Fn(usize) -> __m512i,
    x: [&[[i8; 4]]; M],
    group_sums: [&[i32]; M],
) -> [__m512i; M] {
    const { assert!(GROUP == 16, "two packed tiles are a group") };
    let groups = tiles.as_chunks::<2>().0;
    assert!(x.iter().all(|x| 4 * groups.len() <= x.len()));
    let low = _mm512_set1_epi8(15);
    let mut sums = [_mm512_setzero_si512(); M];
    let mut pair = _mm512_setzero_si512();
    for (g, [a, b]) in groups.iter().enumerate() {
        if g % 2 == 0 {
            pair = group_scale_pair(g / 2);
        }
        let scale = group_scale(pair, g);
        let (a, b) = (load(a), load(b));
        let w = [
            _mm512_and_si512(a, low),
            _mm512_and_si512(_mm512_srli_epi16::<4>(a), low),
            _mm512_and_si512(b, low),
            _mm512_and_si512(_mm512_srli_epi16::<4>(b), low),
        ];
        for i in 0..M {
            let mut sum = _mm512_set1_epi32(-8 * group_sums[i][g]);
            for (t, w) in w.into_iter().enumerate() {
                // SAFETY: 4·g + t < 4 · groups.len(), which no row of x is shorter than.
                let x = _mm512_set1_epi32(i32::from_le_bytes(
                    *unsafe { x[i].get_unchecked(4 * g + t) }.map_bytes(),
                ));
                sum = _mm512_dpbusd_epi32(sum, w, x);
            }
            sums[i] = _mm512_add_epi32(sums[i], _mm512_mullo_epi32(sum, scale));
        }
    }
    sums
}
