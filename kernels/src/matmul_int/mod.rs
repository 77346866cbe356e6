//! Integer matrix products (int8 and int4 weights, int8 activations), one file per family of instruction sets; `scalar`
//! is the definition.

#![allow(clippy::needless_range_loop, reason = "register blocks are loops over indices of several arrays")]

mod packed;
pub mod scalar;

#[cfg(target_arch = "aarch64")]
pub mod neon;

#[cfg(target_arch = "x86_64")]
pub mod amx;
#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;

use std::ops::Range;

use crate::activations::QuantizedRows;
use crate::layout::{CHUNK_MAX, LANES, PackedMatrix};

/// Stripes of a panel: what one call of a matrix product covers.
pub const PANEL_STRIPES: usize = 4;
/// Outputs of a panel.
pub const PANEL: usize = PANEL_STRIPES * LANES;

/// Room for the unpacked weights of a panel's chunk.
#[repr(align(64))]
pub struct PanelScratch(pub(crate) [[u8; CHUNK_MAX * LANES]; PANEL_STRIPES]);

impl Default for PanelScratch {
    fn default() -> Self {
        Self([[0; CHUNK_MAX * LANES]; PANEL_STRIPES])
    }
}

/// `out[m - rows.start][j]` becomes row `m` times output `16·stripes.start + j`, for `j` below 64.
///
/// Per chunk the integers are multiplied and added exactly; then
/// `out = fma(sum, scale of the row's chunk · scale of the weights' chunk, out)`, chunk after chunk, from zero.
pub type MatmulInteger = unsafe fn(
    &PackedMatrix<'_>,
    Range<usize>,
    &QuantizedRows<'_>,
    Range<usize>,
    &mut PanelScratch,
    &mut [[f32; PANEL]],
);
