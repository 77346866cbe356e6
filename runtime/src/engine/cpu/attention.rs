//! Attention over many rows, shared by the image encoder and the decoder: rows of queries, keys and values in, rows of
//! attended values out. Which arithmetic it runs in is the caller's choice: floats over a [`KvCache`], or integers
//! over [`Int8Kv`] where all rows see the same keys.

use std::ops::Range;

use palmtop_kernels::layout::LANES;
use palmtop_kernels::ops::attention_int8::{KEYS, ROWS_MAX as INT8_ROWS_MAX};
use palmtop_kernels::{ChunkShape, Int8KeysValues, Kernels, Scores};

use super::compute::Compute;
use super::kv_cache::KvCache;
use super::scratch::AttentionScratch;
use crate::error::Result;
use crate::model::config::Heads;
use crate::system::memory::{Aligned, Reserve};
use crate::system::pool::Disjoint;

/// A few query rows of one key-value head: query row `q` is head `q mod group` of row `q / group`.
pub(crate) struct Tile<'a> {
    pub heads: Heads,
    pub kv_head: usize,
    pub queries: Range<usize>,
    /// Rows of queries, keys and values.
    pub qkv: &'a [f32],
    /// Where the same rows go once they have attended.
    pub attended: &'a Disjoint<'a, f32>,
}

impl Tile<'_> {
    /// Row and head of a query row.
    fn place(&self, query: usize) -> (usize, usize) {
        let group = self.heads.group();
        (query / group, self.kv_head * group + query % group)
    }

    /// Collects the queries.
    fn gather(&self, queries: &mut [f32]) {
        let head_dim = self.heads.head_dim;
        for (query, q) in self.queries.clone().zip(queries.chunks_mut(head_dim)) {
            let (row, head) = self.place(query);
            q.copy_from_slice(&self.qkv[row * self.heads.stride() + head * head_dim..][..head_dim]);
        }
    }

    /// Writes the results where they belong.
    ///
    /// # Safety
    /// No other thread uses these rows of these heads meanwhile.
    unsafe fn scatter(&self, outputs: &[f32]) {
        let head_dim = self.heads.head_dim;
        for (query, out) in self.queries.clone().zip(outputs.chunks(head_dim.next_multiple_of(LANES))) {
            let (row, head) = self.place(query);
            let at = row * self.heads.width() + head * head_dim;
            // SAFETY: by the caller's promise.
            unsafe { self.attended.get(at..at + head_dim) }.copy_from_slice(&out[..head_dim]);
        }
    }

    /// Attends in floats, to a range of a slot's keys; at most [`palmtop_kernels::ATTENTION_ROWS_MAX`] rows.
    ///
    /// # Safety
    /// No other thread uses these rows of these heads meanwhile.
    pub unsafe fn float(
        &self,
        kernels: &Kernels,
        kv: &KvCache,
        slot: usize,
        keys: Range<usize>,
        how: Scores,
        scratch: &mut AttentionScratch,
    ) {
        self.gather(&mut scratch.queries);
        let memory = (&scratch.queries[..], &mut scratch.scores[..], &mut scratch.outputs[..]);
        kv.attend(kernels, slot, keys, how, self.queries.len(), memory);
        // SAFETY: by the caller's promise.
        unsafe { self.scatter(&scratch.outputs) };
    }
}

/// Keys and values of one layer in integers, for as long as its rows attend.
pub(crate) struct Int8Kv {
    bytes: Aligned<i8>,
    scales: Aligned<f32>,
    sums: Aligned<i32>,
    means: Aligned<f32>,
}

/// Sizes of an [`Int8Kv`]: enough for each layer that is to use it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Int8KvSizes {
    bytes: usize,
    scales: usize,
    means: usize,
}

impl Int8KvSizes {
    /// Makes room for the keys and values of a layer.
    pub fn cover(&mut self, heads: &Heads, keys: usize) {
        let shape = ChunkShape { head_dim: heads.head_dim };
        let chunks = keys.div_ceil(KEYS).saturating_mul(heads.kv_heads);
        self.bytes = self.bytes.max(chunks.saturating_mul(shape.bytes()));
        self.scales = self.scales.max(chunks.saturating_mul(shape.scales()));
        self.means = self.means.max(heads.kv_heads.saturating_mul(heads.head_dim));
    }
}

