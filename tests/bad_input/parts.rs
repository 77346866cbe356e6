//! A model file taken apart, so that it can be put together wrong.

use std::error::Error as _;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use palmtop::format::{Head, Metadata, Storage, TensorInfo, checksum};
use palmtop::{Error, Model};
use palmtop_kernels::layout::WeightFormat;
use palmtop_tests::{converted, uniform};
use tempfile::TempDir;

/// A model file taken apart, to be put together again with something wrong in it.
#[derive(Clone)]
pub struct Parts {
    pub metadata: Metadata,
    /// Entry and data; offset, length and checksum of the entry are made anew.
    pub tensors: Vec<(TensorInfo, Vec<u8>)>,
}

impl Parts {
    pub fn of(file: &[u8]) -> Self {
        let head = Head::parse(file).expect("a sound file");
        let data = |t: &TensorInfo| file[t.offset as usize..][..t.length as usize].to_vec();
        Self {
            metadata: head.metadata,
            tensors: head.tensors.into_iter().map(|t| (t.clone(), data(&t))).collect(),
        }
    }

    /// tiny1 in int8.
    pub fn tiny() -> Self {
        Self::of(tiny())
    }

    pub fn tensor(&mut self, name: &str) -> &mut (TensorInfo, Vec<u8>) {
        self.tensors.iter_mut().find(|(t, _)| t.name == name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    pub fn remove(&mut self, name: &str) {
        self.tensors.retain(|(t, _)| t.name != name);
    }

    /// Gives a tensor another storage and shape, and zeros for data.
    pub fn replace(&mut self, name: &str, storage: Storage, shape: &[usize]) {
        let info = TensorInfo::new(name, storage, shape).expect("a possible shape");
        let zeros = vec![0; info.length as usize];
        *self.tensor(name) = (info, zeros);
    }

    /// A file with right offsets, lengths and checksums.
    pub fn file(&self) -> Vec<u8> {
        let tensors = self.tensors.iter().map(|(t, data)| TensorInfo {
            length: data.len() as u64,
            checksum: checksum(data),
            ..t.clone()
        });
        let mut head = Head { metadata: self.metadata.clone(), tensors: tensors.collect() };
        let length = head.place();
        let mut file = head.encode();
        file.resize(length as usize, 0);
        for (t, (_, data)) in head.tensors.iter().zip(&self.tensors) {
            file[t.offset as usize..][..data.len()].copy_from_slice(data);
        }
        file
    }
}

/// The bytes of tiny1 in int8.
pub fn tiny() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| bytes_of("tiny1", WeightFormat::Int8))
}

pub fn bytes_of(checkpoint: &str, format: WeightFormat) -> Vec<u8> {
    std::fs::read(&converted(checkpoint, uniform(format)).path).expect("a file just converted")
}

/// A file that lives as long as this.
pub struct Written {
    pub path: PathBuf,
    pub _dir: TempDir,
}

pub fn write(bytes: &[u8]) -> Written {
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    let path = dir.path().join("bad.palm");
    std::fs::write(&path, bytes).expect("writing a small file");
    Written { path, _dir: dir }
}

pub fn open(bytes: &[u8]) -> Result<Arc<Model>, Error> {
    Model::open(&write(bytes).path)
}

/// The text of the error that opening must give, causes included.
pub fn refusal(what: &str, opened: Result<Arc<Model>, Error>) -> String {
    let error = opened.err().unwrap_or_else(|| panic!("{what}: the file was taken"));
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

pub fn assert_refused(what: &str, bytes: &[u8], says: &str) {
    let got = refusal(what, open(bytes));
    assert!(got.contains(says), "{what}: {got:?} does not say {says:?}");
}

pub fn tensor_names(parts: &Parts) -> Vec<String> {
    parts.tensors.iter().map(|(t, _)| t.name.clone()).collect()
}
