//! Attention of a few query rows over a range of keys: no matrix of all scores, two products and a softmax.

use super::elementwise::{exp, softcap};
use super::matmul_float::{Element, matmul};
use super::{load_at, store_at};
use crate::layout::LANES;
use crate::simd::Simd;

/// Keys and values of one head, laid out as stripes so that both products are plain packed products.
///
/// Keys: blocks of 16 keys, each `[head_dim][16]`. Values: stripes of 16 dimensions, each `[capacity][16]`.
/// Floats stand for themselves; an i8 stands for itself times the scale of its key or value.
#[derive(Clone, Copy)]
pub struct KeysValues<'a, W> {
    /// `capacity / 16` blocks of `head_dim · 16`.
    pub keys: &'a [W],
    /// `⌈head_dim / 16⌉` stripes of `capacity · 16`.
    pub values: &'a [W],
    /// Keys that there is room for, a multiple of 16.
    pub capacity: usize,
    /// Of integers; floats have none.
    pub scales: Option<KvScales<'a>>,
}

/// What the integers of each key and of each value are multiplied by, `capacity` numbers each.
#[derive(Clone, Copy)]
pub struct KvScales<'a> {
    /// `max|k| / 127` of each key.
    pub keys: &'a [f32],
    /// `max|v| / 127` of each value.
    pub values: &'a [f32],
}

/// What the scores go through before the softmax.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// They are multiplied by this.
    pub scale: f32,
    /// Then `cap · tanh(score / cap)`.
    pub softcap: Option<f32>,
}

/// `out[r] = softmax(q[r] · keys[range]) · values[range]` for each of a few rows of `head_dim` queries.
///
/// All rows see the same range of keys. `scores` has room for `rows · capacity` numbers; `out` has rows of
/// `⌈head_dim / 16⌉ · 16`. The softmax sums over lanes `key mod 16`, then by the tree. A key's scale multiplies its
/// scores before all else, a value's scale the weights that it is multiplied with, once their sum is taken.
#[inline(always)]
pub fn attention<I: Simd, W: Element>(
    isa: I,
    q: &[f32],
    rows: usize,
    head_dim: usize,
    kv: KeysValues<'_, W>,
    range: std::ops::Range<usize>,
    how: Scores,
    scores: &mut [f32],
    out: &mut [f32],
) {
    assert!(range.start < range.end && range.end <= kv.capacity && kv.capacity.is_multiple_of(LANES));
    let stripes = head_dim.div_ceil(LANES);
    let first = range.start / LANES * LANES;
    let keys = range.end - first;
    let stride = keys.next_multiple_of(LANES);
    let scores = &mut scores[..rows * stride];
    let blocks = &kv.keys[first * head_dim..];
    matmul(isa, q, head_dim, rows, blocks, head_dim * LANES, stride / LANES, head_dim, scores, stride);
    let scales = kv.scales.map(|scales| KvScales {
        keys: &scales.keys[first..range.end],
        values: &scales.values[first..range.end],
    });
    let mut inverse = [0.0; ROWS_MAX];
    for (row, inverse) in scores.chunks_exact_mut(stride).zip(&mut inverse[..rows]) {
        *inverse = 1.0 / softmax_numerators(isa, &mut row[..keys], range.start - first, how, scales);
    }
    let values = &kv.values[first * LANES..];
    matmul(isa, scores, stride, rows, values, kv.capacity * LANES, stripes, keys, out, stripes * LANES);
    for (row, &inverse) in out.chunks_exact_mut(stripes * LANES).zip(&inverse[..rows]) {
        row.iter_mut().for_each(|x| *x *= inverse);
    }
}

/// Query rows of a call, at most.
pub const ROWS_MAX: usize = super::matmul_float::BLOCK_ROWS;

/// Turns scores into `exp(score - max)`, zero for the keys below `skip`, and gives their sum. With scales, of these
/// keys and values, scores are multiplied by the keys' first, and what becomes of them by the values' last.
#[inline(always)]
fn softmax_numerators<I: Simd>(
    isa: I,
    row: &mut [f32],
    skip: usize,
    how: Scores,
    scales: Option<KvScales<'_>>,
) -> f32 {
    let vectors = row.len().div_ceil(LANES);
    if let Some(scales) = scales {
        for i in 0..vectors {
            store_at(isa, isa.mul(load_at(isa, row, i), load_at(isa, scales.keys, i)), row, i);
        }
    }
    row.iter_mut().for_each(|x| *x *= how.scale);
    if let Some(cap) = how.softcap {
        softcap(isa, row, cap);
    }
    let max = row[skip..].iter().copied().fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b });
    let mut sum = isa.splat(0.0);
    for i in 0..vectors {
        let e = exp(isa, isa.sub(load_at(isa, row, i), isa.splat(max)));
        let from = if i == 0 { skip } else { 0 };
        let e = isa.keep(e, from, row.len() - i * LANES);
        sum = isa.add(sum, e);
        let weight = match scales {
            Some(scales) => isa.mul(e, load_at(isa, scales.values, i)),
            None => e,
        };
        store_at(isa, weight, row, i);
    }
    isa.sum(sum)
}
