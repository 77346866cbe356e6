//! Checkpoint folders for tests.

use std::path::{Path, PathBuf};

use palmtop_convert::{ConvertError, Options, Report, convert};

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

#[allow(dead_code)] // each test file is a program of its own
/// Converts with the int8 recipe to a file in `out`.
pub fn try_convert(checkpoint: &Path, out: &Path) -> Result<Report, ConvertError> {
    convert(checkpoint, &out.join("model.palm"), &options("int8"), &())
}
