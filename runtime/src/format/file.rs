//! A mapped `.palm` file whose every offset has been checked.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use palmtop_kernels::layout::{MatrixLayout, PackedMatrix};

use super::{ALIGN, FormatError, Head, Metadata, Storage, TensorInfo, checksum};
use crate::error::{Error, Result, UsageError};
use crate::system::memory::{Aligned, Lock};

/// A `.palm` file, open for reading.
///
/// # A mapped file must stay as it is
/// [`open`](Self::open) and [`open_part`](Self::open_part) use the operating system's mapping of the file. If anybody
/// shortens the file while it is open, the system ends this process with SIGBUS when it next reads there, and no
/// library can turn that into an error. If anybody writes into it, answers are wrong from then on. So **replace a model
/// by renaming** a finished file into its place, as `palmtop convert` does: what is open then stays the old file. Never
/// write into one. Where others may do that, [`read`](Self::read) the file into memory instead.
pub struct PalmFile {
    /// Keeps the bytes in memory. Stands before them, and so is given up first.
    pub(super) lock: Mutex<Option<Lock>>,
    pub(super) bytes: Bytes,
    head: Head,
    by_name: HashMap<String, usize>,
}

pub(super) enum Bytes {
    Mapped { map: memmap2::Mmap, file: Option<Opened> },
    Read(Aligned<u8>),
    Static(&'static [u8]),
    Owned(Box<dyn AsRef<[u8]> + Send + Sync>),
}

impl Bytes {
    pub fn get(&self) -> &[u8] {
        match self {
            Self::Mapped { map, .. } => map,
            Self::Read(b) => b,
            Self::Static(b) => b,
            // An owner may return other bytes the next time; every access is checked, so that is safe.
            Self::Owned(b) => (**b).as_ref(),
        }
    }
}

/// A mapped file as it was when it was opened.
pub(super) struct Opened {
    pub file: File,
    /// Where in the file the mapping begins.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "others do not tell what is in memory"))]
    pub offset: u64,
    path: PathBuf,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Opened {
    fn new(file: File, offset: u64, path: PathBuf) -> std::io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { bytes: metadata.len(), modified: metadata.modified().ok(), file, offset, path })
    }
}

