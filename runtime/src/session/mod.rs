//! A session: the memory and the threads that answer about pictures.

mod answering;
mod draft;
pub mod embedding;
mod exchange;
pub mod grammar;
pub mod plan;
pub mod prefix;
mod prompts;
mod sampler;
mod sequence;
mod teacher_forcing;

use std::sync::Arc;
use std::time::Instant;

use palmtop_kernels::{Isa, Kernels};

use crate::engine::Engine;
pub use crate::engine::control::CancelToken;
use crate::engine::control::Watch;
use crate::engine::cpu::{self, CpuEngine};
pub use crate::engine::features::ImageFeatures;
use crate::engine::limits::{Extent, Limits};
use crate::engine::trace::Trace;
pub use crate::engine::trace::{Traced, TracedValues};
use crate::error::{Error, Result, UsageError};
use crate::image::{Frame, Normaliser, Resizer, RgbView};
use crate::model::Model;
use crate::system::machine;
use crate::system::memory::{Purpose, Reserve};
use crate::system::pool::{STACK_BYTES, ThreadHints};
use answering::Pass;
pub use exchange::{Answer, GenerateOptions, Piece, Request, StopReason, Timings};
use plan::Plan;
use prompts::Prompts;
use sampler::Sampler;
pub use sampler::Sampling;
use sequence::Sequence;
pub use sequence::SequenceId;

/// All memory and threads that answering needs; made once, used for picture after picture.
///
/// Nothing is allocated after it is made. A session is used by one thread at a time; make one per thread
/// over one shared [`Model`].
///
/// [`answer`](Self::answer) answers prompts about one picture from start to end. [`begin`](Self::begin),
/// [`step`](Self::step) and [`end`](Self::end) do it bit by bit: sequences join and leave between steps, each with pictures,
/// options and a deadline of its own. What a sequence answers does not depend on what runs beside it.
pub struct Session {
    model: Arc<Model>,
    limits: Limits,
    plan: Plan,
    engine: Box<dyn Engine>,
    kernels: Kernels,
    preprocessor: Preprocessor,
    prompts: Prompts,
    sequences: Vec<Sequence>,
    answers: Vec<Answer>,
    pass: Pass,
    sampler: Sampler,
    timings: Timings,
}

/// From a picture to patches.
struct Preprocessor {
    resizer: Resizer,
    normaliser: Normaliser,
    resized: Vec<u8>,
}

/// All memory of a session.
struct Memory {
    engine: cpu::Memory,
    preprocessor: Preprocessor,
    prompts: Prompts,
    sequences: Vec<Sequence>,
    answers: Vec<Answer>,
    pass: Pass,
    sampler: Sampler,
}

impl Memory {
    /// Takes the memory, or counts it.
    fn new(reserve: &mut Reserve, model: &Model, limits: &Limits, extent: &Extent) -> Result<Self> {
        let config = model.config();
        let side = config.vision.image_size;
        let [mean, std] = [config.image.mean, config.image.std].map(|c| c.map(|x| x as f32));
        let engine = cpu::Memory::new(reserve, model, extent)?;
        reserve.for_purpose(Purpose::Threads).count(stack_bytes(extent.threads));
        reserve.for_purpose(Purpose::Image);
        let preprocessor = Preprocessor {
            resizer: Resizer::reserved(
                reserve,
                limits.filter.unwrap_or(config.image.filter),
                side as u32,
                side as u32,
                limits.image_side as u32,
            )?,
            normaliser: Normaliser::new(mean, std, config.image.rescale)?,
            resized: reserve.filled(3 * side * side, 0)?,
        };
        reserve.for_purpose(Purpose::Text);
        let prompts = Prompts::new(reserve, limits.prompt_tokens)?;
        let (mut sequences, mut answers) = (reserve.list(limits.batch)?, reserve.list(limits.batch)?);
        for _ in 0..limits.batch {
            sequences.push(Sequence::new(reserve, limits.new_tokens)?);
            answers.push(Answer {
                tokens: reserve.list(limits.new_tokens)?,
                probabilities: reserve.list(limits.new_tokens)?,
                text: reserve.text(model.tokenizer().decoded_bytes_max(limits.new_tokens))?,
                token_ends: reserve.list(limits.new_tokens)?,
                ..Answer::default()
            });
        }
        let vocab = if extent.answers { config.text.vocab } else { 0 };
        let pass = Pass::new(reserve, extent, vocab)?;
        let sampler = Sampler::new(reserve, vocab)?;
        let features = config.image_rows().saturating_mul(config.text.hidden);
        reserve.for_purpose(Purpose::Features).count(features.saturating_mul(size_of::<f32>()));
        Ok(Self { engine, preprocessor, prompts, sequences, answers, pass, sampler })
    }
}

/// An error for more memory than there is. Systems promise more than they have, and kill whoever then uses it.
fn check_there_is(bytes: usize) -> Result<()> {
    match machine::available_memory() {
        Some(available) if bytes as u64 > available => Err(Error::OutOfMemory { bytes }),
        _ => Ok(()),
    }
}

/// Stacks of the threads that a session starts; the caller's is one of its threads.
fn stack_bytes(threads: usize) -> usize {
    STACK_BYTES * (threads - 1)
}

