//! A folder that holds only so much: files appear whole or not at all, and the oldest go first. Only files are touched
//! whose names are of the form that we give.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use regex::Regex;

use super::super::SinkError;
use crate::record::rfc3339;

/// How all of our names begin.
pub const PREFIX: &str = "palmtop-";
/// How a file ends that is not whole yet. One that lies about for longer than this is of a run that died.
const UNFINISHED: &str = ".part";
const UNFINISHED_AGE: Duration = Duration::from_secs(600);

static OURS: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"^palmtop-(\d{8}T\d{9}Z)-[A-Za-z0-9_]+-[A-Za-z0-9_]+-[A-Za-z0-9_]+(-begin|-end)?(-mask\d+)?\.(jpg|png)$";
    Regex::new(pattern).expect("the pattern is one")
});

/// What the folder may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub files: usize,
    pub bytes: u64,
    pub age: Option<Duration>,
}

/// The folder, and what of it is ours.
pub struct Folder {
    path: PathBuf,
    limits: Limits,
    /// Our files with their sizes, the oldest first: names begin with the time.
    files: BTreeMap<String, u64>,
    bytes: u64,
}

impl Folder {
    /// Makes the folder if need be, and looks what is there.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn open(path: &Path, limits: Limits) -> Result<Self, SinkError> {
        let failed = |e: io::Error| SinkError(format!("the folder of snapshots {}: {e}", path.display()));
        fs::create_dir_all(path).map_err(failed)?;
        let mut folder = Self { path: path.to_owned(), limits, files: BTreeMap::new(), bytes: 0 };
        for entry in fs::read_dir(path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let whole = name.strip_suffix(UNFINISHED);
            if !OURS.is_match(whole.unwrap_or(&name)) {
                continue;
            }
            // It may be gone by now. A link or a folder of such a name is not ours.
            let Ok(metadata) = entry.path().symlink_metadata() else { continue };
            if !metadata.is_file() {
                continue;
            }
            match whole {
                Some(_) => {
                    let age =
                        metadata.modified().ok().and_then(|then| SystemTime::now().duration_since(then).ok());
                    if age.is_some_and(|age| age > UNFINISHED_AGE) {
                        let _ = fs::remove_file(entry.path());
                    }
                }
                None => folder.count(name, metadata.len()),
            }
        }
        Ok(folder)
    }

    fn count(&mut self, name: String, bytes: u64) {
        let before = self.files.insert(name, bytes).unwrap_or(0);
        self.bytes = self.bytes + bytes - before;
    }

    /// Writes files that belong together, after others have made room for them. If one cannot be written, none of them
    /// is there.
    ///
    /// # Errors
    /// If they are more than the folder may hold, or the system refuses.
    pub fn add(&mut self, files: &[(String, Vec<u8>)], now: SystemTime) -> Result<(), SinkError> {
        let bytes: u64 = files.iter().map(|(_, data)| data.len() as u64).sum();
        if files.len() > self.limits.files || bytes > self.limits.bytes {
            let (number, first) = (files.len(), files.first().map_or("", |(name, _)| name));
            return Err(SinkError(format!(
                "{first}: {number} files of {bytes} bytes are more than the limits allow"
            )));
        }
        self.make_room(files.len(), bytes, now)?;
        for (written, (name, data)) in files.iter().enumerate() {
            match self.write(name, data) {
                Ok(()) => self.count(name.clone(), data.len() as u64),
                Err(e) => {
                    for (name, _) in &files[..written] {
                        // The error that is told is the first one.
                        let _ = self.remove(name);
                    }
                    return Err(SinkError(format!("{}: {e}", self.path.join(name).display())));
                }
            }
        }
        Ok(())
    }

    fn write(&self, name: &str, data: &[u8]) -> io::Result<()> {
        let unfinished = self.path.join(format!("{name}{UNFINISHED}"));
        let written = (|| {
            let mut file = fs::File::create(&unfinished)?;
            file.write_all(data)?;
            // Else the name may be on the disk before the contents, and the power goes.
            file.sync_data()?;
            drop(file);
            fs::rename(&unfinished, self.path.join(name))
        })();
        if written.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    fn make_room(&mut self, files: usize, bytes: u64, now: SystemTime) -> Result<(), SinkError> {
        let oldest_kept = self.limits.age.and_then(|age| now.checked_sub(age)).map(rfc3339);
        let oldest_kept = oldest_kept.map(|time| {
            let digits: String = time.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
            format!("{PREFIX}{digits}")
        });
        while let Some((name, _)) = self.files.first_key_value() {
            let is_old = oldest_kept.as_ref().is_some_and(|kept| name < kept);
            let is_full =
                self.files.len() + files > self.limits.files || self.bytes + bytes > self.limits.bytes;
            if !is_old && !is_full {
                break;
            }
            let name = name.clone();
            self.remove(&name).map_err(|e| {
                SinkError(format!("{} cannot be deleted: {e}", self.path.join(&name).display()))
            })?;
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path.join(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            // Someone else has deleted it.
            _ => {}
        }
        if let Some(bytes) = self.files.remove(name) {
            self.bytes -= bytes;
        }
        Ok(())
    }
}
