//! Added tokens outside the vocabulary, from `tokenizer_config.json` and `added_tokens.json`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::json::AddedEntry;
use super::{AddedToken, BuildError, Vocabulary};

/// What the folder's other files say about added tokens.
#[derive(Debug, Default)]
pub struct AddedFiles {
    /// With their behaviour, from `tokenizer_config.json`.
    described: BTreeMap<u32, (String, AddedToken)>,
    /// By name and id only, from `added_tokens.json`.
    named: Vec<(u32, String)>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    added_tokens_decoder: BTreeMap<u32, AddedEntry>,
}

impl AddedFiles {
    /// Reads `tokenizer_config.json` and `added_tokens.json`, each if it is there.
    ///
    /// # Errors
    /// Broken JSON, or an added token that the table cannot express.
    pub fn parse(config: Option<&[u8]>, added_tokens: Option<&[u8]>) -> Result<Self, BuildError> {
        let mut files = Self::default();
        if let Some(bytes) = config {
            let config: Config = serde_json::from_slice(bytes)
                .map_err(|source| BuildError::Json { file: "tokenizer_config.json", source })?;
            for (id, entry) in config.added_tokens_decoder {
                let (id, text, token) = entry.with_id(id).check()?;
                files.described.insert(id, (text, token));
            }
        }
        if let Some(bytes) = added_tokens {
            let named: BTreeMap<String, u32> = serde_json::from_slice(bytes)
                .map_err(|source| BuildError::Json { file: "added_tokens.json", source })?;
            files.named = named.into_iter().map(|(text, id)| (id, text)).collect();
        }
        Ok(files)
    }

    /// Appends the tokens whose ids the vocabulary does not have, and leaves the rest of it as it is.
    ///
    /// # Errors
    /// Ids that leave a hole.
    pub fn append_missing(&self, vocabulary: &mut Vocabulary) -> Result<(), BuildError> {
        let end = vocabulary.pieces.len();
        let tokens = self.all().into_iter().filter(|(id, ..)| *id as usize >= end).collect();
        vocabulary.add_tokens(tokens, |_, token, _| token)
    }

    /// Appends missing tokens, and lets `tokenizer_config.json` say how the others behave.
    ///
    /// # Errors
    /// Ids that contradict the vocabulary or leave a hole.
    pub fn overlay(&self, vocabulary: &mut Vocabulary) -> Result<(), BuildError> {
        vocabulary.add_tokens(self.all(), |id, token, before| match before {
            Some(before) if !self.described.contains_key(&id) => before,
            _ => token,
        })
    }

    /// All tokens once; those of `added_tokens.json` alone get the usual behaviour.
    fn all(&self) -> Vec<(u32, String, AddedToken)> {
        let mut tokens: Vec<_> =
            self.described.iter().map(|(&id, (text, token))| (id, text.clone(), *token)).collect();
        for (id, text) in &self.named {
            // A name that contradicts the description is kept, to be refused with the id it claims.
            if self.described.get(id).is_none_or(|(described, _)| described != text) {
                tokens.push((*id, text.clone(), usual_behaviour(text)));
            }
        }
        tokens
    }
}

/// Special, or an ordinary added token that is matched after the normaliser, as transformers makes them.
pub(super) fn usual_behaviour(text: &str) -> AddedToken {
    let special = text == "<image>";
    AddedToken { special, normalized: !special, ..AddedToken::default() }
}
