//! The cache of huggingface_hub: checkpoints that other programs have fetched.

use std::path::{Path, PathBuf};

use palmtop_convert::is_complete;

use crate::repository::RepositoryName;

/// A checkpoint in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached {
    /// The folder of the snapshot.
    pub folder: PathBuf,
    /// Its commit.
    pub commit: String,
}

/// Finds a revision of a repository with everything that a conversion needs.
pub fn find(cache: &Path, name: &RepositoryName) -> Option<Cached> {
    let repository = cache.join(format!("models--{}", name.id.replace('/', "--")));
    let revision = name.revision();
    let named = std::fs::read_to_string(repository.join("refs").join(revision)).ok();
    // Without a name of its own it may be a commit, or the start of one.
    let commit = match named {
        Some(commit) => commit.trim().to_owned(),
        None => {
            let snapshots = std::fs::read_dir(repository.join("snapshots")).ok()?.flatten();
            let names = snapshots.filter_map(|entry| entry.file_name().into_string().ok());
            let mut found = names.filter(|name| revision.len() >= 7 && name.starts_with(revision));
            found.next().filter(|_| found.next().is_none())?
        }
    };
    let is_commit = commit.len() >= 40 && commit.bytes().all(|b| b.is_ascii_hexdigit());
    let folder = repository.join("snapshots").join(&commit);
    (is_commit && is_complete(&folder)).then_some(Cached { folder, commit })
}
