//! Activations to int8, per row and chunk.

use super::load_at;
use crate::layout::{GROUP, LANES};
use crate::simd::Simd;

/// Below this a chunk counts as zero: its reciprocal would not be finite.
const TINY: f32 = 1e-30;

/// Quantizes a chunk of a row: `q = round(x · (127 / max|x|))`, halves to even, and gives the scale `max|x| / 127`.
///
/// `q` beyond `x` becomes zero; `sums[g]` is the sum of `q` over group `g` of 16. `q` has whole groups.
#[inline(always)]
pub fn quantize_chunk<I: Simd>(isa: I, x: &[f32], q: &mut [i8], sums: &mut [i32]) -> f32 {
    const { assert!(GROUP == LANES, "a vector is a group") };
    assert!(x.len() <= q.len() && q.len() == sums.len() * GROUP);
    let vectors = x.len().div_ceil(LANES);
    let mut max = isa.splat(0.0);
    for i in 0..vectors {
        max = isa.max(isa.abs(load_at(isa, x, i)), max);
    }
    let max = isa.max_lane(max);
    let (scale, inverse) = if max > TINY { (max / 127.0, 127.0 / max) } else { (0.0, 0.0) };
    let inverse = isa.splat(inverse);
    for (i, (q, sum)) in q.as_chunks_mut::<GROUP>().0.iter_mut().zip(sums).enumerate() {
        if i < vectors {
            let v = isa.round_even(isa.mul(load_at(isa, x, i), inverse));
            let v = isa.min(isa.max(v, isa.splat(-127.0)), isa.splat(127.0));
            isa.store_i8(v, q);
            *sum = q.iter().map(|&q| i32::from(q)).sum();
        } else {
            *q = [0; GROUP];
            *sum = 0;
        }
    }
    scale
}
