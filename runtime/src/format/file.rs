//! A mapped `.palm` file whose every offset has been checked.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use palmtop_kernels::layout::{MatrixLayout, PackedMatrix};

use super::{ALIGN, FormatError, Head, Metadata, Storage, TensorInfo, checksum};
use crate::error::{Error, Result};

/// A `.palm` file, open for reading.
///
/// The file must not be shortened or rewritten in place while it is open: the bytes are the operating
/// system's mapping of it. `palmtop convert` never does that; it renames a finished file into place.
pub struct PalmFile {
    bytes: Bytes,
    head: Head,
    by_name: HashMap<String, usize>,
}

enum Bytes {
    Mapped(memmap2::Mmap),
    Static(&'static [u8]),
}

impl Bytes {
    fn get(&self) -> &[u8] {
        match self {
            Self::Mapped(m) => m,
            Self::Static(b) => b,
        }
    }
}

impl PalmFile {
    /// Maps a file and checks its head; the data is not read (see [`verify`](Self::verify)).
    pub fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { path: PathBuf::from(path), source };
        let kind = std::fs::metadata(path).map_err(io)?;
        if kind.is_dir() {
            return Err(io(std::io::Error::other("is a folder; name the .palm file itself")));
        }
        if !kind.is_file() {
            // Opening a pipe would wait for its other end.
            return Err(io(std::io::Error::other("is not a regular file, and only those can be mapped")));
        }
        let file = File::open(path).map_err(io)?;
        // SAFETY: the mapping is read-only and private to this struct. If another process shortens the
        // file the system ends this one, and changed bytes give wrong numbers; both are stated above, and
        // nothing read from the data is used as an index or length without a check.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
        Self::new(Bytes::Mapped(map)).map_err(|source| Error::File { path: path.into(), source })
    }

    /// Uses a file that is part of the program; `bytes` must start at a multiple of 64.
    pub fn from_static(bytes: &'static [u8]) -> Result<Self, FormatError> {
        if !(bytes.as_ptr() as usize).is_multiple_of(ALIGN as usize) {
            return Err(FormatError::Malformed {
                offset: 0,
                what: "memory is not aligned to 64 bytes".into(),
            });
        }
        Self::new(Bytes::Static(bytes))
    }

    fn new(bytes: Bytes) -> Result<Self, FormatError> {
        let head = Head::parse(bytes.get())?;
        let by_name = head.tensors.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
        Ok(Self { bytes, head, by_name })
    }

    /// Typed key-value pairs.
    pub fn metadata(&self) -> &Metadata {
        &self.head.metadata
    }

    /// The tensor table, in the order of the data.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.head.tensors
    }

    /// Bytes of the whole file.
    pub fn bytes(&self) -> u64 {
        self.bytes.get().len() as u64
    }

    /// The entry of a tensor, if it is there.
    pub fn find(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|&i| &self.head.tensors[i])
    }

    /// The entry of a tensor that must be there.
    pub fn tensor(&self, name: &str) -> Result<&TensorInfo, FormatError> {
        self.find(name).ok_or_else(|| FormatError::MissingTensor(name.to_owned()))
    }

    /// The bytes of a tensor of this file.
    pub fn data(&self, tensor: &TensorInfo) -> &[u8] {
        &self.bytes.get()[tensor.offset as usize..][..tensor.length as usize]
    }

    /// Bytes of the file that a tensor was found to occupy.
    pub(crate) fn bytes_at(&self, place: std::ops::Range<usize>) -> &[u8] {
        &self.bytes.get()[place]
    }

    /// Plain f32 of exactly this shape.
    pub fn f32s(&self, name: &str, shape: &[usize]) -> Result<&[f32], FormatError> {
        let t = self.expect(name, shape, |s| s == Storage::F32)?;
        bytemuck::try_cast_slice(self.data(t)).map_err(|_| FormatError::Tensor {
            name: name.to_owned(),
            what: "its data is not aligned in memory".to_owned(),
        })
    }

    /// A packed matrix of exactly this many outputs and inputs.
    pub fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<PackedMatrix<'_>, FormatError> {
        let t = self.expect(name, &[rows, cols], |s| matches!(s, Storage::Packed(_)))?;
        let Storage::Packed(format) = t.storage else { unreachable!("expect has checked the storage") };
        Ok(MatrixLayout::new(format, rows, cols)
            .and_then(|layout| PackedMatrix::new(layout, self.data(t)))
            .expect("the head's reader has checked the length against the layout"))
    }

    fn expect(
        &self,
        name: &str,
        shape: &[usize],
        storage: impl Fn(Storage) -> bool,
    ) -> Result<&TensorInfo, FormatError> {
        let t = self.tensor(name)?;
        let wrong = |what| Err(FormatError::Tensor { name: name.to_owned(), what });
        if t.shape != shape {
            return wrong(format!("shape {:?} where the architecture needs {shape:?}", t.shape));
        }
        if !storage(t.storage) {
            return wrong(format!("storage '{}' does not fit its use", t.storage.name()));
        }
        Ok(t)
    }

    /// Reads all data and compares every checksum; `progress` is told the bytes of each tensor done.
    /// Gives the tensors that are damaged.
    pub fn verify(&self, mut progress: impl FnMut(u64)) -> Vec<FormatError> {
        let mut damaged = Vec::new();
        for t in &self.head.tensors {
            let found = checksum(self.data(t));
            if found != t.checksum {
                damaged.push(FormatError::DataChecksum { name: t.name.clone(), stated: t.checksum, found });
            }
            progress(t.length);
        }
        damaged
    }
}
