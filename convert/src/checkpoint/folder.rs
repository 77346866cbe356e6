//! The folder that a name stands for.

use std::path::{Path, PathBuf};

use super::find::{file_names, is_plain_name};
use crate::error::ConvertError;
use crate::files::{is_there, read_regular};

/// A name of a revision is not longer.
const REF_BYTES_MAX: u64 = 4096;

/// The checkpoint that a name stands for: for a repository of the hub's cache, such as
/// `models--google--paligemma-3b-mix-224`, the snapshot that its `refs/main` names; otherwise the folder itself.
///
/// # Errors
/// If the cache has no such snapshot, or several and no `refs/main`.
pub fn resolve(path: &Path) -> Result<PathBuf, ConvertError> {
    let snapshots = path.join("snapshots");
    if !snapshots.is_dir() || is_there(&path.join("config.json")) {
        return Ok(path.to_owned());
    }
    let wrong = |what: String| ConvertError::NoWeights { path: path.to_owned(), what };
    let main = path.join("refs/main");
    if is_there(&main) {
        let text = read_regular(&main, REF_BYTES_MAX)?;
        let revision = String::from_utf8_lossy(&text).trim().to_owned();
        let snapshot = snapshots.join(&revision);
        if is_plain_name(&revision) && snapshot.is_dir() {
            return Ok(snapshot);
        }
        return Err(wrong(format!(
            "its refs/main names the snapshot '{}', which is not there: download the checkpoint again",
            revision.escape_debug()
        )));
    }
    match &file_names(&snapshots)?[..] {
        [] => Err(wrong("holds no snapshot: download the checkpoint again".to_owned())),
        [one] => Ok(snapshots.join(one)),
        several => Err(wrong(format!(
            "holds several snapshots and no refs/main; name one of them: {}",
            crate::error::listed(&several.iter().map(|s| format!("snapshots/{s}")).collect::<Vec<_>>())
        ))),
    }
}

/// Name and revision of a checkpoint. The hub's cache has them in its paths:
/// `models--google--paligemma-3b-mix-224/snapshots/REVISION`.
pub fn origin(checkpoint: &Path) -> (String, Option<String>) {
    let path = checkpoint.canonicalize().unwrap_or_else(|_| checkpoint.to_owned());
    let name_of = |p: &Path| p.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    if let Some(snapshots) = path.parent().filter(|p| p.ends_with("snapshots")) {
        let repository = snapshots.parent().map(name_of).unwrap_or_default();
        if let Some(repository) = repository.strip_prefix("models--") {
            return (repository.replacen("--", "/", 1), Some(name_of(&path)));
        }
    }
    (name_of(&path), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hub_cache_names_model_and_revision() {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = dir.path().join("models--google--paligemma-3b-mix-224/snapshots/d1d8734c9c3ad0cc");
        std::fs::create_dir_all(&snapshot).unwrap();
        let revision = Some("d1d8734c9c3ad0cc".to_owned());
        assert_eq!(origin(&snapshot), ("google/paligemma-3b-mix-224".to_owned(), revision));
        let plain = dir.path().join("my-model");
        std::fs::create_dir(&plain).unwrap();
        assert_eq!(origin(&plain), ("my-model".to_owned(), None));
    }

    #[test]
    fn a_repository_of_the_hub_cache_stands_for_its_main_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        let repository = dir.path().join("models--google--paligemma-3b-mix-224");
        let error = || resolve(&repository).unwrap_err().to_string();
        std::fs::create_dir_all(repository.join("snapshots")).unwrap();
        assert!(error().contains("holds no snapshot"), "{}", error());
        std::fs::create_dir(repository.join("snapshots/aaa")).unwrap();
        assert_eq!(resolve(&repository).unwrap(), repository.join("snapshots/aaa"));
        std::fs::create_dir(repository.join("snapshots/bbb")).unwrap();
        assert!(error().contains("name one of them: snapshots/aaa, snapshots/bbb"), "{}", error());
        std::fs::create_dir(repository.join("refs")).unwrap();
        for (text, says) in
            [("ccc\n", "names the snapshot 'ccc'"), ("../snapshots/aaa", "download"), ("", "download")]
        {
            std::fs::write(repository.join("refs/main"), text).unwrap();
            assert!(error().contains(says), "{}", error());
        }
        std::fs::write(repository.join("refs/main"), "bbb\n").unwrap();
        assert_eq!(resolve(&repository).unwrap(), repository.join("snapshots/bbb"));
    }
}
