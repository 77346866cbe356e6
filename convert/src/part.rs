//! The folder `TARGET.part`, in which a target is made that takes long: another process can go on with what one has
//! left.
//!
//! A lock of the operating system keeps a second process out for as long as the first one lives. What was made stays
//! there when a process ends, however that is, until the target has its name.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::ConvertError;
use crate::temporary::is_at;
use crate::write::{check_target, folder_of, sync_folder};

/// The folder of an unfinished target, locked.
#[derive(Debug)]
pub struct Part {
    target: PathBuf,
    folder: PathBuf,
    lock: File,
}

impl Part {
    /// Makes the folder beside the target, or takes up one that was left there.
    ///
    /// # Errors
    /// [`Busy`](ConvertError::Busy) if another process has it; if the target must not be replaced; what the system says.
    pub fn open(target: &Path) -> Result<Self, ConvertError> {
        check_target(target)?;
        Self::lock(target)
    }

    /// As [`open`](Self::open), whatever stands in the target's place: to remove what was left.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn lock(target: &Path) -> Result<Self, ConvertError> {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let folder = target.with_file_name(name);
        let path = folder.join("lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        loop {
            // One level: that the target's own folder is missing is an error.
            match std::fs::create_dir(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(ConvertError::io(&folder)(error));
                }
                _ => {}
            }
            let mut lock = match options.open(&path) {
                Ok(file) => file,
                // Another process has just finished, and taken the folder away.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(ConvertError::io(&path)(error)),
            };
            match lock.try_lock() {
                Err(TryLockError::WouldBlock) => {
                    let mut text = String::new();
                    let _ = lock.read_to_string(&mut text);
                    let process = text.trim().parse().ok();
                    return Err(ConvertError::Busy { path: target.to_owned(), process });
                }
                // Where files cannot be locked, only people can take care.
                Err(TryLockError::Error(_)) => {}
                Ok(()) if is_at(&lock, &path) => {}
                Ok(()) => continue,
            }
            let id = format!("{}\n", std::process::id());
            let said = lock.set_len(0).and_then(|()| lock.write_all(id.as_bytes()));
            said.map_err(ConvertError::io(&path))?;
            return Ok(Self { target: target.to_owned(), folder, lock });
        }
    }

    /// What is being made.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file that will be the target.
    pub fn model(&self) -> PathBuf {
        self.folder.join("model")
    }

    /// What of it is done.
    pub(crate) fn journal(&self) -> PathBuf {
        self.folder.join("journal.json")
    }

    /// A folder in it for files that are needed meanwhile, such as a checkpoint's small ones.
    ///
    /// # Errors
    /// What the system says.
    pub fn subfolder(&self, name: &str) -> Result<PathBuf, ConvertError> {
        let folder = self.folder.join(name);
        std::fs::create_dir_all(&folder).map_err(ConvertError::io(&folder))?;
        Ok(folder)
    }

    /// Gives the finished file its name, and removes the folder.
    ///
    /// # Errors
    /// What the system says.
    pub fn finish(self) -> Result<(), ConvertError> {
        let model = self.model();
        File::open(&model).and_then(|file| file.sync_all()).map_err(ConvertError::io(&model))?;
        std::fs::rename(&model, &self.target).map_err(ConvertError::io(&self.target))?;
        sync_folder(folder_of(&self.target));
        // The target is there: what is left of its folder, where an open file cannot be removed, is no failure.
        let _ = self.remove();
        Ok(())
    }

    /// An error if the disk has no room for what is missing of a model of so many bytes.
    ///
    /// # Errors
    /// [`NoRoom`](ConvertError::NoRoom).
    pub fn check_room(&self, bytes: u64) -> Result<(), ConvertError> {
        let (Some(free), has) = (free(&self.folder), allocated(&self.model())) else { return Ok(()) };
        let missing = bytes.saturating_sub(has);
        match missing <= free {
            true => Ok(()),
            false => Err(ConvertError::NoRoom { path: folder_of(&self.target).to_owned(), missing, free }),
        }
    }

    /// Removes what was made so far.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove(self) -> Result<(), ConvertError> {
        std::fs::remove_dir_all(&self.folder).map_err(ConvertError::io(&self.folder))
    }
}

/// Bytes of the disk that a part's folder takes, without what was never written.
pub fn bytes_of_part(folder: &Path) -> u64 {
    let of = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => bytes_of_part(&entry.path()),
        Ok(kind) if kind.is_file() => allocated(&entry.path()),
        _ => 0,
    };
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(of).sum()
}

/// Bytes of the disk that a user may still write, if the system tells.
fn free(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let disk = rustix::fs::statvfs(folder).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
}

/// Bytes of the disk that a file has, without what was never written.
fn allocated(file: &Path) -> u64 {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        file.metadata().map_or(0, |metadata| metadata.blocks() * 512)
    }
    #[cfg(not(unix))]
    file.metadata().map_or(0, |metadata| metadata.len())
}

impl Drop for Part {
    /// What was made so far stays, if anything was.
    fn drop(&mut self) {
        if self.folder.exists() && !self.model().exists() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
        let _ = self.lock.unlock();
    }
}
