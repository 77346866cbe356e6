//! The activation arena: sizes first, then the memory, so that a plan is exact.

use palmtop_kernels::generic::attention_int8::{HEAD_DIM_MAX, KEYS};
use palmtop_kernels::layout::LANES;

use crate::engine::cpu::attention::{self, Int8Kv, Int8KvSizes};
use crate::engine::cpu::compute::{BLOCK_ROWS, ScratchSizes, Staged, StagedSizes};
use crate::engine::cpu::kv::{KvArena, KvShape};
use crate::engine::limits::Limits;
use crate::error::Result;
use crate::model::config::{Config, Heads};
use crate::model::kv_format::KvElement;
use crate::model::weights::{Matrix, Weights};
use crate::system::memory::Aligned;

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
    /// What a branch of a Gemma 2 layer gives before its norm, for a block of rows.
    pub branch: Aligned<f32>,
    /// `[batch, vocab]`
    pub logits: Aligned<f32>,
    /// Input of the matrix at hand.
    pub staged: Staged,
    /// Input of the second matrix of an MLP.
    pub gated: Staged,
    /// Keys and values of an encoder layer that attends in floats.
    pub vision_kv: KvArena,
    /// Keys and values of a layer that attends in integers.
    pub int8_kv: Int8Kv,
}

/// Numbers of elements of [`Buffers`], and sizes of what goes with them.
#[derive(Clone, Debug)]
pub(crate) struct BufferSizes {
    hidden: usize,
    qkv: usize,
    attended: usize,
    patches: usize,
    branch: usize,
    logits: usize,
    staged: StagedSizes,
    gated: StagedSizes,
    vision_kv: KvShape,
    int8_kv: Int8KvSizes,
    pub scratch: ScratchSizes,
}

impl BufferSizes {
    pub fn new(config: &Config, weights: &Weights, limits: &Limits) -> Self {
        let (v, t) = (&config.vision, &config.text);
        // A file may state any sizes: where the address space ends, the plan is refused.
        let times = usize::saturating_mul;
        let patches = v.patches();
        // Rows that go through the decoder at once: a prefix, or one token of each sequence.
        let text_rows = (patches + limits.prompt_tokens).max(limits.batch);
        let rows = patches.max(text_rows);
        let block = BLOCK_ROWS.min(rows);
        let attended_width = t.heads * t.head_dim;
        let (mut staged, mut gated) = (StagedSizes::default(), StagedSizes::default());
        weights.matrices_from_rows().for_each(|m| staged.cover(m.format().is_integer(), block, m.cols()));
        weights
            .matrices_from_activations()
            .for_each(|m| gated.cover(m.format().is_integer(), block, m.cols()));
        let mut int8_kv = Int8KvSizes::default();
        let (heads, prefix) = (v.attention_heads(), patches.saturating_add(limits.prompt_tokens));
        if weights.vision.iter().any(|l| attends_in_integers(&l.qkv, &heads, patches)) {
            int8_kv.cover(&heads, patches);
        }
        let float = weights.vision.iter().any(|l| !attends_in_integers(&l.qkv, &heads, patches));
        let heads = t.attention_heads();
        if weights.text.iter().any(|l| attends_in_integers(&l.qkv, &heads, prefix)) {
            int8_kv.cover(&heads, prefix);
        }
        Self {
            hidden: times(patches, v.hidden).max(times(text_rows, t.hidden)),
            qkv: times(patches, 3 * v.hidden).max(times(text_rows, t.qkv())),
            attended: times(patches, v.hidden).max(times(text_rows, attended_width)),
            patches: times(patches, v.patch_values()),
            branch: times(block, t.hidden),
            logits: times(limits.batch, t.vocab),
            staged,
            gated,
            vision_kv: KvShape {
                slots: if float { v.heads } else { 0 },
                head_dim: v.head_dim(),
                capacity: patches.next_multiple_of(LANES),
                element: KvElement::F32,
            },
            int8_kv,
            scratch: ScratchSizes {
                rows: block,
                width: weights.matrices_from_rows().map(|m| m.cols()).max().unwrap_or(0),
                attention: attention::ScratchSizes {
                    head_dim: v.head_dim().max(t.head_dim),
                    keys: (patches + limits.prompt_tokens + limits.new_tokens).next_multiple_of(LANES),
                },
            },
        }
    }

    pub fn bytes(&self) -> usize {
        let floats = [self.hidden, self.qkv, self.attended, self.patches, self.branch, self.logits];
        let floats = floats.into_iter().map(Aligned::<f32>::bytes).fold(0, usize::saturating_add);
        floats
            .saturating_add(self.staged.bytes())
            .saturating_add(self.gated.bytes())
            .saturating_add(self.vision_kv.bytes())
            .saturating_add(self.int8_kv.bytes())
    }
}

impl Buffers {
    pub fn new(sizes: &BufferSizes) -> Result<Self> {
        Ok(Self {
            hidden: Aligned::zeroed(sizes.hidden)?,
            qkv: Aligned::zeroed(sizes.qkv)?,
            attended: Aligned::zeroed(sizes.attended)?,
            patches: Aligned::zeroed(sizes.patches)?,
            branch: Aligned::zeroed(sizes.branch)?,
            logits: Aligned::zeroed(sizes.logits)?,
            staged: Staged::new(&sizes.staged)?,
            gated: Staged::new(&sizes.gated)?,
            vision_kv: KvArena::new(sizes.vision_kv)?,
            int8_kv: Int8Kv::new(&sizes.int8_kv)?,
        })
    }
}

/// Whether `keys` rows of a layer attend to each other in integers: where its weights are integers, the kernel can, and
/// there are enough keys. With few, little rounding averages out, and floats cost little.
pub(crate) fn attends_in_integers(qkv: &Matrix, heads: &Heads, keys: usize) -> bool {
    qkv.format().is_integer() && heads.head_dim <= HEAD_DIM_MAX && keys >= KEYS
}

/// Blocks of rows that go through the matrices together.
pub(crate) fn blocks(rows: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..rows).step_by(BLOCK_ROWS).map(move |from| from..rows.min(from + BLOCK_ROWS))
}
