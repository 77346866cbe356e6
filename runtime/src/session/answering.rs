//! Sequences that begin, go on and end: prefill, and passes in which each running sequence gets its next tokens.

use std::ops::ControlFlow;
use std::time::Instant;

use super::Session;
use super::exchange::{Answer, GenerateOptions, Piece, Request};
use super::grammar::Grammar;
use super::sampler::Choice;
use super::sequence::{AllStop, Phase, Sequence, SequenceId};
use crate::engine::control::{Stop, Watch};
use crate::engine::features::ImageFeatures;
use crate::engine::head::HeadPart;
use crate::engine::limits::{Extent, QUEUE_MAX};
use crate::engine::span::{Batch, Pictures, Sees, Span};
use crate::engine::trace::Trace;
use crate::engine::wanted::Wanted;
use crate::error::{Error, Result, UsageError};
use crate::system::memory::Reserve;

/// What the sequences of a pass bring.
pub(super) struct Pass {
    spans: Vec<Span>,
    tokens: Vec<u32>,
    /// Which sequence each span is of.
    running: Vec<usize>,
    /// For every row of logits: the sequence, and where it is in its grammar.
    states: Vec<(usize, u32)>,
    /// Which logits tokens are chosen from.
    pub head: HeadPart,
}

impl Pass {
    pub fn new(reserve: &mut Reserve, extent: &Extent, vocab: usize) -> Result<Self> {
        Ok(Self {
            spans: reserve.list(extent.spans)?,
            tokens: reserve.list(extent.rows)?,
            running: reserve.list(extent.batch)?,
            states: reserve.list(extent.logits)?,
            head: HeadPart::new(reserve, vocab)?,
        })
    }

    fn clear(&mut self) {
        self.spans.clear();
        self.tokens.clear();
        self.running.clear();
        self.states.clear();
    }

    /// Adds the row of logits that the next token of sequence `i` is chosen from, and behind it up to `most` tokens
    /// that its draft proposes, each with a row that the one after it is chosen from.
    fn expect(&mut self, i: usize, sequence: &Sequence, most: usize) {
        let mut state = sequence.state;
        self.states.push((i, state));
        for &token in sequence.draft.proposed(most) {
            if let Some(grammar) = &sequence.options.grammar {
                let Some(next) = grammar.follow(state, token) else { break };
                state = next;
            }
            self.tokens.push(token);
            self.states.push((i, state));
        }
    }

    /// Selects the logits that tokens are chosen from.
    fn select_expected(&mut self, sequences: &[Sequence]) {
        let allowed = |&(i, state): &(usize, u32)| {
            sequences[i].options.grammar.as_ref().and_then(|grammar| grammar.needed(state))
        };
        let sets = self.states.iter().map(allowed);
        // Those of all sets of allowed tokens, or all if a row is free to choose.
        if sets.clone().any(|set| set.is_none()) {
            self.head.select_all();
        } else {
            self.head.select(sets.flatten());
        }
    }
}

/// Answers, and vectors for retrieval, count positions from 1, as transformers does.
pub(super) const FIRST_ANGLE: usize = 1;

