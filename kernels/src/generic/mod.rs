//! The kernels, written once over [`Simd`](crate::simd::Simd) and compiled once per instruction set.

pub mod attention;
pub mod attention_int8;
pub mod elementwise;
pub mod matmul_float;
pub mod norm;
pub mod peak;
pub mod quantize;

use crate::layout::LANES;
use crate::simd::Simd;

/// Calls `f(index, lanes)` for every vector of `x`; the last one may have zeros in its upper lanes.
#[inline(always)]
fn for_each_vector<I: Simd>(isa: I, x: &[f32], mut f: impl FnMut(usize, I::F)) {
    let (full, tail) = x.as_chunks::<LANES>();
    for (i, v) in full.iter().enumerate() {
        f(i, isa.load(v));
    }
    if !tail.is_empty() {
        f(full.len(), isa.load_tail(tail));
    }
}

/// Stores `v` as vector number `i` of `out`, cut where `out` ends.
#[inline(always)]
fn store_at<I: Simd>(isa: I, v: I::F, out: &mut [f32], i: usize) {
    let rest = &mut out[i * LANES..];
    match rest.first_chunk_mut::<LANES>() {
        Some(full) => isa.store(v, full),
        None => isa.store_tail(v, rest),
    }
}

/// Vector number `i` of `x`, zeros beyond its end.
#[inline(always)]
fn load_at<I: Simd>(isa: I, x: &[f32], i: usize) -> I::F {
    let rest = &x[i * LANES..];
    match rest.first_chunk::<LANES>() {
        Some(full) => isa.load(full),
        None => isa.load_tail(rest),
    }
}
