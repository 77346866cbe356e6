//! Attention in 8-bit integers, for rows that all see the same keys: the image encoder, and a decoder's prefix.
//!
//! Keys come in chunks of 256. Both products run in integers, exact in any order; between them and around them is a
//! fixed number of f32 operations per chunk, so a result depends on nothing but its inputs.
//!
//! ```text
//! key    k ≈ mean + scale[key] · k8          mean of the first chunk's keys; k8 in -127..=127
//! value  v ≈ scale[chunk][dim] · v8
//! query  q ≈ scale · q8
//! score  s = (Σ q8·k8 · scale · scale[key] + q·mean) · how.scale, soft-capped if asked for
//! weight w8 = round(254 · exp(s - max of the chunk))
//! out    Σ_chunks exp(max of the chunk - max) · scale[chunk] · Σ w8·v8   /   Σ_chunks exp(max of the chunk - max) · Σ w8
//! ```
//!
//! Weights are multiplied as `w8 - 127`, which is an i8; `127 · Σ v8`, kept with the values, puts that right.
//!
//! Keys are taken relative to a mean because in trained models a few dimensions of all keys share a large offset, which
//! would cost the others their resolution (SageAttention, arXiv 2410.02367). The weights that are added up below the line
//! are the rounded ones, so that they sum to one.

use super::attention::Scores;
use super::elementwise::{exp, softcap};
use super::quantize::{quantize_chunk, scale_and_inverse};
use super::{for_each_vector, load_at, store_at};
use crate::layout::{LANES, TILE_BYTES};
use crate::simd::Simd;

/// Keys of a chunk.
pub const KEYS: usize = 256;
/// Query rows of a call, at most: so many share a chunk of keys and values in the first-level cache.
pub const ROWS_MAX: usize = 24;
/// Widest head.
pub const HEAD_DIM_MAX: usize = 256;
/// Rows of a register block.
const BLOCK_ROWS: usize = 6;
/// Key blocks of a chunk.
const BLOCKS: usize = KEYS / LANES;

/// A tile of 16 lanes by 4 bytes.
type Tile = [i8; TILE_BYTES];

/// Numbers of elements that a chunk of a head's keys and values takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkShape {
    /// Dimensions of the head, at most [`HEAD_DIM_MAX`].
    pub head_dim: usize,
}

impl ChunkShape {
    /// Tiles of 16 keys by 4 dimensions that a block of 16 keys has.
    const fn key_tiles(&self) -> usize {
        self.head_dim.div_ceil(4)
    }

    /// Stripes of 16 dimensions.
    const fn stripes(&self) -> usize {
        self.head_dim.div_ceil(LANES)
    }

    /// Bytes: keys in blocks of 16, each with its tiles; then values in stripes of 16 dimensions by 4 keys.
    pub const fn bytes(&self) -> usize {
        (BLOCKS * self.key_tiles() + self.stripes() * KEYS / 4) * TILE_BYTES
    }

    /// f32: a scale per key, a scale per dimension, the sum of the integers per dimension.
    pub const fn scales(&self) -> usize {
        KEYS + 2 * self.stripes() * LANES
    }
}

/// A head's keys and values.
#[derive(Clone, Copy)]
pub struct Int8KeysValues<'a> {
    /// [`ChunkShape::bytes`] for each chunk.
    pub bytes: &'a [i8],
    /// [`ChunkShape::scales`] for each chunk.
    pub scales: &'a [f32],
    /// What keys are relative to, `head_dim`.
    pub mean: &'a [f32],
    /// Keys.
    pub keys: usize,
}

/// Memory of a call.
pub struct Int8Scratch {
    q: [[i8; HEAD_DIM_MAX]; ROWS_MAX],
    rows: [Row; ROWS_MAX],
    scores: [[f32; KEYS]; BLOCK_ROWS],
    weights: [[i8; KEYS]; BLOCK_ROWS],
}

impl Default for Int8Scratch {
    fn default() -> Self {
        Self {
            q: [[0; HEAD_DIM_MAX]; ROWS_MAX],
            rows: [Row::default(); ROWS_MAX],
            scores: [[0.0; KEYS]; BLOCK_ROWS],
            weights: [[0; KEYS]; BLOCK_ROWS],
        }
    }
}

