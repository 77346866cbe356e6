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
    #[error(transparent)]
    Usage(#[from] UsageError),
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
    #[error("cannot allocate {bytes} bytes of memory: ask for a smaller session (see `palmtop plan`)")]
    OutOfMemory {
        /// Bytes that were asked for at once.
        bytes: usize,
    },
    /// The file of a model was shortened or written while it was mapped: its answers cannot be trusted any more.
    #[error(
        "{} was changed while it was open: open it again, and replace a model by renaming a finished file into its place",
        path.display()
    )]
    FileChanged {
        /// The model file.
        path: PathBuf,
    },
    /// The system does not keep that much of a model in memory.
    #[error(
        "cannot lock the {bytes} bytes of the model in memory: raise the limit of locked memory (`ulimit -l`), or do without"
    )]
    Lock {
        /// Bytes of the model.
        bytes: usize,
        /// What the system said.
        source: std::io::Error,
    },
    /// No threads can be started.
    #[error("cannot start threads: {0}")]
    Threads(#[source] std::io::Error),
    /// The call was cancelled before it was done.
    #[error("cancelled")]
    Cancelled,
    /// The call's deadline passed before it was done.
    #[error("the deadline passed")]
    DeadlinePassed,
}

/// What a caller asked for that a model or a session cannot do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UsageError {
    /// A field of [`Limits`](crate::Limits) that no session can have.
    #[error("{name} is {value}: choose {least} to {most}")]
    Limit {
        /// Which.
        name: &'static str,
        /// Its value.
        value: usize,
        /// The least that there can be.
        least: usize,
        /// The most that there can be.
        most: usize,
    },
    /// No prompts, or more than the session answers together.
    #[error("{prompts} prompts at once, but the session takes 1 to {most}")]
    Prompts {
        /// Prompts that were given.
        prompts: usize,
        /// The session's batch.
        most: usize,
    },
    /// More pictures in a prompt than the session has room for, or none.
    #[error(
        "{pictures} pictures in a prompt, but the session takes 1 to {most}{}",
        if .pictures > .most { ": make one with a larger limit of pictures" } else { "" }
    )]
    Pictures {
        /// Pictures that were given.
        pictures: usize,
        /// The session's limit.
        most: usize,
    },
    /// An answer that is longer than the session has room for, or empty.
    #[error("{tokens} new tokens, but the session takes 1 to {most}")]
    NewTokens {
        /// Tokens that were asked for.
        tokens: usize,
        /// The session's limit.
        most: usize,
    },
    /// The session has no room for answers.
    #[error("this session gives no answers: make one with a limit of new tokens above 0")]
    NoAnswers,
    /// An answer given for teacher forcing is longer than the session has room for.
    #[error("an answer of {tokens} tokens, but the session takes at most {most}")]
    ForcedTokens {
        /// Tokens that were given.
        tokens: usize,
        /// The session's limit.
        most: usize,
    },
    /// A token that the model does not have.
    #[error("token {token} was given, but the model has only {vocab} tokens")]
    NoSuchToken {
        /// The token.
        token: u32,
        /// Tokens of the model.
        vocab: usize,
    },
    /// A prompt's text is longer than any of so many tokens.
    #[error(
        "the prompt has {bytes} bytes, more than this session's {tokens_max} prompt tokens can hold: shorten it, or make \
         a session with a larger limit of prompt tokens"
    )]
    PromptBytes {
        /// Bytes of the text.
        bytes: usize,
        /// The session's limit of tokens.
        tokens_max: usize,
    },
    /// A prompt has more tokens than the session has room for.
    #[error(
        "the prompt has {tokens} tokens, more than this session's {tokens_max}: shorten it, or make a session with a \
         larger limit of prompt tokens"
    )]
    PromptTokens {
        /// Tokens of the prompt.
        tokens: usize,
        /// The session's limit.
        tokens_max: usize,
    },
    /// A prompt spells the token that stands for rows of a picture.
    #[error(
        "the text of the prompt contains the image token; leave it out: the picture always comes before the prompt"
    )]
    ImageTokenInPrompt,
    /// No picture has been encoded into the image features.
    #[error("no picture has been encoded into these image features")]
    NoPicture,
    /// The image features are another model's.
    #[error("the image features were made for another model: encode the picture with this session")]
    FeaturesOfAnotherModel,
    /// The prefix was made for another model.
    #[error("the prefix was made for another model: make one of this model")]
    PrefixOfAnotherModel,
    /// More rows than a prefix has room for, or none.
    #[error("a prefix of {rows} rows, where there is room for 1 to {most}")]
    PrefixRows {
        /// Rows of the pictures, those that are missing included, and of the text.
        rows: usize,
        /// Rows that there is room for.
        most: usize,
    },
    /// A prefix of which there is nothing: every picture is missing, and there is no text.
    #[error("a prefix needs a picture that is there, or a token")]
    EmptyPrefix,
    /// The model makes no vectors.
    #[error("this model is not one for retrieval: it has no head that makes vectors")]
    NoRetrieval,
    /// Vectors were made for another model.
    #[error("the memory for vectors was made for another model: make it with this session")]
    EmbeddingOfAnotherModel,
    /// More vectors than there is room for.
    #[error("{rows} vectors, where there is room for {most}: make room with this session")]
    EmbeddingRows {
        /// Vectors that come.
        rows: usize,
        /// Vectors that there is room for.
        most: usize,
    },
    /// All sequences of the session are taken.
    #[error("all {batch} sequences of the session are taken: end one, or make a session with a larger batch")]
    NoFreeSequence {
        /// The session's batch.
        batch: usize,
    },
    /// The sequence has been ended, or is another session's.
    #[error("the session has no such sequence: it has been ended, or is another session's")]
    NoSuchSequence,
    /// Sequences that were begun are still running.
    #[error("{running} sequences of the session are still running: step until they are done, or end them")]
    StillRunning {
        /// How many.
        running: usize,
    },
    /// A part of a file that does not lie in it.
    #[error("{0}")]
    FilePart(String),
}
