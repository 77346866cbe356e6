//! What a session may be asked for, and the memory that follows from it.

use std::fmt;

use palmtop_kernels::layout::WeightFormat;

use crate::kv::KvElement;
use crate::weights::Weights;

/// What a session must be able to do; its memory follows from this, to the byte.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// Prompts that are answered together; their tokens are decoded in one pass over the weights.
    pub batch: usize,
    /// Tokens of a prompt, begin-of-sequence and final newline included, image tokens not.
    pub prompt_tokens: usize,
    /// Tokens of an answer.
    pub new_tokens: usize,
    /// Pixels of the longer side of a picture.
    pub image_side: usize,
    /// How keys and values are kept.
    pub kv: KvFormat,
    /// Threads that compute; `None` for one per physical core.
    pub threads: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch: 1,
            prompt_tokens: 256,
            new_tokens: 256,
            image_side: 16384,
            kv: KvFormat::Auto,
            threads: None,
        }
    }
}

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
    /// takes `2 · head_dim`. A key or a value is then off by some 0.6 % of its length, or more where few dimensions are far
    /// larger than the rest; in f16 it is by 0.02 %.
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

/// The memory of a session, known before it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// Weights in the mapped file: read-only, shared between sessions and processes.
    pub weights_bytes: usize,
    /// Keys and values of all sequences.
    pub kv_bytes: usize,
    /// Activations of the image encoder and of the decoder, which share one arena.
    pub activation_bytes: usize,
    /// Per-thread scratch memory of all threads.
    pub thread_bytes: usize,
    /// Resizing and patches.
    pub image_bytes: usize,
    /// Tokens, texts and sampling.
    pub text_bytes: usize,
    /// One set of image features.
    pub features_bytes: usize,
    /// Threads that compute.
    pub threads: usize,
}

impl Plan {
    /// All that a session allocates, one set of image features included; the mapped weights are not.
    pub fn session_bytes(&self) -> usize {
        let parts = [
            self.kv_bytes,
            self.activation_bytes,
            self.thread_bytes,
            self.image_bytes,
            self.text_bytes,
            self.features_bytes,
        ];
        parts.into_iter().fold(0, usize::saturating_add)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, bytes: usize| {
            writeln!(f, "{name:<24}{bytes:>16} bytes {:>10.1} MiB", bytes as f64 / (1 << 20) as f64)
        };
        row("weights (mapped)", self.weights_bytes)?;
        row("keys and values", self.kv_bytes)?;
        row("activations", self.activation_bytes)?;
        row("thread scratch", self.thread_bytes)?;
        row("image", self.image_bytes)?;
        row("tokens and text", self.text_bytes)?;
        row("image features", self.features_bytes)?;
        row("session", self.session_bytes())
    }
}
