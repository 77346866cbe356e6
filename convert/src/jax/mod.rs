//! JAX checkpoints of PaliGemma: one `.npz` file, as big_vision writes it and as Kaggle and the hub have it.
//!
//! The file is mapped. Arrays are read where they lie, transposed in blocks of [`BLOCK_ROWS`] rows, of which each
//! thread keeps one: at most 16 · inputs · 4 bytes, 2.4 MB for the largest matrix of the family (36864 inputs).
//!
//! [`layout`] says which array a tensor lies in, [`sizes`] reads the architecture from shapes, [`view`] walks an array
//! in another order.

mod layout;
mod sizes;
mod view;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::Mmap;
use palmtop::model::config::{Config, TokenIds};
use rayon::prelude::*;

use crate::error::TensorProblems;
use crate::files::open_regular;
use crate::npz::archive::{Archive, Content};
use crate::npz::npy::NpyHead;
use crate::npz::{EntryFault, NpyType, NpzError, to_f32};
use crate::source::WeightSource;
use crate::tokenizer::Vocabulary;
use crate::{ConvertError, Progress};
use layout::places;
use view::View;

/// Rows that are transposed at once: those of a stripe, and in f32 a cache line of every row of the array.
const BLOCK_ROWS: usize = 16;

/// Packed arrays must be unpacked in memory: at most 1 GiB of them. What `numpy.savez` writes is not packed.
const UNPACKED_BYTES_MAX: u64 = 1 << 30;

/// A mapped `.npz` file with the arrays of a checkpoint.
///
/// The file must not be changed while it is open: it is read through the operating system's mapping.
pub struct JaxCheckpoint {
    path: PathBuf,
    map: Mmap,
    /// Tells apart what threads keep of several checkpoints.
    id: u64,
    /// By name, without the prefix.
    arrays: HashMap<String, Array>,
    /// By classic name: the array, and the view into it.
    tensors: HashMap<String, (String, View)>,
    config: Config,
}

struct Array {
    dtype: NpyType,
    shape: Vec<usize>,
    values: Values,
}

enum Values {
    /// In the mapped file: all bytes of the entry, their checksum, and where the values begin in them.
    Mapped {
        entry: Range<usize>,
        crc32: u32,
        start: usize,
    },
    Unpacked {
        bytes: Vec<u8>,
        start: usize,
    },
}

impl JaxCheckpoint {
    /// Maps a file and reads its table and the heads of its arrays. `vocabulary` says which token is the picture's.
    pub fn open(path: &Path, vocabulary: &Vocabulary) -> Result<Self, ConvertError> {
        let file = open_regular(path)?;
        // SAFETY: the mapping is read-only and lives as long as this struct. If another process shortens the file the
        // system ends this one, as stated above; changed bytes give wrong numbers, and no length or offset is read
        // from the mapping after table and heads have been checked.
        let map = unsafe { Mmap::map(&file) }.map_err(ConvertError::io(path))?;
        let wrong = |what: String| ConvertError::Jax { path: path.to_owned(), what };
        let arrays = read_heads(&map).map_err(|e| wrong(e.to_string()))?;
        let tokens = tokens(vocabulary).map_err(wrong)?;
        let shape = |key: &str| arrays.get(key).map(|array| &array.shape[..]);
        let (config, vision_layers) = sizes::config(&shape, tokens).map_err(wrong)?;
        config.check().map_err(|(key, what)| wrong(format!("its arrays make no model: '{key}' {what}")))?;
        let rows = config.text.vocab;
        if config.tokens.image as usize > rows {
            let image = config.tokens.image;
            return Err(wrong(format!(
                "the tokenizer gives <image> the id {image}, but the embedding has {rows} rows: they do not belong \
                 together"
            )));
        }

        let places = places(&config, vision_layers);
        let (mut problems, mut used) = (TensorProblems::default(), BTreeSet::new());
        for place in &places {
            if !used.insert(place.key.as_str()) {
                continue;
            }
            match arrays.get(&place.key) {
                None => problems.missing.push(place.key.clone()),
                Some(array) if array.shape != place.shape => {
                    problems.misshapen.push((place.key.clone(), array.shape.clone(), place.shape.clone()));
                }
                Some(_) => {}
            }
        }
        problems.unknown = arrays.keys().filter(|key| !used.contains(key.as_str())).cloned().collect();
        problems.unknown.sort();
        if !problems.is_empty() {
            return Err(wrong(format!("its arrays are not those of a PaliGemma of these sizes: {problems}")));
        }
        let tensors = places.into_iter().map(|place| (place.classic, (place.key, place.view))).collect();
        static OPENED: AtomicU64 = AtomicU64::new(0);
        let id = OPENED.fetch_add(1, Ordering::Relaxed);
        Ok(Self { path: path.to_owned(), map, id, arrays, tensors, config })
    }

