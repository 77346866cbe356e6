//! A function for each parser of untrusted bytes: it may refuse them, and must not panic, hang or take memory without
//! bound. Where something is accepted, what must then hold is asserted.
//!
//! The fuzz targets call one each; `tests/fuzz_seeds.rs` calls all with the seeds in `fuzz/seeds`.

mod cameras;
mod checkpoints;
mod images;
mod indexes;
mod models;
mod requests;
mod texts;
mod tokenizers;

use std::cell::RefCell;
use std::path::{Path, PathBuf};

pub use cameras::{BYTES_MAX, http, http_given, v4l2};
pub use checkpoints::{adapter, config, example_lines, jax, npz, safetensors};
pub use images::{frames, image, streams};
pub use indexes::index;
pub use models::{head, tokenizer_table};
pub use requests::requests;
pub use texts::{prompts, results};
pub use tokenizers::{added_tokens, tokenizer_json, tokenizer_model};

/// A name, and what is called with bytes.
pub type Parser = (&'static str, fn(&[u8]));

/// All of them, by the names of their targets and of the folders of their seeds.
pub const ALL: [Parser; 20] = [
    ("adapter", adapter),
    ("added_tokens", added_tokens),
    ("config", config),
    ("example_lines", example_lines),
    ("frames", frames),
    ("head", head),
    ("http", http),
    ("image", image),
    ("index", index),
    ("jax", jax),
    ("npz", npz),
    ("prompts", prompts),
    ("requests", requests),
    ("results", results),
    ("safetensors", safetensors),
    ("streams", streams),
    ("tokenizer_json", tokenizer_json),
    ("tokenizer_model", tokenizer_model),
    ("tokenizer_table", tokenizer_table),
    ("v4l2", v4l2),
];

/// Splits what is made of several files at bytes of zero, which none of them has; what is missing is empty.
fn files<const N: usize>(bytes: &[u8]) -> [&[u8]; N] {
    let mut parts = bytes.splitn(N, |&byte| byte == 0);
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// Numbers from bytes; zeros when they are used up.
struct Numbers<'a>(&'a [u8]);

impl<'a> Numbers<'a> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// Usually small, sometimes anything.
    fn number(&mut self) -> usize {
        match self.byte() {
            255 => usize::from_le_bytes(std::array::from_fn(|_| self.byte())),
            254 => usize::from(u16::from_le_bytes([self.byte(), self.byte()])),
            small => usize::from(small),
        }
    }

    /// Some of the bytes, as many as the next two say.
    fn long(&mut self) -> &'a [u8] {
        let bytes = u16::from_le_bytes([self.byte(), self.byte()]);
        let (taken, rest) = self.0.split_at(usize::from(bytes).min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Some of the bytes.
    fn bytes(&mut self) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(self.number().min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// A folder of this thread, without the files of the run before; removed with the thread.
fn in_folder(test: impl FnOnce(&Path)) {
    thread_local! {
        static FOLDER: RefCell<Option<tempfile::TempDir>> = const { RefCell::new(None) };
    }
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| tempfile::tempdir().expect("a folder for temporary files"));
        for entry in std::fs::read_dir(folder.path()).expect("our folder").flatten() {
            std::fs::remove_file(entry.path()).expect("our file");
        }
        test(folder.path());
    });
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("room for temporary files");
    path
}
