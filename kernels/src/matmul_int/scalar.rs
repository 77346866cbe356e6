//! The definition of the integer matrix product, never optimised.

use std::ops::Range;

use super::{PANEL, PanelScratch};
use crate::activations::QuantizedRows;
use crate::layout::{LANES, PackedMatrix, integer, scale};

/// See [`super::MatmulInteger`].
pub fn matmul_integer(
    w: &PackedMatrix<'_>,
    stripes: Range<usize>,
    x: &QuantizedRows<'_>,
    rows: Range<usize>,
    _scratch: &mut PanelScratch,
    out: &mut [[f32; PANEL]],
) {
    let layout = w.layout();
    for (s, stripe) in stripes.map(|s| w.stripe(s)).enumerate() {
        for lane in 0..LANES {
            for (m, out) in rows.clone().zip(&mut *out) {
                let y = &mut out[s * LANES + lane];
                *y = 0.0;
                for c in 0..layout.chunks() {
                    let columns = c * layout.chunk()..layout.cols.min((c + 1) * layout.chunk());
                    let sum: i32 = columns
                        .map(|k| {
                            i32::from(x.q(c, m)[k % layout.chunk()])
                                * i32::from(integer(layout, stripe, lane, k))
                        })
                        .sum();
                    *y = (sum as f32).mul_add(x.scale(c, m) * scale(stripe, c, lane), *y);
                }
            }
        }
    }
}
