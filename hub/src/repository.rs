//! A repository: its name, and what is in a revision of it.

use std::fmt;
use std::path::{Component, Path};

use palmtop_convert::stream::sum::unhex;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::client::{Client, Request};
use crate::error::HubError;

/// What need not be escaped in a part of a path.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What a user names: `ORG/NAME`, `ORG/NAME@REVISION`, `ORG/NAME/FILE.palm`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryName {
    /// `ORG/NAME`.
    pub id: String,
    /// A branch, a tag or a commit; `main` if absent.
    pub revision: Option<String>,
    /// A file of it.
    pub file: Option<String>,
}

impl RepositoryName {
    /// Reads a name.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(text: &str) -> Result<Self, HubError> {
        let wrong = |what: &str| HubError::Name { name: text.to_owned(), what: what.to_owned() };
        let (path, revision) = match text.split_once('@') {
            Some((path, revision)) => (path, Some(revision.to_owned())),
            None => (text, None),
        };
        if revision.as_deref().is_some_and(|r| r.is_empty() || r.chars().any(|c| c.is_control() || c == ' '))
        {
            return Err(wrong("behind @ stands a branch, a tag or a commit"));
        }
        let path = path.trim_end_matches('/');
        // A page's address, as it is copied from a browser.
        let path = path.strip_prefix("https://huggingface.co/").unwrap_or(path);
        let mut parts = path.splitn(3, '/');
        let (Some(org), Some(name), file) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong("it should be ORG/NAME"));
        };
        let plain = |part: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !part.is_empty()
                && part.len() <= 96
                && part.chars().all(fits)
                && !part.contains("..")
                && !part.starts_with(['-', '.'])
                && !part.contains("--")
        };
        if !plain(org) || !plain(name) {
            return Err(wrong("organisation and name have letters, digits, '-', '_' and '.'"));
        }
        let is_model = |file: &&str| file.ends_with(".palm") && is_plain_path(file);
        if file.is_some_and(|file| !is_model(&file)) {
            return Err(wrong("behind ORG/NAME may stand the path of a .palm file"));
        }
        Ok(Self { id: format!("{org}/{name}"), revision, file: file.map(str::to_owned) })
    }

    /// The revision that is asked for.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    /// The name without its organisation.
    pub fn name(&self) -> &str {
        self.id.split_once('/').map_or(&*self.id, |(_, name)| name)
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)?;
        self.file.iter().try_for_each(|file| write!(f, "/{file}"))?;
        self.revision.iter().try_for_each(|revision| write!(f, "@{revision}"))
    }
}

