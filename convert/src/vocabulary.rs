//! The tokenizer that goes with a checkpoint, and its table.

use std::path::Path;

use palmtop::model::config::Config;
use palmtop::tokenizer::TokenizerLayout;

use crate::tokenizer::{self, BuildError, Vocabulary};
use crate::{ConvertError, Options};

/// Stands for one image token in prompts of transformers.
const IMAGE: &str = "<image>";

/// The tokenizer of a folder, or the one that the options name.
pub(crate) fn vocabulary(folder: &Path, options: &Options) -> Result<Vocabulary, ConvertError> {
    let (path, read) = match &options.tokenizer {
        Some(file) => (file.as_path(), tokenizer::vocabulary_in(file)),
        None => (folder, tokenizer::vocabulary_of(folder)),
    };
    read.map_err(|error| {
        let (path, what) = match error {
            BuildError::Io { path, source } => (path, source.to_string()),
            BuildError::StandIn { path, what } => (path, format!("is {what}")),
            BuildError::NotFound { dir } => (
                dir,
                "has neither tokenizer.json nor tokenizer.model: download one with the checkpoint".to_owned(),
            ),
            other => (path.to_owned(), other.to_string()),
        };
        ConvertError::Tokenizer { path, what }
    })
}

/// The table of the checkpoint's tokenizer, whose every piece but the picture's must have a row in the embedding.
pub(crate) fn tokenizer_table(
    vocabulary: &Vocabulary,
    checkpoint: &Path,
    config: &mut Config,
) -> Result<Vec<u8>, ConvertError> {
    let wrong = |what: String| ConvertError::Tokenizer { path: checkpoint.to_owned(), what };
    let table = vocabulary.to_table().map_err(|e| wrong(e.to_string()))?;
    let layout = TokenizerLayout::parse(&table).map_err(|e| wrong(e.to_string()))?;
    let tokenizer = layout.bind(&table);
    let (pieces, rows) = (tokenizer.piece_count() as usize, config.text.vocab);
    if !config.has_rows_for(pieces) {
        return Err(wrong(format!(
            "the tokenizer has {pieces} pieces and the embedding {rows} rows; after adding tokens, resize the model's \
             embedding (resize_token_embeddings), and save it again"
        )));
    }
    // The processor of transformers begins prompts with the tokenizer's own token.
    config.tokens.bos = tokenizer.bos_id().unwrap_or(config.tokens.bos);
    if let Some(id) = tokenizer.id_of(IMAGE).filter(|&id| id != config.tokens.image) {
        let image = config.tokens.image;
        return Err(wrong(format!(
            "'{IMAGE}' has the id {id}, and config.json's image_token_index is {image}"
        )));
    }
    Ok(table)
}
