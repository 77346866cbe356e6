//! A Hugging Face checkpoint folder: one or several mapped safetensors files.

mod shards;

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};

use palmtop::model::tensors::{HEAD, classic};
use rayon::prelude::*;

use crate::error::{ConvertError, TensorProblems};
use crate::json;
use crate::source::WeightSource;
use shards::{Shards, Tensor};

/// The mapped weights of a checkpoint, found by their classic names.
///
/// The files must not be changed while they are open: they are read through the operating system's mapping.
pub struct Checkpoint {
    shards: Shards,
    tensors: HashMap<String, Tensor>,
    notes: Vec<String>,
}

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

impl Checkpoint {
    /// Maps `model.safetensors`, or the files that `model.safetensors.index.json` names, and reads their
    /// headers.
    pub fn open(dir: &Path) -> Result<Self, ConvertError> {
        let mut out = Self { shards: Shards::default(), tensors: HashMap::new(), notes: Vec::new() };
        if dir.join(SINGLE).exists() {
            out.add_shard(dir.join(SINGLE))?;
        } else if dir.join(INDEX).exists() {
            out.add_index(dir, &dir.join(INDEX))?;
        } else {
            return Err(no_weights(dir));
        }
        Ok(out)
    }

    /// What is worth knowing of how the folder was read, a sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// True if `path` is one of the files that are read.
    pub fn reads(&self, path: &Path) -> bool {
        let canonical = |p: &Path| p.canonicalize().ok();
        canonical(path).is_some_and(|p| self.shards.paths().any(|s| canonical(s) == Some(p.clone())))
    }

    /// Checks that the checkpoint has exactly the tensors `needed` (classic names with shapes).
    pub fn check(&self, needed: &[(String, Vec<usize>)]) -> Result<(), ConvertError> {
        let mut problems = TensorProblems::default();
        let needed: BTreeMap<&str, &[usize]> = needed.iter().map(|(n, s)| (n.as_str(), &s[..])).collect();
        for (name, &shape) in &needed {
            match self.tensors.get(*name) {
                None => problems.missing.push((*name).to_owned()),
                Some(entry) if entry.shape != shape => {
                    problems.misshapen.push((entry.name.clone(), entry.shape.clone(), shape.to_vec()));
                }
                Some(entry) if !entry.is_float() => {
                    problems.unsupported.push((entry.name.clone(), format!("{:?}", entry.dtype)));
                }
                Some(_) => {}
            }
        }
        for (name, entry) in &self.tensors {
            if !needed.contains_key(name.as_str()) && name != HEAD && !is_derived(name) {
                problems.unknown.push(entry.name.clone());
            }
        }
        problems.unknown.sort();
        if problems.is_empty() { Ok(()) } else { Err(ConvertError::Tensors(Box::new(problems))) }
    }

    /// Checks that a head, if the checkpoint has one, is a copy of the embedding (a classic name).
    pub fn check_head(&self, embedding: &str) -> Result<(), ConvertError> {
        let (Some(head), Some(embed)) = (self.tensors.get(HEAD), self.tensors.get(embedding)) else {
            return Ok(());
        };
        if head.shape != embed.shape {
            let problem = (head.name.clone(), head.shape.clone(), embed.shape.clone());
            let problems = TensorProblems { misshapen: vec![problem], ..Default::default() };
            return Err(ConvertError::Tensors(Box::new(problems)));
        }
        if head.dtype == embed.dtype && self.shards.bytes(head) == self.shards.bytes(embed) {
            return Ok(());
        }
        const BLOCK: usize = 1 << 16;
        let values = head.len();
        let difference = (0..values.div_ceil(BLOCK)).into_par_iter().map(|block| {
            let (start, n) = (block * BLOCK, BLOCK.min(values - block * BLOCK));
            let (mut a, mut b) = (vec![0.0; n], vec![0.0; n]);
            self.read(HEAD, start, &mut a)?;
            self.read(embedding, start, &mut b)?;
            Ok((0..n).find(|&i| a[i] != b[i]).map(|i| start + i))
        });
        match difference.find_first(|found| !matches!(found, Ok(None))) {
            None => Ok(()),
            Some(Err(error)) => Err(error),
            Some(Ok(index)) => {
                let index = index.unwrap_or_default();
                Err(ConvertError::UntiedHead { name: head.name.clone(), index })
            }
        }
    }

