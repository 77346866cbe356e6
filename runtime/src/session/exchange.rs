//! What goes into a session's calls and what comes out of them.

use std::time::{Duration, Instant};

use crate::engine::control::{CancelToken, Control, Stop};
use crate::engine::features::ImageFeatures;
use crate::session::grammar::Grammar;
use crate::session::sampler::Sampling;

/// What is asked: pictures, and a prompt about them.
///
/// In the decoder's input the rows of all pictures come first, picture after picture and nothing between them, then the
/// prompt: so PaliGemma was trained for frames of a video and for pairs of pictures.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Image features of this session's model, at most [`Limits::pictures`](crate::Limits::pictures).
    pub pictures: &'a [&'a ImageFeatures],
    /// What stands between `<bos>` and the final newline, which is added.
    pub prompt: &'a str,
    /// Token ids that the answer may turn out to be, such as the last answer about the same scene. Up to
    /// [`Limits::draft_tokens`](crate::Limits::draft_tokens) of them are checked in one pass over the weights, the
    /// first ones together with the prompt. Behind a wrong one the draft goes on, at first three tokens a pass: where
    /// the answer's last two tokens are found in it, or as if the wrong one stood for one of its own. The answer is the
    /// one without a draft, to the bit; only its time depends on the draft.
    pub draft: &'a [u32],
}

/// How to answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GenerateOptions {
    /// Tokens of an answer; at most the session's limit, which is used if `None`.
    pub max_new_tokens: Option<usize>,
    /// How the next token is chosen.
    pub sampling: Sampling,
    /// Which tokens answers may be made of; `None` for all. Each answer of a batch follows it for itself.
    pub grammar: Option<Grammar>,
    /// End an answer at the end-of-sequence token.
    pub stop_at_eos: bool,
    /// Stops encoding, prefill and decoding.
    pub cancel: CancelToken,
    /// Stops them too, once this time has come.
    pub deadline: Option<Instant>,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_new_tokens: None,
            sampling: Sampling::default(),
            grammar: None,
            stop_at_eos: true,
            cancel: CancelToken::default(),
            deadline: None,
        }
    }
}

impl GenerateOptions {
    pub(super) fn control(&self) -> Control<'_> {
        Control { cancel: &self.cancel, deadline: self.deadline }
    }
}

/// A part of an answer as it arises.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// Which of the prompts it answers; for a sequence that was begun, [`SequenceId::index`](super::SequenceId::index).
    pub prompt: usize,
    /// The token; `None` for the last piece, which gives what was held back.
    pub token: Option<u32>,
    /// Text that became complete with this token: valid UTF-8, possibly empty.
    pub text: &'a str,
}

/// An answer.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Answer {
    /// Tokens, end-of-sequence not included.
    pub tokens: Vec<u32>,
    /// The probability that the model gave to each of the tokens: among all tokens, or among those that a grammar
    /// allowed there.
    pub probabilities: Vec<f32>,
    /// The same of the end-of-sequence token, if it ended the answer.
    pub end_probability: Option<f32>,
    /// The tokens as text, special tokens left out.
    pub text: String,
    /// Bytes of `text` that were there after each token.
    pub token_ends: Vec<usize>,
    /// Why it ended.
    pub stop: StopReason,
    /// Rows of pictures and tokens of the prompt; 0 if it was stopped before they were computed.
    pub prompt_tokens: usize,
    /// Tokens that were right in the draft, and so cost no pass of their own.
    pub accepted_draft_tokens: usize,
}

impl StopReason {
    /// True if the answer was broken off from outside, and may go on where it ends.
    pub fn is_broken_off(self) -> bool {
        matches!(self, Self::Callback | Self::Cancelled | Self::DeadlinePassed)
    }
}

impl From<Stop> for StopReason {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Cancelled => Self::Cancelled,
            Stop::DeadlinePassed => Self::DeadlinePassed,
        }
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum StopReason {
    /// The model ended it, or the grammar, where nothing can follow.
    EndOfSequence,
    /// The limit of new tokens was reached.
    #[default]
    TokenLimit,
    /// The callback said stop.
    Callback,
    /// It was cancelled: [`GenerateOptions::cancel`].
    Cancelled,
    /// Its deadline passed: [`GenerateOptions::deadline`].
    DeadlinePassed,
}

/// How long the steps of the last calls took.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Timings {
    /// Resizing, patches and image encoder of the last [`Session::encode`](super::Session::encode).
    pub encode: Duration,
    /// Prefill of all prompts of the last [`Session::answer`](super::Session::answer), up to their first logits; of
    /// sequences that were begun, since no other was running.
    pub prefill: Duration,
    /// The last [prefix](super::Session::prefix), or the vectors of the last page or question.
    pub rows: Duration,
    /// Decoding of all tokens behind the first.
    pub decode: Duration,
    /// Passes over the weights behind the prefills; each gives a token, or as many as a draft had right, for every
    /// prompt of the batch that has not ended.
    pub decode_steps: usize,
}

impl Answer {
    /// How likely the model found this answer: the product of the probabilities of its tokens and of its end.
    ///
    /// Over all choices of a grammar these add up to 1.
    pub fn likelihood(&self) -> f32 {
        let all = self.probabilities.iter().chain(&self.end_probability);
        all.map(|&p| f64::from(p)).product::<f64>() as f32
    }

    /// False if it was stopped before its prompt was computed: then there is nothing of it.
    pub fn is_begun(&self) -> bool {
        self.prompt_tokens > 0
    }

    pub(super) fn clear(&mut self) {
        self.tokens.clear();
        self.probabilities.clear();
        self.end_probability = None;
        self.text.clear();
        self.token_ends.clear();
        self.stop = StopReason::TokenLimit;
        self.prompt_tokens = 0;
        self.accepted_draft_tokens = 0;
    }
}
