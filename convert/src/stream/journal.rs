//! What of an unfinished target is on the disk, so that another process goes on behind it.
//!
//! The order of writing makes it true: first the target's bytes are written, then synced, and only then is a journal
//! written that speaks of them: to another file, which is synced and takes the journal's name. Whenever a machine loses
//! its power, the journal that is found is whole, and all that it claims is on the disk.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::ConvertError;
use crate::files;
use crate::write::{folder_of, sync_folder};

/// A journal has a line for every tensor.
const BYTES_MAX: u64 = 64 << 20;

/// What is done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Journal {
    /// Of all that says which bytes the target has, but for what is written at the end.
    pub plan: String,
    /// The LM head of the checkpoint differs from its embedding.
    pub own_head: bool,
    /// The weight files, in order.
    pub shards: Vec<Mark>,
    /// Tensors of the target that are whole, by name.
    pub finished: BTreeMap<String, Finished>,
}

/// How far a weight file has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// Its name.
    pub name: String,
    /// Its SHA-256 as the origin has it.
    pub sha256: String,
    /// All that is made of the bytes before this one is on the disk.
    pub position: u64,
    /// The state of the hash behind these bytes.
    pub state: String,
}

/// What is known of a tensor that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// Its checksum in the file's table.
    pub checksum: u64,
    /// Its relative error, if it was made in one go.
    pub relative_error: Option<f64>,
}

impl Journal {
    /// Reads what was left; `None` if there is none, or none that can be read.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&files::read_regular(path, BYTES_MAX).ok()?).ok()
    }

    /// Takes the place of an older one.
    pub fn write(&self, path: &Path) -> Result<(), ConvertError> {
        let next = path.with_extension("next");
        let bytes = serde_json::to_vec(self).expect("numbers and text");
        let write = || {
            let mut file = File::create(&next)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            std::fs::rename(&next, path)
        };
        write().map_err(ConvertError::io(path))?;
        sync_folder(folder_of(path));
        Ok(())
    }
}
