//! `caption`, `ask`, `ocr`, `detect`, `segment` and `run`: the loop over pictures and prompts.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use palmtop::Grammar;
use palmtop::ImageFeatures;
use palmtop::image::{DecodeOptions, Decoded, RgbImage};
use palmtop::model::Model;
use palmtop::session::{Answer, CancelToken, GenerateOptions, Sampling, Session, StopReason};
use palmtop::tasks::{Label, Line, ReadOptions, Task};
use palmtop_present::json::{Timings, stop_name};
use palmtop_present::sources::{self, Source};
use palmtop_present::{Answered, Found};

use crate::args::{
    AnswerArgs, AskArgs, CaptionArgs, DecodingArgs, DetectArgs, Labels, OcrArgs, RunArgs, SegmentArgs, Style,
};
use crate::models;
use crate::output::{Console, Printer, Shown, say};
use crate::save::Saver;
use crate::{Outcome, interrupt};

/// Prompts are answered together up to this many, unless the user says otherwise.
const BATCH_MAX: usize = 8;
/// Tokens of an answer at most, unless the user says otherwise.
const NEW_TOKENS: usize = 256;
/// The memory for prompts is for as many tokens as a prompt has bytes, within these.
const PROMPT_TOKENS: (usize, usize) = (64, 4096);

/// What one of the commands asks for.
pub struct Job {
    task: &'static str,
    prompts: Vec<Prompt>,
    /// All that answers may be; anything if empty.
    choices: Vec<Line>,
    shown: Shown,
    common: AnswerArgs,
    save: Option<PathBuf>,
    save_masks: Option<PathBuf>,
}

struct Prompt {
    /// What the user asked.
    question: String,
    /// What the model is given.
    text: String,
}

