//! Teacher forcing: answers that are given instead of chosen, to compare models along the same tokens and to see what
//! goes into every matrix; and tracing, which shows every value on the way of a greedy answer.

use super::{GenerateOptions, Session};
use crate::engine::control::Watch;
use crate::engine::features::ImageFeatures;
use crate::engine::trace::{Trace, Traced};
use crate::error::{Result, UsageError};
use crate::image::RgbView;

impl Session {
    /// Teacher forcing: runs pictures, a prompt about them and a given answer through the decoder. `on_logits(i,
    /// logits)` sees, for every `i` from 0 to `answer.len()`, the logits that the token behind the first `i` of the
    /// answer would be chosen from: those that [`answer`](Self::answer) sees when it gives the same tokens, bit for
    /// bit. Nothing is allocated.
    ///
    /// As many tokens go through the decoder in one pass as there are rows of logits:
    /// [`Limits::batch`](crate::Limits::batch) times one more than
    /// [`Limits::draft_tokens`](crate::Limits::draft_tokens).
    ///
    /// Of `options` only the cancellation and the deadline are looked at.
    ///
    /// # Errors
    /// As [`answer`](Self::answer); [`UsageError::ForcedTokens`] for an answer that the session has no room for,
    /// [`UsageError::NoSuchToken`] for one with tokens that the model does not have; [`Error::Cancelled`](crate::Error)
    /// and [`Error::DeadlinePassed`](crate::Error).
    pub fn force(
        &mut self,
        pictures: &[&ImageFeatures],
        prompt: &str,
        answer: &[u32],
        options: &GenerateOptions,
        on_logits: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<()> {
        self.force_traced(pictures, prompt, answer, &options.control(), &mut Trace::off(), on_logits)
    }

    /// Runs pictures, then each prompt about them with a given answer behind it, and hands to `sink` what
    /// [`trace`](Self::trace) shows of picture and prompts, of the answers too, and besides the rows that each matrix
    /// is multiplied with, `[rows, inputs]`, under the matrix's name in the file and `.input`. Matrices of integers see
    /// activations rounded to 8 bits, and so does `sink`. Many rows come in several parts.
    ///
    /// `features` are memory for as many pictures at least. Of `options` only the cancellation and the deadline are
    /// looked at.
    ///
    /// # Errors
    /// As [`encode`](Self::encode) and [`force`](Self::force).
    pub fn observe(
        &mut self,
        pictures: &[RgbView<'_>],
        features: &mut [ImageFeatures],
        asked: &[(&str, &[u32])],
        options: &GenerateOptions,
        sink: &mut dyn FnMut(Traced<'_>),
    ) -> Result<()> {
        let (control, mut trace) = (options.control(), Trace::with_inputs(sink));
        for (picture, features) in pictures.iter().zip(&mut *features) {
            self.encode_traced((*picture).into(), features, &control, &mut trace)?;
        }
        let encoded: Vec<&ImageFeatures> = features.iter().take(pictures.len()).collect();
        for (prompt, answer) in asked {
            self.force_traced(&encoded, prompt, answer, &control, &mut trace, &mut |_, _| {})?;
        }
        Ok(())
    }

    fn force_traced(
        &mut self,
        pictures: &[&ImageFeatures],
        prompt: &str,
        answer: &[u32],
        watch: &dyn Watch,
        trace: &mut Trace<'_>,
        on_logits: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<()> {
        let (vocab, most) = (self.model.config().text.vocab, self.limits.new_tokens);
        self.check_answers()?;
        self.check_encoded(pictures)?;
        if answer.len() > most {
            return Err(UsageError::ForcedTokens { tokens: answer.len(), most }.into());
        }
        if let Some(&token) = answer.iter().find(|&&token| token as usize >= vocab) {
            return Err(UsageError::NoSuchToken { token, vocab }.into());
        }
        // What an earlier call has left behind is not shown.
        self.clear()?;
        self.pass.head.select_all();
        let mut position = self.prefill(0, pictures, prompt, watch, trace)?;
        on_logits(0, self.engine.logits(0));
        let rows = self.limits.batch * (1 + self.limits.draft_tokens);
        let mut known = 0;
        for tokens in answer.chunks(rows) {
            self.extend(0, position, tokens, watch, trace)?;
            position += tokens.len();
            for row in 0..tokens.len() {
                known += 1;
                on_logits(known, self.engine.logits(row));
            }
        }
        Ok(())
    }

    /// Runs pictures and a prompt about them greedily for exactly `new_tokens` tokens (end-of-sequence does not stop
    /// it) and hands every intermediate value to `sink`, in the order of computation, under the names of
    /// `docs/trace.md`. Those of the encoder come once for every picture.
    ///
    /// # Errors
    /// As [`encode`](Self::encode) and [`answer`](Self::answer).
    pub fn trace(
        &mut self,
        pictures: &[RgbView<'_>],
        prompt: &str,
        new_tokens: usize,
        sink: &mut dyn FnMut(Traced<'_>),
    ) -> Result<()> {
        self.check_new_tokens(new_tokens)?;
        self.check_pictures(pictures.len(), 1)?;
        self.clear()?;
        let options = GenerateOptions::default();
        let (control, mut trace) = (options.control(), Trace::values(sink));
        let mut encoded = Vec::new();
        for picture in pictures {
            let mut features = self.new_features()?;
            self.encode_traced((*picture).into(), &mut features, &control, &mut trace)?;
            encoded.push(features);
        }
        let encoded: Vec<&ImageFeatures> = encoded.iter().collect();
        self.pass.head.select_all();
        let mut position = self.prefill(0, &encoded, prompt, &control, &mut trace)?;
        let vocab = self.model.config().text.vocab;
        let mut tokens: Vec<i64> = Vec::new();
        let mut logits = Vec::new();
        for n in 0..new_tokens {
            let row = self.engine.logits(0);
            logits.extend_from_slice(row);
            if n == 0 {
                trace.f32(format_args!("logits.prefill"), &[vocab], row);
            }
            let choice = self.sampler.choose(&self.kernels, row, &options.sampling);
            tokens.push(i64::from(choice.token));
            if n + 1 < new_tokens {
                self.extend(0, position, &[choice.token], &control, &mut Trace::off())?;
                position += 1;
            }
        }
        trace.i64("gen.tokens", &tokens);
        trace.f32(format_args!("gen.logits"), &[new_tokens, vocab], &logits);
        Ok(())
    }
}