impl Model {
    /// The memory of a session with these limits, before any is taken.
    ///
    /// # Errors
    /// [`UsageError::Limit`] for limits that no session can have, [`Error::OutOfMemory`] for those of a session that
    /// this machine could not even address.
    pub fn plan(&self, limits: &Limits) -> Result<Plan> {
        let (reserve, extent) = (&mut Reserve::counting(), Extent::new(self.config(), limits)?);
        Memory::new(reserve, self, limits, &extent)?;
        let plan = Plan {
            weights_bytes: self.file().tensors().iter().map(|t| t.length as usize).sum(),
            kv_bytes: reserve.bytes(Purpose::KeysValues),
            activation_bytes: reserve.bytes(Purpose::Activations),
            thread_bytes: reserve.bytes(Purpose::Threads),
            stack_bytes: stack_bytes(extent.threads),
            image_bytes: reserve.bytes(Purpose::Image),
            text_bytes: reserve.bytes(Purpose::Text),
            features_bytes: reserve.bytes(Purpose::Features),
            threads: extent.threads,
        };
        match plan.session_bytes() {
            bytes if bytes > isize::MAX as usize => Err(Error::OutOfMemory { bytes }),
            _ => Ok(plan),
        }
    }
}

impl Session {
    /// Makes a session: takes the memory that [`Model::plan`] says, and starts the threads.
    ///
    /// # Errors
    /// [`UsageError::Limit`] for limits that no session can have, [`Error::OutOfMemory`] if the system does not have
    /// the memory, [`Error::Threads`] if it starts no threads.
    pub fn new(model: &Arc<Model>, limits: &Limits) -> Result<Self> {
        Self::with_threads(model, limits, &ThreadHints::default())
    }

    /// Like [`new`](Self::new); `threads` says on which cores and with which priority its threads should run.
    pub fn with_threads(model: &Arc<Model>, limits: &Limits, threads: &ThreadHints) -> Result<Self> {
        let plan = model.plan(limits)?;
        let bytes = plan.session_bytes();
        if limits.touch_memory {
            check_there_is(bytes)?;
        }
        let (reserve, extent) =
            (&mut Reserve::taking(limits.touch_memory), Extent::new(model.config(), limits)?);
        let kernels = Kernels::new(limits.isa)?;
        let Memory { engine, preprocessor, prompts, sequences, answers, pass, sampler } =
            Memory::new(reserve, model, limits, &extent)?;
        debug_assert_eq!(reserve.total(), bytes, "the plan is what is taken");
        Ok(Self {
            engine: Box::new(CpuEngine::new(model, engine, kernels, threads)?),
            kernels,
            preprocessor,
            prompts,
            sequences,
            answers,
            pass,
            sampler,
            timings: Timings::default(),
            model: model.clone(),
            limits: limits.clone(),
            plan,
        })
    }

    /// The model that this session answers with.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// What this session has allocated.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What this session can do.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The instruction set whose kernels compute.
    pub fn isa(&self) -> Isa {
        self.kernels.isa()
    }

    /// Memory for the features of one picture.
    pub fn new_features(&self) -> Result<ImageFeatures> {
        self.model.new_features()
    }

    /// Looks at a picture: an [`RgbView`], or a [`Frame`] as cameras deliver it, which is read where it lies.
    ///
    /// # Errors
    /// [`Error::Cancelled`], [`Error::DeadlinePassed`]; [`UsageError::FeaturesOfAnotherModel`]; [`Error::Image`] for a
    /// picture with a side above [`Limits::image_side`]. `features` then hold no picture.
    pub fn encode<'a>(
        &mut self,
        picture: impl Into<Frame<'a>>,
        features: &mut ImageFeatures,
        options: &GenerateOptions,
    ) -> Result<()> {
        self.encode_traced(picture.into(), features, &options.control(), &mut Trace::off())
    }

    fn encode_traced(
        &mut self,
        picture: Frame<'_>,
        features: &mut ImageFeatures,
        watch: &dyn Watch,
        trace: &mut Trace<'_>,
    ) -> Result<()> {
        let start = Instant::now();
        let config = self.model.config();
        features.check_owner(&self.model)?;
        features.encoded = false;
        features.picture = (0, 0);
        let side = config.vision.image_size as u32;
        let Preprocessor { resizer, normaliser, resized } = &mut self.preprocessor;
        // The reason is kept from where it is seen: a token may be reset at any time.
        let mut stopped = None;
        let stops = &mut || {
            stopped = watch.stop();
            stopped.is_some()
        };
        if !resizer.resize_unless(picture, resized, stops)? {
            return Err(stopped.expect("resizing ends early only if it is stopped").into());
        }
        let resized = RgbView::packed(side, side, resized)?;
        if trace.is_on() {
            let mut planes = vec![0.0; 3 * (side * side) as usize];
            normaliser.planes(resized, &mut planes)?;
            trace.f32(format_args!("pixel_values"), &[3, side as usize, side as usize], &planes);
        }
        normaliser.patches(resized, config.vision.patch_size as u32, self.engine.patches())?;
        self.engine.encode(&mut features.values, watch, trace)?;
        features.encoded = true;
        features.picture = (picture.width(), picture.height());
        self.timings.encode = start.elapsed();
        Ok(())
    }

    /// An error if the session gives no answers.
    fn check_answers(&self) -> Result<(), UsageError> {
        if self.limits.new_tokens > 0 { Ok(()) } else { Err(UsageError::NoAnswers) }
    }

    /// An error for answers that are longer than the session has room for, or empty.
    fn check_new_tokens(&self, tokens: usize) -> Result<(), UsageError> {
        self.check_answers()?;
        let most = self.limits.new_tokens;
        if (1..=most).contains(&tokens) { Ok(()) } else { Err(UsageError::NewTokens { tokens, most }) }
    }

    /// The answers of the last call of [`answer`](Self::answer), one per prompt, and behind them those of the session's other
    /// sequences: an answer for each of the batch.
    pub fn answers(&self) -> &[Answer] {
        &self.answers
    }

    /// How long the last calls took.
    pub fn timings(&self) -> Timings {
        self.timings
    }
}
