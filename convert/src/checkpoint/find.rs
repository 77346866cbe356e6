//! Which files of a folder are the weights.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use palmtop::model::tensors::HEAD;

use super::foreign;
use crate::error::ConvertError;
use crate::json;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const ADAPTER: &str = "adapter_model.safetensors";

/// The weight files of a checkpoint.
#[derive(Debug, Default)]
pub struct WeightFiles {
    /// In the order of their names.
    pub files: Vec<PathBuf>,
    /// What an index says of them, if there is one.
    pub index: Option<Index>,
    /// What is worth knowing of the choice.
    pub notes: Vec<String>,
}

/// `model.safetensors.index.json`: tensors by their names in the files, with the file of each.
#[derive(Debug)]
pub struct Index {
    path: PathBuf,
    file_of: BTreeMap<String, String>,
}

/// Finds the weight files of a folder: `model.safetensors`, those that an index names, a variant such as
/// `model.fp16.safetensors`, or shards that lie there without an index.
pub fn weight_files(dir: &Path) -> Result<WeightFiles, ConvertError> {
    if !dir.is_dir() {
        let what = foreign::no_folder(dir);
        return Err(ConvertError::NoWeights { path: dir.to_owned(), what });
    }
    weight_files_among(dir, &file_names(dir)?)
}

/// The same for a checkpoint of files with these names, of which weights may be elsewhere. An index is read from `dir`.
pub fn weight_files_among(dir: &Path, names: &[String]) -> Result<WeightFiles, ConvertError> {
    let has = |name: &str| names.iter().any(|n| n == name);
    if has(SINGLE) {
        return Ok(WeightFiles { files: vec![dir.join(SINGLE)], ..WeightFiles::default() });
    }
    if has(INDEX) {
        return of_index(dir, names, dir.join(INDEX));
    }
    let no_weights = |what| ConvertError::NoWeights { path: dir.to_owned(), what };
    let is_index = |n: &&String| n.starts_with("model.safetensors.index.") && n.ends_with(".json");
    if let [index] = names.iter().filter(is_index).collect::<Vec<_>>()[..] {
        let mut found = of_index(dir, names, dir.join(index))?;
        found.notes.push(format!("the folder has no {INDEX}; {index} was read"));
        return Ok(found);
    }
    let weights: Vec<&String> =
        names.iter().filter(|n| n.ends_with(".safetensors") && *n != ADAPTER).collect();
    let note = match &weights[..] {
        [] => return Err(no_weights(foreign::no_weights(dir, names))),
        [one] if shard_number(one).is_none() => format!("the folder has no {SINGLE}; {one} was read"),
        several => {
            let Some(groups) = several.iter().map(|n| shard_number(n)).collect::<Option<Vec<_>>>() else {
                let what = format!(
                    "has several weight files and no index: {}; leave the one to convert, or name it {SINGLE}",
                    crate::error::listed(&several.iter().map(|n| (*n).clone()).collect::<Vec<_>>())
                );
                return Err(no_weights(what));
            };
            complete(dir, &groups)?;
            format!("the folder has no {INDEX}; its {} shards were read", several.len())
        }
    };
    Ok(WeightFiles { files: weights.iter().map(|n| dir.join(n)).collect(), index: None, notes: vec![note] })
}

/// The names of the files in a folder, sorted. Names that are no Unicode are not those of a checkpoint.
pub fn file_names(dir: &Path) -> Result<Vec<String>, ConvertError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(ConvertError::io(dir))? {
        names.extend(entry.map_err(ConvertError::io(dir))?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// What a shard's name says: `model-00002-of-00004.safetensors`.
struct ShardName<'a> {
    before: &'a str,
    number: usize,
    count: usize,
    digits: usize,
    behind: &'a str,
}

impl<'a> ShardName<'a> {
    /// What the shards of one model have in common.
    fn set(&self) -> (&'a str, usize, &'a str) {
        (self.before, self.count, self.behind)
    }
}

fn shard_number(name: &str) -> Option<ShardName<'_>> {
    let (start, rest) = name.split_once("-of-")?;
    let (before, number) = start.rsplit_once('-')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit())?;
    let (count, behind) = rest.split_at(digits);
    Some(ShardName { before, number: number.parse().ok()?, count: count.parse().ok()?, digits, behind })
}

