//! Answering: a session, the features of pictures, and what is printed and saved of answers.

mod film;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use palmtop::image::{DecodeOptions, Decoded, RgbImage};
use palmtop::model::Model;
use palmtop::session::{
    Answer, CancelToken, GenerateOptions, ImageFeatures, Request, Sampling, Session, StopReason,
};
use palmtop::tasks::{Line, ReadOptions};
use palmtop::{Error, Grammar};
use palmtop_convert::Progress;
use palmtop_present::json::{Timings, stop_name};
use palmtop_present::sources::Source;
use palmtop_present::{Answered, Found, Part};

use super::job::{Job, Prompt};
use super::subject::Subjects;
use super::{Failure, note_truncated};
use crate::args::DecodingArgs;
use crate::interrupt;
use crate::output::{Console, Printer, Shown};
use crate::progress::Bar;
use crate::save::Saver;

/// Prompts are answered together up to this many, unless the user says otherwise.
const BATCH_MAX: usize = 8;
/// Tokens of an answer at most, unless the user says otherwise.
const NEW_TOKENS: usize = 256;
/// Tokens of the last window's answer that are checked at once as a draft of the next one's.
const DRAFT_TOKENS: usize = 8;
/// The memory for prompts is for as many tokens as a prompt has bytes, within these.
const PROMPT_TOKENS: (usize, usize) = (64, 4096);

/// All that answering needs, made once.
pub struct Answerer<'a> {
    job: &'a Job,
    model: &'a Model,
    session: Session,
    /// Features of the pictures of the next prompt, in its order.
    pictures: VecDeque<ImageFeatures>,
    /// Memory for more.
    spare: Vec<ImageFeatures>,
    /// What the prompt's pictures are; if they are more than there are features, these come again from the first on.
    parts: Vec<Part>,
    /// Of a film that is followed, what was answered last to each prompt: the next window shows nearly the same.
    drafts: Vec<Vec<u32>>,
    decode: DecodeOptions,
    options: GenerateOptions,
    batch: usize,
    console: Console,
}

/// Time that pictures took before a prompt about them.
#[derive(Clone, Copy, Default)]
struct Looked {
    decode: Duration,
    encode: Duration,
}

impl<'a> Answerer<'a> {
    /// For prompts about these.
    pub fn new(
        job: &'a Job,
        model: &'a Arc<Model>,
        subjects: &Subjects,
        cancel: CancelToken,
        console: Console,
    ) -> anyhow::Result<Self> {
        let decoding = &job.common.decoding;
        let batch = decoding.batch.map_or(BATCH_MAX, |n| n as usize).min(job.prompts.len());
        let mut limits = job.common.model.machine.limits();
        limits.batch = batch;
        limits.pictures = subjects.pictures();
        limits.draft_tokens = if subjects.slide() { DRAFT_TOKENS } else { 0 };
        limits.filter = job.together.as_ref().and_then(|together| together.filter());
        let texts = job.choices.iter().map(Line::as_str);
        let grammar = (!job.choices.is_empty()).then(|| Grammar::choices(model, texts)).transpose();
        let grammar = grammar.context("cannot choose among these answers")?;
        let new_tokens = grammar.as_ref().and_then(Grammar::tokens_max).unwrap_or(NEW_TOKENS);
        limits.new_tokens = decoding.max_new_tokens.map_or(new_tokens, |n| n as usize);
        // No token is shorter than a byte; begin-of-sequence and the final newline are two more.
        let longest = job.prompts.iter().map(|p| p.text.len() + 2).max().unwrap_or(0);
        limits.prompt_tokens = longest.clamp(PROMPT_TOKENS.0, PROMPT_TOKENS.1);
        let session = Session::new(model, &limits).context("cannot start a session")?;
        let mut options = GenerateOptions::default();
        options.max_new_tokens = Some(limits.new_tokens);
        options.sampling = sampling(decoding);
        options.grammar = grammar;
        options.cancel = cancel;
        let mut decode = DecodeOptions::default();
        decode.allow_truncated = job.common.allow_truncated;
        let spare = vec![session.new_features()?];
        let (pictures, parts, drafts) = (VecDeque::new(), Vec::new(), vec![Vec::new(); job.prompts.len()]);
        Ok(Self { job, model, session, pictures, spare, parts, drafts, decode, options, batch, console })
    }

    /// Answers all prompts about one picture.
    pub fn about_picture(
        &mut self,
        source: &Source,
        printer: &mut Printer,
        saver: &mut Saver,
    ) -> Result<(), Failure> {
        self.forget_pictures();
        let mut looked = Looked::default();
        let picture = self.look_at(source, &mut looked)?;
        printer.begin_picture(&source.to_string())?;
        self.tell_truncated();
        let found = self.answer_all(&source.to_string(), looked, printer, saver)?;
        saver.save_picture(picture, &found, self.console)?;
        Ok(())
    }

