//! Adds, replaces and removes pages, and makes a file without what no page uses.
//!
//! A record is written behind all others and brought to the disk before the commit that counts it is; a commit writes
//! the slot that the last one has not written. So whenever the process dies or the disk is full, the last commit stands
//! as it was, and what is behind it does not count. A lock of the system on the file itself, which ends with the
//! process, keeps a second writer out.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use palmtop::format::checksum;
use tempfile::NamedTempFile;

use crate::directory::Directory;
use crate::error::{Defect, IndexError, PageError, Result};
use crate::format::{ALIGN, Commit, Kind, NAME_BYTES_MAX, RECORDS_START, Record, SLOTS, Slots};
use crate::index::{in_file, io, map, open_regular};
use crate::page::{NewPage, Page};

/// An index that is being written. Nothing is kept that was not [committed](Self::commit) when it is dropped.
#[derive(Debug)]
pub struct Writer {
    file: File,
    path: PathBuf,
    kind: Kind,
    directory: Directory,
    commit: Commit,
    /// Where the next record goes, and how many there are, with those not committed.
    end: u64,
    records: u64,
    /// A commit failed halfway.
    has_failed: bool,
}

/// What [`Writer::compact`] and [`Writer::salvage`] have done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compacted {
    /// Bytes of the file before.
    pub bytes_before: u64,
    /// Bytes of the file now.
    pub bytes_after: u64,
    /// Pages whose vectors are damaged, which are no longer in the index.
    pub lost: Vec<String>,
    /// Places where something was that cannot be read any more: pages, or removals of pages.
    pub unreadable: usize,
}

impl Writer {
    /// Makes an index without pages. It has its name once it is whole.
    ///
    /// # Errors
    /// [`IndexError::Exists`] if there is a file of this name; [`IndexError::Dims`]; what the system says.
    pub fn create(path: &Path, kind: &Kind) -> Result<Self> {
        let io = io(path);
        let mut new = NewFile::in_folder_of(path, kind)?;
        new.finish().map_err(&io)?;
        let NewFile { file, commit, directory, .. } = new;
        let file = file.persist_noclobber(path).map_err(|error| match error.error.kind() {
            ErrorKind::AlreadyExists => IndexError::Exists { path: path.into() },
            _ => io(error.error),
        })?;
        sync_folder_of(path);
        Ok(Self::of(file, path, kind.clone(), directory, commit))
    }

    fn of(file: File, path: &Path, kind: Kind, directory: Directory, commit: Commit) -> Self {
        let (end, records) = (commit.bytes, commit.records);
        Self { file, path: path.into(), kind, directory, commit, end, records, has_failed: false }
    }

    /// Opens an index to write into it. What a writer before had not committed is cut off.
    ///
    /// # Errors
    /// [`IndexError::Busy`] if somebody else writes it; else as [`Index::open`](crate::Index::open).
    pub fn open(path: &Path) -> Result<Self> {
        let file = lock(path)?;
        let mapped = map(&file, path)?;
        let defect = in_file(path);
        let kind = Kind::parse(&mapped).map_err(&defect)?;
        let slots = Slots::of(&mapped);
        let (commit, _) = slots.last().map_err(&defect)?;
        let (directory, counted) = Directory::of_file(&mapped, &kind, &slots).map_err(&defect)?;
        let is_longer = mapped.len() as u64 > counted.bytes;
        drop(mapped);
        if is_longer {
            // Readers have mapped what is before, and nothing of this.
            file.set_len(counted.bytes).map_err(io(path))?;
        }
        let mut writer = Self::of(file, path, kind, directory, commit);
        (writer.end, writer.records) = (counted.bytes, counted.records);
        // Mends a slot that is torn.
        writer.commit()?;
        Ok(writer)
    }

    /// Opens a damaged index, and keeps what is whole of it: the pages that can be read and have their checksum go into
    /// a new file, which takes the place of the old one. Pages that were replaced or removed come back if the record
    /// that said so is damaged.
    ///
    /// # Errors
    /// As [`open`](Self::open), but only for damage in the header, which says what the vectors are.
    pub fn salvage(path: &Path) -> Result<(Self, Compacted)> {
        let old = lock(path)?;
        let mapped = map(&old, path)?;
        let kind = Kind::parse(&mapped).map_err(in_file(path))?;
        let mut directory = Directory::default();
        let mut done = Compacted::default();
        let mut was_readable = true;
        let mut offset = RECORDS_START;
        while offset < mapped.len() as u64 {
            match Record::parse(&mapped, offset, &kind) {
                Ok((record, bytes)) => {
                    directory.apply(&record, offset, bytes, &kind);
                    offset += bytes;
                    was_readable = true;
                }
                // The next one may begin anywhere.
                Err(_) => {
                    done.unreadable += usize::from(was_readable);
                    was_readable = false;
                    offset += ALIGN;
                }
            }
        }
        let writer = Self::rewrite(path, &mapped, &kind, directory.pages(), &mut done)?;
        Ok((writer, done))
    }

