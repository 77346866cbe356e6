//! How the rows of a pass lie: which sequence and position each is, which attend together, which get logits.

use std::ops::Range;

use palmtop_kernels::ATTENTION_ROWS_MAX;

use crate::engine::span::{Sees, Span};
use crate::error::Result;
use crate::system::memory::Reserve;

/// The rows of a pass, in the order of its spans.
pub(crate) struct Rows {
    places: Vec<Place>,
    tiles: Vec<TilePlace>,
    /// Rows that go through the LM head.
    heads: Vec<usize>,
}

/// Where a row stands.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub sequence: usize,
    pub position: usize,
}

/// Query rows that attend to the same keys.
#[derive(Clone)]
pub(crate) struct TilePlace {
    /// The span that they are of.
    pub span: usize,
    /// The span's first row.
    pub first: usize,
    /// Rows of the span.
    pub span_rows: usize,
    /// Query rows: those of a row's heads that share keys follow each other, so row `r` is of row `r / group`.
    pub queries: Range<usize>,
}

/// What a [`Rows`] must have room for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowLimits {
    pub rows: usize,
    pub spans: usize,
    /// Query heads that share keys.
    pub group: usize,
    pub logits: usize,
}

impl Rows {
    pub fn new(reserve: &mut Reserve, limits: RowLimits) -> Result<Self> {
        // Rows that attend one by one have the most tiles.
        let tiles = limits.rows.saturating_mul(limits.group.div_ceil(ATTENTION_ROWS_MAX));
        Ok(Self {
            places: reserve.list(limits.rows)?,
            tiles: reserve.list(tiles.saturating_add(limits.spans))?,
            heads: reserve.list(limits.logits)?,
        })
    }

    /// Lays out the rows of some spans. `windowed` says whether any layer has a window.
    pub fn arrange(&mut self, spans: &[Span], image_rows: usize, group: usize, windowed: bool) {
        self.places.clear();
        self.tiles.clear();
        self.heads.clear();
        for (index, span) in spans.iter().enumerate() {
            let (first, rows) = (self.places.len(), span.rows(image_rows));
            let place = |row| Place { sequence: span.sequence, position: span.position + row };
            self.places.extend((0..rows).map(place));
            self.heads.extend(first + rows - span.logits..first + rows);
            // A tile has one range of keys.
            let alike = span.sees == Sees::Whole && (span.position == 0 || !windowed);
            let (blocks, block) = if alike { (1, rows * group) } else { (rows, group) };
            // Tiles of about the same size, so that none is nearly empty.
            let tiles = block.div_ceil(ATTENTION_ROWS_MAX);
            for b in 0..blocks {
                let start = first * group + b * block;
                self.tiles.extend((0..tiles).map(|i| TilePlace {
                    span: index,
                    first,
                    span_rows: rows,
                    queries: start + i * block / tiles..start + (i + 1) * block / tiles,
                }));
            }
        }
    }

    pub fn places(&self) -> &[Place] {
        &self.places
    }

    pub fn tiles(&self) -> &[TilePlace] {
        &self.tiles
    }

    pub fn heads(&self) -> &[usize] {
        &self.heads
    }

    /// The rows that go through the LM head have taken the first places; gives their number.
    pub fn only_heads_are_left(&mut self) -> usize {
        self.heads.iter_mut().enumerate().for_each(|(place, row)| *row = place);
        self.heads.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_row_is_in_one_tile_whose_rows_see_the_same_keys() {
        let span = |sequence, position, pictures, tokens, sees, logits| Span {
            sequence,
            position,
            pictures,
            tokens,
            sees,
            logits,
        };
        let image_rows = 9;
        for spans in [
            vec![span(0, 0, 2, 5, Sees::Whole, 1)],
            vec![span(1, 7, 0, 1, Sees::Causal, 1), span(0, 3, 0, 4, Sees::Causal, 3)],
            vec![span(0, 0, 1, 0, Sees::Whole, 0), span(0, 9, 0, 3, Sees::Causal, 3)],
            vec![span(0, 4, 0, 6, Sees::Whole, 1)],
        ] {
            for group in [1, 2, 7, 8, 13] {
                for window in [None, Some(2), Some(6)] {
                    let limits = RowLimits { rows: 40, spans: 2, group, logits: 6 };
                    let mut rows = Rows::new(&mut Reserve::taking(false), limits).unwrap();
                    let room = (rows.places.capacity(), rows.tiles.capacity(), rows.heads.capacity());
                    rows.arrange(&spans, image_rows, group, window.is_some());
                    assert_eq!(room, (rows.places.capacity(), rows.tiles.capacity(), rows.heads.capacity()));
                    let mut next = 0;
                    for tile in rows.tiles() {
                        assert!(
                            tile.queries.start == next
                                && (1..=ATTENTION_ROWS_MAX).contains(&tile.queries.len())
                        );
                        next = tile.queries.end;
                        let keys = |query: usize| {
                            let row = query / group - tile.first;
                            spans[tile.span].keys(row, tile.span_rows, window)
                        };
                        assert!(tile.queries.clone().all(|query| keys(query) == keys(tile.queries.start)));
                    }
                    assert_eq!(next, rows.places().len() * group);
                    assert_eq!(rows.heads().len(), spans.iter().map(|s| s.logits).sum::<usize>());
                }
            }
        }
    }
}