impl Int8Kv {
    pub fn new(reserve: &mut Reserve, sizes: &Int8KvSizes) -> Result<Self> {
        Ok(Self {
            bytes: reserve.aligned(sizes.bytes)?,
            scales: reserve.aligned(sizes.scales)?,
            sums: reserve.aligned(sizes.scales)?,
            means: reserve.aligned(sizes.means)?,
        })
    }

    /// All `positions` rows of `qkv` attend to each other.
    pub fn attend(
        &mut self,
        compute: &mut Compute,
        heads: Heads,
        how: Scores,
        qkv: &[f32],
        positions: usize,
        attended: &mut [f32],
    ) {
        self.fill(compute, heads, qkv, positions);
        let rows = positions * heads.group();
        let tiles = rows.div_ceil(INT8_ROWS_MAX);
        let (kernels, attended, kv) = (compute.kernels, Disjoint::new(attended), &*self);
        compute.pool.run(&mut compute.scratch, heads.kv_heads * tiles, |task, scratch| {
            let (kv_head, tile) = (task / tiles, task % tiles);
            let queries = tile * INT8_ROWS_MAX..rows.min((tile + 1) * INT8_ROWS_MAX);
            let tile = Tile { heads, kv_head, queries, qkv, attended: &attended };
            let AttentionScratch { queries, outputs, int8, .. } = &mut scratch.attention;
            tile.gather(queries);
            let keys_values = kv.head(heads, kv_head, positions);
            kernels.attention_int8(queries, tile.queries.len(), keys_values, how, int8, outputs);
            // SAFETY: every task has its own rows of its own heads.
            unsafe { tile.scatter(outputs) };
        });
    }

    /// Quantizes the keys and values of all positions.
    fn fill(&mut self, compute: &mut Compute, heads: Heads, qkv: &[f32], positions: usize) {
        let shape = ChunkShape { head_dim: heads.head_dim };
        let (chunks, stride) = (positions.div_ceil(KEYS), heads.stride());
        let (bytes, scales) = (Disjoint::new(&mut self.bytes), Disjoint::new(&mut self.scales));
        let (sums, means) = (Disjoint::new(&mut self.sums), Disjoint::new(&mut self.means));
        let kernels = compute.kernels;
        compute.pool.run(&mut compute.scratch, heads.kv_heads * chunks, |task, scratch| {
            let (kv_head, chunk) = (task / chunks, task % chunks);
            let (key, value) = heads.key_value(kv_head);
            let mean = &mut scratch.row[..heads.head_dim];
            kernels.mean_of_keys(&qkv[key..], stride, KEYS.min(positions), mean);
            let rows = &qkv[chunk * KEYS * stride..];
            let n = KEYS.min(positions - chunk * KEYS);
            // SAFETY: every task has its own chunk of its own head, and the first one of a head its mean.
            unsafe {
                if chunk == 0 {
                    means.get(kv_head * heads.head_dim..(kv_head + 1) * heads.head_dim).copy_from_slice(mean);
                }
                let bytes = bytes.get(task * shape.bytes()..(task + 1) * shape.bytes());
                let place = task * shape.scales()..(task + 1) * shape.scales();
                let (scales, sums) = (scales.get(place.clone()), sums.get(place));
                let (keys, values) = (&rows[key..], &rows[value..]);
                kernels.quantize_keys_values(keys, values, stride, n, mean, bytes, scales, sums);
            }
        });
    }

    fn head(&self, heads: Heads, kv_head: usize, keys: usize) -> Int8KeysValues<'_> {
        let shape = ChunkShape { head_dim: heads.head_dim };
        let chunks = keys.div_ceil(KEYS);
        Int8KeysValues {
            bytes: &self.bytes[kv_head * chunks * shape.bytes()..][..chunks * shape.bytes()],
            scales: &self.scales[kv_head * chunks * shape.scales()..][..chunks * shape.scales()],
            sums: &self.sums[kv_head * chunks * shape.scales()..][..chunks * shape.scales()],
            mean: &self.means[kv_head * heads.head_dim..][..heads.head_dim],
            keys,
        }
    }
}
