//! A panel's weights on their way from memory to the first-level cache, as signed bytes.

use std::arch::aarch64::*;
use std::ops::Range;

use super::Aligned;
use crate::layout::{LANES, PackedMatrix, TILE_BYTES, WeightFormat};
use crate::matmul_int::PanelScratch;
use crate::matmul_int::packed::{GROUP_TILES, PackedChunk, chunk_tiles};

impl PackedChunk<'_> {
    /// int4: the scales of group `g`, one byte per output.
    #[inline(always)]
    pub(super) fn scale_bytes(&self, g: usize) -> uint8x16_t {
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
pub(super) const fn spread(q: u8, all: bool) -> [u8; 16] {
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

/// Writes chunk `c` of the panel as signed bytes, each stripe's tiles one behind the other, and zeros up to whole
/// groups; gives the tiles of a stripe.
#[inline(always)]
pub(super) fn unpack_panel(
    w: &PackedMatrix<'_>,
    stripes: &Range<usize>,
    c: usize,
    scratch: &mut PanelScratch,
) -> usize {
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
                    let shift = Aligned(vreinterpretq_s32_s8(shift));
                    for half in 0..2 {
                        let packed = vld1q_u8(chunk.tiles[2 * g + half].as_ptr().add(16 * q));
                        let nibbles = [vandq_u8(packed, vdupq_n_u8(15)), vshrq_n_u8::<4>(packed)];
                        for (h, nibbles) in nibbles.into_iter().enumerate() {
                            // Loaded each time: see `stream_int4`.
                            let shift = vreinterpretq_u8_s32(std::ptr::read_volatile(&raw const shift.0));
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
