//! Integer matrix products with NEON: the base set, `sdot`, and `smmla`.
//!
//! One or two rows stream the packed weights through registers (`few_rows`). More rows unpack a chunk of the panel into
//! the first-level cache as signed bytes (`panel`), and use it for all of them: two rows by sixteen outputs at a time
//! without a dot product, five with `sdot` (`dots`), six with `smmla` (`pairs`).

mod dots;
mod few_rows;
mod pairs;
mod panel;

pub use pairs::{matmul_integer_i8mm, peak_multiply_i8mm};

use std::arch::aarch64::*;
use std::ops::Range;

use self::dots::{Base, Dotprod, Dots};
use self::few_rows::stream;
use self::panel::unpack_panel;
use super::packed::{Ahead, GROUP_TILES, check, scale_bytes};
use super::{PANEL, PANEL_STRIPES, PanelScratch};
use crate::activations::QuantizedRows;
use crate::layout::{CHUNK_MAX, GROUP, LANES, PackedMatrix, TILE_BYTES};
use crate::simd::neon::{ROUNDS, prefetch_far};

/// From so many rows on, weights are unpacked once into the first-level cache and used for all rows.
const UNPACK_FROM_ROWS: usize = 3;

/// What sums start at: read as floats they are then the sum beside 1.5 · 2²³, and one subtraction is exact.
const START: i32 = ROUNDS.to_bits() as i32;
const _: () = assert!(CHUNK_MAX * 128 * 127 < 1 << 22, "a sum must not reach the exponent");

/// A tile of 16 outputs by 4 k.
type Tile = [i8; TILE_BYTES];

/// A register in memory.
#[derive(Clone, Copy)]
struct Aligned(int32x4_t);

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
        let scales = panel_scales(w, &stripes, c);
        let ahead = Ahead::new(w, &stripes, c, rows.len().div_ceil(D::BLOCK_ROWS));
        for (b, out) in out.chunks_mut(D::BLOCK_ROWS).enumerate() {
            let m = rows.start + b * D::BLOCK_ROWS;
            ahead.fetch(b, prefetch_far);
            for (j, scales) in scales.iter().enumerate().take(stripes.len()) {
                let weights = cast_i8(&scratch.0[j][..tiles * TILE_BYTES]);
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
    // SAFETY: every aarch64 CPU has NEON.
    let mut scales = [unsafe { vdupq_n_f32(0.0) }; 4];
    for i in 0..4 {
        // SAFETY: 8 bytes are read from within an array of 32.
        scales[i] = unsafe {
            let bf16 = vld1_u16(bytes.as_ptr().add(8 * i).cast());
            vreinterpretq_f32_u32(vshll_n_u16::<16>(bf16))
        };
    }
    scales
}

/// The scales of a chunk of all stripes of a panel, before its rows come: most products are of few chunks and many
/// rows.
#[inline(always)]
fn panel_scales(w: &PackedMatrix<'_>, stripes: &Range<usize>, c: usize) -> [[float32x4_t; 4]; PANEL_STRIPES] {
    // SAFETY: every aarch64 CPU has NEON.
    let mut all = [[unsafe { vdupq_n_f32(0.0) }; 4]; PANEL_STRIPES];
    for (j, s) in stripes.clone().enumerate() {
        all[j] = scales(w.stripe(s), c);
    }
    all
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
    scales: &[float32x4_t; 4],
    j: usize,
    out: &mut [[f32; PANEL]],
) {
    let (q, stride) = (x.q_rows(c, m, M), x.chunk());
    assert!(weights.len() * GROUP <= stride && q.len() == M * stride && j < PANEL_STRIPES);
    // All checks stand here: behind the sums, each row would have its own.
    let out: &mut [[f32; PANEL]; M] = out.try_into().expect("M rows");
    let x_scales: &[f32; M] = x.scales(c, m, M).try_into().expect("M rows");
    // SAFETY: M rows of 16 bytes for each of at most stride / 16 groups, as asserted above. The CPU has what `D` needs, as the
    // caller vouches.
    let sums = unsafe { D::sums::<M>(weights, q, stride) };
    for i in 0..M {
        accumulate(sums[i], x_scales[i], scales, c == 0, &mut out[i].as_chunks_mut().0[j]);
    }
}

/// `out = fma(sum, activation scale · weight scale, out)`; sums began at [`START`].
#[inline(always)]
fn accumulate(
    sums: [int32x4_t; 4],
    x_scale: f32,
    scales: &[float32x4_t; 4],
    first: bool,
    out: &mut [f32; LANES],
) {
    for n in 0..4 {
        // SAFETY: four numbers within an array of 16.
        unsafe {
            let place = out.as_mut_ptr().add(4 * n);
            let before = if first { vdupq_n_f32(0.0) } else { vld1q_f32(place) };
            let scale = vmulq_n_f32(scales[n], x_scale);
            let sum = vsubq_f32(vreinterpretq_f32_s32(sums[n]), vdupq_n_f32(ROUNDS));
            vst1q_f32(place, vfmaq_f32(before, sum, scale));
        }
    }
}
