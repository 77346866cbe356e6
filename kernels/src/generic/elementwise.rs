//! exp, tanh and GELU as our own functions, and what the graph needs between its matrix products.

use super::{load_at, store_at, vectors};
use crate::layout::LANES;
use crate::simd::Simd;

/// `eˣ`, at most 1.2 ulp off for x in -87..=88; beyond, the value at the nearer end.
///
/// `x = n·ln 2 + r` with integer `n`; `eʳ` by the polynomial of Cephes' expf (S. Moshier), `2ⁿ` by exponent bits.
#[inline(always)]
pub fn exp<I: Simd>(isa: I, x: I::F) -> I::F {
    // ln 2 in two parts: the first has so few bits that n times it is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let c = |v| isa.splat(v);
    let x = isa.min(isa.max(x, c(-87.0)), c(88.0));
    let n = isa.round_even(isa.mul(x, c(std::f32::consts::LOG2_E)));
    let r = isa.fma(n, c(-LN2_HIGH), x);
    let r = isa.fma(n, c(-LN2_LOW), r);
    let mut p = c(1.987_569_1e-4);
    for k in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = isa.fma(p, r, c(k));
    }
    let e = isa.fma(p, isa.mul(r, r), r);
    let e = isa.add(e, c(1.0));
    isa.mul(e, isa.exp2_int(n))
}

/// `tanh x`, at most 2 ulp off.
///
/// Below 0.625 Cephes' odd polynomial, above `1 - 2 / (e²ˣ + 1)`.
#[inline(always)]
pub fn tanh<I: Simd>(isa: I, x: I::F) -> I::F {
    let c = |v| isa.splat(v);
    let z = isa.mul(x, x);
    let mut p = c(-5.704_988_7e-3);
    for k in [2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1] {
        p = isa.fma(p, z, c(k));
    }
    let small = isa.fma(isa.mul(p, z), x, x);
    let magnitude = isa.abs(x);
    let e = exp(isa, isa.add(magnitude, magnitude));
    let large = isa.sub(c(1.0), isa.div(c(2.0), isa.add(e, c(1.0))));
    let large = isa.select_lt(x, c(0.0), isa.sub(c(0.0), large), large);
    isa.select_lt(magnitude, c(0.625), small, large)
}

/// GELU in its tanh form, `x/2 · (1 + tanh u)` with `u = √(2/π)·(x + 0.044715·x³)`.
///
/// Computed as `x / (1 + e⁻²ᵘ)`, which is the same and loses nothing to cancellation: at most 2 ulp off for x > 0;
/// below, rounding of u grows with the exponent, to 48 ulp (3e-6) at x = -5, where the result is -2e-6.
#[inline(always)]
pub fn gelu<I: Simd>(isa: I, x: I::F) -> I::F {
    const MINUS_2_SQRT_2_OVER_PI: f32 = -1.595_769;
    let cubic = isa.mul(isa.mul(x, x), x);
    let inner = isa.fma(cubic, isa.splat(0.044_715), x);
    let e = exp(isa, isa.mul(inner, isa.splat(MINUS_2_SQRT_2_OVER_PI)));
    isa.div(x, isa.add(isa.splat(1.0), e))
}

/// `out = gelu(x + bias)`.
#[inline(always)]
pub fn bias_gelu<I: Simd>(isa: I, x: &[f32], bias: &[f32], out: &mut [f32]) {
    assert!(x.len() == out.len() && bias.len() == out.len());
    for i in 0..vectors(out.len()) {
        let y = gelu(isa, isa.add(load_at(isa, x, i), load_at(isa, bias, i)));
        store_at(isa, y, out, i);
    }
}

/// `out = gelu(gate) · up`, where `c` alternates between 16 gates and 16 ups.
#[inline(always)]
pub fn gelu_mul<I: Simd>(isa: I, c: &[f32], out: &mut [f32]) {
    assert!(c.len() >= 2 * out.len().next_multiple_of(LANES));
    for (i, pair) in c.as_chunks::<LANES>().0.as_chunks::<2>().0.iter().enumerate().take(vectors(out.len())) {
        let y = isa.mul(gelu(isa, isa.load(&pair[0])), isa.load(&pair[1]));
        store_at(isa, y, out, i);
    }
}

/// `x = cap · tanh(x / cap)`.
#[inline(always)]
pub fn softcap<I: Simd>(isa: I, x: &mut [f32], cap: f32) {
    for i in 0..vectors(x.len()) {
        let y = isa.div(load_at(isa, x, i), isa.splat(cap));
        let y = isa.mul(tanh(isa, y), isa.splat(cap));
        store_at(isa, y, x, i);
    }
}

/// The sum of `exp(x - max)`, in lane order: what a probability is divided by.
#[inline(always)]
pub fn sum_exp<I: Simd>(isa: I, x: &[f32], max: f32) -> f32 {
    let mut sum = isa.splat(0.0);
    for i in 0..vectors(x.len()) {
        let e = exp(isa, isa.sub(load_at(isa, x, i), isa.splat(max)));
        sum = isa.add(sum, isa.keep(e, 0, x.len() - i * LANES));
    }
    isa.sum(sum)
}
