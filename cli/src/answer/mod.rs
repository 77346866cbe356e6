//! `caption`, `ask`, `ocr`, `detect`, `segment` and `run`: the loop over pictures and prompts.

mod answerer;
mod job;
mod subject;
mod together;

use palmtop_present::PassedOver;
use palmtop_present::sources::Source;

use answerer::{Answerer, name_of};
pub use job::Job;
use subject::{Subject, Subjects};
pub use together::TogetherArgs;

use crate::models;
use crate::output::{Console, Printer, say};
use crate::save::Saver;
use crate::{Outcome, interrupt};

/// Answers all prompts about all pictures. A picture that cannot be used is reported, and the rest go on.
pub fn run(job: &Job, console: Console) -> anyhow::Result<Outcome> {
    let subjects = Subjects::of(job)?;
    let sources: Vec<&Source> = subjects.subjects().filter_map(Subject::picture).collect();
    let mut saver = Saver::new(job.task, job.save.as_deref(), job.save_masks.as_deref(), &sources)?;
    let cancel = interrupt::listen()?;
    job.common.model.machine.kernels()?;
    let model = models::open_or_demo(&job.common.model, console)?;
    if model.mask_codec()?.is_none() && job.task == "segment" {
        console.note(
            "note: this model has no mask decoder, so there are boxes only; convert it with --mask-codec",
        );
    }
    let mut answerer = Answerer::new(job, &model, &subjects, cancel.clone(), console)?;
    let count = subjects.entries.len();
    let names = if subjects.slide() { count.max(2) } else { count };
    let Subjects { entries, passed_over } = subjects;
    let mut printer = Printer::new(job.common.json, job.shown, names, job.prompts.len());
    let mut failed = 0;
    for entry in entries {
        if cancel.is_cancelled() {
            return Ok(Outcome::Interrupted);
        }
        let (name, answered) = match entry {
            Ok(Subject::Picture(source)) => {
                saver.begin_picture(&source);
                (source.to_string(), answerer.about_picture(&source, &mut printer, &mut saver))
            }
            Ok(Subject::Together(sources)) => {
                (name_of(&sources), answerer.about_pictures(&sources, &mut printer, &mut saver))
            }
            Ok(Subject::Film(address, frames)) => {
                let answered = answerer.about_film(&address, frames, &mut printer, &mut saver);
                (address.kind.to_string(), answered)
            }
            Err((name, error)) => (name, Err(Failure::Picture(error))),
        };
        match answered {
            Ok(()) => {}
            Err(Failure::Picture(error)) => {
                failed += 1;
                printer.failure(&name, &error)?;
            }
            Err(Failure::Everything(error)) => {
                printer.break_off()?;
                return Err(error);
            }
        }
    }
    if cancel.is_cancelled() {
        return Ok(Outcome::Interrupted);
    }
    if failed > 0 && count > 1 {
        console.note(format_args!("{failed} of {count} pictures could not be used"));
    }
    note_passed_over(&passed_over, console);
    Ok(if failed == 0 { Outcome::Done } else { Outcome::SomeFailed })
}

/// Says which files of folders were not looked at.
pub fn note_passed_over(passed_over: &PassedOver, console: Console) {
    if passed_over.is_empty() {
        return;
    }
    let advice = passed_over.advice().map(|advice| format!("; {advice}")).unwrap_or_default();
    let number = passed_over.count();
    let files = if number == 1 { "file" } else { "files" };
    let text = format!("passed over {number} {files} that palmtop does not read: {passed_over}{advice}");
    // Pictures that nobody looked at are no small matter.
    if passed_over.advice().is_some() { say(format_args!("{text}\n")) } else { console.note(text) }
}

/// Says of a picture that was used as far as it goes.
pub fn note_truncated(name: &str, console: Console) {
    console.note(format_args!("note: {name} ends too early, so some of what is seen is not its own"));
}

/// What can go wrong with a picture.
pub enum Failure {
    /// The picture is at fault: the others may be well.
    Picture(anyhow::Error),
    /// No picture would fare better.
    Everything(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Everything(error)
    }
}
