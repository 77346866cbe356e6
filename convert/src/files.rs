//! Opens the files of a checkpoint, which are untrusted.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::ConvertError;

/// Opens a regular file; a pipe or a device would be waited for, perhaps without end.
pub fn open_regular(path: &Path) -> Result<File, ConvertError> {
    if !std::fs::metadata(path).map_err(ConvertError::io(path))?.is_file() {
        return Err(ConvertError::io(path)(std::io::Error::other("is not a regular file")));
    }
    File::open(path).map_err(ConvertError::io(path))
}

/// Reads a regular file of at most `bytes_max` bytes.
pub fn read_regular(path: &Path, bytes_max: u64) -> Result<Vec<u8>, ConvertError> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(bytes_max + 1).read_to_end(&mut bytes).map_err(ConvertError::io(path))?;
    if bytes.len() as u64 > bytes_max {
        let what = format!("is larger than {} MiB, so it cannot be the right file", bytes_max >> 20);
        return Err(ConvertError::io(path)(std::io::Error::other(what)));
    }
    Ok(bytes)
}