/// A revision of a repository.
#[derive(Clone, Debug)]
pub struct Repository {
    /// Its name.
    pub name: RepositoryName,
    /// The commit that the revision stands for.
    pub commit: String,
    /// Its files.
    pub files: Vec<RepositoryFile>,
    /// Its licence, as its card has it.
    pub license: Option<String>,
}

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryFile {
    /// Its path.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, which the hub knows of large files.
    pub sha256: Option<[u8; 32]>,
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
    #[serde(default)]
    tags: Vec<String>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

impl Repository {
    /// An error: there is nothing in it that can be used.
    pub(crate) fn unusable(&self, what: &str) -> HubError {
        HubError::Unusable { repo: self.name.id.clone(), what: what.to_owned() }
    }

    /// Asks the hub what is in a revision.
    ///
    /// # Errors
    /// If it is not there or not for this user, or what the network says.
    pub fn ask(client: &Client, name: &RepositoryName) -> Result<Self, HubError> {
        let revision = utf8_percent_encode(name.revision(), ESCAPED);
        let url =
            format!("{}/api/models/{}/revision/{revision}?blobs=true", client.settings.endpoint, name.id);
        let request =
            Request { url: &url, repo: &name.id, revision: name.revision(), file: None, range: None };
        let bytes = client.json(&request)?;
        Self::read(name, &bytes)
            .map_err(|what| HubError::Answer { host: client.settings.host().to_owned(), what })
    }

    fn read(name: &RepositoryName, bytes: &[u8]) -> Result<Self, String> {
        let info: Info = serde_json::from_slice(bytes)
            .map_err(|e| format!("what it tells of {} cannot be read: {e}", name.id))?;
        let is_commit = info.sha.len() >= 40 && info.sha.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_commit {
            return Err(format!("it names no commit for {}", name.id));
        }
        let mut files = Vec::new();
        for sibling in info.siblings {
            if !is_plain_path(&sibling.rfilename) {
                continue;
            }
            let hash = |lfs: &Lfs| unhex(&lfs.sha256).and_then(|hash| <[u8; 32]>::try_from(hash).ok());
            let sha256 = sibling
                .lfs
                .as_ref()
                .map(|lfs| hash(lfs).ok_or_else(|| format!("the SHA-256 of {} is none", sibling.rfilename)));
            let bytes = sibling.lfs.as_ref().map(|lfs| lfs.size).or(sibling.size);
            let bytes = bytes.ok_or_else(|| format!("it does not tell how long {} is", sibling.rfilename))?;
            files.push(RepositoryFile { path: sibling.rfilename, bytes, sha256: sha256.transpose()? });
        }
        let license = info.tags.iter().find_map(|tag| tag.strip_prefix("license:")).map(str::to_owned);
        Ok(Self { name: name.clone(), commit: info.sha, files, license })
    }

    /// The address of a file.
    pub fn address(&self, client: &Client, path: &str) -> String {
        let parts: Vec<String> =
            path.split('/').map(|part| utf8_percent_encode(part, ESCAPED).to_string()).collect();
        format!("{}/{}/resolve/{}/{}", client.settings.endpoint, self.name.id, self.commit, parts.join("/"))
    }

    /// A file of it.
    pub fn file(&self, path: &str) -> Option<&RepositoryFile> {
        self.files.iter().find(|file| file.path == path)
    }
}

/// True for a path that stays in its folder.
fn is_plain_path(path: &str) -> bool {
    let plain = |part| matches!(part, Component::Normal(_));
    !path.is_empty()
        && Path::new(path).components().all(plain)
        && !path.contains(['\\', '\0'])
        && !path.contains("//")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_revisions_and_files() {
        let name = RepositoryName::parse("google/paligemma2-3b-mix-224@float16").unwrap();
        assert_eq!(
            (&*name.id, name.revision(), name.name()),
            ("google/paligemma2-3b-mix-224", "float16", "paligemma2-3b-mix-224")
        );
        let name = RepositoryName::parse("me/models/small/a.palm@refs/pr/1").unwrap();
        assert_eq!((name.file.as_deref(), name.revision()), (Some("small/a.palm"), "refs/pr/1"));
        assert_eq!(name.to_string(), "me/models/small/a.palm@refs/pr/1");
        let page = RepositoryName::parse("https://huggingface.co/google/paligemma-3b-pt-224/").unwrap();
        assert_eq!(page.to_string(), "google/paligemma-3b-pt-224");
        for wrong in [
            "",
            "paligemma",
            "/a",
            "a/",
            "a/b@",
            "a/b@x y",
            "a/../b",
            "../b",
            "a/b/../c.palm",
            "a/b/c.bin",
            "a b/c",
            "a/b?x",
            "a/.b",
            "a/b--c",
        ] {
            assert!(RepositoryName::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn files_that_would_lead_out_are_left_out_and_lies_are_refused() {
        let name = RepositoryName::parse("a/b").unwrap();
        let read = |json: &str| Repository::read(&name, json.as_bytes());
        let sha = "0123456789012345678901234567890123456789";
        let hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let files = format!(
            r#"[{{"rfilename":"../x","size":1}},{{"rfilename":"config.json","size":7,"blobId":"1"}},
            {{"rfilename":"m.safetensors","size":9,"lfs":{{"sha256":"{hash}","size":9,"pointerSize":1}}}}]"#
        );
        let good =
            read(&format!(r#"{{"sha":"{sha}","siblings":{files},"tags":["x","license:gemma"]}}"#)).unwrap();
        assert_eq!((good.files.len(), good.license.as_deref()), (2, Some("gemma")));
        assert!(good.files[0].sha256.is_none() && good.files[1].sha256.is_some());
        for (json, says) in [
            ("<html>".to_owned(), "cannot be read"),
            (r#"{"sha":"../../x","siblings":[]}"#.to_owned(), "names no commit"),
            (format!(r#"{{"sha":"{sha}","siblings":[{{"rfilename":"x"}}]}}"#), "how long x is"),
            (
                format!(
                    r#"{{"sha":"{sha}","siblings":[{{"rfilename":"x","lfs":{{"sha256":"00","size":1}}}}]}}"#
                ),
                "the SHA-256 of x is none",
            ),
        ] {
            let error = read(&json).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
