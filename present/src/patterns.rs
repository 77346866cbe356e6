//! The files that a pattern stands for. Folders are walked here: the crate `glob`, which matches names, panics at one
//! that is not UTF-8 if hidden files are to be left out.

use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};

use glob::Pattern;

use crate::sources::{DEPTH_MAX, SourceError, leads_nowhere};

/// Whether a name has what makes it a pattern.
pub fn is_one(name: &str) -> bool {
    name.contains(['*', '?', '['])
}

/// The files that a pattern stands for, sorted; links that lead nowhere, too. As shells do it, what is hidden must be
/// asked for by a dot; `**` stands for any folders, and at the end for all files in them.
///
/// # Errors
/// If it is malformed, or a folder cannot be listed.
pub fn files(pattern: &str) -> Result<Vec<PathBuf>, SourceError> {
    let invalid = |error: glob::PatternError| SourceError::Pattern {
        pattern: pattern.to_owned(),
        what: error.msg,
        position: error.pos,
    };
    // As a whole, so that the position of an error is that in the whole.
    Pattern::new(pattern).map_err(invalid)?;
    let mut parts = Vec::new();
    for component in Path::new(pattern).components() {
        let name = component.as_os_str().to_str().filter(|name| is_one(name));
        parts.push(match name.filter(|_| matches!(component, Component::Normal(_))) {
            None => Part::Literal(component.as_os_str()),
            Some("**") => Part::Folders,
            Some(name) => Part::Names(Pattern::new(name).map_err(invalid)?, name.starts_with('.')),
        });
    }
    if let Some(Part::Folders) = parts.last() {
        parts.push(Part::Names(Pattern::new("*").map_err(invalid)?, false));
    }
    let mut found = Vec::new();
    follow(Path::new(""), &parts, DEPTH_MAX, &mut found)?;
    found.sort();
    found.dedup();
    Ok(found)
}

/// What stands between two separators.
enum Part<'a> {
    /// This name, or a root.
    Literal(&'a OsStr),
    /// All names that match, and whether hidden ones may.
    Names(Pattern, bool),
    /// Any number of folders inside of each other.
    Folders,
}

/// Finds what the parts stand for below a folder; `**` goes `depth` folders deep.
fn follow(
    base: &Path,
    parts: &[Part<'_>],
    depth: usize,
    found: &mut Vec<PathBuf>,
) -> Result<(), SourceError> {
    let Some((first, rest)) = parts.split_first() else {
        if base.is_file() || leads_nowhere(base) {
            found.push(base.to_owned());
        }
        return Ok(());
    };
    match first {
        Part::Literal(name) => follow(&base.join(name), rest, depth, found),
        Part::Names(pattern, hidden) => {
            for (path, name, _) in list(base)? {
                if (*hidden || !name.starts_with('.')) && pattern.matches(&name) {
                    follow(&path, rest, depth, found)?;
                }
            }
            Ok(())
        }
        Part::Folders => {
            follow(base, rest, depth, found)?;
            // Of links to folders none is followed: they can go round in circles.
            for (path, name, is_folder) in list(base)? {
                if is_folder && depth > 0 && !name.starts_with('.') {
                    follow(&path, parts, depth - 1, found)?;
                }
            }
            Ok(())
        }
    }
}

/// What is in a folder: path, name as far as it is text, and whether it is a folder and no link to one. Nothing is in
/// what is no folder.
fn list(folder: &Path) -> Result<Vec<(PathBuf, String, bool)>, SourceError> {
    let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if !here.is_dir() {
        return Ok(Vec::new());
    }
    let cannot = |source| SourceError::List { folder: folder.to_owned(), source };
    let entry = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.map_err(cannot)?;
        let is_folder = entry.file_type().map_err(cannot)?.is_dir();
        let name = entry.file_name();
        Ok((folder.join(&name), name.to_string_lossy().into_owned(), is_folder))
    };
    fs::read_dir(here).map_err(cannot)?.map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(root: &Path, pattern: &str) -> Vec<String> {
        let found = files(root.join(pattern).to_str().unwrap()).unwrap();
        found.iter().map(|path| path.strip_prefix(root).unwrap().to_string_lossy().into_owned()).collect()
    }

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for name in names {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"x").unwrap();
        }
        root
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        let root =
            folder(&["a/1.png", "a/2.png", "a/.3.png", "a/b/4.png", "a/.c/5.png", "d/6.png", "d/7.jpg"]);
        for (pattern, want) in [
            ("a/?.png", &["a/1.png", "a/2.png"][..]),
            ("a/.*", &["a/.3.png"]),
            ("*/[2-6].png", &["a/2.png", "d/6.png"]),
            ("a/../d/*.jpg", &["a/../d/7.jpg"]),
            ("**/*.png", &["a/1.png", "a/2.png", "a/b/4.png", "d/6.png"]),
            ("a/**", &["a/1.png", "a/2.png", "a/b/4.png"]),
            ("**/**/4.png", &["a/b/4.png"]),
            ("a/.c/*", &["a/.c/5.png"]),
            ("a/1.png/*", &[]),
            ("gone/*", &[]),
        ] {
            assert_eq!(matched(root.path(), pattern), want, "{pattern}");
        }
        for wrong in ["***", "a**", "[a", "x/[a/y"] {
            assert!(matches!(files(wrong), Err(SourceError::Pattern { .. })), "{wrong}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn names_that_are_no_text_match_as_far_as_they_are() {
        use std::os::unix::ffi::OsStrExt;
        let root = folder(&["a.png"]);
        fs::write(root.path().join(OsStr::from_bytes(b"b\xff.png")), b"x").unwrap();
        std::os::unix::fs::symlink(root.path(), root.path().join("round")).unwrap();
        for pattern in ["*.png", "**/*.png"] {
            assert_eq!(matched(root.path(), pattern), ["a.png", "b\u{fffd}.png"], "{pattern}");
        }
    }
}