/// An open regular file and its length.
fn open_regular(path: &Path) -> std::io::Result<(File, u64)> {
    let kind = std::fs::metadata(path)?;
    if kind.is_dir() {
        return Err(std::io::Error::other("is a folder; name the .palm file itself"));
    }
    if !kind.is_file() {
        // Opening a pipe would wait for its other end.
        return Err(std::io::Error::other("is not a regular file; only regular files can be mapped"));
    }
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

impl PalmFile {
    /// Maps a file and checks its head; the data is not read (see [`verify`](Self::verify) and
    /// [`preload`](Self::preload)).
    ///
    /// The file must stay as it is while it is open: see [`PalmFile`].
    pub fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { path: PathBuf::from(path), source };
        let (file, length) = open_regular(path).map_err(io)?;
        let bytes =
            Self::map(&file, 0, length, || Opened::new(file.try_clone()?, 0, path.into())).map_err(io)?;
        Self::new(bytes).map_err(|source| Error::File { path: path.into(), source })
    }

    /// Reads a whole file into memory of this process, aligned to 64 bytes, and checks its head. What happens to the
    /// file afterwards does not matter. Unlike a mapped file, the memory is not shared with other processes, and the
    /// system cannot drop it when it needs room: it takes as many bytes as the file has. [`Error::OutOfMemory`] if they
    /// cannot be had.
    pub fn read(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { path: PathBuf::from(path), source };
        let (file, length) = open_regular(path).map_err(io)?;
        let bytes = Self::read_part(&file, 0, length, io)?;
        Self::new(bytes).map_err(|source| Error::File { path: path.into(), source })
    }

    /// Uses the part of an open file that begins at byte `offset`, `length` bytes or all to the end: a model inside of
    /// a larger file, such as an asset of an Android package. The file may be closed afterwards.
    ///
    /// It is mapped if `offset` is a multiple of 64, and must then stay as it is: see [`PalmFile`]. Else it is read
    /// into memory as a whole, which is said in the log.
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
            // Without a second descriptor the file is only not watched.
            Self::map(file, offset, length, || {
                Opened::new(file.try_clone()?, offset, "(an open file)".into())
            })
            .map_err(io)?
        } else {
            log::warn!(
                "the model begins at byte {offset} of its file, not at a multiple of {ALIGN}: all of its {length} bytes are \
                 read into memory"
            );
            Self::read_part(file, offset, length, io)?
        };
        Ok(Self::new(bytes)?)
    }

    fn map(
        file: &File,
        offset: u64,
        length: u64,
        opened: impl FnOnce() -> std::io::Result<Opened>,
    ) -> std::io::Result<Bytes> {
        let Ok(bytes) = usize::try_from(length) else {
            return Err(std::io::Error::other("is larger than this machine can address"));
        };
        if bytes == 0 {
            return Ok(Bytes::Static(&[]));
        }
        // SAFETY: the mapping is read-only and private to this struct. If another process shortens the
        // file the system ends this one, and changed bytes give wrong numbers; both are stated where a file is
        // opened, and nothing read from the data is used as an index or length without a check.
        let map = unsafe { memmap2::MmapOptions::new().offset(offset).len(bytes).map(file) }?;
        Ok(Bytes::Mapped { map, file: opened().ok() })
    }

    /// A part of a file in memory.
    fn read_part(
        mut file: &File,
        offset: u64,
        length: u64,
        io: impl Fn(std::io::Error) -> Error,
    ) -> Result<Bytes> {
        use std::io::{Read, Seek, SeekFrom};
        let Ok(bytes) = usize::try_from(length) else {
            return Err(io(std::io::Error::other("is larger than this machine can address")));
        };
        let mut memory = Aligned::zeroed(bytes)?;
        let place = file.stream_position().map_err(&io)?;
        file.seek(SeekFrom::Start(offset)).map_err(&io)?;
        let read = file.read_exact(&mut memory);
        // The position is shared with the caller's descriptor.
        file.seek(SeekFrom::Start(place)).map_err(&io)?;
        read.map_err(&io)?;
        Ok(Bytes::Read(memory))
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
        Ok(Self { lock: Mutex::new(None), bytes, head, by_name })
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

    /// Whether the file is a mapping, which must stay as it is (see [`PalmFile`]).
    pub fn is_mapped(&self) -> bool {
        matches!(self.bytes, Bytes::Mapped { .. })
    }

    /// [`Error::FileChanged`] if the file was shortened or written since it was mapped, as far as its length and its
    /// time of change tell; what is not mapped cannot change. A file that was renamed into its place is another one,
    /// and no change.
    ///
    /// This is a help, not a protection: the file can change right afterwards.
    pub fn check_unchanged(&self) -> Result<()> {
        let Bytes::Mapped { file: Some(opened), .. } = &self.bytes else { return Ok(()) };
        let io = |source| Error::Io { path: opened.path.clone(), source };
        let now = opened.file.metadata().map_err(io)?;
        if now.len() == opened.bytes && now.modified().ok() == opened.modified {
            return Ok(());
        }
        Err(Error::FileChanged { path: opened.path.clone() })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let mut head = Head::default();
        head.metadata.set("general.architecture", "paligemma");
        head.tensors.push(TensorInfo::new("norm", Storage::F32, &[33]).unwrap());
        head.tensors[0].checksum = checksum(&[0; 33 * 4]);
        let length = head.place();
        let mut file = head.encode();
        file.resize(length as usize, 0);
        file
    }

    /// Bytes at a multiple of 64.
    struct Lines(Aligned<u8>);

    impl AsRef<[u8]> for Lines {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    #[test]
    fn a_file_in_memory_is_read_where_it_lies() {
        let file = file();
        let mut long = Aligned::<u8>::zeroed(file.len() + 64).unwrap();
        long[..file.len()].copy_from_slice(&file);
        assert!(PalmFile::from_memory(Lines(long)).is_err(), "64 bytes too many");
        let mut exact = Aligned::<u8>::zeroed(file.len()).unwrap();
        exact.copy_from_slice(&file);
        let palm = PalmFile::from_memory(Lines(exact)).unwrap();
        assert_eq!(palm.f32s("norm", &[33]).unwrap(), [0.0; 33]);
        assert!(palm.verify(|_| {}).is_empty() && !palm.is_mapped());
        palm.preload();
        palm.check_unchanged().unwrap();
    }

    /// What is locked is read, whatever the system says to the wish.
    #[test]
    #[cfg_attr(miri, ignore = "Miri maps no files")]
    fn a_lock_is_had_or_refused_with_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.palm");
        std::fs::write(&path, file()).unwrap();
        for palm in [PalmFile::open(&path).unwrap(), PalmFile::read(&path).unwrap()] {
            for _ in 0..2 {
                match palm.lock() {
                    Ok(()) if cfg!(unix) => {}
                    Ok(()) => panic!("locked on a system that offers no lock"),
                    Err(Error::Lock { bytes, .. }) => assert_eq!(bytes as u64, palm.bytes()),
                    Err(other) => panic!("{other}"),
                }
            }
            assert!(palm.verify(|_| {}).is_empty());
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri maps no files")]
    fn files_that_were_changed_are_told_from_files_that_were_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.palm");
        let write = |bytes: &[u8]| std::fs::write(&path, bytes).unwrap();
        write(&file());
        let read = PalmFile::read(&path).unwrap();
        let mapped = PalmFile::open(&path).unwrap();
        assert!(mapped.is_mapped() && !read.is_mapped());
        mapped.check_unchanged().unwrap();
        // Replaced by renaming: what is open stays the old file.
        let other = folder.path().join("b.palm");
        std::fs::write(&other, b"another file").unwrap();
        std::fs::rename(&other, &path).unwrap();
        mapped.check_unchanged().unwrap();
        assert!(mapped.verify(|_| {}).is_empty());

        // Lengthened, and written at another time: the mapping itself can still be read.
        write(&file());
        let lengthened = PalmFile::open(&path).unwrap();
        write(&[&file()[..], b"!"].concat());
        assert!(
            matches!(lengthened.check_unchanged(), Err(Error::FileChanged { path: named }) if named == path)
        );
        write(&file());
        let touched = PalmFile::open(&path).unwrap();
        let long_ago = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
        File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
        assert!(matches!(touched.check_unchanged(), Err(Error::FileChanged { .. })));

        write(b"");
        read.check_unchanged().unwrap();
        assert!(read.verify(|_| {}).is_empty());
        assert!(matches!(PalmFile::read(&path), Err(Error::File { .. })));
        assert!(matches!(PalmFile::read(folder.path()), Err(Error::Io { .. })));
    }
}
