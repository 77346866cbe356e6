//! Activations and what goes with them: all memory of the engine but weights and the KV cache.

use std::ops::Range;

use palmtop_kernels::layout::LANES;
use palmtop_kernels::ops::attention_int8::{HEAD_DIM_MAX, KEYS};

use super::attention::{Int8Kv, Int8KvSizes};
use super::kv_cache::{KvCache, KvShape};
use super::rows::{RowLimits, Rows};
use super::scratch::ScratchSizes;
use super::staged::{Staged, StagedSizes};
use crate::engine::limits::Extent;
use crate::error::Result;
use crate::model::config::{Config, Heads};
use crate::model::kv_format::KvElement;
use crate::model::weights::{Matrix, RetrievalHead, Weights};
use crate::system::memory::{Aligned, Reserve};

/// Rows that go through a matrix together; longer inputs go in blocks, so that memory stays bounded. A picture of 448
/// pixels with a prompt and a draft of 32 tokens each takes two of them: weights are read once for each.
const BLOCK_ROWS: usize = 544;

/// Rows that go through the retrieval head together: it is stored in floats, and its input must not be what takes the
/// most memory.
const VECTOR_ROWS: usize = 128;

/// Activations; the image encoder and the decoder use the same memory, one after the other.
pub(crate) struct Buffers {
    /// Residual stream, `[rows, width]`.
    pub hidden: Aligned<f32>,
    /// Queries, keys and values, `[rows, qkv]`.
    pub qkv: Aligned<f32>,
    /// Attention outputs, `[rows, heads · head_dim]`.
    pub attended: Aligned<f32>,
    /// The patches of a picture.
    pub patches: Aligned<f32>,
    /// What a branch gives before the norm behind it, for a block of rows.
    pub branch: Aligned<f32>,
    /// `[logit rows, vocab]`
    pub logits: Aligned<f32>,
    /// Input of the matrix at hand.
    pub staged: Staged,
    /// Input of the second matrix of an MLP.
    pub activated: Staged,
    /// Keys and values of an encoder layer that attends in floats.
    pub vision_kv: KvCache,
    /// Keys and values of a layer that attends in integers.
    pub int8_kv: Int8Kv,
    /// How the decoder's rows lie.
    pub rows: Rows,
}

impl Buffers {
    pub fn new(reserve: &mut Reserve, config: &Config, weights: &Weights, extent: &Extent) -> Result<Self> {
        let (v, t) = (&config.vision, &config.text);
        // A file may state any sizes: where the address space ends, the plan is refused.
        let times = usize::saturating_mul;
        let (patches, text_rows) = (v.patches(), extent.rows);
        let block = BLOCK_ROWS.min(patches.max(text_rows));
        let (mut staged, mut activated) = (StagedSizes::default(), StagedSizes::default());
        weights.matrices_from_rows().for_each(|m| staged.cover(m.format().is_integer(), block, m.cols()));
        let second = weights.matrices_from_activations();
        second.for_each(|m| activated.cover(m.format().is_integer(), block, m.cols()));
        if let Some(RetrievalHead { matrix, .. }) = &weights.retrieval {
            staged.cover(matrix.format().is_integer(), VECTOR_ROWS.min(block), matrix.cols());
        }
        let mut int8_kv = Int8KvSizes::default();
        let heads = v.attention_heads();
        if weights.vision.iter().any(|l| attends_in_integers(&l.qkv, &heads, patches)) {
            int8_kv.cover(&heads, patches);
        }
        let in_floats = weights.vision.iter().any(|l| !attends_in_integers(&l.qkv, &heads, patches));
        let heads = t.attention_heads();
        if weights.text.iter().any(|l| attends_in_integers(&l.qkv, &heads, extent.prefix)) {
            int8_kv.cover(&heads, extent.prefix);
        }
        let vision_kv = KvShape {
            slots: if in_floats { v.heads } else { 0 },
            head_dim: v.head_dim(),
            capacity: patches.next_multiple_of(LANES),
            element: KvElement::F32,
        };
        let rows =
            RowLimits { rows: text_rows, spans: extent.spans, group: heads.group(), logits: extent.logits };
        Ok(Self {
            hidden: reserve.aligned(times(patches, v.hidden).max(times(text_rows, t.hidden)))?,
            qkv: reserve.aligned(times(patches, 3 * v.hidden).max(times(text_rows, t.qkv())))?,
            attended: reserve.aligned(times(patches, v.hidden).max(times(text_rows, heads.width())))?,
            patches: reserve.aligned(times(patches, v.patch_values()))?,
            branch: reserve.aligned(times(block, t.hidden))?,
            logits: reserve.aligned(times(extent.logits, t.vocab))?,
            staged: Staged::new(reserve, &staged)?,
            activated: Staged::new(reserve, &activated)?,
            vision_kv: KvCache::new(reserve, vision_kv)?,
            int8_kv: Int8Kv::new(reserve, &int8_kv)?,
            rows: Rows::new(reserve, rows)?,
        })
    }
}

/// What each thread needs beside these buffers.
pub(crate) fn scratch_sizes(config: &Config, weights: &Weights, extent: &Extent) -> ScratchSizes {
    ScratchSizes {
        rows: BLOCK_ROWS.min(config.vision.patches().max(extent.rows)),
        width: weights.matrices_from_rows().map(Matrix::cols).max().unwrap_or(0),
        head_dim: config.vision.head_dim().max(config.text.head_dim),
        keys: extent.positions.next_multiple_of(LANES),
    }
}

/// Whether `keys` rows of a layer attend to each other in integers: where its weights are integers, the kernel can, and
/// there are enough keys. With few, little rounding averages out, and floats cost little.
pub(crate) fn attends_in_integers(qkv: &Matrix, heads: &Heads, keys: usize) -> bool {
    qkv.format().is_integer() && heads.head_dim <= HEAD_DIM_MAX && keys >= KEYS
}

/// Blocks of rows that go through the matrices together.
pub(crate) fn blocks(rows: usize) -> impl Iterator<Item = Range<usize>> {
    blocks_of(BLOCK_ROWS, rows)
}

/// Blocks of rows that go through the retrieval head together.
pub(crate) fn vector_blocks(rows: usize) -> impl Iterator<Item = Range<usize>> {
    blocks_of(VECTOR_ROWS, rows)
}

/// As few blocks of up to `most` rows as there can be, of about the same size.
fn blocks_of(most: usize, rows: usize) -> impl Iterator<Item = Range<usize>> {
    let n = rows.div_ceil(most);
    (0..n).map(move |i| i * rows / n..(i + 1) * rows / n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_few_and_of_about_the_same_size() {
        let of = |most, rows| blocks_of(most, rows).map(|block| (block.start, block.end)).collect::<Vec<_>>();
        assert_eq!(of(8, 0), []);
        assert_eq!(of(8, 8), [(0, 8)]);
        assert_eq!(of(8, 9), [(0, 4), (4, 9)]);
        assert_eq!(of(8, 25), [(0, 6), (6, 12), (12, 18), (18, 25)]);
        assert_eq!(blocks(1024 + 32 + 32).map(|block| block.len()).collect::<Vec<_>>(), [544, 544]);
    }
}
