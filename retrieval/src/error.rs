//! What can go wrong with an index, by whose fault it is.

use std::path::PathBuf;

use palmtop::IsaError;

use crate::format::{DIMS_MAX, NAME_BYTES_MAX, ROWS_MAX, VERSION};

/// The result of a fallible call of this library.
pub type Result<T, E = IndexError> = std::result::Result<T, E>;

/// Any error of this library.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The file is no index, of another version, or damaged.
    #[error("cannot use index {}", path.display())]
    File {
        /// The index.
        path: PathBuf,
        /// What is wrong with it.
        source: Defect,
    },
    /// An index in memory is no index, of another version, or damaged.
    #[error(transparent)]
    Bytes(#[from] Defect),
    /// The system refused.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process, or another writer of this one, writes the index.
    #[error("index {} is being written by another process", path.display())]
    Busy {
        /// The index.
        path: PathBuf,
    },
    /// A file of this name is there already.
    #[error("there is a file {} already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A commit failed halfway, so what is on the disk is not known. The index must be opened anew.
    #[error("index {} could not be written before; open it again", path.display())]
    Failed {
        /// The index.
        path: PathBuf,
    },
    /// What was given as a page cannot be one.
    #[error(transparent)]
    Page(#[from] PageError),
    /// What was given as a query cannot be one.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The kind of an index is out of bounds.
    #[error("vectors of {dims} dimensions cannot be kept: from 1 to {DIMS_MAX} can")]
    Dims {
        /// What was asked for.
        dims: usize,
    },
    /// The instruction set that was asked for cannot be had.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// A search was cancelled.
    #[error("cancelled")]
    Cancelled,
}

/// What is wrong with the bytes of an index.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Defect {
    /// The file does not begin as an index does.
    #[error("it is not an index")]
    Magic,
    /// The file is of a later version.
    #[error(
        "it has version {found} of the format, and this palmtop reads version {VERSION}: use a newer palmtop"
    )]
    Version {
        /// What the file says.
        found: u32,
    },
    /// The file is shorter than what was committed.
    #[error("it is cut off: {found} of {committed} bytes are there")]
    Cut {
        /// Bytes that were committed.
        committed: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// Bytes are not as they were written, or never made sense.
    #[error("it is damaged at byte {offset}: {what}")]
    Damaged {
        /// Where.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// Bytes in memory are not where vectors can be multiplied.
    #[error("memory is not aligned to 64 bytes")]
    Alignment,
    /// Only on machines of 32 bits.
    #[error("it is larger than this machine can address")]
    TooLarge,
}

/// Why something is no page.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PageError {
    /// The name is empty or too long.
    #[error("a page's name has {bytes} bytes; from 1 to {NAME_BYTES_MAX} can be kept")]
    Name {
        /// Its length.
        bytes: usize,
    },
    /// Not a whole number of rows, none, or too many.
    #[error("a page has {values} numbers; from 1 to {ROWS_MAX} rows of {dims} can be kept")]
    Rows {
        /// Numbers given.
        values: usize,
        /// Numbers of a row.
        dims: usize,
    },
    /// A number is infinite or none, or too large for the format of the index.
    #[error("row {row} of a page has a number that cannot be kept: {value}")]
    Value {
        /// The row.
        row: usize,
        /// The number, as text, so that errors can be compared.
        value: String,
    },
}

/// Why something is no query.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueryError {
    /// Not a whole number of rows, none, or too many.
    #[error("a query has {values} numbers; from 1 to {most} rows of {dims} can be searched for")]
    Rows {
        /// Numbers given.
        values: usize,
        /// Numbers of a row.
        dims: usize,
        /// Rows at most.
        most: usize,
    },
    /// A number is infinite or none.
    #[error("a query has a number that is not finite")]
    NotFinite,
    /// The query's rows are not as wide as those of the index.
    #[error("a query has rows of {query} numbers, the index of {index}")]
    Dims {
        /// Of the query.
        query: usize,
        /// Of the index.
        index: usize,
    },
}
