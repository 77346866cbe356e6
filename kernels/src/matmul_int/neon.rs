//! Integer matrix products with NEON: the base set, `sdot`, and `smmla`.
//!
//! One or two rows stream the packed weights through registers. More rows unpack a chunk of the panel into the
//! first-level cache as signed bytes, and use it for all of them: five rows by sixteen outputs at a time with `sdot`,
//! six by sixteen with `smmla`.

use std::arch::aarch64::*;
use std::arch::asm;
use std::hint::black_box;
use std::ops::Range;

use super::packed::{GROUP_TILES, PackedChunk, check, chunk_tiles, scale_bytes};
use super::{PANEL, PanelScratch};
use crate::activations::QuantizedRows;
use crate::layout::{CHUNK_MAX, GROUP, LANES, PackedMatrix, TILE_BYTES, WeightFormat};
use crate::simd::neon::{dot_base, prefetch};

/// From so many rows on, weights are unpacked once into the first-level cache and used for all rows.
const UNPACK_FROM_ROWS: usize = 3;
/// Rows of a register block with `smmla`: 3 · 8 sums of two by two, 3 activations, and the weights in turn.
const PAIR_ROWS: usize = 6;
/// How far ahead of its use a stream of packed weights is fetched.
const PREFETCH_BYTES: usize = 1024;

/// A tile of 16 outputs by 4 k.
type Tile = [i8; TILE_BYTES];

/// A way to multiply bytes.
trait Dots: Copy {
    /// Rows of a register block.
    const BLOCK_ROWS: usize;

    /// `acc[i] + Σ_j w[4·i + j] · x[4·T + j]`
    ///
    /// # Safety
    /// The CPU has what the implementor names.
    unsafe fn dot<const T: i32>(acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t;
}

/// The base set.
#[derive(Clone, Copy)]
struct Base;

impl Dots for Base {
    // 4 · 4 sums, 4 activations spread over a register each, and what a product needs in between.
    const BLOCK_ROWS: usize = 4;

    #[inline(always)]
    unsafe fn dot<const T: i32>(acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: every aarch64 CPU has NEON.
        unsafe {
            let x = vdupq_laneq_s32::<T>(vreinterpretq_s32_s8(x));
            dot_base(acc, w, vreinterpretq_s8_s32(x))
        }
    }
}

/// `sdot`
#[derive(Clone, Copy)]
struct Dotprod;

impl Dots for Dotprod {
    // 5 · 4 sums, 5 activations, and the weights in turn.
    const BLOCK_ROWS: usize = 5;

