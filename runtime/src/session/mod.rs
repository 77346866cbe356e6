//! A session: the memory and the threads that answer about pictures.

mod exchange;
mod given;
pub mod grammar;
pub mod plan;
mod sampler;
mod sizes;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use crate::engine::control::CancelToken;
use crate::engine::control::Control;
use crate::engine::cpu::Engine;
use crate::engine::cpu::text::Span;
use crate::engine::cpu::vision;
pub use crate::engine::features::ImageFeatures;
use crate::engine::head::HeadPart;
use crate::engine::limits::Limits;
use crate::engine::trace::Trace;
pub use crate::engine::trace::{Traced, TracedValues};
use crate::error::{Error, Result};
use crate::image::{Frame, Normaliser, Resizer, RgbView};
use crate::model::Model;
pub use crate::session::sampler::Sampling;
use crate::session::sampler::{Choice, Sampler};
use crate::system::memory::zeroed;
use crate::system::pool::ThreadHints;
use crate::tokenizer::{Detokenizer, EncodeScratch};
pub use exchange::{Answer, GenerateOptions, Piece, StopReason, Timings};
use grammar::Grammar;
use plan::Plan;
use sizes::Sizes;

/// All memory and threads that answering needs; made once, used for picture after picture.
///
/// Nothing is allocated after it is made. A session is used by one thread at a time; make one per thread
/// over one shared [`Model`].
pub struct Session {
    model: Arc<Model>,
    limits: Limits,
    plan: Plan,
    engine: Engine,
    eye: Eye,
    words: Words,
    sampler: Sampler,
    answers: Vec<Answer>,
    timings: Timings,
}

/// From a picture to patches.
struct Eye {
    resizer: Resizer,
    normaliser: Normaliser,
    resized: Vec<u8>,
}

/// From prompts to tokens, and from tokens to text.
struct Words {
    encode: EncodeScratch,
    prompt: String,
    /// Prompt tokens of the sequence at hand.
    ids: Vec<u32>,
    sequences: Vec<Sequence>,
    spans: Vec<Span>,
    /// Which sequence each row of a decoding step belongs to.
    rows: Vec<usize>,
    /// Which logits the next tokens are chosen from.
    head: HeadPart,
}

/// The state of an answer.
struct Sequence {
    detokenizer: Detokenizer,
    /// Position of the next token to be computed.
    position: usize,
    /// The token to be computed next.
    token: u32,
    random: u64,
    /// Where it is in the grammar, if there is one.
    state: u32,
    running: bool,
}

impl Session {
    /// Makes a session: allocates everything that [`Model::plan`] says, and starts the threads.
    pub fn new(model: &Arc<Model>, limits: &Limits) -> Result<Self> {
        Self::with_threads(model, limits, &ThreadHints::default())
    }

