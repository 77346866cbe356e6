//! How keys and values are kept: what a session is asked for, and what it comes to for a model.

use palmtop_kernels::layout::WeightFormat;

use super::weights::Weights;

/// How keys and values are kept in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum KvFormat {
    /// f32 for a model with f32 decoder weights, else f16.
    #[default]
    Auto,
    /// 32 bits.
    F32,
    /// 16 bits.
    F16,
    /// 8 bits, and for each key and each value of a head an f32 scale, `max|x| / 127`: `head_dim + 4` bytes where f16
    /// takes `2 · head_dim`. A key or a value is then off by some 0.6 % of its length, or more where few dimensions are
    /// far larger than the rest; in f16 it is by 0.02 %.
    Int8,
}

impl KvFormat {
    /// What a session's keys and values are kept as.
    pub(crate) fn element(self, weights: &Weights) -> KvElement {
        match self {
            Self::Auto if weights.text.iter().all(|l| l.qkv.format() == WeightFormat::F32) => KvElement::F32,
            Self::Auto | Self::F16 => KvElement::F16,
            Self::F32 => KvElement::F32,
            Self::Int8 => KvElement::Int8,
        }
    }
}

/// What the numbers of keys and values are kept as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KvElement {
    F32,
    F16,
    /// i8, and an f32 scale for a key's or a value's numbers of one head.
    Int8,
}

impl KvElement {
    /// What a head's key, or its value, of one position takes.
    pub fn bytes(self, head_dim: usize) -> usize {
        match self {
            Self::F32 => 4 * head_dim,
            Self::F16 => 2 * head_dim,
            Self::Int8 => head_dim + size_of::<f32>(),
        }
    }
}
