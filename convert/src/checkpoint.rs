//! A Hugging Face checkpoint folder: one or several mapped safetensors files.

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use memmap2::Mmap;
use palmtop::model::tensors::{HEAD, classic};
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors};

use crate::error::{ConvertError, TensorProblems};
use crate::files::open_regular;
use crate::json;
use crate::source::WeightSource;

/// The mapped weights of a checkpoint, found by their classic names.
///
/// The files must not be changed while they are open: they are read through the operating system's mapping.
pub struct Checkpoint {
    shards: Vec<Shard>,
    tensors: HashMap<String, Entry>,
}

struct Shard {
    path: PathBuf,
    map: Mmap,
}

struct Entry {
    /// The name in the file.
    name: String,
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Bytes of the shard.
    start: usize,
    end: usize,
}

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

impl Checkpoint {
    /// Maps `model.safetensors`, or the files that `model.safetensors.index.json` names, and reads their
    /// headers.
    pub fn open(dir: &Path) -> Result<Self, ConvertError> {
        let mut out = Self { shards: Vec::new(), tensors: HashMap::new() };
        if dir.join(SINGLE).exists() {
            out.add_shard(dir.join(SINGLE))?;
        } else if dir.join(INDEX).exists() {
            out.add_index(dir, &dir.join(INDEX))?;
        } else {
            return Err(no_weights(dir));
        }
        Ok(out)
    }

    /// True if `path` is one of the files that are read.
    pub fn reads(&self, path: &Path) -> bool {
        let canonical = |p: &Path| p.canonicalize().ok();
        canonical(path).is_some_and(|p| self.shards.iter().any(|s| canonical(&s.path) == Some(p.clone())))
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
                Some(entry) if !matches!(entry.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) => {
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
        if head.dtype == embed.dtype && self.bytes(head) == self.bytes(embed) {
            return Ok(());
        }
        const BLOCK: usize = 1 << 16;
        let values: usize = head.shape.iter().product();
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
            self.add_shard(dir.join(file))?;
            let shard = self.shards.len() - 1;
            let absent = tensors
                .iter()
                .find(|t| self.tensors.get(&classic(t)).is_none_or(|entry| entry.shard != shard));
            if let Some(tensor) = absent {
                return Err(wrong(format!(
                    "the index says that tensor '{tensor}' is in {file}, but it is not"
                )));
            }
        }
        Ok(())
    }

    fn add_shard(&mut self, path: PathBuf) -> Result<(), ConvertError> {
        let file = open_regular(&path)?;
        // SAFETY: the mapping is read-only and lives as long as this struct. If another process shortens
        // the file the system ends this one, as stated above; changed bytes give wrong numbers, and no
        // length or offset is read from the mapping after the header has been checked.
        let map = unsafe { Mmap::map(&file) }.map_err(ConvertError::io(&path))?;
        let wrong = |what| ConvertError::Safetensors { path: path.clone(), what };
        let (header_bytes, header) =
            SafeTensors::read_metadata(&map).map_err(|e| wrong(describe(&e, map.len())))?;
        let shard = self.shards.len();
        for (name, info) in header.tensors() {
            let (start, end) = info.data_offsets;
            // The header's reader has checked that offsets lie in the file and fit shape and type.
            let at = header_bytes + std::mem::size_of::<u64>();
            let entry = Entry {
                name: name.clone(),
                shard,
                dtype: info.dtype,
                shape: info.shape.clone(),
                start: at + start,
                end: at + end,
            };
            let name = classic(&name);
            if let Some(other) = self.tensors.get(&name) {
                let place = |entry: &Entry, path: &Path| {
                    format!("{}' in '{}", entry.name, path.file_name().unwrap_or_default().display())
                };
                let other_path = self.shards.get(other.shard).map_or(&path, |s| &s.path);
                let mut places = [place(other, other_path), place(&entry, &path)];
                places.sort();
                let [first, second] = places;
                return Err(ConvertError::Duplicate { name, first, second });
            }
            self.tensors.insert(name, entry);
        }
        self.shards.push(Shard { path, map });
        Ok(())
    }

    fn bytes(&self, entry: &Entry) -> &[u8] {
        &self.shards[entry.shard].map[entry.start..entry.end]
    }
}

impl WeightSource for Checkpoint {
    fn read(&self, name: &str, start: usize, out: &mut [f32]) -> Result<(), ConvertError> {
        let entry = self.tensors.get(name).expect("the checkpoint's table has been checked");
        let data = self.bytes(entry);
        let size = if entry.dtype == Dtype::F32 { 4 } else { 2 };
        let data = &data[start * size..][..out.len() * size];
        match entry.dtype {
            Dtype::F32 => {
                for (o, b) in out.iter_mut().zip(data.chunks_exact(4)) {
                    *o = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                }
            }
            Dtype::BF16 => {
                for (o, b) in out.iter_mut().zip(data.chunks_exact(2)) {
                    *o = bf16::from_le_bytes([b[0], b[1]]).to_f32();
                }
            }
            _ => {
                let mut block = [f16::ZERO; 256];
                for (o, b) in out.chunks_mut(256).zip(data.chunks(512)) {
                    for (h, b) in block.iter_mut().zip(b.chunks_exact(2)) {
                        *h = f16::from_le_bytes([b[0], b[1]]);
                    }
                    block[..o.len()].convert_to_f32_slice(o);
                }
            }
        }
        const EXPONENT: u32 = 0x7f80_0000;
        if out.iter().fold(false, |bad, v| bad | (v.to_bits() & EXPONENT == EXPONENT)) {
            let at = out.iter().position(|v| !v.is_finite()).expect("one of them is not finite");
            let path = self.shards[entry.shard].path.clone();
            return Err(ConvertError::NotFinite {
                path,
                name: entry.name.clone(),
                index: start + at,
                value: out[at],
            });
        }
        Ok(())
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

fn describe(error: &safetensors::SafeTensorError, bytes: usize) -> String {
    use safetensors::SafeTensorError as E;
    match error {
        E::HeaderTooSmall | E::InvalidHeaderLength => {
            format!("is cut short or not a safetensors file ({bytes} bytes); download it again")
        }
        E::MetadataIncompleteBuffer => {
            format!("its length of {bytes} bytes is not the length that its header states; download it again")
        }
        E::HeaderTooLarge => "is not a safetensors file: its header would be larger than 100 MB".to_owned(),
        other => format!("is not a safetensors file: {other}"),
    }
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
