//! Checkpoint folders for tests.
#![allow(dead_code)] // each test file is a program of its own and uses a part of this

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use palmtop_convert::{ConvertError, Options, Report, convert};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

pub fn data(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data")).join(path)
}

/// A folder that can be changed: a tiny checkpoint with the tokenizer files beside it.
pub fn checkpoint(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for from in [data("checkpoints").join(name), data("tokenizer")] {
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
    }
    dir
}

pub fn options(recipe: &str) -> Options {
    Options { recipe: recipe.parse().unwrap(), name: Some("test".into()), ..Options::default() }
}

/// Converts with the int8 recipe to a file in `out`.
pub fn try_convert(checkpoint: &Path, out: &Path) -> Result<Report, ConvertError> {
    convert(checkpoint, &out.join("model.palm"), &options("int8"), &())
}

/// The tensors of a safetensors file, to be changed and written again.
pub struct Tensors(pub BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>);

impl Tensors {
    pub fn load(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let one =
            |(name, t): (String, TensorView<'_>)| (name, (t.dtype(), t.shape().to_vec(), t.data().to_vec()));
        Self(file.tensors().into_iter().map(one).collect())
    }

    pub fn save(&self, path: &Path) {
        let views = self.0.iter().map(|(n, (d, s, b))| (n, TensorView::new(*d, s.clone(), b).unwrap()));
        safetensors::serialize_to_file(views, None, path).unwrap();
    }

    /// Renames every tensor.
    pub fn renamed(self, rename: impl Fn(&str) -> String) -> Self {
        Self(self.0.into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect())
    }
}

/// Changes the tensors of a checkpoint of a single file.
pub fn change_tensors(dir: &Path, change: impl FnOnce(&mut Tensors)) {
    let path = dir.join("model.safetensors");
    let mut tensors = Tensors::load(&path);
    change(&mut tensors);
    tensors.save(&path);
}

/// Sets a key of a JSON file; dots lead into objects.
pub fn set_json(path: &Path, key: &str, value: serde_json::Value) {
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut at = &mut json;
    let mut keys = key.split('.').peekable();
    while let Some(key) = keys.next() {
        let map = at.as_object_mut().unwrap();
        if keys.peek().is_none() {
            map.insert(key.to_owned(), value);
            break;
        }
        at = map.entry(key).or_insert_with(|| serde_json::json!({}));
    }
    std::fs::write(path, serde_json::to_vec(&json).unwrap()).unwrap();
}
