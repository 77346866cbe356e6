//! Files that are written under a hidden name and then given their own, and what is left of them by writers that were
//! killed.
//!
//! A writer holds a lock of the operating system on its file, which ends with the process, however that ends. So a file
//! that nobody has locked is nobody's, and the next conversion to the same folder removes it. Process ids, which are
//! used again, play no part.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Error, Result};
use std::path::Path;

use tempfile::NamedTempFile;

const PREFIX: &str = ".palmtop-";
const SUFFIX: &str = ".part";
/// Letters and digits between them.
const RANDOM: usize = 6;

/// A file that will take the place of another. Dropped unfinished, it leaves nothing behind.
#[derive(Debug)]
pub struct Temporary(NamedTempFile);

impl Temporary {
    /// Makes a file in the folder where it will be given its name, so that renaming it will be one step.
    ///
    /// # Errors
    /// What the system says.
    pub fn new_in(folder: &Path) -> Result<Self> {
        const ATTEMPTS: usize = 100;
        let mut builder = tempfile::Builder::new();
        builder.prefix(PREFIX).suffix(SUFFIX).rand_bytes(RANDOM);
        as_any_new_file(&mut builder);
        for _ in 0..ATTEMPTS {
            let file = builder.tempfile_in(folder)?;
            match file.as_file().try_lock() {
                // Where files cannot be locked, nobody can take it for an old one either.
                Err(TryLockError::Error(_)) => return Ok(Self(file)),
                // Another process holds it for one that was left behind, and removes it.
                Err(TryLockError::WouldBlock) => {}
                Ok(()) if is_at(file.as_file(), file.path()) => return Ok(Self(file)),
                // That has happened before it was locked.
                Ok(()) => {}
            }
        }
        Err(Error::other("files in this folder are removed as soon as they are made"))
    }

    /// What to write to.
    pub fn file(&self) -> &File {
        self.0.as_file()
    }

    /// Where it is until it has its name.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Gives the file its name once its bytes are on the disk.
    ///
    /// # Errors
    /// What the system says.
    pub fn persist(self, path: &Path) -> Result<()> {
        self.file().sync_all()?;
        self.0.persist(path).map_err(|e| e.error)?;
        Ok(())
    }
}

/// Removes the files that killed writers have left in a folder. What cannot be removed stays.
pub fn remove_left(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_file || !entry.file_name().to_str().is_some_and(is_ours) {
            continue;
        }
        // Over some networks only who may write may lock.
        let Ok(file) = OpenOptions::new().read(true).write(true).open(entry.path()) else { continue };
        if file.try_lock().is_ok() && is_at(&file, &entry.path()) {
            // Whoever made it a moment ago and has not locked it yet will find it gone, and make another.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn is_ours(name: &str) -> bool {
    let random = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
    random.is_some_and(|random| random.len() == RANDOM && random.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// True if an open file is still the one that has this name.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), std::fs::symlink_metadata(path)) else { return false };
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

/// Temporary files are private on Unix; this makes one like any new file, with the rights that the umask leaves.
fn as_any_new_file(builder: &mut tempfile::Builder<'_, '_>) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    #[cfg(not(unix))]
    let _ = builder;
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    const FOLDER: &str = "PALMTOP_TEST_TEMPORARY";

    /// Not a test of its own: the process that the next one starts, and kills.
    #[test]
    #[ignore = "is run by another test"]
    fn a_writer_that_never_ends() {
        let Some(folder) = std::env::var_os(FOLDER) else { return };
        let file = Temporary::new_in(Path::new(&folder)).unwrap();
        file.file().write_all(b"half of a model").unwrap();
        println!("\nwritten");
        std::io::stdin().lines().for_each(drop);
    }

    #[test]
    fn what_a_killed_writer_leaves_is_removed_and_what_a_living_one_has_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let start = || {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(["temporary::tests::a_writer_that_never_ends", "--exact", "--ignored", "--nocapture"]);
            child.env(FOLDER, folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = child.spawn().unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            assert!(lines.any(|line| line.unwrap() == "written"));
            (child, lines)
        };
        let mut writers = [start(), start()];
        let both = names(folder.path());
        assert_eq!(both.len(), 2);
        remove_left(folder.path());
        assert_eq!(names(folder.path()), both, "both are being written");
        // As kill -9 does it.
        writers[0].0.kill().unwrap();
        writers[0].0.wait().unwrap();
        assert_eq!(names(folder.path()), both, "nobody has cleaned up");
        remove_left(folder.path());
        assert_eq!(names(folder.path()).len(), 1, "one is still being written");
        let [_, (mut living, _lines)] = writers;
        living.kill().unwrap();
        living.wait().unwrap();
        remove_left(folder.path());
        assert_eq!(names(folder.path()), [""; 0]);
    }

    #[test]
    fn only_files_of_ours_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let others = [
            ".palmtop-abc123.part.txt",
            ".palmtop-abc12.part",
            ".palmtop-abc1234.part",
            ".palmtop-abc-23.part",
            ".model.palm.abc123.part",
            "palmtop-abc123.part",
        ];
        for name in others.iter().chain(&[".palmtop-aBc123.part"]) {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        std::fs::create_dir(folder.path().join(".palmtop-folder.part")).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(folder.path().join(others[0]), folder.path().join(".palmtop-link12.part"))
            .unwrap();
        let held = Temporary::new_in(folder.path()).unwrap();
        let before = names(folder.path());
        remove_left(folder.path());
        let after = names(folder.path());
        let removed: Vec<_> = before.iter().filter(|name| !after.contains(name)).collect();
        assert_eq!(removed, [".palmtop-aBc123.part"]);
        drop(held);
        assert_eq!(names(folder.path()).len(), after.len() - 1);
    }

    #[test]
    fn a_finished_file_has_its_name_and_the_rights_of_any_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = Temporary::new_in(folder.path()).unwrap();
        file.file().write_all(b"whole").unwrap();
        assert!(is_ours(file.path().file_name().unwrap().to_str().unwrap()));
        let target = folder.path().join("target");
        file.persist(&target).unwrap();
        assert_eq!(names(folder.path()), ["target"]);
        assert_eq!(std::fs::read(&target).unwrap(), b"whole");
        let other = folder.path().join("other");
        std::fs::write(&other, "").unwrap();
        let rights = |path| std::fs::metadata(path).unwrap().permissions();
        assert_eq!(rights(&target), rights(&other));
    }
}
