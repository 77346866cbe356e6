//! Where pictures come from: files, folders, patterns and standard input.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use palmtop::image::{self, DecodeOptions, Decoded, FileKind, ImageError, ImageLimits};

use crate::passed_over::PassedOver;
use crate::patterns;

/// Names that pictures end with, in lower case. In folders, files that are named so are tried even if their content is
/// something else, so that what is wrong with them is said.
const EXTENSIONS: [&str; 10] = ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif", "tif", "tiff"];
/// Folders inside of folders are followed so deep.
pub(crate) const DEPTH_MAX: usize = 64;

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
    pub fn decode(&self, options: &DecodeOptions) -> Result<Decoded, ImageError> {
        image::decode_with(&self.read(&options.limits)?, options)
    }

    /// Reads the picture's bytes, encoded as they are; one more than the limit of what is longer.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&self, limits: &ImageLimits) -> Result<Vec<u8>, ImageError> {
        match self {
            Self::File(path) => image::read_file(path, limits),
            Self::Stdin => {
                let mut bytes = Vec::new();
                // One byte more, so that too much is seen to be too much.
                let mut stdin = io::stdin().lock().take(limits.encoded_bytes_max.saturating_add(1));
                stdin
                    .read_to_end(&mut bytes)
                    .map_err(|source| ImageError::Read { path: "-".into(), source })?;
                Ok(bytes)
            }
        }
    }

    /// The file, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Stdin => None,
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
    #[error("no picture in folder {}{}", folder.display(), in_brackets(.passed_over))]
    NoPicture {
        /// The folder.
        folder: PathBuf,
        /// Whether the folders inside of it were looked through too.
        recursive: bool,
        /// What it has instead.
        passed_over: PassedOver,
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

fn in_brackets(passed_over: &PassedOver) -> String {
    if passed_over.is_empty() { String::new() } else { format!(" (but {passed_over})") }
}

impl SourceError {
    /// The name that stands for no pictures, as the user gave it.
    pub fn name(&self) -> String {
        match self {
            Self::StdinTwice | Self::StdinIsTerminal => "-".into(),
            Self::NotFound { path } => path.display().to_string(),
            Self::NoPicture { folder, .. } | Self::List { folder, .. } => folder.display().to_string(),
            Self::Pattern { pattern, .. } | Self::NoMatch { pattern } => pattern.clone(),
        }
    }
}

/// What names stand for.
#[derive(Debug, Default)]
pub struct Expanded {
    /// The pictures in the order of the names, those of a folder sorted. A name that stands for none has its error in
    /// its place.
    pub entries: Vec<Result<Source, SourceError>>,
    /// What was passed over in folders.
    pub passed_over: PassedOver,
}

impl Expanded {
    /// All pictures.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.entries.iter().flatten()
    }
}

/// The pictures that files, folders, patterns and `-` stand for. Files in folders are told by their content. With
/// `recursive` folders inside of folders are looked through too. What is hidden is passed over without a word.
///
/// # Errors
/// If there is but one name and it stands for no picture, or if standard input cannot be what was meant.
pub fn expand(names: &[PathBuf], recursive: bool) -> Result<Expanded, SourceError> {
    let mut expanded = Expanded::default();
    for path in names {
        if path == Path::new("-") {
            if expanded.sources().any(|source| *source == Source::Stdin) {
                return Err(SourceError::StdinTwice);
            }
            if io::stdin().is_terminal() {
                return Err(SourceError::StdinIsTerminal);
            }
            expanded.entries.push(Ok(Source::Stdin));
            continue;
        }
        match expand_one(path, recursive, &mut expanded.passed_over) {
            Ok(found) => expanded.entries.extend(found.into_iter().map(|path| Ok(Source::File(path)))),
            Err(error) if names.len() == 1 => return Err(error),
            Err(error) => expanded.entries.push(Err(error)),
        }
    }
    Ok(expanded)
}

fn expand_one(
    path: &Path,
    recursive: bool,
    passed_over: &mut PassedOver,
) -> Result<Vec<PathBuf>, SourceError> {
    if path.is_dir() {
        let mut found = Vec::new();
        let mut others = PassedOver::default();
        list_folder(path, if recursive { DEPTH_MAX } else { 1 }, &mut found, &mut others)?;
        if found.is_empty() {
            return Err(SourceError::NoPicture { folder: path.to_owned(), recursive, passed_over: others });
        }
        passed_over.append(others);
        found.sort();
        return Ok(found);
    }
    // A name is a pattern only if nothing has it, be it a link that leads nowhere.
    if path.symlink_metadata().is_ok() { Ok(vec![path.to_owned()]) } else { match_pattern(path) }
}

fn list_folder(
    folder: &Path,
    depth: usize,
    found: &mut Vec<PathBuf>,
    passed_over: &mut PassedOver,
) -> Result<(), SourceError> {
    let cannot = |source| SourceError::List { folder: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        // This is also how Macs name what they note about a file.
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        // Of links only those to files are followed: links to folders can go round in circles.
        if entry.file_type().map_err(cannot)?.is_dir() {
            if depth > 1 {
                list_folder(&path, depth - 1, found, passed_over)?;
            }
        } else if path.is_file() {
            match kind_of(&path) {
                FileKind::Picture => found.push(path),
                _ if has_picture_extension(&path) => found.push(path),
                kind => passed_over.push(&path, kind),
            }
        } else if leads_nowhere(&path) && has_picture_extension(&path) {
            found.push(path);
        }
    }
    Ok(())
}

/// What a file is by its first bytes; unknown if it cannot be read. A pipe would lose them.
pub fn kind_of(path: &Path) -> FileKind {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(FileKind::BYTES as u64).read_to_end(&mut bytes)) {
        Ok(_) => FileKind::of(&bytes),
        Err(_) => FileKind::Unknown,
    }
}

