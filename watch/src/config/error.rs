//! What can be wrong with a configuration.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file is too long to be a configuration.
    #[error("{path} is longer than {bytes_max} bytes, which no configuration is")]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The limit.
        bytes_max: u64,
    },
    /// It is no TOML, or has keys or values that are not known. Names the line.
    #[error("{0}")]
    Toml(String),
    /// Something that must be there is not.
    #[error("{0}")]
    Missing(&'static str),
    /// Two of something have the same name.
    #[error("there are two {what}s of the name '{name}'; give each its own")]
    Twice {
        /// What there are two of.
        what: &'static str,
        /// Their name.
        name: String,
    },
    /// A part makes no sense.
    #[error("{of}: {what}")]
    Wrong {
        /// Which part.
        of: String,
        /// What is wrong with it, and what would be right.
        what: String,
    },
}

impl ConfigError {
    pub(super) fn wrong(of: impl Into<String>, what: impl fmt::Display) -> Self {
        Self::Wrong { of: of.into(), what: what.to_string() }
    }
}