    /// Answers all prompts about several pictures together.
    pub fn about_pictures(
        &mut self,
        sources: &[Source],
        printer: &mut Printer,
        saver: &mut Saver,
    ) -> Result<(), Failure> {
        self.forget_pictures();
        let mut looked = Looked::default();
        let bar = Bar::items(self.console, "encoding", None);
        bar.start(sources.len() as u64);
        for source in sources {
            self.look_at(source, &mut looked)?;
            bar.advance(1);
        }
        bar.finish();
        let name = name_of(sources);
        printer.begin_picture(&name)?;
        self.tell_truncated();
        self.answer_all(&name, looked, printer, saver)?;
        Ok(())
    }

    fn forget_pictures(&mut self) {
        self.spare.extend(self.pictures.drain(..));
        self.parts.clear();
    }

    /// Reads a picture and makes it the last one of the next prompt.
    fn look_at(&mut self, source: &Source, looked: &mut Looked) -> Result<RgbImage, Failure> {
        let start = Instant::now();
        let Decoded { image: picture, is_truncated, .. } =
            interrupt::while_reading([source.path()], || source.decode(&self.decode))
                .with_context(|| format!("cannot use picture {source}"))
                .map_err(Failure::Picture)?;
        looked.decode += start.elapsed();
        let size = (picture.width(), picture.height());
        let part = Part { source: source.to_string(), frame: None, size, is_truncated };
        self.encode(&picture, part, usize::MAX, looked)?;
        Ok(picture)
    }

    /// Makes a picture the last one of the next prompt; the first one goes if there are then more than `most`.
    fn encode(
        &mut self,
        picture: &RgbImage,
        part: Part,
        most: usize,
        looked: &mut Looked,
    ) -> Result<(), Failure> {
        self.model.check_unchanged().map_err(|error| Failure::Everything(error.into()))?;
        if self.pictures.len() == most {
            self.spare.extend(self.pictures.pop_front());
            self.parts.remove(0);
        }
        let mut features = match self.spare.pop() {
            Some(features) => features,
            None => self.session.new_features().map_err(anyhow::Error::from)?,
        };
        self.session.encode(picture.view(), &mut features, &self.options).map_err(|error| match error {
            Error::Image(_) => Failure::Picture(
                anyhow::Error::new(error).context(format!("cannot use picture {}", part.source)),
            ),
            _ => Failure::Everything(error.into()),
        })?;
        looked.encode += self.session.timings().encode;
        self.pictures.push_back(features);
        self.parts.push(part);
        Ok(())
    }

    fn tell_truncated(&self) {
        for part in self.parts.iter().filter(|part| part.is_truncated) {
            note_truncated(&part.source, self.console);
        }
    }

    /// Answers all prompts about the pictures at hand; gives the objects found.
    fn answer_all(
        &mut self,
        source: &str,
        looked: Looked,
        printer: &mut Printer,
        saver: &mut Saver,
    ) -> Result<Vec<Found>, Failure> {
        let mut all_found = Vec::new();
        for (index, prompts) in self.job.prompts.chunks(self.batch).enumerate() {
            // A cancelled batch leaves its answers so far; the batches behind it are not begun.
            if index > 0 && self.options.cancel.is_cancelled() {
                break;
            }
            all_found.extend(self.answer(source, looked, index * self.batch, prompts, printer, saver)?);
        }
        Ok(all_found)
    }