/// What is kept of a query row from chunk to chunk.
#[derive(Clone, Copy, Default)]
struct Row {
    /// Of the quantized query.
    scale: f32,
    sum: i32,
    /// `q · mean`
    offset: f32,
    /// Largest score so far.
    max: f32,
    /// Weights so far, relative to `max`.
    weight: f32,
}

/// Mean of up to a chunk of keys, `head_dim` numbers `stride` apart: what [`quantize_keys_values`] takes off.
#[inline(always)]
pub fn mean_of_keys<I: Simd>(isa: I, keys: &[f32], stride: usize, n: usize, mean: &mut [f32]) {
    let head_dim = mean.len();
    let inverse = isa.splat(1.0 / n as f32);
    for i in 0..head_dim.div_ceil(LANES) {
        let mut sum = isa.splat(0.0);
        for key in 0..n {
            sum = isa.add(sum, load_at(isa, &keys[key * stride..][..head_dim], i));
        }
        store_at(isa, isa.mul(sum, inverse), mean, i);
    }
}

/// Quantizes `n` keys and values, at most a chunk. Key `i` is the `head_dim` numbers from `i · stride` of `keys`, value `i`
/// likewise.
#[inline(always)]
pub fn quantize_keys_values<I: Simd>(
    isa: I,
    keys: &[f32],
    values: &[f32],
    stride: usize,
    n: usize,
    mean: &[f32],
    bytes: &mut [i8],
    scales: &mut [f32],
) {
    let shape = ChunkShape { head_dim: mean.len() };
    assert!(n <= KEYS && shape.head_dim <= HEAD_DIM_MAX);
    assert!(bytes.len() == shape.bytes() && scales.len() == shape.scales());
    let (key_scales, rest) = scales.split_at_mut(KEYS);
    let (value_scales, value_sums) = rest.split_at_mut(shape.stripes() * LANES);
    let tiles = bytes.as_chunks_mut::<TILE_BYTES>().0;
    let (key_tiles, value_tiles) = tiles.split_at_mut(BLOCKS * shape.key_tiles());
    let (mut relative, mut q) = ([0.0; HEAD_DIM_MAX], [0; HEAD_DIM_MAX]);
    for (i, scale) in key_scales[..n].iter_mut().enumerate() {
        let relative = &mut relative[..shape.head_dim];
        let key = &keys[i * stride..][..shape.head_dim];
        for_each_vector(isa, key, |v, k| store_at(isa, isa.sub(k, load_at(isa, mean, v)), relative, v));
        (*scale, _) = quantize_chunk(isa, relative, &mut q[..shape.stripes() * LANES]);
        let block = &mut key_tiles[i / LANES * shape.key_tiles()..][..shape.key_tiles()];
        for (tile, part) in block.iter_mut().zip(q.as_chunks::<4>().0) {
            tile[i % LANES * 4..][..4].copy_from_slice(part);
        }
    }
    for (s, stripe) in value_tiles.chunks_exact_mut(KEYS / 4).enumerate() {
        let value = |i: usize| load_at(isa, &values[i * stride..][..shape.head_dim], s);
        let mut max = isa.splat(0.0);
        for i in 0..n {
            max = isa.max(isa.abs(value(i)), max);
        }
        let mut maxima = [0.0; LANES];
        isa.store(max, &mut maxima);
        let pairs = maxima.map(scale_and_inverse);
        value_scales[s * LANES..][..LANES].copy_from_slice(&pairs.map(|(scale, _)| scale));
        let inverse = isa.load(&pairs.map(|(_, inverse)| inverse));
        let mut sum = isa.splat(0.0);
        // Behind the last key zeros, up to whole tiles.
        for i in 0..n.next_multiple_of(4) {
            let v = if i < n { isa.round_even(isa.mul(value(i), inverse)) } else { isa.splat(0.0) };
            let v = isa.min(isa.max(v, isa.splat(-127.0)), isa.splat(127.0));
            sum = isa.add(sum, v);
            let mut column = [0; LANES];
            isa.store_i8(v, &mut column);
            for (lane, v) in stripe[i / 4].as_chunks_mut::<4>().0.iter_mut().zip(column) {
                lane[i % 4] = v;
            }
        }
        store_at(isa, sum, value_sums, s);
    }
}

