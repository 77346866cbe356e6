//! Activations to int8, per row and chunk; keys and values, each as one chunk.

use super::load_at;
use crate::layout::LANES;
use crate::simd::Simd;

/// Below this a chunk counts as zero: its reciprocal would not be finite.
const TINY: f32 = 1e-30;

/// A chunk has at most so many numbers: an i32 then holds the sum of all.
const LEN_MAX: usize = (1 << 31) / 128;

/// The step of a symmetric grid of 8 bits that reaches to `max`, and its inverse.
#[inline(always)]
pub fn scale_and_inverse(max: f32) -> (f32, f32) {
    if max > TINY { (max / 127.0, 127.0 / max) } else { (0.0, 0.0) }
}

/// Quantizes a chunk of a row: `q = round(x · (127 / max|x|))`, halves to even. Gives the scale `max|x| / 127` and the
/// sum of `q`. `q` beyond `x` becomes zero; it has whole groups of 16. NaN counts as the least number; none may be a
/// signaling one, which no arithmetic gives.
#[inline(always)]
pub fn quantize_chunk<I: Simd>(isa: I, x: &[f32], q: &mut [i8]) -> (f32, i32) {
    assert!(x.len() <= q.len() && q.len() <= LEN_MAX && q.len().is_multiple_of(LANES));
    let vectors = x.len().div_ceil(LANES);
    let mut max = isa.splat(0.0);
    for i in 0..vectors {
        max = isa.max_abs(load_at(isa, x, i), max);
    }
    let max = isa.max_lane(max);
    let (scale, inverse) = scale_and_inverse(max);
    let inverse = isa.splat(inverse);
    let (values, rest) = q.as_chunks_mut::<LANES>().0.split_at_mut(vectors);
    let mut sum = isa.to_i32(isa.splat(0.0));
    for (i, q) in values.iter_mut().enumerate() {
        let v = isa.clamp(isa.mul(load_at(isa, x, i), inverse), -127.0, 127.0);
        sum = isa.store_rounded_i8(v, q, sum);
    }
    rest.fill([0; LANES]);
    (scale, isa.sum_i32(sum))
}
