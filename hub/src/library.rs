//! The folder in which models live, by the convention of the platform: `NAME.palm` each, and what is remembered of
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use etcetera::base_strategy::{BaseStrategy, choose_native_strategy};
use palmtop::format::PalmFile;
use palmtop::model::retrieval::Retrieval;
use palmtop_convert::ConvertError;
use palmtop_convert::part::{Part, bytes_of_part};
use palmtop_convert::temporary::Temporary;
use serde::{Deserialize, Serialize};
use strsim::levenshtein;

use crate::pull::begun_for;

/// Names the folder instead of the platform's convention.
pub const FOLDER_VARIABLE: &str = "PALMTOP_MODELS";
const EXTENSION: &str = ".palm";
/// Behind the extension, of the folder of a pull that has not come to its end.
const PART: &str = "palm.part";
const EXTENSION_OF_PART: &str = ".palm.part";
/// What is remembered; it begins with a dot, as no model's name does.
const STATE: &str = ".state.json";

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LibraryError {
    /// Nobody's home is known.
    #[error("there is no folder for models: neither {FOLDER_VARIABLE} nor a home folder is known")]
    NoHome,
    /// A name that no model can have.
    #[error("'{0}' cannot be the name of a model: it should have letters, digits, '-', '_' and '.'")]
    Name(String),
    /// There is no such model.
    #[error("there is no model '{name}' in {}{}", folder.display(), nearest_of(nearest))]
    Unknown {
        /// The name.
        name: String,
        /// The folder.
        folder: PathBuf,
        /// Names that are like it.
        nearest: Vec<String>,
    },
    /// A pull is at work.
    #[error(transparent)]
    Busy(ConvertError),
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

fn nearest_of(names: &[String]) -> String {
    match names {
        [] => String::new(),
        names => format!("; there is {}", names.join(", ")),
    }
}

/// A model of the folder.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Installed {
    /// How `-m` names it.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// Bytes of the file.
    pub bytes: u64,
    /// When it was used last.
    pub used: Option<SystemTime>,
    /// The repository that it was pulled from, with the commit: `ORG/NAME@COMMIT`.
    pub pulled: Option<String>,
    /// What it was made of, as the file says; none if the file cannot be read.
    pub origin: Option<Origin>,
}

/// A pull that has not come to its end.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Unfinished {
    /// What the model will be called.
    pub name: String,
    /// The repository, if it is known.
    pub repository: Option<String>,
    /// Bytes that it has on the disk.
    pub bytes: u64,
}