/// `out[r] = softmax(scores of q[r] with all keys) · values` for rows of `head_dim` queries; see the head of this file.
///
/// `out` has rows of `⌈head_dim / 16⌉ · 16`.
#[inline(always)]
pub fn attention_int8<I: Simd>(
    isa: I,
    q: &[f32],
    rows: usize,
    kv: Int8KeysValues<'_>,
    how: Scores,
    scratch: &mut Int8Scratch,
    out: &mut [f32],
) {
    let shape = ChunkShape { head_dim: kv.mean.len() };
    let width = shape.stripes() * LANES;
    assert!(rows <= ROWS_MAX && shape.head_dim <= HEAD_DIM_MAX && kv.keys > 0);
    assert!(kv.scales.len() >= kv.keys.div_ceil(KEYS) * shape.scales());
    let out = &mut out[..rows * width];
    for (r, q) in q.chunks_exact(shape.head_dim).take(rows).enumerate() {
        let mut dot = isa.splat(0.0);
        for_each_vector(isa, q, |i, v| dot = isa.fma(v, load_at(isa, kv.mean, i), dot));
        let (scale, sum) = quantize_chunk(isa, q, &mut scratch.q[r][..width]);
        scratch.rows[r] = Row { scale, sum, offset: isa.sum(dot), max: f32::NEG_INFINITY, weight: 0.0 };
    }
    let chunks = kv.bytes.chunks_exact(shape.bytes()).zip(kv.scales.chunks_exact(shape.scales()));
    for (c, (bytes, scales)) in chunks.enumerate().take(kv.keys.div_ceil(KEYS)) {
        let chunk = Chunk { shape, bytes, scales, keys: KEYS.min(kv.keys - c * KEYS), how, first: c == 0 };
        for first in (0..rows).step_by(BLOCK_ROWS) {
            let out = &mut out[first * width..];
            match rows - first {
                1 => chunk.rows::<I, 1>(isa, first, scratch, out),
                2 => chunk.rows::<I, 2>(isa, first, scratch, out),
                3 => chunk.rows::<I, 3>(isa, first, scratch, out),
                4 => chunk.rows::<I, 4>(isa, first, scratch, out),
                5 => chunk.rows::<I, 5>(isa, first, scratch, out),
                _ => chunk.rows::<I, BLOCK_ROWS>(isa, first, scratch, out),
            }
        }
    }
    for (row, out) in scratch.rows.iter().zip(out.chunks_exact_mut(width)) {
        let inverse = isa.splat(1.0 / row.weight);
        out.as_chunks_mut().0.iter_mut().for_each(|x| isa.store(isa.mul(isa.load(x), inverse), x));
    }
}

/// A chunk of a head's keys and values.
struct Chunk<'a> {
    shape: ChunkShape,
    bytes: &'a [i8],
    scales: &'a [f32],
    keys: usize,
    how: Scores,
    first: bool,
}

