//! Builds the tokenizer table of a `.palm` file from `tokenizer.json` or `tokenizer.model`.
//!
//! [`build_table`] takes the folder of a checkpoint. [`json`] and [`model`] each read one kind of file into a
//! [`Vocabulary`], [`added`] adds the folder's other tokenizer files, and [`Vocabulary::to_table`] writes the bytes
//! that `palmtop::tokenizer` reads in place. Only tokenizers that the table can express exactly are accepted: BPE with
//! a normaliser that turns spaces into U+2581, such as Gemma's.

pub mod added;
pub mod json;
pub mod model;
mod vocabulary;
mod write;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use palmtop::tokenizer::TokenizerError;

use crate::ConvertError;
use crate::files::{is_there, read_regular, stand_in};
use added::AddedFiles;
pub use vocabulary::{AddedToken, Merge, Vocabulary};

/// The largest tokenizer file that is read.
pub const FILE_BYTES_MAX: u64 = 256 << 20;

/// Builds the table from a folder: from `tokenizer.json` if there is one, else from `tokenizer.model`, or the only file
/// that ends on `.model` or `.spm`.
///
/// `tokenizer_config.json` and `added_tokens.json` are read too, where present, for added tokens that the main
/// file lacks.
///
/// # Errors
/// [`BuildError::NotFound`] if the folder has neither file; otherwise what is wrong with one of them.
pub fn build_table(dir: &Path) -> Result<Vec<u8>, BuildError> {
    vocabulary_of(dir)?.to_table()
}

/// Reads the vocabulary of a folder, as [`build_table`] does.
///
/// # Errors
/// As [`build_table`].
pub fn vocabulary_of(dir: &Path) -> Result<Vocabulary, BuildError> {
    let config = read(&dir.join("tokenizer_config.json"))?;
    let added = read(&dir.join("added_tokens.json"))?;
    let files = AddedFiles::parse(config.as_deref(), added.as_deref())?;
    if let Some(bytes) = read(&dir.join("tokenizer.json"))? {
        let mut vocabulary = json::parse(&bytes)?;
        files.append_missing(&mut vocabulary)?;
        Ok(vocabulary)
    } else if let Some(bytes) = read(&sentencepiece_file(dir))? {
        model::parse(&bytes, &files)
    } else {
        Err(BuildError::NotFound { dir: dir.to_owned() })
    }
}

/// `tokenizer.model`, or the only file in the folder that ends as SentencePiece's do, such as
/// `paligemma_tokenizer.model` or `vocabulary.spm`.
fn sentencepiece_file(dir: &Path) -> PathBuf {
    let usual = dir.join("tokenizer.model");
    if is_there(&usual) {
        return usual;
    }
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found = files.filter(|f| f.extension().is_some_and(|e| e == "model" || e == "spm"));
    match (found.next(), found.next()) {
        (Some(only), None) => only,
        _ => usual,
    }
}

/// Reads the vocabulary of one file, `tokenizer.json` or `tokenizer.model` by what is in it.
///
/// # Errors
/// [`BuildError::Io`] if there is no such file; otherwise what is wrong with it.
pub fn vocabulary_in(file: &Path) -> Result<Vocabulary, BuildError> {
    let not_there = || BuildError::Io { path: file.to_owned(), source: std::io::ErrorKind::NotFound.into() };
    let bytes = read(file)?.ok_or_else(not_there)?;
    if bytes.trim_ascii_start().starts_with(b"{") {
        json::parse(&bytes)
    } else {
        model::parse(&bytes, &AddedFiles::default())
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, BuildError> {
    if !is_there(path) {
        return Ok(None);
    }
    let bytes = read_regular(path, FILE_BYTES_MAX).map_err(|error| match error {
        ConvertError::Io { path, source } => BuildError::Io { path, source },
        other => BuildError::Io { path: path.to_owned(), source: std::io::Error::other(other) },
    })?;
    match stand_in(&bytes) {
        None => Ok(Some(bytes)),
        Some(what) => Err(BuildError::StandIn { path: path.to_owned(), what }),
    }
}

/// Why no table can be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The folder has no tokenizer.
    #[error("{} has neither tokenizer.json nor tokenizer.model; download one of them with the checkpoint", dir.display())]
    NotFound {
        /// The folder.
        dir: PathBuf,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another file stands in the place of one.
    #[error("{} is {what}", path.display())]
    StandIn {
        /// The file.
        path: PathBuf,
        /// What it is, and what to do.
        what: &'static str,
    },
    /// A file is not the JSON that it should be.
    #[error("{file} cannot be read: {source}")]
    Json {
        /// The name of the file.
        file: &'static str,
        /// Where and why.
        source: serde_json::Error,
    },
    /// `tokenizer.model` is not a sentencepiece model, or is cut short.
    #[error("tokenizer.model is damaged at byte {offset}: {what}")]
    Protobuf {
        /// Where in the file.
        offset: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// The tokenizer does something that the table cannot express.
    #[error(
        "this kind of tokenizer is not supported: {what} is {found}; palmtop reads BPE tokenizers of the Gemma family"
    )]
    Unsupported {
        /// The part of the tokenizer.
        what: &'static str,
        /// What the file has there.
        found: String,
    },
    /// There is more of something than the table has room for.
    #[error("too many {what}: {found}, the limit is {max}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        found: u64,
        /// The limit.
        max: u64,
    },
    /// Two pieces have the same text.
    #[error("the piece {piece:?} occurs twice in the vocabulary")]
    DuplicatePiece {
        /// Its text.
        piece: String,
    },
    /// Two pieces have the same id, or one piece has two.
    #[error("the tokenizer gives id {id} to {piece:?}, which contradicts the rest of the vocabulary")]
    ConflictingId {
        /// The id.
        id: u32,
        /// The text that it is given to the second time.
        piece: String,
    },
    /// Ids must follow each other without holes.
    #[error("no piece has the id {id}, though there are larger ids")]
    MissingId {
        /// The first id without a piece.
        id: u32,
    },
    /// A piece that cannot stand in a table.
    #[error("the piece {piece:?} cannot be used: {why}")]
    BadPiece {
        /// Its text.
        piece: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A merge that makes no sense.
    #[error("the merge {merge:?} cannot be used: {why}")]
    BadMerge {
        /// The merge as the file has it.
        merge: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The finished table does not pass its own check.
    #[error("the table that was built is wrong, which is a fault of this program: {0}")]
    Verify(#[from] TokenizerError),
}