    /// Makes a file without what no page uses, which takes the place of this one. Readers keep the old one for as long
    /// as they have it open. Until it is there, the disk holds both. What was not committed is lost.
    ///
    /// # Errors
    /// What the system says; the index is then as it was.
    pub fn compact(&mut self) -> Result<Compacted> {
        self.check()?;
        let mapped = map(&self.file, &self.path)?;
        // Without what was put since.
        let directory = Directory::read(&mapped, &self.kind, &self.commit).map_err(in_file(&self.path))?;
        let mut done = Compacted::default();
        let writer = Self::rewrite(&self.path, &mapped, &self.kind, directory.pages(), &mut done)?;
        drop(mapped);
        *self = writer;
        Ok(done)
    }

    /// Copies whole pages into a new file, which then takes the name.
    fn rewrite<'a>(
        path: &Path,
        old: &[u8],
        kind: &Kind,
        pages: impl Iterator<Item = &'a Page>,
        done: &mut Compacted,
    ) -> Result<Self> {
        let io = io(path);
        let mut new = NewFile::in_folder_of(path, kind)?;
        // A name like that of the old one, for the same people.
        if let Ok(metadata) = std::fs::metadata(path) {
            new.file.as_file().set_permissions(metadata.permissions()).map_err(&io)?;
        }
        for page in pages {
            let part = |range: &std::ops::Range<u64>| &old[range.start as usize..range.end as usize];
            if checksum(part(&page.vectors)) == page.checksum {
                new.copy(part(&page.record), kind).map_err(&io)?;
            } else {
                done.lost.push(page.name.clone().into());
            }
        }
        new.finish().map_err(&io)?;
        done.bytes_before = old.len() as u64;
        done.bytes_after = new.commit.bytes;
        let NewFile { file, commit, directory, .. } = new;
        // It is locked already: no other writer comes in between.
        let file = file.persist(path).map_err(|error| io(error.error))?;
        sync_folder_of(path);
        Ok(Self::of(file, path, kind.clone(), directory, commit))
    }

    /// What its vectors are.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The page of this name, be it committed or not.
    pub fn find(&self, name: &str) -> Option<&Page> {
        self.directory.find(name)
    }

    /// All pages, in the order in which they were added, be they committed or not.
    pub fn pages(&self) -> impl ExactSizeIterator<Item = &Page> {
        self.directory.pages()
    }

    /// Bytes of the file that pages use, and that none uses any more.
    pub fn used_and_unused_bytes(&self) -> (u64, u64) {
        let used = self.directory.live_bytes();
        (used, self.end - RECORDS_START - used)
    }

    /// Adds a page, in the place of one of its name. It counts once it is committed.
    ///
    /// # Errors
    /// [`IndexError::Page`] for what cannot be a page; [`IndexError::Io`] if it cannot be written: then the index is as
    /// it was before, and may be used on.
    pub fn put(&mut self, page: &NewPage<'_>) -> Result<()> {
        check_name(page.name)?;
        let packed = self.kind.vectors.pack(page.rows, self.kind.dims)?;
        let record = Record::Page {
            name: page.name,
            size: page.size,
            content: page.content,
            rows: page.rows.len() / self.kind.dims,
            checksum: checksum(&packed),
        };
        self.write(&record, packed)
    }

    /// Removes a page; gives whether there was one of this name. It is gone once that is committed.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn remove(&mut self, name: &str) -> Result<bool> {
        if self.find(name).is_none() {
            return Ok(false);
        }
        self.write(&Record::Gone { name }, Vec::new())?;
        Ok(true)
    }

    fn write(&mut self, record: &Record<'_>, packed: Vec<u8>) -> Result<()> {
        self.check()?;
        let bytes = whole_record(record, &packed);
        if let Err(error) = write_at(&mut self.file, self.end, &bytes) {
            // Half a record behind the end does not count; this only gives its room back.
            let _ = self.file.set_len(self.end);
            return Err(io(&self.path)(error));
        }
        let length = bytes.len() as u64;
        self.directory.apply(record, self.end, length, &self.kind);
        self.end += length;
        self.records += 1;
        Ok(())
    }

    /// Makes what was put and removed count, from this moment on, whatever happens.
    ///
    /// # Errors
    /// [`IndexError::Io`]: what was not committed is lost, and the index must be opened anew.
    pub fn commit(&mut self) -> Result<()> {
        self.check()?;
        if self.end == self.commit.bytes {
            return Ok(());
        }
        let commit = Commit { sequence: self.commit.sequence + 1, bytes: self.end, records: self.records };
        let mut write = || {
            self.file.sync_data()?;
            write_at(&mut self.file, commit.place(), &commit.encode())?;
            self.file.sync_data()
        };
        if let Err(error) = write() {
            self.has_failed = true;
            return Err(io(&self.path)(error));
        }
        self.commit = commit;
        Ok(())
    }

    fn check(&self) -> Result<()> {
        if self.has_failed { Err(IndexError::Failed { path: self.path.clone() }) } else { Ok(()) }
    }
}

