//! Opens the files of a checkpoint, which are untrusted, and writes a file of ours, on every system.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use crate::ConvertError;

/// True if there is something of this name, be it a link that leads nowhere.
pub fn is_there(path: &Path) -> bool {
    let absent = |e: std::io::Error| matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
    !path.symlink_metadata().is_err_and(absent)
}

/// Opens a regular file; a pipe or a device would be waited for, perhaps without end.
pub fn open_regular(path: &Path) -> Result<File, ConvertError> {
    if let (false, Ok(to)) = (path.exists(), std::fs::read_link(path)) {
        let what =
            format!("is a link to {}, which is not there: download the checkpoint again", to.display());
        return Err(ConvertError::io(path)(std::io::Error::new(ErrorKind::NotFound, what)));
    }
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

/// What a file is that came in the place of another, by its first bytes, and what to do.
pub fn stand_in(bytes: &[u8]) -> Option<&'static str> {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    let starts = |with: &[u8]| text.get(..with.len()).is_some_and(|t| t.eq_ignore_ascii_case(with));
    if bytes.is_empty() {
        return Some("an empty file: download it again");
    }
    if starts(b"version https://git-lfs.github.com/spec/") {
        return Some(
            "a Git LFS pointer, not the file itself: run `git lfs pull`, or download it with `hf download`",
        );
    }
    if starts(b"<!doctype html") || starts(b"<html") {
        return Some(
            "a web page, not the file itself: download it again, with a token if the model is gated",
        );
    }
    if starts(b"{\"error\"") {
        return Some(
            "a server's error message, not the file itself: download it again, with a token if the model is gated",
        );
    }
    None
}

/// Writes all of `bytes` at `offset`, whatever other threads write elsewhere meanwhile.
pub fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> std::io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::write_all_at(file, bytes, offset);
    // It moves the file's position as well, which nothing here uses.
    #[cfg(windows)]
    return write_by_parts(bytes, offset, |part, at| {
        std::os::windows::fs::FileExt::seek_write(file, part, at)
    });
    #[cfg(not(any(unix, windows)))]
    compile_error!("this system needs a way to write at a place of a file");
}

/// Calls `write` until all is written; it may write less than it is given.
#[cfg(any(windows, test))]
fn write_by_parts(
    mut bytes: &[u8],
    mut offset: u64,
    mut write: impl FnMut(&[u8], u64) -> std::io::Result<usize>,
) -> std::io::Result<()> {
    use std::io::ErrorKind;
    while !bytes.is_empty() {
        match write(bytes, offset) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => (bytes, offset) = (&bytes[n..], offset + n as u64),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;

    #[test]
    fn bytes_are_written_at_their_places() {
        let file = tempfile::tempfile().unwrap();
        write_all_at(&file, b"behind", 6).unwrap();
        write_all_at(&file, b"before", 0).unwrap();
        let mut text = String::new();
        std::io::Seek::rewind(&mut &file).unwrap();
        (&file).read_to_string(&mut text).unwrap();
        assert_eq!(text, "beforebehind");
    }

    #[test]
    fn parts_are_put_together_and_errors_are_passed_on() {
        let mut written = [0; 10];
        let mut calls = 0;
        write_by_parts(b"seven!!", 2, |part, at| {
            calls += 1;
            if calls == 2 {
                return Err(ErrorKind::Interrupted.into());
            }
            let n = part.len().min(3);
            written[at as usize..][..n].copy_from_slice(&part[..n]);
            Ok(n)
        })
        .unwrap();
        assert_eq!((&written[..], calls), (&b"\0\0seven!!\0"[..], 4));
        let full = write_by_parts(b"x", 0, |_, _| Ok(0)).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::WriteZero);
        let broken = write_by_parts(b"x", 0, |_, _| Err(Error::other("broken"))).unwrap_err();
        assert_eq!(broken.to_string(), "broken");
    }
}