    /// The architecture that the arrays' shapes make.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Reads the whole file and compares the checksum of each array, as NumPy does.
    pub fn check_sums(&self, progress: &dyn Progress) -> Result<(), ConvertError> {
        progress.message("comparing checksums");
        for (name, array) in &self.arrays {
            let Values::Mapped { entry, crc32, .. } = &array.values else { continue };
            const BLOCK_BYTES: usize = 16 << 20;
            let sums = self.map[entry.clone()].par_chunks(BLOCK_BYTES).map(|block| {
                let mut sum = crc32fast::Hasher::new();
                sum.update(block);
                (!progress.cancelled()).then_some(sum)
            });
            let sum = sums.reduce(
                || Some(crc32fast::Hasher::new()),
                |first, second| {
                    let mut first = first?;
                    first.combine(&second?);
                    Some(first)
                },
            );
            let sum = sum.ok_or(ConvertError::Cancelled)?.finalize();
            if sum != *crc32 {
                let error = NpzError::Entry { name: name.clone(), fault: EntryFault::Checksum };
                return Err(ConvertError::Jax {
                    path: self.path.clone(),
                    what: format!("{error}; download the file again"),
                });
            }
        }
        Ok(())
    }

    fn values<'a>(&'a self, array: &'a Array) -> &'a [u8] {
        match &array.values {
            Values::Mapped { entry, start, .. } => &self.map[entry.start + start..entry.end],
            Values::Unpacked { bytes, start } => &bytes[*start..],
        }
    }
}

impl WeightSource for JaxCheckpoint {
    fn read(&self, name: &str, start: usize, out: &mut [f32]) -> Result<(), ConvertError> {
        let (key, view) = self.tensors.get(name).expect("the checkpoint's table has been checked");
        let array = &self.arrays[key];
        let (bytes, size) = (self.values(array), array.dtype.bytes());
        let cols = view.col_count();
        let (mut at, mut done) = (start, 0);
        while done < out.len() {
            let (row, col) = (at / cols, at % cols);
            let n = (cols - col).min(out.len() - done);
            let part = &mut out[done..done + n];
            if view.has_whole_rows() {
                to_f32(array.dtype, &bytes[(view.row(row) + col) * size..], part);
            } else {
                with_block((self.id, name), array.dtype, bytes, view, row, |values| {
                    part.copy_from_slice(&values[col..col + n]);
                });
            }
            (at, done) = (at + n, done + n);
        }
        match out.iter().position(|v| !v.is_finite()) {
            None => Ok(()),
            Some(i) => Err(ConvertError::NotFinite {
                path: self.path.clone(),
                name: key.clone(),
                index: view.at(start + i),
                value: out[i],
            }),
        }
    }
}

/// What a thread keeps: some rows of a matrix.
#[derive(Default)]
struct Block {
    checkpoint: u64,
    /// Of the matrix; empty at first.
    name: String,
    first: usize,
    values: Vec<f32>,
}

/// Gives a row of a matrix whose rows are scattered over the array, from a block of rows that the thread keeps.
fn with_block(
    (checkpoint, name): (u64, &str),
    dtype: NpyType,
    bytes: &[u8],
    view: &View,
    row: usize,
    take: impl FnOnce(&[f32]),
) {
    thread_local! {
        static KEPT: RefCell<Block> = RefCell::default();
    }
    KEPT.with_borrow_mut(|kept| {
        let first = row / BLOCK_ROWS * BLOCK_ROWS;
        let cols = view.col_count();
        if (kept.checkpoint, kept.name.as_str(), kept.first) != (checkpoint, name, first) {
            let rows = BLOCK_ROWS.min(view.row_count() - first);
            let starts: Vec<usize> = (first..first + rows).map(|row| view.row(row)).collect();
            kept.values.clear();
            kept.values.resize(rows * cols, 0.0);
            let (out, size) = (&mut kept.values, dtype.bytes());
            let adjacent = starts.iter().zip(starts[0]..).all(|(&start, at)| start == at);
            let mut values = [0.0; BLOCK_ROWS];
            view.each_col(|col, offset| {
                if adjacent {
                    to_f32(dtype, &bytes[(starts[0] + offset) * size..], &mut values[..rows]);
                } else {
                    for (value, start) in values.iter_mut().zip(&starts) {
                        to_f32(dtype, &bytes[(start + offset) * size..], std::slice::from_mut(value));
                    }
                }
                for (row, value) in values[..rows].iter().enumerate() {
                    out[row * cols + col] = *value;
                }
            });
            (kept.checkpoint, kept.first) = (checkpoint, first);
            kept.name.clear();
            kept.name.push_str(name);
        }
        take(&kept.values[(row - first) * cols..][..cols]);
    });
}

