//! Output files that appear only once they are complete.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, anyhow, bail};
use palmtop_convert::temporary::{self, Temporary};

use crate::errors::{UsageError, WithHint};

/// The folder that a file is to be written in, which must be there.
pub fn folder_for(path: &Path) -> anyhow::Result<&Path> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(anyhow!("cannot write {}: there is no folder {}", path.display(), folder.display()))
            .hint("make the folder first, or write somewhere else");
    }
    Ok(folder)
}

/// Which file a name means, however it is spelled: two names of one file have one that is equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    path: PathBuf,
    /// Device and number, which several hard links share.
    #[cfg(unix)]
    number: (u64, u64),
}

impl Identity {
    /// Of the file at `path`, through links; `None` if there is none.
    pub fn of(path: &Path) -> Option<Self> {
        let path = path.canonicalize().ok()?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let metadata = path.metadata().ok()?;
            Some(Self { number: (metadata.dev(), metadata.ino()), path })
        }
        #[cfg(not(unix))]
        Some(Self { path })
    }

    /// Whether both are one file, be it by hard links.
    pub fn is_same(&self, other: &Self) -> bool {
        #[cfg(unix)]
        if self.number == other.number {
            return true;
        }
        self.path == other.path
    }
}

/// Refuses to write over what is read: known before any work is done.
pub fn refuse_to_replace<'a>(output: &Path, inputs: impl Iterator<Item = &'a Path>) -> anyhow::Result<()> {
    let Some(target) = Identity::of(output) else { return Ok(()) };
    for input in inputs {
        if Identity::of(input).is_some_and(|input| input.is_same(&target)) {
            let message =
                format!("{} would replace {}; choose another name", output.display(), input.display());
            return Err(UsageError(message).into());
        }
    }
    Ok(())
}

/// A temporary file that will take the place of another. Dropped unfinished, it leaves nothing behind.
pub struct Replacement {
    file: Temporary,
    path: PathBuf,
}

impl Replacement {
    /// Makes the temporary file beside `path`, so that renaming it will be one step.
    pub fn new(path: &Path) -> anyhow::Result<Self> {
        if path.is_dir() {
            bail!("cannot write {}: it is a folder", path.display());
        }
        let folder = folder_for(path)?;
        remove_left_once(folder);
        let file = Temporary::new_in(folder).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// What to write to.
    pub fn file(&self) -> &File {
        self.file.file()
    }

    /// Gives the file its name once its bytes are on the disk.
    pub fn finish(self) -> anyhow::Result<()> {
        let path = self.path;
        self.file.persist(&path).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Removes what killed programs have left in a folder, the first time that something is written there: a folder of
/// many pictures is not looked through for each of them.
fn remove_left_once(folder: &Path) {
    static DONE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    if DONE.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_owned()) {
        temporary::remove_left(folder);
    }
}
