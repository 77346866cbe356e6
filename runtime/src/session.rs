//! A session: the memory and the threads that answer about pictures.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::image::RgbView;
use crate::model::Model;
use crate::plan::{Limits, Plan};

/// All memory and threads that answering needs; made once, used for picture after picture.
///
/// Nothing is allocated after it is made. A session is used by one thread at a time; make one per thread
/// over one shared [`Model`].
pub struct Session {
    model: Arc<Model>,
    answers: Vec<Answer>,
    timings: Timings,
    plan: Plan,
}

/// What the image encoder saw in a picture: `[patches, hidden]` f32, ready for the decoder.
///
/// Encode once, ask many times.
pub struct ImageFeatures {
    values: Vec<f32>,
    encoded: bool,
}

/// Stops a call from another thread, within the time of a layer.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

/// How to answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GenerateOptions {
    /// Tokens of an answer; at most the session's limit, which is used if `None`.
    pub max_new_tokens: Option<usize>,
    /// How the next token is chosen.
    pub sampling: Sampling,
    /// End an answer at the end-of-sequence token.
    pub stop_at_eos: bool,
    /// Stops encoding, prefill and decoding.
    pub cancel: CancelToken,
    /// Like a cancellation at this time.
    pub deadline: Option<Instant>,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_new_tokens: None,
            sampling: Sampling::default(),
            stop_at_eos: true,
            cancel: CancelToken::default(),
            deadline: None,
        }
    }
}

/// How the next token is chosen. The default is greedy.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Sampling {
    /// Logits are divided by this; 0 takes the likeliest token.
    pub temperature: f32,
    /// Only the so many likeliest tokens; 0 for all.
    pub top_k: usize,
    /// Only the likeliest tokens that together have this probability; 0 or 1 for all.
    pub top_p: f32,
    /// The same seed gives the same answer.
    pub seed: u64,
}

/// A part of an answer as it arises.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// Which of the prompts it answers.
    pub prompt: usize,
    /// The token; `None` for the last piece, which gives what was held back.
    pub token: Option<u32>,
    /// Text that became complete with this token: valid UTF-8, possibly empty.
    pub text: &'a str,
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Tokens, end-of-sequence not included.
    pub tokens: Vec<u32>,
    /// The probability that the model gave to each of the tokens.
    pub probabilities: Vec<f32>,
    /// The tokens as text, special tokens left out.
    pub text: String,
    /// Why it ended.
    pub stop: StopReason,
    /// Tokens of the prompt, image tokens included.
    pub prompt_tokens: usize,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum StopReason {
    /// The model ended it.
    EndOfSequence,
    /// The limit of new tokens was reached.
    #[default]
    TokenLimit,
    /// It was cancelled, its deadline passed, or the callback said stop.
    Cancelled,
}

/// How long the steps of the last calls took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Resizing, patches and image encoder of the last [`Session::encode`].
    pub encode: Duration,
    /// Prefill of all prompts of the last [`Session::answer`], up to their first logits.
    pub prefill: Duration,
    /// Decoding of all tokens behind the first.
    pub decode: Duration,
    /// Decoding steps; each gives one token for every prompt of the batch that has not ended.
    pub decode_steps: usize,
}

impl CancelToken {
    /// Asks for the stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
    /// True once a stop was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Session {
    /// Makes a session: allocates everything that [`Model::plan`] says, and starts the threads.
    pub fn new(model: &Arc<Model>, limits: &Limits) -> Result<Self> {
        let _ = limits;
        let _ = model;
        todo!()
    }

    /// The model that this session answers with.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// What this session has allocated.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Memory for the features of one picture.
    pub fn new_features(&self) -> ImageFeatures {
        todo!()
    }

    /// Looks at a picture. On cancellation or a passed deadline: [`Error::Cancelled`](crate::Error::Cancelled).
    pub fn encode(&mut self, picture: RgbView<'_>, features: &mut ImageFeatures, options: &GenerateOptions) -> Result<()> {
        let _ = (picture, features, options);
        todo!()
    }

    /// Answers up to [`Limits::batch`] prompts about one picture together; each exactly as it would be answered
    /// alone. The prompts are what stands between `<bos>` and the final newline, which is added here.
    ///
    /// `on_piece` hears every token of every prompt; `Break` stops that prompt's answer. A cancellation during
    /// the decoding leaves the answers so far, marked [`StopReason::Cancelled`]; one during the prefill is an error.
    pub fn answer(
        &mut self,
        features: &ImageFeatures,
        prompts: &[&str],
        options: &GenerateOptions,
        on_piece: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<&[Answer]> {
        let _ = (features, prompts, options, on_piece);
        todo!()
    }

    /// The answers of the last call, one per prompt.
    pub fn answers(&self) -> &[Answer] {
        &self.answers
    }

    /// How long the last calls took.
    pub fn timings(&self) -> Timings {
        self.timings
    }

    /// Runs one picture and prompt greedily for exactly `new_tokens` tokens (end-of-sequence does not stop it)
    /// and hands every intermediate value to `sink`, in the order of computation, under the names of `docs/trace.md`.
    pub fn trace(
        &mut self,
        picture: RgbView<'_>,
        prompt: &str,
        new_tokens: usize,
        sink: &mut dyn FnMut(Traced<'_>),
    ) -> Result<()> {
        let _ = (picture, prompt, new_tokens, sink);
        todo!()
    }
}

/// A value seen by [`Session::trace`].
#[derive(Clone, Copy, Debug)]
pub struct Traced<'a> {
    /// Name as in `docs/trace.md`, such as `vision.layer.3`.
    pub name: &'a str,
    /// Dimensions, outermost first.
    pub shape: &'a [usize],
    /// The values, row-major.
    pub values: TracedValues<'a>,
}

/// Values of a [`Traced`].
#[derive(Clone, Copy, Debug)]
pub enum TracedValues<'a> {
    /// Activations and logits.
    F32(&'a [f32]),
    /// Token ids.
    I64(&'a [i64]),
}

impl ImageFeatures {
    /// `[patches, hidden]`, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// False until a picture has been encoded into it.
    pub fn is_encoded(&self) -> bool {
        self.encoded
    }
}