impl Chunk<'_> {
    /// Rows `first..first + M`, of which `out` begins with the first one's.
    #[inline(always)]
    fn rows<I: Simd, const M: usize>(
        &self,
        isa: I,
        first: usize,
        scratch: &mut Int8Scratch,
        out: &mut [f32],
    ) {
        let Int8Scratch { q, rows, scores, weights } = scratch;
        let q = q[first..].first_chunk::<M>().expect("M rows");
        let rows = rows[first..].first_chunk_mut::<M>().expect("M rows");
        let scores = scores.first_chunk_mut::<M>().expect("M rows");
        let weights = weights.first_chunk_mut::<M>().expect("M rows");
        let tiles = self.bytes.as_chunks::<TILE_BYTES>().0;
        let (key_tiles, value_tiles) = tiles.split_at(BLOCKS * self.shape.key_tiles());
        let (key_scales, rest) = self.scales.split_at(KEYS);
        let (value_scales, value_sums) = rest.split_at(self.shape.stripes() * LANES);

        let blocks = self.keys.div_ceil(LANES);
        let starts = rows.map(|r| isa.dot_start(r.sum));
        let row_scales = rows.map(|r| (r.scale * self.how.scale, r.offset * self.how.scale));
        each_block::<I>(blocks, |b, width| {
            let mut finish = |s: usize, sums: [I::I; M]| {
                let key_scale = load_at(isa, key_scales, b + s);
                for (m, sum) in sums.into_iter().enumerate() {
                    let (scale, offset) = row_scales[m];
                    let x = isa.mul(isa.to_f32(sum), key_scale);
                    store_at(isa, isa.fma(x, isa.splat(scale), isa.splat(offset)), &mut scores[m], b + s);
                }
            };
            let (tiles, k) = (&key_tiles[b * self.shape.key_tiles()..], self.shape.key_tiles());
            match width {
                4 => dots::<I, M, 4, HEAD_DIM_MAX>(isa, tiles, k, k, q, starts)
                    .into_iter()
                    .enumerate()
                    .for_each(|(s, x)| finish(s, x)),
                3 => dots::<I, M, 3, HEAD_DIM_MAX>(isa, tiles, k, k, q, starts)
                    .into_iter()
                    .enumerate()
                    .for_each(|(s, x)| finish(s, x)),
                2 => dots::<I, M, 2, HEAD_DIM_MAX>(isa, tiles, k, k, q, starts)
                    .into_iter()
                    .enumerate()
                    .for_each(|(s, x)| finish(s, x)),
                _ => dots::<I, M, 1, HEAD_DIM_MAX>(isa, tiles, k, k, q, starts)
                    .into_iter()
                    .enumerate()
                    .for_each(|(s, x)| finish(s, x)),
            }
        });

        let value_k = self.keys.div_ceil(4);
        let mut factors = [(0.0, 0.0); M];
        let mut starts = starts;
        for m in 0..M {
            let row = &mut scores[m][..blocks * LANES];
            if let Some(cap) = self.how.softcap {
                softcap(isa, row, cap);
            }
            row[self.keys..].fill(f32::NEG_INFINITY);
            let mut max = isa.splat(f32::NEG_INFINITY);
            for_each_vector(isa, row, |_, v| max = isa.max(v, max));
            let max = isa.max_lane(max);
            let sum = weigh(isa, row, max, &mut weights[m]);
            starts[m] = isa.dot_start(sum - ZERO as i32 * 4 * value_k as i32);
            let new_max = if max > rows[m].max { max } else { rows[m].max };
            let (old, new) = (exp_of(isa, rows[m].max - new_max), exp_of(isa, max - new_max));
            factors[m] = if self.first { (0.0, 1.0) } else { (old, new) };
            rows[m].weight = rows[m].weight.mul_add(factors[m].0, sum as f32 * factors[m].1);
            rows[m].max = new_max;
        }

        let width = self.shape.stripes() * LANES;
        each_block::<I>(self.shape.stripes(), |b, n| {
            let mut finish = |s: usize, sums: [I::I; M]| {
                let value_scale = load_at(isa, value_scales, b + s);
                let shift = isa.mul(load_at(isa, value_sums, b + s), isa.splat(ZERO));
                for (m, sum) in sums.into_iter().enumerate() {
                    let (old, new) = factors[m];
                    // Both numbers and their sum are below 2²⁴, so this is exact.
                    let x = isa.add(isa.to_f32(sum), shift);
                    let x = isa.mul(x, isa.mul(value_scale, isa.splat(new)));
                    let out = &mut out[m * width..(m + 1) * width];
                    let x = if self.first { x } else { isa.fma(load_at(isa, out, b + s), isa.splat(old), x) };
                    store_at(isa, x, out, b + s);
                }
            };
            let (tiles, k) = (&value_tiles[b * KEYS / 4..], value_k);
            match n {
                4 => dots::<I, M, 4, KEYS>(isa, tiles, KEYS / 4, k, weights, starts)
                    .into_iter()
                    .enumerate()
                    .for_each(|(s, x)| finish(s, x)),
                3 => dots::<I, M, 3, KEYS>(isa, tiles, KEYS / 4, k, weights, starts)
                    .into_iter()
                    .enumerate()
                    .for_each(|(s, x)| finish(s, x)),
                2 => dots::<I, M, 2, KEYS>(isa, tiles, KEYS / 4, k, weights, starts)
                    .into_iter()
                    .enumerate()
                    .for_each(|(s, x)| finish(s, x)),
                _ => dots::<I, M, 1, KEYS>(isa, tiles, KEYS / 4, k, weights, starts)
                    .into_iter()
                    .enumerate()
                    .for_each(|(s, x)| finish(s, x)),
            }
        });
    }
}

