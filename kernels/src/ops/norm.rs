//! RMSNorm and LayerNorm of one row. Sums run over sixteen lanes, then the fixed tree.

use super::{load_at, store_at, vectors};
use crate::layout::LANES;
use crate::simd::Simd;

/// `out = x / √(mean(x²) + eps) · weight`; Gemma's `1 + w` is in `weight` already.
#[inline(always)]
pub fn rms_norm<I: Simd>(isa: I, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    assert!(x.len() == out.len() && weight.len() == out.len());
    let mut squares = isa.splat(0.0);
    for i in 0..vectors(x.len()) {
        let v = load_at(isa, x, i);
        squares = isa.fma(v, v, squares);
    }
    let scale = isa.splat(1.0 / (isa.sum(squares) / x.len() as f32 + eps).sqrt());
    for i in 0..vectors(x.len()) {
        let y = isa.mul(isa.mul(load_at(isa, x, i), scale), load_at(isa, weight, i));
        store_at(isa, y, out, i);
    }
}

/// `out = (x - mean) / √(variance + eps) · weight + bias`.
#[inline(always)]
pub fn layer_norm<I: Simd>(isa: I, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    assert!(x.len() == out.len() && weight.len() == out.len() && bias.len() == out.len());
    let n = x.len() as f32;
    let mut sum = isa.splat(0.0);
    for i in 0..vectors(x.len()) {
        sum = isa.add(sum, load_at(isa, x, i));
    }
    let mean = isa.splat(isa.sum(sum) / n);
    let mut squares = isa.splat(0.0);
    for i in 0..vectors(x.len()) {
        let d = isa.keep(isa.sub(load_at(isa, x, i), mean), 0, x.len() - i * LANES);
        squares = isa.fma(d, d, squares);
    }
    let scale = isa.splat(1.0 / (isa.sum(squares) / n + eps).sqrt());
    for i in 0..vectors(x.len()) {
        let y = isa.mul(isa.sub(load_at(isa, x, i), mean), scale);
        let y = isa.fma(y, load_at(isa, weight, i), load_at(isa, bias, i));
        store_at(isa, y, out, i);
    }
}
