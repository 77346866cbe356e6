//! Answers that are given instead of chosen: to compare models along the same tokens, and to see what goes into every
//! matrix.

use super::{GenerateOptions, ImageFeatures, Session};
use crate::engine::cpu::text::Span;
use crate::engine::trace::{Trace, Traced};
use crate::error::{Error, Result};
use crate::image::RgbView;

impl Session {
    /// Runs a prompt and a given answer through the decoder. `on_logits(i, logits)` sees, for every `i` from 0 to
    /// `answer.len()`, the logits that the token behind the first `i` of the answer would be chosen from: those that
    /// [`answer`](Self::answer) sees when it gives the same tokens, bit for bit. Nothing is allocated.
    ///
    /// Of `options` only the cancellation and the deadline are looked at; both give [`Error::Cancelled`].
    pub fn force(
        &mut self,
        features: &ImageFeatures,
        prompt: &str,
        answer: &[u32],
        options: &GenerateOptions,
        on_logits: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<()> {
        self.force_traced(features, prompt, answer, options, &mut Trace::off(), on_logits)
    }

    /// Runs a picture, then each prompt with a given answer behind it, and hands to `sink` what
    /// [`trace`](Self::trace) shows of picture and prompts, of the answers too, and besides the rows that each matrix is
    /// multiplied with, `[rows, inputs]`, under the matrix's name in the file and `.input`. Matrices of integers see activations rounded to 8
    /// bits, and so does `sink`. Many rows come in several parts.
    ///
    /// Of `options` only the cancellation and the deadline are looked at; both give [`Error::Cancelled`].
    pub fn observe(
        &mut self,
        picture: RgbView<'_>,
        features: &mut ImageFeatures,
        asked: &[(&str, &[u32])],
        options: &GenerateOptions,
        sink: &mut dyn FnMut(Traced<'_>),
    ) -> Result<()> {
        let mut trace = Trace::with_inputs(sink);
        self.encode_traced(picture.into(), features, options.control(), &mut trace)?;
        for (prompt, answer) in asked {
            self.force_traced(features, prompt, answer, options, &mut trace, &mut |_, _| {})?;
        }
        Ok(())
    }

    fn force_traced(
        &mut self,
        features: &ImageFeatures,
        prompt: &str,
        answer: &[u32],
        options: &GenerateOptions,
        trace: &mut Trace<'_>,
        on_logits: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<()> {
        let (vocab, max) = (self.model.config().text.vocab, self.limits.new_tokens);
        if answer.len() > max {
            let n = answer.len();
            return Err(Error::InvalidArgument(format!(
                "an answer of {n} tokens, where the session takes up to {max}"
            )));
        }
        if let Some(token) = answer.iter().find(|&&token| token as usize >= vocab) {
            return Err(Error::InvalidArgument(format!(
                "the answer has token {token}, where the model knows {vocab}"
            )));
        }
        // What an earlier call has left behind is neither gone on with nor shown.
        for (sequence, answer) in self.words.sequences.iter_mut().zip(&mut self.answers) {
            sequence.running = false;
            answer.clear();
        }
        self.words.head.select_all();
        self.prefill(0, features, prompt, options.control(), trace)?;
        on_logits(0, &self.engine.buffers.logits[..vocab]);
        for (i, &token) in answer.iter().enumerate() {
            self.engine.embed(0, token);
            let position = self.words.sequences[0].position;
            let span = Span { sequence: 0, position, rows: 1, prefix: false };
            self.engine.forward(&[span], &self.words.head, options.control(), trace)?;
            self.words.sequences[0].position += 1;
            on_logits(i + 1, &self.engine.buffers.logits[..vocab]);
        }
        Ok(())
    }
}
