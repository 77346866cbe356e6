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

impl Prompts {
    pub fn new(reserve: &mut Reserve, tokens_max: usize) -> Result<Self> {
        let bytes_max = tokens_max.saturating_mul(BYTES_PER_TOKEN);
        Ok(Self {
            encode: EncodeScratch::reserved(reserve, bytes_max)?,
            text: reserve.text(bytes_max)?,
            ids: reserve.list(bytes_max)?,
            bytes_max,
            tokens_max,
        })
    }

    /// The tokens of a prompt, `<bos>` and final newline included.
    pub fn tokenize(&mut self, model: &Model, prompt: &str) -> Result<&[u32]> {
        let (config, tokenizer, tokens_max) = (model.config(), model.tokenizer(), self.tokens_max);
        // The processor of transformers takes a picture's token at the start of a prompt for the picture itself.
        let image = tokenizer.piece(config.tokens.image).filter(|piece| !piece.is_empty());
        let prompt = image.and_then(|image| prompt.strip_prefix(image)).unwrap_or(prompt);
        if prompt.len() >= self.bytes_max {
            return Err(UsageError::PromptBytes { bytes: prompt.len(), tokens_max }.into());
        }
        self.text.clear();
        self.text.push_str(prompt);
        self.text.push('\n');
        self.ids.clear();
        self.ids.push(config.tokens.bos);
        tokenizer.encode(&self.text, &mut self.encode, &mut self.ids)?;
        if self.ids.len() > tokens_max {
            return Err(UsageError::PromptTokens { tokens: self.ids.len(), tokens_max }.into());
        }
        if self.ids.contains(&config.tokens.image) {
            return Err(UsageError::ImageTokenInPrompt.into());
        }
        Ok(&self.ids)
    }
}
