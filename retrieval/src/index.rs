//! A mapped index, read-only.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use palmtop::format::checksum;
use palmtop_kernels::layout::PackedMatrix;

use crate::directory::Directory;
use crate::error::{Defect, IndexError, Result};
use crate::format::{ALIGN, Commit, Kind, MAGIC, RECORDS_START, SLOT_BYTES, SLOTS, Slots};
use crate::page::Page;
use crate::vectors::VectorFormat;

/// An open index: the pages that were committed when it was opened. A writer may add to the file meanwhile, or put a
/// compacted one in its place; this one stays as it is.
///
/// The file is mapped, so whoever shortens it, or writes into it by other means, ends this process or changes what is
/// found: see [`PalmFile`](palmtop::format::PalmFile), of which the same is true.
pub struct Index {
    bytes: Bytes,
    kind: Kind,
    pages: Vec<Page>,
    live_bytes: u64,
}

enum Bytes {
    Mapped(memmap2::Mmap),
    Owned(Box<dyn AsRef<[u8]> + Send + Sync>),
}

impl Bytes {
    fn get(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            // An owner may return other bytes the next time; every access is checked, so that is safe.
            Self::Owned(owner) => (**owner).as_ref(),
        }
    }
}

/// Names a file in an error.
pub(crate) fn io(path: &Path) -> impl Fn(std::io::Error) -> IndexError {
    move |source| IndexError::Io { path: PathBuf::from(path), source }
}

/// Names a file in an error.
pub(crate) fn in_file(path: &Path) -> impl Fn(Defect) -> IndexError {
    move |source| IndexError::File { path: PathBuf::from(path), source }
}

/// Maps what there is of a file.
pub(crate) fn map(file: &File, path: &Path) -> Result<memmap2::Mmap> {
    let metadata = file.metadata().map_err(io(path))?;
    if !metadata.is_file() {
        return Err(io(path)(std::io::Error::other("is not a regular file")));
    }
    let bytes = usize::try_from(metadata.len()).map_err(|_| in_file(path)(Defect::TooLarge))?;
    // An empty file cannot be mapped.
    if bytes == 0 {
        return Err(in_file(path)(Defect::Magic));
    }
    // SAFETY: the mapping is read-only. If another process shortens the file, the system ends this one, and changed
    // bytes give wrong scores: both are stated where an index is opened, and whatever is read of the mapping is checked
    // before it is used as an index or a length.
    unsafe { memmap2::MmapOptions::new().len(bytes).map(file) }.map_err(io(path))
}

/// Opens a file that is there, to read it or to write it as well. A folder is refused, and a pipe is not waited for.
pub(crate) fn open_regular(path: &Path, write: bool) -> Result<File> {
    let kind = std::fs::metadata(path).map_err(io(path))?;
    if !kind.is_file() {
        let (kind, what) = match kind.is_dir() {
            true => (ErrorKind::IsADirectory, "it is a folder"),
            false => (ErrorKind::InvalidInput, "it is not a regular file"),
        };
        return Err(io(path)(std::io::Error::new(kind, what)));
    }
    File::options().read(true).write(write).open(path).map_err(io(path))
}

