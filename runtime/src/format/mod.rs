//! The `.palm` file: a head that says everything, then aligned data that is mapped and used in place.
//!
//! `docs/format.md` specifies the bytes. [`Head`] reads and writes the head, [`PalmFile`] holds a mapped
//! file whose every offset has been checked.

#[cfg(test)]
mod documented;
mod error;
mod file;
mod head;
mod metadata;
mod pages;

pub use error::FormatError;
pub use file::PalmFile;
pub use head::{
    ALIGN, HEAD_BYTES_MAX, Head, MAGIC, PAGE_ALIGN, PAGE_ALIGN_FROM, Storage, TensorInfo, VERSION,
};
pub use metadata::{Metadata, Value};

/// The checksum of the format: XXH3, 64 bits, seed 0.
pub fn checksum(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// A streaming [`checksum`].
#[derive(Clone, Default)]
pub struct Checksum(xxhash_rust::xxh3::Xxh3);

impl Checksum {
    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    /// The checksum of all bytes so far.
    pub fn finish(&self) -> u64 {
        self.0.digest()
    }
}
