//! Where pictures come from: files, folders, patterns and standard input.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use palmtop::image::{self, ImageError, ImageLimits, RgbImage};

/// Names that pictures in folders end with, in lower case.
const EXTENSIONS: [&str; 6] = ["jpg", "jpeg", "png", "webp", "bmp", "gif"];
/// Folders inside of folders are followed so deep.
const DEPTH_MAX: usize = 64;

/// A picture to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In a file.
    File(PathBuf),
    /// On standard input.
    Stdin,
}

impl Source {
    /// Reads and decodes the picture. Waits as long as whoever writes to a pipe takes.
    ///
    /// # Errors
    /// If it cannot be read, is no picture, or is larger than the limits.
    pub fn decode(&self, limits: &ImageLimits) -> Result<RgbImage, ImageError> {
        match self {
            Self::File(path) => image::decode_file(path, limits),
            Self::Stdin => {
                let mut bytes = Vec::new();
                // One byte more, so that too much is seen to be too much.
                let mut stdin = io::stdin().lock().take(limits.encoded_bytes_max + 1);
                stdin
                    .read_to_end(&mut bytes)
                    .map_err(|source| ImageError::Read { path: "-".into(), source })?;
                image::decode(&bytes, limits)
            }
        }
    }

    /// What files made from this picture are named after.
    pub fn stem(&self) -> String {
        match self {
            Self::File(path) => {
                path.file_stem().unwrap_or(OsStr::new("picture")).to_string_lossy().into_owned()
            }
            Self::Stdin => "stdin".into(),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Stdin => f.write_str("-"),
        }
    }
}

/// Why names stand for no pictures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// `-` is among the names more than once.
    #[error("standard input (-) is given twice, but can be read only once")]
    StdinTwice,
    /// `-` is named, and nothing is piped in.
    #[error("standard input is the keyboard, not a picture")]
    StdinIsTerminal,
    /// There is nothing of this name, which is no pattern.
    #[error("there is no file or folder {}", path.display())]
    NotFound {
        /// The name.
        path: PathBuf,
    },
    /// The folder has no picture.
    #[error("no picture in folder {}", folder.display())]
    NoPicture {
        /// The folder.
        folder: PathBuf,
        /// Whether the folders inside of it were looked through too.
        recursive: bool,
    },
    /// A folder cannot be listed.
    #[error("cannot list folder {}", folder.display())]
    List {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The pattern is malformed.
    #[error("{pattern} is not a valid pattern: {what} (character {position})")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        what: &'static str,
        /// Where, in characters from 0 on.
        position: usize,
    },
    /// No file matches the pattern.
    #[error("no file matches {pattern}")]
    NoMatch {
        /// The pattern.
        pattern: String,
    },
}

/// The pictures that files, folders, patterns and `-` stand for, in the order given; those of a folder sorted. With
/// `recursive` folders inside of folders are looked through too.
///
/// # Errors
/// Every name must stand for at least one picture.
pub fn expand(names: &[PathBuf], recursive: bool) -> Result<Vec<Source>, SourceError> {
    let mut sources = Vec::new();
    for path in names {
        if path == Path::new("-") {
            if sources.contains(&Source::Stdin) {
                return Err(SourceError::StdinTwice);
            }
            if io::stdin().is_terminal() {
                return Err(SourceError::StdinIsTerminal);
            }
            sources.push(Source::Stdin);
        } else if path.is_dir() {
            let mut found = Vec::new();
            list_folder(path, if recursive { DEPTH_MAX } else { 1 }, &mut found)?;
            if found.is_empty() {
                return Err(SourceError::NoPicture { folder: path.clone(), recursive });
            }
            found.sort();
            sources.extend(found.into_iter().map(Source::File));
        } else if path.exists() {
            sources.push(Source::File(path.clone()));
        } else {
            let found = match_pattern(path)?;
            sources.extend(found.into_iter().map(Source::File));
        }
    }
    Ok(sources)
}

fn list_folder(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), SourceError> {
    let cannot = |source| SourceError::List { folder: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        let path = entry.path();
        // Of links only those to files are followed: links to folders can go round in circles.
        if entry.file_type().map_err(cannot)?.is_dir() {
            if depth > 1 {
                list_folder(&path, depth - 1, found)?;
            }
        } else if has_picture_extension(&path) && path.is_file() {
            found.push(path);
        }
    }
    Ok(())
}

/// Whether the name ends as a picture's.
pub fn has_picture_extension(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase);
    extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str()))
}

fn match_pattern(path: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let Some(pattern) = path.to_str().filter(|p| p.contains(['*', '?', '['])) else {
        return Err(SourceError::NotFound { path: path.to_owned() });
    };
    let invalid = |error: glob::PatternError| SourceError::Pattern {
        pattern: pattern.to_owned(),
        what: error.msg,
        position: error.pos,
    };
    let mut found = Vec::new();
    for path in glob::glob(pattern).map_err(invalid)? {
        let path = path
            .map_err(|error| SourceError::List { folder: error.path().to_owned(), source: error.into() })?;
        if path.is_file() {
            found.push(path);
        }
    }
    if found.is_empty() {
        return Err(SourceError::NoMatch { pattern: pattern.to_owned() });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(root: &Path, names: &[&str]) {
        for name in names {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"x").unwrap();
        }
    }

    fn names(root: &Path, argument: &str, recursive: bool) -> Result<Vec<String>, SourceError> {
        let sources = expand(&[root.join(argument)], recursive)?;
        let relative = |s: &Source| s.to_string()[root.to_str().unwrap().len() + 1..].to_owned();
        Ok(sources.iter().map(relative).collect())
    }

    #[test]
    fn folders_are_sorted_and_filtered() {
        let root = tempfile::tempdir().unwrap();
        files(root.path(), &["in/b.PNG", "in/a.jpeg", "in/notes.txt", "in/deep/c.gif", "empty/notes.txt"]);
        assert_eq!(names(root.path(), "in", false).unwrap(), ["in/a.jpeg", "in/b.PNG"]);
        assert_eq!(names(root.path(), "in", true).unwrap(), ["in/a.jpeg", "in/b.PNG", "in/deep/c.gif"]);
        let error = names(root.path(), "empty", false).unwrap_err();
        assert!(error.to_string().starts_with("no picture in folder"), "{error}");
    }

    #[test]
    fn patterns_match_files_and_must_match() {
        let root = tempfile::tempdir().unwrap();
        files(root.path(), &["s1.png", "s2.png", "t.png", "s3.png/inner.txt"]);
        assert_eq!(names(root.path(), "s*.png", false).unwrap(), ["s1.png", "s2.png"]);
        assert!(matches!(names(root.path(), "u*.png", false), Err(SourceError::NoMatch { .. })));
        assert!(matches!(names(root.path(), "u.png", false), Err(SourceError::NotFound { .. })));
        let error = names(root.path(), "***.png", false).unwrap_err();
        assert!(matches!(error, SourceError::Pattern { .. }), "{error}");
    }

    #[test]
    fn a_file_whose_name_looks_like_a_pattern_is_that_file() {
        let root = tempfile::tempdir().unwrap();
        files(root.path(), &["a[1].png"]);
        assert_eq!(names(root.path(), "a[1].png", false).unwrap(), ["a[1].png"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_that_go_round_in_circles_end() {
        let root = tempfile::tempdir().unwrap();
        files(root.path(), &["in/a.png"]);
        std::os::unix::fs::symlink(root.path().join("in"), root.path().join("in/again")).unwrap();
        assert_eq!(names(root.path(), "in", true).unwrap(), ["in/a.png"]);
    }
}
