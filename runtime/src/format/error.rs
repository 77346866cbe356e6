//! One variant per way in which a `.palm` file can be wrong.

/// Why a `.palm` file is refused. The file is at fault, unless the text says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The first bytes are not those of a `.palm` file.
    #[error("not a .palm file: {0}")]
    Magic(&'static str),
    /// Written by a newer palmtop, or the version field is damaged.
    #[error(
        "format version {found} is not supported (this program reads version {supported}): use a newer palmtop or convert the checkpoint again"
    )]
    Version {
        /// The version in the file.
        found: u32,
        /// The version of this program.
        supported: u32,
    },
    /// The file ends before the bytes that its head speaks of.
    #[error(
        "the file is cut short: {needed} bytes are needed and {found} are there; copy or convert it again"
    )]
    Truncated {
        /// Bytes that the head speaks of.
        needed: u64,
        /// Bytes of the file.
        found: u64,
    },
    /// There are bytes after the end that the head states.
    #[error("the file has {found} bytes where its head says {stated}; copy or convert it again")]
    Length {
        /// Bytes that the head states.
        stated: u64,
        /// Bytes of the file.
        found: u64,
    },
    /// The head's checksum does not match.
    #[error(
        "the head of the file is damaged (checksum {found:016x}, stated {stated:016x}); copy or convert it again"
    )]
    HeadChecksum {
        /// The checksum in the file.
        stated: u64,
        /// The checksum of the bytes.
        found: u64,
    },
    /// A field of the head has a value that no writer makes.
    #[error("the head of the file is malformed at byte {offset}: {what}")]
    Malformed {
        /// Where in the file.
        offset: usize,
        /// What is wrong there.
        what: String,
    },
    /// A tensor's place, shape or storage is impossible.
    #[error("tensor '{name}': {what}")]
    Tensor {
        /// The tensor's name.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// A tensor that the architecture needs is missing.
    #[error("tensor '{0}' is missing: the file was not written whole, or not for this architecture")]
    MissingTensor(String),
    /// A metadata entry that the architecture needs is missing or of another type.
    #[error("metadata '{key}' {what}")]
    Metadata {
        /// The entry's key.
        key: String,
        /// What is wrong with it.
        what: String,
    },
    /// The data of a tensor differs from its checksum.
    #[error(
        "tensor '{name}' is damaged (checksum {found:016x}, stated {stated:016x}); copy or convert the file again"
    )]
    DataChecksum {
        /// The tensor's name.
        name: String,
        /// The checksum in the head.
        stated: u64,
        /// The checksum of the data.
        found: u64,
    },
}
