//! Attention in 8-bit integers, for rows that all see the same keys: the image encoder, and a decoder's prefix.
//!
//! Keys come in chunks of 256. Both products run in integers, exact in any order; between them and around them is a
//! fixed number of f32 operations per chunk, so a result depends on nothing but its inputs.
//!
//! ```text
//! key    k ≈ mean + scale[key] · k8          mean of the first chunk's keys; k8 in -127..=127
//! value  v ≈ scale[chunk][dim] · v8
//! query  q ≈ scale · q8                      q8 in -127..=127
//! score  s = (Σ q8·k8 · scale · scale[key] + q·mean) · how.scale, soft-capped if asked for
//! weight w8 = round(254 · exp(s - max of the chunk))
//! out    Σ_chunks exp(max of the chunk - max) · scale[chunk] · Σ w8·v8   /   Σ_chunks exp(max of the chunk - max) · Σ w8
//! ```
//!
//! Exponentials are taken to the base 2, as scores are scaled by log₂ e with all else.
//!
//! Keys are taken relative to a mean because in trained models a few dimensions of all keys share a large offset, which
//! would cost the others their resolution (SageAttention, arXiv 2410.02367). The weights that are added up below the
//! line are the rounded ones, so that they sum to one.

use std::f32::consts::LOG2_E;

use super::attention::Scores;
use super::elementwise::softcap;
use super::quantize::{quantize_chunk, scale_and_inverse};
use super::{load_at, store_at, vectors};
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
/// The byte of a query that stands for zero.
const ZERO: i32 = 128;
/// A score that weighs nothing beside any other.
const NO_KEY: f32 = -1e30;

// Sums of products must be exact in f32.
const _: () = assert!(HEAD_DIM_MAX * 127 * 127 < 1 << 24 && KEYS * 254 * 127 < 1 << 24);

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

    /// Numbers of scales, and of sums of integers: one per key, then one per dimension.
    pub const fn scales(&self) -> usize {
        KEYS + self.stripes() * LANES
    }
}

/// A head's keys and values.
#[derive(Clone, Copy)]
pub struct Int8KeysValues<'a> {
    /// [`ChunkShape::bytes`] for each chunk.
    pub bytes: &'a [i8],
    /// [`ChunkShape::scales`] for each chunk.
    pub scales: &'a [f32],
    /// As many.
    pub sums: &'a [i32],
    /// What keys are relative to, `head_dim`.
    pub mean: &'a [f32],
    /// Keys.
    pub keys: usize,
}

