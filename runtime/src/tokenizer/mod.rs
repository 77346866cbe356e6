//! SentencePiece-type BPE over one flat table that is mapped and used in place.
//!
//! A table is built by the converter and lies in the `.palm` file; `docs/tokenizer-table.md` describes it
//! byte by byte. Opening it copies nothing: [`TokenizerLayout::parse`] checks the header and the small
//! sections, [`TokenizerLayout::bind`] pairs the layout with the bytes, and [`Tokenizer::encode`] and
//! [`Detokenizer`] read pieces straight from them, into buffers that the caller made beforehand.
//!
//! Ids and texts are those of Hugging Face's tokenizers for the same vocabulary, with
//! `add_special_tokens=False`: added tokens are cut out of the text first, blanks become U+2581, characters
//! without a piece become byte pieces, and symbols are merged lowest rank first.
//!
//! A table is untrusted. What `parse` does not check is checked where it is used: a broken table gives wrong
//! ids or an error, never a panic, and never more work than its size limits allow.

mod added;
mod decode;
mod encode;
pub mod format;
mod table;
mod verify;

pub use decode::Detokenizer;
pub use encode::EncodeScratch;
pub use table::{Tokenizer, TokenizerLayout};

/// Why a tokenizer table or a text is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The bytes do not begin with the mark of a tokenizer table.
    #[error("this is not a tokenizer table (its first bytes are not \"palmtok\")")]
    NotATable,
    /// The table was written by a newer converter.
    #[error(
        "the tokenizer table has version {found}, this program reads version {supported}; convert the model again"
    )]
    UnsupportedVersion {
        /// The version in the table.
        found: u32,
        /// The version that this library reads.
        supported: u32,
    },
    /// The table is cut short, or carries bytes that do not belong to it.
    #[error(
        "the tokenizer table has {found} bytes where it should have {expected}; the file is incomplete or damaged"
    )]
    WrongLength {
        /// The number of bytes given.
        found: u64,
        /// The number of bytes that the table says it has.
        expected: u64,
    },
    /// A field of the header contradicts the format or another field.
    #[error("the tokenizer table is damaged: {0}; convert the model again")]
    BadHeader(&'static str),
    /// A part behind the header is inconsistent.
    #[error("the tokenizer table is damaged at piece {id}: {what}; convert the model again")]
    BadPiece {
        /// The piece concerned.
        id: u32,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The text is longer than the scratch memory was made for.
    #[error(
        "the text has {bytes} bytes, the limit is {bytes_max}; shorten it or raise the limit of the session"
    )]
    TextTooLong {
        /// Length of the text.
        bytes: usize,
        /// The limit that the [`EncodeScratch`] was made with.
        bytes_max: usize,
    },
}
