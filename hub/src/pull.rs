//! From the name of a repository to a model file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use palmtop::format::PalmFile;
use palmtop_convert::part::Part;
use palmtop_convert::stream::{Remote, RemoteFile, convert_as_it_comes};
use palmtop_convert::{Adapter, ConvertError, Options, Progress, Report, convert};
use serde::{Deserialize, Serialize};

use crate::cache;
use crate::client::{Cancelled, Client};
use crate::error::HubError;
use crate::reader::Files;
use crate::repository::{Repository, RepositoryFile, RepositoryName};
use crate::settings::Settings;
use crate::whole;

/// In a part: what it was begun for.
const ORIGIN: &str = "origin.json";
/// Weight files that are read at once: a hub gives each connection a part of what the line can carry.
const CONNECTIONS: usize = 4;

/// An adapter to merge.
#[derive(Clone, Debug)]
pub enum AdapterSource {
    /// A folder on this machine.
    Folder(Adapter),
    /// A repository, and a factor for what it adds.
    Repository(RepositoryName, f64),
}

/// What is to be had, and how.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Of which repository.
    pub name: RepositoryName,
    /// How a checkpoint is converted; its adapters come from [`adapters`](Self::adapters).
    pub options: Options,
    /// To merge.
    pub adapters: Vec<AdapterSource>,
    /// A checkpoint is converted, though the repository has a model file too.
    pub convert: bool,
}

/// Who follows it.
pub struct Follower<'a> {
    /// Bytes that come.
    pub progress: &'a dyn Progress,
    /// A line for people.
    pub note: &'a dyn Fn(&str),
    /// Whether to stop; asked for by several threads.
    pub cancelled: Cancelled,
}

/// A model that came.
#[derive(Debug)]
#[non_exhaustive]
pub struct Pulled {
    /// The commit that it is from.
    pub commit: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// What the conversion has to tell; none of a file that was fetched as it is.
    pub report: Option<Box<Report>>,
}

impl Pulled {
    fn converted(commit: String, report: Report) -> Self {
        Self { commit, bytes: report.bytes, report: Some(Box::new(report)) }
    }
}

/// What a part was begun for.
#[derive(PartialEq, Serialize, Deserialize)]
struct Begun {
    repository: String,
    revision: String,
    commit: String,
}

/// Fetches a model file of a repository, or converts its checkpoint as it comes. `target` appears once it is whole and
/// its hashes are right; what came before an error or an interruption stays in `target.part`, and the next call goes on
/// with it. A checkpoint in the hub's cache is converted from there.
///
/// # Errors
/// What the hub, the network, the checkpoint or the disk say; [`Cancelled`](HubError::Cancelled).
pub fn pull(
    settings: &Settings,
    wanted: &Wanted,
    target: &Path,
    follower: &Follower<'_>,
) -> Result<Pulled, HubError> {
    let part = Part::open(target)?;
    let client = Arc::new(Client::new(settings.clone(), follower.cancelled.clone())?);
    let cached = cache::find(&settings.cache, &wanted.name).filter(|_| wanted.name.file.is_none());
    if let Some(cached) = cached {
        (follower.note)(&format!(
            "{} is in the hub's cache: commit {} is converted from there",
            wanted.name.id,
            short(&cached.commit)
        ));
        let options = Options { adapters: adapters(&client, wanted, &part)?, ..wanted.options.clone() };
        // Half of a file that was to come.
        let _ = std::fs::remove_file(part.model());
        let mut report =
            convert(&cached.folder, &part.model(), &options, follower.progress).map_err(error)?;
        report.target = target.to_owned();
        part.finish()?;
        return Ok(Pulled::converted(cached.commit, report));
    }
    is_allowed(&client, &wanted.name)?;
    follower.progress.message("asking the hub");
    let repository = Arc::new(Repository::ask(&client, &wanted.name)?);
    note_moved(&repository, &part, follower)?;
    let files = Files { client: client.clone(), repository: repository.clone() };
    if let Some(file) = model_file(&repository, wanted)? {
        whole::model(&files, file, &part, follower.progress)?;
        PalmFile::open(&part.model()).map_err(|e| repository.unusable(&format!("{}: {e}", file.path)))?;
        let bytes = file.bytes;
        part.finish()?;
        return Ok(Pulled { commit: repository.commit.clone(), bytes, report: None });
    }
    let folder = part.subfolder("checkpoint")?;
    let has_adapter = repository.file("adapter_config.json").is_some();
    for file in repository.files.iter().filter(|file| is_small(&file.path, has_adapter)) {
        whole::small(&files, file, &folder)?;
    }
    let weights: Vec<RemoteFile> = repository.files.iter().filter_map(weights).collect();
    let unnamed = repository.files.iter().find(|file| is_weights(&file.path) && file.sha256.is_none());
    if let Some(file) = unnamed {
        return Err(repository.unusable(&format!("the hub names no SHA-256 for {}", file.path)));
    }
    if weights.is_empty() && !has_adapter {
        return Err(repository.unusable(&without_weights(&repository)));
    }
    whole::forget(&part);
    let adapters = adapters(&client, wanted, &part)?;
    let options = Options { adapters, ..wanted.options.clone() };
    let remote = Remote {
        folder: &folder,
        name: &repository.name.id,
        revision: Some(&repository.commit),
        files: &weights,
        source: Arc::new(files),
    };
    let report =
        convert_as_it_comes(&remote, part, &options, CONNECTIONS, follower.progress).map_err(error)?;
    Ok(Pulled::converted(repository.commit.clone(), report))
}

