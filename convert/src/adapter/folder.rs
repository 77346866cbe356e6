//! The folder of an adapter as PEFT saves it: `adapter_config.json` and `adapter_model.safetensors`.

use std::path::{Path, PathBuf};

use super::Opened;
use super::config::{AdapterConfig, CONFIG};
use crate::ConvertError;
use crate::checkpoint::shards::{Shards, Tensor};
use crate::files::is_there;

const WEIGHTS: &str = "adapter_model.safetensors";
const PICKLE: &str = "adapter_model.bin";

/// True if a folder has an adapter's configuration.
pub(crate) fn has_adapter(dir: &Path) -> bool {
    is_there(&dir.join(CONFIG))
}

/// Maps an adapter's file.
pub(super) fn open(dir: &Path, scale: f64) -> Result<Opened, ConvertError> {
    let wrong = |what: String| ConvertError::Adapter { path: dir.to_owned(), what };
    if dir.is_file() {
        return Err(wrong("is a file; name the adapter's folder".into()));
    }
    if !dir.exists() {
        return Err(wrong("there is no such folder".into()));
    }
    if !has_adapter(dir) {
        return Err(wrong(without_config(dir)));
    }
    let config = AdapterConfig::open(&dir.join(CONFIG))?;
    let weights = dir.join(WEIGHTS);
    if !is_there(&weights) {
        return Err(wrong(match is_there(&dir.join(PICKLE)) {
            true => format!(
                "{PICKLE} is a pickle, which palmtop does not read; write it as safetensors: python -c \"import \
                 torch, safetensors.torch as s; s.save_file({{k: v.contiguous() for k, v in \
                 torch.load('{PICKLE}', weights_only=True).items()}}, '{WEIGHTS}')\""
            ),
            false => format!("has {CONFIG} and no {WEIGHTS}; if there is no adapter, remove {CONFIG}"),
        }));
    }
    let mut shards = Shards::default();
    let tensors = shards.add(weights)?;
    Ok(Opened { path: dir.to_owned(), scale, config, shards, tensors })
}

/// An adapter whose tensors stand in the file of its base.
pub(super) fn open_wrapped(dir: &Path, shards: Shards, tensors: Vec<Tensor>) -> Result<Opened, ConvertError> {
    if !has_adapter(dir) {
        let first = tensors.first().map_or("", |t| &t.name);
        let what = format!(
            "its weights are those of a model with an adapter in it ('{first}'), and without {CONFIG}, which has the \
             adapter's scale, they cannot be merged: copy {CONFIG} into the folder"
        );
        return Err(ConvertError::Adapter { path: dir.to_owned(), what });
    }
    let config = AdapterConfig::open(&dir.join(CONFIG))?;
    Ok(Opened { path: dir.to_owned(), scale: 1.0, config, shards, tensors })
}

/// What a folder without an adapter's configuration is instead.
fn without_config(dir: &Path) -> String {
    if dir.join("config.json").exists() {
        return format!("is a checkpoint and no adapter: it has config.json and no {CONFIG}");
    }
    if dir.join("adapters.safetensors").exists() {
        return "is an adapter of mlx, and palmtop reads PEFT's; fuse it there and convert the result".into();
    }
    let inside = inside(dir);
    match inside.is_empty() {
        true => format!("has no {CONFIG}, so it is no adapter of PEFT's"),
        false => format!("has no {CONFIG}; there are adapters inside: {}", inside.join(", ")),
    }
}

/// Folders inside that are adapters, such as a training's `checkpoint-500`: the last five by their numbers.
fn inside(dir: &Path) -> Vec<String> {
    let folders = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    let mut found: Vec<(u64, PathBuf)> = folders
        .filter(|p| has_adapter(p))
        .map(|p| {
            let name = p.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let number = name.rsplit('-').next().and_then(|n| n.parse().ok());
            (number.unwrap_or(0), p)
        })
        .collect();
    found.sort();
    found.iter().rev().take(5).map(|(_, p)| p.display().to_string()).collect()
}

/// The error for a checkpoint folder that holds an adapter and no weights of a model; with the command that helps.
///
/// `names` are those of the folder's files.
pub(crate) fn only_an_adapter(dir: &Path, names: &[String]) -> Option<ConvertError> {
    if !has_adapter(dir) {
        return None;
    }
    let of_a_model = |name: &str| {
        (name.ends_with(".safetensors") && name != WEIGHTS)
            || name.ends_with(".safetensors.index.json")
            || name.starts_with("pytorch_model")
    };
    if names.iter().any(|name| of_a_model(name)) {
        return None;
    }
    let base = match AdapterConfig::open(&dir.join(CONFIG)) {
        Ok(config) => config.base,
        Err(error) => return Some(error),
    };
    Some(ConvertError::OnlyAdapter { path: dir.to_owned(), base })
}