/// What a model file says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Origin {
    /// The repository or checkpoint, with adapters.
    pub source: String,
    /// Its commit.
    pub revision: Option<String>,
    /// The licence of the weights.
    pub license: Option<String>,
    /// How weights are stored.
    pub recipe: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct State {
    /// Seconds of Unix time.
    #[serde(default)]
    used: BTreeMap<String, u64>,
    /// `ORG/NAME@COMMIT`.
    #[serde(default)]
    pulled: BTreeMap<String, String>,
    /// Licences whose notice was shown.
    #[serde(default)]
    notices: BTreeSet<String>,
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Library {
    folder: PathBuf,
}

impl Library {
    /// The folder that the environment or the platform names; it need not be there.
    ///
    /// # Errors
    /// [`NoHome`](LibraryError::NoHome).
    pub fn from_environment() -> Result<Self, LibraryError> {
        Self::from_variable(std::env::var_os(FOLDER_VARIABLE))
    }

    fn from_variable(variable: Option<OsString>) -> Result<Self, LibraryError> {
        if let Some(folder) = variable.filter(|value| !value.is_empty()) {
            return Ok(Self { folder: folder.into() });
        }
        let folders = choose_native_strategy().map_err(|_| LibraryError::NoHome)?;
        Ok(Self { folder: folders.data_dir().join("palmtop").join("models") })
    }

    /// One in this folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the folder, if it is not there.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(&self) -> Result<(), LibraryError> {
        std::fs::create_dir_all(&self.folder).map_err(io(&self.folder))
    }

    /// The file of a model with this name, be it there or not.
    ///
    /// # Errors
    /// [`Name`](LibraryError::Name).
    pub fn path_of(&self, name: &str) -> Result<PathBuf, LibraryError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
        if name.is_empty() || name.len() > 200 || name.starts_with('.') || !name.chars().all(fits) {
            return Err(LibraryError::Name(name.to_owned()));
        }
        Ok(self.folder.join(format!("{}{EXTENSION}", name.strip_suffix(EXTENSION).unwrap_or(name))))
    }

    /// The file of a model of the folder.
    ///
    /// # Errors
    /// [`Unknown`](LibraryError::Unknown), with names that are like it.
    pub fn find(&self, name: &str) -> Result<PathBuf, LibraryError> {
        let unknown = || {
            let names = self.names();
            let nearest = nearest(name, names.iter().map(String::as_str));
            LibraryError::Unknown { name: name.to_owned(), folder: self.folder.clone(), nearest }
        };
        let path = self.path_of(name).map_err(|_| unknown())?;
        if path.is_file() { Ok(path) } else { Err(unknown()) }
    }

    /// The names of all models, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names = entries.filter(|entry| entry.path().is_file());
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let names = names.filter_map(|name| Some(name.strip_suffix(EXTENSION)?.to_owned()));
        let mut names: Vec<String> = names.filter(|name| self.path_of(name).is_ok()).collect();
        names.sort();
        names
    }

    /// All models, with what is known of them.
    pub fn installed(&self) -> Vec<Installed> {
        let state = self.state();
        let of = |name: String| {
            let path = self.path_of(&name).ok()?;
            let used = state.used.get(&name).map(|&seconds| UNIX_EPOCH + Duration::from_secs(seconds));
            let bytes = path.metadata().ok()?.len();
            let pulled = state.pulled.get(&name).cloned();
            Some(Installed { origin: origin(&path), bytes, used, pulled, path, name })
        };
        self.names().into_iter().filter_map(of).collect()
    }

    /// All pulls that have not come to their end, sorted.
    pub fn unfinished(&self) -> Vec<Unfinished> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let of = |entry: std::fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            let name = name.strip_suffix(EXTENSION_OF_PART)?.to_owned();
            let path = Some(entry.path()).filter(|path| path.is_dir() && self.path_of(&name).is_ok())?;
            Some(Unfinished { name, repository: begun_for(&path), bytes: bytes_of_part(&path) })
        };
        let mut unfinished: Vec<Unfinished> = entries.filter_map(of).collect();
        unfinished.sort_by(|one, other| one.name.cmp(&other.name));
        unfinished
    }

    /// The model that was used last, of those that are there.
    pub fn last_used(&self) -> Option<(String, PathBuf)> {
        let state = self.state();
        let mut by_time: Vec<(&u64, &String)> = state.used.iter().map(|(name, time)| (time, name)).collect();
        by_time.sort();
        let there = |(_, name): (&u64, &String)| Some((name.clone(), self.find(name).ok()?));
        by_time.into_iter().rev().find_map(there)
    }

    /// Remembers that a model of the folder is used now, so that it answers by default; not one that
    /// [makes vectors](makes_vectors), whose answers are of no use. A folder that cannot be written to remembers nothing.
    pub fn note_used(&self, path: &Path) {
        let Some(name) = self.name_of(path).filter(|_| !makes_vectors(path)) else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let mut state = self.state();
        // Two in one second have an order, too.
        let last = state.used.values().max().copied().unwrap_or(0);
        let is_last = state.used.get(&name) == Some(&last);
        state.used.insert(name, if is_last { now.max(last) } else { now.max(last + 1) });
        self.remember(&state);
    }

    /// Remembers where a model of the folder was pulled from: a repository and a commit.
    pub fn note_pulled(&self, path: &Path, repository: &str, commit: &str) {
        let Some(name) = self.name_of(path) else { return };
        let mut state = self.state();
        state.pulled.insert(name, format!("{repository}@{commit}"));
        self.remember(&state);
    }

    /// The name of a file of the folder.
    pub fn name_of(&self, path: &Path) -> Option<String> {
        let folder = path.canonicalize().ok()?.parent()?.to_owned();
        let name = path.file_name()?.to_str()?.strip_suffix(EXTENSION)?.to_owned();
        (self.folder.canonicalize().ok()? == folder && self.path_of(&name).is_ok()).then_some(name)
    }

    /// Removes a model, or what an unfinished pull has left of it; both if there are both. Gives what was removed.
    ///
    /// # Errors
    /// [`Unknown`](LibraryError::Unknown), [`Busy`](LibraryError::Busy), or what the system says.
    pub fn remove(&self, name: &str) -> Result<Vec<PathBuf>, LibraryError> {
        let found = self.find(name);
        let part = self.path_of(name).ok().filter(|path| path.with_extension(PART).is_dir());
        let mut removed = Vec::new();
        if let Some(path) = part {
            let part = Part::lock(&path).map_err(LibraryError::Busy)?;
            removed.push(part.folder().to_owned());
            part.remove().map_err(LibraryError::Busy)?;
        }
        match found {
            Ok(path) => {
                std::fs::remove_file(&path).map_err(io(&path))?;
                removed.push(path);
            }
            Err(error) if removed.is_empty() => return Err(error),
            Err(_) => {}
        }
        let (mut state, name) = (self.state(), name.strip_suffix(EXTENSION).unwrap_or(name));
        let (was_used, was_pulled) = (state.used.remove(name), state.pulled.remove(name));
        if was_used.is_some() || was_pulled.is_some() {
            self.remember(&state);
        }
        Ok(removed)
    }

    /// True the first time that it is asked about a licence: its notice is to be shown then.
    pub fn is_new_license(&self, license: &str) -> bool {
        let mut state = self.state();
        let is_new = state.notices.insert(license.to_owned());
        if is_new {
            self.remember(&state);
        }
        is_new
    }

    fn state(&self) -> State {
        let bytes = std::fs::read(self.folder.join(STATE)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    fn remember(&self, state: &State) {
        let write = || {
            let file = Temporary::new_in(&self.folder)?;
            serde_json::to_writer(file.file(), state)?;
            file.persist(&self.folder.join(STATE))
        };
        if let Err(error) = write() {
            log::debug!("{}: {error}", self.folder.display());
        }
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> LibraryError {
    let path = path.to_owned();
    move |source| LibraryError::Io { path, source }
}

/// What a file says of itself.
fn origin(path: &Path) -> Option<Origin> {
    let file = PalmFile::open(path).ok()?;
    let text = |key: &str| file.metadata().text(key).ok();
    Some(Origin {
        source: text("general.name").unwrap_or_default(),
        revision: text("general.revision"),
        license: text("general.license"),
        recipe: text("quantization.recipe"),
    })
}

/// Whether a model file is one for retrieval; `false` if it cannot be read.
pub fn makes_vectors(path: &Path) -> bool {
    PalmFile::open(path).is_ok_and(|file| Retrieval::is_named_in(file.metadata()))
}

/// Names that are like one, the nearest first.
pub fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    const SHOWN: usize = 3;
    let name = name.to_ascii_lowercase();
    let far = |other: &str| {
        let is_part = !name.is_empty() && (other.contains(&*name) || name.contains(other));
        if is_part { 0 } else { levenshtein(&name, other) }
    };
    let mut near: Vec<(usize, &str)> = names.map(|other| (far(&other.to_ascii_lowercase()), other)).collect();
    near.retain(|(far, other)| *far <= other.len().max(name.len()) / 3);
    near.sort();
    near.into_iter().take(SHOWN).map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_found_by_name_used_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let library = Library::new(dir.path().join("models"));
        assert!(library.installed().is_empty() && library.last_used().is_none());
        library.create().unwrap();
        for name in ["big.palm", "small.palm", "other.txt", ".hidden.palm"] {
            std::fs::write(library.folder().join(name), "x").unwrap();
        }
        std::fs::create_dir(library.folder().join("half.palm.part")).unwrap();
        assert_eq!(library.names(), ["big", "small"]);
        let small = library.find("small").unwrap();
        assert_eq!(library.find("small.palm").unwrap(), small);
        library.note_used(&small);
        library.note_pulled(&small, "me/mine", "0123");
        assert_eq!(library.installed()[1].pulled.as_deref(), Some("me/mine@0123"));
        library.note_used(&library.find("big").unwrap());
        assert_eq!(library.last_used().unwrap().0, "big");
        library.note_used(&small);
        assert_eq!(library.last_used().unwrap(), ("small".into(), small.clone()));
        // What lies elsewhere is no model of the folder.
        let elsewhere = dir.path().join("big.palm");
        std::fs::write(&elsewhere, "x").unwrap();
        library.note_used(&elsewhere);
        assert_eq!(library.last_used().unwrap().0, "small");
        std::fs::create_dir(library.folder().join("small.palm.part")).unwrap();
        std::fs::write(library.folder().join("small.palm.part/model"), [1; 10_000]).unwrap();
        let unfinished = library.unfinished();
        assert_eq!(unfinished.iter().map(|u| &*u.name).collect::<Vec<_>>(), ["half", "small"]);
        assert!(unfinished[0].bytes < 10_000 && unfinished[1].bytes >= 10_000, "{unfinished:?}");
        // Somebody is at work.
        let busy = Part::open(&library.folder().join("half.palm")).unwrap();
        assert!(matches!(library.remove("half"), Err(LibraryError::Busy(_))));
        drop(busy);
        let removed = library.remove("small").unwrap();
        assert_eq!(removed, [library.folder().join("small.palm.part"), small]);
        assert_eq!(library.last_used().unwrap().0, "big");
        let gone = library.find("bog").unwrap_err().to_string();
        assert!(gone.ends_with("models; there is big"), "{gone}");
        for wrong in ["", "../x", "a/b", ".x", "a b"] {
            assert!(matches!(library.path_of(wrong), Err(LibraryError::Name(_))), "{wrong}");
            assert!(matches!(library.find(wrong), Err(LibraryError::Unknown { .. })), "{wrong}");
        }
        assert!(library.installed()[0].origin.is_none());
    }

    #[test]
    fn a_notice_is_new_once() {
        let dir = tempfile::tempdir().unwrap();
        let library = Library::new(dir.path());
        assert!(library.is_new_license("gemma") && !library.is_new_license("gemma"));
        assert!(library.is_new_license("apache-2.0"));
        // A state that is damaged is one that is not there.
        std::fs::write(dir.path().join(STATE), "{").unwrap();
        assert!(library.is_new_license("gemma"));
    }

    #[test]
    fn the_variable_comes_before_the_convention() {
        let named = Library::from_variable(Some("/models".into())).unwrap();
        assert_eq!(named.folder(), Path::new("/models"));
        let usual = Library::from_variable(Some("".into())).unwrap();
        assert!(usual.folder().ends_with("palmtop/models"));
    }

    #[test]
    fn near_names_are_few_and_like_it() {
        let names = ["paligemma2-3b-mix-224", "paligemma2-3b-mix-448", "paligemma-3b-pt-224", "receipts"];
        assert_eq!(nearest("paligemma2-3b-mix-244", names.into_iter())[0], names[0]);
        assert_eq!(nearest("receipt", names.into_iter()), ["receipts"]);
        assert!(nearest("llama", names.into_iter()).is_empty());
    }
}