    /// Like [`new`](Self::new), with a word on how its threads shall run: on which cores, with which priority.
    pub fn with_threads(model: &Arc<Model>, limits: &Limits, threads: &ThreadHints) -> Result<Self> {
        let sizes = Sizes::new(model, limits)?;
        let plan = sizes.plan(model, limits)?;
        // Asked for in one piece and given back, so that too large a session is an error here: some of the lists
        // below could only abort.
        drop(zeroed::<u8>(plan.session_bytes())?);
        let config = model.config();
        let side = config.vision.image_size;
        let tokenizer = model.tokenizer();
        let sequence = |_| Sequence {
            detokenizer: Detokenizer::with_capacity(limits.new_tokens, true),
            position: 0,
            token: 0,
            random: 0,
            state: grammar::START,
            running: false,
        };
        let answer = |_| Answer {
            tokens: Vec::with_capacity(limits.new_tokens),
            probabilities: Vec::with_capacity(limits.new_tokens),
            text: String::with_capacity(tokenizer.decoded_bytes_max(limits.new_tokens)),
            token_ends: Vec::with_capacity(limits.new_tokens),
            ..Answer::default()
        };
        let [mean, std] = [config.image.mean, config.image.std].map(|c| c.map(|x| x as f32));
        Ok(Self {
            engine: Engine::new(model, &sizes.engine, limits.isa, threads)?,
            eye: Eye {
                resizer: Resizer::new(side as u32, side as u32, limits.image_side as u32)?,
                normaliser: Normaliser::new(mean, std, config.image.rescale)?,
                resized: zeroed(3 * side * side)?,
            },
            words: Words {
                encode: EncodeScratch::with_capacity(sizes.prompt_bytes),
                prompt: String::with_capacity(sizes.prompt_bytes),
                ids: Vec::with_capacity(sizes.prompt_bytes),
                sequences: (0..limits.batch).map(sequence).collect(),
                spans: Vec::with_capacity(limits.batch),
                rows: Vec::with_capacity(limits.batch),
                head: HeadPart::new(config.text.vocab)?,
            },
            sampler: Sampler::new(config.text.vocab)?,
            answers: (0..limits.batch).map(answer).collect(),
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

    /// The instruction set whose kernels compute.
    pub fn isa(&self) -> palmtop_kernels::Isa {
        self.engine.compute.kernels.isa()
    }

    /// Memory for the features of one picture.
    pub fn new_features(&self) -> Result<ImageFeatures> {
        self.model.new_features()
    }

    /// Looks at a picture: an [`RgbView`], or a [`Frame`] as cameras deliver it, which is read where it lies. On
    /// cancellation or a passed deadline: [`Error::Cancelled`].
    pub fn encode<'a>(
        &mut self,
        picture: impl Into<Frame<'a>>,
        features: &mut ImageFeatures,
        options: &GenerateOptions,
    ) -> Result<()> {
        self.encode_traced(picture.into(), features, options.control(), &mut Trace::off())
    }

    /// An error for features of a model with other sizes.
    fn check_owner(&self, features: &ImageFeatures) -> Result<()> {
        let config = self.model.config();
        if features.values.len() != config.vision.patches() * config.text.hidden {
            return Err(Error::InvalidArgument("the image features were made for another model".to_owned()));
        }
        Ok(())
    }

    /// An error for answers that are longer than the session has room for, or empty.
    fn check_new_tokens(&self, wanted: usize) -> Result<()> {
        let max = self.limits.new_tokens;
        if !(1..=max).contains(&wanted) {
            return Err(Error::InvalidArgument(format!(
                "{wanted} new tokens, where the session takes 1 to {max}"
            )));
        }
        Ok(())
    }

    fn encode_traced(
        &mut self,
        picture: Frame<'_>,
        features: &mut ImageFeatures,
        control: Control<'_>,
        trace: &mut Trace<'_>,
    ) -> Result<()> {
        let start = Instant::now();
        let config = self.model.config();
        self.check_owner(features)?;
        features.encoded = false;
        features.picture = (0, 0);
        let side = config.vision.image_size as u32;
        if !self.eye.resizer.resize_unless(picture, &mut self.eye.resized, &mut || control.stops())? {
            return Err(Error::Cancelled);
        }
        let resized = RgbView::packed(side, side, &self.eye.resized)?;
        if trace.is_on() {
            let mut planes = vec![0.0; self.eye.resized.len()];
            self.eye.normaliser.planes(resized, &mut planes)?;
            trace.f32(format_args!("pixel_values"), &[3, side as usize, side as usize], &planes);
        }
        let patches =
            &mut self.engine.buffers.patches[..config.vision.patches() * config.vision.patch_values()];
        self.eye.normaliser.patches(resized, config.vision.patch_size as u32, patches)?;
        vision::encode(&mut self.engine, &mut features.values, control, trace)?;
        features.encoded = true;
        features.picture = (picture.width(), picture.height());
        self.timings.encode = start.elapsed();
        Ok(())
    }

    /// Answers up to [`Limits::batch`] prompts about one picture together; each exactly as it would be answered
    /// alone. The prompts are what stands between `<bos>` and the final newline, which is added here.
    ///
    /// `on_piece` hears every token of every prompt; `Break` stops that prompt's answer. A cancellation during
    /// the decoding leaves the answers so far, marked [`StopReason::Cancelled`]; one during the prefill is an error.
    /// Answers that are not broken off are what [`GenerateOptions::grammar`] allows.
    pub fn answer(
        &mut self,
        features: &ImageFeatures,
        prompts: &[&str],
        options: &GenerateOptions,
        on_piece: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<&[Answer]> {
        let start = Instant::now();
        if prompts.is_empty() || prompts.len() > self.limits.batch {
            let (n, batch) = (prompts.len(), self.limits.batch);
            return Err(Error::InvalidArgument(format!(
                "{n} prompts at once, where the session takes 1 to {batch}"
            )));
        }
        let limit = options.max_new_tokens.unwrap_or(self.limits.new_tokens);
        self.check_new_tokens(limit)?;
        if let Some(grammar) = &options.grammar {
            grammar.check(self.model.config().text.vocab, limit)?;
        }
        for (i, answer) in self.answers.iter_mut().enumerate() {
            answer.clear();
            self.words.sequences[i].running = false;
        }
        (self.timings.prefill, self.timings.decode, self.timings.decode_steps) = Default::default();
        let mut prefill = Duration::ZERO;
        for (i, prompt) in prompts.iter().enumerate() {
            let begin = Instant::now();
            self.words.sequences[i].state = grammar::START;
            select(&mut self.words.head, options.grammar.as_ref(), [grammar::START].into_iter());
            self.prefill(i, features, prompt, options.control(), &mut Trace::off())?;
            prefill += begin.elapsed();
            self.words.sequences[i].running = true;
            self.words.sequences[i].random = options.sampling.seed;
            self.next_token(i, 0, limit, options, on_piece)?;
        }
        self.timings.prefill = prefill;
        while self.decode_step(limit, options, on_piece)? {}
        self.timings.decode = start.elapsed().saturating_sub(prefill);
        Ok(&self.answers[..prompts.len()])
    }

    /// Computes one more token for every answer that goes on; false if there is none.
    fn decode_step(
        &mut self,
        limit: usize,
        options: &GenerateOptions,
        on_piece: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<bool> {
        self.words.rows.clear();
        self.words.spans.clear();
        for (i, s) in self.words.sequences.iter_mut().enumerate().filter(|(_, s)| s.running) {
            self.words.rows.push(i);
            self.words.spans.push(Span { sequence: i, position: s.position, rows: 1, prefix: false });
            s.position += 1;
        }
        if self.words.rows.is_empty() {
            return Ok(false);
        }
        for (row, &i) in self.words.rows.iter().enumerate() {
            self.engine.embed(row, self.words.sequences[i].token);
        }
        let Words { head, rows, sequences, spans, .. } = &mut self.words;
        select(head, options.grammar.as_ref(), rows.iter().map(|&i| sequences[i].state));
        match self.engine.forward(spans, head, options.control(), &mut Trace::off()) {
            Err(Error::Cancelled) => {
                for &i in &self.words.rows {
                    self.words.sequences[i].running = false;
                    self.answers[i].stop = StopReason::Cancelled;
                    finish(&mut self.words.sequences[i], &mut self.answers[i], i, on_piece);
                }
                return Ok(false);
            }
            other => other?,
        }
        self.timings.decode_steps += 1;
        for row in 0..self.words.rows.len() {
            self.next_token(self.words.rows[row], row, limit, options, on_piece)?;
        }
        Ok(true)
    }

    /// Chooses the next token of sequence `i` from a row of logits, and takes those behind it that are certain.
    fn next_token(
        &mut self,
        i: usize,
        row: usize,
        limit: usize,
        options: &GenerateOptions,
        on_piece: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let vocab = self.model.config().text.vocab;
        let logits = &mut self.engine.buffers.logits[row * vocab..(row + 1) * vocab];
        let (kernels, sequence) = (&self.engine.compute.kernels, &mut self.words.sequences[i]);
        self.sampler.seed(sequence.random);
        let choice = match &options.grammar {
            None => self.sampler.choose(kernels, logits, &options.sampling),
            Some(grammar) => {
                let allowed = grammar.allowed(sequence.state);
                let choice = self.sampler.choose_among(kernels, logits, allowed, &options.sampling);
                let index = choice.token as usize;
                sequence.state = grammar.next(sequence.state, index);
                Choice { token: allowed[index], ..choice }
            }
        };
        sequence.random = self.sampler.state();
        self.take(i, choice, limit, options, on_piece)?;
        let Some(grammar) = &options.grammar else { return Ok(()) };
        while self.words.sequences[i].running
            && let Some(token) = grammar.certain(self.words.sequences[i].state)
        {
            self.words.sequences[i].state = grammar.next(self.words.sequences[i].state, 0);
            self.take(i, Choice { token, probability: 1.0 }, limit, options, on_piece)?;
        }
        Ok(())
    }

    /// Makes a token the next one of sequence `i`, and ends the answer if it is to end.
    fn take(
        &mut self,
        i: usize,
        Choice { token, probability }: Choice,
        limit: usize,
        options: &GenerateOptions,
        on_piece: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let eos = &self.model.config().tokens.eos;
        let (sequence, answer) = (&mut self.words.sequences[i], &mut self.answers[i]);
        sequence.token = token;
        let complete = options.grammar.is_some() && sequence.state == grammar::END;
        if (options.stop_at_eos || complete) && eos.contains(&token) {
            answer.end_probability = Some(probability);
            answer.stop = StopReason::EndOfSequence;
            sequence.running = false;
        } else {
            let before = answer.text.len();
            sequence.detokenizer.push(&self.model.tokenizer(), token, &mut answer.text)?;
            answer.tokens.push(token);
            answer.probabilities.push(probability);
            answer.token_ends.push(answer.text.len());
            let piece = Piece { prompt: i, token: Some(token), text: &answer.text[before..] };
            if on_piece(piece).is_break() {
                answer.stop = StopReason::Cancelled;
                sequence.running = false;
            } else if complete {
                answer.stop = StopReason::EndOfSequence;
                sequence.running = false;
            } else if answer.tokens.len() == limit {
                answer.stop = StopReason::TokenLimit;
                sequence.running = false;
            }
        }
        if !sequence.running {
            finish(sequence, answer, i, on_piece);
        }
        Ok(())
    }

    /// Runs a prompt through the decoder; its logits, as far as they are selected, become row 0.
    fn prefill(
        &mut self,
        i: usize,
        features: &ImageFeatures,
        prompt: &str,
        control: Control<'_>,
        trace: &mut Trace<'_>,
    ) -> Result<()> {
        if !features.encoded {
            return Err(Error::InvalidArgument(
                "no picture has been encoded into these image features".to_owned(),
            ));
        }
        let model = self.model.clone();
        let config = model.config();
        let (patches, width) = (config.vision.patches(), config.text.hidden);
        self.check_owner(features)?;
        self.tokenize(prompt)?;
        let rows = patches + self.words.ids.len();
        if trace.is_on() {
            let ids: Vec<i64> = std::iter::repeat_n(config.tokens.image, patches)
                .chain(self.words.ids.iter().copied())
                .map(i64::from)
                .collect();
            trace.i64("input_ids", &ids);
        }
        self.engine.buffers.hidden[..patches * width].copy_from_slice(&features.values);
        for (k, &id) in self.words.ids.iter().enumerate() {
            self.engine.embed(patches + k, id);
        }
        let prefix = Span { sequence: i, position: 0, rows, prefix: true };
        self.engine.forward(&[prefix], &self.words.head, control, trace)?;
        self.answers[i].prompt_tokens = rows;
        self.words.sequences[i].position = rows;
        self.words.sequences[i].detokenizer.reset(true);
        Ok(())
    }

    /// Tokens of a prompt, `<bos>` and final newline included, become `words.ids`.
    fn tokenize(&mut self, prompt: &str) -> Result<()> {
        let (words, config) = (&mut self.words, self.model.config());
        let max = self.limits.prompt_tokens;
        let tokenizer = self.model.tokenizer();
        // The processor of transformers takes a picture's token at the start of a prompt for the picture itself.
        let image = tokenizer.piece(config.tokens.image).filter(|p| !p.is_empty());
        let prompt = image.and_then(|image| prompt.strip_prefix(image)).unwrap_or(prompt);
        if prompt.len() >= words.prompt.capacity() {
            return Err(Error::InvalidArgument(format!(
                "the prompt has {} bytes, more than this session's {max} prompt tokens can hold: shorten it, or make a \
                 session with a larger limit of prompt tokens",
                prompt.len()
            )));
        }
        words.prompt.clear();
        words.prompt.push_str(prompt);
        words.prompt.push('\n');
        words.ids.clear();
        words.ids.push(config.tokens.bos);
        tokenizer.encode(&words.prompt, &mut words.encode, &mut words.ids)?;
        if words.ids.len() > max {
            return Err(Error::InvalidArgument(format!(
                "the prompt has {} tokens, more than this session's {max}: shorten it, or make a session with a larger \
                 limit of prompt tokens",
                words.ids.len()
            )));
        }
        if words.ids.contains(&config.tokens.image) {
            return Err(Error::InvalidArgument(
                "the prompt has the image token in its text; the picture always stands before the prompt"
                    .to_owned(),
            ));
        }
        Ok(())
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
        self.check_new_tokens(new_tokens)?;
        let options = GenerateOptions::default();
        let mut features = self.new_features()?;
        let mut trace = Trace::values(sink);
        self.words.head.select_all();
        self.encode_traced(picture.into(), &mut features, options.control(), &mut trace)?;
        self.prefill(0, &features, prompt, options.control(), &mut trace)?;
        let vocab = self.model.config().text.vocab;
        let mut tokens: Vec<i64> = Vec::new();
        let mut logits = Vec::new();
        for n in 0..new_tokens {
            let row = &self.engine.buffers.logits[..vocab];
            logits.extend_from_slice(row);
            if n == 0 {
                trace.f32(format_args!("logits.prefill"), &[vocab], row);
            }
            let choice = self.sampler.choose(&self.engine.compute.kernels, row, &options.sampling);
            tokens.push(i64::from(choice.token));
            if n + 1 == new_tokens {
                break;
            }
            self.engine.embed(0, choice.token);
            let position = self.words.sequences[0].position;
            let span = Span { sequence: 0, position, rows: 1, prefix: false };
            self.engine.forward(&[span], &self.words.head, options.control(), &mut Trace::off())?;
            self.words.sequences[0].position += 1;
        }
        trace.i64("gen.tokens", &tokens);
        trace.f32(format_args!("gen.logits"), &[new_tokens, vocab], &logits);
        Ok(())
    }
}

/// Selects the logits that tokens are chosen from in these states of a grammar.
fn select(head: &mut HeadPart, grammar: Option<&Grammar>, states: impl Iterator<Item = u32>) {
    match grammar {
        None => head.select_all(),
        Some(grammar) => head.select(states.map(|state| grammar.allowed(state))),
    }
}

/// Gives the text that was held back to the end of an answer.
fn finish(
    sequence: &mut Sequence,
    answer: &mut Answer,
    prompt: usize,
    on_piece: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
) {
    let before = answer.text.len();
    sequence.detokenizer.finish(&mut answer.text);
    if let Some(last) = answer.token_ends.last_mut() {
        *last = answer.text.len();
    }
    let _ = on_piece(Piece { prompt, token: None, text: &answer.text[before..] });
}