    fn add_index(&mut self, dir: &Path, index: &Path) -> Result<(), ConvertError> {
        let wrong = |what: String| ConvertError::Json { path: index.to_owned(), what };
        let json = json::read(index)?;
        let map = json.get("weight_map").and_then(|m| m.as_object());
        let map = map.ok_or_else(|| wrong("has no 'weight_map' from tensors to files".into()))?;
        let mut files: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (tensor, file) in map {
            let file = file.as_str().filter(|f| is_plain_name(f)).ok_or_else(|| {
                wrong(format!(
                    "the index says that tensor '{tensor}' is in {file}, but the folder has no such file"
                ))
            })?;
            files.entry(file).or_default().push(tensor);
        }
        if files.is_empty() {
            return Err(wrong("its 'weight_map' is empty".into()));
        }
        let missing: Vec<String> =
            files.keys().filter(|f| !dir.join(f).exists()).map(|f| (*f).to_owned()).collect();
        if !missing.is_empty() {
            return Err(ConvertError::MissingShards { index: index.to_owned(), files: missing });
        }
        for (file, tensors) in files {
            let path = dir.join(file);
            self.add_shard(path.clone())?;
            let absent = tensors
                .iter()
                .find(|t| self.tensors.get(&classic(t)).is_none_or(|t| self.shards.path_of(t) != path));
            if let Some(tensor) = absent {
                return Err(wrong(format!(
                    "the index says that tensor '{tensor}' is in {file}, but it is not"
                )));
            }
        }
        Ok(())
    }

    fn add_shard(&mut self, path: PathBuf) -> Result<(), ConvertError> {
        for tensor in self.shards.add(path)? {
            let name = classic(&tensor.name);
            if let Some(other) = self.tensors.get(&name) {
                let place = |tensor: &Tensor| {
                    let file = self.shards.path_of(tensor).file_name().unwrap_or_default();
                    format!("{}' in '{}", tensor.name, file.display())
                };
                let mut places = [place(other), place(&tensor)];
                places.sort();
                let [first, second] = places;
                return Err(ConvertError::Duplicate { name, first, second });
            }
            self.tensors.insert(name, tensor);
        }
        Ok(())
    }
}

impl WeightSource for Checkpoint {
    fn read(&self, name: &str, start: usize, out: &mut [f32]) -> Result<(), ConvertError> {
        let tensor = self.tensors.get(name).expect("the checkpoint's table has been checked");
        self.shards.read(tensor, start, out)
    }
}

/// Buffers that older versions of transformers saved though they follow from the sizes.
fn is_derived(name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".embeddings.position_ids")
}

/// True for a file name without any folder: an index must not lead out of its checkpoint.
fn is_plain_name(file: &str) -> bool {
    let mut parts = Path::new(file).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) && !file.contains('\\')
}

fn no_weights(dir: &Path) -> ConvertError {
    let what = if dir.is_file() {
        "is a file; name the checkpoint's folder".to_owned()
    } else if !dir.exists() {
        "does not exist".to_owned()
    } else {
        let other = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.file_name());
        let mut other: Vec<_> = other
            .filter_map(|n| n.into_string().ok())
            .filter(|n| [".bin", ".npz", ".gguf", ".pt", ".safetensors"].iter().any(|x| n.ends_with(x)))
            .collect();
        other.sort();
        let hint = if other.is_empty() { String::new() } else { format!(" (it has {})", other.join(", ")) };
        format!("has neither {SINGLE} nor {INDEX}{hint}; save the model with save_pretrained")
    };
    ConvertError::NoWeights { path: dir.to_owned(), what }
}
