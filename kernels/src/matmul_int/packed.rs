//! Where the parts of a packed integer matrix lie: the same for all instruction sets.

use std::ops::Range;

use super::PANEL_STRIPES;
use crate::activations::QuantizedRows;
use crate::layout::{CHUNK_MAX, GROUP, LANES, MatrixLayout, PackedMatrix, TILE_BYTES, WeightFormat};

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

/// What a stream of packed weights fetches ahead of its use, chunk by chunk of some stripes side by side. The
/// hardware's own prefetcher stops at every page; nor does it know that behind these stripes come those as many
/// further, or where the scales are.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "NEON fetches ahead of one stripe only"))]
#[derive(Clone, Copy)]
pub struct StreamAhead {
    /// From the scales of a chunk to those of the next one, and where in a stripe they begin.
    scales: [usize; 2],
    /// The same of int4's group scales.
    group_scales: Option<[usize; 2]>,
    /// From a tile to the bytes to fetch.
    near: usize,
    /// From this tile on, what is to be fetched lies in other stripes, so much further.
    far_from: usize,
    far: usize,
}

#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "NEON fetches ahead of one stripe only"))]
impl StreamAhead {
    /// Ahead of chunk `c` by `distance` bytes of tiles, and by a chunk of scales, for streams of `side_by_side`
    /// stripes.
    #[inline(always)]
    pub fn new(layout: &MatrixLayout, c: usize, side_by_side: usize, distance: usize) -> Self {
        let next_stripes = side_by_side * layout.stripe_bytes();
        let int4 = layout.format == WeightFormat::Int4;
        let last = c + 1 == layout.chunks();
        let tiles = chunk_tiles(layout, c) / if int4 { 2 } else { 1 };
        let next = |bytes: usize| if last { next_stripes } else { (c + 1) * bytes };
        Self {
            scales: [next(LANES * 2), 0],
            group_scales: int4.then(|| [next(layout.chunk() / 2), layout.scale_bytes()]),
            near: distance,
            far_from: if last { tiles.saturating_sub(distance / TILE_BYTES) } else { usize::MAX },
            far: distance + next_stripes - (layout.stripe_bytes() - layout.tiles_offset()),
        }
    }

    /// The cache lines to fetch at the beginning of a chunk of `stripe`. Not all of them need be in memory.
    #[inline(always)]
    pub fn scales(&self, stripe: &[u8]) -> [*const u8; 3] {
        const { assert!(CHUNK_MAX / 2 <= 128, "two lines hold a chunk's group scales") };
        let at = |[next, first]: [usize; 2]| stripe.as_ptr().wrapping_add(next + first);
        let scales = at(self.scales);
        let group_scales = self.group_scales.map_or(scales, at);
        [scales, group_scales, group_scales.wrapping_add(64)]
    }

    /// The cache line to fetch when `tile`, number `t` of the chunk, is used. It need not be in memory.
    #[inline(always)]
    pub fn tile(&self, tile: &[u8; TILE_BYTES], t: usize) -> *const u8 {
        tile.as_ptr().wrapping_add(self.distance(t))
    }

    /// How far behind tile `t` of the chunk that cache line lies.
    #[inline(always)]
    pub fn distance(&self, t: usize) -> usize {
        if t < self.far_from { self.near } else { self.far }
    }
}
