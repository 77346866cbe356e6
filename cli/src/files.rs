//! Output files that appear only once they are complete.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, anyhow, bail};
use palmtop_convert::temporary::{self, Temporary};

use crate::errors::WithHint;

/// The folder that a file is to be written in, which must be there.
pub fn folder_for(path: &Path) -> anyhow::Result<&Path> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(anyhow!("cannot write {}: there is no folder {}", path.display(), folder.display()))
            .hint("make the folder first, or write somewhere else");
    }
    Ok(folder)
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
