//! What becomes of a request, as it comes.

use std::time::{Duration, Instant};

use palmtop::{Answer, CancelToken};
use tokio::sync::mpsc::UnboundedReceiver;

use super::AskError;

/// A token of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// The probability that the model gave to it.
    pub probability: f32,
    /// Text that became complete with it; perhaps empty.
    pub text: String,
}

/// The tokens of an answer from this one on.
pub(super) fn tokens_from(answer: &Answer, first: usize) -> Vec<Token> {
    let token = |n: usize| {
        let begin = if n == 0 { 0 } else { answer.token_ends[n - 1] };
        Token {
            id: answer.tokens[n],
            probability: answer.probabilities[n],
            text: answer.text[begin..answer.token_ends[n]].to_owned(),
        }
    };
    (first..answer.tokens.len()).map(token).collect()
}

/// Something that happened to a request.
#[derive(Clone, Debug)]
pub enum Event {
    /// Its prompt is computed.
    Begun {
        /// Rows of pictures and tokens of the prompt.
        prompt_tokens: usize,
        /// Pictures whose features were kept from before.
        cached_pictures: usize,
    },
    /// More of the answer: `text` can be shown, and none of it is taken back.
    More {
        /// What is new. Text that may be the beginning of a stop text is held back.
        text: String,
        /// The tokens that came. Their text may still be held back.
        tokens: Vec<Token>,
    },
    /// It is done.
    Done(Box<Finished>),
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The model ended it, or its grammar.
    End,
    /// One of the request's stop texts came.
    Text,
    /// The limit of new tokens was reached.
    Limit,
    /// Its deadline passed.
    Deadline,
    /// The server ended, or the caller went away.
    Cancelled,
}

impl Stop {
    /// The word of `docs/json.md`.
    pub fn name(self) -> &'static str {
        match self {
            Self::End => "eos",
            Self::Text => "stop",
            Self::Limit => "limit",
            Self::Deadline => "deadline",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Finished {
    /// As the session gave it, a stop text and what is behind it included.
    pub answer: Answer,
    /// The text before the stop text.
    pub text: String,
    /// Why it ended.
    pub stop: Stop,
    /// Width and height of the pictures.
    pub sizes: Vec<(u32, u32)>,
    /// Pictures whose features were kept from before.
    pub cached_pictures: usize,
    /// How long it took.
    pub times: Times,
}

impl Finished {
    /// All tokens, as they were told one after the other.
    pub fn tokens(&self) -> Vec<Token> {
        tokens_from(&self.answer, 0)
    }
}

/// How long the parts of an answer took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// In the queue.
    pub waited: Duration,
    /// The image encoder.
    pub encode: Duration,
    /// The prompt.
    pub prefill: Duration,
    /// All tokens behind the first, together with whatever ran in the same batch.
    pub decode: Duration,
    /// Passes over the weights meanwhile that this answer was part of.
    pub decode_steps: usize,
    /// The most requests that were answered together meanwhile.
    pub batch: usize,
}

impl Times {
    /// From the request to the first token.
    pub fn first_token(&self) -> Duration {
        self.waited + self.encode + self.prefill
    }

    /// From the request to the last token.
    pub fn total(&self) -> Duration {
        self.first_token() + self.decode
    }
}

/// The caller's end of a request. Dropping it cancels the request.
#[derive(Debug)]
pub struct Answering {
    receiver: UnboundedReceiver<Result<Event, AskError>>,
    cancel: CancelToken,
    deadline: Option<Instant>,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Answering {
    pub(super) fn new(
        receiver: UnboundedReceiver<Result<Event, AskError>>,
        cancel: CancelToken,
        deadline: Option<Instant>,
    ) -> Self {
        Self { receiver, cancel, deadline }
    }

    /// The next event; the last one is [`Event::Done`].
    ///
    /// # Errors
    /// [`AskError::Late`] if the deadline passed before it began; whatever went wrong. There is nothing after it.
    pub async fn next(&mut self) -> Result<Event, AskError> {
        let ended = || Err(AskError::Broken("the engine's thread has ended".to_owned()));
        // The engine keeps deadlines by itself, but not while it is busy with others and this request waits.
        let Some(deadline) = self.deadline else { return self.receiver.recv().await.unwrap_or_else(ended) };
        let late = tokio::time::sleep_until((deadline + GRACE).into());
        tokio::select! {
            biased;
            event = self.receiver.recv() => event.unwrap_or_else(ended),
            () = late => {
                self.cancel.cancel();
                Err(AskError::Late)
            }
        }
    }

    /// Waits for the whole answer.
    ///
    /// # Errors
    /// As [`Answering::next`].
    pub async fn finish(mut self) -> Result<Finished, AskError> {
        loop {
            if let Event::Done(finished) = self.next().await? {
                return Ok(*finished);
            }
        }
    }
}

/// So much later than its deadline a request is given up whatever the engine does: within it the engine says what there
/// is of the answer.
const GRACE: Duration = Duration::from_secs(1);
