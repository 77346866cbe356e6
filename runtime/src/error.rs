//! What can go wrong, by whose fault it is.

use std::path::PathBuf;

use palmtop_kernels::IsaError;

use crate::format::FormatError;
use crate::image::ImageError;
use crate::session::grammar::GrammarError;
use crate::tasks::{MaskCodecError, MaskError, PromptError};
use crate::tokenizer::TokenizerError;

/// The result of a fallible call of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any error of this library.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model file is damaged, incomplete or of another version.
    #[error("cannot use model file {}", path.display())]
    File {
        /// The model file.
        path: PathBuf,
        /// What is wrong with it.
        source: FormatError,
    },
    /// The model's contents do not fit together.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The image cannot be used: broken, of an unsupported kind, or larger than the limits.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The tokenizer table of a model file is broken, or a text cannot be encoded within the limits.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A text cannot be part of a prompt.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// A grammar cannot be made, or not be followed by this session.
    #[error(transparent)]
    Grammar(#[from] GrammarError),
    /// The model file's mask decoder is missing or broken.
    #[error(transparent)]
    MaskCodec(#[from] MaskCodecError),
    /// A mask cannot be made.
    #[error(transparent)]
    Mask(#[from] MaskError),
    /// The caller asked for something that this model or session cannot do.
    #[error("{0}")]
    InvalidArgument(String),
    /// The instruction set that was asked for cannot be had.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// The operating system refused.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file that was being worked on.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system has not that much memory.
    #[error("{bytes} bytes of memory cannot be had: ask for a smaller session (see `palmtop plan`)")]
    OutOfMemory {
        /// Bytes that were asked for at once.
        bytes: usize,
    },
    /// No threads can be started.
    #[error("cannot start threads: {0}")]
    Threads(#[source] std::io::Error),
    /// The call was cancelled, or its deadline passed, before it was done.
    #[error("cancelled")]
    Cancelled,
}