/// The caller's ear.
type OnPiece<'a> = &'a mut dyn FnMut(Piece<'_>) -> ControlFlow<()>;

impl Session {
    /// Answers up to [`Limits::batch`](crate::Limits::batch) prompts about one picture together; each exactly as it
    /// would be answered alone. The prompts are what stands between `<bos>` and the final newline, which is added here.
    ///
    /// `on_piece` hears every token of every prompt; `Break` stops that prompt's answer. If the call is cancelled or
    /// its deadline passes, at any time, the answers so far come back; those that were not done are marked with the
    /// reason ([`StopReason`](super::StopReason)), and those that were not begun are empty, with no
    /// [`prompt_tokens`](Answer::prompt_tokens). Answers that are not broken off are what [`GenerateOptions::grammar`]
    /// allows.
    ///
    /// # Errors
    /// [`Error::Usage`], before anything is computed: for numbers of prompts, tokens and pictures that the session has
    /// no room for, features that hold no picture or are another model's, and sequences that are still running.
    /// [`Error::Grammar`] for another model's grammar, or one that needs longer answers.
    pub fn answer(
        &mut self,
        features: &ImageFeatures,
        prompts: &[&str],
        options: &GenerateOptions,
        on_piece: OnPiece<'_>,
    ) -> Result<&[Answer]> {
        let pictures = [features];
        let request = |i: usize| Request { pictures: &pictures, prompt: prompts[i], draft: &[] };
        self.answer_each(prompts.len(), &request, options, on_piece)
    }

    /// Like [`answer`](Self::answer), for requests that have pictures of their own, several perhaps, and drafts.
    pub fn answer_requests(
        &mut self,
        requests: &[Request<'_>],
        options: &GenerateOptions,
        on_piece: OnPiece<'_>,
    ) -> Result<&[Answer]> {
        self.answer_each(requests.len(), &|i| requests[i], options, on_piece)
    }

    fn answer_each<'a>(
        &mut self,
        n: usize,
        request: &dyn Fn(usize) -> Request<'a>,
        options: &GenerateOptions,
        on_piece: OnPiece<'_>,
    ) -> Result<&[Answer]> {
        let start = Instant::now();
        let most = self.limits.batch;
        if !(1..=most).contains(&n) {
            return Err(UsageError::Prompts { prompts: n, most }.into());
        }
        let limit = self.check_options(options)?;
        for i in 0..n {
            self.check_request(&request(i))?;
        }
        self.clear()?;
        let answered = self.answer_to_the_end(n, request, options, limit, on_piece);
        self.release();
        answered?;
        self.timings.decode = start.elapsed().saturating_sub(self.timings.prefill);
        Ok(&self.answers[..n])
    }

    fn answer_to_the_end<'a>(
        &mut self,
        n: usize,
        request: &dyn Fn(usize) -> Request<'a>,
        options: &GenerateOptions,
        limit: usize,
        on_piece: OnPiece<'_>,
    ) -> Result<()> {
        for i in 0..n {
            let begin = Instant::now();
            let begun = self.begin_at(i, &request(i), options, limit, on_piece);
            self.timings.prefill += begin.elapsed();
            let stop = match begun {
                Ok(()) => continue,
                Err(Error::Cancelled) => Stop::Cancelled,
                Err(Error::DeadlinePassed) => Stop::DeadlinePassed,
                Err(other) => return Err(other),
            };
            self.break_off(i..n, stop, on_piece);
            return Ok(());
        }
        while self.pass(on_piece)? > 0 {}
        Ok(())
    }

    /// Begins a sequence beside those that are running: runs its pictures and its prompt through the decoder, and
    /// chooses its first token. [`step`](Self::step) goes on with it, [`end`](Self::end) makes room for another.
    ///
    /// # Errors
    /// As [`answer`](Self::answer); [`UsageError::NoFreeSequence`] if all of the batch are taken; [`Error::Cancelled`]
    /// and [`Error::DeadlinePassed`] during the prefill. Nothing has then begun, and other sequences are as they were.
    pub fn begin(
        &mut self,
        request: &Request<'_>,
        options: &GenerateOptions,
        on_piece: OnPiece<'_>,
    ) -> Result<SequenceId> {
        let limit = self.check_options(options)?;
        self.check_request(request)?;
        let index = self.free_sequence()?;
        if !self.sequences.iter().any(|s| s.is_running()) {
            self.reset_timings();
        }
        let begin = Instant::now();
        let begun = self.begin_at(index, request, options, limit, on_piece);
        if begun.is_err() {
            self.sequences[index].phase = Phase::Free;
        }
        self.timings.prefill += begin.elapsed();
        begun.map(|()| SequenceId { index, number: self.sequences[index].number })
    }

    /// Runs one pass for all sequences that are running: each gets its next token, or several if its draft was right.
    /// Returns how many are still running.
    ///
    /// A sequence that is cancelled or late is marked and done at the next step; the pass at hand is given up, within a
    /// layer, once all of its sequences are to stop.
    pub fn step(&mut self, on_piece: OnPiece<'_>) -> Result<usize> {
        let start = Instant::now();
        let running = self.pass(on_piece);
        self.timings.decode += start.elapsed();
        running
    }

    /// The answer of a sequence, as far as it has come.
    ///
    /// # Errors
    /// [`UsageError::NoSuchSequence`]
    pub fn sequence(&self, id: SequenceId) -> Result<&Answer> {
        Ok(&self.answers[self.place(id)?])
    }

    /// True while [`step`](Self::step) goes on with a sequence.
    ///
    /// # Errors
    /// [`UsageError::NoSuchSequence`]
    pub fn is_running(&self, id: SequenceId) -> Result<bool> {
        Ok(self.sequences[self.place(id)?].is_running())
    }

    /// Ends a sequence, whether or not it is done: its place is free for another, and its answer is no longer there.
    ///
    /// # Errors
    /// [`UsageError::NoSuchSequence`]
    pub fn end(&mut self, id: SequenceId) -> Result<()> {
        let place = self.place(id)?;
        self.sequences[place].phase = Phase::Free;
        Ok(())
    }

    /// Sequences that can still be begun.
    pub fn free_sequences(&self) -> usize {
        self.sequences.iter().filter(|s| s.phase == Phase::Free).count()
    }

    fn place(&self, id: SequenceId) -> Result<usize, UsageError> {
        let place = self.sequences.get(id.index).filter(|s| s.number == id.number && s.phase != Phase::Free);
        place.map(|_| id.index).ok_or(UsageError::NoSuchSequence)
    }

    /// Checks what to do with every request; gives the tokens that an answer may have.
    fn check_options(&self, options: &GenerateOptions) -> Result<usize> {
        let limit = options.max_new_tokens.unwrap_or(self.limits.new_tokens);
        self.check_new_tokens(limit)?;
        if let Some(grammar) = &options.grammar {
            grammar.check(&self.model, limit)?;
        }
        Ok(limit)
    }

    fn check_request(&mut self, request: &Request<'_>) -> Result<()> {
        self.check_encoded(request.pictures)?;
        self.prompts.tokenize(&self.model, request.prompt)?;
        Ok(())
    }

    /// An error for more pictures than the session has room for, none, or ones that it cannot answer about.
    pub(super) fn check_encoded(&self, pictures: &[&ImageFeatures]) -> Result<(), UsageError> {
        self.check_pictures(pictures.len(), 1)?;
        pictures.iter().try_for_each(|picture| picture.check_encoded(&self.model))
    }

    /// An error for more pictures than the session has room for, or fewer than `least`.
    pub(super) fn check_pictures(&self, pictures: usize, least: usize) -> Result<(), UsageError> {
        let most = self.limits.pictures;
        if (least..=most).contains(&pictures) { Ok(()) } else { Err(UsageError::Pictures { pictures, most }) }
    }

    /// Forgets all sequences, none of which may be running, and their answers.
    pub(super) fn clear(&mut self) -> Result<(), UsageError> {
        let running = self.sequences.iter().filter(|s| s.is_running()).count();
        if running > 0 {
            return Err(UsageError::StillRunning { running });
        }
        self.release();
        self.answers.iter_mut().for_each(Answer::clear);
        self.reset_timings();
        Ok(())
    }

    /// Makes all places free. Answers stay.
    fn release(&mut self) {
        self.sequences.iter_mut().for_each(|s| s.phase = Phase::Free);
    }

    fn reset_timings(&mut self) {
        (self.timings.prefill, self.timings.decode, self.timings.decode_steps) = Default::default();
    }

    /// Marks the prompts of a range, which have not begun, and ends those that are running.
    fn break_off(&mut self, unbegun: std::ops::Range<usize>, stop: Stop, on_piece: OnPiece<'_>) {
        for answer in &mut self.answers[unbegun] {
            answer.clear();
            answer.stop = stop.into();
        }
        for (i, sequence) in self.sequences.iter_mut().enumerate().filter(|(_, s)| s.is_running()) {
            sequence.finish(i, stop.into(), &mut self.answers[i], on_piece);
        }
    }

    /// Begins a sequence in a free place. A request that has been checked fails only if it is stopped, or by the
    /// tokenizer.
    fn begin_at(
        &mut self,
        index: usize,
        request: &Request<'_>,
        options: &GenerateOptions,
        limit: usize,
        on_piece: OnPiece<'_>,
    ) -> Result<()> {
        let vocab = self.model.config().text.vocab;
        self.answers[index].clear();
        self.sequences[index].prepare(options, limit, request.draft, vocab);
        let rows = self.add_prefix(index, request.pictures, request.prompt, &mut Trace::off())?;
        // The draft's first tokens go with the prefix: for each, the weights need not be read again.
        let tokens = self.pass.tokens.len();
        self.pass.expect(index, &self.sequences[index], self.checked_at_most(index));
        let drafted = self.pass.tokens.len() - tokens;
        if drafted > 0 {
            let (sees, logits) = (Sees::Causal, drafted);
            let span = Span { sequence: index, position: rows, pictures: 0, tokens: drafted, sees, logits };
            self.pass.spans.push(span);
        }
        self.pass.select_expected(&self.sequences);
        self.run_pass(request.pictures, &options.control(), &mut Trace::off())?;
        self.answers[index].prompt_tokens = rows;
        self.sequences[index].run_from(rows);
        self.take(index, 0, 1 + drafted, on_piece)
    }

    /// Tokens of its draft that the next pass may check for a sequence: one fewer than the answer can still have.
    fn checked_at_most(&self, index: usize) -> usize {
        let left = self.sequences[index].limit - self.answers[index].tokens.len();
        self.limits.draft_tokens.min(left.saturating_sub(1))
    }

    /// Runs pictures and a prompt through the decoder; the logits behind them, as far as they are selected, become row
    /// 0. Returns their rows.
    pub(super) fn prefill(
        &mut self,
        sequence: usize,
        pictures: &[&ImageFeatures],
        prompt: &str,
        watch: &dyn Watch,
        trace: &mut Trace<'_>,
    ) -> Result<usize> {
        let rows = self.add_prefix(sequence, pictures, prompt, trace)?;
        self.run_pass(pictures, watch, trace)?;
        Ok(rows)
    }

    /// Begins another pass with pictures and a prompt. Returns their rows.
    fn add_prefix(
        &mut self,
        sequence: usize,
        pictures: &[&ImageFeatures],
        prompt: &str,
        trace: &mut Trace<'_>,
    ) -> Result<usize> {
        let config = self.model.config();
        let tokens = self.prompts.tokenize(&self.model, prompt)?;
        let image_rows = pictures.len() * config.image_rows();
        if trace.is_on() {
            let image = std::iter::repeat_n(config.tokens.image, image_rows);
            let ids: Vec<i64> = image.chain(tokens.iter().copied()).map(i64::from).collect();
            trace.i64("input_ids", &ids);
        }
        self.pass.clear();
        self.pass.tokens.extend_from_slice(tokens);
        self.pass.spans.push(Span {
            sequence,
            position: 0,
            pictures: pictures.len(),
            tokens: tokens.len(),
            sees: Sees::Whole,
            logits: 1,
        });
        Ok(image_rows + tokens.len())
    }

    fn run_pass(
        &mut self,
        pictures: &[&ImageFeatures],
        watch: &dyn Watch,
        trace: &mut Trace<'_>,
    ) -> Result<()> {
        let Pass { spans, tokens, head, .. } = &self.pass;
        let batch = Batch { spans, pictures: Pictures::All(pictures), tokens, first_angle: FIRST_ANGLE };
        self.engine.forward(batch, Wanted::Logits(head), watch, trace)
    }

    /// Runs tokens of one sequence through the decoder, each seeing itself and what came before; their logits become
    /// rows from 0 on.
    pub(super) fn extend(
        &mut self,
        sequence: usize,
        position: usize,
        tokens: &[u32],
        watch: &dyn Watch,
        trace: &mut Trace<'_>,
    ) -> Result<()> {
        let n = tokens.len();
        let span = Span { sequence, position, pictures: 0, tokens: n, sees: Sees::Causal, logits: n };
        let batch = Batch { spans: &[span], pictures: Pictures::NONE, tokens, first_angle: FIRST_ANGLE };
        self.engine.forward(batch, Wanted::Logits(&self.pass.head), watch, trace)
    }

    /// One pass for all running sequences; returns how many still are.
    fn pass(&mut self, on_piece: OnPiece<'_>) -> Result<usize> {
        self.pass.clear();
        for i in 0..self.sequences.len() {
            let sequence = &mut self.sequences[i];
            if !sequence.is_running() {
                continue;
            }
            if let Some(stop) = sequence.stop() {
                sequence.finish(i, stop.into(), &mut self.answers[i], on_piece);
                continue;
            }
            let checked = self.checked_at_most(i);
            let (pass, sequence) = (&mut self.pass, &self.sequences[i]);
            let first = pass.tokens.len();
            pass.tokens.extend_from_slice(&sequence.queue);
            pass.expect(i, sequence, checked);
            let tokens = pass.tokens.len() - first;
            pass.spans.push(Span {
                sequence: i,
                position: sequence.position,
                pictures: 0,
                tokens,
                sees: Sees::Causal,
                logits: tokens - sequence.queue.len() + 1,
            });
            pass.running.push(i);
        }
        if self.pass.running.is_empty() {
            return Ok(0);
        }
        self.pass.select_expected(&self.sequences);
        let Pass { spans, tokens, running, head, .. } = &self.pass;
        let batch = Batch { spans, pictures: Pictures::NONE, tokens, first_angle: FIRST_ANGLE };
        let watch = AllStop { sequences: &self.sequences, running };
        match self.engine.forward(batch, Wanted::Logits(head), &watch, &mut Trace::off()) {
            Err(Error::Cancelled | Error::DeadlinePassed) => {
                for &i in running {
                    let sequence = &mut self.sequences[i];
                    let stop =
                        sequence.stop().expect("a pass is given up only if all of its sequences are to stop");
                    sequence.finish(i, stop.into(), &mut self.answers[i], on_piece);
                }
                return Ok(0);
            }
            other => other?,
        }
        self.timings.decode_steps += 1;
        let mut row = 0;
        for span in 0..self.pass.spans.len() {
            let Span { sequence: i, logits, .. } = self.pass.spans[span];
            self.sequences[i].position += self.sequences[i].queue.len();
            self.take(i, row, logits, on_piece)?;
            row += logits;
        }
        Ok(self.sequences.iter().filter(|s| s.is_running()).count())
    }

    /// Takes the next tokens of sequence `i` from `rows` rows of logits, of which each but the first is a draft
    /// token's: one, and as many more as the draft had right.
    fn take(&mut self, i: usize, first: usize, rows: usize, on_piece: OnPiece<'_>) -> Result<()> {
        for n in 0..rows {
            if n > 0 {
                // The token that the last row gave is the draft's, whose row this is.
                self.sequences[i].position += 1;
                self.answers[i].accepted_draft_tokens += 1;
            }
            self.choose(i, first + n, on_piece)?;
            if !self.sequences[i].is_running() || !self.sequences[i].draft.was_right() {
                break;
            }
        }
        self.queue_certain(i, on_piece)
    }

    /// Chooses the next token of sequence `i` from a row of logits, and takes all that follow if they are certain up to
    /// the answer's end.
    fn choose(&mut self, i: usize, row: usize, on_piece: OnPiece<'_>) -> Result<()> {
        let (sequence, answer) = (&mut self.sequences[i], &mut self.answers[i]);
        let logits = self.engine.logits(row);
        self.sampler.seed(sequence.random);
        let sampling = &sequence.options.sampling;
        let choice = match &sequence.options.grammar {
            None => self.sampler.choose(&self.kernels, logits, sampling),
            Some(grammar) => {
                let allowed = grammar.allowed(sequence.state);
                let sampler = &mut self.sampler;
                let choice = match grammar.is_among_all(sequence.state) {
                    true => sampler.choose_with_all(&self.kernels, logits, allowed, sampling),
                    false => sampler.choose_among(&self.kernels, logits, allowed, sampling),
                };
                let index = choice.token as usize;
                sequence.state = grammar.next(sequence.state, index);
                Choice { token: allowed[index], ..choice }
            }
        };
        sequence.random = self.sampler.state();
        sequence.queue.clear();
        sequence.queue.push(choice.token);
        sequence.take(&self.model, i, choice, answer, on_piece)?;
        self.take_given(i, |grammar, sequence| grammar.certain(sequence.state), on_piece)
    }

    /// Takes tokens that a grammar leaves no choice of, to be computed in one pass with the last one chosen.
    fn queue_certain(&mut self, i: usize, on_piece: OnPiece<'_>) -> Result<()> {
        let next = |grammar: &Grammar, sequence: &Sequence| {
            (sequence.queue.len() < QUEUE_MAX).then(|| grammar.only(sequence.state)).flatten()
        };
        self.take_given(i, next, on_piece)
    }

    /// Takes tokens, each with the state of the grammar behind it, for as long as `next` gives any.
    fn take_given(
        &mut self,
        i: usize,
        next: impl Fn(&Grammar, &Sequence) -> Option<(u32, u32)>,
        on_piece: OnPiece<'_>,
    ) -> Result<()> {
        let (sequence, answer) = (&mut self.sequences[i], &mut self.answers[i]);
        while sequence.is_running()
            && let Some(grammar) = &sequence.options.grammar
            && let Some((token, state)) = next(grammar, sequence)
        {
            sequence.state = state;
            // Behind a full queue all is certain up to the answer's end, and no pass comes for it.
            if sequence.queue.len() < QUEUE_MAX {
                sequence.queue.push(token);
            }
            sequence.take(&self.model, i, Choice { token, probability: 1.0 }, answer, on_piece)?;
        }
        Ok(())
    }
}
