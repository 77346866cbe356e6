//! The operators of the graph, all but integer matrix products: float matrix products, norms, softmax and attention,
//! activation functions, quantizing. Written once over [`Simd`] and compiled once per instruction set.

pub mod attention;
pub mod attention_int8;
pub mod elementwise;
pub mod matmul_float;
pub mod norm;
pub mod peak;
pub mod quantize;

use crate::layout::LANES;
use crate::simd::Simd;

// Loops over vectors are written out where they are: a closure may stay a function of its own, compiled without the
// instruction set of its caller, and then costs many times more.

/// Vectors that `n` values fill, the last one perhaps in part.
#[inline(always)]
fn vectors(n: usize) -> usize {
    n.div_ceil(LANES)
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
