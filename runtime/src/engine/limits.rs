//! What a session may be asked for.

use palmtop_kernels::Isa;
#[cfg(doc)]
use palmtop_kernels::set_default_isa;

use crate::model::kv_format::KvFormat;

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
    /// The instruction set of the kernels; all give the same bits and take the same memory. `None` for the default of the
    /// process: what [`set_default_isa`] was given, or what the environment variable
    /// `PALMTOP_ISA` names, or the best of this CPU.
    pub isa: Option<Isa>,
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
            isa: None,
        }
    }
}
