//! Shows errors to the user: what failed, why, and what to do about it.

use std::error::Error;
use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

use palmtop::format::FormatError;
use palmtop::image::{FileKind, ImageError};
use palmtop_convert::ConvertError;
use palmtop_hub::{HubError, LibraryError, published};
use palmtop_present::sources::{SourceError, kind_of};
use palmtop_retrieval::{Defect, IndexError};
use palmtop_watch::film::FilmError;

use crate::convert::shell_word;
use crate::interrupt;
use crate::output::say;

/// The reader of stdout has closed it.
#[derive(Debug)]
pub struct StdoutClosed;

impl fmt::Display for StdoutClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody reads the output any more")
    }
}

impl Error for StdoutClosed {}

/// Adds what the user can do about an error.
pub trait WithHint<T> {
    /// Shows `hint` below the error.
    fn hint(self, hint: impl Into<String>) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> WithHint<T> for Result<T, E> {
    fn hint(self, hint: impl Into<String>) -> anyhow::Result<T> {
        self.map_err(|error| Hinted { error: error.into(), hint: hint.into() }.into())
    }
}

/// An error and what can be done about it. Reads as the error itself.
#[derive(Debug)]
struct Hinted {
    error: anyhow::Error,
    hint: String,
}

impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for Hinted {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.chain().nth(1)
    }
}

/// The command line asks for something that does not fit together, beyond what clap can see.
#[derive(Debug)]
pub struct UsageError(pub String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for UsageError {}

/// Tells the user on stderr why the program failed; gives its exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if error.is::<StdoutClosed>() {
        // Whoever read the output (`| head`) has seen enough.
        return ExitCode::SUCCESS;
    }
    if error.chain().any(is_cancellation) {
        return ExitCode::from(interrupt::EXIT_CODE);
    }
    say(explain(error));
    if error.is::<UsageError>() { ExitCode::from(2) } else { ExitCode::FAILURE }
}

/// The lines that tell the user about an error.
pub fn explain(error: &anyhow::Error) -> String {
    let mut causes = causes(error).into_iter();
    let mut text = format!("error: {}\n", causes.next().unwrap_or_default());
    for cause in causes {
        text += &format!("  because: {cause}\n");
    }
    if let Some(hint) = hint(error) {
        text += &format!("hint: {hint}\n");
    }
    text
}

/// The error in one line, as in JSON.
pub fn in_one_line(error: &anyhow::Error) -> String {
    causes(error).join(": ")
}

/// What went wrong and why, outermost first. An error that only passes on its source's words is left out.
fn causes(error: &anyhow::Error) -> Vec<String> {
    let mut causes: Vec<String> = Vec::new();
    for cause in error.chain().map(ToString::to_string) {
        match causes.last() {
            Some(last) if *last == cause => {}
            // Its words end with those of its source already.
            Some(last) if last.ends_with(&format!(": {cause}")) => {}
            _ => causes.push(cause),
        }
    }
    causes
}

fn is_cancellation(error: &(dyn Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(palmtop::Error::Cancelled))
        || matches!(error.downcast_ref(), Some(HubError::Cancelled))
        || matches!(error.downcast_ref(), Some(ConvertError::Cancelled))
        || matches!(error.downcast_ref(), Some(IndexError::Cancelled))
}

fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|error| {
        if let Some(hinted) = error.downcast_ref::<Hinted>() {
            return Some(hinted.hint.clone());
        }
        if let Some(FormatError::Magic(_)) = error.downcast_ref() {
            return Some(
                "get a model file: palmtop pull paligemma2-3b-mix-224, or palmtop convert CHECKPOINT_DIR -o model.palm"
                    .into(),
            );
        }
        if let Some(error) = error.downcast_ref::<HubError>()
            && let Some(hint) = error.hint()
        {
            return Some(hint);
        }
        if let Some(error) = error.downcast_ref()
            && let Some(hint) = hint_for_index(error)
        {
            return Some(hint);
        }
        if let Some(palmtop::Error::Usage(palmtop::UsageError::NoRetrieval)) = error.downcast_ref() {
            return Some(NO_RETRIEVAL.into());
        }
        if let Some(LibraryError::Unknown { name, .. }) = error.downcast_ref() {
            return Some(hint_for_name(name));
        }
        if let Some(error) = error.downcast_ref() {
            return hint_for_source(error);
        }
        if let Some(error) = error.downcast_ref() {
            return hint_for_film(error);
        }
        if let Some(error) = error.downcast_ref()
            && let Some(hint) = hint_for_image(error)
        {
            return Some(hint);
        }
        match error.downcast_ref::<std::io::Error>()?.kind() {
            ErrorKind::StorageFull => Some("make room on the disk, or write somewhere else".into()),
            ErrorKind::PermissionDenied => Some("check who may read or write there".into()),
            ErrorKind::ReadOnlyFilesystem => Some("write somewhere else".into()),
            _ => None,
        }
    })
}

/// How a model of this name is to be had.
fn hint_for_name(name: &str) -> String {
    let near = published::nearest(name);
    match near.first() {
        _ if name.contains('/') => format!("if it is a repository of the hub, get it: palmtop pull {name}"),
        Some(one) if one == name => format!("get it: palmtop pull {name}"),
        Some(one) => format!("palmtop models lists all; palmtop pull {one} gets that one"),
        None => "palmtop models lists those that are here, and those that palmtop pull gets".to_owned(),
    }
}