/// Answers all prompts about all pictures. A picture that cannot be used is reported, and the rest go on.
pub fn run(job: &Job, console: Console) -> anyhow::Result<Outcome> {
    let expanded = sources::expand(&job.common.sources, job.common.recursive)?;
    let sources: Vec<&Source> = expanded.sources().collect();
    let mut saver = Saver::new(job.task, job.save.as_deref(), job.save_masks.as_deref(), &sources)?;
    let cancel = interrupt::listen()?;
    job.common.model.machine.kernels()?;
    let model = models::open_or_demo(&job.common.model, console)?;
    if model.mask_codec()?.is_none() && job.task == "segment" {
        console.note(
            "note: this model has no mask decoder, so there are boxes only; convert it with --mask-codec",
        );
    }
    let mut answerer = Answerer::new(job, &model, cancel.clone())?;
    let count = expanded.entries.len();
    let mut printer = Printer::new(job.common.json, job.shown, count, job.prompts.len());
    let mut failed = 0;
    for entry in expanded.entries {
        if cancel.is_cancelled() {
            return Ok(Outcome::Interrupted);
        }
        let (name, answered) = match entry {
            Ok(source) => {
                saver.begin_picture(&source);
                (source.to_string(), answerer.answer_all(&source, &mut printer, &mut saver, console))
            }
            Err(error) => (error.name(), Err(Failure::Picture(error.into()))),
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
    if !expanded.passed_over.is_empty() {
        let passed_over = &expanded.passed_over;
        let advice = passed_over.advice().map(|advice| format!("; {advice}")).unwrap_or_default();
        let number = passed_over.count();
        let files = if number == 1 { "file" } else { "files" };
        let text = format!("passed over {number} {files} that palmtop does not read: {passed_over}{advice}");
        // Pictures that nobody looked at are no small matter.
        if passed_over.advice().is_some() { say(format_args!("{text}\n")) } else { console.note(text) }
    }
    Ok(if failed == 0 { Outcome::Done } else { Outcome::SomeFailed })
}

/// What can go wrong with a picture.
enum Failure {
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

/// All that answering needs, made once.
struct Answerer<'a> {
    job: &'a Job,
    model: &'a Model,
    session: Session,
    features: ImageFeatures,
    options: GenerateOptions,
    batch: usize,
}

impl<'a> Answerer<'a> {
    fn new(job: &'a Job, model: &'a Arc<Model>, cancel: CancelToken) -> anyhow::Result<Self> {
        let decoding = &job.common.decoding;
        let batch = decoding.batch.map_or(BATCH_MAX, |n| n as usize).min(job.prompts.len());
        let mut limits = job.common.model.machine.limits();
        limits.batch = batch;
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
        Ok(Self { job, model, features: session.new_features()?, session, options, batch })
    }

    /// Answers all prompts about one picture.
    fn answer_all(
        &mut self,
        source: &Source,
        printer: &mut Printer,
        saver: &mut Saver,
        console: Console,
    ) -> Result<(), Failure> {
        let start = Instant::now();
        let mut options = DecodeOptions::default();
        options.allow_truncated = self.job.common.allow_truncated;
        let Decoded { image: picture, is_truncated, .. } =
            interrupt::while_waiting(|| source.decode(&options))
                .with_context(|| format!("cannot use picture {source}"))
                .map_err(Failure::Picture)?;
        let decode_image = start.elapsed();
        self.model.check_unchanged().map_err(|error| Failure::Everything(error.into()))?;
        self.session.encode(picture.view(), &mut self.features, &self.options).map_err(
            |error| match error {
                palmtop::Error::Image(_) => Failure::Picture(
                    anyhow::Error::new(error).context(format!("cannot use picture {source}")),
                ),
                _ => Failure::Everything(error.into()),
            },
        )?;
        printer.begin_picture(&source.to_string())?;
        if is_truncated {
            console
                .note(format_args!("note: {source} ends too early, so some of what is seen is not its own"));
        }
        let mut all_found = Vec::new();
        for (index, prompts) in self.job.prompts.chunks(self.batch).enumerate() {
            // A cancelled batch leaves its answers so far; the batches behind it are not begun.
            if index > 0 && self.options.cancel.is_cancelled() {
                break;
            }
            all_found.extend(self.answer(
                source,
                (&picture, is_truncated),
                decode_image,
                prompts,
                printer,
                saver,
                console,
            )?);
        }
        saver.save_picture(picture, &all_found, console)?;
        Ok(())
    }

    /// Answers prompts together, prints the answers and gives the objects found.
    fn answer(
        &mut self,
        source: &Source,
        (picture, is_truncated): (&RgbImage, bool),
        decode_image: Duration,
        prompts: &[Prompt],
        printer: &mut Printer,
        saver: &mut Saver,
        console: Console,
    ) -> anyhow::Result<Vec<Found>> {
        let size = (picture.width(), picture.height());
        let texts: Vec<&str> = prompts.iter().map(|p| p.text.as_str()).collect();
        let mut printed = Ok(());
        self.session.answer(&self.features, &texts, &self.options, &mut |piece| {
            printed = printer.piece(piece.text);
            if printed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        printed?;
        let timings = self.session.timings();
        let answers = &self.session.answers()[..prompts.len()];
        // Interrupted before they were begun, answers have nothing to show; if none was begun, there is nothing at all.
        if !answers.iter().any(Answer::is_begun) {
            return Err(palmtop::Error::Cancelled.into());
        }
        let mut all_found = Vec::new();
        for (prompt, answer) in prompts.iter().zip(answers).filter(|(_, answer)| answer.is_begun()) {
            let mut found = read(self.session.model(), answer, size, saver)?;
            let chosen = !self.job.choices.is_empty() && answer.stop == StopReason::EndOfSequence;
            let answered = Answered {
                source: &source.to_string(),
                task: self.job.task,
                prompt: &prompt.text,
                answer,
                score: chosen.then(|| answer.likelihood()),
                found: &found,
                picture: size,
                is_truncated,
                timings: &Timings::new(decode_image, &timings, answer.tokens.len(), prompts.len()),
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

impl Prompt {
    fn new(task: &Task) -> Self {
        Self { question: task.prompt(), text: task.prompt() }
    }
}

impl From<CaptionArgs> for Job {
    fn from(CaptionArgs { common, style, lang: language }: CaptionArgs) -> Self {
        let task = match style {
            Style::Cap => Task::Cap { language },
            Style::Caption => Task::Caption { language },
            Style::Describe => Task::Describe { language },
        };
        Self::of_text("caption", vec![Prompt::new(&task)], common)
    }
}

impl From<AskArgs> for Job {
    fn from(AskArgs { common, questions, choose, lang }: AskArgs) -> Self {
        let prompt = |question: Line| Prompt {
            question: question.to_string(),
            text: Task::Answer { language: lang.clone(), question }.prompt(),
        };
        let mut job = Self::of_text("ask", questions.into_iter().map(prompt).collect(), common);
        job.choices = choose.into_iter().flat_map(|choices| choices.0).collect();
        job
    }
}

impl From<OcrArgs> for Job {
    fn from(OcrArgs { common }: OcrArgs) -> Self {
        Self::of_text("ocr", vec![Prompt::new(&Task::Ocr)], common)
    }
}

impl From<DetectArgs> for Job {
    fn from(DetectArgs { common, labels, save }: DetectArgs) -> Self {
        let task = Task::Detect { labels: all(labels.labels) };
        Self {
            task: "detect",
            prompts: vec![Prompt::new(&task)],
            choices: Vec::new(),
            shown: Shown::Objects,
            common,
            save: save.save,
            save_masks: None,
        }
    }
}

impl From<SegmentArgs> for Job {
    fn from(SegmentArgs { common, labels, save, masks }: SegmentArgs) -> Self {
        let task = Task::Segment { labels: all(labels.labels) };
        Self {
            task: "segment",
            prompts: vec![Prompt::new(&task)],
            choices: Vec::new(),
            shown: Shown::Objects,
            common,
            save: save.save,
            save_masks: masks.save_masks,
        }
    }
}

impl From<RunArgs> for Job {
    fn from(RunArgs { common, prompts, save, masks }: RunArgs) -> Self {
        Self {
            task: "run",
            prompts: prompts.into_iter().map(|text| Prompt::new(&Task::Raw(text))).collect(),
            choices: Vec::new(),
            shown: Shown::Both,
            common,
            save: save.save,
            save_masks: masks.save_masks,
        }
    }
}

impl Job {
    fn of_text(task: &'static str, prompts: Vec<Prompt>, common: AnswerArgs) -> Self {
        Self { task, prompts, choices: Vec::new(), shown: Shown::Text, common, save: None, save_masks: None }
    }
}

fn all(labels: Vec<Labels>) -> Vec<Label> {
    labels.into_iter().flat_map(|labels| labels.0).collect()
}

#[cfg(test)]
mod tests {
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
