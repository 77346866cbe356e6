//! Files that are fetched as they are.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use palmtop_convert::part::Part;
use palmtop_convert::stream::sum::{Sum, hex};
use palmtop_convert::{ConvertError, Progress};
use serde::{Deserialize, Serialize};

use crate::error::HubError;
use crate::reader::Files;
use crate::repository::RepositoryFile;

/// Small files that a checkpoint has beside its weights are not larger.
const SMALL_BYTES_MAX: u64 = 256 << 20;

/// Which file is in a part.
#[derive(PartialEq, Serialize, Deserialize)]
struct Begun {
    path: String,
    sha256: String,
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> HubError {
    let path = path.to_owned();
    move |source| ConvertError::Io { path, source }.into()
}

/// Fetches a small file into a folder.
pub fn small(files: &Files, file: &RepositoryFile, folder: &Path) -> Result<(), HubError> {
    let name = file.path.rsplit('/').next().unwrap_or_default();
    let target = folder.join(name);
    if file.bytes > SMALL_BYTES_MAX {
        let what =
            format!("{name} is larger than {} MiB, so it cannot be the right file", SMALL_BYTES_MAX >> 20);
        return Err(files.repository.unusable(&what));
    }
    // What the hub knows the hash of need not come again.
    if let Some(wanted) = file.sha256
        && std::fs::read(&target).is_ok_and(|bytes| hash_of(&bytes) == wanted)
    {
        return Ok(());
    }
    let bytes = files.read(&file.path, 0, file.bytes)?.read_all()?;
    if let Some(wanted) = file.sha256 {
        let found = hash_of(&bytes);
        if found != wanted {
            return Err(wrong_hash(file, found, wanted));
        }
    }
    std::fs::write(&target, bytes).map_err(io(&target))
}

fn hash_of(bytes: &[u8]) -> [u8; 32] {
    let mut sum = Sum::default();
    sum.update(bytes);
    sum.finish()
}

fn wrong_hash(file: &RepositoryFile, found: [u8; 32], wanted: [u8; 32]) -> HubError {
    let (found, wanted) = (hex(&found), hex(&wanted));
    ConvertError::WrongHash { name: file.path.clone(), found, wanted }.into()
}

/// What is in a part is no longer a file that is fetched as it is.
pub fn forget(part: &Part) {
    let _ = std::fs::remove_file(begun_in(part));
}

fn begun_in(part: &Part) -> PathBuf {
    part.folder().join("file.json")
}

/// Fetches a model file into a part, from where an earlier run has ended, and compares its hash.
pub fn model(
    files: &Files,
    file: &RepositoryFile,
    part: &Part,
    progress: &dyn Progress,
) -> Result<(), HubError> {
    let Some(wanted) = file.sha256 else {
        let what = format!("the hub names no SHA-256 for {}", file.path);
        return Err(files.repository.unusable(&what));
    };
    let (model, begun) = (part.model(), begun_in(part));
    let now = Begun { path: file.path.clone(), sha256: hex(&wanted) };
    let left = std::fs::read(&begun).ok().and_then(|bytes| serde_json::from_slice::<Begun>(&bytes).ok());
    if left.as_ref() != Some(&now) {
        let _ = std::fs::remove_file(&model);
        std::fs::write(&begun, serde_json::to_vec(&now).expect("text")).map_err(io(&begun))?;
    }
    let mut open = OpenOptions::new();
    let mut target =
        open.read(true).write(true).create(true).truncate(false).open(&model).map_err(io(&model))?;
    // What is there is hashed again: no state of a hash must be kept, and what the disk has lost is seen.
    let (mut sum, mut at, mut buffer) = (Sum::default(), 0, vec![0; 1 << 18]);
    part.check_room(file.bytes)?;
    progress.start(file.bytes);
    loop {
        let n = target.read(&mut buffer).map_err(io(&model))?;
        if n == 0 || at + n as u64 > file.bytes {
            break;
        }
        sum.update(&buffer[..n]);
        at += n as u64;
    }
    if at > 0 {
        progress.start(file.bytes - at);
        progress.resumed(at);
    }
    let mut reader = files.read(&file.path, at, file.bytes)?;
    while at < file.bytes {
        let n = reader.next(&mut buffer)?;
        target.write_all(&buffer[..n]).map_err(io(&model))?;
        sum.update(&buffer[..n]);
        at += n as u64;
        progress.advance(n as u64);
    }
    let found = sum.finish();
    if found == wanted && target.metadata().is_ok_and(|m| m.len() == file.bytes) {
        return Ok(());
    }
    let _ = std::fs::remove_file(&model);
    Err(wrong_hash(file, found, wanted))
}
