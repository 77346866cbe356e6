//! From the text of a prompt to its tokens.

use crate::error::{Result, UsageError};
use crate::model::Model;
use crate::system::memory::Reserve;
use crate::tokenizer::EncodeScratch;

/// Bytes of a prompt's text per token of the limit; a longer text does not fit either way.
const BYTES_PER_TOKEN: usize = 16;

/// Memory for one prompt at a time.
pub(super) struct Prompts {
    encode: EncodeScratch,
    text: String,
    ids: Vec<u32>,
    bytes_max: usize,
    tokens_max: usize,
}

/// A text, and what stands around it.
#[derive(Clone, Copy)]
pub(super) struct Wording<'a> {
    /// Begin-of-sequence tokens.
    pub bos: usize,
    pub before: &'a str,
    pub text: &'a str,
    /// Padding tokens behind the text.
    pub pads: usize,
    pub end: &'a str,
}

impl<'a> Wording<'a> {
    /// A prompt as PaliGemma was taught: `<bos>`, the prompt, a newline.
    pub fn prompt(text: &'a str) -> Self {
        Self { bos: 1, before: "", text, pads: 0, end: "\n" }
    }
}

impl Prompts {
    pub fn new(reserve: &mut Reserve, tokens_max: usize) -> Result<Self> {
        let bytes_max = tokens_max.saturating_mul(BYTES_PER_TOKEN);
        Ok(Self {
            encode: EncodeScratch::reserved(reserve, bytes_max)?,
            text: reserve.text(bytes_max)?,
            // A text gives at most a token a byte; others stand around it.
            ids: reserve.list(bytes_max.saturating_add(tokens_max))?,
            bytes_max,
            tokens_max,
        })
    }

    /// The tokens of a prompt, `<bos>` and final newline included.
    pub fn tokenize(&mut self, model: &Model, prompt: &str) -> Result<&[u32]> {
        // The processor of transformers takes a picture's token at the start of a prompt for the picture itself.
        let tokenizer = model.tokenizer();
        let image = tokenizer.piece(model.config().tokens.image).filter(|piece| !piece.is_empty());
        let prompt = image.and_then(|image| prompt.strip_prefix(image)).unwrap_or(prompt);
        self.word(model, Wording::prompt(prompt))
    }

    /// The tokens of a text and of what stands around it.
    pub fn word(&mut self, model: &Model, wording: Wording<'_>) -> Result<&[u32]> {
        let Wording { bos, before, text, pads, end } = wording;
        let (config, tokenizer, tokens_max) = (model.config(), model.tokenizer(), self.tokens_max);
        let bytes = before.len().saturating_add(text.len()).saturating_add(end.len());
        if bytes > self.bytes_max {
            return Err(UsageError::PromptBytes { bytes: text.len(), tokens_max }.into());
        }
        let around = bos.saturating_add(pads);
        if around > tokens_max {
            return Err(UsageError::PromptTokens { tokens: around, tokens_max }.into());
        }
        self.ids.clear();
        self.ids.extend(std::iter::repeat_n(config.tokens.bos, bos));
        self.text.clear();
        self.text.push_str(before);
        self.text.push_str(text);
        if pads > 0 {
            // Padding parts what stands before it from what stands behind.
            tokenizer.encode(&self.text, &mut self.encode, &mut self.ids)?;
            self.ids.extend(std::iter::repeat_n(config.tokens.pad, pads));
            self.text.clear();
        }
        self.text.push_str(end);
        tokenizer.encode(&self.text, &mut self.encode, &mut self.ids)?;
        self.check(model, &self.ids)?;
        Ok(&self.ids)
    }

    /// An error for tokens that the session has no room for, or that no prompt may have.
    pub fn check(&self, model: &Model, tokens: &[u32]) -> Result<(), UsageError> {
        let (config, tokens_max) = (model.config(), self.tokens_max);
        if tokens.len() > tokens_max {
            return Err(UsageError::PromptTokens { tokens: tokens.len(), tokens_max });
        }
        let vocab = config.text.vocab;
        for &token in tokens {
            if token == config.tokens.image {
                return Err(UsageError::ImageTokenInPrompt);
            }
            if token as usize >= vocab {
                return Err(UsageError::NoSuchToken { token, vocab });
            }
        }
        Ok(())
    }
}