/// Copies the commit slots of a file; none where it is too short.
fn read_slots(file: &File) -> std::io::Result<Slots> {
    const ATTEMPTS: usize = 8;
    let read = |at: u64| {
        let (mut slot, mut file) = ([0; SLOT_BYTES], file);
        file.seek(SeekFrom::Start(at))?;
        match file.read_exact(&mut slot) {
            Ok(()) => Ok(Some(slot)),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    };
    let mut slots = [read(SLOTS[0])?, read(SLOTS[1])?];
    for _ in 1..ATTEMPTS {
        // One may have been read while it was written. The other one is older than a commit that is done already.
        if slots.iter().flatten().all(Commit::is_whole) {
            break;
        }
        slots = [read(SLOTS[0])?, read(SLOTS[1])?];
    }
    Ok(Slots(slots))
}

impl Index {
    /// Maps an index and reads what pages it has; their vectors are not read (see [`verify`](Self::verify)).
    ///
    /// # Errors
    /// If the file cannot be read, is no index, is damaged or cut off ([`Defect`]).
    pub fn open(path: &Path) -> Result<Self> {
        let file = open_regular(path, false)?;
        // Before the file is mapped: what was committed by then is in the mapping, whatever is committed meanwhile.
        let slots = read_slots(&file).map_err(io(path))?;
        Self::new(Bytes::Mapped(map(&file, path)?), Some(slots)).map_err(in_file(path))
    }

    /// Uses an index that lies in memory, which must begin at a multiple of 64.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_memory(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Result<Self> {
        Ok(Self::new(Bytes::Owned(Box::new(bytes)), None)?)
    }

    /// Whether a file begins as an index does; `false` if it cannot be read.
    pub fn is_one(path: &Path) -> bool {
        let mut start = [0; MAGIC.len()];
        let is_file = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
        is_file && File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == MAGIC
    }

    fn new(bytes: Bytes, slots: Option<Slots>) -> Result<Self, Defect> {
        let file = bytes.get();
        if !(file.as_ptr() as usize).is_multiple_of(ALIGN as usize) {
            return Err(Defect::Alignment);
        }
        let kind = Kind::parse(file)?;
        let slots = slots.unwrap_or_else(|| Slots::of(file));
        let (directory, _) = Directory::of_file(file, &kind, &slots)?;
        let live_bytes = directory.live_bytes();
        Ok(Self { kind, pages: directory.into_pages(), live_bytes, bytes })
    }

    /// What its vectors are.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Its pages, in the order in which they were added.
    pub fn pages(&self) -> &[Page] {
        &self.pages
    }

    /// One of them.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn page(&self, page: usize) -> &Page {
        &self.pages[page]
    }

    /// Vectors of all pages.
    pub fn rows(&self) -> u64 {
        self.pages.iter().map(|page| page.rows as u64).sum()
    }

    /// Bytes of the file when it was opened.
    pub fn bytes(&self) -> u64 {
        self.bytes.get().len() as u64
    }

    /// Bytes of it that no page uses: of pages that were replaced or removed.
    pub fn unused_bytes(&self) -> u64 {
        self.bytes().saturating_sub(RECORDS_START + self.live_bytes)
    }

    /// A page's vectors, packed; `None` if its bytes are gone, as an owner of memory could bring about.
    pub(crate) fn matrix(&self, page: usize) -> Option<PackedMatrix<'_>> {
        let page = &self.pages[page];
        PackedMatrix::new(self.kind.vectors.layout(page.rows, self.kind.dims), self.packed(page)?)
    }

    /// Tells the system that all is about to be read, in order. A wish; without it the disk is asked for less at once.
    pub(crate) fn read_through(&self) {
        #[cfg(unix)]
        if let Bytes::Mapped(map) = &self.bytes {
            let _ = map.advise(memmap2::Advice::Sequential);
        }
    }

    fn packed(&self, page: &Page) -> Option<&[u8]> {
        let begin = usize::try_from(page.vectors.start).ok()?;
        let end = usize::try_from(page.vectors.end).ok()?;
        self.bytes.get().get(begin..end)
    }

    /// The vectors that a page's bytes stand for, one behind the other.
    ///
    /// # Panics
    /// If there are not as many pages.
    pub fn vectors(&self, page: usize) -> Vec<f32> {
        self.matrix(page).map_or_else(Vec::new, |matrix| VectorFormat::unpack(&matrix))
    }

    /// Whether a page's vectors are as they were written. Reads them.
    ///
    /// # Panics
    /// If there are not as many pages.
    pub fn is_whole(&self, page: usize) -> bool {
        let page = &self.pages[page];
        self.packed(page).is_some_and(|bytes| checksum(bytes) == page.checksum)
    }

    /// Reads all vectors and compares their checksums; `progress` is told the bytes of each page done. Gives the pages
    /// that are damaged.
    pub fn verify(&self, mut progress: impl FnMut(u64)) -> Vec<usize> {
        let is_damaged = |&page: &usize| {
            let vectors = &self.pages[page].vectors;
            let is_damaged = !self.is_whole(page);
            progress(vectors.end - vectors.start);
            is_damaged
        };
        (0..self.pages.len()).filter(is_damaged).collect()
    }
}