/// An error that names the shards of a set that are not there.
fn complete(dir: &Path, shards: &[ShardName<'_>]) -> Result<(), ConvertError> {
    let first = &shards[0];
    if !shards.iter().all(|s| s.set() == first.set()) {
        let what = "has the shards of several models and no index; leave those of one".to_owned();
        return Err(ConvertError::NoWeights { path: dir.to_owned(), what });
    }
    let there: BTreeSet<usize> = shards.iter().map(|s| s.number).collect();
    // A name can claim any count, so missing files are counted up to a bound.
    let missing = (1..=first.count).filter(|n| !there.contains(n)).take(1000);
    let name = |n| {
        let digits = first.digits;
        format!("{}-{n:0digits$}-of-{:0digits$}{}", first.before, first.count, first.behind)
    };
    let files: Vec<String> = missing.map(name).collect();
    if files.is_empty() {
        return Ok(());
    }
    Err(ConvertError::MissingShards { index: dir.to_owned(), files })
}

fn of_index(dir: &Path, names: &[String], path: PathBuf) -> Result<WeightFiles, ConvertError> {
    let wrong = |what: String| ConvertError::Json { path: path.clone(), what };
    let json = json::read(&path)?;
    let map = json.get("weight_map").and_then(|m| m.as_object());
    let map = map.ok_or_else(|| wrong("has no 'weight_map' from tensors to files".into()))?;
    let mut file_of = BTreeMap::new();
    for (tensor, file) in map {
        let file = file.as_str().filter(|f| is_plain_name(f)).ok_or_else(|| {
            wrong(format!(
                "the index says that tensor '{tensor}' is in {file}, but the folder has no such file"
            ))
        })?;
        file_of.insert(tensor.clone(), file.to_owned());
    }
    let files: BTreeSet<&String> = file_of.values().collect();
    if files.is_empty() {
        return Err(wrong("its 'weight_map' is empty".into()));
    }
    let missing: Vec<String> = files.iter().filter(|f| !names.contains(f)).map(|f| (*f).clone()).collect();
    if !missing.is_empty() {
        return Err(ConvertError::MissingShards { index: path, files: missing });
    }
    // A stale index may name none of the tensors of a shard.
    let sets: BTreeSet<_> = files.iter().filter_map(|f| shard_number(f)).map(|s| s.set()).collect();
    let of_a_set = names.iter().filter(|n| shard_number(n).is_some_and(|s| sets.contains(&s.set())));
    let files: BTreeSet<PathBuf> = files.iter().copied().chain(of_a_set).map(|f| dir.join(f)).collect();
    let files = files.into_iter().collect();
    Ok(WeightFiles { files, index: Some(Index { path, file_of }), notes: Vec::new() })
}

impl Index {
    /// Compares the index with what the files hold: `place` gives the file of a tensor. A tensor in another of the
    /// files is a note; one in none of them is an error, unless it is a head, which may be the embedding.
    pub fn check<'a>(
        &self,
        place: impl Fn(&str) -> Option<&'a Path>,
        notes: &mut Vec<String>,
    ) -> Result<(), ConvertError> {
        let mut moved = Vec::new();
        for (tensor, file) in &self.file_of {
            match place(tensor).map(|p| p.file_name().and_then(|n| n.to_str())) {
                Some(Some(found)) if found == file => {}
                Some(_) => moved.push(format!("'{tensor}'")),
                None if tensor.ends_with(HEAD) => {}
                None => {
                    let what =
                        format!("the index says that tensor '{tensor}' is in {file}, but no file has it");
                    return Err(ConvertError::Json { path: self.path.clone(), what });
                }
            }
        }
        if !moved.is_empty() {
            let name = self.path.file_name().unwrap_or_default().display();
            let listed = crate::error::listed(&moved);
            notes.push(format!("{name} names the wrong file for {listed}; each was found in another"));
        }
        Ok(())
    }
}

/// True for a file name without any folder: an index must not lead out of its checkpoint.
pub fn is_plain_name(file: &str) -> bool {
    let mut parts = Path::new(file).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) && !file.contains('\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_shards_are_understood() {
        let shard = shard_number("model-00002-of-00004.fp16.safetensors").unwrap();
        assert_eq!(
            (shard.before, shard.number, shard.count, shard.behind),
            ("model", 2, 4, ".fp16.safetensors")
        );
        for name in ["model.safetensors", "model-of-.safetensors", "a-x-of-3.safetensors", "-of-", "a-1-of-3"]
        {
            assert!(shard_number(name).is_none(), "{name}");
        }
    }

    #[test]
    fn a_name_that_claims_many_shards_costs_little() {
        let shards = [shard_number("model-1-of-18446744073709551615.safetensors").unwrap()];
        let error = complete(Path::new("."), &shards).unwrap_err().to_string();
        assert!(error.contains("model-00000000000000000002-of-18446744073709551615.safetensors"), "{error}");
    }
}
