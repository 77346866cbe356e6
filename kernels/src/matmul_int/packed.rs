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

/// The packed tiles that a panel needs behind chunk `c`, of the next chunk or of the next panel's first one: they are
/// fetched part by part while rows are multiplied, which takes longer than weights take to come, so that unpacking need
/// not wait for memory.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub struct Ahead<'a> {
    tiles: [&'a [[u8; TILE_BYTES]]; PANEL_STRIPES],
    /// Tiles of a part.
    part: usize,
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
impl<'a> Ahead<'a> {
    /// In so many parts.
    #[inline(always)]
    pub fn new(w: &PackedMatrix<'a>, stripes: &Range<usize>, c: usize, parts: usize) -> Self {
        let is_last = c + 1 == w.layout().chunks();
        let mut tiles: [&[[u8; TILE_BYTES]]; PANEL_STRIPES] = [&[]; PANEL_STRIPES];
        for (j, s) in stripes.clone().enumerate() {
            let (s, c) = if is_last { (s + stripes.len(), 0) } else { (s, c + 1) };
            if s < w.layout().stripes() {
                tiles[j] = PackedChunk::new(w, w.stripe(s), c).tiles;
            }
        }
        Self { tiles, part: tiles[0].len().div_ceil(parts.max(1)) }
    }

    /// Calls `fetch` with the address of every tile of a part.
    #[inline(always)]
    pub fn fetch(&self, part: usize, fetch: impl Fn(*const u8)) {
        for tiles in &self.tiles {
            for tile in tiles.iter().skip(part * self.part).take(self.part) {
                fetch(tile.as_ptr());
            }
        }
    }
}

/// Fetches a cache line, into the first-level cache.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn prefetch(address: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch may be given any address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
}

/// Fetches a cache line into the second-level cache, which can wait for more of them at once than the first.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn prefetch_far(address: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    // SAFETY: a prefetch may be given any address.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) };
}

/// Tiles after which is fetched what is due: not so many that the requests have to wait for each other.
#[cfg(target_arch = "x86_64")]
pub const PIECE: usize = 16;

/// The next chunk of the stripes of a panel, to be fetched while the present one is multiplied, stripe after stripe. A
/// line of each stripe in turn is fetched: so memory sees several streams, each without a gap.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct NextChunk {
    tiles: [*const u8; PANEL_STRIPES],
    /// A line is due with so many tiles; none at all if 0.
    every: usize,
}

#[cfg(target_arch = "x86_64")]
impl NextChunk {
    /// What follows chunk `c` of `stripes`; behind the last one that is the first chunk of the next panel.
    #[inline(always)]
    pub fn new(w: &PackedMatrix<'_>, stripes: &Range<usize>, c: usize) -> Self {
        let layout = w.layout();
        let (next, panel) =
            if c + 1 < layout.chunks() { (c + 1, 0) } else { (0, stripes.len() * layout.stripe_bytes()) };
        let int4 = layout.format == WeightFormat::Int4;
        let from = next * layout.chunk() * LANES / if int4 { 2 } else { 1 };
        let mut tiles = [std::ptr::null(); PANEL_STRIPES];
        for (i, tiles) in tiles.iter_mut().enumerate() {
            let stripe = w.stripe(stripes.start + i.min(stripes.len() - 1)).as_ptr().wrapping_add(panel);
            *tiles = stripe.wrapping_add(layout.tiles_offset() + from);
            prefetch(stripe.wrapping_add(next * LANES * 2));
            if int4 {
                let scales = stripe.wrapping_add(layout.scale_bytes() + next * layout.chunk() / 2);
                prefetch(scales);
                prefetch(scales.wrapping_add(64));
            }
        }
        Self { tiles, every: 1 }
    }

    /// What is to be fetched during stripe `j`, of `tiles` tiles: a quarter of all. Block `b` of `blocks` blocks of
    /// rows that read it in turn fetches its share of that.
    #[inline(always)]
    pub fn part(&self, j: usize, tiles: usize, b: usize, blocks: usize) -> Self {
        // The first two of several blocks fetch a half each.
        let share = blocks.min(2);
        let from = (j * tiles + b * tiles / share) / PANEL_STRIPES * TILE_BYTES;
        Self { tiles: self.tiles.map(|t| t.wrapping_add(from)), every: if b < share { share } else { 0 } }
    }

    /// Fetches what is due with these tiles of the part.
    #[inline(always)]
    pub fn fetch(&self, of: Range<usize>) {
        let every = PANEL_STRIPES * self.every;
        if every == 0 {
            return;
        }
        for line in of.start / every..of.end / every {
            for stripe in self.tiles {
                prefetch(stripe.wrapping_add(line * TILE_BYTES));
            }
        }
    }
}