/// Calls `f(first, width)` for blocks of at most [`Simd::BLOCK_STRIPES`] that cover `n`; five are three and two, since a
/// single one has too few sums to hide latency.
#[inline(always)]
fn each_block<I: Simd>(n: usize, mut f: impl FnMut(usize, usize)) {
    let mut at = 0;
    while at < n {
        let width = if n - at == I::BLOCK_STRIPES + 1 {
            I::BLOCK_STRIPES.min(3)
        } else {
            I::BLOCK_STRIPES.min(n - at)
        };
        f(at, width);
        at += width;
    }
}

/// `[s][m] = start[m] + Σ tiles[s·stride..][t] · x[m][4·t..]` over `k` tiles.
#[inline(always)]
fn dots<I: Simd, const M: usize, const S: usize, const N: usize>(
    isa: I,
    tiles: &[Tile],
    stride: usize,
    k: usize,
    x: &[[i8; N]; M],
    start: [I::I; M],
) -> [[I::I; M]; S] {
    let tiles: [&[Tile]; S] = std::array::from_fn(|s| &tiles[s * stride..][..k]);
    let x: [&[[i8; 4]]; M] = std::array::from_fn(|m| &x[m].as_chunks::<4>().0[..k]);
    let mut sums = [start; S];
    for t in 0..k {
        // SAFETY: all slices were cut to `k` just above.
        let w: [I::Tile; S] = std::array::from_fn(|s| isa.load_tile(unsafe { tiles[s].get_unchecked(t) }));
        for m in 0..M {
            // SAFETY: as above.
            let x = unsafe { x[m].get_unchecked(t) };
            for s in 0..S {
                sums[s][m] = isa.dot(sums[s][m], w[s], x);
            }
        }
    }
    sums
}

/// What a weight of nothing is stored as, negated; weights are twice as many levels.
const ZERO: f32 = 127.0;
const _: () = assert!(2 * KEYS * 127 * 127 < 1 << 24);

/// `weights[key] = w - 127` with `w = round(254 · exp(score - max))`, and the sum of `w`.
///
/// `2^y` as `2^n · p(f)` with integer `n` and `|f| ≤ 1/2`; `p` is the polynomial of degree 4 with the least relative
/// error (3e-6, by Remez' exchange), of which rounding to 254 levels leaves nothing. Scores of `-inf` weigh nothing.
#[inline(always)]
fn weigh<I: Simd>(isa: I, scores: &[f32], max: f32, weights: &mut [i8; KEYS]) -> i32 {
    let c = |x| isa.splat(x);
    let mut sum = c(0.0);
    let max = c(max);
    for (i, out) in weights.as_chunks_mut::<LANES>().0.iter_mut().enumerate().take(scores.len() / LANES) {
        let y = isa.mul(isa.sub(load_at(isa, scores, i), max), c(std::f32::consts::LOG2_E));
        let y = isa.max(y, c(-126.0));
        let n = isa.round_even(y);
        let f = isa.sub(y, n);
        let mut p = c(9.570_102e-3);
        for k in [5.591_786e-2, 2.402_474_4e-1, 6.931_218e-1, 9.999_993e-1] {
            p = isa.fma(p, f, c(k));
        }
        let w = isa.round_even(isa.mul(isa.mul(p, c(2.0 * ZERO)), isa.exp2_int(n)));
        isa.store_i8(isa.sub(w, c(ZERO)), out);
        sum = isa.add(sum, w);
    }
    isa.sum(sum) as i32
}

/// [`exp`] of one number; 1 if it is not a number (of two infinities).
#[inline(always)]
fn exp_of<I: Simd>(isa: I, x: f32) -> f32 {
    let mut out = [0.0; LANES];
    isa.store(exp(isa, isa.splat(x)), &mut out);
    out[0]
}