    /// Answers prompts together, the job's from `first` on; prints the answers and gives the objects found.
    fn answer(
        &mut self,
        source: &str,
        looked: Looked,
        first: usize,
        prompts: &[Prompt],
        printer: &mut Printer,
        saver: &mut Saver,
    ) -> anyhow::Result<Vec<Found>> {
        let console = self.console;
        let pictures: Vec<&ImageFeatures> = self.pictures.iter().cycle().take(self.parts.len()).collect();
        let requests: Vec<Request<'_>> = prompts
            .iter()
            .zip(&self.drafts[first..])
            .map(|(prompt, draft)| Request { pictures: &pictures, prompt: &prompt.text, draft })
            .collect();
        let mut printed = Ok(());
        self.session.answer_requests(&requests, &self.options, &mut |piece| {
            printed = printer.piece(piece.text);
            if printed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        printed?;
        let mut timings = self.session.timings();
        timings.encode = looked.encode;
        let answers = &self.session.answers()[..prompts.len()];
        // Interrupted before they were begun, answers have nothing to show; if none was begun, there is nothing at all.
        if !answers.iter().any(Answer::is_begun) {
            return Err(Error::Cancelled.into());
        }
        let together: &[Part] = if self.parts.len() > 1 { &self.parts } else { &[] };
        let part = self.parts.first();
        let (size, is_truncated) = part.map_or(((1, 1), false), |part| (part.size, part.is_truncated));
        if self.session.limits().draft_tokens > 0 {
            for (draft, answer) in self.drafts[first..].iter_mut().zip(answers) {
                draft.clone_from(&answer.tokens);
            }
        }
        let mut all_found = Vec::new();
        for (prompt, answer) in prompts.iter().zip(answers).filter(|(_, answer)| answer.is_begun()) {
            // Of several pictures nothing says which one a box is in.
            let mut found = match together {
                [] => read(self.session.model(), answer, size, saver)?,
                _ => Vec::new(),
            };
            let chosen = !self.job.choices.is_empty() && answer.stop == StopReason::EndOfSequence;
            let answered = Answered {
                source,
                task: self.job.task,
                prompt: &prompt.text,
                answer,
                score: chosen.then(|| answer.likelihood()),
                found: &found,
                picture: size,
                is_truncated,
                together,
                timings: &Timings::new(looked.decode, &timings, answer.tokens.len(), prompts.len()),
            };
            printer.answer(&prompt.question, &answered)?;
            if console.verbose && self.job.shown == Shown::Objects {
                console.note(format_args!("{source}: the model wrote {:?}", answer.text));
            }
            if console.verbose {
                console.note(format_args!(
                    "{source}: {}; {} tokens, stopped by {}",
                    answered.timings,
                    answer.tokens.len(),
                    stop_name(answer.stop)
                ));
            }
            all_found.append(&mut found);
        }
        Ok(all_found)
    }
}

/// Names of pictures that belong together, in short.
pub fn name_of(sources: &[Source]) -> String {
    match sources {
        [first, second] => format!("{first} + {second}"),
        [first, rest @ ..] => format!("{first} + {} more", rest.len()),
        [] => String::new(),
    }
}

fn sampling(decoding: &DecodingArgs) -> Sampling {
    Sampling {
        temperature: decoding.temperature.unwrap_or(0.0),
        top_k: decoding.top_k.unwrap_or(0) as usize,
        top_p: decoding.top_p.unwrap_or(0.0),
        seed: decoding.seed,
    }
}

/// The objects of an answer about a picture of this width and height; saves their masks if that is wanted.
fn read(
    model: &Model,
    answer: &Answer,
    picture: (u32, u32),
    saver: &mut Saver,
) -> anyhow::Result<Vec<Found>> {
    let mut options = ReadOptions::default();
    options.masks = true;
    let objects = model.read_answer(answer, picture, &options)?.objects;
    let mut all_found: Vec<Found> = objects.into_iter().map(Found::from).collect();
    for found in &mut all_found {
        if let Some(mask) = &found.detection.mask {
            found.mask_file = saver.save_mask(mask, &found.detection.label)?;
        }
    }
    Ok(all_found)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use palmtop_convert::Options;

    fn data(path: &str) -> PathBuf {
        [env!("CARGO_MANIFEST_DIR"), "../tests/data", path].iter().collect()
    }

    /// A model with a mask decoder, converted in `folder`.
    fn model_with_masks(folder: &std::path::Path) -> Arc<Model> {
        for from in ["checkpoints/tiny1", "tokenizer"] {
            for entry in std::fs::read_dir(data(from)).unwrap() {
                let path = entry.unwrap().path();
                std::fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
            }
        }
        let target = folder.join("model.palm");
        let options = Options { mask_codec: Some(data("vectors/seg/vae-random.npz")), ..Options::default() };
        palmtop_convert::convert(folder, &target, &options, &()).unwrap();
        Model::open(&target).unwrap()
    }

    #[test]
    fn masks_are_painted_and_saved() {
        let folder = tempfile::tempdir().unwrap();
        let model = model_with_masks(folder.path());
        let masks = folder.path().join("masks");
        let mut saver = Saver::new("segment", None, Some(&masks), &[]).unwrap();
        saver.begin_picture(&Source::File("street.jpg".into()));
        let codes: String = (0..16).map(|i| format!("<seg{:03}>", i * 7)).collect();
        let text = format!(
            "<loc0256><loc0128><loc0768><loc0512>{codes} traffic light ; <loc0000><loc0000><loc0001><loc0001> cat"
        );
        let mut answer = Answer::default();
        answer.text = text;
        let found = read(&model, &answer, (200, 100), &mut saver).unwrap();
        assert_eq!(found.len(), 2);
        let mask = found[0].detection.mask.as_ref().unwrap();
        assert_eq!((mask.x(), mask.y(), mask.width(), mask.height()), (25, 25, 75, 50));
        assert!(found[1].detection.mask.is_none());
        let file = masks.join("street.1.traffic-light.png");
        assert_eq!(found[0].mask_file.as_deref(), file.to_str());
        let saved = image::open(&file).unwrap().into_luma8();
        assert_eq!(saved.dimensions(), (200, 100));
        assert_eq!(saved.pixels().filter(|p| p.0 == [255]).count() as u64, mask.area());
    }
}