pub(crate) fn leads_nowhere(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink()) && !path.exists()
}

/// Whether the name ends as a picture's.
fn has_picture_extension(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase);
    extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str()))
}

fn match_pattern(path: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let Some(pattern) = path.to_str().filter(|name| patterns::is_one(name)) else {
        return Err(SourceError::NotFound { path: path.to_owned() });
    };
    match patterns::files(pattern)? {
        found if found.is_empty() => Err(SourceError::NoMatch { pattern: pattern.to_owned() }),
        found => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
    const HEIC: &[u8] = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic";

    fn files(root: &Path, names: &[&str], bytes: &[u8]) {
        for name in names {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    fn names(root: &Path, argument: &str, recursive: bool) -> Result<Vec<String>, SourceError> {
        let expanded = expand(&[root.join(argument)], recursive)?;
        let relative = |s: &Source| s.to_string()[root.to_str().unwrap().len() + 1..].to_owned();
        Ok(expanded.sources().map(relative).collect())
    }

    #[test]
    fn folders_are_sorted_and_filtered() {
        let root = tempfile::tempdir().unwrap();
        let named = ["in/b.PNG", "in/a.jpeg", "in/notes.txt", "in/deep/c.gif", "in/d.JPE", "empty/notes.txt"];
        files(root.path(), &named, b"x");
        assert_eq!(names(root.path(), "in", false).unwrap(), ["in/a.jpeg", "in/b.PNG", "in/d.JPE"]);
        assert_eq!(names(root.path(), "in", true).unwrap().last().unwrap(), "in/deep/c.gif");
        let error = names(root.path(), "empty", false).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("no picture in folder {} (but 1 .txt)", root.path().join("empty").display())
        );
    }

    #[test]
    fn pictures_in_folders_are_told_by_content() {
        let root = tempfile::tempdir().unwrap();
        files(root.path(), &["in/a", "in/b.heic", "in/c.txt"], PNG);
        files(root.path(), &["in/d.HEIC", "in/e.heic", "in/f"], HEIC);
        files(root.path(), &["in/g"], b"");
        files(root.path(), &["in/._a.png", "in/.h.png", "in/.hidden/i.png"], PNG);
        assert_eq!(names(root.path(), "in", true).unwrap(), ["in/a", "in/b.heic", "in/c.txt"]);
        let expanded = expand(&[root.path().join("in")], true).unwrap();
        assert_eq!(expanded.passed_over.to_string(), "3 HEIC, 1 empty");
        assert_eq!(expanded.passed_over.count(), 4);
        assert!(expanded.passed_over.advice().unwrap().contains("heif-convert"));
    }

    #[test]
    fn patterns_match_files_and_must_match() {
        let root = tempfile::tempdir().unwrap();
        files(root.path(), &["s1.png", "s2.png", "t.png", "s3.png/inner.txt", "._s1.png"], b"x");
        assert_eq!(names(root.path(), "s*.png", false).unwrap(), ["s1.png", "s2.png"]);
        assert_eq!(names(root.path(), "*1.png", false).unwrap(), ["s1.png"]);
        assert!(matches!(names(root.path(), "u*.png", false), Err(SourceError::NoMatch { .. })));
        assert!(matches!(names(root.path(), "u.png", false), Err(SourceError::NotFound { .. })));
        let error = names(root.path(), "***.png", false).unwrap_err();
        assert!(matches!(error, SourceError::Pattern { .. }), "{error}");
    }

    #[test]
    fn of_many_names_those_that_stand_for_nothing_do_not_end_it() {
        let root = tempfile::tempdir().unwrap();
        files(root.path(), &["a.png", "empty/notes.txt"], b"x");
        let paths = ["gone.png", "a.png", "gone*", "empty"].map(|name| root.path().join(name));
        let expanded = expand(&paths, false).unwrap();
        assert_eq!(expanded.sources().count(), 1);
        let names: Vec<_> = expanded
            .entries
            .iter()
            .map(|e| e.as_ref().map_or_else(SourceError::name, Source::to_string))
            .collect();
        assert_eq!(names, paths.map(|path| path.display().to_string()));
    }

    #[test]
    fn a_file_whose_name_looks_like_a_pattern_is_that_file() {
        let root = tempfile::tempdir().unwrap();
        files(root.path(), &["a[1].png", "b1.png"], b"x");
        assert_eq!(names(root.path(), "a[1].png", false).unwrap(), ["a[1].png"]);
        assert_eq!(names(root.path(), "b[1].png", false).unwrap(), ["b1.png"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_that_lead_nowhere_are_names_too() {
        let root = tempfile::tempdir().unwrap();
        files(root.path(), &["in/b1.png"], b"x");
        for name in ["b[1].png", "gone.png"] {
            std::os::unix::fs::symlink("nowhere.png", root.path().join("in").join(name)).unwrap();
        }
        assert_eq!(names(root.path(), "in/b[1].png", false).unwrap(), ["in/b[1].png"]);
        assert_eq!(names(root.path(), "in", false).unwrap(), ["in/b1.png", "in/b[1].png", "in/gone.png"]);
        assert_eq!(names(root.path(), "in/g*", false).unwrap(), ["in/gone.png"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_that_go_round_in_circles_end() {
        let root = tempfile::tempdir().unwrap();
        files(root.path(), &["in/a.png"], b"x");
        std::os::unix::fs::symlink(root.path().join("in"), root.path().join("in/again")).unwrap();
        assert_eq!(names(root.path(), "in", true).unwrap(), ["in/a.png"]);
    }
}