/// What to do about a model that makes no vectors.
const NO_RETRIEVAL: &str = "convert a checkpoint of ColPali, such as vidore/colpali-v1.3-hf: palmtop convert \
                            CHECKPOINT_DIR -o colpali.palm (docs/retrieval.md)";

fn hint_for_index(error: &IndexError) -> Option<String> {
    match error {
        IndexError::Busy { .. } => {
            Some("wait until that one is done, or stop it; what it has added can be found already".into())
        }
        IndexError::Io { source, .. } if source.kind() == ErrorKind::NotFound => {
            Some("an index is made by palmtop embed: palmtop embed pages/ -o INDEX".into())
        }
        IndexError::Io { source, .. } if source.kind() == ErrorKind::IsADirectory => {
            Some("name the file that palmtop embed has made".into())
        }
        IndexError::File { path, source: Defect::Magic } => Some(format!(
            "an index is made by palmtop embed; if {} is something else, choose another name",
            path.display()
        )),
        IndexError::File { path, source: Defect::Damaged { .. } | Defect::Cut { .. } } => Some(format!(
            "palmtop embed --compact -o {} keeps the pages that are whole; then embed the pages again, and those that were \
             lost are made anew",
            shell_word(&path.display().to_string())
        )),
        _ => None,
    }
}

fn hint_for_source(error: &SourceError) -> Option<String> {
    const FORMATS: &str = "palmtop reads JPEG, PNG, WebP, BMP, GIF and TIFF";
    match error {
        SourceError::StdinIsTerminal => Some("pipe a picture in: palmtop caption - < photo.jpg".into()),
        SourceError::NotFound { path } if path.to_string_lossy().contains("://") => Some(
            "of a camera or a stream, palmtop caption, ask and run take frames: --frames 8 --stride 15"
                .into(),
        ),
        SourceError::NoMatch { pattern } if is_video_with_settings(pattern) => {
            Some("settings behind a name are for videos: add --frames 8".into())
        }
        SourceError::NotFound { .. } => Some(
            "SOURCE is a picture, a folder, a pattern such as \"shots/*.png\", or - for standard input"
                .into(),
        ),
        SourceError::NoPicture { passed_over, recursive, .. } => {
            let advice = passed_over.advice().map(|advice| format!("; {advice}")).unwrap_or_default();
            let deeper = if *recursive { "" } else { "; --recursive looks into folders inside of it too" };
            Some(format!("{FORMATS}{advice}{deeper}"))
        }
        _ => None,
    }
}

/// A file's name with settings of a source behind it, such as `clip.mp4?fps=2`: also a pattern, which nothing matches.
fn is_video_with_settings(name: &str) -> bool {
    name.split_once('?').is_some_and(|(file, settings)| settings.contains('=') && Path::new(file).is_file())
}

fn hint_for_film(error: &FilmError) -> Option<String> {
    match error {
        FilmError::NoLength { .. } => Some("say how far apart its frames are, such as --stride 15".into()),
        FilmError::Empty { source_name, .. } if source_name == "-" => Some(
            "through a pipe come Motion JPEG and YUV4MPEG2: ffmpeg -i clip.mp4 -f mjpeg - | palmtop caption - --frames 8 \
             --stride 15"
                .into(),
        ),
        FilmError::Empty { source_name, .. } => {
            let path = Path::new(source_name);
            match path.is_file().then(|| kind_of(path))? {
                FileKind::Empty => Some("it has no bytes: was it written or sent completely?".into()),
                FileKind::Picture => Some("it is a picture: leave out --frames, --stride and --slide".into()),
                kind if kind.is_video() => None,
                _ => Some(
                    "videos are Motion JPEG, YUV4MPEG2, MP4, Matroska, AVI, MPEG and Flash, told apart by content".into(),
                ),
            }
        }
        _ => None,
    }
}

fn hint_for_image(error: &ImageError) -> Option<String> {
    match error {
        ImageError::Truncated { .. } => {
            Some("--allow-truncated answers about what is there, if that is enough".into())
        }
        ImageError::UnknownFormat { kind } if kind.is_video() => Some(
            "palmtop caption, ask and run answer about frames of a video: --frames 8; with --stride 15 also of one that \
             comes through a pipe"
                .into(),
        ),
        ImageError::Read { path, source } if source.kind() == ErrorKind::NotFound => {
            let target = path.read_link().ok()?;
            Some(format!("it is a link to {}, where there is nothing", target.display()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn the_chain_reads_once_and_the_hint_last() {
        let result: anyhow::Result<()> = Err(anyhow!("no such file")).context("cannot open x");
        let error = result.hint("look elsewhere").context("cannot answer").unwrap_err();
        assert_eq!(
            explain(&error),
            "error: cannot answer\n  because: cannot open x\n  because: no such file\nhint: look elsewhere\n"
        );
        assert_eq!(in_one_line(&error), "cannot answer: cannot open x: no such file");
    }

    #[test]
    fn words_are_not_repeated() {
        let error = anyhow!("disk full").context("cannot write: disk full");
        assert_eq!(explain(&error), "error: cannot write: disk full\n");
    }
}
