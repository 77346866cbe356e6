//! What can be wrong with a `.npz` file.

use super::ENTRY_BYTES_MAX;

/// Why a `.npz` file cannot be read. The file's fault, or that of who named it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NpzError {
    /// There is no end-of-archive record.
    #[error("this is not a .npz file, or its end is missing")]
    NotZip,
    /// A part lies outside of the file or is cut short.
    #[error("the .npz file is broken: {0} is cut short or not where it should be")]
    Truncated(&'static str),
    /// The archive has two arrays of one name.
    #[error("the .npz file has the array {name:?} twice")]
    Twice {
        /// Its name.
        name: String,
    },
    /// Too much is deflated.
    #[error(
        "the .npz file is packed, and would take more than {bytes_max} bytes of memory; save it with numpy.savez"
    )]
    Packed {
        /// What may be unpacked, all arrays together.
        bytes_max: u64,
    },
    /// There is no array of this name.
    #[error("the .npz file has no array {name:?}")]
    Missing {
        /// The name asked for.
        name: String,
    },
    /// An array cannot be read.
    #[error("the array {name:?} of the .npz file cannot be read: {fault}")]
    Entry {
        /// Its name.
        name: String,
        /// Why.
        fault: EntryFault,
    },
}

/// Why an array of a `.npz` file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryFault {
    /// Its bytes lie outside of the file.
    #[error("its bytes are not where they should be")]
    OutOfBounds,
    /// It is encrypted.
    #[error("it is encrypted")]
    Encrypted,
    /// It is larger than [`ENTRY_BYTES_MAX`], and must be in memory.
    #[error("it has {bytes} bytes, more than the {ENTRY_BYTES_MAX} that are taken into memory")]
    TooLarge {
        /// Its size, unpacked.
        bytes: u64,
    },
    /// It is packed in another way than stored or deflated.
    #[error("it is packed by method {0}; only stored (0) and deflated (8) arrays are read")]
    Method(u16),
    /// The packed bytes are broken, or unpack to more than they should.
    #[error("its packed bytes are broken")]
    Deflate,
    /// The bytes are not those that were written.
    #[error("its size or checksum is wrong")]
    Checksum,
    /// It does not begin as a `.npy` array does.
    #[error("it is not a .npy array of version 1, 2 or 3")]
    NotNpy,
    /// Its header is not a dictionary of type, order and shape.
    #[error("its header is broken")]
    Header,
    /// It is of none of the types of [`NpyType`](super::NpyType).
    #[error(
        "its values are of type {0:?}; only little-endian f32 (\"<f4\"), f16 (\"<f2\") and bf16 (\"|V2\") are read"
    )]
    Type(String),
    /// It is in Fortran's order.
    #[error("it is in fortran order; save it in C order")]
    FortranOrder,
    /// Its shape does not fit its bytes.
    #[error("its {bytes} bytes of values do not make the shape {shape:?}")]
    Size {
        /// The shape that the header gives.
        shape: Vec<usize>,
        /// The bytes that follow.
        bytes: usize,
    },
}
