//! Where the parts of a packed integer matrix lie: the same for all instruction sets.

use std::ops::Range;

use super::PANEL_STRIPES;
use crate::activations::QuantizedRows;
use crate::layout::{GROUP, LANES, MatrixLayout, PackedMatrix, TILE_BYTES, WeightFormat};

/// Tiles of a group of 16 k.
pub const GROUP_TILES: usize = GROUP / 4;

/// What all products rely on.
pub fn check(w: &PackedMatrix<'_>, stripes: &Range<usize>, x: &QuantizedRows<'_>, rows: &Range<usize>) {
    let layout = w.layout();
    assert!(!stripes.is_empty() && stripes.len() <= PANEL_STRIPES && stripes.end <= layout.stripes());
    assert!(rows.end <= x.rows() && x.chunks() == layout.chunks() && x.chunk() == layout.chunk());
}

/// Tiles of 4 k that chunk `c` has.
#[inline(always)]
pub fn chunk_tiles(layout: &MatrixLayout, c: usize) -> usize {
    (layout.padded_cols() - c * layout.chunk()).min(layout.chunk()) / 4
}

/// The bf16 scales of a stripe's chunk, one per output.
#[inline(always)]
pub fn scale_bytes(stripe: &[u8], c: usize) -> &[u8; LANES * 2] {
    stripe[c * LANES * 2..].first_chunk().expect("a stripe holds all its scales")
}

/// The weights of a chunk of a stripe.
#[derive(Clone, Copy)]
pub struct PackedChunk<'a> {
    /// int8: a tile of 16 outputs by 4 k each. int4: two such tiles each, the first in the low nibbles.
    pub tiles: &'a [[u8; TILE_BYTES]],
    /// int4: a scale per output of each pair of groups, two nibbles each.
    pub group_scales: &'a [[u8; LANES]],
}

impl<'a> PackedChunk<'a> {
    /// Chunk `c` of `stripe`, which is one of `w`.
    #[inline(always)]
    pub fn new(w: &PackedMatrix<'a>, stripe: &'a [u8], c: usize) -> Self {
        let layout = w.layout();
        let tiles = stripe[layout.tiles_offset()..].as_chunks::<TILE_BYTES>().0;
        let (from, n) = (c * layout.chunk() / 4, chunk_tiles(layout, c));
        if layout.format == WeightFormat::Int8 {
            return Self { tiles: &tiles[from..from + n], group_scales: &[] };
        }
        let pairs = stripe[layout.scale_bytes()..layout.tiles_offset()].as_chunks::<LANES>().0;
        let first = c * layout.chunk() / GROUP / 2;
        let group_scales = &pairs[first..first + n.div_ceil(2 * GROUP_TILES)];
        Self { tiles: &tiles[from / 2..(from + n) / 2], group_scales }
    }
}