/// Memory of a call.
pub struct Int8Scratch {
    q: [[u8; HEAD_DIM_MAX]; ROWS_MAX],
    rows: [Row; ROWS_MAX],
    scores: [[f32; KEYS]; BLOCK_ROWS],
    weights: [[u8; KEYS]; BLOCK_ROWS],
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
    /// Of the quantized query, times what scores are scaled by.
    scale: f32,
    /// `q · mean`, scaled likewise.
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

/// Quantizes `n` keys and values, at most a chunk. Key `i` is the `head_dim` numbers from `i · stride` of `keys`, value
/// `i` likewise.
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
    sums: &mut [i32],
) {
    let shape = ChunkShape { head_dim: mean.len() };
    assert!(n <= KEYS && shape.head_dim <= HEAD_DIM_MAX);
    assert!(bytes.len() == shape.bytes() && scales.len() == shape.scales() && sums.len() == scales.len());
    let (key_scales, value_scales) = scales.split_at_mut(KEYS);
    let (key_sums, value_sums) = sums.split_at_mut(KEYS);
    let tiles = bytes.as_chunks_mut::<TILE_BYTES>().0;
    let (key_tiles, value_tiles) = tiles.split_at_mut(BLOCKS * shape.key_tiles());
    let (mut relative, mut q) = ([0.0; HEAD_DIM_MAX], [0; HEAD_DIM_MAX]);
    for i in 0..n {
        let relative = &mut relative[..shape.head_dim];
        let key = &keys[i * stride..][..shape.head_dim];
        for v in 0..vectors(key.len()) {
            store_at(isa, isa.sub(load_at(isa, key, v), load_at(isa, mean, v)), relative, v);
        }
        (key_scales[i], key_sums[i]) = quantize_chunk(isa, relative, &mut q[..shape.stripes() * LANES]);
        let block = &mut key_tiles[i / LANES * shape.key_tiles()..][..shape.key_tiles()];
        for (tile, part) in block.iter_mut().zip(q.as_chunks::<4>().0) {
            tile[i % LANES * 4..][..4].copy_from_slice(part);
        }
    }
    for (s, stripe) in value_tiles.chunks_exact_mut(KEYS / 4).enumerate() {
        let mut max = isa.splat(0.0);
        for i in 0..n {
            max = isa.max_abs(load_at(isa, &values[i * stride..][..shape.head_dim], s), max);
        }
        let mut maxima = [0.0; LANES];
        isa.store(max, &mut maxima);
        let mut inverses = [0.0; LANES];
        for ((max, scale), inverse) in maxima.iter().zip(&mut value_scales[s * LANES..]).zip(&mut inverses) {
            (*scale, *inverse) = scale_and_inverse(*max);
        }
        let inverse = isa.load(&inverses);
        let mut sum = isa.splat(0.0);
        for (t, tile) in stripe[..n.div_ceil(4)].iter_mut().enumerate() {
            // Behind the last key zeros, up to whole tiles.
            let mut four = [isa.splat(0.0); 4];
            for (i, v) in (4 * t..n).zip(&mut four) {
                let value = load_at(isa, &values[i * stride..][..shape.head_dim], s);
                *v = isa.round_even(isa.clamp(isa.mul(value, inverse), -127.0, 127.0));
                sum = isa.add(sum, *v);
            }
            isa.store_tile(four, tile);
        }
        let mut total = [0.0; LANES];
        isa.store(sum, &mut total);
        for (out, sum) in value_sums[s * LANES..].iter_mut().zip(total) {
            *out = sum as i32;
        }
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
    let out = &mut out[..rows * width];
    let factor = how.scale * LOG2_E;
    for (r, q) in q.chunks_exact(shape.head_dim).take(rows).enumerate() {
        let mut dot = isa.splat(0.0);
        for i in 0..vectors(q.len()) {
            dot = isa.fma(load_at(isa, q, i), load_at(isa, kv.mean, i), dot);
        }
        let mut q8 = [0; HEAD_DIM_MAX];
        let (scale, _) = quantize_chunk(isa, q, &mut q8[..width]);
        let bytes = &mut scratch.q[r][..width];
        for (byte, q) in bytes.iter_mut().zip(&q8) {
            *byte = (*q as u8).wrapping_add(ZERO as u8);
        }
        isa.prepare(bytes);
        let offset = isa.sum(dot) * factor;
        scratch.rows[r] = Row { scale: scale * factor, offset, max: f32::NEG_INFINITY, weight: 0.0 };
    }
    for c in 0..kv.keys.div_ceil(KEYS) {
        let scales = c * shape.scales()..(c + 1) * shape.scales();
        let chunk = Chunk {
            shape,
            bytes: &kv.bytes[c * shape.bytes()..(c + 1) * shape.bytes()],
            scales: &kv.scales[scales.clone()],
            sums: &kv.sums[scales],
            keys: KEYS.min(kv.keys - c * KEYS),
            softcap: how.softcap.map(|cap| cap * LOG2_E),
            first: c == 0,
        };
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
        for x in out.as_chunks_mut().0 {
            isa.store(isa.mul(isa.load(x), inverse), x);
        }
    }
}

/// A chunk of a head's keys and values.
struct Chunk<'a> {
    shape: ChunkShape,
    bytes: &'a [i8],
    scales: &'a [f32],
    sums: &'a [i32],
    keys: usize,
    softcap: Option<f32>,
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
        let (key_scales, value_scales) = self.scales.split_at(KEYS);
        let (key_sums, value_sums) = self.sums.split_at(KEYS);

        let (blocks, k) = (self.keys.div_ceil(LANES), self.shape.key_tiles());
        let mut row_scales = [(0.0, 0.0); M];
        for m in 0..M {
            row_scales[m] = (rows[m].scale, rows[m].offset);
        }
        let products = Products { tiles: key_tiles, stride: k, k, x: q, sums: key_sums, zero: ZERO };
        products.each(isa, blocks, Score { key_scales, row_scales, scores });

        let mut factors = [(0.0, 1.0); M];
        for m in 0..M {
            let row = &mut scores[m][..blocks * LANES];
            if let Some(cap) = self.softcap {
                softcap(isa, row, cap);
            }
            row[self.keys..].fill(NO_KEY);
            let max = maximum(isa, row);
            let sum = weigh(isa, row, max, &mut weights[m]) as f32;
            isa.prepare(&mut weights[m][..blocks * LANES]);
            let row = &mut rows[m];
            if self.first {
                (row.max, row.weight) = (max, sum);
            } else {
                let new_max = if max > row.max { max } else { row.max };
                factors[m] = (exp2_of(isa, row.max - new_max), exp2_of(isa, max - new_max));
                (row.max, row.weight) = (new_max, row.weight.mul_add(factors[m].0, sum * factors[m].1));
            }
        }

        let k = self.keys.div_ceil(4);
        let products =
            Products { tiles: value_tiles, stride: KEYS / 4, k, x: weights, sums: value_sums, zero: 0 };
        let width = self.shape.stripes() * LANES;
        products.each(isa, width / LANES, Weigh { value_scales, factors, first: self.first, width, out });
    }
}