    #[inline(always)]
    unsafe fn dot<const T: i32>(mut acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: by the caller's promise; registers only. The intrinsic is not stable in Rust yet.
        unsafe {
            asm!(
                ".arch_extension dotprod",
                "sdot {acc:v}.4s, {w:v}.16b, {x:v}.4b[{t}]",
                acc = inout(vreg) acc, w = in(vreg) w, x = in(vreg) x, t = const T,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        acc
    }
}

/// See [`super::MatmulInteger`]; needs nothing but NEON.
///
/// # Safety
/// None: every aarch64 CPU has NEON.
#[target_feature(enable = "neon")]
pub unsafe fn matmul_integer(
    w: &PackedMatrix<'_>,
    stripes: Range<usize>,
    x: &QuantizedRows<'_>,
    rows: Range<usize>,
    scratch: &mut PanelScratch,
    out: &mut [[f32; PANEL]],
) {
    // SAFETY: every aarch64 CPU has what `Base` names.
    unsafe { matmul::<Base>(w, stripes, x, rows, scratch, out) };
}

/// See [`super::MatmulInteger`].
///
/// # Safety
/// The CPU has `dotprod`.
#[target_feature(enable = "neon,dotprod")]
pub unsafe fn matmul_integer_dotprod(
    w: &PackedMatrix<'_>,
    stripes: Range<usize>,
    x: &QuantizedRows<'_>,
    rows: Range<usize>,
    scratch: &mut PanelScratch,
    out: &mut [[f32; PANEL]],
) {
    // SAFETY: as this function's.
    unsafe { matmul::<Dotprod>(w, stripes, x, rows, scratch, out) };
}

/// See [`super::MatmulInteger`].
///
/// # Safety
/// The CPU has `dotprod` and `i8mm`.
#[target_feature(enable = "neon,dotprod,i8mm")]
pub unsafe fn matmul_integer_i8mm(
    w: &PackedMatrix<'_>,
    stripes: Range<usize>,
    x: &QuantizedRows<'_>,
    rows: Range<usize>,
    scratch: &mut PanelScratch,
    out: &mut [[f32; PANEL]],
) {
    if rows.len() < UNPACK_FROM_ROWS {
        // SAFETY: as this function's.
        return unsafe { matmul::<Dotprod>(w, stripes, x, rows, scratch, out) };
    }
    check(w, &stripes, x, &rows);
    let layout = w.layout();
    for c in 0..layout.chunks() {
        let tiles = unpack_panel(w, &stripes, c, scratch);
        for j in 0..stripes.len() {
            pair_tiles(&mut scratch.0[j], tiles);
        }
        // Six rows at a time, their bytes in pairs of rows by eight k.
        let mut pairs = [[0i8; 16]; PAIR_ROWS / 2 * CHUNK_MAX / 8];
        for (m, out) in (rows.start..).step_by(PAIR_ROWS).zip(out[..rows.len()].chunks_mut(PAIR_ROWS)) {
            pair_rows(x, c, m, out.len(), tiles / 2, &mut pairs);
            for (j, s) in stripes.clone().enumerate() {
                let weights = cast_i8(&scratch.0[j][..tiles * TILE_BYTES]);
                // SAFETY: as this function's.
                unsafe { pair_block(weights, &pairs, x, c, m, scales(w.stripe(s), c), j, out) };
            }
        }
    }
}

/// # Safety
/// The CPU has what `D` names.
#[inline(always)]
unsafe fn matmul<D: Dots>(
    w: &PackedMatrix<'_>,
    stripes: Range<usize>,
    x: &QuantizedRows<'_>,
    rows: Range<usize>,
    scratch: &mut PanelScratch,
    out: &mut [[f32; PANEL]],
) {
    check(w, &stripes, x, &rows);
    let out = &mut out[..rows.len()];
    if rows.len() < UNPACK_FROM_ROWS {
        for (j, s) in stripes.enumerate() {
            // SAFETY: as this function's.
            unsafe {
                match out.len() {
                    0 => {}
                    1 => stream::<D, 1>(w, s, x, rows.start, j, out),
                    _ => stream::<D, 2>(w, s, x, rows.start, j, out),
                }
            }
        }
        return;
    }
    let layout = w.layout();
    for c in 0..layout.chunks() {
        let tiles = unpack_panel(w, &stripes, c, scratch);
        for (m, out) in (rows.start..).step_by(D::BLOCK_ROWS).zip(out.chunks_mut(D::BLOCK_ROWS)) {
            for (j, s) in stripes.clone().enumerate() {
                let weights = cast_i8(&scratch.0[j][..tiles * TILE_BYTES]);
                let scales = scales(w.stripe(s), c);
                // SAFETY: as this function's.
                unsafe {
                    match out.len() {
                        1 => block::<D, 1>(weights, x, c, m, scales, j, out),
                        2 => block::<D, 2>(weights, x, c, m, scales, j, out),
                        3 => block::<D, 3>(weights, x, c, m, scales, j, out),
                        4 => block::<D, 4>(weights, x, c, m, scales, j, out),
                        _ => block::<D, 5>(weights, x, c, m, scales, j, out),
                    }
                }
            }
        }
    }
}

fn cast_i8(bytes: &[u8]) -> &[[Tile; GROUP_TILES]] {
    bytemuck::cast_slice::<u8, i8>(bytes).as_chunks::<TILE_BYTES>().0.as_chunks().0
}

/// The f32 scales of a stripe's chunk, one lane per output.
#[inline(always)]
fn scales(stripe: &[u8], c: usize) -> [float32x4_t; 4] {
    let bytes = scale_bytes(stripe, c);
    std::array::from_fn(|i| {
        // SAFETY: 8 bytes are read from within an array of 32.
        unsafe {
            let bf16 = vld1_u16(bytes.as_ptr().add(8 * i).cast());
            vreinterpretq_f32_u32(vshll_n_u16::<16>(bf16))
        }
    })
}

impl PackedChunk<'_> {
    /// int4: the scales of group `g`, one byte per output.
    #[inline(always)]
    fn scale_bytes(&self, g: usize) -> uint8x16_t {
        // Shifted by what a table says: a choice would compute both.
        const SHIFTS: [[i8; LANES]; 2] = [[0; LANES], [-4; LANES]];
        // SAFETY: 16 bytes are read from arrays of 16.
        unsafe {
            let pair = vld1q_u8(self.group_scales[g / 2].as_ptr());
            vandq_u8(vshlq_u8(pair, vld1q_s8(SHIFTS[g % 2].as_ptr())), vdupq_n_u8(15))
        }
    }
}

/// Indices that spread bytes `4·q..4·q + 4` over the four bytes, or the low bytes, of four lanes.
const fn spread(q: u8, all: bool) -> [u8; 16] {
    let mut index = [0xFF; 16];
    let mut i = 0;
    while i < 16 {
        if all || i % 4 == 0 {
            index[i] = 4 * q + (i / 4) as u8;
        }
        i += 1;
    }
    index
}
const TO_BYTES: [[u8; 16]; 4] = [spread(0, true), spread(1, true), spread(2, true), spread(3, true)];
const TO_LANES: [[u8; 16]; 4] = [spread(0, false), spread(1, false), spread(2, false), spread(3, false)];

/// Writes chunk `c` of the panel as signed bytes, each stripe's tiles one behind the other, and zeros up to whole
/// groups; gives the tiles of a stripe.
#[inline(always)]
fn unpack_panel(w: &PackedMatrix<'_>, stripes: &Range<usize>, c: usize, scratch: &mut PanelScratch) -> usize {
    let layout = w.layout();
    let n = chunk_tiles(layout, c);
    let padded = n.next_multiple_of(GROUP_TILES);
    for (j, s) in stripes.clone().enumerate() {
        let chunk = PackedChunk::new(w, w.stripe(s), c);
        let out = scratch.0[j].as_chunks_mut::<TILE_BYTES>().0;
        if layout.format == WeightFormat::Int8 {
            out[..n].copy_from_slice(chunk.tiles);
            out[n..padded].fill([0; TILE_BYTES]);
            continue;
        }
        for (g, out) in out[..n].as_chunks_mut::<GROUP_TILES>().0.iter_mut().enumerate() {
            let scale = chunk.scale_bytes(g);
            for q in 0..4 {
                // SAFETY: all reads and writes are of 16 bytes within a tile.
                unsafe {
                    let scale = vqtbl1q_u8(scale, vld1q_u8(TO_BYTES[q].as_ptr()));
                    // weight = nibble · scale - 8 · scale, in bytes.
                    let shift = vnegq_s8(vreinterpretq_s8_u8(vshlq_n_u8::<3>(scale)));
                    let shift = vreinterpretq_u8_s8(shift);
                    for half in 0..2 {
                        let packed = vld1q_u8(chunk.tiles[2 * g + half].as_ptr().add(16 * q));
                        let nibbles = [vandq_u8(packed, vdupq_n_u8(15)), vshrq_n_u8::<4>(packed)];
                        for (h, nibbles) in nibbles.into_iter().enumerate() {
                            let weights = vmlaq_u8(shift, nibbles, scale);
                            vst1q_u8(out[2 * half + h].as_mut_ptr().add(16 * q), weights);
                        }
                    }
                }
            }
        }
    }
    padded
}

/// `M` rows from `m` on times a stripe's unpacked chunk; the stripe is number `j` of the panel.
///
/// # Safety
/// The CPU has what `D` names.
#[inline(always)]
unsafe fn block<D: Dots, const M: usize>(
    weights: &[[Tile; GROUP_TILES]],
    x: &QuantizedRows<'_>,
    c: usize,
    m: usize,
    scales: [float32x4_t; 4],
    j: usize,
    out: &mut [[f32; PANEL]],
) {
    let (q, stride) = (x.q_rows(c, m, M), x.chunk());
    assert!(weights.len() * GROUP <= stride && q.len() == M * stride && out.len() == M);
    // SAFETY: every aarch64 CPU has NEON.
    let mut sums = [[unsafe { vdupq_n_s32(0) }; 4]; M];
    for (g, tiles) in weights.iter().enumerate() {
        // SAFETY: row i of M, and 16 bytes for each of at most stride / 16 groups (asserted above); 16 bytes within a tile. The
        // CPU has what `D` needs, as the caller vouches.
        unsafe {
            let mut rows = [vdupq_n_s8(0); M];
            for i in 0..M {
                rows[i] = vld1q_s8(q.as_ptr().add(i * stride + GROUP * g));
            }
            for n in 0..4 {
                let w = vld1q_s8(tiles[0].as_ptr().add(16 * n));
                for i in 0..M {
                    sums[i][n] = D::dot::<0>(sums[i][n], w, rows[i]);
                }
            }
            for n in 0..4 {
                let w = vld1q_s8(tiles[1].as_ptr().add(16 * n));
                for i in 0..M {
                    sums[i][n] = D::dot::<1>(sums[i][n], w, rows[i]);
                }
            }
            for n in 0..4 {
                let w = vld1q_s8(tiles[2].as_ptr().add(16 * n));
                for i in 0..M {
                    sums[i][n] = D::dot::<2>(sums[i][n], w, rows[i]);
                }
            }
            for n in 0..4 {
                let w = vld1q_s8(tiles[3].as_ptr().add(16 * n));
                for i in 0..M {
                    sums[i][n] = D::dot::<3>(sums[i][n], w, rows[i]);
                }
            }
        }
    }
    for i in 0..M {
        accumulate(sums[i], x.scale(c, m + i), scales, c == 0, &mut out[i].as_chunks_mut().0[j]);
    }
}

/// `out = fma(sum, activation scale · weight scale, out)`.
#[inline(always)]
fn accumulate(
    sums: [int32x4_t; 4],
    x_scale: f32,
    scales: [float32x4_t; 4],
    first: bool,
    out: &mut [f32; LANES],
) {
    for n in 0..4 {
        // SAFETY: four numbers within an array of 16.
        unsafe {
            let place = out.as_mut_ptr().add(4 * n);
            let before = if first { vdupq_n_f32(0.0) } else { vld1q_f32(place) };
            let scale = vmulq_n_f32(scales[n], x_scale);
            vst1q_f32(place, vfmaq_f32(before, vcvtq_f32_s32(sums[n]), scale));
        }
    }
}

/// One or two rows times packed stripe `s`, number `j` of the panel.
///
/// # Safety
/// The CPU has what `D` names.
#[inline(always)]
unsafe fn stream<D: Dots, const M: usize>(
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
            accumulate(sums[i], x.scale(c, m + i), scales, c == 0, &mut out[i].as_chunks_mut().0[j]);
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
    let zero = unsafe { vdupq_n_s32(0) };
    // Two sums in turn, so that one product need not wait for the one before.
    let mut sums = [[[zero; 4]; 2]; M];
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

/// Four numbers as a register reads them.
#[derive(Clone, Copy)]
#[repr(align(16))]
struct Aligned(#[allow(dead_code, reason = "read as a register")] [i32; 4]);

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
    let mut starts = [[Aligned([0; 4]); CHUNK_MAX / GROUP]; M];
    for i in 0..M {
        for (start, x) in starts[i].iter_mut().zip(q[i * stride..].as_chunks::<GROUP>().0).take(groups.len())
        {
            // SAFETY: 16 bytes are read from an array of 16.
            let sum = unsafe { vaddlvq_s8(vld1q_s8(x.as_ptr())) };
            *start = Aligned([-8 * i32::from(sum); 4]);
        }
    }
    // SAFETY: every aarch64 CPU has NEON.
    let mut totals = [[unsafe { vdupq_n_s32(0) }; 4]; M];
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
                    let start = std::ptr::read_volatile(starts[i].as_ptr().add(g).cast::<int32x4_t>());
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

/// Turns tiles of 4 k, two by two, into shapes of 2 outputs by 8 k, as `smmla` multiplies: outputs 0 and 1, then 2 and
/// 3, up to 14 and 15.
#[inline(always)]
fn pair_tiles(bytes: &mut [u8; CHUNK_MAX * LANES], tiles: usize) {
    for pair in bytes[..tiles * TILE_BYTES].as_chunks_mut::<{ 2 * TILE_BYTES }>().0 {
        // SAFETY: 16 bytes at a time within an array of 128.
        unsafe {
            let place = |i: usize| pair.as_ptr().add(16 * i).cast::<i32>();
            let mut shapes = [vdupq_n_s32(0); 8];
            for q in 0..4 {
                let (a, b) = (vld1q_s32(place(q)), vld1q_s32(place(4 + q)));
                (shapes[2 * q], shapes[2 * q + 1]) = (vzip1q_s32(a, b), vzip2q_s32(a, b));
            }
            for (i, shape) in shapes.into_iter().enumerate() {
                vst1q_s32(pair.as_mut_ptr().add(16 * i).cast(), shape);
            }
        }
    }
}

/// Writes rows `m..m + n` in pairs of rows by 8 k, `eights` of them a pair; rows that are missing are zeros.
#[inline(always)]
fn pair_rows(
    x: &QuantizedRows<'_>,
    c: usize,
    m: usize,
    n: usize,
    eights: usize,
    pairs: &mut [[i8; 16]; PAIR_ROWS / 2 * CHUNK_MAX / 8],
) {
    for (i, pairs) in pairs.chunks_exact_mut(CHUNK_MAX / 8).enumerate() {
        for r in 0..2 {
            let row = 2 * i + r;
            let q = (row < n).then(|| x.q(c, m + row).as_chunks::<8>().0);
            for (k, pair) in pairs[..eights].iter_mut().enumerate() {
                pair[8 * r..8 * r + 8].copy_from_slice(q.map_or(&[0; 8], |q| &q[k]));
            }
        }
    }
}

/// Up to six rows from `m` on times a stripe's unpacked chunk in shapes of two by eight.
///
/// # Safety
/// The CPU has `i8mm`.
#[inline(always)]
unsafe fn pair_block(
    weights: &[[Tile; GROUP_TILES]],
    pairs: &[[i8; 16]; PAIR_ROWS / 2 * CHUNK_MAX / 8],
    x: &QuantizedRows<'_>,
    c: usize,
    m: usize,
    scales: [float32x4_t; 4],
    j: usize,
    out: &mut [[f32; PANEL]],
) {
    let shapes = weights.as_flattened().as_flattened().as_chunks::<{ 2 * TILE_BYTES }>().0;
    assert!(shapes.len() <= CHUNK_MAX / 8);
    // SAFETY: every aarch64 CPU has NEON.
    let mut sums = [[unsafe { vdupq_n_s32(0) }; 8]; PAIR_ROWS / 2];
    for (k, shapes) in shapes.iter().enumerate() {
        // SAFETY: pair i of three, of which each has CHUNK_MAX / 8 (asserted above); 16 bytes within 128. The CPU has `i8mm`, as
        // the entry's caller vouches.
        unsafe {
            let mut rows = [vdupq_n_s8(0); PAIR_ROWS / 2];
            for i in 0..PAIR_ROWS / 2 {
                rows[i] = vld1q_s8(pairs.get_unchecked(i * CHUNK_MAX / 8 + k).as_ptr());
            }
            for n in 0..8 {
                let w = vld1q_s8(shapes.as_ptr().add(16 * n));
                for i in 0..PAIR_ROWS / 2 {
                    sums[i][n] = smmla(sums[i][n], rows[i], w);
                }
            }
        }
    }
    for (i, out) in out.iter_mut().enumerate() {
        let mut row = [scales[0]; 4].map(|_| sums[0][0]);
        for n in 0..4 {
            let [a, b] = [sums[i / 2][2 * n], sums[i / 2][2 * n + 1]];
            // SAFETY: every aarch64 CPU has NEON.
            unsafe {
                let [a, b] = [vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b)];
                let pick = if i.is_multiple_of(2) { vzip1q_s64(a, b) } else { vzip2q_s64(a, b) };
                row[n] = vreinterpretq_s32_s64(pick);
            }
        }
        accumulate(row, x.scale(c, m + i), scales, c == 0, &mut out.as_chunks_mut().0[j]);
    }
}

/// See [`peak::multiply`](crate::ops::peak::multiply), with `smmla`.
///
/// # Safety
/// The CPU has `i8mm`.
#[target_feature(enable = "neon,i8mm")]
pub unsafe fn peak_multiply_i8mm(rounds: usize) -> (usize, f32) {
    /// Independent sums: more than latency times throughput.
    const SUMS: usize = 16;
    /// Two rows by two columns by eight.
    const MACS: usize = 32;
    let (a, b) = black_box((vdupq_n_s8(3), vdupq_n_s8(5)));
    // Zeros, but the compiler must not know that all sums are the same.
    let mut sums = black_box([vdupq_n_s32(0); SUMS]);
    for _ in 0..rounds {
        for sum in &mut sums {
            // SAFETY: by the caller's promise.
            *sum = unsafe { smmla(*sum, a, b) };
        }
    }
    let total = sums.map(|sum| vaddvq_f32(vcvtq_f32_s32(sum))).iter().sum();
    (rounds * SUMS * MACS, total)
}

/// `acc[2·i + j] + Σ_k a[8·i + k] · b[8·j + k]`; the intrinsic is not stable in Rust yet.
///
/// # Safety
/// The CPU has `i8mm`.
#[inline(always)]
unsafe fn smmla(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: by the caller's promise; registers only.
    unsafe {
        asm!(
            ".arch_extension i8mm",
            "smmla {acc:v}.4s, {a:v}.16b, {b:v}.16b",
            acc = inout(vreg) acc, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}