/// The first digits of a commit.
pub fn short(commit: &str) -> &str {
    &commit[..commit.len().min(8)]
}

/// An error of a conversion, or the hub's that is inside.
fn error(error: ConvertError) -> HubError {
    match error {
        ConvertError::Cancelled => HubError::Cancelled,
        ConvertError::Fetch(inner) => match inner.downcast::<HubError>() {
            Ok(error) => *error,
            Err(inner) => ConvertError::Fetch(inner).into(),
        },
        other => other.into(),
    }
}

fn is_allowed(client: &Client, name: &RepositoryName) -> Result<(), HubError> {
    match client.settings.offline {
        None => Ok(()),
        Some(variable) => {
            let cache = client.settings.cache.clone();
            Err(HubError::Offline { repo: name.to_string(), cache, variable })
        }
    }
}

/// The repository that a part was begun for.
pub(crate) fn begun_for(part: &Path) -> Option<String> {
    let bytes = std::fs::read(part.join(ORIGIN)).ok()?;
    Some(serde_json::from_slice::<Begun>(&bytes).ok()?.repository)
}

/// Tells if a revision stands for another commit than when the part was begun. Weights that are equal in both are kept.
fn note_moved(repository: &Repository, part: &Part, follower: &Follower<'_>) -> Result<(), HubError> {
    let path = part.folder().join(ORIGIN);
    let now = Begun {
        repository: repository.name.id.clone(),
        revision: repository.name.revision().to_owned(),
        commit: repository.commit.clone(),
    };
    let left = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Begun>(&bytes).ok());
    if let Some(left) = left.filter(|left| left.commit != now.commit && left.repository == now.repository) {
        (follower.note)(&format!(
            "{}@{} was {} when this pull began, and is {} now; weights that are the same are kept",
            now.repository,
            now.revision,
            short(&left.commit),
            short(&now.commit)
        ));
    }
    let bytes = serde_json::to_vec(&now).expect("text");
    std::fs::write(&path, bytes).map_err(|source| ConvertError::Io { path, source }.into())
}

/// The model file that is wanted: the one that is named, or the only one.
fn model_file<'a>(
    repository: &'a Repository,
    wanted: &Wanted,
) -> Result<Option<&'a RepositoryFile>, HubError> {
    if let Some(path) = &wanted.name.file {
        let missing = || HubError::NoFile { repo: repository.name.id.clone(), file: path.clone() };
        return repository.file(path).map(Some).ok_or_else(missing);
    }
    if wanted.convert {
        return Ok(None);
    }
    let models: Vec<&RepositoryFile> =
        repository.files.iter().filter(|file| file.path.ends_with(".palm")).collect();
    match models[..] {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => {
            let names: Vec<String> =
                models.iter().map(|file| format!("{}/{}", repository.name.id, file.path)).collect();
            Err(repository.unusable(&format!("has several model files; name one: {}", names.join(", "))))
        }
    }
}

/// What is fetched as a whole beside weights.
fn is_small(path: &str, has_adapter: bool) -> bool {
    let of_kind = [".json", ".model", ".spm"].iter().any(|end| path.ends_with(end));
    !path.contains('/') && (of_kind || (has_adapter && path == "adapter_model.safetensors"))
}

fn is_weights(path: &str) -> bool {
    !path.contains('/') && path.ends_with(".safetensors") && path != "adapter_model.safetensors"
}

fn weights(file: &RepositoryFile) -> Option<RemoteFile> {
    let sha256 = file.sha256.filter(|_| is_weights(&file.path))?;
    Some(RemoteFile { name: file.path.clone(), bytes: file.bytes, sha256 })
}

/// What a repository has instead of weights that are read.
fn without_weights(repository: &Repository) -> String {
    let has = |end: &str| repository.files.iter().any(|file| file.path.ends_with(end));
    let what = if has(".npz") {
        "has its weights as .npz, which cannot be converted as they come: download the file, and use palmtop convert"
    } else if has(".gguf") {
        "holds GGUF, which is quantized already: pull the checkpoint that it was made from"
    } else if has(".bin") {
        "has weights in PyTorch's pickle format only, which can run code when it is read, so palmtop does not"
    } else {
        "has neither a .palm file nor weights as safetensors"
    };
    what.to_owned()
}

/// Adapters as folders; those of repositories are fetched into the part.
fn adapters(client: &Arc<Client>, wanted: &Wanted, part: &Part) -> Result<Vec<Adapter>, HubError> {
    let mut adapters = Vec::new();
    for (number, adapter) in wanted.adapters.iter().enumerate() {
        let adapter = match adapter {
            AdapterSource::Folder(adapter) => adapter.clone(),
            AdapterSource::Repository(name, scale) => {
                Adapter { path: fetch_adapter(client, name, part, number)?, scale: *scale }
            }
        };
        adapters.push(adapter);
    }
    Ok(adapters)
}

fn fetch_adapter(
    client: &Arc<Client>,
    name: &RepositoryName,
    part: &Part,
    number: usize,
) -> Result<PathBuf, HubError> {
    is_allowed(client, name)?;
    let repository = Arc::new(Repository::ask(client, name)?);
    if repository.file("adapter_config.json").is_none() {
        return Err(repository.unusable("has no adapter_config.json, so it is no adapter of PEFT's"));
    }
    let folder = part.subfolder(&format!("adapters/{number}/{}", name.name()))?;
    let files = Files { client: client.clone(), repository: repository.clone() };
    for file in repository.files.iter().filter(|file| is_small(&file.path, true)) {
        whole::small(&files, file, &folder)?;
    }
    Ok(folder)
}
