//! What is asked of the engine.

use std::time::Instant;

use palmtop::{Grammar, Limits, Sampling, UsageError};

use super::AskError;
use super::picture::Picture;

/// A request: pictures, a prompt about them, and how to answer.
#[derive(Clone, Debug)]
pub struct Ask {
    /// At most [`Limits::pictures`].
    pub pictures: Vec<Picture>,
    /// What stands between `<bos>` and the final newline.
    pub prompt: String,
    /// Tokens of the answer; as many as the session allows if absent.
    pub max_new_tokens: Option<usize>,
    /// How the next token is chosen.
    pub sampling: Sampling,
    /// What the answer is made of; everything if absent.
    pub grammar: Option<Grammar>,
    /// Texts that end the answer, and are not part of it.
    pub stop: Vec<String>,
    /// When it must be done.
    pub deadline: Option<Instant>,
}

impl Ask {
    /// Greedy, and as long as the session allows.
    pub fn new(pictures: Vec<Picture>, prompt: impl Into<String>) -> Self {
        Self {
            pictures,
            prompt: prompt.into(),
            max_new_tokens: None,
            sampling: Sampling::default(),
            grammar: None,
            stop: Vec::new(),
            deadline: None,
        }
    }

    /// What can be said without computing.
    pub(super) fn check(&self, limits: &Limits) -> Result<(), AskError> {
        let refuse = |error: UsageError| Err(AskError::Request(error.into()));
        let (pictures, most) = (self.pictures.len(), limits.pictures);
        if !(1..=most).contains(&pictures) {
            return refuse(UsageError::Pictures { pictures, most });
        }
        let (tokens, most) = (self.max_new_tokens.unwrap_or(limits.new_tokens), limits.new_tokens);
        if !(1..=most).contains(&tokens) {
            return refuse(UsageError::NewTokens { tokens, most });
        }
        Ok(())
    }
}
