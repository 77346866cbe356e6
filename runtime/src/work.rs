//! How much work a picture and a token are: what times are held against.

use crate::model::Model;
use crate::plan::KvFormat;
use crate::weights::Matrix;

/// Multiply-adds and bytes that a model's answers take, counted from its architecture.
///
/// A multiply-add counts as one, whatever its arithmetic; norms, activations and softmax are not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Work {
    /// Multiply-adds of looking at a picture: image encoder and projector.
    pub encode_macs: u64,
    /// Multiply-adds of a prefix of `prefix_tokens`, the head's for its last row included.
    pub prefill_macs: u64,
    /// Bytes read for a token behind the prefix: the decoder's matrices, the head, and the prefix's keys and values.
    pub token_bytes: u64,
    /// Image tokens and those of the prompt.
    pub prefix_tokens: usize,
}

impl Work {
    pub(crate) fn of(model: &Model, prefix_tokens: usize, kv: KvFormat) -> Self {
        let (config, weights) = (model.config(), model.weights());
        let (v, t) = (&config.vision, &config.text);
        let macs = |m: &Matrix| m.rows() as u64 * m.cols() as u64;
        let patches = v.patches() as u64;
        // Every row with every row, once for the scores and once for the values.
        let attention = |rows: u64, width: usize| 2 * rows * rows * width as u64;

        let encoder = weights.vision.iter().flat_map(|l| [&l.qkv, &l.out, &l.fc1, &l.fc2]);
        let encoder = encoder.chain([&weights.patch_embed, &weights.projector]);
        let encode_macs =
            patches * encoder.map(macs).sum::<u64>() + v.layers as u64 * attention(patches, v.hidden);

        let decoder = || weights.text.iter().flat_map(|l| [&l.qkv, &l.out, &l.gate_up, &l.down]);
        let prefix = prefix_tokens as u64;
        let prefill_macs = prefix * decoder().map(macs).sum::<u64>()
            + t.layers as u64 * attention(prefix, t.heads * t.head_dim)
            + macs(&weights.embed);

        let vectors = 2 * prefix * (t.layers * t.kv_heads) as u64;
        let kv_bytes = vectors * kv.element(weights).bytes(t.head_dim) as u64;
        let token_bytes = decoder().chain([&weights.embed]).map(|m| m.bytes() as u64).sum::<u64>() + kv_bytes;
        Self { encode_macs, prefill_macs, token_bytes, prefix_tokens }
    }
}
