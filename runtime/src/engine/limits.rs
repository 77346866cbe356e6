//! What a session may be asked for, and the numbers of rows that follow from it.

use palmtop_kernels::Isa;
#[cfg(doc)]
use palmtop_kernels::set_default_isa;

use crate::error::{Result, UsageError};
use crate::image::Filter;
use crate::model::config::Config;
use crate::model::kv_format::KvFormat;
use crate::system::machine;

/// What a session must be able to do; its memory follows from this, to the byte.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// Prompts that are answered together; their tokens are decoded in one pass over the weights.
    pub batch: usize,
    /// Tokens of a prompt, begin-of-sequence and final newline included, image tokens not.
    pub prompt_tokens: usize,
    /// Tokens of an answer; 0 for a session that gives no answers, only [prefixes](crate::Session::prefix) and vectors
    /// for [retrieval](crate::Session::embed_picture), and takes less memory.
    pub new_tokens: usize,
    /// Pictures of one prompt.
    pub pictures: usize,
    /// Tokens of a draft that are checked in one pass over the weights; 0 if there are no drafts. Each takes a row of
    /// logits for every prompt of the batch.
    pub draft_tokens: usize,
    /// Pixels of the longer side of a picture.
    pub image_side: usize,
    /// How pictures are resized; `None` as the model's file says. Fine-tunes on videos and pairs of pictures were
    /// trained with [`Filter::BilinearAliased`], which files made of their checkpoints need not know.
    pub filter: Option<Filter>,
    /// How keys and values are kept.
    pub kv: KvFormat,
    /// Threads that compute; `None` for one per physical core, slow ones of big.LITTLE left out.
    pub threads: Option<usize>,
    /// Write to every page of memory, the threads' stacks left out, when the session is made, so that the system backs
    /// it then: [`Session::new`](crate::Session::new) fails if the system says that it has not so much. Without it, the
    /// system backs pages as they are first used.
    pub touch_memory: bool,
    /// The instruction set of the kernels; all give the same bits and take the same memory. `None` for the default of
    /// the process: what [`set_default_isa`] was given, or what the environment variable `PALMTOP_ISA` names, or the
    /// best of this CPU.
    pub isa: Option<Isa>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch: 1,
            prompt_tokens: 256,
            new_tokens: 256,
            pictures: 1,
            draft_tokens: 0,
            image_side: 16384,
            filter: None,
            kv: KvFormat::Auto,
            threads: None,
            touch_memory: true,
            isa: None,
        }
    }
}

/// No session is planned beyond these.
const TOKENS_MAX: usize = 1 << 20;
const BATCH_MAX: usize = 1 << 10;
const PICTURES_MAX: usize = 1 << 10;
const DRAFT_MAX: usize = 1 << 10;
const THREADS_MAX: usize = 1 << 10;
const IMAGE_SIDE_MAX: usize = u16::MAX as usize;

/// Tokens of a sequence that can wait to be computed in one pass: the last one chosen, and those behind it that a
/// grammar leaves no choice of.
pub(crate) const QUEUE_MAX: usize = 16;

/// How far a session reaches, in rows.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    /// Sequences.
    pub batch: usize,
    /// Rows of the longest prefix.
    pub prefix: usize,
    /// Spans of a pass.
    pub spans: usize,
    /// Rows that go through the decoder in one pass.
    pub rows: usize,
    /// Rows that go through the LM head in one pass.
    pub logits: usize,
    /// Positions that a sequence can reach.
    pub positions: usize,
    /// Whether it answers: otherwise no pass needs the keys and values of an earlier one.
    pub answers: bool,
    pub threads: usize,
    pub kv: KvFormat,
}

impl Extent {
    /// # Errors
    /// [`UsageError::Limit`] for a limit that no session can have.
    pub fn new(config: &Config, limits: &Limits) -> Result<Self> {
        let within = |name: &'static str, value: usize, least: usize, most: usize| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(UsageError::Limit { name, value, least, most })
        };
        within("the batch", limits.batch, 1, BATCH_MAX)?;
        within("the limit of prompt tokens", limits.prompt_tokens, 1, TOKENS_MAX)?;
        within("the limit of new tokens", limits.new_tokens, 0, TOKENS_MAX)?;
        within("the limit of pictures of a prompt", limits.pictures, 1, PICTURES_MAX)?;
        within("the limit of draft tokens", limits.draft_tokens, 0, DRAFT_MAX)?;
        within("the longest image side", limits.image_side, 1, IMAGE_SIDE_MAX)?;
        let threads = limits.threads.unwrap_or_else(machine::default_threads);
        within("the number of threads", threads, 1, THREADS_MAX)?;
        // At most 2¹⁰ pictures of 2¹⁶ rows: nothing here can overflow.
        let prefix = limits.pictures * config.image_rows() + limits.prompt_tokens;
        let answers = limits.new_tokens > 0;
        // The first tokens of a draft go with the prefix.
        let drafted = if answers { limits.draft_tokens } else { 0 };
        let (behind, logits) = match answers {
            true => (limits.batch * (QUEUE_MAX + drafted), limits.batch * (1 + drafted)),
            false => (0, 0),
        };
        Ok(Self {
            batch: limits.batch,
            prefix,
            spans: limits.batch.max(1 + usize::from(drafted > 0)),
            rows: (prefix + drafted).max(behind),
            logits,
            answers,
            positions: prefix + limits.new_tokens,
            threads,
            kv: limits.kv,
        })
    }
}
