//! The state of an answer while it arises.

use std::ops::ControlFlow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::draft::Draft;
use super::exchange::{Answer, GenerateOptions, Piece, StopReason};
use super::grammar;
use super::sampler::Choice;
use crate::engine::control::{Stop, Watch};
use crate::engine::limits::QUEUE_MAX;
use crate::error::Result;
use crate::model::Model;
use crate::system::memory::Reserve;
use crate::tokenizer::Detokenizer;

/// Names a sequence of a session from [`Session::begin`](super::Session::begin) to [`Session::end`](super::Session::end).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SequenceId {
    pub(super) index: usize,
    /// The number of the sequence among all of the process.
    pub(super) number: u64,
}

impl SequenceId {
    /// Its place in the batch: [`Piece::prompt`] of its pieces.
    pub fn index(self) -> usize {
        self.index
    }
}

/// Of the next sequence, so that no two sessions have sequences of one number.
static NUMBER: AtomicU64 = AtomicU64::new(1);

/// What a sequence is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its place is free.
    Free,
    /// It goes on.
    Running,
    /// Its answer has ended, and is kept.
    Done,
}

/// A place of the batch.
pub(super) struct Sequence {
    pub phase: Phase,
    /// The number of the sequence among all of the process.
    pub number: u64,
    pub options: GenerateOptions,
    /// Tokens that the answer may have.
    pub limit: usize,
    detokenizer: Detokenizer,
    /// Positions that have been computed.
    pub position: usize,
    /// The last tokens of the answer, those that no pass has had yet.
    pub queue: Vec<u32>,
    /// What the answer may turn out to be.
    pub draft: Draft,
    pub random: u64,
    /// Where it is in the grammar, if there is one.
    pub state: u32,
    /// Why it is to stop, from where that was first seen.
    stop: OnceLock<Stop>,
}

impl Sequence {
    pub fn new(reserve: &mut Reserve, new_tokens: usize) -> Result<Self> {
        Ok(Self {
            phase: Phase::Free,
            number: 0,
            options: GenerateOptions::default(),
            limit: 0,
            detokenizer: Detokenizer::reserved(reserve, new_tokens)?,
            position: 0,
            queue: reserve.list(QUEUE_MAX)?,
            draft: Draft::new(reserve, new_tokens)?,
            random: 0,
            state: grammar::START,
            stop: OnceLock::new(),
        })
    }

    /// Makes ready for another answer.
    pub fn prepare(&mut self, options: &GenerateOptions, limit: usize, draft: &[u32], vocab: usize) {
        self.number = NUMBER.fetch_add(1, Ordering::Relaxed);
        self.options.clone_from(options);
        self.limit = limit;
        self.detokenizer.reset(true);
        self.queue.clear();
        // A token that the model does not have can never be chosen.
        let known = draft.iter().copied().take(limit).take_while(|&token| (token as usize) < vocab);
        self.draft.start(known);
        self.random = options.sampling.seed;
        self.state = grammar::START;
        self.stop = OnceLock::new();
    }

    /// The answer begins, behind a prefix of so many rows.
    pub fn run_from(&mut self, prefix: usize) {
        self.phase = Phase::Running;
        self.position = prefix;
    }

    pub fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Makes a token the next one of the answer, and ends the answer if it is to end.
    pub fn take(
        &mut self,
        model: &Model,
        prompt: usize,
        Choice { token, probability }: Choice,
        answer: &mut Answer,
        on_piece: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let complete = self.options.grammar.is_some() && self.state == grammar::END;
        if (self.options.stop_at_eos || complete) && model.config().tokens.eos.contains(&token) {
            answer.end_probability = Some(probability);
            self.finish(prompt, StopReason::EndOfSequence, answer, on_piece);
            return Ok(());
        }
        self.draft.follow(&answer.tokens, token);
        let before = answer.text.len();
        self.detokenizer.push(&model.tokenizer(), token, &mut answer.text)?;
        answer.tokens.push(token);
        answer.probabilities.push(probability);
        answer.token_ends.push(answer.text.len());
        let piece = Piece { prompt, token: Some(token), text: &answer.text[before..] };
        let stop = if on_piece(piece).is_break() {
            StopReason::Callback
        } else if complete {
            StopReason::EndOfSequence
        } else if answer.tokens.len() == self.limit {
            StopReason::TokenLimit
        } else {
            return Ok(());
        };
        self.finish(prompt, stop, answer, on_piece);
        Ok(())
    }

    /// Ends an answer, and gives the text that was held back to its end.
    pub fn finish(
        &mut self,
        prompt: usize,
        stop: StopReason,
        answer: &mut Answer,
        on_piece: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
    ) {
        self.phase = Phase::Done;
        answer.stop = stop;
        let before = answer.text.len();
        self.detokenizer.finish(&mut answer.text);
        if let Some(last) = answer.token_ends.last_mut() {
            *last = answer.text.len();
        }
        // The answer has ended for its own reason, whatever the callback says now.
        let _ = on_piece(Piece { prompt, token: None, text: &answer.text[before..] });
    }

    /// Why the sequence is to stop, if it is; what was once seen stays.
    pub fn stop(&self) -> Option<Stop> {
        if self.stop.get().is_none()
            && let Some(stop) = self.options.control().stop()
        {
            // Nobody else sets it: a session is used by one thread at a time.
            let _ = self.stop.set(stop);
        }
        self.stop.get().copied()
    }
}

/// The sequences of a pass: it is given up once all of them are to stop.
pub(super) struct AllStop<'a> {
    pub sequences: &'a [Sequence],
    /// Those that are in the pass.
    pub running: &'a [usize],
}

impl Watch for AllStop<'_> {
    fn stop(&self) -> Option<Stop> {
        // Every one is asked, so that each keeps its own reason.
        let (mut all, mut last) = (true, None);
        for stop in self.running.iter().map(|&i| self.sequences[i].stop()) {
            all &= stop.is_some();
            last = stop.or(last);
        }
        last.filter(|_| all)
    }
}
