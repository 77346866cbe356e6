//! A mapped `.palm` file whose every offset has been checked.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use palmtop_kernels::layout::{MatrixLayout, PackedMatrix};

use super::{ALIGN, FormatError, Head, Metadata, Storage, TensorInfo, checksum};
use crate::error::{Error, Result, UsageError};

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
    Owned(Box<dyn AsRef<[u8]> + Send + Sync>),
}

impl Bytes {
    fn get(&self) -> &[u8] {
        match self {
            Self::Mapped(m) => m,
            Self::Static(b) => b,
            // An owner may return other bytes the next time; every access is checked, so that is safe.
            Self::Owned(b) => (**b).as_ref(),
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
            return Err(io(std::io::Error::other("is not a regular file; only regular files can be mapped")));
        }
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let bytes = Self::map(&file, 0, length).map_err(io)?;
        Self::new(bytes).map_err(|source| Error::File { path: path.into(), source })
    }

    /// Uses the part of an open file that begins at byte `offset`, `length` bytes or all to the end: a model inside of
    /// a larger file, such as an asset of an Android package. The file may be closed afterwards.
    ///
    /// It is mapped if `offset` is a multiple of 64, and else read into memory as a whole, which is said in the log.
    pub fn open_part(file: &File, offset: u64, length: Option<u64>) -> Result<Self> {
        let io = |source| Error::Io { path: PathBuf::from("(an open file)"), source };
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(io(std::io::Error::other("is not a regular file; only regular files can be mapped")));
        }
        let behind = metadata.len().checked_sub(offset).filter(|behind| length.unwrap_or(0) <= *behind);
        let Some(behind) = behind else {
            return Err(UsageError::FilePart(format!(
                "the model would begin at byte {offset} and have {} bytes, but the file has only {}",
                length.map_or("some".to_owned(), |l| l.to_string()),
                metadata.len()
            ))
            .into());
        };
        let length = length.unwrap_or(behind);
        let bytes = if offset.is_multiple_of(ALIGN) {
            Self::map(file, offset, length).map_err(io)?
        } else {
            log::warn!(
                "the model begins at byte {offset} of its file, not at a multiple of {ALIGN}: all of its {length} bytes are \
                 read into memory"
            );
            Bytes::Mapped(Self::read(file, offset, length).map_err(io)?)
        };
        Ok(Self::new(bytes)?)
    }

    fn map(file: &File, offset: u64, length: u64) -> std::io::Result<Bytes> {
        let Ok(bytes) = usize::try_from(length) else {
            return Err(std::io::Error::other("is larger than this machine can address"));
        };
        if bytes == 0 {
            return Ok(Bytes::Static(&[]));
        }
        // SAFETY: the mapping is read-only and private to this struct. If another process shortens the
        // file the system ends this one, and changed bytes give wrong numbers; both are stated above, and
        // nothing read from the data is used as an index or length without a check.
        let map = unsafe { memmap2::MmapOptions::new().offset(offset).len(bytes).map(file) }?;
        Ok(Bytes::Mapped(map))
    }

    /// A part of a file in memory that begins at a page.
    fn read(mut file: &File, offset: u64, length: u64) -> std::io::Result<memmap2::Mmap> {
        use std::io::{Read, Seek, SeekFrom};
        let bytes = usize::try_from(length).unwrap_or(usize::MAX).max(1);
        let mut map = memmap2::MmapMut::map_anon(bytes)?;
        let place = file.stream_position()?;
        file.seek(SeekFrom::Start(offset))?;
        let read = file.read_exact(&mut map[..length as usize]);
        // The position is shared with the caller's descriptor.
        file.seek(SeekFrom::Start(place))?;
        read?;
        map.make_read_only()
    }

    /// Uses a file that lies in memory, which must begin at a multiple of 64 and give the same bytes every time.
    pub fn from_memory(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Result<Self, FormatError> {
        let owned: Box<dyn AsRef<[u8]> + Send + Sync> = Box::new(bytes);
        check_alignment((*owned).as_ref())?;
        Self::new(Bytes::Owned(owned))
    }

    /// Uses a file that is part of the program; `bytes` must start at a multiple of 64.
    pub fn from_static(bytes: &'static [u8]) -> Result<Self, FormatError> {
        check_alignment(bytes)?;
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

fn check_alignment(bytes: &[u8]) -> Result<(), FormatError> {
    if (bytes.as_ptr() as usize).is_multiple_of(ALIGN as usize) {
        return Ok(());
    }
    Err(FormatError::Malformed { offset: 0, what: "memory is not aligned to 64 bytes".into() })
}