/// Products of `M` rows of bytes with stripes of tiles: stripe `s` begins at tile `s · stride` and has `k`.
struct Products<'a, const M: usize, const N: usize> {
    tiles: &'a [Tile],
    stride: usize,
    k: usize,
    x: &'a [[u8; N]; M],
    /// Of the bytes of each of a stripe's lanes.
    sums: &'a [i32],
    /// What byte of `x` stands for nothing.
    zero: i32,
}

/// What becomes of the sums of a stripe and a row.
trait Finish<I: Simd> {
    fn finish(&mut self, isa: I, stripe: usize, row: usize, sum: I::I);
}

impl<const M: usize, const N: usize> Products<'_, M, N> {
    /// All of `stripes` stripes, as many side by side as the registers hold; five are three and two, since a single one
    /// has too few sums to hide latency.
    #[inline(always)]
    fn each<I: Simd, F: Finish<I>>(&self, isa: I, stripes: usize, mut finish: F) {
        let mut s = 0;
        while s < stripes {
            let left = stripes - s;
            s += match left {
                _ if I::BLOCK_STRIPES < 4 || left == 1 => self.block::<I, F, 1>(isa, s, &mut finish),
                2 => self.block::<I, F, 2>(isa, s, &mut finish),
                3 | 5 => self.block::<I, F, 3>(isa, s, &mut finish),
                _ => self.block::<I, F, 4>(isa, s, &mut finish),
            };
        }
    }

    /// Stripes `s..s + S`; gives `S`.
    ///
    /// Plain loops: a closure handed to a function of the standard library may stay a function of its own, compiled
    /// without the instruction set.
    #[inline(always)]
    fn block<I: Simd, F: Finish<I>, const S: usize>(&self, isa: I, s: usize, finish: &mut F) -> usize {
        let mut tiles: [&[Tile]; S] = [&[]; S];
        let mut x: [&[[u8; 4]]; M] = [&[]; M];
        let mut starts = [isa.to_i32(isa.splat(0.0)); S];
        for i in 0..S {
            tiles[i] = &self.tiles[(s + i) * self.stride..][..self.k];
            starts[i] = isa.dot_start(&self.sums.as_chunks().0[s + i], self.zero);
        }
        for (x, row) in x.iter_mut().zip(self.x) {
            *x = &row.as_chunks::<4>().0[..self.k];
        }
        let mut sums = [starts; M];
        for t in 0..self.k {
            // SAFETY: all slices were cut to `k` above.
            let mut w = [isa.load_tile(unsafe { tiles[0].get_unchecked(t) }); S];
            for i in 1..S {
                // SAFETY: as above.
                w[i] = isa.load_tile(unsafe { tiles[i].get_unchecked(t) });
            }
            for m in 0..M {
                // SAFETY: as above.
                let x = unsafe { x[m].get_unchecked(t) };
                for i in 0..S {
                    sums[m][i] = isa.dot(sums[m][i], w[i], x);
                }
            }
        }
        for (m, sums) in sums.iter().enumerate() {
            for (i, &sum) in sums.iter().enumerate() {
                finish.finish(isa, s + i, m, sum);
            }
        }
        S
    }
}

