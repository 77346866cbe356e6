//! The pictures that the command line names.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use palmtop::image::{self, ImageError, ImageLimits, RgbImage};

use crate::errors::WithHint;
use crate::interrupt;

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
    /// Reads and decodes the picture.
    pub fn decode(&self) -> Result<RgbImage, ImageError> {
        let limits = ImageLimits::default();
        match self {
            Self::File(path) => interrupt::while_waiting(|| image::decode_file(path, &limits)),
            Self::Stdin => {
                let mut bytes = Vec::new();
                // One byte more, so that too much is seen to be too much.
                let mut stdin = std::io::stdin().lock().take(limits.encoded_bytes_max + 1);
                interrupt::while_waiting(|| stdin.read_to_end(&mut bytes))
                    .map_err(|source| ImageError::Read { path: "-".into(), source })?;
                image::decode(&bytes, &limits)
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

/// The pictures that files, folders, patterns and `-` stand for, in the order given; those of a folder sorted.
/// Every argument must stand for at least one.
pub fn expand(arguments: &[PathBuf], recursive: bool) -> anyhow::Result<Vec<Source>> {
    let mut sources = Vec::new();
    for path in arguments {
        if path == Path::new("-") {
            if sources.contains(&Source::Stdin) {
                bail!("standard input (-) is given twice, but can be read only once");
            }
            if std::io::stdin().is_terminal() {
                return Err(anyhow::anyhow!("standard input is the keyboard, not a picture"))
                    .hint("pipe a picture in: palmtop caption - < photo.jpg");
            }
            sources.push(Source::Stdin);
        } else if path.is_dir() {
            let mut found = Vec::new();
            list_folder(path, if recursive { DEPTH_MAX } else { 1 }, &mut found)?;
            if found.is_empty() {
                let hint = if recursive {
                    "palmtop reads JPEG, PNG, WebP, BMP and GIF"
                } else {
                    "palmtop reads JPEG, PNG, WebP, BMP and GIF; --recursive looks into folders inside of it too"
                };
                return Err(anyhow::anyhow!("no picture in folder {}", path.display())).hint(hint);
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

fn list_folder(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let cannot = || format!("cannot list folder {}", folder.display());
    for entry in fs::read_dir(folder).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        let path = entry.path();
        // Of links only those to files are followed: links to folders can go round in circles.
        if entry.file_type().with_context(cannot)?.is_dir() {
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

fn match_pattern(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let Some(pattern) = path.to_str().filter(|p| p.contains(['*', '?', '['])) else {
        return Err(anyhow::anyhow!("there is no file or folder {}", path.display())).hint(
            "SOURCE is a picture, a folder, a pattern such as \"shots/*.png\", or - for standard input",
        );
    };
    let matches = glob::glob(pattern).with_context(|| format!("{pattern} is not a valid pattern"))?;
    let mut found = Vec::new();
    for path in matches {
        let path = path.with_context(|| format!("cannot look for {pattern}"))?;
        if path.is_file() {
            found.push(path);
        }
    }
    if found.is_empty() {
        bail!("no file matches {pattern}");
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

    fn names(root: &Path, argument: &str, recursive: bool) -> anyhow::Result<Vec<String>> {
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
        assert!(names(root.path(), "u*.png", false).is_err());
        assert!(names(root.path(), "u.png", false).is_err());
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