/// The JAX checkpoint that a path stands for, if it is one: an archive of arrays, or a folder without safetensors files
/// that has one besides that of the mask decoder.
pub fn file(path: &Path) -> Option<PathBuf> {
    if !path.is_dir() {
        return is_archive(path).then(|| path.to_owned());
    }
    let files: Vec<PathBuf> = std::fs::read_dir(path).ok()?.flatten().map(|entry| entry.path()).collect();
    let of_kind = |kind| {
        move |path: &&PathBuf| path.extension().is_some_and(|extension| extension == kind) && path.is_file()
    };
    if files.iter().any(|path| of_kind("safetensors")(&path)) {
        return None;
    }
    let is_other = |path: &&PathBuf| path.file_name().is_some_and(|name| name != "vae-oid.npz");
    let mut archives = files.iter().filter(of_kind("npz")).filter(is_other);
    archives.next().filter(|_| archives.next().is_none()).cloned()
}

/// True if a file is a zip archive whose first entry is an array; PyTorch's files are archives too.
fn is_archive(path: &Path) -> bool {
    let start = || {
        let mut start = Vec::new();
        open_regular(path).ok()?.take(1 << 16).read_to_end(&mut start).ok()?;
        Some(start)
    };
    let start = start().unwrap_or_default();
    match start.get(26..28) {
        Some(&[low, high]) if start.starts_with(b"PK\x03\x04") => {
            let name_bytes = usize::from(u16::from_le_bytes([low, high]));
            start.get(30..30 + name_bytes).is_some_and(|name| name.ends_with(b".npy"))
        }
        _ => false,
    }
}

/// The arrays of the model, by their names without the prefix. Of a training state only the weights are taken.
fn read_heads(file: &[u8]) -> Result<HashMap<String, Array>, NpzError> {
    let archive = Archive::parse(file)?;
    let begin_with = |prefix: &&&str| archive.entries().iter().any(|entry| entry.name.starts_with(**prefix));
    let prefix = ["params/", "opt/target/params/", "opt/target/"].iter().find(begin_with).unwrap_or(&"");
    let (mut arrays, mut unpacked) = (HashMap::new(), 0);
    for entry in archive.entries() {
        let Some(name) = entry.name.strip_prefix(prefix) else { continue };
        let in_entry = |fault| NpzError::Entry { name: entry.name.clone(), fault };
        let array = match entry.content(file).map_err(in_entry)? {
            Content::Stored(range) => {
                let head = NpyHead::parse(&file[range.clone()]).map_err(in_entry)?;
                let values = Values::Mapped { entry: range, crc32: entry.crc32, start: head.start };
                Array { dtype: head.dtype, shape: head.shape, values }
            }
            Content::Unpacked(bytes) => {
                unpacked += bytes.len() as u64;
                if unpacked > UNPACKED_BYTES_MAX {
                    return Err(NpzError::Packed { bytes_max: UNPACKED_BYTES_MAX });
                }
                if crc32fast::hash(&bytes) != entry.crc32 {
                    return Err(in_entry(EntryFault::Checksum));
                }
                let head = NpyHead::parse(&bytes).map_err(in_entry)?;
                let values = Values::Unpacked { bytes, start: head.start };
                Array { dtype: head.dtype, shape: head.shape, values }
            }
        };
        if arrays.insert(name.to_owned(), array).is_some() {
            return Err(NpzError::Twice { name: entry.name.clone() });
        }
    }
    Ok(arrays)
}

/// The tokens with a meaning, by their pieces.
fn tokens(vocabulary: &Vocabulary) -> Result<TokenIds, String> {
    let id = |text: &str| (0..).zip(&vocabulary.pieces).find(|(_, piece)| *piece == text).map(|(id, _)| id);
    let needed = |text: &str| {
        id(text).ok_or_else(|| format!("the tokenizer has no piece {text}: it is not PaliGemma's"))
    };
    Ok(TokenIds {
        bos: needed("<bos>")?,
        eos: vec![needed("<eos>")?],
        pad: needed("<pad>")?,
        image: needed("<image>")?,
    })
}
