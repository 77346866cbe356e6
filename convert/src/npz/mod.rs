//! Reading NumPy's `.npz` files, in which the weights of the mask decoder (`vae-oid.npz`) and JAX's checkpoints are
//! published.
//!
//! A `.npz` is a zip archive of `.npy` arrays. This module reads what `numpy.savez` and `numpy.savez_compressed` write
//! for weights: stored or deflated entries, with 64-bit sizes too, arrays of little-endian f32, f16 or bf16 in C order.
//! It refuses everything else with an error that names it. The file is untrusted: every offset and length is checked
//! against the file, and no entry may unpack to more than [`ENTRY_BYTES_MAX`].
//!
//! [`archive`] finds the entries, [`npy`] reads the heads of arrays; [`Npz`] reads whole arrays of a small file.
//! Formats: PKWARE's APPNOTE.TXT (zip) and `numpy.lib.format` (npy).

pub(crate) mod archive;
mod error;
pub(crate) mod npy;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use half::{bf16, f16};

use archive::{Archive, Content};
pub use error::{EntryFault, NpzError};
use npy::NpyHead;
pub use npy::NpyType;

/// The largest array that is taken into memory as a whole, unpacked: 256 MiB. The mask decoder's largest has 1 MiB.
pub const ENTRY_BYTES_MAX: usize = 256 << 20;

/// An open `.npz` file: its table of contents, and the bytes it lies in.
#[derive(Clone, Debug)]
pub struct Npz<'a> {
    file: &'a [u8],
    archive: Archive,
}

/// An array of f32.
#[derive(Clone, Debug, PartialEq)]
pub struct NpyArray {
    /// The sizes, outermost first; empty for a single value.
    pub shape: Vec<usize>,
    /// The values in C order; their number is the product of the sizes.
    pub data: Vec<f32>,
}

impl<'a> Npz<'a> {
    /// Reads the table of contents of a whole file.
    pub fn parse(file: &'a [u8]) -> Result<Self, NpzError> {
        Ok(Self { file, archive: Archive::parse(file)? })
    }

    /// The names of the arrays, without `.npy`, in the order of the file.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.archive.entries().iter().map(|entry| entry.name.as_str())
    }

    /// Unpacks, checks and reads an array; f16 and bf16 become f32.
    pub fn read_f32(&self, name: &str) -> Result<NpyArray, NpzError> {
        let entry = self.archive.get(name).ok_or_else(|| NpzError::Missing { name: name.to_owned() })?;
        let read = || {
            if entry.bytes > ENTRY_BYTES_MAX as u64 {
                return Err(EntryFault::TooLarge { bytes: entry.bytes });
            }
            let bytes: Cow<[u8]> = match entry.content(self.file)? {
                Content::Stored(range) => self.file[range].into(),
                Content::Unpacked(bytes) => bytes.into(),
            };
            if crc32fast::hash(&bytes) != entry.crc32 {
                return Err(EntryFault::Checksum);
            }
            let head = NpyHead::parse(&bytes)?;
            let mut data = vec![0.0; (bytes.len() - head.start) / head.dtype.bytes()];
            to_f32(head.dtype, &bytes[head.start..], &mut data);
            Ok(NpyArray { shape: head.shape, data })
        };
        read().map_err(|fault| NpzError::Entry { name: name.to_owned(), fault })
    }
}

/// Reads as many little-endian values as `out` has room for, which the caller has checked to be there.
pub(crate) fn to_f32(dtype: NpyType, bytes: &[u8], out: &mut [f32]) {
    let values = out.iter_mut().zip(bytes.chunks_exact(dtype.bytes()));
    match dtype {
        NpyType::F32 => values.for_each(|(o, b)| *o = f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
        NpyType::F16 => values.for_each(|(o, b)| *o = f16::from_le_bytes([b[0], b[1]]).to_f32()),
        NpyType::Bf16 => values.for_each(|(o, b)| *o = bf16::from_le_bytes([b[0], b[1]]).to_f32()),
    }
}
