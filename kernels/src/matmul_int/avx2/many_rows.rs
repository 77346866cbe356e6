//! Many rows: a chunk of some stripes is unpacked once, and lies in the first-level cache while all rows, six at a
//! time, are multiplied with it. What it is unpacked to, and the rows with it, is a [`Form`].

use std::ops::Range;

use super::super::packed::{NextChunk, PackedChunk, chunk_tiles};
use super::super::{PANEL, PanelScratch};
use super::forms::{Form, Prepared, room};
use super::{BLOCK_ROWS, accumulate, scales};
use crate::activations::QuantizedRows;
use crate::layout::PackedMatrix;

/// Rows from `m` on, as many as `out` has.
///
/// # Safety
/// The CPU has what `F` names, and AVX2 and FMA.
#[inline(always)]
pub(super) unsafe fn matmul<F: Form>(
    w: &PackedMatrix<'_>,
    stripes: Range<usize>,
    x: &QuantizedRows<'_>,
    m: usize,
    scratch: &mut PanelScratch,
    out: &mut [[f32; PANEL]],
) {
    let layout = w.layout();
    let mut prepared = Prepared::new();
    for c in 0..layout.chunks() {
        let next = NextChunk::new(w, &stripes, c);
        for first in stripes.clone().step_by(F::STRIPES) {
            let part = first..stripes.end.min(first + F::STRIPES);
            let rooms = scratch.0.as_flattened_mut().chunks_exact_mut(room(F::STRIPES));
            for (s, room) in part.clone().zip(rooms) {
                let chunk = PackedChunk::new(w, w.stripe(s), c);
                next.part(s - stripes.start, chunk.tiles.len(), 0, 1).fetch(0..chunk.tiles.len());
                // SAFETY: as this function's.
                unsafe { F::unpack(layout.format, chunk, room) };
            }
            let unpacked = scratch.0.as_flattened();
            let block = Block { w, stripes: part, j: first - stripes.start, unpacked, x, c };
            for (m, out) in (m..).step_by(BLOCK_ROWS).zip(out.chunks_mut(BLOCK_ROWS)) {
                // SAFETY: as this function's.
                unsafe {
                    match out.len() {
                        1 => block.rows::<F, 1>(m, &mut prepared, out),
                        2 => block.rows::<F, 2>(m, &mut prepared, out),
                        3 => block.rows::<F, 3>(m, &mut prepared, out),
                        4 => block.rows::<F, 4>(m, &mut prepared, out),
                        5 => block.rows::<F, 5>(m, &mut prepared, out),
                        _ => block.rows::<F, BLOCK_ROWS>(m, &mut prepared, out),
                    }
                }
            }
        }
    }
}

/// An unpacked chunk of some stripes, the first of which is number `j` of the panel.
struct Block<'a> {
    w: &'a PackedMatrix<'a>,
    stripes: Range<usize>,
    j: usize,
    unpacked: &'a [u8],
    x: &'a QuantizedRows<'a>,
    c: usize,
}

impl Block<'_> {
    /// Rows `m..m + M`.
    ///
    /// # Safety
    /// The CPU has what `F` names, and AVX2 and FMA.
    #[inline(always)]
    unsafe fn rows<F: Form, const M: usize>(
        &self,
        m: usize,
        prepared: &mut Prepared,
        out: &mut [[f32; PANEL]],
    ) {
        assert!(out.len() == M);
        let Self { c, x, .. } = *self;
        let (q, tiles) = (x.q_rows(c, m, M), chunk_tiles(self.w.layout(), c));
        let sums = std::array::from_fn(|i| x.sum(c, m + i));
        // SAFETY: as this function's.
        let rows = unsafe { F::rows::<M>(q, x.chunk(), tiles, prepared) };
        let stripes = self.stripes.clone().zip(self.unpacked.chunks_exact(room(F::STRIPES)));
        for (j, (s, unpacked)) in (self.j..).zip(stripes) {
            // SAFETY: as this function's; `rows` has so many tiles.
            unsafe {
                let sums = F::sums::<M>(unpacked, tiles, rows, sums);
                let scales = scales(self.w.stripe(s), c);
                for i in 0..M {
                    accumulate(sums[i], x.scale(c, m + i), scales, c == 0, &mut out[i].as_chunks_mut().0[j]);
                }
            }
        }
    }
}
