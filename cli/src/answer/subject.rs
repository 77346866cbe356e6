//! What prompts are asked about: a picture, several together, or a video.

use std::path::Path;

use anyhow::Context;
use palmtop_present::PassedOver;
use palmtop_present::sources::{self, Source};
use palmtop_watch::film;
use palmtop_watch::source::{Address, Kind};

use super::job::Job;
use super::together::{FRAMES, Frames, Grouping, Step};
use crate::errors::{UsageError, WithHint};

/// What a prompt is asked about.
pub enum Subject {
    Picture(Source),
    Together(Vec<Source>),
    Film(Address, Frames),
}

/// All that prompts are asked about.
pub struct Subjects {
    /// In the order of the command line; a name that stands for nothing has its error in its place.
    pub entries: Vec<Result<Subject, (String, anyhow::Error)>>,
    pub passed_over: PassedOver,
}

impl Subject {
    /// Pictures of a prompt about it, at most.
    fn pictures(&self) -> usize {
        match self {
            Self::Picture(_) => 1,
            Self::Together(sources) => sources.len(),
            Self::Film(_, frames) => frames.count,
        }
    }

    /// The picture, if it is a single one.
    pub fn picture(&self) -> Option<&Source> {
        match self {
            Self::Picture(source) => Some(source),
            Self::Together(_) | Self::Film(..) => None,
        }
    }
}

impl Subjects {
    /// What a job's sources stand for.
    ///
    /// # Errors
    /// If they do not fit what is asked, or stand for nothing.
    pub fn of(job: &Job) -> anyhow::Result<Self> {
        let together = job.together.as_ref();
        let grouping = together.map_or(Ok(Grouping::Each), |together| together.grouping(job.task))?;
        let names = &job.common.sources;
        let subjects = match grouping {
            Grouping::Frames(frames) => {
                let film = |name: &std::path::PathBuf| {
                    let film = address(name).map(|address| Subject::Film(address, frames));
                    film.map_err(|error| (name.display().to_string(), error))
                };
                let mut entries: Vec<_> = names.iter().map(film).collect();
                if let [Err(_)] = entries[..]
                    && let Some(Err((_, error))) = entries.pop()
                {
                    return Err(error);
                }
                Self { entries, passed_over: PassedOver::default() }
            }
            Grouping::Together(number) => {
                let expanded = sources::expand(names, job.common.recursive)?;
                let sources = expanded.entries.into_iter().collect::<Result<Vec<_>, _>>()?;
                if let Some(number) = number.filter(|&number| number != sources.len()) {
                    let what = format!("the preset takes {number} pictures, and not {}", sources.len());
                    return Err(UsageError(what).into());
                }
                Self { entries: vec![Ok(Subject::Together(sources))], passed_over: expanded.passed_over }
            }
            Grouping::Each => {
                let expanded = sources::expand(names, job.common.recursive)?;
                let frames = Frames { count: FRAMES, step: Step::Spread };
                let subject = |source| match source {
                    Source::File(path) if together.is_some() && film::is_one(&path) => {
                        Subject::Film(address_of(&path), frames)
                    }
                    picture => Subject::Picture(picture),
                };
                let entries = expanded.entries.into_iter().map(|entry| {
                    entry.map(subject).map_err(|error| (error.name(), anyhow::Error::from(error)))
                });
                Self { entries: entries.collect(), passed_over: expanded.passed_over }
            }
        };
        let is_several = |subject: &Subject| subject.picture().is_none();
        if subjects.subjects().any(is_several) && (job.save.is_some() || job.save_masks.is_some()) {
            let what = "--save and --save-masks are for prompts about one picture: of several, no answer says which one \
                        a box is in";
            return Err(UsageError(what.into()).into());
        }
        Ok(subjects)
    }

    pub fn subjects(&self) -> impl Iterator<Item = &Subject> {
        self.entries.iter().flatten()
    }

    /// True if a window goes over any of them, so that there are many answers about one.
    pub fn slide(&self) -> bool {
        let slides = |subject: &Subject| {
            matches!(subject, Subject::Film(_, Frames { step: Step::Sliding { .. }, .. }))
        };
        self.subjects().any(slides)
    }

    /// Pictures of a prompt, at most.
    pub fn pictures(&self) -> usize {
        self.subjects().map(Subject::pictures).max().unwrap_or(1)
    }
}

/// The film that a name stands for.
fn address(name: &Path) -> anyhow::Result<Address> {
    if name.is_dir() {
        let what =
            format!("{} is a folder; --together takes its pictures as those of one prompt", name.display());
        return Err(UsageError(what).into());
    }
    if name.exists() {
        return Ok(address_of(name));
    }
    // A pattern, or what is not there, is no address either.
    let text = name.to_str().with_context(|| format!("there is no file {}", name.display()))?;
    let address: Address = text.parse().with_context(|| format!("cannot use {}", name.display()))?;
    match &address.kind {
        Kind::Path(path) if !path.exists() => {
            let error = Err(anyhow::anyhow!("there is no file {}", path.display()));
            if text.contains(['*', '[']) {
                return error
                    .hint("patterns stand for pictures only; without quotes the shell may list the videos");
            }
            error
        }
        _ => Ok(address),
    }
}

fn address_of(path: &Path) -> Address {
    let kind = if path == Path::new("-") { Kind::Stdin } else { Kind::Path(path.to_owned()) };
    Address { kind, size: None, fps: None, format: None, all: true }
}
