//! The sizes of a session, which are its plan.

use palmtop_kernels::layout::LANES;

use super::{Answer, Sequence};
use crate::engine::cpu::EngineSizes;
use crate::engine::cpu::buffers::BufferSizes;
use crate::engine::cpu::kv::KvShape;
use crate::engine::cpu::text::Span;
use crate::engine::head::HeadPart;
use crate::engine::limits::Limits;
use crate::error::{Error, Result};
use crate::image::Resizer;
use crate::model::Model;
use crate::session::plan::Plan;
use crate::session::sampler::Sampler;
use crate::system::machine;
use crate::tokenizer::EncodeScratch;

/// Bytes of a prompt's text per token of the limit; a longer text does not fit either way.
const PROMPT_BYTES_PER_TOKEN: usize = 16;
/// No session is planned beyond these.
const TOKENS_MAX: usize = 1 << 20;
const BATCH_MAX: usize = 1 << 10;
const THREADS_MAX: usize = 1 << 10;
const IMAGE_SIDE_MAX: usize = u16::MAX as usize;

/// Sizes of a session that go with its [`Plan`].
pub(super) struct Sizes {
    pub engine: EngineSizes,
    pub prompt_bytes: usize,
}

impl Sizes {
    pub fn new(model: &Model, limits: &Limits) -> Result<Self> {
        let within = |name: &str, value: usize, max: usize| {
            if (1..=max).contains(&value) {
                return Ok(());
            }
            Err(Error::InvalidArgument(format!("{name} is {value}: choose 1 to {max}")))
        };
        within("the batch", limits.batch, BATCH_MAX)?;
        within("the limit of prompt tokens", limits.prompt_tokens, TOKENS_MAX)?;
        within("the limit of new tokens", limits.new_tokens, TOKENS_MAX)?;
        within("the longest image side", limits.image_side, IMAGE_SIDE_MAX)?;
        let threads = limits.threads.unwrap_or_else(machine::default_threads);
        within("the number of threads", threads, THREADS_MAX)?;
        let (config, weights) = (model.config(), model.weights());
        let t = &config.text;
        let positions = config.vision.patches() + limits.prompt_tokens + limits.new_tokens;
        let slots = (limits.batch * t.kv_heads).checked_mul(t.layers);
        let slots = slots.ok_or(Error::OutOfMemory { bytes: usize::MAX })?;
        Ok(Self {
            engine: EngineSizes {
                buffers: BufferSizes::new(config, weights, limits),
                kv: KvShape {
                    slots,
                    head_dim: t.head_dim,
                    capacity: positions.next_multiple_of(LANES),
                    element: limits.kv.element(weights),
                },
                positions,
                threads,
            },
            prompt_bytes: limits.prompt_tokens.saturating_mul(PROMPT_BYTES_PER_TOKEN),
        })
    }

    pub fn plan(&self, model: &Model, limits: &Limits) -> Result<Plan> {
        let config = model.config();
        let side = config.vision.image_size;
        let tokenizer = model.tokenizer();
        let answer = limits.new_tokens * (4 + 4 + 8) + tokenizer.decoded_bytes_max(limits.new_tokens);
        let sequence = size_of::<Sequence>() + limits.new_tokens + size_of::<Answer>() + answer;
        let step = size_of::<Span>() + size_of::<usize>();
        let plan = Plan {
            weights_bytes: model.file().tensors().iter().map(|t| t.length as usize).sum(),
            kv_bytes: self.engine.kv.bytes(),
            activation_bytes: self.engine.activation_bytes(config.text.head_dim),
            thread_bytes: self.engine.thread_bytes(),
            image_bytes: Resizer::bytes_for(side as u32, side as u32, limits.image_side as u32)?
                + 3 * side * side,
            text_bytes: EncodeScratch::memory_bytes(self.prompt_bytes)
                + self.prompt_bytes * (1 + 4)
                + limits.batch.saturating_mul(sequence + step)
                + Sampler::bytes(config.text.vocab)
                + HeadPart::bytes(config.text.vocab),
            features_bytes: (config.vision.patches() * 4).saturating_mul(config.text.hidden),
            threads: self.engine.threads,
        };
        match plan.session_bytes() {
            bytes if bytes > isize::MAX as usize => Err(Error::OutOfMemory { bytes }),
            _ => Ok(plan),
        }
    }
}

impl Model {
    /// The memory of a session with these limits, before any is taken.
    pub fn plan(&self, limits: &Limits) -> Result<Plan> {
        Sizes::new(self, limits)?.plan(self, limits)
    }
}
