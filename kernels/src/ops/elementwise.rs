//! exp, tanh and GELU as our own functions, and what the graph needs between its matrix products.

use super::{load_at, store_at, vectors};
use crate::layout::LANES;
use crate::simd::Simd;

/// Bounds of errors, in units of the last place of the exact result in f32; `tests/error_bounds.rs` samples every
/// range.
///
/// What [`exp`] is off at most, for x in -87..=88.
pub const EXP_ULPS: f64 = 1.2;
/// What [`tanh`] is off at most, for any x.
pub const TANH_ULPS: f64 = 2.0;
/// What [`gelu`] is off at most, for x from 0 on.
pub const GELU_ULPS: f64 = 2.0;
/// What [`gelu`] is off at most, for x in -5..0.
pub const GELU_NEGATIVE_ULPS: f64 = 64.0;
/// What [`gelu`] is off at most for x in -1e27..-5, as a number.
pub const GELU_TAIL: f64 = 2e-11;
/// What [`gelu`] is off at most below -1e27, as a share of x: there it is `x · e⁻⁸⁸` instead of 0.
pub const GELU_FAR_TAIL: f64 = 6.1e-39;
/// What [`sum_exp`] is off at most, as a share of the sum.
pub const SUM_EXP_RELATIVE: f64 = 40.0 / (1 << 24) as f64;

/// `eˣ`, at most [`EXP_ULPS`] off for x in -87..=88; beyond, the value at the nearer end.
///
/// `x = n·ln 2 + r` with integer `n`; `eʳ` by the polynomial of Cephes' expf (S. Moshier), `2ⁿ` by exponent bits.
#[inline(always)]
pub fn exp<I: Simd>(isa: I, x: I::F) -> I::F {
    // ln 2 in two parts: the first has so few bits that n times it is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let c = |v| isa.splat(v);
    let x = isa.clamp(x, -87.0, 88.0);
    let (n, power) = isa.round_exp2(isa.mul(x, c(std::f32::consts::LOG2_E)));
    let r = isa.fma(n, c(-LN2_HIGH), x);
    let r = isa.fma(n, c(-LN2_LOW), r);
    let mut p = c(1.987_569_1e-4);
    for k in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = isa.fma(p, r, c(k));
    }
    let e = isa.fma(p, isa.mul(r, r), r);
    let e = isa.add(e, c(1.0));
    isa.mul(e, power)
}

/// `tanh x`, at most [`TANH_ULPS`] off.
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
/// Computed as `x / (1 + e⁻²ᵘ)`, which is the same and loses nothing to cancellation: at most [`GELU_ULPS`] off from 0
/// on; below, rounding of u grows with the exponent, to [`GELU_NEGATIVE_ULPS`] (6e-6 of the result) at x = -5, where
/// the result is -2e-6. Further down see [`GELU_TAIL`] and [`GELU_FAR_TAIL`].
#[inline(always)]
pub fn gelu<I: Simd>(isa: I, x: I::F) -> I::F {
    const MINUS_2_SQRT_2_OVER_PI: f32 = -1.595_769;
    let cubic = isa.mul(isa.mul(x, x), x);
    let inner = isa.fma(cubic, isa.splat(0.044_715), x);
    let e = exp(isa, isa.mul(inner, isa.splat(MINUS_2_SQRT_2_OVER_PI)));
    isa.div(x, isa.add(isa.splat(1.0), e))
}

/// `out = c + bias`, or `out = out + (c + bias)` if it is to be added; without a bias `c` alone.
#[inline(always)]
pub fn add_product<I: Simd>(isa: I, c: &[f32], bias: Option<&[f32]>, added: bool, out: &mut [f32]) {
    assert!(c.len() == out.len() && bias.is_none_or(|bias| bias.len() == out.len()));
    for i in 0..vectors(out.len()) {
        let mut x = load_at(isa, c, i);
        if let Some(bias) = bias {
            x = isa.add(x, load_at(isa, bias, i));
        }
        if added {
            x = isa.add(load_at(isa, out, i), x);
        }
        store_at(isa, x, out, i);
    }
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

/// Vectors of which [`sum_exp`] takes the sum in f32.
const SUM_VECTORS: usize = 32;

/// The sum of `exp(x - max)`: what a probability is divided by.
///
/// 512 numbers at a time are added in f32, lane by lane and then by the tree, and these sums in f64: each number is
/// rounded some 40 times at most, however many there are, and a few thousand small ones beside a large one are not
/// lost. The sum is at most [`SUM_EXP_RELATIVE`] of itself off that of the same exponentials.
#[inline(always)]
pub fn sum_exp<I: Simd>(isa: I, x: &[f32], max: f32) -> f64 {
    let mut total = 0.0;
    for part in x.chunks(SUM_VECTORS * LANES) {
        let mut sum = isa.splat(0.0);
        for i in 0..vectors(part.len()) {
            let e = exp(isa, isa.sub(load_at(isa, part, i), isa.splat(max)));
            sum = isa.add(sum, isa.keep(e, 0, part.len() - i * LANES));
        }
        total += f64::from(isa.sum(sum));
    }
    total
}