/// Sums become scores.
struct Score<'a, const M: usize> {
    key_scales: &'a [f32],
    /// What a sum times its key's scale is multiplied with, and what is then added.
    row_scales: [(f32, f32); M],
    scores: &'a mut [[f32; KEYS]; M],
}

impl<I: Simd, const M: usize> Finish<I> for Score<'_, M> {
    #[inline(always)]
    fn finish(&mut self, isa: I, stripe: usize, row: usize, sum: I::I) {
        let (scale, offset) = self.row_scales[row];
        let x = isa.mul(isa.to_f32(sum), load_at(isa, self.key_scales, stripe));
        let x = isa.fma(x, isa.splat(scale), isa.splat(offset));
        isa.store(x, &mut self.scores[row].as_chunks_mut().0[stripe]);
    }
}

/// Sums are added to the outputs.
struct Weigh<'a, const M: usize> {
    value_scales: &'a [f32],
    /// What outputs so far and new sums are multiplied with.
    factors: [(f32, f32); M],
    first: bool,
    width: usize,
    out: &'a mut [f32],
}

impl<I: Simd, const M: usize> Finish<I> for Weigh<'_, M> {
    #[inline(always)]
    fn finish(&mut self, isa: I, stripe: usize, row: usize, sum: I::I) {
        let (old, new) = self.factors[row];
        let scale = isa.mul(load_at(isa, self.value_scales, stripe), isa.splat(new));
        let out = &mut self.out[row * self.width..].as_chunks_mut().0[stripe];
        let x = isa.mul(isa.to_f32(sum), scale);
        isa.store(if self.first { x } else { isa.fma(isa.load(out), isa.splat(old), x) }, out);
    }
}

/// Four maxima side by side, since each has to wait for the one before.
#[inline(always)]
fn maximum<I: Simd>(isa: I, row: &[f32]) -> f32 {
    let mut max = [isa.splat(f32::NEG_INFINITY); 4];
    let (fours, rest) = row.as_chunks::<LANES>().0.as_chunks::<4>();
    for vectors in fours {
        for i in 0..4 {
            max[i] = isa.max(isa.load(&vectors[i]), max[i]);
        }
    }
    for v in rest {
        max[0] = isa.max(isa.load(v), max[0]);
    }
    isa.max_lane(isa.max(isa.max(max[0], max[1]), isa.max(max[2], max[3])))
}

/// `weights[key] = round(254 · 2^(score - max))`, and their sum.
#[inline(always)]
fn weigh<I: Simd>(isa: I, scores: &[f32], max: f32, weights: &mut [u8; KEYS]) -> i32 {
    let max = isa.splat(max);
    let mut sum = isa.to_i32(isa.splat(0.0));
    let vectors = scores.as_chunks::<LANES>().0;
    for (score, out) in vectors.iter().zip(weights.as_chunks_mut::<LANES>().0) {
        sum = isa.store_rounded_u8(exp2_times_254(isa, isa.sub(isa.load(score), max)), out, sum);
    }
    isa.sum_i32(sum)
}

/// `254 · 2^y` for finite `y` up to 0.
///
/// `2^y` as `2^⌊y⌋ · p(y - ⌊y⌋)`; `p` is the polynomial of degree 4 with the least relative error on 0..1 (3e-6, by
/// Remez' exchange), of which rounding to 254 levels leaves nothing.
#[inline(always)]
fn exp2_times_254<I: Simd>(isa: I, y: I::F) -> I::F {
    let f = isa.fraction(y);
    let mut p = isa.splat(3.4376786);
    for k in [13.210911, 61.32646, 176.02298, 254.00066] {
        p = isa.fma(p, f, isa.splat(k));
    }
    isa.mul_exp2_floor(p, y)
}

/// `2^y` for one finite `y` up to 0.
#[inline(always)]
fn exp2_of<I: Simd>(isa: I, y: f32) -> f32 {
    let mut out = [0.0; LANES];
    isa.store(exp2_times_254(isa, isa.splat(y)), &mut out);
    out[0] / 254.0
}