fn check_name(name: &str) -> Result<(), PageError> {
    match name.len() {
        1..=NAME_BYTES_MAX => Ok(()),
        bytes => Err(PageError::Name { bytes }),
    }
}

/// Head, name and vectors, with the zeros between and behind them.
fn whole_record(record: &Record<'_>, packed: &[u8]) -> Vec<u8> {
    let length = record.vectors_at() + (packed.len() as u64).next_multiple_of(ALIGN);
    let mut bytes = record.encode(length);
    bytes.reserve_exact(packed.len());
    bytes.extend_from_slice(packed);
    bytes.resize(length as usize, 0);
    bytes
}

fn write_at(file: &mut File, at: u64, bytes: &[u8]) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    file.write_all(bytes)
}

/// Opens and locks the file that has this name, and still has it once it is locked: a writer before may have put a
/// compacted one in its place.
fn lock(path: &Path) -> Result<File> {
    const ATTEMPTS: usize = 100;
    let io = io(path);
    for _ in 0..ATTEMPTS {
        let file = open_regular(path, true)?;
        match file.try_lock() {
            Ok(()) if is_at(&file, path) => return Ok(file),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => break,
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
    }
    Err(IndexError::Busy { path: path.into() })
}

/// True if an open file is still the one that has this name.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), std::fs::metadata(path)) else { return false };
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        (open.dev(), open.ino()) == (named.dev(), named.ino())
    }
    #[cfg(not(unix))]
    {
        let _ = open;
        named.is_file()
    }
}

/// Brings a new name to the disk, where folders can be synced.
fn sync_folder_of(path: &Path) {
    #[cfg(unix)]
    if let Err(error) = File::open(folder_of(path)).and_then(|folder| folder.sync_all()) {
        log::debug!("the folder of {} is not synced: {error}", path.display());
    }
    #[cfg(not(unix))]
    let _ = path;
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file under a hidden name, which is locked from the beginning. The name is one of those by which the converter
/// knows what a killed process has left, and removes it.
struct NewFile {
    file: NamedTempFile,
    directory: Directory,
    commit: Commit,
}

impl NewFile {
    fn in_folder_of(path: &Path, kind: &Kind) -> Result<Self> {
        let io = io(path);
        let header = kind.encode()?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".palmtop-").suffix(".part").rand_bytes(6);
        // Temporary files are private on Unix; this one is as any new file, with the rights that the umask leaves.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let mut file = builder.tempfile_in(folder_of(path)).map_err(&io)?;
        match file.as_file().try_lock() {
            Ok(()) => {}
            // Somebody has taken it for a file that was left behind, and removes it.
            Err(TryLockError::WouldBlock) => return Err(IndexError::Busy { path: path.into() }),
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        // Both slots are there from the beginning, so that no commit needs more room than its records.
        let mut start = vec![0; RECORDS_START as usize];
        start[..header.len()].copy_from_slice(&header);
        file.write_all(&start).map_err(&io)?;
        Ok(Self { file, directory: Directory::default(), commit: Commit::FIRST })
    }

    /// Appends a whole record of an index of this kind.
    fn copy(&mut self, bytes: &[u8], kind: &Kind) -> std::io::Result<()> {
        self.file.write_all(bytes)?;
        let (record, length) =
            Record::parse(bytes, 0, kind).map_err(|defect: Defect| std::io::Error::other(defect))?;
        self.directory.apply(&record, self.commit.bytes, length, kind);
        self.commit.bytes += length;
        self.commit.records += 1;
        Ok(())
    }

    /// Makes the records count.
    fn finish(&mut self) -> std::io::Result<()> {
        debug_assert!(SLOTS.contains(&self.commit.place()));
        let (place, slot) = (self.commit.place(), self.commit.encode());
        write_at(self.file.as_file_mut(), place, &slot)?;
        self.file.as_file().sync_all()
    }
}
